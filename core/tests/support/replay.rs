//! Laws L6 and L7: a script of input is played whole, in pieces, and in pieces with output in between.

use tieline_core::{
    Instant,
    conn::{Body, CallHead, Event, Reply, Side, Stream, Taken},
    wire::{FrameType, Status},
};

use super::{
    frames::Seen,
    hostile::{NAMES, all_kinds},
    peer::{KINDS, Peer},
    random::Random,
    raw::{MS, Raw},
    tally::Tally,
};

/// What a connection said, in words that do not depend on how its input was cut.
fn summary(event: &Event<u32>) -> String {
    match event {
        Event::Closed(closed) => format!("Closed {:?} {}", closed.by, closed.status),
        Event::Request(incoming) => {
            format!("Request {} {:?} {:?}", incoming.method, incoming.one_way, incoming.payload)
        }
        Event::Cancelled(_, why) => format!("Cancelled {why:?}"),
        Event::Readable(_) => "Readable".to_owned(),
        Event::Done { user, outcome, .. } => format!("Done {user} {outcome:?}"),
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
    /// Its own calls are small and unary.
    plain: bool,
}

impl Player {
    fn new(side: Side, plain: bool) -> Self {
        let mut raw = Raw::new(all_kinds().build().unwrap(), side);
        if side == Side::Client {
            raw.frames();
        }
        Self { raw, events: Vec::new(), output: Vec::new(), user: 0, plain }
    }

    /// What the application does depends on nothing but what came.
    fn react(&mut self, event: Event<u32>) {
        self.events.push(summary(&event));
        match event {
            Event::Request(incoming) => {
                let sum = incoming.payload.iter().fold(0u32, |sum, octet| sum + u32::from(*octet)) % 5;
                let (at, call) = (self.raw.at(), incoming.call);
                for item in 0..sum {
                    let item = vec![5; item as usize * 30_000 / 4];
                    let _ = self.raw.conn.send_item(at, call, Body::Share(item.into()));
                }
                let reply = match sum {
                    0 => return,
                    1 => Reply::error(Status::NOT_FOUND, "no"),
                    _ => Reply::ok(Body::Share(incoming.payload)),
                };
                let _ = self.raw.conn.reply(at, call, &reply);
            }
            Event::Readable(stream) => self.take(stream),
            Event::Done { rest, .. } => {
                self.events.extend(rest.map(|item| format!("Rest {}", item.len())));
            }
            _ => {}
        }
    }

    fn take(&mut self, stream: Stream) {
        while let Some(taken) = self.raw.conn.take_item(self.raw.at(), stream) {
            let Taken::Item(item) = taken else {
                self.events.push("End".to_owned());
                return;
            };
            let whose = if matches!(stream, Stream::Theirs(_)) { "Item" } else { "Own item" };
            self.events.push(format!("{whose} {} {:?}", item.len(), &item[..item.len().min(8)]));
        }
    }

    fn call(&mut self) {
        self.user += 1;
        let kind = if self.plain { 0 } else { self.user as usize % 4 };
        let mut head = CallHead::new(NAMES[kind]);
        head.kind = KINDS[kind];
        if kind == 0 {
            head.deadline = Some(Instant::from_nanos(self.raw.now + 700 * MS));
        }
        let argument = vec![7; if self.plain || self.user % 8 < 6 { 40 } else { 40_000 }];
        let at = self.raw.at();
        if let Ok(call) = self.raw.conn.call(at, &head, Body::Share(argument.into()), self.user) {
            for len in [40, 50_000, 20_000] {
                let _ = self.raw.conn.send_item(at, call, Body::Share(vec![8; len].into()));
            }
            let _ = self.raw.conn.end_items(at, call);
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
            self.call();
        }
        while let Some(event) = self.raw.conn.poll_event(self.raw.at()) {
            self.react(event);
        }
        let frames = self.raw.frames();
        self.output.extend(frames.iter().cloned());
        frames
    }

    fn events(&self) -> Vec<&str> {
        self.events.iter().map(String::as_str).collect()
    }

    /// What the application was given of arguments and items of the calls that it serves, in any order: it depends on
    /// what has been written when there is room, and which slots and ids are free.  `None` if the connection has ended, and so some of it came.
    fn content(&self) -> Option<Vec<&str>> {
        let content = |event: &&str| ["Request", "Item", "End"].iter().any(|word| event.starts_with(word));
        let mut all: Vec<&str> = self.events.iter().map(String::as_str).filter(content).collect();
        all.sort_unstable();
        let ended = self.events.iter().any(|event| event.starts_with("Closed"));
        (!ended).then_some(all)
    }

    /// Every octet that was written but the reason of a close, which may quote what came.
    fn octets(&self) -> Vec<&[u8]> {
        let frames = self.output.iter().filter(|seen| seen.frame_type() != FrameType::CLOSE);
        frames.map(|seen| &seen.octets[..]).collect()
    }

    /// The same but for acks, which are gathered, in any order: control frames overtake data that waits.
    fn in_any_order(&self) -> Vec<&[u8]> {
        let mut all = self.octets();
        all.retain(|octets| octets[3] != FrameType::HEARTBEAT_ACK.0);
        all.sort_unstable();
        all
    }
}

/// Where two lists differ first, if they do.
fn same<T: PartialEq + std::fmt::Debug>(one: &[T], other: &[T], what: &str) {
    let at = one.iter().zip(other).take_while(|(one, other)| one == other).count();
    let (one, other) = (&one[at..], &other[at..]);
    assert!(
        one.is_empty() && other.is_empty(),
        "{what}, at {at}: {:.300?} and {:.300?}",
        one.first(),
        other.first()
    );
}

pub fn run(seed: u64, talk: bool) -> Tally {
    let mut random = Random::new(seed ^ 0x0106);
    let mut tally = Tally::default();
    let (side, other) = *random.pick(&[(Side::Server, Side::Client), (Side::Client, Side::Server)]);
    let keeps_to_it = random.once_in(2);
    let plain = keeps_to_it && random.once_in(2);
    // The first run makes the script: the peer reads what it answers to.
    let mut whole = Player::new(side, plain);
    let mut peer = Peer::new(other);
    (peer.calm, peer.plain) = (keeps_to_it, plain);
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
    if whole.raw.conn.stats().items_in > 0 {
        tally.check("items in scripts");
    }
    for play in [Play::Cut, Play::Interleaved] {
        // Where a peer makes mistakes it matters what was written before them.
        if play == Play::Interleaved && !keeps_to_it {
            continue;
        }
        let mut again = Player::new(side, plain);
        for step in &script {
            again.step(step, play, &mut random);
        }
        if talk {
            println!("{:#?}\n{:#?}", whole.events, again.events);
        }
        if play == Play::Cut {
            same(&whole.events(), &again.events(), "how input is cut is seen in the events");
            same(&whole.octets(), &again.octets(), "how input is cut is seen on the wire");
            tally.check("L6 cuts are invisible");
        } else if plain {
            same(&whole.events(), &again.events(), "how input and output interleave is seen in the events");
            same(&whole.in_any_order(), &again.in_any_order(), "how input and output interleave is seen");
            tally.check("L7 draining is invisible");
        } else if let (Some(one), Some(other)) = (whole.content(), again.content()) {
            same(&one, &other, "how input and output interleave is seen in what the application is given");
            tally.check("L7 arguments and items are the same");
        }
    }
    tally
}
