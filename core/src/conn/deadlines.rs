//! Deadlines of many calls: one queue for those that come in their order, a hierarchical timing wheel for the others.
//!
//! Calls mostly have one and the same time-out, so their deadlines come in order and a queue is all they need. Insert
//! and remove are O(1) for any other pattern too, so a peer that picks odd ones gains nothing; a binary heap would cost
//! O(log n) and a sorted list O(n). Queue and buckets are lists threaded through one array of nodes, indexed by the slot
//! of the call. Nothing is allocated until the first deadline comes, and `release` gives it all back.
//! (Varghese and Lauck, "Hashed and hierarchical timing wheels", 1987.)

use alloc::{boxed::Box, vec::Vec};

use crate::time::{MILLISECOND, NEVER};

/// Levels of 64 buckets each; the lowest level's bucket is one millisecond, the range 4.6 hours. A deadline beyond
/// the range waits in the last bucket and is put back from there.
const LEVELS: usize = 4;
const TOP: u32 = 3;
const BITS: u32 = 6;
const BUCKETS: usize = 64;
const RANGE: u64 = 1 << 24;

/// `Node::list` of a node in no list, and of one among those that came in order; else it is in a bucket of the wheel.
const NOWHERE: u32 = u32::MAX;
const QUEUE: u32 = u32::MAX - 1;

/// Node 0 belongs to no key: it is both ends of the queue, so that no place in it is a special one, and in the wheel it
/// stands for none.
const ENDS: u32 = 0;

#[derive(Clone, Copy)]
struct Node {
    /// In nanoseconds in the queue, in ticks in the wheel. That of the ends is 0: whatever comes first is in order.
    at: u64,
    prev: u32,
    next: u32,
    /// Level × 64 + bucket, `QUEUE`, or `NOWHERE`.
    list: u32,
}

const IDLE: Node = Node { at: 0, prev: ENDS, next: ENDS, list: NOWHERE };

struct Wheel {
    /// The last tick that was expired.
    now: u64,
    occupied: [u64; LEVELS],
    heads: [u32; LEVELS * BUCKETS],
    /// How many ticks after the start of its bucket nothing in it is due, at least: so that nobody is woken only to spread a
    /// coarse bucket over finer ones. Of a bucket that is not occupied it means nothing.
    quiet: [u32; LEVELS * BUCKETS],
}

/// The deadlines. One fires at most a millisecond late, which is the wheel's resolution, and never early.
#[derive(Default)]
pub(crate) struct Deadlines {
    /// The ends, then a node for each key.
    nodes: Vec<Node>,
    wheel: Option<Box<Wheel>>,
    /// How many are in the wheel.
    odd: u32,
}

impl Deadlines {
    /// Arms `key` for `deadline`, which is not `NEVER`. A key that is armed already is moved.
    #[inline(always)]
    pub(crate) fn insert(&mut self, key: u32, deadline: u64, now: u64) {
        let place = key.wrapping_add(1);
        let last = self.nodes.first().map_or(ENDS, |ends| ends.prev);
        let idle = self.nodes.get(place as usize).is_some_and(|node| node.list == NOWHERE);
        match self.nodes.get_mut(last as usize) {
            Some(before) if idle && before.at <= deadline => before.next = place,
            _ => return self.insert_odd(key, deadline, now),
        }
        if let Some(node) = self.nodes.get_mut(place as usize) {
            *node = Node { at: deadline, prev: last, next: ENDS, list: QUEUE };
        }
        if let Some(ends) = self.nodes.first_mut() {
            ends.prev = place;
        }
    }

    /// The same for a key that is new, or armed already, or whose deadline does not come in order.
    #[inline(never)]
    fn insert_odd(&mut self, key: u32, deadline: u64, now: u64) {
        let place = key.wrapping_add(1);
        if self.nodes.len() <= place as usize {
            self.nodes.resize(place as usize + 1, IDLE);
            return self.insert(key, deadline, now);
        }
        if self.nodes.get(place as usize).is_some_and(|node| node.list != NOWHERE) {
            self.remove(key);
            return self.insert(key, deadline, now);
        }
        let now = now / MILLISECOND;
        let wheel = self.wheel.get_or_insert_with(|| {
            Box::new(Wheel {
                now,
                occupied: [0; LEVELS],
                heads: [ENDS; LEVELS * BUCKETS],
                quiet: [0; LEVELS * BUCKETS],
            })
        });
        if self.odd == 0 {
            // Nothing is in it, so nothing can be passed over.
            wheel.now = now;
        }
        wheel.link(&mut self.nodes, place, deadline.div_ceil(MILLISECOND));
        self.odd += 1;
    }

    /// Disarms `key`, if it is armed.
    #[inline(always)]
    pub(crate) fn remove(&mut self, key: u32) {
        let place = key.wrapping_add(1);
        let Some(node) = self.nodes.get_mut(place as usize) else { return };
        if node.list != QUEUE {
            return self.remove_odd(place);
        }
        let Node { prev, next, .. } = *node;
        node.list = NOWHERE;
        if let Some(node) = self.nodes.get_mut(prev as usize) {
            node.next = next;
        }
        if let Some(node) = self.nodes.get_mut(next as usize) {
            node.prev = prev;
        }
    }

    /// Takes a node out of the wheel, if it is there.
    #[inline(never)]
    fn remove_odd(&mut self, place: u32) {
        let Some(node) = self.nodes.get_mut(place as usize).filter(|node| node.list != NOWHERE) else {
            return;
        };
        let Node { prev, next, list, .. } = core::mem::replace(node, IDLE);
        if next != ENDS
            && let Some(node) = self.nodes.get_mut(next as usize)
        {
            node.prev = prev;
        }
        match self.nodes.get_mut(prev as usize) {
            Some(node) if prev != ENDS => node.next = next,
            _ => {
                if let Some(wheel) = &mut self.wheel {
                    wheel.behead(list, next);
                }
            }
        }
        self.odd = self.odd.saturating_sub(1);
    }

    /// For when `key` is armed, in nanoseconds; what is in the wheel, for the end of its tick.
    #[inline]
    pub(crate) fn armed(&self, key: u32) -> Option<u64> {
        let node = self.nodes.get(key.wrapping_add(1) as usize)?;
        match node.list {
            NOWHERE => None,
            QUEUE => Some(node.at),
            _ => Some(node.at.saturating_mul(MILLISECOND)),
        }
    }

    /// The first of the queue, and its deadline.
    #[inline]
    fn first(&self) -> Option<(u32, u64)> {
        let first = self.nodes.first()?.next;
        if first == ENDS { None } else { Some((first, self.nodes.get(first as usize)?.at)) }
    }

    /// When `expire` has something to do next. If the first one was disarmed meanwhile, it may find nothing.
    #[inline]
    pub(crate) fn next(&self) -> u64 {
        let first = self.first().map_or(NEVER, |(_, at)| at);
        if self.odd == 0 {
            return first;
        }
        match self.wheel.as_ref().and_then(|wheel| wheel.next()) {
            Some(tick) => first.min(tick.saturating_mul(MILLISECOND)),
            None => first,
        }
    }

    /// Disarms every key whose deadline is not after `now` and hands it to `expired`.
    pub(crate) fn expire(&mut self, now: u64, mut expired: impl FnMut(u32)) {
        while let Some((place, at)) = self.first()
            && at <= now
        {
            let key = place - 1;
            self.remove(key);
            expired(key);
        }
        let Some(wheel) = &mut self.wheel else { return };
        let now = now / MILLISECOND;
        while self.odd > 0
            && let Some((bucket, tick)) = wheel.first()
            && tick <= now
        {
            wheel.now = wheel.now.max(tick);
            let mut place = wheel.empty(bucket);
            while place != ENDS
                && let Some(node) = self.nodes.get_mut(place as usize)
            {
                let (due, next) = (node.at, node.next);
                *node = IDLE;
                if due <= wheel.now {
                    self.odd -= 1;
                    expired(place - 1);
                } else {
                    wheel.link(&mut self.nodes, place, due);
                }
                place = next;
            }
        }
        wheel.now = wheel.now.max(now);
    }

    /// Gives the memory back if nothing is armed.
    pub(crate) fn release(&mut self) {
        if self.first().is_none() && self.odd == 0 {
            *self = Self::default();
        }
    }
}

impl Wheel {
    fn link(&mut self, nodes: &mut [Node], place: u32, tick: u64) {
        let when = tick.clamp(self.now, self.now.saturating_add(RANGE - 1));
        let distance = (self.now ^ when) | (BUCKETS as u64 - 1);
        let level = ((63 - distance.leading_zeros()) / BITS).min(TOP);
        let index = (when >> (level * BITS)) & (BUCKETS as u64 - 1);
        // Below 4 × 64 by the two lines above.
        #[allow(clippy::cast_possible_truncation)]
        let bucket = level * BUCKETS as u32 + index as u32;
        let Some(head) = self.heads.get_mut(bucket as usize) else { return };
        let next = core::mem::replace(head, place);
        if next != ENDS
            && let Some(node) = nodes.get_mut(next as usize)
        {
            node.prev = place;
        }
        if let Some(node) = nodes.get_mut(place as usize) {
            *node = Node { at: tick, prev: ENDS, next, list: bucket };
        }
        // Below the width of a bucket, of which the widest has 2^18 ticks.
        #[allow(clippy::cast_possible_truncation)]
        let quiet = (when & ((1 << (level * BITS)) - 1)) as u32;
        if let Some(known) = self.quiet.get_mut(bucket as usize) {
            *known = if next == ENDS { quiet } else { quiet.min(*known) };
        }
        if let Some(occupied) = self.occupied.get_mut(level as usize) {
            *occupied |= 1 << index;
        }
    }

    /// The tick at which the first of all is due, or a bit before.
    #[inline]
    fn next(&self) -> Option<u64> {
        let (bucket, start) = self.first()?;
        let quiet = self.quiet.get(bucket as usize).copied().unwrap_or_default();
        Some(start.saturating_add(quiet.into()))
    }

    /// A bucket's first node was taken out.
    fn behead(&mut self, bucket: u32, next: u32) {
        if let Some(head) = self.heads.get_mut(bucket as usize) {
            *head = next;
        }
        if next == ENDS {
            self.vacate(bucket);
        }
    }

    /// Detaches a bucket's list and returns its first node.
    fn empty(&mut self, bucket: u32) -> u32 {
        self.vacate(bucket);
        self.heads.get_mut(bucket as usize).map_or(ENDS, |head| core::mem::replace(head, ENDS))
    }

    fn vacate(&mut self, bucket: u32) {
        if let Some(occupied) = self.occupied.get_mut(bucket as usize / BUCKETS) {
            *occupied &= !(1 << (bucket % (1 << BITS)));
        }
    }

    /// The bucket that comes up first, and the tick at which it does. Whatever lies on a level is due before all that
    /// lies on a higher one, because the level is the highest digit in which a deadline differs from the present.
    #[inline]
    fn first(&self) -> Option<(u32, u64)> {
        let mut shift = 0;
        for (level, &occupied) in (0u32..).zip(&self.occupied) {
            if occupied != 0 {
                let lap = BUCKETS as u64;
                let here = (self.now >> shift) & (lap - 1);
                // On the lowest level the present bucket may be due; above it, it can only mean the next lap.
                let skip = u64::from(shift > 0);
                let from = u32::try_from((here + skip) % lap).unwrap_or(0);
                let ahead = u64::from(occupied.rotate_right(from).trailing_zeros()) + skip;
                let index = (here + ahead) % lap;
                let at = ((self.now >> shift) & !(lap - 1)) + here + ahead;
                #[allow(clippy::cast_possible_truncation)]
                return Some((level * BUCKETS as u32 + index as u32, at << shift));
            }
            shift += BITS;
        }
        None
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::cast_possible_truncation)]
    use alloc::{collections::BTreeMap, vec::Vec};

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn an_idle_wheel_takes_no_memory_and_never_fires() {
        let mut wheel = Deadlines::default();
        assert_eq!(wheel.next(), NEVER);
        wheel.insert(3, 5 * MILLISECOND, 0);
        wheel.remove(3);
        assert_eq!(wheel.next(), NEVER);
        wheel.release();
        assert!(wheel.nodes.capacity() == 0 && wheel.wheel.is_none());
    }

    #[test]
    fn a_deadline_fires_late_by_a_millisecond_at_most_and_never_early() {
        let mut wheel = Deadlines::default();
        wheel.insert(1, 5_000_000, 0);
        wheel.insert(0, 1_000_001, 0);
        let mut fired = Vec::new();
        wheel.expire(1_999_999, |key| fired.push(key));
        assert!(fired.is_empty());
        wheel.expire(2_000_000, |key| fired.push(key));
        assert_eq!(fired, [0]);
    }

    proptest! {
        #[test]
        fn whoever_is_woken_finds_something_due(
            start in 0u64..1 << 40,
            after in proptest::collection::vec(0u64..RANGE - 1, 1..40),
        ) {
            let mut wheel = Deadlines::default();
            for (key, after) in (0..).zip(&after) {
                wheel.insert(key, start + after * MILLISECOND, start);
            }
            let mut fired = 0;
            while wheel.next() != NEVER {
                let before = fired;
                wheel.expire(wheel.next(), |_| fired += 1);
                prop_assert!(fired > before, "woken for nothing");
            }
            prop_assert_eq!(fired, after.len());
        }

        /// The wheel against a sorted map: same keys, same order of time, and it never asks to be woken for nothing
        /// without getting closer.
        #[test]
        fn agrees_with_a_sorted_map(
            start in 0u64..1 << 40,
            steps in proptest::collection::vec((0u32..40, 0u64..60_000_000, 0u64..40_000, 0u8..4), 1..120),
        ) {
            let mut wheel = Deadlines::default();
            let mut model: BTreeMap<u32, u64> = BTreeMap::new();
            let mut now = start;
            for (key, after, pass, what) in steps {
                match what {
                    0 | 1 => {
                        let deadline = now + after * if what == 0 { MILLISECOND } else { 1_000 };
                        wheel.insert(key, deadline, now);
                        model.insert(key, deadline);
                    }
                    2 => {
                        wheel.remove(key);
                        model.remove(&key);
                    }
                    _ => {}
                }
                now += pass * MILLISECOND;
                let mut fired = Vec::new();
                wheel.expire(now, |key| fired.push(key));
                fired.sort_unstable();
                for key in &fired {
                    let at = model.remove(key);
                    prop_assert!(at.is_some_and(|at| at <= now), "{} fired early", key);
                }
                for (key, at) in &model {
                    prop_assert!(at.div_ceil(MILLISECOND) > now / MILLISECOND, "{} is late", key);
                }
                prop_assert!(wheel.next() > now);
                if let Some(first) = model.values().min() {
                    prop_assert!(wheel.next() <= first.div_ceil(MILLISECOND) * MILLISECOND);
                } else {
                    prop_assert_eq!(wheel.next(), NEVER);
                }
            }
            // Following its own wake-ups it reaches everything, in few steps.
            let mut steps = 0;
            while wheel.next() != NEVER {
                now = wheel.next();
                wheel.expire(now, |key| { model.remove(&key); });
                steps += 1;
                prop_assert!(steps < 2_000);
            }
            prop_assert!(model.is_empty());
        }
    }
}
