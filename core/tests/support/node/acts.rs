//! What a node's application does of its own accord: it calls, gives up, drains and closes, and its handlers answer.

use std::time::Duration;

use bytes::Bytes;
use tieline_core::{
    Instant,
    conn::{Body, CallHead, Reply, Served, Stream},
    wire::{Class, Kind, Metadata, Ran, Status},
};

use super::{
    super::{
        flow::Flow,
        piece::{self, NAME, Piece},
        world::{Record, STREAMS, World},
    },
    Node, Open, Running,
};

impl Node {
    /// The application begins something, or breaks off.
    pub(super) fn act(&mut self, world: &mut World) {
        if let Some(at) = self.decide_at
            && at <= world.now
        {
            self.decide_at = None;
            if world.random.once_in(10) {
                self.conn.refuse_check_in(Self::at(world), Status::CHECK_IN_REFUSED, "no", None);
            } else {
                self.conn.accept_check_in(Self::at(world));
            }
        }
        if world.now < self.next_call || world.healed || self.closed.is_some() {
            return;
        }
        // The more it has begun the more it takes its time, so that a run is many things and none of them for long.
        let often = 1 + (world.records[self.index].len() as u64 / 60).pow(3);
        self.next_call = world.now + 1 + world.random.next() % (2 * self.manners.pause * often);
        match world.random.below(40) {
            0..2 => self.cancel(world),
            4 if self.manners.drains && world.random.once_in(3) => {
                let grace = Duration::from_millis(world.random.within(0..=8_000));
                world.tally.fault("drain");
                world.note(&[20], || format!("{} drains within {grace:?}", self.index));
                self.conn.drain(Self::at(world), Status::GOING_AWAY, grace, "moving");
            }
            5 if self.manners.closes && world.random.once_in(6) => {
                let status = *world.random.pick(&[Status::NORMAL, Status::GOING_AWAY, Status::SLOW_PEER]);
                world.tally.fault("close");
                world.note(&[21], || format!("{} closes: {status}", self.index));
                self.conn.close(Self::at(world), status, "enough");
            }
            6 => self.handle_timeout(world),
            7 => {
                // A burst that nobody waits for room for.
                for _ in 0..world.random.below(60) {
                    self.begin(world, None);
                }
            }
            _ => self.begin(world, None),
        }
    }

    pub(super) fn begin(&mut self, world: &mut World, parent: Option<Served>) {
        let who = self.index;
        let user = world.records[who].len() as u32;
        let streams = self.manners.streams && world.random.once_in(3);
        let (method, kind) = match world.random.below(60) {
            0 => ("t.S/None", Kind::Unary),
            1 => ("t.S/Echo", Kind::Bidi),
            2 | 3 => ("t.S/Other", Kind::Unary),
            _ if streams => *world.random.pick(&STREAMS),
            _ => ("t.S/Echo", Kind::Unary),
        };
        let one_way = kind == Kind::Unary && world.random.once_in(5);
        let len = match world.random.below(12) {
            0 => 3_000,
            1 if self.manners.large => world.random.below(70_000),
            2 if self.manners.large && world.random.once_in(3) => world.random.below(320_000),
            _ => world.random.below(200),
        };
        let piece = Piece { tag: world.random.next(), len, noise: world.random.once_in(2) };
        let payload = piece::argument(who, parent.is_some(), user, piece);
        let metadata = [Metadata { key: "k", value: &[1; 20] }; 3];
        let mut head = CallHead::new(method);
        head.kind = kind;
        head.priority = world.random.below(5) as i8 - 2;
        head.parent = parent;
        head.metadata = &metadata[..world.random.below(12).saturating_sub(8)];
        head.deadline = match world.random.below(6) {
            0 => Some(Instant::from_nanos(world.now + world.random.within(0..=20_000_000))),
            1 | 2 => Some(Instant::from_nanos(world.now + world.random.within(0..=5_000_000_000))),
            3 => Some(Instant::from_nanos(u64::MAX)),
            _ => None,
        };
        head.credit =
            *world.random.pick(&[None, None, Some(0), Some(1), Some(700), Some(20_000), Some(u32::MAX)]);
        let key = vec![b'k'; *world.random.pick(&[0, 0, 0, 0, 0, 0, 0, 1, 2, 64])];
        head.ordering_key = &key;
        head.compress = world.random.once_in(3);
        // What is compressed does not begin with its name.
        let mut trace = [0; 26];
        trace[..NAME].copy_from_slice(&payload[..NAME]);
        if (head.compress || self.manners.compress) && payload.len() >= self.manners.compress_from {
            head.trace = &trace;
        }
        let body =
            if world.random.once_in(2) { Body::Copy(&payload) } else { Body::Share(payload.clone().into()) };
        let at = Self::at(world);
        let begun = match one_way {
            true => self.conn.one_way(at, &head, body, user),
            false => self.conn.call(at, &head, body, user),
        };
        let deadline = head.deadline.map(Instant::as_nanos).filter(|at| *at != u64::MAX);
        let mut record =
            Record { one_way, deadline, kind, key: key.clone(), argument: piece, ..Record::default() };
        match begun {
            Ok(id) => {
                world.note(&[22, user.into()], || {
                    format!("{who} calls {user} {kind:?} (one-way: {one_way}, key {})", key.len())
                });
                let large = self.manners.large;
                let stream = Stream::Ours(id);
                let flow = (kind != Kind::Unary).then(|| Flow::new(world, stream, who, user, kind, large));
                self.open.push(Open { id, user, flow });
            }
            Err(rejected) => {
                assert_eq!(rejected.user, user, "a refusal gives the value back");
                world.tally.check("a refusal gives the value back");
                record.outcome = Some((rejected.reason.status(), Ran::No));
            }
        }
        world.records[who].push(record);
    }

    fn cancel(&mut self, world: &mut World) {
        if self.open.is_empty() {
            return;
        }
        let Open { id, user, flow } = self.open.swap_remove(world.random.below(self.open.len()));
        world.tally.fault(if flow.is_some() { "cancel of a stream" } else { "cancel" });
        world.note(&[23, user.into()], || format!("{} gives {user} up", self.index));
        assert_eq!(self.conn.cancel(Self::at(world), id), Some(user), "what is open can be given up");
        assert_eq!(self.conn.cancel(Self::at(world), id), None, "once");
        world.records[self.index][user as usize].outcome = Some((Status::CANCELLED, Ran::Maybe));
    }

    pub(super) fn flows(&self) -> impl Iterator<Item = &Flow> {
        let open = self.open.iter().filter_map(|open| open.flow.as_ref());
        open.chain(self.running.iter().filter_map(|running| running.flow.as_ref()))
    }

    pub(super) fn flow(&mut self, stream: Stream) -> Option<&mut Flow> {
        match stream {
            Stream::Ours(id) => self.open.iter_mut().find(|open| open.id == id)?.flow.as_mut(),
            Stream::Theirs(call) => self.running.iter_mut().find(|it| it.call == call)?.flow.as_mut(),
        }
    }

    /// Every stream has its turn.
    pub(super) fn streams(&mut self, world: &mut World) {
        let open = self.open.iter_mut().filter_map(|open| open.flow.as_mut());
        for flow in open.chain(self.running.iter_mut().filter_map(|running| running.flow.as_mut())) {
            flow.turn(world, &mut self.conn, &mut self.tap, self.quiet);
        }
    }

    /// Handlers whose time has come answer or stop.
    pub(super) fn handlers(&mut self, world: &mut World) {
        let mut at = 0;
        while at < self.running.len() {
            let running = &self.running[at];
            let due = running.at <= world.now || world.healed && running.at == u64::MAX;
            if !due || running.waits() {
                at += 1;
                continue;
            }
            let Running { call, number, cancelled, one_way, .. } = self.running.swap_remove(at);
            let now = Self::at(world);
            if one_way || (cancelled && world.random.once_in(2)) {
                self.conn.stopped(now, call);
                continue;
            }
            let len = match world.random.below(10) {
                0..2 if self.manners.large => world.random.below(100_000),
                2 => 1_000,
                _ => world.random.below(200),
            };
            let mut piece = Piece { tag: world.random.next(), len, noise: world.random.once_in(2) };
            let octets = piece.octets();
            let mut reply = match world.random.below(10) {
                0 => {
                    piece = Piece::default();
                    Reply::error(Status(world.random.next() as u8), "no")
                }
                1 => {
                    let mut reply = Reply::error(Status::ABORTED, "why");
                    reply.body = Body::Copy(&octets);
                    reply
                }
                2..5 => Reply::ok(Body::Copy(&octets)),
                _ => Reply::ok(Body::Share(Bytes::from(octets.clone()))),
            };
            let metadata = [Metadata { key: "k", value: &[1; 20] }; 3];
            reply.metadata = &metadata[..world.random.below(12).saturating_sub(8)];
            let done = self.conn.reply(now, call, &reply);
            assert!(!cancelled || done.is_err(), "what was cancelled has been answered");
            let own = matches!(reply.status.class(), Class::Handler | Class::Application);
            let status = if own { reply.status } else { Status::INTERNAL };
            if let Some(number) = number.filter(|_| done.is_ok()) {
                world.records[1 - self.index][number as usize].result = Some((status, piece));
            }
        }
    }
}
