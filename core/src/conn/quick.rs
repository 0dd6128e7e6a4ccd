//! The straight way of a small unary call: what nearly all frames are, with as few steps as there can be.
//!
//! Each of these functions takes a step only if everything about it is usual, and otherwise has done nothing and leaves
//! it to the file that knows all the rules: [`calling`](super::calling), [`serving`](super::serving),
//! [`input`](super::input). A rule that is not checked here holds by what is compared: the first six octets of the frame
//! at once, and the envelope by its tags.

use super::{
    calls::{Owner, Wire},
    event::{Body, CallHead, CallId, Failure, Reply, Served},
    lanes::NORMAL,
    machine::{Machine, Phase},
    outbox::SHARE_FROM,
    served::Serving,
    staging::next_frame,
};
use crate::{
    time::{Instant, NEVER},
    wire::{Flags, FrameType, HEADER_LEN, Header, MAGIC, Ran, Status, VERSION},
};

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

/// A usual frame, acted on; its octets are still to be taken.
pub(crate) enum Quick {
    /// The good answer to the call in `slot`.
    Answer { slot: u32 },
    /// A call that was admitted.
    Request { call: Served, method: u32, deadline: u64 },
}

/// Where the frame's payload stands.
pub(crate) struct Place {
    pub(crate) frame: usize,
    pub(crate) from: usize,
}

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
    #[inline(always)]
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
    /// The next frame, if it is a usual one and nothing comes before it.
    #[inline(always)]
    pub(crate) fn quick_event(&mut self) -> Option<(Quick, Place)> {
        if self.phase != Phase::Ready || self.has_queued() {
            return None;
        }
        self.inbox.prepare();
        let octets = self.inbox.octets();
        let (&[a, b, c, d, e, f, id @ .., l0, l1, l2, l3], rest) =
            octets.split_first_chunk::<HEADER_LEN>()?;
        let head = u64::from_be_bytes([0, 0, a, b, c, d, e, f]);
        let id = u64::from_be_bytes(id);
        let len = u32::from_be_bytes([l0, l1, l2, l3]);
        let body = rest.get(..len as usize)?;
        if len > self.config.limits.max_frame {
            return None;
        }
        let frame = HEADER_LEN + body.len();
        let quick = match head {
            RESPONSE => {
                // An empty envelope: n is 0, or there is no body at all.
                let envelope = usize::from(!body.is_empty());
                if body.first().is_some_and(|&n| n != 0)
                    || body.len() > self.config.limits.max_message as usize
                {
                    return None;
                }
                (Quick::Answer { slot: self.quick_answer(id)? }, Place { frame, from: HEADER_LEN + envelope })
            }
            REQUEST => {
                let plain = PlainRequest::read(body)?;
                let place = Place { frame, from: frame - plain.payload };
                (self.quick_request(id, &plain)?, place)
            }
            _ => return None,
        };
        self.live.frame_done();
        self.stats.frames_in += 1;
        self.header_at = None;
        Some(quick)
    }

    #[inline(always)]
    fn quick_answer(&mut self, id: u64) -> Option<u32> {
        let (slot, call) = self.calls.by_wire_id(id)?;
        if call.owner != Owner::Waits || call.cold.is_some() {
            return None;
        }
        call.owner = Owner::Gone;
        call.wire = Wire::Off;
        if call.deadline != NEVER {
            self.call_timers.remove(slot);
        }
        self.idle_since = self.now;
        self.calls.release(slot);
        self.calls.unanswered = self.calls.unanswered.saturating_sub(1);
        Some(slot)
    }

    #[inline(always)]
    fn quick_request(&mut self, id: u64, plain: &PlainRequest) -> Option<Quick> {
        let deadline = match plain.timeout_us {
            None => NEVER,
            Some(us) => self.header_at.unwrap_or(self.now).saturating_add(us.saturating_mul(1000)),
        };
        // An id above 2^63 is not admitted; nor is one of our own parity, or one that is not above the last.
        let in_order = id > self.highest_in && self.is_theirs(id) && id >> 63 == 0;
        let config = &*self.config;
        let room =
            config.limits.memory.saturating_sub(self.served.held).min(config.limits.max_message as usize);
        if !in_order
            || plain.payload > room
            || !self.lease.covers(self.served.held + plain.payload)
            || !config.methods.get(plain.method as usize)?.plain
            || self.served.admitted >= self.own_concurrent
            || self.unwritten() >= self.most_unwritten
            || self.our_drain.is_some()
            || deadline <= self.now
        {
            return None;
        }
        self.highest_in = id;
        self.idle_since = self.now;
        let (slot, serving) = self.served.admit(id, true);
        serving.lane = NORMAL;
        serving.held = u32::try_from(plain.payload).unwrap_or(u32::MAX);
        serving.deadline = deadline;
        let call = Served { slot, generation: serving.generation };
        self.served.held += plain.payload;
        if deadline != NEVER {
            self.served_timers.insert(slot, deadline, self.now);
        }
        self.stats.calls_in += 1;
        Some(Quick::Request { call, method: plain.method, deadline })
    }

    /// Lays a call down for the next `poll_transmit`: a small one with nothing special to say, and nobody before it.
    #[inline(always)]
    pub(crate) fn quick_call(&mut self, head: &CallHead<'_>, body: &Body<'_>) -> Option<CallId> {
        let payload: &[u8] = match body {
            Body::Copy(octets) => octets,
            Body::Share(octets) => octets,
        };
        let deadline = head.deadline.map_or(NEVER, Instant::as_nanos);
        let us = deadline.saturating_sub(self.now).div_ceil(1000);
        let packs = self.snappy && self.config.compress && payload.len() >= self.config.compress_from;
        if packs
            || !head.is_plain()
            || head.parent.is_some()
            || payload.len() >= SHARE_FROM.min(self.peer_message)
            || us == 0
            || (us >= SHORT_TIMEOUT && deadline != NEVER)
            || !self.window_open()
            || !self.may_stage()
            || self.eof.is_some()
            || self.their_drain.is_some()
            || self.our_drain.is_some()
            || self.calls.open() >= self.config.limits.max_calls as usize
        {
            return None;
        }
        let method = self.learned.recent(head.method, head.fingerprint)?;
        let now = self.now;
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
        let (frame, head) = request_head(id, method, (deadline != NEVER).then_some(us), payload.len());
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
            if us > 0 {
                let payload = frame.get(HEADER_LEN + 1 + usize::from(n)..).unwrap_or_default();
                let (frame, head) = request_head(header.id, method, Some(us), payload.len());
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

    /// Lays an answer down for the next `poll_transmit`; whether it could.
    #[inline(always)]
    pub(crate) fn quick_reply(&mut self, slot: u32, reply: &Reply<'_>, status: Status) -> bool {
        let payload: &[u8] = match &reply.body {
            Body::Copy(octets) => octets,
            Body::Share(octets) => octets,
        };
        let most = SHARE_FROM.min(self.peer_message);
        if !reply.is_plain() || payload.len() >= most || !self.may_stage() {
            return false;
        }
        let usual = |serving: &&mut Serving| serving.lane == NORMAL && serving.cold.is_none();
        let Some(serving) = self.served.get(slot).filter(usual) else { return false };
        serving.answered = true;
        let envelope = usize::from(!payload.is_empty());
        let len = u32::try_from(envelope + payload.len()).unwrap_or(u32::MAX);
        let header =
            Header { frame_type: FrameType::RESPONSE, flags: Flags::NONE, status, id: serving.id, len };
        // An empty envelope: n is 0.
        let mut frame = [0; HEADER_LEN + 1];
        let (start, _) = frame.split_at_mut(HEADER_LEN);
        start.copy_from_slice(&header.emit());
        self.staging.push(&frame, HEADER_LEN + envelope, payload);
        self.staging.answers += 1;
        self.served.release(slot);
        true
    }
}

/// The head of a REQUEST, laid out whole, and how long it is: the octets of the time-out come last.
#[inline(always)]
fn request_head(id: u64, method: u8, us: Option<u64>, payload: usize) -> ([u8; HEADER_LEN + 9], usize) {
    let (timeout, octets) = us.map_or(([0; 5], 0), put_varint);
    let envelope = if us.is_none() { 2 } else { 3 + octets };
    let len = u32::try_from(1 + envelope + payload).unwrap_or(u32::MAX);
    let header = Header { frame_type: FrameType::REQUEST, flags: Flags::NONE, status: Status::OK, id, len };
    let mut frame = [0; HEADER_LEN + 9];
    let (start, rest) = frame.split_at_mut(HEADER_LEN);
    start.copy_from_slice(&header.emit());
    let [t0, t1, t2, t3, t4] = timeout;
    let n = u8::try_from(envelope).unwrap_or(0);
    rest.copy_from_slice(&[n, METHOD_TAG, method, TIMEOUT_TAG, t0, t1, t2, t3, t4]);
    (frame, HEADER_LEN + 1 + envelope)
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
