//! Streams and credit (protocol §10), at either end and on either side, judged from outside.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::cast_possible_truncation,
    clippy::cast_possible_wrap,
    clippy::cast_sign_loss
)]

mod support;

use std::collections::VecDeque;

use bytes::Bytes;
use support::{
    frames::{self, Seen, cancel, continuation, outline},
    random::Random,
    raw::{Raw, SECOND, ms, secs},
    streams::{
        FULL, ITEM_COST, KINDS, Reader, SIDES, abandon, answer, begin_item, call_head, calls, credit, end,
        granted, head, item, name, node, open, pattern, peer, peer_id, points, serves, step_one, steps,
        stepwise, streaming, without_heartbeats,
    },
};
use tieline_core::{
    conn::{
        Body, CallHead, Cancel, Event, ItemError, Limits, Rejection, Reply, ReplyError, Side, Stream, Taken,
    },
    wire::{CheckIn, FrameType, Kind, Request, Status},
};

fn limits(change: impl FnOnce(&mut Limits)) -> Limits {
    let mut limits = Limits::default();
    change(&mut limits);
    limits
}

fn window(octets: u32) -> Limits {
    limits(|it| it.stream_window = octets)
}

fn types(frames: &[Seen]) -> Vec<FrameType> {
    frames.iter().map(Seen::frame_type).collect()
}

/// All items that can be taken now.
fn take_all(raw: &mut Raw, from: impl Into<Stream>) -> Vec<Bytes> {
    let from = from.into();
    let mut items = Vec::new();
    while let Some(Taken::Item(octets)) = raw.conn.take_item(raw.at(), from) {
        items.push(octets);
    }
    items
}

fn send(raw: &mut Raw, to: impl Into<Stream>, octets: &[u8]) {
    raw.conn.send_item(raw.at(), to, Body::Copy(octets)).unwrap();
}

/// A call of the peer that streams to it, with this credit.
fn serves_down(raw: &mut Raw, n: u64, kind: Kind, credit: Option<u32>) -> (tieline_core::conn::Served, u64) {
    let id = peer_id(raw.conn.side(), n);
    raw.feed(&frames::request(id, Request { credit, ..head(kind) }, b""));
    (raw.incoming().call, id)
}

const SENDS_UP: [Kind; 2] = [Kind::ClientStream, Kind::Bidi];
const SENDS_DOWN: [Kind; 2] = [Kind::ServerStream, Kind::Bidi];

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

// ---- credit: this side sends ----------------------------------------------------------------------------------

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

// ---- credit: the peer sends -----------------------------------------------------------------------------------

/// Either end of a stream on which the peer sends, with the credit that it has.
fn receiving(side: Side, up: bool, initial: u32) -> (Raw, Stream, u64) {
    if up {
        let mut raw = node(side, streaming().limits(window(initial)), peer());
        let id = peer_id(side, 0);
        let call = serves(&mut raw, id, Kind::Bidi).call;
        (raw, call.into(), id)
    } else {
        let mut raw = node(side, streaming(), peer());
        let mut head = call_head(Kind::Bidi);
        head.credit = Some(initial);
        let (call, id) = calls(&mut raw, head, 1);
        (raw, call.into(), id)
    }
}

/// R-STR-04: what this side announces, and what it asks for.
#[test]
fn this_side_says_how_much_may_come() {
    let mut raw = Raw::new(streaming().limits(window(12_345)).build().unwrap(), Side::Client);
    match raw.frames()[0].frame().envelope {
        tieline_core::wire::Envelope::CheckIn(said) => {
            assert_eq!((said.stream_window, said.max_streams), (12_345, 256));
        }
        other => panic!("{other:?}"),
    }
    let mut raw = node(Side::Client, streaming(), peer());
    for (asked, said) in [
        (None, None),
        (Some(0), Some(0)),
        (Some(600), Some(600)),
        (Some(i32::MAX as u32), Some(i32::MAX as u32)),
    ] {
        let mut head = call_head(Kind::ServerStream);
        head.credit = asked;
        raw.conn.call(raw.at(), &head, Body::Copy(b""), 1).unwrap();
        assert_eq!(raw.frame().request().credit, said);
    }
}

/// R-STR-05, R-STR-10: to the octet.
#[test]
fn an_item_without_credit_is_a_mistake() {
    for side in SIDES {
        for up in [false, true] {
            for (initial, len, lawful) in
                [(1, 0, 1), (256, 0, 1), (257, 0, 2), (520, 4, 2), (521, 4, 3), (1, 9_000, 1)]
            {
                for begins in [false, true] {
                    let (mut raw, stream, id) = receiving(side, up, initial);
                    for _ in 0..lawful {
                        raw.feed(&item(id, &pattern(len)));
                    }
                    let events = raw.events();
                    assert!(events.iter().all(|event| matches!(event, Event::Readable(_))), "{events:?}");
                    raw.is_quiet();
                    raw.feed(&if begins { begin_item(id, 500, b"x") } else { item(id, b"x") });
                    raw.closes_with(Status::PROTOCOL_ERROR);
                    // What came by the rules is still there for the taking, or is with the outcome.
                    let rest: usize = raw
                        .passed
                        .iter()
                        .map(|event| match event {
                            Event::Done { rest, .. } => rest.len(),
                            _ => 0,
                        })
                        .sum();
                    assert!(rest == lawful || up, "{rest} of {lawful}");
                    let _ = stream;
                }
            }
        }
    }
}

/// R-STR-05: the whole cost at the first frame.
#[test]
fn an_item_in_fragments_costs_all_of_it_at_its_first_frame() {
    for side in SIDES {
        for up in [false, true] {
            let (mut raw, stream, id) = receiving(side, up, 1_000);
            raw.feed(&begin_item(id, 744, b"x"));
            raw.feed(&continuation(id, false, &[7; 743]));
            raw.feed(&item(id, b"y"));
            raw.closes_with(Status::PROTOCOL_ERROR);
            let (mut raw, _, id) = receiving(side, up, 1_000);
            raw.feed(&begin_item(id, 743, b"x"));
            raw.feed(&continuation(id, false, &[7; 742]));
            raw.feed(&item(id, b"y"));
            raw.events();
            raw.is_quiet();
            let _ = stream;
        }
    }
}

/// R-STR-06: gathered up to a quarter, exactly, and only for what was taken.
#[test]
fn credit_comes_back_by_quarters_of_the_window() {
    for side in SIDES {
        for up in [false, true] {
            let (mut raw, stream, id) = receiving(side, up, 64 << 10);
            for _ in 0..40 {
                raw.feed(&item(id, &[7; 744]));
            }
            raw.events();
            raw.is_quiet();
            let mut returned = Vec::new();
            for taken in 1..=40 {
                assert!(matches!(raw.conn.take_item(raw.at(), stream), Some(Taken::Item(_))));
                for frame in raw.frames() {
                    assert_eq!((frame.frame_type(), frame.id()), (FrameType::CREDIT, id));
                    returned.push((taken, granted(&frame)));
                }
            }
            // A quarter is 16 384: the 17th item of 1000 reaches it.
            assert_eq!(returned, [(17, 17_000), (34, 17_000)]);
            assert_eq!(raw.conn.take_item(raw.at(), stream), None);
            raw.is_quiet();
        }
    }
}

/// R-STR-06: a quarter that is reached to the octet.
#[test]
fn a_quarter_to_the_octet_is_a_quarter() {
    for side in SIDES {
        for up in [false, true] {
            for (len, due) in [(744, true), (743, false)] {
                let (mut raw, stream, id) = receiving(side, up, 4_000);
                raw.feed(&item(id, &pattern(len)));
                raw.events();
                raw.conn.take_item(raw.at(), stream).unwrap();
                let frames = raw.frames();
                assert_eq!(frames.len(), usize::from(due), "{len}");
                if due {
                    assert_eq!(granted(&frames[0]), 1_000);
                }
            }
        }
    }
}

/// R-STR-06: at once, if credit is at or below 0.
#[test]
fn credit_comes_back_at_once_when_the_sender_has_none() {
    for side in SIDES {
        for up in [false, true] {
            // 100 000, of which each costs 1000: the quarter is not what is reached.
            let (mut raw, stream, id) = receiving(side, up, 100_000);
            for _ in 0..100 {
                raw.feed(&item(id, &[7; 744]));
            }
            raw.events();
            raw.conn.take_item(raw.at(), stream).unwrap();
            let frame = raw.frame();
            assert_eq!((frame.frame_type(), granted(&frame)), (FrameType::CREDIT, 1_000));
            // It has 1000 now, so the next waits to be gathered.
            raw.conn.take_item(raw.at(), stream).unwrap();
            raw.is_quiet();
            // And when the peer has spent those, what is gathered goes at once.
            raw.feed(&item(id, &[7; 744]));
            let events = raw.events();
            assert!(events.iter().all(|event| matches!(event, Event::Readable(_))), "{events:?}");
            let mut back = raw.frames().iter().map(granted).sum::<u32>();
            raw.conn.take_item(raw.at(), stream).unwrap();
            back += raw.frames().iter().map(granted).sum::<u32>();
            assert_eq!(back, 1_000, "with it the peer has credit again, and the last waits to be gathered");
        }
    }
}

/// R-STR-06, L11: over a long life what is returned is what was taken, and a sender that obeys is never stuck.
#[test]
fn credit_is_conserved_over_a_long_life() {
    for seed in 0..100 {
        let mut random = Random::new(seed);
        let (side, up) = (SIDES[(seed % 2) as usize], seed % 4 < 2);
        let initial = [1, 300, 1_000, 4_096, 65_536][random.below(5)];
        let (mut raw, stream, id) = receiving(side, up, initial);
        let (mut left, mut here, mut taken) = (i64::from(initial), VecDeque::new(), 0_i64);
        let mut items = 0;
        for _ in 0..400 {
            if random.below(2) == 0 && left > 0 {
                let octets = pattern(random.below(600) + 1);
                left -= (octets.len() + ITEM_COST) as i64;
                raw.feed(&item(id, &octets));
                here.push_back(octets);
                items += 1;
            } else if let Some(Taken::Item(octets)) = raw.conn.take_item(raw.at(), stream) {
                taken += (octets.len() + ITEM_COST) as i64;
                assert_eq!(Some(octets.to_vec()), here.pop_front(), "seed {seed}");
            }
            let events = raw.events();
            assert!(events.iter().all(|event| matches!(event, Event::Readable(_))), "seed {seed} {events:?}");
            for frame in raw.frames() {
                assert_eq!((frame.frame_type(), frame.id()), (FrameType::CREDIT, id));
                left += i64::from(granted(&frame));
                taken -= i64::from(granted(&frame));
                assert!(taken >= 0, "seed {seed}: more is returned than was taken");
            }
            // Less than a quarter is kept back, and nothing at all from a sender without credit.
            assert!(
                taken * 4 < i64::from(initial).max(4),
                "seed {seed}: {taken} of {initial} is kept back, the sender has {left}"
            );
            assert!(left > 0 || taken == 0, "seed {seed}: {taken} is kept back");
        }
        assert!(items > 10, "seed {seed}: {items}");
    }
}

/// R-STR-07, R-STR-04: 0 at first, and then as much as the application grants.
#[test]
fn a_stream_that_begins_without_credit_waits_for_a_grant() {
    for side in SIDES {
        let (mut raw, stream, id) = receiving(side, false, 0);
        raw.is_quiet();
        raw.conn.grant(raw.at(), stream, 300);
        let frame = raw.frame();
        assert_eq!((frame.frame_type(), granted(&frame)), (FrameType::CREDIT, 300));
        raw.feed(&item(id, &[7; 100]));
        raw.events();
        raw.conn.take_item(raw.at(), stream).unwrap();
        assert_eq!(granted(&raw.frame()), 356, "at once, because credit is at −56");
        raw.feed(&[item(id, b"x"), item(id, b"y")].concat());
        raw.events();
        raw.feed(&item(id, b"z"));
        raw.closes_with(Status::PROTOCOL_ERROR);
        // Without a grant nothing may come.
        let (mut raw, _, id) = receiving(side, false, 0);
        raw.feed(&item(id, b""));
        raw.closes_with(Status::PROTOCOL_ERROR);
    }
}

/// R-STR-09: this side does not lift credit above 2^31−1 either, whatever the application grants.
#[test]
fn a_grant_never_lifts_credit_above_its_bound() {
    for side in SIDES {
        for up in [false, true] {
            let (mut raw, stream, _) = receiving(side, up, 1_000);
            let mut left = 1_000_i64;
            for octets in [1 << 30, u32::MAX, i32::MAX as u32, 1, 0, 5] {
                raw.conn.grant(raw.at(), stream, octets);
                for frame in raw.frames() {
                    assert_ne!(granted(&frame), 0, "CREDIT of 0");
                    left += i64::from(granted(&frame));
                }
                assert!(left <= i64::from(i32::MAX), "{left}");
            }
            assert_eq!(left, i64::from(i32::MAX));
            // R-STR-07: it may give more than it returns.
            raw.is_quiet();
        }
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

/// R-STR-08: in the end an abandoned item costs 256 and what came of it.
#[test]
fn an_abandoned_item_gives_back_what_did_not_come() {
    for side in SIDES {
        // The peer serves; it abandons, and goes on before it has read the CANCEL.
        let (mut raw, _, id) = receiving(side, false, 1_000);
        raw.feed(&begin_item(id, 900, &[7; 300]));
        raw.feed(&abandon(id));
        assert_eq!(types(&raw.turn()), [FrameType::CANCEL]);
        // 1000 − 556 = 444: two of 256 may begin, and no more.
        raw.feed(&[item(id, b""), item(id, b"")].concat());
        assert!(raw.events().iter().all(|event| matches!(event, Event::Readable(_))));
        raw.is_quiet();
        assert_eq!(raw.conn.stats().late_frames, 0);
        raw.feed(&item(id, b""));
        raw.closes_with(Status::PROTOCOL_ERROR);
    }
}

// ---- broken items ---------------------------------------------------------------------------------------------

/// R-STR-13, R-CHK-17.
#[test]
fn an_item_that_is_too_large_interrupts_the_call_at_its_callee() {
    for side in SIDES {
        for kind in SENDS_UP {
            for begins in [false, true] {
                let bounds = limits(|it| (it.max_item, it.stream_window) = (1_000, 100_000));
                let mut raw = node(side, streaming().limits(bounds), peer());
                let id = peer_id(side, 0);
                let call = serves(&mut raw, id, kind).call;
                raw.feed(&item(id, &[7; 1_000]));
                raw.events();
                raw.feed(&if begins { begin_item(id, 1_001, b"x") } else { item(id, &[7; 1_001]) });
                let events = raw.events();
                assert!(
                    matches!(events[..], [Event::Cancelled(which, Cancel::BrokenItem)] if which == call),
                    "{events:?}"
                );
                assert_eq!(outline(&raw.frames()), [(FrameType::RESPONSE, id, Status::INTERRUPTED)]);
                // The rest is free, and so are items within credit that were under way.
                if begins {
                    raw.feed(&continuation(id, false, &[7; 1_000]));
                }
                raw.feed(&item(id, b"x"));
                raw.is_quiet();
                assert_eq!(raw.conn.stats().late_frames, 0);
                assert_eq!(
                    raw.conn.reply(raw.at(), call, &Reply::ok(Body::Copy(b""))),
                    Err(ReplyError::Answered)
                );
                assert_eq!(raw.conn.open_calls(), (0, 0));
            }
        }
    }
}

/// R-STR-13.
#[test]
fn an_item_that_is_too_large_cancels_the_call_at_its_caller() {
    for side in SIDES {
        for kind in SENDS_DOWN {
            for begins in [false, true] {
                let bounds = limits(|it| (it.max_item, it.stream_window) = (1_000, 100_000));
                let mut raw = node(side, streaming().limits(bounds), peer());
                let (_, id) = calls(&mut raw, call_head(kind), 1);
                raw.feed(&item(id, b"good"));
                raw.events();
                raw.feed(&if begins { begin_item(id, 1_001, b"x") } else { item(id, &[7; 1_001]) });
                let mut frames = raw.turn();
                assert_eq!(outline(&frames), [(FrameType::CANCEL, id, Status::CANCELLED)]);
                if begins {
                    raw.feed(&continuation(id, false, &[7; 1_000]));
                }
                raw.feed(&frames::response(id, Status::CANCELLED_RUNNING, b""));
                frames.extend(raw.turn());
                assert_eq!(frames.len(), 1);
                let done = raw.passed.iter().find_map(|event| match event {
                    Event::Done { outcome, .. } => Some(outcome.as_ref().unwrap_err().status()),
                    _ => None,
                });
                assert_eq!(done, Some(Status::LOCAL_LIMIT));
                assert_eq!((raw.conn.open_calls(), raw.conn.stats().late_frames), ((0, 0), 0));
            }
        }
    }
}

// ---- late items -----------------------------------------------------------------------------------------------

/// R-STR-12, R-ABU-08: items that were under way when the callee ended are free within the credit that was left.
#[test]
fn items_that_crossed_the_response_are_free_within_credit() {
    for side in SIDES {
        for kind in SENDS_UP {
            let bounds = limits(|it| (it.stream_window, it.max_item) = (10_000, 1_000));
            let mut raw = node(side, streaming().limits(bounds), peer());
            let id = peer_id(side, 0);
            let call = serves(&mut raw, id, kind).call;
            raw.feed(&item(id, &[7; 744]));
            raw.events();
            raw.reply(call, b"");
            raw.frames();
            // 9000 are left: nine of 1000, of which one is in fragments, and one may overdraw by nothing.
            for _ in 0..8 {
                raw.feed(&item(id, &[7; 744]));
            }
            raw.feed(&begin_item(id, 744, &[7; 400]));
            raw.feed(&continuation(id, false, &[7; 344]));
            raw.is_quiet();
            assert_eq!(raw.conn.stats().late_frames, 0);
            assert_eq!(points(&mut raw), FULL);
        }
    }
}

/// R-STR-12: beyond it they are late, and charged.
#[test]
fn items_beyond_the_allowance_are_charged() {
    for side in SIDES {
        let bounds = limits(|it| (it.stream_window, it.max_item) = (10_000, 1_000));
        let mut raw = node(side, streaming().limits(bounds), peer());
        let id = peer_id(side, 0);
        let call = serves(&mut raw, id, Kind::ClientStream).call;
        raw.reply(call, b"");
        raw.frames();
        // 10 000 of credit, and 1000 for the one that may overdraw, or 1256 with its cost.
        for _ in 0..112 {
            raw.feed(&item(id, &[7; 744]));
        }
        raw.is_quiet();
        let late = raw.conn.stats().late_frames;
        assert!((100..=102).contains(&late), "{late}");
        assert_eq!(u64::from(FULL - points(&mut raw)), late);
    }
}

/// R-STR-12: STREAM_END and CREDIT that come late are charged as late.
#[test]
fn an_end_and_credit_that_come_late_are_charged() {
    for side in SIDES {
        let mut raw = node(side, streaming(), peer());
        let id = peer_id(side, 0);
        let call = serves(&mut raw, id, Kind::Bidi).call;
        raw.reply(call, b"");
        raw.frames();
        raw.feed(&[end(id), credit(id, 1_000)].concat());
        raw.is_quiet();
        assert_eq!(raw.conn.stats().late_frames, 2);
        assert_eq!(points(&mut raw), FULL - 2);
    }
}

/// R-STR-12: "just" is 30 s.
#[test]
fn the_allowance_for_late_items_lasts_30_s() {
    for side in SIDES {
        let mut raw = node(side, streaming(), peer());
        let id = peer_id(side, 0);
        let call = serves(&mut raw, id, Kind::Bidi).call;
        raw.reply(call, b"");
        raw.frames();
        raw.live(secs(29));
        raw.feed(&item(id, b"x"));
        raw.turn();
        assert_eq!(raw.conn.stats().late_frames, 0);
        raw.live(ms(1_600));
        raw.feed(&item(id, b"x"));
        raw.turn();
        assert_eq!(raw.conn.stats().late_frames, 1);
    }
}

/// R-STR-12: also of a stream that was refused, with the initial credit.
#[test]
fn items_of_a_stream_that_was_refused_are_free_within_the_initial_credit() {
    for side in SIDES {
        let bounds = limits(|it| (it.stream_window, it.max_streams) = (10_000, 1));
        let mut raw = node(side, streaming().limits(bounds), peer());
        serves(&mut raw, peer_id(side, 0), Kind::Bidi);
        let id = peer_id(side, 1);
        raw.feed(&open(id, Kind::Bidi));
        assert!(raw.events().is_empty());
        assert_eq!(raw.frame().status(), Status::TOO_MANY_CALLS);
        for _ in 0..10 {
            raw.feed(&item(id, &[7; 744]));
        }
        raw.is_quiet();
        assert_eq!(raw.conn.stats().late_frames, 0);
        raw.feed(&end(id));
        raw.is_quiet();
        assert_eq!(raw.conn.stats().late_frames, 1);
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

// ---- readable and writable ------------------------------------------------------------------------------------

/// The API: told when there is something to take, and again only for what comes after nothing was left.
#[test]
fn readable_is_told_once_and_never_lost() {
    for side in SIDES {
        for up in [false, true] {
            let (mut raw, stream, id) = receiving(side, up, 64 << 10);
            let readable = |raw: &mut Raw| {
                let events = raw.events();
                assert!(
                    events.iter().all(|event| matches!(event, Event::Readable(which) if *which == stream)),
                    "{events:?}"
                );
                events.len()
            };
            for round in 0..3 {
                raw.feed(&item(id, b"one"));
                assert_eq!(readable(&mut raw), 1, "{round}");
                raw.feed(&item(id, b"two"));
                assert_eq!(readable(&mut raw), 0, "it has been told");
                assert_eq!(raw.conn.take_item(raw.at(), stream), Some(Taken::Item("one".into())));
                raw.feed(&item(id, b"three"));
                assert_eq!(readable(&mut raw), 0, "there is more to take before that");
                assert_eq!(take_all(&mut raw, stream), ["two", "three"]);
            }
            // Items that come before the events are fetched are told together.
            raw.feed(&[item(id, b"one"), item(id, b"two")].concat());
            assert_eq!(readable(&mut raw), 1);
            assert_eq!(take_all(&mut raw, stream).len(), 2);
            // An item in fragments is told when it is whole.
            raw.feed(&begin_item(id, 600, &[7; 300]));
            assert_eq!(readable(&mut raw), 0);
            assert_eq!(raw.conn.take_item(raw.at(), stream), None);
            raw.feed(&continuation(id, false, &[7; 300]));
            assert_eq!(readable(&mut raw), 1);
            assert_eq!(take_all(&mut raw, stream).len(), 1);
            // The end is told like an item.
            if up {
                raw.feed(&end(id));
                assert_eq!(readable(&mut raw), 1);
                assert_eq!(raw.conn.take_item(raw.at(), stream), Some(Taken::End));
                assert_eq!(readable(&mut raw), 0);
            }
        }
    }
}

/// The API: an item that was decoded by another verb than `poll_event` is told, too.
#[test]
fn an_application_that_takes_only_when_it_is_told_gets_everything() {
    for seed in 0..100 {
        let mut random = Random::new(seed);
        let (mut raw, stream, id) = receiving(SIDES[(seed % 2) as usize], seed % 4 < 2, 60_000);
        let (mut sent, mut got) = (0, 0);
        for _ in 0..150 {
            for _ in 0..random.below(3) {
                raw.feed(&item(id, b"x"));
                sent += 1;
            }
            if random.below(2) == 0 {
                raw.conn.handle_timeout(raw.at());
                raw.frames();
            }
            while let Some(event) = raw.conn.poll_event(raw.at()) {
                assert!(matches!(event, Event::Readable(which) if which == stream), "{event:?}");
                if random.below(2) == 0 {
                    raw.feed(&item(id, b"y"));
                    sent += 1;
                }
                got += take_all(&mut raw, stream).len();
                raw.frames();
            }
        }
        assert_eq!(got, sent, "seed {seed}");
        assert!(sent > 100);
    }
}

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

// ---- prices and figures ---------------------------------------------------------------------------------------

/// R-ABU-05, R-ABU-08.
#[test]
fn empty_items_and_small_credit_have_their_price() {
    for side in SIDES {
        for up in [false, true] {
            let cost = |frames: &[Vec<u8>]| {
                let (mut raw, _, id) = receiving(side, up, 1 << 20);
                let _ = id;
                frames.iter().for_each(|frame| raw.feed(frame));
                raw.turn();
                FULL - points(&mut raw)
            };
            let id = receiving(side, up, 1).2;
            assert_eq!(cost(&[]), 0);
            assert_eq!(cost(&vec![item(id, b""); 10]), 10);
            assert_eq!(cost(&vec![item(id, b"x"); 10]), 0);
            assert_eq!(cost(&vec![credit(id, 255); 10]), 10);
            assert_eq!(cost(&vec![credit(id, 256); 10]), 0);
            // An item of which the last fragment is short is not a price.
            assert_eq!(cost(&[begin_item(id, 257, &[7; 256]), continuation(id, false, b"x")]), 0);
        }
    }
}

/// R-ABU-03: a stream that its handler answered gives a point back, and no item does.
#[test]
fn an_answered_stream_gives_a_point_back() {
    for side in SIDES {
        let mut raw = node(side, streaming(), peer());
        raw.feed(&vec![frames::heartbeat_ack(0); 10].concat());
        raw.turn();
        let call = serves(&mut raw, peer_id(side, 0), Kind::Bidi).call;
        send(&mut raw, call, b"x");
        raw.frames();
        raw.reply(call, b"");
        raw.frames();
        assert_eq!(points(&mut raw), FULL - 9);
    }
}

/// The figures that an operator reads.
#[test]
fn items_are_counted_both_ways() {
    for side in SIDES {
        let (mut raw, stream, id) = receiving(side, true, 64 << 10);
        raw.feed(
            &[item(id, b"one"), begin_item(id, 600, &[7; 300]), continuation(id, false, &[7; 300])].concat(),
        );
        raw.events();
        send(&mut raw, stream, &pattern(100_000));
        raw.frames();
        raw.feed(&credit(id, 200_000));
        send(&mut raw, stream, b"");
        raw.events();
        raw.frames();
        assert_eq!((raw.conn.stats().items_in, raw.conn.stats().items_out), (2, 2));
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
