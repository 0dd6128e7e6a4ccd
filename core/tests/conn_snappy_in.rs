//! Reading what is compressed (protocol §3.4), at either end and on either side, judged from outside. Blocks are written by
//! hand: what is tested is not also what tests.
#![cfg(feature = "snappy")]
#![allow(clippy::unwrap_used, clippy::panic, clippy::cast_possible_truncation)]

mod support;

use support::{
    blocks::{BOTH, able, copy1, copy2, copy4, first, literal, plain, preamble, run, stored, whole},
    frames::{self, KIB, continuation, outline},
    output::{FULL, answer, points},
    raw::{Raw, limits},
    scene::{Scene, What, all},
    streams::{SIDES, abandon, node, pattern, peer, peer_id, rest, serves, streaming},
};
use tieline_core::{
    conn::{Cancel, ConfigBuilder, Event, Stream},
    wire::{Flags, FrameType, HEADER_LEN, Header, Kind, Status},
};

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
        let mut scene = Scene::opposite(side, what, streaming(), peer());
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
        let mut scene = Scene::opposite(side, what, streaming(), able());
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
            let mut scene = Scene::opposite(side, what, streaming(), able());
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
                let mut scene = Scene::opposite(side, what, streaming(), able());
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
            let mut scene = Scene::opposite(side, what, narrow(), able());
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
            let mut scene = Scene::opposite(side, what, narrow(), able());
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
        let mut scene = Scene::opposite(side, what, narrow(), able());
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
            let mut scene = Scene::opposite(side, what, streaming(), able());
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
            let mut scene = Scene::opposite(side, what, streaming(), able());
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
