//! Cutting what leaves into fragments (protocol §11), at either end and on either side: how long they are, how messages
//! take turns, and what fits no frame or is too large for the peer.
#![allow(clippy::unwrap_used, clippy::panic, clippy::cast_possible_truncation)]

mod support;

use bytes::Buf;
use support::{
    frames::{self, Seen, outline},
    output::{CUT, FRAME, Reader, one, step, step_one, stepwise},
    raw::Raw,
    scene::{Scene, What, all},
    streams::{SIDES, node, pattern, peer, peer_id, serves, streaming, wide},
};
use tieline_core::{
    conn::{Body, CallHead, Reply},
    wire::{CheckIn, FrameType, Kind, Metadata, Ran, Status},
};

/// R-FRG-01 to R-FRG-04, R-FRG-11: the lengths around the end of a frame, and the flag and the total as they must be.
#[test]
fn what_leaves_alone_is_cut_at_the_longest_frame_that_the_peer_reads() {
    for (side, what) in all() {
        for max_frame in [CUT, 20_000, FRAME, 1 << 20] {
            let near = (max_frame - 40..max_frame + 4).step_by(if max_frame == CUT { 1 } else { 7 });
            for len in near.chain([2 * max_frame, 200_000]) {
                let said = CheckIn { max_frame: max_frame as u32, max_item: 4 << 20, ..wide() };
                let mut scene = Scene::leaving(side, what, said);
                // What was small and sent to come here is long ago.
                scene.raw.now += 50_000_000;
                let payload = pattern(len);
                scene.send(&payload);
                let frames = scene.raw.frames();
                let message = one(&mut Reader::new(max_frame), &frames);
                assert_eq!(message.payload, payload, "{side:?} {what:?} {max_frame} {len}");
                assert!(!message.abandoned);
                let (first, rest) = message.bodies.split_first().unwrap();
                let wanted = if len < LONG { max_frame } else { CUT };
                let between = &rest[..rest.len().saturating_sub(1)];
                assert!(
                    (rest.is_empty() || *first == wanted) && between.iter().all(|body| *body == max_frame),
                    "{side:?} {what:?} {max_frame} {len}: {:?}",
                    message.bodies
                );
                assert!(len < LONG || !rest.is_empty(), "the reader copies a first frame");
                scene.raw.events();
                scene.raw.is_quiet();
            }
        }
    }
}

/// A payload of so many octets has a short first frame.
const LONG: usize = 128 << 10;

/// R-FRG-11, R-FRG-12.
#[test]
fn two_that_wait_are_cut_at_16_kib_and_take_turns() {
    for (side, what) in all() {
        if matches!(what, What::ItemUp | What::ItemDown | What::Response) {
            continue;
        }
        let mut raw = node(side, streaming(), peer());
        sends_something_small(&mut raw);
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

/// From now on, for a while, others may be small.
fn sends_something_small(raw: &mut Raw) {
    raw.conn.one_way(raw.at(), &CallHead::new("t.S/Echo"), Body::Copy(b"x"), 99).unwrap();
    raw.frames();
}

/// R-FRG-11: large messages are done one after the other while nothing small is sent, each frame as long as can be, and
/// take turns again with the first small one.
#[test]
fn large_ones_among_themselves_fill_the_frames() {
    for side in SIDES {
        let mut raw = node(side, streaming(), peer());
        stepwise(&mut raw);
        raw.now += 50_000_000;
        let head = CallHead::new("t.S/Echo");
        for user in 0..3 {
            raw.conn.call(raw.at(), &head, Body::Copy(&pattern(200_000)), user).unwrap();
        }
        let begun: Vec<_> = (0..3).map(|_| step_one(&mut raw)).collect();
        assert!(begun.iter().all(|frame| frame.header.len as usize == CUT), "{:?}", outline(&begun));
        let rest: Vec<_> = (0..3).map(|_| step_one(&mut raw)).collect();
        assert!(rest.iter().all(|frame| frame.header.len as usize == FRAME), "{:?}", outline(&rest));
        let ids = |frames: &[Seen]| frames.iter().map(Seen::id).collect::<Vec<_>>();
        assert_eq!(ids(&rest), ids(&begun), "round robin");
        raw.conn.one_way(raw.at(), &head, Body::Copy(b"x"), 99).unwrap();
        let small = step_one(&mut raw);
        assert_eq!((small.frame_type(), small.payload()), (FrameType::ONE_WAY, &b"x"[..]));
        let next = step_one(&mut raw);
        assert_eq!((next.id(), next.header.len as usize), (begun[0].id(), CUT), "another may follow");
        raw.now += 50_000_000;
        let next = step_one(&mut raw);
        assert_eq!((next.id(), next.header.len as usize), (begun[1].id(), FRAME), "none did");
    }
}

/// R-FRG-11: what is alone is cut in halves while another small one may follow, and no more is committed at once.
#[test]
fn a_large_one_behind_a_small_one_leaves_in_short_pieces() {
    for side in SIDES {
        let mut raw = node(side, streaming(), peer());
        sends_something_small(&mut raw);
        raw.conn.call(raw.at(), &CallHead::new("t.S/Echo"), Body::Copy(&pattern(200_000)), 1).unwrap();
        let mut once = || {
            raw.conn.poll_transmit(raw.at(), &mut raw.outbox);
            let octets = raw.outbox.remaining();
            raw.outbox.advance(octets);
            raw.conn.handle_sent(raw.at(), octets);
            octets
        };
        assert!(once() <= 2 * FRAME);
        assert_eq!([once(), once()], [FRAME / 2 + 18; 2]);
        raw.now += 50_000_000;
        assert!(raw.conn.poll_transmit(raw.at(), &mut raw.outbox) && raw.outbox.remaining() > FRAME);
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
        sends_something_small(&mut raw);
        raw.conn.send_item(raw.at(), stream, Body::Copy(&payloads[0])).unwrap();
        raw.reply(call, &payloads[1]);
        takes_turns(&raw.frames(), &payloads);
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
        sends_something_small(&mut raw);
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
