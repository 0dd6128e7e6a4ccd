//! What code on a host may ask of the world: time, tasks, and to be busy.

use std::{
    fmt,
    future::{Future, poll_fn},
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Waker},
    time::Duration,
};

use tieline::{Runtime, Time};

use crate::sim::{Sim, nanos};

/// Waits for so long, in virtual time.
pub async fn sleep(duration: Duration) {
    let sim = Sim::default();
    let mut timer = sim.time();
    let at = sim.clock().now().saturating_add(duration);
    poll_fn(move |cx| timer.poll_until(cx, at)).await;
}

/// Keeps the whole host busy for so long: none of its tasks runs meanwhile, as if this one computed on its only thread.
pub async fn compute(duration: Duration) {
    let sim = Sim::default();
    sim.world.with(|state| state.compute(sim.host, nanos(duration)));
    sleep(duration).await;
}

/// Waits until `condition` holds. It is looked at every millisecond of virtual time.
pub async fn until(mut condition: impl FnMut() -> bool) {
    while !condition() {
        sleep(Duration::from_millis(1)).await;
    }
}

/// Runs a future as a task of this host. Nobody has to wait for it.
pub fn spawn<F>(future: F) -> Joined<F::Output>
where
    F: Future + Send + 'static,
    F::Output: Send,
{
    spawn_on(&Sim::default(), future)
}

/// Runs a future as a task of the host that `sim` is seen from.
pub(crate) fn spawn_on<F>(sim: &Sim, future: F) -> Joined<F::Output>
where
    F: Future + Send + 'static,
    F::Output: Send,
{
    let place = Arc::new(Mutex::new(Place { output: None, over: false, waker: None }));
    let end = End(Arc::clone(&place));
    Runtime::spawn(
        sim,
        Box::pin(async move {
            let output = future.await;
            end.lock().output = Some(output);
        }),
    );
    Joined(place)
}

struct Place<T> {
    output: Option<T>,
    over: bool,
    waker: Option<Waker>,
}

/// Held by the task; however it ends, who waits for it is told.
struct End<T>(Arc<Mutex<Place<T>>>);

impl<T> End<T> {
    fn lock(&self) -> MutexGuard<'_, Place<T>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T> Drop for End<T> {
    fn drop(&mut self) {
        let waker = {
            let mut place = self.lock();
            place.over = true;
            place.waker.take()
        };
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

/// Waits for a task; see [`spawn`]. `None` if it was dropped before its end, as the tasks of a host that crashes are.
pub struct Joined<T>(Arc<Mutex<Place<T>>>);

impl<T> Joined<T> {
    /// Whether the task has ended, or was dropped.
    #[must_use]
    pub fn is_finished(&self) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).over
    }
}

impl<T> Future for Joined<T> {
    type Output = Option<T>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut place = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if place.over {
            return Poll::Ready(place.output.take());
        }
        place.waker = Some(cx.waker().clone());
        Poll::Pending
    }
}

impl<T> fmt::Debug for Joined<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Joined").field("finished", &self.is_finished()).finish()
    }
}
