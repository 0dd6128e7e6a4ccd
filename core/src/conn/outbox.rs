//! Committed output on its way to the kernel.

use alloc::{collections::VecDeque, vec::Vec};

use bytes::{Buf, Bytes};

/// Octets that a connection has committed and that the transport has not taken yet.
///
/// It belongs to the driver, not to the connection: one a connection where writes run concurrently with other work,
/// or one a loop where they do not, so that an idle connection holds no output memory and no lock is held across a
/// system call. Small frames are laid one behind the other in one buffer, large payloads are kept as the shared
/// [`Bytes`] that they came as.
///
/// Reading is [`bytes::Buf`]: write [`chunk`](Buf::chunk) or, gathered, all of [`chunks`](Self::chunks), then
/// [`advance`](Buf::advance) by what the kernel took, and tell the connection with
/// [`handle_sent`](crate::conn::Connection::handle_sent). Loops that complete writes later take owned pieces with
/// [`take_chunk`](Self::take_chunk).
///
/// ```
/// use bytes::Buf;
/// use tieline_core::conn::Outbox;
///
/// let mut outbox = Outbox::new();
/// assert_eq!(outbox.remaining(), 0);
/// assert!(outbox.has_room());
/// ```
#[derive(Debug)]
pub struct Outbox {
    /// Small frames, from `head` to `tail`: octets before are gone, those behind are left over from other turns, so
    /// that whoever fills the buffer again need not make it longer first. Those that `segments` does not account for
    /// come last.
    small: Vec<u8>,
    head: usize,
    tail: usize,
    segments: VecDeque<Segment>,
    /// Octets of `small` that `segments` accounts for.
    placed: usize,
    len: usize,
    mark: usize,
    bulk_mark: usize,
}

#[derive(Debug)]
enum Segment {
    Small(usize),
    Shared(Bytes),
}

/// Payloads from this length on are shared instead of copied. A segment costs an entry in the gather list and a
/// reference count, which is about what copying a kilobyte or two costs.
pub(crate) const SHARE_FROM: usize = 2048;

/// The dead front of the buffer is cut off when it is this long and the buffer never runs empty.
const COMPACT_FROM: usize = 64 * 1024;

impl Outbox {
    /// The default mark: with 64 KiB under way, one system call is dear enough to be worth its octets and a control
    /// frame never waits behind much.
    pub const DEFAULT_MARK: usize = 64 * 1024;

    /// The default mark for large messages that nothing small was sent beside for a while: a system call of so many octets
    /// costs half as much for each of them.
    pub const DEFAULT_BULK_MARK: usize = 256 * 1024;

    /// An empty outbox with the default marks.
    #[must_use]
    pub const fn new() -> Self {
        Self::with_marks(Self::DEFAULT_MARK, Self::DEFAULT_BULK_MARK)
    }

    /// An empty outbox that takes frames until it holds `mark` octets; the last frame may reach beyond it.
    #[must_use]
    pub const fn with_mark(mark: usize) -> Self {
        Self::with_marks(mark, mark)
    }

    /// The same, with a mark of its own for large messages while nothing small is sent beside them. `bulk` below `mark` is
    /// `mark`.
    #[must_use]
    pub const fn with_marks(mark: usize, bulk: usize) -> Self {
        let bulk_mark = if bulk < mark { mark } else { bulk };
        Self {
            small: Vec::new(),
            head: 0,
            tail: 0,
            segments: VecDeque::new(),
            placed: 0,
            len: 0,
            mark,
            bulk_mark,
        }
    }

    /// Whether a connection may commit more to it now.
    #[must_use]
    #[inline]
    pub const fn has_room(&self) -> bool {
        self.len < self.mark
    }

    /// Whether it may commit more of large messages that nothing small goes beside.
    pub(crate) const fn has_room_for_bulk(&self) -> bool {
        self.len < self.bulk_mark
    }

    /// How many octets are missing until it has no room, and until it has none for large messages either.
    pub(crate) const fn room(&self) -> (usize, usize) {
        (self.mark.saturating_sub(self.len), self.bulk_mark.saturating_sub(self.len))
    }

    /// The pieces in order, for a gathered write.
    pub fn chunks(&self) -> impl Iterator<Item = &[u8]> {
        let mut at = self.head;
        let placed = self.segments.iter().map(move |segment| match segment {
            Segment::Small(len) => {
                let piece = self.small.get(at..at.saturating_add(*len)).unwrap_or_default();
                at = at.saturating_add(*len);
                piece
            }
            Segment::Shared(octets) => octets,
        });
        let rest = self.small.get(self.head.saturating_add(self.placed)..self.tail).unwrap_or_default();
        placed.chain((!rest.is_empty()).then_some(rest))
    }

    /// Takes the next piece out, at most `max` octets of it, with an address that stays valid until it is dropped;
    /// `None` if there is nothing. For loops that hand buffers to the kernel and learn later what became of them.
    pub fn take_chunk(&mut self, max: usize) -> Option<Bytes> {
        if self.len == 0 || max == 0 {
            return None;
        }
        if let Some(Segment::Shared(octets)) = self.segments.front() {
            let piece = octets.slice(..octets.len().min(max));
            self.advance(piece.len());
            return Some(piece);
        }
        if self.segments.is_empty() && self.head == 0 && self.tail <= max {
            self.small.truncate(self.tail);
            self.len = 0;
            self.tail = 0;
            return Some(Bytes::from(core::mem::take(&mut self.small)));
        }
        let chunk = self.chunk();
        let piece = Bytes::copy_from_slice(chunk.get(..max).unwrap_or(chunk));
        self.advance(piece.len());
        Some(piece)
    }

    /// Appends octets that were encoded elsewhere, without copying them: for a transport that writes through another one.
    pub fn push(&mut self, octets: Bytes) {
        self.share(octets);
    }

    /// Gives memory back if nothing waits; for a connection that goes idle.
    pub fn release(&mut self) {
        if self.len == 0 {
            *self = Self::with_marks(self.mark, self.bulk_mark);
        }
    }

    /// Where small frames are written; [`wrote`](Self::wrote) must be told how long the buffer was before.
    #[inline]
    pub(crate) fn small(&mut self) -> &mut Vec<u8> {
        self.small.truncate(self.tail);
        &mut self.small
    }

    /// Accounts for what was appended to [`small`](Self::small) since it had `before` octets.
    #[inline]
    pub(crate) fn wrote(&mut self, before: usize) -> usize {
        self.tail = self.small.len();
        let octets = self.tail.saturating_sub(before);
        self.len = self.len.saturating_add(octets);
        octets
    }

    /// Appends the first `octets` of `frames`, small frames that were encoded elsewhere. If nothing waits the two
    /// buffers are exchanged, which saves the copy.
    #[inline]
    pub(crate) fn append(&mut self, frames: &mut Vec<u8>, octets: usize) {
        self.len = self.len.saturating_add(octets);
        if self.tail == 0 {
            core::mem::swap(&mut self.small, frames);
            self.tail = octets;
        } else {
            let frames = frames.get(..octets).unwrap_or_default();
            let small = self.small();
            small.extend_from_slice(frames);
            self.tail = small.len();
        }
    }

    /// Appends a payload without copying it.
    pub(crate) fn share(&mut self, octets: Bytes) {
        if octets.is_empty() {
            return;
        }
        let loose = self.tail.saturating_sub(self.head).saturating_sub(self.placed);
        if loose > 0 {
            self.segments.push_back(Segment::Small(loose));
            self.placed = self.placed.saturating_add(loose);
        }
        self.len = self.len.saturating_add(octets.len());
        self.segments.push_back(Segment::Shared(octets));
    }
}

impl Default for Outbox {
    fn default() -> Self {
        Self::new()
    }
}

impl Buf for Outbox {
    #[inline]
    fn remaining(&self) -> usize {
        self.len
    }

    #[inline]
    fn chunk(&self) -> &[u8] {
        match self.segments.front() {
            None => self.small.get(self.head..self.tail).unwrap_or_default(),
            Some(Segment::Small(len)) => {
                self.small.get(self.head..self.head.saturating_add(*len)).unwrap_or_default()
            }
            Some(Segment::Shared(octets)) => octets,
        }
    }

    /// Drops `octets` from the front; more than there are drops all.
    #[inline]
    fn advance(&mut self, octets: usize) {
        if octets >= self.len && self.segments.is_empty() {
            (self.len, self.head, self.tail) = (0, 0, 0);
        } else {
            self.advance_part(octets);
        }
    }
}

impl Outbox {
    #[inline(never)]
    fn advance_part(&mut self, octets: usize) {
        let mut octets = octets.min(self.len);
        self.len -= octets;
        while octets > 0 {
            match self.segments.front_mut() {
                None => {
                    self.head += octets;
                    octets = 0;
                }
                Some(Segment::Small(len)) => {
                    let step = octets.min(*len);
                    *len -= step;
                    let done = *len == 0;
                    self.head += step;
                    self.placed -= step;
                    octets -= step;
                    if done {
                        self.segments.pop_front();
                    }
                }
                Some(Segment::Shared(shared)) => {
                    let step = octets.min(shared.len());
                    shared.advance(step);
                    let done = shared.is_empty();
                    octets -= step;
                    if done {
                        self.segments.pop_front();
                    }
                }
            }
        }
        if self.head == self.tail {
            (self.head, self.tail) = (0, 0);
        } else if self.head >= COMPACT_FROM {
            self.small.truncate(self.tail);
            self.small.drain(..self.head);
            (self.head, self.tail) = (0, self.small.len());
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use alloc::{vec, vec::Vec};

    use proptest::prelude::*;

    use super::*;

    fn write(outbox: &mut Outbox, octets: &[u8]) {
        let before = outbox.small().len();
        outbox.small().extend_from_slice(octets);
        assert_eq!(outbox.wrote(before), octets.len());
    }

    proptest! {
        /// However pieces come in and go out, the octets are the same and in order.
        #[test]
        fn keeps_the_octets_in_order(steps in proptest::collection::vec((0u8..5, 0usize..300), 0..80)) {
            let mut outbox = Outbox::with_mark(1000);
            let mut model: Vec<u8> = Vec::new();
            let mut next = 0u8;
            for (what, len) in steps {
                let octets: Vec<u8> = (0..len).map(|_| { next = next.wrapping_add(1); next }).collect();
                match what {
                    0 | 1 => { write(&mut outbox, &octets); model.extend(&octets); }
                    2 => { outbox.share(Bytes::from(octets.clone())); model.extend(&octets); }
                    3 => {
                        let gone = len.min(outbox.remaining());
                        outbox.advance(gone);
                        model.drain(..gone);
                    }
                    _ => if let Some(piece) = outbox.take_chunk(len) {
                        prop_assert_eq!(&piece[..], &model[..piece.len()]);
                        model.drain(..piece.len());
                    }
                }
                prop_assert_eq!(outbox.remaining(), model.len());
                prop_assert_eq!(outbox.has_room(), model.len() < 1000);
                let all: Vec<u8> = outbox.chunks().flatten().copied().collect();
                prop_assert_eq!(&all, &model);
                prop_assert_eq!(outbox.chunk().is_empty(), model.is_empty());
                prop_assert!(model.starts_with(outbox.chunk()));
            }
        }
    }

    #[test]
    fn a_busy_outbox_does_not_grow_without_end() {
        let mut outbox = Outbox::new();
        write(&mut outbox, &[0; 100]);
        for _ in 0..100_000 {
            write(&mut outbox, &[1; 100]);
            outbox.advance(100);
        }
        assert!(outbox.small.capacity() < 4 * COMPACT_FROM);
        outbox.advance(100);
        outbox.release();
        assert_eq!(outbox.small.capacity(), 0);
    }

    #[test]
    fn an_owned_piece_outlives_the_outbox() {
        let mut outbox = Outbox::new();
        write(&mut outbox, b"frame");
        let piece = outbox.take_chunk(usize::MAX).unwrap();
        drop(outbox);
        assert_eq!(piece, vec![b'f', b'r', b'a', b'm', b'e']);
    }
}
