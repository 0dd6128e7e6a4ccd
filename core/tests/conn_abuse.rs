//! The abuse budget (protocol §5, "Abuse budget"): what each thing costs, and what costs nothing.
#![allow(clippy::unwrap_used, clippy::panic, clippy::cast_possible_truncation)]

mod support;

use support::{
    frames::{self, flagged, octets},
    raw::{MS, Raw, SECOND, config, secs},
};
use tieline_core::{
    conn::{Event, Limits},
    wire::{Envelope, Flags, FrameType, Method, Request, Status},
};

/// How many of these frames a connection bears before it closes, at one instant.
fn bears(raw: &mut Raw, mut frame: impl FnMut(u64) -> Vec<u8>) -> u64 {
    for number in 0..1_000_000 {
        raw.feed(&frame(number));
        for event in raw.events() {
            match event {
                Event::Closed(closed) => {
                    assert_eq!(closed.status, Status::EXCESSIVE_LOAD, "{closed}");
                    return number;
                }
                Event::Request(_) | Event::Cancelled(..) => {}
                other => panic!("{other:?}"),
            }
        }
        raw.frames();
    }
    panic!("a million frames of no use");
}

fn unlimited() -> Raw {
    let mut limits = Limits::default();
    limits.max_concurrent = 65_535;
    Raw::stranger(config().limits(limits))
}

/// A connection on which call 1 has come and gone.
fn with_past() -> Raw {
    let mut raw = unlimited();
    raw.feed(&frames::call(1, b""));
    let call = raw.incoming().call;
    raw.reply(call, b"");
    raw.frames();
    raw
}

#[test]
fn a_late_frame_costs_one_and_one_for_each_4_kib() {
    assert_eq!(bears(&mut with_past(), |_| frames::cancel(1)), 4095);
    assert_eq!(bears(&mut with_past(), |_| octets(9, 0, 0, 1, &[0; 4095])), 4095);
    assert_eq!(bears(&mut with_past(), |_| octets(9, 0, 0, 1, &[0; 4096])), 2047);
    assert_eq!(bears(&mut with_past(), |_| octets(0x0c, 0, 0, 1, &[0; 40_000])), 409);
}

#[test]
fn extensions_are_skipped_at_the_same_cost() {
    assert_eq!(bears(&mut unlimited(), |_| octets(0x80, 0xff, 0xff, 7, b"")), 4095);
    assert_eq!(bears(&mut unlimited(), |_| octets(0xff, 0, 0, u64::MAX, &[0; 65_536])), 4096 / 17);
    let mut raw = unlimited();
    let mut long = octets(0x80, 0, 0, 0, b"");
    long[14..18].copy_from_slice(&65_537u32.to_be_bytes());
    raw.feed(&long);
    raw.closes_with(Status::FRAME_TOO_LARGE);
}

#[test]
fn a_refusal_of_class_2_costs_one_and_one_of_class_1_nothing_below_1000_a_second() {
    let unknown = |id| frames::request(2 * id + 1, Request { method: 9, ..Request::default() }, b"");
    assert_eq!(bears(&mut unlimited(), unknown), 4095);
    let busy = || {
        let mut limits = Limits::default();
        limits.max_concurrent = 1;
        let mut raw = Raw::stranger(config().limits(limits));
        raw.feed(&frames::call(1, b""));
        raw.incoming();
        raw
    };
    assert_eq!(bears(&mut busy(), |id| frames::call(2 * id + 3, b"")), 1000 + 4095);
    // Overload that goes on does not close.
    let mut raw = busy();
    let mut id = 1;
    for _ in 0..20 {
        for _ in 0..1000 {
            id += 2;
            raw.feed(&frames::call(id, b""));
            assert!(raw.events().is_empty());
            assert_eq!(raw.frame().status(), Status::TOO_MANY_CALLS);
        }
        raw.now += SECOND;
    }
}

/// R-CAL-06: an answer is what the budget prices, and a one-way has none.
#[test]
fn one_ways_that_are_wrong_are_counted_and_cost_nothing() {
    let mut raw = unlimited();
    for id in 0..10_000 {
        let head = Envelope::Request(Request { method: 9, ..Request::default() });
        raw.feed(&frames::emit(FrameType::ONE_WAY, 2 * id + 1, Status::OK, head, b""));
        raw.is_quiet();
    }
    assert_eq!(raw.conn.stats().dropped_one_ways, 10_000);
}

#[test]
fn a_cancel_costs_one_and_an_answer_by_a_handler_earns_one() {
    // REQUEST and CANCEL: nothing is earned, since no handler answered.
    let mut raw = unlimited();
    let pair = |id: u64| [frames::call(2 * id + 1, b""), frames::cancel(2 * id + 1)].concat();
    assert_eq!(bears(&mut raw, pair), 4095);
    // With an answer for each cancel it goes on for ever.
    let mut raw = unlimited();
    for id in 0..10_000u64 {
        raw.feed(&frames::call(4 * id + 1, b""));
        let call = raw.incoming().call;
        raw.reply(call, b"");
        raw.feed(&frames::call(4 * id + 3, b""));
        let call = raw.incoming().call;
        raw.feed(&frames::cancel(4 * id + 3));
        assert_eq!(raw.events().len(), 1);
        raw.conn.stopped(raw.at(), call);
        assert_eq!(raw.frames().len(), 2);
    }
}

#[test]
fn a_table_costs_64_and_a_fragment_that_is_too_small_one() {
    let table = |_| frames::table(&[Method { id: 1, name: "a/b", fingerprint: 0 }]);
    assert_eq!(bears(&mut unlimited(), table), 63);
    let refused = || {
        let mut raw = unlimited();
        let head = Envelope::Request(Request { method: 1, total: 1 << 30, ..Request::default() });
        raw.feed(&flagged(FrameType::REQUEST, 1, Status::OK, Flags::MORE, head, b"x"));
        raw
    };
    // The refusal itself cost one, and so did the first fragment, which is too small as well.
    assert_eq!(bears(&mut refused(), |_| frames::continuation(1, true, &[0; 255])), 4093);
    let mut raw = refused();
    raw.feed(&frames::continuation(1, true, b""));
    raw.closes_with(Status::PROTOCOL_ERROR);
}

#[test]
fn the_rest_of_what_was_refused_is_free_for_thirty_seconds() {
    let mut raw = unlimited();
    let head = Envelope::Request(Request { method: 1, total: 1 << 30, ..Request::default() });
    raw.feed(&flagged(FrameType::REQUEST, 1, Status::OK, Flags::MORE, head, b"x"));
    raw.turn();
    for _ in 0..29 {
        for _ in 0..500 {
            raw.feed(&frames::continuation(1, true, &[0; 4096]));
        }
        raw.turn();
        raw.now += SECOND;
    }
    assert_eq!(raw.conn.stats().late_frames, 0);
    raw.now += 2 * SECOND;
    raw.feed(&frames::continuation(1, true, &[0; 4096]));
    assert_eq!(bears(&mut raw, |_| frames::continuation(1, true, &[0; 4096])), 2046);
}

#[test]
fn the_budget_fills_up_at_256_a_second() {
    let mut raw = with_past();
    for _ in 0..4095 {
        raw.feed(&frames::cancel(1));
    }
    raw.is_quiet();
    for _ in 0..100 {
        raw.now += SECOND;
        for _ in 0..256 {
            raw.feed(&frames::cancel(1));
        }
        raw.is_quiet();
        raw.frames();
    }
    raw.now += 10 * MS;
    assert_eq!(bears(&mut raw, |_| frames::cancel(1)), 2);
    let mut raw = with_past();
    raw.live(secs(60));
    assert_eq!(bears(&mut raw, |_| frames::cancel(1)), 4095, "never more than full");
}
