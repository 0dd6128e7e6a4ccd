//! Protocol Buffers, as much of it as envelopes need: a reader over borrowed octets and a
//! canonical writer (protocol §1).
//!
//! Generated code would allocate for every string and every list; these read in place. An
//! envelope's `parse` is a loop over tags with one `match`: a field that is known *and* has its
//! wire type is an arm, everything else falls to [`Reader::skip`], which is just what protobuf
//! asks of unknown fields and wrong wire types.
//!
//! Positions are counted backwards, as octets *left* in the envelope: the remaining slice has
//! that number at hand, so the way without errors keeps no offset at all.

use alloc::vec::Vec;

use super::fault::{EnvelopeError, Malformed};
use super::varint;

const VARINT: u64 = 0;
const FIXED64: u64 = 1;
const LEN: u64 = 2;
const FIXED32: u64 = 5;

/// The tag of a field that holds a varint.
pub(super) const fn varint_tag(field: u32) -> u64 {
    (field as u64) << 3 | VARINT
}

/// The tag of a field that holds 8 octets.
pub(super) const fn fixed64_tag(field: u32) -> u64 {
    (field as u64) << 3 | FIXED64
}

/// The tag of a field that holds a length and as many octets.
pub(super) const fn len_tag(field: u32) -> u64 {
    (field as u64) << 3 | LEN
}

/// The field number of a tag.
pub(super) const fn field_of(tag: u64) -> u64 {
    tag >> 3
}

/// The lower half: what protobuf makes of a number that is wider than its field.
#[inline]
const fn low(value: u64) -> u32 {
    let [a, b, c, d, ..] = value.to_le_bytes();
    u32::from_le_bytes([a, b, c, d])
}

/// A malformed token, and how many octets of the envelope were left where it begins.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bad {
    malformed: Malformed,
    left: usize,
}

impl Bad {
    /// The error, counted from the first octet of `envelope`.
    #[cold]
    pub(super) fn within(self, envelope: &[u8]) -> EnvelopeError {
        let offset = envelope.len().saturating_sub(self.left);
        EnvelopeError { malformed: self.malformed, offset: u32::try_from(offset).unwrap_or(u32::MAX) }
    }
}

/// Reads the fields of one message.
#[derive(Debug, Clone, Copy)]
pub(super) struct Reader<'a> {
    rest: &'a [u8],
    /// How many octets of the envelope follow this message's end.
    after: usize,
    /// `rest` where the last tag began.
    mark: &'a [u8],
}

impl<'a> Reader<'a> {
    #[inline]
    pub(super) const fn new(message: &'a [u8]) -> Self {
        Self { rest: message, after: 0, mark: message }
    }

    /// From the last tag to the message's end.
    #[inline]
    pub(super) const fn mark(&self) -> &'a [u8] {
        self.mark
    }

    #[inline]
    pub(super) const fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    #[cold]
    fn bad(&self, malformed: Malformed, at: &[u8]) -> Bad {
        Bad { malformed, left: at.len().saturating_add(self.after) }
    }

    /// The next tag, or `None` at the end. What is wrong with a tag that is a number is found by
    /// [`Reader::skip`], since no arm matches such a one.
    #[inline]
    pub(super) fn tag(&mut self) -> Result<Option<u64>, Bad> {
        if self.rest.is_empty() {
            return Ok(None);
        }
        self.mark = self.rest;
        self.varint().map(Some)
    }

    #[inline]
    pub(super) fn varint(&mut self) -> Result<u64, Bad> {
        match varint::take(&mut self.rest) {
            Ok(value) => Ok(value),
            Err(malformed) => Err(self.bad(malformed, self.rest)),
        }
    }

    #[inline]
    pub(super) fn uint32(&mut self) -> Result<u32, Bad> {
        self.varint().map(low)
    }

    #[inline]
    pub(super) fn sint32(&mut self) -> Result<i32, Bad> {
        self.uint32().map(varint::unzigzag32)
    }

    #[inline]
    pub(super) fn fixed64(&mut self) -> Result<u64, Bad> {
        self.fixed().map(u64::from_le_bytes)
    }

    #[inline]
    fn fixed<const N: usize>(&mut self) -> Result<[u8; N], Bad> {
        match self.rest.split_first_chunk() {
            Some((octets, rest)) => {
                self.rest = rest;
                Ok(*octets)
            }
            None => Err(self.bad(Malformed::Truncated, self.rest)),
        }
    }

    #[inline]
    pub(super) fn bytes(&mut self) -> Result<&'a [u8], Bad> {
        let at = self.rest;
        let len = self.varint()?;
        let parts = usize::try_from(len).ok().and_then(|len| self.rest.split_at_checked(len));
        match parts {
            Some((octets, rest)) => {
                self.rest = rest;
                Ok(octets)
            }
            None => Err(self.bad(Malformed::Length, at)),
        }
    }

    #[inline]
    pub(super) fn string(&mut self) -> Result<&'a str, Bad> {
        let octets = self.bytes()?;
        match core::str::from_utf8(octets) {
            Ok(text) => Ok(text),
            Err(_) => Err(self.inner(octets).bad(Malformed::Utf8, octets)),
        }
    }

    /// A reader of the message in a length-delimited field.
    #[inline]
    pub(super) fn message(&mut self) -> Result<Self, Bad> {
        let octets = self.bytes()?;
        Ok(self.inner(octets))
    }

    /// A reader of `octets`, which end where this one stands.
    #[inline]
    const fn inner(&self, octets: &'a [u8]) -> Self {
        Self { rest: octets, after: self.rest.len().saturating_add(self.after), mark: octets }
    }

    /// Checks a packed list of varints, to be read later.
    pub(super) fn packed(&mut self) -> Result<(), Bad> {
        let mut list = self.message()?;
        while !list.is_empty() {
            list.varint()?;
        }
        Ok(())
    }

    /// Skips the value that follows `tag`, which is the tag just read.
    #[cold]
    pub(super) fn skip(&mut self, tag: u64) -> Result<(), Bad> {
        if field_of(tag) == 0 {
            return Err(self.bad(Malformed::FieldZero, self.mark));
        }
        match tag & 7 {
            VARINT => self.varint().map(drop),
            FIXED64 => self.fixed::<8>().map(drop),
            LEN => self.bytes().map(drop),
            FIXED32 => self.fixed::<4>().map(drop),
            3 | 4 => Err(self.bad(Malformed::Group, self.mark)),
            _ => Err(self.bad(Malformed::WireType, self.mark)),
        }
    }
}

/// Writes fields, and says beforehand how long they will be. Each pair of functions leaves out
/// the same defaults, so that lengths are exact.
pub(super) mod put {
    use super::{Vec, varint};

    /// A tag and a number, 0 or not.
    #[inline]
    pub(in crate::wire) fn uint_always(out: &mut Vec<u8>, tag: u64, value: u64) {
        if tag < 0x80 && value < 0x80 {
            let ([tag, ..], [value, ..]) = (tag.to_le_bytes(), value.to_le_bytes());
            out.extend_from_slice(&[tag, value]);
        } else {
            varint::put(tag, out);
            varint::put(value, out);
        }
    }

    #[inline]
    pub(in crate::wire) const fn len_uint_always(tag: u64, value: u64) -> usize {
        varint::len(tag).saturating_add(varint::len(value))
    }

    /// A tag and a number, unless it is 0.
    #[inline]
    pub(in crate::wire) fn uint(out: &mut Vec<u8>, tag: u64, value: u64) {
        if value != 0 {
            uint_always(out, tag, value);
        }
    }

    #[inline]
    pub(in crate::wire) const fn len_uint(tag: u64, value: u64) -> usize {
        if value == 0 { 0 } else { len_uint_always(tag, value) }
    }

    /// A tag and a folded signed number, unless it is 0.
    #[inline]
    pub(in crate::wire) fn sint32(out: &mut Vec<u8>, tag: u64, value: i32) {
        uint(out, tag, u64::from(varint::zigzag32(value)));
    }

    #[inline]
    pub(in crate::wire) const fn len_sint32(tag: u64, value: i32) -> usize {
        len_uint(tag, varint::zigzag32(value) as u64)
    }

    /// A tag and 8 octets, unless all are 0.
    #[inline]
    pub(in crate::wire) fn fixed64(out: &mut Vec<u8>, tag: u64, value: u64) {
        if value != 0 {
            varint::put(tag, out);
            out.extend_from_slice(&value.to_le_bytes());
        }
    }

    #[inline]
    pub(in crate::wire) const fn len_fixed64(tag: u64, value: u64) -> usize {
        if value == 0 { 0 } else { varint::len(tag).saturating_add(8) }
    }

    /// A tag, a length and the octets, unless there are none. For strings too.
    #[inline]
    pub(in crate::wire) fn bytes(out: &mut Vec<u8>, tag: u64, value: &[u8]) {
        if !value.is_empty() {
            uint_always(out, tag, value.len() as u64);
            out.extend_from_slice(value);
        }
    }

    #[inline]
    pub(in crate::wire) const fn len_bytes(tag: u64, value: &[u8]) -> usize {
        if value.is_empty() { 0 } else { len_message(tag, value.len()) }
    }

    /// The length of a message of `len` octets with its tag and length, empty or not.
    #[inline]
    pub(in crate::wire) const fn len_message(tag: u64, len: usize) -> usize {
        len_uint_always(tag, len as u64).saturating_add(len)
    }

    /// A list of numbers in one field, unless it is empty.
    pub(in crate::wire) fn packed<I>(out: &mut Vec<u8>, tag: u64, values: I)
    where
        I: Iterator<Item = u32> + Clone,
    {
        let len = list(values.clone());
        if len != 0 {
            uint_always(out, tag, len as u64);
            values.for_each(|value| varint::put(u64::from(value), out));
        }
    }

    pub(in crate::wire) fn len_packed(tag: u64, values: impl Iterator<Item = u32>) -> usize {
        match list(values) {
            0 => 0,
            len => len_message(tag, len),
        }
    }

    fn list(values: impl Iterator<Item = u32>) -> usize {
        values.fold(0, |sum: usize, value| sum.saturating_add(varint::len(u64::from(value))))
    }
}

/// The sum of the lengths of an envelope's fields. It stops at the largest `usize` instead of
/// wrapping; what is that long is refused by whoever writes the frame's header.
macro_rules! sum {
    ($($len:expr),* $(,)?) => {{
        let total = 0_usize;
        $(let total = total.saturating_add($len);)*
        total
    }};
}
pub(super) use sum;

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use alloc::vec;

    use super::*;
    use crate::wire::{CheckIn, Request};

    fn fault(envelope: &[u8]) -> (Malformed, u32) {
        let error = CheckIn::parse(envelope).unwrap_err();
        (error.malformed, error.offset)
    }

    #[test]
    fn a_tag_is_judged_before_what_follows_it() {
        use Malformed::{FieldZero, Group, Overlong, Truncated, WireType};
        assert_eq!(fault(&[0x10, 1, 0x80]), (Truncated, 2));
        assert_eq!(fault(&[[0xff; 10].as_slice(), &[0]].concat()), (Overlong, 0));
        assert_eq!(fault(&[0x10, 1, 0x00]), (FieldZero, 2));
        assert_eq!(fault(&[0x80, 0x00]), (FieldZero, 0));
        for wire in 0..8 {
            assert_eq!(fault(&[wire]), (FieldZero, 0), "wire type {wire}");
        }
        assert_eq!(fault(&[0x10, 1, 0x1b]), (Group, 2));
        assert_eq!(fault(&[0x10, 1, 0x1c]), (Group, 2));
        assert_eq!(fault(&[0x10, 1, 0x1e]), (WireType, 2));
        assert_eq!(fault(&[0x10, 1, 0x1f]), (WireType, 2));
    }

    #[test]
    fn a_value_is_judged_where_it_begins_known_field_or_not() {
        use Malformed::{Length, Overlong, Truncated};
        for field in [2_u8, 13] {
            let tag = field << 3;
            assert_eq!(fault(&[tag]), (Truncated, 1));
            assert_eq!(fault(&[tag, 0x80, 0x80]), (Truncated, 1));
            let overlong = [&[tag], [0x80; 10].as_slice(), &[0]].concat();
            assert_eq!(fault(&overlong), (Overlong, 1));
        }
        for field in [3_u8, 13] {
            let tag = field << 3 | 1;
            assert_eq!(fault(&[tag]), (Truncated, 1));
            assert_eq!(fault(&[tag, 0, 0, 0, 0, 0, 0, 0]), (Truncated, 1));
        }
        assert_eq!(fault(&[0x1d, 0, 0, 0]), (Truncated, 1));
        for field in [1_u8, 4, 11, 12, 13] {
            let tag = field << 3 | 2;
            assert_eq!(fault(&[tag]), (Truncated, 1));
            assert_eq!(fault(&[tag, 0x80]), (Truncated, 1));
            assert_eq!(fault(&[tag, 2, 0]), (Length, 1));
            let huge = [&[tag], [0xff; 9].as_slice(), &[1]].concat();
            assert_eq!(fault(&huge), (Length, 1));
        }
    }

    #[test]
    fn what_is_inside_is_judged_where_it_stands() {
        use Malformed::{Group, Length, Overlong, Truncated, Utf8};
        // A string: at its content.
        assert_eq!(fault(&[0x0a, 3, b'a', 0xff, b'b', 0x10, 1]), (Utf8, 2));
        // A packed list: at the number.
        assert_eq!(fault(&[0x22, 3, 1, 0x80, 0x80, 0x10, 1]), (Truncated, 3));
        let list = [&[0x22, 12, 1], [0x80; 10].as_slice(), &[0]].concat();
        assert_eq!(fault(&list), (Overlong, 3));
        // A label: at the token in it, and never beyond the label's end.
        assert_eq!(fault(&[0x62, 4, 0x0a, 2, b'a', 0xff, 0x10, 1]), (Utf8, 4));
        assert_eq!(fault(&[0x62, 3, 0x0a, 2, b'a', b'b']), (Length, 3));
        assert_eq!(fault(&[0x62, 1, 0x80, 0x00]), (Truncated, 2));
        assert_eq!(fault(&[0x62, 1, 0x0a, 0x00]), (Truncated, 3));
        assert_eq!(fault(&[0x10, 1, 0x62, 2, 0x08, 0x80]), (Truncated, 5));
        assert_eq!(fault(&[0x62, 0, 0x62, 1, 0x0b]), (Group, 4));
    }

    #[test]
    fn what_is_skipped_is_not_looked_into() {
        // Unknown fields of each wire type, and known fields of a wrong one.
        let envelope = [
            &[0x68, 0xff, 0x01][..],
            &[0x69, 1, 2, 3, 4, 5, 6, 7, 8],
            &[0x6a, 2, 0xff, 0x80],
            &[0x6d, 1, 2, 3, 4],
            &[0x08, 7],                      // identifier, as a varint
            &[0x12, 2, 0xff, 0xff],          // heartbeat interval, as octets
            &[0x21, 0, 0, 0, 0, 0, 0, 0, 9], // features, as 8 octets
            &[0x60, 3],                      // labels, as a varint
            &[0x2a, 1, 0x80],                // max_frame, as octets
        ]
        .concat();
        assert_eq!(CheckIn::parse(&envelope).unwrap(), CheckIn::default());
    }

    #[test]
    fn a_number_beyond_all_fields_is_only_unknown() {
        // 2^32 + 8: with 32 bits it would be the tag of field 1.
        let mut envelope = vec![];
        varint::put((1 << 32) | 8, &mut envelope);
        envelope.push(5);
        assert_eq!(Request::parse(&envelope).unwrap(), Request::default());
        // 2^64 + 8 is 8, for bits beyond the 64th are dropped.
        let envelope = [0x88, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x02, 5];
        assert_eq!(Request::parse(&envelope).unwrap().method, 5);
    }

    #[test]
    fn numbers_are_cut_to_their_width() {
        let all_ones = |tag: u8| [&[tag], [0xff; 9].as_slice(), &[1]].concat();
        assert_eq!(Request::parse(&all_ones(0x08)).unwrap().method, u32::MAX);
        assert_eq!(Request::parse(&all_ones(0x28)).unwrap().priority, i32::MIN);
        assert_eq!(Request::parse(&all_ones(0x18)).unwrap().timeout_us, Some(u64::MAX));
        let features = [0x22, 6, 0x87, 0x80, 0x80, 0x80, 0x10, 9];
        let features = CheckIn::parse(&features).unwrap().features;
        assert_eq!(features, (&[7, 9]).into());
    }

    #[test]
    fn lengths_do_not_wrap() {
        assert_eq!(put::len_message(10, usize::MAX), usize::MAX);
        assert_eq!(sum![usize::MAX, 1, usize::MAX], usize::MAX);
    }
}
