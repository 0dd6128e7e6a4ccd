//! The envelope of RESPONSE (protocol §5).

use alloc::vec::Vec;

use super::call::Metadata;
use super::fault::EnvelopeError;
use super::proto::{Bad, Reader, len_tag, put, sum, varint_tag};
use super::repeated::Repeated;

const MESSAGE: u64 = len_tag(1);
const RETRY_AFTER_MS: u64 = varint_tag(2);
const METADATA: u32 = 3;
const METADATUM: u64 = len_tag(METADATA);
const OWNER: u64 = len_tag(4);
const CODE: u64 = varint_tag(5);
const TOTAL: u64 = varint_tag(15);

/// What came of a call, beside the status in the header. The result, or the detail of an error,
/// is the payload.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Response<'a> {
    /// What went wrong, for a human. A peer's text: show it by [`Escaped`](super::Escaped).
    pub message: &'a str,
    /// When to try again at the earliest, in milliseconds; 0 = not said.
    pub retry_after_ms: u32,
    /// What travels beside the result; at most 64.
    pub metadata: Repeated<'a, Metadata<'a>>,
    /// The right node, with [`Status::WRONG_NODE`](super::Status::WRONG_NODE).
    pub owner: &'a str,
    /// The application's own code, with a status of class 6.
    pub code: u32,
    /// Octets of the payload as sent, if it is fragmented; else 0.
    pub total: u64,
}

impl<'a> Response<'a> {
    /// Reads the envelope, all metadata included.
    ///
    /// # Errors
    ///
    /// [`EnvelopeError`] if it does not decode (protocol §1).
    #[inline]
    pub fn parse(envelope: &'a [u8]) -> Result<Self, EnvelopeError> {
        let mut it = Self::default();
        // The answer to a call that went well has no envelope.
        if !envelope.is_empty() {
            let read = it.read(&mut Reader::new(envelope));
            read.map_err(|bad| bad.within(envelope))?;
        }
        Ok(it)
    }

    #[inline(never)]
    fn read(&mut self, reader: &mut Reader<'a>) -> Result<(), Bad> {
        while let Some(tag) = reader.tag()? {
            match tag {
                MESSAGE => self.message = reader.string()?,
                RETRY_AFTER_MS => self.retry_after_ms = reader.uint32()?,
                METADATUM => Metadata::note(&mut self.metadata, METADATA, reader)?,
                OWNER => self.owner = reader.string()?,
                CODE => self.code = reader.uint32()?,
                TOTAL => self.total = reader.varint()?,
                _ => reader.skip(tag)?,
            }
        }
        Ok(())
    }

    /// How many octets [`Response::emit`] writes.
    #[inline]
    #[must_use]
    pub fn encoded_len(&self) -> usize {
        if self.is_plain() { 0 } else { self.unusual_len() }
    }

    #[inline(never)]
    fn unusual_len(&self) -> usize {
        sum![
            put::len_bytes(MESSAGE, self.message.as_bytes()),
            put::len_uint(RETRY_AFTER_MS, u64::from(self.retry_after_ms)),
            self.metadata.encoded_len(METADATUM),
            put::len_bytes(OWNER, self.owner.as_bytes()),
            put::len_uint(CODE, u64::from(self.code)),
            put::len_uint(TOTAL, self.total),
        ]
    }

    /// Appends the envelope in its canonical form.
    #[inline]
    pub fn emit(&self, out: &mut Vec<u8>) {
        if !self.is_plain() {
            self.emit_unusual(out);
        }
    }

    #[inline(never)]
    fn emit_unusual(&self, out: &mut Vec<u8>) {
        put::bytes(out, MESSAGE, self.message.as_bytes());
        put::uint(out, RETRY_AFTER_MS, u64::from(self.retry_after_ms));
        self.metadata.emit(METADATUM, out);
        put::bytes(out, OWNER, self.owner.as_bytes());
        put::uint(out, CODE, u64::from(self.code));
        put::uint(out, TOTAL, self.total);
    }

    /// Whether every field is at its default: the usual answer. Gathered as in a request.
    #[inline]
    fn is_plain(&self) -> bool {
        let lengths = self.message.len() | self.owner.len() | self.metadata.hint();
        lengths == 0 && (u64::from(self.retry_after_ms | self.code) | self.total) == 0
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use alloc::vec;

    use super::*;

    #[test]
    fn every_field_has_its_number() {
        let metadata = [Metadata::default()];
        let response = Response {
            message: "m",
            retry_after_ms: 2,
            metadata: Repeated::from(&metadata),
            owner: "o",
            code: u32::MAX,
            total: 1,
        };
        let expected =
            [0x0a, 1, b'm', 0x10, 2, 0x1a, 0, 0x22, 1, b'o', 0x28, 0xff, 0xff, 0xff, 0xff, 0x0f, 0x78, 1];
        let mut out = vec![];
        response.emit(&mut out);
        assert_eq!(out, expected);
        assert_eq!(response.encoded_len(), expected.len());
        assert_eq!(Response::parse(&out).unwrap(), response);
        let mut out = vec![];
        Response::default().emit(&mut out);
        assert!(out.is_empty());
    }
}
