//! The part of a loop that other threads reach: what wakes it, who is to run, and timers and sockets of tasks.
//!
//! Each thing has a short lock of its own, which on the loop's thread nobody contends for. The poller's eventfd is
//! written only if the loop sleeps or is about to: a loop that is busy looks at what is pending in its next turn anyway.

use std::{
    cell::RefCell,
    fmt, io, mem,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use mio::Registry;
use tieline::BoxFuture;
use tieline_core::drive::ReadySet;

use crate::{slots::Slots, source::Source, timers::Timers};

pub(crate) struct Shared {
    waker: mio::Waker,
    pub(crate) registry: Registry,
    /// It sleeps in the poller, or will without looking again.
    asleep: AtomicBool,
    /// There is something in here that it has not looked at.
    pending: AtomicBool,
    stopped: AtomicBool,
    /// It has ended, and runs nothing any more.
    over: AtomicBool,
    /// Not begun yet. As many as whoever spawns allows: `rpc` spawns for connections and for calls, which have limits.
    spawned: Mutex<Vec<BoxFuture<()>>>,
    /// Tasks that were woken.
    woken: Mutex<ReadySet>,
    pub(crate) timers: Timers,
    pub(crate) sources: Mutex<Slots<Arc<Source>>>,
}

/// Nothing that runs under these locks can panic half-way through a change.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shared {
    pub(crate) fn new(registry: &Registry, waker: mio::Waker) -> io::Result<Arc<Self>> {
        Ok(Arc::new(Self {
            waker,
            registry: registry.try_clone()?,
            asleep: AtomicBool::new(false),
            pending: AtomicBool::new(false),
            stopped: AtomicBool::new(false),
            over: AtomicBool::new(false),
            spawned: Mutex::default(),
            woken: Mutex::default(),
            timers: Timers::default(),
            sources: Mutex::new(Slots::new()),
        }))
    }

    // ---- sleeping and waking ----------------------------------------------------------------------------------

    /// There is something to look at. Two flags that each side writes one of before it reads the other: either the loop
    /// sees that something is pending, or whoever calls this sees that it sleeps.
    #[inline]
    pub(crate) fn notify(&self) {
        self.pending.store(true, Ordering::SeqCst);
        if self.asleep.load(Ordering::SeqCst) && self.asleep.swap(false, Ordering::SeqCst) {
            self.rouse();
        }
    }

    /// An eventfd that cannot be written is full, and wakes the loop already.
    #[cold]
    fn rouse(&self) {
        let _ = self.waker.wake();
    }

    /// Whether the loop may sleep: nothing is pending. From here on whoever has something wakes it.
    #[inline]
    pub(crate) fn may_sleep(&self) -> bool {
        self.asleep.store(true, Ordering::SeqCst);
        if self.pending.load(Ordering::SeqCst) {
            self.awake();
            return false;
        }
        true
    }

    /// The loop is awake.
    #[inline]
    pub(crate) fn awake(&self) {
        self.asleep.store(false, Ordering::Relaxed);
    }

    /// Whether something is pending.
    #[inline]
    pub(crate) fn has_pending(&self) -> bool {
        self.pending.load(Ordering::Acquire)
    }

    /// Whether something was pending; it is looked at now.
    #[inline]
    pub(crate) fn take_pending(&self) -> bool {
        self.has_pending() && self.pending.swap(false, Ordering::SeqCst)
    }

    // ---- the end ----------------------------------------------------------------------------------------------

    pub(crate) fn stop(&self) {
        self.stopped.store(true, Ordering::Release);
        self.notify();
    }

    /// Whether the loop was told to stop since it was last asked.
    #[inline]
    pub(crate) fn take_stopped(&self) -> bool {
        self.stopped.load(Ordering::Acquire) && self.stopped.swap(false, Ordering::AcqRel)
    }

    /// The loop ends: nothing is run any more. The tasks that were not begun.
    pub(crate) fn end(&self) -> Vec<BoxFuture<()>> {
        self.over.store(true, Ordering::SeqCst);
        self.take_spawned()
    }

    pub(crate) fn is_over(&self) -> bool {
        self.over.load(Ordering::SeqCst)
    }

    // ---- tasks ------------------------------------------------------------------------------------------------

    /// Runs a task in the next turn. On a loop that has ended it is dropped.
    pub(crate) fn spawn(&self, task: BoxFuture<()>) {
        let mut spawned = lock(&self.spawned);
        // Asked under the lock: what is put in before the end is found there.
        if self.is_over() {
            drop(spawned);
            return;
        }
        spawned.push(task);
        drop(spawned);
        self.notify();
    }

    pub(crate) fn take_spawned(&self) -> Vec<BoxFuture<()>> {
        mem::take(&mut *lock(&self.spawned))
    }

    /// A task was woken.
    #[inline]
    pub(crate) fn wake_task(&self, number: u32) {
        if lock(&self.woken).insert(number) {
            self.notify();
        }
    }

    /// Exchanges the set of tasks that were woken for an empty one.
    pub(crate) fn swap_woken(&self, empty: &mut ReadySet) {
        mem::swap(&mut *lock(&self.woken), empty);
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared").field("over", &self.is_over()).finish_non_exhaustive()
    }
}

thread_local! {
    /// The loop that this thread is in a turn of.
    static CURRENT: RefCell<Option<Arc<Shared>>> = const { RefCell::new(None) };
}

/// The loop that this thread is in.
pub(crate) fn current() -> Option<Arc<Shared>> {
    CURRENT.try_with(|current| current.borrow().clone()).ok().flatten()
}

/// This thread is in a loop, until this is dropped; then it is where it was before.
pub(crate) struct Entered(Option<Arc<Shared>>);

impl Entered {
    pub(crate) fn new(shared: &Arc<Shared>) -> Self {
        let inner = Some(Arc::clone(shared));
        Self(CURRENT.try_with(|current| current.replace(inner)).unwrap_or_default())
    }
}

impl Drop for Entered {
    fn drop(&mut self) {
        let before = self.0.take();
        let _ = CURRENT.try_with(|current| current.replace(before));
    }
}
