//! Items, their end, and credit, as they come in (protocol §5, "Streams").

use super::{
    assembly::{Arriving, Message, lost_reply},
    budget::cost,
    credit::ITEM_COST,
    event::{CallId, Failure, Served, Stream},
    gain::{Declared, declared},
    input::Flow,
    machine::Machine,
    streaming::{Ending, Held, Sends},
};
use crate::{
    time::SECOND,
    wire::{Credit, Flags, HEADER_LEN, Header, Item, Parts, Ran, Status},
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
    /// The call that a frame names, whether it streams or not, if it is open for it. One of the peer's is that
    /// until it has an answer: when that is written is chance, and must not decide what a frame is (L7).
    pub(super) fn open_call(&mut self, id: u64) -> Option<Stream> {
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
        if self.arriving.contains_key(&header.id) {
            return self.violation("an item begins before the message before it is whole");
        }
        let Some(stream) = self.open_call(header.id) else { return self.late_item(header) };
        let opened = match self.open_item(header, stream) {
            Ok(opened) => opened,
            Err(what) => return self.violation(what),
        };
        self.idle_since = self.now;
        let more = header.flags.contains(Flags::MORE);
        let wanted = self.of_application(stream).is_some();
        // Of a call that was given up they are free (R-STR-15): their sender cannot know yet.
        if wanted && (opened.total == 0 || more && header.len < 256) {
            self.pay(cost::SMALL);
        }
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
            self.keep_item(stream, Held { octets: payload, plain: opened.plain });
        }
        Flow::Again
    }

    /// Judges the first frame of an item, and charges its credit.
    fn open_item(&mut self, header: Header, stream: Stream) -> Result<Opened, &'static str> {
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
        let cost = total.saturating_add(ITEM_COST.into());
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
            let item = self.held(arriving);
            self.keep_item(stream, item);
        }
        Flow::Again
    }

    #[inline]
    fn keep_item(&mut self, stream: Stream, item: Held) {
        self.stats.items_in += 1;
        if let Some(takes) = self.takes(stream)
            && takes.push(item)
        {
            self.tell_readable(stream);
        }
    }

    /// An item that cannot be used ends its call: at the callee the handler is cancelled, at the caller it is told.
    pub(super) fn broken_item(&mut self, stream: Stream, too_large: bool, why: &'static str) {
        match stream {
            Stream::Theirs(call) => self.interrupt_for_item(call, why),
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
            Stream::Theirs(call) => self.interrupt_for_item(call, why),
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
        if self.arriving.contains_key(&header.id) {
            return self.violation("STREAM_END before the message before it is whole");
        }
        let Some(stream) = self.open_call(header.id) else { return self.not_open(header) };
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
        if self.has_sent_all(stream) {
            // It crossed the end.
            self.skip_frame(header);
            return Flow::Again;
        }
        let body = self.inbox.octets().get(HEADER_LEN..HEADER_LEN + header.len as usize).unwrap_or_default();
        let credit = match Parts::split(body) {
            Ok(parts) if !parts.payload.is_empty() => return self.violation("a payload on CREDIT"),
            Ok(parts) => Credit::parse(parts.envelope),
            Err(fault) => return self.mistake(&fault, Status::PROTOCOL_ERROR),
        };
        let Ok(credit) = credit else { return self.violation("CREDIT does not decode") };
        self.skip_frame(header);
        let Some(sends) = self.sends(stream) else {
            return self.violation("CREDIT for a direction that the kind has not");
        };
        // It crossed the end.
        if sends.ending == Ending::Over {
            return Flow::Again;
        }
        if !sends.purse.granted(credit.octets) {
            return self.violation("CREDIT of 0, or above the most that there may be");
        }
        if credit.octets < ITEM_COST {
            self.pay(cost::SMALL);
        }
        self.kick(stream);
        Flow::Again
    }

    /// Whether a call of the peer has its answer, and no items wait before that.
    fn has_sent_all(&mut self, stream: Stream) -> bool {
        let Stream::Theirs(call) = stream else { return false };
        let Some(serving) = self.served.standing(call).filter(|serving| serving.answered) else {
            return false;
        };
        let stream = serving.cold.as_ref().and_then(|cold| cold.stream.as_ref());
        stream.and_then(|stream| stream.sends.as_ref()).is_some_and(Sends::is_empty)
    }

    /// The call that CREDIT names: one that sends items is open until its answer is out, since items may wait before that.
    fn open_for_credit(&mut self, id: u64) -> Option<Stream> {
        if !self.is_theirs(id) {
            return self.open_call(id);
        }
        let slot = self.served.by_wire_id(id)?;
        let serving = self.served.get(slot).filter(|serving| serving.admitted)?;
        let stream = serving.cold.as_ref().and_then(|cold| cold.stream.as_ref());
        let sends = stream.is_some_and(|stream| stream.sends.is_some());
        let open = !serving.answered || (serving.unwritten && sends);
        open.then_some(Stream::Theirs(Served { slot, generation: serving.generation }))
    }
}
