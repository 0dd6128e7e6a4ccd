//! What a connection writes: frame by frame, put together into messages, and what that says of it.

use std::{collections::BTreeMap, time::Duration};

use bytes::Buf;
use tieline_core::{
    conn::{Event, Outbox},
    wire::{Envelope, Flags, FrameType, Status},
};

use super::{
    frames::{self, KIB, Seen},
    raw::Raw,
};

/// Where senders cut while something else waits (R-FRG-11).
pub const CUT: usize = 16 * KIB;

/// What the peer reads if it does not say.
pub const FRAME: usize = 64 * KIB;

/// From now on [`step`] commits as little as can be at a time.
pub fn stepwise(raw: &mut Raw) {
    raw.outbox = Outbox::with_mark(1);
}

/// The next frame, or the next few where a connection commits them together.
pub fn step(raw: &mut Raw) -> Vec<Seen> {
    raw.conn.poll_transmit(raw.at(), &mut raw.outbox);
    let mut octets = Vec::new();
    raw.outbox.chunks().for_each(|chunk| octets.extend_from_slice(chunk));
    raw.outbox.advance(octets.len());
    raw.conn.handle_sent(raw.at(), octets.len());
    let frames = frames::take_frames(&mut octets);
    assert!(octets.is_empty(), "frames are committed whole");
    frames
}

/// The next frame, which is committed alone.
pub fn step_one(raw: &mut Raw) -> Seen {
    let mut frames = step(raw);
    assert_eq!(frames.len(), 1, "{:?}", frames::outline(&frames));
    frames.remove(0)
}

/// All that is left, step by step.
pub fn steps(raw: &mut Raw) -> Vec<Seen> {
    let mut all = Vec::new();
    loop {
        let frames = step(raw);
        if frames.is_empty() {
            return all;
        }
        all.extend(frames);
    }
}

/// A message that was read whole or to its being abandoned.
#[derive(Debug, Clone)]
pub struct Message {
    pub frame_type: FrameType,
    pub id: u64,
    pub status: Status,
    pub compressed: bool,
    pub payload: Vec<u8>,
    /// The lengths of the bodies of its frames.
    pub bodies: Vec<usize>,
    pub abandoned: bool,
    total: u64,
}

/// Puts messages together and objects to what a sender must not do (protocol §11.1).
pub struct Reader {
    max_frame: usize,
    begun: BTreeMap<u64, Message>,
}

impl Reader {
    pub const fn new(max_frame: usize) -> Self {
        Self { max_frame, begun: BTreeMap::new() }
    }

    pub fn is_idle(&self) -> bool {
        self.begun.is_empty()
    }

    /// The messages that end with these frames.
    pub fn read(&mut self, frames: &[Seen]) -> Vec<Message> {
        frames.iter().filter_map(|frame| self.read_one(frame)).collect()
    }

    fn read_one(&mut self, seen: &Seen) -> Option<Message> {
        let (frame, id) = (seen.frame(), seen.id());
        let (more, body) = (frame.header.flags.contains(Flags::MORE), frame.header.len as usize);
        assert!(body <= self.max_frame, "a body of {body} octets");
        let total = match frame.envelope {
            Envelope::Request(head) => head.total,
            Envelope::Response(head) => head.total,
            Envelope::Item(head) => head.total,
            _ if seen.frame_type() == FrameType::CONTINUATION => {
                return self.go_on(id, more, body, frame.payload);
            }
            _ => {
                assert!(!more);
                let ends = seen.frame_type() == FrameType::STREAM_END;
                assert!(!(ends && self.begun.contains_key(&id)), "STREAM_END inside a message");
                return None;
            }
        };
        assert!(!self.begun.contains_key(&id), "a message inside a message of {id}");
        let message = Message {
            frame_type: seen.frame_type(),
            id,
            status: seen.status(),
            compressed: frame.header.flags.contains(Flags::COMPRESSED),
            payload: frame.payload.to_vec(),
            bodies: vec![body],
            abandoned: false,
            total,
        };
        if more {
            assert!(total > frame.payload.len() as u64, "MORE, and a total of {total}");
            self.begun.insert(id, message);
            return None;
        }
        assert_eq!(total, 0, "a total without MORE");
        Some(message)
    }

    fn go_on(&mut self, id: u64, more: bool, body: usize, octets: &[u8]) -> Option<Message> {
        let message = self.begun.get_mut(&id).expect("a CONTINUATION belongs to a message");
        message.payload.extend_from_slice(octets);
        message.bodies.push(body);
        assert!(message.payload.len() as u64 <= message.total, "more than the total");
        if octets.is_empty() {
            assert!(!more, "an empty CONTINUATION with MORE");
            message.abandoned = true;
        } else if !more {
            assert_eq!(message.payload.len() as u64, message.total, "other than the total");
        }
        if more { None } else { self.begun.remove(&id) }
    }
}

pub fn one(reader: &mut Reader, frames: &[Seen]) -> Message {
    let mut messages = reader.read(frames);
    assert!(reader.is_idle());
    assert_eq!(messages.len(), 1);
    messages.remove(0)
}

/// The status of the RESPONSE with this id, if it is among the frames.
pub fn answer(frames: &[Seen], id: u64) -> Option<Status> {
    let mut answers =
        frames.iter().filter(|frame| frame.frame_type() == FrameType::RESPONSE && frame.id() == id);
    let first = answers.next().map(Seen::status);
    assert!(answers.next().is_none(), "one RESPONSE a call");
    first
}

/// Frames but heartbeats.
pub fn without_heartbeats(frames: Vec<Seen>) -> Vec<Seen> {
    frames.into_iter().filter(|frame| frame.frame_type() != FrameType::HEARTBEAT).collect()
}

/// Nothing but heartbeats until shortly before `limit`, which then takes effect within half a second: the frames of
/// then. Events are in `passed`.
pub fn at_limit(raw: &mut Raw, limit: Duration) -> Vec<Seen> {
    let early = Duration::from_millis(20);
    let frames = raw.live(limit.saturating_sub(early));
    assert!(frames.is_empty(), "too early: {:?}", frames::outline(&frames));
    assert!(raw.passed.is_empty(), "too early: {:?}", raw.passed);
    raw.live(early + Duration::from_millis(500))
}

/// The points that are left of the budget of the peer; finding that out takes them all.
pub fn points(raw: &mut Raw) -> u32 {
    for spent in 1..=5_000 {
        raw.feed(&frames::heartbeat_ack(0));
        let closed = raw.events().into_iter().find_map(|event| match event {
            Event::Closed(closed) => Some(closed.status),
            _ => None,
        });
        if let Some(status) = closed {
            assert_eq!(status, Status::EXCESSIVE_LOAD);
            return spent;
        }
    }
    panic!("there is no budget");
}

/// A full budget.
pub const FULL: u32 = 4096;
