//! Messages that arrive in pieces (protocol §5, "Fragments").
//!
//! A message is judged at its first frame, from the `total` that it announces, and then collected in a buffer of its
//! own. Where the rest of a frame is long the transport reads straight into that buffer: [`Machine::lend`] hands out
//! its free end, just long enough for the frame and the header behind it, so there is no second copy. A buffer grows
//! with what has arrived, whatever was announced, and is used again when nobody holds the payload any more.

use alloc::{boxed::Box, vec::Vec};

use bytes::{Buf, Bytes, BytesMut};

use super::{
    budget::cost,
    event::{Failure, Served, Stream},
    gain::{Declared, declared},
    input::Flow,
    machine::Machine,
    streaming::Held,
};
use crate::{
    time::{NEVER, SECOND},
    wire::{Flags, FrameType, HEADER_LEN, Header, Ran, Status, snappy},
};

/// How long a begun message may last at least, and the rate at which longer ones may.
const LEAST_TIME: u64 = 30 * SECOND;
const OCTETS_PER_SECOND: u64 = 64 * 1024;
/// What a buffer grows by at least.
const STEP: usize = 16 * 1024;
/// Buffers that are worth keeping.
const KEEP_FROM: usize = 64 * 1024;
/// The rest of a frame that is worth a read of its own: not a frame of those that senders cut while others wait, for which
/// the system call costs more than the copy.
const DIRECT_FROM: usize = 20 * 1024;
/// A frame whose body is so long is large.
const LARGE: u32 = 16 * 1024;
/// Buffers that wait to be used again.
const POOLED: usize = 16;

/// What a message is.
#[derive(Debug)]
pub(crate) enum Message {
    /// The argument of a call of the peer, or of a one-way, whose head waits in its place.
    Argument(Served),
    /// The answer to a call of this side.
    Answer { slot: u32, status: Status, envelope: Option<Box<[u8]>> },
    /// An item.
    Item(Stream),
}

/// A message of which the last frame has not come.
#[derive(Debug)]
pub(crate) struct Arriving {
    pub(crate) message: Message,
    buf: BytesMut,
    /// Octets that have come, those of the frame that is on its way among them.
    came: usize,
    pub(crate) total: usize,
    compressed: bool,
    /// The plain length, once it is known.
    plain: Option<usize>,
    /// When it is given up.
    until: u64,
    /// Nobody wants it any more; it is only followed to its end.
    pub(crate) unwanted: bool,
}

impl Arriving {
    pub(crate) const fn came(&self) -> usize {
        self.came
    }
}

/// The body of a CONTINUATION that is read straight into its message.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Direct {
    id: u64,
    len: usize,
    left: usize,
    more: bool,
}

/// Buffers whose payload somebody may still hold.
#[derive(Debug, Default)]
pub(crate) struct Pool {
    buffers: Vec<(BytesMut, usize)>,
    octets: usize,
}

impl Pool {
    /// A buffer that holds `octets`, if one is free that is not much too large.
    fn reuse(&mut self, octets: usize) -> Option<BytesMut> {
        let fits = |(buffer, size): &mut (BytesMut, usize)| {
            (octets..=octets.saturating_mul(4)).contains(size) && buffer.try_reclaim(octets)
        };
        let found = self.buffers.iter_mut().rposition(fits)?;
        let (buffer, size) = self.buffers.remove(found);
        self.octets -= size;
        Some(buffer)
    }

    /// Keeps what is left of a buffer whose payload was taken out.
    fn keep(&mut self, rest: BytesMut, size: usize, most: usize) {
        if size >= KEEP_FROM && self.buffers.len() < POOLED && self.octets.saturating_add(size) <= most {
            self.octets += size;
            self.buffers.push((rest, size));
        }
    }

    pub(crate) fn clear(&mut self) {
        *self = Self::default();
    }
}

/// Whether a frame has a part of a message.
const fn is_fragment(header: Header) -> bool {
    matches!(header.frame_type, FrameType::CONTINUATION) || header.flags.contains(Flags::MORE)
}

impl Machine {
    /// A buffer to read into: the free end of a message if the rest of a frame of it is to come, else the inbox's.
    pub(crate) fn lend(&mut self) -> BytesMut {
        if let Some(direct) = self.direct.filter(|direct| direct.left >= DIRECT_FROM)
            && let Some(arriving) = self.arriving.get_mut(&direct.id).filter(|arriving| !arriving.unwanted)
        {
            let want = direct.left + HEADER_LEN;
            let buf = &mut arriving.buf;
            let len = buf.len();
            if buf.capacity() - len < direct.left {
                buf.reserve(want.min(len.max(STEP)));
            }
            let mut free = buf.split_off(len);
            if free.capacity() > want {
                drop(free.split_off(want));
            }
            return free;
        }
        let begun = self.begun();
        let alone = self.nothing_is_small();
        match begun {
            // What a first frame or a CONTINUATION brings is copied from the inbox to its message: the less of it the
            // better.
            Some(header) => self.inbox.set_bulk(alone && header.len >= LARGE && !is_fragment(header)),
            None if !alone => self.inbox.set_bulk(false),
            None => {}
        }
        self.inbox.lend(self.missing(begun))
    }

    /// Takes a buffer back, filled. How many octets came.
    #[inline(always)]
    pub(crate) fn take_in(&mut self, filled: BytesMut) -> usize {
        if self.direct.is_some_and(|direct| direct.left > 0) {
            self.take_in_direct(filled)
        } else {
            self.inbox.fill(filled)
        }
    }

    fn take_in_direct(&mut self, mut filled: BytesMut) -> usize {
        let octets = filled.len();
        let Some(direct) = &mut self.direct else { return octets };
        let straight = direct.left >= DIRECT_FROM;
        let here = direct.left.min(octets);
        direct.left -= here;
        match self.arriving.get_mut(&direct.id).filter(|arriving| !arriving.unwanted) {
            // The free end of the message's own buffer. It is joined again however little came, or nothing at all:
            // otherwise all that has come would have to be copied to another one.
            Some(arriving) if straight => {
                let behind = (here < octets).then(|| filled.split_off(here));
                arriving.buf.unsplit(filled);
                if let Some(behind) = behind {
                    self.inbox.push(&behind);
                }
            }
            // The inbox's own buffer: the end of the frame is copied, and what came behind it stays where it is.
            arriving => {
                if let (Some(arriving), Some(end)) = (arriving, filled.get(..here)) {
                    arriving.buf.extend_from_slice(end);
                }
                filled.advance(here);
                self.inbox.fill(filled);
            }
        }
        octets
    }

    /// The first frame of a message has come, and what it is was accepted. Takes the frame; `part` octets of the
    /// payload are its last ones.
    pub(super) fn begin_message(
        &mut self,
        header: Header,
        message: Message,
        part: usize,
        total: usize,
        plain: Option<usize>,
    ) {
        let frame = HEADER_LEN + header.len as usize;
        let octets = self.inbox.octets().get(frame - part..frame).unwrap_or_default();
        // What is set aside is never more than twice what has come, whatever was announced.
        let new = || BytesMut::with_capacity(total.min(part.saturating_mul(2)));
        let mut buf = self.pool.reuse(total).unwrap_or_else(new);
        buf.extend_from_slice(octets);
        self.inbox.skip(frame);
        let lasts = LEAST_TIME.max((total as u64).saturating_mul(SECOND) / OCTETS_PER_SECOND);
        let until = self.header_at.unwrap_or(self.now).saturating_add(lasts);
        let compressed = header.flags.contains(Flags::COMPRESSED);
        let arriving =
            Arriving { message, buf, came: part, total, compressed, plain, until, unwanted: false };
        self.arriving.insert(header.id, arriving);
        self.arriving_due = self.arriving_due.min(until);
    }

    /// A CONTINUATION, whole or not.
    pub(super) fn on_continuation(&mut self, header: Header, whole: bool) -> Flow {
        let Some(arriving) = self.arriving.get_mut(&header.id) else {
            let highest = if self.is_theirs(header.id) { self.highest_in } else { self.highest_out };
            if !whole && header.id <= highest {
                return Flow::Dry;
            }
            self.frame_done();
            return self.stray_continuation(header);
        };
        let (len, more) = (header.len as usize, header.flags.contains(Flags::MORE));
        let came = arriving.came.saturating_add(len);
        if len == 0 && !more {
            self.frame_done();
            self.skip_frame(header);
            return self.abandoned(header.id);
        }
        if len == 0 || came > arriving.total || (!more && came < arriving.total) {
            return self.violation("the fragments of a message are empty, or not what its total says");
        }
        arriving.came = came;
        let here = self.inbox.len().saturating_sub(HEADER_LEN).min(len);
        let body = self.inbox.octets().get(HEADER_LEN..HEADER_LEN + here).unwrap_or_default();
        if !arriving.unwanted {
            arriving.buf.extend_from_slice(body);
        }
        self.inbox.skip(HEADER_LEN + here);
        if whole {
            self.frame_done();
            return self.fragment_done(header.id, len, more);
        }
        self.live.waits_for_body(self.now, here);
        self.direct = Some(Direct { id: header.id, len, left: len - here, more });
        Flow::Dry
    }

    /// Goes on with the body that is read straight into its message.
    pub(super) fn on_direct(&mut self, direct: Direct) -> Flow {
        if direct.left > 0 {
            return Flow::Dry;
        }
        self.direct = None;
        self.frame_done();
        self.fragment_done(direct.id, direct.len, direct.more)
    }

    /// A CONTINUATION has come whole and belongs to a message that was open when it began.
    fn fragment_done(&mut self, id: u64, len: usize, more: bool) -> Flow {
        if more && len < 256 {
            self.pay(cost::SMALL);
        }
        let Some(arriving) = self.arriving.get(&id) else {
            // It was ended while this frame came.
            if !more {
                self.refused.remove(&id);
            }
            return Flow::Again;
        };
        if !arriving.unwanted {
            if let Message::Argument(call) = arriving.message {
                self.argument_came(call, len);
            }
            if let Err((status, why)) = self.judge_fragment(id) {
                return self.refuse_message(id, status, why, more);
            }
        }
        if more {
            return Flow::Again;
        }
        match self.arriving.remove(&id) {
            Some(arriving) => self.message_done(id, arriving),
            None => Flow::Again,
        }
    }

    /// What more of a message can show: that the server's memory is used up, or its plain length.
    fn judge_fragment(&mut self, id: u64) -> Result<(), (Status, &'static str)> {
        let Some(arriving) = self.arriving.get_mut(&id) else { return Ok(()) };
        let (is_argument, is_item) = match arriving.message {
            Message::Argument(_) => (true, false),
            Message::Answer { .. } => (false, false),
            Message::Item(_) => (false, true),
        };
        if arriving.compressed && arriving.plain.is_none() {
            match declared(&arriving.buf, arriving.total) {
                Declared::Unknown => {}
                Declared::Bad => return Err((Status::BAD_COMPRESSION, "no Snappy block")),
                Declared::Plain(plain) => {
                    arriving.plain = Some(plain);
                    let limits = &self.config.limits;
                    let most = if is_item { limits.max_item } else { limits.max_message };
                    let more = plain.saturating_sub(arriving.total);
                    if plain > most as usize {
                        return Err((Status::TOO_LARGE, "the plain payload is larger than this side reads"));
                    }
                    if let Message::Argument(call) = arriving.message {
                        self.hold_more(call, more)?;
                    }
                }
            }
        }
        if is_argument && !self.cover_arrived() {
            return Err((Status::OVERLOADED, "the arguments of calls take all of the server's memory"));
        }
        Ok(())
    }

    /// Whether the server's memory covers what has arrived here.
    pub(super) fn cover_arrived(&mut self) -> bool {
        let arrived = self.arrived();
        let config = &self.config;
        self.lease.cover(arrived, &config.shared, config.limits.server_memory)
    }

    /// The payload of a message that is whole, as it came.
    pub(super) fn held(&mut self, arriving: Arriving) -> Held {
        let Arriving { mut buf, total, compressed, plain, .. } = arriving;
        let octets = buf.split_to(total.min(buf.len())).freeze();
        self.pool.keep(buf, total, self.config.limits.memory);
        // What is compressed and has not said its plain length by now was refused before.
        let plain = if compressed { plain.or(Some(0)) } else { None };
        Held { octets, plain }
    }

    /// The same, plain.
    pub(super) fn plain(&mut self, arriving: Arriving) -> Result<Bytes, snappy::BadBlock> {
        self.held(arriving).unfold()
    }

    fn message_done(&mut self, id: u64, arriving: Arriving) -> Flow {
        match arriving.message {
            Message::Argument(call) => match self.plain(arriving) {
                Ok(payload) => self.argument_done(call, payload),
                Err(_) => {
                    self.end_pending(call, Status::BAD_COMPRESSION, "no Snappy block");
                    Flow::Again
                }
            },
            Message::Answer { .. } => self.answer_done(arriving),
            Message::Item(stream) => self.item_done(id, stream, arriving),
        }
    }

    /// A message is of no use: what it is ends, and the rest of it is free.
    fn refuse_message(&mut self, id: u64, status: Status, why: &'static str, more: bool) -> Flow {
        let Some(arriving) = self.arriving.get_mut(&id) else { return Flow::Again };
        arriving.buf = BytesMut::new();
        match arriving.message {
            Message::Argument(call) => {
                self.end_pending(call, status, why);
                if !more {
                    self.refused.remove(&id);
                }
                Flow::Again
            }
            Message::Answer { slot, .. } => {
                arriving.unwanted = true;
                let failure = match status {
                    Status::TOO_LARGE => Failure::local(Status::LOCAL_LIMIT, Ran::Maybe, why),
                    _ => Failure::local(Status::BAD_REPLY, Ran::Maybe, why),
                };
                self.tell(slot, Some(failure));
                if more {
                    self.give_up(slot);
                } else if let Some(arriving) = self.arriving.remove(&id) {
                    return self.answer_done(arriving);
                }
                Flow::Again
            }
            Message::Item(stream) => {
                if more {
                    arriving.unwanted = true;
                } else {
                    self.arriving.remove(&id);
                }
                self.broken_item(stream, status == Status::TOO_LARGE, why);
                Flow::Again
            }
        }
    }

    /// The sender gave a message up.
    fn abandoned(&mut self, id: u64) -> Flow {
        let Some(arriving) = self.arriving.remove(&id) else { return Flow::Again };
        match arriving.message {
            Message::Argument(call) => {
                self.end_pending(call, Status::CANCELLED_IN_QUEUE, "the message was abandoned");
                self.refused.remove(&id);
                Flow::Again
            }
            Message::Answer { slot, .. } => {
                self.tell(slot, Some(lost_reply("the answer was begun and abandoned")));
                self.answer_over(slot);
                Flow::Again
            }
            Message::Item(stream) => {
                self.item_abandoned(stream, &arriving);
                Flow::Again
            }
        }
    }

    /// The time of messages has come. When to look again.
    pub(super) fn expire_messages(&mut self) {
        while self.now >= self.arriving_due {
            let due = self.arriving.iter().find(|(_, arriving)| arriving.until <= self.now);
            let Some(id) = due.map(|(id, _)| *id) else { break };
            self.message_expired(id);
        }
        self.arriving_due = self.arriving.values().map(|arriving| arriving.until).min().unwrap_or(NEVER);
    }

    fn message_expired(&mut self, id: u64) {
        const WHY: &str = "the message did not come whole in its time";
        let Some(arriving) = self.arriving.get_mut(&id) else { return };
        arriving.until = NEVER;
        if arriving.unwanted {
            return;
        }
        match arriving.message {
            Message::Argument(call) => self.end_pending(call, Status::NOT_COMPLETED, WHY),
            Message::Answer { slot, .. } => {
                arriving.unwanted = true;
                arriving.buf = BytesMut::new();
                self.tell(slot, Some(lost_reply(WHY)));
                self.give_up(slot);
            }
            Message::Item(stream) => {
                arriving.unwanted = true;
                arriving.buf = BytesMut::new();
                self.item_expired(stream, WHY);
            }
        }
    }

    /// Nobody wants the message that arrives on `id` any more.
    pub(super) fn lose_interest(&mut self, id: u64) {
        if let Some(arriving) = self.arriving.get_mut(&id) {
            arriving.unwanted = true;
            arriving.buf = BytesMut::new();
        }
    }

    /// The message that arrives on `id`, an argument or an item of a served call, is over for this side: the rest of
    /// it is free for a while. How much of it had not come.
    pub(super) fn drop_message(&mut self, id: u64) -> Option<usize> {
        let arriving = self.arriving.remove(&id)?;
        let missing = arriving.total.saturating_sub(arriving.came);
        self.remember_refused(id);
        Some(missing)
    }
}

pub(super) fn lost_reply(why: &str) -> Failure {
    Failure::local(Status::LOST_REPLY, Ran::Maybe, why)
}
