//! Frames that are valid, mutated, repeated, inserted or random, and what a connection makes of them.

use tieline_core::{
    Instant,
    conn::{Body, CallHead, Cancel, End, Event, Limits, Outbox, Reply, Served, Side},
    wire::{CheckIn, CheckInAck, FrameType, Method, Request, Status},
};

use super::{
    frames::{self, Seen},
    random::Random,
    raw::{MS, Raw, config},
    tally::Tally,
    tap::Tap,
};

/// A peer that knows the protocol and keeps to it as much as it likes.
pub struct Peer {
    side: Side,
    next_id: u64,
    last_id: u64,
    /// How many frames are good for each ten or so that are not.
    good: usize,
    /// REQUESTs that were read and not answered.
    due: Vec<u64>,
    last: Vec<u8>,
}

impl Peer {
    pub fn new(side: Side) -> Self {
        Self {
            side,
            next_id: if side == Side::Client { 1 } else { 2 },
            last_id: 0,
            good: 60,
            due: Vec::new(),
            last: Vec::new(),
        }
    }

    pub fn reads(&mut self, frames: &[Seen]) {
        let requests = frames.iter().filter(|frame| frame.frame_type() == FrameType::REQUEST);
        self.due.extend(requests.map(Seen::id));
    }

    pub fn hello(&self, random: &mut Random) -> Vec<u8> {
        let max_concurrent = *random.pick(&[0, 1, 100]);
        match self.side {
            Side::Client => {
                frames::check_in(CheckIn { identifier: "peer", max_concurrent, ..CheckIn::default() })
            }
            Side::Server => {
                frames::ack(CheckInAck { identifier: "peer", max_concurrent, ..CheckInAck::default() })
            }
        }
    }

    /// A frame that a peer may send now.
    pub fn valid(&mut self, random: &mut Random) -> Vec<u8> {
        let len = *random.pick(&[0, 5, 100, 5_000]);
        let payload = random.octets(len);
        let what = random.below(12);
        let id = self.next_id;
        if what <= 4 {
            self.next_id += 2 * random.within(1..=3);
            self.last_id = id;
        }
        match what {
            0..4 => {
                let head = Request { method: 1, timeout_us: Some(3_000_000), ..Request::default() };
                frames::request(
                    id,
                    if random.once_in(3) { head } else { Request { timeout_us: None, ..head } },
                    &payload,
                )
            }
            4 => frames::one_way(id, &payload),
            5 if self.last_id > 0 => frames::cancel(self.last_id),
            6 | 7 if !self.due.is_empty() => {
                let at = random.below(self.due.len());
                let status = *random.pick(&[Status::OK, Status::OK, Status::ABORTED, Status::OVERLOADED]);
                frames::response(self.due.swap_remove(at), status, &payload)
            }
            8 => frames::table(&[Method { id: 1, name: "t.S/Echo", fingerprint: 0 }]),
            9 => frames::heartbeat_ack(1),
            _ => frames::heartbeat(random.next()),
        }
    }

    /// Anything.
    pub fn any(&mut self, random: &mut Random, tally: &mut Tally) -> Vec<u8> {
        let mut frame = self.valid(random);
        match random.below(self.good) {
            0 => {
                tally.fault("mutated frame");
                let at = random.below(frame.len());
                frame[at] ^= 1 << random.below(8);
            }
            1 => {
                tally.fault("mutated body");
                for _ in 0..3 {
                    let at = random.below(frame.len());
                    if at >= 18 {
                        frame[at] = random.next() as u8;
                    }
                }
            }
            2 => {
                tally.fault("repeated frame");
                frame = self.last.clone();
            }
            3 => {
                tally.fault("random octets");
                let len = random.below(60);
                frame = random.octets(len);
            }
            4..8 => {
                tally.fault("inserted frame");
                let status = *random.pick(&[0, 0, 0x80, 0x8d, 0x21]);
                let flags = *random.pick(&[0, 0, 0, 1, 0x80]);
                let id = *random.pick(&[0, 1, 2, self.next_id, self.next_id.saturating_sub(2), 1 << 17]);
                let len = random.below(20);
                let body = if random.once_in(2) { vec![0; len.min(1)] } else { random.octets(len) };
                frame = frames::octets(random.below(17) as u8, flags, status, id, &body);
            }
            8 => {
                tally.fault("extension");
                frame = frames::octets(
                    0x80 + random.below(0x80) as u8,
                    random.next() as u8,
                    9,
                    random.next(),
                    &[1; 50],
                );
            }
            9 => {
                tally.fault("half a frame");
                frame.truncate(random.below(frame.len()));
            }
            _ => {}
        }
        self.last.clone_from(&frame);
        frame
    }
}

fn target(side: Side, random: &mut Random) -> Raw {
    let mut limits = Limits::default();
    limits.max_concurrent = *random.pick(&[1, 4, 100]);
    limits.max_message = *random.pick(&[1024, 63 << 10]);
    limits.memory = *random.pick(&[64 << 10, 8 << 20]);
    let mut raw = Raw::new(config().limits(limits).build().unwrap(), side);
    raw.outbox = Outbox::with_mark(*random.pick(&[1, 1_000, 65_536]));
    raw
}

/// A connection opposite a peer that does anything: it neither panics nor spins, what it holds is bounded, what it
/// sends obeys the rules, and it ends with one word about it.
pub fn run(seed: u64, talk: bool) -> Tally {
    let mut random = Random::new(seed ^ 0xBAD);
    let mut tally = Tally::default();
    let (side, other) = *random.pick(&[(Side::Server, Side::Client), (Side::Client, Side::Server)]);
    let mut raw = target(side, &mut random);
    let mut peer = Peer::new(other);
    peer.good = *random.pick(&[60, 600, 3_000]);
    let mut tap = Tap::new(side, false);
    let mut running: Vec<Served> = Vec::new();
    let mut closed = false;
    let mut user = 0;
    if side == Side::Client {
        take(&mut raw, &mut tap, &mut tally);
    }
    let hello = peer.hello(&mut random);
    raw.feed(&if random.once_in(10) { peer.any(&mut random, &mut tally) } else { hello });
    for _ in 0..random.below(400) {
        match random.below(10) {
            0..5 => {
                let octets = peer.any(&mut random, &mut tally);
                let cut = random.below(octets.len() + 1);
                raw.feed(&octets[..cut]);
                if random.once_in(3) {
                    raw.conn.poll_event(raw.at()).into_iter().for_each(|event| raw.passed.push(event));
                }
                raw.feed(&octets[cut..]);
            }
            5 => {
                user += 1;
                let head = CallHead::new("t.S/Echo")
                    .deadline(random.once_in(2).then(|| raw.after(std::time::Duration::from_secs(1))));
                if raw.conn.call(raw.at(), &head, Body::Copy(&[1; 100]), user).is_err() {
                    tally.check("a refusal gives the value back");
                }
            }
            6 => raw.now += random.within(1..=300) * MS,
            7 => raw.conn.handle_timeout(raw.at()),
            8 if random.once_in(30) => raw.eof(),
            _ if !running.is_empty() => {
                let call = running.swap_remove(random.below(running.len()));
                let _ = raw.conn.reply(raw.at(), call, &Reply::ok(Body::Copy(b"result")));
            }
            _ => {}
        }
        let mut events = std::mem::take(&mut raw.passed);
        if random.once_in(2) {
            events.extend(raw.events());
        }
        for event in events {
            assert!(!closed, "after Closed: {event:?}");
            match event {
                Event::Request(incoming) => running.push(incoming.call),
                Event::Cancelled(call, Cancel::ByCaller) if random.once_in(2) => {
                    running.retain(|running| *running != call);
                    raw.conn.stopped(raw.at(), call);
                }
                Event::Closed(end) => {
                    closed = true;
                    tally.check(if end.status == Status::PROTOCOL_ERROR {
                        "mistakes found"
                    } else {
                        "other ends"
                    });
                    if talk {
                        println!("{end}");
                    }
                }
                _ => {}
            }
        }
        if random.once_in(2) {
            let frames = take(&mut raw, &mut tap, &mut tally);
            peer.reads(&frames);
        }
        check(&mut raw, &mut tally);
    }
    // Left alone it comes to an end by itself: it is dead to the world in 3 intervals.
    raw.wait(std::time::Duration::from_secs(40));
    closed |= raw.passed.iter().any(|event| matches!(event, Event::Closed(_)));
    assert!(closed && raw.conn.next().end == End::Close, "{:?}", raw.conn);
    assert_eq!(raw.conn.into_unfinished().count(), 0);
    tally
}

fn take(raw: &mut Raw, tap: &mut Tap, tally: &mut Tally) -> Vec<Seen> {
    let frames = raw.frames();
    for frame in &frames {
        tap.committed(&frame.octets, tally);
    }
    frames
}

fn check(raw: &mut Raw, tally: &mut Tally) {
    let next = raw.conn.next();
    let wake = raw.conn.poll_timeout();
    if next.event || next.write {
        assert!(wake.is_some_and(|at| at <= raw.at()), "L5: what waits forces the time-out");
    } else {
        assert_eq!(wake, next.wake, "L5: next() and poll_timeout() agree");
    }
    assert!(raw.conn.open_calls().1 <= 3 * 100 + 17 + 1024, "L8");
    assert!(raw.conn.lend().capacity() <= 300 * 1024, "L8");
    tally.check("laws");
}

/// What a connection said, in words that do not depend on how its input was cut.
fn summary(event: &Event<u32>) -> String {
    match event {
        Event::Closed(closed) => format!("Closed {:?} {}", closed.by, closed.status),
        Event::Request(incoming) => {
            format!("Request {} {:?} {:?}", incoming.method, incoming.one_way, incoming.payload)
        }
        Event::Cancelled(_, why) => format!("Cancelled {why:?}"),
        other => format!("{other:?}"),
    }
}

/// One step of a script: so much later these octets come, and then so many calls are made.
struct Step {
    later: u64,
    octets: Vec<u8>,
    calls: usize,
}

/// How a script is played: pieces of a step, and how often is looked in between.
#[derive(Clone, Copy, PartialEq)]
enum Play {
    Whole,
    /// Cut anywhere, events fetched after each piece.
    Cut,
    /// Cut anywhere, events fetched and output committed after each piece and each event.
    Interleaved,
}

struct Player {
    raw: Raw,
    events: Vec<String>,
    output: Vec<Seen>,
    user: u32,
}

impl Player {
    fn react(&mut self, event: Event<u32>) {
        self.events.push(summary(&event));
        if let Event::Request(incoming) = event {
            // What the application does depends on nothing but the argument.
            let sum = incoming.payload.iter().fold(0u32, |sum, octet| sum + u32::from(*octet)) % 5;
            let reply = match sum {
                0 => return,
                1 => Reply::error(Status::NOT_FOUND, "no"),
                _ => Reply::ok(Body::Share(incoming.payload)),
            };
            let _ = self.raw.conn.reply(self.raw.at(), incoming.call, &reply);
        }
    }

    fn step(&mut self, step: &Step, play: Play, random: &mut Random) -> Vec<Seen> {
        self.raw.now += step.later;
        self.raw.conn.handle_timeout(self.raw.at());
        let mut rest = &step.octets[..];
        while !rest.is_empty() {
            let piece = match play {
                Play::Whole => rest.len(),
                _ => {
                    let most = *random.pick(&[1, 30, 10_000]);
                    1 + random.below(rest.len().min(most))
                }
            };
            self.raw.feed(&rest[..piece]);
            rest = &rest[piece..];
            while let Some(event) = self.raw.conn.poll_event(self.raw.at()) {
                self.react(event);
                if play == Play::Interleaved {
                    self.output.extend(self.raw.frames());
                }
            }
        }
        for _ in 0..step.calls {
            self.user += 1;
            let head = CallHead::new("t.S/Echo").deadline(Some(Instant::from_nanos(self.raw.now + 700 * MS)));
            let _ = self.raw.conn.call(self.raw.at(), &head, Body::Copy(&[7; 40]), self.user);
        }
        while let Some(event) = self.raw.conn.poll_event(self.raw.at()) {
            self.react(event);
        }
        let frames = self.raw.frames();
        self.output.extend(frames.iter().cloned());
        frames
    }
}

/// L6 and L7: a script is played whole, in pieces, and in pieces with output in between.
pub fn replay(seed: u64, talk: bool) -> Tally {
    let mut random = Random::new(seed ^ 0x0106);
    let mut tally = Tally::default();
    let (side, other) = *random.pick(&[(Side::Server, Side::Client), (Side::Client, Side::Server)]);
    let keeps_to_it = random.once_in(2);
    let player = || {
        let mut raw = Raw::new(config().build().unwrap(), side);
        if side == Side::Client {
            raw.frames();
        }
        Player { raw, events: Vec::new(), output: Vec::new(), user: 0 }
    };
    // The first run makes the script: the peer reads what it answers to.
    let mut whole = player();
    let mut peer = Peer::new(other);
    let mut script = Vec::new();
    for number in 0..2 + random.below(30) {
        let mut octets = if number == 0 { peer.hello(&mut random) } else { Vec::new() };
        for _ in 0..if number == 0 { 0 } else { random.below(12) } {
            octets.extend(if keeps_to_it {
                peer.valid(&mut random)
            } else {
                peer.any(&mut random, &mut tally)
            });
        }
        let step = Step { later: random.within(0..=400) * MS, octets, calls: random.below(5) };
        let frames = whole.step(&step, Play::Whole, &mut random);
        peer.reads(&frames);
        script.push(step);
    }
    for play in [Play::Cut, Play::Interleaved] {
        // Where a peer makes mistakes it matters what was written before them.
        if play == Play::Interleaved && !keeps_to_it {
            continue;
        }
        let mut again = player();
        for step in &script {
            again.step(step, play, &mut random);
        }
        if talk {
            println!("{:#?}\n{:#?}", whole.events, again.events);
        }
        assert_eq!(whole.events, again.events, "how input is cut, or drained, is seen in the events");
        let octets = |player: &Player| {
            let mut all: Vec<Vec<u8>> = player.output.iter().map(|seen| seen.octets.clone()).collect();
            if play == Play::Interleaved {
                // Acks are gathered, and control frames overtake data that waits: the rest is the same, in any order.
                all.retain(|octets| octets[3] != FrameType::HEARTBEAT_ACK.0);
                all.sort();
            }
            // The reason of a close may quote what came.
            all.retain(|octets| octets[3] != FrameType::CLOSE.0);
            all
        };
        assert_eq!(octets(&whole), octets(&again), "how input is cut, or drained, is seen on the wire");
        tally.check(if play == Play::Cut { "L6 cuts are invisible" } else { "L7 draining is invisible" });
    }
    tally
}
