//! How a connection ends: drain, close, end of stream (protocol §5).

use alloc::{borrow::ToOwned, boxed::Box, string::String};
use core::time::Duration;

use super::{
    calling::call_off,
    calls::{Owner, Wire},
    event::{By, CallId, Cancel, Closed, Disconnect, Failure, Served, Stream},
    input::Flow,
    machine::{Machine, Phase, Step},
};
use crate::{
    time::{Instant, MILLISECOND, NEVER, SECOND, nanos},
    wire::{Close, Drain, Escaped, FrameType, HEADER_LEN, Header, Parts, Ran, Status},
};

/// How long a CLOSE may wait for the transport, and how long to read after it.
const LINGER: u64 = SECOND;
/// How long what waits before a CLOSE in peace may take.
const FLUSH: u64 = 5 * SECOND;

/// A drain that this side began.
pub(crate) struct OurDrain {
    /// The highest id of the peer's calls that is accepted.
    pub(crate) id: u64,
    pub(crate) status: Status,
    /// When the grace is over.
    pub(crate) until: u64,
    pub(crate) message: String,
}

/// A drain that the peer began.
#[derive(Clone, Copy)]
pub(crate) struct TheirDrain {
    pub(crate) id: u64,
    grace_ms: u32,
}

/// How it ends, for those who ask.
pub(crate) struct EndOf {
    by: By,
    status: Status,
    message: String,
    retry_after_ms: u32,
}

impl EndOf {
    pub(crate) const fn us(status: Status, message: String) -> Self {
        Self { by: By::Us, status, message, retry_after_ms: 0 }
    }

    pub(crate) const fn peer(status: Status, message: String, retry_after_ms: u32) -> Self {
        Self { by: By::Peer, status, message, retry_after_ms }
    }

    const fn transport(message: String) -> Self {
        Self { by: By::Transport, status: Status::CONNECTION_LOST, message, retry_after_ms: 0 }
    }
}

impl Machine {
    /// Closes because of a mistake or a time-out: a CLOSE goes out before anything else that waits.
    #[cold]
    pub(crate) fn fail(&mut self, status: Status, message: &str) {
        if self.phase.is_ending() && self.phase != Phase::Flushing {
            return;
        }
        self.end_calls(Status::CONNECTION_LOST, message);
        self.lanes = super::lanes::Lanes::default();
        if matches!(status, Status::PROTOCOL_ERROR | Status::EXCESSIVE_LOAD) {
            self.drop_backlog();
        }
        self.conclude(EndOf::us(status, message.to_owned()), Phase::Closing);
    }

    /// Ends without another octet to the peer.
    pub(crate) fn end(&mut self, end: EndOf) {
        if self.phase == Phase::Ended {
            return;
        }
        self.end_calls(Status::CONNECTION_LOST, &end.message);
        self.lanes = super::lanes::Lanes::default();
        self.conclude(end, Phase::Ended);
    }

    /// Enters one of the last phases and notes how it came to it; the first reason counts.
    pub(super) fn conclude(&mut self, end: EndOf, phase: Phase) {
        self.phase = phase;
        self.phase_until = match phase {
            Phase::Ended => NEVER,
            Phase::Flushing => self.now.saturating_add(FLUSH),
            _ => self.now.saturating_add(LINGER),
        };
        self.deafen();
        self.room_wanted = None;
        self.closed.get_or_insert_with(|| {
            let ms = end.retry_after_ms.min(300_000);
            Box::new(Closed {
                by: end.by,
                status: end.status,
                message: end.message,
                retry_after: (ms > 0).then(|| Duration::from_millis(ms.into())),
            })
        });
    }

    /// Ends everything that is open. Calls that never left are told so.
    pub(super) fn end_calls(&mut self, lost: Status, why: &str) {
        for slot in 0..self.calls.slots() {
            let Some(call) = self.calls.get(slot) else { continue };
            let failure = match call.wire {
                Wire::Off => continue,
                Wire::Queued => Failure::local(Status::NOT_SENT, Ran::No, why),
                Wire::Sent if call.id > self.transmitted => Failure::local(Status::NOT_SENT, Ran::No, why),
                Wire::Sent | Wire::Sending => Failure::local(lost, Ran::Maybe, why),
            };
            let queued = call.wire == Wire::Queued || call.cold.as_ref().is_some_and(|c| c.sent.is_some());
            call.wire = Wire::Off;
            if queued {
                self.calls.unqueue(slot);
            }
            self.call_timers.remove(slot);
            self.tell(slot, Some(failure));
        }
        self.calls.unanswered = 0;
        self.calls.streams = 0;
        self.staging.clear();
        self.control = super::machine::Control::default();
        self.end_served();
        self.arriving.clear();
        self.arriving_due = NEVER;
        self.direct = None;
        self.pool.clear();
    }

    /// One-ways that wait are dropped: of a peer that broke the rules nothing more is believed.
    fn drop_backlog(&mut self) {
        for slot in 0..self.served.slots() {
            let Some(serving) = self.served.get(slot).filter(|serving| serving.one_way && serving.id != 0)
            else {
                continue;
            };
            let call = Served { slot, generation: serving.generation };
            self.end_pending(call, Status::INTERRUPTED, "");
        }
    }

    /// Cancels what the peer's calls run, all but one-ways, and drops answers.
    fn end_served(&mut self) {
        let mut waiting = alloc::vec::Vec::new();
        for slot in 0..self.served.slots() {
            let Some(serving) = self.served.get(slot).filter(|serving| serving.id != 0) else { continue };
            let call = Served { slot, generation: serving.generation };
            serving.unwritten = false;
            if serving.is_pending() {
                // One-ways that came whole still run.
                if !serving.one_way || serving.cold().arriving {
                    self.forget_pending(call);
                } else {
                    waiting.push((serving.id, call));
                }
                continue;
            }
            if serving.running && !serving.answered {
                serving.answered = true;
                self.cancelled.push_back((call, Cancel::Disconnected));
            }
            self.served_timers.remove(slot);
            self.served.release(slot);
        }
        waiting.sort_unstable_by_key(|(id, _)| *id);
        for (_, call) in waiting {
            self.start_without_key(call);
        }
    }

    /// Withdraws the REQUESTs that wait to be sent.
    pub(super) fn drop_requests(&mut self, status: Status, why: &str) {
        for slot in 0..self.calls.slots() {
            let Some(call) = self.calls.get(slot) else { continue };
            let staged = call.wire == Wire::Sent && call.id > self.transmitted;
            let queued = call.wire == Wire::Queued && !call.one_way;
            if queued || (staged && call.cold.is_none()) {
                call.wire = Wire::Off;
                if staged {
                    self.calls.unanswered = self.calls.unanswered.saturating_sub(1);
                    self.stats.calls_out = self.stats.calls_out.saturating_sub(1);
                } else {
                    self.calls.unqueue(slot);
                }
                self.call_timers.remove(slot);
                self.tell(slot, Some(Failure::local(status, Ran::No, why)));
            }
        }
        let keeps = |header: &Header| header.frame_type != FrameType::REQUEST;
        let answer = |header: &Header| header.frame_type == FrameType::RESPONSE;
        self.staging.retain(keeps, answer);
        self.lanes.clear_requests();
    }

    /// Withdraws the one-ways that wait to be sent.
    pub(super) fn drop_one_ways(&mut self, why: &str) {
        for slot in 0..self.calls.slots() {
            if self.calls.get(slot).is_some_and(|call| call.wire == Wire::Queued && call.one_way) {
                self.withdraw(slot, why);
            }
        }
    }

    /// Withdraws the calls that stream and wait to be sent.
    pub(super) fn drop_streams(&mut self, why: &str) {
        for slot in 0..self.calls.slots() {
            let waits = |call: &mut super::calls::Call| {
                call.wire == Wire::Queued && call.cold.as_ref().is_some_and(|cold| cold.stream.is_some())
            };
            if self.calls.get(slot).is_some_and(waits) {
                self.withdraw(slot, why);
            }
        }
    }

    /// Takes a call back before anything of it left.
    fn withdraw(&mut self, slot: u32, why: &str) {
        let Some(call) = self.calls.get(slot) else { return };
        let (wire, id) = (call.wire, call.id);
        if wire == Wire::Queued {
            call_off(self, slot);
        } else {
            self.unstage(slot, id);
        }
        self.call_timers.remove(slot);
        self.tell(slot, Some(Failure::local(Status::NOT_SENT, Ran::No, why)));
    }

    /// The outcome of a call is known. `None`: a one-way that was committed.
    pub(super) fn tell(&mut self, slot: u32, failure: Option<Failure>) {
        if let Some(call) = self.calls.get(slot) {
            if call.owner == Owner::Waits {
                call.owner = Owner::Told;
                call.failure = failure;
                self.finished.push_back(slot);
            } else {
                self.calls.release(slot);
            }
        }
    }

    pub(crate) fn may_tell_closed(&self) -> bool {
        // In peace it is only true once the CLOSE is on its way.
        self.phase != Phase::Flushing
            && !self.ready_untold
            && self.finished.is_empty()
            && self.cancelled.is_empty()
            && self.startable.is_empty()
            && self.next_one_way().is_none()
    }

    /// After all else: the end of the connection.
    #[inline]
    pub(super) fn last_step(&mut self) -> Option<Step> {
        if self.eof.is_none() && self.closed.is_none() { None } else { self.take_last() }
    }

    #[cold]
    fn take_last(&mut self) -> Option<Step> {
        if self.phase.listens()
            && let Some(cause) = self.eof
        {
            let between = self.inbox.is_empty() && self.direct.is_none();
            let message = match (cause, between) {
                ("", true) => "the peer ended the stream".to_owned(),
                ("", false) => "the peer ended the stream inside a frame".to_owned(),
                (cause, true) => cause.to_owned(),
                (cause, false) => alloc::format!("{cause}, inside a frame"),
            };
            self.end(EndOf::transport(message));
            if let Some(step) = self.queued_step() {
                return Some(step);
            }
        }
        if self.closed_told || !self.may_tell_closed() {
            return None;
        }
        let closed = self.closed.as_deref()?.clone();
        self.closed_told = true;
        Some(Step::Closed(closed))
    }

    /// The transport ended. What came before is still decoded.
    pub(crate) fn handle_disconnect(&mut self, cause: Disconnect) {
        let cause = match cause {
            Disconnect::Eof => "",
            Disconnect::Error(what) => what,
        };
        if self.phase.listens() {
            self.eof.get_or_insert(cause);
        } else if matches!(self.phase, Phase::Closing | Phase::Refusing | Phase::Lingering)
            && cause.is_empty()
        {
            // Who says no more may still read why.
            self.eof.get_or_insert(cause);
            if self.phase == Phase::Lingering && self.live.unsent == 0 {
                self.finish();
            }
        } else {
            self.finish();
        }
    }

    /// Nothing more will come of it.
    fn finish(&mut self) {
        if self.phase != Phase::Ended {
            self.end_calls(Status::CONNECTION_LOST, "the connection is over");
            self.phase = Phase::Ended;
            self.phase_until = NEVER;
        }
    }

    pub(super) fn on_close(&mut self, header: Header) -> Flow {
        let body = self.inbox.octets().get(HEADER_LEN..HEADER_LEN + header.len as usize).unwrap_or_default();
        let message = match Parts::split(body) {
            Ok(parts) if !parts.payload.is_empty() => return self.violation("a payload on CLOSE"),
            Ok(parts) => match Close::parse(parts.envelope) {
                Ok(close) => alloc::format!("{}", Escaped(close.message.as_bytes())),
                Err(error) => return self.violation(&alloc::format!("CLOSE does not decode: {error}")),
            },
            Err(fault) => return self.mistake(&fault, Status::PROTOCOL_ERROR),
        };
        self.end(EndOf::peer(header.status.as_close(), message, 0));
        Flow::Again
    }

    /// Closes in peace: what waits goes out first.
    pub(crate) fn close(&mut self, status: Status, message: &str) {
        match self.phase {
            Phase::Greeting | Phase::AwaitAck => self.end(EndOf::us(status, message.to_owned())),
            Phase::Ready if matches!(status, Status::NORMAL | Status::GOING_AWAY | Status::IDLE) => {
                self.flush(status, message, FLUSH);
            }
            // What waits is on its way already.
            Phase::Flushing if matches!(status, Status::NORMAL | Status::GOING_AWAY | Status::IDLE) => {}
            Phase::Verifying => self.refuse(status, message.to_owned(), 0),
            _ => self.fail(status, message),
        }
    }

    /// Answers what still runs as INTERRUPTED, and sends what waits and then the CLOSE, within `most`.
    fn flush(&mut self, status: Status, message: &str, most: u64) {
        for slot in 0..self.served.slots() {
            self.interrupt(slot);
        }
        self.drop_requests(Status::NOT_SENT, message);
        for slot in 0..self.calls.slots() {
            let Some(call) = self.calls.get(slot) else { continue };
            // One-ways that are half sent go out whole.
            if call.wire == Wire::Sent {
                let stream = Stream::Ours(CallId { slot, generation: call.generation });
                self.stop_sending(slot, stream);
                if let Some(call) = self.calls.get(slot) {
                    call.wire = Wire::Off;
                }
                self.call_timers.remove(slot);
                self.tell(slot, Some(Failure::local(Status::CONNECTION_LOST, Ran::Maybe, message)));
            }
        }
        self.calls.unanswered = 0;
        self.calls.streams = 0;
        self.control.cancels.clear();
        self.conclude(EndOf::us(status, message.to_owned()), Phase::Flushing);
        self.phase_until = self.now.saturating_add(most);
    }

    /// Begins to drain, or hastens it.
    pub(crate) fn drain(&mut self, status: Status, grace: Duration, message: &str) {
        let until = self.now.saturating_add(nanos(grace));
        match (&mut self.our_drain, self.phase) {
            (Some(drain), _) if until < drain.until => {
                drain.until = until;
                self.control.drain = true;
            }
            (Some(_), _) => {}
            (None, Phase::Ready) => {
                let (id, message) = (self.highest_in, message.to_owned());
                self.withdraw_unless_for_a_handler(&message);
                self.our_drain = Some(Box::new(OurDrain { id, status: status.as_close(), until, message }));
                self.control.drain = true;
            }
            (None, _) if self.phase.listens() => self.close(status, message),
            (None, _) => {}
        }
    }

    /// What has not begun yet does not begin behind our DRAIN, unless a handler waits for it.
    fn withdraw_unless_for_a_handler(&mut self, why: &str) {
        for slot in 0..self.calls.slots() {
            let Some(call) = self.calls.get(slot) else { continue };
            let staged = call.wire == Wire::Sent && call.id > self.transmitted;
            if (call.wire == Wire::Queued || staged) && !call.for_handler {
                self.withdraw(slot, why);
            }
        }
    }

    /// What is left of the grace of our drain, for the frame.
    pub(super) fn grace_left(&self) -> u32 {
        let left = self.our_drain.as_ref().map_or(0, |drain| drain.until.saturating_sub(self.now));
        u32::try_from(left / MILLISECOND).unwrap_or(u32::MAX)
    }

    /// Closes when a drain is complete, and looks whether the straight way is open: to be asked when something has ended.
    #[inline]
    pub(crate) fn settle(&mut self) {
        if self.our_drain.is_some() {
            self.finish_drain();
        }
        self.straighten();
    }

    fn finish_drain(&mut self) {
        let Some(drain) = &self.our_drain else { return };
        let expired = self.now >= drain.until;
        let idle = self.calls.queued == 0 && self.calls.unanswered == 0 && self.served.open() == 0;
        // When the grace is over it no longer matters whether the DRAIN itself could be written.
        if self.phase == Phase::Ready && ((idle && !self.control.drain) || expired) {
            let (status, message) = (drain.status, drain.message.clone());
            self.flush(status, &message, SECOND);
        }
    }

    pub(super) fn on_drain(&mut self, header: Header) -> Flow {
        let body = self.inbox.octets().get(HEADER_LEN..HEADER_LEN + header.len as usize).unwrap_or_default();
        let grace_ms = match Parts::split(body) {
            Ok(parts) if !parts.payload.is_empty() => return self.violation("a payload on DRAIN"),
            Ok(parts) => match Drain::parse(parts.envelope) {
                Ok(drain) => drain.grace_ms,
                Err(error) => return self.violation(&alloc::format!("DRAIN does not decode: {error}")),
            },
            Err(fault) => return self.mistake(&fault, Status::PROTOCOL_ERROR),
        };
        let id = header.id;
        if id != 0 && (self.is_theirs(id) || id > self.highest_out) {
            return self.violation("DRAIN names a call that was never begun");
        }
        if let Some(before) = self.their_drain
            && (before.id != id || grace_ms > before.grace_ms)
        {
            return self.violation("a second DRAIN with another id or a longer grace");
        }
        let first = self.their_drain.replace(TheirDrain { id, grace_ms }).is_none();
        self.skip_frame(header);
        if first {
            self.drop_requests(Status::NOT_SENT, "the peer drains");
            self.drop_one_ways("the peer drains");
            self.give_up_above(id);
        }
        let until = self.now.saturating_add(u64::from(grace_ms).saturating_mul(MILLISECOND));
        Flow::Step(Step::Draining { until: Instant::from_nanos(until), status: header.status.as_close() })
    }

    /// What the peer's DRAIN did not accept has not run and may go elsewhere at once.
    fn give_up_above(&mut self, id: u64) {
        for slot in 0..self.calls.slots() {
            if let Some(call) = self.calls.get(slot)
                && matches!(call.wire, Wire::Sent | Wire::Sending)
                && call.id > id
            {
                let stream = Stream::Ours(CallId { slot, generation: call.generation });
                self.stop_sending(slot, stream);
                self.call_timers.remove(slot);
                // Its RESPONSE is still due, so it keeps its place.
                self.tell(slot, Some(Failure::local(Status::DRAINING, Ran::No, "the peer drains")));
            }
        }
    }

    /// What the phase waited for did not come.
    pub(super) fn phase_expired(&mut self) {
        match self.phase {
            // What has been received in time counts: it is looked at first, at the next event.
            Phase::AwaitCheckIn | Phase::AwaitAck if self.unparsed => {}
            Phase::AwaitCheckIn => self.fail(Status::CHECK_IN_TIMEOUT, "no check-in came in time"),
            Phase::Verifying => {
                self.refuse(Status::CHECK_IN_REFUSED, "the verifier did not decide in time".to_owned(), 1000);
            }
            Phase::Greeting | Phase::AwaitAck => {
                let message = "the check-in was not answered in time".to_owned();
                self.end(EndOf::us(Status::CHECK_IN_TIMEOUT, message));
            }
            Phase::Acking => self.fail(Status::CHECK_IN_TIMEOUT, "the ack could not be written"),
            Phase::Flushing | Phase::Closing | Phase::Refusing | Phase::Lingering => self.finish(),
            Phase::Ready | Phase::Ended => self.phase_until = NEVER,
        }
    }

    /// The last frame is committed.
    pub(super) fn linger(&mut self) {
        self.phase = Phase::Lingering;
        self.phase_until = self.now.saturating_add(LINGER);
        self.cut_at = self.now.saturating_add(FLUSH);
    }

    /// The transport took something while the connection lingers: the peer has a second from the last octet on, but
    /// one that takes an octet a second does not hold the line for ever.
    pub(super) fn linger_on(&mut self) {
        if self.eof.is_some() && self.live.unsent == 0 {
            self.finish();
        } else {
            self.phase_until = self.now.saturating_add(LINGER).min(self.cut_at);
        }
    }
}
