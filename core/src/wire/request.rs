//! The envelope of REQUEST and ONE_WAY (protocol §5).

use alloc::vec::Vec;

use super::call::Metadata;
use super::fault::EnvelopeError;
use super::proto::{Bad, Reader, len_tag, put, sum, varint_tag};
use super::repeated::Repeated;
use super::varint;

const METHOD: u64 = varint_tag(1);
const METHOD_NAME: u64 = len_tag(2);
const TIMEOUT_US: u64 = varint_tag(3);
const ORDERING_KEY: u64 = len_tag(4);
const PRIORITY: u64 = varint_tag(5);
const METADATA: u32 = 6;
const METADATUM: u64 = len_tag(METADATA);
const CODEC: u64 = varint_tag(7);
const KIND: u64 = varint_tag(8);
const CREDIT: u64 = varint_tag(9);
const TRACE: u64 = len_tag(10);
const TOTAL: u64 = varint_tag(15);

/// Tags of fields below 16 are one octet, the same as their number.
const METHOD_OCTET: u8 = low(METHOD);
const TIMEOUT_OCTET: u8 = low(TIMEOUT_US);
const CODEC_OCTET: u8 = low(CODEC);

const fn low(tag: u64) -> u8 {
    let [low, ..] = tag.to_le_bytes();
    low
}

/// What is asked. The argument is the payload.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Request<'a> {
    /// The method's id in the callee's table; 0 = by name.
    pub method: u32,
    /// `package.Service/Method`; empty if `method` is not 0.
    pub method_name: &'a str,
    /// What the caller has left, in microseconds from the reading of the header; 0 = expired;
    /// `None` or above 2^53 = no deadline.
    pub timeout_us: Option<u64>,
    /// Calls with one key run one after the other; at most 64 octets; empty = none.
    pub ordering_key: &'a [u8],
    /// −1 background, 0, 1; others are read as if clamped.
    pub priority: i32,
    /// What travels beside the argument; at most 64, keys as
    /// [`is_metadata_key`](super::is_metadata_key) has them.
    pub metadata: Repeated<'a, Metadata<'a>>,
    /// Of argument, items and result: 0 raw, 1 protobuf, 2 JSON, 3 postcard, 64 and above the
    /// application's.
    pub codec: u32,
    /// Which directions stream; see [`Kind::from_wire`](super::Kind::from_wire).
    pub kind: u32,
    /// The initial credit for items sent to the caller on this call, in octets; `None` = its
    /// `stream_window`.
    pub credit: Option<u32>,
    /// W3C trace context: version 1, trace id 16, parent id 8, flags 1 octet; empty = none.
    pub trace: &'a [u8],
    /// Octets of the payload as sent, if it is fragmented; else 0.
    pub total: u64,
}

impl<'a> Request<'a> {
    /// Reads the envelope, all metadata included. Bounds, and fields that contradict each other,
    /// are for the callee to judge.
    ///
    /// # Errors
    ///
    /// [`EnvelopeError`] if it does not decode (protocol §1).
    #[inline]
    pub fn parse(envelope: &'a [u8]) -> Result<Self, EnvelopeError> {
        let mut it = Self::default();
        // Nearly every request is these three fields, in this order and short. They are taken by
        // their first octet; whatever comes instead, or after, is for the loop.
        let mut rest = envelope;
        if let [METHOD_OCTET, id @ ..=0x7f, after @ ..] = rest {
            it.method = u32::from(*id);
            rest = after;
        }
        if let [TIMEOUT_OCTET, after @ ..] = rest {
            let mut after = after;
            if let Ok(us) = varint::take(&mut after) {
                it.timeout_us = Some(us);
                rest = after;
            }
        }
        if let [CODEC_OCTET, codec @ ..=0x7f, after @ ..] = rest {
            it.codec = u32::from(*codec);
            rest = after;
        }
        if !rest.is_empty() {
            let read = it.read(&mut Reader::new(rest));
            read.map_err(|bad| bad.within(envelope))?;
        }
        Ok(it)
    }

    #[inline(never)]
    fn read(&mut self, reader: &mut Reader<'a>) -> Result<(), Bad> {
        while let Some(tag) = reader.tag()? {
            match tag {
                METHOD => self.method = reader.uint32()?,
                METHOD_NAME => self.method_name = reader.string()?,
                TIMEOUT_US => self.timeout_us = Some(reader.varint()?),
                ORDERING_KEY => self.ordering_key = reader.bytes()?,
                PRIORITY => self.priority = reader.sint32()?,
                METADATUM => Metadata::note(&mut self.metadata, METADATA, reader)?,
                CODEC => self.codec = reader.uint32()?,
                KIND => self.kind = reader.uint32()?,
                CREDIT => self.credit = Some(reader.uint32()?),
                TRACE => self.trace = reader.bytes()?,
                TOTAL => self.total = reader.varint()?,
                _ => reader.skip(tag)?,
            }
        }
        Ok(())
    }

    /// How many octets [`Request::emit`] writes.
    #[inline]
    #[must_use]
    pub fn encoded_len(&self) -> usize {
        let usual = sum![
            put::len_uint(METHOD, u64::from(self.method)),
            self.timeout_us.map_or(0, |us| put::len_uint_always(TIMEOUT_US, us)),
            put::len_uint(CODEC, u64::from(self.codec)),
        ];
        if self.is_plain() { usual } else { usual.saturating_add(self.unusual_len()) }
    }

    #[inline(never)]
    fn unusual_len(&self) -> usize {
        sum![
            put::len_bytes(METHOD_NAME, self.method_name.as_bytes()),
            put::len_bytes(ORDERING_KEY, self.ordering_key),
            put::len_sint32(PRIORITY, self.priority),
            self.metadata.encoded_len(METADATUM),
            put::len_uint(KIND, enumeration(self.kind)),
            self.credit.map_or(0, |octets| put::len_uint_always(CREDIT, u64::from(octets))),
            put::len_bytes(TRACE, self.trace),
            put::len_uint(TOTAL, self.total),
        ]
    }

    /// Appends the envelope in its canonical form.
    #[inline]
    pub fn emit(&self, out: &mut Vec<u8>) {
        put::uint(out, METHOD, u64::from(self.method));
        if !self.is_plain() {
            return self.emit_after_method(out);
        }
        if let Some(us) = self.timeout_us {
            put::uint_always(out, TIMEOUT_US, us);
        }
        put::uint(out, CODEC, u64::from(self.codec));
    }

    #[inline(never)]
    fn emit_after_method(&self, out: &mut Vec<u8>) {
        put::bytes(out, METHOD_NAME, self.method_name.as_bytes());
        if let Some(us) = self.timeout_us {
            put::uint_always(out, TIMEOUT_US, us);
        }
        put::bytes(out, ORDERING_KEY, self.ordering_key);
        put::sint32(out, PRIORITY, self.priority);
        self.metadata.emit(METADATUM, out);
        put::uint(out, CODEC, u64::from(self.codec));
        put::uint(out, KIND, enumeration(self.kind));
        if let Some(octets) = self.credit {
            put::uint_always(out, CREDIT, u64::from(octets));
        }
        put::bytes(out, TRACE, self.trace);
        put::uint(out, TOTAL, self.total);
    }

    /// Whether there is nothing but method, deadline and codec: the usual call, for which the
    /// eight other fields are asked for at once. Gathered with `|`, so that it is one branch.
    #[inline]
    fn is_plain(&self) -> bool {
        let lengths = self.method_name.len() | self.ordering_key.len() | self.trace.len();
        let numbers = self.priority.cast_unsigned() | self.kind;
        (lengths | self.metadata.hint()) == 0
            && (u64::from(numbers) | self.total) == 0
            && self.credit.is_none()
    }
}

/// A number of an enumeration as protobuf writes it: a negative one has its sign extended.
#[inline]
const fn enumeration(kind: u32) -> u64 {
    (kind.cast_signed() as i64).cast_unsigned()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use alloc::vec;

    use super::*;
    use crate::wire::{Kind, Malformed};

    #[test]
    fn every_field_has_its_number() {
        let metadata = [Metadata { key: "k", value: &[0xff] }];
        let request = Request {
            method: 1,
            method_name: "a/b",
            timeout_us: Some(0),
            ordering_key: &[4],
            priority: -1,
            metadata: Repeated::from(&metadata),
            codec: 7,
            kind: Kind::Bidi.to_wire(),
            credit: Some(0),
            trace: &[10],
            total: 300,
        };
        let expected = [
            0x08, 1, 0x12, 3, b'a', b'/', b'b', 0x18, 0, 0x22, 1, 4, 0x28, 1, 0x32, 6, 0x0a, 1, b'k', 0x12,
            1, 0xff, 0x38, 7, 0x40, 3, 0x48, 0, 0x52, 1, 10, 0x78, 0xac, 2,
        ];
        let mut out = vec![];
        request.emit(&mut out);
        assert_eq!(out, expected);
        assert_eq!(request.encoded_len(), expected.len());
        assert_eq!(Request::parse(&out).unwrap(), request);
    }

    /// The usual three fields are read by another way; it must agree with the loop in all.
    #[test]
    fn the_short_way_agrees_with_the_long_one() {
        fn long(envelope: &[u8]) -> Result<Request<'_>, EnvelopeError> {
            let mut request = Request::default();
            match request.read(&mut Reader::new(envelope)) {
                Ok(()) => Ok(request),
                Err(bad) => Err(bad.within(envelope)),
            }
        }
        for envelope in [
            &[0x08, 5, 0x18, 0xc0, 0x84, 0x3d, 0x38, 1][..],
            &[0x08, 0x85, 0x01, 0x18, 7],          // a longer id
            &[0x18, 7, 0x08, 5],                   // out of order
            &[0x38, 1, 0x18, 7],                   // out of order
            &[0x38, 0x81, 0x01],                   // a longer codec
            &[0x08, 5, 0x08, 6, 0x18, 1, 0x18, 2], // given twice
            &[0x88, 0x00, 5],                      // a longer tag
            &[0x08],
            &[0x08, 0x80],
            &[0x08, 5, 0x18],
            &[0x08, 5, 0x18, 0x80],
            &[0x18, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x01],
            &[0x08, 5, 0x18, 7, 0x38],
            &[0x08, 5, 0x18, 7, 0x38, 0x80],
            &[0x08, 5, 0x18, 7, 0x38, 1, 0x04],
            &[0x08, 5, 0x12, 1, 0xff],
        ] {
            assert_eq!(Request::parse(envelope), long(envelope), "{envelope:x?}");
        }
        let error = Request::parse(&[0x08, 5, 0x18, 7, 0x12, 1, 0xff]).unwrap_err();
        assert_eq!((error.malformed, error.offset), (Malformed::Utf8, 6));
    }

    #[test]
    fn a_negative_kind_is_written_as_protobuf_does() {
        let request = Request { kind: u32::MAX, ..Request::default() };
        let mut out = vec![];
        request.emit(&mut out);
        assert_eq!(out, [0x40, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1]);
        assert_eq!(Request::parse(&out).unwrap(), request);
    }
}
