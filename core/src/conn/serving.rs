//! Answering the peer's calls.

use alloc::sync::Arc;

use bytes::Bytes;

use super::{
    calling::metadata_in_bounds,
    event::{Body, Reply, ReplyError, Served},
    fragments::SHORT_ENVELOPE,
    lanes::{NORMAL, Sort, Waiting},
    machine::Machine,
    outbox::SHARE_FROM,
    served::Serving,
    streaming::Sends,
};
use crate::{
    time::NEVER,
    wire::{Class, Repeated, Response, Status},
};

impl Machine {
    /// Writes an answer into its place and queues it.
    #[inline]
    pub(super) fn answer(&mut self, slot: u32, reply: &Reply<'_>, status: Status) {
        let payload = reply.body.octets();
        let id = match self.served.get(slot) {
            Some(serving) if serving.lane == NORMAL && serving.cold.is_none() => serving.id,
            _ => return self.queue_answer(slot, reply, status),
        };
        if !reply.is_plain() || !self.look().output || !self.may_stage_answer(payload) {
            return self.queue_answer(slot, reply, status);
        }
        self.stage_answer(id, payload, status);
        if let Some(serving) = self.served.get(slot) {
            serving.answered = true;
        }
        self.served.release(slot);
    }

    /// Writes an answer that has more to say, or that has to wait, into its place and queues it.
    #[inline(never)]
    fn queue_answer(&mut self, slot: u32, reply: &Reply<'_>, status: Status) {
        let (frame, message) = (self.peer_frame, self.peer_message);
        let packed = self.pack_answer(slot, &reply.body);
        let Some(serving) = self.served.get(slot) else { return };
        let call = Served { slot, generation: serving.generation };
        serving.answered = true;
        serving.unwritten = true;
        serving.status = status;
        serving.buf.clear();
        serving.envelope = 0;
        serving.body = Bytes::new();
        if let Some(cold) = &mut serving.cold {
            cold.compressed = packed.is_some();
            cold.sent = None;
        }
        let fits = reply.is_plain() || write_envelope(&mut serving.buf, reply);
        // With `total` and the length before it, the envelope alone must fit the frame.
        if !fits || serving.buf.len() + 16 > frame {
            serving.refuse_answer(Status::RESPONSE_ENCODE, "");
        } else if reply.body.len() > message {
            let octets = reply.body.len();
            let said = alloc::format!("the result has {octets} octets, the caller reads {message}");
            serving.refuse_answer(Status::RESPONSE_TOO_LARGE, &said);
        } else {
            serving.envelope = u32::try_from(serving.buf.len()).unwrap_or(0);
            // Behind a long envelope it may have to be cut, and only what is shared can be.
            let copies = serving.buf.len() <= SHORT_ENVELOPE;
            match (packed, &reply.body) {
                (Some(packed), _) => serving.body = packed,
                (None, Body::Share(octets)) if octets.len() >= SHARE_FROM || !copies => {
                    serving.body = octets.clone();
                }
                (None, Body::Share(octets)) => serving.buf.extend_from_slice(octets),
                (None, Body::Copy(octets)) if octets.len() < SHARE_FROM && copies => {
                    serving.buf.extend_from_slice(octets);
                }
                (None, Body::Copy(octets)) => serving.body = Bytes::copy_from_slice(octets),
            }
        }
        let lane = serving.lane;
        if let Some(cold) = &mut serving.cold
            && let Some(sends) = cold.stream.as_ref().and_then(|stream| stream.sends.as_ref())
            && !sends.is_empty()
        {
            // It never overtakes items.
            cold.answer_waits = true;
            return;
        }
        self.lanes.push(Sort::Other, lane, Waiting::Answer(call));
    }

    /// The last item of a stream is out: the answer, if it waited, is next.
    pub(super) fn answer_behind_items(&mut self, call: Served) {
        let Some(serving) = self.served.standing(call) else { return };
        let lane = serving.lane;
        let Some(cold) = &mut serving.cold else { return };
        let sends = cold.stream.as_ref().and_then(|stream| stream.sends.as_ref());
        let empty = sends.is_none_or(Sends::is_empty);
        if cold.answer_waits && empty {
            cold.answer_waits = false;
            self.served_timers.remove(call.slot);
            self.lanes.push(Sort::Other, lane, Waiting::Answer(call));
        }
    }

    /// The payload of an answer, compressed, if its method asks for it and it gains enough.
    fn pack_answer(&mut self, slot: u32, body: &Body<'_>) -> Option<Bytes> {
        let cold = self.served.get(slot)?.cold.as_ref().filter(|cold| cold.compress)?;
        let method = cold.method;
        let plain: &[u8] = match body {
            Body::Copy(octets) => octets,
            Body::Share(octets) => octets,
        };
        if plain.len() < self.config.compress_from || plain.len() > self.peer_message {
            return None;
        }
        self.compress_for(method, plain)
    }

    /// A payload of a method that is served here, compressed, if that gains enough.
    pub(super) fn compress_for(&mut self, method: u32, plain: &[u8]) -> Option<Bytes> {
        let config = Arc::clone(&self.config);
        self.compress(&config.methods.get(method as usize)?.name, plain)
    }

    /// The application answers.
    #[inline]
    pub(crate) fn reply(
        &mut self,
        call: Served,
        reply: &Reply<'_>,
        status: Status,
    ) -> Result<(), ReplyError> {
        let serving = self.served.find(call).ok_or(ReplyError::Unknown)?;
        serving.running = false;
        self.idle_since = self.now;
        let (answered, one_way, cold) = (serving.answered, serving.one_way, serving.cold.is_some());
        self.served_timers.remove(call.slot);
        if cold {
            self.handler_stopped(call);
        }
        if answered {
            self.served.release(call.slot);
            return if one_way { Ok(()) } else { Err(ReplyError::Answered) };
        }
        if matches!(status.class(), Class::RefusedByNode | Class::RefusedRequest) {
            self.stats.refused += 1;
        } else {
            self.budget.earn();
        }
        self.answer(call.slot, reply, status);
        self.keep_deadline(call);
        self.trim();
        Ok(())
    }

    /// The handler of a call with something special has stopped: its key is free, and of its stream nothing more is
    /// taken.
    fn handler_stopped(&mut self, call: Served) {
        let item = self.config.limits.max_item;
        let Some(serving) = self.served.standing(call) else { return };
        let (id, answered) = (serving.id, serving.answered);
        let cold = serving.cold();
        let key = cold.key.take();
        let takes = cold.stream.as_mut().and_then(|stream| stream.takes.as_mut()).filter(|_| !answered);
        let allowance = takes.map(|takes| {
            takes.clear();
            if takes.ended { 0 } else { takes.till.allowance(item) }
        });
        if let Some(octets) = allowance {
            self.allow_late(octets);
            self.drop_message(id);
        }
        if let Some(key) = key {
            self.leave_key(&key, call);
        }
    }

    /// An answer that waits for its items to go out, or that takes more than a frame, still ends with the deadline:
    /// the caller need not say that it is over.
    fn keep_deadline(&mut self, call: Served) {
        let frame = self.peer_frame;
        let Some(serving) = self.served.standing(call) else { return };
        let waits = serving.cold.as_ref().is_some_and(|cold| cold.answer_waits);
        if (waits || serving.body.len() > frame) && serving.deadline != NEVER {
            let deadline = serving.deadline;
            self.served_timers.insert(call.slot, deadline, self.now);
        }
    }
}

impl Serving {
    /// An answer that cannot be sent becomes a small error, never silence.
    fn refuse_answer(&mut self, status: Status, message: &str) {
        self.buf.clear();
        self.status = status;
        if !message.is_empty() {
            write_envelope(&mut self.buf, &Reply::error(status, message));
        }
        self.envelope = u32::try_from(self.buf.len()).unwrap_or(0);
        if let Some(cold) = &mut self.cold {
            cold.compressed = false;
        }
    }
}

/// Whether the envelope of an answer could be written.
fn write_envelope(buf: &mut alloc::vec::Vec<u8>, reply: &Reply<'_>) -> bool {
    if !metadata_in_bounds(reply.metadata.iter().copied()) {
        return false;
    }
    let ms = reply.retry_after.map_or(0, |after| u32::try_from(after.as_millis()).unwrap_or(u32::MAX));
    let response = Response {
        message: reply.message,
        retry_after_ms: ms,
        metadata: Repeated::from(reply.metadata),
        owner: reply.owner,
        code: reply.code,
        total: 0,
    };
    response.emit(buf);
    true
}
