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
    /// What moved at one instant, last, and when that was: in how many steps is not seen (L6).
    piece: u64,
    moved_at: u64,
}

impl Pace {
    pub(crate) const OFF: Self =
        Self { quarter: 0, until: NEVER, present: 0, past: [0; QUARTERS - 1], piece: 0, moved_at: 0 };

    /// Starts to measure.
    pub(crate) fn start(now: u64, window: u64) -> Self {
        let quarter = window / QUARTERS as u64;
        Self {
            quarter,
            until: now.saturating_add(quarter),
            present: 0,
            past: [u64::MAX / 8; QUARTERS - 1],
            piece: 0,
            moved_at: now,
        }
    }

    pub(crate) const fn is_off(&self) -> bool {
        self.until == NEVER
    }

    /// Something moved.
    #[inline]
    pub(crate) fn moved(&mut self, now: u64, octets: usize) {
        let octets = octets as u64;
        self.present = self.present.saturating_add(octets);
        self.piece = if now == self.moved_at { self.piece.saturating_add(octets) } else { octets };
        self.moved_at = now;
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
        // One piece more is granted: where pieces fall against the window is chance.
        moved.saturating_add(self.piece) < window.saturating_mul(OCTETS_PER_SECOND) / SECOND
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WINDOW: u64 = 8 * SECOND;

    /// Moves `octets` in pieces of up to 256 before each quarter ends; the quarter after which it was too slow, if any
    /// did within 40.
    fn run(mut pace: Pace, octets: impl Fn(u32) -> usize) -> Option<u32> {
        (1..=40).find(|&quarter| {
            let octets = octets(quarter);
            let pieces = core::iter::repeat_n(256, octets / 256).chain([octets % 256]);
            for (at, piece) in (pace.next() - SECOND..).zip(pieces) {
                pace.moved(at, piece);
            }
            pace.too_slow(pace.next())
        })
    }

    #[test]
    fn a_peer_at_the_rate_passes_and_one_below_it_does_not() {
        assert_eq!(run(Pace::start(0, WINDOW), |_| 2048), None);
        assert_eq!(run(Pace::start(0, WINDOW), |_| 1970), Some(4));
        assert_eq!(run(Pace::start(0, WINDOW), |_| 0), Some(4));
    }

    #[test]
    fn pieces_at_the_rate_may_fall_anywhere_against_the_window() {
        for offset in [1, SECOND / 2, SECOND - 1] {
            let mut pace = Pace::start(0, WINDOW);
            let mut at = offset;
            for _ in 0..100 {
                while pace.next() < at {
                    assert!(!pace.too_slow(pace.next()), "a KiB each second, the first at {offset}");
                }
                pace.moved(at, 1024);
                at += SECOND;
            }
        }
    }

    #[test]
    fn bursts_are_averaged_over_the_window() {
        assert_eq!(run(Pace::start(0, WINDOW), |quarter| if quarter % 4 == 0 { 8192 } else { 0 }), None);
        assert_eq!(run(Pace::start(0, WINDOW), |quarter| if quarter == 1 { 1 << 20 } else { 0 }), Some(5));
    }

    #[test]
    fn what_comes_at_one_instant_is_one_piece_however_it_is_cut() {
        let burst = |pieces: usize| {
            let mut pace = Pace::start(0, WINDOW);
            (0..pieces).for_each(|_| pace.moved(1, 8192 / pieces));
            let mut slow = || pace.too_slow(pace.next());
            (1..=40).find(|_| slow())
        };
        assert_eq!(burst(1), burst(64));
        assert_eq!(burst(1), None, "a piece that is worth a window");
        let mut pace = Pace::start(0, WINDOW);
        (0..64).for_each(|at| pace.moved(at, 128));
        let mut slow = || pace.too_slow(pace.next());
        assert_eq!((1..=40).find(|_| slow()), Some(5), "the same, octets trickling");
    }

    #[test]
    fn a_pause_of_the_process_counts_once() {
        let mut pace = Pace::start(0, WINDOW);
        assert!(!pace.too_slow(1_000 * SECOND));
        assert!(pace.next() > 1_000 * SECOND);
    }
}
