//! Messages in fragments that are not wanted whole or do not come whole (protocol §11), at either end and on either side:
//! abandoned, refused while they are being sent, and cut off.
#![allow(clippy::unwrap_used, clippy::panic, clippy::cast_possible_truncation)]

mod support;

use support::{
    frames::{self, cancel, continuation, outline},
    output::{FULL, points, step_one, stepwise},
    raw::{limits, ms, secs},
    scene::{Scene, all},
    streams::{
        SIDES, abandon, begin_item, begin_one_way, begin_request, begin_response, call_head, calls, head,
        item, node, pattern, peer, peer_id, serves, streaming, wide,
    },
};
use tieline_core::{
    conn::{Cancel, Event, Side},
    wire::{CheckIn, FrameType, Kind, Ran, Request, Status},
};

// ---- abandoned ------------------------------------------------------------------------------------------------

/// R-FRG-06, R-FRG-07, R-CAL-24.
#[test]
fn an_abandoned_request_is_answered_47_and_never_starts() {
    for side in SIDES {
        for kind in [Kind::Unary, Kind::Bidi] {
            let mut raw = node(side, streaming(), peer());
            let id = peer_id(side, 0);
            raw.feed(&begin_request(id, head(kind), 1_000, &[7; 300]));
            raw.feed(&continuation(id, true, &[7; 300]));
            raw.is_quiet();
            raw.feed(&abandon(id));
            assert!(raw.events().is_empty());
            assert_eq!(outline(&raw.frames()), [(FrameType::RESPONSE, id, Status::CANCELLED_IN_QUEUE)]);
            assert_eq!(raw.conn.open_calls(), (0, 0));
            // Its id is not open any more.
            raw.feed(&continuation(id, false, b"x"));
            raw.is_quiet();
            assert_eq!(raw.conn.stats().late_frames, 1);
        }
    }
}

/// R-FRG-07, R-CAN-03, R-ID-09.
#[test]
fn a_request_that_is_cancelled_while_it_arrives_is_answered_once() {
    for side in SIDES {
        for (status, answer) in [
            (Status::CANCELLED, Status::CANCELLED_IN_QUEUE),
            (Status::DEADLINE_EXCEEDED, Status::EXPIRED_IN_QUEUE),
        ] {
            let mut raw = node(side, streaming(), peer());
            let id = peer_id(side, 0);
            raw.feed(&begin_request(id, head(Kind::Unary), 1_000, &[7; 300]));
            raw.feed(&frames::octets(0x08, 0, status.0, id, b""));
            assert!(raw.events().is_empty());
            assert_eq!(outline(&raw.frames()), [(FrameType::RESPONSE, id, answer)]);
            // What was under way, and the abandoning, are free.
            raw.feed(&continuation(id, true, &[7; 300]));
            raw.feed(&abandon(id));
            raw.is_quiet();
            assert_eq!(raw.conn.stats().late_frames, 0);
            assert_eq!(raw.conn.open_calls(), (0, 0));
        }
    }
}

/// R-FRG-07, R-CAL-06.
#[test]
fn an_abandoned_one_way_is_dropped_in_silence() {
    for side in SIDES {
        let mut raw = node(side, streaming(), peer());
        let id = peer_id(side, 0);
        raw.feed(&begin_one_way(id, head(Kind::Unary), 1_000, &[7; 300]));
        raw.feed(&abandon(id));
        raw.is_quiet();
        assert_eq!(raw.conn.open_calls(), (0, 0));
        // R-ID-10: nor is there anything to cancel while one arrives.
        let id = peer_id(side, 1);
        raw.feed(&begin_one_way(id, head(Kind::Unary), 400, &[7; 300]));
        raw.feed(&cancel(id));
        raw.is_quiet();
        assert_eq!(raw.conn.stats().late_frames, 1);
        raw.feed(&continuation(id, false, &[7; 100]));
        assert_eq!(raw.incoming().payload.len(), 400);
    }
}

/// R-FRG-07, R-STA-05.
#[test]
fn an_abandoned_response_counts_as_the_response_and_is_lost() {
    for side in SIDES {
        let mut raw = node(side, streaming(), CheckIn { max_concurrent: 1, ..peer() });
        let (_, id) = calls(&mut raw, call_head(Kind::Unary), 1);
        raw.call(2);
        assert!(raw.frames().is_empty(), "it waits for the first");
        raw.feed(&begin_response(id, Status::OK, 1_000, &[7; 300]));
        raw.is_quiet();
        raw.feed(&abandon(id));
        let outcomes = raw.outcomes();
        let failure = outcomes[0].1.as_ref().unwrap_err();
        assert_eq!((outcomes[0].0, failure.status(), failure.ran()), (1, Status::LOST_REPLY, Ran::Maybe));
        assert_eq!(raw.frame().frame_type(), FrameType::REQUEST, "the second may go");
        raw.feed(&frames::response(id, Status::OK, b""));
        raw.is_quiet();
        assert_eq!(raw.conn.stats().late_frames, 1, "a second RESPONSE is late");
    }
}

/// R-FRG-08.
#[test]
fn after_an_abandoned_item_the_caller_cancels_and_reports_the_status_of_the_response() {
    for side in SIDES {
        for (status, reported) in [
            (Status::OK, Status::LOST_REPLY),
            (Status::CANCELLED_RUNNING, Status::CANCELLED_RUNNING),
            (Status::ABORTED, Status::ABORTED),
        ] {
            let mut raw = node(side, streaming(), peer());
            let (_, id) = calls(&mut raw, call_head(Kind::ServerStream), 1);
            raw.feed(&item(id, b"good"));
            raw.feed(&begin_item(id, 1_000, &[7; 300]));
            raw.feed(&abandon(id));
            assert!(!raw.events().iter().any(|event| matches!(event, Event::Done { .. })), "it waits");
            assert_eq!(outline(&raw.frames()), [(FrameType::CANCEL, id, Status::CANCELLED)]);
            raw.feed(&frames::response(id, status, b""));
            let outcomes = raw.outcomes();
            assert_eq!(outcomes.len(), 1);
            assert_eq!(outcomes[0].1.as_ref().unwrap_err().status(), reported);
            raw.is_quiet();
        }
    }
}

/// R-STR-13, R-FRG-08.
#[test]
fn an_abandoned_item_interrupts_the_call_at_its_callee() {
    for side in SIDES {
        for kind in [Kind::ClientStream, Kind::Bidi] {
            let mut raw = node(side, streaming(), peer());
            let id = peer_id(side, 0);
            let call = serves(&mut raw, id, kind).call;
            raw.feed(&begin_item(id, 1_000, &[7; 300]));
            raw.feed(&abandon(id));
            let events = raw.events();
            let cancels: Vec<_> =
                events.iter().filter(|event| matches!(event, Event::Cancelled(..))).collect();
            assert!(
                matches!(cancels[..], [Event::Cancelled(which, Cancel::BrokenItem)] if *which == call),
                "{events:?}"
            );
            assert_eq!(outline(&raw.frames()), [(FrameType::RESPONSE, id, Status::INTERRUPTED)]);
            assert_eq!(raw.conn.open_calls().1, 1, "the handler holds its slot");
            raw.conn.stopped(raw.at(), call);
            assert_eq!(raw.conn.open_calls().1, 0);
            raw.is_quiet();
        }
    }
}

/// R-CLS-06: nothing of a message that is not whole is acted on, and R-CLS-07 for those of this side.
#[test]
fn the_end_of_the_transport_inside_a_message_ends_it_unheard() {
    for (side, what) in all() {
        let mut scene = Scene::arriving(side, what);
        scene.raw.feed(&what.begin(scene.id, 1_000, &[7; 300]));
        scene.raw.turn();
        scene.raw.passed.clear();
        scene.raw.eof();
        let events = scene.raw.events();
        assert!(!events.iter().any(|event| matches!(event, Event::Request(_))));
        assert!(matches!(events.last(), Some(Event::Closed(_))));
        for event in &events {
            if let Event::Done { outcome, rest, .. } = event {
                assert_eq!(outcome.as_ref().unwrap_err().status(), Status::CONNECTION_LOST);
                assert_eq!(rest.len(), 0, "a part of an item is no item");
            }
        }
    }
    for (side, what) in all() {
        let mut scene = Scene::leaving(side, what, wide());
        stepwise(&mut scene.raw);
        scene.send(&pattern(250_000));
        step_one(&mut scene.raw);
        scene.raw.eof();
        let events = scene.raw.events();
        for event in &events {
            if let Event::Done { outcome, .. } = event {
                let failure = outcome.as_ref().unwrap_err();
                assert_eq!(
                    (failure.status(), failure.ran()),
                    (Status::CONNECTION_LOST, Ran::Maybe),
                    "{what:?}"
                );
            }
        }
        assert!(matches!(events.last(), Some(Event::Closed(_))));
    }
}

// ---- refused while it is being sent ---------------------------------------------------------------------------

fn refusals(side: Side) -> [(Vec<u8>, Status); 4] {
    let id = peer_id(side, 0);
    let echo = head(Kind::Unary);
    [
        (begin_request(id, Request { method: 99, ..echo }, 1 << 20, b"x"), Status::NO_SUCH_METHOD),
        (begin_request(id, Request { kind: 1, ..echo }, 1 << 20, b"x"), Status::WRONG_KIND),
        (begin_request(id, Request { codec: 77, ..echo }, 1 << 20, b"x"), Status::UNSUPPORTED_CODEC),
        (begin_request(id, echo, (4 << 20) + 1, b"x"), Status::TOO_LARGE),
    ]
}

/// R-FRG-10, R-ID-09, R-ABU-08: refused at the first frame, and what follows is free; but what is too small to be of
/// use is charged as everywhere.
#[test]
fn the_rest_of_a_refused_message_is_free_until_its_end() {
    for side in SIDES {
        let class_two = 1;
        for (first, status) in refusals(side) {
            let mut raw = node(side, streaming(), peer());
            let id = peer_id(side, 0);
            raw.feed(&first);
            assert!(raw.events().is_empty());
            assert_eq!(raw.frame().status(), status);
            for _ in 0..5_000 {
                raw.feed(&continuation(id, true, &[7; 256]));
            }
            raw.is_quiet();
            for _ in 0..3 {
                raw.feed(&continuation(id, true, &[7; 255]));
            }
            raw.feed(&continuation(id, false, b"z"));
            raw.is_quiet();
            assert_eq!(raw.conn.stats().late_frames, 0);
            // The id went with the last one.
            raw.feed(&continuation(id, false, b"z"));
            raw.is_quiet();
            assert_eq!(raw.conn.stats().late_frames, 1);
            let (first, small) = (1, 3);
            // The answer, the first part, the small ones, and the late one.
            assert_eq!(points(&mut raw), FULL - class_two - first - small - 1);
        }
    }
}

/// R-ENV-09: a `total` that cannot be read is not judged.
#[test]
fn a_begun_message_whose_envelope_does_not_decode_is_refused_and_its_rest_is_free() {
    for side in SIDES {
        let id = peer_id(side, 0);
        let mut raw = node(side, streaming(), peer());
        raw.feed(&frames::octets(0x05, 0x01, 0, id, &[2, 0x0b, 0x0c, 1]));
        assert!(raw.events().is_empty());
        assert_eq!(raw.frame().status(), Status::BAD_REQUEST);
        raw.feed(&continuation(id, true, b"x"));
        raw.feed(&continuation(id, false, b"x"));
        let id = peer_id(side, 1);
        raw.feed(&frames::octets(0x07, 0x01, 0, id, &[2, 0x0b, 0x0c, 1]));
        raw.feed(&continuation(id, false, b"x"));
        raw.is_quiet();
        assert_eq!((raw.conn.stats().late_frames, raw.conn.stats().dropped_one_ways), (0, 1));
        // Of a RESPONSE the caller gets BAD_REPLY (R-CAL-22); it counts as the RESPONSE.
        let (_, id) = calls(&mut raw, call_head(Kind::Unary), 1);
        raw.feed(&frames::octets(0x06, 0x01, 0, id, &[2, 0x0b, 0x0c, 1]));
        assert_eq!(raw.outcomes()[0].1.as_ref().unwrap_err().status(), Status::BAD_REPLY);
        raw.frames();
        raw.feed(&continuation(id, false, b"x"));
        raw.is_quiet();
        assert_eq!(raw.conn.stats().late_frames, 0);
        // Of an item it is a mistake (R-ENV-08).
        let (_, id) = calls(&mut raw, call_head(Kind::ServerStream), 1);
        raw.feed(&frames::octets(0x09, 0x01, 0, id, &[2, 0x0b, 0x0c, 1]));
        raw.closes_with(Status::PROTOCOL_ERROR);
    }
}

/// R-ID-09: `max_concurrent` + 16 ids at most, and the oldest goes.
#[test]
fn the_ids_of_so_many_refused_messages_are_kept_and_no_more() {
    for side in SIDES {
        let mut raw = node(side, streaming().limits(limits(|it| it.max_concurrent = 4)), peer());
        let begin =
            |n| begin_request(peer_id(side, n), Request { method: 99, ..head(Kind::Unary) }, 100, b"x");
        for n in 0..21 {
            raw.feed(&begin(n));
            raw.turn();
        }
        for n in 1..21 {
            raw.feed(&continuation(peer_id(side, n), false, &[7; 99]));
        }
        raw.is_quiet();
        assert_eq!(raw.conn.stats().late_frames, 0, "20 are kept");
        raw.feed(&continuation(peer_id(side, 0), false, &[7; 99]));
        raw.is_quiet();
        assert_eq!(raw.conn.stats().late_frames, 1, "the oldest is not");
    }
}

/// R-ID-09: each for at most 30 s.
#[test]
fn the_id_of_a_refused_message_is_kept_for_30_s() {
    for side in SIDES {
        let mut raw = node(side, streaming(), peer());
        let id = peer_id(side, 0);
        raw.feed(&begin_request(id, Request { method: 99, ..head(Kind::Unary) }, 1 << 20, b"x"));
        raw.turn();
        raw.live(secs(29));
        raw.feed(&continuation(id, true, &[7; 300]));
        raw.turn();
        assert_eq!(raw.conn.stats().late_frames, 0);
        raw.live(ms(1_600));
        raw.feed(&continuation(id, true, &[7; 300]));
        raw.turn();
        assert_eq!(raw.conn.stats().late_frames, 1);
    }
}

/// R-CAL-22, R-ID-09: a RESPONSE of which the caller wants no more counts at its end, and its rest is free.
#[test]
fn a_response_that_is_too_large_fails_at_its_first_frame() {
    for side in SIDES {
        let config = streaming().limits(limits(|it| it.max_message = 10_000));
        let mut raw = node(side, config, CheckIn { max_concurrent: 1, ..peer() });
        let (_, id) = calls(&mut raw, call_head(Kind::Unary), 1);
        raw.call(2);
        raw.feed(&begin_response(id, Status::OK, 10_001, &[7; 300]));
        let outcomes = raw.outcomes();
        let failure = outcomes[0].1.as_ref().unwrap_err();
        assert_eq!((outcomes[0].0, failure.status(), failure.ran()), (1, Status::LOCAL_LIMIT, Ran::Maybe));
        raw.frames();
        for _ in 0..3 {
            raw.feed(&continuation(id, true, &[7; 300]));
        }
        raw.feed(&abandon(id));
        raw.turn();
        assert_eq!(raw.conn.stats().late_frames, 0);
    }
}

/// R-CAN-10: a caller that gave up reads the rest and hears nothing of it; the call counts until its end (R-CAL-09).
#[test]
fn a_call_that_was_given_up_counts_until_the_last_frame_of_its_response() {
    for side in SIDES {
        let mut raw = node(side, streaming(), CheckIn { max_concurrent: 1, ..peer() });
        let (call, id) = calls(&mut raw, call_head(Kind::Unary), 1);
        raw.feed(&begin_response(id, Status::OK, 1_000, &[7; 300]));
        raw.is_quiet();
        raw.conn.cancel(raw.at(), call);
        raw.frames();
        raw.call(2);
        raw.feed(&continuation(id, true, &[7; 300]));
        raw.is_quiet();
        raw.feed(&continuation(id, false, &[7; 400]));
        assert!(raw.events().is_empty());
        assert_eq!(raw.frame().frame_type(), FrameType::REQUEST);
        assert_eq!(raw.conn.stats().late_frames, 0);
    }
}
