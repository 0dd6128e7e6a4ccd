//! Calls (protocol §5): what is wrong where, ids, and what outcomes mean.
#![allow(clippy::unwrap_used, clippy::panic, clippy::cast_possible_truncation)]

mod support;

use bytes::Bytes;
use support::{
    frames::{self, Seen, echo, emit, flagged, octets, outline},
    raw::{Raw, config, limits, ms, secs},
};
use tieline_core::{
    conn::{Body, CallHead, CallId, MethodSpec, Rejected, Reply, ReplyError},
    wire::{Envelope, Flags, FrameType, Metadata, Method, Ran, Repeated, Request, Response, Status},
};

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

/// The same call on two connections, in both ways.
struct Twins {
    calls: Raw,
    asks: Raw,
}

impl Twins {
    fn call(
        &mut self,
        user: u32,
        timeout: Option<u64>,
        body: &[u8],
    ) -> (Result<CallId, Rejected<u32>>, Vec<Seen>) {
        let deadline = timeout.map(|timeout| self.calls.after(ms(timeout)));
        let head = CallHead::new("a/One").deadline(deadline);
        let called = self.calls.conn.call(self.calls.at(), &head, Body::Copy(body), user);
        let asked = self.asks.conn.ask(self.asks.at(), "a/One", deadline, Body::Copy(body), user);
        assert_eq!(asked, called);
        let frames = self.calls.frames();
        assert_eq!(self.asks.frames(), frames);
        (called, frames)
    }

    /// Calls of all sorts; how many named their method.
    fn call_all(&mut self) -> usize {
        let mut named = 0;
        for timeout in [None, Some(500), Some(500), Some(0)] {
            for (user, body) in (1..).zip([&[7; 64][..], &[], &[8; 100_000]]) {
                let (called, frames) = self.call(user, timeout, body);
                called.unwrap();
                named += frames
                    .iter()
                    .filter(|frame| frame.frame_type() == FrameType::REQUEST)
                    .filter(|frame| frame.request().method_name == "a/One")
                    .count();
            }
        }
        named
    }
}

#[test]
fn who_asks_calls() {
    let mut twins = Twins { calls: Raw::client(config()), asks: Raw::client(config()) };
    // Those whose time is over do not go out.
    assert_eq!(twins.call_all(), 9);
    let table = frames::table(&[Method { id: 1, name: "a/One", fingerprint: 0 }]);
    for raw in [&mut twins.calls, &mut twins.asks] {
        raw.feed(&table);
        raw.events();
    }
    assert_eq!(twins.call_all(), 0);
    let told = twins.calls.wait(secs(1));
    assert_eq!(twins.asks.wait(secs(1)), told);
    assert_eq!(format!("{:?}", twins.asks.events()), format!("{:?}", twins.calls.events()));
    for raw in [&mut twins.calls, &mut twins.asks] {
        raw.conn.close(raw.at(), Status::NORMAL, "");
    }
    let (called, _) = twins.call(77, None, b"late");
    assert_eq!(called.unwrap_err().user, 77);
}

#[test]
fn a_request_that_is_wrong_is_refused_for_what_is_wrong_with_it() {
    let config = || {
        config()
            .method(MethodSpec::unary("t.S/Json").codecs(&[1, 2]))
            .limits(limits(|it| it.max_message = 1024))
    };
    let key = "k".repeat(65);
    let bad_keys = [
        [Metadata { key: "Upper", value: b"" }],
        [Metadata { key: "", value: b"" }],
        [Metadata { key: &key, value: b"" }],
    ];
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
        (
            Status::NO_SUCH_METHOD,
            frames::request(1, Request { method_name: "t.S/echo", ..Request::default() }, b""),
        ),
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
                Envelope::Request(Request { total: 2000, ..echo() }),
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
        let mut raw = Raw::server(config().limits(limits(|it| it.max_message = 64 << 10)));
        let head = Request { method: 1, total: 100_000, ..Request::default() };
        raw.feed(&flagged(
            FrameType::REQUEST,
            1,
            Status::OK,
            Flags::MORE,
            Envelope::Request(head),
            &[0; 10_000],
        ));
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
fn what_comes_for_a_stream_that_was_refused_is_no_mistake() {
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
        assert_eq!(raw.conn.stats().late_frames, 2, "the item is within the credit that its caller had");
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
    let said =
        Response { message: "why", retry_after_ms: 400_000, owner: "node-9", code: 5, ..Response::default() };
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
        (Status::NORMAL, Status::BAD_REPLY, Ran::Maybe),
        (Status::NOT_SENT, Status::BAD_REPLY, Ran::Maybe),
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
        (&|id| more(id, 1307), Status::LOCAL_LIMIT),
    ] {
        raw.call(1);
        let id = raw.frame().id();
        raw.feed(&frame(id));
        let outcomes = raw.outcomes();
        let failure = outcomes[0].1.as_ref().unwrap_err();
        assert_eq!((failure.status(), failure.ran()), (status, Ran::Maybe));
        if frame(id)[4] == Flags::MORE.0 {
            assert_eq!(raw.frame().frame_type(), FrameType::CANCEL, "the peer need not send the rest");
            raw.feed(&frames::continuation(id, true, &[1; 300]));
            raw.feed(&frames::continuation(id, true, &[1; 1000]));
            assert_eq!(raw.conn.open_calls(), (1, 0), "its place is held until the last frame");
            raw.feed(&frames::continuation(id, false, b"end"));
        }
        raw.is_quiet();
        assert_eq!(raw.conn.open_calls(), (0, 0));
    }
    raw.call(2);
    let id = raw.frame().id();
    raw.feed(&frames::response(id, Status::OK, &[0; 1024]));
    assert!(matches!(&raw.outcomes()[..], [(2, Ok(payload))] if payload.len() == 1024));
}
