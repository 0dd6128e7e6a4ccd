//! What waits to be committed, by priority.
//!
//! REQUESTs wait apart from answers and one-ways: the peer's `max_concurrent` may hold them up, and nothing else may
//! stand behind them then. Within a lane the order is the order of arrival, and the two sorts take turns.

use alloc::collections::VecDeque;

/// Priorities 1, 0 and −1, in the order in which they go out.
pub(crate) const LANES: usize = 3;

/// The lane of priority 0.
pub(crate) const NORMAL: u8 = 1;

/// The lane of a priority; others are clamped (protocol §5).
#[inline]
pub(crate) const fn lane(priority: i32) -> u8 {
    match priority {
        1.. => 0,
        0 => NORMAL,
        _ => 2,
    }
}

/// The priority of a lane.
pub(crate) const fn priority(lane: u8) -> i8 {
    match lane {
        0 => 1,
        1 => 0,
        _ => -1,
    }
}

/// Who waits: a slot of one of the two tables, and its generation, so that one that was withdrawn is recognised.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Waiting {
    /// A call of this side.
    Call { slot: u32, generation: u32 },
    /// An answer to a call of the peer.
    Answer { slot: u32 },
}

/// A queue in which some entries may have been withdrawn.
#[derive(Default)]
pub(crate) struct Queue {
    entries: VecDeque<Waiting>,
    withdrawn: usize,
}

impl Queue {
    #[inline]
    pub(crate) fn push(&mut self, waiting: Waiting) {
        self.entries.push_back(waiting);
    }

    /// The next entry; the caller says with [`found_withdrawn`](Self::found_withdrawn) if it no longer stands.
    #[inline]
    pub(crate) fn pop(&mut self) -> Option<Waiting> {
        self.entries.pop_front()
    }

    /// Whether anything that still stands waits.
    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.entries.len() <= self.withdrawn
    }

    pub(crate) fn found_withdrawn(&mut self) {
        self.withdrawn = self.withdrawn.saturating_sub(1);
    }

    /// An entry was withdrawn. Now and then, when most were, those are cleared away.
    pub(crate) fn withdraw(&mut self, mut stands: impl FnMut(Waiting) -> bool) {
        self.withdrawn += 1;
        if self.withdrawn > 32 && self.withdrawn * 2 > self.entries.len() {
            self.entries.retain(|waiting| stands(*waiting));
            self.withdrawn = 0;
        }
    }

    pub(crate) fn clear(&mut self) {
        *self = Self::default();
    }

    /// Gives memory back when nothing waits.
    pub(crate) fn shrink(&mut self) {
        if self.is_empty() {
            self.clear();
        }
    }
}

#[derive(Default)]
pub(crate) struct Lanes {
    pub(crate) requests: [Queue; LANES],
    pub(crate) others: [Queue; LANES],
}

impl Lanes {
    #[inline]
    pub(crate) fn requests(&mut self, lane: u8) -> &mut Queue {
        let [high, normal, low] = &mut self.requests;
        match lane {
            0 => high,
            1 => normal,
            _ => low,
        }
    }

    #[inline]
    pub(crate) fn others(&mut self, lane: u8) -> &mut Queue {
        let [high, normal, low] = &mut self.others;
        match lane {
            0 => high,
            1 => normal,
            _ => low,
        }
    }

    /// Whether there is something to commit; REQUESTs only if the peer would take one.
    #[inline]
    pub(crate) fn any(&self, window_open: bool) -> bool {
        self.others.iter().any(|queue| !queue.is_empty())
            || (window_open && self.requests.iter().any(|queue| !queue.is_empty()))
    }

    pub(crate) fn shrink(&mut self) {
        self.requests.iter_mut().chain(&mut self.others).for_each(Queue::shrink);
    }
}
