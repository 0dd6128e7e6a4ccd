//! The tasks of a loop: polled on its thread when they were woken, from wherever.

use std::{
    future::Future,
    panic::{AssertUnwindSafe, catch_unwind},
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, Wake, Waker},
};

use tieline::BoxFuture;
use tieline_core::drive::ReadySet;

use crate::{
    shared::{Entered, Shared, lock},
    slots::Slots,
    source::Source,
};

/// A bit in the set of those who were woken. A waker that outlives its task wakes, at worst, the next one of its number,
/// which looks and waits on.
struct TaskWaker {
    number: u32,
    shared: Arc<Shared>,
}

impl Wake for TaskWaker {
    fn wake(self: Arc<Self>) {
        self.shared.wake_task(self.number);
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.shared.wake_task(self.number);
    }
}

struct Task {
    /// Absent while it is polled.
    future: Option<BoxFuture<()>>,
    waker: Option<Waker>,
}

/// The tasks of a loop.
pub(crate) struct Tasks {
    tasks: Slots<Task>,
    /// Those that have their turn; the set that they are exchanged with keeps its memory.
    ready: ReadySet,
    shared: Arc<Shared>,
}

impl Tasks {
    pub(crate) const fn new(shared: Arc<Shared>) -> Self {
        Self { tasks: Slots::new(), ready: ReadySet::new(), shared }
    }

    /// Polls every task that is new or was woken, once. Who is woken meanwhile comes in the next turn.
    pub(crate) fn run(&mut self) {
        for future in self.shared.take_spawned() {
            let Ok(name) = self.tasks.insert(Task { future: Some(future), waker: None }) else { continue };
            let waker = TaskWaker { number: name.number, shared: Arc::clone(&self.shared) };
            if let Some(task) = self.tasks.get_mut(name.number) {
                task.waker = Some(Arc::new(waker).into());
            }
            self.shared.wake_task(name.number);
        }
        self.shared.swap_woken(&mut self.ready);
        while let Some(number) = self.ready.pop() {
            self.poll(number);
        }
    }

    fn poll(&mut self, number: u32) {
        let Some(task) = self.tasks.get_mut(number) else { return };
        let (Some(future), Some(waker)) = (&mut task.future, &task.waker) else { return };
        let mut cx = Context::from_waker(waker);
        // A task that panics has ended; the others go on.
        let polled = catch_unwind(AssertUnwindSafe(|| future.as_mut().poll(&mut cx)));
        if !matches!(polled, Ok(Poll::Pending)) {
            let ended = self.tasks.remove(number);
            // What it held may panic while it is dropped.
            let _ = catch_unwind(AssertUnwindSafe(|| drop(ended)));
        }
    }

    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.tasks.len()
    }

    /// Drops all of them, and those that they spawn while they are dropped.
    pub(crate) fn end(&mut self) {
        let _entered = Entered::new(&self.shared);
        let unborn = self.shared.end();
        let numbers: Vec<u32> = self.tasks.names().map(|(name, _)| name.number).collect();
        let _ = catch_unwind(AssertUnwindSafe(|| drop(unborn)));
        for number in numbers {
            let task = self.tasks.remove(number);
            let _ = catch_unwind(AssertUnwindSafe(|| drop(task)));
        }
        // Timers and sockets of this loop may be waited for on other threads.
        self.shared.timers.end();
        let sources: Vec<Arc<Source>> =
            lock(&self.shared.sources).names().map(|(_, source)| Arc::clone(source)).collect();
        sources.iter().for_each(|source| source.end());
    }
}

/// Wakes the one future that a loop is blocked on.
pub(crate) struct MainWaker {
    woken: AtomicBool,
    shared: Arc<Shared>,
}

impl MainWaker {
    pub(crate) fn new(shared: &Arc<Shared>) -> Arc<Self> {
        Arc::new(Self { woken: AtomicBool::new(true), shared: Arc::clone(shared) })
    }

    /// Polls `future` if it was woken.
    pub(crate) fn poll<F: Future>(self: &Arc<Self>, future: Pin<&mut F>) -> Poll<F::Output> {
        if !self.woken.swap(false, Ordering::AcqRel) {
            return Poll::Pending;
        }
        let _entered = Entered::new(&self.shared);
        future.poll(&mut Context::from_waker(&Waker::from(Arc::clone(self))))
    }
}

impl Wake for MainWaker {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if !self.woken.swap(true, Ordering::AcqRel) {
            self.shared.notify();
        }
    }
}
