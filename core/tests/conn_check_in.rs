//! Check-in (protocol §4): who may speak first, what may be said and when, and what is refused and how.
#![allow(clippy::unwrap_used, clippy::panic, clippy::cast_possible_truncation)]

mod support;

use support::{
    frames::{self, emit, octets},
    raw::{MS, Raw, config, ms, secs},
};
use tieline_core::{
    conn::{By, Closed, End, Event, Side},
    wire::{CheckIn, CheckInAck, Envelope, FrameType, Label, Repeated, Status},
};

fn accepting() -> Raw {
    Raw::new(config().build().unwrap(), Side::Server)
}

fn verifying() -> Raw {
    Raw::new(config().verify(true).build().unwrap(), Side::Server)
}

fn said(identifier: &str) -> CheckIn<'_> {
    CheckIn { identifier, max_concurrent: 1, ..CheckIn::default() }
}

/// A refusal is an ack of class 4 with nothing behind it, and the connection lingers and ends.
fn refuses(mut raw: Raw, status: Status, message: &str) -> Closed {
    let events = raw.events();
    let frame = raw.frame();
    assert_eq!((frame.frame_type(), frame.status()), (FrameType::CHECK_IN_ACK, status));
    assert_eq!(frame.message(), message);
    let closed = raw.closed(events);
    assert_eq!((closed.by, closed.status), (By::Us, status));
    assert_eq!(raw.conn.next().end, End::ShutWrite);
    assert!(raw.wait(secs(1)).is_empty(), "no CLOSE follows");
    assert_eq!(raw.conn.next().end, End::Close);
    closed
}

#[test]
fn both_sides_say_who_they_are_and_are_equals_from_then_on() {
    let client = config().label("zone", "b").credential(b"secret").instance(9).build().unwrap();
    let mut client = Raw::new(client, Side::Client);
    let hello = client.frame();
    let Envelope::CheckIn(said) = hello.frame().envelope else { panic!() };
    assert_eq!((said.identifier, said.heartbeat_interval_ms, said.instance), ("node", 10_000, 9));
    assert_eq!((said.max_frame, said.max_message, said.max_concurrent), (65_536, 4 << 20, 4096));
    assert_eq!((said.max_streams, said.credential), (0, &b"secret"[..]));
    assert_eq!(said.labels.iter().collect::<Vec<_>>(), [Label { key: "zone", value: "b" }]);
    let features: Vec<u32> = said.features.iter().collect();
    let (known, unknown) = features.split_at(features.len() - 1);
    assert_eq!(known, if cfg!(feature = "snappy") { &[1][..] } else { &[] });
    assert!(unknown[0] > 1000, "one that no server knows: {features:?}");

    let mut server = verifying();
    server.feed(&hello.octets);
    let [Event::CheckIn(checking)] = &server.events()[..] else { panic!() };
    assert_eq!(checking.peer.identifier, "node");
    assert_eq!(checking.peer.labels, [("zone".to_owned(), "b".to_owned())]);
    assert_eq!(&checking.credential[..], b"secret");
    assert!(server.frames().is_empty(), "the application has not decided");
    server.conn.accept_check_in(server.at());
    let greeting = server.frames();
    let types: Vec<_> = greeting.iter().map(frames::Seen::frame_type).collect();
    assert_eq!(types, [FrameType::CHECK_IN_ACK, FrameType::TABLE], "in one write");
    assert!(matches!(server.events()[..], [Event::Ready(_)]));

    client.feed(&[&greeting[0].octets[..], &greeting[1].octets].concat());
    assert!(matches!(client.events()[..], [Event::Ready(_)]));
    assert_eq!(client.conn.peer().unwrap().identifier, "node");
    assert_eq!(client.conn.peer().unwrap().heartbeat_interval, secs(10));
    assert_eq!(client.frame().frame_type(), FrameType::TABLE);
}

#[test]
fn of_the_features_only_those_are_granted_that_both_have() {
    let mut server = accepting();
    let features = [2, 1, 5000];
    server.feed(&frames::check_in(CheckIn { features: Repeated::from(&features), ..said("peer") }));
    server.events();
    let frames = server.frames();
    let Envelope::CheckInAck(ack) = frames[0].frame().envelope else { panic!() };
    let granted: Vec<u32> = ack.features.iter().collect();
    assert_eq!(granted, if cfg!(feature = "snappy") { &[1][..] } else { &[] });
}

#[test]
fn an_identifier_that_is_none_is_refused() {
    let long = "x".repeat(129);
    for bad in ["", "has space", "ctrl\u{1}", "\u{e4}", &long] {
        let mut raw = accepting();
        raw.feed(&frames::check_in(said(bad)));
        let events = raw.events();
        let frame = raw.frame();
        assert_eq!((frame.frame_type(), frame.status()), (FrameType::CHECK_IN_ACK, Status::CHECK_IN_REFUSED));
        assert!(frame.message().contains("is not 1 to 128 of"));
        assert!(!frame.message().contains('\u{1}'), "escaped");
        assert_eq!(raw.closed(events).status, Status::CHECK_IN_REFUSED);
    }
    let longest = "x".repeat(128);
    for good in ["a", "A.z_9:@/-", &longest] {
        let mut raw = accepting();
        raw.feed(&frames::check_in(said(good)));
        raw.events();
        assert_eq!(raw.frames()[0].status(), Status::OK, "{good}");
    }
}

#[test]
fn a_check_in_that_does_not_decode_is_refused_with_an_ack() {
    for body in [&[3, 0x0a, 1, 0xff][..], &[9, 0x0a], &[1, 0x00], &[0x80, 0x80, 0x80, 0x80, 0x80, 0]] {
        let mut raw = accepting();
        raw.feed(&octets(1, 0, 0, 0, body));
        let events = raw.events();
        let frame = raw.frame();
        assert_eq!((frame.frame_type(), frame.status()), (FrameType::CHECK_IN_ACK, Status::CHECK_IN_REFUSED));
        assert_eq!(raw.closed(events).by, By::Us);
    }
    // An empty one decodes, to no identifier.
    let mut raw = accepting();
    raw.feed(&octets(1, 0, 0, 0, &[]));
    raw.events();
    assert_eq!(raw.frame().status(), Status::CHECK_IN_REFUSED);
}

#[test]
fn a_check_in_that_is_not_well_framed_is_a_mistake() {
    let payload = [&[6, 0x0a, 4][..], b"peer", b"payload"].concat();
    for bad in [
        octets(1, 0x80, 0, 0, b""),
        octets(1, 0x40, 0, 0, b""),
        octets(1, 0x01, 0, 0, b""),
        octets(1, 0, 0, 1, b""),
        octets(1, 0, 0x85, 0, b""),
        octets(1, 0, 0, 0, &payload),
    ] {
        let mut raw = accepting();
        raw.feed(&bad);
        raw.closes_with(Status::PROTOCOL_ERROR);
    }
}

#[test]
fn any_other_first_frame_is_not_acted_on() {
    for frame_type in (2..=15).chain([0x80, 0xff]) {
        let mut raw = accepting();
        raw.feed(&octets(frame_type, 0, 0, u64::from((5..=12).contains(&frame_type)), b""));
        raw.closes_with(Status::CHECK_IN_REQUIRED);
    }
    // The type alone decides, before 18 octets are there, and before its length is looked at.
    let mut raw = accepting();
    raw.feed(&frames::call(1, b"x")[..4]);
    raw.closes_with(Status::CHECK_IN_REQUIRED);
    let mut raw = accepting();
    let mut long = frames::call(1, b"x");
    long[14..18].fill(0xff);
    raw.feed(&long);
    raw.closes_with(Status::CHECK_IN_REQUIRED);
    let mut client = Raw::new(config().build().unwrap(), Side::Client);
    client.frames();
    client.feed(&frames::heartbeat(1));
    client.closes_with(Status::PROTOCOL_ERROR);
}

#[test]
fn other_protocols_are_known_by_their_first_octets() {
    let tls = [0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3];
    for hello in
        [&b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"[..], b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", &tls, &[0xbe, 0]]
    {
        let mut raw = accepting();
        raw.feed(hello);
        let closed = raw.closes_with(Status::PROTOCOL_ERROR);
        assert_eq!(closed.by, By::Us);
        assert!(closed.message.contains("does not speak Tieline"), "{}", closed.message);
        assert!(closed.message.chars().all(|c| !c.is_control()), "{:?}", closed.message);
    }
    let mut raw = accepting();
    raw.feed(b"G");
    assert!(raw.closes_with(Status::PROTOCOL_ERROR).message.contains('G'), "the first octet is enough");
}

#[test]
fn another_version_is_answered_after_three_octets_with_ours() {
    let mut raw = accepting();
    raw.feed(&[0xbe, 0xa7, 2]);
    let events = raw.events();
    let ack = raw.frame();
    assert_eq!((ack.frame_type(), ack.status()), (FrameType::CHECK_IN_ACK, Status::VERSION_UNSUPPORTED));
    assert_eq!(ack.octets[2], 1, "the version that is spoken here");
    assert_eq!(raw.closed(events).status, Status::VERSION_UNSUPPORTED);

    let mut client = Raw::new(config().build().unwrap(), Side::Client);
    client.frames();
    client.feed(&[0xbe, 0xa7, 2]);
    let closed = client.closed(vec![]);
    assert_eq!(closed.status, Status::VERSION_UNSUPPORTED);
    assert_eq!(client.conn.next().end, End::Close);

    let mut later = Raw::server(config());
    later.feed(&[0xbe, 0xa7, 2]);
    later.closes_with(Status::PROTOCOL_ERROR);
}

#[test]
fn a_check_in_that_does_not_come_in_time_is_closed_however_many_octets_came() {
    let mut raw = accepting();
    let hello = frames::check_in(said("peer"));
    for octet in &hello[..hello.len() - 1] {
        raw.feed(&[*octet]);
        assert!(raw.wait(ms(4999 / (hello.len() as u64 - 1))).is_empty());
    }
    let started = 1_000_000 * MS;
    raw.now = started + 4999 * MS;
    raw.conn.handle_timeout(raw.at());
    raw.is_quiet();
    raw.now = started + 5000 * MS;
    raw.conn.handle_timeout(raw.at());
    raw.closes_with(Status::CHECK_IN_TIMEOUT);
}

#[test]
fn a_check_in_that_was_received_in_time_counts_even_if_it_is_looked_at_late() {
    let mut raw = accepting();
    raw.feed(&frames::check_in(said("peer")));
    raw.now += 6_000 * MS;
    raw.conn.handle_timeout(raw.at());
    assert!(raw.events().is_empty());
    assert_eq!(raw.frames()[0].status(), Status::OK);
}

#[test]
fn a_verifier_has_five_seconds_more() {
    let mut raw = verifying();
    raw.wait(ms(4_900));
    raw.feed(&frames::check_in(said("peer")));
    assert!(matches!(raw.events()[..], [Event::CheckIn(_)]));
    assert!(raw.wait(ms(4_999)).is_empty());
    let frame = raw.wait(ms(1)).remove(0);
    assert_eq!((frame.frame_type(), frame.status()), (FrameType::CHECK_IN_ACK, Status::CHECK_IN_REFUSED));
    let Envelope::CheckInAck(ack) = frame.frame().envelope else { panic!() };
    assert!(ack.retry_after_ms > 0);
    // Too late to matter.
    raw.conn.accept_check_in(raw.at());
    assert!(raw.frames().is_empty());
}

#[test]
fn a_verifier_refuses_with_a_reason() {
    let mut raw = verifying();
    raw.feed(&frames::check_in(said("peer")));
    assert!(matches!(raw.events()[..], [Event::CheckIn(_)]));
    raw.conn.refuse_check_in(raw.at(), Status::IDENTITY_CONFLICT, "there is a younger one", Some(secs(7)));
    refuses(raw, Status::IDENTITY_CONFLICT, "there is a younger one");

    // The client is told, and when to come back; not later than in five minutes.
    for (ms, after) in [(7_000, 7), (4_000_000_000, 300)] {
        let mut client = Raw::new(config().build().unwrap(), Side::Client);
        client.frames();
        let refusal = CheckInAck { message: "no\u{1b}[31m", retry_after_ms: ms, ..CheckInAck::default() };
        client.feed(&emit(
            FrameType::CHECK_IN_ACK,
            0,
            Status::IDENTITY_CONFLICT,
            Envelope::CheckInAck(refusal),
            b"",
        ));
        let closed = client.closed(vec![]);
        assert_eq!((closed.by, closed.status), (By::Peer, Status::IDENTITY_CONFLICT));
        assert_eq!(closed.retry_after, Some(secs(after)));
        assert!(!closed.message.contains('\u{1b}'), "what a peer says is escaped: {}", closed.message);
    }
}

#[test]
fn octets_between_check_in_and_ack_are_a_mistake_whenever_they_come() {
    let hello = frames::check_in(said("peer"));
    // In the same read.
    let mut raw = accepting();
    raw.feed(&[&hello[..], &frames::heartbeat(1)[..1]].concat());
    raw.closes_with(Status::PROTOCOL_ERROR);
    // While the application decides.
    let mut raw = verifying();
    raw.feed(&hello);
    assert!(matches!(raw.events()[..], [Event::CheckIn(_)]));
    raw.feed(b"\xbe");
    raw.closes_with(Status::PROTOCOL_ERROR);
    // After it decided, before the ack is written.
    let mut raw = accepting();
    raw.feed(&hello);
    assert!(raw.events().is_empty());
    raw.feed(&hello);
    raw.closes_with(Status::PROTOCOL_ERROR);
}

#[test]
fn a_second_check_in_is_a_mistake() {
    let mut raw = Raw::server(config());
    raw.feed(&frames::check_in(said("peer")));
    raw.closes_with(Status::PROTOCOL_ERROR);
    let mut raw = Raw::client(config());
    raw.feed(&frames::ack(CheckInAck { identifier: "peer", ..CheckInAck::default() }));
    raw.closes_with(Status::PROTOCOL_ERROR);
    for (frame, mut raw) in [
        (frames::ack(CheckInAck::default()), Raw::server(config())),
        (frames::check_in(said("peer")), Raw::client(config())),
    ] {
        raw.feed(&frame);
        raw.closes_with(Status::PROTOCOL_ERROR);
    }
}

#[test]
fn before_check_in_16_kib_is_the_most_both_ways() {
    let head = |frame_type: u8, len: u32| {
        let mut head = octets(frame_type, 0, 0, 0, b"");
        head[14..18].copy_from_slice(&len.to_be_bytes());
        head
    };
    let mut raw = accepting();
    raw.feed(&head(1, 16_385));
    raw.closes_with(Status::FRAME_TOO_LARGE);
    let mut raw = accepting();
    raw.feed(&head(1, 16_384));
    raw.is_quiet();
    let mut client = Raw::new(config().build().unwrap(), Side::Client);
    client.frames();
    client.feed(&head(2, 16_385));
    client.closes_with(Status::FRAME_TOO_LARGE);
}

#[test]
fn a_mistake_is_explained_even_to_a_peer_that_has_said_all_it_had_to_say() {
    // End of stream right behind the mistake, noticed before or after it is decoded.
    for late in [false, true] {
        let mut raw = accepting();
        raw.feed(&frames::call(1, b"x"));
        if late {
            raw.events();
        }
        raw.eof();
        let events = raw.events();
        let frame = raw.frame();
        assert_eq!((frame.frame_type(), frame.status()), (FrameType::CLOSE, Status::CHECK_IN_REQUIRED));
        assert_eq!(raw.conn.next().end, End::Close, "nothing more can come, so nothing is waited for");
        drop(events);
    }
}
