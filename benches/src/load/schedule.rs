//! When the calls of an open loop should begin.

use std::ops::Range;
use std::time::{Duration, Instant};

const SECOND: u128 = 1_000_000_000;

/// Call `ticket` (0, 1, 2 …) should begin at `start + ticket / rate`.
///
/// Each time is computed from the ticket, in whole numbers, and never by adding up intervals: no rounding
/// gathers, and a ticket is due exactly from its intended nanosecond on.
#[derive(Clone, Debug)]
pub struct Schedule {
    start: Instant,
    rate: u32,
    /// The tickets of the measured window. None is issued behind them.
    measured: Range<u64>,
}

impl Schedule {
    /// `rate` in calls a second, at least 1; the first ticket is due at `start`.
    pub fn new(start: Instant, rate: u32, warmup: Duration, window: Duration) -> Self {
        Self {
            start,
            rate,
            measured: before(rate, warmup.as_nanos())..before(rate, (warmup + window).as_nanos()),
        }
    }

    /// When this ticket should begin.
    pub fn intended(&self, ticket: u64) -> Instant {
        let nanos = u128::from(ticket) * SECOND / u128::from(self.rate.max(1));
        self.start + Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
    }

    /// How many tickets are due at `now`, never more than the run has.
    pub fn due(&self, now: Instant) -> u64 {
        let since = now.saturating_duration_since(self.start).as_nanos();
        before(self.rate, since + 1).min(self.measured.end)
    }

    /// Whether this ticket's latency belongs to the result.
    pub fn is_measured(&self, ticket: u64) -> bool {
        self.measured.contains(&ticket)
    }
}

/// How many tickets have an intended time under `nanos` after the start.
fn before(rate: u32, nanos: u128) -> u64 {
    let count = (nanos * u128::from(rate)).div_ceil(SECOND);
    u64::try_from(count).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    const RATES: [u32; 6] = [1, 3, 1_000, 30_011, 999_983, 4_000_000];

    fn schedule(rate: u32) -> Schedule {
        Schedule::new(Instant::now(), rate, Duration::from_secs(1), Duration::from_secs(3))
    }

    #[test]
    fn a_ticket_is_due_from_its_intended_nanosecond_on() {
        for rate in RATES {
            let schedule = schedule(rate);
            assert_eq!(schedule.due(schedule.start), 1);
            for ticket in 1..schedule.measured.end.min(1_000) {
                let at = schedule.intended(ticket);
                let before = at.checked_sub(Duration::from_nanos(1)).unwrap();
                assert_eq!(schedule.due(before), ticket, "{rate} calls/s");
                assert_eq!(schedule.due(at), ticket + 1, "{rate} calls/s");
            }
        }
    }

    #[test]
    fn a_run_has_as_many_tickets_as_the_rate_says_and_none_behind_its_end() {
        for rate in RATES {
            let schedule = schedule(rate);
            let hour = schedule.start + Duration::from_secs(3600);
            assert_eq!(schedule.due(hour), u64::from(rate) * 4);
            assert_eq!(schedule.measured, u64::from(rate)..u64::from(rate) * 4);
        }
    }

    #[test]
    fn no_rounding_gathers() {
        let length = Duration::from_secs(1 << 20);
        let schedule = Schedule::new(Instant::now(), 3, Duration::ZERO, length);
        let late = schedule.intended(3_000_000) - schedule.start;
        assert_eq!(late, Duration::from_secs(1_000_000));
        assert_eq!(schedule.due(schedule.start + late), 3_000_001);
    }

    #[test]
    fn the_window_begins_after_the_warm_up() {
        let schedule = schedule(1_000);
        let edges = [999, 1_000, 3_999, 4_000].map(|ticket| schedule.is_measured(ticket));
        assert_eq!(edges, [false, true, true, false]);
    }
}
