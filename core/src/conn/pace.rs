//! A least rate of progress: 1 KiB/s over any window, judged every quarter of it (protocol §5, "Heartbeat").

use crate::time::{NEVER, SECOND};

const OCTETS_PER_SECOND: u64 = 1024;
const QUARTERS: usize = 4;

/// Measures what moves while something waits to move.
#[derive(Clone, Copy)]
pub(crate) struct Pace {
    /// Length of a quarter of the window.
    quarter: u64,
    /// When the present quarter ends; `NEVER` if nothing is measured.
    until: u64,
    /// Octets of the present quarter, and of those before it. Quarters before the start count as plenty.
    present: u64,
    past: [u64; QUARTERS - 1],
}

impl Pace {
    pub(crate) const OFF: Self = Self { quarter: 0, until: NEVER, present: 0, past: [0; QUARTERS - 1] };

    /// Starts to measure.
    pub(crate) fn start(now: u64, window: u64) -> Self {
        let quarter = window / QUARTERS as u64;
        Self { quarter, until: now.saturating_add(quarter), present: 0, past: [u64::MAX / 8; QUARTERS - 1] }
    }

    pub(crate) const fn is_off(&self) -> bool {
        self.until == NEVER
    }

    /// Something moved.
    #[inline]
    pub(crate) fn moved(&mut self, octets: usize) {
        self.present = self.present.saturating_add(octets as u64);
    }

    /// When [`too_slow`](Self::too_slow) wants to be asked.
    pub(crate) const fn next(&self) -> u64 {
        self.until
    }

    /// Judges a quarter that is over. However late it is asked, that counts as one: the time in which the process
    /// itself stood still is not held against the peer.
    pub(crate) fn too_slow(&mut self, now: u64) -> bool {
        if now < self.until {
            return false;
        }
        let moved = self.past.iter().fold(self.present, |sum, octets| sum.saturating_add(*octets));
        self.past.rotate_left(1);
        if let Some(last) = self.past.last_mut() {
            *last = self.present;
        }
        self.present = 0;
        // Without drift, unless more than a quarter was slept through.
        let next = self.until.saturating_add(self.quarter);
        self.until = if next > now { next } else { now.saturating_add(self.quarter) };
        let window = self.quarter.saturating_mul(QUARTERS as u64);
        // A second's worth is granted: pieces that come once a second need not come before the window is judged.
        moved.saturating_add(OCTETS_PER_SECOND) < window.saturating_mul(OCTETS_PER_SECOND) / SECOND
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WINDOW: u64 = 8 * SECOND;

    /// Moves `octets` before each quarter ends; the quarter after which it was too slow, if any did within 40.
    fn run(mut pace: Pace, octets: impl Fn(u32) -> usize) -> Option<u32> {
        (1..=40).find(|&quarter| {
            pace.moved(octets(quarter));
            pace.too_slow(pace.next())
        })
    }

    #[test]
    fn a_peer_at_the_rate_passes_and_one_below_it_does_not() {
        assert_eq!(run(Pace::start(0, WINDOW), |_| 2048), None);
        assert_eq!(run(Pace::start(0, WINDOW), |_| 1700), Some(4));
        assert_eq!(run(Pace::start(0, WINDOW), |_| 0), Some(4));
    }

    #[test]
    fn bursts_are_averaged_over_the_window() {
        assert_eq!(run(Pace::start(0, WINDOW), |quarter| if quarter % 4 == 0 { 8192 } else { 0 }), None);
        assert_eq!(run(Pace::start(0, WINDOW), |quarter| if quarter == 1 { 1 << 20 } else { 0 }), Some(5));
    }

    #[test]
    fn a_pause_of_the_process_counts_once() {
        let mut pace = Pace::start(0, WINDOW);
        assert!(!pace.too_slow(1_000 * SECOND));
        assert!(pace.next() > 1_000 * SECOND);
    }
}
