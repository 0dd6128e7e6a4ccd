//! Items that were not taken before their call ended.

use alloc::{boxed::Box, collections::VecDeque};

use bytes::Bytes;

/// The items of a call of this side that the application had not taken when the call ended, in order: see
/// [`Event::Done`](super::Event::Done). Empty, and without memory of its own, for a call that does not stream.
// Boxed, so that an event of a call that does not stream, which is nearly every one, is 24 octets shorter.
#[allow(clippy::box_collection)]
#[derive(Debug, Default)]
pub struct Rest(Option<Box<VecDeque<Bytes>>>);

impl Rest {
    pub(crate) const NONE: Self = Self(None);

    pub(crate) fn new(items: VecDeque<Bytes>) -> Self {
        Self((!items.is_empty()).then(|| Box::new(items)))
    }
}

impl Iterator for Rest {
    type Item = Bytes;

    fn next(&mut self) -> Option<Bytes> {
        self.0.as_mut()?.pop_front()
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let items = self.0.as_ref().map_or(0, |items| items.len());
        (items, Some(items))
    }
}

impl ExactSizeIterator for Rest {}
