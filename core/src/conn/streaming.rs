//! What a call that streams holds: items on their way out, items that wait to be taken, and the credit of both.
//! Storage and its small rules; what frames and verbs mean for it is in [`items`](super::items).

use alloc::collections::VecDeque;

use bytes::Bytes;

use super::credit::{ITEM_COST, Purse, Till};
use crate::wire::{Kind, snappy};

/// A call that streams, seen from one of its ends.
#[derive(Debug)]
pub(crate) struct Streaming {
    /// If this end sends items.
    pub(crate) sends: Option<Sends>,
    /// If this end receives items.
    pub(crate) takes: Option<Takes>,
}

impl Streaming {
    /// The end of the caller; it learns the callee's window at check-in.
    pub(crate) fn of_caller(kind: Kind, window: u32, credit: u32) -> Self {
        Self::new(kind, Kind::ClientStream, window, Kind::ServerStream, credit)
    }

    /// The end of the callee.
    pub(crate) fn of_callee(kind: Kind, credit: u32, window: u32) -> Self {
        Self::new(kind, Kind::ServerStream, credit, Kind::ClientStream, window)
    }

    fn new(kind: Kind, sending: Kind, credit: u32, taking: Kind, window: u32) -> Self {
        let has = |direction| kind == direction || kind == Kind::Bidi;
        Self {
            sends: has(sending).then(|| Sends::new(credit)),
            takes: has(taking).then(|| Takes::new(window)),
        }
    }
}

/// How far the end of what a caller sends has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ending {
    Open,
    /// STREAM_END goes out behind the last item.
    Wanted,
    /// STREAM_END is committed, or will never be.
    Over,
}

/// An item on its way out.
#[derive(Debug)]
pub(crate) struct Outgoing {
    /// As it is sent.
    pub(crate) octets: Bytes,
    pub(crate) compressed: bool,
}

/// The direction in which this end sends.
#[derive(Debug)]
pub(crate) struct Sends {
    pub(crate) purse: Purse,
    queue: VecDeque<Outgoing>,
    /// Of those, with 256 each.
    queued: usize,
    /// How much of the first was committed, once it was begun.
    pub(crate) sent: Option<usize>,
    pub(crate) ending: Ending,
    /// It stands in the lanes.
    pub(crate) in_lane: bool,
    /// The application found no room, and is to be told when there is.
    pub(crate) wants_room: bool,
}

impl Sends {
    fn new(credit: u32) -> Self {
        Self {
            purse: Purse::new(credit),
            queue: VecDeque::new(),
            queued: 0,
            sent: None,
            ending: Ending::Open,
            in_lane: false,
            wants_room: false,
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    /// Whether another item may wait. One always may.
    pub(crate) fn has_room(&self, octets: usize, most: usize) -> bool {
        self.queue.is_empty() || self.queued.saturating_add(octets).saturating_add(ITEM_COST as usize) <= most
    }

    /// Whether there is room again for those who were told that there is none.
    pub(crate) fn may_tell_room(&self, most: usize) -> bool {
        self.wants_room && (self.queue.is_empty() || self.queued <= most / 2)
    }

    /// Octets of the largest item that waits, as it is sent.
    pub(crate) fn largest(&self) -> usize {
        self.queue.iter().map(|item| item.octets.len()).max().unwrap_or(0)
    }

    pub(crate) fn push(&mut self, item: Outgoing) {
        self.queued = self.queued.saturating_add(item.octets.len()).saturating_add(ITEM_COST as usize);
        self.queue.push_back(item);
    }

    pub(crate) fn first(&self) -> Option<&Outgoing> {
        self.queue.front()
    }

    /// The first item is committed whole.
    pub(crate) fn pop(&mut self) {
        self.sent = None;
        if let Some(item) = self.queue.pop_front() {
            self.queued = self.queued.saturating_sub(item.octets.len()).saturating_sub(ITEM_COST as usize);
        }
        if self.queue.is_empty() && self.queue.capacity() > 64 {
            self.queue = VecDeque::new();
        }
    }

    /// Whether a frame could be committed now: the rest of an item, an item, or the end of them.
    pub(crate) fn is_ready(&self) -> bool {
        match self.queue.front() {
            Some(_) => self.sent.is_some() || self.purse.may_begin(),
            None => self.ending == Ending::Wanted,
        }
    }

    /// Drops what waits, and sends nothing more, neither items nor their end: what lacks items must not look whole.
    /// Whether an item is half sent and must be abandoned.
    pub(crate) fn clear(&mut self) -> bool {
        self.ending = Ending::Over;
        self.queue = VecDeque::new();
        self.queued = 0;
        self.wants_room = false;
        self.sent.take().is_some()
    }
}

/// An item that waits to be taken, as it came: credit bounds that, and not what it unfolds to.
#[derive(Debug)]
pub(crate) struct Held {
    pub(crate) octets: Bytes,
    /// Its plain length, if it is compressed.
    pub(crate) plain: Option<usize>,
}

impl Held {
    /// The item, plain.
    pub(crate) fn unfold(self) -> Result<Bytes, snappy::BadBlock> {
        match self.plain {
            None => Ok(self.octets),
            Some(plain) => snappy::decompress(&self.octets, plain).map(Bytes::from),
        }
    }
}

/// The direction in which this end receives.
#[derive(Debug)]
pub(crate) struct Takes {
    pub(crate) till: Till,
    queue: VecDeque<Held>,
    /// No more will come.
    pub(crate) ended: bool,
    /// The application knows that there is something to take, and has not found the queue empty since.
    pub(crate) told: bool,
    /// CREDIT waits to be committed.
    pub(crate) credit_waits: bool,
}

impl Takes {
    fn new(window: u32) -> Self {
        Self {
            till: Till::new(window),
            queue: VecDeque::new(),
            ended: false,
            told: false,
            credit_waits: false,
        }
    }

    /// Keeps an item; whether the application is to be told.
    #[inline]
    #[must_use]
    pub(crate) fn push(&mut self, item: Held) -> bool {
        self.queue.push_back(item);
        !core::mem::replace(&mut self.told, true)
    }

    /// The peer has ended; whether the application is to be told.
    #[must_use]
    pub(crate) fn end(&mut self) -> bool {
        self.ended = true;
        !core::mem::replace(&mut self.told, true)
    }

    /// The next item.
    #[inline]
    pub(crate) fn pop(&mut self) -> Option<Held> {
        let item = self.queue.pop_front();
        if item.is_none() {
            self.told = self.ended;
            if self.queue.capacity() > 64 {
                self.queue = VecDeque::new();
            }
        }
        item
    }

    pub(crate) fn clear(&mut self) {
        self.queue = VecDeque::new();
    }

    /// What was not taken, plain.
    pub(crate) fn drain(&mut self) -> Result<VecDeque<Bytes>, snappy::BadBlock> {
        core::mem::take(&mut self.queue).into_iter().map(Held::unfold).collect()
    }
}
