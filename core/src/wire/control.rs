//! The envelopes of DRAIN and CLOSE (protocol §5). Their reasons are statuses, in the header.

use alloc::vec::Vec;

use super::fault::EnvelopeError;
use super::proto::{Bad, Reader, len_tag, put, sum, varint_tag};

const GRACE_MS: u64 = varint_tag(1);
const DRAIN_MESSAGE: u64 = len_tag(2);
const CLOSE_MESSAGE: u64 = len_tag(1);

/// The sender finishes what is open. The id in the header is the highest call that it accepts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Drain<'a> {
    /// How long it waits for open calls, in milliseconds.
    pub grace_ms: u32,
    /// Why, for a human. A peer's text: show it by [`Escaped`](super::Escaped).
    pub message: &'a str,
}

impl<'a> Drain<'a> {
    /// Reads the envelope.
    ///
    /// # Errors
    ///
    /// [`EnvelopeError`] if it does not decode (protocol §1).
    pub fn parse(envelope: &'a [u8]) -> Result<Self, EnvelopeError> {
        Self::read(&mut Reader::new(envelope)).map_err(|bad| bad.within(envelope))
    }

    fn read(reader: &mut Reader<'a>) -> Result<Self, Bad> {
        let mut drain = Self::default();
        while let Some(tag) = reader.tag()? {
            match tag {
                GRACE_MS => drain.grace_ms = reader.uint32()?,
                DRAIN_MESSAGE => drain.message = reader.string()?,
                _ => reader.skip(tag)?,
            }
        }
        Ok(drain)
    }

    /// How many octets [`Drain::emit`] writes.
    #[must_use]
    pub const fn encoded_len(&self) -> usize {
        sum![
            put::len_uint(GRACE_MS, self.grace_ms as u64),
            put::len_bytes(DRAIN_MESSAGE, self.message.as_bytes()),
        ]
    }

    /// Appends the envelope in its canonical form.
    pub fn emit(&self, out: &mut Vec<u8>) {
        put::uint(out, GRACE_MS, u64::from(self.grace_ms));
        put::bytes(out, DRAIN_MESSAGE, self.message.as_bytes());
    }
}

/// The connection ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Close<'a> {
    /// Why, for a human. A peer's text: show it by [`Escaped`](super::Escaped).
    pub message: &'a str,
}

impl<'a> Close<'a> {
    /// Reads the envelope.
    ///
    /// # Errors
    ///
    /// [`EnvelopeError`] if it does not decode (protocol §1).
    pub fn parse(envelope: &'a [u8]) -> Result<Self, EnvelopeError> {
        Self::read(&mut Reader::new(envelope)).map_err(|bad| bad.within(envelope))
    }

    fn read(reader: &mut Reader<'a>) -> Result<Self, Bad> {
        let mut close = Self::default();
        while let Some(tag) = reader.tag()? {
            match tag {
                CLOSE_MESSAGE => close.message = reader.string()?,
                _ => reader.skip(tag)?,
            }
        }
        Ok(close)
    }

    /// How many octets [`Close::emit`] writes.
    #[must_use]
    pub const fn encoded_len(&self) -> usize {
        put::len_bytes(CLOSE_MESSAGE, self.message.as_bytes())
    }

    /// Appends the envelope in its canonical form.
    pub fn emit(&self, out: &mut Vec<u8>) {
        put::bytes(out, CLOSE_MESSAGE, self.message.as_bytes());
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use alloc::vec;

    use super::*;

    #[test]
    fn fields_have_their_numbers() {
        let drain = Drain { grace_ms: 300, message: "d" };
        let mut out = vec![];
        drain.emit(&mut out);
        assert_eq!(out, [0x08, 0xac, 2, 0x12, 1, b'd']);
        assert_eq!((Drain::parse(&out).unwrap(), drain.encoded_len()), (drain, 6));

        let close = Close { message: "c" };
        let mut out = vec![];
        close.emit(&mut out);
        assert_eq!(out, [0x0a, 1, b'c']);
        assert_eq!((Close::parse(&out).unwrap(), close.encoded_len()), (close, 3));
    }

    #[test]
    fn texts_are_utf8() {
        assert_eq!(Drain::parse(&[0x12, 1, 0xff]).unwrap_err().offset, 2);
        assert_eq!(Close::parse(&[0x0a, 1, 0xff]).unwrap_err().offset, 2);
    }
}
