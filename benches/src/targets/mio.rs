//! Tieline on raw readiness loops: the direct layer at both ends, without tasks, and the client that waits. With all that
//! a product has: check-in, methods by name, a deadline on each call, heartbeats, limits, statistics.

use std::convert::Infallible;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use tieline_mio::{
    Answer, App, Body, CallHead, Closed, Config, ConfigBuilder, ConnId, Failure as CallFailure, Incoming,
    Loop, MethodSpec, Net, Rest, Side,
};

use super::tieline::{DEADLINE, ECHO, limits};
use crate::error::{Context, Failure, Result};
use crate::load::{GRACE, Length, Meter, Mode, Payloads, Phases, Plan, Sampler, Schedule, Verifier, waits};
use crate::socket;

/// How often a closed loop looks at the clock when nothing comes.
const LOOK: Duration = Duration::from_millis(100);
/// How long a loop that polls busily does so before it sleeps: longer than an answer takes.
pub(crate) const SPELL: Duration = Duration::from_millis(1);

fn config(identifier: &str) -> ConfigBuilder {
    Config::builder(identifier).limits(limits())
}

/// Answers every call with its argument.
struct Echo;

impl App for Echo {
    type User = ();

    fn request(&mut self, net: &mut Net<()>, conn: ConnId, request: Incoming) {
        // That the caller may have gone meanwhile is of no concern here.
        let _ = net.answer(conn, request.call, Body::Share(request.payload));
    }

    fn done(
        &mut self,
        _: &mut Net<()>,
        _: ConnId,
        (): (),
        _: std::result::Result<Answer, CallFailure>,
        _: Rest,
    ) {
    }
}

/// Serves until the process ends. `busy`: how long it asks again and again before it sleeps.
pub(crate) fn serve(listener: TcpListener, busy: Duration) -> Result<Infallible> {
    let config = config("bench-server").method(MethodSpec::unary(ECHO)).build().context("configure")?;
    let mut node = Loop::new(Echo)?.busy_poll(busy);
    node.net().listen_on(listener, &config)?;
    loop {
        node.turn(None)?;
    }
}

/// A place for one call.
struct Slot {
    conn: usize,
    payload: Bytes,
    sampler: Sampler,
    verifier: Verifier,
    /// When the call began or should have begun, if its latency is taken.
    began: Option<Instant>,
}

/// The load: as many calls in flight as asked for.
struct Caller {
    meter: Arc<Meter>,
    slots: Vec<Slot>,
    conns: Vec<ConnId>,
    ready: usize,
    /// Slots whose next call is to be begun.
    free: Vec<u32>,
    /// The time of this turn, for the latencies of all calls that end in it.
    now: Option<Instant>,
    failed: Option<Failure>,
}

impl Caller {
    fn fail(&mut self, net: &Net<u32>, why: impl Into<String>) {
        self.failed.get_or_insert_with(|| Failure::new(why));
        net.stop();
    }

    /// Begins the next call of a slot.
    fn begin(&mut self, net: &mut Net<u32>, index: u32, began: impl FnOnce(&mut Slot) -> Option<Instant>) {
        let Some(slot) = self.slots.get_mut(index as usize) else { return };
        slot.began = began(slot);
        let Some(&conn) = self.conns.get(slot.conn) else { return };
        let head = CallHead::new(ECHO).deadline(Some(net.now().saturating_add(DEADLINE)));
        if let Err(rejected) = net.call(conn, &head, Body::Share(slot.payload.clone()), index) {
            self.fail(net, format!("a call was refused: {rejected}"));
        }
    }
}

impl App for Caller {
    type User = u32;

    fn request(&mut self, net: &mut Net<u32>, conn: ConnId, request: Incoming) {
        net.stopped(conn, request.call);
    }

    #[inline]
    fn done(
        &mut self,
        net: &mut Net<u32>,
        _: ConnId,
        user: u32,
        outcome: std::result::Result<Answer, CallFailure>,
        _: Rest,
    ) {
        let Some(slot) = self.slots.get_mut(user as usize) else { return };
        let good = outcome.is_ok_and(|answer| slot.verifier.matches(&slot.payload, &answer.payload));
        if !good {
            return self.fail(net, "a reply is not what was sent");
        }
        if let Some(began) = slot.began {
            let now = *self.now.get_or_insert_with(Instant::now);
            self.meter.record(now.saturating_duration_since(began));
        }
        self.meter.complete();
        self.free.push(user);
    }

    fn opened(&mut self, _: &mut Net<u32>, _: ConnId, _: &Arc<tieline_mio::PeerInfo>) {
        self.ready += 1;
    }

    fn closed(&mut self, net: &mut Net<u32>, _: ConnId, closed: Closed) {
        self.fail(net, format!("a connection ended: {closed}"));
    }
}

/// Runs `plan` against the server at `address`.
pub(crate) fn drive(plan: &Plan, address: SocketAddr, meter: &Arc<Meter>, busy: Duration) -> Result<()> {
    let payloads = Payloads::new(plan.payload, plan.callers());
    let slots = (0..plan.callers()).map(|caller| Slot {
        conn: caller % plan.connections,
        payload: payloads.of(caller),
        sampler: Sampler::new(plan.sample_every(), caller),
        verifier: Verifier::default(),
        began: None,
    });
    let caller = Caller {
        meter: Arc::clone(meter),
        slots: slots.collect(),
        conns: Vec::new(),
        ready: 0,
        free: (0..u32::try_from(plan.callers()).unwrap_or(u32::MAX)).collect(),
        now: None,
        failed: None,
    };
    let mut client = Client { node: Loop::new(caller)?.busy_poll(busy) };
    client.connect(plan, address)?;
    match (plan.mode, plan.length) {
        (Mode::Closed, _) => client.closed(plan, meter),
        (Mode::Open { rate }, Length::Time { warmup, window }) => {
            client.open(plan, meter, &Schedule::new(Instant::now(), rate, warmup, window))
        }
        (Mode::Open { .. }, Length::Calls(_)) => Err(Failure::new("an open loop runs for a time")),
    }
}

struct Client {
    node: Loop<Caller>,
}

impl Client {
    fn connect(&mut self, plan: &Plan, address: SocketAddr) -> Result<()> {
        let config = config("bench-client").build().context("configure")?;
        for _ in 0..plan.connections {
            let stream = socket::connect(address).context("connect")?;
            let conn = self.node.net().adopt(stream, Side::Client, &config)?;
            self.node.app().conns.push(conn);
        }
        while self.node.app().ready < plan.connections {
            self.turn(None)?;
        }
        Ok(())
    }

    fn turn(&mut self, most: Option<Duration>) -> Result<()> {
        self.node.turn(most)?;
        let caller = self.node.app();
        caller.now = None;
        caller.failed.take().map_or(Ok(()), Err)
    }

    /// Begins as many calls as there are free slots and the run has calls.
    fn begin_free(&mut self, plan: &Plan, meter: &Meter, now: Instant) {
        let mut free = std::mem::take(&mut self.node.app().free);
        self.node.with(|caller, net| {
            while !free.is_empty() && meter.issue() {
                let Some(index) = free.pop() else { break };
                caller.begin(net, index, |slot| slot.sampler.take().then_some(now));
            }
        });
        debug_assert!(free.len() <= plan.callers());
        self.node.app().free = free;
    }

    fn closed(&mut self, plan: &Plan, meter: &Meter) -> Result<()> {
        let mut now = Instant::now();
        let mut phases = Phases::start(meter, plan.length, now)?;
        let (mut heard, mut before) = (now, 0);
        self.begin_free(plan, meter, now);
        while phases.go_on(now)? {
            self.turn(Some(LOOK))?;
            now = Instant::now();
            if meter.completed() != before {
                (heard, before) = (now, meter.completed());
                self.begin_free(plan, meter, now);
            } else if now - heard > GRACE {
                return Err(Failure::new(format!("no answer in {GRACE:?}")));
            }
        }
        Ok(())
    }

    fn open(&mut self, plan: &Plan, meter: &Meter, schedule: &Schedule) -> Result<()> {
        let mut now = schedule.intended(0);
        let mut phases = Phases::start(meter, plan.length, now)?;
        let mut issued = 0;
        while phases.go_on(now)? {
            issued = self.begin_due(schedule, issued, now);
            self.turn(Some(Duration::ZERO))?;
            now = Instant::now();
        }
        // The last tickets have their chance too.
        issued = self.begin_due(schedule, issued, now);
        for ticket in issued..schedule.due(now) {
            if schedule.is_measured(ticket) {
                meter.record_not_begun(now - schedule.intended(ticket));
            }
        }
        while meter.completed() < issued {
            if now.elapsed() > GRACE {
                let open = issued - meter.completed();
                return Err(Failure::new(format!("{open} calls without an answer {GRACE:?} after the end")));
            }
            self.turn(Some(LOOK))?;
        }
        Ok(())
    }

    /// Begins the calls that are due as far as there are free slots. Returns the next ticket.
    fn begin_due(&mut self, schedule: &Schedule, mut issued: u64, now: Instant) -> u64 {
        let due = schedule.due(now);
        self.node.with(|caller, net| {
            while issued < due
                && let Some(index) = caller.free.pop()
            {
                let measured = schedule.is_measured(issued);
                caller.begin(net, index, |_| measured.then(|| schedule.intended(issued)));
                issued += 1;
            }
        });
        issued
    }
}

/// Runs `plan`, which has one call in flight, by the client that waits.
pub(crate) fn wait(plan: &Plan, address: SocketAddr, meter: &Arc<Meter>) -> Result<()> {
    let config = config("bench-client").build().context("configure")?;
    let client =
        tieline_mio::blocking::Client::connect_as(&address.to_string(), &config).context("connect")?;
    let payload = Payloads::new(plan.payload, 1).of(0);
    let mut verifier = Verifier::default();
    waits::drive("tieline-blocking", plan, meter, || {
        let answer = client.call_within(Some(DEADLINE), ECHO, &payload).context("call")?;
        if verifier.matches(&payload, &answer.payload) {
            Ok(())
        } else {
            Err(Failure::new("a reply is not what was sent"))
        }
    })
}
