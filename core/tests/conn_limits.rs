//! Limits on calls at both ends (protocol §5): places, memory, one-ways, results, and what waits.
#![allow(clippy::unwrap_used, clippy::panic, clippy::cast_possible_truncation)]

mod support;

use bytes::Bytes;
use support::{
    frames::{self, echo, outline},
    raw::{Raw, config, limits},
};
use tieline_core::{
    conn::{Body, CallHead, Cancel, Event, Rejection, Reply, ReplyError, Served},
    wire::{CheckIn, CheckInAck, FrameType, Metadata, Repeated, Request, Status},
};

#[test]
fn a_callee_refuses_what_is_over_its_limit_and_closes_on_what_is_far_over_it() {
    let mut raw = Raw::server(config().limits(limits(|it| it.max_concurrent = 2)));
    raw.takes = false;
    let calls: Vec<Served> = [1, 3]
        .map(|id| {
            raw.feed(&frames::call(id, b""));
            raw.incoming().call
        })
        .into();
    // 2 × 2 + 16 places: 18 refusals may wait to be written.
    for id in 0..18 {
        raw.feed(&frames::call(5 + 2 * id, b""));
        assert!(raw.events().is_empty());
    }
    assert_eq!(raw.conn.open_calls().1, 20);
    raw.takes = true;
    let answers = raw.frames();
    assert_eq!(answers.len(), 18);
    assert!(answers.iter().all(|answer| answer.status() == Status::TOO_MANY_CALLS));
    // Written, they count no more.
    raw.feed(&frames::call(101, b""));
    assert!(raw.events().is_empty());
    assert_eq!(raw.frame().status(), Status::TOO_MANY_CALLS);
    // A place is free when the handler has stopped and its answer is out.
    raw.reply(calls[0], b"");
    assert_eq!(raw.frame().id(), 1);
    raw.feed(&frames::call(103, b""));
    raw.incoming();
    for id in 0..19 {
        raw.feed(&frames::call(201 + 2 * id, b""));
    }
    let events = raw.events();
    let frames = raw.frames();
    assert_eq!(outline(&frames), [(FrameType::CLOSE, 0, Status::EXCESSIVE_LOAD)]);
    assert_eq!(raw.closed(events).status, Status::EXCESSIVE_LOAD);
}

#[test]
fn a_handler_that_outlives_its_answer_holds_its_place() {
    let mut raw = Raw::server(config().limits(limits(|it| it.max_concurrent = 1)));
    raw.feed(&frames::call(1, b""));
    let call = raw.incoming().call;
    raw.feed(&frames::cancel(1));
    assert!(matches!(raw.events()[..], [Event::Cancelled(which, Cancel::ByCaller)] if which == call));
    assert_eq!(outline(&raw.frames()), [(FrameType::RESPONSE, 1, Status::CANCELLED_RUNNING)]);
    raw.feed(&frames::call(3, b""));
    assert!(raw.events().is_empty());
    assert_eq!(raw.frame().status(), Status::TOO_MANY_CALLS);
    assert_eq!(raw.conn.reply(raw.at(), call, &Reply::ok(Body::Copy(b""))), Err(ReplyError::Answered));
    raw.feed(&frames::call(5, b""));
    raw.incoming();
}

#[test]
fn a_caller_never_has_more_unanswered_than_the_peer_serves() {
    let said = CheckInAck { identifier: "peer", max_concurrent: 3, ..CheckInAck::default() };
    let mut raw = Raw::client_for(config(), said);
    let ids: Vec<_> = (0..10).map(|user| raw.call(user)).collect();
    let sent = raw.frames();
    assert_eq!(sent.len(), 3);
    // Giving a call up makes no room: only its RESPONSE does.
    assert_eq!(raw.conn.cancel(raw.at(), ids[0]), Some(0));
    assert_eq!(outline(&raw.frames()), [(FrameType::CANCEL, sent[0].id(), Status::CANCELLED)]);
    raw.feed(&frames::response(sent[0].id(), Status::CANCELLED_RUNNING, b""));
    assert!(raw.events().is_empty(), "nobody waits for it");
    let next = raw.frame();
    assert!(next.id() > sent[2].id());
    // One-ways do not wait behind it.
    raw.conn.one_way(raw.at(), &CallHead::new("t.S/Echo"), Body::Copy(b"x"), 99).unwrap();
    assert_eq!(raw.frame().frame_type(), FrameType::ONE_WAY);
    assert!(matches!(raw.outcomes()[..], [(99, Ok(_))]));
}

#[test]
fn memory_is_a_budget_and_what_it_can_never_hold_is_too_large() {
    let bounds = limits(|it| (it.max_message, it.memory) = (10_000, 20_000));
    let mut raw = Raw::server(config().limits(bounds.clone()));
    for id in [1, 3] {
        raw.feed(&frames::call(id, &[0; 9_000]));
        raw.incoming();
    }
    raw.feed(&frames::call(5, &[0; 2_001]));
    assert!(raw.events().is_empty());
    assert_eq!(raw.frame().status(), Status::OVERLOADED);
    raw.feed(&frames::call(7, &[0; 2_000]));
    let call = raw.incoming().call;
    raw.reply(call, b"");
    raw.frames();
    raw.feed(&frames::call(9, &[0; 2_000]));
    raw.incoming();
    // Metadata is held like an argument.
    let metadata = [Metadata { key: "k", value: &[7; 15_000] }];
    let head = Request { metadata: Repeated::from(&metadata), ..echo() };
    let mut raw = Raw::server(config().limits(bounds.clone()));
    raw.feed(&frames::request(1, head, b""));
    raw.incoming();
    raw.feed(&frames::request(3, head, b""));
    assert!(raw.events().is_empty());
    assert_eq!(raw.frame().status(), Status::OVERLOADED);
    raw.feed(&frames::request(5, head, &[0; 10_000]));
    assert!(raw.events().is_empty());
    assert_eq!(raw.frame().status(), Status::TOO_LARGE);
}

#[test]
fn one_ways_have_bounds_of_their_own_and_are_never_answered() {
    let bounds = limits(|it| {
        (it.max_concurrent, it.max_one_ways, it.max_one_way_octets) = (1, 3, 100);
    });
    let mut raw = Raw::server(config().limits(bounds.clone()));
    raw.feed(&frames::one_way(1, b"runs"));
    let running = raw.incoming();
    assert!(running.one_way);
    // One runs at a time; three wait, the rest is dropped.
    for id in 0..5 {
        raw.feed(&frames::one_way(3 + 2 * id, b""));
    }
    raw.is_quiet();
    assert_eq!(raw.conn.stats().dropped_one_ways, 2);
    raw.conn.stopped(raw.at(), running.call);
    for _ in 0..3 {
        let call = raw.incoming().call;
        raw.conn.stopped(raw.at(), call);
    }
    raw.is_quiet();
    // By octets: 60 fit, 120 do not.
    let mut raw = Raw::server(config().limits(bounds));
    raw.feed(&frames::one_way(1, b""));
    raw.incoming();
    raw.feed_all([frames::one_way(3, &[0; 60]), frames::one_way(5, &[0; 60]), frames::one_way(7, &[0; 40])]);
    raw.is_quiet();
    assert_eq!(raw.conn.stats().dropped_one_ways, 1);
    // Calls do not wait for them.
    raw.feed(&frames::call(9, b""));
    assert!(!raw.incoming().one_way);
}

#[test]
fn one_ways_that_run_hold_no_more_than_the_memory_set_aside() {
    let bounds = limits(|it| (it.max_message, it.memory) = (10_000, 20_000));
    let mut raw = Raw::server(config().limits(bounds));
    let mut running = Vec::new();
    for id in 0..10 {
        raw.feed(&frames::one_way(1 + 2 * id, &[0; 9_000]));
        for event in raw.events() {
            let Event::Request(incoming) = event else { panic!("{event:?}") };
            running.push(incoming.call);
        }
    }
    assert_eq!(running.len(), 2, "two of 9 000 octets fit into 20 000");
    for _ in 0..8 {
        let stops = running.remove(0);
        raw.conn.stopped(raw.at(), stops);
        running.push(raw.incoming().call);
    }
}

#[test]
fn results_that_do_not_fit_become_small_errors() {
    let said = CheckIn { identifier: "peer", max_frame: 16 << 10, max_message: 20_000, ..CheckIn::default() };
    let key = [Metadata { key: "Bad Key", value: b"" }];
    let large = [Metadata { key: "k", value: &[0; 17_000] }];
    let message = "m".repeat(17_000);
    let of = |len| Reply::ok(Body::Share(Bytes::from(vec![0; len])));
    let cases = [
        (of((16 << 10) - 1), Status::OK),
        (of(20_000), Status::OK),
        (of(20_001), Status::RESPONSE_TOO_LARGE),
        (of(1 << 20), Status::RESPONSE_TOO_LARGE),
        (Reply::error(Status::ABORTED, &message), Status::RESPONSE_ENCODE),
        (reply_with(&key), Status::RESPONSE_ENCODE),
        (reply_with(&large), Status::RESPONSE_ENCODE),
    ];
    let mut raw = Raw::server_for(config(), said);
    for (id, (reply, status)) in (0..).zip(&cases) {
        raw.feed(&frames::call(1 + 2 * id, b""));
        let call = raw.incoming().call;
        raw.conn.reply(raw.at(), call, reply).unwrap();
        let frames = raw.frames();
        let answer = &frames[0];
        assert_eq!(frames.len(), if reply_len(reply) == 20_000 { 2 } else { 1 });
        assert_eq!(answer.status(), *status);
        assert!(answer.header.len <= 16 << 10);
        if *status != Status::OK {
            assert!(answer.payload().is_empty() && answer.header.len < 200);
        }
    }
}

fn reply_len(reply: &Reply<'_>) -> usize {
    match &reply.body {
        Body::Copy(octets) => octets.len(),
        Body::Share(octets) => octets.len(),
    }
}

fn reply_with<'a>(metadata: &'a [Metadata<'a>]) -> Reply<'a> {
    let mut reply = Reply::ok(Body::Copy(b"x"));
    reply.metadata = metadata;
    reply
}

#[test]
fn priorities_order_what_waits_at_both_ends() {
    let mut raw = Raw::client(config());
    for (user, priority) in [(0, -1), (1, 0), (2, 1), (3, 100), (4, -100), (5, 0)] {
        let mut head = CallHead::new("t.S/Echo");
        head.priority = priority;
        raw.conn.call(raw.at(), &head, Body::Copy(&[user]), user.into()).unwrap();
    }
    let order: Vec<u8> = raw.frames().iter().map(|frame| frame.payload()[0]).collect();
    assert_eq!(order, [2, 3, 1, 5, 0, 4]);
    let mut raw = Raw::server(config());
    let calls: Vec<Served> = [(1, -1), (3, 0), (5, 1)]
        .map(|(id, priority)| {
            raw.feed(&frames::request(id, Request { priority, ..echo() }, b""));
            raw.incoming().call
        })
        .into();
    for call in calls {
        raw.reply(call, b"");
    }
    let ids: Vec<u64> = raw.frames().iter().map(frames::Seen::id).collect();
    assert_eq!(ids, [5, 3, 1]);
}

#[test]
fn refusals_of_this_side_name_the_reason_and_give_the_value_back() {
    let key = [Metadata { key: "Bad", value: b"" }];
    let long = "m".repeat(256);
    let refused = |raw: &mut Raw, head: &CallHead<'_>, len: usize| {
        let body = vec![0; len];
        let rejected = raw.conn.call(raw.at(), head, Body::Copy(&body), 42).unwrap_err();
        assert_eq!(rejected.user, 42);
        rejected.reason
    };
    let mut raw = Raw::client(config().limits(limits(|it| (it.max_queued, it.max_calls) = (100_000, 8))));
    let mut bad = CallHead::new("t.S/Echo");
    bad.metadata = &key;
    assert_eq!(refused(&mut raw, &bad, 0), Rejection::BadHead);
    assert_eq!(refused(&mut raw, &CallHead::new(""), 0), Rejection::BadHead);
    assert_eq!(refused(&mut raw, &CallHead::new(&long), 0), Rejection::BadHead);
    let good = CallHead::new("t.S/Echo");
    assert_eq!(refused(&mut raw, &good, (4 << 20) + 1), Rejection::TooLarge);
    for user in 0..8 {
        raw.call(user);
    }
    assert_eq!(refused(&mut raw, &good, 0), Rejection::Full);
    raw.frames();
    let id = |slot: u64| ((slot + 1) << 17) | (slot << 1) | 1;
    for slot in 0..3 {
        raw.feed(&frames::response(id(slot), Status::OK, b""));
    }
    assert_eq!(raw.outcomes().len(), 3, "not half empty yet");
    raw.feed(&frames::response(id(3), Status::OK, b""));
    let events = raw.events();
    assert!(matches!(events[..], [Event::Done { .. }, Event::Room]), "{events:?}");
    raw.feed(&frames::drain(id(7), 1000));
    assert!(matches!(raw.events()[..], [Event::Draining { .. }]));
    assert_eq!(refused(&mut raw, &good, 0), Rejection::Draining);
    raw.conn.close(raw.at(), Status::NORMAL, "");
    assert_eq!(refused(&mut raw, &good, 0), Rejection::Closed);
    let mut raw = Raw::client_for(config(), CheckInAck { identifier: "peer", ..CheckInAck::default() });
    assert_eq!(refused(&mut raw, &good, 0), Rejection::NotServed);
}

#[test]
fn room_is_said_when_there_is_room_for_what_was_refused() {
    let mut raw = Raw::client_for(
        config().limits(limits(|it| it.max_queued = 60_000)),
        CheckInAck { identifier: "peer", max_concurrent: 1, ..CheckInAck::default() },
    );
    raw.call(0);
    let first = raw.frame().id();
    // 25 000 octets wait behind it, less than half of what may; 40 000 more do not fit.
    raw.conn.call(raw.at(), &CallHead::new("t.S/Echo"), Body::Copy(&[0; 25_000]), 1).unwrap();
    let rejected = raw.conn.call(raw.at(), &CallHead::new("t.S/Echo"), Body::Copy(&[0; 40_000]), 2);
    assert_eq!(rejected.unwrap_err().reason, Rejection::Full);
    assert!(raw.events().is_empty(), "there is no room for it yet");
    raw.feed(&frames::response(first, Status::OK, b""));
    assert!(matches!(raw.events()[..], [Event::Done { .. }]));
    raw.frames();
    assert!(matches!(raw.events()[..], [Event::Room]));
}
