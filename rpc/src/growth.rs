//! Windows that grow for readers that keep up.
//!
//! A window is what a sender may have on its way before it must hear from the reader: on a fast line, or a far one, that
//! is what bounds a stream, however fast both ends are. So a reader that takes a whole window within a short time, and had
//! taken all that had come at least once meanwhile, lets as much again come: its window doubles, up to [`TIMES`] of what
//! `stream_window` of the limits says. What a stream holds whose reader stops then is more, therefore all streams of a
//! connection together grow by no more than [`MOST`]; and a caller that has said how much credit a stream has is taken at
//! its word.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use tieline_core::{Instant, conn::ITEM_COST};

/// The longest window, in those at the beginning: 1 MiB by default, which is 1 Gbit/s at 8 ms of round trip.
const TIMES: u32 = 16;
/// Octets by which the windows of one connection grow together.
const MOST: u32 = 4 << 20;
/// Who takes longer for a window is not held up by it on any line.
const SOON: Duration = Duration::from_millis(100);

/// What the windows of a connection have grown by.
#[derive(Debug, Default, Clone)]
pub(crate) struct Grown(Option<Arc<AtomicU32>>);

/// The window of one stream.
#[derive(Debug, Default)]
pub(crate) struct Growth {
    /// In octets; 0 while it is what it was at the beginning.
    window: u32,
    /// The cost of what was taken since then; of what came compressed that is more than it cost.
    taken: usize,
    since: Option<Instant>,
    /// All that had come was taken meanwhile.
    emptied: bool,
    share: Share,
}

/// A stream's part of what the connection's have grown by, which it gives back.
#[derive(Debug, Default)]
struct Share {
    grown: Grown,
    octets: u32,
}

impl Share {
    /// Whether there are so many octets for this stream.
    fn take(&mut self, of: &mut Grown, octets: u32) -> bool {
        let all = of.0.get_or_insert_default();
        let more = |grown: u32| grown.checked_add(octets).filter(|grown| *grown <= MOST);
        if all.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).is_err() {
            return false;
        }
        self.grown = of.clone();
        self.octets += octets;
        true
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        if let Some(all) = &self.grown.0 {
            all.fetch_sub(self.octets, Ordering::Relaxed);
        }
    }
}

impl Growth {
    /// The reader has taken so many items of so many octets together; and all that had come, or not. How much more is to
    /// come, if the window, which began as `first`, grows.
    pub(crate) fn took(
        &mut self,
        now: Instant,
        first: u32,
        (items, octets): (usize, usize),
        emptied: bool,
        of: &mut Grown,
    ) -> Option<u32> {
        let window = if self.window == 0 { first } else { self.window };
        let since = *self.since.get_or_insert(now);
        let cost = items.saturating_mul(ITEM_COST as usize).saturating_add(octets);
        self.taken = self.taken.saturating_add(cost);
        self.emptied |= emptied;
        if self.taken < window as usize {
            return None;
        }
        let keeps_up = self.emptied && now.saturating_since(since) <= SOON;
        (self.taken, self.since, self.emptied) = (0, Some(now), false);
        let longer = window.checked_mul(2).filter(|longer| *longer <= first.saturating_mul(TIMES))?;
        if !keeps_up || !self.share.take(of, window) {
            return None;
        }
        self.window = longer;
        Some(window)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const FIRST: u32 = 64 << 10;

    /// Takes a window's worth every so many milliseconds; by how much the window has grown after so many of them.
    fn grows(grown: &mut Grown, windows: u64, every: u64, emptied: bool) -> (Growth, u32) {
        let mut growth = Growth::default();
        let mut sum = 0;
        for n in 0..windows {
            let now = Instant::from_nanos((n + 1) * every * 1_000_000);
            let window = FIRST + sum;
            // In pieces, of which one is the last that had come.
            for piece in 0..4 {
                let taken = (0, window as usize / 4);
                let last = emptied && piece == 3;
                sum += growth.took(now, FIRST, taken, last, grown).unwrap_or(0);
            }
        }
        (growth, sum)
    }

    #[test]
    fn a_window_doubles_for_a_reader_that_keeps_up_and_ends_at_16_times() {
        for (windows, sum) in [(1, 1), (2, 3), (3, 7), (4, 15), (5, 15), (100, 15)] {
            assert_eq!(grows(&mut Grown::default(), windows, 1, true).1, sum * FIRST, "{windows}");
        }
    }

    #[test]
    fn nothing_grows_for_a_reader_that_is_slow_or_behind() {
        assert_eq!(grows(&mut Grown::default(), 100, 1, false).1, 0);
        // From the first window to the second one it took too long.
        assert_eq!(grows(&mut Grown::default(), 100, 101, true).1, FIRST);
        assert!(grows(&mut Grown::default(), 100, 99, true).1 > FIRST);
    }

    #[test]
    fn the_windows_of_a_connection_share_what_they_grow_by() {
        let mut grown = Grown::default();
        let mut streams: Vec<_> = (0..10).map(|_| grows(&mut grown, 100, 1, true)).collect();
        let sum: u32 = streams.iter().map(|(_, sum)| sum).sum();
        assert!(sum <= MOST && sum > MOST - FIRST, "{sum}");
        assert_eq!(grows(&mut grown, 100, 1, true).1, 0);
        // What has ended gives back.
        streams.remove(0);
        assert_eq!(grows(&mut grown, 100, 1, true).1, 15 * FIRST);
        drop(streams);
        assert_eq!(grown.0.unwrap().load(Ordering::Relaxed), 0);
    }

    #[test]
    fn a_window_of_any_length_bears_it() {
        for first in [1, 100, u32::MAX / 3, i32::MAX as u32] {
            let mut growth = Growth::default();
            for n in 1..100 {
                let taken = (usize::MAX, usize::MAX);
                growth.took(Instant::from_nanos(n), first, taken, true, &mut Grown::default());
            }
            assert!(growth.window <= first.saturating_mul(TIMES));
        }
    }
}
