//! Items of streams, in both directions: verbs, frames, credit (protocol §5, "Streams").
//!
//! An item that may begin and is small goes the straight way of small frames; any other waits in its stream, and the
//! stream stands in the lanes while a frame of it could be committed. A slow application is held by credit, never by
//! not reading: its items wait here, a window and one item at most.

use bytes::Bytes;

use super::{
    assembly::{Arriving, Message, lost_reply},
    budget::cost,
    calls::{Owner, Wire},
    credit::ITEM,
    event::{Body, CallId, Cancel, Failure, ItemError, Served, Stream, Taken},
    fragments::{Whole, commit_rest},
    gain::{Declared, declared},
    input::Flow,
    lanes::{Sort, Waiting},
    machine::{Machine, Tiding},
    outbox::{Outbox, SHARE_FROM},
    rest::Rest,
    streaming::{Ending, Outgoing, Sends, Streaming, Takes},
};
use crate::{
    time::SECOND,
    wire::{Credit, Envelope, Flags, FrameType, HEADER_LEN, Header, Item, Parts, Ran, Status, snappy},
};

/// How long items of a call that has just ended are free.
const LATE: u64 = 30 * SECOND;

/// What the first frame of an item says.
struct Opened {
    /// Octets of the payload that are in this frame, the last ones.
    part: usize,
    total: usize,
    plain: Option<usize>,
    too_large: bool,
    bad: bool,
}

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
    fn of_application(&mut self, stream: Stream) -> Option<&mut Streaming> {
        let open = match stream {
            Stream::Ours(id) => self.calls.find(id).is_some_and(|call| call.owner == Owner::Waits),
            Stream::Theirs(call) => self.served.standing(call).is_some_and(|serving| !serving.answered),
        };
        if open { self.streaming(stream) } else { None }
    }

    fn sends(&mut self, stream: Stream) -> Option<&mut Sends> {
        self.streaming(stream)?.sends.as_mut()
    }

    fn takes(&mut self, stream: Stream) -> Option<&mut Takes> {
        self.streaming(stream)?.takes.as_mut()
    }

    /// The id and the lane of a stream whose REQUEST is out.
    fn on_the_wire(&mut self, stream: Stream) -> Option<(u64, u8)> {
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
        // Before check-in it is not known yet what the peer reads.
        let most = if self.peer.is_some() { self.peer_item } else { usize::MAX };
        let (octets, most_queued) = (item.len(), self.config.limits.max_queued_items);
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

    /// Lays a small item down for the next `poll_transmit`, if its REQUEST is out.
    fn stage_item(&mut self, stream: Stream, item: &Body<'_>) -> bool {
        let Some((id, _)) = self.on_the_wire(stream) else { return false };
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
            Some((plain, sent)) => {
                if takes.till.taken(sent) && !takes.ended {
                    self.queue_credit(stream);
                }
                Some(Taken::Item(plain))
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

    fn queue_credit(&mut self, stream: Stream) {
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
        let Some((_, lane)) = self.on_the_wire(stream) else { return };
        if let Some(sends) = self.sends(stream).filter(|sends| sends.is_ready() && !sends.in_lane) {
            sends.in_lane = true;
            self.lanes.push(Sort::Other, lane, Waiting::Items(stream));
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
        self.kick(stream);
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

    /// What was not taken of a call of this side.
    pub(crate) fn rest(&mut self, id: CallId) -> Rest {
        match self.takes(Stream::Ours(id)) {
            Some(takes) => Rest::new(takes.drain()),
            None => Rest::NONE,
        }
    }

    // ---- in ---------------------------------------------------------------------------------------------------

    /// The stream that a frame names, if its call is open for it.
    fn stream_of(&mut self, id: u64) -> Option<Stream> {
        if self.is_theirs(id) {
            let slot = self.served.by_wire_id(id)?;
            let serving = self.served.get(slot).filter(|serving| serving.admitted && !serving.answered)?;
            Some(Stream::Theirs(Served { slot, generation: serving.generation }))
        } else {
            let (slot, call) = self.calls.by_wire_id(id)?;
            Some(Stream::Ours(CallId { slot, generation: call.generation }))
        }
    }

    /// A STREAM_ITEM.
    pub(super) fn on_item(&mut self, header: Header) -> Flow {
        let Some(stream) = self.stream_of(header.id) else { return self.late_item(header) };
        let opened = match self.open_item(header, stream) {
            Ok(opened) => opened,
            Err(what) => return self.violation(what),
        };
        self.idle_since = self.now;
        if opened.total == 0 {
            self.pay(cost::SMALL);
        }
        let more = header.flags.contains(Flags::MORE);
        if more && header.len < 256 {
            self.pay(cost::SMALL);
        }
        let wanted = self.of_application(stream).is_some();
        if wanted && (opened.too_large || opened.bad) {
            let why =
                if opened.too_large { "an item is larger than this side reads" } else { "no Snappy block" };
            if more {
                self.begin_message(header, Message::Item(stream), opened.part, opened.total, opened.plain);
                self.lose_interest(header.id);
            } else {
                self.skip_frame(header);
            }
            self.broken_item(stream, opened.too_large, why);
            return Flow::Again;
        }
        if more {
            self.begin_message(header, Message::Item(stream), opened.part, opened.total, opened.plain);
            if !wanted {
                self.lose_interest(header.id);
            }
            return Flow::Again;
        }
        let frame = HEADER_LEN + header.len as usize;
        let payload = self.inbox.take(frame, frame - opened.part);
        if wanted {
            let plain = match opened.plain {
                Some(plain) => snappy::decompress(&payload, plain).map(Bytes::from),
                None => Ok(payload),
            };
            self.keep_item(stream, plain, opened.total);
        }
        Flow::Again
    }

    /// Judges the first frame of an item, and charges its credit.
    fn open_item(&mut self, header: Header, stream: Stream) -> Result<Opened, &'static str> {
        if self.arriving.contains_key(&header.id) {
            return Err("an item begins before the message before it is whole");
        }
        let more = header.flags.contains(Flags::MORE);
        let most = self.config.limits.max_item as usize;
        let body = self.inbox.octets().get(HEADER_LEN..HEADER_LEN + header.len as usize).unwrap_or_default();
        let parts = Parts::split(body).map_err(|_| "the envelope's length is wrong")?;
        let item = Item::parse(parts.envelope).map_err(|_| "the envelope of an item does not decode")?;
        let part = parts.payload.len();
        let total = if more { usize::try_from(item.total).unwrap_or(usize::MAX) } else { part };
        if more && total <= part {
            return Err("MORE, and a total that is not above the first frame's part");
        }
        let compressed = header.flags.contains(Flags::COMPRESSED);
        let said = if compressed { declared(parts.payload, total) } else { Declared::Unknown };
        let (plain, bad) = match said {
            Declared::Plain(plain) => (Some(plain), false),
            Declared::Bad => (None, true),
            Declared::Unknown => (None, false),
        };
        let too_large = total > most || plain.is_some_and(|plain| plain > most);
        let Some(takes) = self.takes(stream) else {
            return Err("an item in a direction that the kind has not");
        };
        if takes.ended {
            return Err("an item after STREAM_END");
        }
        if !takes.till.charge(u32::try_from(total).unwrap_or(u32::MAX)) {
            return Err("an item without credit");
        }
        if takes.till.is_due() {
            // Nothing more can begin: what was gathered goes back at once.
            self.queue_credit(stream);
        }
        Ok(Opened { part, total, plain, too_large, bad })
    }

    /// An item for a call that is not open: free within what the caller could not know yet, late otherwise.
    #[cold]
    fn late_item(&mut self, header: Header) -> Flow {
        let highest = if self.is_theirs(header.id) { self.highest_in } else { self.highest_out };
        if header.id > highest || !self.is_theirs(header.id) {
            return self.not_open(header);
        }
        let body = self.inbox.octets().get(HEADER_LEN..HEADER_LEN + header.len as usize).unwrap_or_default();
        let parts = Parts::split(body).unwrap_or_default();
        let total = match Item::parse(parts.envelope) {
            Ok(item) if header.flags.contains(Flags::MORE) => item.total,
            _ => parts.payload.len() as u64,
        };
        let cost = total.saturating_add(ITEM.into());
        if self.now > self.late_until || cost > self.late_credit {
            if header.flags.contains(Flags::MORE) {
                self.remember_refused(header.id);
            }
            return self.not_open(header);
        }
        self.late_credit -= cost;
        if header.flags.contains(Flags::MORE) {
            self.remember_refused(header.id);
        }
        self.skip_frame(header);
        Flow::Again
    }

    /// A call of the peer has ended, or was refused: what it may still have sent of items is free for a while.
    pub(super) fn allow_late(&mut self, octets: u64) {
        if self.now > self.late_until {
            self.late_credit = 0;
        }
        self.late_credit = self.late_credit.saturating_add(octets);
        self.late_until = self.now.saturating_add(LATE);
    }

    /// An item is whole.
    pub(super) fn item_done(&mut self, id: u64, stream: Stream, arriving: Arriving) -> Flow {
        debug_assert!(!self.arriving.contains_key(&id));
        if !arriving.unwanted && self.of_application(stream).is_some() {
            let sent = arriving.total;
            let plain = self.plain(arriving);
            self.keep_item(stream, plain, sent);
        }
        Flow::Again
    }

    #[inline]
    fn keep_item(&mut self, stream: Stream, plain: Result<Bytes, snappy::BadBlock>, sent: usize) {
        let Ok(plain) = plain else { return self.broken_item(stream, false, "no Snappy block") };
        self.stats.items_in += 1;
        let sent = u32::try_from(sent).unwrap_or(u32::MAX);
        if let Some(takes) = self.takes(stream)
            && takes.push(plain, sent)
        {
            self.tell_readable(stream);
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
    fn may_pack(&mut self, stream: Stream, octets: usize) -> bool {
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

    /// An item that cannot be used ends its call: at the callee the handler is cancelled, at the caller it is told.
    pub(super) fn broken_item(&mut self, stream: Stream, too_large: bool, why: &'static str) {
        match stream {
            Stream::Theirs(call) => {
                self.cut_short(call.slot, Cancel::BrokenItem, Status::INTERRUPTED, why);
            }
            Stream::Ours(id) => {
                let status = if too_large { Status::LOCAL_LIMIT } else { Status::BAD_REPLY };
                self.give_up(id.slot);
                self.drop_items(stream);
                self.tell(id.slot, Some(Failure::local(status, Ran::Maybe, why)));
            }
        }
    }

    /// The sender gave an item up: it costs 256 and what came of it.
    pub(super) fn item_abandoned(&mut self, stream: Stream, arriving: &Arriving) {
        let missing = u32::try_from(arriving.total.saturating_sub(arriving.came())).unwrap_or(u32::MAX);
        if let Some(takes) = self.takes(stream) {
            takes.till.take_back(missing);
        }
        if !arriving.unwanted {
            self.item_lost(stream, "an item was begun and abandoned");
        }
    }

    /// An item did not come whole in its time.
    pub(super) fn item_expired(&mut self, stream: Stream, why: &'static str) {
        self.item_lost(stream, why);
    }

    fn item_lost(&mut self, stream: Stream, why: &'static str) {
        match stream {
            Stream::Theirs(call) => {
                self.cut_short(call.slot, Cancel::BrokenItem, Status::INTERRUPTED, why);
            }
            // The RESPONSE decides; only a good one cannot be believed.
            Stream::Ours(id) => {
                self.give_up(id.slot);
                self.drop_items(stream);
                if let Some(call) = self.calls.find(id)
                    && let Some(cold) = &mut call.cold
                {
                    cold.broken.get_or_insert_with(|| lost_reply(why));
                }
            }
        }
    }

    /// A STREAM_END.
    pub(super) fn on_stream_end(&mut self, header: Header) -> Flow {
        if !self.is_theirs(header.id) {
            return self.violation("STREAM_END of a call that the peer did not begin");
        }
        let Some(stream) = self.stream_of(header.id) else { return self.not_open(header) };
        if self.arriving.contains_key(&header.id) {
            return self.violation("STREAM_END before the message before it is whole");
        }
        self.skip_frame(header);
        match self.takes(stream) {
            None => self.violation("STREAM_END on a kind whose caller sends no items"),
            Some(takes) if takes.ended => self.violation("STREAM_END twice"),
            Some(takes) => {
                if takes.end() {
                    self.tell_readable(stream);
                }
                Flow::Again
            }
        }
    }

    /// A CREDIT.
    pub(super) fn on_credit(&mut self, header: Header) -> Flow {
        let open = self.open_for_credit(header.id);
        let Some(stream) = open else { return self.not_open(header) };
        let body = self.inbox.octets().get(HEADER_LEN..HEADER_LEN + header.len as usize).unwrap_or_default();
        let credit = match Parts::split(body) {
            Ok(parts) if !parts.payload.is_empty() => return self.violation("a payload on CREDIT"),
            Ok(parts) => Credit::parse(parts.envelope),
            Err(fault) => return self.mistake(&fault, Status::PROTOCOL_ERROR),
        };
        let Ok(credit) = credit else { return self.violation("CREDIT does not decode") };
        self.skip_frame(header);
        let over = match stream {
            Stream::Ours(_) => false,
            Stream::Theirs(call) => self.served.standing(call).is_some_and(|serving| serving.answered),
        };
        let Some(sends) = self.sends(stream) else {
            return self.violation("CREDIT for a direction that the kind has not");
        };
        // It crossed the end.
        if over && sends.is_empty() || sends.ending == Ending::Over {
            return Flow::Again;
        }
        if !sends.purse.granted(credit.octets) {
            return self.violation("CREDIT of 0, or above the most that there may be");
        }
        if credit.octets < ITEM {
            self.pay(cost::SMALL);
        }
        self.kick(stream);
        Flow::Again
    }

    /// The stream that CREDIT names: open also while its answer waits.
    fn open_for_credit(&mut self, id: u64) -> Option<Stream> {
        if !self.is_theirs(id) {
            return self.stream_of(id);
        }
        let slot = self.served.by_wire_id(id)?;
        let serving = self.served.get(slot).filter(|serving| serving.admitted)?;
        let open = !serving.answered || serving.unwritten;
        open.then_some(Stream::Theirs(Served { slot, generation: serving.generation }))
    }
}
