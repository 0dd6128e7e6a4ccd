//! Octets that have arrived and are not decoded yet.
//!
//! Goals: a read goes straight into the memory from which payloads are handed out, without a copy and, once warm,
//! without an allocation; what one connection can pin is bounded; an idle connection holds next to nothing.
//!
//! The buffer is cut in two when it is lent: decoded and undecoded octets stay here, the free rest of the same
//! allocation goes out and is joined again when it comes back, in O(1). If something else comes back it is appended,
//! so a driver may fill any buffer it likes. Payloads that are still held by somebody keep their block alive; such
//! blocks wait in `blocks` until they are free again. When too many wait, small payloads are copied instead of
//! shared, so holding on to a payload of ten octets does not pin 64 KiB for long.

use alloc::vec::Vec;

use bytes::{Buf, Bytes, BytesMut};

/// The size of the first read, and of reads on an idle line.
const SMALLEST: usize = 512;
/// The smallest read that is worth a system call.
const LEAST: usize = 128;
/// The size of reads on a busy line.
const LARGEST: usize = 64 * 1024;
/// How many blocks may wait for their payloads to be dropped.
const MAX_BLOCKS: usize = 16;
/// Payloads up to this length are copied once too many blocks wait.
const COPY_UP_TO: usize = 4096;

pub(crate) struct Inbox {
    store: BytesMut,
    blocks: Vec<BytesMut>,
    /// What the next block holds.
    size: usize,
    /// What the last lent buffer could take, to see whether it came back full.
    lent: usize,
    copying: bool,
}

impl Inbox {
    pub(crate) const fn new(store: BytesMut) -> Self {
        Self { store, blocks: Vec::new(), size: SMALLEST, lent: usize::MAX, copying: false }
    }

    /// The octets that wait to be decoded.
    #[inline]
    pub(crate) fn octets(&self) -> &[u8] {
        &self.store
    }

    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.store.is_empty()
    }

    /// An empty buffer to read into. `missing` octets would complete the frame that has begun; never more than
    /// what has arrived is set aside for octets that are only announced, nor less than a normal read.
    pub(crate) fn lend(&mut self, missing: usize) -> BytesMut {
        let held = self.store.len();
        let want = missing.min(held).clamp(self.size, LARGEST.max(held));
        let buffer = if held > 0 {
            // Enough for the rest of the frame is enough: what is decoded next makes room.
            if self.store.capacity().saturating_sub(held) < missing.max(LEAST).min(want) {
                let mut larger = BytesMut::with_capacity(held.saturating_add(want));
                larger.extend_from_slice(&self.store);
                self.retire(larger);
            }
            self.store.split_off(held)
        } else {
            if self.store.capacity() < want && !self.store.try_reclaim(want) {
                let block = self.reuse(want).unwrap_or_else(|| BytesMut::with_capacity(want));
                self.retire(block);
            }
            core::mem::take(&mut self.store)
        };
        self.lent = buffer.capacity();
        buffer
    }

    /// Puts a new block in place of the present one, which waits until nobody holds a part of it.
    fn retire(&mut self, block: BytesMut) {
        let mut old = core::mem::replace(&mut self.store, block);
        if old.capacity() == 0 {
            return;
        }
        old.clear();
        if self.blocks.len() < MAX_BLOCKS {
            self.blocks.push(old);
        }
        self.copying = self.blocks.len() >= MAX_BLOCKS;
    }

    fn reuse(&mut self, want: usize) -> Option<BytesMut> {
        let free = self.blocks.iter_mut().position(|block| block.try_reclaim(want))?;
        self.copying = false;
        Some(self.blocks.swap_remove(free))
    }

    /// Takes a buffer back, filled. How many octets came.
    #[inline]
    pub(crate) fn fill(&mut self, filled: BytesMut) -> usize {
        let octets = filled.len();
        if octets >= self.lent {
            self.size = self.size.saturating_mul(4).min(LARGEST);
        }
        self.lent = usize::MAX;
        if self.store.capacity() == 0 {
            self.store = filled;
        } else if octets > 0 || self.store.is_empty() {
            self.store.unsplit(filled);
        }
        octets
    }

    /// Drops the first `octets`.
    #[inline]
    pub(crate) fn skip(&mut self, octets: usize) {
        self.store.advance(octets.min(self.store.len()));
    }

    /// Drops the frame of the first `frame` octets and returns what stands in it from `from` to `to`.
    #[inline]
    pub(crate) fn take(&mut self, frame: usize, from: usize, to: usize) -> Bytes {
        let frame = frame.min(self.store.len());
        let to = to.min(frame);
        if from >= to {
            self.skip(frame);
            return Bytes::new();
        }
        if self.copying && to.saturating_sub(from) <= COPY_UP_TO {
            let copy = Bytes::copy_from_slice(self.store.get(from..to).unwrap_or_default());
            self.skip(frame);
            return copy;
        }
        let mut octets = self.store.split_to(frame);
        octets.truncate(to);
        octets.advance(from);
        octets.freeze()
    }

    /// A copy of a part of the first frame, which stays.
    pub(crate) fn copy(&self, from: usize, to: usize) -> Bytes {
        match self.store.get(from..to) {
            Some(octets) if !octets.is_empty() => Bytes::copy_from_slice(octets),
            _ => Bytes::new(),
        }
    }

    /// Forgets everything that waits.
    pub(crate) fn clear(&mut self) {
        self.store = BytesMut::new();
        self.blocks = Vec::new();
    }

    /// Gives memory back on an idle line.
    pub(crate) fn release(&mut self) {
        self.size = SMALLEST;
        self.copying = false;
        self.blocks = Vec::new();
        if self.store.is_empty() {
            self.store = BytesMut::new();
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn fill(inbox: &mut Inbox, octets: &[u8]) {
        let mut buffer = inbox.lend(0);
        buffer.extend_from_slice(octets);
        assert_eq!(inbox.fill(buffer), octets.len());
    }

    #[test]
    fn a_lent_buffer_continues_the_same_allocation() {
        let mut inbox = Inbox::new(BytesMut::new());
        fill(&mut inbox, b"abc");
        let at = inbox.octets().as_ptr();
        fill(&mut inbox, b"def");
        assert_eq!(inbox.octets(), b"abcdef");
        assert_eq!(inbox.octets().as_ptr(), at);
    }

    #[test]
    fn any_other_buffer_is_taken_too() {
        let mut inbox = Inbox::new(BytesMut::new());
        fill(&mut inbox, b"abc");
        let lent = inbox.lend(0);
        inbox.fill(BytesMut::from(&b"def"[..]));
        inbox.fill(lent);
        assert_eq!(inbox.octets(), b"abcdef");
    }

    #[test]
    fn payloads_that_are_held_pin_a_bounded_number_of_blocks() {
        let mut inbox = Inbox::new(BytesMut::new());
        let mut held = Vec::new();
        let full = [7u8; SMALLEST];
        for _ in 0..10_000 {
            let mut buffer = inbox.lend(0);
            let len = buffer.capacity().min(full.len());
            buffer.extend_from_slice(&full[..len]);
            inbox.fill(buffer);
            let len = inbox.octets().len();
            held.push(inbox.take(len, 0, 10.min(len)));
            assert!(inbox.blocks.len() <= MAX_BLOCKS);
        }
        assert!(inbox.copying);
        held.clear();
        inbox.store = BytesMut::new();
        fill(&mut inbox, b"x");
        assert!(!inbox.copying, "blocks that came free are used again");
    }

    #[test]
    fn announced_octets_are_not_set_aside() {
        let mut inbox = Inbox::new(BytesMut::new());
        fill(&mut inbox, &[0; 20]);
        assert!(inbox.lend(1 << 20).capacity() <= 2 * SMALLEST);
    }

    #[test]
    fn an_idle_inbox_holds_nothing() {
        let mut inbox = Inbox::new(BytesMut::new());
        fill(&mut inbox, &[0; 512]);
        inbox.skip(512);
        inbox.release();
        assert_eq!(inbox.store.capacity(), 0);
    }
}
