//! Calls with one ordering key run one after the other, in the order of their ids (protocol §5, "Ordering key").
//!
//! Each key has a queue, and its first call is the one that may run. Calls leave when their handler has stopped, or
//! when they end without having run; who leaves from the middle is passed over later, and cleared away when most have
//! left. The map is ordered: a peer chooses the keys, and an ordered map has no worst case that it could choose.

use alloc::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
};

use super::event::Served;

#[derive(Debug, Default)]
struct Queue {
    /// The first has not left.
    calls: VecDeque<Served>,
    left: usize,
}

/// The queues of all keys in use.
#[derive(Debug, Default)]
pub(crate) struct Keys {
    queues: BTreeMap<Arc<[u8]>, Queue>,
}

impl Keys {
    /// A call with this key has come. Returns the key, to be kept with the call.
    pub(crate) fn join(&mut self, key: &[u8], call: Served) -> Arc<[u8]> {
        let key = match self.queues.get_key_value(key) {
            Some((key, _)) => Arc::clone(key),
            None => Arc::from(key),
        };
        self.queues.entry(Arc::clone(&key)).or_default().calls.push_back(call);
        key
    }

    /// Whether it is the call's turn.
    pub(crate) fn is_first(&self, key: &[u8], call: Served) -> bool {
        self.queues.get(key).and_then(|queue| queue.calls.front()) == Some(&call)
    }

    /// A call has stopped, or will never run. `stands` says of others whether they have not. Whose turn it is now, if
    /// that has changed.
    pub(crate) fn leave(
        &mut self,
        key: &[u8],
        call: Served,
        mut stands: impl FnMut(Served) -> bool,
    ) -> Option<Served> {
        let queue = self.queues.get_mut(key)?;
        if queue.calls.front() != Some(&call) {
            queue.left += 1;
            if queue.left > 16 && queue.left * 2 > queue.calls.len() {
                queue.calls.retain(|other| *other != call && stands(*other));
                queue.left = 0;
            }
            return None;
        }
        queue.calls.pop_front();
        while let Some(next) = queue.calls.front() {
            if stands(*next) {
                return Some(*next);
            }
            queue.calls.pop_front();
            queue.left = queue.left.saturating_sub(1);
        }
        self.queues.remove(key);
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn call(slot: u32) -> Served {
        Served { slot, generation: 0 }
    }

    #[test]
    fn calls_of_a_key_come_one_after_the_other() {
        let mut keys = Keys::default();
        for slot in 0..4 {
            keys.join(b"room", call(slot));
        }
        keys.join(b"other", call(9));
        assert!(keys.is_first(b"room", call(0)) && !keys.is_first(b"room", call(1)));
        assert!(keys.is_first(b"other", call(9)));
        assert_eq!(keys.leave(b"room", call(1), |_| true), None, "from the middle");
        assert_eq!(keys.leave(b"room", call(0), |other| other != call(1)), Some(call(2)));
        assert_eq!(keys.leave(b"room", call(2), |_| true), Some(call(3)));
        assert_eq!(keys.leave(b"room", call(3), |_| true), None);
        assert_eq!(keys.leave(b"other", call(9), |_| true), None);
        assert!(keys.queues.is_empty(), "a key that nobody uses takes no memory");
    }

    #[test]
    fn leaving_for_ever_takes_no_memory() {
        let mut keys = Keys::default();
        keys.join(b"k", call(0));
        for slot in 1..10_000 {
            keys.join(b"k", call(slot));
            keys.leave(b"k", call(slot), |other| other == call(0));
        }
        assert!(keys.queues[&b"k"[..]].calls.len() < 100);
    }
}
