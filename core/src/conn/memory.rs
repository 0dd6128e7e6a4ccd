//! Octets of arguments that have arrived, over all connections of one configuration (protocol §5, "Limits bind the
//! requester").
//!
//! A connection knows its own octets exactly and draws on the shared counter in large steps, so that the straight way
//! of a small call only compares two numbers of its own. What it has drawn and does not need goes back when it is
//! idle, or when it is several steps too much.

use core::sync::atomic::{AtomicUsize, Ordering};

/// What a connection draws at once, as long as there is plenty.
const STEP: usize = 16 * 1024;

/// The counter that connections share.
#[derive(Debug, Default)]
pub(crate) struct Shared {
    drawn: AtomicUsize,
}

impl Shared {
    /// Draws `missing` octets or a little more, if the limit allows; how many. When half of the limit is used there is
    /// no more than is missing, so that idle connections do not keep busy ones from what they do not use.
    fn draw(&self, missing: usize, limit: usize) -> Option<usize> {
        let step = missing.checked_next_multiple_of(STEP).unwrap_or(missing);
        let up_to = |octets: usize, limit: usize| {
            move |drawn: usize| drawn.checked_add(octets).filter(|drawn| *drawn <= limit)
        };
        let draw = |octets, limit| {
            let more = up_to(octets, limit);
            self.drawn.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).is_ok().then_some(octets)
        };
        draw(step, limit / 2).or_else(|| draw(missing, limit))
    }
}

/// What one connection has drawn.
#[derive(Debug, Default)]
pub(crate) struct Lease {
    drawn: usize,
}

impl Lease {
    /// Whether so many octets in all are covered by what was drawn before.
    #[inline]
    pub(crate) const fn covers(&self, octets: usize) -> bool {
        octets <= self.drawn
    }

    /// Sees to it that `octets` in all are covered; `false` if the server's memory is used up.
    #[inline]
    #[must_use]
    pub(crate) fn cover(&mut self, octets: usize, shared: &Shared, limit: usize) -> bool {
        self.covers(octets) || self.draw(octets - self.drawn, shared, limit)
    }

    #[cold]
    fn draw(&mut self, missing: usize, shared: &Shared, limit: usize) -> bool {
        let drawn = shared.draw(missing, limit);
        self.drawn += drawn.unwrap_or(0);
        drawn.is_some()
    }

    /// Gives back what is several steps more than `octets`.
    #[inline]
    pub(crate) fn trim(&mut self, octets: usize, shared: &Shared) {
        if self.drawn > octets.saturating_add(4 * STEP) {
            self.shrink(octets.saturating_add(STEP), shared);
        }
    }

    /// Gives back all but `octets`.
    #[cold]
    pub(crate) fn shrink(&mut self, octets: usize, shared: &Shared) {
        let excess = self.drawn.saturating_sub(octets);
        self.drawn -= excess;
        shared.drawn.fetch_sub(excess, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_connections_share_and_give_back() {
        let (shared, limit) = (Shared::default(), 4 * STEP);
        let (mut one, mut two) = (Lease::default(), Lease::default());
        assert!(one.cover(STEP + 1, &shared, limit) && one.covers(2 * STEP));
        assert!(two.cover(10, &shared, limit) && !two.covers(11), "half is used: no more than is missing");
        assert!(!two.cover(2 * STEP + 1, &shared, limit), "one has drawn two steps");
        one.shrink(0, &shared);
        assert!(two.cover(2 * STEP + 1, &shared, limit));
        two.shrink(0, &shared);
        assert_eq!(shared.drawn.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn the_last_octets_can_be_had_though_a_step_cannot() {
        let shared = Shared::default();
        let mut lease = Lease::default();
        assert!(lease.cover(100, &shared, 150));
        assert!(lease.cover(150, &shared, 150));
        assert!(!lease.cover(151, &shared, 150));
    }

    #[test]
    fn much_more_than_is_needed_goes_back() {
        let shared = Shared::default();
        let mut lease = Lease::default();
        assert!(lease.cover(10 * STEP, &shared, usize::MAX));
        lease.trim(6 * STEP, &shared);
        assert!(lease.covers(10 * STEP));
        lease.trim(STEP, &shared);
        assert!(lease.covers(2 * STEP) && !lease.covers(2 * STEP + 1));
    }
}
