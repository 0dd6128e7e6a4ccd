//! The two buffers that a connection needs when it is written by hand.

/// What an input buffer starts with: small, since most connections are idle.
const START: usize = 16 * 1024;
/// A buffer that reads keep filling doubles up to this size. Beyond it only a long frame makes it grow.
const READ_MOST: usize = 512 * 1024;
/// Less free room than this is not worth a read.
const READ_LEAST: usize = 4 * 1024;

/// Octets that were read and not yet used.
///
/// The storage is filled with zeroes once and then reused, so that nothing is cleared for each read.
#[derive(Debug)]
pub(crate) struct Inbox {
    storage: Vec<u8>,
    head: usize,
    tail: usize,
    /// The last read filled all the room that it had: there is probably more.
    full: bool,
}

impl Inbox {
    pub(crate) fn new() -> Self {
        Self { storage: vec![0; START], head: 0, tail: 0, full: false }
    }

    /// The octets that wait.
    pub(crate) fn waiting(&self) -> &[u8] {
        self.storage.get(self.head..self.tail).unwrap_or_default()
    }

    /// Room to read into, never empty. `need` is the length of the frame that is begun: a buffer that
    /// must grow for one frame grows to exactly that, so that the read ends where the frame ends and
    /// the next frame starts at the front, without being moved.
    pub(crate) fn room(&mut self, need: usize) -> &mut [u8] {
        if self.full {
            self.full = false;
            if self.storage.len() < READ_MOST {
                let doubled = (self.storage.len() * 2).min(READ_MOST);
                self.storage.resize(doubled, 0);
            }
        }
        let held = self.tail - self.head;
        let wanted = need.saturating_sub(held).max(1);
        let free = self.storage.len() - self.tail;
        if free < wanted || (free < READ_LEAST && self.head > 0) {
            self.storage.copy_within(self.head..self.tail, 0);
            self.head = 0;
            self.tail = held;
            if self.storage.len() - held < wanted {
                self.storage.resize(held + wanted, 0);
            }
        }
        self.storage.get_mut(self.tail..).unwrap_or_default()
    }

    /// A read put `octets` into the room.
    pub(crate) fn filled(&mut self, octets: usize) {
        self.tail = (self.tail + octets).min(self.storage.len());
        self.full = self.tail == self.storage.len();
    }

    /// The first `octets` of what waits are used.
    pub(crate) fn consume(&mut self, octets: usize) {
        self.head = (self.head + octets).min(self.tail);
        if self.head == self.tail {
            self.head = 0;
            self.tail = 0;
        }
    }
}

/// Octets that are to be written.
#[derive(Debug, Default)]
pub(crate) struct Outbox {
    storage: Vec<u8>,
    head: usize,
}

impl Outbox {
    /// The octets that wait.
    pub(crate) fn waiting(&self) -> &[u8] {
        self.storage.get(self.head..).unwrap_or_default()
    }

    /// Where to append. What is written already is dropped from the front first if it is the greater
    /// part, so that the storage stays within twice what waits.
    pub(crate) fn tail(&mut self) -> &mut Vec<u8> {
        if self.head > self.storage.len() / 2 {
            self.storage.drain(..self.head);
            self.head = 0;
        }
        &mut self.storage
    }

    /// The kernel took `octets`.
    pub(crate) fn sent(&mut self, octets: usize) {
        self.head = (self.head + octets).min(self.storage.len());
        if self.head == self.storage.len() {
            self.storage.clear();
            self.head = 0;
        }
    }

    /// Takes `other` to be written, and leaves empty storage there. Only for an empty outbox.
    pub(crate) fn swap(&mut self, other: &mut Vec<u8>) {
        debug_assert!(self.waiting().is_empty());
        std::mem::swap(&mut self.storage, other);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]

    use super::*;

    /// Octets that can be told apart, passed through in steps: what comes out is what went in.
    #[test]
    fn an_inbox_neither_loses_nor_repeats_octets() {
        for (read, frame) in [(1, 1), (3, 83), (83, 83), (5000, 83), (40_000, 70_001), (1 << 20, 700_000)] {
            let total = frame * 7 + 1;
            let source: Vec<u8> = (0..total).map(|k| u8::try_from(k % 251).unwrap()).collect();
            let mut inbox = Inbox::new();
            let (mut sent, mut seen) = (0, Vec::new());
            while sent < total {
                let room = inbox.room(frame);
                assert!(!room.is_empty());
                let step = room.len().min(read).min(total - sent);
                room[..step].copy_from_slice(&source[sent..sent + step]);
                inbox.filled(step);
                sent += step;
                while inbox.waiting().len() >= frame {
                    seen.extend_from_slice(&inbox.waiting()[..frame]);
                    inbox.consume(frame);
                }
            }
            seen.extend_from_slice(inbox.waiting());
            assert_eq!(seen, source, "reads of {read}, frames of {frame}");
        }
    }

    #[test]
    fn an_inbox_grows_to_one_long_frame_exactly() {
        let mut inbox = Inbox::new();
        let step = inbox.room(18).len();
        inbox.filled(step);
        let mut held = step;
        while held < 3_000_000 {
            let step = inbox.room(3_000_000).len();
            inbox.filled(step);
            held += step;
        }
        assert_eq!(held, 3_000_000);
    }

    #[test]
    fn an_outbox_keeps_order_through_partial_writes() {
        let mut outbox = Outbox::default();
        let mut written = Vec::new();
        for k in 0..200_u8 {
            outbox.tail().extend_from_slice(&[k; 3]);
            let step = outbox.waiting().len().min(2);
            written.extend_from_slice(&outbox.waiting()[..step]);
            outbox.sent(step);
        }
        written.extend_from_slice(outbox.waiting());
        let wanted: Vec<u8> = (0..200_u8).flat_map(|k| [k; 3]).collect();
        assert_eq!(written, wanted);
    }
}
