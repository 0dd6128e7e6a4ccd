//! The end of a stream that sends (protocol §10), on either side: it keeps to the credit that it has, and says when there
//! is room.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::cast_possible_truncation,
    clippy::cast_possible_wrap,
    clippy::cast_sign_loss
)]

mod support;

use std::collections::VecDeque;

use support::{
    frames::{self, Seen, cancel, types},
    output::{FULL, Reader, points, step_one, steps, stepwise},
    random::Random,
    raw::{Raw, limits},
    streams::{
        ITEM_COST, SIDES, call_head, calls, credit, head, node, pattern, peer, peer_id, send, serves,
        serves_down, streaming,
    },
};
use tieline_core::{
    conn::{Body, Event, ItemError, Stream},
    wire::{CheckIn, FrameType, Kind, Request, Status},
};

// ---- credit ---------------------------------------------------------------------------------------------------

/// Annex B.9, octet by octet: R-STR-04, R-STR-05.
#[test]
fn the_worked_example_of_a_server_stream() {
    for side in SIDES {
        let mut raw = node(side, streaming(), peer());
        let (call, id) = serves_down(&mut raw, 0, Kind::ServerStream, Some(600));
        for octets in [b"msg1", b"msg2", b"msg3", b"msg4"] {
            send(&mut raw, call, octets);
        }
        raw.reply(call, b"");
        let first = raw.frames();
        assert_eq!(first.iter().map(Seen::payload).collect::<Vec<_>>(), [b"msg1", b"msg2", b"msg3"]);
        assert_eq!(&first[0].octets[14..], [&[0, 0, 0, 5, 0][..], b"msg1"].concat());
        raw.feed(&credit(id, 260));
        raw.events();
        let last = raw.frames();
        assert_eq!(types(&last), [FrameType::STREAM_ITEM, FrameType::RESPONSE]);
        assert_eq!((last[0].payload(), last[1].header.len), (&b"msg4"[..], 0));
    }
}

/// Small items that waited for credit are one piece of what is written, by the hundred: a gathered write of a piece each
/// costs several times as much.
#[test]
fn small_items_that_waited_are_written_in_one_piece() {
    for side in SIDES {
        let mut raw = node(side, streaming(), peer());
        let (call, id) = serves_down(&mut raw, 0, Kind::ServerStream, Some(0));
        let payloads: Vec<_> = (0..100).map(pattern).collect();
        for payload in &payloads {
            let shared = bytes::Bytes::copy_from_slice(payload);
            raw.conn.send_item(raw.at(), call, Body::Share(shared)).unwrap();
        }
        assert!(raw.frames().is_empty());
        raw.feed(&credit(id, (100 * ITEM_COST + 4_950) as u32));
        raw.events();
        raw.conn.poll_transmit(raw.at(), &mut raw.outbox);
        assert_eq!(raw.outbox.chunks().count(), 1);
        let frames = raw.frames();
        assert!(frames.iter().map(Seen::payload).eq(payloads.iter().map(Vec::as_slice)));
    }
}

/// R-STR-05: an item may begin while credit is above 0, to the octet; and it may be larger than all of it.
#[test]
fn an_item_begins_while_credit_is_above_0() {
    for side in SIDES {
        for (initial, len, begun) in [
            (0, 0, 0),
            (1, 0, 1),
            (256, 0, 1),
            (257, 0, 2),
            (520, 4, 2),
            (521, 4, 3),
            (1, 200_000, 1),
            (512, 0, 2),
        ] {
            let mut raw = node(side, streaming(), peer());
            let (call, id) = serves_down(&mut raw, 0, Kind::ServerStream, Some(initial));
            for _ in 0..begun + 1 {
                // One that does not fit beside the others waits outside.
                let _ = raw.conn.send_item(raw.at(), call, Body::Copy(&pattern(len)));
            }
            let whole = Reader::new(64 << 10).read(&raw.frames());
            assert_eq!(whole.len(), begun, "{initial} {len}");
            // What it lacks to be above 0 is enough, and an octet less is not.
            let missing = begun as i64 * (len as i64 + ITEM_COST as i64) - i64::from(initial);
            if missing > 0 {
                raw.feed(&credit(id, missing as u32));
                raw.events();
                let _ = raw.conn.send_item(raw.at(), call, Body::Copy(&pattern(len)));
                assert!(raw.frames().is_empty(), "{initial} {len}: credit is 0");
            }
            raw.feed(&credit(id, 1));
            raw.events();
            let _ = raw.conn.send_item(raw.at(), call, Body::Copy(&pattern(len)));
            let whole = Reader::new(64 << 10).read(&raw.frames());
            assert_eq!(whole.len(), 1, "{initial} {len}: credit is 1");
        }
    }
}

/// R-STR-04: where the initial credit comes from.
#[test]
fn the_initial_credit_is_the_receivers_window_unless_the_request_says_otherwise() {
    let begun = |raw: &mut Raw, to: Stream| {
        for _ in 0..6 {
            send(raw, to, &[0; 44]);
        }
        raw.frames().len()
    };
    for side in SIDES {
        let said = CheckIn { stream_window: 900, ..peer() };
        for (request, expected) in [(None, 3), (Some(0), 0), (Some(301), 2), (Some(u32::MAX), 6)] {
            let mut raw = node(side, streaming(), said);
            let (call, id) = serves_down(&mut raw, 0, Kind::Bidi, request);
            assert_eq!(begun(&mut raw, call.into()), expected);
            // R-STR-04: above 2^31−1 it is clamped to that; and not above it by R-STR-09.
            if request == Some(u32::MAX) {
                raw.feed(&credit(id, 1_800));
                raw.is_quiet();
                raw.feed(&credit(id, 1));
                raw.closes_with(Status::PROTOCOL_ERROR);
            }
        }
        // To the callee: the callee's, whatever the caller asked for itself.
        let mut raw = node(side, streaming(), said);
        let mut head = call_head(Kind::Bidi);
        head.credit = Some(5);
        let (call, _) = calls(&mut raw, head, 1);
        assert_eq!(begun(&mut raw, call.into()), 3);
        // 0 at check-in is the default, 64 KiB (§6.3).
        let mut raw = node(side, streaming(), CheckIn { stream_window: 0, ..peer() });
        let (call, _) = calls(&mut raw, call_head(Kind::Bidi), 1);
        let mut items = 0;
        while raw.conn.send_item(raw.at(), call, Body::Copy(&[0; 1_024 - 256])).is_ok() && items < 70 {
            items += raw.frames().len();
        }
        assert_eq!(items, 64);
    }
}

/// R-ENV-10: credit on a call that has no items means nothing.
#[test]
fn credit_on_a_unary_call_is_ignored() {
    for side in SIDES {
        let mut raw = node(side, streaming(), peer());
        let id = peer_id(side, 0);
        raw.feed(&frames::request(id, Request { credit: Some(0), ..head(Kind::Unary) }, b""));
        let call = raw.incoming().call;
        raw.reply(call, &pattern(1_000));
        assert_eq!(raw.frame().payload().len(), 1_000);
    }
}

/// R-STR-09, R-CHK-19: to 2^31−1 and not beyond; 0 is a mistake.
#[test]
fn credit_is_bounded_and_never_nothing() {
    let most = i32::MAX as u32;
    for side in SIDES {
        for up in [false, true] {
            let set = || {
                let mut raw = node(side, streaming(), CheckIn { stream_window: 1_000, ..peer() });
                let id = if up {
                    calls(&mut raw, call_head(Kind::Bidi), 1).1
                } else {
                    serves_down(&mut raw, 0, Kind::Bidi, None).1
                };
                (raw, id)
            };
            let (mut raw, id) = set();
            raw.feed(&credit(id, most - 1_000));
            raw.is_quiet();
            raw.feed(&credit(id, 1));
            raw.closes_with(Status::PROTOCOL_ERROR);
            for octets in [0, most - 999, most, most + 1, u32::MAX] {
                let (mut raw, id) = set();
                raw.feed(&frames::emit(
                    FrameType::CREDIT,
                    id,
                    Status::OK,
                    tieline_core::wire::Envelope::Credit(tieline_core::wire::Credit { octets }),
                    b"",
                ));
                raw.closes_with(Status::PROTOCOL_ERROR);
            }
        }
    }
}

/// R-STR-05, R-STR-06, L11: against a peer that grants at random, every item goes out, in order, and never without
/// credit.
#[test]
fn credit_is_kept_to_the_octet_whatever_the_peer_grants() {
    for seed in 0..200 {
        let mut random = Random::new(seed);
        let side = SIDES[(seed % 2) as usize];
        let initial = random.below(2_000);
        let mut raw = node(side, streaming(), CheckIn { stream_window: initial.max(1) as u32, ..peer() });
        let (stream, id): (Stream, u64) = if seed % 4 < 2 {
            let (call, id) = calls(&mut raw, call_head(Kind::Bidi), 1);
            (call.into(), id)
        } else {
            let (call, id) = serves_down(&mut raw, 0, Kind::Bidi, None);
            (call.into(), id)
        };
        let mut credit_left = initial.max(1) as i64;
        let (mut sent, mut reader) = (VecDeque::new(), Reader::new(64 << 10));
        let mut took = 0;
        for _ in 0..200 {
            match random.below(3) {
                0 => {
                    let octets = random.below(999) as u32 + 1;
                    raw.feed(&credit(id, octets));
                    credit_left += i64::from(octets);
                }
                _ => {
                    let octets = pattern(random.below(700));
                    if raw.conn.send_item(raw.at(), stream, Body::Copy(&octets)).is_ok() {
                        sent.push_back(octets);
                    }
                }
            }
            raw.events();
            for frame in raw.frames() {
                assert!(credit_left > 0, "seed {seed}: an item without credit");
                for message in reader.read(&[frame]) {
                    credit_left -= (message.payload.len() + ITEM_COST) as i64;
                    assert_eq!(Some(message.payload), sent.pop_front(), "seed {seed}");
                    took += 1;
                }
            }
            assert!(credit_left <= 0 || sent.is_empty(), "seed {seed}: an item waits though there is credit");
        }
        assert!(took > 5, "seed {seed}");
    }
}

/// R-STR-11: it crossed, so even 0 and too much are free.
#[test]
fn credit_for_a_direction_that_has_ended_is_ignored() {
    for side in SIDES {
        let mut raw = node(side, streaming(), peer());
        let (call, id) = calls(&mut raw, call_head(Kind::Bidi), 1);
        raw.conn.end_items(raw.at(), call).unwrap();
        assert_eq!(types(&raw.frames()), [FrameType::STREAM_END]);
        for octets in [1, 255, 1_000, i32::MAX as u32, u32::MAX, 0] {
            raw.feed(&credit(id, octets));
        }
        raw.is_quiet();
        assert_eq!(raw.conn.stats().late_frames, 0);
        assert_eq!(points(&mut raw), FULL);
        // The callee's direction ends with the first frame of its RESPONSE, while the call is still open.
        let mut raw = node(side, streaming(), peer());
        stepwise(&mut raw);
        let (call, id) = serves_down(&mut raw, 0, Kind::Bidi, None);
        raw.reply(call, &pattern(200_000));
        assert_eq!(step_one(&mut raw).frame_type(), FrameType::RESPONSE);
        for octets in [255, u32::MAX, 0] {
            raw.feed(&credit(id, octets));
        }
        assert!(raw.events().is_empty());
        assert!(steps(&mut raw).iter().all(|frame| frame.frame_type() == FrameType::CONTINUATION));
        assert_eq!(points(&mut raw), FULL);
    }
}

// ---- writable -------------------------------------------------------------------------------------------------

/// The API: full, and then told when there is room.
#[test]
fn writable_is_told_once_when_there_is_room_again() {
    for side in SIDES {
        for up in [false, true] {
            let bounds = limits(|it| it.max_queued_items = 1_000);
            let mut raw = node(side, streaming().limits(bounds), CheckIn { stream_window: 1, ..peer() });
            let (stream, id): (Stream, u64) = if up {
                let (call, id) = calls(&mut raw, call_head(Kind::Bidi), 1);
                (call.into(), id)
            } else {
                let (call, id) = serves_down(&mut raw, 0, Kind::Bidi, None);
                (call.into(), id)
            };
            let fill = |raw: &mut Raw| {
                (0..100)
                    .take_while(|_| raw.conn.send_item(raw.at(), stream, Body::Copy(&[7; 100])).is_ok())
                    .count()
            };
            let writable = |raw: &mut Raw| {
                let events = raw.events();
                assert!(
                    events.iter().all(|event| matches!(event, Event::Writable(which) if *which == stream)),
                    "{events:?}"
                );
                events.len()
            };
            let fits = fill(&mut raw);
            assert!((1..=4).contains(&fits), "{fits} of 356 in 1000");
            assert_eq!(raw.conn.send_item(raw.at(), stream, Body::Copy(&[7; 100])), Err(ItemError::Full));
            assert_eq!(writable(&mut raw), 0);
            raw.feed(&credit(id, 100_000));
            let early = writable(&mut raw);
            assert_eq!(raw.frames().len(), fits);
            assert_eq!(early + writable(&mut raw), 1, "once");
            assert!(fill(&mut raw) > 0, "there is room");
            // Who was not refused since is not told.
            let mut raw = node(side, streaming(), peer());
            let (stream, id): (Stream, u64) = if up {
                let (call, id) = calls(&mut raw, call_head(Kind::Bidi), 1);
                (call.into(), id)
            } else {
                let (call, id) = serves_down(&mut raw, 0, Kind::Bidi, None);
                (call.into(), id)
            };
            for _ in 0..10 {
                send(&mut raw, stream, &[7; 100]);
                raw.frames();
                raw.feed(&credit(id, 356));
                assert!(raw.events().is_empty());
            }
            // An item that waits alone may be larger.
            send(&mut raw, stream, &[7; 50_000]);
        }
    }
}

/// The API: an application that sends only when it is told never stands still.
#[test]
fn an_application_that_sends_only_when_it_is_told_sends_everything() {
    for seed in 0..100 {
        let mut random = Random::new(seed);
        let side = SIDES[(seed % 2) as usize];
        let bounds = limits(|it| it.max_queued_items = 600);
        let mut raw = node(side, streaming().limits(bounds), CheckIn { stream_window: 700, ..peer() });
        let (call, id) = serves_down(&mut raw, 0, Kind::ServerStream, None);
        let (mut left, mut seen, mut may) = (100, 0, true);
        for _ in 0..2_000 {
            while may && left > 0 {
                match raw.conn.send_item(raw.at(), call, Body::Copy(&pattern(random.below(300)))) {
                    Ok(()) => left -= 1,
                    Err(error) => {
                        assert_eq!(error, ItemError::Full);
                        may = false;
                    }
                }
            }
            for frame in raw.frames() {
                seen += 1;
                raw.feed(&credit(id, (frame.payload().len() + ITEM_COST) as u32));
            }
            may |= raw.events().iter().any(|event| matches!(event, Event::Writable(_)));
            if seen == 100 {
                break;
            }
        }
        assert_eq!(seen, 100, "seed {seed}: it stands still");
    }
}

/// The API: the end of a call that waits for room is told, one way or the other.
#[test]
fn who_waits_for_room_on_a_stream_that_ends_is_told() {
    for side in SIDES {
        let bounds = limits(|it| it.max_queued_items = 300);
        let mut raw = node(side, streaming().limits(bounds), CheckIn { stream_window: 1, ..peer() });
        let (call, id) = calls(&mut raw, call_head(Kind::ClientStream), 1);
        while raw.conn.send_item(raw.at(), call, Body::Copy(b"x")).is_ok() {}
        raw.feed(&frames::response(id, Status::OK, b""));
        assert!(raw.events().iter().any(|event| matches!(event, Event::Done { .. })));
        let id = peer_id(side, 0);
        let call = serves(&mut raw, id, Kind::ServerStream).call;
        while raw.conn.send_item(raw.at(), call, Body::Copy(b"x")).is_ok() {}
        raw.feed(&cancel(id));
        assert!(raw.events().iter().any(|event| matches!(event, Event::Cancelled(..))));
    }
}
