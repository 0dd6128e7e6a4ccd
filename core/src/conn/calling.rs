//! This side's calls: accepting them, withdrawing them, giving them up.

use alloc::sync::Arc;

use bytes::Bytes;

use super::{
    calls::{Cold, Owner, Wire},
    config::MOST_CREDIT,
    event::{Body, CallHead, CallId, Failure, Rejection, Stream},
    fragments::SHORT_ENVELOPE,
    lanes::{Sort, Waiting, lane},
    machine::Machine,
    outbox::SHARE_FROM,
    streaming::Streaming,
};
use crate::{
    time::{Instant, NEVER},
    wire::{FrameType, Header, Kind, Metadata, Ran, Repeated, Request, Status, is_metadata_key, varint},
};

/// The longest method name, in octets.
const MAX_NAME: usize = 255;
/// The most metadata of one message (protocol §5).
pub(super) const MAX_METADATA: usize = 64;
/// The longest ordering key (protocol §5).
pub(super) const MAX_KEY: usize = 64;
/// The tag of `Request.method`: field 1, varint.
const METHOD_TAG: u8 = 1 << 3;
/// Ids are drawn up to here; then the connection drains, long before the 46 bits are used up.
const LAST_COUNT: u64 = (1 << 46) - (1 << 20);

pub(super) fn metadata_in_bounds<'a>(mut metadata: impl Iterator<Item = Metadata<'a>>) -> bool {
    let mut count = 0;
    metadata.all(|metadata| {
        count += 1;
        count <= MAX_METADATA && is_metadata_key(metadata.key)
    })
}

impl Machine {
    /// Takes a call or a one-way that has to wait, or has something special to say, or cannot be taken.
    pub(crate) fn enqueue(
        &mut self,
        head: &CallHead<'_>,
        body: Body<'_>,
        one_way: bool,
    ) -> Result<CallId, Rejection> {
        if self.phase.is_ending() || self.eof.is_some() {
            return Err(Rejection::Closed);
        }
        if self.their_drain.is_some() || !self.may_begin(head) {
            return Err(Rejection::Draining);
        }
        if head.method.is_empty() || head.method.len() > MAX_NAME {
            return Err(Rejection::BadHead);
        }
        // A server knows before it is ready; a client's calls are judged again when they are committed.
        let met = self.peer.is_some();
        if body.len() > self.peer_message {
            return Err(Rejection::TooLarge);
        }
        let streams = head.kind != Kind::Unary;
        if met && (self.peer_concurrent == 0 || (streams && self.peer_streams == 0)) {
            return Err(Rejection::NotServed);
        }
        let plain = !streams && head.is_plain();
        let in_bounds = head.ordering_key.len() <= MAX_KEY && !(streams && one_way);
        if !(plain || in_bounds && metadata_in_bounds(head.metadata.iter().copied())) {
            return Err(Rejection::BadHead);
        }
        let limits = &self.config.limits;
        let weight = body.len() + head.method.len();
        // One that waits alone may be of any size: what is larger than all that may wait could never go out otherwise.
        let crowded = self.calls.queued_octets > 0 && self.calls.queued_octets + weight > limits.max_queued;
        if self.calls.open() >= limits.max_calls as usize || crowded {
            // The least of those that were refused: when there is room for it, Room is no lie.
            self.room_wanted = Some(self.room_wanted.map_or(weight, |least| least.min(weight)));
            return Err(Rejection::Full);
        }
        let method = match self.learned.find(head.method) {
            None => None,
            Some((id, known)) => {
                if known != 0 && head.fingerprint != 0 && known != head.fingerprint {
                    if matches!(head.codec, 0 | 3) {
                        return Err(Rejection::WrongSignature);
                    }
                    self.stats.signature_mismatches += 1;
                }
                Some(id)
            }
        };

        let body = match body {
            Body::Copy(octets) if octets.len() >= SHARE_FROM => Body::Share(Bytes::copy_from_slice(octets)),
            body => body,
        };
        let asked = (head.compress || self.config.compress) && self.snappy;
        let packed = match &body {
            Body::Share(octets) if asked && octets.len() >= self.config.compress_from => {
                self.compress(head.method, octets)
            }
            Body::Copy(octets) if asked && octets.len() >= self.config.compress_from => {
                self.compress(head.method, octets)
            }
            _ => None,
        };
        let credit = head.credit.filter(|_| streams).map(|credit| credit.min(MOST_CREDIT));
        let (own_window, peer_window) = (self.config.limits.stream_window, self.peer_window);
        let keyed = !head.ordering_key.is_empty();
        let cold = (streams || packed.is_some() || keyed).then(|| {
            let credit = credit.unwrap_or(own_window);
            alloc::boxed::Box::new(Cold {
                compressed: packed.is_some(),
                compress: (streams && asked).then(|| Arc::from(head.method)),
                stream: streams.then(|| Streaming::of_caller(head.kind, peer_window, credit)),
                ..Cold::default()
            })
        });
        let body = packed.map_or(body, Body::Share);

        let for_handler = head.parent.is_some_and(|parent| self.served.find(parent).is_some());
        let deadline = head.deadline.map_or(NEVER, Instant::as_nanos);
        let mut lane = lane(head.priority.into());
        let mut key = None;
        if keyed {
            let (joined, at) = self.calls.join_key(head.ordering_key, lane);
            (key, lane) = (Some(joined), at);
        }
        let (slot, call) = self.calls.allocate();
        call.wire = Wire::Queued;
        call.owner = Owner::Waits;
        call.one_way = one_way;
        call.for_handler = for_handler;
        call.lane = lane;
        call.deadline = deadline;
        call.failure = None;
        call.cold = cold;
        if let Some(cold) = &mut call.cold {
            cold.key = key;
        }
        let buf = &mut call.buf;
        buf.clear();
        match method {
            Some(id) => {
                buf.push(METHOD_TAG);
                varint::put(id.into(), buf);
            }
            None => Request { method_name: head.method, ..Request::default() }.emit(buf),
        }
        let before = buf.len();
        if !plain {
            let rest = Request {
                ordering_key: head.ordering_key,
                priority: head.priority.clamp(-1, 1).into(),
                metadata: Repeated::from(head.metadata),
                codec: head.codec,
                kind: head.kind.to_wire(),
                credit,
                trace: head.trace,
                ..Request::default()
            };
            rest.emit(buf);
        }
        let after = buf.len() - before;
        let (Ok(before), Ok(after)) = (u16::try_from(before), u16::try_from(after)) else {
            call.wire = Wire::Off;
            call.owner = Owner::Gone;
            self.calls.leave_key(slot);
            self.calls.release(slot);
            return Err(Rejection::TooLarge);
        };
        call.before = before;
        call.after = after;
        // Behind a long envelope it may have to be cut, and only what is shared can be.
        let short = buf.len() <= SHORT_ENVELOPE;
        match body {
            Body::Share(octets) if octets.len() >= SHARE_FROM || !short => call.body = octets,
            Body::Share(octets) => buf.extend_from_slice(&octets),
            Body::Copy(octets) if short => buf.extend_from_slice(octets),
            Body::Copy(octets) => call.body = Bytes::copy_from_slice(octets),
        }
        let weight = call.weight();
        let generation = call.generation;
        self.calls.queued_octets += weight;
        self.calls.queued += 1;
        if deadline != NEVER {
            self.call_timers.insert(slot, deadline, self.now);
        }
        let waiting = Waiting::Call { slot, generation };
        self.lanes.push(sort(one_way, streams), lane, waiting);
        Ok(CallId { slot, generation })
    }

    /// A payload of a method, compressed, if that gains enough.
    pub(super) fn compress(&mut self, method: &str, plain: &[u8]) -> Option<Bytes> {
        let packed = self.gain.get_or_insert_default().compress(method, plain)?;
        self.stats.octets_saved += (plain.len() - packed.len()) as u64;
        Some(packed)
    }

    /// Takes back a call that was staged and has not reached the outbox; whether it could be.
    #[cold]
    pub(super) fn unstage(&mut self, slot: u32, id: u64) -> bool {
        if id <= self.transmitted {
            return false;
        }
        self.staging.retain(|header| header.id != id, |header| header.frame_type == FrameType::RESPONSE);
        self.calls.unanswered = self.calls.unanswered.saturating_sub(1);
        self.stats.calls_out = self.stats.calls_out.saturating_sub(1);
        if let Some(call) = self.calls.get(slot) {
            call.wire = Wire::Off;
        }
        true
    }

    /// The number of the next call, if there is one left.
    #[inline]
    pub(super) fn next_count(&mut self) -> Option<u64> {
        if self.counter >= LAST_COUNT {
            return None;
        }
        self.counter += 1;
        Some(self.counter)
    }

    /// While this side drains, only handlers that still run may call.
    fn may_begin(&mut self, head: &CallHead<'_>) -> bool {
        if self.counter >= LAST_COUNT {
            self.drain(
                Status::GOING_AWAY,
                core::time::Duration::from_secs(30),
                "this connection's ids are used up",
            );
            return false;
        }
        self.our_drain.is_none() || head.parent.is_some_and(|parent| self.served.find(parent).is_some())
    }

    /// Gives a call up. If the application's value is still there to be handed back: whether the call may have run, which
    /// it has not if it could be withdrawn.
    pub(crate) fn cancel(&mut self, id: CallId) -> Option<Ran> {
        let call = self.calls.find(id).filter(|call| call.owner != Owner::Gone)?;
        // If the outcome waits to be fetched, its entry is passed over later: the owner is gone.
        call.owner = Owner::Gone;
        call.failure = None;
        let (wire, wire_id) = (call.wire, call.id);
        self.call_timers.remove(id.slot);
        let mut ran = Ran::Maybe;
        match wire {
            Wire::Queued => {
                call_off(self, id.slot);
                ran = Ran::No;
            }
            Wire::Sent if self.unstage(id.slot, wire_id) => ran = Ran::No,
            Wire::Sent => self.give_up(id.slot),
            Wire::Sending => self.abandon_call(id.slot),
            Wire::Off => {}
        }
        self.calls.release(id.slot);
        Some(ran)
    }

    /// Nobody waits for a call that is on the wire: cancels it at the peer, and sends nothing more of it.
    pub(super) fn give_up(&mut self, slot: u32) {
        let Some(call) = self.calls.get(slot).filter(|call| call.wire == Wire::Sent) else { return };
        let (id, stream) = (call.id, Stream::Ours(CallId { slot, generation: call.generation }));
        if !core::mem::replace(&mut call.cancelled, true) {
            self.control.cancels.push_back((id, Status::CANCELLED));
        }
        self.stop_sending(slot, stream);
    }

    /// Sends nothing more of a call, neither of its argument nor of its items.
    pub(super) fn stop_sending(&mut self, slot: u32, stream: Stream) {
        let Some(call) = self.calls.get(slot) else { return };
        let (id, plain) = (call.id, call.cold.is_none());
        self.lose_interest(id);
        if plain {
            return;
        }
        self.unstage_items(id, stream);
        self.drop_items(stream);
        self.abandon_call(slot);
    }

    /// Takes back the items of a call that are staged: they have not left yet, and none follows a CANCEL or a RESPONSE.
    pub(super) fn unstage_items(&mut self, id: u64, stream: Stream) {
        if !self.staging.is_empty() && self.sends(stream).is_some() {
            let answer = |header: &Header| header.frame_type == FrameType::RESPONSE;
            self.staging.retain(|header| header.id != id, answer);
        }
    }

    /// Abandons the argument of a call if it is half sent; a one-way is over then.
    pub(super) fn abandon_call(&mut self, slot: u32) {
        let Some(call) = self.calls.get(slot) else { return };
        let half = call.cold.as_mut().and_then(|cold| cold.sent.take()).is_some();
        let id = call.id;
        if call.wire == Wire::Sending {
            call.wire = Wire::Off;
        }
        if half {
            self.control.abandons.push_back(id);
            self.calls.unqueue(slot);
        }
    }

    /// The deadline of a call has passed.
    pub(super) fn call_expired(&mut self, slot: u32) {
        let Some(call) = self.calls.get(slot) else { return };
        let (wire, id) = (call.wire, call.id);
        let stream = Stream::Ours(CallId { slot, generation: call.generation });
        let failure = match wire {
            Wire::Off => return,
            Wire::Queued => {
                call_off(self, slot);
                Failure::local(Status::TIMEOUT, Ran::No, "the deadline passed before the call could be sent")
            }
            Wire::Sent if self.unstage(slot, id) => {
                Failure::local(Status::TIMEOUT, Ran::No, "the deadline passed before the call could be sent")
            }
            // The callee knows the deadline, so no CANCEL need be sent; the RESPONSE is still due.
            Wire::Sent => {
                self.stop_sending(slot, stream);
                Failure::local(Status::TIMEOUT, Ran::Maybe, "the deadline passed without an answer")
            }
            Wire::Sending => {
                self.abandon_call(slot);
                Failure::local(Status::TIMEOUT, Ran::Maybe, "the deadline passed while the call was sent")
            }
        };
        self.tell(slot, Some(failure));
    }
}

/// The queue in which a call waits.
pub(super) const fn sort(one_way: bool, streams: bool) -> Sort {
    match (one_way, streams) {
        (true, _) => Sort::Other,
        (false, true) => Sort::Stream,
        (false, false) => Sort::Request,
    }
}

/// Takes a call out of the queue before anything of it left.
pub(super) fn call_off(machine: &mut Machine, slot: u32) {
    machine.calls.unqueue(slot);
    let Some(call) = machine.calls.get(slot) else { return };
    call.wire = Wire::Off;
    let streams = call.cold.as_ref().is_some_and(|cold| cold.stream.is_some());
    let (sort, lane) = (sort(call.one_way, streams), call.lane);
    let (calls, served) = (&mut machine.calls, &mut machine.served);
    let stands = |waiting| match waiting {
        Waiting::Call { slot, generation } => {
            calls.get(slot).is_some_and(|call| call.generation == generation && call.wire == Wire::Queued)
        }
        Waiting::Rest { slot, generation } => {
            calls.get(slot).is_some_and(|call| call.generation == generation && call.wire != Wire::Off)
        }
        Waiting::Items(Stream::Ours(id)) => calls.find(id).is_some(),
        Waiting::Answer(call) | Waiting::Items(Stream::Theirs(call)) => served.standing(call).is_some(),
    };
    machine.lanes.withdraw(sort, lane, stands);
}
