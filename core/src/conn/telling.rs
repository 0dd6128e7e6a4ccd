//! What waits to be told besides what waits to be decoded, and in which order.

use super::machine::{Machine, Step, Tiding};

impl Machine {
    /// What waits to be told besides what waits to be decoded.
    #[inline]
    pub(super) fn queued_step(&mut self) -> Option<Step> {
        if self.has_queued() { self.take_queued() } else { None }
    }

    /// Whether something may wait to be told that came before the next frame.
    #[inline]
    pub(super) fn has_queued(&self) -> bool {
        let queued = self.cancelled.len() | self.finished.len() | self.backlog.count;
        let streams = self.startable.len() | self.tidings.len();
        (queued | streams) != 0 || self.ready_untold || self.room_wanted.is_some() || self.direct.is_some()
    }

    #[inline(never)]
    fn take_queued(&mut self) -> Option<Step> {
        if self.ready_untold {
            self.ready_untold = false;
            return self.peer.clone().map(Step::Ready);
        }
        while let Some((call, why)) = self.cancelled.pop_front() {
            // Who has stopped meanwhile need not be told.
            if self.served.find(call).is_some() {
                return Some(Step::Cancelled(call, why));
            }
        }
        if !self.finished.is_empty()
            && let Some(step) = self.finished_step()
        {
            return Some(step);
        }
        if !self.startable.is_empty()
            && let Some(step) = self.start_call()
        {
            return Some(step);
        }
        if let Some(step) = self.start_one_way() {
            return Some(step);
        }
        match self.tiding() {
            Some(Tiding::Readable(stream)) => return Some(Step::Readable(stream)),
            Some(Tiding::Writable(stream)) => return Some(Step::Writable(stream)),
            None => {}
        }
        if self.may_tell_room() {
            self.room_wanted = None;
            return Some(Step::Room);
        }
        None
    }
}
