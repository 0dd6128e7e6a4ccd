//! Known attacks on multiplexed protocols, one by one, and what one connection makes of each. The names are those of
//! the advisories that taught them.
#![allow(clippy::unwrap_used, clippy::panic, clippy::cast_possible_truncation)]

mod support;

use std::time::Instant as Clock;

use support::{
    frames::{self, flagged, octets},
    raw::{MS, Raw, SECOND, config, ms},
};
use tieline_core::{
    Instant,
    conn::{Body, CallHead, Config, Event, ItemError, Limits, MethodSpec, Rejection, Side},
    wire::{
        CheckIn, CheckInAck, Envelope, Flags, Frame, FrameType, Header, Item, Kind, Label, Repeated, Request,
        Status, What,
    },
};

fn limited(max_concurrent: u32) -> Limits {
    let mut limits = Limits::default();
    limits.max_concurrent = max_concurrent;
    limits
}

/// The status with which the connection ended, if it has.
fn ended(raw: &mut Raw) -> Option<Status> {
    raw.events().into_iter().find_map(|event| match event {
        Event::Closed(closed) => Some(closed.status),
        _ => None,
    })
}

#[test]
fn rapid_reset_starts_no_more_handlers_than_the_limit_and_then_closes() {
    // CVE-2023-44487: a slot is free when its handler has stopped, not when CANCEL comes.
    let mut raw = Raw::stranger(config().limits(limited(10)));
    let mut started = 0;
    for id in 0..10_000u64 {
        raw.feed(&[frames::call(2 * id + 1, b""), frames::cancel(2 * id + 1)].concat());
        for event in raw.events() {
            started += usize::from(matches!(event, Event::Request(_)));
            if let Event::Closed(closed) = event {
                assert_eq!((closed.status, started), (Status::EXCESSIVE_LOAD, 10));
                assert!(id < 5_200, "{id}");
                return;
            }
        }
        raw.frames();
        assert!(raw.conn.open_calls().1 <= 10);
    }
    panic!("10 000 resets were borne");
}

#[test]
fn a_server_cannot_be_made_to_reset_and_keep_computing() {
    // CVE-2025-8671: what is wrong with an admitted call ends the connection, not the call.
    for bad in [
        octets(0x0b, 0, 0, 1, &[0]),
        octets(9, 0, 0, 1, &[0, 1]),
        octets(0x0a, 0, 0, 1, b""),
        frames::call(1, b""),
    ] {
        let mut raw = Raw::server(config());
        raw.feed(&frames::call(1, b""));
        raw.incoming();
        raw.feed(&bad);
        let closed = raw.closes_with(Status::PROTOCOL_ERROR);
        assert_eq!(closed.status, Status::PROTOCOL_ERROR);
        assert!(raw.passed.iter().any(|event| matches!(event, Event::Cancelled(..))), "its handler is told");
    }
}

#[test]
fn answers_that_are_not_read_do_not_pile_up() {
    // CVE-2019-9514, RUSTSEC-2024-0003.
    let mut raw = Raw::server(config().limits(limited(10)));
    raw.takes = false;
    let unknown = |id: u64| frames::request(2 * id + 1, Request { method: 99, ..Request::default() }, b"");
    for id in 0..10_000 {
        raw.feed(&unknown(id));
        if let Some(status) = ended(&mut raw) {
            assert_eq!((status, id), (Status::EXCESSIVE_LOAD, 2 * 10 + 16));
            return;
        }
        assert!(raw.conn.open_calls().1 <= 36);
    }
    panic!("10 000 answers wait");
}

#[test]
fn a_flood_of_heartbeats_is_one_ack_and_an_end() {
    // CVE-2019-9512, CVE-2025-26466.
    let mut raw = Raw::server(config());
    raw.takes = false;
    let flood: Vec<u8> = (0..100_000).flat_map(frames::heartbeat).collect();
    raw.feed(&flood);
    assert_eq!(ended(&mut raw), Some(Status::EXCESSIVE_LOAD));
    raw.takes = true;
    let frames = raw.frames();
    assert_eq!(frames.len(), 1, "not even the ack");
    // Before check-in there are none.
    let mut raw = Raw::new(config().build().unwrap(), Side::Server);
    raw.feed(&frames::heartbeat(1));
    raw.closes_with(Status::CHECK_IN_REQUIRED);
}

#[test]
fn endless_fragments_are_refused_at_the_first() {
    // VU#421644, and the empty ones that slip past a limit on octets.
    for len in [0, 1, 255] {
        let mut raw = Raw::server(config());
        let head = Envelope::Request(Request { method: 1, total: 1 << 40, ..Request::default() });
        raw.feed(&flagged(FrameType::REQUEST, 1, Status::OK, Flags::MORE, head, b"x"));
        raw.turn();
        assert_eq!(raw.conn.open_calls(), (0, 0));
        let end = (0..10_000).find_map(|_| {
            raw.feed(&frames::continuation(1, true, &vec![0; len]));
            ended(&mut raw)
        });
        assert_eq!(end, Some(if len == 0 { Status::PROTOCOL_ERROR } else { Status::EXCESSIVE_LOAD }));
    }
}

#[test]
fn a_length_that_lies_allocates_nothing() {
    // RUSTSEC-2026-0154, CVE-2026-45416.
    for (len, end) in [(u32::MAX, true), (65_537, true), (65_536, false)] {
        let mut raw = Raw::server(config());
        let mut frame = octets(5, 0, 0, 1, b"");
        frame[14..18].copy_from_slice(&len.to_be_bytes());
        raw.feed(&frame);
        if end {
            raw.closes_with(Status::FRAME_TOO_LARGE);
        } else {
            raw.is_quiet();
            assert!(
                raw.conn.lend().capacity() <= 1024,
                "no more than a read is set aside for what is only announced"
            );
        }
    }
}

/// CVE-2024-27304, RUSTSEC-2024-0363: a payload of 4 GiB and 16 octets must not go out as one of 16, with the rest of it
/// read as frames.
#[test]
#[cfg(target_pointer_width = "64")]
fn what_no_length_field_can_say_is_refused_whole() {
    // Pages that are never touched.
    let zeros = vec![0; (4 << 30) + 16];
    let method = || MethodSpec::new("t.S/Both", Kind::Bidi).compress(true);
    let config = || Config::builder("node").method(method()).compress(true);
    for len in [(1 << 30) + 1, 1 << 32, zeros.len()] {
        let body = Body::Copy(&zeros[..len]);
        let mut head = CallHead::new("t.S/Both");
        head.kind = Kind::Bidi;
        let ack = CheckInAck {
            identifier: "peer",
            max_concurrent: 100,
            max_streams: 100,
            max_message: u32::MAX,
            max_item: u32::MAX,
            features: Repeated::from(&[1][..]),
            ..CheckInAck::default()
        };
        // What is asked for before the peer has said what it reads, and after.
        let mut raw = Raw::new(config().build().unwrap(), Side::Client);
        for ready in [false, true] {
            if ready {
                raw.frames();
                raw.feed(&frames::ack(ack));
                raw.turn();
            }
            let refused = raw.conn.call(raw.at(), &CallHead::new("t.S/Echo"), body.clone(), 1).unwrap_err();
            assert_eq!((refused.user, refused.reason), (1, Rejection::TooLarge));
            let refused = raw.conn.ask(raw.at(), "t.S/Echo", None, body.clone(), 1).unwrap_err();
            assert_eq!(refused.reason, Rejection::TooLarge);
            let refused =
                raw.conn.one_way(raw.at(), &CallHead::new("t.S/Echo"), body.clone(), 1).unwrap_err();
            assert_eq!(refused.reason, Rejection::TooLarge);
            let call = raw.conn.call(raw.at(), &head, Body::Copy(b""), 1).unwrap();
            assert_eq!(raw.conn.send_item(raw.at(), call, body.clone()), Err(ItemError::TooLarge));
            raw.conn.cancel(raw.at(), call);
            let types = frames::types(&raw.frames());
            assert!(!types.contains(&FrameType::REQUEST) && !types.contains(&FrameType::STREAM_ITEM));
        }
        let said = CheckIn {
            identifier: "peer",
            max_message: u32::MAX,
            max_item: u32::MAX,
            features: Repeated::from(&[1][..]),
            ..CheckIn::default()
        };
        let mut raw = Raw::server_for(config(), said);
        let request = Request { method: 1, kind: Kind::Bidi.to_wire(), ..Request::default() };
        raw.feed(&frames::request(1, request, b""));
        let call = raw.incoming().call;
        assert_eq!(raw.conn.send_item(raw.at(), call, body.clone()), Err(ItemError::TooLarge));
        raw.conn.answer(raw.at(), call, body).unwrap();
        let answer = raw.frame();
        assert_eq!((answer.status(), answer.payload()), (Status::RESPONSE_TOO_LARGE, &b""[..]));
        assert_eq!(raw.conn.stats().octets_saved, 0, "compressed for nothing");
    }
    for payload in [&zeros[..1 << 32], &zeros] {
        let header = Header {
            frame_type: FrameType::STREAM_ITEM,
            flags: Flags::NONE,
            status: Status::OK,
            id: 1,
            len: 0,
        };
        let mut out = Vec::new();
        let item = Frame { header, envelope: Envelope::Item(Item::default()), payload };
        let fault = item.emit(&mut out).unwrap_err();
        assert!(matches!(fault.what, What::TooLong { .. }) && out.is_empty(), "{fault}");
    }
}

#[test]
fn arithmetic_at_the_end_of_time_and_of_numbers() {
    let mut raw = Raw::server(config());
    let head = |timeout_us| Request { method: 1, timeout_us: Some(timeout_us), ..Request::default() };
    raw.now = u64::MAX - 10 * SECOND;
    raw.conn.handle_timeout(raw.at());
    raw.feed(&frames::heartbeat(1));
    raw.feed(&frames::request(1, head(1 << 53), b""));
    raw.feed(&frames::request((1 << 63) - 1, head(u64::MAX), b""));
    assert_eq!(raw.events().len(), 2);
    let far = CallHead::new("t.S/Echo").deadline(Some(Instant::from_nanos(u64::MAX)));
    raw.conn.call(raw.at(), &far, (&b""[..]).into(), 1).unwrap();
    raw.frames();
    for step in [1, 5 * SECOND, 9 * SECOND, 10 * SECOND] {
        raw.now = u64::MAX - 10 * SECOND + step;
        raw.conn.handle_timeout(raw.at());
        raw.turn();
    }
    raw.now = 0;
    raw.conn.handle_timeout(raw.at());
    raw.feed(&frames::heartbeat(2));
    raw.turn();
    let mut raw = Raw::server(config());
    raw.conn.drain(raw.at(), Status::GOING_AWAY, std::time::Duration::MAX, "");
    raw.conn.handle_sent(raw.at(), usize::MAX);
    raw.turn();
}

#[test]
fn nothing_is_kept_of_what_does_not_pass() {
    // CVE-2026-32314: state that is registered before it is validated.
    let mut raw = Raw::server(config());
    for (number, id) in (0..).zip([3, 9, 11]) {
        raw.feed(&octets(5, 0, 0, id, &[0x7f]));
        raw.feed(&frames::cancel(id));
        assert!(raw.events().is_empty());
        assert_eq!(raw.frames().len(), 1);
        assert_eq!(raw.conn.open_calls(), (0, 0));
        assert_eq!(raw.conn.stats().refused, number + 1);
    }
    raw.feed(&frames::call(11, b""));
    raw.closes_with(Status::PROTOCOL_ERROR);
}

#[test]
fn every_type_in_every_state_has_an_answer() {
    // RUSTSEC-2026-0037 and its like: an unknown type, or silly values, and a panic.
    for frame_type in 0..=255u8 {
        for flags in [0, 1, 0x80, 0xff] {
            for (id, body) in [(0, &b""[..]), (1, b"\x00"), (2, b"\x03\x08\xff\x01"), (u64::MAX, &[0xff; 40])]
            {
                let frame = octets(frame_type, flags, frame_type, id, body);
                let fresh = |side| Raw::new(config().build().unwrap(), side);
                for mut raw in
                    [Raw::server(config()), Raw::client(config()), fresh(Side::Server), fresh(Side::Client)]
                {
                    raw.feed(&frame);
                    raw.turn();
                    raw.eof();
                    raw.turn();
                    let last = std::mem::take(&mut raw.passed).pop();
                    assert!(matches!(last, Some(Event::Closed(_))), "{frame_type} {flags} {id}: {last:?}");
                }
            }
        }
    }
}

#[test]
fn nobody_acts_before_check_in_and_nobody_plays_the_other_side() {
    // CVE-2025-32433, CVE-2018-10933.
    for frame in [frames::call(1, b""), frames::one_way(1, b""), frames::table(&[]), frames::drain(0, 0)] {
        let mut raw = Raw::new(config().build().unwrap(), Side::Server);
        raw.feed(&frame);
        raw.closes_with(Status::CHECK_IN_REQUIRED);
        assert!(raw.passed.is_empty(), "nothing of it is acted on");
    }
    let mut raw = Raw::new(config().verify(true).build().unwrap(), Side::Server);
    raw.feed(&frames::check_in(CheckIn { identifier: "peer", ..CheckIn::default() }));
    assert_eq!(raw.events().len(), 1);
    raw.feed(&frames::ack(CheckInAck { identifier: "node", ..CheckInAck::default() }));
    raw.closes_with(Status::PROTOCOL_ERROR);
}

#[test]
fn a_connection_cannot_be_held_without_checking_in() {
    let mut raw = Raw::new(config().build().unwrap(), Side::Server);
    let hello = frames::check_in(CheckIn { identifier: "peer", ..CheckIn::default() });
    let mut at = 0;
    let before = raw.now;
    while ended(&mut raw).is_none() {
        raw.feed(&hello[at..at + 1]);
        at = (at + 1).min(hello.len() - 2);
        raw.wait(ms(1_000));
        if raw.passed.iter().any(|event| matches!(event, Event::Closed(_))) {
            break;
        }
    }
    assert_eq!((raw.now - before) / SECOND, 5);
}

#[test]
fn octets_one_at_a_time_cost_what_they_cost_together() {
    // RUSTSEC-2023-0065: parsing that starts anew with each octet.
    let frame: Vec<u8> = (0..16).flat_map(|id| frames::call(2 * id + 1, &[7; 60_000])).collect();
    let feed = |piece: usize| {
        let mut raw = Raw::server(config());
        let started = Clock::now();
        let mut requests = 0;
        for piece in frame.chunks(piece) {
            let mut buffer = raw.conn.lend();
            buffer.extend_from_slice(piece);
            raw.conn.handle_input(raw.at(), buffer);
            requests += raw.events().len();
        }
        assert_eq!(requests, 16);
        started.elapsed()
    };
    // A thousand times as many turns; quadratic work would be thirty thousand times as much each.
    let (whole, single) = (feed(1_000), feed(1));
    assert!(
        single < whole * 1_000 * 20 + std::time::Duration::from_millis(50),
        "{single:?} against {whole:?}"
    );
    assert!(single.as_secs() < 5, "{single:?} for a megabyte");
}

#[test]
fn an_answer_never_reaches_another_caller() {
    // The redis-py outage: a cancelled call's answer handed to the next.
    let mut raw = Raw::client(config());
    let mut old = Vec::new();
    for user in 0..100 {
        let call = raw.call(user);
        old.push(raw.frame().id());
        raw.conn.cancel(raw.at(), call);
        raw.frames();
    }
    for user in 100..200 {
        raw.call(user);
    }
    // All 100 places are taken until the late answers come, and those are nobody's.
    assert!(raw.frames().is_empty());
    for id in &old {
        raw.feed(&frames::response(*id, Status::OK, b"old"));
    }
    assert!(raw.events().is_empty());
    let new = raw.frames();
    assert_eq!(new.len(), 100);
    assert!(new.iter().all(|frame| !old.contains(&frame.id())), "no id is used again");
    for id in &old {
        raw.feed(&frames::response(*id, Status::OK, b"again"));
    }
    assert!(raw.events().is_empty());
    assert_eq!(raw.conn.stats().late_frames, 100);
    for frame in &new {
        let octets = frame.payload().to_vec();
        raw.feed(&frames::response(frame.id(), Status::OK, &octets));
    }
    assert_eq!(raw.outcomes().len(), 100);
}

#[test]
fn a_hostile_server_is_clamped_like_a_hostile_client() {
    // RUSTSEC-2026-0178 and its like.
    let labels = [Label { key: "k\u{1b}[2J", value: "" }; 200];
    let features = [u32::MAX; 1000];
    let said = CheckInAck {
        identifier: "peer",
        heartbeat_interval_ms: 10,
        features: Repeated::from(&features),
        max_frame: u32::MAX,
        max_message: u32::MAX,
        max_item: u32::MAX,
        max_concurrent: u32::MAX,
        max_streams: u32::MAX,
        stream_window: u32::MAX,
        labels: Repeated::from(&labels),
        ..CheckInAck::default()
    };
    let mut raw = Raw::client_for(config(), said);
    assert_eq!(raw.conn.peer().unwrap().max_frame, 1 << 20);
    for user in 0..16_384 {
        raw.call(user);
    }
    assert!(
        raw.conn.call(raw.at(), &CallHead::new("t.S/Echo"), (&b""[..]).into(), 0).is_err(),
        "own limits hold"
    );
    raw.turn();
    raw.now += 5 * MS;
    // An answer that claims more than this side reads ends one call, or the connection.
    raw.feed(&octets(6, 0, 0, 1 << 17 | 1, &[0x80, 0x80, 0x80, 0x80, 0x0f]));
    assert_eq!(raw.outcomes()[0].1.as_ref().unwrap_err().status(), Status::BAD_REPLY);
}

#[test]
fn what_a_peer_writes_does_not_reach_a_log_as_it_is() {
    // RUSTSEC-2025-0055.
    let evil = "\u{1b}[31m\r\nroot logged in\u{202e}";
    let mut raw = Raw::new(config().build().unwrap(), Side::Server);
    raw.feed(&frames::check_in(CheckIn { identifier: evil, ..CheckIn::default() }));
    let refused = raw.closed(vec![]).to_string();
    let mut raw = Raw::server(config());
    let close = tieline_core::wire::Close { message: evil };
    raw.feed(&frames::emit(FrameType::CLOSE, 0, Status::NORMAL, Envelope::Close(close), b""));
    let closed = raw.closed(vec![]).to_string();
    let mut raw = Raw::client(config());
    raw.call(1);
    let id = raw.frame().id();
    let said = tieline_core::wire::Response { message: evil, ..Default::default() };
    raw.feed(&frames::emit(FrameType::RESPONSE, id, Status::ABORTED, Envelope::Response(said), b""));
    let failure = raw.outcomes().remove(0).1.unwrap_err();
    for shown in [refused, closed, failure.to_string(), format!("{failure:?}")] {
        assert!(!shown.chars().any(|c| c.is_control() || c == '\u{202e}'), "{shown:?}");
        assert!(shown.contains("root logged in"));
    }
}
