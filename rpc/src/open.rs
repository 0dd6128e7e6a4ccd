//! A call that streams, from `peer.server_stream(..)` and its like to the handle on it.

use std::{
    fmt,
    future::Future,
    marker::PhantomData,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use tieline_core::conn::{CallId, Stream};

use crate::{
    error::CallError,
    link::Link,
    prepare::{Prepared, options},
};

/// A stream that is being prepared, and then opened: `.await` it for its handle, [`Items`](crate::Items),
/// [`ClientStream`](crate::ClientStream) or [`Bidi`](crate::Bidi).
///
/// Nothing happens until it is first polled. Opening waits for nothing but room on the connection, as a
/// [`Call`](crate::Call) does: what the node says of the call, it says on the handle.
///
/// ```no_run
/// # async fn example(peer: tieline::Peer) -> Result<(), tieline::CallError> {
/// let mut items = peer.server_stream("shop.Stock/Watch", "apples").credit(1 << 20).await?;
/// while let Some(item) = items.next().await {
///     println!("{:?}", item?);
/// }
/// # Ok(())
/// # }
/// ```
#[must_use = "a stream is not opened until it is awaited"]
pub struct Open<'a, S> {
    prepared: Prepared<'a>,
    handle: PhantomData<fn() -> S>,
}

impl<'a, S> Open<'a, S> {
    pub(crate) const fn new(prepared: Prepared<'a>) -> Self {
        Self { prepared, handle: PhantomData }
    }

    /// How long the whole stream may last, from its opening to its answer; a stream has no such bound by default. The
    /// node is told and stops when the time is over. A call that is made on behalf of another one never outlives that
    /// one's deadline.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.prepared.set_timeout(Some(timeout));
        self
    }

    /// Lasts as long as the connection: the default.
    pub fn no_timeout(mut self) -> Self {
        self.prepared.set_timeout(None);
        self
    }

    options!();

    /// How much the node may send that was not taken, in octets, instead of `stream_window` of
    /// [`Limits`](crate::Limits): an item costs its octets and 256. Much credit keeps a fast or far line full, little
    /// credit keeps memory small. Held to 2^31−1, and to at least 1: without any nothing would ever come. A window that is not
    /// said grows while all that comes is taken soon; see [`Items`](crate::Items).
    pub fn credit(mut self, octets: u32) -> Self {
        self.prepared.options().credit = Some(octets.max(1));
        self
    }
}

impl<S: Handle> Future for Open<'_, S> {
    type Output = Result<S, CallError>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.get_mut();
        let Poll::Ready(begun) = this.prepared.poll_begin(cx) else { return Poll::Pending };
        let link = this.prepared.link().map(Arc::clone);
        match (begun, link) {
            (Ok(begun), Some(link)) => {
                let grows = this.prepared.options().credit.is_none();
                let call = OpenCall { link, key: begun.key, id: begun.id, grows, over: false };
                Poll::Ready(Ok(S::of(call)))
            }
            (Err(error), _) => Poll::Ready(Err(error)),
            // Not reached: what has begun did so on a connection.
            (Ok(_), None) => Poll::Pending,
        }
    }
}

impl<S> fmt::Debug for Open<'_, S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Open").field("method", &self.prepared.method).finish_non_exhaustive()
    }
}

/// What a stream is handled by. Sealed: there are the handles that there are.
pub trait Handle {
    #[doc(hidden)]
    fn of(call: OpenCall) -> Self;
}

/// A stream that was opened and whose outcome was not taken. Dropped before that, it cancels the call.
#[derive(Debug)]
pub struct OpenCall {
    pub(crate) link: Arc<Link>,
    pub(crate) key: u32,
    pub(crate) id: CallId,
    /// Its window may grow.
    pub(crate) grows: bool,
    /// The outcome was taken, and with it the number.
    pub(crate) over: bool,
}

impl OpenCall {
    pub(crate) const fn stream(&self) -> Stream {
        Stream::Ours(self.id)
    }
}

impl Drop for OpenCall {
    fn drop(&mut self) {
        if self.over {
            return;
        }
        let mut entered = self.link.enter();
        let state = &mut *entered.state;
        let (id, sender) = state.waiters.abandon(self.key);
        match id {
            Some(id) => {
                state.conn.cancel(state.now, id);
                entered.leave();
            }
            None => drop(entered),
        }
        if let Some(sender) = sender {
            sender.wake();
        }
    }
}
