//! Items that are broken or late (protocol §10), at either end and on either side: what becomes of the call, what is free,
//! and what the peer pays.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::cast_possible_truncation,
    clippy::cast_possible_wrap,
    clippy::cast_sign_loss
)]

mod support;

use support::{
    frames::{self, continuation, outline},
    output::{FULL, points},
    raw::{limits, ms, secs},
    streams::{
        SENDS_DOWN, SENDS_UP, SIDES, begin_item, call_head, calls, credit, end, item, node, open, pattern,
        peer, peer_id, receiving, send, serves, streaming,
    },
};
use tieline_core::{
    conn::{Body, Cancel, Event, Reply, ReplyError, Stream},
    wire::{FrameType, Kind, Status},
};

// ---- broken items ---------------------------------------------------------------------------------------------

/// R-STR-13, R-CHK-17.
#[test]
fn an_item_that_is_too_large_interrupts_the_call_at_its_callee() {
    for side in SIDES {
        for kind in SENDS_UP {
            for begins in [false, true] {
                let bounds = limits(|it| (it.max_item, it.stream_window) = (1_000, 100_000));
                let mut raw = node(side, streaming().limits(bounds), peer());
                let id = peer_id(side, 0);
                let call = serves(&mut raw, id, kind).call;
                raw.feed(&item(id, &[7; 1_000]));
                raw.events();
                raw.feed(&if begins { begin_item(id, 1_001, b"x") } else { item(id, &[7; 1_001]) });
                let events = raw.events();
                assert!(
                    matches!(events[..], [Event::Cancelled(which, Cancel::BrokenItem)] if which == call),
                    "{events:?}"
                );
                assert_eq!(outline(&raw.frames()), [(FrameType::RESPONSE, id, Status::INTERRUPTED)]);
                // The rest is free, and so are items within credit that were under way.
                if begins {
                    raw.feed(&continuation(id, false, &[7; 1_000]));
                }
                raw.feed(&item(id, b"x"));
                raw.is_quiet();
                assert_eq!(raw.conn.stats().late_frames, 0);
                assert_eq!(
                    raw.conn.reply(raw.at(), call, &Reply::ok(Body::Copy(b""))),
                    Err(ReplyError::Answered)
                );
                assert_eq!(raw.conn.open_calls(), (0, 0));
            }
        }
    }
}

/// R-STR-13.
#[test]
fn an_item_that_is_too_large_cancels_the_call_at_its_caller() {
    for side in SIDES {
        for kind in SENDS_DOWN {
            for begins in [false, true] {
                let bounds = limits(|it| (it.max_item, it.stream_window) = (1_000, 100_000));
                let mut raw = node(side, streaming().limits(bounds), peer());
                let (_, id) = calls(&mut raw, call_head(kind), 1);
                raw.feed(&item(id, b"good"));
                raw.events();
                raw.feed(&if begins { begin_item(id, 1_001, b"x") } else { item(id, &[7; 1_001]) });
                let mut frames = raw.turn();
                assert_eq!(outline(&frames), [(FrameType::CANCEL, id, Status::CANCELLED)]);
                if begins {
                    raw.feed(&continuation(id, false, &[7; 1_000]));
                }
                raw.feed(&frames::response(id, Status::CANCELLED_RUNNING, b""));
                frames.extend(raw.turn());
                assert_eq!(frames.len(), 1);
                let done = raw.passed.iter().find_map(|event| match event {
                    Event::Done { outcome, .. } => Some(outcome.as_ref().unwrap_err().status()),
                    _ => None,
                });
                assert_eq!(done, Some(Status::LOCAL_LIMIT));
                assert_eq!((raw.conn.open_calls(), raw.conn.stats().late_frames), ((0, 0), 0));
            }
        }
    }
}

// ---- late items -----------------------------------------------------------------------------------------------

/// R-STR-12, R-ABU-08: items that were under way when the callee ended are free within the credit that was left.
#[test]
fn items_that_crossed_the_response_are_free_within_credit() {
    for side in SIDES {
        for kind in SENDS_UP {
            let bounds = limits(|it| (it.stream_window, it.max_item) = (10_000, 1_000));
            let mut raw = node(side, streaming().limits(bounds), peer());
            let id = peer_id(side, 0);
            let call = serves(&mut raw, id, kind).call;
            raw.feed(&item(id, &[7; 744]));
            raw.events();
            raw.reply(call, b"");
            raw.frames();
            // 9000 are left: nine of 1000, of which one is in fragments, and one may overdraw by nothing.
            for _ in 0..8 {
                raw.feed(&item(id, &[7; 744]));
            }
            raw.feed(&begin_item(id, 744, &[7; 400]));
            raw.feed(&continuation(id, false, &[7; 344]));
            raw.is_quiet();
            assert_eq!(raw.conn.stats().late_frames, 0);
            assert_eq!(points(&mut raw), FULL);
        }
    }
}

/// R-STR-12: beyond it they are late, and charged.
#[test]
fn items_beyond_the_allowance_are_charged() {
    for side in SIDES {
        let bounds = limits(|it| (it.stream_window, it.max_item) = (10_000, 1_000));
        let mut raw = node(side, streaming().limits(bounds), peer());
        let id = peer_id(side, 0);
        let call = serves(&mut raw, id, Kind::ClientStream).call;
        raw.reply(call, b"");
        raw.frames();
        // 10 000 of credit, and 1000 for the one that may overdraw, or 1256 with its cost.
        for _ in 0..112 {
            raw.feed(&item(id, &[7; 744]));
        }
        raw.is_quiet();
        let late = raw.conn.stats().late_frames;
        assert!((100..=102).contains(&late), "{late}");
        assert_eq!(u64::from(FULL - points(&mut raw)), late);
    }
}

/// R-STR-12: STREAM_END and CREDIT that come late are charged as late.
#[test]
fn an_end_and_credit_that_come_late_are_charged() {
    for side in SIDES {
        let mut raw = node(side, streaming(), peer());
        let id = peer_id(side, 0);
        let call = serves(&mut raw, id, Kind::Bidi).call;
        raw.reply(call, b"");
        raw.frames();
        raw.feed(&[end(id), credit(id, 1_000)].concat());
        raw.is_quiet();
        assert_eq!(raw.conn.stats().late_frames, 2);
        assert_eq!(points(&mut raw), FULL - 2);
    }
}

/// R-STR-12: "just" is 30 s.
#[test]
fn the_allowance_for_late_items_lasts_30_s() {
    for side in SIDES {
        let mut raw = node(side, streaming(), peer());
        let id = peer_id(side, 0);
        let call = serves(&mut raw, id, Kind::Bidi).call;
        raw.reply(call, b"");
        raw.frames();
        raw.live(secs(29));
        raw.feed(&item(id, b"x"));
        raw.turn();
        assert_eq!(raw.conn.stats().late_frames, 0);
        raw.live(ms(1_600));
        raw.feed(&item(id, b"x"));
        raw.turn();
        assert_eq!(raw.conn.stats().late_frames, 1);
    }
}

/// R-STR-12: also of a stream that was refused, with the initial credit.
#[test]
fn items_of_a_stream_that_was_refused_are_free_within_the_initial_credit() {
    for side in SIDES {
        let bounds = limits(|it| (it.stream_window, it.max_streams) = (10_000, 1));
        let mut raw = node(side, streaming().limits(bounds), peer());
        serves(&mut raw, peer_id(side, 0), Kind::Bidi);
        let id = peer_id(side, 1);
        raw.feed(&open(id, Kind::Bidi));
        assert!(raw.events().is_empty());
        assert_eq!(raw.frame().status(), Status::TOO_MANY_CALLS);
        for _ in 0..10 {
            raw.feed(&item(id, &[7; 744]));
        }
        raw.is_quiet();
        assert_eq!(raw.conn.stats().late_frames, 0);
        raw.feed(&end(id));
        raw.is_quiet();
        assert_eq!(raw.conn.stats().late_frames, 1);
    }
}

// ---- prices and figures ---------------------------------------------------------------------------------------

/// R-ABU-05, R-ABU-08.
#[test]
fn empty_items_and_small_credit_have_their_price() {
    for side in SIDES {
        for up in [false, true] {
            let cost = |frames: &[Vec<u8>]| {
                let (mut raw, _, id) = receiving(side, up, 1 << 20);
                let _ = id;
                frames.iter().for_each(|frame| raw.feed(frame));
                raw.turn();
                FULL - points(&mut raw)
            };
            let id = receiving(side, up, 1).2;
            assert_eq!(cost(&[]), 0);
            assert_eq!(cost(&vec![item(id, b""); 10]), 10);
            assert_eq!(cost(&vec![item(id, b"x"); 10]), 0);
            assert_eq!(cost(&vec![credit(id, 255); 10]), 10);
            assert_eq!(cost(&vec![credit(id, 256); 10]), 0);
            // An item of which the last fragment is short is not a price.
            assert_eq!(cost(&[begin_item(id, 257, &[7; 256]), continuation(id, false, b"x")]), 0);
        }
    }
}

/// R-STR-15, R-ABU-08: what still comes for a call that was given up is free, empty or not, and so is an item that begins.
/// The fragments behind it have their price.
#[test]
fn items_of_a_call_that_was_given_up_are_free() {
    for side in SIDES {
        let cost = |frames: &dyn Fn(u64) -> Vec<Vec<u8>>| {
            let (mut raw, stream, id) = receiving(side, false, 1 << 20);
            let Stream::Ours(call) = stream else { panic!("a call of this side") };
            assert_eq!(raw.conn.cancel(raw.at(), call), Some(1));
            assert_eq!(raw.frame().frame_type(), FrameType::CANCEL);
            frames(id).iter().for_each(|frame| raw.feed(frame));
            raw.is_quiet();
            FULL - points(&mut raw)
        };
        assert_eq!(cost(&|id| vec![item(id, b""); 100]), 0);
        assert_eq!(cost(&|id| vec![item(id, b"x"); 100]), 0);
        assert_eq!(cost(&|id| vec![begin_item(id, 300, b"x"), continuation(id, false, &[7; 299])]), 0);
        let small = |id| {
            let rest = [continuation(id, true, b"x"), continuation(id, false, &[7; 298])];
            [vec![begin_item(id, 300, b"x")], rest.to_vec()].concat()
        };
        assert_eq!(cost(&small), 1);
    }
}

/// R-ABU-03: a stream that its handler answered gives a point back, and no item does.
#[test]
fn an_answered_stream_gives_a_point_back() {
    for side in SIDES {
        let mut raw = node(side, streaming(), peer());
        raw.feed(&vec![frames::heartbeat_ack(0); 10].concat());
        raw.turn();
        let call = serves(&mut raw, peer_id(side, 0), Kind::Bidi).call;
        send(&mut raw, call, b"x");
        raw.frames();
        raw.reply(call, b"");
        raw.frames();
        assert_eq!(points(&mut raw), FULL - 9);
    }
}

/// The figures that an operator reads.
#[test]
fn items_are_counted_both_ways() {
    for side in SIDES {
        let (mut raw, stream, id) = receiving(side, true, 64 << 10);
        raw.feed(
            &[item(id, b"one"), begin_item(id, 600, &[7; 300]), continuation(id, false, &[7; 300])].concat(),
        );
        raw.events();
        send(&mut raw, stream, &pattern(100_000));
        raw.frames();
        raw.feed(&credit(id, 200_000));
        send(&mut raw, stream, b"");
        raw.events();
        raw.frames();
        assert_eq!((raw.conn.stats().items_in, raw.conn.stats().items_out), (2, 2));
    }
}
