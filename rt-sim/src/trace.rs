//! What happened: a ring of the last entries for people, and a hash of all of them.

use std::{
    collections::{VecDeque, vec_deque::Iter},
    fmt,
    sync::Arc,
    time::Duration,
};

use crate::fault::Fault;

/// Entries that are kept.
const ENTRIES: usize = 4096;

/// What an entry of the trace says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum What {
    /// The host was started.
    Started,
    /// The host's first future has ended.
    Ended,
    /// The host listens.
    Listens,
    /// The host dials.
    Dials,
    /// The host's dialling has succeeded.
    Connected,
    /// The host has accepted a connection.
    Accepted,
    /// Octets were written by the host.
    Wrote,
    /// Octets came to the host's kernel.
    Arrived,
    /// Octets were read by the host.
    Read,
    /// The end of a stream came to the host's kernel.
    Eof,
    /// A connection of the host was reset by its peer, or given up by its kernel.
    Reset,
    /// The host closed a connection.
    Closed,
    /// The host goes on after a pause.
    Resumed,
    /// A fault had an effect at this host.
    Fault(Fault),
}

impl What {
    const fn code(self) -> u64 {
        match self {
            Self::Started => 1,
            Self::Ended => 2,
            Self::Listens => 3,
            Self::Dials => 4,
            Self::Connected => 5,
            Self::Accepted => 6,
            Self::Wrote => 7,
            Self::Arrived => 8,
            Self::Read => 9,
            Self::Eof => 10,
            Self::Reset => 11,
            Self::Closed => 12,
            Self::Resumed => 13,
            Self::Fault(fault) => 100 + fault as u64,
        }
    }

    const fn name(self) -> &'static str {
        match self {
            Self::Started => "started",
            Self::Ended => "ended",
            Self::Listens => "listens",
            Self::Dials => "dials",
            Self::Connected => "connected",
            Self::Accepted => "accepted",
            Self::Wrote => "wrote",
            Self::Arrived => "arrived",
            Self::Read => "read",
            Self::Eof => "end of stream",
            Self::Reset => "reset",
            Self::Closed => "closed",
            Self::Resumed => "resumed",
            Self::Fault(fault) => fault.name(),
        }
    }
}

/// An entry of the trace.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Entry {
    /// When, since the beginning of the run.
    pub at: Duration,
    /// At which host.
    pub host: Arc<str>,
    /// What.
    pub what: What,
    /// The number of the connection, if it is about one; they count from 1.
    pub connection: u64,
    /// How many octets, if it is about octets.
    pub octets: u64,
}

impl fmt::Display for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { at, host, what, connection, octets } = self;
        write!(f, "{:>6}.{:09} {host:<8} {}", at.as_secs(), at.subsec_nanos(), what.name())?;
        if *octets > 0 {
            write!(f, " {octets}")?;
        }
        if *connection > 0 {
            write!(f, " on connection {connection}")?;
        }
        Ok(())
    }
}

#[derive(Debug)]
pub(crate) struct Trace {
    entries: VecDeque<Entry>,
    hash: u64,
    count: u64,
}

impl Trace {
    pub(crate) const fn new() -> Self {
        Self { entries: VecDeque::new(), hash: 0xCBF2_9CE4_8422_2325, count: 0 }
    }

    /// Only into the hash: what is too much to be kept, or cannot be shown.
    pub(crate) fn mix(&mut self, value: u64) {
        self.hash = (self.hash ^ value).wrapping_mul(0x0000_0100_0000_01B3).rotate_left(23);
    }

    pub(crate) fn push(&mut self, host: usize, entry: Entry) {
        self.count += 1;
        self.mix(u64::try_from(entry.at.as_nanos()).unwrap_or(u64::MAX));
        self.mix(host as u64);
        self.mix(entry.what.code());
        self.mix(entry.connection);
        self.mix(entry.octets);
        if self.entries.len() >= ENTRIES {
            self.entries.pop_front();
        }
        self.entries.push_back(entry);
    }

    pub(crate) const fn hash(&self) -> u64 {
        self.hash
    }

    pub(crate) const fn count(&self) -> u64 {
        self.count
    }

    pub(crate) fn entries(&self) -> Iter<'_, Entry> {
        self.entries.iter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(octets: u64) -> Entry {
        let at = Duration::from_millis(12_003);
        Entry { at, host: "one".into(), what: What::Wrote, connection: 3, octets }
    }

    #[test]
    fn the_ring_is_bounded_and_the_hash_knows_all_that_went_through_it() {
        let run = |octets: u64| {
            let mut trace = Trace::new();
            (0..=ENTRIES as u64).for_each(|n| trace.push(0, entry(if n == 0 { octets } else { 1 })));
            (trace.hash(), trace.entries().len(), trace.count())
        };
        let (hash, kept, count) = run(1);
        assert_eq!((kept, count), (ENTRIES, ENTRIES as u64 + 1));
        assert_eq!(hash, run(1).0);
        assert_ne!(hash, run(2).0, "an entry that has left the ring");
    }

    #[test]
    fn an_entry_is_a_line() {
        assert_eq!(entry(18).to_string(), "    12.003000000 one      wrote 18 on connection 3");
    }
}
