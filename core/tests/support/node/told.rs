//! What a node's application is told: each event is what the world knows of it.

use tieline_core::{
    conn::{Answer, Cancel, Event, Failure, Incoming, Reply, Rest, Stream},
    wire::{Class, Kind, Ran, Status},
};

use super::{
    super::{
        flow::{DOWN, Flow},
        piece::{self, NAME},
        world::World,
    },
    Node, Running,
};

impl Node {
    pub(super) fn events(&mut self, world: &mut World) {
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

    pub(super) fn ended(&mut self, world: &mut World, user: u32, status: Status, ran: Ran) {
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
}
