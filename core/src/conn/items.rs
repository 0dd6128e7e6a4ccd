//! Items of streams: the verbs, and what goes out (protocol §5, "Streams").
//!
//! An item that may begin and is small goes the straight way of small frames; any other waits in its stream, and the
//! stream stands in the lanes while a frame of it could be committed. A slow application is held by credit, never by
//! not reading: its items wait here, a window and one item at most.

use bytes::Bytes;

use super::{
    calls::{Owner, Wire},
    event::{Body, CallId, ItemError, Stream, Taken},
    fragments::{Whole, commit_rest},
    lanes::{NORMAL, Sort, Waiting},
    machine::{Machine, Tiding},
    outbox::{Outbox, SHARE_FROM},
    rest::Rest,
    streaming::{Ending, Outgoing, Sends, Streaming, Takes},
};
use crate::wire::{Envelope, Flags, FrameType, HEADER_LEN, Header, Status, snappy};

impl Machine {
    // ---- who streams ------------------------------------------------------------------------------------------

    /// What a stream holds, as long as its call is in the table.
    fn streaming(&mut self, stream: Stream) -> Option<&mut Streaming> {
        match stream {
            Stream::Ours(id) => self.calls.find(id)?.cold.as_mut()?.stream.as_mut(),
            Stream::Theirs(call) => self.served.standing(call)?.cold.as_mut()?.stream.as_mut(),
        }
    }

    /// The same, if the application still has to do with it.
    pub(super) fn of_application(&mut self, stream: Stream) -> Option<&mut Streaming> {
        let open = match stream {
            Stream::Ours(id) => self.calls.find(id).is_some_and(|call| call.owner == Owner::Waits),
            Stream::Theirs(call) => self.served.standing(call).is_some_and(|serving| !serving.answered),
        };
        if open { self.streaming(stream) } else { None }
    }

    pub(super) fn sends(&mut self, stream: Stream) -> Option<&mut Sends> {
        self.streaming(stream)?.sends.as_mut()
    }

    pub(super) fn takes(&mut self, stream: Stream) -> Option<&mut Takes> {
        self.streaming(stream)?.takes.as_mut()
    }

    /// The id and the lane of a stream whose REQUEST is out.
    pub(super) fn on_the_wire(&mut self, stream: Stream) -> Option<(u64, u8)> {
        match stream {
            Stream::Ours(id) => {
                let call = self.calls.find(id)?;
                let out = call.wire == Wire::Sent
                    && call.cold.as_ref().is_none_or(|cold| cold.sent.is_none())
                    && call.id <= self.transmitted;
                out.then_some((call.id, call.lane))
            }
            Stream::Theirs(call) => {
                let serving = self.served.standing(call)?;
                Some((serving.id, serving.lane))
            }
        }
    }

    // ---- verbs ------------------------------------------------------------------------------------------------

    pub(crate) fn send_item(&mut self, stream: Stream, item: Body<'_>) -> Result<(), ItemError> {
        if self.phase.is_ending() || self.eof.is_some() {
            return Err(ItemError::Over);
        }
        let (octets, most) = (item.len(), self.peer_item);
        let most_queued = self.config.limits.max_queued_items;
        let open = self.of_application(stream).and_then(|streaming| streaming.sends.as_mut());
        let sends = open.filter(|sends| sends.ending == Ending::Open).ok_or(ItemError::Over)?;
        if octets > most {
            return Err(ItemError::TooLarge);
        }
        if !sends.has_room(octets, most_queued) {
            sends.wants_room = true;
            return Err(ItemError::Full);
        }
        let straight = sends.is_empty() && sends.purse.may_begin() && octets < SHARE_FROM;
        let pack = self.may_pack(stream, octets);
        if straight && !pack && self.may_stage() && self.stage_item(stream, &item) {
            return Ok(());
        }
        let plain = match item {
            Body::Copy(octets) => Bytes::copy_from_slice(octets),
            Body::Share(octets) => octets,
        };
        let packed = if pack { self.pack(stream, &plain) } else { None };
        let item = match packed {
            Some(octets) => Outgoing { octets, compressed: true },
            None => Outgoing { octets: plain, compressed: false },
        };
        if let Some(sends) = self.sends(stream) {
            sends.push(item);
        }
        self.kick(stream);
        Ok(())
    }

    /// Lays a small item down for the next `poll_transmit`, if its REQUEST is out and it has no priority.
    fn stage_item(&mut self, stream: Stream, item: &Body<'_>) -> bool {
        let Some((id, NORMAL)) = self.on_the_wire(stream) else { return false };
        let payload: &[u8] = match item {
            Body::Copy(octets) => octets,
            Body::Share(octets) => octets,
        };
        let octets = u32::try_from(payload.len()).unwrap_or(u32::MAX);
        if let Some(sends) = self.sends(stream) {
            sends.purse.spend(octets);
        }
        // An empty envelope and an empty item are an empty body.
        let envelope = usize::from(!payload.is_empty());
        let header = Header {
            frame_type: FrameType::STREAM_ITEM,
            flags: Flags::NONE,
            status: Status::OK,
            id,
            len: octets + u32::from(!payload.is_empty()),
        };
        let mut frame = [0; HEADER_LEN + 1];
        let (start, _) = frame.split_at_mut(HEADER_LEN);
        start.copy_from_slice(&header.emit());
        self.staging.push(&frame, HEADER_LEN + envelope, payload);
        self.stats.items_out += 1;
        self.idle_since = self.now;
        true
    }

    pub(crate) fn end_items(&mut self, id: CallId) -> Result<(), ItemError> {
        if self.phase.is_ending() || self.eof.is_some() {
            return Err(ItemError::Over);
        }
        let stream = Stream::Ours(id);
        let open = self.of_application(stream).and_then(|streaming| streaming.sends.as_mut());
        let sends = open.filter(|sends| sends.ending == Ending::Open).ok_or(ItemError::Over)?;
        sends.ending = Ending::Wanted;
        self.kick(stream);
        Ok(())
    }

    #[inline]
    pub(crate) fn take_item(&mut self, stream: Stream) -> Option<Taken> {
        let takes = self.of_application(stream)?.takes.as_mut()?;
        match takes.pop() {
            Some(item) => {
                let sent = u32::try_from(item.octets.len()).unwrap_or(u32::MAX);
                if takes.till.taken(sent) && !takes.ended {
                    self.queue_credit(stream);
                }
                match item.unfold() {
                    Ok(plain) => Some(Taken::Item(plain)),
                    Err(_) => {
                        self.broken_item(stream, false, "no Snappy block");
                        None
                    }
                }
            }
            None => takes.ended.then_some(Taken::End),
        }
    }

    /// Lets more items come than were taken.
    pub(crate) fn grant(&mut self, stream: Stream, octets: u32) {
        let takes = self.of_application(stream).and_then(|streaming| streaming.takes.as_mut());
        if let Some(takes) = takes.filter(|takes| !takes.ended) {
            takes.till.grant(octets);
            self.queue_credit(stream);
        }
    }

    pub(super) fn queue_credit(&mut self, stream: Stream) {
        // No frame of a call goes before its REQUEST: `request_is_out` asks again.
        if self.on_the_wire(stream).is_none() {
            return;
        }
        if let Some(takes) = self.takes(stream)
            && !core::mem::replace(&mut takes.credit_waits, true)
        {
            self.control.credits.push_back(stream);
        }
    }

    // ---- out --------------------------------------------------------------------------------------------------

    /// The REQUEST of a call that streams is out whole: what waited for that may go.
    pub(super) fn request_is_out(&mut self, stream: Stream) {
        self.kick(stream);
        if self.takes(stream).is_some_and(|takes| takes.till.owes()) {
            self.queue_credit(stream);
        }
    }

    /// Puts a stream into the lanes if a frame of it could be committed.
    pub(super) fn kick(&mut self, stream: Stream) {
        self.line_up(stream, Sort::Other);
    }

    fn line_up(&mut self, stream: Stream, sort: Sort) {
        let Some((_, lane)) = self.on_the_wire(stream) else { return };
        if let Some(sends) = self.sends(stream).filter(|sends| sends.is_ready() && !sends.in_lane) {
            sends.in_lane = true;
            self.lanes.push(sort, lane, Waiting::Items(stream));
        }
    }

    /// Commits one frame of a stream; `false` if it has nothing any more.
    pub(super) fn commit_items(&mut self, stream: Stream, out: &mut Outbox) -> bool {
        let (room, most) = (self.room(), self.peer_frame);
        let on_the_wire = self.on_the_wire(stream);
        let most_queued = self.config.limits.max_queued_items;
        let Some(sends) = self.sends(stream) else { return false };
        sends.in_lane = false;
        let Some((id, _)) = on_the_wire.filter(|_| sends.is_ready()) else { return false };
        let mut done = false;
        match sends.first() {
            Some(item) => {
                let (octets, compressed) = (item.octets.clone(), item.compressed);
                let sent = match sends.sent {
                    Some(sent) => commit_rest(out, id, &octets, sent, room),
                    None => {
                        sends.purse.spend(u32::try_from(octets.len()).unwrap_or(u32::MAX));
                        let whole = Whole {
                            frame_type: FrameType::STREAM_ITEM,
                            status: Status::OK,
                            id,
                            compressed,
                            envelope: [&[], &[], &[]],
                            copied: &[],
                            shared: &octets,
                        };
                        // An envelope of at most eleven octets fits every frame.
                        whole.commit(out, room, most).unwrap_or(octets.len())
                    }
                };
                sends.sent = Some(sent);
                if sent >= octets.len() {
                    sends.pop();
                    done = true;
                }
                self.stats.frames_out += 1;
            }
            None => {
                sends.ending = Ending::Over;
                self.put(out, FrameType::STREAM_END, Status::OK, id, Envelope::None);
            }
        }
        self.stats.items_out += u64::from(done);
        self.idle_since = self.now;
        if let Some(sends) = self.sends(stream)
            && sends.may_tell_room(most_queued)
        {
            sends.wants_room = false;
            self.tidings.push_back(Tiding::Writable(stream));
        }
        self.line_up(stream, Sort::Rest);
        if let Stream::Theirs(call) = stream {
            self.answer_behind_items(call);
        }
        true
    }

    /// The credit that is due for a stream, if it is still open.
    pub(super) fn credit_to_commit(&mut self, stream: Stream) -> Option<(u64, u32)> {
        let (id, _) = self.on_the_wire(stream)?;
        let takes = self.of_application(stream)?.takes.as_mut()?;
        takes.credit_waits = false;
        let octets = if takes.ended { 0 } else { takes.till.pay() };
        (octets > 0).then_some((id, octets))
    }

    /// Items of a stream that wait are dropped, and one that is half sent is abandoned: the call has ended.
    pub(super) fn drop_items(&mut self, stream: Stream) {
        let id = self.on_the_wire(stream).map(|(id, _)| id);
        if let Some(sends) = self.sends(stream)
            && sends.clear()
            && let Some(id) = id
        {
            self.control.abandons.push_back(id);
        }
    }

    /// What was not taken of a call of this side, plain.
    pub(crate) fn rest(&mut self, id: CallId) -> Result<Rest, snappy::BadBlock> {
        match self.takes(Stream::Ours(id)) {
            Some(takes) => takes.drain().map(Rest::new),
            None => Ok(Rest::NONE),
        }
    }

    /// Tells the application that there is something to take. Of a call that has not started it hears later.
    pub(super) fn tell_readable(&mut self, stream: Stream) {
        let started = match stream {
            Stream::Ours(_) => true,
            Stream::Theirs(call) => self.served.find(call).is_some(),
        };
        if started {
            self.tidings.push_back(Tiding::Readable(stream));
        }
    }

    /// The next thing to tell about a stream whose call is still open.
    pub(super) fn tiding(&mut self) -> Option<Tiding> {
        while let Some(tiding) = self.tidings.pop_front() {
            let (Tiding::Readable(stream) | Tiding::Writable(stream)) = tiding;
            if self.of_application(stream).is_some() {
                return Some(tiding);
            }
        }
        None
    }

    /// Whether a stream's items of this size are to be compressed.
    pub(super) fn may_pack(&mut self, stream: Stream, octets: usize) -> bool {
        if !self.snappy || octets < self.config.compress_from {
            return false;
        }
        match stream {
            Stream::Ours(id) => {
                let cold = self.calls.find(id).and_then(|call| call.cold.as_ref());
                cold.is_some_and(|cold| cold.compress.is_some())
            }
            Stream::Theirs(call) => {
                let cold = self.served.standing(call).and_then(|serving| serving.cold.as_ref());
                cold.is_some_and(|cold| cold.compress)
            }
        }
    }

    /// An item, compressed, if that gains enough.
    fn pack(&mut self, stream: Stream, plain: &[u8]) -> Option<Bytes> {
        match stream {
            Stream::Ours(id) => {
                let name = self.calls.find(id)?.cold.as_ref()?.compress.clone()?;
                self.compress(&name, plain)
            }
            Stream::Theirs(call) => {
                let method = self.served.standing(call)?.cold.as_ref()?.method;
                self.compress_for(method, plain)
            }
        }
    }
}
