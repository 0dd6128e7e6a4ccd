//! One direction between two hosts: how fast, in which pieces, and what stands in the way.

/// What a direction is like, and what is wrong with it. Times are nanoseconds.
#[derive(Debug, Clone)]
pub(crate) struct Line {
    pub(crate) latency: u64,
    pub(crate) jitter: u64,
    /// Octets a second.
    pub(crate) bandwidth: Option<u64>,
    /// Sizes of the pieces in which octets travel, and are read.
    pub(crate) slice: Option<(usize, usize)>,
    /// Octets arrive at multiples of this.
    pub(crate) coalesce: u64,
    pub(crate) partial_writes: bool,
    /// What the kernel of the sender holds until it is acknowledged.
    pub(crate) send_buffer: usize,
    /// What the kernel of the receiver holds until it is read.
    pub(crate) receive_buffer: usize,
    pub(crate) refuses: bool,
    pub(crate) unanswered: bool,
    pub(crate) stalled: bool,
    pub(crate) parted: bool,
    pub(crate) black: bool,
    /// Nothing is delivered before.
    pub(crate) held_until: u64,
    /// When the line has sent what it was given.
    pub(crate) free_at: u64,
}

/// The longest piece that travels at once.
const PIECE: usize = 64 * 1024;
/// The shortest into which anything is cut without being told to.
const SEGMENT: usize = 1448;

impl Line {
    /// A quiet local network.
    pub(crate) const fn between_hosts() -> Self {
        Self {
            latency: 100_000,
            jitter: 50_000,
            bandwidth: None,
            slice: None,
            coalesce: 0,
            partial_writes: false,
            send_buffer: 256 * 1024,
            receive_buffer: 256 * 1024,
            refuses: false,
            unanswered: false,
            stalled: false,
            parted: false,
            black: false,
            held_until: 0,
            free_at: 0,
        }
    }

    /// From a host to itself.
    pub(crate) const fn loopback() -> Self {
        Self { latency: 10_000, jitter: 0, ..Self::between_hosts() }
    }

    /// Nothing is wrong with it any more. What it is like stays.
    pub(crate) fn heal(&mut self) {
        self.refuses = false;
        self.unanswered = false;
        self.stalled = false;
        self.parted = false;
        self.black = false;
        self.held_until = 0;
    }

    /// How long a piece of so many octets keeps it busy.
    pub(crate) fn takes(&self, octets: usize) -> u64 {
        let Some(bandwidth) = self.bandwidth else { return 0 };
        let nanos = octets as u128 * 1_000_000_000 / u128::from(bandwidth.max(1));
        u64::try_from(nanos).unwrap_or(u64::MAX)
    }

    /// The longest piece that it takes at once: about a millisecond of it, so that connections share it.
    pub(crate) fn piece(&self) -> usize {
        match self.bandwidth {
            None => PIECE,
            Some(bandwidth) => usize::try_from(bandwidth / 1000).unwrap_or(PIECE).clamp(SEGMENT, PIECE),
        }
    }

    /// When what would arrive at `due` does arrive.
    pub(crate) fn together(&self, due: u64) -> u64 {
        if self.coalesce == 0 { due } else { due.div_ceil(self.coalesce).saturating_mul(self.coalesce) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_takes_its_time_by_its_bandwidth() {
        let mut line = Line::between_hosts();
        assert_eq!((line.takes(1 << 20), line.piece()), (0, PIECE));
        line.bandwidth = Some(1_000_000);
        assert_eq!((line.takes(1000), line.piece()), (1_000_000, SEGMENT));
        line.bandwidth = Some(0);
        assert_eq!(line.takes(1), 1_000_000_000, "as slow as one octet a second");
    }

    #[test]
    fn what_is_coalesced_arrives_at_the_end_of_its_interval() {
        let mut line = Line::between_hosts();
        assert_eq!(line.together(1001), 1001);
        line.coalesce = 1000;
        assert_eq!((line.together(1000), line.together(1001)), (1000, 2000));
    }
}
