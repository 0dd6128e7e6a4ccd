//! One whole frame, read and written without state.
//!
//! For tools, golden vectors and fuzzing. A connection does the same in steps of its own, since
//! it must act on a header before the body is there.

use alloc::vec::Vec;

use super::body::Parts;
use super::check_in::{CheckIn, CheckInAck};
use super::control::{Close, Drain};
use super::fault::{EnvelopeError, Fault, What};
use super::frame_type::{Body, FrameType};
use super::header::{AT_BODY, AT_LEN, AT_TYPE, HEADER_LEN, Header};
use super::request::Request;
use super::response::Response;
use super::stream::{Credit, Item};
use super::table::Table;
use super::varint;

/// A frame, borrowed from the octets that it was read from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Frame<'a> {
    /// The header. [`Frame::emit`] computes its `len`.
    pub header: Header,
    /// The envelope that the type asks for.
    pub envelope: Envelope<'a>,
    /// The payload; for CONTINUATION and the types 80–FF the whole body.
    pub payload: &'a [u8],
}

/// The envelope of a frame. [`Envelope::Request`] is that of REQUEST and of ONE_WAY.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Envelope<'a> {
    /// The type has none: 03, 04, 08, 0A, 0C and 80–FF.
    #[default]
    None,
    /// Of CHECK_IN.
    CheckIn(CheckIn<'a>),
    /// Of CHECK_IN_ACK.
    CheckInAck(CheckInAck<'a>),
    /// Of REQUEST and ONE_WAY.
    Request(Request<'a>),
    /// Of RESPONSE.
    Response(Response<'a>),
    /// Of STREAM_ITEM.
    Item(Item),
    /// Of CREDIT.
    Credit(Credit),
    /// Of DRAIN.
    Drain(Drain<'a>),
    /// Of CLOSE.
    Close(Close<'a>),
    /// Of TABLE.
    Table(Table<'a>),
}

impl<'a> Frame<'a> {
    /// Reads the frame at the front of `octets` and says how long it is. `None`: it is not whole
    /// yet, and so far nothing is wrong.
    ///
    /// A fault is reported as soon as it can be decided: of magic and version at the octet that
    /// differs, of the rest of the header once it is whole, of the body once that is whole.
    /// `max_body` is the longest body that is read, as [`Header::check_len`] has it.
    ///
    /// # Errors
    ///
    /// The first [`Fault`] in the order magic, version, body length, type, flags, id, status,
    /// body, envelope length, envelope, payload.
    pub fn parse(octets: &'a [u8], max_body: u32) -> Result<Option<(Self, usize)>, Fault> {
        let Some((head, rest)) = octets.split_first_chunk() else {
            return Header::check_prefix(octets).map(|()| None);
        };
        let header = Header::parse(head)?;
        header.check_len(max_body)?;
        header.validate()?;
        let len = usize::try_from(header.len).unwrap_or(usize::MAX);
        let Some(body) = rest.get(..len) else {
            return Ok(None);
        };
        let (envelope, payload) = read_body(header.frame_type, body)?;
        let frame = Self { header, envelope, payload };
        Ok(Some((frame, HEADER_LEN.saturating_add(len))))
    }

    /// Appends the frame in its canonical form; `header.len` is computed, and an empty envelope
    /// with an empty payload is no body at all.
    ///
    /// # Errors
    ///
    /// The [`Fault`] that a reader would find, so that no frame leaves that this crate itself
    /// would refuse; [`What::Type`] also if the envelope is another type's, [`What::TooLong`] if
    /// the body's length does not fit its field. Nothing is appended then.
    pub fn emit(&self, out: &mut Vec<u8>) -> Result<(), Fault> {
        let frame_type = self.header.frame_type;
        let layout = layout(frame_type);
        if !self.envelope.belongs_to(frame_type) {
            return Err(Fault::at(AT_TYPE, What::Type(frame_type.0)));
        }
        let envelope_len = self.envelope.encoded_len();
        let prefix_len = match layout {
            Body::Payload => 0,
            _ if envelope_len == 0 && self.payload.is_empty() => 0,
            _ => varint::len(envelope_len as u64),
        };
        let head_len = prefix_len.saturating_add(envelope_len);
        let body_len = head_len.saturating_add(self.payload.len());
        let Ok(len) = u32::try_from(body_len) else {
            let (len, max) = (u32::MAX, u32::MAX);
            return Err(Fault::at(AT_LEN, What::TooLong { len, max }));
        };
        let header = Header { len, ..self.header };
        header.validate()?;
        if layout == Body::Envelope && !self.payload.is_empty() {
            return Err(payload_fault(head_len));
        }
        out.reserve(HEADER_LEN.saturating_add(body_len));
        out.extend_from_slice(&header.emit());
        if prefix_len != 0 {
            varint::put(envelope_len as u64, out);
        }
        self.envelope.emit(out);
        out.extend_from_slice(self.payload);
        Ok(())
    }
}

fn layout(frame_type: FrameType) -> Body {
    frame_type.rule().map_or(Body::Payload, |rule| rule.body)
}

fn read_body(frame_type: FrameType, body: &[u8]) -> Result<(Envelope<'_>, &[u8]), Fault> {
    let layout = layout(frame_type);
    if matches!(layout, Body::None | Body::Payload) {
        return Ok((Envelope::None, body));
    }
    let Parts { envelope, payload } = Parts::split(body)?;
    let head_len = body.len().saturating_sub(payload.len());
    let read = Envelope::parse(frame_type, envelope).map_err(|error| {
        let start = offset(head_len.saturating_sub(envelope.len()));
        Fault::at(start.saturating_add(error.offset), What::Envelope(error.malformed))
    })?;
    if layout == Body::Envelope && !payload.is_empty() {
        return Err(payload_fault(head_len));
    }
    Ok((read, payload))
}

fn payload_fault(head_len: usize) -> Fault {
    Fault::at(offset(head_len), What::Payload)
}

/// An offset in the frame, from one in the body.
fn offset(in_body: usize) -> u32 {
    u32::try_from(in_body).unwrap_or(u32::MAX).saturating_add(AT_BODY)
}

impl<'a> Envelope<'a> {
    fn parse(frame_type: FrameType, octets: &'a [u8]) -> Result<Self, EnvelopeError> {
        Ok(match frame_type {
            FrameType::CHECK_IN => Self::CheckIn(CheckIn::parse(octets)?),
            FrameType::CHECK_IN_ACK => Self::CheckInAck(CheckInAck::parse(octets)?),
            FrameType::REQUEST | FrameType::ONE_WAY => Self::Request(Request::parse(octets)?),
            FrameType::RESPONSE => Self::Response(Response::parse(octets)?),
            FrameType::STREAM_ITEM => Self::Item(Item::parse(octets)?),
            FrameType::CREDIT => Self::Credit(Credit::parse(octets)?),
            FrameType::DRAIN => Self::Drain(Drain::parse(octets)?),
            FrameType::CLOSE => Self::Close(Close::parse(octets)?),
            FrameType::TABLE => Self::Table(Table::parse(octets)?),
            _ => Self::None,
        })
    }

    const fn belongs_to(&self, frame_type: FrameType) -> bool {
        match frame_type {
            FrameType::CHECK_IN => matches!(self, Self::CheckIn(_)),
            FrameType::CHECK_IN_ACK => matches!(self, Self::CheckInAck(_)),
            FrameType::REQUEST | FrameType::ONE_WAY => matches!(self, Self::Request(_)),
            FrameType::RESPONSE => matches!(self, Self::Response(_)),
            FrameType::STREAM_ITEM => matches!(self, Self::Item(_)),
            FrameType::CREDIT => matches!(self, Self::Credit(_)),
            FrameType::DRAIN => matches!(self, Self::Drain(_)),
            FrameType::CLOSE => matches!(self, Self::Close(_)),
            FrameType::TABLE => matches!(self, Self::Table(_)),
            _ => matches!(self, Self::None),
        }
    }

    /// How many octets [`Envelope::emit`] writes.
    #[must_use]
    pub fn encoded_len(&self) -> usize {
        match self {
            Self::None => 0,
            Self::CheckIn(it) => it.encoded_len(),
            Self::CheckInAck(it) => it.encoded_len(),
            Self::Request(it) => it.encoded_len(),
            Self::Response(it) => it.encoded_len(),
            Self::Item(it) => it.encoded_len(),
            Self::Credit(it) => it.encoded_len(),
            Self::Drain(it) => it.encoded_len(),
            Self::Close(it) => it.encoded_len(),
            Self::Table(it) => it.encoded_len(),
        }
    }

    /// Appends the envelope in its canonical form, without the length before it.
    pub fn emit(&self, out: &mut Vec<u8>) {
        match self {
            Self::None => {}
            Self::CheckIn(it) => it.emit(out),
            Self::CheckInAck(it) => it.emit(out),
            Self::Request(it) => it.emit(out),
            Self::Response(it) => it.emit(out),
            Self::Item(it) => it.emit(out),
            Self::Credit(it) => it.emit(out),
            Self::Drain(it) => it.emit(out),
            Self::Close(it) => it.emit(out),
            Self::Table(it) => it.emit(out),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]

    use alloc::vec;

    use super::*;
    use crate::wire::{Flags, Malformed, Status};

    const MAX: u32 = 65_536;

    fn header(frame_type: FrameType, id: u64) -> Header {
        Header { frame_type, flags: Flags::NONE, status: Status::OK, id, len: 0 }
    }

    /// A frame by hand: header of `frame_type`, id 1 or 0, and `body`.
    fn octets(frame_type: FrameType, body: &[u8]) -> Vec<u8> {
        let id = u64::from((5..=12).contains(&frame_type.0));
        let len = u32::try_from(body.len()).unwrap();
        [&Header { len, ..header(frame_type, id) }.emit()[..], body].concat()
    }

    fn fault(octets: &[u8]) -> (What, u32) {
        let fault = Frame::parse(octets, MAX).unwrap_err();
        (fault.what, fault.offset)
    }

    #[test]
    fn a_heartbeat_is_18_octets() {
        let frame =
            Frame { header: header(FrameType::HEARTBEAT, u64::MAX), envelope: Envelope::None, payload: &[] };
        let mut out = vec![];
        frame.emit(&mut out).unwrap();
        assert_eq!(out, Header { ..frame.header }.emit());
        assert_eq!(Frame::parse(&out, 0), Ok(Some((frame, 18))));
    }

    #[test]
    fn what_follows_a_frame_is_left_alone() {
        let mut input = octets(FrameType::REQUEST, &[2, 0x08, 7, b'x']);
        let len = input.len();
        input.extend([0xff; 40]);
        let (frame, used) = Frame::parse(&input, MAX).unwrap().unwrap();
        assert_eq!((frame.payload, used), (&b"x"[..], len));
        let method = Request { method: 7, ..Request::default() };
        assert_eq!(frame.envelope, Envelope::Request(method));
    }

    #[test]
    fn continuations_and_extensions_are_payload_alone() {
        for frame_type in [FrameType::CONTINUATION, FrameType(0x80), FrameType(0xff)] {
            let body = [0xff; 7];
            let input = octets(frame_type, &body);
            let (frame, used) = Frame::parse(&input, MAX).unwrap().unwrap();
            assert_eq!((frame.envelope, frame.payload, used), (Envelope::None, &body[..], 25));
            let mut out = vec![];
            frame.emit(&mut out).unwrap();
            assert_eq!(out, input);
        }
    }

    #[test]
    fn an_envelope_alone_keeps_its_length_and_nothing_has_none() {
        let credit = |octets| Frame {
            header: header(FrameType::CREDIT, 1),
            envelope: Envelope::Credit(Credit { octets }),
            payload: &[],
        };
        let mut out = vec![];
        credit(5).emit(&mut out).unwrap();
        assert_eq!(out[14..], [0, 0, 0, 3, 2, 0x08, 5]);
        let mut out = vec![];
        credit(0).emit(&mut out).unwrap();
        assert_eq!(out[14..], [0, 0, 0, 0]);
        // A payload without an envelope still needs the length 0 before it.
        let item = Frame {
            header: header(FrameType::STREAM_ITEM, 1),
            envelope: Envelope::Item(Item::default()),
            payload: b"x",
        };
        let mut out = vec![];
        item.emit(&mut out).unwrap();
        assert_eq!(out[14..], [0, 0, 0, 2, 0, b'x']);
    }

    #[test]
    fn a_body_is_checked_from_front_to_back() {
        let close = |body: &[u8]| fault(&octets(FrameType::CLOSE, body));
        assert_eq!(close(&[9, 0]), (What::EnvelopeLength, 18));
        assert_eq!(close(&[3, 0x0a, 1, 0xff]), (What::Envelope(Malformed::Utf8), 21));
        assert_eq!(close(&[0x83, 0, 0x0a, 1, 0xff]), (What::Envelope(Malformed::Utf8), 22));
        assert_eq!(close(&[1, 0x08, 5]), (What::Envelope(Malformed::Truncated), 20));
        assert_eq!(close(&[0, 5]), (What::Payload, 19));
        assert_eq!(close(&[3, 0x0a, 1, b'c', 5]), (What::Payload, 22));
    }

    #[test]
    fn the_header_alone_decides_before_any_body_is_awaited() {
        let request = header(FrameType::REQUEST, 1);
        let too_long = Header { len: MAX + 1, flags: Flags(0x40), ..request }.emit();
        assert_eq!(fault(&too_long), (What::TooLong { len: MAX + 1, max: MAX }, 14));
        assert_eq!(fault(&Header { flags: Flags(0x40), len: 9, ..request }.emit()).1, 4);
        assert_eq!(fault(&Header { len: 9, ..header(FrameType::HEARTBEAT, 0) }.emit()).1, 14);
        assert_eq!(Frame::parse(&Header { len: 9, ..request }.emit(), MAX), Ok(None));
        // Length before type: an unknown type might be one that this side is to skip.
        let unknown = Header { len: MAX + 1, ..header(FrameType(0x10), 0) }.emit();
        assert_eq!(fault(&unknown).1, 14);
    }

    #[test]
    fn emit_refuses_what_parse_would() {
        let mut out = vec![];
        let mut emit = |frame: Frame<'_>| {
            let fault = frame.emit(&mut out).unwrap_err();
            assert!(out.is_empty());
            (fault.what, fault.offset)
        };
        let close = Frame {
            header: header(FrameType::CLOSE, 0),
            envelope: Envelope::Close(Close { message: "m" }),
            payload: &[],
        };
        assert_eq!(emit(Frame { payload: b"x", ..close }), (What::Payload, 22));
        let other = Frame { envelope: Envelope::None, ..close };
        assert_eq!(emit(other), (What::Type(0x0e), 3));
        let named = Frame { header: header(FrameType::CLOSE, 1), ..close };
        assert_eq!(emit(named), (What::Id, 6));
        let beat = Frame { header: header(FrameType::HEARTBEAT, 1), envelope: Envelope::None, payload: b"x" };
        assert_eq!(emit(beat), (What::Body, 14));
    }
}
