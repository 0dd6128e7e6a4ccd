//! Two nodes, two pipes and a schedule of faults: one run is one seed.

use std::{sync::Arc, time::Duration};

use tieline_core::{
    Instant,
    conn::{By, Config, Connection, Limits, MethodSpec, Side},
    record::{Record, Recording},
    wire::{Ran, Status},
};

use super::{
    node::Node,
    pipe::Pipe,
    random::Random,
    raw::{MS, SECOND},
    tally::Tally,
    world::{BREAKS, Manners, STREAMS, World},
};

/// What one run was.
pub struct Run {
    pub trace: u64,
    pub tally: Tally,
}

#[derive(Debug, Clone, Copy)]
enum Fault {
    Stall,
    Pause,
    Break,
    Drip,
    Jump,
    Abandon,
}

struct Pair {
    world: World,
    nodes: [Node; 2],
    faults: Vec<(u64, Fault)>,
    /// Whether something happened for which a node may be closed that keeps to the protocol.
    throttled: bool,
}

/// The configuration of one end, drawn at random.
fn config(
    random: &mut Random,
    name: &str,
    interval: u64,
    manners: &Manners,
    record: Option<Record>,
) -> Arc<Config> {
    let mut limits = Limits::default();
    limits.max_frame = *random.pick(&[16 << 10, 64 << 10, 100_000]);
    limits.max_message = *random.pick(&[1 << 10, 16 << 10, 63 << 10, 300_000]);
    limits.max_item = *random.pick(&[1, 500, 20_000, 100_000]);
    limits.max_concurrent = *random.pick(&[1, 2, 8, 64, 4096]);
    limits.max_streams = *random.pick(&[0, 1, 2, 8, 256]);
    limits.stream_window = *random.pick(&[1, 300, 5_000, 64 << 10]);
    limits.max_queued_items = *random.pick(&[1, 2_000, 64 << 10]);
    limits.memory = *random.pick(&[64 << 10, 8 << 20]).max(&(limits.max_message as usize));
    limits.max_calls = *random.pick(&[2, 20, 16_384]);
    limits.max_queued = *random.pick(&[2_000, 100_000, 8 << 20]);
    limits.max_one_ways = *random.pick(&[1, 3, 1024]);
    let mut config = Config::builder(name)
        .limits(limits)
        .heartbeat_interval(Duration::from_nanos(interval))
        .verify(random.once_in(4))
        .compress(manners.compress)
        .compress_from(manners.compress_from)
        .method(MethodSpec::unary("t.S/Echo"));
    for (name, kind) in STREAMS {
        config = config.method(MethodSpec::new(name, kind).compress(random.once_in(3)));
    }
    if random.once_in(8) {
        config = config.idle_timeout(Duration::from_millis(random.within(10..=3_000)));
    }
    if random.once_in(2) {
        config = config.method(MethodSpec::unary("t.S/Other"));
    }
    if let Some(record) = record {
        config = config.record(record);
    }
    config.build().unwrap()
}

pub fn run(seed: u64, talk: bool) -> Run {
    let mut pair = Pair::new(seed, talk, None);
    pair.go();
    Run { trace: pair.world.trace, tally: pair.world.tally }
}

/// The same run, recorded: what it was, and what its nodes have recorded that were not dropped on the way.
pub fn recorded(seed: u64, record: Record) -> (Run, Vec<Recording>) {
    let mut pair = Pair::new(seed, false, Some(record));
    pair.go();
    let recordings = pair.nodes.iter().filter_map(|node| node.conn.recording()).collect();
    (Run { trace: pair.world.trace, tally: pair.world.tally }, recordings)
}

impl Pair {
    fn new(seed: u64, talk: bool, record: Option<Record>) -> Self {
        let mut random = Random::new(seed);
        let now = random.within(1..=1_000 * SECOND);
        let interval = *random.pick(&[200 * MS, 333 * MS, SECOND, 3 * SECOND]);
        // Octet by octet, a run is long: it has less to say then.
        let narrow = random.once_in(20);
        let mut pipe = || {
            let capacity = *random.pick(if narrow { &[1, 64] } else { &[4096, 200_000] });
            // A line that carries less than a heartbeat in a while is the drip's matter.
            Pipe::new(capacity, *random.pick(&[0, 50_000, 3 * MS, 40 * MS]) * u64::from(capacity > 100))
        };
        let pipes = [pipe(), pipe()];
        let mut node = |side, name| {
            let manners = Manners {
                pause: *random.pick(&[300_000, 10 * MS, 200 * MS, 2 * SECOND]) + u64::from(narrow) * 300 * MS,
                drains: random.once_in(3),
                closes: random.once_in(3),
                stubborn: random.once_in(2),
                large: !narrow && random.once_in(2),
                streams: !random.once_in(4),
                compress: random.once_in(3),
                compress_from: *random.pick(&[64, 1024]),
            };
            let config = config(&mut random, name, interval, &manners, record);
            Node::new(config, side, random.next(), manners, interval, true, now)
        };
        let nodes = [node(Side::Client, "client"), node(Side::Server, "server")];
        let mut faults = Vec::new();
        let heal_at = now + random.within(1..=20) * SECOND;
        if !random.once_in(4) {
            for _ in 0..random.below(6) {
                let kinds = [
                    Fault::Stall,
                    Fault::Stall,
                    Fault::Pause,
                    Fault::Pause,
                    Fault::Break,
                    Fault::Drip,
                    Fault::Jump,
                    Fault::Abandon,
                ];
                faults.push((random.within(now..=heal_at), *random.pick(&kinds)));
            }
        }
        faults.sort_by_key(|(at, _)| std::cmp::Reverse(*at));
        let world = World {
            now,
            random,
            tally: Tally::default(),
            pipes,
            records: [Vec::new(), Vec::new()],
            trace: seed,
            talk,
            healed: false,
        };
        let mut pair = Self { world, nodes, faults, throttled: false };
        pair.faults.insert(0, (heal_at, Fault::Jump));
        pair
    }

    fn go(&mut self) {
        let heal_at = self.faults.remove(0).0;
        self.until(heal_at);
        self.heal();
        // Whatever is open has time for its longest handler, for the drain's grace and for all time-outs.
        let mut end = heal_at + 60 * SECOND;
        self.until(end);
        // On a slow line with much on it that takes longer, but not for ever.
        while end < heal_at + 600 * SECOND && self.nodes.iter().any(|node| !node.gone && !node.is_idle()) {
            end += 60 * SECOND;
            self.until(end);
        }
        let [client, server] = &self.nodes;
        if !client.gone && !server.gone && client.ready && server.ready {
            for node in &self.nodes {
                assert!(
                    node.is_idle(),
                    "after the faults heal everything finishes: {:?} {:?} {:?} {:?}",
                    node.conn,
                    node.open(),
                    node.runs(),
                    node.tap.due()
                );
                assert!(node.closed.is_none());
            }
            self.world.tally.check("everything finishes");
            let last = self.world.random.below(2);
            let at = Instant::from_nanos(self.world.now);
            self.nodes[last].conn.close(at, Status::NORMAL, "done");
            self.until(end + 10 * SECOND);
        }
        for node in &self.nodes {
            assert!(node.gone, "one end is gone, the other is not: {:?}", node.conn);
        }
        self.account();
    }

    fn until(&mut self, end: u64) {
        let mut turns = 0u32;
        while self.world.now < end {
            let mut wake = end.min(self.faults.last().map_or(u64::MAX, |(at, _)| *at));
            for node in &self.nodes {
                wake = wake.min(node.wakes_at(&self.world));
            }
            self.world.now = self.world.now.max(wake);
            if wake > self.world.now - 1 || turns.is_multiple_of(64) {
                self.world.now += self.world.random.within(0..=20_000);
            }
            while let Some((at, fault)) = self.faults.last().copied()
                && at <= self.world.now
            {
                self.faults.pop();
                self.inject(fault);
            }
            let first = self.world.random.below(2);
            for index in [first, 1 - first] {
                let node = &mut self.nodes[index];
                if node.gone || node.paused_until > self.world.now {
                    continue;
                }
                node.turn(&mut self.world);
                self.liveness(index);
            }
            turns += 1;
            assert!(turns < 2_000_000, "two nodes that never rest");
            if self.nodes.iter().all(|node| node.gone) {
                return;
            }
        }
    }

    fn inject(&mut self, fault: Fault) {
        let world = &mut self.world;
        let who = world.random.below(2);
        let now = world.now;
        world.note(&[50, who as u64], || format!("fault {fault:?} at {who}"));
        match fault {
            Fault::Stall => {
                world.tally.fault("stall");
                world.pipes[who].stalled_until = now + world.random.within(1..=15_000) * MS;
            }
            Fault::Pause => {
                world.tally.fault("pause");
                self.throttled = true;
                let until = now + world.random.within(1..=12_000) * MS;
                let node = &mut self.nodes[who];
                node.paused_until = node.paused_until.max(until);
                node.resumed = node.paused_until;
            }
            Fault::Break => {
                let end = *world.random.pick(&BREAKS);
                for pipe in 0..2 {
                    let held = world.pipes[pipe].held();
                    let keep = world.random.below(held + 1);
                    world.tally.fault(if end == BREAKS[0] { "end of stream" } else { "reset" });
                    if world.pipes[pipe].cut(keep, end) {
                        world.tally.fault("half-sent frames");
                    }
                }
            }
            Fault::Drip => {
                world.tally.fault("drip");
                self.throttled = true;
                self.nodes[who].gulp = 1 + world.random.below(100);
            }
            Fault::Jump => {
                world.tally.fault("clock jump");
                let jump = world.random.within(1..=2_000) * MS;
                world.now += jump;
                for node in &mut self.nodes {
                    node.resumed = node.resumed.max(world.now);
                }
            }
            Fault::Abandon => {
                if !self.nodes[who].gone {
                    world.tally.fault("connection dropped");
                    let config = Config::builder("none").build().unwrap();
                    let other = Connection::new(config, Side::Client, 0, Instant::from_nanos(now));
                    self.nodes[who].abandon(world, other);
                    let open = self.nodes[who].open();
                    assert!(open.is_empty(), "into_unfinished accounts for everything: {open:?}");
                    world.tally.check("into_unfinished");
                }
            }
        }
    }

    fn heal(&mut self) {
        self.world.healed = true;
        let now = self.world.now;
        self.world.note(&[51], || "healed".to_owned());
        for index in 0..2 {
            let stalled = &mut self.world.pipes[index].stalled_until;
            *stalled = (*stalled).min(now);
            let node = &mut self.nodes[index];
            node.gulp = usize::MAX;
            if node.paused_until > now {
                node.paused_until = now;
                node.resumed = now;
            }
        }
    }

    /// Dead peers are closed inside their window, live ones never, and nobody who keeps to the protocol is accused.
    fn liveness(&mut self, index: usize) {
        let node = &self.nodes[index];
        let now = self.world.now;
        if let Some(closed) = &node.closed
            && closed.by == By::Us
        {
            let status = closed.status;
            let slow = self.throttled || self.world.pipes.iter().any(|pipe| pipe.stalled_until > 0);
            match status {
                Status::PROTOCOL_ERROR
                | Status::EXCESSIVE_LOAD
                | Status::FRAME_TOO_LARGE
                | Status::CHECK_IN_REQUIRED => {
                    panic!("{index} accuses a peer that keeps to the protocol: {closed}")
                }
                Status::SLOW_PEER if closed.message != "enough" => assert!(slow, "{closed}"),
                _ => {}
            }
        }
        if !node.ready || node.gone {
            return;
        }
        let bound = 3 * node.interval;
        let most = (node.interval / 2).max(500 * MS);
        let silent = now - node.last_read;
        match &node.closed {
            None => {
                // Who was asleep has the grace from when it woke.
                let awake = now - node.resumed.min(now);
                let late = 2 * MS;
                let kept = silent > bound.max(silent.saturating_sub(awake)) + most + late;
                assert!(!kept || !node.is_ready(), "a dead peer is kept");
                self.world.tally.check("no dead peer is kept");
            }
            Some(_) if node.found_dead() && !node.accused.get() => {
                node.accused.set(true);
                let Some((silent, stuck, waits)) = node.condemned else {
                    panic!("found dead, but not by the clock")
                };
                assert!(
                    silent >= bound || stuck >= bound,
                    "{index} found its peer dead after {silent} and {stuck} ns"
                );
                assert!(!waits || stuck >= bound, "{index} found its peer dead without having looked");
                self.world.tally.check("dead peers are found in time");
            }
            Some(_) => {}
        }
    }

    /// Each call has one outcome, and what is said not to have run was not seen.
    fn account(&mut self) {
        for who in 0..2 {
            for (user, record) in self.world.records[who].iter().enumerate() {
                let Some((status, ran)) = record.outcome else {
                    panic!("call {user} of {who} has no outcome")
                };
                let local = matches!(status, Status::NOT_SENT | Status::TIMEOUT | Status::LOCAL_LIMIT);
                if ran == Ran::No && local {
                    assert!(
                        !record.committed,
                        "call {user} of {who} left, and {status} says that it did not"
                    );
                }
                if ran == Ran::No {
                    assert!(
                        record.seen == 0 || record.refused,
                        "call {user} of {who} ran, and {status} says no"
                    );
                    self.world.tally.check("Ran::No is true");
                }
                if ran == Ran::Yes && !record.one_way {
                    assert!(
                        record.seen > 0,
                        "call {user} of {who} did not run, and {status} says that it did"
                    );
                    self.world.tally.check("Ran::Yes is true");
                }
                assert!(record.seen <= 1, "call {user} of {who} ran twice");
            }
        }
    }
}
