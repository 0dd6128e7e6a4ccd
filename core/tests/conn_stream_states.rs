//! Every type of frame in every state of a call, and ids that are over: each has one outcome, and a neighbour of the same
//! configuration goes on unharmed.
#![allow(clippy::unwrap_used, clippy::panic, clippy::cast_possible_truncation)]

mod support;

use support::{
    attacked::{Neighbour, attacked, ended, own_id, serving, shared},
    frames::{self, cancel, continuation, octets},
    raw::Raw,
    streams::{
        SIDES, abandon, begin_item, begin_one_way, begin_request, begin_response, call_head, calls, credit,
        end, head, item, open, peer_id, serves, streaming,
    },
};
use tieline_core::{
    conn::{CallId, Event, Limits, Taken},
    wire::{FrameType, Kind, Request, Status},
};

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
