//! What a recording shows of another build, and that no octets of one make a replay panic.
#![allow(clippy::unwrap_used)]

use alloc::{string::String, vec, vec::Vec};

use bytes::{Buf, Bytes};
use proptest::prelude::*;

use super::{Record, Recording, entry::entries, ink::put_octets};
use crate::{
    Instant,
    conn::{Body, CallHead, Config, Connection, Event, MethodSpec, Outbox, Reply, Side, Stream},
    wire::{Kind, Status},
};

const AT: Instant = Instant::from_nanos(1_000_000);

fn carry<A, B>(from: &mut Connection<A>, to: &mut Connection<B>) {
    let mut outbox = Outbox::new();
    while from.poll_transmit(AT, &mut outbox) {
        let octets = outbox.remaining();
        let mut buffer = to.lend();
        outbox.chunks().for_each(|chunk| buffer.extend_from_slice(chunk));
        outbox.advance(octets);
        from.handle_sent(AT, octets);
        to.handle_input(AT, buffer);
    }
}

/// A talk of two, each way: a few calls, a stream, a refusal, an end.
fn talk(record: Record) -> [Recording; 2] {
    let config = Config::builder("node")
        .credential(b"secret")
        .record(record)
        .method(MethodSpec::unary("t.S/Echo"))
        .method(MethodSpec::new("t.S/Both", Kind::Bidi))
        .build()
        .unwrap();
    let mut client: Connection<u8> = Connection::new(config.clone(), Side::Client, 1, AT);
    let mut server: Connection<u8> = Connection::new(config, Side::Server, 2, AT);
    let body = Bytes::from(vec![3; 3000]);
    for _ in 0..3 {
        client.call(AT, &CallHead::new("t.S/Echo"), Body::Share(body.clone()), 1).unwrap();
    }
    client.call(AT, &CallHead::new("t.S/None"), Body::Copy(b"x"), 2).unwrap();
    let head = CallHead { kind: Kind::Bidi, ordering_key: b"k", ..CallHead::new("t.S/Both") };
    let stream = client.call(AT, &head, Body::Copy(b"begin"), 3).unwrap();
    client.send_item(AT, stream, Body::Copy(b"item")).unwrap();
    for _ in 0..8 {
        carry(&mut client, &mut server);
        while let Some(event) = server.poll_event(AT) {
            match event {
                Event::Request(request) if request.kind == Kind::Unary => {
                    server.reply(AT, request.call, &Reply::ok(Body::Share(request.payload))).unwrap();
                }
                Event::Readable(Stream::Theirs(call)) => {
                    while server
                        .take_item(AT, call)
                        .is_some_and(|taken| taken != super::super::conn::Taken::End)
                    {
                        server.send_item(AT, call, Body::Copy(b"back")).unwrap();
                    }
                    server.grant(AT, call, 100);
                    let _ = server.refuse(AT, call, &Reply::error(Status::DENIED, "enough"));
                }
                _ => {}
            }
        }
        carry(&mut server, &mut client);
        while client.poll_event(AT).is_some() {}
    }
    client.close(AT, Status::NORMAL, "bye");
    carry(&mut client, &mut server);
    while server.poll_event(AT).is_some() {}
    [client.recording().unwrap(), server.recording().unwrap()]
}

fn replay(recording: &Recording) -> (super::Verdict, String) {
    let mut told = String::new();
    let verdict = recording.replay(&mut told).unwrap();
    (verdict, told)
}

#[test]
fn a_build_that_does_otherwise_is_found_at_the_step() {
    let [mut recording, _] = talk(Record::new());
    assert!(replay(&recording).0.is_same());
    // The check-in of a client shows its seed: this is a build that chooses other numbers.
    recording.start.seed ^= 1;
    let (verdict, told) = replay(&recording);
    let first = told.lines().find(|line| line.contains("commit")).unwrap();
    let step = verdict.differs.unwrap();
    assert!(first.trim_start().starts_with(&alloc::format!("{step} ")), "step {step} is not: {first}");
    assert!(told.contains("DIFFERS: this build does: commit") && !verdict.is_same(), "{told}");
    assert!(told.contains("CLOSE NORMAL"), "the rest is told as it was recorded: {told}");
    assert_eq!(verdict.same, step - 1);
}

#[test]
fn a_verb_that_is_too_large_is_a_gap() {
    let config =
        Config::builder("a").record(Record::new().octets(16 << 10).payload(usize::MAX)).build().unwrap();
    let mut conn: Connection<()> = Connection::new(config, Side::Client, 1, AT);
    conn.call(AT, &CallHead::new("a/B"), Body::Copy(&[1; 9_000]), ()).unwrap();
    conn.handle_timeout(AT);
    let (verdict, told) = replay(&conn.recording().unwrap());
    assert_eq!((verdict.steps, verdict.same, verdict.lost), (2, 0, 1));
    assert!(told.contains("a verb of about 9000 octets was too large to be recorded"), "{told}");
}

/// What stands in the entries of a recording, changed, and written as if it had always been so.
fn changed(recording: &Recording, changes: &[(prop::sample::Index, u8)], mix: bool) -> Recording {
    let mut recording = recording.clone();
    let mut all: Vec<Vec<u8>> = Vec::new();
    for octets in [&recording.beginning].into_iter().chain(&recording.parts) {
        all.extend(entries(octets).map(|entry| entry.unwrap().1.to_vec()));
    }
    for (at, value) in changes {
        let entry = at.index(all.len());
        if mix {
            let other = usize::from(*value) % all.len();
            all.swap(entry, other);
        } else if let Some(entry) = all.get_mut(entry)
            && !entry.is_empty()
        {
            let octet = at.index(entry.len());
            entry[octet] = *value;
        }
    }
    recording.beginning.clear();
    recording.parts.clear();
    for entry in all {
        put_octets(&entry, &mut recording.beginning);
    }
    recording
}

proptest! {
    /// Whoever writes check sums can write anything behind them: it is refused, or replayed without a panic.
    #[test]
    fn entries_of_any_kind_are_refused_or_replayed(
        side in 0_usize..2,
        mix: bool,
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
    ) {
        let recording = &talk(Record::new().payload(5))[side];
        let octets = changed(recording, &changes, mix).to_octets();
        if let Ok(recording) = Recording::parse(&octets) {
            let (verdict, told) = replay(&recording);
            prop_assert!(verdict.same <= verdict.steps);
            prop_assert!(!told.contains(|c: char| c.is_control() && c != '\n'));
        }
    }

    /// The same of the configuration, and of octets that are changed anywhere.
    #[test]
    fn configurations_of_any_kind_are_refused_or_replayed(
        side in 0_usize..2,
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
        octet: prop::sample::Index,
    ) {
        let mut recording = talk(Record::new())[side].clone();
        for (at, value) in changes {
            let at = at.index(recording.setup.len());
            recording.setup[at] = value;
        }
        let mut octets = recording.to_octets();
        if let Ok(recording) = Recording::parse(&octets) {
            replay(&recording);
        }
        let at = octet.index(octets.len());
        octets[at] = octets[at].wrapping_add(1);
        prop_assert!(Recording::parse(&octets).is_err());
    }
}
