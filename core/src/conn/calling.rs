//! This side's calls: accepting them, withdrawing them, and their outcomes.

use bytes::Bytes;

use super::{
    calls::{Owner, Wire},
    event::{Answer, Body, CallHead, CallId, Failure, Rejection},
    input::Flow,
    lanes::{Sort, Waiting, lane},
    machine::{Machine, Phase, Step},
    outbox::SHARE_FROM,
    quick::Straight,
};
use crate::{
    time::{Instant, NEVER},
    wire::{
        Class, Flags, FrameType, HEADER_LEN, Header, Metadata, Parts, Ran, Repeated, Request, Response,
        Status, is_metadata_key, varint,
    },
};

/// The longest method name, in octets.
const MAX_NAME: usize = 255;
/// The most metadata of one message (protocol §5).
pub(super) const MAX_METADATA: usize = 64;
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
    /// Takes a call or a one-way into the queue.
    #[inline]
    pub(crate) fn call(
        &mut self,
        head: &CallHead<'_>,
        body: Body<'_>,
        one_way: bool,
    ) -> Result<CallId, Rejection> {
        if !one_way && let Some(id) = self.quick_call(head, &body) {
            return Ok(id);
        }
        self.straight = Straight::default();
        self.enqueue(head, body, one_way)
    }

    /// Takes a call or a one-way that has to wait, or has something special to say, or cannot be taken.
    #[inline(never)]
    fn enqueue(&mut self, head: &CallHead<'_>, body: Body<'_>, one_way: bool) -> Result<CallId, Rejection> {
        if self.phase.is_ending() || self.eof.is_some() {
            return Err(Rejection::Closed);
        }
        if self.their_drain.is_some() || !self.may_begin(head) {
            return Err(Rejection::Draining);
        }
        if head.method.is_empty() || head.method.len() > MAX_NAME {
            return Err(Rejection::BadHead);
        }
        let ready = self.phase == Phase::Ready;
        if ready && body.len() > self.peer_message.min(self.peer_frame) {
            return Err(Rejection::TooLarge);
        }
        if ready && self.peer_concurrent == 0 {
            return Err(Rejection::NotServed);
        }
        let plain =
            head.metadata.is_empty() && head.trace.is_empty() && head.codec == 0 && head.priority == 0;
        if !plain && !metadata_in_bounds(head.metadata.iter().copied()) {
            return Err(Rejection::BadHead);
        }
        let limits = &self.config.limits;
        let weight = body.len() + head.method.len();
        if weight > limits.max_queued {
            return Err(Rejection::TooLarge);
        }
        if self.calls.open() >= limits.max_calls as usize
            || self.calls.queued_octets + weight > limits.max_queued
        {
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

        let for_handler = head.parent.is_some_and(|parent| self.served.find(parent).is_some());
        let deadline = head.deadline.map_or(NEVER, Instant::as_nanos);
        let lane = lane(head.priority.into());
        let (slot, call) = self.calls.allocate();
        call.wire = Wire::Queued;
        call.owner = Owner::Waits;
        call.one_way = one_way;
        call.for_handler = for_handler;
        call.lane = lane;
        call.deadline = deadline;
        call.failure = None;
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
                priority: head.priority.clamp(-1, 1).into(),
                metadata: Repeated::from(head.metadata),
                codec: head.codec,
                trace: head.trace,
                ..Request::default()
            };
            rest.emit(buf);
        }
        let after = buf.len() - before;
        let (Ok(before), Ok(after)) = (u16::try_from(before), u16::try_from(after)) else {
            call.wire = Wire::Off;
            call.owner = Owner::Gone;
            self.calls.release(slot);
            return Err(Rejection::TooLarge);
        };
        call.before = before;
        call.after = after;
        match body {
            Body::Share(octets) if octets.len() >= SHARE_FROM => call.body = octets,
            Body::Share(octets) => buf.extend_from_slice(&octets),
            Body::Copy(octets) => buf.extend_from_slice(octets),
        }
        let weight = call.weight();
        let generation = call.generation;
        self.calls.queued_octets += weight;
        self.calls.queued += 1;
        if deadline != NEVER {
            self.call_timers.insert(slot, deadline, self.now);
        }
        let waiting = Waiting::Call { slot, generation };
        self.lanes.push(if one_way { Sort::Other } else { Sort::Request }, lane, waiting);
        Ok(CallId { slot, generation })
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

    /// Gives a call up; whether the application's value is still there to be handed back.
    pub(crate) fn cancel(&mut self, id: CallId) -> bool {
        let Some(call) = self.calls.find(id) else { return false };
        if call.owner == Owner::Gone {
            return false;
        }
        // If the outcome waits to be fetched, its entry is passed over later: the owner is gone.
        call.owner = Owner::Gone;
        call.failure = None;
        let (wire, wire_id, one_way, lane) = (call.wire, call.id, call.one_way, call.lane);
        self.call_timers.remove(id.slot);
        match wire {
            Wire::Queued => {
                call_off(self, id.slot, one_way, lane);
            }
            Wire::Sent if self.unstage(id.slot, wire_id) => {}
            Wire::Sent => self.control.cancels.push_back((wire_id, Status::CANCELLED)),
            Wire::Off => {}
        }
        self.calls.release(id.slot);
        true
    }

    /// The deadline of a call has passed.
    pub(super) fn call_expired(&mut self, slot: u32) {
        let Some(call) = self.calls.get(slot) else { return };
        let (wire, one_way, lane, id) = (call.wire, call.one_way, call.lane, call.id);
        let failure = match wire {
            Wire::Off => return,
            Wire::Queued => {
                call_off(self, slot, one_way, lane);
                Failure::local(Status::TIMEOUT, Ran::No, "the deadline passed before the call could be sent")
            }
            Wire::Sent if self.unstage(slot, id) => {
                Failure::local(Status::TIMEOUT, Ran::No, "the deadline passed before the call could be sent")
            }
            // The callee knows the deadline, so no CANCEL need be sent; the RESPONSE is still due.
            Wire::Sent => {
                Failure::local(Status::TIMEOUT, Ran::Maybe, "the deadline passed without an answer")
            }
        };
        self.tell(slot, Some(failure));
    }

    /// A RESPONSE.
    pub(super) fn on_response(&mut self, header: Header) -> Flow {
        let Some((slot, call)) = self.calls.by_wire_id(header.id) else {
            if self.is_theirs(header.id) {
                return self.violation("a RESPONSE to a call of the peer's own");
            }
            return self.not_open(header);
        };
        let owner = call.owner;
        self.idle_since = self.now;
        call.wire = Wire::Off;
        if owner == Owner::Waits {
            call.owner = Owner::Gone;
        }
        self.calls.release(slot);
        self.calls.unanswered = self.calls.unanswered.saturating_sub(1);
        self.call_timers.remove(slot);
        if header.flags.contains(Flags::MORE) {
            self.remember_refused(header.id);
        }
        if owner == Owner::Waits {
            return Flow::Step(Step::Done { slot, outcome: self.outcome(header) });
        }
        // Nobody waits for it any more, but until now it had its place.
        self.skip_frame(header);
        Flow::Again
    }

    /// What a RESPONSE means. Takes its frame.
    fn outcome(&mut self, header: Header) -> Result<Answer, Failure> {
        let frame = HEADER_LEN + header.len as usize;
        let body = self.inbox.octets().get(HEADER_LEN..frame).unwrap_or_default();
        let parts = match Parts::split(body) {
            Ok(parts) => parts,
            Err(fault) => return self.bad_reply(header, &alloc::format!("{fault}")),
        };
        let from = frame - parts.payload.len();
        let envelope = from - parts.envelope.len();
        if header.status == Status::OK && parts.envelope.is_empty() && header.flags == Flags::NONE {
            if parts.payload.len() > self.config.limits.max_message as usize {
                return self.over_limit(header);
            }
            return Ok(Answer { payload: self.inbox.take(frame, from), envelope: None });
        }
        self.rich_outcome(header, envelope, from)
    }

    /// A RESPONSE with an envelope, an error, or something to refuse.
    #[cold]
    fn rich_outcome(&mut self, header: Header, envelope: usize, from: usize) -> Result<Answer, Failure> {
        let frame = HEADER_LEN + header.len as usize;
        let octets = self.inbox.octets().get(envelope..from).unwrap_or_default();
        let message = match Response::parse(octets) {
            Ok(response) => alloc::string::String::from(response.message),
            Err(error) => return self.bad_reply(header, &alloc::format!("{error}")),
        };
        if header.flags.contains(Flags::MORE) || frame - from > self.config.limits.max_message as usize {
            return self.over_limit(header);
        }
        let status = header.status;
        if matches!(status.class(), Class::Connection | Class::Local) {
            return self.bad_reply(header, &alloc::format!("a RESPONSE cannot have {status}"));
        }
        let envelope = Some(self.inbox.copy(envelope, from));
        let payload = self.inbox.take(frame, from);
        if status == Status::OK {
            Ok(Answer { payload, envelope })
        } else {
            Err(Failure::new(status, status.ran(), &message, payload, envelope))
        }
    }

    #[cold]
    fn bad_reply(&mut self, header: Header, why: &str) -> Result<Answer, Failure> {
        self.skip_frame(header);
        Err(Failure::local(Status::BAD_REPLY, Ran::Yes, why))
    }

    #[cold]
    fn over_limit(&mut self, header: Header) -> Result<Answer, Failure> {
        self.skip_frame(header);
        Err(Failure::local(Status::LOCAL_LIMIT, Ran::Yes, "the answer is larger than this side reads"))
    }

    /// An outcome that waited to be fetched, and that of one-ways that were committed.
    pub(super) fn finished_step(&mut self) -> Option<Step> {
        while let Some(slot) = self.finished.pop_front() {
            let Some(call) = self.calls.get(slot) else { continue };
            if call.owner == Owner::Told {
                call.owner = Owner::Gone;
                let outcome = match call.failure.take() {
                    Some(failure) => Err(failure),
                    None => Ok(Answer { payload: Bytes::new(), envelope: None }),
                };
                self.calls.release(slot);
                return Some(Step::Done { slot, outcome });
            }
        }
        None
    }

    /// Whether nothing of a call ever left, for those that are unfinished when the connection is dropped.
    pub(crate) fn unfinished(&mut self, slot: u32) -> Ran {
        match self.calls.get(slot) {
            Some(call) => match (&call.failure, call.wire) {
                (Some(failure), _) => failure.ran(),
                (None, Wire::Queued) => Ran::No,
                (None, Wire::Sent) if call.id > self.transmitted => Ran::No,
                (None, _) => Ran::Maybe,
            },
            None => Ran::Maybe,
        }
    }
}

/// Takes a call out of the queue before anything of it left.
pub(super) fn call_off(machine: &mut Machine, slot: u32, one_way: bool, lane: u8) {
    machine.calls.unqueue(slot);
    if let Some(call) = machine.calls.get(slot) {
        call.wire = Wire::Off;
    }
    let calls = &mut machine.calls;
    let stands = |waiting| match waiting {
        Waiting::Call { slot, generation } => {
            calls.get(slot).is_some_and(|call| call.generation == generation && call.wire == Wire::Queued)
        }
        Waiting::Answer { .. } => true,
    };
    machine.lanes.withdraw(if one_way { Sort::Other } else { Sort::Request }, lane, stands);
}
