//! An observer of what one connection writes. It objects to every frame that the protocol forbids it to send.

use std::collections::{BTreeMap, BTreeSet};

use tieline_core::{
    conn::Side,
    wire::{Class, Envelope, FrameType, Status},
};

use super::frames::{Seen, take_frames};

/// The second octet of the payload of a call that a handler makes; others have 0 there.
pub const CALLBACK: u8 = 1;

/// The number of a call, from its payload; `None` if it is no call of a node of these targets.
pub fn number_in(payload: &[u8]) -> Option<u32> {
    Some(u32::from_be_bytes(payload.get(2..6)?.try_into().ok()?))
}

/// What was seen of one connection.
pub struct Watch {
    side: Side,
    out: Vec<u8>,
    /// Octets that it was given and that are no whole frame yet; `None` if the peer is not to be trusted.
    given: Option<Vec<u8>>,
    frames: u64,
    checked_in: bool,
    /// What the peer announced.
    max_frame: u32,
    max_message: usize,
    max_concurrent: u32,
    highest: u64,
    highest_given: u64,
    /// REQUESTs of this side without a RESPONSE.
    asked: BTreeSet<u64>,
    began: BTreeSet<u64>,
    cancelled: BTreeSet<u64>,
    /// REQUESTs of the peer without a RESPONSE.
    due: BTreeSet<u64>,
    beats: BTreeMap<u64, u32>,
    drain: Option<(u64, u32)>,
    closed: bool,
    /// The application knows that the peer drains.
    pub peer_drains: bool,
    /// The application knows that it is over.
    pub over: bool,
}

impl Watch {
    /// Of a connection of this side; `trusted`: its peer keeps to the protocol.
    pub fn new(side: Side, trusted: bool) -> Self {
        Self {
            side,
            out: Vec::new(),
            given: trusted.then(Vec::new),
            frames: 0,
            checked_in: false,
            max_frame: 16 << 10,
            max_message: 0,
            max_concurrent: u32::MAX,
            highest: 0,
            highest_given: 0,
            asked: BTreeSet::new(),
            began: BTreeSet::new(),
            cancelled: BTreeSet::new(),
            due: BTreeSet::new(),
            beats: BTreeMap::new(),
            drain: None,
            closed: false,
            peer_drains: false,
            over: false,
        }
    }

    /// Whether the peer keeps to the protocol.
    pub fn is_trusting(&self) -> bool {
        self.given.is_some()
    }

    /// The connection was given octets.
    pub fn given(&mut self, octets: &[u8]) {
        let Some(given) = &mut self.given else { return };
        given.extend_from_slice(octets);
        for seen in take_frames(given) {
            self.note_given(&seen);
        }
    }

    fn note_given(&mut self, seen: &Seen) {
        match seen.frame().envelope {
            Envelope::CheckIn(said) => {
                self.announced(said.max_frame, said.max_message, said.max_concurrent);
            }
            Envelope::CheckInAck(said) => {
                self.announced(said.max_frame, said.max_message, said.max_concurrent);
            }
            _ => {}
        }
        let id = seen.header.id;
        match seen.header.frame_type {
            FrameType::REQUEST => {
                self.highest_given = id;
                self.due.insert(id);
            }
            FrameType::ONE_WAY => self.highest_given = id,
            FrameType::RESPONSE => {
                self.asked.remove(&id);
            }
            FrameType::HEARTBEAT => *self.beats.entry(id).or_default() += 1,
            _ => {}
        }
    }

    fn announced(&mut self, frame: u32, message: u32, concurrent: u32) {
        self.checked_in = true;
        self.max_frame = if frame == 0 { 64 << 10 } else { frame.clamp(16 << 10, 1 << 20) };
        let message = if message == 0 { 4 << 20 } else { message.clamp(1 << 10, 1 << 30) };
        self.max_message = message as usize;
        self.max_concurrent = concurrent;
    }

    /// The connection committed octets. The frames that are whole now, and the payloads of the calls among them.
    pub fn committed(&mut self, octets: &[u8]) -> (Vec<Seen>, Vec<Vec<u8>>) {
        self.out.extend_from_slice(octets);
        let frames = take_frames(&mut self.out);
        let calls = frames.iter().filter_map(|seen| self.judge(seen)).collect();
        (frames, calls)
    }

    /// The payload, if it is a call.
    fn judge(&mut self, seen: &Seen) -> Option<Vec<u8>> {
        let (frame, header) = (seen.frame(), seen.header);
        let mut again = Vec::new();
        frame.emit(&mut again).expect("a frame that was read can be written");
        assert_eq!(again, seen.octets, "a frame that is not canonical");
        assert!(!self.closed, "a frame behind CLOSE: {header:?}");
        let last = matches!(header.frame_type, FrameType::CLOSE | FrameType::CHECK_IN_ACK);
        assert!(!self.over || last, "after the end: {header:?}");
        if self.is_trusting() {
            assert!(header.len <= self.max_frame, "longer than the peer reads: {header:?}");
        }
        self.judge_order(header.frame_type);
        let mut call = None;
        match header.frame_type {
            FrameType::REQUEST | FrameType::ONE_WAY => {
                self.judge_call(seen);
                call = Some(frame.payload.to_vec());
            }
            FrameType::RESPONSE => {
                let class = header.status.class();
                assert!(!matches!(class, Class::Connection | Class::Local), "an answer of {}", header.status);
                assert!(
                    !self.is_trusting() || self.due.remove(&header.id),
                    "one RESPONSE a REQUEST: {header:?}"
                );
            }
            FrameType::CANCEL => {
                assert!(self.began.contains(&header.id), "CANCEL of what was not begun");
                assert!(self.cancelled.insert(header.id), "CANCEL twice");
            }
            FrameType::HEARTBEAT_ACK if self.is_trusting() => {
                let beats = self.beats.get_mut(&header.id).expect("an ack of a token that came");
                *beats = beats.checked_sub(1).expect("an ack a heartbeat");
            }
            FrameType::DRAIN => {
                let Envelope::Drain(said) = frame.envelope else { unreachable!("by its type") };
                assert!(!self.is_trusting() || header.id <= self.highest_given, "DRAIN beyond what was seen");
                if let Some((id, grace)) = self.drain {
                    assert!(id == header.id && said.grace_ms <= grace, "a second DRAIN differs");
                }
                self.drain = Some((header.id, said.grace_ms));
            }
            FrameType::CLOSE => self.closed = true,
            FrameType::CHECK_IN_ACK => self.closed = header.status != Status::OK,
            _ => {}
        }
        self.frames += 1;
        call
    }

    fn judge_call(&mut self, seen: &Seen) {
        let (header, payload) = (seen.header, seen.frame().payload);
        let parity = u64::from(self.side == Side::Client);
        assert!(header.id > self.highest && header.id & 1 == parity, "ids increase: {header:?}");
        self.highest = header.id;
        assert!(!self.peer_drains, "a call begun where the peer drains");
        let for_a_handler = payload.get(1) == Some(&CALLBACK);
        assert!(self.drain.is_none() || for_a_handler, "a call begun behind DRAIN that is no handler's");
        let trusting = self.is_trusting();
        assert!(!trusting || payload.len() <= self.max_message, "larger than the peer reads");
        if header.frame_type == FrameType::REQUEST {
            self.began.insert(header.id);
            self.asked.insert(header.id);
            assert!(
                !trusting || self.asked.len() <= self.max_concurrent as usize,
                "more than max_concurrent"
            );
        }
    }

    fn judge_order(&self, frame_type: FrameType) {
        let waits = self.is_trusting() && !self.checked_in;
        match (self.side, self.frames) {
            (Side::Client, 0) => assert_eq!(frame_type, FrameType::CHECK_IN, "a client's first frame"),
            (Side::Server, 0) if frame_type == FrameType::CLOSE => {}
            (Side::Server, 0) => {
                assert_eq!(frame_type, FrameType::CHECK_IN_ACK, "a server's first frame");
                assert!(!waits, "an ack before the check-in");
            }
            _ => {
                let first = matches!(frame_type, FrameType::CHECK_IN | FrameType::CHECK_IN_ACK);
                assert!(!first, "a second check-in");
                assert!(!waits || frame_type == FrameType::CLOSE, "{frame_type} before check-in is complete");
            }
        }
    }
}
