//! From what waits to committed octets: control frames first, then data. What goes out in which phase, and the frames
//! of check-in, table, drain and close.

use bytes::Buf;

use super::{
    fragments::commit_abandon,
    lanes::Window,
    machine::{Machine, Phase},
    outbox::Outbox,
};
use crate::{
    time::{MILLISECOND, nanos},
    wire::{
        CheckIn, CheckInAck, Close, Credit, Drain, Envelope, Flags, Frame, FrameType, Header, Label, Method,
        Repeated, Status, Table,
    },
};

/// The number of the feature Snappy (protocol §4, `features`), and whether this build has it.
pub(super) const SNAPPY: u32 = 1;
pub(super) const HAS_SNAPPY: bool = cfg!(feature = "snappy");
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
            self.commit_data(out);
            // What that has brought about: a CREDIT, or the CANCEL of a call whose item turned out too large.
            if self.has_control() {
                self.commit_control(out);
            }
            return;
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
            self.small_at = self.now;
            self.transmitted = self.highest_out;
        }
    }

    /// What goes out before check-in and at the end.
    #[cold]
    fn commit_phase(&mut self, out: &mut Outbox) {
        match self.phase {
            Phase::Greeting => self.commit_check_in(out),
            Phase::Acking => {
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
        let offered = if self.config.snappy { &features[..] } else { &features[1..] };
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

    /// The transport took octets.
    #[inline]
    pub(crate) fn handle_sent(&mut self, octets: usize) {
        let octets = self.live.sent(self.now, octets);
        self.stats.octets_out = self.stats.octets_out.wrapping_add(octets as u64);
        if self.phase == Phase::Lingering && octets > 0 {
            self.linger_on();
        }
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
