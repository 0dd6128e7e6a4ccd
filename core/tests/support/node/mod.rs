//! A connection, its driver and an application that does everything an application may do, one turn at a time.

mod acts;
mod told;

use std::{collections::BTreeMap, sync::Arc};

use bytes::Buf;
use tieline_core::{
    Instant,
    conn::{By, CallId, Closed, Config, Connection, End, Outbox, Served, Side},
    wire::Status,
};

use super::{
    flow::Flow,
    tap::{self, Tap},
    world::{Manners, World},
};

struct Running {
    call: Served,
    number: Option<u32>,
    /// When the handler answers or stops; `u64::MAX`: when it is cancelled.
    at: u64,
    /// It answers when its stream is done.
    patient: bool,
    cancelled: bool,
    one_way: bool,
    key: Vec<u8>,
    flow: Option<Flow>,
}

impl Running {
    /// Its handler answers when its stream is done, and that is not.
    fn waits(&self) -> bool {
        self.patient && self.flow.as_ref().is_some_and(|flow| !flow.is_done())
    }
}

struct Open {
    id: CallId,
    user: u32,
    flow: Option<Flow>,
}

pub struct Node {
    pub index: usize,
    pub conn: Connection<u32>,
    pub interval: u64,
    outbox: Outbox,
    pub tap: Tap,
    manners: Manners,
    running: Vec<Running>,
    open: Vec<Open>,
    /// The id of the last call that started, by key.
    keys: BTreeMap<Vec<u8>, u64>,
    /// No event waited when this turn's had been fetched.
    quiet: bool,
    next_call: u64,
    decide_at: Option<u64>,
    pub paused_until: u64,
    /// When a pause last ended.
    pub resumed: u64,
    pub last_read: u64,
    pub last_taken: u64,
    pub ready: bool,
    pub closed: Option<Closed>,
    max_concurrent: usize,
    max_one_ways: usize,
    pub gone: bool,
    mark: usize,
    /// Whether its finding that the peer is dead was looked into.
    pub accused: std::cell::Cell<bool>,
    /// When it gave its peer up: for how long that had been silent, for how long it had taken nothing, and whether
    /// octets of it had been there to be read for a while.
    pub condemned: Option<(u64, u64, bool)>,
    /// Octets a turn that the transport takes and gives at most.
    pub gulp: usize,
}

impl Node {
    pub fn new(
        config: Arc<Config>,
        side: Side,
        seed: u64,
        manners: Manners,
        interval: u64,
        trusted: bool,
        now: u64,
    ) -> Self {
        let mark = [1, 100, 4096, 65_536][(seed % 4) as usize];
        Self {
            index: usize::from(side == Side::Server),
            interval,
            outbox: Outbox::with_mark(mark),
            tap: Tap::new(side, trusted),
            manners,
            running: Vec::new(),
            open: Vec::new(),
            keys: BTreeMap::new(),
            quiet: false,
            next_call: now,
            decide_at: None,
            paused_until: 0,
            resumed: 0,
            last_read: now,
            last_taken: now,
            ready: false,
            closed: None,
            max_concurrent: config.limits().max_concurrent as usize,
            max_one_ways: config.limits().max_one_ways,
            gone: false,
            mark,
            accused: std::cell::Cell::new(false),
            condemned: None,
            gulp: usize::MAX,
            conn: Connection::new(config, side, seed, Instant::from_nanos(now)),
        }
    }

    fn at(world: &World) -> Instant {
        Instant::from_nanos(world.now)
    }

    /// When it next has something to do of its own accord.
    pub fn wakes_at(&self, world: &World) -> u64 {
        if self.gone {
            return u64::MAX;
        }
        // While the outbox is full what waits to be committed is no reason to look again.
        let full = !self.outbox.has_room() && !self.conn.next().event;
        let wake = if full { self.conn.next().wake } else { self.conn.poll_timeout() };
        let mut at = wake.map_or(u64::MAX, Instant::as_nanos);
        let due = self.running.iter().filter(|running| !running.waits()).map(|running| running.at);
        at = at.min(due.min().unwrap_or(u64::MAX));
        at = at.min(self.flows().map(|flow| flow.wakes_at(world.healed)).min().unwrap_or(u64::MAX));
        at = at.min(self.decide_at.unwrap_or(u64::MAX));
        if !world.healed && self.closed.is_none() {
            at = at.min(self.next_call);
        }
        if self.conn.next().read
            && let Some(ready) = world.pipes[1 - self.index].ready_at()
        {
            at = at.min(ready);
        }
        if self.outbox.remaining() > 0 && !world.pipes[self.index].is_full() {
            at = world.now;
        }
        at.max(self.paused_until)
    }

    /// One turn of the driver and the application, in parts of random size.
    pub fn turn(&mut self, world: &mut World) {
        self.read(world);
        self.events(world);
        self.act(world);
        self.streams(world);
        self.handlers(world);
        self.transmit(world);
        self.write(world);
        self.look_at_the_clock(world);
        self.laws(world);
        self.end(world);
    }

    fn read(&mut self, world: &mut World) {
        if !self.conn.next().read || world.random.once_in(9) {
            return;
        }
        for _ in 0..1 + world.random.below(3) {
            let max = match world.random.below(4) {
                0 => 1,
                1 => 1 + world.random.below(40),
                _ => 70_000,
            };
            let mut buffer = self.conn.lend();
            assert!(
                buffer.is_empty() && buffer.capacity() <= 2 * (100_000 + (256 << 10) + 70_000),
                "a lent buffer is bounded: {}",
                buffer.capacity()
            );
            let octets = world.pipes[1 - self.index].read(world.now, max.min(self.gulp));
            if octets.len() <= buffer.capacity() || world.random.once_in(2) {
                buffer.extend_from_slice(&octets);
                self.give(world, &octets, buffer);
            } else {
                // Any other buffer is as good, and the lent one may come back empty.
                self.give(world, &octets, bytes::BytesMut::from(&octets[..]));
                self.conn.handle_input(Self::at(world), buffer);
            }
        }
        if let Some(end) = world.pipes[1 - self.index].ended(world.now) {
            world.note(&[3], || format!("{} is told {end:?}", self.index));
            self.conn.handle_disconnect(Self::at(world), end);
        }
    }

    fn give(&mut self, world: &World, octets: &[u8], buffer: bytes::BytesMut) {
        if !octets.is_empty() {
            self.last_read = world.now;
            self.tap.given(octets);
        }
        self.conn.handle_input(Self::at(world), buffer);
    }

    fn transmit(&mut self, world: &mut World) {
        if world.random.once_in(6) {
            return;
        }
        let (said, room, before) = (self.conn.next().write, self.outbox.has_room(), self.outbox.remaining());
        let any = self.conn.poll_transmit(Self::at(world), &mut self.outbox);
        assert!(said || !any, "output that next() did not announce");
        assert_eq!(any, self.outbox.remaining() > before);
        if said && room && !any {
            assert!(!self.conn.next().write, "next() says write, and there is nothing");
        }
        if any {
            let octets: Vec<u8> = self.outbox.chunks().flatten().copied().skip(before).collect();
            assert!(self.outbox.remaining() < self.mark + 3 * 101_000, "an outbox is bounded");
            world.note(&[30, octets.len() as u64], || {
                format!("{} commits {} octets", self.index, octets.len())
            });
            world.note_octets(&octets);
            self.tap.committed(&octets, &mut world.tally);
            for tap::Call { id, number, timeout_us: said } in std::mem::take(&mut self.tap.calls) {
                let record = &mut world.records[self.index][number as usize];
                record.committed = true;
                record.id = id;
                world.note(&[31, id], || format!("{} sends call {number} with the id {id}", self.index));
                let record = &mut world.records[self.index][number as usize];
                let left = record.deadline.map(|at| at.saturating_sub(world.now).div_ceil(1000));
                let honest = match (said, left) {
                    (Some(said), Some(left)) => said > 0 && (left..=left + 1000).contains(&said),
                    (said, left) => said == left,
                };
                assert!(honest, "says that {said:?} µs are left, and it is {left:?}");
                world.tally.check("deadlines are honest");
            }
        }
    }

    fn write(&mut self, world: &mut World) {
        let most = match world.random.below(4) {
            0 => 1 + world.random.below(30),
            1 => 0,
            _ => usize::MAX,
        };
        let mut left = most.min(self.gulp);
        while left > 0 && self.outbox.remaining() > 0 {
            let chunk = self.outbox.chunk();
            let offered = chunk.len().min(left);
            let taken = world.pipes[self.index].write(world.now, &chunk[..offered]);
            if taken < offered {
                world.tally.fault("partial write");
            }
            if taken == 0 {
                break;
            }
            left -= taken;
            self.last_taken = world.now;
            self.outbox.advance(taken);
            self.conn.handle_sent(Self::at(world), taken);
        }
        if self.outbox.remaining() == 0 {
            self.last_taken = world.now;
        }
    }

    /// Looks at the clock, and notes why if that condemns the peer.
    fn handle_timeout(&mut self, world: &World) {
        let due = self.conn.poll_timeout().is_some_and(|at| at.as_nanos() <= world.now);
        let was_ready = due && self.is_ready();
        self.conn.handle_timeout(Self::at(world));
        if was_ready && !self.is_ready() {
            let waits = world.pipes[1 - self.index].ready_at().is_some_and(|at| at + 50_000_000 < world.now);
            self.condemned = Some((world.now - self.last_read, world.now - self.last_taken, waits));
        }
    }

    fn look_at_the_clock(&mut self, world: &mut World) {
        let due = self.conn.poll_timeout().is_some_and(|at| at.as_nanos() <= world.now);
        if due || world.random.once_in(30) {
            self.handle_timeout(world);
            let next = self.conn.next();
            if !next.event && !next.write {
                let wake = self.conn.poll_timeout().map_or(u64::MAX, Instant::as_nanos);
                assert!(wake > world.now, "L4: asks to be woken at {wake}, and nothing has come of it");
                world.tally.check("L4 no spin");
            }
        }
    }

    /// Whether it is checked in, and nothing has ended it yet.
    pub fn is_ready(&self) -> bool {
        format!("{:?}", self.conn).contains("Ready")
    }

    /// What holds at every moment.
    fn laws(&mut self, world: &mut World) {
        let next = self.conn.next();
        let wake = self.conn.poll_timeout();
        if next.event || next.write {
            assert!(wake.is_some_and(|at| at.as_nanos() <= world.now), "L5: what waits forces the time-out");
        } else {
            assert_eq!(wake, next.wake, "L5: next() and poll_timeout() agree");
        }
        let (ours, theirs) = self.conn.open_calls();
        assert!(theirs <= 3 * self.max_concurrent + 17 + self.max_one_ways, "L8: served calls are bounded");
        assert!(ours <= 16_384, "L8: own calls are bounded");
        if !next.event && !next.write && next.end == End::Open {
            for flow in self
                .open
                .iter()
                .filter_map(|it| it.flow.as_ref())
                .chain(self.running.iter().filter_map(|it| it.flow.as_ref()))
            {
                let id = world.records[flow.who][flow.number as usize].id;
                self.tap.ledger.at_rest(id, &mut world.tally);
            }
        }
        world.tally.check("laws");
    }

    fn end(&mut self, world: &mut World) {
        match self.conn.next().end {
            End::Open => {}
            End::ShutWrite => {
                if self.outbox.remaining() == 0 {
                    world.pipes[self.index].shut();
                }
            }
            End::Close => {
                if self.conn.next().event {
                    return;
                }
                assert!(self.closed.is_some(), "an end that the application was not told");
                world.note(&[40], || format!("{} is gone", self.index));
                self.go(world);
            }
        }
    }

    /// The process drops the socket.
    pub fn go(&mut self, world: &mut World) {
        self.gone = true;
        world.pipes[self.index].shut();
        world.pipes[1 - self.index].unread = true;
    }

    /// The process drops the connection; what is known about each call that is left.
    pub fn abandon(&mut self, world: &mut World, with: Connection<u32>) {
        let conn = std::mem::replace(&mut self.conn, with);
        for (user, ran) in conn.into_unfinished() {
            self.ended(world, user, Status::CONNECTION_LOST, ran);
        }
        self.go(world);
    }

    pub fn is_idle(&self) -> bool {
        self.open.is_empty() && self.running.is_empty() && self.conn.open_calls() == (0, 0)
    }

    /// Whose handlers run.
    pub fn runs(&self) -> Vec<(Option<u32>, bool)> {
        self.running.iter().map(|running| (running.number, running.waits())).collect()
    }

    pub fn open(&self) -> Vec<u32> {
        self.open.iter().map(|open| open.user).collect()
    }

    pub fn has_committed(&self) -> bool {
        self.outbox.remaining() > 0
    }

    /// Whether it ended the connection of its own will because the peer was silent.
    pub fn found_dead(&self) -> bool {
        self.closed
            .as_ref()
            .is_some_and(|closed| closed.by == By::Us && closed.status == Status::HEARTBEAT_LOST)
    }
}
