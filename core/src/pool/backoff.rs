//! When to dial again (protocol §5, "Reconnecting").

use core::time::Duration;

use crate::wire::Status;

/// The longest wait that growth leads to.
const MOST: Duration = Duration::from_secs(30);
/// The least wait after the peer, or this side, found the other at fault: dialling at once would end the same way.
const AFTER_FAULT: Duration = Duration::from_secs(30);
/// No peer can ask for a longer one.
const MOST_ASKED: Duration = Duration::from_secs(300);

/// The waits between attempts to connect: `d` = 100 ms × 1.6 up to 30 s, each wait drawn from `[d/2, d]`, so that the
/// clients of a server that restarts do not come back all at once.
///
/// ```
/// use core::time::Duration;
/// use tieline_core::pool::Backoff;
///
/// let mut backoff = Backoff::new(Duration::from_millis(100), 42);
/// let first = backoff.next(None, None);
/// assert!(first >= Duration::from_millis(50) && first <= Duration::from_millis(100));
/// ```
#[derive(Debug, Clone)]
pub struct Backoff {
    base: Duration,
    next: Duration,
    fault: Duration,
    seed: u64,
}

impl Backoff {
    /// Starts at `base` (the protocol's default is 100 ms; clamped to 1 ms – 30 s). `seed` draws the waits.
    #[must_use]
    pub fn new(base: Duration, seed: u64) -> Self {
        let base = base.clamp(Duration::from_millis(1), MOST);
        Self { base, next: base, fault: AFTER_FAULT, seed }
    }

    /// How long to wait before the next attempt. `closed` is how the connection before ended, if there was one and it
    /// said so: after `PROTOCOL_ERROR`, `VERSION_UNSUPPORTED`, `CHECK_IN_REFUSED` and `IDENTITY_CONFLICT` the wait is
    /// 30 s to 5 min. `retry_after` is what the peer asked for; at most 5 min of it are granted.
    pub fn next(&mut self, closed: Option<Status>, retry_after: Option<Duration>) -> Duration {
        let at_fault = matches!(
            closed,
            Some(
                Status::PROTOCOL_ERROR
                    | Status::VERSION_UNSUPPORTED
                    | Status::CHECK_IN_REFUSED
                    | Status::IDENTITY_CONFLICT
            )
        );
        let wait = if at_fault {
            let wait = self.draw(self.fault, 2 * self.fault);
            self.fault = (self.fault * 2).min(MOST_ASKED / 2);
            wait
        } else {
            let wait = self.draw(self.next / 2, self.next);
            self.next = self.next.mul_f64(1.6).min(MOST);
            wait
        };
        wait.max(retry_after.unwrap_or_default().min(MOST_ASKED))
    }

    /// A connection was checked in and lived for three heartbeat intervals: begin from the base again.
    pub const fn reset(&mut self) {
        self.next = self.base;
        self.fault = AFTER_FAULT;
    }

    fn draw(&mut self, least: Duration, most: Duration) -> Duration {
        self.seed = self.seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let part = u32::try_from((self.seed >> 33) % 1025).unwrap_or(0);
        least + most.saturating_sub(least) * part / 1024
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_to_half_a_minute_and_are_spread() {
        let mut backoff = Backoff::new(Duration::from_millis(100), 1);
        let mut d = Duration::from_millis(100);
        for _ in 0..40 {
            let wait = backoff.next(None, None);
            assert!(wait >= d / 2 && wait <= d, "{wait:?} is not within {d:?}");
            d = d.mul_f64(1.6).min(MOST);
        }
        assert_eq!(d, MOST);
        backoff.reset();
        assert!(backoff.next(None, None) <= Duration::from_millis(100));
    }

    #[test]
    fn a_peer_found_at_fault_is_left_alone_for_30_s_to_5_min() {
        let mut backoff = Backoff::new(Duration::from_millis(100), 7);
        for _ in 0..20 {
            let wait = backoff.next(Some(Status::PROTOCOL_ERROR), None);
            assert!(wait >= Duration::from_secs(30) && wait <= Duration::from_secs(300), "{wait:?}");
        }
    }

    #[test]
    fn what_the_peer_asks_for_is_respected_up_to_5_min() {
        let mut backoff = Backoff::new(Duration::from_millis(100), 7);
        let asked = Duration::from_secs(20);
        assert_eq!(backoff.next(None, Some(asked)), asked);
        assert_eq!(backoff.next(None, Some(Duration::from_secs(9999))), MOST_ASKED);
    }
}
