//! Ending the peer's calls before their handlers do: cancelled, expired, interrupted (protocol §5, "One outcome").
//!
//! The answer goes out at once; the place is held until the handler has really stopped.

use bytes::Bytes;

use super::{
    budget::cost,
    event::{Cancel, Reply, Served, Stream},
    input::Flow,
    machine::Machine,
};
use crate::wire::{Header, Status};

impl Machine {
    /// The caller gives a call up.
    pub(super) fn on_cancel(&mut self, header: Header) -> Flow {
        if !self.is_theirs(header.id) {
            return self.violation("CANCEL of a call that the peer did not begin");
        }
        let Some(slot) = self.served.by_wire_id(header.id) else { return self.not_open(header) };
        self.skip_frame(header);
        if header.status.as_cancel() == Status::DEADLINE_EXCEEDED {
            self.served_expired(slot);
        } else {
            let (queued, running) = (Status::CANCELLED_IN_QUEUE, Status::CANCELLED_RUNNING);
            self.end_early(slot, Cancel::ByCaller, (queued, running), "the caller gave the call up");
        }
        self.pay(cost::SMALL)
    }

    /// The deadline of a call has passed.
    pub(super) fn served_expired(&mut self, slot: u32) {
        let (queued, running) = (Status::EXPIRED_IN_QUEUE, Status::EXPIRED_RUNNING);
        self.end_early(slot, Cancel::Expired, (queued, running), "the deadline passed");
    }

    /// A drain's grace is over, or the connection closes in peace.
    pub(super) fn interrupt(&mut self, slot: u32) {
        self.served_timers.remove(slot);
        let both = (Status::INTERRUPTED, Status::INTERRUPTED);
        self.end_early(slot, Cancel::Disconnected, both, "this node closes the connection");
    }

    /// An item of a call cannot be used.
    pub(super) fn interrupt_for_item(&mut self, call: Served, why: &'static str) {
        let both = (Status::INTERRUPTED, Status::INTERRUPTED);
        self.end_early(call.slot, Cancel::BrokenItem, both, why);
    }

    /// Ends a call in its handler's stead, with one status if that has not started, with another if it has.
    fn end_early(
        &mut self,
        slot: u32,
        why: Cancel,
        (queued, running): (Status, Status),
        message: &'static str,
    ) {
        let Some(serving) = self.served.get(slot).filter(|serving| serving.id != 0) else { return };
        if serving.is_pending() {
            let call = Served { slot, generation: serving.generation };
            // One-ways that came whole still run when the connection ends.
            if why != Cancel::Disconnected || !serving.one_way || serving.cold().arriving {
                self.end_pending(call, queued, message);
            }
        } else {
            self.cut_short(slot, why, running, message);
        }
    }

    /// Answers a running call in its handler's stead; it keeps its place until the handler has stopped.
    pub(super) fn cut_short(&mut self, slot: u32, why: Cancel, status: Status, message: &'static str) {
        let Some(serving) = self.served.get(slot).filter(|serving| serving.id != 0) else { return };
        let call = Served { slot, generation: serving.generation };
        let (running, one_way, answered) = (serving.running, serving.one_way, serving.answered);
        if one_way {
            if running && why == Cancel::Expired {
                self.cancelled.push_back((call, why));
            }
            return;
        }
        if answered {
            return self.cut_answer(call, status, message);
        }
        if running {
            if serving.cold.is_some() {
                self.end_stream(call);
            }
            self.cancelled.push_back((call, why));
            self.answer(slot, &Reply::error(status, message), status);
        }
    }

    /// The call is over, whatever its handler does: nothing more of its stream is sent or taken.
    fn end_stream(&mut self, call: Served) {
        self.drop_items(Stream::Theirs(call));
        let item = self.config.limits.max_item;
        let Some(serving) = self.served.standing(call) else { return };
        let id = serving.id;
        let Some(stream) = serving.cold.as_mut().and_then(|cold| cold.stream.as_mut()) else { return };
        let allowance = stream.takes.as_mut().map(|takes| {
            takes.clear();
            if takes.ended { 0 } else { takes.till.allowance(item) }
        });
        if let Some(octets) = allowance {
            self.allow_late(octets);
            self.drop_message(id);
        }
    }

    /// The handler has answered, but the answer is not out: nobody waits for it any more.
    fn cut_answer(&mut self, call: Served, status: Status, message: &'static str) {
        let frame = self.peer_frame;
        let Some(serving) = self.served.standing(call).filter(|serving| serving.unwritten) else { return };
        let (id, long) = (serving.id, serving.body.len() > frame);
        let (waits, begun) = match &mut serving.cold {
            Some(cold) => (core::mem::take(&mut cold.answer_waits), cold.sent.take().is_some()),
            None => (false, false),
        };
        if begun {
            // An abandoned RESPONSE counts as the RESPONSE.
            serving.unwritten = false;
            serving.body = Bytes::new();
            self.served_timers.remove(call.slot);
            self.control.abandons.push_back(id);
            self.served.release(call.slot);
        } else if waits || long {
            // Without its items the result is not true, and a long one is not worth its octets any more. A short one
            // is on its way as it is.
            self.served_timers.remove(call.slot);
            self.drop_items(Stream::Theirs(call));
            self.answer(call.slot, &Reply::error(status, message), status);
        }
    }
}
