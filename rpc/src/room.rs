//! Who waits for room: calls that found as many waiting on the connection as may.
//!
//! They enter in the order in which they came. Only the first one tries, and whoever leaves the front wakes the next;
//! that is also how all of them learn that the connection has ended. The driver wakes a few at once, so that a row of
//! them does not cost a round of the scheduler each, and it wakes those whose time is over.

use std::{collections::VecDeque, task::Waker};

use tieline_core::Instant;

/// The most calls that may wait for room on one connection. The next one fails at once, so that what callers can pile
/// up is bounded: this many arguments beside what the limits of the connection let wait inside.
pub(crate) const MOST: usize = 16_384;
/// How many are woken together.
const TOGETHER: usize = 64;

struct Place {
    ticket: u64,
    waker: Waker,
    until: Option<Instant>,
}

#[derive(Default)]
pub(crate) struct Room {
    /// By ticket.
    queue: VecDeque<Place>,
    next: u64,
    /// Not later than the first time that is over.
    due: Option<Instant>,
}

impl Room {
    /// Whether whoever holds this ticket may try: nobody came before.
    #[inline]
    pub(crate) fn may_try(&self, ticket: Option<u64>) -> bool {
        match self.queue.front() {
            None => true,
            Some(first) => ticket == Some(first.ticket),
        }
    }

    /// Waits at the end of the queue, if it is not too long.
    pub(crate) fn join(&mut self, waker: &Waker, until: Option<Instant>) -> Option<u64> {
        if self.queue.len() >= MOST {
            return None;
        }
        self.next += 1;
        let ticket = self.next;
        self.queue.push_back(Place { ticket, waker: waker.clone(), until });
        if let Some(until) = until {
            self.due = Some(self.due.map_or(until, |due| due.min(until)));
        }
        Some(ticket)
    }

    fn position(&self, ticket: u64) -> Option<usize> {
        self.queue.binary_search_by_key(&ticket, |place| place.ticket).ok()
    }

    /// Goes on waiting.
    pub(crate) fn stay(&mut self, ticket: u64, waker: &Waker) {
        if let Some(place) = self.position(ticket).and_then(|at| self.queue.get_mut(at))
            && !place.waker.will_wake(waker)
        {
            place.waker = waker.clone();
        }
    }

    /// Waits no longer. Who is to be woken, because it is the first now.
    pub(crate) fn leave(&mut self, ticket: u64) -> Option<Waker> {
        let at = self.position(ticket)?;
        self.queue.remove(at);
        if self.queue.is_empty() {
            self.queue = VecDeque::new();
            self.due = None;
        }
        if at > 0 {
            return None;
        }
        self.queue.front().map(|first| first.waker.clone())
    }

    /// There is room, or there will be none any more.
    pub(crate) fn call(&self, wakers: &mut Vec<Waker>) {
        wakers.extend(self.queue.iter().take(TOGETHER).map(|place| place.waker.clone()));
    }

    /// When somebody's time is over.
    #[inline]
    pub(crate) const fn due(&self) -> Option<Instant> {
        self.due
    }

    /// Wakes those whose time is over; they leave by themselves.
    pub(crate) fn expire(&mut self, now: Instant, wakers: &mut Vec<Waker>) {
        if self.due.is_none_or(|due| due > now) {
            return;
        }
        let over = |place: &&Place| place.until.is_some_and(|until| until <= now);
        wakers.extend(self.queue.iter().filter(over).map(|place| place.waker.clone()));
        self.due = self.queue.iter().filter_map(|place| place.until).filter(|until| *until > now).min();
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    };

    use super::*;

    struct Count(AtomicUsize);

    impl std::task::Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn at(nanos: u64) -> Instant {
        Instant::from_nanos(nanos)
    }

    #[test]
    fn the_first_tries_and_whoever_leaves_the_front_wakes_the_next() {
        let mut room = Room::default();
        assert!(room.may_try(None));
        let (a, b, c) = (
            room.join(Waker::noop(), None).unwrap(),
            room.join(Waker::noop(), None).unwrap(),
            room.join(Waker::noop(), None).unwrap(),
        );
        assert!(!room.may_try(None) && room.may_try(Some(a)) && !room.may_try(Some(b)));
        assert!(room.leave(b).is_none(), "it was not at the front");
        assert!(room.leave(a).is_some());
        assert!(room.may_try(Some(c)));
        assert!(room.leave(a).is_none(), "it is not there any more");
        assert!(room.leave(c).is_none() && room.may_try(None));
    }

    #[test]
    fn those_whose_time_is_over_are_woken_once() {
        let count = Arc::new(Count(AtomicUsize::new(0)));
        let (mut room, mut wakers) = (Room::default(), Vec::new());
        room.join(Waker::noop(), None).unwrap();
        room.join(&Arc::clone(&count).into(), Some(at(20))).unwrap();
        room.join(Waker::noop(), Some(at(30))).unwrap();
        assert_eq!(room.due(), Some(at(20)));
        room.expire(at(19), &mut wakers);
        assert!(wakers.is_empty());
        room.expire(at(20), &mut wakers);
        wakers.drain(..).for_each(Waker::wake);
        assert_eq!((count.0.load(Ordering::Relaxed), room.due()), (1, Some(at(30))));
    }

    #[test]
    fn the_queue_is_bounded() {
        let mut room = Room::default();
        let tickets: Vec<u64> = (0..MOST).map(|_| room.join(Waker::noop(), None).unwrap()).collect();
        assert!(room.join(Waker::noop(), None).is_none());
        room.leave(tickets[7]);
        assert!(room.join(Waker::noop(), None).is_some());
    }
}
