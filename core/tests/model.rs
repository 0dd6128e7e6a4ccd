//! The connection against a model of it: calls and streams of one connection as a few enums and numbers.
//!
//! Verbs of the application and frames of the peer come in any order. After each of them the events, the frames and the
//! places that are held are what the model says. Frames of one call are compared in their order, those of different
//! calls take turns.
#![allow(clippy::unwrap_used, clippy::panic, clippy::cast_possible_truncation)]

mod support;

use std::collections::VecDeque;

use proptest::prelude::*;
use support::{
    frames::{self, Seen},
    hostile::{NAMES, all_kinds},
    peer::KINDS,
    raw::Raw,
};
use tieline_core::{
    conn::{Body, CallHead, CallId, Event, ItemError, Limits, Reply, ReplyError, Served, Stream, Taken},
    wire::{CheckInAck, Credit, Envelope, FrameType, Item, Request, Status},
};

/// What each side serves at once, of that how many that stream, the initial credit for items, and what may wait.
const CALLS: usize = 2;
const STREAMS: usize = 1;
const WINDOW: i64 = 1_000;
const QUEUED: usize = 1_000;
const COST: usize = 256;

#[derive(Debug, Clone, Copy, PartialEq)]
enum End {
    Open,
    Wanted,
    Over,
}

/// The direction in which this side sends.
#[derive(Debug)]
struct Out {
    credit: i64,
    waiting: VecDeque<usize>,
    full: bool,
    end: End,
}

/// The direction in which this side receives.
#[derive(Debug)]
struct In {
    credit: i64,
    owed: i64,
    waiting: VecDeque<usize>,
    ended: bool,
    told: bool,
    /// CREDIT is to go out.
    pays: bool,
}

impl Out {
    fn new() -> Self {
        Self { credit: WINDOW, waiting: VecDeque::new(), full: false, end: End::Open }
    }

    fn queued(&self) -> usize {
        self.waiting.iter().map(|len| len + COST).sum()
    }

    fn send(&mut self, len: usize) -> Result<(), ItemError> {
        if self.end != End::Open {
            return Err(ItemError::Over);
        }
        if !self.waiting.is_empty() && self.queued() + len + COST > QUEUED {
            self.full = true;
            return Err(ItemError::Full);
        }
        self.waiting.push_back(len);
        Ok(())
    }

    fn drop_all(&mut self) {
        self.waiting.clear();
        (self.full, self.end) = (false, End::Over);
    }

    /// What goes out now, and whether the application is told that there is room.
    fn flush(&mut self, frames: &mut Vec<String>) -> bool {
        let mut room = false;
        while self.credit > 0
            && let Some(len) = self.waiting.pop_front()
        {
            self.credit -= (len + COST) as i64;
            frames.push(format!("STREAM_ITEM {len}"));
            room |= self.full && (self.waiting.is_empty() || self.queued() <= QUEUED / 2);
            self.full &= !room;
        }
        if self.waiting.is_empty() && self.end == End::Wanted {
            self.end = End::Over;
            frames.push("STREAM_END".to_owned());
        }
        room
    }
}

impl In {
    fn new() -> Self {
        Self { credit: WINDOW, owed: 0, waiting: VecDeque::new(), ended: false, told: false, pays: false }
    }

    fn settle(&mut self) {
        self.pays |= self.owed > 0 && (self.owed >= WINDOW / 4 || self.credit <= 0);
    }

    /// An item comes; whether the application is told.
    fn came(&mut self, len: usize) -> bool {
        self.credit -= (len + COST) as i64;
        self.settle();
        self.waiting.push_back(len);
        !std::mem::replace(&mut self.told, true)
    }

    fn take(&mut self) -> Option<Option<usize>> {
        let Some(len) = self.waiting.pop_front() else {
            self.told = self.ended;
            return self.ended.then_some(None);
        };
        self.owed += (len + COST) as i64;
        self.settle();
        Some(Some(len))
    }

    fn flush(&mut self, frames: &mut Vec<String>) {
        if std::mem::take(&mut self.pays) && !self.ended && self.owed > 0 {
            frames.push(format!("CREDIT {}", self.owed));
            self.credit += std::mem::take(&mut self.owed);
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Ours {
    Queued,
    /// Sent, and the application waits.
    Waits,
    /// Given up; its RESPONSE is still due.
    GivenUp,
    Over,
}

#[derive(Debug)]
struct Call {
    state: Ours,
    kind: usize,
    /// The wire id, once it is sent.
    id: u64,
    out: Option<Out>,
    takes: Option<In>,
    name: CallId,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Theirs {
    Runs,
    /// Answered in the handler's stead, and that has not stopped.
    Outlives,
    /// The answer is behind items that wait for credit.
    AnswerWaits,
    Over,
}

#[derive(Debug)]
struct Serves {
    state: Theirs,
    kind: usize,
    id: u64,
    out: Option<Out>,
    takes: Option<In>,
    name: Served,
}

/// One thing that happens; which call it is about, and a number.
#[derive(Debug, Clone, Copy)]
struct Step {
    what: u8,
    whose: u8,
    number: usize,
}

struct Test {
    raw: Raw,
    calls: Vec<Call>,
    serves: Vec<Serves>,
    next_id: u64,
    /// What the step must bring.
    events: Vec<String>,
    frames: Vec<(u64, String)>,
}

fn goes_up(kind: usize) -> bool {
    kind >= 2
}

fn goes_down(kind: usize) -> bool {
    kind == 1 || kind == 3
}

fn outline(seen: &Seen) -> String {
    match seen.frame().envelope {
        Envelope::Credit(credit) => format!("CREDIT {}", credit.octets),
        Envelope::Response(_) => format!("RESPONSE {}", seen.status()),
        Envelope::Item(_) => format!("STREAM_ITEM {}", seen.payload().len()),
        _ => seen.frame_type().to_string(),
    }
}

impl Test {
    fn new() -> Self {
        let mut limits = Limits::default();
        limits.max_concurrent = CALLS as u32;
        limits.max_streams = STREAMS as u32;
        limits.stream_window = WINDOW as u32;
        limits.max_queued_items = QUEUED;
        let said = CheckInAck {
            identifier: "peer",
            max_concurrent: CALLS as u32,
            max_streams: STREAMS as u32,
            stream_window: WINDOW as u32,
            ..CheckInAck::default()
        };
        let raw = Raw::client_for(all_kinds().limits(limits), said);
        Self {
            raw,
            calls: Vec::new(),
            serves: Vec::new(),
            next_id: 2,
            events: Vec::new(),
            frames: Vec::new(),
        }
    }

    fn feed(
        &mut self,
        frame_type: FrameType,
        id: u64,
        status: Status,
        envelope: Envelope<'_>,
        payload: &[u8],
    ) {
        self.raw.feed(&frames::emit(frame_type, id, status, envelope, payload));
    }

    fn pick(&self, whose: u8, fits: impl Fn(&Call) -> bool) -> Option<usize> {
        let all: Vec<usize> = (0..self.calls.len()).filter(|at| fits(&self.calls[*at])).collect();
        (!all.is_empty()).then(|| all[usize::from(whose) % all.len()])
    }

    fn pick_served(&self, whose: u8, fits: impl Fn(&Serves) -> bool) -> Option<usize> {
        let all: Vec<usize> = (0..self.serves.len()).filter(|at| fits(&self.serves[*at])).collect();
        (!all.is_empty()).then(|| all[usize::from(whose) % all.len()])
    }

    fn step(&mut self, step: Step) {
        let Step { what, whose, number } = step;
        let done = match what {
            0 => self.call(usize::from(whose) % 4),
            1 => self.pick(whose, |call| call.state != Ours::Over).map(|at| self.cancel(at)),
            2 | 3 => self.pick(whose, |_| true).map(|at| self.send_item(at, number)),
            4 => self.pick(whose, |_| true).map(|at| self.end_items(at)),
            5 => self.pick(whose, |_| true).map(|at| self.take(at)),
            6 => self.pick(whose, |call| call.takes.is_some()).map(|at| self.grant(at, number)),
            7 => self.response(whose),
            8 | 9 => self.item_down(whose, number),
            10 => self.credit_up(whose, number),
            11 => self.request(usize::from(whose) % 4),
            12 => self.pick_served(whose, |_| true).map(|at| self.reply(at)),
            13 => self.pick_served(whose, |_| true).map(|at| self.send_down(at, number)),
            14 => self.pick_served(whose, |_| true).map(|at| self.take_up(at)),
            15 => self.cancel_in(whose),
            16 | 17 => self.item_up(whose, number),
            18 => self.end_in(whose),
            _ => self.credit_down(whose, number),
        };
        if done.is_some() {
            self.compare(step);
        }
    }

    // ---- this side's calls ------------------------------------------------------------------------------------

    fn call(&mut self, kind: usize) -> Option<()> {
        let user = self.calls.len() as u32;
        let mut head = CallHead::new(NAMES[kind]);
        head.kind = KINDS[kind];
        let name = self.raw.conn.call(self.raw.at(), &head, Body::Copy(&user.to_be_bytes()), user).unwrap();
        let out = goes_up(kind).then(Out::new);
        let takes = goes_down(kind).then(In::new);
        self.calls.push(Call { state: Ours::Queued, kind, id: 0, out, takes, name });
        Some(())
    }

    fn cancel(&mut self, at: usize) {
        let call = &mut self.calls[at];
        let user = self.raw.conn.cancel(self.raw.at(), call.name);
        match call.state {
            Ours::Queued => call.state = Ours::Over,
            Ours::Waits => {
                call.state = Ours::GivenUp;
                self.frames.push((call.id, "CANCEL".to_owned()));
            }
            Ours::GivenUp | Ours::Over => return assert_eq!(user, None),
        }
        assert_eq!(user, Some(at as u32));
        call.out.iter_mut().for_each(Out::drop_all);
    }

    fn is_open(call: &Call) -> bool {
        matches!(call.state, Ours::Queued | Ours::Waits)
    }

    fn send_item(&mut self, at: usize, len: usize) {
        let call = &mut self.calls[at];
        let sent = self.raw.conn.send_item(self.raw.at(), call.name, Body::Copy(&vec![1; len]));
        let open = Self::is_open(call);
        let expected = match call.out.as_mut().filter(|_| open) {
            Some(out) => out.send(len),
            None => Err(ItemError::Over),
        };
        assert_eq!(sent, expected);
    }

    fn end_items(&mut self, at: usize) {
        let call = &mut self.calls[at];
        let ended = self.raw.conn.end_items(self.raw.at(), call.name);
        let open = Self::is_open(call);
        match call.out.as_mut().filter(|out| open && out.end == End::Open) {
            Some(out) => {
                out.end = End::Wanted;
                assert_eq!(ended, Ok(()));
            }
            None => assert_eq!(ended, Err(ItemError::Over)),
        }
    }

    fn take(&mut self, at: usize) {
        let call = &mut self.calls[at];
        let found = self.raw.conn.take_item(self.raw.at(), call.name);
        let open = Self::is_open(call);
        let expected = call.takes.as_mut().filter(|_| open).and_then(In::take);
        assert_eq!(len_of(found), expected);
    }

    fn grant(&mut self, at: usize, octets: usize) {
        let call = &mut self.calls[at];
        self.raw.conn.grant(self.raw.at(), call.name, octets as u32);
        if Self::is_open(call)
            && let Some(takes) = &mut call.takes
        {
            takes.owed += octets as i64;
            takes.pays = true;
        }
    }

    fn response(&mut self, whose: u8) -> Option<()> {
        let at = self.pick(whose, |call| matches!(call.state, Ours::Waits | Ours::GivenUp))?;
        let call = &mut self.calls[at];
        let (id, waits) = (call.id, call.state == Ours::Waits);
        call.state = Ours::Over;
        call.out.iter_mut().for_each(Out::drop_all);
        if waits {
            let rest = call.takes.as_ref().map_or(0, |takes| takes.waiting.len());
            self.events.push(format!("Done {at} true, {rest} left"));
        }
        self.feed(FrameType::RESPONSE, id, Status::OK, Envelope::Response(Default::default()), b"result");
        Some(())
    }

    fn item_down(&mut self, whose: u8, len: usize) -> Option<()> {
        let may = |call: &Call| {
            let sent = matches!(call.state, Ours::Waits | Ours::GivenUp);
            sent && call.takes.as_ref().is_some_and(|takes| takes.credit > 0)
        };
        let at = self.pick(whose, may)?;
        let call = &mut self.calls[at];
        let (id, waits) = (call.id, call.state == Ours::Waits);
        let takes = call.takes.as_mut().unwrap();
        if waits {
            if takes.came(len) {
                self.events.push(format!("Readable {:?}", Stream::Ours(call.name)));
            }
        } else {
            takes.credit -= (len + COST) as i64;
        }
        self.feed(FrameType::STREAM_ITEM, id, Status::OK, Envelope::Item(Item::default()), &vec![2; len]);
        Some(())
    }

    fn credit_up(&mut self, whose: u8, octets: usize) -> Option<()> {
        let may = |call: &Call| matches!(call.state, Ours::Waits | Ours::GivenUp) && call.out.is_some();
        let at = self.pick(whose, may)?;
        let call = &mut self.calls[at];
        let (id, out) = (call.id, call.out.as_mut().unwrap());
        let octets = octets + 1;
        if out.end != End::Over {
            out.credit += octets as i64;
        }
        let credit = Credit { octets: octets as u32 };
        self.feed(FrameType::CREDIT, id, Status::OK, Envelope::Credit(credit), b"");
        Some(())
    }

    // ---- the peer's calls -------------------------------------------------------------------------------------

    fn request(&mut self, kind: usize) -> Option<()> {
        let id = self.next_id;
        self.next_id += 2;
        let head = Request {
            method: 1 + kind as u32,
            kind: KINDS[kind].to_wire(),
            credit: None,
            ..Request::default()
        };
        let held = |call: &&Serves| call.state != Theirs::Over;
        let places = self.serves.iter().filter(held).count();
        let streams = self.serves.iter().filter(held).filter(|call| call.kind > 0).count();
        self.feed(FrameType::REQUEST, id, Status::OK, Envelope::Request(head), b"argument");
        if places >= CALLS || (kind > 0 && streams >= STREAMS) {
            self.frames.push((id, format!("RESPONSE {}", Status::TOO_MANY_CALLS)));
            return Some(());
        }
        let event = self.raw.conn.poll_event(self.raw.at());
        let Some(Event::Request(incoming)) = event else { panic!("no request: {event:?}") };
        assert_eq!(incoming.kind, KINDS[kind]);
        let (out, takes) = (goes_down(kind).then(Out::new), goes_up(kind).then(In::new));
        self.serves.push(Serves { state: Theirs::Runs, kind, id, out, takes, name: incoming.call });
        Some(())
    }

    fn reply(&mut self, at: usize) {
        let call = &mut self.serves[at];
        let done = self.raw.conn.reply(self.raw.at(), call.name, &Reply::ok(Body::Copy(b"result")));
        match call.state {
            Theirs::Runs => {
                assert_eq!(done, Ok(()));
                call.state = Theirs::AnswerWaits;
            }
            Theirs::Outlives => {
                assert_eq!(done, Err(ReplyError::Answered));
                call.state = Theirs::Over;
            }
            Theirs::AnswerWaits | Theirs::Over => assert_eq!(done, Err(ReplyError::Unknown)),
        }
    }

    fn send_down(&mut self, at: usize, len: usize) {
        let call = &mut self.serves[at];
        let sent = self.raw.conn.send_item(self.raw.at(), call.name, Body::Copy(&vec![3; len]));
        let runs = call.state == Theirs::Runs;
        let expected = match call.out.as_mut().filter(|_| runs) {
            Some(out) => out.send(len),
            None => Err(ItemError::Over),
        };
        assert_eq!(sent, expected);
    }

    fn take_up(&mut self, at: usize) {
        let call = &mut self.serves[at];
        let found = self.raw.conn.take_item(self.raw.at(), call.name);
        let runs = call.state == Theirs::Runs;
        assert_eq!(len_of(found), call.takes.as_mut().filter(|_| runs).and_then(In::take));
    }

    fn cancel_in(&mut self, whose: u8) -> Option<()> {
        let at = self.pick_served(whose, |_| true)?;
        let call = &mut self.serves[at];
        let id = call.id;
        let answer = (id, format!("RESPONSE {}", Status::CANCELLED_RUNNING));
        match call.state {
            Theirs::Runs => {
                call.state = Theirs::Outlives;
                self.events.push(format!("Cancelled {:?}", call.name));
                self.frames.push(answer);
            }
            Theirs::AnswerWaits => {
                call.state = Theirs::Over;
                self.frames.push(answer);
            }
            Theirs::Outlives | Theirs::Over => {}
        }
        call.out.iter_mut().for_each(Out::drop_all);
        self.feed(FrameType::CANCEL, id, Status::CANCELLED, Envelope::None, b"");
        Some(())
    }

    fn item_up(&mut self, whose: u8, len: usize) -> Option<()> {
        let may = |call: &Serves| call.takes.as_ref().is_some_and(|takes| takes.credit > 0 && !takes.ended);
        let at = self.pick_served(whose, may)?;
        let call = &mut self.serves[at];
        let (id, runs, takes) = (call.id, call.state == Theirs::Runs, call.takes.as_mut().unwrap());
        if runs {
            if takes.came(len) {
                self.events.push(format!("Readable {:?}", Stream::Theirs(call.name)));
            }
        } else {
            takes.credit -= (len + COST) as i64;
        }
        self.feed(FrameType::STREAM_ITEM, id, Status::OK, Envelope::Item(Item::default()), &vec![4; len]);
        Some(())
    }

    fn end_in(&mut self, whose: u8) -> Option<()> {
        let may = |call: &Serves| call.takes.as_ref().is_some_and(|takes| !takes.ended);
        let at = self.pick_served(whose, may)?;
        let call = &mut self.serves[at];
        let (id, runs, takes) = (call.id, call.state == Theirs::Runs, call.takes.as_mut().unwrap());
        takes.ended = true;
        if runs && !std::mem::replace(&mut takes.told, true) {
            self.events.push(format!("Readable {:?}", Stream::Theirs(call.name)));
        }
        self.feed(FrameType::STREAM_END, id, Status::OK, Envelope::None, b"");
        Some(())
    }

    fn credit_down(&mut self, whose: u8, octets: usize) -> Option<()> {
        let at = self.pick_served(whose, |call| call.out.is_some())?;
        let call = &mut self.serves[at];
        let (id, octets) = (call.id, octets + 1);
        if matches!(call.state, Theirs::Runs | Theirs::AnswerWaits) {
            call.out.as_mut().unwrap().credit += octets as i64;
        }
        let credit = Credit { octets: octets as u32 };
        self.feed(FrameType::CREDIT, id, Status::OK, Envelope::Credit(credit), b"");
        Some(())
    }

    // ---- what comes of it -------------------------------------------------------------------------------------

    /// The REQUESTs that the peer would take next: the first that streams, and the first that does not. Which of them
    /// goes first is a matter of turns.
    fn next_calls(&self) -> [Option<usize>; 2] {
        let sent = |call: &&Call| matches!(call.state, Ours::Waits | Ours::GivenUp);
        let all = self.calls.iter().filter(sent).count();
        let streams = self.calls.iter().filter(sent).filter(|call| call.kind > 0).count();
        let queued = |streams: bool| {
            self.calls.iter().position(|call| call.state == Ours::Queued && (call.kind > 0) == streams)
        };
        let open = all < CALLS;
        [queued(true).filter(|_| open && streams < STREAMS), queued(false).filter(|_| open)]
    }

    /// REQUESTs that went out: those that could, and all of them.
    fn requests(&mut self, seen: &[Seen]) {
        for frame in seen.iter().filter(|frame| frame.frame_type() == FrameType::REQUEST) {
            let at = u32::from_be_bytes(frame.payload().try_into().unwrap()) as usize;
            assert!(self.next_calls().contains(&Some(at)), "REQUEST {at} is not next");
            (self.calls[at].state, self.calls[at].id) = (Ours::Waits, frame.id());
        }
        assert_eq!(self.next_calls(), [None, None], "a REQUEST could have gone");
    }

    /// What goes out at the end of a step.
    fn flush(&mut self) {
        for call in self.calls.iter_mut().filter(|call| call.state == Ours::Waits) {
            let (mut frames, at) = (Vec::new(), call.id);
            call.takes.iter_mut().for_each(|takes| takes.flush(&mut frames));
            let room = call.out.as_mut().is_some_and(|out| out.flush(&mut frames));
            if room {
                self.events.push(format!("Writable {:?}", Stream::Ours(call.name)));
            }
            self.frames.extend(frames.into_iter().map(|frame| (at, frame)));
        }
        for call in &mut self.serves {
            let mut frames = Vec::new();
            if call.state == Theirs::Runs {
                call.takes.iter_mut().for_each(|takes| takes.flush(&mut frames));
            }
            if matches!(call.state, Theirs::Runs | Theirs::AnswerWaits) {
                let room = call.out.as_mut().is_some_and(|out| out.flush(&mut frames));
                if room && call.state == Theirs::Runs {
                    self.events.push(format!("Writable {:?}", Stream::Theirs(call.name)));
                }
                if call.state == Theirs::AnswerWaits
                    && call.out.as_ref().is_none_or(|out| out.waiting.is_empty())
                {
                    call.state = Theirs::Over;
                    frames.push(format!("RESPONSE {}", Status::OK));
                }
            }
            let id = call.id;
            self.frames.extend(frames.into_iter().map(|frame| (id, frame)));
        }
    }

    fn compare(&mut self, step: Step) {
        let mut events: Vec<String> = self.raw.events().into_iter().map(describe).collect();
        let seen = self.raw.frames();
        events.extend(self.raw.events().into_iter().map(describe));
        self.requests(&seen);
        self.flush();
        let expected = std::mem::take(&mut self.frames);
        let told = {
            let mut told = std::mem::take(&mut self.events);
            told.sort();
            told
        };
        events.sort();
        assert_eq!(events, told, "events of {step:?}");
        let others = seen.iter().filter(|frame| frame.frame_type() != FrameType::REQUEST);
        let real = others.map(|frame| (frame.id(), outline(frame))).collect();
        let by_id = |mut frames: Vec<(u64, String)>| {
            // Stable: frames of one call keep their order. CREDIT is a control frame, and its place is its own.
            frames.sort_by_key(|(id, frame)| (*id, !frame.starts_with("CREDIT")));
            frames
        };
        assert_eq!(by_id(real), by_id(expected), "frames of {step:?}");
        let ours = self.calls.iter().filter(|call| call.state != Ours::Over).count();
        let theirs = self.serves.iter().filter(|call| call.state != Theirs::Over).count();
        assert_eq!(self.raw.conn.open_calls(), (ours, theirs), "places after {step:?}");
    }
}

fn len_of(taken: Option<Taken>) -> Option<Option<usize>> {
    taken.map(|taken| match taken {
        Taken::Item(item) => Some(item.len()),
        Taken::End => None,
    })
}

fn describe(event: Event<u32>) -> String {
    match event {
        Event::Done { user, outcome, rest } => {
            format!("Done {user} {}, {} left", outcome.is_ok(), rest.len())
        }
        Event::Readable(stream) => format!("Readable {stream:?}"),
        Event::Writable(stream) => format!("Writable {stream:?}"),
        Event::Cancelled(call, _) => format!("Cancelled {call:?}"),
        other => format!("{other:?}"),
    }
}

fn step() -> impl Strategy<Value = Step> {
    (0..20u8, any::<u8>(), 0..700usize).prop_map(|(what, whose, number)| Step { what, whose, number })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 10_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_connection_does_what_the_model_does(steps in proptest::collection::vec(step(), 1..80)) {
        let mut test = Test::new();
        for step in steps {
            test.step(step);
        }
    }
}
