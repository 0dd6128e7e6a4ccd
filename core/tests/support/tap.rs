//! An observer on the line of one node: decodes what it committed and what it was given, and objects to every frame
//! that the protocol forbids it to send.

use std::collections::{BTreeMap, BTreeSet};

use tieline_core::{
    conn::Side,
    wire::{Class, Envelope, Flags, Frame, FrameType, Status},
};

use super::{
    frames::{MAX_BODY, Seen, take_frames},
    tally::Tally,
};

pub struct Tap {
    side: Side,
    out: Vec<u8>,
    /// Octets that the node was given and that are no whole frame yet; `None` once they are not to be trusted.
    given: Option<Vec<u8>>,
    frames: u64,
    checked_in: bool,
    /// What the peer announced.
    max_frame: u32,
    max_message: usize,
    max_concurrent: u32,
    highest: u64,
    highest_given: u64,
    /// REQUESTs of this node without a RESPONSE.
    asked: BTreeSet<u64>,
    cancelled: BTreeSet<u64>,
    began: BTreeSet<u64>,
    /// REQUESTs of the peer without a RESPONSE.
    due: BTreeSet<u64>,
    beats: BTreeMap<u64, u32>,
    drain: Option<(u64, u32)>,
    closed: bool,
    /// The application knows that the peer drains.
    pub peer_drains: bool,
    /// The application knows that it is over.
    pub over: bool,
    /// Payloads of the calls that were committed since this was last emptied, and what they say of their deadline.
    pub calls: Vec<(Vec<u8>, Option<u64>)>,
}

impl Tap {
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
            cancelled: BTreeSet::new(),
            began: BTreeSet::new(),
            due: BTreeSet::new(),
            beats: BTreeMap::new(),
            drain: None,
            closed: false,
            peer_drains: false,
            over: false,
            calls: Vec::new(),
        }
    }

    /// The node was given octets.
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
                self.checked_in = true;
                self.announced(said.max_frame, said.max_message, said.max_concurrent);
            }
            Envelope::CheckInAck(said) => {
                self.checked_in = true;
                self.announced(said.max_frame, said.max_message, said.max_concurrent);
            }
            _ => {}
        }
        match seen.frame_type() {
            FrameType::REQUEST => {
                self.highest_given = seen.id();
                self.due.insert(seen.id());
            }
            FrameType::ONE_WAY => self.highest_given = seen.id(),
            FrameType::RESPONSE => {
                self.asked.remove(&seen.id());
            }
            FrameType::HEARTBEAT => *self.beats.entry(seen.id()).or_default() += 1,
            _ => {}
        }
    }

    fn announced(&mut self, frame: u32, message: u32, concurrent: u32) {
        self.max_frame = if frame == 0 { 64 << 10 } else { frame.clamp(16 << 10, 1 << 20) };
        let message = if message == 0 { 4 << 20 } else { message.clamp(1 << 10, 1 << 30) };
        self.max_message = message as usize;
        self.max_concurrent = concurrent;
    }

    /// The node committed octets.
    pub fn committed(&mut self, octets: &[u8], tally: &mut Tally) {
        self.out.extend_from_slice(octets);
        for seen in take_frames(&mut self.out) {
            self.judge(&seen, tally);
        }
    }

    fn judge(&mut self, seen: &Seen, tally: &mut Tally) {
        let (frame, header) = (seen.frame(), seen.header);
        let trusted = self.given.is_some();
        let mut again = Vec::new();
        frame.emit(&mut again).unwrap();
        assert_eq!(again, seen.octets, "a frame that is not canonical");
        assert!(!self.closed, "a frame behind CLOSE: {header:?}");
        let last = matches!(header.frame_type, FrameType::CLOSE | FrameType::CHECK_IN_ACK);
        assert!(!self.over || last, "after the end: {header:?}");
        assert!(Frame::parse(&seen.octets, MAX_BODY).is_ok());
        assert_eq!(header.flags, Flags::NONE, "no feature was granted, and nothing is fragmented");
        if trusted {
            assert!(header.len <= self.max_frame, "longer than the peer reads: {header:?}");
        }
        self.judge_order(header.frame_type, trusted);
        let own_parity = match self.side {
            Side::Client => 1,
            Side::Server => 0,
        };
        match header.frame_type {
            FrameType::REQUEST | FrameType::ONE_WAY => {
                assert!(header.id > self.highest && header.id & 1 == own_parity, "ids increase: {header:?}");
                self.highest = header.id;
                assert!(!self.peer_drains, "a call begun where the peer drains");
                if trusted {
                    assert!(frame.payload.len() <= self.max_message);
                }
                let one_way = header.frame_type == FrameType::ONE_WAY;
                assert!(
                    self.drain.is_none() || frame.payload.get(1) == Some(&super::world::CALLBACK),
                    "a call begun behind this side's DRAIN that is no handler's"
                );
                if !one_way {
                    self.began.insert(header.id);
                    self.asked.insert(header.id);
                    if trusted {
                        assert!(self.asked.len() <= self.max_concurrent as usize, "more than max_concurrent");
                        tally.check("max_concurrent kept");
                    }
                }
                self.calls.push((frame.payload.to_vec(), seen.request().timeout_us));
                tally.check("ids increase");
            }
            FrameType::RESPONSE => {
                assert!(
                    !matches!(header.status.class(), Class::Connection | Class::Local),
                    "{:?}",
                    header.status
                );
                if trusted {
                    assert!(self.due.remove(&header.id), "one RESPONSE a REQUEST: {header:?}");
                    tally.check("one RESPONSE a REQUEST");
                }
            }
            FrameType::CANCEL => {
                assert!(self.began.contains(&header.id), "CANCEL of what was not begun");
                assert!(self.cancelled.insert(header.id), "CANCEL twice");
            }
            FrameType::HEARTBEAT_ACK if trusted => {
                let beats = self.beats.get_mut(&header.id).expect("an ack of a token that came");
                assert!(*beats > 0, "an ack a heartbeat");
                *beats -= 1;
            }
            FrameType::DRAIN => {
                let Envelope::Drain(said) = frame.envelope else { unreachable!() };
                assert!(!trusted || header.id <= self.highest_given, "DRAIN beyond what was seen");
                if let Some((id, grace)) = self.drain {
                    assert!(id == header.id && said.grace_ms <= grace, "a second DRAIN differs");
                    tally.check("a second DRAIN");
                }
                self.drain = Some((header.id, said.grace_ms));
            }
            FrameType::CLOSE => self.closed = true,
            FrameType::CHECK_IN_ACK => self.closed = header.status != Status::OK,
            _ => {}
        }
        self.frames += 1;
        tally.check("frames judged");
    }

    fn judge_order(&self, frame_type: FrameType, trusted: bool) {
        match (self.side, self.frames) {
            (Side::Client, 0) => assert_eq!(frame_type, FrameType::CHECK_IN, "a client's first frame"),
            (Side::Server, 0) => {
                assert!(
                    matches!(frame_type, FrameType::CHECK_IN_ACK | FrameType::CLOSE),
                    "a server's first frame"
                );
                let early = frame_type == FrameType::CHECK_IN_ACK && trusted && !self.checked_in;
                assert!(!early, "an ack before the check-in");
            }
            _ => {
                assert!(
                    !matches!(frame_type, FrameType::CHECK_IN | FrameType::CHECK_IN_ACK),
                    "a second check-in"
                );
                let early = trusted && !self.checked_in && frame_type != FrameType::CLOSE;
                assert!(!early, "{frame_type} before check-in is complete");
            }
        }
    }
}

impl Tap {
    /// Whether the peer speaks the protocol.
    pub fn is_trusted(&self) -> bool {
        self.given.is_some()
    }
}
