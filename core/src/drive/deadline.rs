//! Who is due next, among many who each have one deadline that mostly moves later.

use crate::{conn::deadlines::Deadlines, time::Instant, time::instant};

/// A deadline for each of many small numbers.
///
/// A deadline that only moves later is not moved: [`arm`](Self::arm) leaves an earlier one as it is, the number fires
/// then, finds that it is not due, and is armed anew. So a connection on which octets flow costs a comparison a turn
/// instead of a timer that is taken out and put in again.
///
/// A number that fires is no longer armed. Those whose deadlines come in order fire on time; others up to a millisecond
/// late; none fires early. Arming, disarming and asking for the next are O(1); the memory is 24 octets for each number
/// up to the highest that was ever armed, and 2 KiB once for those that do not come in order.
///
/// ```
/// use core::time::Duration;
/// use tieline_core::{Instant, drive::DeadlineIndex};
///
/// let now = Instant::from_nanos(1);
/// let after = |seconds| now.saturating_add(Duration::from_secs(seconds));
/// let mut deadlines = DeadlineIndex::new();
/// deadlines.arm(4, after(10), now);
/// deadlines.arm(4, after(12), now); // later: it stays as it was
/// assert_eq!(deadlines.next(), Some(after(10)));
///
/// let mut fired = Vec::new();
/// deadlines.expire(after(11), |number| fired.push(number));
/// assert_eq!((fired, deadlines.next()), (vec![4], None));
/// ```
#[derive(Default)]
pub struct DeadlineIndex {
    deadlines: Deadlines,
    armed: usize,
}

impl DeadlineIndex {
    /// Nothing is armed, and nothing takes memory.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Arms `number` for `at`, unless it is armed for a time before that. `now` is the present.
    #[inline]
    pub fn arm(&mut self, number: u32, at: Instant, now: Instant) {
        match self.deadlines.armed(number) {
            Some(armed) if armed <= at.as_nanos() => {}
            Some(_) => self.deadlines.insert(number, at.as_nanos(), now.as_nanos()),
            None => {
                self.deadlines.insert(number, at.as_nanos(), now.as_nanos());
                self.armed += 1;
            }
        }
    }

    /// Disarms `number`, if it is armed.
    pub fn disarm(&mut self, number: u32) {
        if self.deadlines.armed(number).is_some() {
            self.deadlines.remove(number);
            self.armed = self.armed.saturating_sub(1);
        }
    }

    /// When [`expire`](Self::expire) is to be called next: not later than a millisecond after the first deadline.
    #[must_use]
    #[inline]
    pub fn next(&self) -> Option<Instant> {
        if self.armed == 0 { None } else { instant(self.deadlines.next()) }
    }

    /// Disarms all who are due at `now`, and hands each to `due`.
    pub fn expire(&mut self, now: Instant, mut due: impl FnMut(u32)) {
        let armed = &mut self.armed;
        self.deadlines.expire(now.as_nanos(), |number| {
            *armed = armed.saturating_sub(1);
            due(number);
        });
    }

    /// How many are armed.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.armed
    }

    /// Whether nobody is armed.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.armed == 0
    }
}

impl core::fmt::Debug for DeadlineIndex {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("DeadlineIndex").field("armed", &self.armed).field("next", &self.next()).finish()
    }
}

#[cfg(test)]
mod tests {
    use alloc::{collections::BTreeMap, vec::Vec};

    use proptest::prelude::*;

    use super::*;
    use crate::time::MILLISECOND;

    proptest! {
        /// The index against a map in which a deadline is only ever moved to an earlier time.
        #[test]
        fn agrees_with_a_map(
            steps in proptest::collection::vec((0u32..20, 0u64..30_000, 0u64..5_000, 0u8..5), 1..200),
        ) {
            let mut index = DeadlineIndex::new();
            let mut model: BTreeMap<u32, u64> = BTreeMap::new();
            let mut now = 1_000 * MILLISECOND;
            for (number, after, pass, what) in steps {
                match what {
                    0..=2 => {
                        let at = now + after * MILLISECOND;
                        index.arm(number, Instant::from_nanos(at), Instant::from_nanos(now));
                        let known = model.entry(number).or_insert(at);
                        *known = at.min(*known);
                    }
                    3 => {
                        index.disarm(number);
                        model.remove(&number);
                    }
                    _ => now += pass * MILLISECOND,
                }
                let mut fired = Vec::new();
                index.expire(Instant::from_nanos(now), |number| fired.push(number));
                for number in fired {
                    let at = model.remove(&number);
                    prop_assert!(at.is_some_and(|at| at <= now), "{} fired early", number);
                }
                prop_assert!(model.values().all(|at| *at > now), "somebody is late");
                prop_assert_eq!((index.len(), index.is_empty()), (model.len(), model.is_empty()));
                prop_assert_eq!(index.next().is_none(), model.is_empty());
                prop_assert!(index.next().is_none_or(|next| next.as_nanos() > now));
            }
        }
    }

    /// Ten thousand connections beat every ten seconds, and octets flow on one of them all the time.
    #[test]
    fn a_deadline_that_moves_later_is_left_alone() {
        let mut index = DeadlineIndex::new();
        let mut now = Instant::from_nanos(1);
        for number in 0..10_000 {
            index.arm(number, Instant::from_nanos(10_000 * MILLISECOND), now);
        }
        for step in 0..1_000 {
            now = Instant::from_nanos(1 + step);
            index.arm(77, Instant::from_nanos(20_000 * MILLISECOND + step), now);
        }
        let mut fired = 0;
        index.expire(Instant::from_nanos(10_000 * MILLISECOND), |_| fired += 1);
        assert_eq!((fired, index.len()), (10_000, 0));
    }
}
