//! The straight way of a small unary call: what nearly all frames are, with as few steps as there can be.
//!
//! Each of these functions takes a step only if everything about it is usual, and otherwise has done nothing and leaves
//! it to the file that knows all the rules: [`calling`](super::calling), [`serving`](super::serving),
//! [`input`](super::input), [`output`](super::output). What is unusual about the connection is found out once, by
//! [`Machine::straighten`], and not frame by frame: no step of this file changes it, and every other verb leaves the
//! straight way when it begins and looks for it again when it ends. What is unusual about a frame is found by what is
//! compared: its first six octets at once, and its envelope by its tags, or by being the same as the one before.

use bytes::Bytes;

use super::{
    calls::{Owner, Wire},
    event::{CallId, Failure, Served},
    machine::{Machine, Phase},
    outbox::{Outbox, SHARE_FROM},
    staging::{self, next_frame},
};
use crate::{
    time::{Instant, MILLISECOND, NEVER},
    wire::{Flags, FrameType, HEADER_LEN, Header, MAGIC, Ran, Status, VERSION},
};

/// Whether the straight way is open. Not, at first.
#[derive(Clone, Copy, Default)]
pub(crate) struct Straight {
    /// Frames may be taken as they come: nothing is to be told before them, none of them came in parts, and no drain
    /// waits for the end of a call.
    pub(crate) input: bool,
    /// Small frames may go out as they are handed over: nothing waits in the lanes or before them, and nothing keeps
    /// this side from calling.
    pub(crate) output: bool,
}

/// The tags of `Request.method` and `Request.timeout_us`: fields 1 and 3, varints.
const METHOD_TAG: u8 = 1 << 3;
const TIMEOUT_TAG: u8 = 3 << 3;
/// A deadline above this is none (protocol §5, `Request.timeout_us`).
const MAX_TIMEOUT_US: u64 = 1 << 53;
/// Time-outs below this, 9.5 hours in microseconds, take at most five octets.
const SHORT_TIMEOUT: u64 = 1 << 35;

/// The first six octets of a frame without flags and with status 00.
const fn plain(frame_type: FrameType) -> u64 {
    let [a, b] = MAGIC;
    u64::from_be_bytes([0, 0, a, b, VERSION, frame_type.0, 0, 0])
}

const REQUEST: u64 = plain(FrameType::REQUEST);
const RESPONSE: u64 = plain(FrameType::RESPONSE);

/// A usual frame, acted on; it is still to be taken.
pub(crate) enum Quick {
    /// The good answer to the call in `slot`.
    Answer { slot: u32 },
    /// A call that was admitted.
    Request { call: Served, method: u32, deadline: u64 },
}

/// Where a frame that is to be taken ends, and where its payload begins.
#[derive(Clone, Copy)]
pub(crate) struct Place {
    frame: usize,
    from: usize,
}

/// What the last call said: most callers call few methods and give each call the same time.
#[derive(Default)]
pub(crate) struct Usual {
    said: Said,
    heard: Heard,
}

/// An envelope of this side's.
#[derive(Default)]
struct Said {
    /// 0 if there is none yet, which is no method.
    method: u8,
    /// Nanoseconds until the deadline; `NEVER` without one.
    left: u64,
    /// How long it is with the octet that says so, which comes first.
    len: usize,
    octets: [u8; ENVELOPE],
}

/// An envelope of the peer's, with the octet before it that says how long it is.
struct Heard {
    /// Its octets; those behind them are 0.
    word: u64,
    /// Which octets of a word those are.
    mask: u64,
    len: usize,
    method: u32,
    /// What it leaves for the call, in nanoseconds; `NEVER` without a deadline.
    left: u64,
}

/// The longest envelope that is written here, with the octet that says how long it is.
const ENVELOPE: usize = 9;

/// The body of a usual REQUEST: a method by an id of one octet, perhaps a deadline, and nothing else to say.
struct PlainRequest {
    /// The index of the method.
    method: u32,
    /// Above 0 and not above 2^53.
    timeout_us: Option<u64>,
    /// Octets of the payload, the last ones of the frame.
    payload: usize,
}

impl PlainRequest {
    fn read(body: &[u8]) -> Option<Self> {
        let (&[n, METHOD_TAG, id @ 1..0x80], rest) = body.split_first_chunk()? else { return None };
        // n of two octets or more is too large for this, and for `timeout` below.
        let (timeout, payload) = rest.split_at_checked(usize::from(n).wrapping_sub(2))?;
        let timeout_us = match *timeout {
            [] => None,
            [TIMEOUT_TAG, ref us @ ..] => {
                Some(short_varint(us).filter(|us| (1..=MAX_TIMEOUT_US).contains(us))?)
            }
            _ => return None,
        };
        Some(Self { method: u32::from(id) - 1, timeout_us, payload: payload.len() })
    }
}

impl Machine {
    /// Looks whether the straight way is open: to be asked when something has happened that is not of this file.
    #[inline]
    pub(crate) fn straighten(&mut self) {
        self.straight = self.look();
    }

    pub(super) fn look(&self) -> Straight {
        let open = self.phase == Phase::Ready && self.eof.is_none() && self.our_drain.is_none();
        Straight {
            input: open && !self.has_queued() && self.header_at.is_none() && self.live.frame_is_whole(),
            output: open && self.their_drain.is_none() && self.lanes.is_empty() && !self.has_control(),
        }
    }

    /// Whether the straight way, where it is said to be open, is.
    pub(crate) fn is_straight(&self) -> bool {
        let Straight { input, output } = self.look();
        (input || !self.straight.input) && (output || !self.straight.output)
    }

    /// Octets have arrived, and nothing about the connection is unusual; whether that is so.
    #[inline(always)]
    pub(crate) fn quick_input(&mut self, octets: usize) -> bool {
        if !self.straight.input || octets == 0 {
            return false;
        }
        self.live.read(self.now, octets);
        self.stats.octets_in = self.stats.octets_in.wrapping_add(octets as u64);
        self.unparsed = true;
        true
    }

    /// The next frame, if it is a usual one.
    #[inline(always)]
    pub(crate) fn quick_event(&mut self) -> Option<(Quick, Place)> {
        let (start, rest) = self.inbox.octets().split_first_chunk::<HEADER_LEN>()?;
        let &[.., l0, l1, l2, l3] = start;
        let &[_, _, _, _, _, _, id @ .., _, _, _, _] = start;
        let &[a, b, c, d, e, f, g, h, ..] = start;
        let head = u64::from_be_bytes([a, b, c, d, e, f, g, h]) >> 16;
        let id = u64::from_be_bytes(id);
        let len = u32::from_be_bytes([l0, l1, l2, l3]);
        let body = rest.get(..len as usize)?;
        if len > self.config.limits.max_frame {
            return None;
        }
        let frame = HEADER_LEN + body.len();
        match head {
            RESPONSE => {
                // An empty envelope: n is 0, or there is no body at all.
                let envelope = usize::from(!body.is_empty());
                if body.first().is_some_and(|&n| n != 0)
                    || body.len() > self.config.limits.max_message as usize
                {
                    return None;
                }
                let slot = self.quick_answer(id)?;
                Some((Quick::Answer { slot }, Place { frame, from: HEADER_LEN + envelope }))
            }
            REQUEST => {
                let envelope = match body.first_chunk() {
                    Some(word)
                        if u64::from_le_bytes(*word) & self.usual.heard.mask == self.usual.heard.word =>
                    {
                        self.usual.heard.len
                    }
                    _ => self.hear()?,
                };
                let payload = (len as usize).checked_sub(envelope)?;
                let (call, deadline) = self.quick_request(id, payload)?;
                let method = self.usual.heard.method;
                Some((Quick::Request { call, method, deadline }, Place { frame, from: frame - payload }))
            }
            _ => None,
        }
    }

    /// The payload of the frame that [`quick_event`](Self::quick_event) has found.
    #[inline(always)]
    pub(crate) fn quick_take(&mut self, place: Place) -> Bytes {
        let payload = self.inbox.take(place.frame, place.from);
        self.unparsed = !self.inbox.is_empty();
        self.stats.frames_in = self.stats.frames_in.wrapping_add(1);
        payload
    }

    /// Reads the envelope of the first frame, a REQUEST that is whole, and remembers it, if it is a usual one. How long
    /// it is, with the octet that says so.
    #[inline(never)]
    fn hear(&mut self) -> Option<usize> {
        let (head, rest) = self.inbox.octets().split_first_chunk::<HEADER_LEN>()?;
        let &[.., l0, l1, l2, l3] = head;
        let body = rest.get(..u32::from_be_bytes([l0, l1, l2, l3]) as usize)?;
        let (heard, len) = Heard::read(body)?;
        if !self.config.methods.get(heard.method as usize)?.plain {
            return None;
        }
        self.usual.heard = heard;
        Some(len)
    }

    #[inline(always)]
    fn quick_answer(&mut self, id: u64) -> Option<u32> {
        let (slot, deadline) = self.calls.answered(id)?;
        if deadline != NEVER {
            self.call_timers.remove(slot);
        }
        self.idle_since = self.now;
        Some(slot)
    }

    #[inline(always)]
    fn quick_request(&mut self, id: u64, payload: usize) -> Option<(Served, u64)> {
        let now = self.now;
        let deadline = now.saturating_add(self.usual.heard.left);
        let limits = &self.config.limits;
        // An id above 2^63 is not admitted; nor is one of our own parity, or one that is not above the last.
        if id <= self.highest_in
            || !self.is_theirs(id)
            || id >> 63 != 0
            || payload > limits.max_message as usize
            || self.served.held + payload > limits.memory
            || !self.lease.covers(self.served.held + self.backlog.octets + payload)
            || self.served.admitted >= self.own_concurrent
            || self.unwritten() >= self.most_unwritten
        {
            return None;
        }
        self.highest_in = id;
        self.idle_since = now;
        self.served.held += payload;
        let (slot, serving) = self.served.admit(id, true);
        serving.held = u32::try_from(payload).unwrap_or(u32::MAX);
        serving.deadline = deadline;
        serving.quick = true;
        let call = Served { slot, generation: serving.generation };
        if deadline != NEVER {
            self.served_timers.insert(slot, deadline, now);
        }
        self.stats.calls_in = self.stats.calls_in.wrapping_add(1);
        Some((call, deadline))
    }

    /// Whether little is under way, so that a small frame may go out at once if the way is open.
    #[inline(always)]
    pub(crate) fn has_room(&self) -> bool {
        self.live.unsent + self.staging.len() < staging::MOST
    }

    /// Lays a call down for the next `poll_transmit`: a small one with nothing special to say, and nobody before it.
    #[inline(always)]
    pub(crate) fn quick_call(
        &mut self,
        method: &str,
        fingerprint: u64,
        deadline: Option<Instant>,
        payload: &[u8],
    ) -> Option<CallId> {
        let deadline = deadline.map_or(NEVER, Instant::as_nanos);
        let packs = self.snappy && self.config.compress && payload.len() >= self.config.compress_from;
        if packs
            || payload.len() >= SHARE_FROM.min(self.peer_message)
            || !self.window_open()
            || !self.straight.output
            || !self.has_room()
            || self.calls.open() >= self.config.limits.max_calls as usize
        {
            return None;
        }
        let method = self.learned.recent(method, fingerprint)?;
        let now = self.now;
        let left = if deadline == NEVER { NEVER } else { deadline.saturating_sub(now) };
        if self.usual.said.left != left || self.usual.said.method != method {
            self.usual.said = Said::new(method, left)?;
        }
        let counter = self.next_count()?;
        let (slot, call) = self.calls.allocate();
        let id = (counter << 17) | (u64::from(slot) << 1) | u64::from(self.side_bit);
        call.wire = Wire::Sent;
        call.owner = Owner::Waits;
        call.one_way = false;
        call.for_handler = false;
        call.deadline = deadline;
        call.id = id;
        let call_id = CallId { slot, generation: call.generation };
        let Said { len: envelope, octets, .. } = self.usual.said;
        let (frame, head) = request_head(id, envelope, &octets, payload.len());
        self.staging.push(&frame, head, payload);
        if deadline != NEVER {
            self.staging.oldest = self.staging.oldest.min(now);
            self.call_timers.insert(slot, deadline, now);
        }
        self.calls.unanswered += 1;
        self.highest_out = id;
        self.idle_since = now;
        self.stats.calls_out += 1;
        Some(call_id)
    }

    /// Staged calls have waited for so long that what they say of their deadlines is no longer true: says it anew, and
    /// drops those whose time is over.
    #[cold]
    pub(crate) fn restate(&mut self) {
        let staged = self.staging.take();
        let mut rest = staged.as_slice();
        while let Some((header, frame, after)) = next_frame(rest) {
            rest = after;
            let call = match header.frame_type {
                FrameType::REQUEST => self.calls.by_wire_id(header.id),
                _ => None,
            };
            let deadline = call.as_ref().map_or(NEVER, |(_, call)| call.deadline);
            let (Some((slot, call)), Some(&[n, _, method])) =
                (call.filter(|_| deadline != NEVER), frame.get(HEADER_LEN..HEADER_LEN + 3))
            else {
                self.staging.put_back(&header, frame);
                continue;
            };
            let us = deadline.saturating_sub(self.now).div_ceil(1000);
            if us > 0
                && let Some(said) = Said::new(method, us.saturating_mul(1000))
            {
                let payload = frame.get(HEADER_LEN + 1 + usize::from(n)..).unwrap_or_default();
                let (frame, head) = request_head(header.id, said.len, &said.octets, payload.len());
                self.staging.push(&frame, head, payload);
                continue;
            }
            call.wire = Wire::Off;
            self.calls.unanswered = self.calls.unanswered.saturating_sub(1);
            self.stats.calls_out = self.stats.calls_out.saturating_sub(1);
            self.call_timers.remove(slot);
            let why = "the deadline passed before the call could be sent";
            self.tell(slot, Some(Failure::local(Status::TIMEOUT, Ran::No, why)));
        }
    }

    /// Whether an answer of so many octets may be laid down for the next `poll_transmit`, if the way is open.
    #[inline(always)]
    pub(super) fn may_stage_answer(&self, payload: &[u8]) -> bool {
        payload.len() < SHARE_FROM.min(self.peer_message) && self.has_room()
    }

    /// Lays an answer down that says no more than this.
    #[inline(always)]
    pub(super) fn stage_answer(&mut self, id: u64, payload: &[u8], status: Status) {
        let envelope = usize::from(!payload.is_empty());
        let len = u32::try_from(envelope + payload.len()).unwrap_or(u32::MAX);
        let header = Header { frame_type: FrameType::RESPONSE, flags: Flags::NONE, status, id, len };
        // An empty envelope: n is 0.
        let mut frame = [0; HEADER_LEN + 1];
        let (start, _) = frame.split_at_mut(HEADER_LEN);
        start.copy_from_slice(&header.emit());
        self.staging.push(&frame, HEADER_LEN + envelope, payload);
        self.staging.answers += 1;
    }

    /// The application answers a call well, in few octets, and nothing unusual has become of the call; whether it could
    /// be answered so.
    #[inline(always)]
    pub(crate) fn quick_reply(&mut self, call: Served, payload: &[u8]) -> bool {
        if !self.straight.output || !self.may_stage_answer(payload) {
            return false;
        }
        let Some((id, deadline)) = self.served.answered(call) else { return false };
        self.stage_answer(id, payload, Status::OK);
        if deadline != NEVER {
            self.served_timers.remove(call.slot);
        }
        self.budget.earn();
        self.idle_since = self.now;
        true
    }

    /// Moves what is staged to the outbox, if that is all there is; whether there was anything.
    #[inline(always)]
    pub(crate) fn quick_transmit(&mut self, out: &mut Outbox) -> Option<bool> {
        // A millisecond is what deadlines are exact to.
        if !self.straight.output || self.now.saturating_sub(self.staging.oldest) >= MILLISECOND {
            return None;
        }
        let octets = self.staging.len();
        if octets == 0 || !out.has_room() {
            return Some(false);
        }
        self.stats.frames_out += u64::from(self.staging.flush(out));
        self.transmitted = self.highest_out;
        self.live.committed(self.now, octets);
        Some(true)
    }
}

impl Said {
    /// The envelope for a method and what is left of a deadline, unless that is nothing or takes too many octets.
    #[inline(never)]
    fn new(method: u8, left: u64) -> Option<Self> {
        let us = left.div_ceil(1000);
        let (timeout, len) = match left {
            NEVER => ([0; 5], 3),
            _ if us == 0 || us >= SHORT_TIMEOUT => return None,
            _ => {
                let (timeout, octets) = put_varint(us);
                (timeout, 4 + octets)
            }
        };
        let [t0, t1, t2, t3, t4] = timeout;
        let n = u8::try_from(len - 1).ok()?;
        Some(Self { method, left, len, octets: [n, METHOD_TAG, method, TIMEOUT_TAG, t0, t1, t2, t3, t4] })
    }
}

/// Nothing yet, and nothing is found to be the same: no word is 1 without a bit.
impl Default for Heard {
    fn default() -> Self {
        Self { word: 1, mask: 0, len: 0, method: 0, left: NEVER }
    }
}

impl Heard {
    /// What the envelope of a usual REQUEST says, and how long it is with the octet before it.
    #[inline(never)]
    fn read(body: &[u8]) -> Option<(Self, usize)> {
        let plain = PlainRequest::read(body)?;
        let len = body.len() - plain.payload;
        let left = plain.timeout_us.map_or(NEVER, |us| us.saturating_mul(1000));
        let (word, mask) = match body.first_chunk() {
            Some(word) if len <= word.len() => {
                let mask = u64::MAX >> (64 - 8 * len);
                (u64::from_le_bytes(*word) & mask, mask)
            }
            // Too long or too short to be found again in one look.
            _ => (1, 0),
        };
        Some((Self { word, mask, len, method: plain.method, left }, len))
    }
}

/// The head of a REQUEST, laid out whole, and how long it is.
#[inline(always)]
fn request_head(
    id: u64,
    envelope: usize,
    octets: &[u8; ENVELOPE],
    payload: usize,
) -> ([u8; HEADER_LEN + ENVELOPE], usize) {
    let len = u32::try_from(envelope + payload).unwrap_or(u32::MAX);
    let header = Header { frame_type: FrameType::REQUEST, flags: Flags::NONE, status: Status::OK, id, len };
    let mut frame = [0; HEADER_LEN + ENVELOPE];
    let (start, rest) = frame.split_at_mut(HEADER_LEN);
    start.copy_from_slice(&header.emit());
    rest.copy_from_slice(octets);
    (frame, HEADER_LEN + envelope)
}

/// A varint of at most five octets, which must be all of them.
#[inline(always)]
fn short_varint(octets: &[u8]) -> Option<u64> {
    if octets.len() > 5 {
        return None;
    }
    let (&last, others) = octets.split_last()?;
    let mut value = u64::from(last);
    for &octet in others.iter().rev() {
        if octet < 0x80 {
            return None;
        }
        value = (value << 7) | u64::from(octet & 0x7F);
    }
    (last < 0x80).then_some(value)
}

/// The varint of a value below 2^35, and how many octets of it count.
#[inline(always)]
fn put_varint(value: u64) -> ([u8; 5], usize) {
    // Seven bits an octet, and one octet at least.
    let len = ((70 - (value | 1).leading_zeros()) / 7) as usize;
    let group = |shift: u32| ((value >> shift) & 0x7F) << (shift / 7 * 8);
    let spread = group(0) | group(7) | group(14) | group(21) | group(28);
    let more = 0x80_8080_8080_u64 & ((1 << (8 * (len - 1))) - 1);
    let [a, b, c, d, e, ..] = (spread | more).to_le_bytes();
    ([a, b, c, d, e], len)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use alloc::vec::Vec;

    use super::*;
    use crate::wire::varint;

    #[test]
    fn short_varints_are_varints() {
        let around = (0..35).flat_map(|bit| [(1u64 << bit) - 1, 1 << bit, (1 << bit) + 1]);
        for value in around.filter(|value| *value < SHORT_TIMEOUT) {
            let mut long = Vec::new();
            varint::put(value, &mut long);
            let (octets, len) = put_varint(value);
            assert_eq!(octets.get(..len), Some(&long[..]), "{value}");
            assert_eq!(short_varint(&long), Some(value));
        }
        assert_eq!(short_varint(&[0x80]), None);
        assert_eq!(short_varint(&[0x01, 0x01]), None);
        assert_eq!(short_varint(&[]), None);
    }
}
