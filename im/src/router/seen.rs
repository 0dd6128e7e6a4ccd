//! Which messages have been delivered: so that a second copy is acknowledged, and not shown.

use std::collections::{BTreeMap, VecDeque};

use crate::{name::Name, wire::Origin};

/// Numbers that are remembered of one origin to one receiver. Not below what may wait in one conversation.
const WINDOW: usize = 1024;
/// Pairs that a generation remembers; there are two.
const GENERATION: usize = 4096;

/// What is known of a message's number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// Neither it nor a later one was delivered.
    Fresh,
    /// It was delivered.
    Delivered,
    /// It was not, as far as is remembered, but a later one was: now it would come out of order.
    Passed,
}

/// The messages of one origin to one receiver that were delivered.
#[derive(Debug, Default)]
struct Numbers(VecDeque<u64>);

impl Numbers {
    fn standing(&self, number: u64) -> Standing {
        match self.0.back() {
            Some(last) if number <= *last => {
                if self.0.binary_search(&number).is_ok() {
                    Standing::Delivered
                } else {
                    Standing::Passed
                }
            }
            _ => Standing::Fresh,
        }
    }

    fn mark(&mut self, number: u64) {
        if let Err(place) = self.0.binary_search(&number) {
            self.0.insert(place, number);
            if self.0.len() > WINDOW {
                self.0.pop_front();
            }
        }
    }
}

/// The messages that were delivered, by origin and receiver.
///
/// Memory is bounded: the pairs live in two generations. When the younger one is full the older one is forgotten and
/// the younger takes its place; whoever is heard of moves to the younger.
#[derive(Debug, Default)]
pub struct Seen {
    young: BTreeMap<(Origin, Name), Numbers>,
    old: BTreeMap<(Origin, Name), Numbers>,
}

impl Seen {
    /// What is known of message `number` of `from` to `to`.
    #[must_use]
    pub fn standing(&self, from: &Origin, to: &Name, number: u64) -> Standing {
        let key = (from.clone(), to.clone());
        let numbers = self.young.get(&key).or_else(|| self.old.get(&key));
        numbers.map_or(Standing::Fresh, |numbers| numbers.standing(number))
    }

    /// It was delivered.
    pub fn mark(&mut self, from: &Origin, to: &Name, number: u64) {
        let key = (from.clone(), to.clone());
        if !self.young.contains_key(&key) {
            if self.young.len() >= GENERATION {
                self.old = std::mem::take(&mut self.young);
            }
            let numbers = self.old.remove(&key).unwrap_or_default();
            self.young.insert(key.clone(), numbers);
        }
        if let Some(numbers) = self.young.get_mut(&key) {
            numbers.mark(number);
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn alice(instance: u64) -> Origin {
        Origin { user: "alice".parse().unwrap(), instance }
    }

    #[test]
    fn a_copy_is_known_and_a_straggler_too() {
        let (mut seen, bob) = (Seen::default(), "bob".parse().unwrap());
        assert_eq!(seen.standing(&alice(1), &bob, 3), Standing::Fresh);
        seen.mark(&alice(1), &bob, 3);
        seen.mark(&alice(1), &bob, 5);
        assert_eq!(seen.standing(&alice(1), &bob, 3), Standing::Delivered);
        assert_eq!(seen.standing(&alice(1), &bob, 4), Standing::Passed);
        assert_eq!(seen.standing(&alice(1), &bob, 6), Standing::Fresh);
        seen.mark(&alice(1), &bob, 4);
        assert_eq!(seen.standing(&alice(1), &bob, 4), Standing::Delivered, "a late acknowledgement counts");
        assert_eq!(seen.standing(&alice(2), &bob, 3), Standing::Fresh, "a new process counts from 1 again");
        assert_eq!(seen.standing(&alice(1), &"carol".parse().unwrap(), 3), Standing::Fresh);
    }

    #[test]
    fn memory_is_bounded_and_who_is_active_is_remembered() {
        let (mut seen, bob): (_, Name) = (Seen::default(), "bob".parse().unwrap());
        for number in 1..=5000 {
            seen.mark(&alice(1), &bob, number);
            seen.mark(&alice(1000 + number), &bob, 1);
            seen.mark(&alice(100_000 + number), &bob, 1);
        }
        assert!(seen.young.len() <= GENERATION && seen.old.len() <= GENERATION);
        assert_eq!(seen.standing(&alice(1), &bob, 5000), Standing::Delivered);
        assert_eq!(seen.standing(&alice(1), &bob, 5000 - 1023), Standing::Delivered);
        assert_eq!(seen.standing(&alice(1), &bob, 5000 - 1024), Standing::Passed, "careful, not forgetful");
    }
}
