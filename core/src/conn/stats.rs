//! What a connection counts.

/// Counters of one connection since it began.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stats {
    /// Octets that arrived.
    pub octets_in: u64,
    /// Octets that the transport took.
    pub octets_out: u64,
    /// Frames that were decoded.
    pub frames_in: u64,
    /// Frames that were committed.
    pub frames_out: u64,
    /// Calls of this side that went out, one-ways among them.
    pub calls_out: u64,
    /// Calls of the peer whose handler started, one-ways among them.
    pub calls_in: u64,
    /// Calls of the peer that were refused with a status of class 1 or 2.
    pub refused: u64,
    /// Frames for calls that are no longer open.
    pub late_frames: u64,
    /// One-ways of the peer that were dropped.
    pub dropped_one_ways: u64,
    /// Heartbeats that were sent.
    pub heartbeats_out: u64,
    /// Heartbeats that arrived.
    pub heartbeats_in: u64,
    /// Calls whose signature differed where the codec allows to go on.
    pub signature_mismatches: u64,
    /// Stream items that were committed.
    pub items_out: u64,
    /// Stream items that arrived whole and were queued for the application.
    pub items_in: u64,
    /// Octets that compression saved, of what this side sent.
    pub octets_saved: u64,
}

impl Stats {
    /// All of them, in their order.
    pub(crate) fn counters(&mut self) -> [&mut u64; 15] {
        let Self {
            octets_in,
            octets_out,
            frames_in,
            frames_out,
            calls_out,
            calls_in,
            refused,
            late_frames,
            dropped_one_ways,
            heartbeats_out,
            heartbeats_in,
            signature_mismatches,
            items_out,
            items_in,
            octets_saved,
        } = self;
        [
            octets_in,
            octets_out,
            frames_in,
            frames_out,
            calls_out,
            calls_in,
            refused,
            late_frames,
            dropped_one_ways,
            heartbeats_out,
            heartbeats_in,
            signature_mismatches,
            items_out,
            items_in,
            octets_saved,
        ]
    }
}

/// Sums up connections, field by field.
impl core::ops::AddAssign for Stats {
    fn add_assign(&mut self, mut other: Self) {
        for (sum, more) in self.counters().into_iter().zip(other.counters()) {
            *sum = sum.saturating_add(*more);
        }
    }
}
