//! Repeated fields, without an allocation on either side.
//!
//! A sender has its elements in a slice. A reader has an envelope in which they may stand
//! anywhere between other fields, and reads them again, one by one, from octets that `parse` has
//! validated. [`Repeated`] is both.

use alloc::vec::Vec;
use core::{fmt, slice};

use super::proto::{Reader, field_of, len_tag, put, varint_tag};

/// The elements of a repeated field, in the order of the wire.
///
/// Two are equal if their elements are, wherever those come from.
///
/// ```
/// use tieline_core::wire::{CheckIn, Repeated};
///
/// let features = [1, 1007];
/// let check_in = CheckIn { features: Repeated::from(&features[..]), ..CheckIn::default() };
/// let mut envelope = Vec::new();
/// check_in.emit(&mut envelope);
///
/// let read = CheckIn::parse(&envelope)?;
/// assert_eq!(read.features.iter().collect::<Vec<_>>(), [1, 1007]);
/// assert_eq!(read, check_in);
/// # Ok::<(), tieline_core::wire::EnvelopeError>(())
/// ```
pub struct Repeated<'a, T>(Source<'a, T>);

enum Source<'a, T> {
    Slice(&'a [T]),
    /// `octets` begin at the first tag of `field` and end with the message; they are validated.
    Wire {
        octets: &'a [u8],
        field: u32,
    },
}

/// What can be repeated: numbers and the messages [`Label`](super::Label),
/// [`Method`](super::Method) and [`Metadata`](super::Metadata). Only this crate implements it.
pub trait Element<'a>: sealed::Sealed<'a> {}

impl<'a, T: sealed::Sealed<'a>> Element<'a> for T {}

pub(super) mod sealed {
    use core::fmt;

    use super::Walk;

    pub trait Sealed<'a>: Copy + PartialEq + fmt::Debug {
        fn next(walk: &mut Walk<'a>) -> Option<Self>;
    }
}

/// A message that can be an element.
pub(super) trait Message<'a>: Copy + PartialEq + fmt::Debug {
    fn read(reader: &mut Reader<'a>) -> Result<Self, super::proto::Bad>;
    fn len(&self) -> usize;
    fn put(&self, out: &mut Vec<u8>);
}

/// A walk over validated octets that stops at the elements of one field.
#[derive(Debug, Clone)]
pub struct Walk<'a> {
    reader: Reader<'a>,
    field: u32,
    /// What is left of a packed list.
    packed: Reader<'a>,
}

impl<'a> Walk<'a> {
    /// Goes to the next value of the field and gives its tag. Any error ends the walk; there is
    /// none, since `parse` went the same way before.
    fn find(&mut self) -> Option<u64> {
        while let Some(tag) = self.reader.tag().ok()? {
            let ours = field_of(tag) == u64::from(self.field);
            if ours && (tag == varint_tag(self.field) || tag == len_tag(self.field)) {
                return Some(tag);
            }
            self.reader.skip(tag).ok()?;
        }
        None
    }

    pub(super) fn message<M: Message<'a>>(&mut self) -> Option<M> {
        loop {
            let tag = self.find()?;
            if tag == len_tag(self.field) {
                return M::read(&mut self.reader.message().ok()?).ok();
            }
            self.reader.skip(tag).ok()?;
        }
    }
}

impl<'a> sealed::Sealed<'a> for u32 {
    fn next(walk: &mut Walk<'a>) -> Option<Self> {
        loop {
            if !walk.packed.is_empty() {
                return walk.packed.uint32().ok();
            }
            if walk.find()? == varint_tag(walk.field) {
                return walk.reader.uint32().ok();
            }
            walk.packed = walk.reader.message().ok()?;
        }
    }
}

impl<'a, T> Repeated<'a, T> {
    /// No elements.
    pub const EMPTY: Self = Self(Source::Slice(&[]));

    /// 0 if there are surely no elements; found out without a walk.
    #[inline]
    pub(super) const fn hint(&self) -> usize {
        match self.0 {
            Source::Slice(elements) => elements.len(),
            Source::Wire { octets, .. } => octets.len(),
        }
    }

    /// Notes, while a message is read, that the field stands at the reader's last tag.
    #[inline]
    pub(super) fn note(&mut self, field: u32, reader: &Reader<'a>) {
        if matches!(self.0, Source::Slice(_)) {
            self.0 = Source::Wire { octets: reader.mark(), field };
        }
    }
}

impl<'a, T: Element<'a>> Repeated<'a, T> {
    /// The elements, in the order of the wire. Those of a slice are copied out of it.
    #[inline]
    #[must_use]
    pub fn iter(&self) -> Iter<'a, T> {
        Iter(match self.0 {
            Source::Slice(elements) => State::Slice(elements.iter()),
            Source::Wire { octets, field } => {
                State::Wire(Walk { reader: Reader::new(octets), field, packed: Reader::new(&[]) })
            }
        })
    }

    /// Whether there are none.
    #[inline]
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.iter().next().is_none()
    }

    /// How many there are. Those of an envelope are counted, which takes time in proportion to
    /// its length.
    #[must_use]
    pub fn len(&self) -> usize {
        self.iter().count()
    }
}

#[expect(private_bounds, reason = "messages are elements of this crate only")]
impl<'a, T: Element<'a> + Message<'a>> Repeated<'a, T> {
    /// One field an element, also for those that are empty.
    pub(super) fn emit(&self, tag: u64, out: &mut Vec<u8>) {
        for element in self.iter() {
            put::uint_always(out, tag, element.len() as u64);
            element.put(out);
        }
    }

    /// What [`Repeated::emit`] writes, in octets.
    pub(super) fn encoded_len(&self, tag: u64) -> usize {
        let one = |element: T| put::len_message(tag, element.len());
        self.iter().fold(0, |sum: usize, element| sum.saturating_add(one(element)))
    }
}

impl<T> Clone for Repeated<'_, T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for Repeated<'_, T> {}

impl<T> Clone for Source<'_, T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for Source<'_, T> {}

impl<T> Default for Repeated<'_, T> {
    #[inline]
    fn default() -> Self {
        Self::EMPTY
    }
}

impl<'a, T> From<&'a [T]> for Repeated<'a, T> {
    #[inline]
    fn from(elements: &'a [T]) -> Self {
        Self(Source::Slice(elements))
    }
}

impl<'a, T, const N: usize> From<&'a [T; N]> for Repeated<'a, T> {
    #[inline]
    fn from(elements: &'a [T; N]) -> Self {
        Self(Source::Slice(elements))
    }
}

impl<'a, T: Element<'a>> PartialEq for Repeated<'a, T> {
    fn eq(&self, other: &Self) -> bool {
        self.iter().eq(other.iter())
    }
}

impl<'a, T: Element<'a> + Eq> Eq for Repeated<'a, T> {}

impl<'a, T: Element<'a>> fmt::Debug for Repeated<'a, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

impl<'a, T: Element<'a>> IntoIterator for Repeated<'a, T> {
    type Item = T;
    type IntoIter = Iter<'a, T>;

    fn into_iter(self) -> Iter<'a, T> {
        self.iter()
    }
}

impl<'a, T: Element<'a>> IntoIterator for &Repeated<'a, T> {
    type Item = T;
    type IntoIter = Iter<'a, T>;

    fn into_iter(self) -> Iter<'a, T> {
        self.iter()
    }
}

/// The elements of a [`Repeated`], each by value.
#[derive(Debug, Clone)]
pub struct Iter<'a, T>(State<'a, T>);

#[derive(Debug, Clone)]
enum State<'a, T> {
    Slice(slice::Iter<'a, T>),
    Wire(Walk<'a>),
}

impl<'a, T: Element<'a>> Iterator for Iter<'a, T> {
    type Item = T;

    fn next(&mut self) -> Option<T> {
        match &mut self.0 {
            State::Slice(elements) => elements.next().copied(),
            State::Wire(walk) => T::next(walk),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use alloc::{format, vec};

    use super::*;
    use crate::wire::{CheckIn, Label, Table};

    #[test]
    fn numbers_come_packed_and_not_in_the_order_of_the_wire() {
        let envelope = [
            0x22, 2, 1, 2, // packed
            0x20, 3, // alone
            0x10, 9, // another field
            0x25, 0, 0, 0, 0, // the field with a wrong wire type
            0x22, 0, // packed, empty
            0x22, 3, 4, 0x85, 0, // packed, one of them longer than needed
        ];
        let features = CheckIn::parse(&envelope).unwrap().features;
        assert_eq!(features.iter().collect::<Vec<_>>(), [1, 2, 3, 4, 5]);
        assert_eq!((features.len(), features.is_empty()), (5, false));
        assert_eq!(format!("{features:?}"), "[1, 2, 3, 4, 5]");
    }

    #[test]
    fn a_list_that_is_there_and_empty_has_no_elements() {
        let features = CheckIn::parse(&[0x22, 0, 0x22, 0]).unwrap().features;
        assert_eq!((features.len(), features.is_empty()), (0, true));
        assert_eq!(features, Repeated::EMPTY);
    }

    #[test]
    fn messages_come_in_the_order_of_the_wire_the_empty_ones_too() {
        let envelope = [
            0x62, 0, // empty
            0x60, 1, // the field with a wrong wire type
            0x10, 9, // another field
            0x62, 6, 0x0a, 1, b'a', 0x12, 1, b'b', //
            0x62, 6, 0x0a, 1, b'c', 0x0a, 1, b'd', // the last value wins
        ];
        let labels = CheckIn::parse(&envelope).unwrap().labels;
        let expected = [Label::default(), Label { key: "a", value: "b" }, Label { key: "d", value: "" }];
        assert_eq!(labels, Repeated::from(&expected));
        assert_ne!(labels, Repeated::from(&expected[1..]));
        assert_ne!(labels, Repeated::EMPTY);
        assert_eq!(labels.into_iter().count(), 3);
    }

    #[test]
    fn an_iterator_can_be_taken_up_again_from_its_clone() {
        let envelope = [0x22, 3, 1, 2, 3, 0x20, 4];
        let check_in = CheckIn::parse(&envelope).unwrap();
        let mut iter = check_in.features.iter();
        assert_eq!(iter.next(), Some(1));
        assert!(iter.clone().eq([2, 3, 4]) && iter.eq([2, 3, 4]));
    }

    #[test]
    fn empty_messages_are_elements_on_the_way_out_too() {
        let methods = [crate::wire::Method::default(); 2];
        let table = Table { methods: Repeated::from(&methods) };
        let mut out = vec![];
        table.emit(&mut out);
        assert_eq!(out, [0x0a, 0, 0x0a, 0]);
        assert_eq!(table.encoded_len(), 4);
        assert_eq!(Table::parse(&out).unwrap(), table);
    }
}
