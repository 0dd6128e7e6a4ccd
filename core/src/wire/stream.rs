//! The envelopes of STREAM_ITEM and CREDIT (protocol §5, "Streams").

use alloc::vec::Vec;

use super::fault::EnvelopeError;
use super::proto::{Bad, Reader, put, varint_tag};

const TOTAL: u64 = varint_tag(15);
const OCTETS: u64 = varint_tag(1);

/// One item of a stream, which is the payload.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Item {
    /// Octets of the payload as sent, if it is fragmented; else 0.
    pub total: u64,
}

impl Item {
    /// Reads the envelope.
    ///
    /// # Errors
    ///
    /// [`EnvelopeError`] if it does not decode (protocol §1).
    #[inline]
    pub fn parse(envelope: &[u8]) -> Result<Self, EnvelopeError> {
        Self::read(&mut Reader::new(envelope)).map_err(|bad| bad.within(envelope))
    }

    #[inline]
    fn read(reader: &mut Reader<'_>) -> Result<Self, Bad> {
        let mut item = Self::default();
        while let Some(tag) = reader.tag()? {
            match tag {
                TOTAL => item.total = reader.varint()?,
                _ => reader.skip(tag)?,
            }
        }
        Ok(item)
    }

    /// How many octets [`Item::emit`] writes.
    #[inline]
    #[must_use]
    pub const fn encoded_len(&self) -> usize {
        put::len_uint(TOTAL, self.total)
    }

    /// Appends the envelope in its canonical form.
    #[inline]
    pub fn emit(&self, out: &mut Vec<u8>) {
        put::uint(out, TOTAL, self.total);
    }
}

/// Lets more items come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Credit {
    /// The cost of the items that were taken: their octets plus 256 each; not 0.
    pub octets: u32,
}

impl Credit {
    /// Reads the envelope. A credit of 0 decodes; the connection refuses it.
    ///
    /// # Errors
    ///
    /// [`EnvelopeError`] if it does not decode (protocol §1).
    #[inline]
    pub fn parse(envelope: &[u8]) -> Result<Self, EnvelopeError> {
        Self::read(&mut Reader::new(envelope)).map_err(|bad| bad.within(envelope))
    }

    #[inline]
    fn read(reader: &mut Reader<'_>) -> Result<Self, Bad> {
        let mut credit = Self::default();
        while let Some(tag) = reader.tag()? {
            match tag {
                OCTETS => credit.octets = reader.uint32()?,
                _ => reader.skip(tag)?,
            }
        }
        Ok(credit)
    }

    /// How many octets [`Credit::emit`] writes.
    #[inline]
    #[must_use]
    pub const fn encoded_len(&self) -> usize {
        put::len_uint(OCTETS, self.octets as u64)
    }

    /// Appends the envelope in its canonical form.
    #[inline]
    pub fn emit(&self, out: &mut Vec<u8>) {
        put::uint(out, OCTETS, u64::from(self.octets));
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use alloc::vec;

    use super::*;

    #[test]
    fn fields_have_their_numbers() {
        let mut out = vec![];
        Item { total: 300 }.emit(&mut out);
        Credit { octets: 7 }.emit(&mut out);
        assert_eq!(out, [0x78, 0xac, 2, 0x08, 7]);
        // Each ignores the other's field.
        assert_eq!(Item::parse(&out).unwrap(), Item { total: 300 });
        assert_eq!(Credit::parse(&out).unwrap(), Credit { octets: 7 });
        let lengths = (Item { total: 300 }.encoded_len(), Credit { octets: 7 }.encoded_len());
        assert_eq!(lengths, (3, 2));
    }

    #[test]
    fn defaults_are_not_written() {
        let mut out = vec![];
        Item::default().emit(&mut out);
        Credit::default().emit(&mut out);
        assert!(out.is_empty());
    }
}
