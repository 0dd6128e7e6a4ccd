//! Compression (protocol §3.4), at either end and on either side, judged from outside. Blocks are written and read by
//! hand: what is tested is not also what tests.
#![cfg(feature = "snappy")]
#![allow(clippy::unwrap_used, clippy::panic, clippy::cast_possible_truncation)]

mod support;

use support::{
    frames::{self, Seen, continuation, flagged, outline},
    random::Random,
    raw::Raw,
    streams::{
        FULL, KINDS, Message, Reader, SIDES, Scene, What, abandon, answer, call_head, calls, head, name,
        node, pattern, peer, peer_id, points, rest, serves, streaming,
    },
};
use tieline_core::{
    conn::{Body, Cancel, ConfigBuilder, Event, Limits, MethodSpec, Side, Stream},
    wire::{
        CheckIn, Envelope, Flags, FrameType, HEADER_LEN, Header, Item, Kind, Repeated, Request, Response,
        Status,
    },
};

const KIB: usize = 1024;
const BOTH: Flags = Flags(Flags::COMPRESSED.0 | Flags::MORE.0);

fn limits(change: impl FnOnce(&mut Limits)) -> Limits {
    let mut limits = Limits::default();
    change(&mut limits);
    limits
}

fn all() -> impl Iterator<Item = (Side, What)> {
    SIDES.into_iter().flat_map(|side| What::ALL.map(|what| (side, what)))
}

/// A peer that has feature 1, and takes streams of any length.
fn able() -> CheckIn<'static> {
    CheckIn { features: Repeated::from(&[1][..]), stream_window: 1 << 30, ..peer() }
}

// ---- blocks, by hand ------------------------------------------------------------------------------------------

fn preamble(mut len: usize) -> Vec<u8> {
    let mut out = Vec::new();
    while len >= 0x80 {
        out.push(len as u8 | 0x80);
        len >>= 7;
    }
    out.push(len as u8);
    out
}

fn literal(octets: &[u8]) -> Vec<u8> {
    let less = octets.len() - 1;
    let tag = match less {
        0..60 => vec![(less as u8) << 2],
        60..256 => vec![60 << 2, less as u8],
        _ => vec![61 << 2, less as u8, (less >> 8) as u8],
    };
    [&tag, octets].concat()
}

/// 4 to 11 octets from up to 2047 back.
fn copy1(len: usize, back: usize) -> Vec<u8> {
    vec![((back >> 8) as u8) << 5 | ((len - 4) as u8) << 2 | 1, back as u8]
}

/// 1 to 64 octets from up to 65 535 back.
fn copy2(len: usize, back: usize) -> Vec<u8> {
    vec![((len - 1) as u8) << 2 | 2, back as u8, (back >> 8) as u8]
}

/// 1 to 64 octets from anywhere.
fn copy4(len: usize, back: usize) -> Vec<u8> {
    [&[((len - 1) as u8) << 2 | 3][..], &(back as u32).to_le_bytes()].concat()
}

/// A block of one literal.
fn stored(octets: &[u8]) -> Vec<u8> {
    [preamble(octets.len()), literal(octets)].concat()
}

/// A block of so many equal octets, which are 21 times as many.
fn run(len: usize) -> Vec<u8> {
    let mut out = [preamble(len), literal(b"a")].concat();
    let mut left = len - 1;
    while left > 0 {
        let copy = left.min(64);
        out.extend(copy2(copy, 1));
        left -= copy;
    }
    out
}

/// What a good block says.
fn plain(block: &[u8]) -> Vec<u8> {
    let end = block.iter().position(|octet| octet & 0x80 == 0).unwrap();
    let declared = block[..=end].iter().rev().fold(0, |len, octet| len << 7 | usize::from(octet & 0x7f));
    let (mut out, mut at) = (Vec::new(), end + 1);
    let number = |at: usize, octets: usize| {
        (0..octets).rev().fold(0, |number, octet| number << 8 | usize::from(block[at + octet]))
    };
    while at < block.len() {
        let tag = usize::from(block[at]);
        at += 1;
        let (len, back, used) = match tag & 3 {
            0 => {
                let (len, used) = match tag >> 2 {
                    less @ 0..60 => (less + 1, 0),
                    long => (number(at, long - 59) + 1, long - 59),
                };
                at += used;
                out.extend_from_slice(&block[at..at + len]);
                at += len;
                continue;
            }
            1 => ((tag >> 2 & 7) + 4, tag >> 5 << 8 | number(at, 1), 1),
            2 => ((tag >> 2) + 1, number(at, 2), 2),
            _ => ((tag >> 2) + 1, number(at, 4), 4),
        };
        at += used;
        (0..len).for_each(|_| out.push(out[out.len() - back]));
    }
    assert_eq!(out.len(), declared);
    out
}

// ---- messages -------------------------------------------------------------------------------------------------

/// A first frame with these flags; `total` goes with MORE.
fn first(what: What, id: u64, flags: Flags, total: usize, part: &[u8]) -> Vec<u8> {
    let total = if flags.contains(Flags::MORE) { total as u64 } else { 0 };
    let request = Envelope::Request(Request { total, ..head(Kind::Unary) });
    let (frame_type, envelope) = match what {
        What::Request => (FrameType::REQUEST, request),
        What::OneWay => (FrameType::ONE_WAY, request),
        What::Response => {
            (FrameType::RESPONSE, Envelope::Response(Response { total, ..Response::default() }))
        }
        What::ItemUp | What::ItemDown => (FrameType::STREAM_ITEM, Envelope::Item(Item { total })),
    };
    flagged(frame_type, id, Status::OK, flags, envelope, part)
}

fn whole(what: What, id: u64, block: &[u8]) -> Vec<u8> {
    first(what, id, Flags::COMPRESSED, 0, block)
}

/// As [`Scene::arriving_with`], opposite this peer.
fn scene(side: Side, what: What, config: ConfigBuilder, said: CheckIn<'_>) -> Scene {
    let mut scene =
        Scene { raw: node(side, config, said), id: peer_id(side, 0), what, ours: None, theirs: None };
    match what {
        What::Request | What::OneWay => {}
        What::Response => ours(&mut scene, Kind::Unary),
        What::ItemUp => scene.theirs = Some(serves(&mut scene.raw, scene.id, Kind::ClientStream).call),
        What::ItemDown => ours(&mut scene, Kind::ServerStream),
    }
    scene
}

fn ours(scene: &mut Scene, kind: Kind) {
    let (call, id) = calls(&mut scene.raw, call_head(kind), 1);
    (scene.ours, scene.id) = (Some(call), id);
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wrong {
    Bad,
    TooLarge,
}

/// The message has come to this end (R-CMP-05, R-CAL-20, R-CAL-22, R-STR-13), what follows of it is free (R-ID-09), and
/// the connection goes on.
fn is(scene: &mut Scene, wrong: Wrong, why: &str, tail: &[Vec<u8>]) {
    let (raw, id, what) = (&mut scene.raw, scene.id, scene.what);
    let why = format!("{:?} {what:?} {why}", raw.conn.side());
    let mut sent = raw.turn();
    let stream = scene.theirs.map(Stream::from).or(scene.ours.map(Stream::from));
    if let (What::ItemUp | What::ItemDown, Some(stream)) = (what, stream) {
        // R-STR-14: it may be looked at no sooner than it is taken.
        let taken = raw.conn.take_item(raw.at(), stream);
        assert_eq!(taken, None, "{why}");
        sent.extend(raw.turn());
    }
    let late = raw.conn.stats().late_frames;
    tail.iter().for_each(|frame| raw.feed(frame));
    raw.is_quiet();
    assert_eq!(raw.conn.stats().late_frames, late, "{why}: what follows is free");
    let bad = wrong == Wrong::Bad;
    let failure = |raw: &Raw| {
        raw.passed.iter().find_map(|event| match event {
            Event::Done { outcome, .. } => Some(outcome.as_ref().unwrap_err().status()),
            _ => None,
        })
    };
    let requested = raw.passed.iter().any(|event| matches!(event, Event::Request(_)));
    assert!(!requested, "{why}: no handler starts");
    let reported = if bad { Status::BAD_REPLY } else { Status::LOCAL_LIMIT };
    match what {
        What::Request => {
            let status = if bad { Status::BAD_COMPRESSION } else { Status::TOO_LARGE };
            assert_eq!(outline(&sent), [(FrameType::RESPONSE, id, status)], "{why}");
        }
        What::OneWay => {
            assert!(sent.is_empty(), "{why}");
            assert_eq!(raw.conn.stats().dropped_one_ways, 1, "{why}");
        }
        What::Response => {
            assert_eq!(failure(raw), Some(reported), "{why}");
            assert!(sent.iter().all(|frame| frame.frame_type() == FrameType::CANCEL), "{why}");
        }
        What::ItemUp => {
            assert_eq!(answer(&sent, id), Some(Status::INTERRUPTED), "{why}");
            let told = raw.passed.iter().any(|it| matches!(it, Event::Cancelled(_, Cancel::BrokenItem)));
            assert!(told, "{why}: {:?}", raw.passed);
        }
        What::ItemDown => {
            sent.retain(|frame| frame.frame_type() != FrameType::CREDIT);
            assert_eq!(outline(&sent), [(FrameType::CANCEL, id, Status::CANCELLED)], "{why}");
            raw.feed(&frames::response(id, Status::CANCELLED_RUNNING, b""));
            raw.turn();
            assert_eq!(failure(raw), Some(reported), "{why}");
        }
    }
    raw.passed.clear();
    let next = peer_id(raw.conn.side(), 9);
    raw.feed(&frames::call(next, b""));
    let events = raw.events();
    let [Event::Request(incoming)] = &events[..] else { panic!("{why}: {events:?}") };
    raw.reply(incoming.call, b"");
    assert_eq!(answer(&raw.frames(), next), Some(Status::OK), "{why}");
}

// ---- reading --------------------------------------------------------------------------------------------------

/// R-CMP-01, R-FRM-04: and it is seen in the header (R-FRM-07).
#[test]
fn what_is_compressed_without_being_granted_is_a_mistake() {
    for (side, what) in all() {
        let mut scene = scene(side, what, streaming(), peer());
        scene.raw.feed(&whole(what, scene.id, &stored(b"hello"))[..HEADER_LEN]);
        scene.raw.closes_with(Status::PROTOCOL_ERROR);
    }
}

/// R-CMP-01, R-FRM-04.
#[test]
fn only_the_first_frame_of_a_message_says_that_it_is_compressed() {
    for side in SIDES {
        for kind in [3, 4, 8, 0x0a, 0x0b, 0x0c, 0x0d, 0x0e, 0x0f] {
            let mut raw = node(side, streaming(), able());
            let id = peer_id(side, 0);
            serves(&mut raw, id, Kind::Bidi);
            let header = Header {
                frame_type: FrameType(kind),
                flags: Flags::COMPRESSED,
                status: Status::OK,
                id,
                len: 0,
            };
            raw.feed(&header.emit());
            raw.closes_with(Status::PROTOCOL_ERROR);
        }
    }
    for (side, what) in all() {
        let mut scene = scene(side, what, streaming(), able());
        scene.raw.feed(&first(what, scene.id, BOTH, 7, &stored(b"hello")[..3]));
        let frame = frames::octets(0x0c, Flags::COMPRESSED.0, 0, scene.id, &stored(b"hello")[3..]);
        scene.raw.feed(&frame);
        scene.raw.closes_with(Status::PROTOCOL_ERROR);
    }
}

/// Blocks of every element that there is.
fn good() -> Vec<Vec<u8>> {
    vec![
        vec![0],
        stored(b"a"),
        stored(&pattern(60)),
        stored(&pattern(61)),
        stored(&pattern(256)),
        stored(&pattern(60_000)),
        [preamble(12), literal(b"abcd"), copy1(8, 4)].concat(),
        [preamble(303), literal(&pattern(300)), copy2(3, 300)].concat(),
        [preamble(303), literal(&pattern(292)), copy1(11, 292)].concat(),
        [preamble(70), literal(b"abcde"), copy4(64, 5), literal(b"!")].concat(),
        run(200_000),
    ]
}

/// R-CMP-02.
#[test]
fn a_block_is_read_whatever_it_is_made_of() {
    for (side, what) in all() {
        for block in good() {
            let mut scene = scene(side, what, streaming(), able());
            scene.raw.feed(&whole(what, scene.id, &block));
            assert_eq!(scene.received(), Some(plain(&block)), "{side:?} {what:?}");
        }
    }
}

/// R-CMP-01, R-CMP-02: the first frame's flag holds for the CONTINUATIONs; the block, and its preamble, may be cut
/// anywhere.
#[test]
fn a_block_is_read_however_it_was_cut() {
    let short = [preamble(303), literal(&pattern(292)), copy1(11, 292)].concat();
    for (side, what) in all() {
        for (block, piece) in [(&short, 1), (&short, 7), (&run(200_000), 300)] {
            for part in 0..5 {
                let mut scene = scene(side, what, streaming(), able());
                scene.raw.feed(&first(what, scene.id, BOTH, block.len(), &block[..part]));
                for frame in rest(scene.id, &block[part..], piece) {
                    assert_eq!(scene.received(), None, "{side:?} {what:?}");
                    scene.raw.feed(&frame);
                }
                assert_eq!(scene.received(), Some(plain(block)), "{side:?} {what:?} {part} {piece}");
            }
        }
    }
}

/// The limit of that message, with the limits of the next tests.
fn limit(what: What) -> usize {
    match what {
        What::ItemUp | What::ItemDown => 100_000,
        _ => 1 << 20,
    }
}

fn narrow() -> ConfigBuilder {
    streaming().limits(limits(|it| (it.max_message, it.max_item) = (1 << 20, 100_000)))
}

/// R-CMP-03.
#[test]
fn a_plain_length_at_the_limit_passes_and_one_above_is_too_large() {
    for (side, what) in all() {
        for over in [false, true] {
            let block = run(limit(what) + usize::from(over));
            let mut scene = scene(side, what, narrow(), able());
            scene.raw.feed(&whole(what, scene.id, &block));
            if over {
                is(&mut scene, Wrong::TooLarge, "in one frame", &[]);
            } else {
                assert_eq!(scene.received(), Some(plain(&block)), "{side:?} {what:?}");
            }
        }
    }
}

/// R-CMP-03: at the first frame that holds it whole, and not before.
#[test]
fn a_plain_length_is_judged_at_the_first_frame_that_holds_it_whole() {
    for (side, what) in all() {
        let block = run(limit(what) + 1);
        let octets = preamble(limit(what) + 1).len();
        assert_eq!(octets, 3);
        for part in 0..=octets {
            let mut scene = scene(side, what, narrow(), able());
            scene.raw.feed(&first(what, scene.id, BOTH, block.len(), &block[..part]));
            for at in part..octets {
                scene.raw.is_quiet();
                scene.raw.feed(&continuation(scene.id, true, &block[at..=at]));
            }
            let tail = rest(scene.id, &block[octets..], 4_000);
            is(&mut scene, Wrong::TooLarge, "in fragments", &tail);
        }
    }
}

/// R-CMP-08, R-CAL-20: the octets as sent are held to the limit too.
#[test]
fn a_total_above_the_limit_is_too_large_whatever_it_says_of_its_plain_length() {
    for (side, what) in all() {
        let mut scene = scene(side, what, narrow(), able());
        let id = scene.id;
        scene.raw.feed(&first(what, scene.id, BOTH, limit(what) + 1, &[5, 4 << 2, b'h']));
        is(&mut scene, Wrong::TooLarge, "as sent", &[abandon(id)]);
    }
}

/// R-CMP-04, each by its name.
fn bad() -> Vec<(&'static str, Vec<u8>)> {
    vec![
        ("empty", vec![]),
        ("a preamble that does not end", vec![0x85]),
        ("a preamble of 6 octets", [&[0x85, 0x80, 0x80, 0x80, 0x80, 0x00][..], &literal(b"hello")].concat()),
        ("a preamble above 2^32-1", [&[0x85, 0x80, 0x80, 0x80, 0x10][..], &literal(b"hello")].concat()),
        ("a preamble and nothing", preamble(5)),
        ("shorter", [preamble(6), literal(b"hello")].concat()),
        ("longer by a literal", [preamble(5), literal(b"hello!")].concat()),
        ("longer by an element", [preamble(5), literal(b"hello"), literal(b"!")].concat()),
        ("longer by a copy", [preamble(6), literal(b"hello"), copy2(2, 1)].concat()),
        ("longer than nothing", [preamble(0), literal(b"!")].concat()),
        ("trailing octet", [&stored(b"hello")[..], &[0xff]].concat()),
        ("trailing zero", [&stored(b"hello")[..], &[0]].concat()),
        ("trailing copy of a cut kind", [&stored(b"hello")[..], &[2, 1]].concat()),
        ("a literal that is cut off", vec![5, 4 << 2, b'h', b'e']),
        ("a literal whose length is cut off", vec![100, 61 << 2, 99]),
        ("a literal of 4 GiB", vec![5, 63 << 2, 0xff, 0xff, 0xff, 0xff, b'a']),
        ("a copy that is cut off", [preamble(10), literal(b"hello"), vec![4 << 2 | 2, 5]].concat()),
        ("a copy from nothing", [preamble(4), copy1(4, 1)].concat()),
        ("copy 1 from 0 back", [preamble(9), literal(b"hello"), copy1(4, 0)].concat()),
        ("copy 2 from 0 back", [preamble(9), literal(b"hello"), copy2(4, 0)].concat()),
        ("copy 4 from 0 back", [preamble(9), literal(b"hello"), copy4(4, 0)].concat()),
        ("copy 1 from before the start", [preamble(9), literal(b"hello"), copy1(4, 6)].concat()),
        ("copy 2 from before the start", [preamble(9), literal(b"hello"), copy2(4, 6)].concat()),
        ("copy 4 from before the start", [preamble(9), literal(b"hello"), copy4(4, 6)].concat()),
        ("copy 4 from far before", [preamble(9), literal(b"hello"), copy4(4, 0xffff_ffff)].concat()),
    ]
}

/// R-CMP-04, R-CMP-05.
#[test]
fn bad_compression_has_its_outcome_for_each_message() {
    for (side, what) in all() {
        for (why, block) in bad() {
            let mut scene = scene(side, what, streaming(), able());
            scene.raw.feed(&whole(what, scene.id, &block));
            is(&mut scene, Wrong::Bad, why, &[]);
        }
    }
}

/// R-CMP-04, R-CMP-05: no later than the last frame.
#[test]
fn bad_compression_in_fragments_has_the_same_outcome() {
    for (side, what) in all() {
        for (why, block) in bad() {
            if block.is_empty() {
                continue;
            }
            let mut scene = scene(side, what, streaming(), able());
            scene.raw.feed(&first(what, scene.id, BOTH, block.len(), b""));
            rest(scene.id, &block, 1).iter().for_each(|frame| scene.raw.feed(frame));
            is(&mut scene, Wrong::Bad, why, &[]);
        }
    }
}

/// R-ABU-05, R-CAL-06: a class-2 answer costs 1; in a ONE_WAY it costs nothing.
#[test]
fn bad_compression_has_the_price_of_its_answer() {
    for side in SIDES {
        for (what, price) in [(What::Request, 1), (What::OneWay, 0)] {
            let mut raw = node(side, streaming(), able());
            for n in 0..100 {
                raw.feed(&whole(what, peer_id(side, n), &[]));
                raw.turn();
            }
            assert_eq!(points(&mut raw), FULL - 100 * price, "{what:?}");
        }
    }
}

/// R-CMP-08, R-CAL-13.
#[test]
fn memory_counts_the_larger_of_the_octets_as_sent_and_plain() {
    const MIB: usize = 1 << 20;
    for side in SIDES {
        let bounds = limits(|it| (it.max_message, it.memory) = (3 << 20, 4 << 20));
        let begun = |flags, total, part: &[u8]| {
            let mut raw = node(side, streaming().limits(bounds.clone()), able());
            raw.feed(&first(What::Request, peer_id(side, 0), flags, total, part));
            raw.is_quiet();
            raw
        };
        let fits = |mut raw: Raw, octets: usize| {
            let id = peer_id(side, 1);
            raw.feed(&first(What::Request, id, Flags::MORE, octets, &[7; 300]));
            assert!(raw.events().is_empty());
            match outline(&raw.frames())[..] {
                [] => true,
                [(FrameType::RESPONSE, it, Status::OVERLOADED)] if it == id => false,
                ref other => panic!("{other:?}"),
            }
        };
        // Plain, 2 MiB; as sent, a tenth of it.
        let preamble = preamble(2 * MIB);
        let (total, part) = (200 * KIB, [&preamble[..], &[0; 300]].concat());
        assert!(fits(begun(BOTH, total, &part), 2 * MIB - KIB));
        assert!(!fits(begun(BOTH, total, &part), 2 * MIB + KIB));
        // It is known when it is whole.
        assert!(fits(begun(BOTH, total, &part[..preamble.len() - 1]), 3 * MIB));
        let mut raw = begun(BOTH, total, &part[..preamble.len() - 1]);
        raw.feed(&continuation(peer_id(side, 0), true, &part[preamble.len() - 1..]));
        raw.is_quiet();
        assert!(!fits(raw, 2 * MIB + KIB));
        // Plain, an octet; as sent, 2 MiB.
        let part = [&[1][..], &[0; 300]].concat();
        assert!(fits(begun(BOTH, 2 * MIB, &part), 2 * MIB - KIB));
        assert!(!fits(begun(BOTH, 2 * MIB, &part), 2 * MIB + KIB));
        // What does not fit when it becomes known is refused then.
        let mut raw = begun(Flags::MORE, 3 * MIB, &[7; 300]);
        let id = peer_id(side, 1);
        raw.feed(&first(What::Request, id, BOTH, total, &preamble[..preamble.len() - 1]));
        raw.is_quiet();
        raw.feed(&continuation(id, true, &[preamble[preamble.len() - 1]]));
        assert_eq!(outline(&raw.turn()), [(FrameType::RESPONSE, id, Status::OVERLOADED)]);
    }
}

// ---- sending --------------------------------------------------------------------------------------------------

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
