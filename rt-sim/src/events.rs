//! What is to happen, and when. At one instant things happen in the order in which they were arranged.

use std::{collections::BTreeMap, task::Waker};

use crate::conn::Way;

/// What happens.
#[derive(Debug)]
pub(crate) enum Event {
    /// A timer fires.
    Wake(Waker),
    /// The line is free for the next piece of a connection.
    Pump(Way),
    /// The first of what is on its way is due at its end.
    Arrive(Way),
    /// An acknowledgement is due at the sender.
    Acknowledge(Way),
    /// The sender of a direction looks whether anything was acknowledged.
    Watch(Way),
    /// An attempt to connect comes to its host; the wait before the next try, if there is no answer.
    Knock { conn: u64, again: u64 },
    /// The answer to an attempt comes back.
    Welcome { conn: u64, again: u64 },
    /// The refusal of an attempt comes back.
    TurnAway { conn: u64 },
    /// A reset, sent in this direction, comes to its end.
    Reset(Way),
    /// A direction between two hosts, which was held for a while, is free again.
    Release { from: usize, to: usize },
    /// A host that computed is done.
    Rest { host: usize, incarnation: u64 },
}

/// Names one event, to take it back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Due {
    pub(crate) at: u64,
    number: u64,
}

#[derive(Debug, Default)]
pub(crate) struct Events {
    queue: BTreeMap<Due, Event>,
    arranged: u64,
}

impl Events {
    pub(crate) fn arrange(&mut self, at: u64, event: Event) -> Due {
        self.arranged += 1;
        let due = Due { at, number: self.arranged };
        self.queue.insert(due, event);
        due
    }

    /// Takes one back. It is to be dropped outside the lock: it may hold a waker.
    pub(crate) fn take_back(&mut self, due: Due) -> Option<Event> {
        self.queue.remove(&due)
    }

    /// Changes whom a timer wakes, and returns whom it woke before, to be dropped outside the lock. `None` if it has
    /// fired.
    pub(crate) fn rewake(&mut self, due: Due, waker: &Waker) -> Option<Option<Waker>> {
        match self.queue.get_mut(&due) {
            Some(Event::Wake(known)) if known.will_wake(waker) => Some(None),
            Some(Event::Wake(known)) => Some(Some(std::mem::replace(known, waker.clone()))),
            _ => None,
        }
    }

    /// When the next one is due.
    pub(crate) fn next(&self) -> Option<u64> {
        self.queue.first_key_value().map(|(due, _)| due.at)
    }

    /// The next one that is due by now.
    pub(crate) fn pop(&mut self, now: u64) -> Option<Event> {
        let first = self.queue.first_entry()?;
        (first.key().at <= now).then(|| first.remove())
    }

    /// All that there are, when the world ends.
    pub(crate) fn clear(&mut self) -> BTreeMap<Due, Event> {
        std::mem::take(&mut self.queue)
    }
}
