//! What waits to be committed, by priority.
//!
//! REQUESTs wait apart from all else: the peer's `max_concurrent` may hold them up, and its `max_streams` those that
//! stream, and nothing else may stand behind them then. But for that the order within a priority is the order of
//! arrival. What more there is of a message or a stream after one of its frames goes to the end of a queue of its own:
//! round robin. Those who have not begun go before it, so that a small message waits for one frame however many large
//! ones have begun; but not for ever.

use alloc::collections::VecDeque;

use super::event::{Served, Stream};

/// Priorities 1, 0 and −1, in the order in which they go out.
pub(crate) const LANES: usize = 3;

/// The lane of priority 0.
pub(crate) const NORMAL: u8 = 1;

/// The lane of priority −1.
pub(crate) const LAST: u8 = 2;

/// The lane of a priority; others are clamped (protocol §5).
#[inline]
pub(crate) const fn lane(priority: i32) -> u8 {
    match priority {
        1.. => 0,
        0 => NORMAL,
        _ => LAST,
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
    /// A call of this side of which the first frame is out.
    Rest { slot: u32, generation: u32 },
    /// An answer to a call of the peer, or the rest of it.
    Answer(Served),
    /// Items.
    Items(Stream),
}

/// A queue in which some entries may have been withdrawn.
#[derive(Default)]
pub(crate) struct Queue {
    /// Who waits, and the number of its arrival.
    entries: VecDeque<(u64, Waiting)>,
    withdrawn: usize,
}

impl Queue {
    #[inline]
    pub(crate) fn push(&mut self, number: u64, waiting: Waiting) {
        self.entries.push_back((number, waiting));
    }

    /// The number of the first.
    #[inline]
    fn first(&self) -> Option<u64> {
        self.entries.front().map(|(number, _)| *number)
    }

    /// The next entry; the caller says with [`found_withdrawn`](Self::found_withdrawn) if it no longer stands.
    #[inline]
    pub(crate) fn pop(&mut self) -> Option<Waiting> {
        self.entries.pop_front().map(|(_, waiting)| waiting)
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
            self.entries.retain(|(_, waiting)| stands(*waiting));
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

/// Frames of those who have not begun that go in a row before one of those who have.
const IN_A_ROW: u8 = 8;

/// The queues: three for REQUESTs, three for those that stream, three for all else that has not begun, three for what
/// more there is.
#[derive(Default)]
pub(crate) struct Lanes {
    queues: [Queue; 4 * LANES],
    /// A bit for each queue in which something that still stands may wait.
    busy: u16,
    arrivals: u64,
    /// How many went in a row.
    in_a_row: u8,
}

/// What the peer would take now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Window {
    pub(crate) requests: bool,
    pub(crate) streams: bool,
}

impl Window {
    /// No new call.
    pub(crate) const SHUT: Self = Self { requests: false, streams: false };
}

/// A queue of [`Lanes`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sort {
    Request,
    /// A REQUEST that streams.
    Stream,
    Other,
    /// What more there is of what has begun.
    Rest,
}

const REQUESTS: u16 = 0b000_000_111;
const STREAMS: u16 = 0b000_111_000;
const OTHERS: u16 = 0b111_111_000_000;
const RESTS: u16 = 0b111_000_000_000;

impl Lanes {
    #[inline]
    const fn index(sort: Sort, lane: u8) -> usize {
        let lane = if lane < 3 { lane } else { 2 };
        match sort {
            Sort::Request => lane as usize,
            Sort::Stream => LANES + lane as usize,
            Sort::Other => 2 * LANES + lane as usize,
            Sort::Rest => 3 * LANES + lane as usize,
        }
    }

    #[inline]
    pub(crate) fn push(&mut self, sort: Sort, lane: u8, waiting: Waiting) {
        let index = Self::index(sort, lane);
        if let Some(queue) = self.queues.get_mut(index) {
            queue.push(self.arrivals, waiting);
            self.arrivals += 1;
            self.busy |= 1 << index;
        }
    }

    /// Whose turn it is among those of the highest priority that may go: the sort and the lane.
    pub(crate) fn turn(&mut self, window: Window) -> Option<(Sort, u8)> {
        let sorts = [
            (Sort::Other, true),
            (Sort::Stream, window.requests && window.streams),
            (Sort::Request, window.requests),
        ];
        (0..3u8).find_map(|lane| {
            let first = |sort| {
                let index = Self::index(sort, lane);
                let busy = self.busy & (1 << index) != 0;
                self.queues.get(index).filter(|_| busy).and_then(Queue::first)
            };
            let open = sorts.iter().filter(|(_, open)| *open);
            let new = open.filter_map(|(sort, _)| Some((first(*sort)?, *sort))).min_by_key(|(at, _)| *at);
            let begun = first(Sort::Rest).is_some();
            match new {
                Some((_, sort)) if !begun || self.in_a_row < IN_A_ROW => {
                    self.in_a_row = if begun { self.in_a_row + 1 } else { 0 };
                    Some((sort, lane))
                }
                _ if begun => {
                    self.in_a_row = 0;
                    Some((Sort::Rest, lane))
                }
                _ => None,
            }
        })
    }

    /// The next of a queue.
    #[inline]
    pub(crate) fn pop(&mut self, sort: Sort, lane: u8) -> Option<Waiting> {
        let index = Self::index(sort, lane);
        if self.busy & (1 << index) == 0 {
            return None;
        }
        let queue = self.queues.get_mut(index)?;
        let waiting = queue.pop();
        if queue.is_empty() {
            self.busy &= !(1 << index);
        }
        waiting
    }

    /// An entry of a queue was withdrawn; see [`Queue::withdraw`].
    pub(crate) fn withdraw(&mut self, sort: Sort, lane: u8, stands: impl FnMut(Waiting) -> bool) {
        let index = Self::index(sort, lane);
        if let Some(queue) = self.queues.get_mut(index) {
            queue.withdraw(stands);
            if queue.is_empty() {
                self.busy &= !(1 << index);
            }
        }
    }

    /// What was popped no longer stood.
    pub(crate) fn found_withdrawn(&mut self, sort: Sort, lane: u8) {
        let index = Self::index(sort, lane);
        if let Some(queue) = self.queues.get_mut(index) {
            queue.found_withdrawn();
            if !queue.is_empty() {
                self.busy |= 1 << index;
            }
        }
    }

    /// Whether nothing waits.
    #[inline]
    pub(crate) const fn is_empty(&self) -> bool {
        self.busy == 0
    }

    /// Whether there is something to commit; REQUESTs only if the peer would take one.
    #[inline]
    pub(crate) const fn any(&self, window: Window) -> bool {
        self.busy & (OTHERS | Self::calls(window)) != 0
    }

    /// The queues of REQUESTs that the peer would take.
    #[inline]
    const fn calls(window: Window) -> u16 {
        let requests = if window.requests { REQUESTS } else { 0 };
        let streams = if window.requests && window.streams { STREAMS } else { 0 };
        requests | streams
    }

    /// Whether there is something to commit, all of it is what more there is of what has begun, and the next of that is a
    /// part of a large message.
    #[inline]
    pub(crate) fn only_rest(&self, window: Window) -> bool {
        let rest = self.busy & RESTS != 0 && self.busy & (OTHERS & !RESTS | Self::calls(window)) == 0;
        rest && self.part_is_next()
    }

    /// Whether a part of a large message goes before items among what more there is.
    fn part_is_next(&self) -> bool {
        let rests = self.queues.iter().skip(Self::index(Sort::Rest, 0));
        let next = rests.filter(|queue| !queue.is_empty()).find_map(|queue| queue.entries.front());
        next.is_some_and(|(_, waiting)| !matches!(waiting, Waiting::Items(_)))
    }

    /// Forgets the REQUESTs.
    pub(crate) fn clear_requests(&mut self) {
        self.queues.iter_mut().take(2 * LANES).for_each(Queue::clear);
        self.busy &= OTHERS;
    }

    /// Gives memory back where nothing waits.
    pub(crate) fn shrink(&mut self) {
        self.queues.iter_mut().for_each(Queue::shrink);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const OPEN: Window = Window { requests: true, streams: true };

    fn call(slot: u32) -> Waiting {
        Waiting::Call { slot, generation: 0 }
    }

    #[test]
    fn what_was_withdrawn_does_not_count_as_waiting() {
        let mut lanes = Lanes::default();
        lanes.push(Sort::Request, 1, call(1));
        lanes.push(Sort::Other, 2, call(2));
        assert!(lanes.any(Window::SHUT));
        lanes.withdraw(Sort::Other, 2, |_| true);
        assert!(!lanes.any(Window::SHUT) && lanes.any(OPEN) && !lanes.is_empty());
        assert_eq!(lanes.pop(Sort::Other, 2), None);
        lanes.push(Sort::Other, 2, call(3));
        assert!(lanes.any(Window::SHUT));
        assert_eq!(
            lanes.pop(Sort::Other, 2),
            Some(call(2)),
            "it is the owner of the slot who knows that it was withdrawn"
        );
        lanes.found_withdrawn(Sort::Other, 2);
        assert_eq!(lanes.pop(Sort::Other, 2), Some(call(3)));
        assert!(!lanes.any(Window::SHUT));
    }

    #[test]
    fn only_what_has_begun_waits_if_nothing_may_begin() {
        let mut lanes = Lanes::default();
        assert!(!lanes.only_rest(OPEN), "nothing waits");
        lanes.push(Sort::Rest, 1, call(1));
        assert!(lanes.only_rest(OPEN));
        lanes.push(Sort::Request, 2, call(2));
        assert!(!lanes.only_rest(OPEN) && lanes.only_rest(Window::SHUT), "the peer takes no REQUEST");
        lanes.push(Sort::Other, 0, call(3));
        assert!(!lanes.only_rest(Window::SHUT));
    }

    #[test]
    fn items_are_no_part_of_a_large_message() {
        let mut lanes = Lanes::default();
        let items = Waiting::Items(Stream::Theirs(Served { slot: 0, generation: 0 }));
        lanes.push(Sort::Rest, 1, items);
        lanes.push(Sort::Rest, 1, call(1));
        assert!(!lanes.only_rest(OPEN), "they go first");
        lanes.push(Sort::Rest, 0, call(2));
        assert!(lanes.only_rest(OPEN), "by priority");
        lanes.pop(Sort::Rest, 0);
        lanes.pop(Sort::Rest, 1);
        assert!(lanes.only_rest(OPEN), "by turns");
    }

    #[test]
    fn turns_go_by_priority_and_then_by_arrival() {
        let mut lanes = Lanes::default();
        lanes.push(Sort::Request, 1, call(1));
        lanes.push(Sort::Other, 1, call(2));
        lanes.push(Sort::Stream, 1, call(3));
        lanes.push(Sort::Other, 0, call(4));
        let mut order = alloc::vec::Vec::new();
        while let Some((sort, lane)) = lanes.turn(OPEN) {
            order.extend(lanes.pop(sort, lane));
        }
        assert_eq!(order, [4, 1, 2, 3].map(call));
        lanes.push(Sort::Request, 0, call(5));
        lanes.push(Sort::Other, 2, call(6));
        assert_eq!(lanes.turn(Window::SHUT), Some((Sort::Other, 2)), "who may not go holds up nobody");
    }

    #[test]
    fn who_has_not_begun_goes_first_but_not_for_ever() {
        let mut lanes = Lanes::default();
        for slot in 0..20 {
            lanes.push(Sort::Rest, 1, call(100 + slot));
            lanes.push(Sort::Other, 1, call(slot));
        }
        let sorts: alloc::vec::Vec<_> = (0..20)
            .map(|_| {
                let (sort, lane) = lanes.turn(OPEN).unwrap();
                lanes.pop(sort, lane);
                sort
            })
            .collect();
        let begun: alloc::vec::Vec<_> = (0..20).filter(|at| sorts[*at] == Sort::Rest).collect();
        assert_eq!(begun, [8, 17]);
    }

    #[test]
    fn what_the_peer_does_not_take_holds_nothing_else_up() {
        let mut lanes = Lanes::default();
        lanes.push(Sort::Stream, 1, call(1));
        assert!(
            !lanes.any(Window { streams: false, ..OPEN }) && !lanes.any(Window { requests: false, ..OPEN })
        );
        assert!(lanes.any(OPEN));
        lanes.push(Sort::Request, 1, call(2));
        assert!(lanes.any(Window { streams: false, ..OPEN }));
        lanes.clear_requests();
        assert!(lanes.is_empty());
    }

    #[test]
    fn withdrawing_for_ever_takes_no_memory() {
        let mut lanes = Lanes::default();
        for slot in 0..100_000 {
            lanes.push(Sort::Request, 0, call(slot));
            lanes.withdraw(Sort::Request, 0, |_| false);
        }
        assert!(lanes.queues[0].entries.capacity() < 1000);
    }
}
