//! What bounds a message that arrives in fragments (protocol §11), at either end and on either side: time, memory, slots
//! and the price of small ones.
#![allow(clippy::unwrap_used, clippy::panic, clippy::cast_possible_truncation)]

mod support;

use support::{
    frames::{self, cancel, continuation, outline},
    output::{at_limit, points},
    raw::{Raw, limits, ms, secs},
    scene::{Scene, What, all},
    streams::{
        SIDES, abandon, begin_item, begin_one_way, begin_request, begin_response, call_head, calls, head,
        node, open, pattern, peer, peer_id, rest, serves, sharing, streaming,
    },
};
use tieline_core::{
    conn::{CallHead, Cancel, Event},
    wire::{FrameType, Kind, Ran, Request, Status},
};

// ---- time -----------------------------------------------------------------------------------------------------

/// R-FRG-18: 30 s from the first frame's header; what comes in between does not extend them.
#[test]
fn a_request_that_does_not_come_whole_in_30_s_is_answered_26() {
    for side in SIDES {
        for dribbles in [false, true] {
            let mut raw = node(side, streaming(), peer());
            let id = peer_id(side, 0);
            raw.feed(&begin_request(id, head(Kind::Unary), 100_000, &[7; 300]));
            let mut gone = 0;
            if dribbles {
                for _ in 0..29 {
                    assert!(raw.live(secs(1)).is_empty());
                    raw.feed(&continuation(id, true, &[7; 300]));
                    gone += 1;
                }
            }
            let frames = at_limit(&mut raw, secs(30 - gone));
            assert_eq!(outline(&frames), [(FrameType::RESPONSE, id, Status::NOT_COMPLETED)]);
            assert!(raw.passed.is_empty());
            raw.feed(&continuation(id, true, &[7; 300]));
            raw.feed(&abandon(id));
            raw.is_quiet();
            assert_eq!(raw.conn.stats().late_frames, 0, "what is under way is free");
        }
    }
}

/// R-FRG-18: or `total` at 64 KiB/s, if that is longer.
#[test]
fn a_large_request_has_the_time_that_it_takes_at_64_kib_a_second() {
    for side in SIDES {
        let mut raw = node(side, streaming(), peer());
        let id = peer_id(side, 0);
        raw.feed(&begin_request(id, head(Kind::Unary), 40 * 64 * 1024, &[7; 300]));
        let frames = at_limit(&mut raw, secs(40));
        assert_eq!(outline(&frames), [(FrameType::RESPONSE, id, Status::NOT_COMPLETED)]);
    }
}

/// R-FRG-18, R-CAN-09.
#[test]
fn a_deadline_that_comes_first_answers_an_unfinished_request_46() {
    for side in SIDES {
        let mut raw = node(side, streaming(), peer());
        let id = peer_id(side, 0);
        let hasty = Request { timeout_us: Some(5_000_000), ..head(Kind::Unary) };
        raw.feed(&begin_request(id, hasty, 100_000, &[7; 300]));
        let frames = at_limit(&mut raw, secs(5));
        assert_eq!(outline(&frames), [(FrameType::RESPONSE, id, Status::EXPIRED_IN_QUEUE)]);
        // A later one does not give more time.
        let id = peer_id(side, 1);
        let patient = Request { timeout_us: Some(90_000_000), ..head(Kind::Unary) };
        raw.feed(&begin_request(id, patient, 100_000, &[7; 300]));
        let frames = at_limit(&mut raw, secs(30));
        assert_eq!(outline(&frames), [(FrameType::RESPONSE, id, Status::NOT_COMPLETED)]);
        // 0 is expired when it comes.
        let id = peer_id(side, 2);
        let late = Request { timeout_us: Some(0), ..head(Kind::Unary) };
        raw.feed(&begin_request(id, late, 100_000, &[7; 300]));
        assert!(raw.events().is_empty());
        assert_eq!(raw.frame().status(), Status::EXPIRED_IN_QUEUE);
    }
}

/// R-FRG-18.
#[test]
fn a_one_way_that_does_not_come_whole_in_its_time_is_dropped_and_counted() {
    for side in SIDES {
        let mut raw = node(side, streaming(), peer());
        raw.feed(&begin_one_way(peer_id(side, 0), head(Kind::Unary), 100_000, &[7; 300]));
        assert_eq!(raw.live(ms(29_900)), []);
        assert_eq!(raw.conn.stats().dropped_one_ways, 0);
        assert_eq!(raw.live(ms(600)), []);
        assert_eq!(raw.conn.stats().dropped_one_ways, 1);
        let hasty = Request { timeout_us: Some(2_000_000), ..head(Kind::Unary) };
        raw.feed(&begin_one_way(peer_id(side, 1), hasty, 100_000, &[7; 300]));
        assert_eq!(raw.live(ms(2_500)), []);
        assert_eq!(raw.conn.stats().dropped_one_ways, 2);
        assert!(raw.passed.is_empty());
    }
}

/// R-FRG-18.
#[test]
fn an_item_that_does_not_come_whole_in_its_time_interrupts_the_call_at_its_callee() {
    for side in SIDES {
        let mut raw = node(side, streaming(), peer());
        let id = peer_id(side, 0);
        let call = serves(&mut raw, id, Kind::ClientStream).call;
        raw.feed(&begin_item(id, 10_000, &[7; 300]));
        let frames = at_limit(&mut raw, secs(30));
        assert_eq!(outline(&frames), [(FrameType::RESPONSE, id, Status::INTERRUPTED)]);
        let told = |event: &Event<u32>| matches!(event, Event::Cancelled(which, Cancel::BrokenItem) if *which == call);
        assert!(raw.passed.iter().any(told), "{:?}", raw.passed);
    }
}

/// R-FRG-18, R-FRG-08.
#[test]
fn an_item_that_does_not_come_whole_in_its_time_is_as_an_abandoned_one_at_its_caller() {
    for side in SIDES {
        let mut raw = node(side, streaming(), peer());
        let (_, id) = calls(&mut raw, call_head(Kind::ServerStream), 1);
        raw.feed(&begin_item(id, 10_000, &[7; 300]));
        let frames = at_limit(&mut raw, secs(30));
        assert_eq!(outline(&frames), [(FrameType::CANCEL, id, Status::CANCELLED)]);
        raw.feed(&abandon(id));
        raw.feed(&frames::response(id, Status::OK, b""));
        let outcomes = raw.outcomes();
        assert_eq!(outcomes[0].1.as_ref().unwrap_err().status(), Status::LOST_REPLY);
        raw.is_quiet();
        assert_eq!(raw.conn.stats().late_frames, 0);
    }
}

/// R-FRG-18, R-CAN-10.
#[test]
fn a_response_that_does_not_come_whole_in_its_time_is_lost() {
    for side in SIDES {
        let mut raw = node(side, streaming(), peer());
        let (_, id) = calls(&mut raw, call_head(Kind::Unary), 1);
        raw.feed(&begin_response(id, Status::OK, 50 * 64 * 1024, &[7; 300]));
        at_limit(&mut raw, secs(50));
        let failure = raw.passed.iter().find_map(|event| match event {
            Event::Done { outcome, .. } => outcome.as_ref().err(),
            _ => None,
        });
        assert_eq!(
            failure.map(|failure| (failure.status(), failure.ran())),
            Some((Status::LOST_REPLY, Ran::Maybe))
        );
        raw.passed.clear();
        // At the caller's own deadline it is a TIMEOUT.
        let head = CallHead::new("t.S/Echo").deadline(Some(raw.after(secs(3))));
        let (_, id) = calls(&mut raw, head, 2);
        raw.feed(&begin_response(id, Status::OK, 1_000, &[7; 300]));
        raw.live(ms(3_500));
        let failure = raw.passed.iter().find_map(|event| match event {
            Event::Done { outcome, .. } => outcome.as_ref().err(),
            _ => None,
        });
        assert_eq!(failure.map(tieline_core::conn::Failure::status), Some(Status::TIMEOUT));
    }
}

// ---- memory ---------------------------------------------------------------------------------------------------

/// R-CAL-13, R-CAL-20: judged at the first frame, from `total`.
#[test]
fn a_begun_request_reserves_its_total_in_the_budget_of_the_connection() {
    let bounds = limits(|it| (it.max_message, it.memory) = (600 << 10, 1 << 20));
    for side in SIDES {
        let mut raw = node(side, streaming().limits(bounds.clone()), peer());
        let begin = |n, total| begin_request(peer_id(side, n), head(Kind::Unary), total, b"x");
        raw.feed(&begin(0, 600 << 10));
        raw.is_quiet();
        raw.feed(&begin(1, 500 << 10));
        assert!(raw.events().is_empty());
        assert_eq!(raw.frame().status(), Status::OVERLOADED);
        raw.feed(&begin(2, 300 << 10));
        raw.is_quiet();
        raw.feed(&begin(3, (600 << 10) + 1));
        assert!(raw.events().is_empty());
        assert_eq!(raw.frame().status(), Status::TOO_LARGE);
        // What is abandoned gives its place back.
        raw.feed(&abandon(peer_id(side, 0)));
        assert!(raw.events().is_empty());
        assert_eq!(raw.frame().status(), Status::CANCELLED_IN_QUEUE);
        raw.feed(&begin(4, 600 << 10));
        raw.is_quiet();
        // So does what is cancelled, and what is answered.
        raw.feed(&cancel(peer_id(side, 4)));
        raw.turn();
        raw.feed(&begin(5, 500 << 10));
        raw.is_quiet();
        rest(peer_id(side, 5), &pattern((500 << 10) - 1), 60_000).iter().for_each(|frame| raw.feed(frame));
        let call = raw.incoming().call;
        raw.reply(call, b"");
        raw.frames();
        raw.feed(&begin(6, 600 << 10));
        raw.is_quiet();
    }
}

/// R-CAL-14: counted in octets that have arrived, over all connections of the server.
#[test]
fn claims_do_not_take_the_memory_of_the_server_and_octets_do() {
    let bounds = limits(|it| {
        (it.max_message, it.memory, it.server_memory) = (1 << 20, 2 << 20, (1 << 20) + (256 << 10));
    });
    let config = streaming().limits(bounds).build().unwrap();
    let (mut one, mut two) = (sharing(&config, peer()), sharing(&config, peer()));
    let claim = begin_request(1, head(Kind::Unary), 1 << 20, b"x");
    one.feed(&claim);
    two.feed(&claim);
    one.is_quiet();
    two.is_quiet();
    // 14 × 60 000 octets fit, and then another 14 do not.
    for _ in 0..14 {
        one.feed(&continuation(1, true, &[7; 60_000]));
    }
    one.is_quiet();
    let refused = (0..14).find_map(|_| {
        two.feed(&continuation(1, true, &[7; 60_000]));
        assert!(two.events().is_empty());
        two.frames().pop()
    });
    let refused = refused.expect("over the memory of the server");
    assert_eq!((refused.id(), refused.status()), (1, Status::OVERLOADED));
    // The rest of it is free, and the neighbour goes on with what it has.
    two.feed(&continuation(1, true, &[7; 60_000]));
    two.is_quiet();
    assert_eq!(two.conn.stats().late_frames, 0);
    let left = (1 << 20) - 1 - 14 * 60_000;
    rest(1, &pattern(left), 60_000).iter().for_each(|frame| one.feed(frame));
    let incoming = one.incoming();
    assert_eq!(incoming.payload.len(), 1 << 20);
    // As long as it is held not much else is taken; afterwards it is.
    let fill = |raw: &mut Raw, from: u64| {
        for n in from..from + 5 {
            raw.feed(&frames::call(2 * n + 1, &[7; 65_000]));
        }
        let started = raw.events().len();
        let refused = raw.frames();
        assert!(refused.iter().all(|frame| frame.status() == Status::OVERLOADED));
        assert_eq!(started + refused.len(), 5);
        started
    };
    assert!(fill(&mut two, 1) < 5);
    let call = incoming.call;
    drop(incoming);
    one.reply(call, b"");
    one.frames();
    one.is_quiet();
    let mut three = sharing(&config, peer());
    assert_eq!(fill(&mut three, 0), 5);
}

/// R-CAL-14: "counting claims instead of octets would let idle connections starve busy ones".
#[test]
fn connections_that_have_sent_an_octet_each_do_not_starve_another() {
    let bounds = limits(|it| (it.max_message, it.memory, it.server_memory) = (1 << 20, 1 << 20, 1 << 20));
    let config = streaming().limits(bounds).build().unwrap();
    let idle: Vec<Raw> = (0..100)
        .map(|_| {
            let mut raw = sharing(&config, peer());
            raw.feed(&begin_request(1, head(Kind::Unary), 1 << 20, b"x"));
            raw.is_quiet();
            raw
        })
        .collect();
    let mut busy = sharing(&config, peer());
    busy.feed(&frames::call(1, &[7; 1_000]));
    busy.incoming();
    drop(idle);
}

/// R-CAL-14: what a connection held is given back with it.
#[test]
fn a_connection_that_ends_gives_back_the_memory_of_the_server() {
    let bounds = limits(|it| (it.max_message, it.memory, it.server_memory) = (1 << 20, 1 << 20, 1 << 20));
    let config = streaming().limits(bounds).build().unwrap();
    for drops in [false, true] {
        let mut one = sharing(&config, peer());
        one.feed(&begin_request(1, head(Kind::Unary), 1 << 20, b"x"));
        for _ in 0..16 {
            one.feed(&continuation(1, true, &[7; 60_000]));
        }
        one.is_quiet();
        let mut two = sharing(&config, peer());
        two.feed(&frames::call(1, &vec![7; 65_000]));
        two.feed(&frames::call(3, &vec![7; 65_000]));
        two.events();
        assert!(two.frames().iter().any(|frame| frame.status() == Status::OVERLOADED));
        if !drops {
            one.eof();
            one.turn();
        }
        drop(one);
        drop(two);
        let mut three = sharing(&config, peer());
        three.feed(&frames::call(1, &vec![7; 65_000]));
        three.incoming();
    }
}

/// R-CAL-15: a one-way holds its octets in a bound of its own.
#[test]
fn one_ways_in_fragments_keep_to_their_own_bound() {
    for side in SIDES {
        let bounds = limits(|it| (it.max_one_way_octets, it.max_concurrent) = (100_000, 1));
        let mut raw = node(side, streaming().limits(bounds), peer());
        for n in 0..4 {
            for frame in What::OneWay.cut(peer_id(side, n), &pattern(40_000), 20_000, 20_000) {
                raw.feed(&frame);
            }
        }
        let started = raw.events().len();
        assert!(raw.frames().is_empty());
        let dropped = raw.conn.stats().dropped_one_ways as usize;
        // One runs, two wait, and 160 000 octets do not fit.
        assert_eq!((started, dropped), (1, 1));
    }
}

// ---- slots and the price --------------------------------------------------------------------------------------

/// R-CAL-11: a slot is held from the first frame.
#[test]
fn a_request_that_arrives_holds_a_slot() {
    for side in SIDES {
        let mut raw = node(side, streaming().limits(limits(|it| it.max_concurrent = 1)), peer());
        raw.feed(&begin_request(peer_id(side, 0), head(Kind::Unary), 1_000, b"x"));
        raw.feed(&open(peer_id(side, 1), Kind::Unary));
        assert!(raw.events().is_empty());
        assert_eq!(raw.frame().status(), Status::TOO_MANY_CALLS);
        raw.feed(&abandon(peer_id(side, 0)));
        assert!(raw.events().is_empty());
        raw.frames();
        raw.feed(&open(peer_id(side, 2), Kind::Unary));
        raw.incoming();
    }
}

/// R-ABU-05, R-ABU-07, R-ABU-08.
#[test]
fn fragments_under_256_octets_cost_a_point_but_the_last() {
    for (side, what) in all() {
        let mut scene = Scene::arriving(side, what);
        let before = points(&mut Scene::arriving(side, what).raw);
        let payload = pattern(255 * 10 + 40);
        // The first and nine of the ten that follow are cut short with more to come.
        for frame in what.cut(scene.id, &payload, 40, 255) {
            scene.raw.feed(&frame);
        }
        assert!(scene.received().is_some());
        scene.raw.frames();
        assert_eq!(before - points(&mut scene.raw), 1 + 9, "{side:?} {what:?}");
        let mut scene = Scene::arriving(side, what);
        for frame in what.cut(scene.id, &pattern(256 * 10), 256, 256) {
            scene.raw.feed(&frame);
        }
        assert!(scene.received().is_some());
        scene.raw.frames();
        assert_eq!(before - points(&mut scene.raw), 0, "{side:?} {what:?}");
    }
}
