//! From what waits to committed octets: control frames first, then data by priority and in turns.

use bytes::Buf;

use super::{
    calls::{Owner, Wire},
    config::Side,
    event::{CallId, Served, Stream},
    fragments::{Whole, commit_abandon, commit_rest},
    lanes::{Sort, Waiting, Window},
    machine::{Machine, Phase},
    outbox::Outbox,
};
use crate::{
    time::{MILLISECOND, NEVER, nanos},
    wire::{
        CheckIn, CheckInAck, Close, Credit, Drain, Envelope, Flags, Frame, FrameType, Header, Label, Method,
        Ran, Repeated, Status, Table, varint,
    },
};

/// The number of the feature Snappy (protocol §4, `features`), and whether this build has it.
pub(super) const SNAPPY: u32 = 1;
pub(super) const HAS_SNAPPY: bool = cfg!(feature = "snappy");
/// The tag of `Request.timeout_us`: field 3, varint.
const TIMEOUT_TAG: u8 = 3 << 3;
/// TABLE goes out in as few pieces as the peer's frames allow, and in so many at most: each costs the peer's budget 64
/// points of 4096. Methods that are left out are called by name.
const TABLE_PIECES: u32 = 48;

impl Machine {
    /// Commits what the outbox has room for; whether that was anything.
    #[inline]
    pub(crate) fn transmit(&mut self, out: &mut Outbox) -> bool {
        let before = out.remaining();
        self.commit(out);
        let octets = out.remaining().saturating_sub(before);
        self.live.committed(self.now, octets);
        octets > 0
    }

    #[inline]
    fn commit(&mut self, out: &mut Outbox) {
        if self.phase == Phase::Ready {
            if self.has_control() {
                self.commit_control(out);
            }
            self.commit_staged(out);
            return self.commit_data(out);
        }
        self.commit_phase(out);
    }

    /// Moves what was staged to the outbox.
    #[inline]
    fn commit_staged(&mut self, out: &mut Outbox) {
        if !self.staging.is_empty() && out.has_room() {
            // A millisecond is what deadlines are exact to.
            if self.now.saturating_sub(self.staging.oldest) >= MILLISECOND {
                self.restate();
            }
            self.stats.frames_out += u64::from(self.staging.flush(out));
            self.transmitted = self.highest_out;
        }
    }

    /// What goes out before check-in and at the end.
    #[cold]
    fn commit_phase(&mut self, out: &mut Outbox) {
        match self.phase {
            Phase::Greeting => self.commit_check_in(out),
            Phase::Acking => {
                if !self.inbox.is_empty() {
                    return self.spoke_too_soon();
                }
                self.commit_ack(out);
                self.become_ready();
                self.ready_untold = true;
                self.commit_control(out);
                self.commit_data(out);
            }
            Phase::Refusing => {
                self.commit_refusal(out);
                self.linger();
            }
            Phase::Flushing => {
                self.commit_abandons(out);
                self.commit_staged(out);
                self.commit_data(out);
                let clear = self.staging.is_empty() && self.control.abandons.is_empty();
                if clear && !self.lanes.any(Window::SHUT) {
                    self.end_calls(Status::CONNECTION_LOST, "the connection is over");
                    self.commit_close(out);
                }
            }
            Phase::Closing => self.commit_close(out),
            Phase::AwaitAck
            | Phase::AwaitCheckIn
            | Phase::Verifying
            | Phase::Ready
            | Phase::Lingering
            | Phase::Ended => {}
        }
    }

    pub(super) fn put(
        &mut self,
        out: &mut Outbox,
        frame_type: FrameType,
        status: Status,
        id: u64,
        envelope: Envelope<'_>,
    ) {
        let before = out.small().len();
        let header = Header { frame_type, flags: Flags::NONE, status, id, len: 0 };
        // What is built here obeys the rules that `emit` checks; `wire` proves it for each type.
        let emitted = Frame { header, envelope, payload: &[] }.emit(out.small());
        debug_assert!(emitted.is_ok(), "{emitted:?}");
        out.wrote(before);
        self.stats.frames_out += 1;
    }

    fn commit_check_in(&mut self, out: &mut Outbox) {
        // A number that nobody knows, so that servers keep ignoring those (protocol §4, `features`).
        let unknown = 1001 + u32::try_from(self.random() % 60_000).unwrap_or(0);
        let features = [SNAPPY, unknown];
        let offered = if HAS_SNAPPY { &features[..] } else { &features[1..] };
        let config = alloc::sync::Arc::clone(&self.config);
        let labels: alloc::vec::Vec<Label<'_>> =
            config.labels.iter().map(|(key, value)| Label { key, value }).collect();
        let limits = &config.limits;
        let said = CheckIn {
            identifier: &config.identifier,
            heartbeat_interval_ms: millis(nanos(config.heartbeat_interval)),
            instance: config.instance,
            features: Repeated::from(offered),
            max_frame: limits.max_frame,
            max_message: limits.max_message,
            max_item: limits.max_item,
            max_concurrent: config.announced_concurrency(),
            max_streams: config.announced_streams(),
            stream_window: limits.stream_window,
            credential: &config.credential,
            labels: Repeated::from(&labels[..]),
            ..CheckIn::default()
        };
        self.put(out, FrameType::CHECK_IN, Status::OK, 0, Envelope::CheckIn(said));
        self.phase = Phase::AwaitAck;
    }

    fn commit_ack(&mut self, out: &mut Outbox) {
        let config = alloc::sync::Arc::clone(&self.config);
        let labels: alloc::vec::Vec<Label<'_>> =
            config.labels.iter().map(|(key, value)| Label { key, value }).collect();
        let interval = self.peer.as_ref().map_or(0, |peer| nanos(peer.heartbeat_interval));
        let limits = &config.limits;
        let granted = if self.snappy { &[SNAPPY][..] } else { &[] };
        let said = CheckInAck {
            identifier: &config.identifier,
            heartbeat_interval_ms: millis(interval),
            instance: config.instance,
            features: Repeated::from(granted),
            max_frame: limits.max_frame,
            max_message: limits.max_message,
            max_item: limits.max_item,
            max_concurrent: config.announced_concurrency(),
            max_streams: config.announced_streams(),
            stream_window: limits.stream_window,
            labels: Repeated::from(&labels[..]),
            ..CheckInAck::default()
        };
        self.put(out, FrameType::CHECK_IN_ACK, Status::OK, 0, Envelope::CheckInAck(said));
    }

    fn commit_refusal(&mut self, out: &mut Outbox) {
        let Some(refusal) = self.refusal.take() else { return };
        let (status, message, retry_after_ms) = *refusal;
        let said = CheckInAck { message: short(&message), retry_after_ms, ..CheckInAck::default() };
        self.put(out, FrameType::CHECK_IN_ACK, status, 0, Envelope::CheckInAck(said));
    }

    fn commit_close(&mut self, out: &mut Outbox) {
        let (status, message) = match self.closed.as_deref() {
            Some(closed) => (closed.status.as_close(), closed.message.clone()),
            None => (Status::NORMAL, alloc::string::String::new()),
        };
        // A server that has not heard a client who speaks Tieline need not explain what it heard instead.
        let said = Close { message: if self.peer.is_some() { short(&message) } else { "" } };
        self.put(out, FrameType::CLOSE, status, 0, Envelope::Close(said));
        self.linger();
    }

    /// Control frames: each of them is one, however often it was asked for.
    #[cold]
    fn commit_control(&mut self, out: &mut Outbox) {
        if let Some(token) = self.control.ack.take_if(|_| out.has_room()) {
            self.put(out, FrameType::HEARTBEAT_ACK, Status::OK, token, Envelope::None);
        }
        if self.control.beat && out.has_room() {
            self.control.beat = false;
            let token = self.random();
            self.put(out, FrameType::HEARTBEAT, Status::OK, token, Envelope::None);
            self.stats.heartbeats_out += 1;
        }
        while out.has_room()
            && let Some(first) = self.control.table
        {
            self.commit_table(out, first);
        }
        if self.control.drain && out.has_room() {
            self.control.drain = false;
            let grace_ms = self.grace_left();
            if let Some(drain) = self.our_drain.take() {
                let said = Drain { grace_ms, message: short(&drain.message) };
                self.put(out, FrameType::DRAIN, drain.status, drain.id, Envelope::Drain(said));
                self.our_drain = Some(drain);
            }
        }
        while out.has_room()
            && let Some((id, status)) = self.control.cancels.pop_front()
        {
            // If the RESPONSE has come meanwhile there is nothing to cancel.
            if self.calls.by_wire_id(id).is_some() {
                self.put(out, FrameType::CANCEL, status, id, Envelope::None);
            }
        }
        // Behind the CANCELs: whose call was cancelled is not asked again what became of its message.
        self.commit_abandons(out);
        while out.has_room()
            && let Some(stream) = self.control.credits.pop_front()
        {
            if let Some((id, octets)) = self.credit_to_commit(stream) {
                self.put(out, FrameType::CREDIT, Status::OK, id, Envelope::Credit(Credit { octets }));
            }
        }
    }

    /// Ends messages that will not be finished.
    fn commit_abandons(&mut self, out: &mut Outbox) {
        while out.has_room()
            && let Some(id) = self.control.abandons.pop_front()
        {
            commit_abandon(out, id);
            self.stats.frames_out += 1;
        }
    }

    fn commit_table(&mut self, out: &mut Outbox, first: u32) {
        let config = alloc::sync::Arc::clone(&self.config);
        let mut octets = 0;
        let piece = self.peer_frame.saturating_sub(64);
        let methods: alloc::vec::Vec<Method<'_>> = (first..)
            .zip(config.methods.get(first as usize..).unwrap_or_default())
            .map(|(index, method)| Method {
                id: index + 1,
                name: &method.name,
                fingerprint: method.fingerprint,
            })
            .take_while(|method| {
                octets += method.name.len() + 24;
                octets <= piece
            })
            .collect();
        let next = first.saturating_add(u32::try_from(methods.len()).unwrap_or(u32::MAX));
        self.control.tables += 1;
        let more =
            (next as usize) < config.methods.len() && next > first && self.control.tables < TABLE_PIECES;
        self.control.table = more.then_some(next);
        let table = Table { methods: Repeated::from(&methods[..]) };
        self.put(out, FrameType::TABLE, Status::OK, 0, Envelope::Table(table));
    }

    /// Answers, one-ways and items take turns with REQUESTs, priority by priority.
    #[inline]
    fn commit_data(&mut self, out: &mut Outbox) {
        let requests = self.phase == Phase::Ready;
        let mut lane = 0;
        // What is staged came first.
        while self.staging.is_empty() && out.has_room() {
            let window = if requests { self.window() } else { Window::SHUT };
            if !self.lanes.any(window) {
                break;
            }
            let other = self.commit_next(Sort::Other, lane, out);
            let stream = requests
                && self.lanes.any(self.window())
                && self.window() == Window { requests: true, streams: true }
                && self.commit_next(Sort::Stream, lane, out);
            let request = requests && self.window_open() && self.commit_next(Sort::Request, lane, out);
            if !other && !stream && !request {
                lane = (lane + 1) % 3;
            }
        }
    }

    /// Commits the next of a queue; whether there was one.
    #[inline]
    fn commit_next(&mut self, sort: Sort, lane: u8, out: &mut Outbox) -> bool {
        let Some(waiting) = self.lanes.pop(sort, lane) else { return false };
        if !self.commit_one(waiting, out) {
            self.lanes.found_withdrawn(sort, lane);
        }
        true
    }

    /// Commits a frame of whoever waits; `false` if it was withdrawn.
    #[inline]
    fn commit_one(&mut self, waiting: Waiting, out: &mut Outbox) -> bool {
        match waiting {
            Waiting::Answer(call) => self.commit_answer(call, out),
            Waiting::Call { slot, generation } => self.commit_call(slot, generation, out),
            Waiting::Rest { slot, generation } => self.commit_call_rest(slot, generation, out),
            Waiting::Items(stream) => self.commit_items(stream, out),
        }
    }

    fn commit_answer(&mut self, to: Served, out: &mut Outbox) -> bool {
        let (room, most) = (self.room(), self.peer_frame);
        let Some(serving) = self.served.standing(to).filter(|serving| serving.unwritten) else {
            return false;
        };
        let (id, lane) = (serving.id, serving.lane);
        let (sent, compressed) =
            serving.cold.as_ref().map_or((None, false), |cold| (cold.sent, cold.compressed));
        let payload = serving.buf.len() - serving.envelope as usize + serving.body.len();
        let sent = match sent {
            Some(sent) => commit_rest(out, id, &serving.body, sent, room),
            None => {
                let (envelope, copied) =
                    serving.buf.split_at_checked(serving.envelope as usize).unwrap_or_default();
                let whole = Whole {
                    frame_type: FrameType::RESPONSE,
                    status: serving.status,
                    id,
                    compressed,
                    envelope: [envelope, &[], &[]],
                    copied,
                    shared: &serving.body,
                };
                // `queue_answer` compared the envelope with the peer's limit.
                whole.commit(out, room, most).unwrap_or(payload)
            }
        };
        self.stats.frames_out += 1;
        if sent < payload {
            serving.cold().sent = Some(sent);
            self.lanes.push(Sort::Other, lane, Waiting::Answer(to));
            return true;
        }
        serving.unwritten = false;
        serving.body = bytes::Bytes::new();
        self.served.release(to.slot);
        true
    }

    fn commit_call(&mut self, slot: u32, generation: u32, out: &mut Outbox) -> bool {
        let (now, side, room, most) = (self.now, self.side_bit(), self.room(), self.peer_frame);
        let (max_message, max_item, max_window) = (self.peer_message, self.peer_item, self.peer_window);
        let Some(call) = self.calls.get(slot) else { return false };
        if call.generation != generation || call.wire != Wire::Queued {
            return false;
        }
        let left = if call.deadline == NEVER {
            None
        } else {
            Some(call.deadline.saturating_sub(now).div_ceil(1000))
        };
        let (before, after) = (usize::from(call.before), usize::from(call.after));
        let payload = call.buf.len() - before - after + call.body.len();
        let mut timeout = alloc::vec::Vec::new();
        if let Some(us) = left {
            timeout.push(TIMEOUT_TAG);
            varint::put(us, &mut timeout);
        }
        let (head, rest) = call.buf.split_at_checked(before).unwrap_or_default();
        let (tail, copied) = rest.split_at_checked(after).unwrap_or_default();
        let id = ((self.counter + 1) << 17) | (u64::from(slot) << 1) | side;
        let whole = Whole {
            frame_type: if call.one_way { FrameType::ONE_WAY } else { FrameType::REQUEST },
            status: Status::OK,
            id,
            compressed: call.cold.as_ref().is_some_and(|cold| cold.compressed),
            envelope: [head, &timeout, tail],
            copied,
            shared: &call.body,
        };
        // What was handed over before check-in did not know what the peer reads, nor its window.
        let cold = call.cold.as_ref();
        let sends = cold.and_then(|cold| cold.stream.as_ref()).and_then(|stream| stream.sends.as_ref());
        let items = sends.map_or(0, super::streaming::Sends::largest);
        let fits = left != Some(0) && payload <= max_message && items <= max_item;
        let Some(sent) = (if fits { whole.commit(out, room, most) } else { None }) else {
            self.commit_nothing(slot, left == Some(0));
            return true;
        };
        self.counter += 1;
        call.id = id;
        let (one_way, lane, all) = (call.one_way, call.lane, sent >= payload);
        call.wire = if one_way { Wire::Sending } else { Wire::Sent };
        let mut streams = false;
        if let Some(cold) = &mut call.cold {
            if let Some(sends) = cold.stream.as_mut().and_then(|stream| stream.sends.as_mut()) {
                sends.purse = super::credit::Purse::new(max_window);
            }
            streams = cold.stream.is_some();
        }
        if !all {
            call.cold.get_or_insert_default().sent = Some(sent);
            self.lanes.push(Sort::Other, lane, Waiting::Rest { slot, generation });
        }
        self.highest_out = id;
        self.transmitted = id;
        self.idle_since = now;
        self.stats.frames_out += 1;
        self.stats.calls_out += 1;
        if !one_way {
            self.calls.unanswered += 1;
            self.calls.streams += u32::from(streams);
        }
        if all {
            self.call_is_out(slot);
        }
        true
    }

    /// Commits the next frame of a call; `false` if it was given up.
    fn commit_call_rest(&mut self, slot: u32, generation: u32, out: &mut Outbox) -> bool {
        let room = self.room();
        let stands = |call: &&mut super::calls::Call| call.generation == generation && call.wire != Wire::Off;
        let Some(call) = self.calls.get(slot).filter(stands) else { return false };
        let Some(sent) = call.cold.as_ref().and_then(|cold| cold.sent) else { return false };
        let (id, lane, all) = (call.id, call.lane, call.body.len());
        let sent = commit_rest(out, id, &call.body, sent, room);
        self.stats.frames_out += 1;
        self.idle_since = self.now;
        if let Some(cold) = &mut call.cold {
            cold.sent = (sent < all).then_some(sent);
        }
        if sent < all {
            self.lanes.push(Sort::Other, lane, Waiting::Rest { slot, generation });
        } else {
            self.call_is_out(slot);
        }
        true
    }

    /// The last frame of a call is committed.
    fn call_is_out(&mut self, slot: u32) {
        self.calls.unqueue(slot);
        let Some(call) = self.calls.get(slot) else { return };
        if call.one_way {
            call.wire = Wire::Off;
            self.call_timers.remove(slot);
            self.tell(slot, None);
        } else if call.cold.is_some() {
            let id = CallId { slot, generation: call.generation };
            self.request_is_out(Stream::Ours(id));
        }
    }

    /// A call whose time is over, or that turned out too large for the peer, ends here instead of going out.
    #[cold]
    fn commit_nothing(&mut self, slot: u32, expired: bool) {
        self.calls.unqueue(slot);
        if let Some(call) = self.calls.get(slot) {
            call.wire = Wire::Off;
            debug_assert_ne!(call.owner, Owner::Gone, "who gives a queued call up takes it out of the queue");
        }
        self.call_timers.remove(slot);
        let (status, message) = if expired {
            (Status::TIMEOUT, "the deadline passed before the call could be sent")
        } else {
            (Status::LOCAL_LIMIT, "the call, or an item of it, is larger than the peer reads")
        };
        self.tell(slot, Some(super::event::Failure::local(status, Ran::No, message)));
    }

    /// The transport took octets.
    #[inline]
    pub(crate) fn handle_sent(&mut self, octets: usize) {
        let octets = self.live.sent(self.now, octets);
        self.stats.octets_out = self.stats.octets_out.saturating_add(octets as u64);
        if self.phase == Phase::Lingering && octets > 0 {
            self.linger_on();
        }
    }

    pub(crate) const fn is_client(&self) -> bool {
        matches!(self.side, Side::Client)
    }
}

fn millis(nanos: u64) -> u32 {
    u32::try_from(nanos / MILLISECOND).unwrap_or(u32::MAX)
}

/// As much of a message as a peer may be expected to want.
fn short(message: &str) -> &str {
    let mut end = message.len().min(512);
    while !message.is_char_boundary(end) {
        end -= 1;
    }
    message.get(..end).unwrap_or_default()
}
