//! The two directions of a stream as this side sees them: credit as numbers, and what waits as lengths.

use std::collections::VecDeque;

use tieline_core::conn::{ItemError, Taken};

/// The initial credit for items.
pub(crate) const WINDOW: i64 = 1_000;
/// Octets that may wait to be sent, each item with its cost.
pub(crate) const QUEUED: usize = 1_000;
/// What an item costs beyond its octets.
pub(crate) const COST: usize = 256;

#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum End {
    Open,
    Wanted,
    Over,
}

/// The direction in which this side sends.
#[derive(Debug)]
pub(crate) struct Out {
    pub(crate) credit: i64,
    pub(crate) waiting: VecDeque<usize>,
    full: bool,
    pub(crate) end: End,
}

/// The direction in which this side receives.
#[derive(Debug)]
pub(crate) struct In {
    pub(crate) credit: i64,
    pub(crate) owed: i64,
    pub(crate) waiting: VecDeque<usize>,
    pub(crate) ended: bool,
    pub(crate) told: bool,
    /// CREDIT is to go out.
    pub(crate) pays: bool,
}

impl Out {
    pub(crate) fn new() -> Self {
        Self { credit: WINDOW, waiting: VecDeque::new(), full: false, end: End::Open }
    }

    fn queued(&self) -> usize {
        self.waiting.iter().map(|len| len + COST).sum()
    }

    pub(crate) fn send(&mut self, len: usize) -> Result<(), ItemError> {
        if self.end != End::Open {
            return Err(ItemError::Over);
        }
        if !self.waiting.is_empty() && self.queued() + len + COST > QUEUED {
            self.full = true;
            return Err(ItemError::Full);
        }
        self.waiting.push_back(len);
        Ok(())
    }

    pub(crate) fn drop_all(&mut self) {
        self.waiting.clear();
        (self.full, self.end) = (false, End::Over);
    }

    /// What goes out now, and whether the application is told that there is room.
    pub(crate) fn flush(&mut self, frames: &mut Vec<String>) -> bool {
        let mut room = false;
        while self.credit > 0
            && let Some(len) = self.waiting.pop_front()
        {
            self.credit -= (len + COST) as i64;
            frames.push(format!("STREAM_ITEM {len}"));
            room |= self.full && (self.waiting.is_empty() || self.queued() <= QUEUED / 2);
            self.full &= !room;
        }
        if self.waiting.is_empty() && self.end == End::Wanted {
            self.end = End::Over;
            frames.push("STREAM_END".to_owned());
        }
        room
    }
}

impl In {
    pub(crate) fn new() -> Self {
        Self { credit: WINDOW, owed: 0, waiting: VecDeque::new(), ended: false, told: false, pays: false }
    }

    fn settle(&mut self) {
        self.pays |= self.owed > 0 && (self.owed >= WINDOW / 4 || self.credit <= 0);
    }

    /// An item comes; whether the application is told.
    pub(crate) fn came(&mut self, len: usize) -> bool {
        self.credit -= (len + COST) as i64;
        self.settle();
        self.waiting.push_back(len);
        !std::mem::replace(&mut self.told, true)
    }

    pub(crate) fn take(&mut self) -> Option<Option<usize>> {
        let Some(len) = self.waiting.pop_front() else {
            self.told = self.ended;
            return self.ended.then_some(None);
        };
        self.owed += (len + COST) as i64;
        self.settle();
        Some(Some(len))
    }

    pub(crate) fn flush(&mut self, frames: &mut Vec<String>) {
        if std::mem::take(&mut self.pays) && !self.ended && self.owed > 0 {
            frames.push(format!("CREDIT {}", self.owed));
            self.credit += std::mem::take(&mut self.owed);
        }
    }
}

pub(crate) fn goes_up(kind: usize) -> bool {
    kind >= 2
}

pub(crate) fn goes_down(kind: usize) -> bool {
    kind == 1 || kind == 3
}

/// An item that was taken, by its length.
pub(crate) fn len_of(taken: Option<Taken>) -> Option<Option<usize>> {
    taken.map(|taken| match taken {
        Taken::Item(item) => Some(item.len()),
        Taken::End => None,
    })
}
