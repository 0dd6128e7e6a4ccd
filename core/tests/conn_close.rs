//! Close and end of stream (protocol §5, "Close").
#![allow(clippy::unwrap_used, clippy::panic, clippy::cast_possible_truncation)]

mod support;

use bytes::Buf;
use support::{
    frames::{self, outline},
    raw::{MS, Raw, config, ms},
};
use tieline_core::{
    conn::{Body, By, CallHead, Cancel, Disconnect, End, Event, Limits, Outbox, Reply, ReplyError},
    wire::{Envelope, FrameType, Ran, Request, Status},
};

/// A connection with an answer, a one-way and calls of both sides in every state.
fn busy() -> Raw {
    let mut raw = Raw::server(config());
    raw.call(1);
    raw.frames();
    raw.feed_all([frames::call(1, b""), frames::call(3, b"")]);
    let Event::Request(first) = raw.events().remove(0) else { panic!() };
    raw.reply(first.call, b"waits");
    raw.call(2);
    raw.conn.one_way(raw.at(), &CallHead::new("t.S/Echo"), Body::Copy(b""), 3).unwrap();
    raw
}

fn outcomes(events: &[Event<u32>]) -> Vec<(u32, Status, Ran)> {
    let mut told: Vec<_> = events
        .iter()
        .filter_map(|event| match event {
            Event::Done { user, outcome: Ok(_), .. } => Some((*user, Status::OK, Ran::Yes)),
            Event::Done { user, outcome: Err(failure), .. } => Some((*user, failure.status(), failure.ran())),
            _ => None,
        })
        .collect();
    told.sort_by_key(|told| told.0);
    told
}

#[test]
fn in_peace_what_waits_goes_out_first() {
    for status in [Status::NORMAL, Status::GOING_AWAY, Status::IDLE] {
        let mut raw = busy();
        raw.conn.close(raw.at(), status, "good night");
        // Again, and it changes nothing.
        raw.conn.close(raw.at(), status, "again");
        let frames = raw.frames();
        let types: Vec<_> = frames.iter().map(|frame| (frame.frame_type(), frame.status())).collect();
        assert_eq!(types.last(), Some(&(FrameType::CLOSE, status)));
        assert!(types.contains(&(FrameType::RESPONSE, Status::OK)));
        assert!(types.contains(&(FrameType::RESPONSE, Status::INTERRUPTED)));
        assert!(types.contains(&(FrameType::ONE_WAY, Status::OK)));
        assert_eq!(types.len(), 4);
        assert_eq!(frames.last().unwrap().message(), "good night");
        let events = raw.events();
        let expected = [
            (1, Status::CONNECTION_LOST, Ran::Maybe),
            (2, Status::NOT_SENT, Ran::No),
            (3, Status::OK, Ran::Yes),
        ];
        assert_eq!(outcomes(&events), expected);
        assert_eq!(raw.closed(events).by, By::Us);
    }
}

#[test]
fn any_other_reason_goes_out_before_what_waits() {
    for status in [Status::SLOW_PEER, Status::PROTOCOL_ERROR, Status::CHECK_IN_REFUSED, Status::OK] {
        let mut raw = busy();
        raw.conn.close(raw.at(), status, "enough");
        let frames = raw.frames();
        let seen = if status == Status::OK { Status::PROTOCOL_ERROR } else { status };
        assert_eq!(outline(&frames), [(FrameType::CLOSE, 0, seen)]);
        let events = raw.events();
        let expected = [
            (1, Status::CONNECTION_LOST, Ran::Maybe),
            (2, Status::NOT_SENT, Ran::No),
            (3, Status::NOT_SENT, Ran::No),
        ];
        assert_eq!(outcomes(&events), expected);
        raw.closed(events);
    }
}

#[test]
fn the_reason_is_not_lost_in_a_reset() {
    let mut raw = busy();
    raw.conn.close(raw.at(), Status::NORMAL, "");
    raw.turn();
    assert!(matches!(raw.events().last(), Some(Event::Closed(_))));
    assert_eq!(raw.conn.next().end, End::ShutWrite);
    assert!(raw.conn.next().read, "what comes is read and discarded");
    raw.feed(&[0xff; 10_000]);
    raw.feed(&frames::call(9, b""));
    assert!(!raw.conn.next().event);
    raw.wait(ms(500));
    raw.eof();
    assert_eq!(raw.conn.next().end, End::Close, "the peer has read it");
    // A second counts from the last octet that the transport took.
    let mut raw = Raw::server(config());
    raw.takes = false;
    raw.conn.close(raw.at(), Status::NORMAL, "");
    raw.turn();
    raw.wait(ms(900));
    let octets = raw.outbox.remaining();
    raw.outbox.advance(octets);
    raw.conn.handle_sent(raw.at(), octets);
    raw.wait(ms(900));
    assert_eq!(raw.conn.next().end, End::ShutWrite);
    raw.wait(ms(100));
    assert_eq!(raw.conn.next().end, End::Close);
}

#[test]
fn who_reads_close_stops_writing_and_ignores_what_follows() {
    let mut raw = busy();
    raw.feed(&[frames::close(Status::GOING_AWAY), frames::call(9, b""), b"garbage".to_vec()].concat());
    let events = raw.events();
    assert!(raw.frames().is_empty());
    assert_eq!(raw.conn.next().end, End::Close);
    assert!(events.iter().any(|event| matches!(event, Event::Cancelled(_, Cancel::Disconnected))));
    let closed = raw.closed(events);
    assert_eq!(
        (closed.by, closed.status, closed.message.as_str()),
        (By::Peer, Status::GOING_AWAY, "closing")
    );
    // A reason of another class reads as PROTOCOL_ERROR.
    let mut raw = Raw::server(config());
    raw.feed(&frames::octets(0x0e, 0, 0x21, 0, &[]));
    assert_eq!(raw.closed(vec![]).status, Status::PROTOCOL_ERROR);
    for bad in
        [frames::octets(0x0e, 0, 0x80, 0, &[3, 0x0a, 1, 0xff]), frames::octets(0x0e, 0, 0x80, 0, &[0, 1])]
    {
        let mut raw = Raw::server(config());
        raw.feed(&bad);
        raw.closes_with(Status::PROTOCOL_ERROR);
    }
}

#[test]
fn end_of_stream_cancels_what_runs_and_says_whether_it_was_inside_a_frame() {
    let frame = frames::call(9, b"half");
    for (octets, message) in
        [(0, "the peer ended the stream"), (10, "the peer ended the stream inside a frame")]
    {
        let mut raw = busy();
        raw.feed(&frame[..octets]);
        raw.eof();
        let events = raw.events();
        assert!(events.iter().any(|event| matches!(event, Event::Cancelled(_, Cancel::Disconnected))));
        assert!(!events.iter().any(|event| matches!(event, Event::Request(_))), "nothing of it is acted on");
        let expected = [
            (1, Status::CONNECTION_LOST, Ran::Maybe),
            (2, Status::NOT_SENT, Ran::No),
            (3, Status::NOT_SENT, Ran::No),
        ];
        assert_eq!(outcomes(&events), expected);
        let closed = raw.closed(events);
        assert_eq!((closed.by, closed.status), (By::Transport, Status::CONNECTION_LOST));
        assert_eq!(closed.message, message);
        assert_eq!(raw.conn.next().end, End::Close);
    }
    let mut raw = busy();
    raw.conn.handle_disconnect(raw.at(), Disconnect::Error("reset by peer"));
    raw.conn.handle_disconnect(raw.at(), Disconnect::Eof);
    let events = raw.events();
    assert_eq!(raw.closed(events).message, "reset by peer");
}

#[test]
fn what_came_before_the_end_is_still_decoded() {
    let mut raw = Raw::client(config());
    raw.call(1);
    let id = raw.frame().id();
    raw.feed(&frames::response(id, Status::OK, b"answer"));
    raw.feed(&frames::one_way(2, b"note"));
    raw.eof();
    let events = raw.events();
    assert!(
        matches!(&events[0], Event::Done { user: 1, outcome: Ok(answer), .. } if &answer.payload[..] == b"answer")
    );
    assert!(matches!(&events[1], Event::Request(incoming) if incoming.one_way));
    assert!(matches!(&events[2], Event::Closed(_)));
    assert!(raw.events().is_empty());
}

fn with_backlog() -> Raw {
    let mut limits = Limits::default();
    limits.max_concurrent = 1;
    let mut raw = Raw::server(config().limits(limits));
    let head = Envelope::Request(Request { method: 1, timeout_us: Some(1_000_000), ..Request::default() });
    for id in [1, 3, 5] {
        raw.feed(&frames::emit(FrameType::ONE_WAY, id, Status::OK, head, b"whole"));
    }
    assert_eq!(raw.events().len(), 1);
    raw
}

#[test]
fn one_ways_that_came_whole_still_run_unless_this_side_closes_for_a_mistake() {
    let started = |raw: &mut Raw| {
        let events = raw.events();
        assert!(matches!(events.last(), Some(Event::Closed(_))), "Closed is last: {events:?}");
        assert!(!events.iter().any(|event| matches!(event, Event::Cancelled(..))), "they are not cancelled");
        events.iter().filter(|event| matches!(event, Event::Request(_))).count()
    };
    let mut raw = with_backlog();
    raw.eof();
    assert_eq!(started(&mut raw), 2);
    let mut raw = with_backlog();
    raw.feed(&frames::close(Status::NORMAL));
    assert_eq!(started(&mut raw), 2);
    let mut raw = with_backlog();
    raw.conn.close(raw.at(), Status::SLOW_PEER, "");
    assert_eq!(started(&mut raw), 2);
    for status in [Status::PROTOCOL_ERROR, Status::EXCESSIVE_LOAD] {
        let mut raw = with_backlog();
        raw.conn.close(raw.at(), status, "");
        assert_eq!(started(&mut raw), 0);
    }
}

#[test]
fn after_closed_there_is_nothing_not_even_for_a_deadline_that_passes() {
    let mut raw = with_backlog();
    raw.conn.close(raw.at(), Status::SLOW_PEER, "");
    let events = raw.events();
    assert!(matches!(events.last(), Some(Event::Closed(_))));
    raw.frames();
    for _ in 0..30 {
        raw.now += 100 * MS;
        raw.conn.handle_timeout(raw.at());
        assert!(raw.events().is_empty());
        assert!(!raw.conn.next().event);
    }
    for event in events {
        if let Event::Request(incoming) = event {
            raw.conn.stopped(raw.at(), incoming.call);
        }
    }
    assert!(raw.events().is_empty() && raw.frames().is_empty());
}

#[test]
fn verbs_on_a_connection_that_is_over_do_nothing() {
    let mut raw = Raw::server(config());
    raw.feed(&frames::call(1, b""));
    let call = raw.incoming().call;
    raw.eof();
    raw.events();
    assert_eq!(raw.conn.reply(raw.at(), call, &Reply::ok(Body::Copy(b""))), Err(ReplyError::Answered));
    assert_eq!(raw.conn.reply(raw.at(), call, &Reply::ok(Body::Copy(b""))), Err(ReplyError::Unknown));
    assert_eq!(raw.conn.open_calls(), (0, 0));
    raw.conn.close(raw.at(), Status::NORMAL, "");
    raw.conn.drain(raw.at(), Status::NORMAL, ms(1), "");
    raw.conn.accept_check_in(raw.at());
    raw.feed(&frames::call(3, b""));
    raw.eof();
    raw.conn.handle_timeout(raw.at());
    assert!(raw.events().is_empty() && raw.frames().is_empty());
    assert_eq!((raw.conn.poll_timeout(), raw.conn.next().end), (None, End::Close));
}

#[test]
fn a_connection_that_is_dropped_says_what_is_known_about_each_call() {
    let raw = busy();
    let known: Vec<_> = raw.conn.into_unfinished().collect();
    assert_eq!(known, [(1, Ran::Maybe), (2, Ran::No), (3, Ran::No)]);
    let mut raw = Raw::client(config());
    raw.conn.one_way(raw.at(), &CallHead::new("t.S/Echo"), Body::Copy(b""), 1).unwrap();
    raw.frames();
    let given_up = raw.call(2);
    raw.conn.cancel(raw.at(), given_up);
    assert_eq!(raw.conn.into_unfinished().collect::<Vec<_>>(), [(1, Ran::Maybe)]);
}

#[test]
fn an_unhurried_peer_gets_its_answers_before_the_close_if_it_takes_them_in_time() {
    let mut raw = Raw::server(config());
    raw.outbox = Outbox::with_mark(1);
    for id in [1, 3, 5] {
        raw.feed(&frames::call(id, b""));
        let call = raw.incoming().call;
        raw.reply(call, b"x");
    }
    raw.takes = false;
    raw.frames();
    raw.conn.close(raw.at(), Status::NORMAL, "");
    raw.wait(ms(4_000));
    raw.takes = true;
    let frames = raw.frames();
    assert_eq!(frames.len(), 4);
    assert_eq!(frames[3].frame_type(), FrameType::CLOSE);
    // But not for ever.
    let mut raw = Raw::server(config());
    raw.outbox = Outbox::with_mark(1);
    raw.feed(&frames::call(1, b""));
    let call = raw.incoming().call;
    raw.reply(call, b"x");
    raw.takes = false;
    raw.frames();
    raw.feed(&frames::call(3, b""));
    let call = raw.incoming().call;
    raw.reply(call, b"x");
    raw.conn.close(raw.at(), Status::NORMAL, "");
    raw.wait(ms(5_000));
    assert_eq!(raw.conn.next().end, End::Close);
    assert!(matches!(raw.passed.last(), Some(Event::Closed(_))));
}
