//! What two nodes share: the time, the line between them, and what is known about every call.

use std::collections::VecDeque;

use tieline_core::{
    conn::Disconnect,
    wire::{Kind, Ran, Status},
};

use super::{piece::Piece, pipe::Pipe, random::Random, tally::Tally};

/// What became of one call, on both ends.
#[derive(Default)]
pub struct Record {
    pub one_way: bool,
    pub outcome: Option<(Status, Ran)>,
    /// How often the peer's application saw it.
    pub seen: u32,
    /// The peer's application said that it did not start it.
    pub refused: bool,
    pub committed: bool,
    /// In nanoseconds.
    pub deadline: Option<u64>,
    /// 0 while it is not out.
    pub id: u64,
    pub kind: Kind,
    pub key: Vec<u8>,
    /// The argument, behind the name.
    pub argument: Piece,
    /// What the handler answered, and with what.
    pub result: Option<(Status, Piece)>,
    /// Items that were sent and have not come, to the callee and to the caller.
    pub items: [VecDeque<Piece>; 2],
    /// The caller ended its items.
    pub ended: bool,
}

/// What the two nodes of a pair share.
pub struct World {
    pub now: u64,
    pub random: Random,
    pub tally: Tally,
    pub pipes: [Pipe; 2],
    pub records: [Vec<Record>; 2],
    /// A number that any difference between two runs changes.
    pub trace: u64,
    pub talk: bool,
    /// The faults are over: everything must finish.
    pub healed: bool,
}

impl World {
    pub fn note(&mut self, words: &[u64], text: impl FnOnce() -> String) {
        for word in words {
            self.mix(*word);
        }
        if self.talk {
            println!("{:>14.6} {}", self.now as f64 / 1e9, text());
        }
    }

    /// The same for what a readable trace need not show.
    pub fn note_octets(&mut self, octets: &[u8]) {
        for octets in octets.chunks(8) {
            let word = octets.iter().fold(0u64, |word, octet| word << 8 | u64::from(*octet));
            self.mix(word);
        }
    }

    fn mix(&mut self, word: u64) {
        self.trace = (self.trace ^ word).wrapping_mul(0x0000_0100_0000_01B3).rotate_left(23);
    }
}

/// How an application of this run behaves.
#[derive(Clone, Copy)]
pub struct Manners {
    /// Mean pause between two things that it begins, in nanoseconds.
    pub pause: u64,
    pub drains: bool,
    pub closes: bool,
    pub stubborn: bool,
    pub large: bool,
    pub streams: bool,
    /// What the configuration says of compressing.
    pub compress: bool,
    pub compress_from: usize,
}

/// How a line breaks.
pub const BREAKS: [Disconnect; 2] = [Disconnect::Eof, Disconnect::Error("connection reset")];

/// The methods that stream.
pub const STREAMS: [(&str, Kind); 3] =
    [("t.S/Down", Kind::ServerStream), ("t.S/Up", Kind::ClientStream), ("t.S/Both", Kind::Bidi)];
