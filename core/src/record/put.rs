//! Writing entries down: the kind, the nanoseconds since the entry before, and the fields in order. What reads them back, in
//! the same order, is `read.rs`.

use alloc::vec::Vec;
use core::time::Duration;

use super::{
    entry::{Entry, Found, Given, HOWS, ITEM_ERRORS, Mark, RANS, REJECTIONS, REPLY_ERRORS, Told},
    ink::{put, put_octets},
};
use crate::{
    conn::{CallId, Served, Stream},
    time::{Instant, nanos},
    wire::Metadata,
};

fn put_error<E: PartialEq>(error: Option<&E>, all: &[E], out: &mut Vec<u8>) {
    let code = error.map_or(0, |error| all.iter().position(|known| known == error).map_or(255, |at| at + 1));
    put(code as u64, out);
}

fn put_instant(at: Option<Instant>, out: &mut Vec<u8>) {
    put(at.map_or(0, Instant::as_nanos), out);
}

/// 0 is none; others are one more than they are.
pub(super) fn put_duration(duration: Option<Duration>, out: &mut Vec<u8>) {
    put(duration.map_or(0, |duration| nanos(duration).saturating_add(1)), out);
}

fn put_stream(stream: Stream, out: &mut Vec<u8>) {
    let (theirs, slot, generation) = match stream {
        Stream::Ours(CallId { slot, generation }) => (0_u8, slot, generation),
        Stream::Theirs(Served { slot, generation }) => (1, slot, generation),
    };
    put(theirs, out);
    put(slot, out);
    put(generation, out);
}

fn put_call(call: CallId, out: &mut Vec<u8>) {
    put(call.slot, out);
    put(call.generation, out);
}

fn put_served(call: Served, out: &mut Vec<u8>) {
    put(call.slot, out);
    put(call.generation, out);
}

fn put_given(body: Given<'_>, out: &mut Vec<u8>) {
    put(body.len as u64, out);
    put_octets(body.kept, out);
}

fn put_metadata(metadata: &[Metadata<'_>], out: &mut Vec<u8>) {
    put(metadata.len() as u64, out);
    for one in metadata {
        put_octets(one.key.as_bytes(), out);
        put_octets(one.value, out);
    }
}

/// A number below zero and above it: −1, 0, 1.
fn put_signed(value: i8, out: &mut Vec<u8>) {
    put(u64::from(value.to_le_bytes()[0]), out);
}

impl Told<'_> {
    fn put(&self, out: &mut Vec<u8>) {
        match *self {
            Self::Nothing => put(0_u8, out),
            Self::Request { call, method, one_way, priority, codec, kind, deadline, len, digest } => {
                put(1_u8, out);
                put_served(call, out);
                put(method, out);
                put(u8::from(one_way), out);
                put_signed(priority, out);
                put(codec, out);
                put(kind.to_wire(), out);
                put_instant(deadline, out);
                put(len, out);
                put(digest, out);
            }
            Self::Done { len, digest, rest } => {
                put(2_u8, out);
                put(len, out);
                put(digest, out);
                put(rest, out);
            }
            Self::Other(words) => {
                put(3_u8, out);
                put_octets(words.as_bytes(), out);
            }
        }
    }
}

impl Mark<'_> {
    fn put(&self, out: &mut Vec<u8>) {
        put(self.now.as_nanos(), out);
        put_octets(self.phase.as_bytes(), out);
        for number in [self.open.0, self.open.1, self.highest.0, self.highest.1, self.unsent] {
            put(number, out);
        }
        self.stats_in_order().into_iter().for_each(|number| put(number, out));
        for (head, left) in self.places {
            put_octets(head, out);
            put(left, out);
        }
    }

    fn stats_in_order(&self) -> [u64; 15] {
        let mut stats = self.stats;
        stats.counters().map(|counter| *counter)
    }
}

impl<'a> Entry<'a> {
    const fn kind(&self) -> u8 {
        match self {
            Self::Input(_) => 1,
            Self::Sent(_) => 2,
            Self::Disconnect(_) => 3,
            Self::Timeout => 4,
            Self::Call { .. } => 5,
            Self::Cancel { .. } => 6,
            Self::Reply { .. } => 7,
            Self::SendItem { .. } => 8,
            Self::EndItems { .. } => 9,
            Self::TakeItem { .. } => 10,
            Self::Grant { .. } => 11,
            Self::Accept => 12,
            Self::Refuse { .. } => 13,
            Self::Probe(_) => 14,
            Self::Drain { .. } => 15,
            Self::Close { .. } => 16,
            Self::Event(_) => 17,
            Self::Transmit { .. } => 18,
            Self::Mark(_) => 19,
            Self::Lost(_) => 20,
        }
    }

    /// Writes it down, but for its length: its kind, `since` the one before, and its fields.
    pub(crate) fn put(&self, since: u64, out: &mut Vec<u8>) {
        put(self.kind(), out);
        put(since, out);
        match self {
            Self::Input(pieces) => put_octets(pieces.0, out),
            Self::Sent(octets) | Self::Lost(octets) => put(*octets, out),
            Self::Disconnect(error) => {
                put(u8::from(error.is_some()), out);
                put_octets(error.unwrap_or_default().as_bytes(), out);
            }
            Self::Timeout | Self::Accept => {}
            Self::Call { head, metadata, one_way, body, result } => {
                put_octets(head.method.as_bytes(), out);
                put(u8::from(*one_way), out);
                put_instant(head.deadline, out);
                put_signed(head.priority, out);
                put(head.codec, out);
                put(head.fingerprint, out);
                put_metadata(metadata, out);
                put_octets(head.trace, out);
                put(u8::from(head.parent.is_some()), out);
                put_served(head.parent.unwrap_or(Served { slot: 0, generation: 0 }), out);
                put(head.kind.to_wire(), out);
                put(head.credit.map_or(0, |credit| u64::from(credit).saturating_add(1)), out);
                put_octets(head.ordering_key, out);
                put(u8::from(head.compress), out);
                put_given(*body, out);
                put_error(result.as_ref().err(), &REJECTIONS, out);
                put_call(result.unwrap_or(CallId { slot: 0, generation: 0 }), out);
            }
            Self::Cancel { call, ran } => {
                put_call(*call, out);
                put_error(ran.as_ref(), &RANS, out);
            }
            Self::Reply { how, call, answer, body, result } => {
                put_error(Some(how), &HOWS, out);
                put_served(*call, out);
                put(answer.status.0, out);
                put_octets(answer.message.as_bytes(), out);
                put(answer.code, out);
                put_duration(answer.retry_after, out);
                put_octets(answer.owner.as_bytes(), out);
                put_metadata(&answer.metadata, out);
                put_given(*body, out);
                put_error(result.as_ref().err(), &REPLY_ERRORS, out);
            }
            Self::SendItem { stream, body, result } => {
                put_stream(*stream, out);
                put_given(*body, out);
                put_error(result.as_ref().err(), &ITEM_ERRORS, out);
            }
            Self::EndItems { call, result } => {
                put_call(*call, out);
                put_error(result.as_ref().err(), &ITEM_ERRORS, out);
            }
            Self::TakeItem { stream, found } => {
                put_stream(*stream, out);
                match *found {
                    Found::Nothing => put(0_u8, out),
                    Found::End => put(1_u8, out),
                    Found::Item { len, digest } => {
                        put(2_u8, out);
                        put(len, out);
                        put(digest, out);
                    }
                }
            }
            Self::Grant { stream, octets } => {
                put_stream(*stream, out);
                put(*octets, out);
            }
            Self::Refuse { status, message, retry_after } => {
                put(status.0, out);
                put_octets(message.as_bytes(), out);
                put_duration(*retry_after, out);
            }
            Self::Probe(sent) => put(u8::from(*sent), out),
            Self::Drain { status, grace, message } => {
                put(status.0, out);
                put(nanos(*grace), out);
                put_octets(message.as_bytes(), out);
            }
            Self::Close { status, message } => {
                put(status.0, out);
                put_octets(message.as_bytes(), out);
            }
            Self::Event(told) => told.put(out),
            Self::Transmit { room, bulk, pieces, digest } => {
                put(*room, out);
                put(*bulk, out);
                put(*digest, out);
                put_octets(pieces.0, out);
            }
            Self::Mark(mark) => mark.put(out),
        }
    }
}
