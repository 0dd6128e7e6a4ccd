//! Admitting the peer's calls, or refusing them (protocol §5, "What is wrong where").
//!
//! A call is judged as a whole, at its first frame, before anything is kept of it. Then it starts at once, or is parked
//! in its place: see [`waiting`](super::waiting).

use alloc::sync::Arc;

use bytes::Bytes;

use super::{
    budget::cost,
    calling::{MAX_KEY, metadata_in_bounds},
    credit::Till,
    event::{Incoming, Reply, Served},
    gain::{Declared, declared},
    input::Flow,
    lanes::{NORMAL, lane, priority},
    machine::{Machine, Step},
    streaming::Streaming,
};
use crate::{
    time::{NEVER, instant},
    wire::{Class, Flags, HEADER_LEN, Header, Kind, Parts, Request, Status},
};

/// A deadline above this is none (protocol §5, `Request.timeout_us`).
const MAX_TIMEOUT_US: u64 = 1 << 53;

/// What admission found in the first frame, by value, so that the frame can be taken.
pub(super) struct Admission {
    method: u32,
    kind: Kind,
    deadline: u64,
    lane: u8,
    codec: u32,
    credit: Option<u32>,
    pub(super) key: Option<Arc<[u8]>>,
    /// Where the envelope and the payload stand in the frame.
    envelope: usize,
    pub(super) from: usize,
    /// Whether the envelope says more than this.
    rich: bool,
    /// Octets of the payload as sent, and of the plain one if it is compressed and that is known.
    pub(super) total: usize,
    pub(super) plain: Option<usize>,
    /// Octets that are reserved for it.
    pub(super) held: usize,
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

    pub(super) fn charge_refusal(&mut self, status: Status) {
        let exhausted = match status.class() {
            Class::RefusedByNode => self.budget.refusal(self.now),
            _ => self.budget.charge(self.now, cost::SMALL),
        };
        if exhausted {
            self.fail(Status::EXCESSIVE_LOAD, "too many calls that had to be refused");
        }
    }
}
