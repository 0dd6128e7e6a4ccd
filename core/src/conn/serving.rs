//! The peer's calls: admitting or refusing them, starting them in their turn, and answering.

use alloc::sync::Arc;

use bytes::Bytes;

use super::{
    assembly::Message,
    budget::cost,
    calling::{MAX_KEY, metadata_in_bounds},
    credit::Till,
    event::{Body, Cancel, Incoming, Reply, ReplyError, Served, Stream},
    fragments::SHORT_ENVELOPE,
    gain::{Declared, declared},
    input::Flow,
    lanes::{NORMAL, Sort, Waiting, lane, priority},
    machine::{Machine, Step, Tiding},
    outbox::SHARE_FROM,
    served::Serving,
    streaming::Streaming,
};
use crate::{
    time::{NEVER, instant},
    wire::{Class, Flags, HEADER_LEN, Header, Kind, Parts, Repeated, Request, Response, Status, snappy},
};

/// A deadline above this is none (protocol §5, `Request.timeout_us`).
const MAX_TIMEOUT_US: u64 = 1 << 53;

/// What admission found in the first frame, by value, so that the frame can be taken.
struct Admission {
    method: u32,
    kind: Kind,
    deadline: u64,
    lane: u8,
    codec: u32,
    credit: Option<u32>,
    key: Option<Arc<[u8]>>,
    /// Where the envelope and the payload stand in the frame.
    envelope: usize,
    from: usize,
    /// Whether the envelope says more than this.
    rich: bool,
    /// Octets of the payload as sent, and of the plain one if it is compressed and that is known.
    total: usize,
    plain: Option<usize>,
    /// Octets that are reserved for it.
    held: usize,
}

/// Why a call is not admitted.
enum Refusal {
    /// With an answer.
    Answer(Status, &'static str),
    /// The peer broke a rule.
    Violation(&'static str),
}

impl From<(Status, &'static str)> for Refusal {
    fn from((status, message): (Status, &'static str)) -> Self {
        Self::Answer(status, message)
    }
}

impl Machine {
    /// A REQUEST or a ONE_WAY, or the first frame of one.
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
        if header.flags.contains(Flags::MORE) && header.len < 256 {
            self.pay(cost::SMALL);
        }
        match self.admission(header, one_way) {
            Ok(admission) if one_way => self.begin_one_way(header, admission),
            Ok(admission) => self.begin(header, admission),
            Err(Refusal::Answer(status, message)) => self.turn_away(header, one_way, status, message),
            Err(Refusal::Violation(what)) => self.violation(what),
        }
    }

    /// Calls that are open, and answers that are not written.
    #[inline]
    pub(super) fn unwritten(&self) -> u32 {
        self.served.requests.saturating_add(self.staging.answers)
    }

    /// Decides about a call before anything is kept of it (protocol §5, "What is wrong where").
    fn admission(&mut self, header: Header, one_way: bool) -> Result<Admission, Refusal> {
        let drained = self.our_drain.as_ref().is_some_and(|drain| header.id > drain.id);
        let draining = (Status::DRAINING, "this node drains");
        let frame = HEADER_LEN + header.len as usize;
        let body = self.inbox.octets().get(HEADER_LEN..frame).unwrap_or_default();
        let bad = |what| if drained { draining } else { (Status::BAD_REQUEST, what) };
        let parts = Parts::split(body).map_err(|_| bad("the envelope's length is wrong"))?;
        let (part, from) = (parts.payload.len(), frame - parts.payload.len());
        let envelope = from - parts.envelope.len();
        let request = Request::parse(parts.envelope).map_err(|_| bad("the envelope does not decode"))?;
        let more = header.flags.contains(Flags::MORE);
        let total = if more { usize::try_from(request.total).unwrap_or(usize::MAX) } else { part };
        if more && total <= part {
            return Err(Refusal::Violation("MORE, and a total that is not above the first frame's part"));
        }
        if drained {
            return Err(draining.into());
        }
        let index = match (request.method, request.method_name) {
            (0, "") => None,
            (0, name) => self.config.by_name.get(name).copied(),
            (id, "") => Some(id - 1),
            _ => return Err((Status::BAD_REQUEST, "a method by id and by name").into()),
        };
        let Some((index, method)) =
            index.and_then(|index| Some((index, self.config.methods.get(index as usize)?)))
        else {
            return Err((Status::NO_SUCH_METHOD, "no such method here").into());
        };
        let kind = method.kind;
        if Kind::from_wire(request.kind) != Some(kind) || (one_way && kind != Kind::Unary) {
            return Err((Status::WRONG_KIND, "the method is of another kind").into());
        }
        if !method.codecs.contains(&request.codec) {
            return Err((Status::UNSUPPORTED_CODEC, "the method does not take this codec").into());
        }
        if request.ordering_key.len() > MAX_KEY || !metadata_in_bounds(request.metadata.iter()) {
            return Err((Status::BAD_REQUEST, "the ordering key or the metadata is out of bounds").into());
        }
        let compressed = header.flags.contains(Flags::COMPRESSED);
        let plain = match if compressed { declared(parts.payload, total) } else { Declared::Unknown } {
            Declared::Bad => return Err((Status::BAD_COMPRESSION, "no Snappy block").into()),
            Declared::Plain(plain) => Some(plain),
            Declared::Unknown => None,
        };
        let limits = &self.config.limits;
        let octets = total.max(plain.unwrap_or(0));
        if octets > limits.max_message as usize {
            return Err((Status::TOO_LARGE, "the argument is larger than this side reads").into());
        }
        let deadline = match request.timeout_us {
            Some(0) => return Err((Status::EXPIRED_IN_QUEUE, "the deadline had passed").into()),
            Some(us) if us <= MAX_TIMEOUT_US => {
                self.header_at.unwrap_or(self.now).saturating_add(us.saturating_mul(1000))
            }
            _ => NEVER,
        };
        if deadline <= self.now {
            return Err((Status::EXPIRED_IN_QUEUE, "the deadline passed while the call arrived").into());
        }
        let key = (!request.ordering_key.is_empty()).then(|| Arc::from(request.ordering_key));
        let rich = key.is_some() || !request.metadata.is_empty() || !request.trace.is_empty();
        let held = octets.saturating_add(if rich { parts.envelope.len() } else { 0 });
        if held > limits.memory {
            let why = "the call is larger than the memory set aside for calls";
            return Err((Status::TOO_LARGE, why).into());
        }
        let (lane, codec, credit) = (lane(request.priority), request.codec, request.credit);
        // One-ways have a bound of their own while they wait.
        if !one_way {
            let streams = kind != Kind::Unary && self.served.streams >= self.own_streams;
            if streams || self.served.admitted >= self.own_concurrent {
                return Err((Status::TOO_MANY_CALLS, "too many calls at once").into());
            }
            if held > limits.memory.saturating_sub(self.served.held) {
                let why = "the arguments of open calls take all of the memory set aside";
                return Err((Status::OVERLOADED, why).into());
            }
        }
        let (method, arrived) = (index, self.arrived() + part);
        if !self.lease.cover(arrived, &self.config.shared, limits.server_memory) {
            let why = "the arguments of calls take all of the server's memory";
            return Err((Status::OVERLOADED, why).into());
        }
        Ok(Admission {
            method,
            kind,
            deadline,
            lane,
            codec,
            credit,
            key,
            envelope,
            from,
            rich,
            total,
            plain,
            held,
        })
    }

    /// Takes a call in: starts it, or parks it until it is whole and its turn has come.
    fn begin(&mut self, header: Header, admission: Admission) -> Flow {
        let whole = header.flags == Flags::NONE;
        let mut incoming = self.head_of(&admission);
        if whole {
            let frame = HEADER_LEN + header.len as usize;
            incoming.payload = self.inbox.take(frame, admission.from);
        }
        let method = self.config.methods.get(admission.method as usize);
        let compress = self.snappy && method.is_some_and(|method| method.compress);
        let window = self.config.limits.stream_window;
        let (slot, serving) = self.served.admit(header.id, true);
        serving.lane = admission.lane;
        serving.quick = admission.lane == NORMAL;
        // At most max_message and a frame, which is below 4 GiB.
        serving.held = u32::try_from(admission.held).unwrap_or(u32::MAX);
        serving.deadline = admission.deadline;
        let call = Served { slot, generation: serving.generation };
        incoming.call = call;
        let streams = admission.kind != Kind::Unary;
        if streams || compress {
            let credit = admission.credit.unwrap_or(self.peer_window);
            serving.quick = false;
            let cold = serving.cold();
            cold.compress = compress;
            cold.method = admission.method;
            cold.stream = streams.then(|| Streaming::of_callee(admission.kind, credit, window));
        }
        self.served.streams += u32::from(streams);
        self.served.held += admission.held;
        if admission.deadline != NEVER {
            self.served_timers.insert(slot, admission.deadline, self.now);
        }
        if whole && admission.key.is_none() {
            self.stats.calls_in += 1;
            return Flow::Step(Step::Request(incoming));
        }
        self.park(header, incoming, admission);
        Flow::Again
    }

    /// A call that does not start at once waits in its place.
    fn park(&mut self, header: Header, incoming: Incoming, admission: Admission) {
        let call = incoming.call;
        let key = admission.key.map(|key| self.keys.join(&key, call));
        let more = header.flags.contains(Flags::MORE);
        if let Some(serving) = self.served.get(call.slot) {
            serving.running = false;
            serving.quick = false;
            let cold = serving.cold();
            cold.parked = Some(incoming);
            cold.arriving = more;
            cold.key = key;
            if more {
                let part = HEADER_LEN + header.len as usize - admission.from;
                cold.missing = admission.held.saturating_sub(part);
                self.outstanding += cold.missing;
            }
        }
        if more {
            let part = HEADER_LEN + header.len as usize - admission.from;
            self.begin_message(header, Message::Argument(call), part, admission.total, admission.plain);
        } else if header.flags.contains(Flags::COMPRESSED) {
            let frame = HEADER_LEN + header.len as usize;
            let packed = self.inbox.take(frame, admission.from);
            match snappy::decompress(&packed, admission.plain.unwrap_or(0)) {
                Ok(payload) => {
                    self.argument_done(call, payload.into());
                }
                Err(_) => self.end_pending(call, Status::BAD_COMPRESSION, "no Snappy block"),
            }
        } else {
            self.try_to_start(call);
        }
    }

    /// What the envelope says of a call.
    fn head_of(&self, admission: &Admission) -> Incoming {
        let envelope = admission.rich.then(|| self.inbox.copy(admission.envelope, admission.from));
        Incoming {
            call: Served { slot: 0, generation: 0 },
            method: admission.method,
            one_way: false,
            priority: priority(admission.lane),
            codec: admission.codec,
            kind: admission.kind,
            deadline: instant(admission.deadline),
            payload: Bytes::new(),
            envelope,
        }
    }

    fn begin_one_way(&mut self, header: Header, admission: Admission) -> Flow {
        let mut incoming = self.head_of(&admission);
        incoming.one_way = true;
        let limits = &self.config.limits;
        let octets = self.backlog.octets + admission.held;
        let never = self.own_concurrent == 0;
        if never || self.backlog.count >= limits.max_one_ways || octets > limits.max_one_way_octets {
            self.skip_frame(header);
            if header.flags.contains(Flags::MORE) {
                self.remember_refused(header.id);
            }
            self.stats.dropped_one_ways += 1;
            return Flow::Again;
        }
        self.backlog.octets = octets;
        self.backlog.count += 1;
        if header.flags == Flags::NONE {
            let frame = HEADER_LEN + header.len as usize;
            incoming.payload = self.inbox.take(frame, admission.from);
        }
        let (slot, serving) = self.served.admit_one_way(header.id);
        serving.lane = admission.lane;
        serving.deadline = admission.deadline;
        // Its octets count for the backlog until it starts, and for the memory of calls from then on.
        serving.held = 0;
        serving.cold().weight = admission.held;
        let call = Served { slot, generation: serving.generation };
        incoming.call = call;
        if admission.deadline != NEVER {
            self.served_timers.insert(slot, admission.deadline, self.now);
        }
        self.park(header, incoming, admission);
        Flow::Again
    }

    /// More is reserved for a call whose plain length has become known.
    pub(super) fn hold_more(&mut self, call: Served, octets: usize) -> Result<(), (Status, &'static str)> {
        const WHY: &str = "the arguments of open calls take all of the memory set aside";
        let limits = &self.config.limits;
        let (room, waiting) = (limits.memory.saturating_sub(self.served.held), limits.max_one_way_octets);
        let mut held = 0;
        let Some(serving) = self.served.standing(call) else { return Ok(()) };
        if serving.one_way {
            if octets > waiting.saturating_sub(self.backlog.octets) {
                return Err((Status::OVERLOADED, WHY));
            }
            serving.cold().weight += octets;
            self.backlog.octets += octets;
        } else {
            if octets > room {
                return Err((Status::OVERLOADED, WHY));
            }
            // At most max_message more, which is below 4 GiB with what was there.
            serving.held = serving.held.saturating_add(u32::try_from(octets).unwrap_or(u32::MAX));
            held = octets;
        }
        serving.cold().missing += octets;
        self.served.held += held;
        self.outstanding += octets;
        Ok(())
    }

    /// More of the argument of a call has come.
    pub(super) fn argument_came(&mut self, call: Served, octets: usize) {
        if let Some(serving) = self.served.standing(call) {
            let missing = &mut serving.cold().missing;
            let came = octets.min(*missing);
            *missing -= came;
            self.outstanding = self.outstanding.saturating_sub(came);
        }
    }

    /// The argument of a call is whole.
    pub(super) fn argument_done(&mut self, call: Served, payload: Bytes) -> Flow {
        let Some(serving) = self.served.standing(call) else { return Flow::Again };
        let cold = serving.cold();
        if let Some(parked) = &mut cold.parked {
            parked.payload = payload;
        }
        cold.arriving = false;
        // What the plain payload takes beyond the octets that came is there now, too.
        let missing = core::mem::take(&mut cold.missing);
        self.outstanding = self.outstanding.saturating_sub(missing);
        self.try_to_start(call);
        Flow::Again
    }

    /// Starts a call that is whole, if it has no key or is the first with it.
    fn try_to_start(&mut self, call: Served) {
        let Some(serving) = self.served.standing(call) else { return };
        let (one_way, lane) = (serving.one_way, serving.lane);
        let Some(cold) = serving.cold.as_ref().filter(|cold| cold.parked.is_some() && !cold.arriving) else {
            return;
        };
        if cold.key.as_ref().is_some_and(|key| !self.keys.is_first(key, call)) {
            return;
        }
        let weight = cold.weight;
        if !one_way {
            self.startable.push_back(call);
        } else if let Some(ready) = self.backlog.ready.get_mut(usize::from(lane)) {
            ready.push_back((call, weight));
        }
    }

    /// The connection is over: one-ways that came whole and wait for their key run all the same, in their order.
    pub(super) fn start_without_key(&mut self, call: Served) {
        if let Some(serving) = self.served.standing(call)
            && let Some(key) = serving.cold().key.take()
        {
            // Who runs at present is in the table no more as far as keys are concerned.
            drop(key);
            self.try_to_start(call);
        }
    }

    /// The next call whose turn has come.
    fn start_call(&mut self) -> Option<Step> {
        while let Some(call) = self.startable.pop_front() {
            let Some(serving) = self.served.standing(call) else { continue };
            let Some(incoming) = serving.cold().parked.take() else { continue };
            serving.running = true;
            let stream = serving.cold().stream.as_ref();
            let tell = stream.and_then(|stream| stream.takes.as_ref()).is_some_and(|takes| takes.told);
            self.stats.calls_in += 1;
            if tell {
                self.tidings.push_back(Tiding::Readable(Stream::Theirs(call)));
            }
            return Some(Step::Request(incoming));
        }
        None
    }

    /// The lane of the one-way that may start next. Those that run count apart from calls, up to the same number; when
    /// the connection is over the rest still run.
    #[inline]
    pub(crate) fn next_one_way(&self) -> Option<usize> {
        if self.backlog.count == 0 {
            return None;
        }
        let lane = self.backlog.ready.iter().position(|ready| !ready.is_empty())?;
        let (_, weight) = self.backlog.ready.get(lane)?.front()?;
        let fits = *weight <= self.config.limits.memory.saturating_sub(self.served.held);
        ((fits && self.served.one_ways < self.own_concurrent) || self.phase.is_ending()).then_some(lane)
    }

    fn start_one_way(&mut self) -> Option<Step> {
        while let Some(lane) = self.next_one_way() {
            let (call, weight) = self.backlog.ready.get_mut(lane)?.pop_front()?;
            let Some(serving) = self.served.standing(call) else { continue };
            let Some(incoming) = serving.cold().parked.take() else { continue };
            serving.cold().weight = 0;
            serving.held = u32::try_from(weight).unwrap_or(u32::MAX);
            self.served.held += weight;
            self.backlog.octets = self.backlog.octets.saturating_sub(weight);
            self.backlog.count -= 1;
            // Once the end was told nothing more is, so nobody is told of a deadline then.
            if self.phase.is_ending() {
                self.served_timers.remove(call.slot);
            }
            self.served.start_one_way(call.slot);
            self.stats.calls_in += 1;
            return Some(Step::Request(incoming));
        }
        None
    }

    /// A call that has not started never will: it is answered, or dropped if it is a one-way.
    pub(super) fn end_pending(&mut self, call: Served, status: Status, message: &'static str) {
        let Some(serving) = self.served.standing(call).filter(|serving| serving.is_pending()) else { return };
        let (id, one_way) = (serving.id, serving.one_way);
        let cold = serving.cold();
        cold.parked = None;
        let weight = core::mem::take(&mut cold.weight);
        let arriving = core::mem::take(&mut cold.arriving);
        let missing = core::mem::take(&mut cold.missing);
        let key = cold.key.take();
        let stream = cold.stream.as_ref().and_then(|stream| stream.takes.as_ref());
        let allowance = stream.map(|takes| takes.till.allowance(self.config.limits.max_item));
        self.served_timers.remove(call.slot);
        self.outstanding = self.outstanding.saturating_sub(missing);
        if arriving {
            self.drop_message(id);
        }
        if let Some(octets) = allowance {
            self.allow_late(octets);
        }
        if let Some(key) = key {
            self.leave_key(&key, call);
        }
        if one_way {
            self.backlog.octets = self.backlog.octets.saturating_sub(weight);
            self.backlog.count = self.backlog.count.saturating_sub(1);
            self.stats.dropped_one_ways += 1;
            self.served.release(call.slot);
            return;
        }
        self.stats.refused += 1;
        self.answer(call.slot, &Reply::error(status, message), status);
        self.charge_refusal(status);
    }

    /// The connection is over for a call that has not started.
    pub(super) fn forget_pending(&mut self, call: Served) {
        let Some(serving) = self.served.standing(call) else { return };
        let one_way = serving.one_way;
        serving.answered = true;
        let cold = serving.cold();
        cold.parked = None;
        let weight = core::mem::take(&mut cold.weight);
        let (missing, key) = (core::mem::take(&mut cold.missing), cold.key.take());
        self.outstanding = self.outstanding.saturating_sub(missing);
        self.served_timers.remove(call.slot);
        if one_way {
            self.backlog.octets = self.backlog.octets.saturating_sub(weight);
            self.backlog.count = self.backlog.count.saturating_sub(1);
            self.stats.dropped_one_ways += 1;
        }
        self.served.release(call.slot);
        if let Some(key) = key {
            self.leave_key(&key, call);
        }
    }

    /// A call with a key has stopped, or never runs: the next one may.
    fn leave_key(&mut self, key: &Arc<[u8]>, call: Served) {
        let served = &mut self.served;
        let stands = |other| {
            let serving = served.standing(other);
            serving.is_some_and(|serving| serving.cold.as_ref().is_some_and(|cold| cold.key.is_some()))
        };
        if let Some(next) = self.keys.leave(key, call, stands) {
            self.try_to_start(next);
        }
    }

    /// Refuses a call before anything was kept of it.
    #[cold]
    fn turn_away(&mut self, header: Header, one_way: bool, status: Status, message: &'static str) -> Flow {
        let streams = self.streams_items(header);
        self.skip_frame(header);
        if header.flags.contains(Flags::MORE) {
            self.remember_refused(header.id);
        }
        if one_way {
            // It is not charged: an answer is what the budget prices.
            self.stats.dropped_one_ways += 1;
            return Flow::Again;
        }
        self.stats.refused += 1;
        let (slot, _) = self.served.admit(header.id, false);
        self.answer(slot, &Reply::error(status, message), status);
        if streams {
            // Its caller cannot know yet.
            let limits = &self.config.limits;
            let allowance = Till::new(limits.stream_window).allowance(limits.max_item);
            self.allow_late(allowance);
        }
        self.charge_refusal(status);
        Flow::Again
    }

    /// Whether the caller of a REQUEST sends items.
    fn streams_items(&self, header: Header) -> bool {
        let frame = HEADER_LEN + header.len as usize;
        let body = self.inbox.octets().get(HEADER_LEN..frame).unwrap_or_default();
        let parts = Parts::split(body).unwrap_or_default();
        let kind = Request::parse(parts.envelope).ok().and_then(|request| Kind::from_wire(request.kind));
        matches!(kind, Some(Kind::ClientStream | Kind::Bidi))
    }

    fn charge_refusal(&mut self, status: Status) {
        let exhausted = match status.class() {
            Class::RefusedByNode => self.budget.refusal(self.now),
            _ => self.budget.charge(self.now, cost::SMALL),
        };
        if exhausted {
            self.fail(Status::EXCESSIVE_LOAD, "too many calls that had to be refused");
        }
    }

    /// Writes an answer into its place and queues it.
    #[inline]
    fn answer(&mut self, slot: u32, reply: &Reply<'_>, status: Status) {
        let payload = reply.body.octets();
        let staged = reply.is_plain()
            && self.look().output
            && self
                .served
                .get(slot)
                .filter(|serving| serving.lane == NORMAL)
                .map(|serving| serving.id)
                .is_some_and(|id| self.stage_answer(id, payload, status));
        if !staged {
            return self.queue_answer(slot, reply, status);
        }
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
        let empty =
            cold.stream.as_ref().and_then(|stream| stream.sends.as_ref()).is_none_or(|s| s.is_empty());
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
        if plain.len() < self.config.compress_from {
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
        if cold {
            self.keep_deadline(call);
        }
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

    /// An answer that waits for its items to go out still ends with the deadline.
    fn keep_deadline(&mut self, call: Served) {
        let Some(serving) = self.served.standing(call) else { return };
        let waits = serving.cold.as_ref().is_some_and(|cold| cold.answer_waits);
        if waits && serving.deadline != NEVER {
            let deadline = serving.deadline;
            self.served_timers.insert(call.slot, deadline, self.now);
        }
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
        let (queued, running) = (Status::DRAINING, Status::INTERRUPTED);
        self.end_early(slot, Cancel::Disconnected, (queued, running), "this node closes the connection");
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
        let Some(serving) = self.served.standing(call).filter(|serving| serving.unwritten) else { return };
        let id = serving.id;
        let running = serving.running;
        let Some(cold) = &mut serving.cold else { return };
        if cold.answer_waits {
            // Without its items the result is not true.
            cold.answer_waits = false;
            self.served_timers.remove(call.slot);
            self.drop_items(Stream::Theirs(call));
            self.answer(call.slot, &Reply::error(status, message), status);
        } else if cold.sent.take().is_some() && !running {
            serving.unwritten = false;
            serving.body = Bytes::new();
            self.control.abandons.push_back(id);
            self.served.release(call.slot);
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
