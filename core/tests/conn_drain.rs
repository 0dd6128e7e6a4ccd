//! Drain (protocol §5, "Drain").
#![allow(clippy::unwrap_used, clippy::panic, clippy::cast_possible_truncation)]

mod support;

use support::{
    frames::{self, outline},
    raw::{Raw, config, ms, secs},
};
use tieline_core::{
    conn::{Body, By, CallHead, Cancel, End, Event, Rejection, Reply},
    wire::{CheckInAck, Envelope, FrameType, Ran, Status},
};

fn drains(raw: &mut Raw, grace_ms: u64) {
    raw.conn.drain(raw.at(), Status::GOING_AWAY, ms(grace_ms), "moving house");
}

#[test]
fn drain_names_the_highest_call_that_is_accepted_and_ends_when_that_is_done() {
    let mut raw = Raw::server(config());
    raw.feed(&frames::call(7, b""));
    let call = raw.incoming().call;
    drains(&mut raw, 5_000);
    let frame = raw.frame();
    assert_eq!(outline(std::slice::from_ref(&frame)), [(FrameType::DRAIN, 7, Status::GOING_AWAY)]);
    let Envelope::Drain(said) = frame.frame().envelope else { panic!() };
    assert_eq!((said.grace_ms, said.message), (5_000, "moving house"));
    // What is above it is refused, one-ways too.
    raw.feed_all([frames::call(9, b""), frames::one_way(11, b""), frames::call(13, b"")]);
    assert!(raw.events().is_empty());
    let refused = [(FrameType::RESPONSE, 9, Status::DRAINING), (FrameType::RESPONSE, 13, Status::DRAINING)];
    assert_eq!(outline(&raw.frames()), refused);
    assert_eq!(raw.conn.stats().dropped_one_ways, 1);
    // The open one is finished, and that is the end, with the status of the DRAIN.
    raw.reply(call, b"done");
    let last = [(FrameType::RESPONSE, 7, Status::OK), (FrameType::CLOSE, 0, Status::GOING_AWAY)];
    assert_eq!(outline(&raw.frames()), last);
    let closed = raw.closed(vec![]);
    assert_eq!((closed.by, closed.status), (By::Us, Status::GOING_AWAY));
}

#[test]
fn an_idle_connection_drains_at_once() {
    let mut raw = Raw::server(config());
    drains(&mut raw, 5_000);
    assert_eq!(
        outline(&raw.frames()),
        [(FrameType::DRAIN, 0, Status::GOING_AWAY), (FrameType::CLOSE, 0, Status::GOING_AWAY)]
    );
}

#[test]
fn calls_of_this_side_that_are_under_way_are_waited_for_and_those_that_are_not_do_not_begin() {
    let said = CheckInAck { identifier: "peer", max_concurrent: 1, ..CheckInAck::default() };
    let mut raw = Raw::client_for(config(), said);
    raw.call(1);
    let id = raw.frame().id();
    raw.call(2);
    drains(&mut raw, 5_000);
    let outcomes = raw.outcomes();
    let [(2, Err(failure))] = &outcomes[..] else { panic!("{outcomes:?}") };
    assert_eq!((failure.status(), failure.ran()), (Status::NOT_SENT, Ran::No));
    assert_eq!(raw.frame().frame_type(), FrameType::DRAIN);
    let rejected = raw.conn.call(raw.at(), &CallHead::new("t.S/Echo"), Body::Copy(b""), 3).unwrap_err();
    assert_eq!((rejected.user, rejected.reason), (3, Rejection::Draining));
    raw.feed(&frames::response(id, Status::OK, b""));
    assert!(matches!(raw.outcomes()[..], [(1, Ok(_))]));
    assert_eq!(outline(&raw.frames()), [(FrameType::CLOSE, 0, Status::GOING_AWAY)]);
}

#[test]
fn the_answer_to_a_call_that_was_given_up_ends_a_drain_too() {
    let mut raw = Raw::client(config());
    let call = raw.call(1);
    let id = raw.frame().id();
    drains(&mut raw, 5_000);
    raw.conn.cancel(raw.at(), call);
    assert_eq!(raw.frames().len(), 2);
    raw.feed(&frames::response(id, Status::CANCELLED_RUNNING, b""));
    assert!(raw.events().is_empty());
    assert!(raw.conn.next().write, "the CLOSE waits");
    assert_eq!(outline(&raw.frames()), [(FrameType::CLOSE, 0, Status::GOING_AWAY)]);
}

#[test]
fn handlers_that_run_may_still_call() {
    let mut raw = Raw::server(config());
    raw.feed(&frames::call(1, b""));
    let parent = raw.incoming().call;
    drains(&mut raw, 5_000);
    raw.frames();
    let mut head = CallHead::new("t.S/Echo");
    head.parent = Some(parent);
    raw.conn.call(raw.at(), &head, Body::Copy(b"back"), 1).unwrap();
    let back = raw.frame();
    assert_eq!(back.frame_type(), FrameType::REQUEST);
    raw.feed(&frames::response(back.id(), Status::OK, b""));
    assert!(matches!(raw.outcomes()[..], [(1, Ok(_))]));
    raw.reply(parent, b"");
    assert_eq!(raw.frames().len(), 2);
    // Its handler has stopped.
    let rejected = raw.conn.call(raw.at(), &head, Body::Copy(b"back"), 2).unwrap_err();
    assert!(matches!(rejected.reason, Rejection::Draining | Rejection::Closed));
}

#[test]
fn after_the_grace_the_rest_is_interrupted_and_a_second_later_the_line_is_cut() {
    let mut raw = Raw::server(config());
    raw.feed_all([frames::call(1, b""), frames::one_way(3, b"")]);
    let calls: Vec<_> = raw
        .events()
        .into_iter()
        .map(|event| match event {
            Event::Request(incoming) => incoming.call,
            other => panic!("{other:?}"),
        })
        .collect();
    raw.call(5);
    raw.frames();
    drains(&mut raw, 200);
    assert_eq!(raw.frames().len(), 1);
    assert!(raw.wait(ms(199)).is_empty());
    assert!(raw.passed.is_empty());
    let frames = raw.wait(ms(1));
    assert_eq!(
        outline(&frames),
        [(FrameType::RESPONSE, 1, Status::INTERRUPTED), (FrameType::CLOSE, 0, Status::GOING_AWAY)]
    );
    let events = std::mem::take(&mut raw.passed);
    let interrupted = |event: &Event<u32>| matches!(event, Event::Cancelled(call, Cancel::Disconnected) if *call == calls[0]);
    assert!(events.iter().any(interrupted));
    assert!(!events.iter().any(|event| matches!(event, Event::Cancelled(call, _) if *call == calls[1])));
    let lost = |event: &Event<u32>| matches!(event, Event::Done { user: 5, outcome: Err(failure), .. } if failure.status() == Status::CONNECTION_LOST);
    assert!(events.iter().any(lost));
    assert_eq!(raw.closed(events).status, Status::GOING_AWAY);
    raw.wait(secs(1));
    assert_eq!(raw.conn.next().end, End::Close);
    // With a peer that takes nothing, too.
    let mut raw = Raw::server(config());
    raw.feed(&frames::call(1, b""));
    raw.incoming();
    raw.takes = false;
    raw.outbox = tieline_core::conn::Outbox::with_mark(1);
    drains(&mut raw, 200);
    raw.wait(ms(1_200));
    assert_eq!(raw.conn.next().end, End::Close);
    assert!(matches!(raw.passed.last(), Some(Event::Closed(_))));
}

#[test]
fn a_drain_can_be_hastened_and_not_put_off() {
    let mut raw = Raw::server(config());
    raw.feed(&frames::call(1, b""));
    raw.incoming();
    drains(&mut raw, 5_000);
    raw.frames();
    raw.wait(ms(10));
    drains(&mut raw, 60_000);
    assert!(raw.frames().is_empty());
    drains(&mut raw, 100);
    let again = raw.frame();
    let Envelope::Drain(said) = again.frame().envelope else { panic!() };
    assert_eq!((again.id(), said.grace_ms), (1, 100));
    assert!(raw.wait(ms(99)).is_empty());
    assert_eq!(raw.wait(ms(1)).last().unwrap().frame_type(), FrameType::CLOSE);
}

#[test]
fn who_hears_drain_begins_nothing_more_and_knows_what_was_not_accepted() {
    let said = CheckInAck { identifier: "peer", max_concurrent: 2, ..CheckInAck::default() };
    let mut raw = Raw::client_for(config(), said);
    for user in 0..3 {
        raw.call(user);
    }
    let sent = raw.frames();
    assert_eq!(sent.len(), 2);
    raw.conn.one_way(raw.at(), &CallHead::new("t.S/Echo"), Body::Copy(b""), 9).unwrap();
    raw.feed(&frames::drain(sent[0].id(), 700));
    let events = raw.events();
    let until = raw.after(ms(700));
    assert!(matches!(events[0], Event::Draining { until: at, status: Status::GOING_AWAY } if at == until));
    let mut told: Vec<_> = events[1..]
        .iter()
        .map(|event| match event {
            Event::Done { user, outcome: Err(failure), .. } => (*user, failure.status(), failure.ran()),
            other => panic!("{other:?}"),
        })
        .collect();
    told.sort_by_key(|told| told.0);
    assert_eq!(
        told,
        [(1, Status::DRAINING, Ran::No), (2, Status::NOT_SENT, Ran::No), (9, Status::NOT_SENT, Ran::No)]
    );
    assert!(raw.frames().is_empty(), "one-ways are calls too");
    // What was accepted goes on; the refusal of the other comes and is no news.
    raw.feed(&frames::response(sent[1].id(), Status::DRAINING, b""));
    raw.feed(&frames::response(sent[0].id(), Status::OK, b""));
    assert!(matches!(raw.outcomes()[..], [(0, Ok(_))]));
    assert_eq!(raw.conn.stats().late_frames, 0);
    // Not even a handler may call there.
    raw.feed(&frames::call(2, b""));
    let mut head = CallHead::new("t.S/Echo");
    head.parent = Some(raw.incoming().call);
    let rejected = raw.conn.call(raw.at(), &head, Body::Copy(b""), 4).unwrap_err();
    assert_eq!(rejected.reason, Rejection::Draining);
    raw.conn.reply(raw.at(), head.parent.unwrap(), &Reply::ok(Body::Copy(b""))).unwrap();
    raw.feed(&frames::close(Status::GOING_AWAY));
    let closed = raw.closed(vec![]);
    assert_eq!((closed.by, closed.status), (By::Peer, Status::GOING_AWAY));
}

#[test]
fn a_drain_that_contradicts_is_a_mistake() {
    let begun = || {
        let mut raw = Raw::client(config());
        raw.call(1);
        let id = raw.frame().id();
        (raw, id)
    };
    let (mut raw, id) = begun();
    raw.feed_all([frames::drain(id, 500), frames::drain(id, 500), frames::drain(id, 0)]);
    assert_eq!(raw.events().len(), 3, "the same, with less and less grace");
    for bad in [
        |id: u64| vec![frames::drain(id + 2, 500)],
        |id: u64| vec![frames::drain(id + 1, 500)],
        |_| vec![frames::drain(2, 500)],
        |_| vec![frames::drain(u64::MAX, 500)],
        |id: u64| vec![frames::drain(id, 500), frames::drain(0, 500)],
        |id: u64| vec![frames::drain(id, 500), frames::drain(id, 501)],
    ] {
        let (mut raw, id) = begun();
        raw.feed_all(bad(id));
        raw.closes_with(Status::PROTOCOL_ERROR);
    }
}

#[test]
fn before_check_in_there_is_nothing_to_drain() {
    let mut raw = Raw::new(config().build().unwrap(), tieline_core::conn::Side::Server);
    drains(&mut raw, 5_000);
    raw.closes_with(Status::GOING_AWAY);
}
