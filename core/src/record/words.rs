//! Recordings in words: entries, and the frames in them. All text that may be a peer's is escaped.

use alloc::{borrow::Cow, string::String};
use core::fmt::{self, Display, Formatter, Write};

use super::entry::{Entry, Found, Given, How, Mark, Told};
use crate::{
    conn::{CallId, Served, Stream},
    wire::{Envelope, Escaped, Flags, Frame, FrameType, Kind, Metadata, Ran},
};

/// A call by the name that the application knows: its place and how often that was taken before.
pub(crate) struct Name(pub(crate) Stream);

impl Display for Name {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self.0 {
            Stream::Ours(CallId { slot, generation }) => write!(f, "call {slot}.{generation} of this side"),
            Stream::Theirs(Served { slot, generation }) => write!(f, "call {slot}.{generation} of the peer"),
        }
    }
}

/// Words that the core wrote: as they are, but for what could steer a terminal.
pub(super) struct Safe<'a>(pub(super) &'a str);

impl Display for Safe<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        self.0.chars().try_for_each(|c| match c {
            '"' | '\'' | '\\' => f.write_char(c),
            _ => write!(f, "{}", c.escape_debug()),
        })
    }
}

impl Display for Given<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        payload(f, self.kept, self.len)
    }
}

/// The beginning of a payload, and how long it is.
fn payload(f: &mut Formatter<'_>, kept: &[u8], len: usize) -> fmt::Result {
    const SHOWN: usize = 32;
    write!(f, "{len} octets")?;
    match kept.get(..SHOWN) {
        _ if kept.is_empty() => Ok(()),
        Some(start) => write!(f, " \"{}…\"", Escaped(start)),
        None if kept.len() < len => write!(f, " \"{}…\"", Escaped(kept)),
        None => write!(f, " \"{}\"", Escaped(kept)),
    }
}

/// A message behind a colon, if there is one.
fn message(f: &mut Formatter<'_>, text: &str) -> fmt::Result {
    if text.is_empty() { Ok(()) } else { write!(f, ": {}", Escaped::from(text)) }
}

fn outcome<T, E: Display>(f: &mut Formatter<'_>, result: &Result<T, E>) -> fmt::Result {
    match result {
        Ok(_) => Ok(()),
        Err(error) => write!(f, "; refused: {error}"),
    }
}

fn metadata(f: &mut Formatter<'_>, all: impl Iterator<Item = (String, usize)>) -> fmt::Result {
    for (key, octets) in all {
        write!(f, ", metadata {} of {octets} octets", Escaped::from(key.as_str()))?;
    }
    Ok(())
}

fn owned(one: Metadata<'_>) -> (String, usize) {
    (one.key.into(), one.value.len())
}

fn kind(kind: Kind) -> &'static str {
    match kind {
        Kind::Unary => "unary",
        Kind::ServerStream => "with items of the responder",
        Kind::ClientStream => "with items of the requester",
        Kind::Bidi => "with items both ways",
    }
}

impl Display for Told<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Nothing => f.write_str("no event"),
            Self::Request { call, method, one_way, kind: of, len, .. } => {
                let what = if *one_way { "one-way" } else { "call" };
                let name = Name((*call).into());
                write!(f, "event: a {what}, {name}, of method {method}, {}, {len} octets", kind(*of))
            }
            Self::Done { len, rest: 0, .. } => write!(f, "event: a call of this side is done, {len} octets"),
            Self::Done { len, rest, .. } => {
                write!(f, "event: a call of this side is done, {len} octets, {rest} items were not taken")
            }
            Self::Other(words) => write!(f, "event: {}", Safe(words)),
        }
    }
}

impl Display for Mark<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Self { phase, open, highest, unsent, stats, .. } = self;
        writeln!(f, "it stood in state {}, {} octets were not taken by the transport", Safe(phase), unsent)?;
        writeln!(f, "  open: {} calls of this side, {} of the peer", open.0, open.1)?;
        writeln!(f, "  highest ids: {} of this side, {} of the peer", highest.0, highest.1)?;
        write!(f, "  so far: ")?;
        write!(f, "{} octets and {} frames in, ", stats.octets_in, stats.frames_in)?;
        write!(f, "{} octets and {} frames out, ", stats.octets_out, stats.frames_out)?;
        write!(f, "{} calls in, {} calls out, {} refused, ", stats.calls_in, stats.calls_out, stats.refused)?;
        write!(f, "{} late frames, {} one-ways dropped", stats.late_frames, stats.dropped_one_ways)
    }
}

impl Display for Entry<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Input(pieces) => {
                let (octets, cut) = pieces.len();
                write!(f, "input: {octets} octets")?;
                if cut > 0 { write!(f, ", {cut} of them cut") } else { Ok(()) }
            }
            Self::Sent(octets) => write!(f, "the transport took {octets} octets"),
            Self::Disconnect(None) => f.write_str("the peer ended the stream"),
            Self::Disconnect(Some(what)) => write!(f, "the transport failed: {}", Escaped::from(*what)),
            Self::Timeout => f.write_str("the time has come"),
            Self::Call { head, metadata: all, one_way, body, result } => {
                let what = if *one_way { "one-way" } else { "call" };
                write!(f, "{what} of {}, {}, {body}", Escaped::from(head.method), kind(head.kind))?;
                if let Some(deadline) = head.deadline {
                    write!(f, ", until {deadline:?}")?;
                }
                if let Some(parent) = head.parent {
                    write!(f, ", for {}", Name(parent.into()))?;
                }
                if !head.ordering_key.is_empty() {
                    write!(f, ", key \"{}\"", Escaped(head.ordering_key))?;
                }
                metadata(f, all.iter().copied().map(owned))?;
                match result {
                    Ok(id) => write!(f, ": {}", Name((*id).into())),
                    Err(_) => outcome(f, result),
                }
            }
            Self::Cancel { call, ran } => {
                let what = match ran {
                    Some(Ran::No) => ", which has not run",
                    Some(Ran::Maybe | Ran::Yes) => ", which may have run",
                    None => ", whose outcome was fetched before",
                };
                write!(f, "cancel {}{what}", Name((*call).into()))
            }
            Self::Reply { how, call, answer, body, result } => {
                let verb = match how {
                    How::Reply => "reply to",
                    How::Refuse => "refuse",
                    How::Panicked => "the handler panicked of",
                };
                write!(f, "{verb} {}: {}, {body}", Name((*call).into()), answer.status)?;
                message(f, answer.message)?;
                metadata(f, answer.metadata.iter().copied().map(owned))?;
                outcome(f, result)
            }
            Self::SendItem { stream, body, result } => {
                write!(f, "send an item on {}, {body}", Name(*stream))?;
                outcome(f, result)
            }
            Self::EndItems { call, result } => {
                write!(f, "end the items of {}", Name((*call).into()))?;
                outcome(f, result)
            }
            Self::TakeItem { stream, found } => {
                write!(f, "take an item of {}: ", Name(*stream))?;
                match found {
                    Found::Nothing => f.write_str("there is none"),
                    Found::End => f.write_str("no more come"),
                    Found::Item { len, .. } => write!(f, "{len} octets"),
                }
            }
            Self::Grant { stream, octets } => write!(f, "grant {octets} octets to {}", Name(*stream)),
            Self::Accept => f.write_str("accept the check-in"),
            Self::Refuse { status, message: text, .. } => {
                write!(f, "refuse the check-in: {status}")?;
                message(f, text)
            }
            Self::Probe(true) => f.write_str("probe the peer"),
            Self::Probe(false) => f.write_str("probe the peer: not in this state"),
            Self::Drain { status, grace, message: text } => {
                write!(f, "drain within {grace:?}: {status}")?;
                message(f, text)
            }
            Self::Close { status, message: text } => {
                write!(f, "close: {status}")?;
                message(f, text)
            }
            Self::Event(told) => told.fmt(f),
            Self::Transmit { room, bulk, pieces, .. } => {
                let octets = pieces.len().0 as u64;
                write!(f, "commit: {octets} octets, where there was room for {room}")?;
                if octets > *room && bulk > room {
                    write!(f, ", or {bulk} of large messages")
                } else {
                    Ok(())
                }
            }
            Self::Mark(mark) => mark.fmt(f),
            Self::Lost(octets) => {
                write!(
                    f,
                    "a verb of about {octets} octets was too large to be recorded: the rest cannot be replayed"
                )
            }
        }
    }
}

/// A frame, header and body, in words.
pub(super) struct Framed<'a>(pub(super) &'a [u8]);

impl Display for Framed<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match Frame::parse(self.0, u32::MAX) {
            Ok(Some((frame, _))) => write_frame(f, &frame),
            Ok(None) => write!(f, "{} octets of a frame", self.0.len()),
            Err(fault) => {
                write!(f, "no frame that is allowed: {fault}; it begins with ")?;
                self.0.iter().take(18).try_for_each(|octet| write!(f, "{octet:02x}"))
            }
        }
    }
}

fn write_frame(f: &mut Formatter<'_>, frame: &Frame<'_>) -> fmt::Result {
    let Frame { header, envelope, payload: octets } = frame;
    write!(f, "{}", header.frame_type)?;
    if header.id != 0 {
        write!(f, " id {}", header.id)?;
    }
    if header.status.0 != 0 {
        write!(f, " {}", header.status)?;
    }
    if header.flags.contains(Flags::COMPRESSED) {
        f.write_str(" compressed")?;
    }
    if header.flags.contains(Flags::MORE) {
        f.write_str(" with more to follow")?;
    }
    write_envelope(f, envelope)?;
    let may_have_payload = matches!(
        header.frame_type,
        FrameType::REQUEST | FrameType::RESPONSE | FrameType::ONE_WAY | FrameType::STREAM_ITEM
    );
    if may_have_payload || !octets.is_empty() {
        // Zeros may stand for what was cut.
        let shown = octets.iter().rposition(|octet| *octet != 0).map_or(0, |last| last.saturating_add(1));
        f.write_str(", ")?;
        payload(f, octets.get(..shown).unwrap_or_default(), octets.len())?;
    }
    Ok(())
}

fn write_envelope(f: &mut Formatter<'_>, envelope: &Envelope<'_>) -> fmt::Result {
    match envelope {
        Envelope::None => Ok(()),
        Envelope::CheckIn(said) => {
            write!(
                f,
                " of \"{}\", heartbeats every {} ms",
                Escaped::from(said.identifier),
                said.heartbeat_interval_ms
            )?;
            write!(f, ", max_frame {}, max_message {}", said.max_frame, said.max_message)?;
            write!(f, ", serves {} calls at once", said.max_concurrent)?;
            match said.credential.len() {
                0 => Ok(()),
                octets => write!(f, ", a credential of {octets} octets, which is not recorded"),
            }
        }
        Envelope::CheckInAck(said) => {
            write!(
                f,
                " of \"{}\", heartbeats every {} ms",
                Escaped::from(said.identifier),
                said.heartbeat_interval_ms
            )?;
            write!(f, ", max_frame {}, max_message {}", said.max_frame, said.max_message)?;
            write!(f, ", serves {} calls at once", said.max_concurrent)?;
            message(f, said.message)
        }
        Envelope::Request(said) => {
            if said.method == 0 {
                write!(f, " of {}", Escaped::from(said.method_name))?;
            } else {
                write!(f, " of method id {}", said.method)?;
            }
            if let Some(us) = said.timeout_us {
                write!(f, ", {us} µs left")?;
            }
            if said.kind != 0 {
                let of =
                    Kind::from_wire(said.kind).map_or(Cow::from("of an unknown kind"), |of| kind(of).into());
                write!(f, ", {of}")?;
            }
            if !said.ordering_key.is_empty() {
                write!(f, ", key \"{}\"", Escaped(said.ordering_key))?;
            }
            if let Some(credit) = said.credit {
                write!(f, ", credit {credit}")?;
            }
            metadata(f, said.metadata.iter().map(owned))?;
            total(f, said.total)
        }
        Envelope::Response(said) => {
            message(f, said.message)?;
            if said.retry_after_ms > 0 {
                write!(f, ", try again in {} ms", said.retry_after_ms)?;
            }
            metadata(f, said.metadata.iter().map(owned))?;
            total(f, said.total)
        }
        Envelope::Item(said) => total(f, said.total),
        Envelope::Credit(said) => write!(f, " of {} octets", said.octets),
        Envelope::Drain(said) => {
            write!(f, " within {} ms", said.grace_ms)?;
            message(f, said.message)
        }
        Envelope::Close(said) => message(f, said.message),
        Envelope::Table(said) => {
            write!(f, " of {} methods", said.methods.len())?;
            for method in said.methods.iter().take(8) {
                write!(f, ", {} is {}", method.id, Escaped::from(method.name))?;
            }
            Ok(())
        }
    }
}

fn total(f: &mut Formatter<'_>, total: u64) -> fmt::Result {
    if total == 0 { Ok(()) } else { write!(f, ", the first of {total} octets") }
}
