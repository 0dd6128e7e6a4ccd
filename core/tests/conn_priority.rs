//! Priority (protocol §12), at either end and on either side: what waits to leave goes out by it, whole or in fragments.
#![allow(clippy::unwrap_used, clippy::panic, clippy::cast_possible_truncation)]

mod support;

use support::{
    frames::{self, Seen, outline},
    keys::{one_starts, ready},
    output::{CUT, FRAME, Reader, step_one, steps, stepwise},
    raw::Raw,
    streams::{SIDES, head, node, pattern, peer, peer_id, streaming},
};
use tieline_core::{
    conn::{Body, CallHead, Event, Served},
    wire::{CheckIn, Kind, Request},
};

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
        // As long as none is small, large ones have longer frames.
        call(&mut raw, 0, 10);
        step_one(&mut raw);
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
