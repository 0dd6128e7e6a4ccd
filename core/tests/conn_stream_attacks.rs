//! Known attacks on streams, and what one connection makes of each while its neighbour, of the same configuration, goes on
//! unharmed. What they make it hold is counted by an allocator. The names are those of the advisories that taught them.
#![allow(clippy::unwrap_used, clippy::panic, clippy::cast_possible_truncation)]

mod support;

use support::{
    attacked::{attacked, borne, ended, serving, started},
    frames::{self, KIB, MIB, cancel, continuation, outline},
    heap::{Counting, peak},
    output::FULL,
    raw::{limits, secs},
    streams::{
        SIDES, abandon, begin_item, begin_request, credit, end, head, item, open, pattern, peer_id, serves,
    },
};
use tieline_core::{
    conn::{Body, By, Cancel, Event, ItemError, Limits, Reply, Served, Taken},
    wire::{FrameType, Kind, Request, Status},
};

#[global_allocator]
static ALLOCATOR: Counting = Counting;

// ---- resets ---------------------------------------------------------------------------------------------------

/// CVE-2023-44487 with streams. R-CAN-04, R-CAL-11, R-ABU-05.
#[test]
fn rapid_reset_of_streams_starts_no_more_handlers_than_the_limit_and_then_closes() {
    for side in SIDES {
        let (mut raw, mut neighbour) = attacked(side, serving(10));
        let (rounds, status) = borne(&mut raw, 10_000, |raw, n| {
            let id = peer_id(side, n);
            raw.feed(&[open(id, Kind::Bidi), item(id, b"x"), cancel(id)].concat());
            assert!(raw.conn.open_calls().1 <= 10);
        });
        assert_eq!(status, Status::EXCESSIVE_LOAD);
        assert!(rounds < u64::from(FULL) + 10, "{rounds}");
        assert_eq!(started(&raw), 10);
        neighbour.goes_on();
    }
}

/// The same with calls that never come whole: begun and cancelled, begun and abandoned. No handler starts, and each
/// has its price: CANCEL 1, class-2 answer 1; a fragment of 256 octets none.
#[test]
fn calls_that_are_begun_and_taken_back_start_nothing_and_have_their_price() {
    for side in SIDES {
        for (cancels, price) in [(true, 2), (false, 1)] {
            let (mut raw, mut neighbour) = attacked(side, serving(10));
            let (rounds, status) = borne(&mut raw, 10_000, |raw, n| {
                let id = peer_id(side, n);
                let stop = if cancels { cancel(id) } else { abandon(id) };
                raw.feed(&[begin_request(id, head(Kind::Unary), 100_000, &[7; 256]), stop].concat());
            });
            assert_eq!((rounds + 1, status), (u64::from(FULL / price), Status::EXCESSIVE_LOAD), "{cancels}");
            assert_eq!(started(&raw), 0);
            neighbour.goes_on();
        }
    }
}

/// CVE-2025-8671: what is wrong with an admitted stream ends the connection, not the call. R-STR-09, R-STR-10,
/// R-TYP-05, R-FRG-02, R-FRG-04, R-ID-05.
#[test]
fn a_mistake_on_a_stream_is_no_way_to_reset_it() {
    for side in SIDES {
        let id = peer_id(side, 0);
        let window = Limits::default().stream_window as usize;
        for mistake in [
            credit(id, 0),
            credit(id, u32::MAX),
            [end(id), item(id, b"x")].concat(),
            [end(id), end(id)].concat(),
            [item(id, &vec![7; window - 256]), item(id, b"")].concat(),
            open(id, Kind::Bidi),
            frames::one_way(id, b""),
            continuation(id, false, b"x"),
            [begin_item(id, 1_000, b"x"), continuation(id, true, b"")].concat(),
            [begin_item(id, 1_000, b"x"), item(id, b"x")].concat(),
            [begin_item(id, 1_000, b"x"), end(id)].concat(),
            [begin_item(id, 3, b"x"), continuation(id, false, b"xxx")].concat(),
            [begin_item(id, 3, b"x"), continuation(id, false, b"x")].concat(),
            begin_item(id, 1, b"x"),
        ] {
            let (mut raw, mut neighbour) = attacked(side, Limits::default());
            let call = serves(&mut raw, id, Kind::Bidi).call;
            raw.feed(&mistake);
            raw.closes_with(Status::PROTOCOL_ERROR);
            let told = raw
                .passed
                .iter()
                .filter(|event| matches!(event, Event::Cancelled(it, Cancel::Disconnected) if *it == call))
                .count();
            assert_eq!(told, 1, "its handler is told once");
            neighbour.goes_on();
        }
    }
}

/// CVE-2025-8671, what is left of it: a broken item ends its call and no more, but its handler holds its slot until it
/// has stopped. R-STR-13, R-CAL-11.
#[test]
fn streams_that_their_peer_breaks_hold_their_slots_until_their_handlers_have_stopped() {
    for side in SIDES {
        for abandons in [false, true] {
            let bounds = limits(|it| (it.max_concurrent, it.max_streams, it.max_item) = (4, 4, 1_000));
            let (mut raw, mut neighbour) = attacked(side, bounds);
            let broken = |id| {
                if abandons {
                    [begin_item(id, 900, &[7; 300]), abandon(id)].concat()
                } else {
                    item(id, &[7; 1_001])
                }
            };
            let mut running = Vec::new();
            for n in 0..200 {
                let id = peer_id(side, n);
                raw.feed(&[open(id, Kind::ClientStream), broken(id)].concat());
                for event in raw.events() {
                    match event {
                        Event::Request(incoming) => running.push(incoming.call),
                        Event::Cancelled(_, why) => assert_eq!(why, Cancel::BrokenItem),
                        other => panic!("{other:?}"),
                    }
                }
                let status = if n < 4 { Status::INTERRUPTED } else { Status::TOO_MANY_CALLS };
                assert_eq!(outline(&raw.frames()), [(FrameType::RESPONSE, id, status)], "{abandons} {n}");
            }
            assert_eq!(running.len(), 4);
            running.into_iter().for_each(|call| raw.conn.stopped(raw.at(), call));
            raw.is_quiet();
            assert_eq!(raw.conn.open_calls().1, 0);
            serves(&mut raw, peer_id(side, 200), Kind::Bidi);
            neighbour.goes_on();
        }
    }
}

// ---- a peer that does not read --------------------------------------------------------------------------------

/// CVE-2019-9514: answers to begun calls that are refused do not pile up. R-CAL-12, R-CAL-20.
#[test]
fn refusals_of_begun_calls_that_are_not_read_do_not_pile_up() {
    for side in SIDES {
        let (mut raw, mut neighbour) = attacked(side, serving(10));
        raw.takes = false;
        let held = peak(|| {
            for n in 0..=36 {
                assert_eq!(ended(&mut raw), None, "{n}");
                raw.feed(&begin_request(peer_id(side, n), head(Kind::Unary), 1 << 32, &[7; 256]));
            }
            assert_eq!(ended(&mut raw), Some(Status::EXCESSIVE_LOAD));
        });
        assert!(held < 256 * KIB, "{held} octets");
        neighbour.goes_on();
    }
}

/// CVE-2019-9517: credit without end, and a peer that does not read. What waits is bounded by the streams' queues, the
/// producer is told `Full`, and the line ends in 3 intervals. R-CAL-02, R-HB-10.
#[test]
fn items_for_a_peer_that_does_not_read_wait_at_their_producer() {
    for side in SIDES {
        let bounds = limits(|it| (it.max_streams, it.max_queued_items) = (20, 64 << 10));
        let (mut raw, mut neighbour) = attacked(side, bounds);
        raw.takes = false;
        let held = peak(|| {
            let mut streams = Vec::new();
            for n in 0..20 {
                let credit = Some(u32::MAX);
                let request = Request { credit, ..head(Kind::ServerStream) };
                raw.feed(&frames::request(peer_id(side, n), request, b""));
                streams.push(raw.incoming().call);
            }
            for call in &streams {
                let sent = (0..10_000).find(|_| {
                    let sent = raw.conn.send_item(raw.at(), *call, Body::Copy(&[7; 1_000]));
                    assert!(matches!(sent, Ok(()) | Err(ItemError::Full)));
                    raw.conn.poll_transmit(raw.at(), &mut raw.outbox);
                    sent.is_err()
                });
                assert!(sent.is_some(), "it is never full");
            }
        });
        // 20 queues of 64 KiB, as much again for what a queue needs to grow, and an outbox.
        assert!(held < 4 * MIB, "{held} octets");
        // It lives, and takes nothing.
        let mut status = None;
        for token in 0..40 {
            raw.wait(secs(1));
            let closed = raw.passed.iter().find_map(|event| match event {
                Event::Closed(closed) => Some((closed.by, closed.status)),
                _ => None,
            });
            if let Some(closed) = closed {
                status = Some(closed);
                break;
            }
            raw.feed(&frames::call(peer_id(side, 20 + token), b""));
        }
        assert_eq!(status, Some((By::Us, Status::HEARTBEAT_LOST)));
        neighbour.goes_on();
    }
}

/// CVE-2019-9511: credit by the octet lets nothing out that was not paid for, and has its price. R-STR-05, R-ABU-05.
#[test]
fn credit_by_the_octet_is_an_end_and_not_a_dribble() {
    for side in SIDES {
        let (mut raw, mut neighbour) = attacked(side, Limits::default());
        let id = peer_id(side, 0);
        raw.feed(&frames::request(id, Request { credit: Some(0), ..head(Kind::ServerStream) }, b""));
        let call = raw.incoming().call;
        for _ in 0..10 {
            raw.conn.send_item(raw.at(), call, Body::Copy(&[7; 1_000])).unwrap();
        }
        let mut items = 0;
        for n in 1..=u64::from(FULL) {
            raw.feed(&credit(id, 1));
            let status = ended(&mut raw);
            assert_eq!(status, (n == u64::from(FULL)).then_some(Status::EXCESSIVE_LOAD), "{n}");
            items += raw.frames().iter().filter(|it| it.frame_type() == FrameType::STREAM_ITEM).count();
            // The first goes with the first octet, and each after it when what went before is paid for.
            assert_eq!(items as u64, (n - u64::from(status.is_some())).div_ceil(1_256), "{n}");
        }
        neighbour.goes_on();
    }
}

// ---- items ----------------------------------------------------------------------------------------------------

/// CVE-2019-9518, RUSTSEC-2026-0258: an empty item is not free; 256 of them are a window. R-STR-05, R-STR-10.
#[test]
fn empty_items_use_up_the_window() {
    for side in SIDES {
        let (mut raw, mut neighbour) = attacked(side, Limits::default());
        let id = peer_id(side, 0);
        serves(&mut raw, id, Kind::ClientStream);
        let held = peak(|| {
            let (rounds, status) = borne(&mut raw, 10_000, |raw, _| raw.feed(&item(id, b"")));
            assert_eq!((rounds, status), (256, Status::PROTOCOL_ERROR));
        });
        // An item costs 256 because that is about what it costs to hold.
        assert!(held < 2 * 64 * KIB + 64 * KIB, "{held} octets");
        neighbour.goes_on();
    }
}

/// The same while they are taken: credit comes back, points do not. R-ABU-05.
#[test]
fn a_flood_of_empty_items_that_are_taken_is_an_end() {
    for side in SIDES {
        let (mut raw, mut neighbour) = attacked(side, Limits::default());
        let id = peer_id(side, 0);
        let call = serves(&mut raw, id, Kind::ClientStream).call;
        let (rounds, status) = borne(&mut raw, 10_000, |raw, _| {
            while raw.conn.take_item(raw.at(), call).is_some() {}
            raw.feed(&item(id, b""));
        });
        assert_eq!((rounds + 1, status), (u64::from(FULL), Status::EXCESSIVE_LOAD));
        neighbour.goes_on();
    }
}

/// yamux CVE-2026-32314: the first item of a stream is larger than the window, or than anything. It may overdraw, once;
/// and what is read in one piece is judged in its order. R-STR-05, R-STR-13, R-STR-10.
#[test]
fn a_stream_whose_first_item_is_larger_than_its_window_is_no_surprise() {
    for side in SIDES {
        let bounds = limits(|it| (it.stream_window, it.max_item) = (1_000, 10_000));
        let id = peer_id(side, 0);
        let (mut raw, mut neighbour) = attacked(side, bounds.clone());
        let call = serves(&mut raw, id, Kind::ClientStream).call;
        raw.feed(&item(id, &pattern(10_000)));
        raw.events();
        assert_eq!(raw.conn.take_item(raw.at(), call), Some(Taken::Item(pattern(10_000).into())));
        neighbour.goes_on();
        // Without waiting for the credit of it.
        let (mut raw, mut neighbour) = attacked(side, bounds.clone());
        raw.feed(&[open(id, Kind::ClientStream), item(id, &pattern(10_000)), item(id, b"")].concat());
        raw.closes_with(Status::PROTOCOL_ERROR);
        neighbour.goes_on();
        // All that can be wrong about a stream in one read, and all that can be done about it afterwards.
        for first in [begin_item(id, u64::MAX, b"x"), item(id, &pattern(10_001))] {
            let (mut raw, mut neighbour) = attacked(side, bounds.clone());
            raw.feed(&[open(id, Kind::ClientStream), first, cancel(id), end(id), cancel(id)].concat());
            let calls: Vec<Served> = raw
                .events()
                .into_iter()
                .filter_map(|event| match event {
                    Event::Request(incoming) => Some(incoming.call),
                    _ => None,
                })
                .collect();
            assert_eq!(raw.frames().iter().filter(|it| it.frame_type() == FrameType::RESPONSE).count(), 1);
            for call in calls {
                let at = raw.at();
                assert_eq!(raw.conn.take_item(at, call), None);
                raw.conn.grant(at, call, u32::MAX);
                assert_eq!(raw.conn.send_item(at, call, Body::Copy(b"x")), Err(ItemError::Over));
                for _ in 0..3 {
                    assert!(raw.conn.reply(at, call, &Reply::ok(Body::Copy(b""))).is_err());
                    raw.conn.stopped(at, call);
                }
            }
            raw.is_quiet();
            assert_eq!(raw.conn.open_calls(), (0, 0));
            raw.eof();
            assert_eq!(ended(&mut raw), Some(Status::CONNECTION_LOST));
            neighbour.goes_on();
        }
    }
}
