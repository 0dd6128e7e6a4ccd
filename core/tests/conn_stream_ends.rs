//! How a stream ends (protocol §10), at either end and on either side: half-close, the RESPONSE, giving up, draining and
//! the end of the connection.
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
    output::{answer, without_heartbeats},
    raw::{SECOND, limits, ms, secs},
    streams::{
        KINDS, SENDS_DOWN, SENDS_UP, SIDES, begin_item, call_head, calls, credit, end, head, item, node,
        open, peer, peer_id, send, serves, serves_down, streaming, take_all,
    },
};
use tieline_core::{
    conn::{Body, Cancel, Event, ItemError, Rejection, Reply, Taken},
    wire::{CheckIn, FrameType, Kind, Request, Status},
};

// ---- ends -----------------------------------------------------------------------------------------------------

/// R-STR-02, R-STR-10: half-close; the callee goes on.
#[test]
fn after_the_callers_end_the_callee_goes_on() {
    for side in SIDES {
        let mut raw = node(side, streaming(), peer());
        let id = peer_id(side, 0);
        let call = serves(&mut raw, id, Kind::Bidi).call;
        raw.feed(&[item(id, b"one"), item(id, b""), end(id)].concat());
        assert!(raw.events().iter().any(|event| matches!(event, Event::Readable(_))));
        assert_eq!(take_all(&mut raw, call), [&b"one"[..], b""]);
        for _ in 0..3 {
            assert_eq!(raw.conn.take_item(raw.at(), call), Some(Taken::End), "as often as it is asked");
        }
        raw.frames();
        send(&mut raw, call, b"mine");
        assert_eq!(outline(&raw.frames()), [(FrameType::STREAM_ITEM, id, Status::OK)]);
        raw.reply(call, b"result");
        assert_eq!(outline(&raw.frames()), [(FrameType::RESPONSE, id, Status::OK)]);
        assert_eq!(raw.conn.open_calls(), (0, 0));
    }
}

/// R-STR-10, R-TYP-05.
#[test]
fn nothing_comes_after_the_callers_end() {
    for side in SIDES {
        for kind in SENDS_UP {
            let id = peer_id(side, 0);
            for more in [item(id, b"x"), begin_item(id, 10, b"x"), end(id)] {
                let mut raw = node(side, streaming(), peer());
                let call = serves(&mut raw, id, kind).call;
                raw.feed(&end(id));
                raw.turn();
                raw.feed(&more);
                raw.closes_with(Status::PROTOCOL_ERROR);
                let told =
                    raw.passed.iter().any(|event| matches!(event, Event::Cancelled(it, _) if *it == call));
                assert!(told, "its handler is told");
            }
        }
    }
}

/// R-STR-02.
#[test]
fn the_end_goes_out_once_and_nothing_behind_it() {
    for side in SIDES {
        let mut raw = node(side, streaming(), peer());
        let (call, id) = calls(&mut raw, call_head(Kind::Bidi), 1);
        send(&mut raw, call, b"x");
        raw.conn.end_items(raw.at(), call).unwrap();
        assert_eq!(raw.conn.send_item(raw.at(), call, Body::Copy(b"y")), Err(ItemError::Over));
        let again = raw.conn.end_items(raw.at(), call);
        assert!(matches!(again, Ok(()) | Err(ItemError::Over)));
        assert_eq!(types(&raw.frames()), [FrameType::STREAM_ITEM, FrameType::STREAM_END]);
        // The callee's items still come, and its RESPONSE ends it.
        raw.feed(&item(id, b"back"));
        raw.events();
        assert_eq!(take_all(&mut raw, call), ["back"]);
        raw.feed(&frames::response(id, Status::OK, b"done"));
        assert_eq!(raw.outcomes(), [(1, Ok("done".into()))]);
        raw.is_quiet();
    }
}

/// R-STR-03.
#[test]
fn a_response_ends_both_directions_whether_or_not_the_caller_has_ended() {
    for side in SIDES {
        // At the caller: what waited is dropped, and no STREAM_END follows.
        let mut raw = node(side, streaming(), CheckIn { stream_window: 1, ..peer() });
        let (call, id) = calls(&mut raw, call_head(Kind::Bidi), 1);
        for _ in 0..3 {
            send(&mut raw, call, b"x");
        }
        raw.frames();
        raw.feed(&frames::response(id, Status::OK, b""));
        assert_eq!(raw.outcomes().len(), 1);
        assert_eq!(raw.conn.send_item(raw.at(), call, Body::Copy(b"y")), Err(ItemError::Over));
        assert_eq!(raw.conn.end_items(raw.at(), call), Err(ItemError::Over));
        assert_eq!(raw.conn.take_item(raw.at(), call), None);
        raw.is_quiet();
        // At the callee.
        let mut raw = node(side, streaming(), peer());
        let id = peer_id(side, 0);
        let call = serves(&mut raw, id, Kind::Bidi).call;
        raw.feed(&item(id, b"x"));
        raw.events();
        raw.reply(call, b"");
        assert_eq!(outline(&raw.frames()), [(FrameType::RESPONSE, id, Status::OK)]);
        assert_eq!(raw.conn.send_item(raw.at(), call, Body::Copy(b"y")), Err(ItemError::Over));
        assert_eq!(raw.conn.take_item(raw.at(), call), None);
        raw.is_quiet();
    }
}

/// R-STR-03, R-FRG-17.
#[test]
fn a_response_never_overtakes_items_that_wait_for_credit() {
    for side in SIDES {
        for status in [Status::OK, Status::ABORTED] {
            let mut raw = node(side, streaming(), peer());
            let (call, id) = serves_down(&mut raw, 0, Kind::Bidi, Some(0));
            for octets in [&b"one"[..], b"two"] {
                send(&mut raw, call, octets);
            }
            let reply =
                if status == Status::OK { Reply::ok(Body::Copy(b"end")) } else { Reply::error(status, "no") };
            raw.conn.reply(raw.at(), call, &reply).unwrap();
            assert!(raw.frames().is_empty(), "nothing before CREDIT");
            raw.feed(&credit(id, 1));
            raw.events();
            assert_eq!(types(&raw.frames()), [FrameType::STREAM_ITEM]);
            raw.feed(&credit(id, 259));
            raw.events();
            let frames = raw.frames();
            assert_eq!(types(&frames), [FrameType::STREAM_ITEM, FrameType::RESPONSE]);
            assert_eq!((frames[0].payload(), frames[1].status()), (&b"two"[..], status));
            assert_eq!(raw.conn.open_calls(), (0, 0));
        }
    }
}

/// R-CAN-02: a RESPONSE that waits behind items is not a reason to hold back the answer to CANCEL.
#[test]
fn an_answer_that_waits_behind_items_gives_way_to_a_cancel() {
    for side in SIDES {
        let mut raw = node(side, streaming(), peer());
        let (call, id) = serves_down(&mut raw, 0, Kind::ServerStream, Some(0));
        send(&mut raw, call, b"one");
        raw.reply(call, b"end");
        raw.is_quiet();
        raw.feed(&cancel(id));
        let frames = raw.turn();
        assert_eq!(types(&frames), [FrameType::RESPONSE], "the items are discarded");
        assert!([Status::CANCELLED_RUNNING, Status::OK].contains(&frames[0].status()));
        assert_eq!(raw.conn.open_calls(), (0, 0));
        raw.is_quiet();
    }
}

/// R-STR-03: items, then the outcome. What was not taken is in the rest, in order.
#[test]
fn items_that_were_not_taken_come_with_the_outcome() {
    for side in SIDES {
        for status in [Status::OK, Status::ABORTED] {
            let mut raw = node(side, streaming(), peer());
            let (call, id) = calls(&mut raw, call_head(Kind::ServerStream), 1);
            raw.feed(&[item(id, b"one"), item(id, b"two"), item(id, b"")].concat());
            raw.events();
            assert_eq!(raw.conn.take_item(raw.at(), call), Some(Taken::Item("one".into())));
            raw.feed(&[item(id, b"four"), frames::response(id, status, b"")].concat());
            let mut done = 0;
            for event in raw.events() {
                if let Event::Done { user, outcome, rest } = event {
                    assert_eq!((user, outcome.is_ok()), (1, status == Status::OK));
                    assert_eq!(rest.collect::<Vec<_>>(), [&b"two"[..], b"", b"four"]);
                    done += 1;
                }
            }
            assert_eq!(done, 1);
            assert_eq!(raw.conn.take_item(raw.at(), call), None);
            raw.is_quiet();
        }
    }
}

// ---- giving up ------------------------------------------------------------------------------------------------

/// R-CAN-07, R-CAN-01.
#[test]
fn after_its_cancel_the_caller_sends_nothing_more_of_the_call() {
    for side in SIDES {
        let mut raw = node(side, streaming(), CheckIn { stream_window: 1, ..peer() });
        let (call, id) = calls(&mut raw, call_head(Kind::Bidi), 1);
        for _ in 0..3 {
            send(&mut raw, call, b"x");
        }
        assert_eq!(types(&raw.frames()), [FrameType::STREAM_ITEM]);
        raw.conn.end_items(raw.at(), call).unwrap();
        assert_eq!(raw.conn.cancel(raw.at(), call), Some(1));
        assert_eq!(raw.conn.send_item(raw.at(), call, Body::Copy(b"y")), Err(ItemError::Over));
        assert_eq!(outline(&raw.frames()), [(FrameType::CANCEL, id, Status::CANCELLED)]);
        raw.feed(&credit(id, 10_000));
        raw.is_quiet();
        raw.feed(&frames::response(id, Status::CANCELLED_RUNNING, b""));
        raw.is_quiet();
        assert_eq!(raw.conn.open_calls(), (0, 0));
    }
}

/// R-STR-15, R-ABU-08.
#[test]
fn items_for_a_call_that_was_given_up_are_dropped_free_within_credit() {
    for side in SIDES {
        for deadline in [false, true] {
            let mut raw = node(side, streaming(), peer());
            let mut head = call_head(Kind::ServerStream);
            head.credit = Some(4_000);
            head.deadline = deadline.then(|| raw.after(ms(100)));
            let (call, id) = calls(&mut raw, head, 1);
            raw.feed(&item(id, &[7; 744]));
            raw.turn();
            if deadline {
                raw.now += SECOND / 5;
                raw.conn.handle_timeout(raw.at());
                assert_eq!(raw.outcomes()[0].1.as_ref().unwrap_err().status(), Status::TIMEOUT);
            } else {
                assert_eq!(raw.conn.cancel(raw.at(), call), Some(1));
            }
            raw.frames();
            for _ in 0..3 {
                raw.feed(&item(id, &[7; 744]));
            }
            raw.is_quiet();
            assert_eq!(raw.conn.take_item(raw.at(), call), None);
            raw.is_quiet();
            assert_eq!(raw.conn.stats().late_frames, 0);
            // Beyond it they are what they were before: a mistake.
            raw.feed(&item(id, b"x"));
            raw.closes_with(Status::PROTOCOL_ERROR);
        }
    }
}

/// R-CAN-02, R-CAN-03, R-CAN-04.
#[test]
fn a_cancelled_stream_is_answered_and_holds_its_slot_until_its_handler_has_stopped() {
    for side in SIDES {
        for (kind, n) in KINDS.into_iter().zip(0..) {
            let bounds = limits(|it| it.max_streams = 1);
            let mut raw = node(side, streaming().limits(bounds), peer());
            let id = peer_id(side, n);
            let call = serves(&mut raw, id, kind).call;
            if SENDS_DOWN.contains(&kind) {
                raw.feed(&frames::heartbeat(1));
            }
            raw.feed(&cancel(id));
            let events = raw.events();
            assert!(
                matches!(events[..], [Event::Cancelled(which, Cancel::ByCaller)] if which == call),
                "{events:?}"
            );
            let frames = raw.frames();
            assert_eq!(answer(&frames, id), Some(Status::CANCELLED_RUNNING));
            assert_eq!(raw.conn.send_item(raw.at(), call, Body::Copy(b"x")), Err(ItemError::Over));
            if kind != Kind::Unary {
                raw.feed(&open(peer_id(side, n + 1), Kind::Bidi));
                assert!(raw.events().is_empty());
                assert_eq!(raw.frame().status(), Status::TOO_MANY_CALLS);
            }
            raw.conn.stopped(raw.at(), call);
            raw.feed(&open(peer_id(side, n + 2), Kind::Bidi));
            raw.incoming();
        }
    }
}

/// R-CAN-03, R-CAN-09.
#[test]
fn an_expired_stream_is_answered_65_and_what_waits_is_discarded() {
    for side in SIDES {
        let mut raw = node(side, streaming(), peer());
        let id = peer_id(side, 0);
        let hasty = Request { timeout_us: Some(500_000), credit: Some(1), ..head(Kind::Bidi) };
        raw.feed(&frames::request(id, hasty, b""));
        let incoming = raw.incoming();
        assert_eq!(incoming.deadline, Some(raw.after(ms(500))));
        for _ in 0..3 {
            send(&mut raw, incoming.call, b"x");
        }
        assert_eq!(types(&raw.frames()), [FrameType::STREAM_ITEM]);
        assert!(without_heartbeats(raw.live(ms(499))).is_empty());
        let frames = raw.live(ms(501));
        assert_eq!(outline(&frames), [(FrameType::RESPONSE, id, Status::EXPIRED_RUNNING)]);
        assert!(matches!(raw.passed[..], [Event::Cancelled(_, Cancel::Expired)]), "{:?}", raw.passed);
        raw.feed(&credit(id, 1_000));
        raw.is_quiet();
    }
}

// ---- drain and close ------------------------------------------------------------------------------------------

/// R-DRN-04, R-DRN-06: what is open goes on, both ways.
#[test]
fn streams_go_on_while_either_side_drains() {
    for side in SIDES {
        for theirs in [false, true] {
            let mut raw = node(side, streaming(), peer());
            let (call, id) = calls(&mut raw, call_head(Kind::Bidi), 1);
            let (served, there) = serves_down(&mut raw, 0, Kind::Bidi, None);
            if theirs {
                raw.feed(&frames::drain(id, 60_000));
                assert!(matches!(raw.events()[..], [Event::Draining { .. }]));
            } else {
                raw.conn.drain(raw.at(), Status::GOING_AWAY, secs(60), "");
                assert_eq!(types(&raw.frames()), [FrameType::DRAIN]);
            }
            send(&mut raw, call, b"up");
            raw.conn.end_items(raw.at(), call).unwrap();
            send(&mut raw, served, b"down");
            let mut seen = types(&raw.frames());
            seen.sort_by_key(|which| which.0);
            assert_eq!(seen, [FrameType::STREAM_ITEM, FrameType::STREAM_ITEM, FrameType::STREAM_END]);
            raw.feed(&[item(id, b"one"), item(there, b"two"), end(there)].concat());
            raw.events();
            assert_eq!(take_all(&mut raw, call), ["one"]);
            assert_eq!(take_all(&mut raw, served), ["two"]);
            let rejected = raw.conn.call(raw.at(), &call_head(Kind::Bidi), Body::Copy(b""), 2).unwrap_err();
            assert_eq!(rejected.reason, Rejection::Draining);
            raw.feed(&frames::response(id, Status::OK, b"done"));
            assert_eq!(raw.outcomes(), [(1, Ok("done".into()))]);
            raw.reply(served, b"");
            let frames = raw.frames();
            assert_eq!(answer(&frames, there), Some(Status::OK));
            let closes = frames.iter().any(|frame| frame.frame_type() == FrameType::CLOSE);
            assert_eq!(closes, !theirs, "the drainer closes when all is done");
        }
    }
}

/// R-DRN-05.
#[test]
fn streams_that_outlast_the_grace_are_interrupted() {
    for side in SIDES {
        let mut raw = node(side, streaming(), peer());
        let (served, id) = serves_down(&mut raw, 0, Kind::Bidi, Some(1));
        for _ in 0..3 {
            send(&mut raw, served, b"x");
        }
        raw.frames();
        raw.conn.drain(raw.at(), Status::GOING_AWAY, secs(2), "");
        raw.frames();
        raw.live(ms(1_980));
        assert!(raw.passed.is_empty());
        let frames = raw.live(ms(500));
        assert_eq!(
            outline(&frames),
            [(FrameType::RESPONSE, id, Status::INTERRUPTED), (FrameType::CLOSE, 0, Status::GOING_AWAY)]
        );
        assert!(matches!(raw.passed[0], Event::Cancelled(which, Cancel::Disconnected) if which == served));
        assert!(matches!(raw.passed.last(), Some(Event::Closed(_))));
    }
}

/// R-CLS-04, R-CLS-07.
#[test]
fn the_end_of_the_connection_ends_every_stream_once() {
    for side in SIDES {
        for ending in 0..3 {
            let mut raw = node(side, streaming(), peer());
            let (ours, id) = calls(&mut raw, call_head(Kind::Bidi), 1);
            let (served, there) = serves_down(&mut raw, 0, Kind::Bidi, None);
            raw.feed(&[item(id, b"one"), item(there, b"two")].concat());
            raw.turn();
            raw.passed.clear();
            match ending {
                0 => raw.eof(),
                1 => raw.feed(&frames::close(Status::GOING_AWAY)),
                _ => raw.feed(&frames::octets(0, 0, 0, 0, b"")),
            }
            let events = raw.events();
            let mut done = 0;
            for event in &events {
                if let Event::Done { user, outcome, rest } = event {
                    assert_eq!((*user, rest.len()), (1, 1), "what came is not lost");
                    assert_eq!(outcome.as_ref().unwrap_err().status(), Status::CONNECTION_LOST);
                    done += 1;
                }
            }
            let told = events.iter().filter(
                |event| matches!(event, Event::Cancelled(which, Cancel::Disconnected) if *which == served),
            );
            assert_eq!((done, told.count()), (1, 1), "{events:?}");
            assert!(matches!(events.last(), Some(Event::Closed(_))));
            assert_eq!(raw.conn.send_item(raw.at(), ours, Body::Copy(b"x")), Err(ItemError::Over));
            assert_eq!(raw.conn.send_item(raw.at(), served, Body::Copy(b"x")), Err(ItemError::Over));
            assert_eq!(raw.conn.end_items(raw.at(), ours), Err(ItemError::Over));
            assert_eq!(raw.conn.take_item(raw.at(), ours), None);
            raw.conn.grant(raw.at(), ours, 5);
            raw.conn.stopped(raw.at(), served);
            raw.frames();
            assert_eq!(raw.conn.open_calls(), (0, 0));
        }
    }
}
