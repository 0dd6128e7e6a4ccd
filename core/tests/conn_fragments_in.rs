//! Putting messages together from fragments (protocol §11), at either end and on either side: however they were cut, and
//! no other way than the rules have it.
#![allow(clippy::unwrap_used, clippy::panic, clippy::cast_possible_truncation)]

mod support;

use support::{
    frames::{self, continuation, outline},
    output::{FRAME, Reader, step_one, stepwise},
    raw::secs,
    scene::{Scene, What, all},
    streams::{
        self, SIDES, begin_item, begin_request, begin_response, call_head, calls, head, item, node, open,
        pattern, peer, peer_id, serves, streaming, wide,
    },
};
use tieline_core::{
    conn::{Body, Event, Taken},
    wire::{Flags, FrameType, Header, Kind, Request, Status},
};

// ---- putting together -----------------------------------------------------------------------------------------

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

// ---- mistakes -------------------------------------------------------------------------------------------------

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
