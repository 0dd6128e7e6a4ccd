//! Timers of tasks.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll, Waker},
};

use tieline::{Instant, Time};
use tieline_core::drive::DeadlineIndex;

use crate::{
    clock,
    shared::{Shared, lock},
    slots::Slots,
};

/// The timers that the tasks of a loop wait for.
pub(crate) struct Timers {
    state: Mutex<State>,
    /// When the first one comes, in nanoseconds: so that a turn need not take the lock to see that none has.
    next: AtomicU64,
}

struct State {
    waiting: Slots<Waiting>,
    deadlines: DeadlineIndex,
}

struct Waiting {
    at: Instant,
    waker: Waker,
}

impl Default for Timers {
    fn default() -> Self {
        let state = State { waiting: Slots::new(), deadlines: DeadlineIndex::new() };
        Self { state: Mutex::new(state), next: AtomicU64::new(u64::MAX) }
    }
}

impl Timers {
    /// When [`fire`](Self::fire) has something to do.
    #[inline]
    pub(crate) fn next(&self) -> Option<Instant> {
        match self.next.load(Ordering::Acquire) {
            u64::MAX => None,
            next => Some(Instant::from_nanos(next)),
        }
    }

    /// Wakes those whose time has come.
    pub(crate) fn fire(&self, now: Instant) {
        let mut wakers = Vec::new();
        let mut state = lock(&self.state);
        let State { waiting, deadlines } = &mut *state;
        let mut early = Vec::new();
        deadlines.expire(now, |number| match waiting.get_mut(number) {
            Some(timer) if timer.at <= now => wakers.push(timer.waker.clone()),
            // It was moved later since.
            Some(timer) => early.push((number, timer.at)),
            None => {}
        });
        for (number, at) in early {
            deadlines.arm(number, at, now);
        }
        self.publish(&state);
        drop(state);
        wakers.into_iter().for_each(Waker::wake);
    }

    /// The loop ends: whoever waits is woken, and finds that it has.
    pub(crate) fn end(&self) {
        let waiting = std::mem::replace(&mut lock(&self.state).waiting, Slots::new());
        for waiting in waiting.into_values() {
            waiting.waker.wake();
        }
    }

    fn publish(&self, state: &State) {
        let next = state.deadlines.next().map_or(u64::MAX, Instant::as_nanos);
        self.next.store(next, Ordering::Release);
    }

    /// Wakes `waker` at `at`. Whether that is before all others.
    fn set(&self, number: &mut Option<u32>, at: Instant, now: Instant, waker: &Waker) -> bool {
        let mut state = lock(&self.state);
        let State { waiting, deadlines } = &mut *state;
        match number.and_then(|number| Some((number, waiting.get_mut(number)?))) {
            Some((number, timer)) => {
                timer.at = at;
                if !timer.waker.will_wake(waker) {
                    timer.waker = waker.clone();
                }
                deadlines.arm(number, at, now);
            }
            None => {
                let Ok(name) = waiting.insert(Waiting { at, waker: waker.clone() }) else { return false };
                *number = Some(name.number);
                deadlines.arm(name.number, at, now);
            }
        }
        let before = self.next.load(Ordering::Acquire);
        self.publish(&state);
        self.next.load(Ordering::Acquire) < before
    }

    fn clear(&self, number: u32) {
        let mut state = lock(&self.state);
        let gone = state.waiting.remove(number);
        state.deadlines.disarm(number);
        self.publish(&state);
        drop(state);
        drop(gone);
    }
}

/// A timer of a task. It belongs to the loop that it was made on, whatever thread it is polled from; one that was made on
/// a thread without a loop has nobody who could wait for it, and comes at once.
#[derive(Debug)]
pub struct Timer {
    shared: Option<Arc<Shared>>,
    number: Option<u32>,
}

impl Timer {
    pub(crate) const fn new(shared: Option<Arc<Shared>>) -> Self {
        Self { shared, number: None }
    }
}

impl Time for Timer {
    fn poll_until(&mut self, cx: &mut Context<'_>, at: Instant) -> Poll<()> {
        let now = clock::now();
        let Some(shared) = self.shared.as_ref().filter(|shared| !shared.is_over()) else {
            return Poll::Ready(());
        };
        if at <= now {
            return Poll::Ready(());
        }
        if shared.timers.set(&mut self.number, at, now, cx.waker()) {
            // If the loop sleeps it has to sleep less long.
            shared.notify();
        }
        Poll::Pending
    }
}

impl Drop for Timer {
    fn drop(&mut self) {
        if let (Some(shared), Some(number)) = (&self.shared, self.number) {
            shared.timers.clear(number);
        }
    }
}
