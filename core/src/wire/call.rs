//! What the envelopes of both ends of a call share: the kind and the metadata (protocol §5).

use alloc::vec::Vec;

use super::proto::{Bad, Reader, len_tag, put, sum};
use super::repeated::{Message, Repeated, Walk, sealed};

/// Which directions of a call stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Kind {
    /// One argument, one result.
    #[default]
    Unary = 0,
    /// One argument, items from the responder.
    ServerStream = 1,
    /// Items from the requester, one result.
    ClientStream = 2,
    /// Items both ways.
    Bidi = 3,
}

impl Kind {
    /// The kind that `Request.kind` stands for, `None` if there is no such kind.
    #[inline]
    #[must_use]
    pub const fn from_wire(kind: u32) -> Option<Self> {
        match kind {
            0 => Some(Self::Unary),
            1 => Some(Self::ServerStream),
            2 => Some(Self::ClientStream),
            3 => Some(Self::Bidi),
            _ => None,
        }
    }

    /// The number for `Request.kind`.
    #[inline]
    #[must_use]
    pub const fn to_wire(self) -> u32 {
        match self {
            Self::Unary => 0,
            Self::ServerStream => 1,
            Self::ClientStream => 2,
            Self::Bidi => 3,
        }
    }
}

const KEY: u64 = len_tag(1);
const VALUE: u64 = len_tag(2);

/// A name and a value that travel beside an argument or a result.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Metadata<'a> {
    /// The name, as [`is_metadata_key`](super::is_metadata_key) has it.
    pub key: &'a str,
    /// The value, any octets.
    pub value: &'a [u8],
}

impl<'a> Metadata<'a> {
    /// Checks the element that follows the tag just read, and notes that the list has it.
    pub(super) fn note(
        list: &mut Repeated<'a, Self>,
        field: u32,
        reader: &mut Reader<'a>,
    ) -> Result<(), Bad> {
        list.note(field, reader);
        Self::read(&mut reader.message()?).map(drop)
    }
}

impl<'a> Message<'a> for Metadata<'a> {
    fn read(reader: &mut Reader<'a>) -> Result<Self, Bad> {
        let mut metadata = Self::default();
        while let Some(tag) = reader.tag()? {
            match tag {
                KEY => metadata.key = reader.string()?,
                VALUE => metadata.value = reader.bytes()?,
                _ => reader.skip(tag)?,
            }
        }
        Ok(metadata)
    }

    fn len(&self) -> usize {
        sum![put::len_bytes(KEY, self.key.as_bytes()), put::len_bytes(VALUE, self.value)]
    }

    fn put(&self, out: &mut Vec<u8>) {
        put::bytes(out, KEY, self.key.as_bytes());
        put::bytes(out, VALUE, self.value);
    }
}

impl<'a> sealed::Sealed<'a> for Metadata<'a> {
    fn next(walk: &mut Walk<'a>) -> Option<Self> {
        walk.message()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_are_four() {
        for number in 0..4 {
            assert_eq!(Kind::from_wire(number).map(Kind::to_wire), Some(number));
        }
        assert_eq!(Kind::from_wire(4), None);
        assert_eq!(Kind::from_wire(u32::MAX), None);
    }
}
