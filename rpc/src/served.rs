//! A handler's ends of a stream.

use std::{
    collections::VecDeque,
    fmt,
    future::poll_fn,
    pin::Pin,
    sync::Arc,
    task::{Context as Cx, Poll},
};

use bytes::Bytes;
use futures_core::Stream;
use tieline_core::conn::{Served, Stream as Ends};

use crate::{
    error::CallError,
    handler::Context,
    inflow::{self, Inflow, Looked},
    link::Link,
    outflow::{Outflow, over},
};

/// The items that a handler sends to its caller, before the answer that it returns.
///
/// Once the call is over (given up by its caller, past its deadline, or its connection lost) sending fails. A handler is
/// stopped then in any case; a task that it gave its sink to finds out here.
pub struct ServedSink {
    outflow: Outflow,
}

impl ServedSink {
    pub(crate) fn new(cx: &Context) -> Self {
        Self { outflow: Outflow::new(Arc::clone(cx.link()), Ends::Theirs(cx.call()), 0) }
    }

    /// Sends an item. It completes at once while there is room, and otherwise waits until the caller has taken some of
    /// those before it. Dropped while it waits, it has sent nothing. Empty items are charged to the abuse budget of
    /// who sends them (protocol, R-ABU): a few do no harm, thousands a second end the connection.
    ///
    /// # Errors
    /// [`CallError`]: the call is over, or the item is larger than the caller reads (`LOCAL_LIMIT`; the call goes on).
    pub async fn send(&mut self, item: impl Into<Bytes>) -> Result<(), CallError> {
        let mut item = Some(item.into());
        poll_fn(|cx| self.poll_send(cx, &mut item)).await
    }

    /// Sends many items, which is cheaper than one by one. Dropped while it waits, it has sent some of them.
    ///
    /// # Errors
    /// As [`send`](Self::send); those before the one that failed are sent.
    pub async fn send_all<I>(&mut self, items: I) -> Result<(), CallError>
    where
        I: IntoIterator,
        I::Item: Into<Bytes>,
    {
        let (mut items, mut drawn) = (items.into_iter(), VecDeque::new());
        poll_fn(|cx| self.outflow.poll_send_all(cx, &mut items, &mut drawn)).await
    }

    /// What [`send`](Self::send) awaits, for futures that are written by hand: takes the item out when it is sent, and
    /// leaves it there while there is no room.
    ///
    /// # Errors
    /// As [`send`](Self::send).
    #[inline]
    pub fn poll_send(&mut self, cx: &Cx<'_>, item: &mut Option<Bytes>) -> Poll<Result<(), CallError>> {
        self.outflow.poll_send(cx, item)
    }
}

impl fmt::Debug for ServedSink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServedSink").finish_non_exhaustive()
    }
}

/// The items that a caller sends to a handler. It is a [`Stream`] as well.
///
/// Items that are not taken hold the caller up once its credit is used up; what a handler has not taken when it answers
/// is dropped. Credit is returned when items leave the connection's memory, which they do up to 128 at a time: so a stream of
/// which nothing is taken holds `stream_window` of [`Limits`](crate::Limits) and one such batch, of some 64 KiB. The window grows
/// while items are taken as they come, as that of [`Items`](crate::Items) does.
pub struct ServedItems {
    link: Arc<Link>,
    call: Served,
    inflow: Inflow,
    over: bool,
}

impl ServedItems {
    pub(crate) fn new(cx: &Context) -> Self {
        Self { link: Arc::clone(cx.link()), call: cx.call(), inflow: Inflow::growing(), over: false }
    }

    /// The next item; `None` when the caller has ended its items; an error, once, if the call is over before that. Safe
    /// to drop while it waits: no item is lost.
    pub async fn next(&mut self) -> Option<Result<Bytes, CallError>> {
        poll_fn(|cx| self.poll_item(cx)).await
    }

    #[inline]
    fn poll_item(&mut self, cx: &Cx<'_>) -> Poll<Option<Result<Bytes, CallError>>> {
        if let Some(item) = self.inflow.pop() {
            return Poll::Ready(Some(Ok(item)));
        }
        if self.over {
            return Poll::Ready(None);
        }
        std::task::ready!(self.inflow.must_yield(cx));
        let (inflow, link, call) = (&mut self.inflow, &self.link, self.call);
        let end = inflow::enter(link, |state| match inflow.look(state, Ends::Theirs(call)) {
            Looked::Batch => None,
            Looked::End => Some(Poll::Ready(None)),
            Looked::Nothing if state.seats.wait_to_read(call, cx.waker()) => Some(Poll::Pending),
            Looked::Nothing => {
                let failure = over(state.seats.why(call));
                Some(Poll::Ready(Some(Err(CallError { node: link.node(state), failure }))))
            }
        });
        match end {
            None => Poll::Ready(self.inflow.pop().map(Ok)),
            Some(end) => {
                self.over = end.is_ready();
                end
            }
        }
    }
}

impl Stream for ServedItems {
    type Item = Result<Bytes, CallError>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Cx<'_>) -> Poll<Option<Self::Item>> {
        self.get_mut().poll_item(cx)
    }
}

impl fmt::Debug for ServedItems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServedItems").field("over", &self.over).finish_non_exhaustive()
    }
}
