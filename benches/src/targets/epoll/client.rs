//! The load on raw epoll: as many calls in flight as asked for, in one loop without tasks.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::{Pipe, Took};
use crate::error::{Context, Failure, Result};
use crate::frame::{self, Kind, Parsed};
use crate::load::{GRACE, Length, Meter, Mode, Payloads, Phases, Plan, Sampler, Schedule, Verifier};
use crate::socket;
use crate::sys::{Epoll, Events, Interest};

/// With more than this waiting to be written the next call is queued and encoded later, so that large
/// payloads go to the kernel while they are still in the cache. Less means more writes, and costs more.
const OUTPUT_ENOUGH: usize = 1 << 20;
/// How often a closed loop looks at the clock when nothing comes.
const LOOK: Duration = Duration::from_millis(100);

/// Runs `plan` against the server at `address`.
pub(crate) fn drive(plan: &Plan, address: SocketAddr, meter: &Arc<Meter>) -> Result<()> {
    let mut client = Client::connect(plan, address, meter)?;
    match (plan.mode, plan.length) {
        (Mode::Closed, _) => client.closed(plan),
        (Mode::Open { rate }, Length::Time { warmup, window }) => {
            client.open(plan, |start| Schedule::new(start, rate, warmup, window))
        }
        (Mode::Open { .. }, Length::Calls(_)) => Err(Failure::new("an open loop runs for a time")),
    }
}

/// A place for one call.
struct Slot {
    payload: Bytes,
    /// The id of the open call; 0 while none is open.
    id: u64,
    sampler: Sampler,
    verifier: Verifier,
    /// When the call began or should have begun, if its latency is taken.
    began: Option<Instant>,
}

/// One connection with its calls.
struct Lane {
    pipe: Pipe,
    slots: Vec<Slot>,
    /// Calls that have begun and are not encoded.
    queue: VecDeque<usize>,
    counter: u64,
    /// Slots without a call.
    free: Vec<usize>,
}

struct Client<'a> {
    meter: &'a Meter,
    epoll: Epoll,
    events: Events,
    lanes: Vec<Lane>,
    /// The lane that began the last call of an open loop.
    turn: usize,
}

impl<'a> Client<'a> {
    fn connect(plan: &Plan, address: SocketAddr, meter: &'a Meter) -> Result<Self> {
        let payloads = Payloads::new(plan.payload, plan.callers());
        let epoll = Epoll::new()?;
        let mut lanes = Vec::with_capacity(plan.connections);
        for token in 0..plan.connections {
            let pipe = Pipe::new(socket::connect(address).context("connect")?)?;
            epoll.add(pipe.stream.as_fd(), token, Interest::Read)?;
            let slots = (0..plan.in_flight).map(|slot| {
                let caller = token * plan.in_flight + slot;
                Slot {
                    payload: payloads.of(caller),
                    id: 0,
                    sampler: Sampler::new(plan.sample_every(), caller),
                    verifier: Verifier::default(),
                    began: None,
                }
            });
            lanes.push(Lane {
                pipe,
                slots: slots.collect(),
                queue: VecDeque::new(),
                counter: 0,
                free: (0..plan.in_flight).collect(),
            });
        }
        Ok(Self { meter, epoll, events: Events::with_capacity(256), lanes, turn: 0 })
    }

    fn closed(&mut self, plan: &Plan) -> Result<()> {
        let mut now = Instant::now();
        let mut phases = Phases::start(self.meter, plan.length, now)?;
        for token in 0..self.lanes.len() {
            self.begin_free(token, now)?;
        }
        let mut heard = now;
        while phases.go_on(now)? {
            self.epoll.wait(&mut self.events, Some(LOOK))?;
            if self.events.len() == 0 {
                now = Instant::now();
                if now - heard > GRACE {
                    return Err(Failure::new(format!("no octet in {GRACE:?}")));
                }
                continue;
            }
            for index in 0..self.events.len() {
                let Some(token) = self.events.token(index) else {
                    continue;
                };
                now = self.receive(token)?;
                self.begin_free(token, now)?;
            }
            heard = now;
        }
        Ok(())
    }

    /// Begins as many calls on lane `token` as it has free slots and the run has calls.
    fn begin_free(&mut self, token: usize, now: Instant) -> Result<()> {
        let Some(lane) = self.lanes.get_mut(token) else {
            return Ok(());
        };
        while !lane.free.is_empty() && self.meter.issue() {
            lane.begin(|slot| slot.sampler.take().then_some(now))?;
        }
        lane.flush(&self.epoll, token)
    }

    fn open(&mut self, plan: &Plan, schedule: impl FnOnce(Instant) -> Schedule) -> Result<()> {
        let mut now = Instant::now();
        let schedule = schedule(now);
        let mut phases = Phases::start(self.meter, plan.length, now)?;
        let mut issued = 0;
        while phases.go_on(now)? {
            issued = self.begin_due(&schedule, issued, now)?;
            self.poll()?;
            now = Instant::now();
        }
        // The last tickets have their chance too.
        issued = self.begin_due(&schedule, issued, now)?;
        for ticket in issued..schedule.due(now) {
            if schedule.is_measured(ticket) {
                self.meter.record_not_begun(now - schedule.intended(ticket));
            }
        }
        while self.meter.completed() < issued {
            if now.elapsed() > GRACE {
                let open = issued - self.meter.completed();
                return Err(Failure::new(format!("{open} calls without an answer {GRACE:?} after the end")));
            }
            self.poll()?;
        }
        Ok(())
    }

    /// Begins the calls that are due as far as there are free slots, on each connection in turn.
    /// Returns the next ticket.
    fn begin_due(&mut self, schedule: &Schedule, mut issued: u64, now: Instant) -> Result<u64> {
        let due = schedule.due(now);
        let mut busy = 0;
        while issued < due && busy < self.lanes.len() {
            self.turn = (self.turn + 1) % self.lanes.len();
            let Some(lane) = self.lanes.get_mut(self.turn) else {
                break;
            };
            if lane.free.is_empty() {
                busy += 1;
                continue;
            }
            busy = 0;
            let measured = schedule.is_measured(issued);
            lane.begin(|_| measured.then(|| schedule.intended(issued)))?;
            issued += 1;
        }
        for (token, lane) in self.lanes.iter_mut().enumerate() {
            lane.flush(&self.epoll, token)?;
        }
        Ok(issued)
    }

    /// Takes what is there, without waiting.
    fn poll(&mut self) -> Result<()> {
        self.epoll.wait(&mut self.events, Some(Duration::ZERO))?;
        for index in 0..self.events.len() {
            if let Some(token) = self.events.token(index) {
                self.receive(token)?;
            }
        }
        Ok(())
    }

    /// Takes what has come on lane `token`, and returns when.
    fn receive(&mut self, token: usize) -> Result<Instant> {
        match self.lanes.get_mut(token) {
            Some(lane) => {
                let now = lane.receive(self.meter)?;
                lane.flush(&self.epoll, token)?;
                Ok(now)
            }
            None => Ok(Instant::now()),
        }
    }
}

impl Lane {
    /// Begins a call in a free slot; `began` says from when its latency counts, if it does.
    fn begin(&mut self, began: impl FnOnce(&mut Slot) -> Option<Instant>) -> Result<()> {
        let Some(index) = self.free.pop() else {
            return Ok(());
        };
        if let Some(slot) = self.slots.get_mut(index) {
            slot.began = began(slot);
        }
        if self.pipe.outbox.waiting().len() < OUTPUT_ENOUGH {
            self.encode(index)
        } else {
            self.queue.push_back(index);
            Ok(())
        }
    }

    fn encode(&mut self, index: usize) -> Result<()> {
        let Some(slot) = self.slots.get_mut(index) else {
            return Ok(());
        };
        self.counter += 1;
        slot.id = self.counter << 17 | (index as u64) << 1 | 1;
        frame::emit(self.pipe.outbox.tail(), Kind::Request, slot.id, &slot.payload).context("request")
    }

    /// Writes what waits, and encodes what waits for that.
    fn flush(&mut self, epoll: &Epoll, token: usize) -> Result<()> {
        loop {
            self.pipe.write()?;
            if !self.pipe.outbox.waiting().is_empty() {
                self.pipe.watch(epoll, token, Interest::Both)?;
                return Ok(());
            }
            if self.queue.is_empty() {
                self.pipe.watch(epoll, token, Interest::Read)?;
                return Ok(());
            }
            while self.pipe.outbox.waiting().len() < OUTPUT_ENOUGH
                && let Some(index) = self.queue.pop_front()
            {
                self.encode(index)?;
            }
        }
    }

    /// One read, and all replies of it. The clock is read once for all of them.
    fn receive(&mut self, meter: &Meter) -> Result<Instant> {
        let took = self.pipe.read()?;
        let now = Instant::now();
        match took {
            Took::End => return Err(Failure::new("the server closed the connection")),
            Took::Nothing => return Ok(now),
            Took::Octets => {}
        }
        let mut consumed = 0;
        loop {
            let rest = self.pipe.inbox.waiting().get(consumed..).unwrap_or_default();
            match frame::parse(rest, Kind::Response).context("response")? {
                Parsed::Frame { id, payload, octets } => {
                    let index = usize::try_from((id >> 1) & 0xFFFF).unwrap_or(usize::MAX);
                    consumed += octets;
                    let slot = self.slots.get_mut(index).filter(|slot| slot.id == id);
                    let slot = slot.ok_or_else(|| Failure::new("a reply to no open call"))?;
                    if !slot.verifier.matches(&slot.payload, payload) {
                        return Err(Failure::new("a reply is not what was sent"));
                    }
                    slot.id = 0;
                    if let Some(began) = slot.began {
                        meter.record(now.saturating_duration_since(began));
                    }
                    meter.complete();
                    self.free.push(index);
                }
                Parsed::Partial { need } => {
                    self.pipe.need = need;
                    break;
                }
            }
        }
        self.pipe.inbox.consume(consumed);
        Ok(now)
    }
}
