//! Tasks, and who wants to run. Who runs next is drawn by chance.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    task::{Wake, Waker},
};

use tieline::BoxFuture;

/// The task of the test itself, which stands on its stack.
pub(crate) const MAIN: u64 = 0;
/// Tasks of a world.
pub(crate) const TASKS: usize = 1 << 18;

/// Tasks that were woken and have not been polled since, in the order in which that happened.
#[derive(Debug, Default)]
pub(crate) struct Ready(Mutex<Vec<u64>>);

impl Ready {
    pub(crate) fn push(&self, id: u64) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(id);
    }

    /// Takes one of them; `choose` says which, of how many.
    pub(crate) fn take(&self, choose: impl FnOnce(usize) -> usize) -> Option<u64> {
        let mut ready = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if ready.is_empty() {
            return None;
        }
        let at = choose(ready.len()).min(ready.len() - 1);
        Some(ready.swap_remove(at))
    }
}

/// Wakes a task, from any thread.
#[derive(Debug)]
pub(crate) struct Rouser {
    id: u64,
    queued: AtomicBool,
    ready: Arc<Ready>,
}

impl Rouser {
    pub(crate) fn new(id: u64, ready: &Arc<Ready>) -> Arc<Self> {
        Arc::new(Self { id, queued: AtomicBool::new(false), ready: Arc::clone(ready) })
    }

    /// It is about to be polled: from here on it has to be woken again.
    pub(crate) fn polled(&self) {
        self.queued.store(false, Ordering::Release);
    }
}

impl Wake for Rouser {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if !self.queued.swap(true, Ordering::AcqRel) {
            self.ready.push(self.id);
        }
    }
}

pub(crate) struct Task {
    pub(crate) host: usize,
    /// Not there while it is polled.
    pub(crate) future: Option<BoxFuture<()>>,
    pub(crate) rouser: Arc<Rouser>,
    pub(crate) waker: Waker,
}

#[derive(Default)]
pub(crate) struct Tasks {
    pub(crate) all: BTreeMap<u64, Task>,
    spawned: u64,
}

impl Tasks {
    pub(crate) fn add(&mut self, host: usize, future: BoxFuture<()>, ready: &Arc<Ready>) {
        self.spawned += 1;
        let rouser = Rouser::new(self.spawned, ready);
        let waker = Waker::from(Arc::clone(&rouser));
        waker.wake_by_ref();
        self.all.insert(self.spawned, Task { host, future: Some(future), rouser, waker });
    }

    /// Takes the tasks of a host, to be dropped outside the lock.
    pub(crate) fn of(&mut self, host: usize) -> Vec<Task> {
        let ids: Vec<u64> =
            self.all.iter().filter(|(_, task)| task.host == host).map(|(id, _)| *id).collect();
        ids.into_iter().filter_map(|id| self.all.remove(&id)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_task_that_is_woken_many_times_stands_there_once() {
        let ready = Arc::new(Ready::default());
        let mut tasks = Tasks::default();
        tasks.add(3, Box::pin(async {}), &ready);
        let Some(task) = tasks.all.get(&1) else { unreachable!("it was added") };
        task.waker.wake_by_ref();
        assert_eq!(ready.take(|len| len - 1), Some(1));
        assert_eq!(ready.take(|_| 0), None);
        task.waker.wake_by_ref();
        assert_eq!(ready.take(|_| 0), None, "it was not polled since");
        task.rouser.polled();
        task.waker.wake_by_ref();
        assert_eq!(ready.take(|_| 0), Some(1));
        assert_eq!((tasks.of(2).len(), tasks.of(3).len(), tasks.all.len()), (0, 1, 0));
    }
}
