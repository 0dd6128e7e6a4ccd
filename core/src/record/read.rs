//! Reading back what `put.rs` wrote, field by field in the same order. Nothing is believed: every number has its range, and
//! what does not decode has a place.

use alloc::{borrow::Cow, vec::Vec};
use core::time::Duration;

use super::{
    entry::{
        Answered, Entry, Found, Given, HOWS, How, ITEM_ERRORS, Mark, RANS, REJECTIONS, REPLY_ERRORS, Told,
    },
    ink::{Damage, Reader},
    pieces::{MOST, Pieces},
};
use crate::{
    conn::{CallHead, CallId, Served, Stats, Stream},
    time::Instant,
    wire::{Kind, Metadata, Status},
};

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

fn instant(reader: &mut Reader<'_>) -> Result<Option<Instant>, Damage> {
    let nanos = reader.number()?;
    Ok((nanos > 0).then(|| Instant::from_nanos(nanos)))
}

pub(super) fn duration(reader: &mut Reader<'_>) -> Result<Option<Duration>, Damage> {
    Ok(reader.number()?.checked_sub(1).map(Duration::from_nanos))
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

fn given<'a>(reader: &mut Reader<'a>) -> Result<Given<'a>, Damage> {
    let body = Given { len: reader.small()?, kept: reader.octets()? };
    if body.len as u64 > MOST || body.kept.len() > body.len {
        return Err(reader.damage("a body is longer than 64 MiB, or shorter than what is kept of it"));
    }
    Ok(body)
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

fn signed(reader: &mut Reader<'_>) -> Result<i8, Damage> {
    Ok(i8::from_le_bytes([reader.small()?]))
}

fn status(reader: &mut Reader<'_>) -> Result<Status, Damage> {
    Ok(Status(reader.small()?))
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

fn mark<'a>(reader: &mut Reader<'a>) -> Result<Mark<'a>, Damage> {
    let now = Instant::from_nanos(reader.number()?);
    let phase = reader.text()?;
    let open = (reader.number()?, reader.number()?);
    let highest = (reader.number()?, reader.number()?);
    let unsent = reader.number()?;
    let mut stats = Stats::default();
    for counter in stats.counters() {
        *counter = reader.number()?;
    }
    let places = [(reader.octets()?, reader.number()?), (reader.octets()?, reader.number()?)];
    Ok(Mark { now, phase, open, highest, unsent, stats, places })
}

impl<'a> Entry<'a> {
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
            6 => Self::Cancel { call: call(of)?, ran: error(of, &RANS)? },
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
            18 => Self::Transmit {
                room: of.number()?,
                bulk: of.number()?,
                digest: of.small()?,
                pieces: pieces(of)?,
            },
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
