//! Waiting: for events, within a bound of the runtime's own clock; and values that tasks and threads wait for.

use std::{
    fmt,
    future::{Future, poll_fn},
    pin::pin,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    task::{Poll, Waker},
    time::Duration,
};

use tieline::{Runtime, Time};

use crate::Adapter;

/// A millisecond.
pub const MS: Duration = Duration::from_millis(1);
/// A second.
pub const SECOND: Duration = Duration::from_secs(1);
/// What is waited for longer than this will not come. A busy machine is no reason for that.
pub const LONG: Duration = Duration::from_secs(60);

/// Lets time pass.
pub async fn pass<A: Adapter>(time: Duration) {
    let runtime = A::Runtime::default();
    let at = runtime.clock().now().saturating_add(time);
    let mut timer = runtime.time();
    poll_fn(|cx| timer.poll_until(cx, at)).await;
}

/// Waits, but not for ever.
pub async fn soon<A: Adapter, F: Future>(what: &str, future: F) -> F::Output {
    match either(future, pass::<A>(LONG)).await {
        Ok(output) => output,
        Err(()) => panic!("{what}: not within {LONG:?}"),
    }
}

/// Waits until something that has no event of its own is so.
pub async fn until<A: Adapter>(what: &str, mut so: impl FnMut() -> bool) {
    soon::<A, _>(what, async {
        while !so() {
            pass::<A>(2 * MS).await;
        }
    })
    .await;
}

/// Whichever ends first; the other one is dropped. The first is asked first.
///
/// # Errors
/// What the second ended with, if it was that.
pub async fn either<F: Future, G: Future>(first: F, second: G) -> Result<F::Output, G::Output> {
    let (mut first, mut second) = (pin!(first), pin!(second));
    poll_fn(|cx| match first.as_mut().poll(cx) {
        Poll::Ready(output) => Poll::Ready(Ok(output)),
        Poll::Pending => second.as_mut().poll(cx).map(Err),
    })
    .await
}

/// Both at once.
pub async fn both<F: Future, G: Future>(first: F, second: G) -> (F::Output, G::Output) {
    let (mut first, mut second) = (pin!(first), pin!(second));
    let (mut one, mut other) = (None, None);
    poll_fn(|cx| {
        if one.is_none()
            && let Poll::Ready(output) = first.as_mut().poll(cx)
        {
            one = Some(output);
        }
        if other.is_none()
            && let Poll::Ready(output) = second.as_mut().poll(cx)
        {
            other = Some(output);
        }
        if one.is_some() && other.is_some() { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
    (one.unwrap(), other.unwrap())
}

/// Lets others have their turn once.
pub async fn turn() {
    let mut had = false;
    poll_fn(|cx| {
        if std::mem::replace(&mut had, true) {
            return Poll::Ready(());
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

/// A value that tasks, and threads, can wait for. Clones share it.
pub struct Shared<T>(Arc<Inner<T>>);

struct Inner<T> {
    value: Mutex<(T, Vec<Waker>)>,
    changed: Condvar,
}

impl<T> Clone for Shared<T> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<T: Default> Default for Shared<T> {
    fn default() -> Self {
        Self::new(T::default())
    }
}

impl<T> Shared<T> {
    /// Holds `value`.
    pub fn new(value: T) -> Self {
        Self(Arc::new(Inner { value: Mutex::new((value, Vec::new())), changed: Condvar::new() }))
    }

    fn lock(&self) -> MutexGuard<'_, (T, Vec<Waker>)> {
        self.0.value.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes the value and tells those who wait.
    pub fn change<R>(&self, change: impl FnOnce(&mut T) -> R) -> R {
        let mut value = self.lock();
        let result = change(&mut value.0);
        let wakers = std::mem::take(&mut value.1);
        drop(value);
        self.0.changed.notify_all();
        wakers.into_iter().for_each(Waker::wake);
        result
    }

    /// Looks at the value.
    pub fn see<R>(&self, see: impl FnOnce(&T) -> R) -> R {
        see(&self.lock().0)
    }

    /// Waits until the value has what is looked for, and takes it.
    pub async fn take<R>(&self, mut look: impl FnMut(&mut T) -> Option<R>) -> R {
        poll_fn(|cx| {
            let mut value = self.lock();
            if let Some(found) = look(&mut value.0) {
                return Poll::Ready(found);
            }
            if !value.1.iter().any(|waker| waker.will_wake(cx.waker())) {
                value.1.push(cx.waker().clone());
            }
            Poll::Pending
        })
        .await
    }

    /// The same for a thread, which it blocks.
    pub fn take_blocking<R>(&self, mut look: impl FnMut(&mut T) -> Option<R>) -> R {
        let mut value = self.lock();
        loop {
            if let Some(found) = look(&mut value.0) {
                return found;
            }
            let (next, late) =
                self.0.changed.wait_timeout(value, LONG).unwrap_or_else(PoisonError::into_inner);
            assert!(!late.timed_out(), "a thread of the scenario waits in vain");
            value = next;
        }
    }
}

/// Something that is counted, and can be waited for.
impl Shared<u64> {
    /// One more.
    pub fn add(&self) {
        self.change(|count| *count += 1);
    }

    /// Waits for one, and takes it off.
    pub async fn one(&self) {
        self.take(|count| count.checked_sub(1).map(|rest| *count = rest)).await;
    }

    /// Waits until it is so many at least.
    pub async fn at_least(&self, many: u64) {
        self.take(|count| (*count >= many).then_some(())).await;
    }

    /// How many.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.see(|count| *count)
    }
}

impl<T> fmt::Debug for Shared<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared").finish_non_exhaustive()
    }
}

/// Counts when it is dropped.
#[derive(Debug)]
pub struct Guard(pub Shared<u64>);

impl Drop for Guard {
    fn drop(&mut self) {
        self.0.add();
    }
}
