//! The order of output (protocol §11), at either end and on either side: what is abandoned, and what goes before what.
#![allow(clippy::unwrap_used, clippy::panic, clippy::cast_possible_truncation)]

mod support;

use support::{
    frames::{self, Seen, cancel, outline},
    output::{FRAME, Reader, answer, step_one, steps, stepwise},
    raw::{SECOND, limits, ms},
    scene::{Scene, What, all},
    streams::{
        self, SIDES, call_head, calls, credit, head, item, node, pattern, peer, peer_id, serves, streaming,
        wide,
    },
};
use tieline_core::{
    conn::{Body, CallHead, Cancel, Event, Taken},
    wire::{CheckIn, Flags, FrameType, Kind, Ran, Request, Status},
};

// ---- abandoning -----------------------------------------------------------------------------------------------

/// The message is abandoned in `frames`, once, and nothing more of it follows.
fn abandons(frames: &[Seen], id: u64) {
    let of_it: Vec<_> = frames
        .iter()
        .filter(|frame| frame.id() == id && frame.frame_type() == FrameType::CONTINUATION)
        .collect();
    assert_eq!(of_it.len(), 1, "{:?}", outline(frames));
    assert_eq!((of_it[0].header.len, of_it[0].header.flags), (0, Flags::NONE));
}

/// R-CAN-06, R-FRG-06.
#[test]
fn a_cancelled_call_abandons_what_it_has_begun() {
    for side in SIDES {
        for what in [What::Request, What::ItemUp] {
            let mut scene = Scene::leaving(side, what, wide());
            stepwise(&mut scene.raw);
            scene.send(&pattern(250_000));
            let id = step_one(&mut scene.raw).id();
            let call = scene.ours.unwrap();
            assert_eq!(scene.raw.conn.cancel(scene.raw.at(), call), Some(1));
            let frames: Vec<Seen> = steps(&mut scene.raw);
            abandons(&frames, id);
            assert!(
                frames.len() <= 2 && frames.iter().all(|frame| frame.id() == id),
                "{:?}",
                outline(&frames)
            );
            if what == What::ItemUp {
                assert!(
                    frames.iter().any(|frame| frame.frame_type() == FrameType::CANCEL),
                    "the call is running"
                );
            }
            scene.raw.feed(&frames::response(id, Status::CANCELLED_IN_QUEUE, b""));
            scene.raw.is_quiet();
            assert_eq!((scene.raw.conn.open_calls().0, scene.raw.conn.stats().late_frames), (0, 0));
        }
    }
}

/// Annex C.3: a one-way has no answer to wait for, but its line is spared too.
#[test]
fn a_cancelled_one_way_abandons_what_it_has_begun() {
    for side in SIDES {
        let mut scene = Scene::leaving(side, What::OneWay, peer());
        stepwise(&mut scene.raw);
        scene.send(&pattern(250_000));
        let id = step_one(&mut scene.raw).id();
        let call = scene.ours.unwrap();
        if scene.raw.conn.cancel(scene.raw.at(), call).is_some() {
            let frames: Vec<Seen> = steps(&mut scene.raw);
            abandons(&frames, id);
            assert_eq!(frames.len(), 1, "R-ID-10: CANCEL would be late");
            scene.raw.is_quiet();
        }
    }
}

/// R-CAN-10, annex C.3.
#[test]
fn a_deadline_abandons_the_request_that_is_being_sent() {
    for side in SIDES {
        let mut raw = node(side, streaming(), peer());
        stepwise(&mut raw);
        let head = CallHead::new("t.S/Echo").deadline(Some(raw.after(ms(100))));
        raw.conn.call(raw.at(), &head, Body::Copy(&pattern(250_000)), 1).unwrap();
        let id = step_one(&mut raw).id();
        raw.now += SECOND / 5;
        raw.conn.handle_timeout(raw.at());
        let outcomes = raw.outcomes();
        let failure = outcomes[0].1.as_ref().unwrap_err();
        assert_eq!((failure.status(), failure.ran()), (Status::TIMEOUT, Ran::Maybe));
        let frames: Vec<Seen> = steps(&mut raw);
        abandons(&frames, id);
        assert_eq!(raw.conn.stats().late_frames, 0);
    }
}

/// R-CAN-06.
#[test]
fn a_response_abandons_what_is_still_being_sent() {
    for side in SIDES {
        for what in [What::Request, What::ItemUp] {
            for status in [Status::OVERLOADED, Status::NO_SUCH_METHOD, Status::OK] {
                let mut scene = Scene::leaving(side, what, wide());
                stepwise(&mut scene.raw);
                scene.send(&pattern(250_000));
                let id = step_one(&mut scene.raw).id();
                scene.raw.feed(&frames::response(id, status, b"done"));
                let outcomes = scene.raw.outcomes();
                assert_eq!(outcomes.len(), 1);
                match &outcomes[0].1 {
                    Ok(payload) => assert_eq!((status, &payload[..]), (Status::OK, &b"done"[..])),
                    Err(failure) => assert_eq!(failure.status(), status),
                }
                let frames: Vec<Seen> = steps(&mut scene.raw);
                abandons(&frames, id);
                assert_eq!(frames.len(), 1, "{:?}", outline(&frames));
                scene.raw.is_quiet();
            }
        }
    }
}

/// R-CAN-06, R-CAN-02, R-FRG-07.
#[test]
fn a_cancel_abandons_the_response_that_is_being_sent_and_that_is_the_answer() {
    for side in SIDES {
        let mut scene = Scene::leaving(side, What::Response, peer());
        stepwise(&mut scene.raw);
        scene.send(&pattern(250_000));
        let first = step_one(&mut scene.raw);
        assert_eq!(first.frame_type(), FrameType::RESPONSE);
        scene.raw.feed(&cancel(scene.id));
        assert!(scene.raw.events().is_empty(), "the handler has stopped");
        let frames: Vec<Seen> = steps(&mut scene.raw);
        abandons(&frames, scene.id);
        assert_eq!(frames.len(), 1);
        assert_eq!(scene.raw.conn.open_calls(), (0, 0));
        scene.raw.is_quiet();
    }
}

/// R-CAN-06, R-CAN-02: a half-sent item is abandoned and what waits is discarded, before the RESPONSE.
#[test]
fn a_cancelled_stream_abandons_its_item_and_discards_those_that_wait_before_it_answers() {
    for side in SIDES {
        let mut scene = Scene::leaving(side, What::ItemDown, wide());
        stepwise(&mut scene.raw);
        scene.send(&pattern(250_000));
        step_one(&mut scene.raw);
        scene.raw.feed(&cancel(scene.id));
        let told = scene.raw.events();
        assert!(matches!(told[..], [Event::Cancelled(_, Cancel::ByCaller)]), "{told:?}");
        let frames: Vec<Seen> = steps(&mut scene.raw);
        abandons(&frames, scene.id);
        assert_eq!(frames.len(), 2, "{:?}", outline(&frames));
        assert_eq!(
            (frames[1].frame_type(), frames[1].status()),
            (FrameType::RESPONSE, Status::CANCELLED_RUNNING)
        );
        // A deadline does the same.
        let mut raw = node(side, streaming(), wide());
        stepwise(&mut raw);
        let id = peer_id(side, 0);
        raw.feed(&frames::request(id, Request { timeout_us: Some(50_000), ..head(Kind::ServerStream) }, b""));
        let call = raw.incoming().call;
        raw.conn.send_item(raw.at(), call, Body::Copy(&pattern(250_000))).unwrap();
        step_one(&mut raw);
        raw.now += SECOND / 10;
        raw.conn.handle_timeout(raw.at());
        let told = raw.events();
        assert!(matches!(told[..], [Event::Cancelled(_, Cancel::Expired)]), "{told:?}");
        let frames: Vec<Seen> = steps(&mut raw);
        abandons(&frames, id);
        assert_eq!(answer(&frames, id), Some(Status::EXPIRED_RUNNING));
        assert_eq!(frames.last().unwrap().frame_type(), FrameType::RESPONSE);
    }
}

/// R-CAN-05, R-FRG-15: nothing of it has left, and nothing leaves.
#[test]
fn a_call_that_is_not_committed_is_withdrawn_whole() {
    for side in SIDES {
        let mut raw = node(side, streaming(), peer());
        let call = raw.conn.call(raw.at(), &call_head(Kind::Bidi), Body::Copy(&pattern(100_000)), 1).unwrap();
        raw.conn.send_item(raw.at(), call, Body::Copy(b"item")).unwrap();
        raw.conn.grant(raw.at(), call, 5_000);
        raw.conn.end_items(raw.at(), call).unwrap();
        assert_eq!(raw.conn.cancel(raw.at(), call), Some(1));
        raw.is_quiet();
    }
}

// ---- order ----------------------------------------------------------------------------------------------------

/// R-FRG-15, R-FRG-14.
#[test]
fn no_frame_of_a_call_goes_before_its_request() {
    for side in SIDES {
        let mut raw = node(side, streaming(), peer());
        let call = raw.conn.call(raw.at(), &call_head(Kind::Bidi), Body::Copy(&pattern(100_000)), 1).unwrap();
        raw.conn.grant(raw.at(), call, 5_000);
        raw.conn.send_item(raw.at(), call, Body::Copy(b"one")).unwrap();
        raw.conn.send_item(raw.at(), call, Body::Copy(b"two")).unwrap();
        raw.conn.end_items(raw.at(), call).unwrap();
        let frames = raw.frames();
        assert_eq!(frames[0].frame_type(), FrameType::REQUEST);
        let of_type = |which| frames.iter().filter(move |frame| frame.frame_type() == which);
        // What is granted before may be part of the initial credit, too.
        let credit = frames[0].request().credit.unwrap_or(64 << 10) - (64 << 10);
        assert_eq!(credit + of_type(FrameType::CREDIT).map(streams::granted).sum::<u32>(), 5_000);
        let place = |which| frames.iter().rposition(|frame| frame.frame_type() == which);
        assert!(place(FrameType::STREAM_END) > place(FrameType::STREAM_ITEM));
        let whole = Reader::new(FRAME).read(&frames);
        let payloads: Vec<_> = whole.iter().map(|message| message.payload.len()).collect();
        assert_eq!(payloads, [100_000, 3, 3]);
    }
}

/// R-FRG-14: behind every item, those that wait for credit too.
#[test]
fn the_end_of_the_items_stays_behind_those_that_wait_for_credit() {
    for side in SIDES {
        let mut raw = node(side, streaming(), CheckIn { stream_window: 1, ..peer() });
        let (call, id) = calls(&mut raw, call_head(Kind::ClientStream), 1);
        for n in 0..3u8 {
            raw.conn.send_item(raw.at(), call, Body::Copy(&[n])).unwrap();
        }
        raw.conn.end_items(raw.at(), call).unwrap();
        assert_eq!(outline(&raw.frames()), [(FrameType::STREAM_ITEM, id, Status::OK)]);
        raw.feed(&credit(id, 257));
        raw.events();
        assert_eq!(outline(&raw.frames()), [(FrameType::STREAM_ITEM, id, Status::OK)]);
        raw.feed(&credit(id, 257));
        raw.events();
        let expected = [FrameType::STREAM_ITEM, FrameType::STREAM_END].map(|which| (which, id, Status::OK));
        assert_eq!(outline(&raw.frames()), expected);
        raw.is_quiet();
    }
}

/// R-FRG-14: or two sides would wait for ever.
#[test]
fn credit_is_not_held_up_by_items_that_wait_for_credit() {
    for side in SIDES {
        let config = streaming().limits(limits(|it| it.stream_window = 300));
        let mut raw = node(side, config, CheckIn { stream_window: 1, ..peer() });
        let id = peer_id(side, 0);
        let call = serves(&mut raw, id, Kind::Bidi).call;
        for _ in 0..2 {
            raw.conn.send_item(raw.at(), call, Body::Copy(b"mine")).unwrap();
        }
        assert_eq!(raw.frame().frame_type(), FrameType::STREAM_ITEM);
        raw.feed(&item(id, &[7; 44]));
        raw.events();
        assert!(matches!(raw.conn.take_item(raw.at(), call), Some(Taken::Item(_))));
        let frame = raw.frame();
        assert_eq!((frame.frame_type(), streams::granted(&frame)), (FrameType::CREDIT, 300));
    }
}

/// R-FRG-16, R-CLS-01.
#[test]
fn a_close_in_peace_goes_behind_everything() {
    for (side, what) in all() {
        for status in [Status::NORMAL, Status::GOING_AWAY] {
            let mut scene = Scene::leaving(side, what, wide());
            stepwise(&mut scene.raw);
            scene.send(&pattern(250_000));
            let first = step_one(&mut scene.raw);
            scene.raw.conn.close(scene.raw.at(), status, "leaving");
            let mut frames = vec![first];
            frames.extend(steps(&mut scene.raw));
            let close = frames.pop().unwrap();
            assert_eq!((close.frame_type(), close.status()), (FrameType::CLOSE, status), "{side:?} {what:?}");
            let mut reader = Reader::new(FRAME);
            let whole = reader.read(&frames);
            assert!(reader.is_idle(), "{side:?} {what:?}: a message is left unfinished");
            assert!(!whole.is_empty());
        }
    }
}

/// R-FRG-16, R-CLS-02.
#[test]
fn a_close_for_a_mistake_goes_before_what_waits() {
    for (side, what) in all() {
        let mut scene = Scene::leaving(side, what, wide());
        stepwise(&mut scene.raw);
        scene.send(&pattern(250_000));
        step_one(&mut scene.raw);
        scene.raw.feed(&frames::octets(0, 0, 0, 0, b""));
        scene.raw.events();
        let frames: Vec<Seen> = steps(&mut scene.raw);
        assert_eq!(outline(&frames), [(FrameType::CLOSE, 0, Status::PROTOCOL_ERROR)], "{side:?} {what:?}");
    }
}

/// R-FRG-17.
#[test]
fn the_messages_of_one_id_keep_their_order() {
    for (side, what) in all().filter(|(_, what)| matches!(what, What::ItemUp | What::ItemDown)) {
        let mut scene = Scene::leaving(side, what, wide());
        let lens = [20_000, 1, 17_000, 0, 5];
        for len in lens {
            scene.send(&pattern(len));
        }
        scene.raw.call(9);
        let mut reader = Reader::new(FRAME);
        let whole = reader.read(&scene.raw.frames());
        let items: Vec<_> = whole
            .iter()
            .filter(|message| message.frame_type == FrameType::STREAM_ITEM)
            .map(|message| message.payload.len())
            .collect();
        assert_eq!(items, lens, "{side:?} {what:?}");
        assert!(reader.is_idle());
    }
}

/// R-STR-07, R-FRG-15: what was granted before the REQUEST left holds, and so does what is granted after it.
#[test]
fn what_is_granted_before_the_request_has_left_is_not_lost() {
    for side in SIDES {
        let mut raw = node(side, streaming(), peer());
        let mut head = call_head(Kind::ServerStream);
        head.credit = Some(0);
        let call = raw.conn.call(raw.at(), &head, Body::Copy(b""), 1).unwrap();
        raw.conn.grant(raw.at(), call, 5_000);
        let mut frames = raw.frames();
        let initial = frames[0].request().credit.expect("is said");
        raw.conn.grant(raw.at(), call, 700);
        frames.extend(raw.frames());
        let later =
            frames.iter().filter(|frame| frame.frame_type() == FrameType::CREDIT).map(streams::granted);
        assert_eq!(initial + later.sum::<u32>(), 5_700);
    }
}
