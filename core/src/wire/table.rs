//! The envelope of TABLE: the methods that a side serves (protocol §4).

use alloc::vec::Vec;

use super::fault::EnvelopeError;
use super::proto::{Bad, Reader, fixed64_tag, len_tag, put, sum, varint_tag};
use super::repeated::{Message, Repeated, Walk, sealed};

const METHODS: u32 = 1;
const METHOD: u64 = len_tag(METHODS);

const ID: u64 = varint_tag(1);
const NAME: u64 = len_tag(2);
const FINGERPRINT: u64 = fixed64_tag(3);

/// What the sender serves; adds to the tables before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Table<'a> {
    /// The methods. Ids, names and their uniqueness are checked by the reader of the table, not
    /// by its parser.
    pub methods: Repeated<'a, Method<'a>>,
}

/// One method.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Method<'a> {
    /// The number that stands for the name in requests; not 0.
    pub id: u32,
    /// `package.Service/Method`.
    pub name: &'a str,
    /// [`fnv1a_64`](super::fnv1a_64) of the method's canonical signature; 0 = unknown.
    pub fingerprint: u64,
}

impl<'a> Table<'a> {
    /// Reads the envelope, all methods included.
    ///
    /// # Errors
    ///
    /// [`EnvelopeError`] if it does not decode (protocol §1).
    pub fn parse(envelope: &'a [u8]) -> Result<Self, EnvelopeError> {
        Self::read(&mut Reader::new(envelope)).map_err(|bad| bad.within(envelope))
    }

    fn read(reader: &mut Reader<'a>) -> Result<Self, Bad> {
        let mut table = Self::default();
        while let Some(tag) = reader.tag()? {
            match tag {
                METHOD => {
                    table.methods.note(METHODS, reader);
                    Method::read(&mut reader.message()?)?;
                }
                _ => reader.skip(tag)?,
            }
        }
        Ok(table)
    }

    /// How many octets [`Table::emit`] writes.
    #[must_use]
    pub fn encoded_len(&self) -> usize {
        self.methods.encoded_len(METHOD)
    }

    /// Appends the envelope in its canonical form.
    pub fn emit(&self, out: &mut Vec<u8>) {
        self.methods.emit(METHOD, out);
    }
}

impl<'a> Message<'a> for Method<'a> {
    fn read(reader: &mut Reader<'a>) -> Result<Self, Bad> {
        let mut method = Self::default();
        while let Some(tag) = reader.tag()? {
            match tag {
                ID => method.id = reader.uint32()?,
                NAME => method.name = reader.string()?,
                FINGERPRINT => method.fingerprint = reader.fixed64()?,
                _ => reader.skip(tag)?,
            }
        }
        Ok(method)
    }

    fn len(&self) -> usize {
        sum![
            put::len_uint(ID, u64::from(self.id)),
            put::len_bytes(NAME, self.name.as_bytes()),
            put::len_fixed64(FINGERPRINT, self.fingerprint),
        ]
    }

    fn put(&self, out: &mut Vec<u8>) {
        put::uint(out, ID, u64::from(self.id));
        put::bytes(out, NAME, self.name.as_bytes());
        put::fixed64(out, FINGERPRINT, self.fingerprint);
    }
}

impl<'a> sealed::Sealed<'a> for Method<'a> {
    fn next(walk: &mut Walk<'a>) -> Option<Self> {
        walk.message()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use alloc::vec;

    use super::*;

    #[test]
    fn fields_have_their_numbers() {
        let methods =
            [Method { id: 1, name: "a/b", fingerprint: 2 }, Method { id: 300, name: "", fingerprint: 0 }];
        let table = Table { methods: Repeated::from(&methods) };
        let mut out = vec![];
        table.emit(&mut out);
        let expected = [
            0x0a, 16, 0x08, 1, 0x12, 3, b'a', b'/', b'b', 0x19, 2, 0, 0, 0, 0, 0, 0, 0, // first
            0x0a, 3, 0x08, 0xac, 2, // second
        ];
        assert_eq!(out, expected);
        assert_eq!(table.encoded_len(), expected.len());
        assert_eq!(Table::parse(&out).unwrap(), table);
    }

    #[test]
    fn a_fault_in_any_method_is_found_at_once() {
        let error = Table::parse(&[0x0a, 0, 0x0a, 3, 0x12, 1, 0xff]).unwrap_err();
        assert_eq!(error.offset, 6);
    }
}
