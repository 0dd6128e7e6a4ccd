//! TABLE (protocol §4): what a peer says that it serves, and how calls name their method.
#![allow(clippy::unwrap_used, clippy::panic, clippy::cast_possible_truncation)]

mod support;

use support::{
    frames,
    raw::{Raw, config},
};
use tieline_core::{
    conn::{Body, CallHead, Config, ConfigBuilder, Limits, MethodSpec, Rejection, Side},
    wire::{CheckInAck, Envelope, FrameType, Method, Status},
};

const fn method(id: u32, name: &str, fingerprint: u64) -> Method<'_> {
    Method { id, name, fingerprint }
}

/// A client that does not know the methods of its peer yet.
fn client(config: ConfigBuilder) -> Raw {
    Raw::client_for(config, CheckInAck { identifier: "peer", max_concurrent: 100, ..CheckInAck::default() })
}

/// Calls a method; id and name that the REQUEST has.
fn named(raw: &mut Raw, name: &str) -> (u32, String) {
    raw.conn.call(raw.at(), &CallHead::new(name), Body::Copy(b""), 1).unwrap();
    let frame = raw.frame();
    (frame.request().method, frame.request().method_name.to_owned())
}

#[test]
fn calls_are_by_name_until_the_table_has_come_and_for_what_it_leaves_out() {
    let mut raw = client(config());
    assert_eq!(named(&mut raw, "a/One"), (0, "a/One".to_owned()));
    raw.feed(&frames::table(&[method(300, "a/One", 0), method(7, "a/Two", 0)]));
    raw.events();
    assert_eq!(named(&mut raw, "a/One"), (300, String::new()));
    assert_eq!(named(&mut raw, "a/Two"), (7, String::new()));
    assert_eq!(named(&mut raw, "a/Three"), (0, "a/Three".to_owned()));
    // A second one adds to the first, and may come at any time.
    raw.feed(&frames::table(&[method(8, "a/Three", 0), method(7, "a/Two", 0)]));
    raw.events();
    assert_eq!(named(&mut raw, "a/Three"), (8, String::new()));
    assert_eq!(named(&mut raw, "a/One"), (300, String::new()));
    raw.feed(&frames::table(&[]));
    raw.is_quiet();
}

#[test]
fn a_table_that_contradicts_is_a_mistake() {
    for second in [
        vec![method(0, "a/Zero", 0)],
        vec![method(1, "a/Other", 5)],
        vec![method(2, "a/One", 5)],
        vec![method(1, "a/One", 6)],
        vec![method(3, "a/B", 0), method(3, "a/C", 0)],
        vec![method(3, "a/B", 0), method(4, "a/B", 0)],
    ] {
        let mut raw = client(config());
        raw.feed(&frames::table(&[method(1, "a/One", 5)]));
        raw.is_quiet();
        raw.feed(&frames::table(&second));
        raw.closes_with(Status::PROTOCOL_ERROR);
    }
    for body in [&[3, 0x0a, 9, 0][..], &[0, 1], &[2, 0x0a, 1]] {
        let mut raw = client(config());
        raw.feed(&frames::octets(0x0f, 0, 0, 0, body));
        raw.closes_with(Status::PROTOCOL_ERROR);
    }
}

#[test]
fn learning_stops_and_calls_go_on_by_name() {
    let mut limits = Limits::default();
    limits.max_learned = 2;
    let mut raw = client(config().limits(limits));
    raw.feed(&frames::table(&[method(1, "a/1", 0), method(2, "a/2", 0), method(3, "a/3", 0)]));
    raw.is_quiet();
    assert_eq!(named(&mut raw, "a/2").0, 2);
    assert_eq!(named(&mut raw, "a/3"), (0, "a/3".to_owned()));
    let mut limits = Limits::default();
    limits.max_learned_octets = 7;
    let mut raw = client(config().limits(limits));
    raw.feed(&frames::table(&[method(1, "a/1", 0), method(2, "a/long", 0), method(3, "a/3", 0)]));
    raw.is_quiet();
    assert_eq!(named(&mut raw, "a/long").0, 0);
    assert_eq!(named(&mut raw, "a/3").0, 3);
}

#[test]
fn signatures_that_differ_stop_rigid_codecs_only() {
    let mut raw = client(config());
    raw.feed(&frames::table(&[method(1, "a/Known", 5), method(2, "a/Unknown", 0)]));
    raw.events();
    let mut call = |name, fingerprint, codec| {
        let mut head = CallHead::new(name);
        (head.fingerprint, head.codec) = (fingerprint, codec);
        raw.conn.call(raw.at(), &head, Body::Copy(b""), 1).map_err(|rejected| rejected.reason)
    };
    for codec in [0, 3] {
        assert_eq!(call("a/Known", 6, codec), Err(Rejection::WrongSignature));
        for (name, fingerprint) in [("a/Known", 5), ("a/Known", 0), ("a/Unknown", 6), ("a/New", 6)] {
            assert!(call(name, fingerprint, codec).is_ok());
        }
    }
    for codec in [1, 2, 64] {
        assert!(call("a/Known", 6, codec).is_ok());
    }
    assert_eq!(raw.conn.stats().signature_mismatches, 3);
}

fn tables(raw: &mut Raw) -> Vec<(u32, String, u64)> {
    let frames = raw.frames();
    let mut methods = Vec::new();
    for frame in frames.iter().filter(|frame| frame.frame_type() == FrameType::TABLE) {
        let Envelope::Table(table) = frame.frame().envelope else { panic!() };
        methods.extend(table.methods.iter().map(|it| (it.id, it.name.to_owned(), it.fingerprint)));
    }
    methods
}

#[test]
fn an_endpoint_announces_what_it_serves() {
    let config = Config::builder("node")
        .method(MethodSpec::unary("a/One").fingerprint(9))
        .method(MethodSpec::unary("a/Two"));
    let mut raw = Raw::new(config.build().unwrap(), Side::Server);
    raw.feed(&frames::check_in(tieline_core::wire::CheckIn { identifier: "peer", ..Default::default() }));
    raw.events();
    assert_eq!(tables(&mut raw), [(1, "a/One".to_owned(), 9), (2, "a/Two".to_owned(), 0)]);
}

#[test]
fn a_table_of_any_size_is_announced_without_using_up_the_budget_of_the_peer() {
    let many = |count: usize, len: usize| -> ConfigBuilder {
        let name = |number: usize| format!("{number:0len$}");
        (0..count)
            .fold(Config::builder("node"), |config, number| config.method(MethodSpec::unary(&name(number))))
    };
    for (count, len, all) in [(20_000, 40, true), (60_000, 200, false)] {
        let said = tieline_core::wire::CheckIn { identifier: "peer", ..Default::default() };
        let mut server = Raw::new(many(count, len).build().unwrap(), Side::Server);
        server.feed(&frames::check_in(said));
        server.events();
        let mut client = Raw::new(config().build().unwrap(), Side::Client);
        client.frames();
        let mut learned = 0;
        for frame in server.frames() {
            assert!(frame.header.len <= 64 << 10);
            learned += usize::from(frame.frame_type() == FrameType::TABLE);
            client.feed(&frame.octets);
        }
        assert!(learned <= 48, "{learned} tables");
        client.events();
        client.frames();
        client.is_quiet();
        let name = format!("{:0len$}", count - 1);
        let mut server_peer = client;
        let by_id = {
            let rejected = server_peer.conn.call(server_peer.at(), &CallHead::new(&name), Body::Copy(b""), 1);
            rejected.is_ok() && server_peer.frame().request().method != 0
        };
        assert_eq!(by_id, all);
    }
}
