//! A connection, its driver and an application that does everything an application may do, one turn at a time.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use bytes::{Buf, Bytes};
use tieline_core::{
    Instant,
    conn::{
        Answer, Body, By, CallHead, CallId, Cancel, Closed, Config, Connection, End, Event, Failure,
        Incoming, Outbox, Reply, Rest, Served, Side, Stream,
    },
    wire::{Class, Kind, Metadata, Ran, Status},
};

use super::{
    flow::{DOWN, Flow},
    piece::{self, NAME, Piece},
    tap::Tap,
    world::{Manners, Record, STREAMS, World},
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

    fn events(&mut self, world: &mut World) {
        let most = if world.random.once_in(4) { world.random.below(4) } else { 64 };
        self.quiet = false;
        for _ in 0..most {
            let said = self.conn.next().event;
            let Some(event) = self.conn.poll_event(Self::at(world)) else {
                // It may have been wrong once; asked again it knows.
                assert!(
                    !self.conn.next().event || self.conn.next().write,
                    "next() says event, and there is none"
                );
                self.quiet = true;
                return;
            };
            assert!(said, "an event that next() did not announce: {event:?}");
            assert!(self.closed.is_none(), "an event after Closed: {event:?}");
            self.on(world, event);
        }
    }

    fn on(&mut self, world: &mut World, event: Event<u32>) {
        let who = self.index;
        match event {
            Event::CheckIn(_) => {
                let after = *world.random.pick(&[0, 0, 1_000_000, 4_900_000_000, 6_000_000_000]);
                self.decide_at = Some(world.now + after);
                world.note(&[10], || format!("{who} is asked to verify"));
            }
            Event::Ready(peer) => {
                assert!(!self.ready);
                self.ready = true;
                self.last_read = self.last_read.max(world.now);
                self.last_taken = self.last_taken.max(world.now);
                self.interval = peer.heartbeat_interval.as_nanos() as u64;
                world.note(&[11, self.interval], || format!("{who} is ready"));
            }
            Event::Request(incoming) => self.on_request(world, incoming),
            Event::Cancelled(call, why) => {
                let stubborn = self.manners.stubborn && world.random.once_in(3);
                let now = world.now;
                let later = now + world.random.within(0..=2_000_000_000);
                let running = self.running.iter_mut().find(|running| running.call == call);
                let running = running.expect("only who runs is cancelled");
                assert!(!running.cancelled || why != Cancel::ByCaller, "cancelled twice");
                running.cancelled = true;
                running.flow = None;
                running.at = if stubborn { later } else { now };
                world
                    .note(&[13, call.slot() as u64], || format!("{who} must stop {} ({why:?})", call.slot()));
            }
            Event::Readable(stream) => {
                world.note(&[18], || format!("{who} can take items of {stream:?}"));
                let flow = self.flow(stream).expect("only streams of the application are readable");
                flow.on_readable();
            }
            Event::Writable(stream) => {
                world.note(&[19], || format!("{who} can send items of {stream:?}"));
                let flow = self.flow(stream).expect("only streams of the application are writable");
                flow.on_writable();
            }
            Event::Done { user, outcome, rest } => self.on_done(world, user, outcome, rest),
            Event::Room => world.note(&[15], || format!("{who} has room")),
            Event::Draining { .. } => {
                self.tap.peer_drains = true;
                world.note(&[16], || format!("{who} hears that the peer drains"));
            }
            Event::Closed(closed) => {
                world.note(&[17, closed.status.0.into()], || format!("{who} {closed}"));
                self.tap.over = true;
                self.closed = Some(closed);
            }
            other => panic!("an event that the tests do not know: {other:?}"),
        }
    }

    fn ended(&mut self, world: &mut World, user: u32, status: Status, ran: Ran) {
        let who = self.index;
        world.note(&[14, user.into(), status.0.into()], || {
            format!("{who} call {user} ended: {status}, ran {ran}")
        });
        self.open.retain(|open| open.user != user);
        let record = &mut world.records[who][user as usize];
        assert!(record.outcome.is_none(), "call {user} ended twice");
        record.outcome = Some((status, ran));
        world.tally.check("one outcome a call");
        if status.class() == Class::RefusedByNode {
            // Whoever goes on at full speed is a flood and may be closed for it.
            self.next_call = self.next_call.max(world.now + 50_000_000);
        }
    }

    /// The outcome of a call, and what of its stream was not taken.
    fn on_done(&mut self, world: &mut World, user: u32, outcome: Result<Answer, Failure>, rest: Rest) {
        let who = self.index;
        let open = self.open.iter_mut().find(|open| open.user == user).expect("only what is open ends");
        let flow = open.flow.take();
        match &flow {
            Some(flow) => rest.for_each(|octets| flow.took(world, &octets)),
            None => assert_eq!(rest.len(), 0, "items of a call that does not stream"),
        }
        let (status, ran) = match &outcome {
            Ok(_) => (Status::OK, Ran::Yes),
            Err(failure) => (failure.status(), failure.ran()),
        };
        let record = &world.records[who][user as usize];
        let answers = matches!(status.class(), Class::Handler | Class::Application);
        if answers && !record.one_way {
            let Some((said, piece)) = record.result else { panic!("{user}: an answer that nobody gave") };
            assert_eq!(status, said, "call {user} of {who}: another answer");
            let octets = match &outcome {
                Ok(answer) => &answer.payload,
                Err(failure) => failure.detail(),
            };
            assert!(piece.is(octets), "call {user} of {who}: another result than {piece:?}");
            assert!(record.items[DOWN].is_empty(), "call {user} of {who}: an answer before its items");
            world.tally.check("results arrive as they were given");
        }
        if status == Status::RESPONSE_TOO_LARGE {
            world.tally.check("results too large for the caller");
        }
        let impossible = [Status::BAD_REPLY, Status::BAD_COMPRESSION, Status::WRONG_SIGNATURE];
        assert!(!impossible.contains(&status), "{status} between two that keep to the protocol");
        self.ended(world, user, status, ran);
    }

    fn on_request(&mut self, world: &mut World, incoming: Incoming) {
        let who = self.index;
        let number = piece::name(&incoming.payload).map(|(_, number)| number);
        let mut refuse = !incoming.one_way && world.random.once_in(20);
        let key = incoming.ordering_key().to_vec();
        if let Some(record) = number.and_then(|number| world.records[1 - who].get_mut(number as usize)) {
            record.seen += 1;
            record.refused |= refuse;
            assert!(record.seen == 1 || !self.tap_trusts(), "a call that ran twice");
            world.tally.check("a handler once a request");
            assert!(record.argument.is(&incoming.payload[NAME..]), "another argument: {:?}", record.argument);
            assert_eq!((&record.key, record.kind), (&key, incoming.kind));
            world.tally.check("arguments arrive as they were sent");
            if !key.is_empty() {
                let other = self.running.iter().find(|running| running.key == key);
                // When the connection is over nothing else would start one-ways that wait for their key.
                let over = incoming.one_way && !self.is_ready();
                assert!(
                    other.is_none() || over,
                    "{number:?} of {} starts while {:?} with the same key runs",
                    1 - who,
                    other.map(|running| (running.number, running.one_way, running.cancelled))
                );
                let last = self.keys.insert(key.clone(), record.id).unwrap_or(0);
                assert!(last < record.id, "a key's calls start in the order of their ids");
                world.tally.check("keyed calls one after the other");
            }
        } else {
            refuse = false;
        }
        assert!(self.running.iter().all(|running| running.call != incoming.call), "a name that is in use");
        assert!(incoming.call.slot() < 3 * self.max_concurrent + 17 + self.max_one_ways);
        let slot = incoming.call.slot();
        world.note(&[12, slot as u64, incoming.payload.len() as u64], || {
            format!("{who} runs {slot} for {number:?}")
        });
        let (call, one_way, kind) = (incoming.call, incoming.one_way, incoming.kind);
        if refuse {
            let status = *world.random.pick(&[Status::OVERLOADED, Status::DENIED, Status::RATE_LIMITED]);
            self.conn.refuse(Self::at(world), call, &Reply::error(status, "refused")).unwrap();
            return;
        }
        let at = match world.random.below(8) {
            0 if !world.healed => u64::MAX,
            1 | 2 if !world.healed => world.now + world.random.within(0..=3_000_000_000),
            _ => world.now,
        };
        let at = if one_way && at == u64::MAX { world.now + 1_000_000_000 } else { at };
        let flow = number
            .filter(|_| kind != Kind::Unary)
            .map(|number| Flow::new(world, Stream::Theirs(call), 1 - who, number, kind, self.manners.large));
        let patient = flow.is_some() && !world.random.once_in(3);
        self.running.push(Running { call, number, at, patient, cancelled: false, one_way, key, flow });
        if world.random.once_in(10) && !world.healed {
            self.begin(world, Some(call));
        }
    }

    fn tap_trusts(&self) -> bool {
        self.tap.is_trusted()
    }

    /// The application begins something, or breaks off.
    fn act(&mut self, world: &mut World) {
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

    fn begin(&mut self, world: &mut World, parent: Option<Served>) {
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

    fn flows(&self) -> impl Iterator<Item = &Flow> {
        let open = self.open.iter().filter_map(|open| open.flow.as_ref());
        open.chain(self.running.iter().filter_map(|running| running.flow.as_ref()))
    }

    fn flow(&mut self, stream: Stream) -> Option<&mut Flow> {
        match stream {
            Stream::Ours(id) => self.open.iter_mut().find(|open| open.id == id)?.flow.as_mut(),
            Stream::Theirs(call) => self.running.iter_mut().find(|it| it.call == call)?.flow.as_mut(),
        }
    }

    /// Every stream has its turn.
    fn streams(&mut self, world: &mut World) {
        let open = self.open.iter_mut().filter_map(|open| open.flow.as_mut());
        for flow in open.chain(self.running.iter_mut().filter_map(|running| running.flow.as_mut())) {
            flow.turn(world, &mut self.conn, &mut self.tap, self.quiet);
        }
    }

    /// Handlers whose time has come answer or stop.
    fn handlers(&mut self, world: &mut World) {
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
            for super::tap::Call { id, number, timeout_us: said } in std::mem::take(&mut self.tap.calls) {
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
