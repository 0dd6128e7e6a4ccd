//! Opening a stream (protocol §10), at either end and on either side: what its kind allows, how many there may be at
//! once, and what comes before its handler starts.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::cast_possible_truncation,
    clippy::cast_possible_wrap,
    clippy::cast_sign_loss
)]

mod support;

use support::{
    frames::{self, cancel, outline, types},
    output::answer,
    raw::{Raw, limits},
    streams::{
        KINDS, SENDS_DOWN, SENDS_UP, SIDES, call_head, calls, credit, end, head, item, name, node, open,
        peer, peer_id, send, serves, serves_down, streaming, take_all,
    },
};
use tieline_core::{
    conn::{Body, CallHead, Event, ItemError, Rejection, Side, Taken},
    wire::{CheckIn, FrameType, Kind, Request, Status},
};

// ---- kinds ----------------------------------------------------------------------------------------------------

/// R-STR-01.
#[test]
fn a_streaming_request_carries_an_argument_which_may_be_empty() {
    for side in SIDES {
        for (n, kind) in (0..).zip(KINDS) {
            for argument in [&b""[..], b"argument"] {
                let mut raw = node(side, streaming(), peer());
                raw.feed(&frames::request(peer_id(side, n), head(kind), argument));
                let incoming = raw.incoming();
                assert_eq!((&incoming.payload[..], incoming.kind), (argument, kind));
                let call = raw.conn.call(raw.at(), &call_head(kind), Body::Copy(argument), 1).unwrap();
                let frame = raw.frame();
                assert_eq!((frame.payload(), frame.request().kind), (argument, kind as u32));
                assert_eq!(raw.conn.user(call), Some(&1));
            }
        }
    }
}

/// R-CAL-17.
#[test]
fn a_kind_that_is_not_the_methods_is_answered_41() {
    for side in SIDES {
        let mut n = 0;
        let mut raw = node(side, streaming(), peer());
        for method in KINDS {
            for kind in 0..6 {
                if kind == method as u32 {
                    continue;
                }
                let id = peer_id(side, n);
                n += 1;
                raw.feed(&frames::request(id, Request { kind, ..head(method) }, b""));
                assert!(raw.events().is_empty());
                assert_eq!(outline(&raw.frames()), [(FrameType::RESPONSE, id, Status::WRONG_KIND)]);
            }
        }
    }
}

/// R-CAL-07.
#[test]
fn a_one_way_of_a_streaming_kind_is_dropped_and_counted() {
    for side in SIDES {
        let mut raw = node(side, streaming(), peer());
        for (n, kind) in (0..).zip(&KINDS[1..]) {
            let envelope = tieline_core::wire::Envelope::Request(head(*kind));
            raw.feed(&frames::emit(FrameType::ONE_WAY, peer_id(side, n), Status::OK, envelope, b""));
        }
        raw.is_quiet();
        assert_eq!(raw.conn.stats().dropped_one_ways, 3);
        // Nor does this side send one.
        let rejected = raw.conn.one_way(raw.at(), &call_head(Kind::Bidi), Body::Copy(b""), 7);
        if rejected.is_ok() {
            assert!(raw.frames().iter().all(|frame| frame.request().kind == 0));
        }
    }
}

/// R-STR-02: this side sends items only as the kind has it.
#[test]
fn items_go_only_where_the_kind_has_them() {
    for side in SIDES {
        for (n, kind) in (0..).zip(KINDS) {
            let mut raw = node(side, streaming(), peer());
            let (ours, _) = calls(&mut raw, call_head(kind), 1);
            let up = raw.conn.send_item(raw.at(), ours, Body::Copy(b"x"));
            assert_eq!(up.is_ok(), SENDS_UP.contains(&kind), "{kind:?} {up:?}");
            let ended = raw.conn.end_items(raw.at(), ours);
            assert_eq!(ended.is_ok(), SENDS_UP.contains(&kind), "{kind:?} {ended:?}");
            let call = serves(&mut raw, peer_id(side, n), kind).call;
            let down = raw.conn.send_item(raw.at(), call, Body::Copy(b"x"));
            assert_eq!(down.is_ok(), SENDS_DOWN.contains(&kind), "{kind:?} {down:?}");
            for refused in [up, down] {
                assert!(matches!(refused, Ok(()) | Err(ItemError::Over)));
            }
        }
    }
}

/// R-STR-02, R-STR-10: nor does the peer.
#[test]
fn items_of_the_peer_where_the_kind_has_none_are_a_mistake() {
    for side in SIDES {
        for kind in [Kind::Unary, Kind::ServerStream] {
            let mut raw = node(side, streaming(), peer());
            serves(&mut raw, peer_id(side, 0), kind);
            raw.feed(&item(peer_id(side, 0), b"x"));
            raw.closes_with(Status::PROTOCOL_ERROR);
            let mut raw = node(side, streaming(), peer());
            serves(&mut raw, peer_id(side, 0), kind);
            raw.feed(&end(peer_id(side, 0)));
            raw.closes_with(Status::PROTOCOL_ERROR);
        }
        for kind in [Kind::Unary, Kind::ClientStream] {
            let mut raw = node(side, streaming(), peer());
            let (_, id) = calls(&mut raw, call_head(kind), 1);
            raw.feed(&item(id, b"x"));
            raw.closes_with(Status::PROTOCOL_ERROR);
        }
        // R-TYP-05: CREDIT for a direction that the kind has not.
        for kind in [Kind::Unary, Kind::ClientStream] {
            let mut raw = node(side, streaming(), peer());
            serves(&mut raw, peer_id(side, 0), kind);
            raw.feed(&credit(peer_id(side, 0), 1_000));
            raw.closes_with(Status::PROTOCOL_ERROR);
        }
        for kind in [Kind::Unary, Kind::ServerStream] {
            let mut raw = node(side, streaming(), peer());
            let (_, id) = calls(&mut raw, call_head(kind), 1);
            raw.feed(&credit(id, 1_000));
            raw.closes_with(Status::PROTOCOL_ERROR);
        }
    }
}

/// The names of the methods are those of the kinds, by name too.
#[test]
fn a_stream_is_called_by_name_as_well() {
    for side in SIDES {
        let mut raw = node(side, streaming(), peer());
        for (n, kind) in (0..).zip(KINDS) {
            let by_name = Request { method: 0, method_name: name(kind), ..head(kind) };
            raw.feed(&frames::request(peer_id(side, n), by_name, b""));
            assert_eq!(raw.incoming().kind, kind);
        }
        let call = CallHead::new("t.S/Unknown");
        raw.conn.call(raw.at(), &call, Body::Copy(b""), 1).unwrap();
        assert_eq!(raw.frame().request().method_name, "t.S/Unknown");
    }
}

// ---- limits ---------------------------------------------------------------------------------------------------

/// R-CAL-09.
#[test]
fn a_caller_never_has_more_streams_open_than_the_peer_serves() {
    for side in SIDES {
        let mut raw = node(side, streaming(), CheckIn { max_streams: 2, ..peer() });
        let (first, id) = calls(&mut raw, call_head(Kind::Bidi), 1);
        calls(&mut raw, call_head(Kind::ClientStream), 2);
        raw.conn.call(raw.at(), &call_head(Kind::ServerStream), Body::Copy(b""), 3).unwrap();
        assert!(raw.frames().is_empty(), "it waits");
        // Unary calls and one-ways go by.
        raw.call(4);
        assert_eq!(raw.frame().request().kind, 0);
        // Giving one up makes no room, its RESPONSE does.
        raw.conn.cancel(raw.at(), first);
        assert_eq!(types(&raw.frames()), [FrameType::CANCEL]);
        raw.feed(&frames::response(id, Status::CANCELLED_RUNNING, b""));
        assert!(raw.events().is_empty());
        assert_eq!(raw.frame().request().kind, Kind::ServerStream as u32);
    }
}

/// R-CAL-09: "if the limit is 0 it fails at once".
#[test]
fn a_stream_to_a_peer_that_serves_none_fails_at_once() {
    for side in SIDES {
        let mut raw = node(side, streaming(), CheckIn { max_streams: 0, ..peer() });
        for kind in &KINDS[1..] {
            let rejected = raw.conn.call(raw.at(), &call_head(*kind), Body::Copy(b""), 3).unwrap_err();
            assert_eq!((rejected.user, rejected.reason), (3, Rejection::NotServed));
        }
        raw.call(1);
        raw.frame();
        // Of those that were made before check-in was complete, likewise.
        if side == Side::Client {
            let mut raw = Raw::new(streaming().build().unwrap(), Side::Client);
            raw.conn.call(raw.at(), &call_head(Kind::Bidi), Body::Copy(b""), 3).unwrap();
            raw.frames();
            raw.feed(&frames::ack(tieline_core::wire::CheckInAck {
                identifier: "peer",
                max_concurrent: 100,
                ..Default::default()
            }));
            let outcomes = raw.outcomes();
            assert_eq!(outcomes.len(), 1);
            let failure = outcomes[0].1.as_ref().unwrap_err();
            assert!([Status::NOT_SENT, Status::LOCAL_LIMIT].contains(&failure.status()), "{failure}");
            assert!(raw.frames().iter().all(|frame| frame.frame_type() != FrameType::REQUEST));
        }
    }
}

/// R-CAL-10, R-CAL-11.
#[test]
fn a_callee_refuses_streams_that_are_over_its_limit() {
    for side in SIDES {
        let bounds = limits(|it| (it.max_streams, it.max_concurrent) = (2, 10));
        let mut raw = node(side, streaming().limits(bounds), peer());
        let first = serves(&mut raw, peer_id(side, 0), Kind::ServerStream).call;
        serves(&mut raw, peer_id(side, 1), Kind::ClientStream);
        raw.feed(&open(peer_id(side, 2), Kind::Bidi));
        assert!(raw.events().is_empty());
        assert_eq!(outline(&raw.frames()), [(FrameType::RESPONSE, peer_id(side, 2), Status::TOO_MANY_CALLS)]);
        serves(&mut raw, peer_id(side, 3), Kind::Unary);
        raw.reply(first, b"");
        raw.frames();
        serves(&mut raw, peer_id(side, 4), Kind::Bidi);
    }
}

/// R-CAL-11: until its RESPONSE is committed whole.
#[test]
fn a_stream_whose_response_waits_behind_items_holds_its_slot() {
    for side in SIDES {
        let mut raw = node(side, streaming().limits(limits(|it| it.max_streams = 1)), peer());
        let (call, id) = serves_down(&mut raw, 0, Kind::ServerStream, Some(0));
        send(&mut raw, call, b"x");
        raw.reply(call, b"");
        raw.feed(&open(peer_id(side, 1), Kind::Bidi));
        assert!(raw.events().is_empty());
        assert_eq!(raw.frame().status(), Status::TOO_MANY_CALLS);
        raw.feed(&credit(id, 256));
        raw.events();
        assert_eq!(types(&raw.frames()), [FrameType::STREAM_ITEM, FrameType::RESPONSE]);
        serves(&mut raw, peer_id(side, 2), Kind::Bidi);
    }
}

/// R-CHK-17, annex D: an endpoint without streaming methods announces none.
#[test]
fn what_is_announced_is_what_is_served() {
    let mut raw = Raw::new(support::raw::config().build().unwrap(), Side::Client);
    match raw.frames()[0].frame().envelope {
        tieline_core::wire::Envelope::CheckIn(said) => assert_eq!(said.max_streams, 0),
        other => panic!("{other:?}"),
    }
}

// ---- before the handler starts --------------------------------------------------------------------------------

/// R-ORD-01, R-STR-05: items of a call that waits for its key are there when its handler starts.
#[test]
fn items_that_come_before_the_handler_starts_wait_for_it() {
    for side in SIDES {
        let mut raw = node(side, streaming(), peer());
        let keyed = |kind| Request { ordering_key: b"key", ..head(kind) };
        raw.feed(&frames::request(peer_id(side, 0), keyed(Kind::Unary), b""));
        let first = raw.incoming().call;
        let id = peer_id(side, 1);
        raw.feed(&frames::request(id, keyed(Kind::Bidi), b"argument"));
        raw.feed(&[item(id, b"one"), item(id, b"two"), end(id)].concat());
        raw.is_quiet();
        raw.reply(first, b"");
        let mut second = None;
        for event in raw.events() {
            match event {
                Event::Request(incoming) => second = Some(incoming),
                Event::Readable(which) => {
                    assert_eq!(
                        Some(which),
                        second.as_ref().map(|it| it.call.into()),
                        "not before its Request"
                    );
                }
                other => panic!("{other:?}"),
            }
        }
        let second = second.expect("it starts");
        assert_eq!(&second.payload[..], b"argument");
        assert_eq!(take_all(&mut raw, second.call), ["one", "two"]);
        assert_eq!(raw.conn.take_item(raw.at(), second.call), Some(Taken::End));
    }
}

/// R-CAL-24, R-CAN-03: of one that never starts nothing is kept.
#[test]
fn items_of_a_call_that_never_starts_are_dropped_with_it() {
    for side in SIDES {
        let mut raw = node(side, streaming(), peer());
        let keyed = |kind| Request { ordering_key: b"key", ..head(kind) };
        raw.feed(&frames::request(peer_id(side, 0), keyed(Kind::Unary), b""));
        let first = raw.incoming().call;
        let id = peer_id(side, 1);
        raw.feed(&frames::request(id, keyed(Kind::Bidi), b""));
        raw.feed(&[item(id, b"one"), cancel(id)].concat());
        assert!(raw.events().is_empty());
        assert_eq!(outline(&raw.frames()), [(FrameType::RESPONSE, id, Status::CANCELLED_IN_QUEUE)]);
        raw.feed(&item(id, b"two"));
        raw.reply(first, b"");
        assert!(raw.events().is_empty());
        raw.frames();
        assert_eq!((raw.conn.open_calls(), raw.conn.stats().late_frames), ((0, 0), 0));
    }
}

/// R-STR-13: a broken item of a call that has not started; its handler never does.
#[test]
fn a_broken_item_of_a_call_that_waits_for_its_key_ends_it_unstarted() {
    for side in SIDES {
        let bounds = limits(|it| it.max_item = 1_000);
        let mut raw = node(side, streaming().limits(bounds), peer());
        let keyed = |kind| Request { ordering_key: b"key", ..head(kind) };
        raw.feed(&frames::request(peer_id(side, 0), keyed(Kind::Unary), b""));
        let first = raw.incoming().call;
        let id = peer_id(side, 1);
        raw.feed(&frames::request(id, keyed(Kind::Bidi), b""));
        raw.feed(&item(id, &[7; 1_001]));
        let mut frames = raw.turn();
        raw.reply(first, b"");
        frames.extend(raw.turn());
        frames.extend(raw.turn());
        assert_eq!(answer(&frames, id), Some(Status::INTERRUPTED));
        assert!(raw.passed.is_empty(), "{:?}", raw.passed);
    }
}
