//! Known attacks on streams and fragments, and what one connection makes of each while its neighbour, of the same
//! configuration, goes on unharmed. What they make it hold is counted by an allocator. The names are those of the
//! advisories that taught them.
#![allow(
    unsafe_code,
    clippy::unwrap_used,
    clippy::panic,
    clippy::cast_possible_truncation,
    clippy::cast_possible_wrap
)]

mod support;

use std::{
    alloc::{GlobalAlloc, Layout, System},
    cell::Cell,
    sync::Arc,
};

use support::{
    frames::{self, cancel, continuation, octets, outline},
    raw::{Raw, secs},
    streams::{
        FULL, SIDES, What, abandon, begin_item, begin_one_way, begin_request, begin_response, call_head,
        calls, credit, end, head, item, open, pattern, peer, peer_id, serves, sharing, streaming,
    },
};
use tieline_core::{
    conn::{Body, By, CallId, Cancel, Config, Event, ItemError, Limits, Reply, Served, Side, Taken},
    wire::{CheckInAck, FrameType, Kind, Request, Status},
};

// ---- what is held ---------------------------------------------------------------------------------------------

struct Counting;

thread_local! {
    static TOTAL: Cell<usize> = const { Cell::new(0) };
    static LIVE: Cell<isize> = const { Cell::new(0) };
    static PEAK: Cell<isize> = const { Cell::new(0) };
}

fn moved(by: isize) {
    // While a thread ends its cells may be gone.
    let _ = LIVE.try_with(|live| {
        live.set(live.get() + by);
        let _ = PEAK.try_with(|peak| peak.set(peak.get().max(live.get())));
    });
    if by > 0 {
        let _ = TOTAL.try_with(|total| total.set(total.get() + by.unsigned_abs()));
    }
}

// SAFETY: every request is passed on to the system's allocator as it came.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        moved(layout.size().cast_signed());
        // SAFETY: the caller keeps to the contract of `alloc`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        moved(-(layout.size().cast_signed()));
        // SAFETY: `at` came from `System` with this layout.
        unsafe { System.dealloc(at, layout) }
    }

    unsafe fn realloc(&self, at: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        moved(size.cast_signed() - layout.size().cast_signed());
        // SAFETY: `at` came from `System` with this layout; the caller keeps to the rest.
        unsafe { System.realloc(at, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Octets that are allocated at most while `run` runs, beyond what was before.
fn peak(run: impl FnOnce()) -> usize {
    let before = LIVE.get();
    PEAK.set(before);
    run();
    (PEAK.get() - before).unsigned_abs()
}

const KIB: usize = 1024;
const MIB: usize = 1024 * KIB;

// ---- the scene ------------------------------------------------------------------------------------------------

fn limits(change: impl FnOnce(&mut Limits)) -> Limits {
    let mut limits = Limits::default();
    change(&mut limits);
    limits
}

fn serving(max_concurrent: u32) -> Limits {
    limits(|it| (it.max_concurrent, it.max_streams) = (max_concurrent, max_concurrent))
}

/// A connection that is checked in, of either side, and shares its configuration.
fn shared(config: &Arc<Config>, side: Side) -> Raw {
    if side == Side::Server {
        return sharing(config, peer());
    }
    let mut raw = Raw::new(config.clone(), side);
    raw.frames();
    raw.feed(&frames::ack(CheckInAck {
        identifier: "peer",
        max_concurrent: 100,
        max_streams: 100,
        ..CheckInAck::default()
    }));
    assert!(matches!(raw.events()[..], [Event::Ready(_)]));
    raw.frames();
    raw
}

/// An id of the calls of this side.
const fn own_id(side: Side, n: u64) -> u64 {
    peer_id(if matches!(side, Side::Server) { Side::Client } else { Side::Server }, n)
}

/// A connection of the same configuration whose peer does no wrong.
struct Neighbour {
    raw: Raw,
    /// It makes a stream that is open all the while.
    call: Served,
    id: u64,
    next: u64,
}

impl Neighbour {
    fn new(config: &Arc<Config>, side: Side) -> Self {
        let mut raw = shared(config, side);
        let id = peer_id(side, 0);
        let call = serves(&mut raw, id, Kind::Bidi).call;
        Self { raw, call, id, next: 1 }
    }

    /// An item each way on the stream that is open, and a call in two fragments.
    fn goes_on(&mut self) {
        let raw = &mut self.raw;
        raw.feed(&item(self.id, b"ping"));
        assert!(matches!(raw.events()[..], [Event::Readable(_)]));
        assert_eq!(raw.conn.take_item(raw.at(), self.call), Some(Taken::Item("ping".into())));
        assert_eq!(raw.conn.take_item(raw.at(), self.call), None);
        raw.conn.send_item(raw.at(), self.call, Body::Copy(b"pong")).unwrap();
        let sent: Vec<_> =
            raw.frames().into_iter().filter(|it| it.frame_type() != FrameType::CREDIT).collect();
        assert_eq!(outline(&sent), [(FrameType::STREAM_ITEM, self.id, Status::OK)]);
        let cost = 256 + 4;
        raw.feed(&credit(self.id, cost));
        let id = peer_id(raw.conn.side(), self.next);
        self.next += 1;
        let argument = pattern(600);
        raw.feed_all(What::Request.cut(id, &argument, 300, 300));
        let incoming = raw.incoming();
        assert_eq!(incoming.payload, argument);
        raw.reply(incoming.call, b"good");
        assert_eq!(outline(&raw.frames()), [(FrameType::RESPONSE, id, Status::OK)]);
        raw.is_quiet();
        assert_eq!(raw.conn.stats().late_frames, 0);
    }
}

/// An attacked connection and its neighbour.
fn attacked(side: Side, bounds: Limits) -> (Raw, Neighbour) {
    let config = streaming().limits(bounds).build().unwrap();
    let mut neighbour = Neighbour::new(&config, side);
    neighbour.goes_on();
    (shared(&config, side), neighbour)
}

/// The status with which the connection ended, if it has; other events are passed over.
fn ended(raw: &mut Raw) -> Option<Status> {
    let events = raw.events();
    let status = events.iter().find_map(|event| match event {
        Event::Closed(closed) => Some(closed.status),
        _ => None,
    });
    raw.passed.extend(events);
    status
}

/// How many rounds are borne before the connection ends, and how it does.
fn borne(raw: &mut Raw, most: u64, mut round: impl FnMut(&mut Raw, u64)) -> (u64, Status) {
    for n in 0..most {
        round(raw, n);
        if let Some(status) = ended(raw) {
            return (n, status);
        }
        raw.frames();
    }
    panic!("{most} rounds are borne")
}

fn started(raw: &Raw) -> usize {
    raw.passed.iter().filter(|event| matches!(event, Event::Request(_))).count()
}

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

// ---- ids ------------------------------------------------------------------------------------------------------

/// CVE-2023-28858: what comes late for a stream never reaches the one that has its place now. R-STR-12, R-STR-15,
/// R-ID-08.
#[test]
fn an_item_never_reaches_another_stream() {
    for side in SIDES {
        let (mut raw, mut neighbour) = attacked(side, serving(2));
        let (old, new) = (peer_id(side, 0), peer_id(side, 1));
        let call = serves(&mut raw, old, Kind::Bidi).call;
        raw.feed(&begin_item(old, 1_000, &[7; 500]));
        raw.reply(call, b"");
        raw.frames();
        let call = serves(&mut raw, new, Kind::Bidi).call;
        raw.feed(&[continuation(old, false, &[7; 500]), item(old, b"old"), end(old)].concat());
        raw.is_quiet();
        assert_eq!(raw.conn.take_item(raw.at(), call), None);
        raw.feed(&item(new, b"new"));
        assert!(matches!(raw.events()[..], [Event::Readable(_)]));
        assert_eq!(raw.conn.take_item(raw.at(), call), Some(Taken::Item("new".into())));
        // The same as a caller.
        let (given_up, old) = calls(&mut raw, call_head(Kind::ServerStream), 1);
        raw.feed(&begin_item(old, 1_000, &[7; 500]));
        raw.is_quiet();
        raw.conn.cancel(raw.at(), given_up);
        raw.frames();
        let (current, new) = calls(&mut raw, call_head(Kind::ServerStream), 2);
        raw.feed(&[continuation(old, false, &[7; 500]), item(old, b"old")].concat());
        raw.feed(&[frames::response(old, Status::CANCELLED_RUNNING, b"old"), item(old, b"old")].concat());
        raw.is_quiet();
        assert_eq!(raw.conn.take_item(raw.at(), current), None);
        raw.feed(&[item(new, b"new"), frames::response(new, Status::OK, b"its own")].concat());
        let events = raw.events();
        let Some(Event::Done { user: 2, outcome: Ok(answer), .. }) = events.last() else {
            panic!("{events:?}")
        };
        assert_eq!(answer.payload, "its own");
        neighbour.goes_on();
    }
}

/// R-ID-05: whatever became of a call, and of the calls that were refused, its id is used up.
#[test]
fn an_id_is_never_used_again() {
    for side in SIDES {
        let id = peer_id(side, 5);
        for before in [
            [open(id, Kind::Bidi), cancel(id)].concat(),
            frames::request(id, Request { method: 99, ..Request::default() }, b""),
            begin_request(id, head(Kind::Unary), u64::MAX, b"x"),
            [begin_request(id, head(Kind::Unary), 100, b"x"), abandon(id)].concat(),
            [begin_one_way(id, head(Kind::Unary), 100, b"x"), abandon(id)].concat(),
        ] {
            for again in [
                open(id, Kind::Bidi),
                open(peer_id(side, 4), Kind::Unary),
                frames::one_way(id, b""),
                begin_request(id, head(Kind::Unary), 100, b"x"),
            ] {
                let (mut raw, mut neighbour) = attacked(side, Limits::default());
                raw.feed(&before);
                raw.turn();
                raw.feed(&again);
                raw.closes_with(Status::PROTOCOL_ERROR);
                neighbour.goes_on();
            }
        }
    }
}

// ---- every type in every state --------------------------------------------------------------------------------

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outcome {
    /// CLOSE `PROTOCOL_ERROR`.
    Mistake,
    /// Dropped and charged.
    Late,
    /// Dropped for nothing, and nobody hears of it.
    Ignored,
    /// What it says is done.
    Accepted,
}

use Outcome::{Accepted as A, Ignored as I, Late as L, Mistake as X};

/// What has become of the call when the frame comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// A call of the peer.
    Theirs(Theirs),
    /// A call of this side.
    Ours(Ours),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Theirs {
    Never,
    Runs(Kind),
    /// Its caller has ended its items.
    Ended,
    /// Its REQUEST is unfinished.
    Arrives,
    /// An item of it is unfinished.
    ItemArrives,
    /// Answered by its handler.
    Answered(Kind),
    /// Cancelled and answered; its handler runs on.
    Cancelled,
    /// Refused while its REQUEST was unfinished.
    Refused,
    /// An unfinished ONE_WAY.
    OneWay,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ours {
    Never,
    Waits(Kind),
    /// This side has ended its items.
    Ended,
    ResponseArrives,
    ItemArrives,
    /// Given up; its RESPONSE has not come.
    GivenUp,
    Done(Kind),
}

/// The connection in that state, and the id.
fn in_state(raw: &mut Raw, state: State) -> u64 {
    let side = raw.conn.side();
    let id = peer_id(side, 0);
    let mine = |raw: &mut Raw, kind| -> (CallId, u64) { calls(raw, call_head(kind), 1) };
    let id = match state {
        State::Theirs(Theirs::Never) => id,
        State::Theirs(Theirs::Runs(kind)) => {
            serves(raw, id, kind);
            id
        }
        State::Theirs(Theirs::Ended) => {
            serves(raw, id, Kind::Bidi);
            raw.feed(&end(id));
            id
        }
        State::Theirs(Theirs::Arrives) => {
            raw.feed(&begin_request(id, head(Kind::Bidi), 1_000, &[7; 300]));
            id
        }
        State::Theirs(Theirs::ItemArrives) => {
            serves(raw, id, Kind::Bidi);
            raw.feed(&begin_item(id, 1_000, &[7; 300]));
            id
        }
        State::Theirs(Theirs::Answered(kind)) => {
            let call = serves(raw, id, kind).call;
            raw.reply(call, b"");
            id
        }
        State::Theirs(Theirs::Cancelled) => {
            serves(raw, id, Kind::Bidi);
            raw.feed(&cancel(id));
            id
        }
        State::Theirs(Theirs::Refused) => {
            raw.feed(&begin_request(id, head(Kind::Unary), 1 << 40, &[7; 300]));
            id
        }
        State::Theirs(Theirs::OneWay) => {
            raw.feed(&begin_one_way(id, head(Kind::Unary), 1_000, &[7; 300]));
            id
        }
        State::Ours(Ours::Never) => own_id(side, 0),
        State::Ours(Ours::Waits(kind)) => mine(raw, kind).1,
        State::Ours(Ours::Ended) => {
            let (call, id) = mine(raw, Kind::Bidi);
            raw.conn.end_items(raw.at(), call).unwrap();
            id
        }
        State::Ours(Ours::ResponseArrives) => {
            let id = mine(raw, Kind::Bidi).1;
            raw.feed(&begin_response(id, Status::OK, 1_000, &[7; 300]));
            id
        }
        State::Ours(Ours::ItemArrives) => {
            let id = mine(raw, Kind::Bidi).1;
            raw.feed(&begin_item(id, 1_000, &[7; 300]));
            id
        }
        State::Ours(Ours::GivenUp) => {
            let (call, id) = mine(raw, Kind::Bidi);
            assert_eq!(raw.conn.cancel(raw.at(), call), Some(1));
            id
        }
        State::Ours(Ours::Done(kind)) => {
            let id = mine(raw, kind).1;
            raw.feed(&frames::response(id, Status::OK, b""));
            id
        }
    };
    raw.turn();
    id
}

/// What has a test of its own below.
const fn apart(state: State, column: usize) -> bool {
    matches!((state, column), (State::Theirs(Theirs::Cancelled), 7) | (State::Theirs(Theirs::OneWay), 4 | 5))
}

/// Sections 4, 5, 10 and 11 in one table: side, state of the call, type. The columns are REQUEST, RESPONSE, ONE_WAY,
/// CANCEL, STREAM_ITEM, STREAM_END, CREDIT, CONTINUATION.
#[test]
fn every_type_in_every_state_of_a_call_has_its_outcome() {
    use Kind::{Bidi, ClientStream, ServerStream, Unary};
    let table: [(State, [Outcome; 8]); 24] = [
        (State::Theirs(Theirs::Never), [A, X, A, X, X, X, X, X]),
        (State::Theirs(Theirs::Runs(Unary)), [X, X, X, A, X, X, X, X]),
        (State::Theirs(Theirs::Runs(ServerStream)), [X, X, X, A, X, X, A, X]),
        (State::Theirs(Theirs::Runs(ClientStream)), [X, X, X, A, A, A, X, X]),
        (State::Theirs(Theirs::Runs(Bidi)), [X, X, X, A, A, A, A, X]),
        (State::Theirs(Theirs::Ended), [X, X, X, A, X, X, A, X]),
        (State::Theirs(Theirs::Arrives), [X, X, X, A, X, X, A, A]),
        (State::Theirs(Theirs::ItemArrives), [X, X, X, A, X, X, A, A]),
        (State::Theirs(Theirs::Answered(ServerStream)), [X, X, X, L, L, L, L, L]),
        (State::Theirs(Theirs::Answered(Bidi)), [X, X, X, L, I, L, L, L]),
        (State::Theirs(Theirs::Answered(ClientStream)), [X, X, X, L, I, L, L, L]),
        (State::Theirs(Theirs::Cancelled), [X, X, X, A, I, L, L, L]),
        (State::Theirs(Theirs::Refused), [X, X, X, L, L, L, L, I]),
        (State::Theirs(Theirs::OneWay), [X, X, X, L, X, X, L, A]),
        (State::Ours(Ours::Never), [X, X, X, X, X, X, X, X]),
        (State::Ours(Ours::Waits(Unary)), [X, A, X, X, X, X, X, X]),
        (State::Ours(Ours::Waits(ServerStream)), [X, A, X, X, A, X, X, X]),
        (State::Ours(Ours::Waits(ClientStream)), [X, A, X, X, X, X, A, X]),
        (State::Ours(Ours::Waits(Bidi)), [X, A, X, X, A, X, A, X]),
        (State::Ours(Ours::Ended), [X, A, X, X, A, X, I, X]),
        (State::Ours(Ours::ResponseArrives), [X, X, X, X, X, X, A, A]),
        (State::Ours(Ours::ItemArrives), [X, X, X, X, X, X, A, A]),
        (State::Ours(Ours::GivenUp), [X, A, X, X, I, X, I, X]),
        (State::Ours(Ours::Done(Bidi)), [X, L, X, X, L, X, L, L]),
    ];
    let mut wrong = Vec::new();
    for side in SIDES {
        let config = streaming().build().unwrap();
        let mut neighbour = Neighbour::new(&config, side);
        for (state, outcomes) in table {
            for (column, expected) in outcomes.into_iter().enumerate() {
                if apart(state, column) {
                    continue;
                }
                let mut raw = shared(&config, side);
                let id = in_state(&mut raw, state);
                let (what, frame) = match column {
                    0 => (FrameType::REQUEST, open(id, Unary)),
                    1 => (FrameType::RESPONSE, frames::response(id, Status::OK, b"")),
                    2 => (FrameType::ONE_WAY, frames::one_way(id, b"")),
                    3 => (FrameType::CANCEL, cancel(id)),
                    4 => (FrameType::STREAM_ITEM, item(id, b"item")),
                    5 => (FrameType::STREAM_END, end(id)),
                    6 => (FrameType::CREDIT, credit(id, 1_000)),
                    _ => (FrameType::CONTINUATION, continuation(id, false, &[7; 700])),
                };
                let before = raw.conn.stats().late_frames;
                raw.passed.clear();
                raw.feed(&frame);
                let status = ended(&mut raw);
                let silent = raw.passed.is_empty() && raw.frames().is_empty();
                let late = raw.conn.stats().late_frames - before;
                let seen = match (status, late) {
                    (Some(Status::PROTOCOL_ERROR), 0) => Some(X),
                    (None, 1) if silent => Some(L),
                    // Whether silence is consent is for those tests to say that look at one type.
                    (None, 0) if silent && expected == I => Some(I),
                    (None, 0) => Some(A),
                    _ => None,
                };
                if seen != Some(expected) {
                    wrong.push((side, state, what, expected, seen, status, late));
                }
            }
        }
        neighbour.goes_on();
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// R-CAL-04, R-ID-08: the RESPONSE frees the id, also of a call whose handler still runs.
#[test]
fn a_continuation_for_a_call_that_was_cancelled_and_answered_is_late() {
    for side in SIDES {
        let (mut raw, mut neighbour) = attacked(side, Limits::default());
        let id = in_state(&mut raw, State::Theirs(Theirs::Cancelled));
        raw.feed(&continuation(id, false, &[7; 700]));
        raw.is_quiet();
        assert_eq!(raw.conn.stats().late_frames, 1);
        neighbour.goes_on();
    }
}

/// R-FRG-09, R-TYP-05: a one-way is open from its first frame to its last, and so is its message.
#[test]
fn nothing_else_of_its_id_stands_inside_a_one_way() {
    for side in SIDES {
        for inner in [item as fn(u64, &[u8]) -> Vec<u8>, |id, _| end(id)] {
            let (mut raw, mut neighbour) = attacked(side, Limits::default());
            let id = in_state(&mut raw, State::Theirs(Theirs::OneWay));
            raw.feed(&inner(id, b"x"));
            assert_eq!(ended(&mut raw), Some(Status::PROTOCOL_ERROR));
            neighbour.goes_on();
        }
    }
}

/// R-FRM-07: mistakes of that table that the header shows are found at the header, whatever body it promises.
#[test]
fn what_the_header_shows_waits_for_no_body() {
    let mut waits = Vec::new();
    for side in SIDES {
        // Of no call at all; and RESPONSE, CANCEL and STREAM_END by the wrong one of the two.
        for kind in [5, 6, 7, 8, 9, 0x0a, 0x0b, 0x0c] {
            for id in [peer_id(side, 0), peer_id(side, 9), own_id(side, 9), 0] {
                if matches!(kind, 5 | 7) && id != 0 && id != own_id(side, 9) {
                    continue;
                }
                let (mut raw, mut neighbour) = attacked(side, Limits::default());
                let mut header = octets(kind, 0, 0, id, b"");
                header[14..18].copy_from_slice(&1_000u32.to_be_bytes());
                raw.feed(&header);
                if ended(&mut raw) != Some(Status::PROTOCOL_ERROR) {
                    waits.push((side, kind, id));
                }
                neighbour.goes_on();
            }
        }
    }
    assert!(waits.is_empty(), "{waits:x?}");
}

// ---- bombs ----------------------------------------------------------------------------------------------------

#[cfg(feature = "snappy")]
mod bombs {
    use tieline_core::wire::{CheckIn, Envelope, Flags, Item, Repeated};

    use super::*;

    /// A block of `len` equal octets, 21 times shorter: a literal of one, then copies of 64 from 1 back.
    fn bomb(len: usize) -> Vec<u8> {
        let mut out = Vec::new();
        let mut rest = len;
        while rest >= 0x80 {
            out.push(rest as u8 | 0x80);
            rest >>= 7;
        }
        out.push(rest as u8);
        out.extend([0, b'a']);
        let mut left = len - 1;
        while left > 0 {
            let copy = left.min(64);
            out.extend([((copy - 1) as u8) << 2 | 2, 1, 0]);
            left -= copy;
        }
        out
    }

    fn compressing(config: &Arc<Config>) -> Raw {
        sharing(config, CheckIn { features: Repeated::from(&[1][..]), ..peer() })
    }

    fn call(id: u64, block: &[u8]) -> Vec<u8> {
        let envelope = Envelope::Request(head(Kind::Unary));
        frames::flagged(FrameType::REQUEST, id, Status::OK, Flags::COMPRESSED, envelope, block)
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
                raw.feed(&call(id, &[0xff, 0xff, 0xff, 0xff, 0x0f, 0, b'a']));
                // It is a bad block besides; what is seen first is told (R-CAL-18).
                let status = raw.turn()[0].status();
                assert!(matches!(status, Status::TOO_LARGE | Status::BAD_COMPRESSION), "{status}");
            }
            for n in 1_000..2_000 {
                let id = peer_id(Side::Server, n);
                let envelope = Envelope::Request(Request { total: 1_000_000, ..head(Kind::Unary) });
                let flags = Flags(Flags::COMPRESSED.0 | Flags::MORE.0);
                // 4 MiB and 1, at the first frame.
                let block = [&[0x81, 0x80, 0x80, 0x02][..], &[0; 300]].concat();
                raw.feed(&frames::flagged(FrameType::REQUEST, id, Status::OK, flags, envelope, &block));
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
        let block = bomb(1 << 20);
        assert!(block.len() < 60_000);
        let (mut running, mut refused) = (Vec::new(), 0);
        let held = peak(|| {
            for n in 0..100 {
                raw.feed(&call(peer_id(Side::Server, n), &block));
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
        let block = bomb(256 << 10);
        let mut calls = Vec::new();
        let held = peak(|| {
            for n in 0..50 {
                let id = peer_id(Side::Server, n);
                calls.push(serves(&mut raw, id, Kind::ClientStream).call);
                for _ in 0..5 {
                    let envelope = Envelope::Item(Item::default());
                    raw.feed(&frames::flagged(
                        FrameType::STREAM_ITEM,
                        id,
                        Status::OK,
                        Flags::COMPRESSED,
                        envelope,
                        &block,
                    ));
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
