//! The peer's calls that have a place and have not started: they arrive in pieces, or wait for their key or their turn.

use alloc::sync::Arc;

use bytes::Bytes;

use super::{
    admission::Admission,
    assembly::Message,
    event::{Incoming, Reply, Served, Stream},
    input::Flow,
    lanes::LAST,
    machine::{Machine, Step, Tiding},
};
use crate::wire::{Class, Flags, HEADER_LEN, Header, Status, snappy};

impl Machine {
    /// A call that does not start at once waits in its place.
    pub(super) fn park(&mut self, header: Header, incoming: Incoming, admission: Admission) {
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
            // Who runs at present is in the table no more as far as keys are concerned. The key beats the priority:
            // in one lane they keep their order.
            drop(key);
            serving.lane = LAST;
            self.try_to_start(call);
        }
    }

    /// The next call whose turn has come.
    pub(super) fn start_call(&mut self) -> Option<Step> {
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
        // One may always run: what holds the memory may wait behind it, for its key.
        let room = self.config.limits.memory.saturating_sub(self.served.held);
        let fits = *weight <= room || self.served.one_ways == 0;
        ((fits && self.served.one_ways < self.own_concurrent) || self.phase.is_ending()).then_some(lane)
    }

    pub(super) fn start_one_way(&mut self) -> Option<Step> {
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
        cold.arriving = false;
        let missing = core::mem::take(&mut cold.missing);
        let key = cold.key.take();
        let stream = cold.stream.as_ref().and_then(|stream| stream.takes.as_ref());
        let allowance = stream.map(|takes| takes.till.allowance(self.config.limits.max_item));
        self.served_timers.remove(call.slot);
        self.outstanding = self.outstanding.saturating_sub(missing);
        // Its argument, or an item that came before its turn did.
        self.drop_message(id);
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
        self.answer(call.slot, &Reply::error(status, message), status);
        if matches!(status.class(), Class::RefusedByNode | Class::RefusedRequest) {
            self.stats.refused += 1;
            self.charge_refusal(status);
        }
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
    pub(super) fn leave_key(&mut self, key: &Arc<[u8]>, call: Served) {
        let served = &mut self.served;
        let stands = |other| {
            let serving = served.standing(other);
            serving.is_some_and(|serving| serving.cold.as_ref().is_some_and(|cold| cold.key.is_some()))
        };
        if let Some(next) = self.keys.leave(key, call, stands) {
            self.try_to_start(next);
        }
    }
}
