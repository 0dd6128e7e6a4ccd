//! Reaching a loop from other threads.

use std::{
    collections::VecDeque,
    fmt,
    future::Future,
    mem,
    sync::{Arc, Mutex},
};

use thiserror::Error;

use crate::{
    app::App,
    net::Net,
    runtime::Mio,
    shared::{Shared, lock},
};

/// What other threads have asked for and the loop has not done, at most.
const MOST_JOBS: usize = 4096;

/// Something to do on the loop's thread.
pub(crate) type Job<A> = Box<dyn FnOnce(&mut A, &mut Net<<A as App>::User>) + Send>;

/// What other threads have asked for, in order.
pub(crate) struct Jobs<A: App> {
    /// Nothing more once the loop has ended.
    queue: Mutex<Option<VecDeque<Job<A>>>>,
}

impl<A: App> Default for Jobs<A> {
    fn default() -> Self {
        Self { queue: Mutex::new(Some(VecDeque::new())) }
    }
}

impl<A: App> Jobs<A> {
    pub(crate) fn take(&self) -> VecDeque<Job<A>> {
        lock(&self.queue).as_mut().map(mem::take).unwrap_or_default()
    }

    pub(crate) fn end(&self) -> Option<VecDeque<Job<A>>> {
        lock(&self.queue).take()
    }
}

/// Reaches a [`Loop`](crate::Loop) from any thread. Cheap to clone.
///
/// What is handed in waits in a queue of up to 4096 and is done in the loop's next turn, in order. If the loop is busy
/// that costs a lock; only a loop that sleeps has to be woken, which costs a system call.
///
/// ```
/// use std::{sync::mpsc, thread};
/// use tieline_mio::{Loop, Refused};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let mut node = Loop::new(())?;
/// let handle = node.handle();
/// let (tell, told) = mpsc::channel();
/// let other = thread::spawn(move || {
///     handle.submit(move |_app, net| {
///         let _ = tell.send(net.len());
///     })?;
///     handle.stop();
///     Ok::<(), Refused>(())
/// });
/// node.run()?;
/// assert_eq!(told.recv()?, 0, "there is no connection");
/// # other.join().map_err(|_| "panicked")??;
/// # Ok(())
/// # }
/// ```
pub struct Handle<A: App> {
    shared: Arc<Shared>,
    jobs: Arc<Jobs<A>>,
}

/// Why a loop did not take what was handed to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Error)]
#[non_exhaustive]
pub enum Refused {
    /// As much waits as may: the loop does not keep up.
    #[error("4096 requests of other threads wait on the loop; try again later, or hand in less")]
    Full,
    /// The loop has ended.
    #[error("the loop has ended")]
    Over,
}

impl<A: App> Handle<A> {
    pub(crate) const fn new(shared: Arc<Shared>, jobs: Arc<Jobs<A>>) -> Self {
        Self { shared, jobs }
    }

    /// Does something on the loop's thread, with its application and its connections: call a node, answer a call, set a
    /// timer. It must not block there. A panic in it is contained.
    ///
    /// # Errors
    /// [`Refused`]: it was dropped, and is not done.
    pub fn submit(
        &self,
        job: impl FnOnce(&mut A, &mut Net<A::User>) + Send + 'static,
    ) -> Result<(), Refused> {
        {
            let mut queue = lock(&self.jobs.queue);
            let queue = queue.as_mut().ok_or(Refused::Over)?;
            if queue.len() >= MOST_JOBS {
                return Err(Refused::Full);
            }
            queue.push_back(Box::new(job));
        }
        self.shared.notify();
        Ok(())
    }

    /// Runs a task on the loop.
    ///
    /// # Errors
    /// [`Refused`]: it was dropped, and is not run.
    pub fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) -> Result<(), Refused> {
        self.submit(move |_, net| net.spawn(Box::pin(task)))
    }

    /// Ends [`Loop::run`](crate::Loop::run) after the turn in which it hears of this, which does what was handed in before.
    pub fn stop(&self) {
        self.shared.stop();
    }

    /// The loop as a runtime, for clients and servers that are made on another thread.
    #[must_use]
    pub fn runtime(&self) -> Mio {
        Mio::of(Arc::clone(&self.shared))
    }
}

impl<A: App> Clone for Handle<A> {
    fn clone(&self) -> Self {
        Self { shared: Arc::clone(&self.shared), jobs: Arc::clone(&self.jobs) }
    }
}

impl<A: App> fmt::Debug for Handle<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Handle").field("loop", &self.shared).finish_non_exhaustive()
    }
}
