//! From octets to frames, and from frames to those who handle them.
//!
//! One frame at a time is decoded, when an event is asked for: there is no queue of decoded frames that could grow.
//! Each rule of protocol §1, "Order of checks", is one step of [`Machine::frame`], in that order. What may come in
//! which state is one table, [`allowed`], and what it does not name is not allowed.

use super::{
    budget::cost,
    config::Side,
    ending::EndOf,
    machine::{Machine, Phase, Step},
};
use crate::{
    time::SECOND,
    wire::{Fault, Flags, FrameType, HEADER_LEN, Header, Status, What},
};

/// What decoding one frame led to.
pub(super) enum Flow {
    /// Nothing to tell; go on.
    Again,
    /// No whole frame waits.
    Dry,
    Step(Step),
}

/// Longest body before check-in, both ways.
const BEFORE_CHECK_IN: u32 = 16 << 10;

/// The types that may come, by side and phase (protocol §2). Default: none.
fn allowed(side: Side, phase: Phase, frame_type: FrameType) -> bool {
    match (side, phase) {
        (Side::Server, Phase::AwaitCheckIn) => frame_type == FrameType::CHECK_IN,
        (Side::Client, Phase::AwaitAck) => matches!(frame_type, FrameType::CHECK_IN_ACK | FrameType::CLOSE),
        // A server that is full says so without waiting for the check-in.
        (Side::Client, Phase::Greeting) => frame_type == FrameType::CLOSE,
        (_, Phase::Ready) => matches!(
            frame_type,
            FrameType::HEARTBEAT
                | FrameType::HEARTBEAT_ACK
                | FrameType::REQUEST
                | FrameType::RESPONSE
                | FrameType::ONE_WAY
                | FrameType::CANCEL
                | FrameType::STREAM_ITEM
                | FrameType::STREAM_END
                | FrameType::CREDIT
                | FrameType::CONTINUATION
                | FrameType::DRAIN
                | FrameType::CLOSE
                | FrameType::TABLE
        ),
        _ => false,
    }
}

impl Machine {
    pub(crate) fn handle_input(&mut self, octets: usize) {
        if octets == 0 {
            return;
        }
        self.live.read(self.now, octets);
        self.stats.octets_in = self.stats.octets_in.saturating_add(octets as u64);
        match self.phase {
            Phase::Verifying | Phase::Acking => self.spoke_too_soon(),
            phase if phase.listens() => self.unparsed = true,
            // Read and discarded, so that the reason of the close is not lost in a reset.
            _ => self.deafen(),
        }
    }

    /// A client sends nothing between its check-in and the ack (protocol §4).
    pub(super) fn spoke_too_soon(&mut self) {
        self.fail(Status::PROTOCOL_ERROR, "octets came before the check-in was answered");
    }

    /// The next thing to tell, if there is one.
    pub(crate) fn poll(&mut self) -> Option<Step> {
        loop {
            if let Some(step) = self.queued_step() {
                return Some(step);
            }
            if !self.unparsed {
                return self.last_step();
            }
            match self.frame() {
                Flow::Again => {}
                Flow::Dry => {
                    self.unparsed = false;
                    self.note_partial();
                }
                Flow::Step(step) => return Some(step),
            }
        }
    }

    /// Notes what is being waited for, for the rules against slow peers.
    fn note_partial(&mut self) {
        let have = self.inbox.len();
        if have == 0 || !self.phase.listens() || self.direct.is_some() {
            return;
        }
        if have < HEADER_LEN {
            self.live.waits_for_header(self.now);
        } else {
            self.header_at.get_or_insert(self.now);
            self.live.waits_for_body(self.now, have - HEADER_LEN);
        }
    }

    /// Octets that would complete the frame that has begun, as far as is known.
    pub(crate) fn missing(&self, begun: Option<Header>) -> usize {
        let frame = HEADER_LEN + begun.map_or(0, |header| header.len as usize);
        frame.saturating_sub(self.inbox.octets().len())
    }

    /// The header of the frame that has begun, if that has come.
    pub(crate) fn begun(&self) -> Option<Header> {
        self.inbox.octets().first_chunk().and_then(|head| Header::parse(head).ok())
    }

    /// Decodes the frame at the front, if it is whole or wrong.
    fn frame(&mut self) -> Flow {
        if let Some(direct) = self.direct {
            return self.on_direct(direct);
        }
        self.inbox.prepare();
        if self.phase != Phase::Ready {
            return self.first_frame();
        }
        let octets = self.inbox.octets();
        let Some(head) = octets.first_chunk::<HEADER_LEN>() else { return self.short_frame() };
        let header = match Header::parse(head) {
            Ok(header) => header,
            Err(fault) => return self.mistake(&fault, Status::PROTOCOL_ERROR),
        };
        let whole = octets.len() - HEADER_LEN >= header.len as usize;
        let max = self.config.limits.max_frame;
        if let Err(fault) = header.check_len(max) {
            return self.mistake(&fault, Status::FRAME_TOO_LARGE);
        }
        if let Err(fault) = header.validate() {
            return self.mistake(&fault, Status::PROTOCOL_ERROR);
        }
        if !allowed(self.side, self.phase, header.frame_type) {
            return self.unexpected(header);
        }
        if header.flags.contains(Flags::COMPRESSED) && !self.snappy {
            return self.violation("COMPRESSED was not granted at check-in");
        }
        if header.frame_type == FrameType::CONTINUATION {
            return self.on_continuation(header, whole);
        }
        if !whole {
            // Nothing is reserved for it before it is whole; but what its id shows cannot change any more.
            return match self.mistaken_id(header) {
                Some(what) => self.violation(what),
                None => Flow::Dry,
            };
        }
        self.live.frame_done();
        self.stats.frames_in += 1;
        let flow = self.dispatch(header);
        self.header_at = None;
        flow
    }

    fn dispatch(&mut self, header: Header) -> Flow {
        match header.frame_type {
            FrameType::REQUEST => self.on_request(header, false),
            FrameType::RESPONSE => self.on_response(header),
            FrameType::ONE_WAY => self.on_request(header, true),
            FrameType::HEARTBEAT => self.on_heartbeat(header),
            FrameType::HEARTBEAT_ACK => self.on_heartbeat_ack(header),
            FrameType::CANCEL => self.on_cancel(header),
            FrameType::STREAM_ITEM => self.on_item(header),
            FrameType::STREAM_END => self.on_stream_end(header),
            FrameType::CREDIT => self.on_credit(header),
            FrameType::DRAIN => self.on_drain(header),
            FrameType::CLOSE => self.on_close(header),
            FrameType::TABLE => self.on_table(header),
            _ => self.violation("a frame of a type that this state does not allow"),
        }
    }

    /// What is wrong with the id of a frame about a call, as far as the header shows it (protocol §3).
    fn mistaken_id(&self, header: Header) -> Option<&'static str> {
        let theirs = self.is_theirs(header.id);
        let highest = if theirs { self.highest_in } else { self.highest_out };
        match header.frame_type {
            FrameType::REQUEST | FrameType::ONE_WAY => (!theirs || header.id <= self.highest_in)
                .then_some("the id of a new call has the wrong parity or is not above the one before"),
            FrameType::RESPONSE if theirs => Some("a RESPONSE to a call of the peer's own"),
            FrameType::RESPONSE | FrameType::STREAM_ITEM | FrameType::CREDIT => {
                (header.id > highest).then_some("a frame for a call that was never begun")
            }
            _ => None,
        }
    }

    /// A type that the table does not name: an extension is skipped at a cost, all else is a mistake.
    #[cold]
    fn unexpected(&mut self, header: Header) -> Flow {
        if !header.frame_type.is_extension() {
            return self.violation("a frame of a type that this side or this state does not allow");
        }
        if self.inbox.octets().len() - HEADER_LEN < header.len as usize {
            return Flow::Dry;
        }
        self.live.frame_done();
        self.stats.frames_in += 1;
        self.header_at = None;
        self.skip_frame(header);
        self.pay(cost::ignored(header.len))
    }

    /// Less than a header: what can be decided is decided.
    #[cold]
    fn short_frame(&mut self) -> Flow {
        match Header::check_prefix(self.inbox.octets()) {
            Ok(()) => Flow::Dry,
            Err(fault) => self.mistake(&fault, Status::PROTOCOL_ERROR),
        }
    }

    /// The first frame, which decides whether there will be a second; or octets where none may be.
    #[cold]
    fn first_frame(&mut self) -> Flow {
        if matches!(self.phase, Phase::Verifying | Phase::Acking) {
            if self.inbox.is_empty() {
                return Flow::Dry;
            }
            self.spoke_too_soon();
            return Flow::Again;
        }
        let octets = self.inbox.octets();
        let Some(head) = octets.first_chunk::<HEADER_LEN>() else { return self.short_first() };
        let header = match Header::parse(head) {
            Ok(header) => header,
            Err(fault) => return self.foreign(fault),
        };
        let whole = octets.len() - HEADER_LEN >= header.len as usize;
        if !self.may_be_first(header.frame_type) {
            return self.wrong_first();
        }
        if let Err(fault) = header.check_len(BEFORE_CHECK_IN) {
            return self.mistake(&fault, Status::FRAME_TOO_LARGE);
        }
        if let Err(fault) = header.validate() {
            return self.mistake(&fault, Status::PROTOCOL_ERROR);
        }
        if !allowed(self.side, self.phase, header.frame_type) {
            return self.violation("a frame of a type that this state does not allow");
        }
        if !whole {
            return Flow::Dry;
        }
        self.stats.frames_in += 1;
        self.header_at = None;
        match header.frame_type {
            FrameType::CHECK_IN => self.on_check_in(header),
            FrameType::CHECK_IN_ACK => self.on_check_in_ack(header),
            _ => self.on_close(header),
        }
    }

    fn may_be_first(&self, frame_type: FrameType) -> bool {
        match self.side {
            Side::Server => frame_type == FrameType::CHECK_IN,
            Side::Client => matches!(frame_type, FrameType::CHECK_IN_ACK | FrameType::CLOSE),
        }
    }

    fn wrong_first(&mut self) -> Flow {
        let (status, message) = match self.side {
            Side::Server => (Status::CHECK_IN_REQUIRED, "the first frame is not CHECK_IN"),
            Side::Client => (Status::PROTOCOL_ERROR, "the first frame is neither CHECK_IN_ACK nor CLOSE"),
        };
        self.fail(status, message);
        Flow::Again
    }

    /// Less than a header: what can be decided is decided, so that a stranger need not send 18 octets.
    fn short_first(&mut self) -> Flow {
        if let Err(fault) = Header::check_prefix(self.inbox.octets()) {
            return self.foreign(fault);
        }
        match self.inbox.octets().get(3) {
            Some(&octet) if !self.may_be_first(FrameType(octet)) => self.wrong_first(),
            _ => Flow::Dry,
        }
    }

    /// Another protocol, or another version of this one.
    #[cold]
    fn foreign(&mut self, fault: Fault) -> Flow {
        match (fault.what, self.phase) {
            (What::Version(version), Phase::AwaitCheckIn) => {
                self.refuse(
                    Status::VERSION_UNSUPPORTED,
                    alloc::format!("version {version} is not spoken here, version 1 is"),
                    0,
                );
                Flow::Again
            }
            (What::Version(version), Phase::AwaitAck) => {
                let message = alloc::format!("the server speaks version {version}, this client version 1");
                self.end(EndOf::peer(Status::VERSION_UNSUPPORTED, message, 0));
                Flow::Again
            }
            (What::Magic, Phase::AwaitAck | Phase::AwaitCheckIn) => {
                let octets = self.inbox.octets();
                let start = octets.get(..octets.len().min(24)).unwrap_or_default();
                let message = alloc::format!("{fault}; it began with \"{}\"", crate::wire::Escaped(start));
                self.fail(Status::PROTOCOL_ERROR, &message);
                Flow::Again
            }
            _ => self.mistake(&fault, Status::PROTOCOL_ERROR),
        }
    }

    #[cold]
    pub(super) fn mistake(&mut self, fault: &Fault, status: Status) -> Flow {
        self.fail(status, &alloc::format!("{fault}"));
        Flow::Again
    }

    /// The peer broke a rule: PE.
    #[cold]
    pub(super) fn violation(&mut self, what: &str) -> Flow {
        self.fail(Status::PROTOCOL_ERROR, what);
        Flow::Again
    }

    /// Charges the abuse budget.
    pub(super) fn pay(&mut self, cost: u32) -> Flow {
        if self.budget.charge(self.now, cost) {
            self.fail(Status::EXCESSIVE_LOAD, "too many frames that were late, early, refused or of no use");
        }
        Flow::Again
    }

    #[inline]
    pub(super) fn skip_frame(&mut self, header: Header) {
        self.inbox.skip(HEADER_LEN + header.len as usize);
    }

    /// A frame for a call that is not open: late if it was opened once, a mistake if it never was.
    #[cold]
    pub(super) fn not_open(&mut self, header: Header) -> Flow {
        let highest = if self.is_theirs(header.id) { self.highest_in } else { self.highest_out };
        if header.id > highest {
            return self.violation("a frame for a call that was never begun");
        }
        self.skip_frame(header);
        self.stats.late_frames += 1;
        self.pay(cost::ignored(header.len))
    }

    fn on_heartbeat(&mut self, header: Header) -> Flow {
        self.skip_frame(header);
        self.stats.heartbeats_in += 1;
        // At most one waits: the newest.
        self.control.ack = Some(header.id);
        // A peer that always beats first leaves this side nothing to beat for.
        self.drowsy = true;
        let early = self.live.beat_in(self.now, self.side == Side::Client);
        if early { self.pay(cost::EARLY_HEARTBEAT) } else { Flow::Again }
    }

    fn on_heartbeat_ack(&mut self, header: Header) -> Flow {
        self.skip_frame(header);
        if !core::mem::take(&mut self.live.unanswered) {
            return self.pay(cost::SMALL);
        }
        if core::mem::take(&mut self.probing) { Flow::Step(Step::Alive) } else { Flow::Again }
    }

    /// A CONTINUATION of no message that is open: the rest of one that was refused at its first frame, or that this
    /// side ended, is free; any other has no beginning.
    pub(super) fn stray_continuation(&mut self, header: Header) -> Flow {
        let kept = self.refused.get(&header.id).copied();
        if kept.is_some_and(|until| self.now > until) {
            self.refused.remove(&header.id);
        } else if kept.is_some() {
            if !header.flags.contains(Flags::MORE) {
                self.refused.remove(&header.id);
            }
            self.skip_frame(header);
            // Free of what late frames cost, not of what fragments cost that are too small to be of use.
            return match header.len {
                0 if header.flags.contains(Flags::MORE) => self.violation("an empty CONTINUATION with MORE"),
                1..256 if header.flags.contains(Flags::MORE) => self.pay(cost::SMALL),
                _ => Flow::Again,
            };
        }
        if self.open_call(header.id).is_some() {
            self.violation("a CONTINUATION of a message that is not in fragments")
        } else {
            self.not_open(header)
        }
    }

    /// Remembers a message that was refused while it is still being sent.
    pub(super) fn remember_refused(&mut self, id: u64) {
        let now = self.now;
        let most = self.config.limits.max_concurrent as usize + 16;
        if self.refused.len() >= most {
            self.refused.retain(|_, until| *until >= now);
        }
        if self.refused.len() >= most
            && let Some(oldest) = self.refused.iter().min_by_key(|(_, until)| **until).map(|(id, _)| *id)
        {
            self.refused.remove(&oldest);
        }
        self.refused.insert(id, now.saturating_add(30 * SECOND));
    }
}
