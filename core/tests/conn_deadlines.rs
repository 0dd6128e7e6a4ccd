//! Deadlines and cancelling (protocol §5), before and after a call left, on both ends.
#![allow(clippy::unwrap_used, clippy::panic, clippy::cast_possible_truncation)]

mod support;

use support::{
    frames::{self, echo, emit, octets, outline},
    raw::{MS, Raw, config, limits, ms, secs},
};
use tieline_core::{
    Instant,
    conn::{Body, CallHead, Cancel, Event, Reply, ReplyError},
    wire::{CheckInAck, Envelope, FrameType, Ran, Request, Status},
};

#[test]
fn who_has_stopped_is_not_told_to_stop() {
    let mut raw = Raw::server(config());
    raw.feed(&frames::request(1, Request { timeout_us: Some(1000), ..echo() }, b""));
    let call = raw.incoming().call;
    raw.now += 5 * MS;
    raw.conn.handle_timeout(raw.at());
    raw.conn.stopped(raw.at(), call);
    assert!(raw.events().is_empty());
    assert_eq!(raw.frame().status(), Status::EXPIRED_RUNNING);
}

#[test]
fn the_envelope_says_what_is_left_of_the_deadline_rounded_up() {
    let mut raw = Raw::client(config());
    let head = CallHead::new("t.S/Echo").deadline(Some(Instant::from_nanos(raw.now + 5 * MS + 1)));
    raw.conn.call(raw.at(), &head, Body::Copy(b""), 1).unwrap();
    raw.now += MS;
    assert_eq!(raw.frame().request().timeout_us, Some(4_001));
    raw.call(2);
    assert_eq!(raw.frame().request().timeout_us, None);
}

#[test]
fn a_caller_stops_waiting_at_its_deadline_and_the_late_answer_is_no_news() {
    let mut raw = Raw::client(config());
    let head = CallHead::new("t.S/Echo").deadline(Some(raw.after(ms(50))));
    raw.conn.call(raw.at(), &head, Body::Copy(b""), 1).unwrap();
    let id = raw.frame().id();
    assert!(raw.wait(ms(49)).is_empty());
    assert!(raw.passed.is_empty());
    assert!(raw.wait(ms(2)).is_empty(), "no CANCEL: the callee knows the deadline");
    let Some(Event::Done { user: 1, outcome: Err(failure), .. }) = raw.passed.pop() else { panic!() };
    assert_eq!((failure.status(), failure.ran()), (Status::TIMEOUT, Ran::Maybe));
    assert_eq!(raw.conn.open_calls().0, 1, "until its RESPONSE comes it counts");
    raw.feed(&frames::response(id, Status::EXPIRED_RUNNING, b""));
    raw.is_quiet();
    assert_eq!((raw.conn.open_calls().0, raw.conn.stats().late_frames), (0, 0));

    // Not sent in time: certainly did not run.
    let said = CheckInAck { identifier: "peer", max_concurrent: 1, ..CheckInAck::default() };
    let mut raw = Raw::client_for(config(), said);
    raw.call(1);
    raw.conn.call(raw.at(), &head, Body::Copy(b""), 2).unwrap();
    assert_eq!(raw.frames().len(), 1);
    raw.wait(ms(60));
    let Some(Event::Done { user: 2, outcome: Err(failure), .. }) = raw.passed.pop() else { panic!() };
    assert_eq!((failure.status(), failure.ran()), (Status::TIMEOUT, Ran::No));
    // Nor does a call go out whose deadline has passed when its turn comes.
    let mut raw = Raw::client(config());
    let head = CallHead::new("t.S/Echo").deadline(Some(raw.at()));
    raw.conn.call(raw.at(), &head, Body::Copy(b""), 3).unwrap();
    assert!(raw.frames().is_empty());
    assert_eq!(raw.outcomes()[0].1.as_ref().unwrap_err().ran(), Ran::No);
}

#[test]
fn a_callee_answers_for_a_handler_that_misses_the_deadline() {
    let mut raw = Raw::server(config());
    raw.feed(&frames::request(1, Request { timeout_us: Some(50_000), ..echo() }, b""));
    let call = raw.incoming().call;
    assert!(raw.wait(ms(49)).is_empty());
    let answers = raw.wait(ms(2));
    assert_eq!(outline(&answers), [(FrameType::RESPONSE, 1, Status::EXPIRED_RUNNING)]);
    assert!(matches!(raw.passed[..], [Event::Cancelled(which, Cancel::Expired)] if which == call));
    assert_eq!(raw.conn.reply(raw.at(), call, &Reply::ok(Body::Copy(b""))), Err(ReplyError::Answered));
    assert_eq!(raw.conn.open_calls().1, 0);
    // A one-way that still waits is dropped, one that runs is told.
    let mut raw = Raw::server(config().limits(limits(|it| it.max_concurrent = 1)));
    let head = Envelope::Request(Request { timeout_us: Some(50_000), ..echo() });
    for id in [1, 3] {
        raw.feed(&emit(FrameType::ONE_WAY, id, Status::OK, head, b""));
    }
    let call = raw.incoming().call;
    raw.wait(ms(60));
    assert!(matches!(raw.passed[..], [Event::Cancelled(which, Cancel::Expired)] if which == call));
    raw.conn.stopped(raw.at(), call);
    raw.is_quiet();
    assert_eq!(raw.conn.stats().dropped_one_ways, 1);
}

#[test]
fn deadlines_above_2_to_53_are_none() {
    let mut raw = Raw::server(config());
    for (id, us, some) in [(1, 1 << 53, true), (3, (1 << 53) + 1, false), (5, u64::MAX, false)] {
        raw.feed(&frames::request(id, Request { timeout_us: Some(us), ..echo() }, b""));
        assert_eq!(raw.incoming().deadline.is_some(), some);
    }
}

#[test]
fn a_deadline_counts_from_the_header_however_long_the_body_takes() {
    let mut raw = Raw::server(config());
    let frame = frames::request(1, Request { timeout_us: Some(100_000), ..echo() }, &[0; 100]);
    raw.feed(&frame[..30]);
    let started = raw.at();
    raw.wait(ms(60));
    raw.feed(&frame[30..]);
    assert_eq!(raw.incoming().deadline, Some(started.saturating_add(ms(100))));
    // Passed when the rest came: not started.
    let frame = frames::request(3, Request { timeout_us: Some(50_000), ..echo() }, &[0; 100]);
    raw.feed(&frame[..30]);
    raw.wait(ms(60));
    raw.feed(&frame[30..]);
    assert!(raw.events().iter().all(|event| !matches!(event, Event::Request(_))));
    assert!(outline(&raw.frames()).contains(&(FrameType::RESPONSE, 3, Status::EXPIRED_IN_QUEUE)));
    // What the ack took to come is not held against the first call.
    let mut client = Raw::new(config().build().unwrap(), tieline_core::conn::Side::Client);
    client.frames();
    let ack = frames::ack(CheckInAck { identifier: "peer", ..CheckInAck::default() });
    client.feed(&ack[..20]);
    client.wait(secs(3));
    client.feed(&ack[20..]);
    client.events();
    client.feed(&frames::request(2, Request { timeout_us: Some(1_000_000), ..echo() }, b""));
    assert_eq!(client.incoming().deadline, Some(client.after(secs(1))));
}

#[test]
fn cancelling_before_and_after_the_call_left() {
    let mut raw = Raw::client(config());
    let id = raw.call(5);
    assert_eq!(raw.conn.cancel(raw.at(), id), Some(5));
    assert_eq!(raw.conn.cancel(raw.at(), id), None);
    assert!(raw.frames().is_empty(), "withdrawn: nothing of it leaves");
    assert_eq!(raw.conn.open_calls(), (0, 0));

    let id = raw.call(6);
    let wire = raw.frame().id();
    assert_eq!(raw.conn.cancel(raw.at(), id), Some(6));
    assert_eq!(outline(&raw.frames()), [(FrameType::CANCEL, wire, Status::CANCELLED)]);
    // The answer was faster.
    let id = raw.call(7);
    let wire = raw.frame().id();
    assert_eq!(raw.conn.cancel(raw.at(), id), Some(7));
    raw.feed(&frames::response(wire, Status::OK, b"fast"));
    assert!(raw.events().is_empty());
    assert!(raw.frames().is_empty(), "nothing is left to be cancelled");
    // Told, not fetched, and given up: the value comes back once.
    let id = raw
        .conn
        .call(raw.at(), &CallHead::new("t.S/Echo").deadline(Some(raw.at())), Body::Copy(b""), 8)
        .unwrap();
    assert!(raw.frames().is_empty());
    assert_eq!(raw.conn.cancel(raw.at(), id), Some(8));
    assert!(raw.events().is_empty());
    // A name that is used too late finds nothing, even if its place is used again.
    let again = raw.call(9);
    assert_eq!(raw.conn.cancel(raw.at(), id), None);
    assert_eq!(raw.conn.cancel(raw.at(), again), Some(9));
}

#[test]
fn cancel_says_whether_the_caller_gave_up_or_ran_out_of_time() {
    for (status, why, answer) in [
        (0x01, Cancel::ByCaller, Status::CANCELLED_RUNNING),
        (0x04, Cancel::Expired, Status::EXPIRED_RUNNING),
        (0x63, Cancel::ByCaller, Status::CANCELLED_RUNNING),
        (0x00, Cancel::ByCaller, Status::CANCELLED_RUNNING),
    ] {
        let mut raw = Raw::server(config());
        raw.feed(&frames::call(1, b""));
        let call = raw.incoming().call;
        raw.feed(&octets(8, 0, status, 1, b""));
        raw.feed(&octets(8, 0, status, 1, b""));
        assert!(
            matches!(raw.events()[..], [Event::Cancelled(which, because)] if which == call && because == why)
        );
        assert_eq!(outline(&raw.frames()), [(FrameType::RESPONSE, 1, answer)], "one RESPONSE a REQUEST");
    }
}

#[test]
fn a_call_that_was_laid_down_and_not_committed_in_time_does_not_leave() {
    let mut raw = Raw::client(config());
    for (user, after) in [(1, 5), (2, 50), (3, 5)] {
        let head = CallHead::new("t.S/Echo").deadline(Some(raw.after(ms(after))));
        raw.conn.call(raw.at(), &head, Body::Copy(&[7; 40]), user).unwrap();
    }
    // The process did not come to write for a while, nor to look at the clock.
    raw.now += 20 * MS;
    let frame = raw.frame();
    assert_eq!((frame.request().timeout_us, frame.payload()), (Some(30_000), &[7; 40][..]));
    let outcomes = raw.outcomes();
    assert_eq!(outcomes.len(), 2);
    for (_, outcome) in outcomes {
        let failure = outcome.unwrap_err();
        assert_eq!((failure.status(), failure.ran()), (Status::TIMEOUT, Ran::No));
    }
    raw.feed(&frames::response(frame.id(), Status::OK, b""));
    assert!(matches!(raw.outcomes()[..], [(2, Ok(_))]));
    assert_eq!(raw.conn.open_calls(), (0, 0));
}
