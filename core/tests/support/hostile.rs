//! A connection opposite a peer that does anything.

use bytes::Bytes;
use tieline_core::{
    conn::{
        Body, CallHead, Cancel, ConfigBuilder, End, Event, Limits, MethodSpec, Outbox, Reply, Served, Side,
        Stream,
    },
    record::{Record, Recording},
    wire::{Kind, Status},
};

use super::{
    frames::Seen,
    peer::{KINDS, Peer},
    random::Random,
    raw::{MS, Raw, config},
    tally::Tally,
    tap::Tap,
};

/// The names of the methods of [`KINDS`].
pub const NAMES: [&str; 4] = ["t.S/Echo", "t.S/Down", "t.S/Up", "t.S/Both"];

/// A configuration that serves a method of each kind.
pub fn all_kinds() -> ConfigBuilder {
    let methods = NAMES.into_iter().zip(KINDS).skip(1);
    methods.fold(config(), |config, (name, kind)| config.method(MethodSpec::new(name, kind)))
}

fn target(side: Side, random: &mut Random, record: Option<Record>) -> Raw {
    let mut limits = Limits::default();
    limits.max_concurrent = *random.pick(&[1, 4, 100]);
    limits.max_message = *random.pick(&[1024, 63 << 10]);
    limits.max_item = *random.pick(&[100, 63 << 10]);
    limits.max_streams = *random.pick(&[1, 10]);
    limits.stream_window = *random.pick(&[1, 1_000, 64 << 10]);
    limits.memory = *random.pick(&[64 << 10, 8 << 20]);
    let mut config = all_kinds().limits(limits).compress(random.once_in(3));
    if let Some(record) = record {
        config = config.record(record);
    }
    let mut raw = Raw::new(config.build().unwrap(), side);
    raw.outbox = Outbox::with_mark(*random.pick(&[1, 1_000, 65_536]));
    raw
}

/// A connection opposite a peer that does anything: it neither panics nor spins, what it holds is bounded, what it
/// sends obeys the rules, and it ends with one word about it.
pub fn run(seed: u64, talk: bool) -> Tally {
    play(seed, talk, None).0
}

/// The same run, recorded.
pub fn recorded(seed: u64, record: Record) -> Recording {
    play(seed, false, Some(record)).1.unwrap()
}

fn play(seed: u64, talk: bool, record: Option<Record>) -> (Tally, Option<Recording>) {
    let mut random = Random::new(seed ^ 0xBAD);
    let mut tally = Tally::default();
    let (side, other) = *random.pick(&[(Side::Server, Side::Client), (Side::Client, Side::Server)]);
    let mut raw = target(side, &mut random, record);
    let mut peer = Peer::new(other);
    peer.good = *random.pick(&[60, 600, 3_000]);
    let mut tap = Tap::new(side, false);
    let mut running: Vec<Served> = Vec::new();
    let mut streams: Vec<Stream> = Vec::new();
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
                let kind = random.below(4);
                let mut head = CallHead::new(NAMES[kind])
                    .deadline(random.once_in(2).then(|| raw.after(std::time::Duration::from_secs(1))));
                head.kind = KINDS[kind];
                head.credit = *random.pick(&[None, Some(0), Some(2_000)]);
                let argument = Bytes::from(vec![1; *random.pick(&[100, 100, 40_000])]);
                match raw.conn.call(raw.at(), &head, Body::Share(argument), user) {
                    Ok(call) if kind > 0 => streams.push(Stream::Ours(call)),
                    Ok(_) => {}
                    Err(_) => tally.check("a refusal gives the value back"),
                }
            }
            6 => raw.now += random.within(1..=300) * MS,
            7 => raw.conn.handle_timeout(raw.at()),
            8 if random.once_in(30) => raw.eof(),
            8 if !streams.is_empty() => use_stream(&mut raw, &mut streams, &mut random, &mut tally),
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
                Event::Request(incoming) => {
                    running.push(incoming.call);
                    if incoming.kind != Kind::Unary {
                        streams.push(Stream::Theirs(incoming.call));
                    }
                }
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
    let recording = raw.conn.recording();
    assert_eq!(raw.conn.into_unfinished().count(), 0);
    (tally, recording)
}

/// Does something with one of the streams, which may be over.
fn use_stream(raw: &mut Raw, streams: &mut Vec<Stream>, random: &mut Random, tally: &mut Tally) {
    let at = random.below(streams.len());
    let stream = streams[at];
    match (random.below(8), stream) {
        (0, Stream::Ours(call)) => drop(raw.conn.end_items(raw.at(), call)),
        (1, Stream::Ours(call)) => {
            raw.conn.cancel(raw.at(), call);
            streams.swap_remove(at);
        }
        (2, _) => raw.conn.grant(raw.at(), stream, 1_000),
        (3..6, _) => {
            let item = vec![3; *random.pick(&[0, 50, 20_000])];
            if raw.conn.send_item(raw.at(), stream, Body::Copy(&item)).is_ok() {
                tally.check("items to a hostile peer");
            }
        }
        _ => {
            while raw.conn.take_item(raw.at(), stream).is_some_and(|it| it != tieline_core::conn::Taken::End)
            {
                tally.check("items of a hostile peer");
            }
        }
    }
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
