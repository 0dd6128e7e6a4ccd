//! The connection against a model of it: calls and streams of one connection as a few enums and numbers.
//!
//! Verbs of the application and frames of the peer come in any order. After each of them the events, the frames and the
//! places that are held are what the model says. Frames of one call are compared in their order, those of different
//! calls take turns.
#![allow(clippy::unwrap_used, clippy::panic, clippy::cast_possible_truncation, clippy::cast_possible_wrap)]

mod model_parts;
mod support;

use model_parts::{
    directions::{QUEUED, WINDOW},
    ours::{Call, Ours},
    theirs::{Serves, Theirs},
};
use proptest::prelude::*;
use support::{
    frames::{self, Seen},
    hostile::all_kinds,
    raw::Raw,
};
use tieline_core::{
    conn::{Event, Limits, Stream},
    wire::{CheckInAck, Envelope, FrameType, Status},
};

/// What each side serves at once, and of that how many that stream.
const CALLS: usize = 2;
const STREAMS: usize = 1;

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

fn cases(usual: u32) -> u32 {
    std::env::var("PROPTEST_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(usual)
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(cases(10_000)) })]

    #[test]
    fn the_connection_does_what_the_model_does(steps in proptest::collection::vec(step(), 1..80)) {
        let mut test = Test::new();
        for step in steps {
            test.step(step);
        }
    }
}
