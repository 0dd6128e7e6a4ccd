//! Handlers: polled once where they stand, and made a task only if they have to wait.

use std::{
    any::Any,
    fmt,
    future::Future,
    marker::PhantomData,
    panic::{AssertUnwindSafe, catch_unwind},
    pin::Pin,
    sync::Arc,
    task::{Poll, Waker},
};

use bytes::Bytes;
use pin_project_lite::pin_project;
use tieline_core::{
    Instant,
    conn::{Incoming, PeerInfo, Served},
    wire::Metadata,
};

use crate::{error::Error, link::Link, peer::Peer, runtime::BoxFuture};

/// What a handler knows of the call that it serves, besides its argument.
pub struct Context {
    peer: Peer,
    incoming: Incoming,
}

impl Context {
    pub(crate) fn new(link: Arc<Link>, incoming: Incoming) -> Self {
        let parent = (!incoming.one_way).then_some(incoming.call);
        let peer = Peer { link, limit: incoming.deadline, parent };
        Self { peer, incoming }
    }

    /// Who calls: call back on the same connection. Such calls end with this one's deadline at the latest.
    #[must_use]
    pub fn peer(&self) -> &Peer {
        &self.peer
    }

    /// What the caller said of itself at check-in.
    #[must_use]
    pub fn caller(&self) -> Option<Arc<PeerInfo>> {
        self.peer.info()
    }

    /// When the caller stops waiting.
    #[must_use]
    pub fn deadline(&self) -> Option<Instant> {
        self.incoming.deadline
    }

    /// Whether nobody waits for an answer.
    #[must_use]
    pub fn is_one_way(&self) -> bool {
        self.incoming.one_way
    }

    /// −1 background, 0 or 1.
    #[must_use]
    pub fn priority(&self) -> i8 {
        self.incoming.priority
    }

    /// The metadata, in the order of the caller.
    pub fn metadata(&self) -> impl Iterator<Item = Metadata<'_>> {
        self.incoming.metadata()
    }

    /// The key by which the caller keeps its calls in order; empty if there is none. Calls with one key run one after the
    /// other.
    #[must_use]
    pub fn ordering_key(&self) -> &[u8] {
        self.incoming.ordering_key()
    }

    /// The W3C trace context, as it was sent.
    #[must_use]
    pub fn trace(&self) -> &[u8] {
        self.incoming.trace()
    }

    pub(crate) const fn link(&self) -> &Arc<Link> {
        &self.peer.link
    }

    pub(crate) const fn call(&self) -> Served {
        self.incoming.call
    }
}

impl fmt::Debug for Context {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Context").field("peer", &self.peer).field("incoming", &self.incoming).finish()
    }
}

/// What became of a handler.
pub(crate) enum Outcome {
    Answer(Result<Bytes, Error>),
    Panicked,
}

/// What became of a handler's first poll.
pub(crate) enum Progress {
    Done(Outcome),
    Pending(BoxFuture<Result<Bytes, Error>>),
}

/// Where the futures of a handler stand on one connection: the memory of a call that did not have to wait serves the
/// next one.
pub(crate) type Spare = Box<dyn Any + Send>;

/// A handler of any type.
pub(crate) trait Handler: Send + Sync {
    /// A place for its futures.
    fn spare(&self) -> Spare;

    /// Starts it in such a place and polls it once.
    fn start(&self, spare: &mut Spare, link: &Arc<Link>, incoming: Incoming) -> Progress;
}

/// A handler that is an async function.
pub(crate) struct AsyncFn<F, Fut> {
    function: F,
    future: PhantomData<fn() -> Fut>,
}

impl<F, Fut> AsyncFn<F, Fut> {
    pub(crate) const fn new(function: F) -> Self {
        Self { function, future: PhantomData }
    }
}

/// What a [`Spare`] of it is.
type Place<Fut> = Option<Pin<Box<Cell<Fut>>>>;

pin_project! {
    /// The place of one handler's future.
    pub(crate) struct Cell<Fut> {
        #[pin]
        future: Option<Fut>,
    }
}

impl<Fut, B> Future for Cell<Fut>
where
    Fut: Future<Output = Result<B, Error>>,
    B: Into<Bytes>,
{
    type Output = Result<Bytes, Error>;

    fn poll(self: Pin<&mut Self>, cx: &mut std::task::Context<'_>) -> Poll<Self::Output> {
        match self.project().future.as_pin_mut() {
            Some(future) => future.poll(cx).map(|result| result.map(Into::into)),
            None => Poll::Pending,
        }
    }
}

impl<F, Fut, B> Handler for AsyncFn<F, Fut>
where
    F: Fn(Context, Bytes) -> Fut + Send + Sync,
    Fut: Future<Output = Result<B, Error>> + Send + 'static,
    B: Into<Bytes>,
{
    fn spare(&self) -> Spare {
        Box::new(None as Place<Fut>)
    }

    fn start(&self, spare: &mut Spare, link: &Arc<Link>, mut incoming: Incoming) -> Progress {
        let mut other = None;
        // It is one of its own, so the other one is not used.
        let place = spare.downcast_mut::<Place<Fut>>().unwrap_or(&mut other);
        let cell = place.get_or_insert_with(|| Box::pin(Cell { future: None }));
        // A panic drops the future with the cell: nothing of it is seen again.
        let polled = catch_unwind(AssertUnwindSafe(|| {
            let body = std::mem::take(&mut incoming.payload);
            let future = (self.function)(Context::new(Arc::clone(link), incoming), body);
            cell.as_mut().project().future.set(Some(future));
            // If it has to wait it becomes a task, which polls it again with a waker of its own.
            let polled = cell.as_mut().poll(&mut std::task::Context::from_waker(Waker::noop()));
            if polled.is_ready() {
                cell.as_mut().project().future.set(None);
            }
            polled
        }));
        match (polled, place.take_if(|cell| cell.future.is_some())) {
            (Ok(Poll::Ready(result)), _) => Progress::Done(Outcome::Answer(result)),
            (Ok(Poll::Pending), Some(cell)) => Progress::Pending(cell),
            (polled, cell) => {
                if let Err(panic) = polled {
                    link.panicked(&*panic);
                }
                let _ = catch_unwind(AssertUnwindSafe(|| drop(cell)));
                Progress::Done(Outcome::Panicked)
            }
        }
    }
}
