//! Who waits for calls of this side: a slot for each, in which the driver leaves the outcome.

use std::task::Waker;

use tieline_core::conn::{Answer, CallId, Failure, Rest};

/// One call that somebody waits for.
#[derive(Default)]
struct Waiter {
    waker: Option<Waker>,
    outcome: Option<Result<Answer, Failure>>,
    id: Option<CallId>,
    /// What only a call that streams has.
    stream: Option<Box<Streaming>>,
}

impl Waiter {
    /// Field by field: nearly always there is nothing in most of them.
    #[inline]
    fn clear(&mut self) {
        self.waker = None;
        self.outcome = None;
        self.id = None;
        self.stream = None;
    }
}

#[derive(Default)]
struct Streaming {
    /// Who waits for room for an item.
    sender: Option<Waker>,
    /// Items that were not taken before the outcome came.
    rest: Rest,
}

/// Waiters by number; numbers are used again.
#[derive(Default)]
pub(crate) struct Waiters {
    slots: Vec<Waiter>,
    free: Vec<u32>,
}

impl Waiters {
    /// The number that the next one gets.
    #[inline]
    pub(crate) fn vacant(&self) -> u32 {
        match self.free.last() {
            Some(key) => *key,
            None => u32::try_from(self.slots.len()).unwrap_or(u32::MAX),
        }
    }

    /// Gives that number to whoever waits for this call.
    #[inline]
    pub(crate) fn occupy(&mut self, key: u32, waker: Waker, id: CallId, streams: bool) {
        if self.free.pop().is_none() {
            self.slots.push(Waiter::default());
        }
        if let Some(waiter) = self.slots.get_mut(key as usize) {
            waiter.waker = Some(waker);
            waiter.id = Some(id);
            if streams {
                waiter.stream = Some(Box::default());
            }
        }
    }

    /// Leaves an outcome; who waits for it is to be woken, outside the lock.
    #[inline(always)]
    pub(crate) fn tell(
        &mut self,
        key: u32,
        outcome: Result<Answer, Failure>,
        rest: Rest,
        wakers: &mut Vec<Waker>,
    ) {
        let Some(waiter) = self.slots.get_mut(key as usize) else { return };
        waiter.outcome = Some(outcome);
        if let Some(waker) = waiter.waker.take() {
            wakers.push(waker);
        }
        if let Some(stream) = &mut waiter.stream {
            stream.rest = rest;
            wakers.extend(stream.sender.take());
        }
    }

    /// Takes the outcome, or leaves the waker again.
    #[inline(always)]
    pub(crate) fn outcome(&mut self, key: u32, waker: &Waker) -> Option<Result<Answer, Failure>> {
        let waiter = self.slots.get_mut(key as usize)?;
        if waiter.outcome.is_none() {
            if waiter.waker.as_ref().is_none_or(|known| !known.will_wake(waker)) {
                waiter.waker = Some(waker.clone());
            }
            return None;
        }
        waiter.waker = None;
        waiter.id = None;
        waiter.stream = None;
        self.free.push(key);
        waiter.outcome.take()
    }

    /// Takes the outcome, if it is there.
    pub(crate) fn take(&mut self, key: u32) -> Option<Result<Answer, Failure>> {
        let outcome = self.slots.get_mut(key as usize)?.outcome.take();
        if outcome.is_some() {
            self.remove(key);
        }
        outcome
    }

    /// The items that were not taken, if the outcome is there.
    pub(crate) fn rest(&mut self, key: u32) -> Rest {
        let waiter = self.slots.get_mut(key as usize).filter(|waiter| waiter.outcome.is_some());
        let stream = waiter.and_then(|waiter| waiter.stream.as_mut());
        stream.map(|stream| std::mem::take(&mut stream.rest)).unwrap_or_default()
    }

    /// Who waits for items, or for the outcome.
    pub(crate) fn reader(&mut self, key: u32) -> Option<Waker> {
        self.slots.get_mut(key as usize)?.waker.take()
    }

    /// Who waits for room for an item.
    pub(crate) fn sender(&mut self, key: u32) -> Option<Waker> {
        self.slots.get_mut(key as usize)?.stream.as_mut()?.sender.take()
    }

    /// Leaves the waker of somebody who waits for room for an item.
    pub(crate) fn wait_to_send(&mut self, key: u32, id: CallId, waker: &Waker) {
        let waiter = self.slots.get_mut(key as usize).filter(|waiter| waiter.id == Some(id));
        if let Some(stream) = waiter.and_then(|waiter| waiter.stream.as_mut()) {
            stream.sender = Some(waker.clone());
        }
    }

    /// How a call ended, until its outcome is taken.
    pub(crate) fn end(&self, key: u32, id: CallId) -> Option<&Result<Answer, Failure>> {
        self.slots.get(key as usize).filter(|waiter| waiter.id == Some(id))?.outcome.as_ref()
    }

    /// Nobody waits any more. The call, if it is still under way, and who waits for room for an item of it.
    pub(crate) fn abandon(&mut self, key: u32) -> (Option<CallId>, Option<Waker>) {
        let Some(waiter) = self.slots.get_mut(key as usize) else { return (None, None) };
        let id = if waiter.outcome.is_none() { waiter.id } else { None };
        let sender = waiter.stream.as_mut().and_then(|stream| stream.sender.take());
        self.remove(key);
        (id, sender)
    }

    #[inline]
    pub(crate) fn remove(&mut self, key: u32) {
        if let Some(waiter) = self.slots.get_mut(key as usize) {
            waiter.clear();
            self.free.push(key);
        }
    }
}
