//! Calls that wait for their ordering key (protocol §12), at either end and on either side: how they end unstarted, what
//! they hold meanwhile, and the bounds of a key.
#![allow(clippy::unwrap_used, clippy::panic, clippy::cast_possible_truncation)]

mod support;

use support::{
    frames::{self, cancel, continuation, emit, outline},
    keys::{KEY, keyed, limited, one_starts, one_way, ready, request, running, starts},
    output::answer,
    raw::{limits, ms, secs},
    streams::{SIDES, abandon, begin_one_way, begin_request, peer_id, serves},
};
use tieline_core::{
    conn::{Body, CallHead, Event, Rejection},
    wire::{Envelope, FrameType, Kind, Request, Status},
};

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
