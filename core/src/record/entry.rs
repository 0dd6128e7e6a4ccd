//! The entries of a recording: each verb with what it was given and what it led to.
//!
//! An entry is written as its length, its kind, the nanoseconds since the entry before, and its fields in order.

use alloc::{borrow::Cow, vec::Vec};
use core::time::Duration;

use super::{
    ink::{Damage, Reader, put, put_octets},
    pieces::{MOST, Pieces},
};
use crate::{
    conn::{CallHead, CallId, ItemError, Rejection, ReplyError, Served, Stats, Stream},
    time::{Instant, nanos},
    wire::{Kind, Metadata, Status},
};

/// A verb, by what it says about a call of the peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum How {
    Reply,
    Refuse,
    Panicked,
}

/// What an application gave: how long it was, and the beginning.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Given<'a> {
    pub(crate) len: usize,
    pub(crate) kept: &'a [u8],
}

impl Given<'_> {
    /// With zeros for what was cut.
    pub(crate) fn restore(&self) -> Vec<u8> {
        let mut octets = self.kept.to_vec();
        octets.resize(self.len, 0);
        octets
    }
}

/// What an answer says besides its body.
#[derive(Debug, Clone)]
pub(crate) struct Answered<'a> {
    pub(crate) status: Status,
    pub(crate) message: &'a str,
    pub(crate) code: u32,
    pub(crate) retry_after: Option<Duration>,
    pub(crate) owner: &'a str,
    pub(crate) metadata: Cow<'a, [Metadata<'a>]>,
}

/// What `poll_event` returned. Payloads are told by length and [digest](super::scan::Digest).
#[derive(Debug, Clone, Copy)]
pub(crate) enum Told<'a> {
    Nothing,
    Request {
        call: Served,
        method: u32,
        one_way: bool,
        priority: i8,
        codec: u32,
        kind: Kind,
        deadline: Option<Instant>,
        len: u64,
        digest: u32,
    },
    /// A good answer.
    Done {
        len: u64,
        digest: u32,
        rest: u64,
    },
    /// Anything else, in words.
    Other(&'a str),
}

/// What `take_item` found.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Found {
    Nothing,
    End,
    Item { len: u64, digest: u32 },
}

/// How a connection stood when a part of the recording began.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Mark<'a> {
    pub(crate) now: Instant,
    pub(crate) phase: &'a str,
    /// Open calls of this side, and of the peer.
    pub(crate) open: (u64, u64),
    pub(crate) highest: (u64, u64),
    pub(crate) unsent: u64,
    pub(crate) stats: Stats,
    /// In each direction, in and out: the header of the frame that is passing, and how much of its body is to come.
    pub(crate) places: [(&'a [u8], u64); 2],
}

#[derive(Debug, Clone)]
pub(crate) enum Entry<'a> {
    Input(Pieces<'a>),
    Sent(u64),
    /// The end of the stream, or an error of the transport.
    Disconnect(Option<&'a str>),
    Timeout,
    Call {
        head: CallHead<'a>,
        metadata: Cow<'a, [Metadata<'a>]>,
        one_way: bool,
        body: Given<'a>,
        result: Result<CallId, Rejection>,
    },
    Cancel {
        call: CallId,
        found: bool,
    },
    Reply {
        how: How,
        call: Served,
        answer: Answered<'a>,
        body: Given<'a>,
        result: Result<(), ReplyError>,
    },
    SendItem {
        stream: Stream,
        body: Given<'a>,
        result: Result<(), ItemError>,
    },
    EndItems {
        call: CallId,
        result: Result<(), ItemError>,
    },
    TakeItem {
        stream: Stream,
        found: Found,
    },
    Grant {
        stream: Stream,
        octets: u32,
    },
    Accept,
    Refuse {
        status: Status,
        message: &'a str,
        retry_after: Option<Duration>,
    },
    Probe(bool),
    Drain {
        status: Status,
        grace: Duration,
        message: &'a str,
    },
    Close {
        status: Status,
        message: &'a str,
    },
    Event(Told<'a>),
    /// How much room the outbox had; what was committed, payloads cut; a digest of all of it while nothing was cut.
    Transmit {
        room: u64,
        pieces: Pieces<'a>,
        digest: u32,
    },
    Mark(Mark<'a>),
    /// A verb that was too large to be written down.
    Lost(u64),
}

const REJECTIONS: [Rejection; 7] = [
    Rejection::Full,
    Rejection::Draining,
    Rejection::Closed,
    Rejection::TooLarge,
    Rejection::NotServed,
    Rejection::BadHead,
    Rejection::WrongSignature,
];
const REPLY_ERRORS: [ReplyError; 2] = [ReplyError::Answered, ReplyError::Unknown];
const ITEM_ERRORS: [ItemError; 3] = [ItemError::Full, ItemError::TooLarge, ItemError::Over];
const HOWS: [How; 3] = [How::Reply, How::Refuse, How::Panicked];

fn put_error<E: PartialEq>(error: Option<&E>, all: &[E], out: &mut Vec<u8>) {
    let code = error.map_or(0, |error| all.iter().position(|known| known == error).map_or(255, |at| at + 1));
    put(code as u64, out);
}

fn error<E: Copy>(reader: &mut Reader<'_>, all: &[E]) -> Result<Option<E>, Damage> {
    match reader.small::<usize>()? {
        0 => Ok(None),
        code => match all.get(code - 1) {
            Some(error) => Ok(Some(*error)),
            None => Err(reader.damage("an unknown error")),
        },
    }
}

fn result<E: Copy>(reader: &mut Reader<'_>, all: &[E]) -> Result<Result<(), E>, Damage> {
    Ok(error(reader, all)?.map_or(Ok(()), Err))
}

fn put_instant(at: Option<Instant>, out: &mut Vec<u8>) {
    put(at.map_or(0, Instant::as_nanos), out);
}

fn instant(reader: &mut Reader<'_>) -> Result<Option<Instant>, Damage> {
    let nanos = reader.number()?;
    Ok((nanos > 0).then(|| Instant::from_nanos(nanos)))
}

/// 0 is none; others are one more than they are.
pub(super) fn put_duration(duration: Option<Duration>, out: &mut Vec<u8>) {
    put(duration.map_or(0, |duration| nanos(duration).saturating_add(1)), out);
}

pub(super) fn duration(reader: &mut Reader<'_>) -> Result<Option<Duration>, Damage> {
    Ok(reader.number()?.checked_sub(1).map(Duration::from_nanos))
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

fn stream(reader: &mut Reader<'_>) -> Result<Stream, Damage> {
    let theirs = reader.flag()?;
    Ok(if theirs { served(reader)?.into() } else { call(reader)?.into() })
}

fn call(reader: &mut Reader<'_>) -> Result<CallId, Damage> {
    Ok(CallId { slot: reader.small()?, generation: reader.small()? })
}

fn served(reader: &mut Reader<'_>) -> Result<Served, Damage> {
    Ok(Served { slot: reader.small()?, generation: reader.small()? })
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

fn given<'a>(reader: &mut Reader<'a>) -> Result<Given<'a>, Damage> {
    let body = Given { len: reader.small()?, kept: reader.octets()? };
    if body.len as u64 > MOST || body.kept.len() > body.len {
        return Err(reader.damage("a body is longer than 64 MiB, or shorter than what is kept of it"));
    }
    Ok(body)
}

fn put_metadata(metadata: &[Metadata<'_>], out: &mut Vec<u8>) {
    put(metadata.len() as u64, out);
    for one in metadata {
        put_octets(one.key.as_bytes(), out);
        put_octets(one.value, out);
    }
}

fn metadata<'a>(reader: &mut Reader<'a>) -> Result<Cow<'a, [Metadata<'a>]>, Damage> {
    let count: usize = reader.small()?;
    let mut all = Vec::new();
    for _ in 0..count {
        all.push(Metadata { key: reader.text()?, value: reader.octets()? });
    }
    Ok(all.into())
}

/// Which of four.
fn kind(reader: &mut Reader<'_>) -> Result<Kind, Damage> {
    Kind::from_wire(reader.small()?).ok_or_else(|| reader.damage("an unknown kind of call"))
}

/// A number below zero and above it: −1, 0, 1.
fn put_signed(value: i8, out: &mut Vec<u8>) {
    put(u64::from(value.to_le_bytes()[0]), out);
}

fn signed(reader: &mut Reader<'_>) -> Result<i8, Damage> {
    Ok(i8::from_le_bytes([reader.small()?]))
}

fn status(reader: &mut Reader<'_>) -> Result<Status, Damage> {
    Ok(Status(reader.small()?))
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

fn told<'a>(reader: &mut Reader<'a>) -> Result<Told<'a>, Damage> {
    Ok(match reader.small::<u8>()? {
        0 => Told::Nothing,
        1 => Told::Request {
            call: served(reader)?,
            method: reader.small()?,
            one_way: reader.flag()?,
            priority: signed(reader)?,
            codec: reader.small()?,
            kind: kind(reader)?,
            deadline: instant(reader)?,
            len: reader.number()?,
            digest: reader.small()?,
        },
        2 => Told::Done { len: reader.number()?, digest: reader.small()?, rest: reader.number()? },
        3 => Told::Other(reader.text()?),
        _ => return Err(reader.damage("an unknown event")),
    })
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
        counters(&mut stats).map(|counter| *counter)
    }
}

/// All counters, in the order in which they are written down.
fn counters(stats: &mut Stats) -> [&mut u64; 15] {
    let Stats { octets_in, octets_out, frames_in, frames_out, calls_out, calls_in, refused, .. } = stats;
    let Stats { late_frames, dropped_one_ways, heartbeats_out, heartbeats_in, .. } = stats;
    let Stats { signature_mismatches, items_out, items_in, octets_saved, .. } = stats;
    [
        octets_in,
        octets_out,
        frames_in,
        frames_out,
        calls_out,
        calls_in,
        refused,
        late_frames,
        dropped_one_ways,
        heartbeats_out,
        heartbeats_in,
        signature_mismatches,
        items_out,
        items_in,
        octets_saved,
    ]
}

fn mark<'a>(reader: &mut Reader<'a>) -> Result<Mark<'a>, Damage> {
    let now = Instant::from_nanos(reader.number()?);
    let phase = reader.text()?;
    let open = (reader.number()?, reader.number()?);
    let highest = (reader.number()?, reader.number()?);
    let unsent = reader.number()?;
    let mut stats = Stats::default();
    for counter in counters(&mut stats) {
        *counter = reader.number()?;
    }
    let places = [(reader.octets()?, reader.number()?), (reader.octets()?, reader.number()?)];
    Ok(Mark { now, phase, open, highest, unsent, stats, places })
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
            Self::Cancel { call, found } => {
                put_call(*call, out);
                put(u8::from(*found), out);
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
            Self::Transmit { room, pieces, digest } => {
                put(*room, out);
                put(*digest, out);
                put_octets(pieces.0, out);
            }
            Self::Mark(mark) => mark.put(out),
        }
    }

    /// Reads what [`put`](Self::put) wrote: the nanoseconds since the entry before, and the entry.
    pub(crate) fn read(octets: &'a [u8]) -> Result<(u64, Self), Damage> {
        let mut reader = Reader::new(octets);
        let of = &mut reader;
        let (number, since) = (of.small::<u8>()?, of.number()?);
        let entry = match number {
            1 => Self::Input(pieces(of)?),
            2 => Self::Sent(of.number()?),
            3 => {
                let (failed, what) = (of.flag()?, of.text()?);
                Self::Disconnect(failed.then_some(what))
            }
            4 => Self::Timeout,
            5 => {
                let mut head = CallHead::new(of.text()?);
                let one_way = of.flag()?;
                head.deadline = instant(of)?;
                head.priority = signed(of)?;
                head.codec = of.small()?;
                head.fingerprint = of.number()?;
                let metadata = metadata(of)?;
                head.trace = of.octets()?;
                let (has_parent, parent) = (of.flag()?, served(of)?);
                head.parent = has_parent.then_some(parent);
                head.kind = kind(of)?;
                head.credit = of.number()?.checked_sub(1).and_then(|credit| u32::try_from(credit).ok());
                head.ordering_key = of.octets()?;
                head.compress = of.flag()?;
                let body = given(of)?;
                let (error, id) = (error(of, &REJECTIONS)?, call(of)?);
                Self::Call { head, metadata, one_way, body, result: error.map_or(Ok(id), Err) }
            }
            6 => Self::Cancel { call: call(of)?, found: of.flag()? },
            7 => Self::Reply {
                how: error(of, &HOWS)?.unwrap_or(How::Reply),
                call: served(of)?,
                answer: Answered {
                    status: status(of)?,
                    message: of.text()?,
                    code: of.small()?,
                    retry_after: duration(of)?,
                    owner: of.text()?,
                    metadata: metadata(of)?,
                },
                body: given(of)?,
                result: result(of, &REPLY_ERRORS)?,
            },
            8 => Self::SendItem { stream: stream(of)?, body: given(of)?, result: result(of, &ITEM_ERRORS)? },
            9 => Self::EndItems { call: call(of)?, result: result(of, &ITEM_ERRORS)? },
            10 => Self::TakeItem {
                stream: stream(of)?,
                found: match of.small::<u8>()? {
                    0 => Found::Nothing,
                    1 => Found::End,
                    2 => Found::Item { len: of.number()?, digest: of.small()? },
                    _ => return Err(of.damage("an unknown item")),
                },
            },
            11 => Self::Grant { stream: stream(of)?, octets: of.small()? },
            12 => Self::Accept,
            13 => Self::Refuse { status: status(of)?, message: of.text()?, retry_after: duration(of)? },
            14 => Self::Probe(of.flag()?),
            15 => Self::Drain {
                status: status(of)?,
                grace: Duration::from_nanos(of.number()?),
                message: of.text()?,
            },
            16 => Self::Close { status: status(of)?, message: of.text()? },
            17 => Self::Event(told(of)?),
            18 => Self::Transmit { room: of.number()?, digest: of.small()?, pieces: pieces(of)? },
            19 => Self::Mark(mark(of)?),
            20 => Self::Lost(of.number()?),
            _ => return Err(Damage { at: 0, what: "an unknown kind of entry" }),
        };
        if !reader.is_empty() {
            return Err(reader.damage("an entry is longer than its fields"));
        }
        Ok((since, entry))
    }
}

fn pieces<'a>(reader: &mut Reader<'a>) -> Result<Pieces<'a>, Damage> {
    Pieces(reader.octets()?).check()
}

/// Splits entries that stand one behind the other: where each begins, and its octets.
pub(crate) fn entries(octets: &[u8]) -> impl Iterator<Item = Result<(usize, &[u8]), Damage>> {
    let mut reader = Reader::new(octets);
    let mut damaged = false;
    core::iter::from_fn(move || {
        if damaged || reader.is_empty() {
            return None;
        }
        let entry = reader.octets();
        damaged = entry.is_err();
        Some(entry.map(|entry| (reader.at().saturating_sub(entry.len()), entry)))
    })
}
