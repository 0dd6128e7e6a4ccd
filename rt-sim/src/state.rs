//! Everything that a world consists of, under one lock.

use std::{
    collections::{BTreeMap, VecDeque},
    future::Future,
    pin::Pin,
    sync::Arc,
    task::Waker,
    time::Duration,
};

use tieline::Turns;

use crate::{
    conn::Conn,
    events::{Event, Events},
    fault::{Fault, Faults},
    line::Line,
    rng::Rng,
    tasks::{Ready, Tasks},
    trace::{Entry, Trace, What},
};

/// How the first future of a host ends.
pub type Ended = Result<(), Box<dyn std::error::Error + Send + Sync>>;

/// Makes the first future of a host.
pub(crate) type Start = Arc<dyn Fn() -> Pin<Box<dyn Future<Output = Ended> + Send>> + Send + Sync>;

/// When worlds begin: not at zero, so that what is older than the beginning can be told.
pub(crate) const BEGINNING: u64 = 1_000_000_000;

/// The host of the test itself.
pub(crate) const TEST: usize = 0;
/// The host of storms, which nothing ever happens to: one that stood still with the others would never end.
pub(crate) const WEATHER: usize = 1;

pub(crate) struct Host {
    pub(crate) name: Arc<str>,
    pub(crate) start: Option<Start>,
    /// Its process is there; its machine is on.
    pub(crate) running: bool,
    pub(crate) powered: bool,
    pub(crate) paused: bool,
    /// It computes until then.
    pub(crate) busy_until: u64,
    /// How often it was started.
    pub(crate) incarnation: u64,
    /// Its first future has ended.
    pub(crate) ended: bool,
    /// Tasks that were woken while it stood still.
    pub(crate) waiting: Vec<u64>,
    /// Connections that wait to be accepted, by port, and who waits for them.
    pub(crate) listening: BTreeMap<u16, Listening>,
    pub(crate) next_port: u16,
    pub(crate) turns: Turns,
}

#[derive(Default)]
pub(crate) struct Listening {
    pub(crate) backlog: VecDeque<u64>,
    pub(crate) acceptor: Option<Waker>,
}

impl Host {
    pub(crate) fn new(name: &str, start: Option<Start>) -> Self {
        Self {
            name: name.into(),
            start,
            running: true,
            powered: true,
            paused: false,
            busy_until: 0,
            incarnation: 0,
            ended: false,
            waiting: Vec::new(),
            listening: BTreeMap::new(),
            next_port: 40_000,
            turns: Turns::default(),
        }
    }

    /// Its tasks are polled.
    pub(crate) const fn runs(&self, now: u64) -> bool {
        self.running && !self.paused && self.busy_until <= now
    }
}

/// What is remembered of what happened.
#[derive(Debug)]
pub(crate) struct Log {
    pub(crate) trace: Trace,
    pub(crate) faults: Faults,
    names: Vec<Arc<str>>,
}

impl Log {
    pub(crate) fn say(&mut self, now: u64, host: usize, what: What, connection: u64, octets: usize) {
        let at = Duration::from_nanos(now.saturating_sub(BEGINNING));
        let name = self.names.get(host).cloned().unwrap_or_else(|| "?".into());
        self.trace.push(host, Entry { at, host: name, what, connection, octets: octets as u64 });
    }

    pub(crate) fn fault(&mut self, now: u64, host: usize, fault: Fault, connection: u64, octets: usize) {
        self.faults.fired(fault);
        self.say(now, host, What::Fault(fault), connection, octets);
    }
}

pub(crate) struct State {
    pub(crate) now: u64,
    pub(crate) rng: Rng,
    pub(crate) events: Events,
    pub(crate) hosts: Vec<Host>,
    pub(crate) lines: BTreeMap<(usize, usize), Line>,
    /// What a line is like of which nothing was said.
    pub(crate) usual: Line,
    pub(crate) conns: BTreeMap<u64, Conn>,
    pub(crate) dialled: u64,
    pub(crate) tasks: Tasks,
    pub(crate) ready: Arc<Ready>,
    pub(crate) log: Log,
    /// Whom to wake outside the lock.
    pub(crate) wake: Vec<Waker>,
    /// Wakers that are not needed any more: they are dropped there as well.
    pub(crate) dropped: Vec<Waker>,
    /// What ends the run.
    pub(crate) trouble: Option<String>,
    /// Virtual time that a poll of a task takes.
    pub(crate) poll_takes: u64,
    pub(crate) time_limit: u64,
    pub(crate) poll_limit: u64,
    /// The world has ended.
    pub(crate) over: bool,
}

impl State {
    pub(crate) fn new(seed: u64) -> Self {
        let log = Log { trace: Trace::new(), faults: Faults::default(), names: Vec::new() };
        let mut state = Self {
            now: BEGINNING,
            rng: Rng::new(seed),
            events: Events::default(),
            hosts: Vec::new(),
            lines: BTreeMap::new(),
            usual: Line::between_hosts(),
            conns: BTreeMap::new(),
            dialled: 0,
            tasks: Tasks::default(),
            ready: Arc::new(Ready::default()),
            log,
            wake: Vec::new(),
            dropped: Vec::new(),
            trouble: None,
            poll_takes: 1_000,
            time_limit: 3_600_000_000_000,
            poll_limit: 50_000_000,
            over: false,
        };
        state.add_host("test", None);
        state.add_host("weather", None);
        state
    }

    pub(crate) fn add_host(&mut self, name: &str, start: Option<Start>) -> usize {
        self.hosts.push(Host::new(name, start));
        self.log.names.push(name.into());
        self.hosts.len() - 1
    }

    pub(crate) fn find(&self, name: &str) -> Option<usize> {
        self.hosts.iter().position(|host| &*host.name == name)
    }

    /// The host of this name. Another one is a mistake in the test, and ends the run: ignored, it would let a test pass
    /// in which the fault never happened.
    pub(crate) fn named(&mut self, name: &str) -> Option<usize> {
        let found = self.find(name).filter(|host| *host != WEATHER);
        if found.is_none() {
            let hosts = self.hosts.iter().enumerate().filter(|(number, _)| *number != WEATHER);
            let names: Vec<&str> = hosts.map(|(_, host)| &*host.name).collect();
            let names = names.join(", ");
            self.mistake(format!(
                "there is no host {name:?}; there are {names}: add it first with Sim::host"
            ));
        }
        found
    }

    /// The first mistake ends the run and is told.
    pub(crate) fn mistake(&mut self, what: String) {
        self.trouble.get_or_insert(what);
    }

    pub(crate) fn line(&mut self, from: usize, to: usize) -> &mut Line {
        line(&mut self.lines, &self.usual, from, to)
    }

    /// Whether control packets go through: attempts, acknowledgements, resets. What stands in the way, if not.
    pub(crate) fn stopped(&mut self, from: usize, to: usize) -> Option<Fault> {
        if self.hosts.get(to).is_none_or(|host| !host.powered) {
            return Some(Fault::PowerOff);
        }
        let line = self.line(from, to);
        match line {
            Line { black: true, .. } => Some(Fault::BlackHole),
            Line { parted: true, .. } => Some(Fault::Partition),
            _ => None,
        }
    }

    /// Whether octets go through.
    pub(crate) fn held_back(&mut self, from: usize, to: usize) -> Option<Fault> {
        let stopped = self.stopped(from, to);
        let now = self.now;
        let line = self.line(from, to);
        stopped
            .or_else(|| line.stalled.then_some(Fault::Stall))
            .or_else(|| (line.held_until > now).then_some(Fault::Delay))
    }

    /// How long a packet that is sent now is on its way.
    pub(crate) fn flight(&mut self, from: usize, to: usize) -> u64 {
        let line = line(&mut self.lines, &self.usual, from, to);
        line.latency + self.rng.between(0, line.jitter)
    }

    /// What has waited in this direction goes on.
    pub(crate) fn release(&mut self, from: usize, to: usize) {
        for way in self.ways(from, to) {
            self.arrange_arrival(way);
            self.arrange_ack(way.back());
        }
    }

    /// Does what is due.
    pub(crate) fn happen(&mut self, event: Event) {
        match event {
            Event::Wake(waker) => self.wake.push(waker),
            Event::Pump(way) => self.line_is_free(way),
            Event::Arrive(way) => self.arrive(way),
            Event::Acknowledge(way) => self.acknowledge(way),
            Event::Watch(way) => self.watch(way),
            Event::Knock { conn, again } => self.knock(conn, again),
            Event::Welcome { conn, again } => self.welcome(conn, again),
            Event::TurnAway { conn } => self.turn_away(conn),
            Event::Reset(way) => self.reset_arrives(way),
            Event::Release { from, to } => self.release(from, to),
            Event::Rest { host, incarnation } => self.rested(host, incarnation),
        }
    }
}

/// The line of a direction, made when it is first asked for.
pub(crate) fn line<'a>(
    lines: &'a mut BTreeMap<(usize, usize), Line>,
    usual: &Line,
    from: usize,
    to: usize,
) -> &'a mut Line {
    lines.entry((from, to)).or_insert_with(|| if from == to { Line::loopback() } else { usual.clone() })
}
