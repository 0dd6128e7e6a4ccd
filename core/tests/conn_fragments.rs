//! Fragments and the order of output (protocol §11), at either end and on either side, judged from outside.
#![allow(clippy::unwrap_used, clippy::panic, clippy::cast_possible_truncation)]

mod support;

use support::{
    frames::{self, Seen, cancel, continuation, outline},
    raw::{Raw, SECOND, ms, secs},
    streams::{
        self, Message, Reader, SIDES, Scene, What, abandon, answer, at_limit, begin_item, begin_one_way,
        begin_request, begin_response, call_head, calls, credit, head, item, node, open, pattern, peer,
        peer_id, points, rest, serves, sharing, step, step_one, steps, stepwise, streaming,
    },
};
use tieline_core::{
    conn::{Body, CallHead, Cancel, Event, Limits, Reply, Side, Taken},
    wire::{CheckIn, Flags, FrameType, Header, Kind, Metadata, Ran, Request, Status},
};

const KIB: usize = 1024;
/// Where senders cut while something else waits (R-FRG-11).
const CUT: usize = 16 * KIB;
/// What the peer reads if it does not say.
const FRAME: usize = 64 * KIB;

fn limits(change: impl FnOnce(&mut Limits)) -> Limits {
    let mut limits = Limits::default();
    change(&mut limits);
    limits
}

fn all() -> impl Iterator<Item = (Side, What)> {
    SIDES.into_iter().flat_map(|side| What::ALL.map(|what| (side, what)))
}

/// A peer that takes a stream of any length.
fn wide() -> CheckIn<'static> {
    CheckIn { stream_window: 1 << 30, ..peer() }
}

// ---- arriving: putting together -------------------------------------------------------------------------------

/// R-FRG-01, R-FRG-02: also one that would fit a frame, and one whose first frame has nothing of it.
#[test]
fn a_payload_arrives_whole_however_it_was_cut() {
    for (side, what) in all() {
        for (len, first, piece) in [
            (1, 0, 1),
            (300, 0, 300),
            (300, 299, 1),
            (700, 256, 256),
            (200_000, 16_000, 16_384),
            (60_000, 0, 1_000),
        ] {
            let mut scene = Scene::arriving(side, what);
            let payload = pattern(len);
            for (at, frame) in what.cut(scene.id, &payload, first, piece).iter().enumerate() {
                if at > 0 {
                    assert_eq!(scene.received(), None, "{side:?} {what:?}: a part is given away");
                }
                scene.raw.feed(frame);
            }
            assert_eq!(
                scene.received().as_deref(),
                Some(&payload[..]),
                "{side:?} {what:?} {len} {first} {piece}"
            );
        }
    }
}

/// R-FRG-01, L6.
#[test]
fn how_the_input_is_cut_is_invisible() {
    for (side, what) in all() {
        let payload = pattern(600);
        let id = Scene::arriving(side, what).id;
        let octets = what.cut(id, &payload, 88, 256).concat();
        for cut in 1..octets.len() {
            let mut scene = Scene::arriving(side, what);
            scene.raw.feed(&octets[..cut]);
            assert_eq!(scene.received(), None);
            scene.raw.feed(&octets[cut..]);
            assert_eq!(scene.received().as_deref(), Some(&payload[..]), "{side:?} {what:?} cut at {cut}");
        }
        let mut scene = Scene::arriving(side, what);
        for octet in &octets[..octets.len() - 1] {
            scene.raw.feed(&[*octet]);
            assert_eq!(scene.received(), None);
        }
        scene.raw.feed(&octets[octets.len() - 1..]);
        assert_eq!(scene.received().as_deref(), Some(&payload[..]), "{side:?} {what:?} by the octet");
    }
}

/// R-FRG-13: control frames, and messages of other ids, stand between any two frames of a message.
#[test]
fn other_frames_stand_between_those_of_a_message() {
    for (side, what) in all() {
        let mut scene = Scene::arriving(side, what);
        let payload = pattern(1_200);
        for (n, frame) in (1..).zip(what.cut(scene.id, &payload, 0, 300)) {
            scene.raw.feed(&frame);
            scene.raw.feed(&frames::heartbeat(n));
            scene.raw.feed(&open(peer_id(side, n), Kind::Unary));
            if n <= 4 {
                assert!(matches!(scene.raw.events()[..], [Event::Request(_)]), "{side:?} {what:?}");
                assert_eq!(scene.raw.frame().frame_type(), FrameType::HEARTBEAT_ACK);
            }
        }
        assert_eq!(scene.received().as_deref(), Some(&payload[..]), "{side:?} {what:?}");
        assert_eq!(scene.raw.frame().frame_type(), FrameType::HEARTBEAT_ACK);
    }
}

/// R-FRG-09 is "for each sender by itself": both directions of a call may have an unfinished message at once.
#[test]
fn the_two_directions_of_a_call_are_cut_independently() {
    for side in SIDES {
        let mut raw = node(side, streaming(), wide());
        stepwise(&mut raw);
        let id = peer_id(side, 0);
        raw.feed(&open(id, Kind::Bidi));
        let Some(Event::Request(incoming)) = raw.events().pop() else { panic!("no request") };
        let call = incoming.call;
        let there = pattern(150_000);
        raw.conn.send_item(raw.at(), call, Body::Copy(&there)).unwrap();
        let here = pattern(900);
        let mut reader = Reader::new(FRAME);
        for frame in What::ItemUp.cut(id, &here, 300, 300) {
            raw.feed(&frame);
            assert!(
                !raw.events().iter().any(|event| matches!(event, Event::Closed(_) | Event::Cancelled(..)))
            );
            let frame = step_one(&mut raw);
            assert!(reader.read(&[frame]).iter().all(|message| message.payload == there));
        }
        assert_eq!(raw.conn.take_item(raw.at(), call), Some(Taken::Item(here.into())));
    }
}

// ---- arriving: mistakes ---------------------------------------------------------------------------------------

/// R-FRG-02.
#[test]
fn an_empty_continuation_with_more_is_a_mistake() {
    for (side, what) in all() {
        let mut scene = Scene::arriving(side, what);
        scene.raw.feed(&what.begin(scene.id, 100, b"part"));
        scene.raw.feed(&continuation(scene.id, true, b""));
        scene.raw.closes_with(Status::PROTOCOL_ERROR);
    }
}

/// R-FRG-04.
#[test]
fn more_needs_a_total_above_the_part_that_is_there() {
    for (side, what) in all() {
        for (total, part) in [(0, &b""[..]), (0, b"part"), (3, b"part"), (4, b"part")] {
            let mut scene = Scene::arriving(side, what);
            scene.raw.feed(&what.begin(scene.id, total, part));
            scene.raw.closes_with(Status::PROTOCOL_ERROR);
        }
    }
}

/// R-FRG-04: one octet too many is judged at the header, R-FRM-07.
#[test]
fn one_octet_more_than_the_total_is_a_mistake_at_its_header() {
    for (side, what) in all() {
        for more in [Flags::MORE, Flags::NONE] {
            let mut scene = Scene::arriving(side, what);
            scene.raw.feed(&what.begin(scene.id, 10, b"part"));
            let header = Header {
                frame_type: FrameType::CONTINUATION,
                flags: more,
                status: Status::OK,
                id: scene.id,
                len: 7,
            };
            scene.raw.feed(&header.emit());
            scene.raw.closes_with(Status::PROTOCOL_ERROR);
        }
        // The same if the total is reached with MORE, and then an octet comes.
        let mut scene = Scene::arriving(side, what);
        scene.raw.feed(&what.begin(scene.id, 10, b"part"));
        scene.raw.feed(&continuation(scene.id, true, b"all of"));
        scene.raw.feed(&continuation(scene.id, false, b"!"));
        scene.raw.closes_with(Status::PROTOCOL_ERROR);
    }
}

/// R-FRG-04.
#[test]
fn an_end_before_the_total_is_a_mistake() {
    for (side, what) in all() {
        let mut scene = Scene::arriving(side, what);
        scene.raw.feed(&what.begin(scene.id, 10, b"part"));
        scene.raw.feed(&continuation(scene.id, false, b"short"));
        scene.raw.closes_with(Status::PROTOCOL_ERROR);
        assert!(
            !scene.raw.passed.iter().any(|event| matches!(event, Event::Request(_))),
            "nothing of it is acted on"
        );
    }
}

/// R-FRG-09, R-TYP-05.
#[test]
fn a_message_inside_a_message_of_the_same_id_is_a_mistake() {
    for side in SIDES {
        let id = peer_id(side, 0);
        // The argument is not whole.
        for inner in [item(id, b"x"), begin_item(id, 9, b"x"), streams::end(id)] {
            let mut raw = node(side, streaming(), peer());
            raw.feed(&begin_request(id, head(Kind::Bidi), 9, b"x"));
            assert!(raw.events().is_empty());
            raw.feed(&inner);
            raw.closes_with(Status::PROTOCOL_ERROR);
        }
        // An item is not whole.
        for inner in [item(id, b"x"), begin_item(id, 9, b"x"), streams::end(id)] {
            let mut raw = node(side, streaming(), peer());
            serves(&mut raw, id, Kind::Bidi);
            raw.feed(&begin_item(id, 9, b"x"));
            raw.feed(&inner);
            raw.closes_with(Status::PROTOCOL_ERROR);
        }
        // The callee's item, or its RESPONSE, is not whole.
        for response in [false, true] {
            for inner in 0..4 {
                let mut raw = node(side, streaming(), peer());
                let (_, id) = calls(&mut raw, call_head(Kind::Bidi), 1);
                raw.feed(&if response {
                    begin_response(id, Status::OK, 9, b"x")
                } else {
                    begin_item(id, 9, b"x")
                });
                raw.feed(&match inner {
                    0 => item(id, b"x"),
                    1 => begin_item(id, 9, b"x"),
                    2 => frames::response(id, Status::OK, b""),
                    _ => begin_response(id, Status::OK, 9, b"x"),
                });
                raw.closes_with(Status::PROTOCOL_ERROR);
            }
        }
    }
}

/// R-TYP-05: CONTINUATION without an unfinished message of this sender; R-ID-06 and R-ID-08 for ids that are not open.
#[test]
fn a_continuation_belongs_to_a_message() {
    for side in SIDES {
        for last in [b"x", &b""[..]] {
            // Open, and whole.
            let mut raw = node(side, streaming(), peer());
            serves(&mut raw, peer_id(side, 0), Kind::Bidi);
            raw.feed(&continuation(peer_id(side, 0), false, last));
            raw.closes_with(Status::PROTOCOL_ERROR);
            // This side's call, on which the peer has begun nothing.
            let mut raw = node(side, streaming(), peer());
            let (_, id) = calls(&mut raw, call_head(Kind::Bidi), 1);
            raw.feed(&continuation(id, false, last));
            raw.closes_with(Status::PROTOCOL_ERROR);
            // Above the highest, and 0.
            for id in [peer_id(side, 5), 0] {
                let mut raw = node(side, streaming(), peer());
                raw.feed(&frames::octets(0x0c, 0, 0, id, last));
                raw.closes_with(Status::PROTOCOL_ERROR);
            }
            // Late.
            let mut raw = node(side, streaming(), peer());
            let call = serves(&mut raw, peer_id(side, 0), Kind::Unary).call;
            raw.reply(call, b"");
            raw.frames();
            raw.feed(&continuation(peer_id(side, 0), false, last));
            raw.is_quiet();
            assert_eq!(raw.conn.stats().late_frames, 1);
        }
    }
}

/// R-FRM-04: only 05, 06, 07, 09 and 0C have MORE; R-FRM-05: a CONTINUATION has no status.
#[test]
fn flags_and_status_that_fragments_do_not_have_are_mistakes() {
    for (side, what) in all() {
        for (flags, status) in [(0x81, 0), (0x03, 0), (0x01, 1)] {
            let mut scene = Scene::arriving(side, what);
            scene.raw.feed(&what.begin(scene.id, 100, b"part"));
            scene.raw.feed(&frames::octets(0x0c, flags, status, scene.id, b"more"));
            scene.raw.closes_with(Status::PROTOCOL_ERROR);
        }
    }
}

// ---- arriving: abandoned --------------------------------------------------------------------------------------

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

// ---- arriving: refused while it is being sent -----------------------------------------------------------------

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
            assert_eq!(points(&mut raw), streams::FULL - class_two - first - small - 1);
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

// ---- arriving: time -------------------------------------------------------------------------------------------

/// R-FRG-18: 30 s from the first frame's header; what comes in between does not extend them.
#[test]
fn a_request_that_does_not_come_whole_in_30_s_is_answered_26() {
    for side in SIDES {
        for dribbles in [false, true] {
            let mut raw = node(side, streaming(), peer());
            let id = peer_id(side, 0);
            raw.feed(&begin_request(id, head(Kind::Unary), 100_000, &[7; 300]));
            let mut gone = 0;
            if dribbles {
                for _ in 0..29 {
                    assert!(raw.live(secs(1)).is_empty());
                    raw.feed(&continuation(id, true, &[7; 300]));
                    gone += 1;
                }
            }
            let frames = at_limit(&mut raw, secs(30 - gone));
            assert_eq!(outline(&frames), [(FrameType::RESPONSE, id, Status::NOT_COMPLETED)]);
            assert!(raw.passed.is_empty());
            raw.feed(&continuation(id, true, &[7; 300]));
            raw.feed(&abandon(id));
            raw.is_quiet();
            assert_eq!(raw.conn.stats().late_frames, 0, "what is under way is free");
        }
    }
}

/// R-FRG-18: or `total` at 64 KiB/s, if that is longer.
#[test]
fn a_large_request_has_the_time_that_it_takes_at_64_kib_a_second() {
    for side in SIDES {
        let mut raw = node(side, streaming(), peer());
        let id = peer_id(side, 0);
        raw.feed(&begin_request(id, head(Kind::Unary), 40 * 64 * 1024, &[7; 300]));
        let frames = at_limit(&mut raw, secs(40));
        assert_eq!(outline(&frames), [(FrameType::RESPONSE, id, Status::NOT_COMPLETED)]);
    }
}

/// R-FRG-18, R-CAN-09.
#[test]
fn a_deadline_that_comes_first_answers_an_unfinished_request_46() {
    for side in SIDES {
        let mut raw = node(side, streaming(), peer());
        let id = peer_id(side, 0);
        let hasty = Request { timeout_us: Some(5_000_000), ..head(Kind::Unary) };
        raw.feed(&begin_request(id, hasty, 100_000, &[7; 300]));
        let frames = at_limit(&mut raw, secs(5));
        assert_eq!(outline(&frames), [(FrameType::RESPONSE, id, Status::EXPIRED_IN_QUEUE)]);
        // A later one does not give more time.
        let id = peer_id(side, 1);
        let patient = Request { timeout_us: Some(90_000_000), ..head(Kind::Unary) };
        raw.feed(&begin_request(id, patient, 100_000, &[7; 300]));
        let frames = at_limit(&mut raw, secs(30));
        assert_eq!(outline(&frames), [(FrameType::RESPONSE, id, Status::NOT_COMPLETED)]);
        // 0 is expired when it comes.
        let id = peer_id(side, 2);
        let late = Request { timeout_us: Some(0), ..head(Kind::Unary) };
        raw.feed(&begin_request(id, late, 100_000, &[7; 300]));
        assert!(raw.events().is_empty());
        assert_eq!(raw.frame().status(), Status::EXPIRED_IN_QUEUE);
    }
}

/// R-FRG-18.
#[test]
fn a_one_way_that_does_not_come_whole_in_its_time_is_dropped_and_counted() {
    for side in SIDES {
        let mut raw = node(side, streaming(), peer());
        raw.feed(&begin_one_way(peer_id(side, 0), head(Kind::Unary), 100_000, &[7; 300]));
        assert_eq!(raw.live(ms(29_900)), []);
        assert_eq!(raw.conn.stats().dropped_one_ways, 0);
        assert_eq!(raw.live(ms(600)), []);
        assert_eq!(raw.conn.stats().dropped_one_ways, 1);
        let hasty = Request { timeout_us: Some(2_000_000), ..head(Kind::Unary) };
        raw.feed(&begin_one_way(peer_id(side, 1), hasty, 100_000, &[7; 300]));
        assert_eq!(raw.live(ms(2_500)), []);
        assert_eq!(raw.conn.stats().dropped_one_ways, 2);
        assert!(raw.passed.is_empty());
    }
}

/// R-FRG-18.
#[test]
fn an_item_that_does_not_come_whole_in_its_time_interrupts_the_call_at_its_callee() {
    for side in SIDES {
        let mut raw = node(side, streaming(), peer());
        let id = peer_id(side, 0);
        let call = serves(&mut raw, id, Kind::ClientStream).call;
        raw.feed(&begin_item(id, 10_000, &[7; 300]));
        let frames = at_limit(&mut raw, secs(30));
        assert_eq!(outline(&frames), [(FrameType::RESPONSE, id, Status::INTERRUPTED)]);
        let told = |event: &Event<u32>| matches!(event, Event::Cancelled(which, Cancel::BrokenItem) if *which == call);
        assert!(raw.passed.iter().any(told), "{:?}", raw.passed);
    }
}

/// R-FRG-18, R-FRG-08.
#[test]
fn an_item_that_does_not_come_whole_in_its_time_is_as_an_abandoned_one_at_its_caller() {
    for side in SIDES {
        let mut raw = node(side, streaming(), peer());
        let (_, id) = calls(&mut raw, call_head(Kind::ServerStream), 1);
        raw.feed(&begin_item(id, 10_000, &[7; 300]));
        let frames = at_limit(&mut raw, secs(30));
        assert_eq!(outline(&frames), [(FrameType::CANCEL, id, Status::CANCELLED)]);
        raw.feed(&abandon(id));
        raw.feed(&frames::response(id, Status::OK, b""));
        let outcomes = raw.outcomes();
        assert_eq!(outcomes[0].1.as_ref().unwrap_err().status(), Status::LOST_REPLY);
        raw.is_quiet();
        assert_eq!(raw.conn.stats().late_frames, 0);
    }
}

/// R-FRG-18, R-CAN-10.
#[test]
fn a_response_that_does_not_come_whole_in_its_time_is_lost() {
    for side in SIDES {
        let mut raw = node(side, streaming(), peer());
        let (_, id) = calls(&mut raw, call_head(Kind::Unary), 1);
        raw.feed(&begin_response(id, Status::OK, 50 * 64 * 1024, &[7; 300]));
        at_limit(&mut raw, secs(50));
        let failure = raw.passed.iter().find_map(|event| match event {
            Event::Done { outcome, .. } => outcome.as_ref().err(),
            _ => None,
        });
        assert_eq!(
            failure.map(|failure| (failure.status(), failure.ran())),
            Some((Status::LOST_REPLY, Ran::Maybe))
        );
        raw.passed.clear();
        // At the caller's own deadline it is a TIMEOUT.
        let head = CallHead::new("t.S/Echo").deadline(Some(raw.after(secs(3))));
        let (_, id) = calls(&mut raw, head, 2);
        raw.feed(&begin_response(id, Status::OK, 1_000, &[7; 300]));
        raw.live(ms(3_500));
        let failure = raw.passed.iter().find_map(|event| match event {
            Event::Done { outcome, .. } => outcome.as_ref().err(),
            _ => None,
        });
        assert_eq!(failure.map(tieline_core::conn::Failure::status), Some(Status::TIMEOUT));
    }
}

// ---- arriving: memory -----------------------------------------------------------------------------------------

/// R-CAL-13, R-CAL-20: judged at the first frame, from `total`.
#[test]
fn a_begun_request_reserves_its_total_in_the_budget_of_the_connection() {
    let bounds = limits(|it| (it.max_message, it.memory) = (600 << 10, 1 << 20));
    for side in SIDES {
        let mut raw = node(side, streaming().limits(bounds.clone()), peer());
        let begin = |n, total| begin_request(peer_id(side, n), head(Kind::Unary), total, b"x");
        raw.feed(&begin(0, 600 << 10));
        raw.is_quiet();
        raw.feed(&begin(1, 500 << 10));
        assert!(raw.events().is_empty());
        assert_eq!(raw.frame().status(), Status::OVERLOADED);
        raw.feed(&begin(2, 300 << 10));
        raw.is_quiet();
        raw.feed(&begin(3, (600 << 10) + 1));
        assert!(raw.events().is_empty());
        assert_eq!(raw.frame().status(), Status::TOO_LARGE);
        // What is abandoned gives its place back.
        raw.feed(&abandon(peer_id(side, 0)));
        assert!(raw.events().is_empty());
        assert_eq!(raw.frame().status(), Status::CANCELLED_IN_QUEUE);
        raw.feed(&begin(4, 600 << 10));
        raw.is_quiet();
        // So does what is cancelled, and what is answered.
        raw.feed(&cancel(peer_id(side, 4)));
        raw.turn();
        raw.feed(&begin(5, 500 << 10));
        raw.is_quiet();
        rest(peer_id(side, 5), &pattern((500 << 10) - 1), 60_000).iter().for_each(|frame| raw.feed(frame));
        let call = raw.incoming().call;
        raw.reply(call, b"");
        raw.frames();
        raw.feed(&begin(6, 600 << 10));
        raw.is_quiet();
    }
}

/// R-CAL-14: counted in octets that have arrived, over all connections of the server.
#[test]
fn claims_do_not_take_the_memory_of_the_server_and_octets_do() {
    let bounds = limits(|it| {
        (it.max_message, it.memory, it.server_memory) = (1 << 20, 2 << 20, (1 << 20) + (256 << 10));
    });
    let config = streaming().limits(bounds).build().unwrap();
    let (mut one, mut two) = (sharing(&config, peer()), sharing(&config, peer()));
    let claim = begin_request(1, head(Kind::Unary), 1 << 20, b"x");
    one.feed(&claim);
    two.feed(&claim);
    one.is_quiet();
    two.is_quiet();
    // 14 × 60 000 octets fit, and then another 14 do not.
    for _ in 0..14 {
        one.feed(&continuation(1, true, &[7; 60_000]));
    }
    one.is_quiet();
    let refused = (0..14).find_map(|_| {
        two.feed(&continuation(1, true, &[7; 60_000]));
        assert!(two.events().is_empty());
        two.frames().pop()
    });
    let refused = refused.expect("over the memory of the server");
    assert_eq!((refused.id(), refused.status()), (1, Status::OVERLOADED));
    // The rest of it is free, and the neighbour goes on with what it has.
    two.feed(&continuation(1, true, &[7; 60_000]));
    two.is_quiet();
    assert_eq!(two.conn.stats().late_frames, 0);
    let left = (1 << 20) - 1 - 14 * 60_000;
    rest(1, &pattern(left), 60_000).iter().for_each(|frame| one.feed(frame));
    let incoming = one.incoming();
    assert_eq!(incoming.payload.len(), 1 << 20);
    // As long as it is held not much else is taken; afterwards it is.
    let fill = |raw: &mut Raw, from: u64| {
        for n in from..from + 5 {
            raw.feed(&frames::call(2 * n + 1, &[7; 65_000]));
        }
        let started = raw.events().len();
        let refused = raw.frames();
        assert!(refused.iter().all(|frame| frame.status() == Status::OVERLOADED));
        assert_eq!(started + refused.len(), 5);
        started
    };
    assert!(fill(&mut two, 1) < 5);
    let call = incoming.call;
    drop(incoming);
    one.reply(call, b"");
    one.frames();
    one.is_quiet();
    let mut three = sharing(&config, peer());
    assert_eq!(fill(&mut three, 0), 5);
}

/// R-CAL-14: "counting claims instead of octets would let idle connections starve busy ones".
#[test]
fn connections_that_have_sent_an_octet_each_do_not_starve_another() {
    let bounds = limits(|it| (it.max_message, it.memory, it.server_memory) = (1 << 20, 1 << 20, 1 << 20));
    let config = streaming().limits(bounds).build().unwrap();
    let idle: Vec<Raw> = (0..100)
        .map(|_| {
            let mut raw = sharing(&config, peer());
            raw.feed(&begin_request(1, head(Kind::Unary), 1 << 20, b"x"));
            raw.is_quiet();
            raw
        })
        .collect();
    let mut busy = sharing(&config, peer());
    busy.feed(&frames::call(1, &[7; 1_000]));
    busy.incoming();
    drop(idle);
}

/// R-CAL-14: what a connection held is given back with it.
#[test]
fn a_connection_that_ends_gives_back_the_memory_of_the_server() {
    let bounds = limits(|it| (it.max_message, it.memory, it.server_memory) = (1 << 20, 1 << 20, 1 << 20));
    let config = streaming().limits(bounds).build().unwrap();
    for drops in [false, true] {
        let mut one = sharing(&config, peer());
        one.feed(&begin_request(1, head(Kind::Unary), 1 << 20, b"x"));
        for _ in 0..16 {
            one.feed(&continuation(1, true, &[7; 60_000]));
        }
        one.is_quiet();
        let mut two = sharing(&config, peer());
        two.feed(&frames::call(1, &vec![7; 65_000]));
        two.feed(&frames::call(3, &vec![7; 65_000]));
        two.events();
        assert!(two.frames().iter().any(|frame| frame.status() == Status::OVERLOADED));
        if !drops {
            one.eof();
            one.turn();
        }
        drop(one);
        drop(two);
        let mut three = sharing(&config, peer());
        three.feed(&frames::call(1, &vec![7; 65_000]));
        three.incoming();
    }
}

/// R-CAL-15: a one-way holds its octets in a bound of its own.
#[test]
fn one_ways_in_fragments_keep_to_their_own_bound() {
    for side in SIDES {
        let bounds = limits(|it| (it.max_one_way_octets, it.max_concurrent) = (100_000, 1));
        let mut raw = node(side, streaming().limits(bounds), peer());
        for n in 0..4 {
            for frame in What::OneWay.cut(peer_id(side, n), &pattern(40_000), 20_000, 20_000) {
                raw.feed(&frame);
            }
        }
        let started = raw.events().len();
        assert!(raw.frames().is_empty());
        let dropped = raw.conn.stats().dropped_one_ways as usize;
        // One runs, two wait, and 160 000 octets do not fit.
        assert_eq!((started, dropped), (1, 1));
    }
}

// ---- arriving: the price --------------------------------------------------------------------------------------

/// R-ABU-05, R-ABU-07, R-ABU-08.
#[test]
fn fragments_under_256_octets_cost_a_point_but_the_last() {
    for (side, what) in all() {
        let mut scene = Scene::arriving(side, what);
        let before = points(&mut Scene::arriving(side, what).raw);
        let payload = pattern(255 * 10 + 40);
        // The first and nine of the ten that follow are cut short with more to come.
        for frame in what.cut(scene.id, &payload, 40, 255) {
            scene.raw.feed(&frame);
        }
        assert!(scene.received().is_some());
        scene.raw.frames();
        assert_eq!(before - points(&mut scene.raw), 1 + 9, "{side:?} {what:?}");
        let mut scene = Scene::arriving(side, what);
        for frame in what.cut(scene.id, &pattern(256 * 10), 256, 256) {
            scene.raw.feed(&frame);
        }
        assert!(scene.received().is_some());
        scene.raw.frames();
        assert_eq!(before - points(&mut scene.raw), 0, "{side:?} {what:?}");
    }
}

// ---- leaving: cutting -----------------------------------------------------------------------------------------

fn one(reader: &mut Reader, frames: &[Seen]) -> Message {
    let mut messages = reader.read(frames);
    assert!(reader.is_idle());
    assert_eq!(messages.len(), 1);
    messages.remove(0)
}

/// R-FRG-01 to R-FRG-04, R-FRG-11: the lengths around the end of a frame, and the flag and the total as they must be.
#[test]
fn what_leaves_alone_is_cut_at_the_longest_frame_that_the_peer_reads() {
    for (side, what) in all() {
        for max_frame in [CUT, 20_000, FRAME, 1 << 20] {
            let near = (max_frame - 40..max_frame + 4).step_by(if max_frame == CUT { 1 } else { 7 });
            for len in near.chain([2 * max_frame, 200_000]) {
                let said = CheckIn { max_frame: max_frame as u32, max_item: 4 << 20, ..wide() };
                let mut scene = Scene::leaving(side, what, said);
                let payload = pattern(len);
                scene.send(&payload);
                let frames = scene.raw.frames();
                let message = one(&mut Reader::new(max_frame), &frames);
                assert_eq!(message.payload, payload, "{side:?} {what:?} {max_frame} {len}");
                assert!(!message.abandoned);
                let all_but_last = &message.bodies[..message.bodies.len() - 1];
                assert!(
                    all_but_last.iter().all(|body| *body == max_frame),
                    "{side:?} {what:?} {max_frame} {len}: {:?}",
                    message.bodies
                );
                scene.raw.events();
                scene.raw.is_quiet();
            }
        }
    }
}

/// R-FRG-11, R-FRG-12.
#[test]
fn two_that_wait_are_cut_at_16_kib_and_take_turns() {
    for (side, what) in all() {
        if matches!(what, What::ItemUp | What::ItemDown | What::Response) {
            continue;
        }
        let mut raw = node(side, streaming(), peer());
        let payloads = [pattern(100_000), pattern(90_000)];
        for (user, payload) in (0..).zip(&payloads) {
            let head = CallHead::new("t.S/Echo");
            match what {
                What::Request => raw.conn.call(raw.at(), &head, Body::Copy(payload), user).unwrap(),
                _ => raw.conn.one_way(raw.at(), &head, Body::Copy(payload), user).unwrap(),
            };
        }
        let frames = raw.frames();
        takes_turns(&frames, &payloads);
    }
}

/// The frames are those of two messages that alternate, each cut at 16 KiB, as long as both are unfinished.
fn takes_turns(frames: &[Seen], payloads: &[Vec<u8>; 2]) {
    let mut reader = Reader::new(FRAME);
    let mut whole = Vec::new();
    let mut last = None;
    for frame in frames {
        if whole.is_empty() {
            assert!(frame.header.len as usize <= CUT, "{} octets while another waits", frame.header.len);
            assert_ne!(last, Some(frame.id()), "turns: {:?}", outline(frames));
        }
        last = Some(frame.id());
        whole.extend(reader.read(std::slice::from_ref(frame)));
    }
    assert!(reader.is_idle());
    whole.sort_by_key(|message| std::cmp::Reverse(message.payload.len()));
    let whole: Vec<_> = whole.into_iter().map(|message| message.payload).collect();
    assert_eq!(&whole[..], payloads);
}

/// R-FRG-11, R-FRG-12: RESPONSEs and items, too.
#[test]
fn responses_and_items_take_turns() {
    for side in SIDES {
        let mut raw = node(side, streaming(), wide());
        let stream = serves(&mut raw, peer_id(side, 0), Kind::ServerStream).call;
        let call = serves(&mut raw, peer_id(side, 1), Kind::Unary).call;
        let payloads = [pattern(100_000), pattern(90_000)];
        raw.conn.send_item(raw.at(), stream, Body::Copy(&payloads[0])).unwrap();
        raw.reply(call, &payloads[1]);
        takes_turns(&raw.frames(), &payloads);
    }
}

/// R-FRG-12, R-ORD-07: at the sender, higher first; RESPONSEs have the priority of their REQUEST.
#[test]
fn what_waits_goes_out_by_priority() {
    for side in SIDES {
        let mut raw = node(side, streaming(), peer());
        for priority in [-1, 0, 1] {
            let mut head = CallHead::new("t.S/Echo");
            head.priority = priority;
            let payload = pattern(50_000 + usize::try_from(priority + 1).unwrap());
            raw.conn.call(raw.at(), &head, Body::Copy(&payload), 1).unwrap();
        }
        let order: Vec<_> =
            Reader::new(FRAME).read(&raw.frames()).iter().map(|it| it.payload.len()).collect();
        assert_eq!(order, [50_002, 50_001, 50_000]);
        let mut raw = node(side, streaming(), peer());
        // Clamped: −7 is as −1, and 9 as 1.
        for (n, priority) in (0..).zip([-7, 0, 9]) {
            let id = peer_id(side, n);
            raw.feed(&frames::request(id, Request { priority, ..head(Kind::Unary) }, b""));
        }
        let calls: Vec<_> = raw
            .events()
            .into_iter()
            .map(|event| match event {
                Event::Request(incoming) => (incoming.call, incoming.priority),
                other => panic!("{other:?}"),
            })
            .collect();
        for (call, priority) in &calls {
            raw.reply(*call, &pattern(50_000 + usize::try_from(priority + 1).unwrap()));
        }
        let order: Vec<_> =
            Reader::new(FRAME).read(&raw.frames()).iter().map(|it| it.payload.len()).collect();
        assert_eq!(order, [50_002, 50_001, 50_000]);
    }
}

/// R-FRG-12: also against one that has begun.
#[test]
fn a_higher_priority_overtakes_a_message_that_has_begun_and_a_lower_one_waits_for_its_end() {
    for side in SIDES {
        let mut raw = node(side, streaming(), peer());
        stepwise(&mut raw);
        let call = |raw: &mut Raw, priority, len| {
            let mut head = CallHead::new("t.S/Echo");
            head.priority = priority;
            raw.conn.call(raw.at(), &head, Body::Copy(&pattern(len)), 1).unwrap();
        };
        call(&mut raw, 0, 300_000);
        let first = step_one(&mut raw).id();
        call(&mut raw, -1, 10);
        call(&mut raw, 1, 40_000);
        let mut frames: Vec<Seen> = steps(&mut raw);
        let rest = frames.split_off(3);
        assert!(frames.iter().all(|frame| frame.id() != first), "{:?}", outline(&frames));
        assert!(frames.iter().all(|frame| frame.header.len as usize <= CUT));
        let last = rest.last().unwrap();
        assert_eq!(last.request().priority, -1);
        assert!(
            rest[..rest.len() - 1]
                .iter()
                .all(|frame| frame.id() == first && frame.header.len as usize <= CUT)
        );
    }
}

/// R-FRG-11: "a small call behind a large one then waits for" one frame.
#[test]
fn a_small_message_waits_for_no_more_than_a_frame_of_a_large_one() {
    for (side, what) in all() {
        let mut scene = Scene::leaving(side, what, wide());
        stepwise(&mut scene.raw);
        scene.send(&pattern(250_000));
        let large = step_one(&mut scene.raw);
        scene.raw.call(9);
        let frames = step(&mut scene.raw);
        let small = frames.last().unwrap();
        assert_eq!(
            (small.frame_type(), small.payload()),
            (FrameType::REQUEST, &b"x"[..]),
            "{side:?} {what:?}"
        );
        let before = &frames[..frames.len() - 1];
        assert!(before.len() <= 1 && before.iter().all(|frame| frame.header.len as usize <= CUT));
        assert_ne!(small.id(), large.id());
    }
}

/// R-FRG-13, R-HB-14.
#[test]
fn control_frames_stand_between_any_two_frames_of_what_leaves() {
    for (side, what) in all() {
        let mut scene = Scene::leaving(side, what, wide());
        stepwise(&mut scene.raw);
        scene.send(&pattern(250_000));
        let (mut reader, mut done) = (Reader::new(FRAME), Vec::new());
        while done.is_empty() {
            let frame = step_one(&mut scene.raw);
            done = reader.read(&[frame]);
            scene.raw.feed(&frames::heartbeat(7));
            scene.raw.events();
            let ack = step_one(&mut scene.raw);
            assert_eq!((ack.frame_type(), ack.id()), (FrameType::HEARTBEAT_ACK, 7), "{side:?} {what:?}");
        }
        assert_eq!(done[0].payload, pattern(250_000));
    }
}

/// R-FRG-05.
#[test]
fn an_envelope_that_does_not_fit_the_frame_fails_locally() {
    let metadata = [Metadata { key: "k", value: &[7; 1_000] }; 20];
    for side in SIDES {
        let mut raw = node(side, streaming(), CheckIn { max_frame: CUT as u32, ..peer() });
        let mut head = CallHead::new("t.S/Echo");
        head.metadata = &metadata;
        match raw.conn.call(raw.at(), &head, Body::Copy(b"x"), 1) {
            Err(rejected) => assert_eq!(rejected.reason.status(), Status::LOCAL_LIMIT),
            Ok(_) => {
                assert!(raw.frames().is_empty());
                let outcome = raw.outcomes().remove(0).1;
                let failure = outcome.unwrap_err();
                assert_eq!((failure.status(), failure.ran()), (Status::LOCAL_LIMIT, Ran::No));
            }
        }
        let call = serves(&mut raw, peer_id(side, 0), Kind::Unary).call;
        let mut reply = Reply::ok(Body::Copy(b"x"));
        reply.metadata = &metadata;
        raw.conn.reply(raw.at(), call, &reply).unwrap();
        assert_eq!(
            outline(&raw.frames()),
            [(FrameType::RESPONSE, peer_id(side, 0), Status::RESPONSE_ENCODE)]
        );
    }
}

/// R-FRG-11: "if the envelope alone is longer, the first frame is that long".
#[test]
fn a_long_envelope_is_whole_in_the_first_frame() {
    let metadata = [Metadata { key: "k", value: &[7; 1_000] }; 30];
    for side in SIDES {
        let mut raw = node(side, streaming(), peer());
        let mut head = CallHead::new("t.S/Echo");
        head.metadata = &metadata;
        for user in 0..2 {
            raw.conn.call(raw.at(), &head, Body::Copy(&pattern(50_000)), user).unwrap();
        }
        let frames = raw.frames();
        assert_eq!(frames[0].request().metadata.iter().count(), 30);
        assert!(frames[0].header.len < 32 * 1024 && frames[1].header.len < 32 * 1024);
        let whole = Reader::new(FRAME).read(&frames);
        assert!(whole.len() == 2 && whole.iter().all(|message| message.payload == pattern(50_000)));
        // And so it is if its payload does not fit beside it at all, at the peer's least frame.
        let mut raw = node(side, streaming(), CheckIn { max_frame: CUT as u32, ..peer() });
        let mut head = CallHead::new("t.S/Echo");
        head.metadata = &metadata[..16];
        raw.conn.call(raw.at(), &head, Body::Copy(&pattern(5_000)), 1).unwrap();
        let frames = raw.frames();
        assert_eq!(one(&mut Reader::new(CUT), &frames).payload, pattern(5_000));
        assert_eq!(frames.len(), 2);
    }
}

/// R-CAL-16, R-CAL-08, R-STR-13.
#[test]
fn what_is_larger_than_the_peer_reads_is_not_begun() {
    for side in SIDES {
        let said = CheckIn { max_message: 100_000, max_item: 50_000, ..wide() };
        let mut raw = node(side, streaming(), said);
        let head = CallHead::new("t.S/Echo");
        let rejected = raw.conn.call(raw.at(), &head, Body::Copy(&pattern(100_001)), 1).unwrap_err();
        assert_eq!(rejected.reason.status(), Status::LOCAL_LIMIT);
        raw.is_quiet();
        let stream = serves(&mut raw, peer_id(side, 0), Kind::ServerStream).call;
        assert_eq!(
            raw.conn.send_item(raw.at(), stream, Body::Copy(&pattern(50_001))),
            Err(tieline_core::conn::ItemError::TooLarge)
        );
        raw.is_quiet();
        raw.conn.send_item(raw.at(), stream, Body::Copy(&pattern(50_000))).unwrap();
        assert_eq!(one(&mut Reader::new(FRAME), &raw.frames()).payload.len(), 50_000);
        raw.reply(stream, &pattern(100_001));
        assert_eq!(
            outline(&raw.frames()),
            [(FrameType::RESPONSE, peer_id(side, 0), Status::RESPONSE_TOO_LARGE)]
        );
        let call = serves(&mut raw, peer_id(side, 1), Kind::Unary).call;
        raw.reply(call, &pattern(100_000));
        assert_eq!(one(&mut Reader::new(FRAME), &raw.frames()).payload.len(), 100_000);
    }
}

// ---- leaving: abandoning --------------------------------------------------------------------------------------

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

// ---- leaving: order -------------------------------------------------------------------------------------------

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

/// R-DRN-03, R-DRN-06: what was accepted goes on while draining, also what is still arriving.
#[test]
fn a_message_that_was_begun_before_a_drain_is_taken_whole() {
    for side in SIDES {
        let mut raw = node(side, streaming(), peer());
        let id = peer_id(side, 0);
        let payload = pattern(1_000);
        let frames = What::Request.cut(id, &payload, 300, 400);
        raw.feed(&frames[0]);
        raw.is_quiet();
        raw.conn.drain(raw.at(), Status::GOING_AWAY, secs(10), "");
        let drain = raw.frame();
        assert_eq!((drain.frame_type(), drain.id()), (FrameType::DRAIN, id));
        raw.feed(&begin_request(peer_id(side, 1), head(Kind::Unary), 1_000, b"x"));
        assert!(raw.events().is_empty());
        assert_eq!(outline(&raw.frames()), [(FrameType::RESPONSE, peer_id(side, 1), Status::DRAINING)]);
        raw.feed(&continuation(peer_id(side, 1), false, &[7; 999]));
        frames[1..].iter().for_each(|frame| raw.feed(frame));
        let incoming = raw.incoming();
        assert_eq!(incoming.payload, payload);
        raw.reply(incoming.call, b"");
        let frames = raw.frames();
        assert_eq!(
            outline(&frames),
            [(FrameType::RESPONSE, id, Status::OK), (FrameType::CLOSE, 0, Status::GOING_AWAY)]
        );
    }
}

/// R-CAL-11: a slot is held from the first frame.
#[test]
fn a_request_that_arrives_holds_a_slot() {
    for side in SIDES {
        let mut raw = node(side, streaming().limits(limits(|it| it.max_concurrent = 1)), peer());
        raw.feed(&begin_request(peer_id(side, 0), head(Kind::Unary), 1_000, b"x"));
        raw.feed(&open(peer_id(side, 1), Kind::Unary));
        assert!(raw.events().is_empty());
        assert_eq!(raw.frame().status(), Status::TOO_MANY_CALLS);
        raw.feed(&abandon(peer_id(side, 0)));
        assert!(raw.events().is_empty());
        raw.frames();
        raw.feed(&open(peer_id(side, 2), Kind::Unary));
        raw.incoming();
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

/// R-ENV-10, R-FRG-03: a total without MORE means nothing.
#[test]
fn a_total_without_more_is_ignored() {
    for side in SIDES {
        let mut raw = node(side, streaming(), peer());
        let id = peer_id(side, 0);
        raw.feed(&frames::request(id, Request { total: 1 << 50, ..head(Kind::Bidi) }, b"whole"));
        let incoming = raw.incoming();
        assert_eq!(&incoming.payload[..], b"whole");
        let envelope = tieline_core::wire::Envelope::Item(tieline_core::wire::Item { total: 7 });
        raw.feed(&frames::emit(FrameType::STREAM_ITEM, id, Status::OK, envelope, b"item"));
        raw.events();
        assert_eq!(raw.conn.take_item(raw.at(), incoming.call), Some(Taken::Item("item".into())));
    }
}
