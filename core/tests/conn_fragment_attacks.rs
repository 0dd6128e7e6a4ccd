//! Known attacks with messages in fragments and compressed ones, which claim much and bring little, and what one
//! connection makes of each while its neighbour, of the same configuration, goes on unharmed. What they make it hold is
//! counted by an allocator.
#![allow(clippy::unwrap_used, clippy::panic, clippy::cast_possible_truncation)]

mod support;

use support::{
    attacked::{attacked, borne},
    frames::{KIB, MIB, continuation, outline},
    heap::{Counting, TOTAL, peak},
    output::FULL,
    scene::What,
    streams::{SIDES, call_head, calls, pattern, peer_id, serves},
};
use tieline_core::{
    conn::{Event, Limits},
    wire::{FrameType, Kind, Status},
};

#[global_allocator]
static ALLOCATOR: Counting = Counting;

// ---- fragments ------------------------------------------------------------------------------------------------

/// VU#421644: fragments without end, by the octet. R-ABU-05, R-ABU-07: the first frame counts too.
#[test]
fn a_message_by_the_octet_is_an_end() {
    for side in SIDES {
        for what in [What::Request, What::OneWay, What::ItemUp] {
            let (mut raw, mut neighbour) = attacked(side, Limits::default());
            let id = peer_id(side, 0);
            if what == What::ItemUp {
                serves(&mut raw, id, Kind::ClientStream);
            }
            raw.feed(&what.begin(id, 100_000, b"x"));
            let (rounds, status) = borne(&mut raw, 10_000, |raw, _| raw.feed(&continuation(id, true, b"x")));
            assert_eq!((rounds + 2, status), (u64::from(FULL), Status::EXCESSIVE_LOAD), "{what:?}");
            neighbour.goes_on();
        }
    }
}

/// RUSTSEC-2019-0003, CVE-2026-45416: a claim allocates nothing, and is refused at its first frame. R-CAL-20, R-STR-13,
/// R-FRM-11.
#[test]
fn a_claim_of_4_gib_and_more_is_refused_and_allocates_nothing() {
    for side in SIDES {
        for what in What::ALL {
            for total in [(4 << 20) + 1, (1 << 32) - 1, 1 << 32, (1 << 32) + 5, 1 << 63, u64::MAX] {
                let (mut raw, mut neighbour) = attacked(side, Limits::default());
                let mut id = peer_id(side, 0);
                match what {
                    What::Response => id = calls(&mut raw, call_head(Kind::Unary), 1).1,
                    What::ItemDown => id = calls(&mut raw, call_head(Kind::ServerStream), 1).1,
                    What::ItemUp => drop(serves(&mut raw, id, Kind::ClientStream)),
                    What::Request | What::OneWay => {}
                }
                let begin = what.begin(id, total, &[7; 300]);
                let mut sent = Vec::new();
                let held = peak(|| {
                    raw.feed(&begin);
                    sent = raw.turn();
                });
                assert!(held < 192 * KIB, "{what:?} {total}: {held} octets");
                let sent = outline(&sent);
                match what {
                    What::Request => assert_eq!(sent, [(FrameType::RESPONSE, id, Status::TOO_LARGE)]),
                    What::ItemUp => assert_eq!(sent, [(FrameType::RESPONSE, id, Status::INTERRUPTED)]),
                    What::OneWay => assert_eq!((sent.len(), raw.conn.stats().dropped_one_ways), (0, 1)),
                    What::Response => {
                        let done = raw.passed.iter().any(|event| {
                            matches!(event, Event::Done { outcome: Err(it), .. } if it.status() == Status::LOCAL_LIMIT)
                        });
                        assert!(done, "{:?}", raw.passed);
                    }
                    What::ItemDown => assert_eq!(sent, [(FrameType::CANCEL, id, Status::CANCELLED)]),
                }
                // What follows of it is free, and a frame that lies about its own length is the end.
                raw.feed(&continuation(id, true, &[7; 300]));
                raw.feed(&continuation(id, true, &[7; 300]));
                raw.is_quiet();
                assert_eq!(raw.conn.stats().late_frames, 0);
                let mut lie = continuation(id, true, b"");
                lie[14..18].copy_from_slice(&u32::MAX.to_be_bytes());
                let held = peak(|| {
                    raw.feed(&lie);
                    raw.closes_with(Status::FRAME_TOO_LARGE);
                });
                assert!(held < 192 * KIB, "{what:?}: {held} octets");
                neighbour.goes_on();
            }
        }
    }
}

/// The same with claims that are within every limit: what is held is what has arrived, twice, and 64 KiB.
fn claims_and_an_octet(what: What, many: u64, claim: u64) {
    // What a table needs for a message and its call, beside the octets.
    const PLACE: usize = 1024;
    for side in SIDES {
        let (mut raw, mut neighbour) = attacked(side, Limits::default());
        if what == What::ItemUp {
            (0..many).for_each(|n| drop(serves(&mut raw, peer_id(side, n), Kind::ClientStream)));
        }
        let begins: Vec<Vec<u8>> = (0..many).map(|n| what.begin(peer_id(side, n), claim, b"x")).collect();
        let held = peak(|| {
            for begin in &begins {
                raw.feed(begin);
                raw.is_quiet();
            }
        });
        let most = 2 * begins.concat().len() + 64 * KIB + many as usize * PLACE;
        assert!(held <= most, "{held} octets for {} that came", begins.concat().len());
        neighbour.goes_on();
    }
}

/// R-FRM-11.
#[test]
fn many_requests_that_claim_much_and_bring_an_octet_hold_next_to_nothing() {
    claims_and_an_octet(What::Request, 60, 128 << 10);
}

/// R-FRM-11. Items are not reserved, so nothing else bounds what they claim.
#[test]
fn many_items_that_claim_much_and_bring_an_octet_hold_next_to_nothing() {
    claims_and_an_octet(What::ItemUp, 200, 256 << 10);
}

/// RUSTSEC-2023-0065: what a message costs grows with its length and no faster, however it is fed.
#[test]
fn a_message_in_small_fragments_is_not_copied_over_and_over() {
    for side in SIDES {
        let allocated = |octets: usize| {
            let (mut raw, _) = attacked(side, Limits::default());
            let payload = pattern(octets);
            let frames = What::Request.cut(peer_id(side, 0), &payload, 256, 256).concat();
            let before = TOTAL.get();
            // As a slow line brings it: no frame comes whole.
            for piece in frames.chunks(100) {
                raw.feed(piece);
                if let Some(event) = raw.conn.poll_event(raw.at()) {
                    raw.passed.push(event);
                }
            }
            assert!(matches!(&raw.passed[..], [Event::Request(it)] if it.payload == payload));
            TOTAL.get() - before
        };
        let (small, large) = (allocated(256 * KIB), allocated(2 * MIB));
        assert!(large < 8 * small * 2, "{small} octets for 256 KiB, {large} for 2 MiB");
        assert!(large < 40 * MIB, "{large} octets for 2 MiB");
    }
}

// ---- bombs ----------------------------------------------------------------------------------------------------

#[cfg(feature = "snappy")]
mod bombs {
    use std::sync::Arc;

    use tieline_core::{
        conn::{Config, Side, Taken},
        wire::{CheckIn, Repeated},
    };

    use super::{
        support::{
            attacked::{Neighbour, ended},
            blocks::{BOTH, first, run, whole},
            raw::{Raw, limits},
            streams::{peer, sharing, streaming},
        },
        *,
    };

    fn compressing(config: &Arc<Config>) -> Raw {
        sharing(config, CheckIn { features: Repeated::from(&[1][..]), ..peer() })
    }

    /// snap's `decompress_vec` allocates what a preamble says. R-CMP-03, R-CAL-20.
    #[test]
    fn a_preamble_that_claims_4_gib_is_refused_and_allocates_nothing() {
        let config = streaming().build().unwrap();
        let mut neighbour = Neighbour::new(&config, Side::Server);
        let mut raw = compressing(&config);
        let held = peak(|| {
            for n in 0..1_000 {
                let id = peer_id(Side::Server, n);
                raw.feed(&whole(What::Request, id, &[0xff, 0xff, 0xff, 0xff, 0x0f, 0, b'a']));
                // It is a bad block besides; what is seen first is told (R-CAL-18).
                let status = raw.turn()[0].status();
                assert!(matches!(status, Status::TOO_LARGE | Status::BAD_COMPRESSION), "{status}");
            }
            for n in 1_000..2_000 {
                let id = peer_id(Side::Server, n);
                // 4 MiB and 1, at the first frame.
                let block = [&[0x81, 0x80, 0x80, 0x02][..], &[0; 300]].concat();
                raw.feed(&first(What::Request, id, BOTH, 1_000_000, &block));
                assert_eq!(outline(&raw.turn()), [(FrameType::RESPONSE, id, Status::TOO_LARGE)]);
            }
        });
        assert!(held < 256 * KIB, "{held} octets");
        neighbour.goes_on();
    }

    /// R-CMP-08, R-CAL-13: arguments count as what they become.
    #[test]
    fn bombs_that_are_true_to_their_preamble_keep_to_the_budget() {
        let bounds = limits(|it| (it.max_message, it.memory) = (1 << 20, 8 << 20));
        let config = streaming().limits(bounds).build().unwrap();
        let mut neighbour = Neighbour::new(&config, Side::Server);
        let mut raw = compressing(&config);
        let block = run(1 << 20);
        assert!(block.len() < 60_000);
        let (mut running, mut refused) = (Vec::new(), 0);
        let held = peak(|| {
            for n in 0..100 {
                raw.feed(&whole(What::Request, peer_id(Side::Server, n), &block));
                for event in raw.events() {
                    let Event::Request(incoming) = event else { panic!("{event:?}") };
                    assert_eq!(incoming.payload.len(), 1 << 20);
                    running.push(incoming);
                }
                for frame in raw.frames() {
                    assert_eq!(frame.status(), Status::OVERLOADED);
                    refused += 1;
                }
            }
        });
        // A reservation may end when the payload goes to its handler; these have all gone there.
        assert_eq!(running.len() + refused, 100);
        assert!(running.len() <= 8, "{} at once", running.len());
        assert!(held < 10 * MIB, "{held} octets");
        neighbour.goes_on();
    }

    /// R-STR-14, E.3: items that wait are held as they came.
    #[test]
    fn items_that_are_bombs_are_held_as_they_came() {
        let bounds = limits(|it| it.max_streams = 50);
        let config = streaming().limits(bounds).build().unwrap();
        let mut neighbour = Neighbour::new(&config, Side::Server);
        let mut raw = compressing(&config);
        let block = run(256 << 10);
        let mut calls = Vec::new();
        let held = peak(|| {
            for n in 0..50 {
                let id = peer_id(Side::Server, n);
                calls.push(serves(&mut raw, id, Kind::ClientStream).call);
                for _ in 0..5 {
                    raw.feed(&whole(What::ItemUp, id, &block));
                    assert_eq!(ended(&mut raw), None);
                }
            }
        });
        // As sent, 250 items are 3 MiB; plain, they would be 62.
        assert!(held < 8 * MIB, "{held} octets");
        let first = calls[0];
        for _ in 0..5 {
            assert!(
                matches!(raw.conn.take_item(raw.at(), first), Some(Taken::Item(it)) if it.len() == 256 << 10)
            );
        }
        neighbour.goes_on();
    }
}
