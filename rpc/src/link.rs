//! Where many tasks meet one connection: a short mutex around the core, the outcome left in a slot.
//!
//! A caller's first poll locks, puts its call into the core and leaves its waker; the driver, once a turn, moves all
//! outcomes that came into their slots and wakes outside the lock; the caller's next poll takes the outcome. The
//! driver is only woken on the edge from "nothing waits" to "something waits", so a batch of calls costs one wake-up.

use std::{
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Waker},
};

use tieline_core::{
    Instant,
    conn::{Closed, Connection, Stream},
};

use crate::{common::Common, growth::Grown, identity::Probe, room::Room, seats::Seats, waiters::Waiters};

pub(crate) struct State {
    pub(crate) conn: Connection<u32>,
    pub(crate) waiters: Waiters,
    /// Calls that wait for room in `conn`.
    pub(crate) room: Room,
    /// Those who wait at streams of the peer.
    pub(crate) seats: Seats,
    /// What the windows of streams have grown by.
    pub(crate) grown: Grown,
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

impl State {
    /// Whether new calls may go out: nobody has heard of its end, or of a drain of the peer. Once it is not so, those who
    /// wait are told.
    pub(crate) fn takes_calls(&self) -> bool {
        self.closed.is_none() && !self.draining
    }

    /// Who waits for items of a stream.
    pub(crate) fn reader(&mut self, stream: Stream) -> Option<Waker> {
        match stream {
            Stream::Ours(id) => self.waiters.reader(*self.conn.user(id)?),
            Stream::Theirs(call) => self.seats.reader(call),
        }
    }

    /// Who waits for room for an item of a stream.
    pub(crate) fn sender(&mut self, stream: Stream) -> Option<Waker> {
        match stream {
            Stream::Ours(id) => self.waiters.sender(*self.conn.user(id)?),
            Stream::Theirs(call) => self.seats.sender(call),
        }
    }
}

/// A connection, shared by its driver and by those who call on it.
pub(crate) struct Link {
    state: Mutex<State>,
    pub(crate) common: Arc<Common>,
    /// The peer, for people to read: an identifier once it is known, and an address.
    pub(crate) address: Arc<str>,
    /// What is known of its TLS, if it has one.
    #[cfg(feature = "tls")]
    pub(crate) tls: Option<Arc<crate::tls::Known>>,
}

/// The far end, before anything was heard of it.
pub(crate) struct Far<'a> {
    pub(crate) address: &'a str,
    #[cfg(feature = "tls")]
    pub(crate) tls: Option<Arc<crate::tls::Known>>,
}

impl<'a> Far<'a> {
    pub(crate) const fn new(address: &'a str) -> Self {
        Self {
            address,
            #[cfg(feature = "tls")]
            tls: None,
        }
    }
}

impl Link {
    pub(crate) fn new(conn: Connection<u32>, common: Arc<Common>, far: Far<'_>) -> Arc<Self> {
        let state = State {
            conn,
            waiters: Waiters::default(),
            room: Room::default(),
            seats: Seats::default(),
            grown: Grown::default(),
            now: common.clock.now(),
            awake: true,
            driver: None,
            ready: false,
            draining: false,
            closed: None,
            gone: false,
            probe: None,
            watchers: Vec::new(),
        };
        Arc::new(Self {
            state: Mutex::new(state),
            common,
            address: far.address.into(),
            #[cfg(feature = "tls")]
            tls: far.tls,
        })
    }

    /// The certificate that the peer has shown.
    #[cfg(feature = "tls")]
    pub(crate) fn certificate(&self) -> Option<&crate::tls::Certificate> {
        self.tls.as_ref()?.certificate.get()
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
            state.now = self.common.clock.now();
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

impl fmt::Debug for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Link").field("address", &self.address).finish_non_exhaustive()
    }
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
