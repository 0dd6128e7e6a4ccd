//! The ordering key (protocol §12), at either end and on either side: calls of one key run one after the other, and when
//! the one before has ended.
#![allow(clippy::unwrap_used, clippy::panic, clippy::cast_possible_truncation)]

mod support;

use std::collections::BTreeMap;

use support::{
    frames::{self, cancel, continuation, emit},
    keys::{KEY, keyed, limited, one_starts, ready, request, running, starts},
    output::{answer, without_heartbeats},
    random::Random,
    raw::{Raw, limits, ms, secs},
    streams::{SIDES, abandon, begin_one_way, begin_request, calls, head, item, peer_id},
};
use tieline_core::{
    conn::{Body, CallHead, Cancel, Event, Reply, Served},
    wire::{Envelope, FrameType, Kind, Request, Status},
};

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
            nothing_starts(&mut raw);
        }
        let mut raw = ready(side);
        raw.feed(&begin_request(peer_id(side, 0), keyed(KEY), 1 << 40, &[7; 300]));
        raw.turn();
        raw.feed(&request(peer_id(side, 1), KEY));
        one_starts(&mut raw);
    }
}

/// Answers go out at most.
fn nothing_starts(raw: &mut Raw) {
    let events = raw.events();
    assert!(events.is_empty(), "{events:?}");
    assert!(raw.frames().iter().all(|frame| frame.frame_type() == FrameType::RESPONSE));
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
