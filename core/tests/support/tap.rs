//! An observer on the line of one node: decodes what it committed and what it was given, and objects to every frame
//! that the protocol forbids it to send. Fragments are followed in [`messages`](super::messages), streams and their
//! credit in [`ledger`](super::ledger).

use std::collections::{BTreeMap, BTreeSet};

use tieline_core::{
    conn::Side,
    wire::{Class, Envelope, Flags, Frame, FrameType, Status},
};

use super::{
    frames::{MAX_BODY, Seen, take_frames},
    ledger::Ledger,
    messages::{Messages, Part},
    piece,
    tally::Tally,
};

/// A call that was committed.
pub struct Call {
    pub id: u64,
    pub number: u32,
    /// What it says of its deadline.
    pub timeout_us: Option<u64>,
}

pub struct Tap {
    side: Side,
    out: Vec<u8>,
    /// Octets that the node was given and that are no whole frame yet; `None` once they are not to be trusted.
    given: Option<Vec<u8>>,
    frames: u64,
    checked_in: bool,
    /// Snappy was granted.
    snappy: bool,
    /// What the peer announced.
    max_frame: u32,
    max_message: usize,
    pub max_item: usize,
    max_concurrent: u32,
    max_streams: u32,
    highest: u64,
    highest_given: u64,
    /// REQUESTs of this node of which the last of the RESPONSE has not come, and those of them that stream.
    asked: BTreeSet<u64>,
    streaming: BTreeSet<u64>,
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
    /// The calls that were committed since this was last emptied.
    pub calls: Vec<Call>,
    messages: Messages,
    messages_given: Messages,
    pub ledger: Ledger,
}

impl Tap {
    pub fn new(side: Side, trusted: bool) -> Self {
        Self {
            side,
            out: Vec::new(),
            given: trusted.then(Vec::new),
            frames: 0,
            checked_in: false,
            snappy: false,
            max_frame: 16 << 10,
            max_message: 0,
            max_item: 0,
            max_concurrent: u32::MAX,
            max_streams: 0,
            highest: 0,
            highest_given: 0,
            asked: BTreeSet::new(),
            streaming: BTreeSet::new(),
            cancelled: BTreeSet::new(),
            began: BTreeSet::new(),
            due: BTreeSet::new(),
            beats: BTreeMap::new(),
            drain: None,
            closed: false,
            peer_drains: false,
            over: false,
            calls: Vec::new(),
            messages: Messages::default(),
            messages_given: Messages::default(),
            ledger: Ledger::default(),
        }
    }

    /// Whether the peer speaks the protocol.
    pub fn is_trusted(&self) -> bool {
        self.given.is_some()
    }

    /// Whether octets that the node was given are no whole frame yet.
    pub fn is_inside_a_frame(&self) -> bool {
        self.given.as_ref().is_some_and(|given| !given.is_empty())
    }

    /// The peer's REQUESTs that were not answered.
    pub fn due(&self) -> &BTreeSet<u64> {
        &self.due
    }

    // ---- what the node was given ------------------------------------------------------------------------------

    /// The node was given octets.
    pub fn given(&mut self, octets: &[u8]) {
        let Some(given) = &mut self.given else { return };
        given.extend_from_slice(octets);
        for seen in take_frames(given) {
            self.note_given(&seen);
        }
    }

    fn note_given(&mut self, seen: &Seen) {
        let part = self.messages_given.note(seen);
        let id = seen.id();
        match seen.frame().envelope {
            Envelope::CheckIn(said) => {
                self.checked_in = true;
                self.announced(said.max_frame, said.max_message, said.max_concurrent);
                self.announced_streams(said.max_item, said.max_streams, said.stream_window);
            }
            Envelope::CheckInAck(said) => {
                self.checked_in = true;
                self.snappy = said.features.iter().any(|feature| feature == 1);
                self.announced(said.max_frame, said.max_message, said.max_concurrent);
                self.announced_streams(said.max_item, said.max_streams, said.stream_window);
            }
            Envelope::Credit(said) => self.ledger.credit_in(id, said.octets),
            _ => {}
        }
        match seen.frame_type() {
            FrameType::REQUEST => {
                self.highest_given = id;
                self.due.insert(id);
                let whole = matches!(part, Part::First(_, true));
                self.ledger.opened(id, false, &seen.request(), None, whole);
            }
            FrameType::ONE_WAY => self.highest_given = id,
            FrameType::HEARTBEAT => *self.beats.entry(id).or_default() += 1,
            FrameType::STREAM_END => self.ledger.end_in(id),
            _ => {}
        }
        let (began, whole) = match part {
            Part::First(began, whole) => {
                if began.frame_type == FrameType::STREAM_ITEM {
                    self.ledger.item_in(id, began.total);
                }
                (began, whole)
            }
            Part::Next(began, whole) => (began, whole),
            Part::Abandoned(began, missing) => {
                if began.frame_type == FrameType::STREAM_ITEM {
                    self.ledger.item_abandoned_in(id, missing);
                }
                if began.frame_type == FrameType::RESPONSE {
                    self.answered(id);
                }
                return;
            }
            Part::Other => return,
        };
        match began.frame_type {
            FrameType::REQUEST if whole => self.ledger.request_whole(id),
            FrameType::STREAM_ITEM if whole => self.ledger.item_whole_in(id, began.total),
            FrameType::RESPONSE if whole => self.answered(id),
            _ => {}
        }
    }

    /// The last of a RESPONSE has come.
    fn answered(&mut self, id: u64) {
        self.asked.remove(&id);
        self.streaming.remove(&id);
        self.ledger.answered_in(id);
    }

    fn announced(&mut self, frame: u32, message: u32, concurrent: u32) {
        self.max_frame = if frame == 0 { 64 << 10 } else { frame.clamp(16 << 10, 1 << 20) };
        let message = if message == 0 { 4 << 20 } else { message.clamp(1 << 10, 1 << 30) };
        self.max_message = message as usize;
        self.max_concurrent = concurrent;
    }

    fn announced_streams(&mut self, item: u32, streams: u32, window: u32) {
        let item = if item == 0 { 256 << 10 } else { item as usize };
        self.max_item = item.min(self.max_message);
        self.max_streams = streams.min(self.max_concurrent);
        self.ledger.peer_said(window);
    }

    // ---- what the node sent -----------------------------------------------------------------------------------

    /// The node committed octets.
    pub fn committed(&mut self, octets: &[u8], tally: &mut Tally) {
        self.out.extend_from_slice(octets);
        for seen in take_frames(&mut self.out) {
            self.judge(&seen, tally);
        }
    }

    fn judge(&mut self, seen: &Seen, tally: &mut Tally) {
        let (frame, header) = (seen.frame(), seen.header);
        let trusted = self.is_trusted();
        let mut again = Vec::new();
        frame.emit(&mut again).unwrap();
        assert_eq!(again, seen.octets, "a frame that is not canonical");
        assert!(!self.closed, "a frame behind CLOSE: {header:?}");
        let last = matches!(header.frame_type, FrameType::CLOSE | FrameType::CHECK_IN_ACK);
        assert!(!self.over || last, "after the end: {header:?}");
        assert!(Frame::parse(&seen.octets, MAX_BODY).is_ok());
        if trusted {
            assert!(header.len <= self.max_frame, "longer than the peer reads: {header:?}");
            assert!(self.snappy || !header.flags.contains(Flags::COMPRESSED), "not granted: {header:?}");
        }
        self.judge_order(header.frame_type, trusted);
        let part = self.messages.note(seen);
        self.judge_message(part, header.flags, trusted, tally);
        match header.frame_type {
            FrameType::REQUEST | FrameType::ONE_WAY => self.judge_call(seen, part, trusted, tally),
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
                self.ledger.response_out(header.id);
            }
            FrameType::CANCEL => {
                assert!(self.began.contains(&header.id), "CANCEL of what was not begun");
                assert!(self.cancelled.insert(header.id), "CANCEL twice");
                self.ledger.cancel_out(header.id);
            }
            FrameType::STREAM_END => self.ledger.end_out(header.id, tally),
            FrameType::CREDIT => {
                let Envelope::Credit(said) = frame.envelope else { unreachable!() };
                self.ledger.credit_out(header.id, said.octets, trusted, tally);
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
            FrameType::CHECK_IN => {
                let Envelope::CheckIn(said) = frame.envelope else { unreachable!() };
                self.ledger.own_said(said.stream_window);
            }
            FrameType::CHECK_IN_ACK => {
                let Envelope::CheckInAck(said) = frame.envelope else { unreachable!() };
                self.closed = header.status != Status::OK;
                self.snappy = said.features.iter().any(|feature| feature == 1);
                self.ledger.own_said(said.stream_window);
            }
            _ => {}
        }
        self.frames += 1;
        tally.check("frames judged");
    }

    /// What holds for every message, whatever it is.
    fn judge_message(&mut self, part: Part, flags: Flags, trusted: bool, tally: &mut Tally) {
        match part {
            Part::Other => {}
            Part::First(began, whole) => {
                let item = began.frame_type == FrameType::STREAM_ITEM;
                if trusted {
                    let most = if item { self.max_item } else { self.max_message };
                    assert!(began.plain.max(began.total) <= most, "larger than the peer reads: {began:?}");
                }
                if flags.contains(Flags::COMPRESSED) {
                    assert!(began.plain == 0 || began.total * 8 <= began.plain * 7, "no gain: {began:?}");
                    tally.check("compressed messages");
                }
                if item {
                    self.ledger.item_out(began.id, began.total, trusted, tally);
                }
                if !whole {
                    tally.check("messages in fragments");
                }
            }
            Part::Next(began, whole) => {
                let requested = matches!(began.frame_type, FrameType::REQUEST | FrameType::STREAM_ITEM)
                    && self.began.contains(&began.id);
                assert!(
                    !requested || !self.cancelled.contains(&began.id),
                    "goes on behind CANCEL: {began:?}"
                );
                if whole && began.frame_type == FrameType::REQUEST {
                    self.ledger.request_whole(began.id);
                }
                tally.check("fragments in sequence");
            }
            Part::Abandoned(began, missing) => {
                tally.check(match began.frame_type {
                    FrameType::REQUEST => "REQUEST abandoned",
                    FrameType::ONE_WAY => "ONE_WAY abandoned",
                    FrameType::RESPONSE => "RESPONSE abandoned",
                    _ => "STREAM_ITEM abandoned",
                });
                if began.frame_type == FrameType::STREAM_ITEM {
                    self.ledger.item_abandoned_out(began.id, missing);
                }
            }
        }
    }

    fn judge_call(&mut self, seen: &Seen, part: Part, trusted: bool, tally: &mut Tally) {
        let (frame, header, request) = (seen.frame(), seen.header, seen.request());
        let own_parity = match self.side {
            Side::Client => 1,
            Side::Server => 0,
        };
        assert!(header.id > self.highest && header.id & 1 == own_parity, "ids increase: {header:?}");
        self.highest = header.id;
        assert!(!self.peer_drains, "a call begun where the peer drains");
        let named = if request.trace.is_empty() { frame.payload } else { request.trace };
        let name = piece::name(named);
        assert!(
            self.drain.is_none() || name.is_some_and(|(for_handler, _)| for_handler),
            "a call begun behind this side's DRAIN that is no handler's"
        );
        let number = name.map(|(_, number)| number);
        if header.frame_type == FrameType::REQUEST {
            self.began.insert(header.id);
            self.asked.insert(header.id);
            let whole = matches!(part, Part::First(_, true));
            self.ledger.opened(header.id, true, &request, number, whole);
            if self.ledger.streams(header.id) {
                self.streaming.insert(header.id);
            }
            if trusted {
                assert!(self.asked.len() <= self.max_concurrent as usize, "more than max_concurrent");
                tally.check("max_concurrent kept");
                assert!(self.streaming.len() <= self.max_streams as usize, "more than max_streams");
                if self.ledger.streams(header.id) {
                    tally.check("max_streams kept");
                }
            }
        }
        if let Some(number) = number {
            self.calls.push(Call { id: header.id, number, timeout_us: request.timeout_us });
        }
        tally.check("ids increase");
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
