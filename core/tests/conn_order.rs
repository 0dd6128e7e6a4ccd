//! Ordering key and priority (protocol §12), at either end and on either side, judged from outside.
#![allow(clippy::unwrap_used, clippy::panic, clippy::cast_possible_truncation)]

mod support;

use std::collections::BTreeMap;

use support::{
    frames::{self, Seen, cancel, continuation, emit, outline},
    random::Random,
    raw::{Raw, ms, secs},
    streams::{
        Reader, SIDES, abandon, answer, begin_one_way, begin_request, calls, head, item, node, peer, peer_id,
        serves, streaming, without_heartbeats,
    },
};
use tieline_core::{
    conn::{Body, CallHead, Cancel, Event, Incoming, Limits, Rejection, Reply, Served, Side},
    wire::{CheckIn, Envelope, FrameType, Kind, Request, Status},
};

fn limits(change: impl FnOnce(&mut Limits)) -> Limits {
    let mut limits = Limits::default();
    change(&mut limits);
    limits
}

fn ready(side: Side) -> Raw {
    node(side, streaming(), peer())
}

fn limited(side: Side, bounds: Limits) -> Raw {
    node(side, streaming().limits(bounds), peer())
}

const KEY: &[u8] = b"room";

fn keyed(key: &[u8]) -> Request<'_> {
    Request { ordering_key: key, ..head(Kind::Unary) }
}

fn request(id: u64, key: &[u8]) -> Vec<u8> {
    frames::request(id, keyed(key), b"")
}

fn one_way(id: u64, key: &[u8]) -> Vec<u8> {
    emit(FrameType::ONE_WAY, id, Status::OK, Envelope::Request(keyed(key)), b"")
}

/// The calls that start now, and nothing else happens.
fn starts(raw: &mut Raw) -> Vec<Incoming> {
    let start = |event| match event {
        Event::Request(incoming) => incoming,
        other => panic!("{other:?}"),
    };
    raw.events().into_iter().map(start).collect()
}

/// The one call that starts now.
fn one_starts(raw: &mut Raw) -> Incoming {
    let mut all = starts(raw);
    assert_eq!(all.len(), 1, "{all:?}");
    all.remove(0)
}

/// A call of this key runs, and is the first of the peer.
fn running(raw: &mut Raw) -> Served {
    raw.feed(&request(peer_id(raw.conn.side(), 0), KEY));
    one_starts(raw).call
}

// ---- one after the other --------------------------------------------------------------------------------------

/// R-ORD-01: in the order of their ids, one-ways too; the next when the handler before it has stopped.
#[test]
fn calls_of_one_key_run_one_after_the_other_in_the_order_of_their_ids() {
    for side in SIDES {
        let mut raw = ready(side);
        let one_ways = [false, true, true, false, false, true];
        for (n, is_one_way) in (0..).zip(one_ways) {
            let id = peer_id(side, 3 * n);
            let envelope = Envelope::Request(keyed(KEY));
            let frame_type = if is_one_way { FrameType::ONE_WAY } else { FrameType::REQUEST };
            raw.feed(&emit(frame_type, id, Status::OK, envelope, &[n as u8]));
        }
        for (n, is_one_way) in (0u8..).zip(one_ways) {
            let incoming = one_starts(&mut raw);
            assert_eq!((&incoming.payload[..], incoming.one_way), (&[n][..], is_one_way), "{side:?}");
            assert_eq!(incoming.ordering_key(), KEY);
            raw.wait(secs(1));
            assert!(raw.passed.is_empty(), "it waits however long it takes: {:?}", raw.passed);
            if is_one_way {
                raw.conn.stopped(raw.at(), incoming.call);
            } else {
                raw.reply(incoming.call, b"");
            }
        }
        let sent = without_heartbeats(raw.turn());
        assert!(sent.len() == 1 || sent.is_empty());
        assert_eq!(raw.conn.open_calls(), (0, 0));
        // The key is free again.
        raw.feed(&request(peer_id(side, 100), KEY));
        one_starts(&mut raw);
    }
}

/// R-ORD-01, R-ORD-06: keys have nothing to do with each other, and the empty one is none.
#[test]
fn keys_do_not_wait_for_each_other_and_the_empty_key_is_none() {
    for side in SIDES {
        let mut raw = ready(side);
        let keys: [&[u8]; 9] = [b"a", b"b", b"", b"aa", b"", b"A", b"a\0", b"\0", &[b'a'; 64]];
        for (n, key) in (0..).zip(keys) {
            raw.feed(&request(peer_id(side, n), key));
        }
        assert_eq!(starts(&mut raw).len(), keys.len());
        // Each but the empty one is held.
        for (n, key) in (100..).zip(keys) {
            raw.feed(&request(peer_id(side, n), key));
            assert_eq!(starts(&mut raw).len(), usize::from(key.is_empty()), "{key:?}");
        }
    }
}

/// R-ORD-01: "of one direction of one connection".
#[test]
fn a_key_is_of_one_direction_of_one_connection() {
    for side in SIDES {
        let mut raw = ready(side);
        let mut head = CallHead::new("t.S/Echo");
        head.ordering_key = KEY;
        calls(&mut raw, head, 1);
        running(&mut raw);
        let mut other = ready(side);
        running(&mut other);
    }
}

/// R-ORD-01: streams as well, and what they get before they start waits for them.
#[test]
fn streams_have_keys_like_other_calls() {
    for side in SIDES {
        let mut raw = ready(side);
        let first = running(&mut raw);
        let id = peer_id(side, 1);
        raw.feed(&frames::request(id, Request { ordering_key: KEY, ..head(Kind::Bidi) }, b""));
        raw.feed(&item(id, b"early"));
        raw.feed(&request(peer_id(side, 2), KEY));
        raw.is_quiet();
        raw.reply(first, b"");
        let stream = raw
            .events()
            .into_iter()
            .find_map(|event| match event {
                Event::Request(incoming) => Some(incoming.call),
                _ => None,
            })
            .unwrap();
        assert!(raw.conn.take_item(raw.at(), stream).is_some());
        raw.frames();
        raw.events();
        raw.reply(stream, b"");
        one_starts(&mut raw);
    }
}

// ---- when the one before has ended ----------------------------------------------------------------------------

/// R-ORD-01, R-CAN-04: what is answered has not stopped.
#[test]
fn the_key_is_held_until_the_handler_has_stopped_not_until_the_call_is_answered() {
    for side in SIDES {
        for expires in [false, true] {
            let mut raw = ready(side);
            let (first, second) = (peer_id(side, 0), peer_id(side, 1));
            let timeout_us = expires.then_some(50_000);
            raw.feed(&frames::request(first, Request { timeout_us, ..keyed(KEY) }, b""));
            let call = one_starts(&mut raw).call;
            raw.feed(&request(second, KEY));
            raw.is_quiet();
            if !expires {
                raw.feed(&cancel(first));
            }
            let sent = raw.wait(ms(200));
            let status = if expires { Status::EXPIRED_RUNNING } else { Status::CANCELLED_RUNNING };
            assert_eq!(answer(&sent, first), Some(status));
            let expected = if expires { Cancel::Expired } else { Cancel::ByCaller };
            assert!(
                matches!(raw.passed[..], [Event::Cancelled(it, why)] if it == call && why == expected),
                "{:?}",
                raw.passed
            );
            raw.conn.stopped(raw.at(), call);
            one_starts(&mut raw);
        }
    }
}

/// R-ORD-01, R-STR-13: the same of a stream that its peer broke.
#[test]
fn a_stream_that_was_interrupted_holds_its_key_until_its_handler_has_stopped() {
    for side in SIDES {
        let mut raw = limited(side, limits(|it| it.max_item = 100));
        let id = peer_id(side, 0);
        raw.feed(&frames::request(id, Request { ordering_key: KEY, ..head(Kind::ClientStream) }, b""));
        let call = one_starts(&mut raw).call;
        raw.feed(&[request(peer_id(side, 1), KEY), item(id, &[7; 101])].concat());
        let sent = raw.turn();
        assert_eq!(answer(&sent, id), Some(Status::INTERRUPTED));
        assert!(raw.passed.iter().all(|event| matches!(event, Event::Cancelled(..))), "{:?}", raw.passed);
        raw.conn.stopped(raw.at(), call);
        one_starts(&mut raw);
    }
}

/// R-ORD-01: refused by a layer, panicked, failed: it has stopped.
#[test]
fn however_a_call_ends_the_next_of_its_key_starts() {
    for side in SIDES {
        for end in 0..5 {
            let mut raw = ready(side);
            let call = running(&mut raw);
            raw.feed(&request(peer_id(side, 1), KEY));
            raw.is_quiet();
            let at = raw.at();
            match end {
                0 => raw.conn.refuse(at, call, &Reply::error(Status::DENIED, "no")).unwrap(),
                1 => raw.conn.panicked(at, call).unwrap(),
                2 => raw.conn.stopped(at, call),
                3 => raw.conn.reply(at, call, &Reply::error(Status::NOT_FOUND, "no")).unwrap(),
                _ => raw.conn.reply(at, call, &Reply::ok(Body::Copy(&[7; 200_000]))).unwrap(),
            }
            // Whether its answer has left makes no difference.
            one_starts(&mut raw);
        }
    }
}

/// R-ORD-01: a call that the runtime refuses never holds its key.
#[test]
fn a_call_that_is_refused_does_not_hold_its_key() {
    for side in SIDES {
        for bad in [
            Request { method: 99, ..keyed(KEY) },
            Request { kind: 1, ..keyed(KEY) },
            Request { codec: 9, ..keyed(KEY) },
            Request { timeout_us: Some(0), ..keyed(KEY) },
        ] {
            let mut raw = ready(side);
            raw.feed(&frames::request(peer_id(side, 0), bad, b""));
            assert!(raw.events().is_empty());
            assert_eq!(raw.frame().frame_type(), FrameType::RESPONSE);
            raw.feed(&request(peer_id(side, 1), KEY));
            one_starts(&mut raw);
            // Nor one that is refused behind another.
            raw.feed(&frames::request(peer_id(side, 2), bad, b""));
            raw.feed(&request(peer_id(side, 3), KEY));
            raw.is_quiet_but_answers();
        }
        let mut raw = ready(side);
        raw.feed(&begin_request(peer_id(side, 0), keyed(KEY), 1 << 40, &[7; 300]));
        raw.turn();
        raw.feed(&request(peer_id(side, 1), KEY));
        one_starts(&mut raw);
    }
}

trait Answers {
    fn is_quiet_but_answers(&mut self);
}

impl Answers for Raw {
    /// Nothing starts.
    fn is_quiet_but_answers(&mut self) {
        let events = self.events();
        assert!(events.is_empty(), "{events:?}");
        assert!(self.frames().iter().all(|frame| frame.frame_type() == FrameType::RESPONSE));
    }
}

// ---- what waits -----------------------------------------------------------------------------------------------

/// R-ORD-01, R-CAN-03: cancelled while it waits, it counts as refused.
#[test]
fn a_call_that_is_cancelled_while_it_waits_never_starts_and_holds_nobody_up() {
    for side in SIDES {
        for which in 1..=3 {
            let mut raw = ready(side);
            let mut current = running(&mut raw);
            for n in 1..=3 {
                raw.feed(&frames::request(peer_id(side, n), keyed(KEY), &[n as u8]));
            }
            raw.is_quiet();
            raw.feed(&cancel(peer_id(side, which)));
            let sent = raw.wait(ms(100));
            let expected = [(FrameType::RESPONSE, peer_id(side, which), Status::CANCELLED_IN_QUEUE)];
            assert_eq!(outline(&sent), expected);
            assert!(raw.passed.is_empty(), "{:?}", raw.passed);
            for n in (1..=3).filter(|n| *n != which) {
                raw.reply(current, b"");
                let incoming = one_starts(&mut raw);
                assert_eq!(incoming.payload[..], [n as u8]);
                current = incoming.call;
            }
            raw.reply(current, b"");
            raw.turn();
            assert_eq!(raw.conn.open_calls(), (0, 0));
        }
    }
}

/// R-ORD-01, R-CAN-09, R-CAL-07: expired while it waits.
#[test]
fn a_call_that_expires_while_it_waits_never_starts_and_holds_nobody_up() {
    for side in SIDES {
        let mut raw = ready(side);
        let first = running(&mut raw);
        let brief = Request { timeout_us: Some(300_000), ..keyed(KEY) };
        raw.feed(&frames::request(peer_id(side, 1), brief, b"brief"));
        raw.feed(&emit(FrameType::ONE_WAY, peer_id(side, 2), Status::OK, Envelope::Request(brief), b"brief"));
        raw.feed(&frames::request(peer_id(side, 3), keyed(KEY), b"patient"));
        assert!(raw.wait(ms(299)).is_empty());
        let sent = raw.wait(ms(101));
        let expected = [(FrameType::RESPONSE, peer_id(side, 1), Status::EXPIRED_IN_QUEUE)];
        assert_eq!(outline(&sent), expected);
        assert!(raw.passed.is_empty(), "{:?}", raw.passed);
        raw.reply(first, b"");
        assert_eq!(one_starts(&mut raw).payload, "patient");
        assert_eq!(raw.conn.stats().dropped_one_ways, 1);
    }
}

/// R-ORD-03: it holds back what is behind it, whatever the priority; what has another key goes on.
#[test]
fn a_large_call_that_arrives_holds_back_the_small_one_behind_it() {
    for side in SIDES {
        for is_one_way in [false, true] {
            let mut raw = ready(side);
            let (large, small) = (peer_id(side, 0), peer_id(side, 1));
            let begin = if is_one_way { begin_one_way } else { begin_request };
            raw.feed(&begin(large, keyed(KEY), 1_000, &[7; 300]));
            raw.feed(&frames::request(small, Request { priority: 1, ..keyed(KEY) }, b"small"));
            raw.feed(&one_way(peer_id(side, 2), KEY));
            raw.is_quiet();
            raw.feed(&request(peer_id(side, 3), b"other"));
            one_starts(&mut raw);
            raw.feed(&continuation(large, false, &[7; 700]));
            let incoming = one_starts(&mut raw);
            assert_eq!((incoming.payload.len(), incoming.one_way), (1_000, is_one_way));
            raw.conn.stopped(raw.at(), incoming.call);
            let incoming = one_starts(&mut raw);
            assert_eq!(incoming.payload, "small");
            raw.reply(incoming.call, b"");
            assert!(one_starts(&mut raw).one_way);
        }
    }
}

/// R-ORD-01: of two that arrive at once the order is that of their ids, not that of their ends.
#[test]
fn calls_of_one_key_that_arrive_at_once_start_in_the_order_of_their_ids() {
    for side in SIDES {
        let mut raw = ready(side);
        for n in 0..3 {
            raw.feed(&begin_request(peer_id(side, n), keyed(KEY), 600, &[n as u8; 300]));
        }
        for n in [2, 1] {
            raw.feed(&continuation(peer_id(side, n), false, &[n as u8; 300]));
            raw.is_quiet();
        }
        raw.feed(&continuation(peer_id(side, 0), false, &[0; 300]));
        for n in 0..3 {
            let incoming = one_starts(&mut raw);
            assert_eq!(incoming.payload[..], [n; 600]);
            raw.reply(incoming.call, b"");
        }
    }
}

/// R-ORD-01, R-FRG-18: abandoned, cancelled, expired or never whole: what waits behind it starts.
#[test]
fn a_large_call_that_never_comes_whole_lets_the_next_start() {
    for side in SIDES {
        for is_one_way in [false, true] {
            for end in 0..4 {
                // A one-way cannot be cancelled (R-ID-10).
                if is_one_way && end == 1 {
                    continue;
                }
                let mut raw = ready(side);
                let id = peer_id(side, 0);
                let timeout_us = (end == 2).then_some(100_000);
                let begin = if is_one_way { begin_one_way } else { begin_request };
                raw.feed(&begin(id, Request { timeout_us, ..keyed(KEY) }, 1_000, &[7; 300]));
                raw.feed(&request(peer_id(side, 1), KEY));
                raw.is_quiet();
                match end {
                    0 => raw.feed(&abandon(id)),
                    1 => raw.feed(&cancel(id)),
                    _ => {}
                }
                let sent = raw.live(if end == 3 { secs(31) } else { ms(200) });
                let status = match end {
                    0 | 1 => Status::CANCELLED_IN_QUEUE,
                    2 => Status::EXPIRED_IN_QUEUE,
                    _ => Status::NOT_COMPLETED,
                };
                assert_eq!(answer(&sent, id), (!is_one_way).then_some(status), "{side:?} {is_one_way} {end}");
                assert!(
                    matches!(&raw.passed[..], [Event::Request(it)] if !it.one_way && it.payload.is_empty()),
                    "{side:?} {is_one_way} {end}: {:?}",
                    raw.passed
                );
            }
        }
    }
}

/// R-ORD-02, R-CAL-10: waiting holds a slot.
#[test]
fn waiting_for_a_key_holds_a_slot() {
    for side in SIDES {
        let mut raw = limited(side, limits(|it| it.max_concurrent = 3));
        let first = running(&mut raw);
        raw.feed(&[request(peer_id(side, 1), KEY), request(peer_id(side, 2), KEY)].concat());
        raw.is_quiet();
        for (n, key) in (3..).zip([KEY, b"other", b""]) {
            raw.feed(&request(peer_id(side, n), key));
            assert!(raw.events().is_empty());
            let expected = [(FrameType::RESPONSE, peer_id(side, n), Status::TOO_MANY_CALLS)];
            assert_eq!(outline(&raw.frames()), expected);
        }
        raw.reply(first, b"");
        let second = one_starts(&mut raw).call;
        raw.frames();
        // One slot is free now.
        serves(&mut raw, peer_id(side, 20), Kind::Unary);
        raw.reply(second, b"");
        one_starts(&mut raw);
    }
}

/// R-ORD-02, R-CAL-15: one-ways hold none; their bound is their own.
#[test]
fn one_ways_that_wait_for_a_key_hold_no_slot() {
    for side in SIDES {
        let mut raw = limited(side, limits(|it| (it.max_concurrent, it.max_one_ways) = (2, 10)));
        let mut call = running(&mut raw);
        for n in 1..=15 {
            let envelope = Envelope::Request(keyed(KEY));
            raw.feed(&emit(FrameType::ONE_WAY, peer_id(side, n), Status::OK, envelope, &[n as u8]));
        }
        raw.is_quiet();
        assert_eq!(raw.conn.stats().dropped_one_ways, 5);
        serves(&mut raw, peer_id(side, 16), Kind::Unary);
        for n in 1..=10 {
            raw.conn.stopped(raw.at(), call);
            let incoming = one_starts(&mut raw);
            assert_eq!(incoming.payload[..], [n]);
            call = incoming.call;
        }
        raw.conn.stopped(raw.at(), call);
        assert!(starts(&mut raw).is_empty());
    }
}

/// R-DRN-04: what was accepted before a drain runs in its order.
#[test]
fn calls_that_wait_for_their_key_are_served_while_this_side_drains() {
    for side in SIDES {
        let mut raw = ready(side);
        let first = running(&mut raw);
        raw.feed(&[request(peer_id(side, 1), KEY), one_way(peer_id(side, 2), KEY)].concat());
        raw.is_quiet();
        raw.conn.drain(raw.at(), Status::GOING_AWAY, secs(10), "restart");
        raw.frames();
        raw.reply(first, b"");
        let second = one_starts(&mut raw);
        raw.reply(second.call, b"");
        assert!(one_starts(&mut raw).one_way);
    }
}

/// R-ORD-01, R-CLS-05: when the connection has ended, the one-ways that came whole start without waiting, in the order
/// of their ids; the others never do.
#[test]
fn one_ways_that_wait_start_when_the_connection_has_ended() {
    for side in SIDES {
        let mut raw = ready(side);
        let first = running(&mut raw);
        for n in [1u64, 3, 4] {
            let key = if n == 3 { b"room" } else { KEY };
            let envelope = Envelope::Request(keyed(key));
            raw.feed(&emit(FrameType::ONE_WAY, peer_id(side, n), Status::OK, envelope, &[n as u8]));
        }
        raw.feed(&request(peer_id(side, 5), KEY));
        raw.feed(&begin_one_way(peer_id(side, 6), keyed(KEY), 1_000, &[7; 300]));
        let envelope = Envelope::Request(keyed(KEY));
        raw.feed(&emit(FrameType::ONE_WAY, peer_id(side, 7), Status::OK, envelope, &[7]));
        raw.is_quiet();
        raw.eof();
        let events = raw.events();
        let started: Vec<u8> = events
            .iter()
            .filter_map(|event| match event {
                Event::Request(incoming) => {
                    assert!(incoming.one_way);
                    Some(incoming.payload[0])
                }
                _ => None,
            })
            .collect();
        assert_eq!(started, [1, 3, 4, 7], "{side:?} {events:?}");
        assert!(events.iter().any(|it| matches!(it, Event::Cancelled(call, _) if *call == first)));
        assert!(matches!(events.last(), Some(Event::Closed(_))));
    }
}

// ---- bounds ---------------------------------------------------------------------------------------------------

/// R-ORD-06, R-CAL-17.
#[test]
fn a_key_of_64_octets_passes_and_one_of_65_is_refused() {
    for side in SIDES {
        let mut raw = ready(side);
        raw.feed(&request(peer_id(side, 0), &[7; 64]));
        assert_eq!(one_starts(&mut raw).ordering_key(), [7; 64]);
        raw.feed(&request(peer_id(side, 1), &[7; 65]));
        assert!(raw.events().is_empty());
        assert_eq!(outline(&raw.frames()), [(FrameType::RESPONSE, peer_id(side, 1), Status::BAD_REQUEST)]);
        raw.feed(&one_way(peer_id(side, 2), &[7; 65]));
        raw.is_quiet();
        assert_eq!(raw.conn.stats().dropped_one_ways, 1);
        // At the caller.
        let mut head = CallHead::new("t.S/Echo");
        head.ordering_key = &[7; 64];
        raw.conn.call(raw.at(), &head, Body::Copy(b""), 1).unwrap();
        let frame = raw.frame();
        assert_eq!(frame.request().ordering_key, [7; 64]);
        head.ordering_key = &[7; 65];
        for is_one_way in [false, true] {
            let (at, body) = (raw.at(), Body::Copy(&b""[..]));
            let rejected = if is_one_way {
                raw.conn.one_way(at, &head, body, 2).unwrap_err()
            } else {
                raw.conn.call(at, &head, body, 2).unwrap_err()
            };
            assert_eq!((rejected.user, rejected.reason), (2, Rejection::BadHead));
        }
        raw.is_quiet();
    }
}

// ---- priority -------------------------------------------------------------------------------------------------

fn payloads(frames: &[Seen]) -> Vec<u8> {
    frames.iter().map(|frame| frame.payload()[0]).collect()
}

/// R-ORD-07: −1, 0 or 1, others are clamped; higher first.
#[test]
fn priority_orders_the_calls_that_wait_to_leave() {
    for side in SIDES {
        for is_one_way in [false, true] {
            let mut raw = ready(side);
            for (user, priority) in [(0, -1), (1, 0), (2, 1), (3, 100), (4, -100), (5, 0), (6, 2)] {
                let mut head = CallHead::new("t.S/Echo");
                head.priority = priority;
                let (at, octets) = (raw.at(), [user as u8]);
                let body = Body::Copy(&octets);
                if is_one_way {
                    raw.conn.one_way(at, &head, body, user).unwrap();
                } else {
                    raw.conn.call(at, &head, body, user).unwrap();
                }
            }
            let sent = raw.frames();
            assert_eq!(payloads(&sent), [2, 3, 6, 1, 5, 0, 4], "{side:?}");
            assert!(sent.iter().all(|frame| (-1..=1).contains(&i64::from(frame.request().priority))));
        }
    }
}

/// R-ORD-03: at the caller too the key beats the priority: what has one key leaves in the order in which it was called.
#[test]
fn calls_of_one_key_leave_in_the_order_in_which_they_were_called() {
    for side in SIDES {
        let mut raw = ready(side);
        for (user, key, priority) in
            [(0, &b"a"[..], 0), (1, b"a", 1), (2, b"b", 1), (3, b"a", -1), (4, b"", 1), (5, b"a", 1)]
        {
            let mut head = CallHead::new("t.S/Echo");
            (head.ordering_key, head.priority) = (key, priority);
            raw.conn.call(raw.at(), &head, Body::Copy(&[user as u8]), user).unwrap();
        }
        let sent = payloads(&raw.frames());
        let same: Vec<u8> = sent.iter().copied().filter(|user| [0, 1, 3, 5].contains(user)).collect();
        assert_eq!(same, [0, 1, 3, 5], "{side:?} {sent:?}");
    }
}

/// Five calls of different priority; a message of each waits at the callee when it may write.
fn leave_by_priority(kind: Kind, len: usize) {
    for side in SIDES {
        let mut raw = node(side, streaming(), CheckIn { stream_window: 1 << 30, ..peer() });
        let priorities = [(0, -1), (1, 0), (2, 1), (3, -9), (4, 9)];
        let served: Vec<Served> = priorities
            .map(|(n, priority)| {
                let credit = Some(1 << 30);
                raw.feed(&frames::request(peer_id(side, n), Request { priority, credit, ..head(kind) }, b""));
                let incoming = one_starts(&mut raw);
                assert_eq!(i32::from(incoming.priority), priority.clamp(-1, 1));
                incoming.call
            })
            .into();
        for (n, call) in (0u8..).zip(served) {
            let payload = vec![n; len];
            if kind == Kind::Unary {
                raw.reply(call, &payload);
            } else {
                raw.conn.send_item(raw.at(), call, Body::Copy(&payload)).unwrap();
            }
        }
        let sent = Reader::new(64 << 10).read(&raw.frames());
        let order: Vec<u8> = sent.iter().map(|message| message.payload[0]).collect();
        assert_eq!(order, [2, 4, 1, 0, 3], "{side:?}");
    }
}

/// R-ORD-07, R-FRG-12: a RESPONSE has the priority of its REQUEST.
#[test]
fn priority_orders_the_answers_that_wait() {
    leave_by_priority(Kind::Unary, 1);
    leave_by_priority(Kind::Unary, 10_000);
}

/// R-ORD-07, R-FRG-12: so have its items.
#[test]
fn priority_orders_the_items_that_wait() {
    leave_by_priority(Kind::ServerStream, 1);
}

/// R-ORD-07, R-FRG-12.
#[test]
fn priority_orders_the_large_items_that_wait() {
    leave_by_priority(Kind::ServerStream, 10_000);
}

// ---- over long runs -------------------------------------------------------------------------------------------

/// What a model knows of a call of the peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Known {
    Arrives,
    Waits,
    Runs(Served),
    Gone,
}

/// R-ORD-01, against a model: whatever comes, at most one of a key runs, none starts before an earlier one that may
/// still start, and none is forgotten.
#[test]
fn over_a_long_life_every_key_keeps_its_order_and_nobody_is_forgotten() {
    for seed in 0..60 {
        let mut random = Random::new(seed);
        let side = SIDES[seed as usize % 2];
        let mut raw = ready(side);
        // By number: the key, whether it is a one-way, and what became of it.
        let mut known: BTreeMap<u64, (usize, bool, Known)> = BTreeMap::new();
        let mut next = 0;
        for _ in 0..400 {
            let pick =
                |random: &mut Random, known: &BTreeMap<u64, (usize, bool, Known)>, of: fn(Known) -> bool| {
                    let numbers: Vec<u64> =
                        known.iter().filter(|(_, it)| of(it.2)).map(|(number, _)| *number).collect();
                    (!numbers.is_empty()).then(|| *random.pick(&numbers))
                };
            match random.below(6) {
                0 | 1 => {
                    let (key, is_one_way, begins) = (random.below(3), random.once_in(3), random.once_in(2));
                    let name = [b'a' + key as u8];
                    let id = peer_id(side, next);
                    let payload = next.to_be_bytes();
                    raw.feed(&match (is_one_way, begins) {
                        (true, true) => {
                            begin_one_way(id, keyed(&name), 308, &[&payload[..], &[0; 292]].concat())
                        }
                        (false, true) => {
                            begin_request(id, keyed(&name), 308, &[&payload[..], &[0; 292]].concat())
                        }
                        (true, false) => {
                            let envelope = Envelope::Request(keyed(&name));
                            emit(FrameType::ONE_WAY, id, Status::OK, envelope, &payload)
                        }
                        (false, false) => frames::request(id, keyed(&name), &payload),
                    });
                    known.insert(next, (key, is_one_way, if begins { Known::Arrives } else { Known::Waits }));
                    next += 1;
                }
                2 => {
                    if let Some(number) = pick(&mut random, &known, |it| it == Known::Arrives) {
                        let whole = random.once_in(2);
                        let id = peer_id(side, number);
                        raw.feed(&if whole { continuation(id, false, &[0; 8]) } else { abandon(id) });
                        known.get_mut(&number).unwrap().2 = if whole { Known::Waits } else { Known::Gone };
                    }
                }
                3 => {
                    if let Some(number) = pick(&mut random, &known, |it| it == Known::Waits)
                        && !known[&number].1
                    {
                        raw.feed(&cancel(peer_id(side, number)));
                        known.get_mut(&number).unwrap().2 = Known::Gone;
                    }
                }
                _ => {
                    if let Some(number) = pick(&mut random, &known, |it| matches!(it, Known::Runs(_))) {
                        let Known::Runs(call) = known[&number].2 else { panic!() };
                        raw.conn.stopped(raw.at(), call);
                        known.get_mut(&number).unwrap().2 = Known::Gone;
                    }
                }
            }
            for incoming in starts(&mut raw) {
                let number = u64::from_be_bytes(incoming.payload[..8].try_into().unwrap());
                assert_eq!(known[&number].2, Known::Waits, "seed {seed}");
                known.get_mut(&number).unwrap().2 = Known::Runs(incoming.call);
            }
            raw.frames();
            for key in 0..3 {
                // The first that is not gone runs, unless it still arrives; and nobody else does.
                let mut alive = known.values().filter(|it| it.0 == key && it.2 != Known::Gone).map(|it| it.2);
                let first = alive.next();
                assert_ne!(first, Some(Known::Waits), "seed {seed}: it is forgotten");
                assert!(alive.all(|it| !matches!(it, Known::Runs(_))), "seed {seed}: it is early");
            }
            known.retain(|_, it| it.2 != Known::Gone);
        }
    }
}
