//! What two nodes share: the time, the line between them, and what is known about every call.

use tieline_core::{
    conn::Disconnect,
    wire::{Ran, Status},
};

use super::{pipe::Pipe, random::Random, tally::Tally};

/// The second octet of the payload of a call that a handler makes.
pub const CALLBACK: u8 = 1;
pub const PLAIN: u8 = 0;

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
}

/// How a line breaks.
pub const BREAKS: [Disconnect; 2] = [Disconnect::Eof, Disconnect::Error("connection reset")];
