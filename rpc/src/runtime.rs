//! What an adapter has to bring: octets, time, tasks. Nothing here knows Tieline's protocol.

use std::{
    future::Future,
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use bytes::BytesMut;
use tieline_core::{Instant, conn::Outbox};

use crate::{server::instance, turns::Turns};

/// A task that can be spawned.
pub type BoxFuture<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// Tells the time, from any thread.
pub trait Clock: Send + Sync + 'static {
    /// Now, on a clock that never runs backwards; the same one that [`Time`] waits by.
    fn now(&self) -> Instant;
}

/// Waits for a point in time.
pub trait Time: Send + 'static {
    /// Completes once `at` has come. A call with another `at` replaces the one before.
    fn poll_until(&mut self, cx: &mut Context<'_>, at: Instant) -> Poll<()>;
}

/// An ordered octet stream.
pub trait Io: Send + 'static {
    /// Appends what has arrived to `into`, as much as it has capacity for, and returns how many octets that was. 0 is
    /// the end of the stream.
    ///
    /// # Errors
    /// Whatever the transport reports; the connection is over then.
    fn poll_read(&mut self, cx: &mut Context<'_>, into: &mut BytesMut) -> Poll<io::Result<usize>>;

    /// Writes from `out` as much as the transport takes, advances `out` by it, and returns how many octets it was.
    ///
    /// # Errors
    /// Whatever the transport reports. A write of nothing is an error of kind `WriteZero`.
    fn poll_write(&mut self, cx: &mut Context<'_>, out: &mut Outbox) -> Poll<io::Result<usize>>;

    /// Ends the stream in the direction of the peer.
    ///
    /// # Errors
    /// Whatever the transport reports.
    fn poll_shutdown(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>>;

    /// Sees to it that the task is polled again soon, after other tasks have had their turn. A runtime in which a task that
    /// wakes itself may come back before it has looked at its transports overrides this.
    fn yield_now(&mut self, cx: &mut Context<'_>) {
        cx.waker().wake_by_ref();
    }

    /// Check-in is complete and a peer that shows no life for so long is dead: transports that can watch for that
    /// themselves do (TCP_USER_TIMEOUT).
    fn set_dead_after(&mut self, _silence: Duration) {}
}

/// Accepts connections.
pub trait Listener: Send + 'static {
    /// What a connection is.
    type Io: Io;

    /// The next connection, and the peer's address for people to read.
    ///
    /// # Errors
    /// Whatever the transport reports. None of them ends a server: those of one connection are passed over, and after
    /// those of the process (no descriptors, no memory) it waits a little.
    fn poll_accept(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<(Self::Io, String)>>;

    /// The address that it listens on, with the port that the kernel chose if it was asked to.
    fn local_address(&self) -> String;
}

/// A runtime: what [`Client`](crate::Client) and [`Server`](crate::Server) are generic over.
pub trait Runtime: Clone + Default + Send + Sync + 'static {
    /// Its connections.
    type Io: Io;
    /// Its timers.
    type Time: Time;
    /// Its listeners.
    type Listener: Listener<Io = Self::Io>;

    /// Its clock.
    fn clock(&self) -> Arc<dyn Clock>;

    /// A new timer.
    fn time(&self) -> Self::Time;

    /// Runs a task.
    fn spawn(&self, task: BoxFuture<()>);

    /// Dials `address`.
    fn connect(&self, address: &str) -> impl Future<Output = io::Result<Self::Io>> + Send;

    /// Listens on `address`.
    fn listen(&self, address: &str) -> impl Future<Output = io::Result<Self::Listener>> + Send;

    /// Waits for `duration`, counted from this call.
    fn sleep(&self, duration: Duration) -> impl Future<Output = ()> + Send {
        let (clock, mut time) = (self.clock(), self.time());
        let at = clock.now().saturating_add(duration);
        std::future::poll_fn(move |cx| time.poll_until(cx, at))
    }

    /// Runs `future`, but not longer than `limit`, counted from this call; `None`: the time was over first.
    fn timeout<F: Future + Send>(
        &self,
        limit: Duration,
        future: F,
    ) -> impl Future<Output = Option<F::Output>> + Send {
        let (clock, mut time) = (self.clock(), self.time());
        let at = clock.now().saturating_add(limit);
        async move {
            let mut future = std::pin::pin!(future);
            std::future::poll_fn(move |cx| match future.as_mut().poll(cx) {
                Poll::Ready(output) => Poll::Ready(Some(output)),
                Poll::Pending => time.poll_until(cx, at).map(|()| None),
            })
            .await
        }
    }

    /// A number that differs from process to process and from call to call.
    fn seed(&self) -> u64 {
        use std::hash::{BuildHasher, Hasher};
        std::collections::hash_map::RandomState::new().build_hasher().finish()
    }

    /// The instance number of this process (protocol §4): what a process says that starts later is higher. The default
    /// is one number for the whole process, from the time of day; a runtime that stands for many processes has one for
    /// each.
    fn instance(&self) -> u64 {
        instance()
    }

    /// What counts the turns of connections. The default is one count for the whole process; a runtime that stands for many
    /// processes has one for each.
    fn turns(&self) -> Turns {
        Turns::of_process()
    }
}
