//! The peer's calls: admitting or refusing them, and answering.

use super::{
    budget::cost,
    calling::metadata_in_bounds,
    event::{Body, Cancel, Incoming, Reply, ReplyError, Served},
    input::Flow,
    lanes::{NORMAL, Sort, Waiting, lane, priority},
    machine::{Machine, Step, WaitingOneWay},
    outbox::SHARE_FROM,
};
use crate::{
    time::{NEVER, instant},
    wire::{Class, Flags, HEADER_LEN, Header, Kind, Parts, Repeated, Request, Response, Status, varint},
};

/// A deadline above this is none (protocol §5, `Request.timeout_us`).
const MAX_TIMEOUT_US: u64 = 1 << 53;
const MAX_KEY: usize = 64;

/// What admission found in the envelope, by value, so that the frame can be taken.
struct Admission {
    method: u32,
    deadline: u64,
    lane: u8,
    codec: u32,
    /// Where the envelope and the payload stand in the frame.
    envelope: usize,
    from: usize,
    /// Whether the envelope says more than this.
    rich: bool,
}

impl Machine {
    /// A REQUEST or a ONE_WAY.
    pub(super) fn on_request(&mut self, header: Header, one_way: bool) -> Flow {
        if !self.is_theirs(header.id) || header.id <= self.highest_in {
            return self
                .violation("the id of a new call has the wrong parity or is not above the one before");
        }
        self.highest_in = header.id;
        self.idle_since = self.now;
        // Answers that nobody reads must not pile up.
        if !one_way && self.unwritten() >= self.most_unwritten {
            self.fail(Status::EXCESSIVE_LOAD, "too many calls at once, and their answers are not read");
            return Flow::Again;
        }
        match self.admission(header, one_way) {
            Ok(admission) if one_way => self.begin_one_way(header, &admission),
            Ok(admission) => self.begin(header, &admission),
            Err((status, message)) => self.turn_away(header, one_way, status, message),
        }
    }

    /// Calls that are open, and answers that are not written.
    #[inline]
    pub(super) fn unwritten(&self) -> u32 {
        self.served.requests.saturating_add(self.staging.answers)
    }

    /// Decides about a call before anything is kept of it (protocol §5, "What is wrong where").
    fn admission(&mut self, header: Header, one_way: bool) -> Result<Admission, (Status, &'static str)> {
        if self.our_drain.as_ref().is_some_and(|drain| header.id > drain.id) {
            return Err((Status::DRAINING, "this node drains"));
        }
        let frame = HEADER_LEN + header.len as usize;
        let body = self.inbox.octets().get(HEADER_LEN..frame).unwrap_or_default();
        let parts =
            Parts::split(body).map_err(|_| (Status::BAD_REQUEST, "the envelope's length is wrong"))?;
        let from = frame - parts.payload.len();
        let envelope = from - parts.envelope.len();
        let Ok(request) = Request::parse(parts.envelope) else {
            return Err((Status::BAD_REQUEST, "the envelope does not decode"));
        };
        let index = match (request.method, request.method_name) {
            (0, "") => None,
            (0, name) => self.config.by_name.get(name).copied(),
            (id, "") => Some(id - 1),
            _ => return Err((Status::BAD_REQUEST, "a method by id and by name")),
        };
        let Some((index, method)) =
            index.and_then(|index| Some((index, self.config.methods.get(index as usize)?)))
        else {
            return Err((Status::NO_SUCH_METHOD, "no such method here"));
        };
        if Kind::from_wire(request.kind) != Some(method.kind) {
            return Err((Status::WRONG_KIND, "the method is of another kind"));
        }
        if !method.codecs.contains(&request.codec) {
            return Err((Status::UNSUPPORTED_CODEC, "the method does not take this codec"));
        }
        if request.ordering_key.len() > MAX_KEY || !metadata_in_bounds(request.metadata.iter()) {
            return Err((Status::BAD_REQUEST, "the ordering key or the metadata is out of bounds"));
        }
        let limits = &self.config.limits;
        if header.flags.contains(Flags::MORE) || parts.payload.len() > limits.max_message as usize {
            return Err((Status::TOO_LARGE, "the argument is larger than this side reads"));
        }
        let deadline = match request.timeout_us {
            Some(0) => return Err((Status::EXPIRED_IN_QUEUE, "the deadline had passed")),
            Some(us) if us <= MAX_TIMEOUT_US => {
                self.header_at.unwrap_or(self.now).saturating_add(us.saturating_mul(1000))
            }
            _ => NEVER,
        };
        if deadline <= self.now {
            return Err((Status::EXPIRED_IN_QUEUE, "the deadline passed while the call arrived"));
        }
        let rich =
            !request.ordering_key.is_empty() || !request.metadata.is_empty() || !request.trace.is_empty();
        let octets = parts.payload.len() + if rich { parts.envelope.len() } else { 0 };
        if octets > limits.memory {
            return Err((Status::TOO_LARGE, "the call is larger than the memory set aside for calls"));
        }
        // One-ways have a bound of their own while they wait.
        if !one_way && octets > limits.memory.saturating_sub(self.served.held) {
            return Err((Status::OVERLOADED, "the arguments of open calls take all of the memory set aside"));
        }
        let lane = lane(request.priority);
        Ok(Admission { method: index, deadline, lane, codec: request.codec, envelope, from, rich })
    }

    fn begin(&mut self, header: Header, admission: &Admission) -> Flow {
        if self.served.admitted >= self.own_concurrent {
            return self.turn_away(header, false, Status::TOO_MANY_CALLS, "too many calls at once");
        }
        let incoming = self.incoming(header, admission);
        let (slot, serving) = self.served.admit(header.id, false, true);
        serving.lane = admission.lane;
        serving.quick = admission.lane == NORMAL;
        // Frames are far below 4 GiB.
        serving.held = u32::try_from(incoming.octets()).unwrap_or(u32::MAX);
        serving.deadline = admission.deadline;
        let generation = serving.generation;
        self.served.held += incoming.octets();
        if admission.deadline != NEVER {
            self.served_timers.insert(slot, admission.deadline, self.now);
        }
        self.stats.calls_in += 1;
        Flow::Step(Step::Request(Incoming { call: Served { slot, generation }, ..incoming }))
    }

    /// Takes the frame apart.
    fn incoming(&mut self, header: Header, admission: &Admission) -> Incoming {
        let frame = HEADER_LEN + header.len as usize;
        let envelope = admission.rich.then(|| self.inbox.copy(admission.envelope, admission.from));
        Incoming {
            call: Served { slot: 0, generation: 0 },
            method: admission.method,
            one_way: false,
            priority: priority(admission.lane),
            codec: admission.codec,
            deadline: instant(admission.deadline),
            payload: self.inbox.take(frame, admission.from),
            envelope,
        }
    }

    fn begin_one_way(&mut self, header: Header, admission: &Admission) -> Flow {
        let mut incoming = self.incoming(header, admission);
        incoming.one_way = true;
        let limits = &self.config.limits;
        let octets = self.backlog_octets + incoming.octets();
        let never = self.own_concurrent == 0;
        if never || self.backlog.len() >= limits.max_one_ways || octets > limits.max_one_way_octets {
            self.stats.dropped_one_ways += 1;
            return Flow::Again;
        }
        self.backlog_octets = octets;
        self.backlog.push_back(WaitingOneWay { id: header.id, incoming, deadline: admission.deadline });
        Flow::Again
    }

    /// One-ways that run count apart from calls, up to the same number; none starts beyond it. When the connection
    /// is over the rest still run.
    #[inline]
    pub(crate) fn may_start_one_way(&self) -> bool {
        let Some(first) = self.backlog.front() else { return false };
        let fits = first.incoming.octets() <= self.config.limits.memory.saturating_sub(self.served.held);
        (fits && self.served.one_ways < self.own_concurrent) || self.phase.is_ending()
    }

    pub(super) fn start_one_way(&mut self) -> Option<Step> {
        while self.may_start_one_way() {
            let waiting = self.backlog.pop_front()?;
            let octets = waiting.incoming.octets();
            self.backlog_octets = self.backlog_octets.saturating_sub(octets);
            if waiting.deadline <= self.now {
                self.stats.dropped_one_ways += 1;
                continue;
            }
            let (slot, serving) = self.served.admit(waiting.id, true, false);
            serving.deadline = waiting.deadline;
            serving.held = u32::try_from(octets).unwrap_or(u32::MAX);
            let generation = serving.generation;
            self.served.held += octets;
            // Once the end was told nothing more is, so nobody is told of a deadline then.
            if waiting.deadline != NEVER && !self.phase.is_ending() {
                self.served_timers.insert(slot, waiting.deadline, self.now);
            }
            self.stats.calls_in += 1;
            return Some(Step::Request(Incoming { call: Served { slot, generation }, ..waiting.incoming }));
        }
        None
    }

    /// Refuses a call before its handler starts.
    #[cold]
    fn turn_away(&mut self, header: Header, one_way: bool, status: Status, message: &'static str) -> Flow {
        self.skip_frame(header);
        if header.flags.contains(Flags::MORE) {
            self.remember_refused(header.id);
        }
        if one_way {
            self.stats.dropped_one_ways += 1;
        } else {
            self.stats.refused += 1;
            let (slot, _) = self.served.admit(header.id, false, false);
            self.answer(slot, &Reply::error(status, message), status);
        }
        let exhausted = match status.class() {
            Class::RefusedByNode => self.budget.refusal(self.now),
            _ => self.budget.charge(self.now, cost::SMALL),
        };
        if exhausted {
            self.fail(Status::EXCESSIVE_LOAD, "too many calls that had to be refused");
        }
        Flow::Again
    }

    /// Writes an answer into its place and queues it.
    #[inline]
    fn answer(&mut self, slot: u32, reply: &Reply<'_>, status: Status) {
        let payload = reply.body.octets();
        let id = match self.served.get(slot) {
            Some(serving) if serving.lane == NORMAL => serving.id,
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
        let Some(serving) = self.served.get(slot) else { return };
        serving.answered = true;
        serving.unwritten = true;
        serving.status = status;
        serving.buf.clear();
        serving.envelope = 0;
        if !reply.is_plain() && !write_envelope(&mut serving.buf, reply) {
            serving.buf.clear();
            serving.status = Status::RESPONSE_ENCODE;
        } else {
            let envelope = serving.buf.len();
            let octets = varint::len(envelope as u64) + envelope + reply.body.len();
            if envelope + 5 > frame {
                serving.buf.clear();
                serving.status = Status::RESPONSE_ENCODE;
            } else if reply.body.len() > message || octets > frame {
                serving.buf.clear();
                serving.status = Status::RESPONSE_TOO_LARGE;
                let said = alloc::format!(
                    "the result has {} octets, the caller reads {}",
                    reply.body.len(),
                    message.min(frame)
                );
                write_envelope(&mut serving.buf, &Reply::error(serving.status, &said));
                serving.envelope = u32::try_from(serving.buf.len()).unwrap_or(0);
            } else {
                serving.envelope = u32::try_from(envelope).unwrap_or(0);
                match &reply.body {
                    Body::Share(octets) if octets.len() >= SHARE_FROM => serving.body = octets.clone(),
                    Body::Share(octets) => serving.buf.extend_from_slice(octets),
                    Body::Copy(octets) => serving.buf.extend_from_slice(octets),
                }
            }
        }
        let lane = serving.lane;
        self.lanes.push(Sort::Other, lane, Waiting::Answer { slot });
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
        let (answered, one_way) = (serving.answered, serving.one_way);
        self.served_timers.remove(call.slot);
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
        Ok(())
    }

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
            self.cut_short(slot, Cancel::ByCaller, Status::CANCELLED_RUNNING, "the caller gave the call up");
        }
        self.pay(cost::SMALL)
    }

    /// The deadline of a running call has passed.
    pub(super) fn served_expired(&mut self, slot: u32) {
        self.cut_short(slot, Cancel::Expired, Status::EXPIRED_RUNNING, "the deadline passed");
    }

    /// A drain's grace is over, or the connection closes in peace.
    pub(super) fn interrupt(&mut self, slot: u32) {
        self.served_timers.remove(slot);
        self.cut_short(slot, Cancel::Disconnected, Status::INTERRUPTED, "this node closes the connection");
    }

    /// Answers a running call in its handler's stead; it keeps its place until the handler has stopped.
    fn cut_short(&mut self, slot: u32, why: Cancel, status: Status, message: &'static str) {
        let Some(serving) = self.served.get(slot).filter(|serving| serving.id != 0 && serving.running) else {
            return;
        };
        let call = Served { slot, generation: serving.generation };
        if serving.one_way {
            if why == Cancel::Expired {
                self.cancelled.push_back((call, why));
            }
        } else if !serving.answered {
            self.cancelled.push_back((call, why));
            self.answer(slot, &Reply::error(status, message), status);
        }
    }

    /// What waits to be told besides what waits to be decoded.
    #[inline]
    pub(super) fn queued_step(&mut self) -> Option<Step> {
        if self.has_queued() { self.take_queued() } else { None }
    }

    /// Whether something may wait to be told that came before the next frame.
    #[inline]
    pub(super) fn has_queued(&self) -> bool {
        let queued = self.cancelled.len() | self.finished.len() | self.backlog.len();
        queued != 0 || self.ready_untold || self.room_wanted.is_some()
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
        if !self.backlog.is_empty()
            && let Some(step) = self.start_one_way()
        {
            return Some(step);
        }
        if self.may_tell_room() {
            self.room_wanted = None;
            return Some(Step::Room);
        }
        None
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
