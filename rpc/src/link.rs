//! Where many tasks meet one connection: a short mutex around the core, the outcome left in a slot.
//!
//! A caller's first poll locks, puts its call into the core and leaves its waker; the driver, once a turn, moves all
//! outcomes that came into their slots and wakes outside the lock; the caller's next poll takes the outcome. The
//! driver is only woken on the edge from "nothing waits" to "something waits", so a batch of calls costs one wake-up.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Waker},
};

use tieline_core::{
    Instant,
    conn::{Answer, CallId, Closed, Connection, Failure},
};

use crate::{identity::Probe, runtime::Clock};

/// One call that somebody waits for.
#[derive(Default)]
struct Waiter {
    waker: Option<Waker>,
    outcome: Option<Result<Answer, Failure>>,
    id: Option<CallId>,
}

/// Waiters by number; numbers are used again.
#[derive(Default)]
pub(crate) struct Waiters {
    slots: Vec<Waiter>,
    free: Vec<u32>,
}

impl Waiters {
    /// A number for somebody new.
    #[inline]
    pub(crate) fn insert(&mut self, waker: Waker) -> u32 {
        match self.free.pop() {
            Some(key) => {
                if let Some(waiter) = self.slots.get_mut(key as usize) {
                    waiter.waker = Some(waker);
                }
                key
            }
            None => {
                self.slots.push(Waiter { waker: Some(waker), outcome: None, id: None });
                u32::try_from(self.slots.len()).unwrap_or(u32::MAX).saturating_sub(1)
            }
        }
    }

    #[inline]
    pub(crate) fn set_id(&mut self, key: u32, id: CallId) {
        if let Some(waiter) = self.slots.get_mut(key as usize) {
            waiter.id = Some(id);
        }
    }

    /// Leaves an outcome; who waits for it is to be woken, outside the lock.
    #[inline]
    pub(crate) fn tell(&mut self, key: u32, outcome: Result<Answer, Failure>) -> Option<Waker> {
        let waiter = self.slots.get_mut(key as usize)?;
        waiter.outcome = Some(outcome);
        waiter.waker.take()
    }

    /// Takes the outcome, or leaves the waker again.
    #[inline]
    pub(crate) fn outcome(&mut self, key: u32, waker: &Waker) -> Option<Result<Answer, Failure>> {
        let waiter = self.slots.get_mut(key as usize)?;
        let outcome = waiter.outcome.take();
        if outcome.is_some() {
            self.remove(key);
        } else if waiter.waker.as_ref().is_none_or(|known| !known.will_wake(waker)) {
            waiter.waker = Some(waker.clone());
        }
        outcome
    }

    /// Nobody waits any more. The call, if it is still under way.
    pub(crate) fn abandon(&mut self, key: u32) -> Option<CallId> {
        let waiter = self.slots.get_mut(key as usize)?;
        let id = if waiter.outcome.is_none() { waiter.id } else { None };
        self.remove(key);
        id
    }

    #[inline]
    pub(crate) fn remove(&mut self, key: u32) {
        if let Some(waiter) = self.slots.get_mut(key as usize) {
            *waiter = Waiter::default();
            self.free.push(key);
        }
    }
}

pub(crate) struct State {
    pub(crate) conn: Connection<u32>,
    pub(crate) waiters: Waiters,
    /// The time of the present batch: read once by whoever wakes the driver, and once a turn by the driver.
    pub(crate) now: Instant,
    /// The driver has been woken, or is in a turn that will look at the connection again.
    pub(crate) awake: bool,
    pub(crate) driver: Option<Waker>,
    /// Check-in is complete.
    pub(crate) ready: bool,
    /// The peer takes no new calls on it.
    pub(crate) draining: bool,
    pub(crate) closed: Option<Arc<Closed>>,
    /// Its driver has ended: the last octet is out, or never will be.
    pub(crate) gone: bool,
    /// Whether the peer lives, for those who want to take its identifier.
    pub(crate) probe: Option<Probe>,
    /// Those who wait for one of these to change.
    pub(crate) watchers: Vec<Waker>,
}

/// A connection, shared by its driver and by those who call on it.
pub(crate) struct Link {
    state: Mutex<State>,
    pub(crate) clock: Arc<dyn Clock>,
    /// The peer, for people to read: an identifier once it is known, and an address.
    pub(crate) address: Arc<str>,
}

impl Link {
    pub(crate) fn new(conn: Connection<u32>, clock: Arc<dyn Clock>, address: &str) -> Arc<Self> {
        let state = State {
            conn,
            waiters: Waiters::default(),
            now: clock.now(),
            awake: true,
            driver: None,
            ready: false,
            draining: false,
            closed: None,
            gone: false,
            probe: None,
            watchers: Vec::new(),
        };
        Arc::new(Self { state: Mutex::new(state), clock, address: address.into() })
    }

    /// Nothing that runs under this lock can panic half-way through a change: the core does not panic.
    #[inline]
    pub(crate) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Locks for a change that gives the driver something to do. On the edge the clock is read; within a batch it is not.
    #[inline]
    pub(crate) fn enter(&self) -> Entered<'_> {
        let mut state = self.lock();
        if !state.awake {
            state.now = self.clock.now();
        }
        Entered { state }
    }

    /// `two (127.0.0.1:7002)`, or the address alone before check-in.
    pub(crate) fn node(&self, state: &State) -> Arc<str> {
        match state.conn.peer() {
            Some(peer) => format!("{} ({})", peer.identifier, self.address).into(),
            None => Arc::clone(&self.address),
        }
    }
}

/// Leaves a waker among others, once.
pub(crate) fn watch(watchers: &mut Vec<Waker>, cx: &Context<'_>) {
    if !watchers.iter().any(|waker| waker.will_wake(cx.waker())) {
        watchers.push(cx.waker().clone());
    }
}

/// The lock, and the duty to wake the driver if it is asleep.
pub(crate) struct Entered<'a> {
    pub(crate) state: MutexGuard<'a, State>,
}

impl Entered<'_> {
    /// Unlocks, and wakes the driver on the edge.
    #[inline]
    pub(crate) fn leave(mut self) {
        if !self.state.awake {
            self.state.awake = true;
            let driver = self.state.driver.take();
            drop(self);
            if let Some(driver) = driver {
                driver.wake();
            }
        }
    }
}
