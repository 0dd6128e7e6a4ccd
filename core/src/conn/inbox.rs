//! Octets that have arrived and are not decoded yet.
//!
//! Goals: a read goes straight into the memory from which payloads are handed out, without a copy and, once warm,
//! without an allocation; what one connection can pin is bounded; an idle connection holds next to nothing.
//!
//! The buffer is cut in two when it is lent: undecoded octets stay here, the free rest of the same allocation goes out
//! and is joined again when it comes back, in O(1). If something else comes back it is appended, so a driver may fill
//! any buffer it likes. The frames of it that are whole are frozen once, and payloads are slices of that batch. Payloads that are still held by somebody keep their block alive; such
//! blocks wait in `blocks` until they are free again. When too many wait, small payloads are copied instead of
//! shared, so holding on to a payload of ten octets does not pin 64 KiB for long.

use alloc::{boxed::Box, vec::Vec};

use bytes::{Buf, Bytes, BytesMut};

use crate::wire::HEADER_LEN;

/// The size of the first read, and of reads on an idle line.
const SMALLEST: usize = 512;
/// The smallest read that is worth a system call.
const LEAST: usize = 128;
/// The size of reads on a busy line.
const LARGEST: usize = 64 * 1024;
/// The same while large frames come whole and nothing small goes beside them: a system call of so many octets costs half
/// as much for each of them, and few frames are cut by the end of a block.
const BULK: usize = 256 * 1024;
/// How many blocks may wait for their payloads to be dropped.
const MAX_BLOCKS: usize = 16;
/// The same of blocks of [`BULK`].
const MAX_BULK_BLOCKS: usize = 4;
/// Payloads up to this length are copied once too many blocks wait.
const COPY_UP_TO: usize = 4096;

pub(crate) struct Inbox {
    /// Frames that are whole; the first one is next.
    batch: Bytes,
    /// What came after them: a part of a frame, or frames that were not looked at.
    store: BytesMut,
    blocks: Vec<BytesMut>,
    /// What the next block holds.
    size: usize,
    /// What the last lent buffer could take, to see whether it came back full.
    lent: usize,
    copying: bool,
    /// The size of reads on a busy line at present.
    largest: usize,
}

impl Inbox {
    pub(crate) const fn new(store: BytesMut) -> Self {
        Self {
            batch: Bytes::new(),
            store,
            blocks: Vec::new(),
            size: SMALLEST,
            lent: usize::MAX,
            copying: false,
            largest: LARGEST,
        }
    }

    /// The octets of the next frame and of some or all that follow it.
    #[inline]
    pub(crate) fn octets(&self) -> &[u8] {
        if self.batch.is_empty() { &self.store } else { &self.batch }
    }

    /// Freezes the frames that are whole, if none is frozen at present. Says nothing about whether they are good.
    #[inline]
    pub(crate) fn prepare(&mut self) {
        if self.batch.is_empty() && self.store.len() >= HEADER_LEN {
            self.freeze();
        }
    }

    /// Appends octets that came in another buffer.
    pub(crate) fn push(&mut self, octets: &[u8]) {
        self.store.extend_from_slice(octets);
        self.lent = usize::MAX;
    }

    #[inline(never)]
    fn freeze(&mut self) {
        let mut whole = 0;
        let mut rest: &[u8] = &self.store;
        while let Some(&[.., a, b, c, d]) = rest.first_chunk::<HEADER_LEN>() {
            let Some(after) = rest.get(HEADER_LEN + u32::from_be_bytes([a, b, c, d]) as usize..) else {
                break;
            };
            whole += rest.len() - after.len();
            rest = after;
        }
        if whole > 0 {
            self.batch = self.store.split_to(whole).freeze();
        }
    }

    /// How many octets wait to be decoded.
    #[inline]
    pub(crate) fn len(&self) -> usize {
        self.batch.len() + self.store.len()
    }

    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// What [`lend`](Self::lend) would return, if nothing waits in the block and enough of it is free: the usual case.
    #[inline(always)]
    pub(crate) fn lend_rest(&mut self) -> Option<BytesMut> {
        // A quarter of a block left is worth a read; then it is used from its start again.
        if !self.store.is_empty() || self.store.capacity() < self.size / 4 {
            return None;
        }
        self.lent = self.store.capacity();
        Some(core::mem::take(&mut self.store))
    }

    /// Says whether large frames come whole, with nothing small beside them.
    #[inline]
    pub(crate) fn set_bulk(&mut self, bulk: bool) {
        if bulk != (self.largest == BULK) {
            self.turn_to(bulk);
        }
    }

    #[cold]
    fn turn_to(&mut self, bulk: bool) {
        self.largest = if bulk { BULK } else { LARGEST };
        self.size = self.size.min(self.largest);
        // More of the smaller ones may wait; and what is read at once is what is free in a block, so a long one goes.
        self.blocks.clear();
        if !bulk {
            let mut store = BytesMut::with_capacity(self.size.max(self.store.len()));
            store.extend_from_slice(&self.store);
            self.store = store;
        }
    }

    /// An empty buffer to read into. `missing` octets would complete the frame that has begun; never more than
    /// what has arrived is set aside for octets that are only announced, nor less than a normal read.
    pub(crate) fn lend(&mut self, missing: usize) -> BytesMut {
        let held = self.store.len();
        let want = missing.min(held).clamp(self.size, self.largest.max(held));
        let buffer = if held > 0 {
            // Enough for the rest of the frame is enough: what is decoded next makes room.
            if self.store.capacity().saturating_sub(held) < missing.max(LEAST).min(want) {
                // A line that is busy cuts most reads within a frame: a block that has come free serves here too, if
                // the part of a frame leaves room enough in it.
                let size = if held <= want / 4 { want } else { held.saturating_add(want) };
                let mut next = self.reuse(size).unwrap_or_else(|| BytesMut::with_capacity(size));
                next.extend_from_slice(&self.store);
                self.retire(next);
            }
            self.store.split_off(held)
        } else {
            let enough = self.store.capacity() >= want / 4;
            if !enough && !self.store.try_reclaim(want) {
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
        let most = if self.largest == BULK { MAX_BULK_BLOCKS } else { MAX_BLOCKS };
        if self.blocks.len() < most {
            self.blocks.push(old);
        }
        self.copying = self.blocks.len() >= most;
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
        if octets >= self.lent && self.size < self.largest {
            self.grow();
        }
        self.lent = usize::MAX;
        if self.store.capacity() == 0 {
            self.store = filled;
        } else if octets > 0 || self.store.is_empty() {
            self.store.unsplit(filled);
        }
        octets
    }

    /// Reads are to be longer.
    #[cold]
    fn grow(&mut self) {
        self.size = self.size.saturating_mul(4).min(self.largest);
        // They are too small from now on, and keep no place from others.
        self.blocks.clear();
    }

    /// Drops the first `octets`.
    #[inline]
    pub(crate) fn skip(&mut self, octets: usize) {
        if octets < self.batch.len() {
            self.batch.advance(octets);
        } else if self.batch.is_empty() {
            self.store.advance(octets.min(self.store.len()));
        } else {
            self.batch = Bytes::new();
        }
    }

    /// Drops the frame of the first `frame` octets, which is whole, and returns what stands in it from `from` on.
    #[inline(always)]
    pub(crate) fn take(&mut self, frame: usize, from: usize) -> Bytes {
        // A payload of nothing must not hold on to a block.
        if from >= frame || self.copying {
            return self.take_other(frame, from);
        }
        let mut payload = if self.batch.is_empty() {
            if frame != self.store.len() {
                return self.take_other(frame, from);
            }
            // The only frame there is needs no batch.
            self.store.split_to(frame).freeze()
        } else if frame < self.batch.len() {
            let payload = self.batch.slice(from..frame);
            self.batch.advance(frame);
            return payload;
        } else {
            // The last frame of a batch needs no reference beside the one that there is.
            core::mem::take(&mut self.batch)
        };
        payload.advance(from);
        payload
    }

    /// The same, whatever is unusual about it: the frame is the first of a batch that is to be frozen, or its payload is
    /// copied or empty.
    #[inline(never)]
    fn take_other(&mut self, frame: usize, from: usize) -> Bytes {
        let len = frame.saturating_sub(from);
        self.prepare();
        if len == 0 || frame > self.batch.len() {
            self.skip(frame);
            return Bytes::new();
        }
        let mut payload = self.batch.split_to(frame);
        payload.advance(from);
        if self.copying && len <= COPY_UP_TO { Bytes::copy_from_slice(&payload) } else { payload }
    }

    /// A copy of a part of the first frame, which stays.
    pub(crate) fn copy(&self, from: usize, to: usize) -> Box<[u8]> {
        Box::from(self.octets().get(from..to).unwrap_or_default())
    }

    /// Forgets everything that waits.
    pub(crate) fn clear(&mut self) {
        self.batch = Bytes::new();
        self.store = BytesMut::new();
        self.blocks = Vec::new();
    }

    /// Gives memory back on an idle line.
    pub(crate) fn release(&mut self) {
        self.size = SMALLEST;
        self.copying = false;
        self.largest = LARGEST;
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
        let mut frame = [0; 100];
        frame[HEADER_LEN - 1] = 82;
        for _ in 0..10_000 {
            fill(&mut inbox, &frame);
            inbox.prepare();
            held.push(inbox.take(100, 90));
            assert!(inbox.blocks.len() <= MAX_BLOCKS && inbox.is_empty());
        }
        assert_eq!(held[0].len(), 10);
        assert!(inbox.copying);
        held.clear();
        inbox.store = BytesMut::new();
        fill(&mut inbox, b"x");
        assert!(!inbox.copying, "blocks that came free are used again");
    }

    #[test]
    fn reads_are_longer_while_large_frames_come_alone() {
        let mut inbox = Inbox::new(BytesMut::new());
        let read = |inbox: &mut Inbox| {
            let mut buffer = inbox.lend(0);
            let octets = buffer.capacity();
            buffer.resize(octets, 0);
            inbox.fill(buffer);
            inbox.skip(octets);
            octets
        };
        let longest = |inbox: &mut Inbox| (0..8).map(|_| read(inbox)).max().unwrap();
        assert_eq!(longest(&mut inbox), LARGEST);
        inbox.set_bulk(true);
        assert_eq!(read(&mut inbox), LARGEST, "no more than is known to come");
        assert_eq!(longest(&mut inbox), BULK);
        inbox.set_bulk(false);
        read(&mut inbox);
        assert_eq!(longest(&mut inbox), LARGEST);
    }

    #[test]
    fn blocks_that_are_too_small_keep_no_place() {
        let mut inbox = Inbox::new(BytesMut::new());
        let mut held = Vec::new();
        while inbox.size < LARGEST {
            // A read that comes back full, so that the next block is larger.
            let mut buffer = inbox.lend(0);
            buffer.resize(buffer.capacity(), 0);
            inbox.fill(buffer);
            inbox.prepare();
            held.push(inbox.take(HEADER_LEN, 0));
            inbox.skip(inbox.batch.len());
            inbox.skip(inbox.store.len());
        }
        assert!(held.len() >= 4 && inbox.blocks.is_empty(), "{:?}", inbox.blocks);
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
