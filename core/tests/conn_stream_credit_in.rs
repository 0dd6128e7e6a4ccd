//! The end of a stream that receives (protocol §10), on either side: it gives credit for what was taken, and says when
//! there is something to take.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::cast_possible_truncation,
    clippy::cast_possible_wrap,
    clippy::cast_sign_loss
)]

mod support;

use std::collections::VecDeque;

use support::{
    frames::{continuation, types},
    random::Random,
    raw::{Raw, window},
    streams::{
        ITEM_COST, SIDES, abandon, begin_item, call_head, end, granted, item, node, pattern, peer, receiving,
        streaming, take_all,
    },
};
use tieline_core::{
    conn::{Body, Event, Side, Taken},
    wire::{FrameType, Kind, Status},
};

// ---- credit ---------------------------------------------------------------------------------------------------

/// R-STR-04: what this side announces, and what it asks for.
#[test]
fn this_side_says_how_much_may_come() {
    let mut raw = Raw::new(streaming().limits(window(12_345)).build().unwrap(), Side::Client);
    match raw.frames()[0].frame().envelope {
        tieline_core::wire::Envelope::CheckIn(said) => {
            assert_eq!((said.stream_window, said.max_streams), (12_345, 256));
        }
        other => panic!("{other:?}"),
    }
    let mut raw = node(Side::Client, streaming(), peer());
    for (asked, said) in [
        (None, None),
        (Some(0), Some(0)),
        (Some(600), Some(600)),
        (Some(i32::MAX as u32), Some(i32::MAX as u32)),
    ] {
        let mut head = call_head(Kind::ServerStream);
        head.credit = asked;
        raw.conn.call(raw.at(), &head, Body::Copy(b""), 1).unwrap();
        assert_eq!(raw.frame().request().credit, said);
    }
}

/// R-STR-05, R-STR-10: to the octet.
#[test]
fn an_item_without_credit_is_a_mistake() {
    for side in SIDES {
        for up in [false, true] {
            for (initial, len, lawful) in
                [(1, 0, 1), (256, 0, 1), (257, 0, 2), (520, 4, 2), (521, 4, 3), (1, 9_000, 1)]
            {
                for begins in [false, true] {
                    let (mut raw, stream, id) = receiving(side, up, initial);
                    for _ in 0..lawful {
                        raw.feed(&item(id, &pattern(len)));
                    }
                    let events = raw.events();
                    assert!(events.iter().all(|event| matches!(event, Event::Readable(_))), "{events:?}");
                    raw.is_quiet();
                    raw.feed(&if begins { begin_item(id, 500, b"x") } else { item(id, b"x") });
                    raw.closes_with(Status::PROTOCOL_ERROR);
                    // What came by the rules is still there for the taking, or is with the outcome.
                    let rest: usize = raw
                        .passed
                        .iter()
                        .map(|event| match event {
                            Event::Done { rest, .. } => rest.len(),
                            _ => 0,
                        })
                        .sum();
                    assert!(rest == lawful || up, "{rest} of {lawful}");
                    let _ = stream;
                }
            }
        }
    }
}

/// R-STR-05: the whole cost at the first frame.
#[test]
fn an_item_in_fragments_costs_all_of_it_at_its_first_frame() {
    for side in SIDES {
        for up in [false, true] {
            let (mut raw, stream, id) = receiving(side, up, 1_000);
            raw.feed(&begin_item(id, 744, b"x"));
            raw.feed(&continuation(id, false, &[7; 743]));
            raw.feed(&item(id, b"y"));
            raw.closes_with(Status::PROTOCOL_ERROR);
            let (mut raw, _, id) = receiving(side, up, 1_000);
            raw.feed(&begin_item(id, 743, b"x"));
            raw.feed(&continuation(id, false, &[7; 742]));
            raw.feed(&item(id, b"y"));
            raw.events();
            raw.is_quiet();
            let _ = stream;
        }
    }
}

/// R-STR-06: gathered up to a quarter, exactly, and only for what was taken.
#[test]
fn credit_comes_back_by_quarters_of_the_window() {
    for side in SIDES {
        for up in [false, true] {
            let (mut raw, stream, id) = receiving(side, up, 64 << 10);
            for _ in 0..40 {
                raw.feed(&item(id, &[7; 744]));
            }
            raw.events();
            raw.is_quiet();
            let mut returned = Vec::new();
            for taken in 1..=40 {
                assert!(matches!(raw.conn.take_item(raw.at(), stream), Some(Taken::Item(_))));
                for frame in raw.frames() {
                    assert_eq!((frame.frame_type(), frame.id()), (FrameType::CREDIT, id));
                    returned.push((taken, granted(&frame)));
                }
            }
            // A quarter is 16 384: the 17th item of 1000 reaches it.
            assert_eq!(returned, [(17, 17_000), (34, 17_000)]);
            assert_eq!(raw.conn.take_item(raw.at(), stream), None);
            raw.is_quiet();
        }
    }
}

/// R-STR-06: a quarter that is reached to the octet.
#[test]
fn a_quarter_to_the_octet_is_a_quarter() {
    for side in SIDES {
        for up in [false, true] {
            for (len, due) in [(744, true), (743, false)] {
                let (mut raw, stream, id) = receiving(side, up, 4_000);
                raw.feed(&item(id, &pattern(len)));
                raw.events();
                raw.conn.take_item(raw.at(), stream).unwrap();
                let frames = raw.frames();
                assert_eq!(frames.len(), usize::from(due), "{len}");
                if due {
                    assert_eq!(granted(&frames[0]), 1_000);
                }
            }
        }
    }
}

/// R-STR-06: at once, if credit is at or below 0.
#[test]
fn credit_comes_back_at_once_when_the_sender_has_none() {
    for side in SIDES {
        for up in [false, true] {
            // 100 000, of which each costs 1000: the quarter is not what is reached.
            let (mut raw, stream, id) = receiving(side, up, 100_000);
            for _ in 0..100 {
                raw.feed(&item(id, &[7; 744]));
            }
            raw.events();
            raw.conn.take_item(raw.at(), stream).unwrap();
            let frame = raw.frame();
            assert_eq!((frame.frame_type(), granted(&frame)), (FrameType::CREDIT, 1_000));
            // It has 1000 now, so the next waits to be gathered.
            raw.conn.take_item(raw.at(), stream).unwrap();
            raw.is_quiet();
            // And when the peer has spent those, what is gathered goes at once.
            raw.feed(&item(id, &[7; 744]));
            let events = raw.events();
            assert!(events.iter().all(|event| matches!(event, Event::Readable(_))), "{events:?}");
            let mut back = raw.frames().iter().map(granted).sum::<u32>();
            raw.conn.take_item(raw.at(), stream).unwrap();
            back += raw.frames().iter().map(granted).sum::<u32>();
            assert_eq!(back, 1_000, "with it the peer has credit again, and the last waits to be gathered");
        }
    }
}

/// R-STR-06, L11: over a long life what is returned is what was taken, and a sender that obeys is never stuck.
#[test]
fn credit_is_conserved_over_a_long_life() {
    for seed in 0..100 {
        let mut random = Random::new(seed);
        let (side, up) = (SIDES[(seed % 2) as usize], seed % 4 < 2);
        let initial = [1, 300, 1_000, 4_096, 65_536][random.below(5)];
        let (mut raw, stream, id) = receiving(side, up, initial);
        let (mut left, mut here, mut taken) = (i64::from(initial), VecDeque::new(), 0_i64);
        let mut items = 0;
        for _ in 0..400 {
            if random.below(2) == 0 && left > 0 {
                let octets = pattern(random.below(600) + 1);
                left -= (octets.len() + ITEM_COST) as i64;
                raw.feed(&item(id, &octets));
                here.push_back(octets);
                items += 1;
            } else if let Some(Taken::Item(octets)) = raw.conn.take_item(raw.at(), stream) {
                taken += (octets.len() + ITEM_COST) as i64;
                assert_eq!(Some(octets.to_vec()), here.pop_front(), "seed {seed}");
            }
            let events = raw.events();
            assert!(events.iter().all(|event| matches!(event, Event::Readable(_))), "seed {seed} {events:?}");
            for frame in raw.frames() {
                assert_eq!((frame.frame_type(), frame.id()), (FrameType::CREDIT, id));
                left += i64::from(granted(&frame));
                taken -= i64::from(granted(&frame));
                assert!(taken >= 0, "seed {seed}: more is returned than was taken");
            }
            // Less than a quarter is kept back, and nothing at all from a sender without credit.
            assert!(
                taken * 4 < i64::from(initial).max(4),
                "seed {seed}: {taken} of {initial} is kept back, the sender has {left}"
            );
            assert!(left > 0 || taken == 0, "seed {seed}: {taken} is kept back");
        }
        assert!(items > 10, "seed {seed}: {items}");
    }
}

/// R-STR-07, R-STR-04: 0 at first, and then as much as the application grants.
#[test]
fn a_stream_that_begins_without_credit_waits_for_a_grant() {
    for side in SIDES {
        let (mut raw, stream, id) = receiving(side, false, 0);
        raw.is_quiet();
        raw.conn.grant(raw.at(), stream, 300);
        let frame = raw.frame();
        assert_eq!((frame.frame_type(), granted(&frame)), (FrameType::CREDIT, 300));
        raw.feed(&item(id, &[7; 100]));
        raw.events();
        raw.conn.take_item(raw.at(), stream).unwrap();
        assert_eq!(granted(&raw.frame()), 356, "at once, because credit is at −56");
        raw.feed(&[item(id, b"x"), item(id, b"y")].concat());
        raw.events();
        raw.feed(&item(id, b"z"));
        raw.closes_with(Status::PROTOCOL_ERROR);
        // Without a grant nothing may come.
        let (mut raw, _, id) = receiving(side, false, 0);
        raw.feed(&item(id, b""));
        raw.closes_with(Status::PROTOCOL_ERROR);
    }
}

/// R-STR-09: this side does not lift credit above 2^31−1 either, whatever the application grants.
#[test]
fn a_grant_never_lifts_credit_above_its_bound() {
    for side in SIDES {
        for up in [false, true] {
            let (mut raw, stream, _) = receiving(side, up, 1_000);
            let mut left = 1_000_i64;
            for octets in [1 << 30, u32::MAX, i32::MAX as u32, 1, 0, 5] {
                raw.conn.grant(raw.at(), stream, octets);
                for frame in raw.frames() {
                    assert_ne!(granted(&frame), 0, "CREDIT of 0");
                    left += i64::from(granted(&frame));
                }
                assert!(left <= i64::from(i32::MAX), "{left}");
            }
            assert_eq!(left, i64::from(i32::MAX));
            // R-STR-07: it may give more than it returns.
            raw.is_quiet();
        }
    }
}

/// R-STR-08: in the end an abandoned item costs 256 and what came of it.
#[test]
fn an_abandoned_item_gives_back_what_did_not_come() {
    for side in SIDES {
        // The peer serves; it abandons, and goes on before it has read the CANCEL.
        let (mut raw, _, id) = receiving(side, false, 1_000);
        raw.feed(&begin_item(id, 900, &[7; 300]));
        raw.feed(&abandon(id));
        assert_eq!(types(&raw.turn()), [FrameType::CANCEL]);
        // 1000 − 556 = 444: two of 256 may begin, and no more.
        raw.feed(&[item(id, b""), item(id, b"")].concat());
        assert!(raw.events().iter().all(|event| matches!(event, Event::Readable(_))));
        raw.is_quiet();
        assert_eq!(raw.conn.stats().late_frames, 0);
        raw.feed(&item(id, b""));
        raw.closes_with(Status::PROTOCOL_ERROR);
    }
}

// ---- readable -------------------------------------------------------------------------------------------------

/// The API: told when there is something to take, and again only for what comes after nothing was left.
#[test]
fn readable_is_told_once_and_never_lost() {
    for side in SIDES {
        for up in [false, true] {
            let (mut raw, stream, id) = receiving(side, up, 64 << 10);
            let readable = |raw: &mut Raw| {
                let events = raw.events();
                assert!(
                    events.iter().all(|event| matches!(event, Event::Readable(which) if *which == stream)),
                    "{events:?}"
                );
                events.len()
            };
            for round in 0..3 {
                raw.feed(&item(id, b"one"));
                assert_eq!(readable(&mut raw), 1, "{round}");
                raw.feed(&item(id, b"two"));
                assert_eq!(readable(&mut raw), 0, "it has been told");
                assert_eq!(raw.conn.take_item(raw.at(), stream), Some(Taken::Item("one".into())));
                raw.feed(&item(id, b"three"));
                assert_eq!(readable(&mut raw), 0, "there is more to take before that");
                assert_eq!(take_all(&mut raw, stream), ["two", "three"]);
            }
            // Items that come before the events are fetched are told together.
            raw.feed(&[item(id, b"one"), item(id, b"two")].concat());
            assert_eq!(readable(&mut raw), 1);
            assert_eq!(take_all(&mut raw, stream).len(), 2);
            // An item in fragments is told when it is whole.
            raw.feed(&begin_item(id, 600, &[7; 300]));
            assert_eq!(readable(&mut raw), 0);
            assert_eq!(raw.conn.take_item(raw.at(), stream), None);
            raw.feed(&continuation(id, false, &[7; 300]));
            assert_eq!(readable(&mut raw), 1);
            assert_eq!(take_all(&mut raw, stream).len(), 1);
            // The end is told like an item.
            if up {
                raw.feed(&end(id));
                assert_eq!(readable(&mut raw), 1);
                assert_eq!(raw.conn.take_item(raw.at(), stream), Some(Taken::End));
                assert_eq!(readable(&mut raw), 0);
            }
        }
    }
}

/// The API: an item that was decoded by another verb than `poll_event` is told, too.
#[test]
fn an_application_that_takes_only_when_it_is_told_gets_everything() {
    for seed in 0..100 {
        let mut random = Random::new(seed);
        let (mut raw, stream, id) = receiving(SIDES[(seed % 2) as usize], seed % 4 < 2, 60_000);
        let (mut sent, mut got) = (0, 0);
        for _ in 0..150 {
            for _ in 0..random.below(3) {
                raw.feed(&item(id, b"x"));
                sent += 1;
            }
            if random.below(2) == 0 {
                raw.conn.handle_timeout(raw.at());
                raw.frames();
            }
            while let Some(event) = raw.conn.poll_event(raw.at()) {
                assert!(matches!(event, Event::Readable(which) if which == stream), "{event:?}");
                if random.below(2) == 0 {
                    raw.feed(&item(id, b"y"));
                    sent += 1;
                }
                got += take_all(&mut raw, stream).len();
                raw.frames();
            }
        }
        assert_eq!(got, sent, "seed {seed}");
        assert!(sent > 100);
    }
}
