//! What time brings: every timer of a connection, looked at in one place.

use super::{
    liveness::Verdict,
    machine::{Machine, Phase},
};
use crate::wire::Status;

impl Machine {
    /// Looks at every timer that is due.
    pub(crate) fn handle_timeout(&mut self) {
        let now = self.now;
        if now >= self.phase_until {
            self.phase_expired();
        }
        let mut due = core::mem::take(&mut self.call_timers);
        due.expire(now, |slot| self.call_expired(slot));
        self.call_timers = due;
        let mut due = core::mem::take(&mut self.served_timers);
        due.expire(now, |slot| self.served_expired(slot));
        self.served_timers = due;
        if now >= self.arriving_due {
            self.expire_messages();
        }
        if self.phase == Phase::Ready {
            self.keep_alive();
        }
    }

    fn keep_alive(&mut self) {
        match self.live.judge(self.now) {
            Verdict::Fine => {}
            Verdict::Dead(why) => return self.fail(Status::HEARTBEAT_LOST, why),
            Verdict::Slow(why) => return self.fail(Status::SLOW_PEER, why),
        }
        if self.now >= self.idle_at() {
            if self.calls.open() == 0 && self.served.open() == 0 {
                return self.close(Status::IDLE, "no calls for a while");
            }
            self.idle_since = self.now;
        }
        if self.now >= self.live.beat_due(self.has_output()) {
            self.live.unanswered = true;
            self.control.beat = true;
            self.drowsy = true;
            if self.inbox.is_empty() {
                self.shrink();
            }
        }
    }
}
