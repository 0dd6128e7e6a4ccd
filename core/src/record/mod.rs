//! A flight recorder: what a connection was told and did, to be looked at when it has come to grief.
//!
//! A connection whose configuration asks for it ([`ConfigBuilder::record`](crate::conn::ConfigBuilder::record)) writes
//! down every verb, with its time and its octets, into a ring. [`Connection::recording`](crate::conn::Connection::recording)
//! gives it out; [`Recording::replay`] steps it again, on a real connection, and tells in words what came, what was decided
//! and what went out. The core is deterministic (law L13), so a recording that is complete replays exactly, and a build
//! that behaves otherwise is found at the step where it does.
//!
//! | file | its one idea |
//! |---|---|
//! | `recorder.rs` | the beginning for good, the rest in a ring of parts |
//! | `scan.rs`, `mask.rs` | what of the octets is kept: headers and envelopes, never a credential |
//! | `entry.rs`, `pieces.rs` | what is written down of each verb, and of octets |
//! | `put.rs`, `read.rs`, `ink.rs` | how it is written down, and read back |
//! | `form.rs`, `setup.rs` | the file, with a check sum a section; the configuration in it |
//! | `replay.rs`, `words.rs` | doing it again; saying it in words |
//!
//! ```
//! use tieline_core::{Instant, conn::*, record::{Record, Recording}, wire::Status};
//!
//! let config = Config::builder("node").record(Record::new()).build()?;
//! let now = Instant::from_nanos(1);
//! let mut conn: Connection<()> = Connection::new(config, Side::Server, 7, now);
//! conn.handle_input(now, (&b"GET / HTTP/1.1\r\n\r\n"[..]).into());
//! while conn.poll_event(now).is_some() {}
//!
//! let octets = conn.recording().expect("it is asked for").note("why", "a stranger").to_octets();
//! let mut told = String::new();
//! let verdict = Recording::parse(&octets)?.replay(&mut told)?;
//! assert!(verdict.is_same());
//! assert!(told.contains("PROTOCOL_ERROR"));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod entry;
mod form;
mod ink;
mod mask;
mod pieces;
mod put;
mod read;
mod recorder;
mod replay;
mod scan;
mod setup;
#[cfg(test)]
mod tests;
mod words;

pub(crate) use self::{
    entry::{Answered, Entry, Found, How, Told},
    form::Start,
    pieces::Pieces,
    recorder::{Recorder, View},
    words::Name,
};
pub use self::{
    form::{Recording, RecordingError},
    replay::Verdict,
};

/// What a connection records of itself, and how much.
///
/// ```
/// use tieline_core::record::Record;
///
/// let record = Record::new().octets(1 << 20).payload(0);
/// # let _ = record;
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Record {
    pub(crate) octets: usize,
    pub(crate) payload: usize,
}

impl Record {
    /// 256 KiB a connection, and 64 octets of each payload.
    #[must_use]
    pub const fn new() -> Self {
        Self { octets: 256 << 10, payload: 64 }
    }

    /// How many octets of entries are kept behind check-in, about: 16 KiB to 1 GiB, default 256 KiB, which is a few
    /// thousand small calls. Each connection holds so much once it has had so much to tell.
    #[must_use]
    pub const fn octets(mut self, octets: usize) -> Self {
        self.octets = octets;
        self
    }

    /// How many octets of each payload are kept, in and out: default 64. The rest is zeros in a replay, which makes no
    /// difference to the core. What is compressed is kept whole, because there it does. Headers and envelopes, with the
    /// metadata in them, are always kept; credentials never are.
    #[must_use]
    pub const fn payload(mut self, octets: usize) -> Self {
        self.payload = octets;
        self
    }
}

impl Default for Record {
    fn default() -> Self {
        Self::new()
    }
}
