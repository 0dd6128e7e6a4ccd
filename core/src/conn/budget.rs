//! The abuse budget: what a peer may cost before the connection is closed (protocol §5, "Abuse budget").

use crate::time::SECOND;

const FULL: u32 = 4096;
const PER_SECOND: u64 = 256;
/// Refusals with a status of class 1 that cost nothing, a second.
const FREE_REFUSALS: u32 = 1000;

/// What the frames cost that earn nothing.
pub(crate) mod cost {
    /// A late frame, a refusal of class 2, a CANCEL, an ack that nobody asked for.
    pub(crate) const SMALL: u32 = 1;
    /// A HEARTBEAT sooner than half the interval after the one before.
    pub(crate) const EARLY_HEARTBEAT: u32 = 8;
    /// A TABLE.
    pub(crate) const TABLE: u32 = 64;

    /// A frame that is late or may be ignored, with this many octets of body.
    pub(crate) const fn ignored(len: u32) -> u32 {
        1 + len / 4096
    }
}

pub(crate) struct Budget {
    points: u32,
    /// Up to when the refill has been credited.
    credited: u64,
    refusals: u32,
    refusals_since: u64,
}

impl Budget {
    pub(crate) const fn new(now: u64) -> Self {
        Self { points: FULL, credited: now, refusals: 0, refusals_since: now }
    }

    /// Takes `cost`; whether the budget is exhausted.
    #[must_use]
    pub(crate) fn charge(&mut self, now: u64, cost: u32) -> bool {
        let earned = now.saturating_sub(self.credited).saturating_mul(PER_SECOND) / SECOND;
        if earned > 0 {
            // What is less than a point stays to be credited later.
            self.credited = self.credited.saturating_add(earned.saturating_mul(SECOND) / PER_SECOND).min(now);
            self.points = self.points.saturating_add(u32::try_from(earned).unwrap_or(FULL)).min(FULL);
        }
        self.points = self.points.saturating_sub(cost);
        self.points == 0
    }

    /// A request was answered by its handler.
    #[inline]
    pub(crate) fn earn(&mut self) {
        if self.points < FULL {
            self.points += 1;
        }
    }

    /// A refusal of class 1: overload must not close connections, a flood of it may.
    #[must_use]
    pub(crate) fn refusal(&mut self, now: u64) -> bool {
        if now.saturating_sub(self.refusals_since) >= SECOND {
            self.refusals_since = now;
            self.refusals = 0;
        }
        self.refusals = self.refusals.saturating_add(1);
        self.refusals > FREE_REFUSALS && self.charge(now, cost::SMALL)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_budget_is_4096_points_and_refills_at_256_a_second() {
        let mut budget = Budget::new(0);
        for _ in 0..4095 {
            assert!(!budget.charge(0, 1));
        }
        assert!(budget.charge(0, 1));
        for tick in 1..=256u64 {
            // Credited in whole points, however often it is asked.
            let _ = budget.charge(tick * SECOND / 256, 0);
        }
        assert_eq!(budget.points, 256);
        assert!(!budget.charge(100 * SECOND, 4095));
    }

    #[test]
    fn answers_earn_a_point_each_up_to_the_full_budget() {
        let mut budget = Budget::new(0);
        let _ = budget.charge(0, 2);
        budget.earn();
        budget.earn();
        budget.earn();
        assert_eq!(budget.points, FULL);
    }

    #[test]
    fn refusals_of_class_1_cost_nothing_below_1000_a_second() {
        let mut budget = Budget::new(0);
        for second in 0..10 {
            for _ in 0..1000 {
                assert!(!budget.refusal(second * SECOND));
            }
        }
        assert_eq!(budget.points, FULL);
        assert!((0..10_000).any(|_| budget.refusal(20 * SECOND)));
    }
}
