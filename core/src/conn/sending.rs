//! Committing data: answers, one-ways, items and calls, by priority and in turns, frame by frame.

use bytes::{Buf, Bytes};

use super::{
    calls::{Owner, Wire},
    credit::Purse,
    event::{CallId, Failure, Served, Stream},
    fragments::{Whole, commit_rest},
    lanes::{Sort, Waiting, Window},
    machine::{Machine, Phase},
    outbox::Outbox,
    streaming::Sends,
};
use crate::{
    time::{MILLISECOND, NEVER},
    wire::{FrameType, Ran, Status, varint},
};

/// A message of fewer octets is small.
const SMALL: usize = 8 * 1024;
/// What is committed at once of large messages unless they have the line for themselves: the next small one waits for so much.
pub(super) const BESIDE_SMALL: usize = 32 * 1024;
/// How long nothing small was sent, if large messages are to have the line for themselves.
const BULK_AFTER: u64 = 50 * MILLISECOND;

/// The tag of `Request.timeout_us`: field 3, varint.
const TIMEOUT_TAG: u8 = 3 << 3;
/// The longest such field, with its tag.
const TIMEOUT_LEN: usize = 1 + varint::MAX_LEN;

/// The field, and how long it is.
fn timeout_field(us: u64) -> ([u8; TIMEOUT_LEN], usize) {
    let mut field = [0; TIMEOUT_LEN];
    let len = 1 + varint::len(us);
    let mut rest = us;
    for (place, octet) in (0..len).zip(&mut field) {
        let [low, ..] = rest.to_le_bytes();
        let more = if place + 1 < len { 0x80 } else { 0 };
        *octet = if place == 0 { TIMEOUT_TAG } else { low & 0x7F | more };
        rest >>= if place == 0 { 0 } else { 7 };
    }
    (field, len)
}

impl Machine {
    /// Commits frame by frame, each of whoever's turn it is.
    #[inline]
    pub(super) fn commit_data(&mut self, out: &mut Outbox) {
        let requests = self.phase == Phase::Ready;
        let start = out.remaining();
        // What is staged came first.
        while self.staging.is_empty() && self.takes_more(out) && !self.lanes.is_empty() {
            let before = out.remaining();
            let window = if requests { self.window() } else { Window::SHUT };
            let Some((sort, lane)) = self.lanes.turn(window) else { break };
            let Some(waiting) = self.lanes.pop(sort, lane) else { break };
            if !self.commit_one(waiting, out) {
                self.lanes.found_withdrawn(sort, lane);
                continue;
            }
            let rest = sort == Sort::Rest && !matches!(waiting, Waiting::Items(_));
            if !rest && out.remaining() - before < SMALL {
                self.small_at = self.now;
            }
            if rest && out.remaining() - start >= BESIDE_SMALL && !self.nothing_is_small() {
                break;
            }
        }
    }

    /// Whether to commit more: while nothing small is sent beside large messages nobody waits behind what is written at once.
    fn takes_more(&self, out: &Outbox) -> bool {
        out.has_room() || (out.has_room_for_bulk() && self.nothing_is_small())
    }

    /// Whether nothing small was sent for a while.
    pub(super) fn nothing_is_small(&self) -> bool {
        self.now.saturating_sub(self.small_at) >= BULK_AFTER
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
            self.lanes.push(Sort::Rest, lane, Waiting::Answer(to));
            return true;
        }
        serving.unwritten = false;
        serving.body = Bytes::new();
        self.idle_since = self.now;
        self.served_timers.remove(to.slot);
        self.served.release(to.slot);
        self.trim();
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
        let (timeout, octets) = left.map_or(([0; TIMEOUT_LEN], 0), timeout_field);
        let timeout = timeout.get(..octets).unwrap_or_default();
        let (head, rest) = call.buf.split_at_checked(before).unwrap_or_default();
        let (tail, copied) = rest.split_at_checked(after).unwrap_or_default();
        let id = ((self.counter + 1) << 17) | (u64::from(slot) << 1) | side;
        let whole = Whole {
            frame_type: if call.one_way { FrameType::ONE_WAY } else { FrameType::REQUEST },
            status: Status::OK,
            id,
            compressed: call.cold.as_ref().is_some_and(|cold| cold.compressed),
            envelope: [head, timeout, tail],
            copied,
            shared: &call.body,
        };
        // What was handed over before check-in did not know what the peer reads, nor its window.
        let cold = call.cold.as_ref();
        let sends = cold.and_then(|cold| cold.stream.as_ref()).and_then(|stream| stream.sends.as_ref());
        let items = sends.map_or(0, Sends::largest);
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
                sends.purse = Purse::new(max_window);
            }
            streams = cold.stream.is_some();
        }
        if !all {
            call.cold.get_or_insert_default().sent = Some(sent);
            self.lanes.push(Sort::Rest, lane, Waiting::Rest { slot, generation });
        }
        self.highest_out = id;
        self.transmitted = id;
        self.idle_since = now;
        self.stats.frames_out += 1;
        self.stats.calls_out += 1;
        self.calls.leave_key(slot);
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
            self.lanes.push(Sort::Rest, lane, Waiting::Rest { slot, generation });
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
        self.tell(slot, Some(Failure::local(status, Ran::No, message)));
    }
}

#[cfg(test)]
mod tests {
    use alloc::vec::Vec;

    use super::*;

    #[test]
    fn a_timeout_is_a_tag_and_a_varint() {
        for us in (0..64).flat_map(|bit| [(1u64 << bit) - 1, 1 << bit]).chain([u64::MAX]) {
            let mut long = Vec::from([TIMEOUT_TAG]);
            varint::put(us, &mut long);
            let (field, len) = timeout_field(us);
            assert_eq!(field.get(..len), Some(&long[..]), "{us}");
        }
    }
}
