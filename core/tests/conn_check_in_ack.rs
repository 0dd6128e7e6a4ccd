//! The answer to a check-in (protocol §4): what a client makes of it, what it waits for until then, and what the numbers
//! of both mean.
#![allow(clippy::unwrap_used, clippy::panic, clippy::cast_possible_truncation)]

mod support;

use std::time::Duration;

use support::{
    frames::{self, octets, outline},
    raw::{Raw, config, limits, ms},
};
use tieline_core::{
    conn::{By, CallHead, Config, End, Event, Side},
    wire::{CheckIn, CheckInAck, Envelope, FrameType, HEADER_LEN, Status},
};

#[test]
fn a_client_waits_fifteen_seconds_for_the_ack() {
    let mut client = Raw::new(config().build().unwrap(), Side::Client);
    client.call(1);
    client.frames();
    assert!(client.wait(ms(14_999)).is_empty());
    assert_eq!(client.conn.next().end, End::Open);
    client.wait(ms(1));
    assert_eq!(client.conn.next().end, End::Close);
    let events = std::mem::take(&mut client.passed);
    assert!(
        matches!(&events[0], Event::Done { user: 1, outcome: Err(failure), .. } if failure.status() == Status::NOT_SENT)
    );
    assert_eq!(client.closed(events).status, Status::CHECK_IN_TIMEOUT);
}

#[test]
fn a_server_may_close_instead_of_answering_even_before_the_client_spoke() {
    for spoken in [true, false] {
        let mut client = Raw::new(config().build().unwrap(), Side::Client);
        if spoken {
            client.frames();
        }
        client.feed(&frames::close(Status::TOO_MANY_CONNECTIONS));
        let closed = client.closed(vec![]);
        assert_eq!((closed.by, closed.status), (By::Peer, Status::TOO_MANY_CONNECTIONS));
    }
}

#[test]
fn an_ack_that_is_wrong_is_a_mistake() {
    let bad_identifier = frames::ack(CheckInAck { identifier: "no spaces", ..CheckInAck::default() });
    for bad in
        [bad_identifier, octets(2, 0, 0, 0, &[1, 0]), octets(2, 0, 0, 0, &[0, 1]), octets(2, 0, 0, 5, &[])]
    {
        let mut client = Raw::new(config().build().unwrap(), Side::Client);
        client.frames();
        client.feed(&bad);
        client.closes_with(Status::PROTOCOL_ERROR);
    }
    // A refusal of another class reads as PROTOCOL_ERROR.
    let mut client = Raw::new(config().build().unwrap(), Side::Client);
    client.frames();
    client.feed(&octets(2, 0, 0x21, 0, &[]));
    let closed = client.closed(vec![]);
    assert_eq!((closed.by, closed.status), (By::Peer, Status::PROTOCOL_ERROR));
}

#[test]
fn the_interval_is_the_proposal_in_the_bounds_of_the_server() {
    for (proposed, granted) in [(0, 10_000), (1, 200), (200, 200), (7_000, 7_000), (u32::MAX, 300_000)] {
        let mut raw = Raw::new(config().build().unwrap(), Side::Server);
        let said = CheckIn { identifier: "peer", max_concurrent: 1, ..CheckIn::default() };
        raw.feed(&frames::check_in(CheckIn { heartbeat_interval_ms: proposed, ..said }));
        raw.events();
        let frames = raw.frames();
        let Envelope::CheckInAck(ack) = frames[0].frame().envelope else { panic!() };
        assert_eq!(ack.heartbeat_interval_ms, granted);
        assert_eq!(raw.conn.peer().unwrap().heartbeat_interval, ms(granted.into()));
    }
}

#[test]
fn a_client_keeps_what_was_granted_or_closes() {
    let granted = |ms| {
        let mut client = Raw::new(config().build().unwrap(), Side::Client);
        client.frames();
        client.feed(&frames::ack(CheckInAck {
            identifier: "peer",
            heartbeat_interval_ms: ms,
            ..CheckInAck::default()
        }));
        client
    };
    for ms in [10, 60_000, 3_600_000] {
        let mut client = granted(ms);
        assert!(matches!(client.events()[..], [Event::Ready(_)]));
        assert_eq!(client.conn.peer().unwrap().heartbeat_interval, Duration::from_millis(ms.into()));
    }
    for ms in [1, 9, 3_600_001, u32::MAX] {
        granted(ms).closes_with(Status::CHECK_IN_REFUSED);
    }
}

#[test]
fn numbers_out_of_range_are_read_as_if_clamped() {
    let peer = |number| {
        let raw = Raw::server_for(
            config(),
            CheckIn {
                identifier: "peer",
                max_frame: number,
                max_message: number,
                max_item: number,
                max_concurrent: number,
                max_streams: number,
                stream_window: number,
                ..CheckIn::default()
            },
        );
        raw.conn.peer().unwrap().clone()
    };
    let unsaid = peer(0);
    assert_eq!((unsaid.max_frame, unsaid.max_message, unsaid.max_item), (65_536, 4 << 20, 256 << 10));
    assert_eq!((unsaid.max_concurrent, unsaid.max_streams, unsaid.stream_window), (0, 0, 65_536));
    let least = peer(1);
    assert_eq!((least.max_frame, least.max_message), (16 << 10, 1 << 10));
    let most = peer(u32::MAX);
    assert_eq!((most.max_frame, most.max_message, most.stream_window), (1 << 20, 1 << 30, i32::MAX as u32));
    assert_eq!(most.max_concurrent, u32::MAX, "no size is taken from it");
}

#[test]
fn an_endpoint_without_methods_announces_that_it_serves_none() {
    let mut client = Raw::new(Config::builder("node").build().unwrap(), Side::Client);
    let hello = client.frame();
    let Envelope::CheckIn(said) = hello.frame().envelope else { panic!() };
    assert_eq!(said.max_concurrent, 0);
    // And a peer that says so gets no calls: what waits for it is told at once.
    let mut client = Raw::new(config().build().unwrap(), Side::Client);
    client.call(1);
    client.conn.one_way(client.at(), &CallHead::new("t.S/Echo"), (&b"x"[..]).into(), 2).unwrap();
    client.frames();
    client.feed(&frames::ack(CheckInAck { identifier: "peer", ..CheckInAck::default() }));
    let outcomes = client.outcomes();
    assert_eq!(outcomes.iter().map(|(user, _)| *user).collect::<Vec<_>>(), [1, 2]);
    assert!(outcomes.iter().all(|(_, outcome)| outcome.as_ref().unwrap_err().status() == Status::NOT_SENT));
    assert_eq!(outline(&client.frames()), [(FrameType::TABLE, 0, Status::OK)]);
}

#[test]
fn calls_made_before_check_in_wait_for_it_in_order() {
    let mut client = Raw::new(config().build().unwrap(), Side::Client);
    client.call(1);
    client.call(2);
    let hello = client.frame();
    assert_eq!(hello.frame_type(), FrameType::CHECK_IN, "nothing else goes out before the ack");
    assert!(client.frames().is_empty());
    client.feed(&frames::ack(CheckInAck { identifier: "peer", max_concurrent: 1, ..CheckInAck::default() }));
    client.events();
    let frames = client.frames();
    assert_eq!(frames[0].frame_type(), FrameType::TABLE);
    assert_eq!(frames.len(), 2, "the peer serves one call at once");
    assert_eq!(frames[1].frame_type(), FrameType::REQUEST);
    assert!(frames[1].id() % 2 == 1);
}

#[test]
fn the_limits_that_are_announced_are_those_that_hold() {
    let mut raw = Raw::server(config().limits(limits(|limits| limits.max_frame = 16 << 10)));
    let mut frame = frames::call(1, b"");
    frame[14..18].copy_from_slice(&16_385u32.to_be_bytes());
    raw.feed(&frame[..HEADER_LEN]);
    raw.closes_with(Status::FRAME_TOO_LARGE);
}
