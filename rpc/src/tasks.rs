//! Handlers that had to wait: tasks that can be stopped from the connection.

use std::{
    future::Future,
    panic::{AssertUnwindSafe, catch_unwind},
    pin::Pin,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, Waker},
};

use bytes::Bytes;
use tieline_core::{
    Instant,
    conn::{Body, Connection, Served},
};

use crate::{error::Error, handler::Outcome, link::Link, runtime::BoxFuture};

/// Tells a task to stop.
#[derive(Default)]
pub(crate) struct Stop {
    stopped: AtomicBool,
    waker: Mutex<Option<Waker>>,
}

impl Stop {
    pub(crate) fn stop(&self) {
        self.stopped.store(true, Ordering::Release);
        let waker = self.waker.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    fn is_stopped(&self) -> bool {
        self.stopped.load(Ordering::Acquire)
    }

    /// Leaves a waker; whether it is too late for that.
    fn wait(&self, waker: &Waker) -> bool {
        let mut known = self.waker.lock().unwrap_or_else(PoisonError::into_inner);
        if known.as_ref().is_none_or(|known| !known.will_wake(waker)) {
            *known = Some(waker.clone());
        }
        drop(known);
        self.is_stopped()
    }

    /// Takes the waker back: it would keep the memory of a task that has ended.
    fn forget(&self) {
        drop(self.waker.lock().unwrap_or_else(PoisonError::into_inner).take());
    }
}

/// A handler that runs as a task. However it ends, by an answer, a panic, being stopped or being dropped with its
/// runtime, the call's place is given back.
pub(crate) struct Task {
    future: Option<BoxFuture<Result<Bytes, Error>>>,
    stop: Arc<Stop>,
    /// It has left a waker there.
    waits: bool,
    link: Arc<Link>,
    call: Served,
}

impl Task {
    pub(crate) fn new(
        future: BoxFuture<Result<Bytes, Error>>,
        stop: Arc<Stop>,
        link: Arc<Link>,
        call: Served,
    ) -> Self {
        Self { future: Some(future), stop, waits: false, link, call }
    }

    fn finish(&mut self, outcome: Option<Outcome>) {
        let future = self.future.take();
        // A destructor that panics must not cost the call's place.
        let _ = catch_unwind(AssertUnwindSafe(|| drop(future)));
        if std::mem::take(&mut self.waits) {
            self.stop.forget();
        }
        let mut entered = self.link.enter();
        let state = &mut *entered.state;
        match outcome {
            Some(outcome) => answer(&mut state.conn, state.now, self.call, outcome),
            None => state.conn.stopped(state.now, self.call),
        }
        // Other tasks may have got its ends of a stream.
        let wakers = state.seats.close(self.call, None);
        entered.leave();
        wakers.into_iter().flatten().for_each(Waker::wake);
    }
}

impl Future for Task {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = self.get_mut();
        let Some(future) = &mut this.future else { return Poll::Ready(()) };
        if this.stop.is_stopped() {
            this.finish(None);
            return Poll::Ready(());
        }
        match catch_unwind(AssertUnwindSafe(|| future.as_mut().poll(cx))) {
            Ok(Poll::Pending) => {
                this.waits = true;
                if !this.stop.wait(cx.waker()) {
                    return Poll::Pending;
                }
                this.finish(None);
                Poll::Ready(())
            }
            Ok(Poll::Ready(result)) => {
                this.finish(Some(Outcome::Answer(result)));
                Poll::Ready(())
            }
            Err(panic) => {
                this.finish(Some(Outcome::Panicked));
                this.link.panicked(&*panic);
                Poll::Ready(())
            }
        }
    }
}

impl Drop for Task {
    fn drop(&mut self) {
        if self.future.is_some() {
            self.finish(None);
        }
    }
}

/// Gives the core a handler's answer. That it may be of no use any more is not the handler's concern.
#[inline]
pub(crate) fn answer(conn: &mut Connection<u32>, now: Instant, call: Served, outcome: Outcome) {
    let _ = match outcome {
        Outcome::Answer(Ok(body)) => conn.answer(now, call, Body::Share(body)),
        Outcome::Answer(Err(error)) => conn.reply(now, call, &error.reply()),
        Outcome::Panicked => conn.panicked(now, call),
    };
}
