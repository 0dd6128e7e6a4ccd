//! Calls (protocol §5): what is wrong where, limits on both ends, deadlines, cancelling, and the outcomes.
#![allow(clippy::unwrap_used, clippy::panic, clippy::cast_possible_truncation)]

mod support;

use bytes::Bytes;
use support::{
    frames::{self, emit, flagged, octets, outline},
    raw::{MS, Raw, config, ms, secs},
};
use tieline_core::{
    Instant,
    conn::{
        Body, CallHead, Cancel, Event, Limits, MethodSpec, Rejection, Reply, ReplyError, Served,
    },
    wire::{
        CheckIn, CheckInAck, Envelope, Flags, FrameType, Metadata, Ran, Repeated, Request, Response, Status,
    },
};

fn limits(change: impl FnOnce(&mut Limits)) -> Limits {
    let mut limits = Limits::default();
    change(&mut limits);
    limits
}

/// What a REQUEST is answered without its handler.
fn refusal(raw: &mut Raw, frame: &[u8]) -> Status {
    raw.feed(frame);
    let events = raw.events();
    assert!(events.is_empty(), "{events:?}");
    let answer = raw.frame();
    assert_eq!(answer.frame_type(), FrameType::RESPONSE);
    assert_eq!(raw.conn.open_calls(), (0, 0));
    answer.status()
}

fn echo() -> Request<'static> {
    Request { method: 1, ..Request::default() }
}

#[test]
fn a_call_there_and_back() {
    let mut server = Raw::server(config());
    let metadata = [Metadata { key: "k-1", value: b"v" }];
    let head = Request {
        method: 1,
        timeout_us: Some(5_000),
        ordering_key: b"key",
        priority: 7,
        metadata: Repeated::from(&metadata),
        trace: &[9; 26],
        ..Request::default()
    };
    server.feed(&frames::request(3, head, b"argument"));
    let incoming = server.incoming();
    assert_eq!((incoming.method, incoming.one_way, incoming.priority, incoming.codec), (0, false, 1, 0));
    assert_eq!(incoming.deadline, Some(server.after(ms(5))));
    assert_eq!(&incoming.payload[..], b"argument");
    assert_eq!((incoming.ordering_key(), incoming.trace()), (&b"key"[..], &[9; 26][..]));
    assert_eq!(incoming.metadata().collect::<Vec<_>>(), metadata);
    let reply = Reply::ok(Body::Share(Bytes::from_static(b"result")));
    server.conn.reply(server.at(), incoming.call, &reply).unwrap();
    let answer = server.frame();
    assert_eq!(outline(std::slice::from_ref(&answer)), [(FrameType::RESPONSE, 3, Status::OK)]);
    assert_eq!(answer.payload(), b"result");
    assert_eq!(server.conn.reply(server.at(), incoming.call, &reply), Err(ReplyError::Unknown));
    server.is_quiet();
}

#[test]
fn a_request_that_is_wrong_is_refused_for_what_is_wrong_with_it() {
    let config = || {
        config().method(MethodSpec::unary("t.S/Json").codecs(&[1, 2])).limits(limits(|it| it.max_message = 1024))
    };
    let key = "k".repeat(65);
    let bad_keys = [[Metadata { key: "Upper", value: b"" }], [Metadata { key: "", value: b"" }], [Metadata {
        key: &key,
        value: b"",
    }]];
    let many = [Metadata { key: "k", value: b"" }; 65];
    let mut cases: Vec<(Status, Vec<u8>)> = vec![
        (Status::BAD_REQUEST, octets(5, 0, 0, 1, &[9, 1])),
        (Status::BAD_REQUEST, octets(5, 0, 0, 1, &[1, 0])),
        (Status::BAD_REQUEST, octets(5, 0, 0, 1, &[3, 0x12, 1, 0xff])),
        (Status::BAD_REQUEST, frames::request(1, Request { method_name: "t.S/Echo", ..echo() }, b"")),
        (Status::NO_SUCH_METHOD, frames::request(1, Request::default(), b"")),
        (Status::NO_SUCH_METHOD, octets(5, 0, 0, 1, &[])),
        (Status::NO_SUCH_METHOD, frames::request(1, Request { method: 3, ..echo() }, b"")),
        (Status::NO_SUCH_METHOD, frames::request(1, Request { method: u32::MAX, ..echo() }, b"")),
        (Status::NO_SUCH_METHOD, frames::request(1, Request { method_name: "t.S/echo", ..Request::default() }, b"")),
        (Status::WRONG_KIND, frames::request(1, Request { kind: 1, ..echo() }, b"")),
        (Status::WRONG_KIND, frames::request(1, Request { kind: 2, ..echo() }, b"")),
        (Status::WRONG_KIND, frames::request(1, Request { kind: 3, ..echo() }, b"")),
        (Status::WRONG_KIND, frames::request(1, Request { kind: 99, ..echo() }, b"")),
        (Status::UNSUPPORTED_CODEC, frames::request(1, Request { codec: 1, ..echo() }, b"")),
        (Status::UNSUPPORTED_CODEC, frames::request(1, Request { method: 2, ..echo() }, b"")),
        (Status::TOO_LARGE, frames::request(1, echo(), &[0; 1025])),
        (Status::BAD_REQUEST, frames::request(1, Request { ordering_key: &[1; 65], ..echo() }, b"")),
        (Status::BAD_REQUEST, frames::request(1, Request { metadata: Repeated::from(&many), ..echo() }, b"")),
        (Status::EXPIRED_IN_QUEUE, frames::request(1, Request { timeout_us: Some(0), ..echo() }, b"")),
        (
            Status::TOO_LARGE,
            flagged(
                FrameType::REQUEST,
                1,
                Status::OK,
                Flags::MORE,
                Envelope::Request(Request { total: 100, ..echo() }),
                b"x",
            ),
        ),
    ];
    for bad in &bad_keys {
        let head = Request { metadata: Repeated::from(bad), ..echo() };
        cases.push((Status::BAD_REQUEST, frames::request(1, head, b"")));
    }
    for (status, frame) in &cases {
        let mut raw = Raw::server(config());
        assert_eq!(refusal(&mut raw, frame), *status, "{frame:x?}");
        assert_eq!(raw.conn.stats().refused, 1);
        // As a one-way it is dropped and counted.
        let mut raw = Raw::server(config());
        let mut frame = frame.clone();
        frame[3] = FrameType::ONE_WAY.0;
        raw.feed(&frame);
        raw.is_quiet();
        assert_eq!(raw.conn.stats().dropped_one_ways, 1);
    }
    // At the bounds all is well.
    let mut raw = Raw::server(config());
    let head = Request { ordering_key: &[1; 64], metadata: Repeated::from(&many[..64]), ..echo() };
    raw.feed(&frames::request(1, head, &[0; 1024]));
    assert_eq!(raw.incoming().metadata().count(), 64);
    raw.feed(&frames::request(3, Request { method_name: "t.S/Json", codec: 2, ..Request::default() }, b""));
    let incoming = raw.incoming();
    assert_eq!((incoming.method, incoming.codec), (1, 2));
}

#[test]
fn the_rest_of_a_message_that_was_refused_is_free_wherever_it_comes() {
    for answered in [false, true] {
        let mut raw = Raw::server(config());
        let head = Request { method: 1, total: 100_000, ..Request::default() };
        raw.feed(&flagged(FrameType::REQUEST, 1, Status::OK, Flags::MORE, Envelope::Request(head), &[0; 10_000]));
        assert!(raw.events().is_empty());
        if answered {
            assert_eq!(raw.frame().status(), Status::TOO_LARGE);
        }
        for _ in 0..5_000 {
            raw.feed(&frames::continuation(1, true, &[0; 256]));
            assert!(raw.events().is_empty());
        }
        raw.feed(&frames::continuation(1, false, b""));
        assert!(raw.events().is_empty());
        assert_eq!(raw.conn.stats().late_frames, 0);
        assert_eq!(raw.frames().len(), usize::from(!answered));
        // From then on they are late.
        raw.feed(&frames::continuation(1, false, b"x"));
        raw.is_quiet();
        assert_eq!(raw.conn.stats().late_frames, 1);
    }
}

#[test]
fn items_for_a_stream_that_was_refused_are_late_and_no_mistake() {
    for answered in [false, true] {
        let mut raw = Raw::server(config());
        raw.feed(&frames::request(1, Request { method: 1, kind: 3, ..Request::default() }, b""));
        assert!(raw.events().is_empty());
        if answered {
            assert_eq!(raw.frame().status(), Status::WRONG_KIND);
        }
        let item = Envelope::Item(tieline_core::wire::Item::default());
        raw.feed(&emit(FrameType::STREAM_ITEM, 1, Status::OK, item, b"item"));
        raw.feed(&octets(0x0a, 0, 0, 1, b""));
        raw.feed(&octets(0x0b, 0, 0, 1, &[2, 8, 100]));
        assert!(raw.events().is_empty(), "answered: {answered}");
        assert_eq!(raw.conn.stats().late_frames, 3);
    }
    // On a call that does not stream they are a mistake.
    for frame in [octets(9, 0, 0, 1, &[0, 1]), octets(0x0a, 0, 0, 1, b""), octets(0x0c, 0, 0, 1, b"x")] {
        let mut raw = Raw::server(config());
        raw.feed(&frames::call(1, b""));
        raw.incoming();
        raw.feed(&frame);
        raw.closes_with(Status::PROTOCOL_ERROR);
    }
}

#[test]
fn ids_have_the_parity_of_their_side_and_strictly_increase() {
    for ids in [&[2][..], &[3, 3], &[3, 1], &[(1 << 63) - 1, 5]] {
        let mut raw = Raw::server(config());
        for id in ids {
            raw.feed(&frames::call(*id, b""));
        }
        raw.closes_with(Status::PROTOCOL_ERROR);
    }
    let mut raw = Raw::server(config());
    for id in [1, 3, 9, (1 << 40) + 1, (1 << 63) - 1] {
        raw.feed(&frames::call(id, b""));
        let call = raw.incoming().call;
        raw.reply(call, b"");
        assert_eq!(raw.frame().id(), id);
    }
    let mut client = Raw::client(config());
    client.feed(&frames::call(1, b""));
    client.closes_with(Status::PROTOCOL_ERROR);
    let mut client = Raw::client(config());
    client.feed(&frames::call(2, b""));
    client.incoming();
    // One-ways count in the same order.
    client.feed(&frames::one_way(2, b""));
    client.closes_with(Status::PROTOCOL_ERROR);
}

#[test]
fn frames_of_calls_that_were_never_begun_are_mistakes_and_late_ones_are_counted() {
    for frame in [
        frames::cancel(1),
        frames::response(2, Status::OK, b""),
        octets(9, 0, 0, 1, b""),
        octets(0x0a, 0, 0, 1, b""),
        octets(0x0b, 0, 0, 1, &[2, 8, 1]),
        octets(0x0c, 0, 0, 1, b"x"),
        // Of the wrong side.
        frames::cancel(2),
        frames::response(1, Status::OK, b""),
    ] {
        let mut raw = Raw::server(config());
        raw.feed(&frame);
        raw.closes_with(Status::PROTOCOL_ERROR);
    }
    let mut raw = Raw::server(config());
    raw.feed(&frames::call(5, b""));
    let call = raw.incoming().call;
    raw.reply(call, b"");
    raw.frames();
    let id = raw.call(0);
    let theirs = raw.frame().id();
    raw.conn.cancel(raw.at(), id);
    raw.frames();
    raw.feed(&frames::response(theirs, Status::CANCELLED_RUNNING, b""));
    raw.is_quiet();
    raw.feed_all([
        frames::cancel(5),
        frames::cancel(1),
        frames::response(theirs, Status::OK, b"again"),
        frames::response(2, Status::OK, b"a gap"),
        octets(9, 0, 0, 5, b""),
        octets(0x0a, 0, 0, 3, b""),
        octets(0x0b, 0, 0, 5, &[2, 8, 1]),
        octets(0x0c, 0, 0, 5, b"x"),
    ]);
    raw.is_quiet();
    assert_eq!(raw.conn.stats().late_frames, 8);
}

#[test]
fn a_callee_refuses_what_is_over_its_limit_and_closes_on_what_is_far_over_it() {
    let mut raw = Raw::server(config().limits(limits(|it| it.max_concurrent = 2)));
    raw.takes = false;
    let calls: Vec<Served> = [1, 3].map(|id| {
        raw.feed(&frames::call(id, b""));
        raw.incoming().call
    }).into();
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
        (of(16 << 10), Status::RESPONSE_TOO_LARGE),
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
        let answer = raw.frame();
        assert_eq!(answer.status(), *status);
        assert!(answer.header.len <= 16 << 10);
        if *status != Status::OK {
            assert!(answer.payload().is_empty() && answer.header.len < 200);
        }
    }
}

fn reply_with<'a>(metadata: &'a [Metadata<'a>]) -> Reply<'a> {
    let mut reply = Reply::ok(Body::Copy(b"x"));
    reply.metadata = metadata;
    reply
}

#[test]
fn a_handler_speaks_with_classes_0_and_6_and_layers_with_1_and_2() {
    let mut id = 1;
    let mut raw = Raw::server(config());
    for status in (0..=255).map(Status) {
        for refuse in [false, true] {
            raw.feed(&frames::call(id, b""));
            id += 2;
            let call = raw.incoming().call;
            let mut reply = Reply::error(status, "said");
            reply.code = 77;
            let expected = match (refuse, status.0 >> 5) {
                (false, 0 | 6) | (true, 1 | 2) => status,
                (false, _) => Status::INTERNAL,
                (true, _) => Status::DENIED,
            };
            if refuse {
                raw.conn.refuse(raw.at(), call, &reply).unwrap();
            } else {
                raw.conn.reply(raw.at(), call, &reply).unwrap();
            }
            let answer = raw.frame();
            assert_eq!(answer.status(), expected, "{status}");
            assert_eq!(answer.message(), "said");
        }
    }
    raw.feed(&frames::call(id, b""));
    let call = raw.incoming().call;
    raw.conn.panicked(raw.at(), call).unwrap();
    assert_eq!(raw.frame().status(), Status::HANDLER_PANIC);
}

#[test]
fn what_answers_mean_to_a_caller() {
    let said = Response { message: "why", retry_after_ms: 400_000, owner: "node-9", code: 5, ..Response::default() };
    for (status, seen, ran) in [
        (Status::NOT_FOUND, Status::NOT_FOUND, Ran::Yes),
        (Status::OVERLOADED, Status::OVERLOADED, Ran::No),
        (Status::WRONG_NODE, Status::WRONG_NODE, Ran::No),
        (Status::DENIED, Status::DENIED, Ran::No),
        (Status(0x5f), Status(0x5f), Ran::No),
        (Status::INTERRUPTED, Status::INTERRUPTED, Ran::Maybe),
        (Status::HANDLER_PANIC, Status::HANDLER_PANIC, Ran::Yes),
        (Status(0xa5), Status(0xa5), Ran::Maybe),
        (Status(0xc1), Status(0xc1), Ran::Yes),
        (Status::NORMAL, Status::BAD_REPLY, Ran::Yes),
        (Status::NOT_SENT, Status::BAD_REPLY, Ran::Yes),
    ] {
        let mut raw = Raw::client(config());
        raw.call(1);
        let id = raw.frame().id();
        raw.feed(&emit(FrameType::RESPONSE, id, status, Envelope::Response(said), b"detail"));
        let (user, outcome) = raw.outcomes().remove(0);
        let failure = outcome.unwrap_err();
        assert_eq!((user, failure.status(), failure.ran()), (1, seen, ran));
        if status == seen {
            assert_eq!((failure.message(), failure.code(), failure.owner()), ("why", 5, "node-9"));
            assert_eq!((&failure.detail()[..], failure.retry_after()), (&b"detail"[..], Some(secs(300))));
        }
        raw.is_quiet();
        assert_eq!(raw.conn.open_calls(), (0, 0));
    }
}

#[test]
fn answers_that_cannot_be_read_end_their_call_and_nothing_else() {
    let more = |id, total| {
        let said = Envelope::Response(Response { total, ..Response::default() });
        flagged(FrameType::RESPONSE, id, Status::OK, Flags::MORE, said, b"part")
    };
    let mut raw = Raw::client(config().limits(limits(|it| it.max_message = 1024)));
    for (frame, status) in [
        (&(|id| octets(6, 0, 0, id, &[9, 1])) as &dyn Fn(u64) -> Vec<u8>, Status::BAD_REPLY),
        (&|id| octets(6, 0, 0, id, &[3, 0x0a, 1, 0xff]), Status::BAD_REPLY),
        (&|id| frames::response(id, Status::OK, &[0; 1025]), Status::LOCAL_LIMIT),
        (&|id| frames::response(id, Status::ABORTED, &[0; 1025]), Status::LOCAL_LIMIT),
        (&|id| more(id, 9), Status::LOCAL_LIMIT),
    ] {
        raw.call(1);
        let id = raw.frame().id();
        raw.feed(&frame(id));
        let outcomes = raw.outcomes();
        let failure = outcomes[0].1.as_ref().unwrap_err();
        assert_eq!((failure.status(), failure.ran()), (status, Ran::Yes));
        if status == Status::LOCAL_LIMIT {
            raw.feed(&frames::continuation(id, true, &[1; 300]));
            raw.feed(&frames::continuation(id, false, b"end"));
        }
        raw.is_quiet();
    }
    raw.call(2);
    let id = raw.frame().id();
    raw.feed(&frames::response(id, Status::OK, &[0; 1024]));
    assert!(matches!(&raw.outcomes()[..], [(2, Ok(payload))] if payload.len() == 1024));
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
    let Some(Event::Done { user: 1, outcome: Err(failure) }) = raw.passed.pop() else { panic!() };
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
    let Some(Event::Done { user: 2, outcome: Err(failure) }) = raw.passed.pop() else { panic!() };
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
    let id = raw.conn.call(raw.at(), &CallHead::new("t.S/Echo").deadline(Some(raw.at())), Body::Copy(b""), 8).unwrap();
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
        assert!(matches!(raw.events()[..], [Event::Cancelled(which, because)] if which == call && because == why));
        assert_eq!(outline(&raw.frames()), [(FrameType::RESPONSE, 1, answer)], "one RESPONSE a REQUEST");
    }
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
    let calls: Vec<Served> = [(1, -1), (3, 0), (5, 1)].map(|(id, priority)| {
        raw.feed(&frames::request(id, Request { priority, ..echo() }, b""));
        raw.incoming().call
    }).into();
    for call in calls {
        raw.reply(call, b"");
    }
    let ids: Vec<u64> = raw.frames().iter().map(|frame| frame.id()).collect();
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
    assert_eq!(refused(&mut raw, &good, 65_537), Rejection::TooLarge);
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
