//! An observer of what one connection writes. It objects to every frame that the protocol forbids it to send.

use std::collections::{BTreeMap, BTreeSet};

use tieline_core::{
    conn::{Limits, Side},
    wire::{Class, Envelope, Flags, FrameType, Iter, Status},
};

use super::{
    assembly::{Assembly, Message, Step},
    flows::{Flow, Flows},
    frames::{Seen, take_frames},
};

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
    /// The peer keeps to the protocol.
    trusted: bool,
    /// Octets that it was given and that are no whole frame yet.
    given: Vec<u8>,
    /// What it was given makes no sense any more.
    deaf: bool,
    frames: u64,
    checked_in: bool,
    /// What the connection itself announces.
    window: u32,
    /// The messages that it writes, and those that it is given.
    writing: Assembly,
    reading: Assembly,
    pub flows: Flows,
    offered: bool,
    snappy: bool,
    /// What the peer announced.
    max_frame: u32,
    max_message: usize,
    max_item: usize,
    max_concurrent: u32,
    max_streams: u32,
    stream_window: u32,
    highest: u64,
    highest_given: u64,
    /// REQUESTs of this side without a RESPONSE.
    asked: BTreeSet<u64>,
    /// Of those, the ones that stream.
    streams: BTreeSet<u64>,
    began: BTreeSet<u64>,
    cancelled: BTreeSet<u64>,
    /// REQUESTs of the peer without a RESPONSE.
    due: BTreeSet<u64>,
    beats: BTreeMap<u64, u32>,
    drain: Option<(u64, u32)>,
    closed: bool,
    /// The application knows that the peer drains.
    pub peer_drains: bool,
    /// A stream was cancelled before it had ended: what of its items and its answer is out by then is not taken back.
    pub cut_short: bool,
    /// The application knows that it is over.
    pub over: bool,
}

impl Watch {
    /// Of a connection of this side; `trusted`: its peer keeps to the protocol.
    pub fn new(side: Side, trusted: bool, limits: &Limits) -> Self {
        Self {
            side,
            out: Vec::new(),
            trusted,
            given: Vec::new(),
            deaf: false,
            frames: 0,
            checked_in: false,
            window: limits.stream_window,
            writing: Assembly::default(),
            reading: Assembly::default(),
            flows: Flows::default(),
            offered: false,
            snappy: false,
            max_frame: 16 << 10,
            max_message: 0,
            max_item: 0,
            max_concurrent: u32::MAX,
            max_streams: u32::MAX,
            stream_window: 0,
            highest: 0,
            highest_given: 0,
            asked: BTreeSet::new(),
            streams: BTreeSet::new(),
            began: BTreeSet::new(),
            cancelled: BTreeSet::new(),
            due: BTreeSet::new(),
            beats: BTreeMap::new(),
            drain: None,
            closed: false,
            peer_drains: false,
            cut_short: false,
            over: false,
        }
    }

    /// Whether the peer keeps to the protocol.
    pub fn is_trusting(&self) -> bool {
        self.trusted
    }

    /// Whether everything is understood that the connection was given.
    pub fn is_clear(&self) -> bool {
        !self.deaf
    }

    /// The longest frame body that it may write.
    pub fn max_frame(&self) -> usize {
        self.max_frame as usize
    }

    /// The connection was given octets.
    pub fn given(&mut self, octets: &[u8]) {
        if self.deaf {
            return;
        }
        self.given.extend_from_slice(octets);
        let (frames, sound) = take_frames(&mut self.given);
        assert!(sound || !self.trusted, "who is trusted writes frames");
        for seen in frames {
            self.deaf = self.deaf || self.note_given(&seen).is_err();
        }
        self.deaf |= !sound;
        if self.deaf {
            self.flows.forget();
        }
    }

    fn note_given(&mut self, seen: &Seen) -> Result<(), &'static str> {
        match seen.frame().envelope {
            Envelope::CheckIn(said) => {
                self.announced([said.max_frame, said.max_message, said.max_item, said.stream_window]);
                self.serves(said.max_concurrent, said.max_streams, said.features.iter());
            }
            Envelope::CheckInAck(said) => {
                self.announced([said.max_frame, said.max_message, said.max_item, said.stream_window]);
                self.serves(said.max_concurrent, said.max_streams, said.features.iter());
            }
            Envelope::Credit(said) => {
                if let Some(flow) = self.flows.get(seen.header.id) {
                    flow.credit_given(said.octets);
                }
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
            FrameType::HEARTBEAT => *self.beats.entry(id).or_default() += 1,
            FrameType::STREAM_END => {
                if let Some(flow) = self.flows.get(id) {
                    flow.end_given();
                }
            }
            FrameType::CANCEL => self.cut_short |= self.flows.get(id).is_some_and(|flow| flow.goes_on()),
            _ => {}
        }
        match self.reading.add(seen)? {
            Step::None | Step::Continues => {}
            Step::Begins(message) => self.begins_in(&message),
            Step::Whole(message) => {
                self.begins_in(&message);
                self.ends_in(&message);
            }
            Step::Ends(message) => self.ends_in(&message),
            // An abandoned item ends its call.
            Step::Abandons(message) => self.answer_in(&message),
        }
        Ok(())
    }

    fn begins_in(&mut self, message: &Message) {
        match message.frame_type {
            FrameType::REQUEST => {
                let out = matches!(message.kind, 1 | 3).then(|| message.credit.unwrap_or(self.stream_window));
                let into = matches!(message.kind, 2 | 3).then_some(self.window);
                if out.is_some() || into.is_some() {
                    self.flows.begin(message.id, Flow::new(out, into));
                }
            }
            FrameType::STREAM_ITEM => {
                if let Some(flow) = self.flows.get(message.id) {
                    flow.item_in(message);
                }
            }
            _ => {}
        }
    }

    fn ends_in(&mut self, message: &Message) {
        match message.frame_type {
            FrameType::REQUEST => {
                if let Some(number) = message.plain().as_deref().and_then(number_in) {
                    self.flows.named(false, number, message.id);
                }
            }
            FrameType::STREAM_ITEM => {
                if let Some(flow) = self.flows.get(message.id) {
                    flow.item_is_in(message);
                }
            }
            _ => self.answer_in(message),
        }
    }

    fn answer_in(&mut self, message: &Message) {
        if message.frame_type == FrameType::RESPONSE {
            self.asked.remove(&message.id);
            self.streams.remove(&message.id);
        }
    }

    fn announced(&mut self, [frame, message, item, window]: [u32; 4]) {
        self.checked_in = true;
        self.max_frame = if frame == 0 { 64 << 10 } else { frame.clamp(16 << 10, 1 << 20) };
        let message = if message == 0 { 4 << 20 } else { message.clamp(1 << 10, 1 << 30) };
        self.max_message = message as usize;
        self.max_item = if item == 0 { 256 << 10 } else { item.min(message) } as usize;
        self.stream_window = if window == 0 { 64 << 10 } else { window };
    }

    fn serves(&mut self, concurrent: u32, streams: u32, features: Iter<'_, u32>) {
        self.max_concurrent = concurrent;
        self.max_streams = streams.min(concurrent);
        self.snappy =
            features.take(64).any(|feature| feature == 1) && (self.side == Side::Server || self.offered);
    }

    /// The connection committed octets. The frames that are whole now, and what there is of the payloads of calls that
    /// began, or of compressed ones that are whole.
    pub fn committed(&mut self, octets: &[u8]) -> (Vec<Seen>, Vec<Vec<u8>>) {
        self.out.extend_from_slice(octets);
        let (frames, sound) = take_frames(&mut self.out);
        assert!(sound, "a connection writes frames");
        let calls = frames.iter().filter_map(|seen| self.judge(seen)).collect();
        (frames, calls)
    }

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
            let compressed = header.flags.contains(Flags::COMPRESSED);
            assert!(!compressed || self.snappy, "compressed, and nobody granted it: {header:?}");
        }
        self.judge_order(header.frame_type);
        let mut call = None;
        match header.frame_type {
            FrameType::REQUEST | FrameType::ONE_WAY => {
                self.judge_call(seen);
                call = (!header.flags.contains(Flags::COMPRESSED)).then(|| frame.payload.to_vec());
            }
            FrameType::RESPONSE => {
                self.end_flow(header.id, FrameType::RESPONSE, 0);
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
                self.end_flow(header.id, FrameType::CANCEL, 0);
            }
            FrameType::STREAM_END => {
                assert!(self.began.contains(&header.id), "STREAM_END of what was not begun");
                assert!(!self.writing.is_open(header.id), "STREAM_END before an item is whole");
                self.end_flow(header.id, FrameType::STREAM_END, 0);
            }
            FrameType::CREDIT => {
                let Envelope::Credit(said) = frame.envelope else { unreachable!("by its type") };
                self.end_flow(header.id, FrameType::CREDIT, said.octets);
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
        if let Envelope::CheckIn(said) = frame.envelope {
            self.offered = said.features.iter().any(|feature| feature == 1);
        }
        self.frames += 1;
        match self.writing.add(seen).unwrap_or_else(|what| panic!("{what}: {header:?}")) {
            Step::None | Step::Continues | Step::Abandons(_) => {}
            Step::Begins(message) => self.begins_out(&message),
            Step::Whole(message) => {
                self.begins_out(&message);
                call = call.or(self.ends_out(&message));
            }
            Step::Ends(message) => call = self.ends_out(&message),
        }
        call
    }

    fn end_flow(&mut self, id: u64, frame_type: FrameType, octets: u32) {
        if let Some(flow) = self.flows.get(id) {
            flow.said(frame_type, octets, id);
        }
    }

    fn begins_out(&mut self, message: &Message) {
        match message.frame_type {
            FrameType::REQUEST => {
                let out = matches!(message.kind, 2 | 3).then_some(self.stream_window);
                let into = matches!(message.kind, 1 | 3).then(|| message.credit.unwrap_or(self.window));
                if out.is_some() || into.is_some() {
                    self.streams.insert(message.id);
                    let many = self.streams.len();
                    assert!(!self.trusted || many <= self.max_streams as usize, "more than max_streams");
                    self.flows.begin(message.id, Flow::new(out, into));
                }
            }
            FrameType::STREAM_ITEM if self.is_clear() => {
                let flow = self.flows.get(message.id).expect("an item of a call that does not stream");
                flow.item_out(message);
            }
            _ => {}
        }
    }

    /// The payload, if it is a compressed call.
    fn ends_out(&mut self, message: &Message) -> Option<Vec<u8>> {
        let plain = message.plain().expect("what is written compressed can be read");
        if message.compressed {
            assert!(message.payload.len() * 8 <= plain.len() * 7, "compressed for nothing");
        }
        if self.trusted {
            let most =
                if message.frame_type == FrameType::STREAM_ITEM { self.max_item } else { self.max_message };
            assert!(
                plain.len() <= most,
                "{} of {} octets is larger than the peer reads",
                message.frame_type,
                plain.len()
            );
        }
        match message.frame_type {
            FrameType::REQUEST => {
                let number = number_in(&plain).expect("a node's call has its number");
                self.flows.named(true, number, message.id);
            }
            FrameType::STREAM_ITEM => {
                if let Some(flow) = self.flows.get(message.id) {
                    flow.item_is_out();
                }
            }
            _ => {}
        }
        let call = matches!(message.frame_type, FrameType::REQUEST | FrameType::ONE_WAY);
        (call && message.compressed).then_some(plain)
    }

    /// L11 and more, when nothing waits to be committed and everything that was given is decoded.
    pub fn at_rest(&self) {
        if self.is_clear() && self.checked_in && !self.closed && !self.over {
            self.flows.at_rest();
        }
    }

    fn judge_call(&mut self, seen: &Seen) {
        let header = seen.header;
        let parity = u64::from(self.side == Side::Client);
        assert!(header.id > self.highest && header.id & 1 == parity, "ids increase: {header:?}");
        self.highest = header.id;
        assert!(!self.peer_drains, "a call begun where the peer drains");
        let payload = seen.frame().payload;
        let for_a_handler = header.flags.contains(Flags::COMPRESSED) || payload.get(1) == Some(&CALLBACK);
        assert!(self.drain.is_none() || for_a_handler, "a call begun behind DRAIN that is no handler's");
        let trusting = self.is_trusting();
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
