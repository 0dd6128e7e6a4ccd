//! A set of small numbers that is taken from in turns.
//!
//! One bit a number, and above each 64 of them one bit that says whether there is any, twice: so the next member is
//! found by looking at a word a level, and a set of a quarter of a million that holds a single one costs no more.

use alloc::vec::Vec;

/// Bits of a word, and their logarithm.
const WORD: usize = 64;
const BITS: usize = 6;
/// Words of numbers, words about those, words about these. The last level is looked through from end to end: a word of
/// it stands for 262 144 numbers.
const LEVELS: usize = 3;

/// The numbers of those who have something to do, each at most once.
///
/// [`pop`](Self::pop) goes round: it takes the next higher number than the one before, and begins anew behind the
/// highest. Nobody who is in the set is passed over for somebody who was taken and has come back, so popping
/// [`len`](Self::len) times is a turn in which everybody has theirs.
///
/// Numbers should be dense: the memory is about a bit for each number up to the highest that was ever inserted. All
/// steps are O(1) for up to 262 144 numbers, and a word more for each further so many.
///
/// ```
/// use tieline_core::drive::ReadySet;
///
/// let mut ready = ReadySet::new();
/// for number in [5, 1, 5, 900] {
///     ready.insert(number);
/// }
/// assert_eq!(ready.len(), 3);
/// assert_eq!(ready.pop(), Some(1));
/// ready.insert(1); // it comes back, behind the others
/// assert_eq!([ready.pop(), ready.pop(), ready.pop(), ready.pop()], [Some(5), Some(900), Some(1), None]);
/// ```
#[derive(Debug, Clone, Default)]
pub struct ReadySet {
    levels: [Vec<u64>; LEVELS],
    len: usize,
    /// Where to look first.
    from: usize,
}

impl ReadySet {
    /// An empty set, without memory of its own.
    #[must_use]
    pub const fn new() -> Self {
        Self { levels: [const { Vec::new() }; LEVELS], len: 0, from: 0 }
    }

    /// How many are in it.
    #[must_use]
    #[inline]
    pub const fn len(&self) -> usize {
        self.len
    }

    /// Whether nobody is in it.
    #[must_use]
    #[inline]
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Whether `number` is in it.
    #[must_use]
    #[inline]
    pub fn contains(&self, number: u32) -> bool {
        let [numbers, ..] = &self.levels;
        let number = number as usize;
        numbers.get(number >> BITS).is_some_and(|word| word & bit(number) != 0)
    }

    /// Puts `number` in. Whether it was not in it before.
    #[inline]
    pub fn insert(&mut self, number: u32) -> bool {
        let [numbers, ..] = &mut self.levels;
        let place = number as usize;
        let Some(word) = numbers.get_mut(place >> BITS) else {
            self.grow(place);
            return self.insert(number);
        };
        let number = place;
        if *word & bit(number) != 0 {
            return false;
        }
        *word |= bit(number);
        self.len += 1;
        let mut place = number >> BITS;
        for level in self.levels.iter_mut().skip(1) {
            if let Some(word) = level.get_mut(place >> BITS) {
                *word |= bit(place);
            }
            place >>= BITS;
        }
        true
    }

    /// Takes `number` out. Whether it was in it.
    pub fn remove(&mut self, number: u32) -> bool {
        let was = self.contains(number);
        if was {
            self.clear(number as usize);
        }
        was
    }

    /// Takes the next one out.
    #[inline]
    pub fn pop(&mut self) -> Option<u32> {
        if self.len == 0 {
            return None;
        }
        let next = self.first_from(self.from).or_else(|| self.first_from(0))?;
        self.clear(next);
        self.from = next.wrapping_add(1);
        // What is in it was a `u32`.
        u32::try_from(next).ok()
    }

    /// Makes room for `number`.
    #[cold]
    fn grow(&mut self, number: usize) {
        let mut place = number;
        for level in &mut self.levels {
            place >>= BITS;
            if level.len() <= place {
                level.resize(place + 1, 0);
            }
        }
    }

    /// Clears the bit of a number that is in it, and those above that say that there is one.
    #[inline]
    fn clear(&mut self, number: usize) {
        self.len = self.len.saturating_sub(1);
        let mut place = number;
        for level in &mut self.levels {
            let Some(word) = level.get_mut(place >> BITS) else { return };
            *word &= !bit(place);
            if *word != 0 {
                return;
            }
            place >>= BITS;
        }
    }

    /// The lowest number that is not below `from`.
    #[inline]
    fn first_from(&self, from: usize) -> Option<usize> {
        // Up, until a word has something at or behind where we are; then down, by the first bit of each.
        let mut place = from;
        for (height, level) in self.levels.iter().enumerate() {
            let index = place >> BITS;
            let found = level.get(index).and_then(|word| first_bit(*word, place % WORD));
            let found = match found {
                Some(at) => Some(index * WORD + at),
                None if height + 1 == LEVELS => (index + 1..)
                    .zip(level.iter().skip(index + 1))
                    .find_map(|(index, word)| Some(index * WORD + first_bit(*word, 0)?)),
                None => None,
            };
            if let Some(mut found) = found {
                for level in self.levels.iter().take(height).rev() {
                    found = found * WORD + first_bit(*level.get(found)?, 0)?;
                }
                return Some(found);
            }
            place = index + 1;
        }
        None
    }
}

#[inline]
const fn bit(number: usize) -> u64 {
    1 << (number % WORD)
}

/// The lowest bit of `word` that is not below `from`, which is below 64.
#[inline]
fn first_bit(word: u64, from: usize) -> Option<usize> {
    let rest = word & (u64::MAX << from);
    (rest != 0).then(|| rest.trailing_zeros() as usize)
}

#[cfg(test)]
mod tests {
    use alloc::{collections::BTreeSet, vec::Vec};

    use proptest::prelude::*;

    use super::*;

    /// Numbers of every size, many of them close together, some at the edges of words of each level.
    fn numbers() -> impl Strategy<Value = u32> {
        prop_oneof![0u32..200, 60u32..70, 4090u32..4100, 262_140u32..262_150, 0u32..1_000_000]
    }

    proptest! {
        /// The set against a sorted one: same members, and what comes next is the next higher one, or else the lowest.
        #[test]
        fn agrees_with_a_sorted_set(steps in proptest::collection::vec((0u8..4, numbers()), 1..300)) {
            let mut set = ReadySet::new();
            let mut model = BTreeSet::new();
            let mut from = 0;
            for (what, number) in steps {
                match what {
                    0 | 1 => prop_assert_eq!(set.insert(number), model.insert(number)),
                    2 => prop_assert_eq!(set.remove(number), model.remove(&number)),
                    _ => {
                        let next = model.range(from..).next().or(model.first()).copied();
                        prop_assert_eq!(set.pop(), next);
                        if let Some(next) = next {
                            model.remove(&next);
                            from = next + 1;
                        }
                    }
                }
                prop_assert_eq!(set.contains(number), model.contains(&number));
                prop_assert_eq!((set.len(), set.is_empty()), (model.len(), model.is_empty()));
            }
            let mut left: Vec<u32> = core::iter::from_fn(|| set.pop()).collect();
            left.sort_unstable();
            prop_assert_eq!(left, model.into_iter().collect::<Vec<_>>());
        }
    }

    /// Whoever comes back at once does not keep the others waiting.
    #[test]
    fn everybody_has_a_turn() {
        let mut set = ReadySet::new();
        let all = [3, 64, 65, 4096, 300_000];
        for number in all {
            set.insert(number);
        }
        for _ in 0..3 {
            let mut seen = Vec::new();
            for _ in 0..set.len() {
                let next = set.pop();
                seen.extend(next);
                next.map(|number| set.insert(number));
            }
            assert_eq!(seen, all);
        }
    }

    #[test]
    fn an_empty_set_has_nobody_and_no_memory() {
        let mut set = ReadySet::new();
        assert_eq!((set.pop(), set.remove(5), set.contains(u32::MAX)), (None, false, false));
        assert!(set.levels.iter().all(|level| level.capacity() == 0));
    }
}
