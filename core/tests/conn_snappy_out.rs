//! Compressing what is sent (protocol §3.4), at either end and on either side, judged from outside. Blocks are read by
//! hand: what is tested is not also what tests.
#![cfg(feature = "snappy")]
#![allow(clippy::unwrap_used, clippy::panic, clippy::cast_possible_truncation)]

mod support;

use support::{
    blocks::{able, plain},
    frames::{self, KIB, Seen},
    output::{Message, Reader},
    random::Random,
    raw::Raw,
    scene::{What, all},
    streams::{KINDS, SIDES, call_head, calls, name, node, peer, peer_id, serves, streaming},
};
use tieline_core::{
    conn::{Body, ConfigBuilder, MethodSpec, Side},
    wire::{CheckIn, Kind, Request, Status},
};

/// Octets that cannot be made shorter.
fn noise(random: &mut Random, len: usize) -> Vec<u8> {
    random.octets(len)
}

/// Who asks for compression.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Asks {
    Nobody,
    Call,
    Method,
    Link,
}

fn asking(asks: Asks) -> ConfigBuilder {
    let config = streaming().compress(asks == Asks::Link);
    if asks != Asks::Method {
        return config;
    }
    // The same methods in the same order.
    KINDS.iter().fold(tieline_core::conn::Config::builder("node"), |config, kind| {
        config.method(MethodSpec::new(name(*kind), *kind).compress(true))
    })
}

/// A connection that sends messages of one sort, one after the other, each in a call of its own.
struct Sender {
    raw: Raw,
    what: What,
    asks: Asks,
    next: u64,
}

impl Sender {
    fn new(side: Side, what: What, asks: Asks, config: ConfigBuilder, said: CheckIn<'_>) -> Self {
        Self { raw: node(side, config, said), what, asks, next: 0 }
    }

    /// The message as it goes out, and the stretch of what is saved.
    fn send(&mut self, payload: &[u8]) -> Message {
        let (side, what) = (self.raw.conn.side(), self.what);
        let raw = &mut self.raw;
        let id = peer_id(side, self.next);
        self.next += 1;
        let mut head = call_head(if what == What::ItemUp { Kind::ClientStream } else { Kind::Unary });
        head.compress = self.asks == Asks::Call;
        let (at, body) = (raw.at(), Body::Copy(payload));
        let mut frames = Vec::new();
        let mut open = None;
        match what {
            What::Request => open = Some(raw.conn.call(at, &head, body, 1).unwrap()),
            What::OneWay => drop(raw.conn.one_way(at, &head, body, 1).unwrap()),
            What::Response => {
                let call = serves(raw, id, Kind::Unary).call;
                raw.reply(call, payload);
            }
            What::ItemUp => {
                let (call, _) = calls(raw, head, 1);
                raw.conn.send_item(at, call, body).unwrap();
                open = Some(call);
            }
            What::ItemDown => {
                let request = Request { credit: Some(1 << 30), ..support::streams::head(Kind::ServerStream) };
                raw.feed(&frames::request(id, request, b""));
                let call = raw.incoming().call;
                raw.conn.send_item(at, call, body).unwrap();
                frames.extend(raw.frames());
                raw.reply(call, b"");
                raw.frames();
            }
        }
        frames.extend(raw.frames());
        let first = frames.first().map(Seen::id);
        let mut messages = Reader::new(64 * KIB).read(&frames);
        assert_eq!(messages.len(), 1);
        if open.is_some() {
            raw.feed(&frames::response(first.unwrap(), Status::OK, b""));
        }
        raw.turn();
        messages.remove(0)
    }

    fn compresses(&mut self, payload: &[u8]) -> bool {
        let message = self.send(payload);
        let sent = if message.compressed { plain(&message.payload) } else { message.payload };
        assert!(sent == payload, "what arrives is what was sent");
        message.compressed
    }
}

fn asked_by(what: What) -> [Asks; 2] {
    match what {
        What::Request | What::OneWay | What::ItemUp => [Asks::Call, Asks::Link],
        What::Response | What::ItemDown => [Asks::Method, Asks::Link],
    }
}

/// R-CMP-06, R-CMP-01.
#[test]
fn compression_is_off_unless_it_is_asked_for_and_granted() {
    let payload = vec![b'a'; 5_000];
    for (side, what) in all() {
        assert!(!Sender::new(side, what, Asks::Nobody, asking(Asks::Nobody), able()).compresses(&payload));
        for asks in asked_by(what) {
            let mut sender = Sender::new(side, what, asks, asking(asks), able());
            assert!(sender.compresses(&payload), "{side:?} {what:?} {asks:?}");
            let saved = sender.raw.conn.stats().octets_saved;
            assert!((4_000..5_000).contains(&saved), "{saved}");
            let mut sender =
                Sender::new(side, what, asks, asking(asks), CheckIn { stream_window: 1 << 30, ..peer() });
            assert!(!sender.compresses(&payload), "{side:?} {what:?} {asks:?}: not granted");
            assert_eq!(sender.raw.conn.stats().octets_saved, 0);
        }
    }
}

/// R-CMP-06.
#[test]
fn compression_begins_at_1_kib_or_where_it_is_set_to() {
    for (side, what) in all() {
        for asks in asked_by(what) {
            for from in [None, Some(64), Some(1_025), Some(20_000)] {
                let config = from.map_or(asking(asks), |from| asking(asks).compress_from(from));
                let mut sender = Sender::new(side, what, asks, config, able());
                let from = from.unwrap_or(1024);
                for (len, expected) in [(0, false), (from - 1, false), (from, true), (from + 1, true)] {
                    let compressed = sender.compresses(&vec![b'a'; len]);
                    assert_eq!(compressed, expected, "{side:?} {what:?} {asks:?} {len} from {from}");
                }
            }
        }
    }
}

/// R-CMP-07.
#[test]
fn compression_is_used_only_where_it_gains_an_eighth() {
    let mut random = Random::new(7);
    for (side, what) in all() {
        let asks = asked_by(what)[0];
        let mut sender = Sender::new(side, what, asks, asking(asks), able());
        let (mut seen, mut least) = ([0, 0], usize::MAX);
        for gain in (0..=50).rev() {
            // So much of it, in hundredths, can be made short.
            for len in [1_100, 8_000, 70_000] {
                let mut payload = noise(&mut random, len - len * gain / 100);
                payload.resize(len, 0);
                let message = sender.send(&payload);
                seen[usize::from(message.compressed)] += 1;
                if message.compressed {
                    assert!(plain(&message.payload) == payload);
                    assert!(message.payload.len() * 8 <= len * 7, "{side:?} {what:?}: a gain of {gain} %");
                    least = least.min(gain);
                } else {
                    assert!(message.payload == payload);
                    assert!(gain < 20, "{side:?} {what:?}: a gain of {gain} % is left");
                }
                // What is easy, so that the method is not given up.
                assert!(sender.compresses(&[0; 2_000]), "{side:?} {what:?}");
            }
        }
        assert!(seen[0] > 20 && seen[1] > 20 && least >= 12, "{seen:?} {least}");
    }
}

/// A method whose payloads do not gain is left alone after 16 tries: the work would be for nothing.
#[test]
fn a_method_is_left_alone_after_16_tries_without_gain() {
    let mut random = Random::new(9);
    let easy = [0; 2_000];
    for (side, what) in all() {
        let asks = asked_by(what)[0];
        // 15 tries, and a gain, again and again: it goes on.
        let mut sender = Sender::new(side, what, asks, asking(asks), able());
        for _ in 0..3 {
            for _ in 0..15 {
                assert!(!sender.compresses(&noise(&mut random, 2_000)));
            }
            assert!(sender.compresses(&easy), "{side:?} {what:?}");
        }
        // What is too short is no try.
        for _ in 0..15 {
            assert!(!sender.compresses(&noise(&mut random, 2_000)));
            assert!(!sender.compresses(&noise(&mut random, 100)));
        }
        assert!(sender.compresses(&easy), "{side:?} {what:?}");
        for _ in 0..16 {
            assert!(!sender.compresses(&noise(&mut random, 2_000)));
        }
        assert!(!sender.compresses(&easy), "{side:?} {what:?}: it is left alone");
        assert!(!sender.compresses(&easy), "{side:?} {what:?}: it is left alone");
    }
}

/// R-CMP-01: a message in many frames says so once; `total` is of the octets as sent (R-FRG-03).
#[test]
fn what_is_large_is_compressed_and_then_cut() {
    let mut random = Random::new(11);
    for (side, what) in all() {
        let asks = asked_by(what)[0];
        let mut sender = Sender::new(side, what, asks, asking(asks), able());
        let mut payload = noise(&mut random, 150_000);
        payload.resize(250_000, 0);
        let message = sender.send(&payload);
        assert!(message.compressed && message.bodies.len() > 1, "{side:?} {what:?}");
        assert!(plain(&message.payload) == payload);
    }
}

/// R-CAL-16, R-STR-05: the peer's limits are on what is plain, and the credit is on what is sent.
#[test]
fn the_peers_limits_are_on_the_plain_octets() {
    for side in SIDES {
        let said = CheckIn { max_message: 10_000, max_item: 5_000, ..able() };
        let mut raw = node(side, asking(Asks::Link), said);
        let mut head = call_head(Kind::ClientStream);
        head.compress = true;
        assert!(raw.conn.call(raw.at(), &head, Body::Copy(&[0; 10_001]), 1).is_err());
        let call = raw.conn.call(raw.at(), &head, Body::Copy(&[0; 10_000]), 1).unwrap();
        assert_eq!(raw.frames().len(), 1);
        assert!(raw.conn.send_item(raw.at(), call, Body::Copy(&[0; 5_001])).is_err());
        raw.conn.send_item(raw.at(), call, Body::Copy(&[0; 5_000])).unwrap();
        assert_eq!(raw.frames().len(), 1);
        // With a window of 1000 two such items go out, each of less than 744 octets.
        let said = CheckIn { stream_window: 1_000, ..able() };
        let mut raw = node(side, asking(Asks::Link), said);
        let (call, _) = calls(&mut raw, head, 1);
        for _ in 0..2 {
            raw.conn.send_item(raw.at(), call, Body::Copy(&[0; 5_000])).unwrap();
        }
        let sent = raw.frames();
        assert_eq!(sent.len(), 2);
        assert!(sent.iter().all(|frame| frame.payload().len() < 744));
    }
}
