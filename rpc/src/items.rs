//! The caller's ends of a stream.

use std::{
    collections::VecDeque,
    fmt,
    future::poll_fn,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, Waker},
};

use bytes::Bytes;
use futures_core::Stream;
use tieline_core::{
    conn::{Answer, Failure, Rest},
    wire::{Ran, Status},
};

use crate::{
    call::give_up,
    error::CallError,
    inflow::{self, Inflow, Looked},
    open::{Handle, OpenCall},
    outflow::Outflow,
};

/// The items that a node sends on a call, and then its answer: what [`Peer::server_stream`](crate::Peer::server_stream)
/// opens, and half of what [`Peer::bidi`](crate::Peer::bidi) does. It is a [`Stream`] as well.
///
/// Items that are not taken hold the node up once its credit is used up. Credit is returned when items leave the
/// connection's memory, which they do up to 128 at a time; so a stream of which nothing is taken holds its credit and
/// one such batch, of some 64 KiB. That credit is `stream_window` of [`Limits`](crate::Limits) at first, and doubles, up to
/// 16 times, whenever a whole window of items is taken within 100 ms, all that had come; all streams of a connection together
/// grow by 4 MiB at most, and one with [`credit`](crate::Open::credit) of its own does not.
///
/// Dropped before the answer has come it cancels the call, and the node stops its handler.
///
/// ```no_run
/// # async fn example(peer: tieline::Peer) -> Result<(), tieline::CallError> {
/// let mut items = peer.server_stream("shop.Stock/List", "fruit").await?;
/// while let Some(item) = items.next().await {
///     println!("{:?}", item?);
/// }
/// println!("and the answer is {:?}", items.finish().await?.payload);
/// # Ok(())
/// # }
/// ```
#[must_use = "a stream of which nothing is taken holds the node up; dropping it cancels the call"]
pub struct Items {
    call: OpenCall,
    inflow: Inflow,
    /// What had not been taken when the outcome came.
    rest: Rest,
    outcome: Option<Result<Answer, CallError>>,
    /// The error was returned as an item.
    told: bool,
}

impl Items {
    /// The next item; an error if the call failed, once; `None` when the node has answered, or after the error. Safe to
    /// drop while it waits: no item is lost.
    pub async fn next(&mut self) -> Option<Result<Bytes, CallError>> {
        poll_fn(|cx| self.poll_item(cx)).await
    }

    /// Waits for the answer, and drops the items that still come before it.
    ///
    /// # Errors
    /// [`CallError`]: the call failed; the same error that [`next`](Self::next) returned, if it did.
    pub async fn finish(mut self) -> Result<Answer, CallError> {
        poll_fn(|cx| {
            while let Some(item) = std::task::ready!(self.poll_item(cx)) {
                drop(item);
            }
            Poll::Ready(())
        })
        .await;
        // The stream has ended, so there is one.
        self.outcome.take().unwrap_or_else(|| {
            let failure = Failure::local(Status::CANCELLED, Ran::Maybe, "the call has no outcome");
            Err(CallError { node: Arc::clone(&self.call.link.address), failure })
        })
    }

    /// Gives the call up, as dropping it does, and says how it ended. Items that have come and were not taken are dropped.
    ///
    /// # Errors
    /// As [`Call::cancel`](crate::Call::cancel); the answer is there if it came first.
    pub fn cancel(mut self) -> Result<Answer, CallError> {
        if let Some(outcome) = self.outcome.take() {
            return outcome;
        }
        self.call.over = true;
        give_up(&self.call.link, self.call.key)
    }

    #[inline]
    fn poll_item(&mut self, cx: &Context<'_>) -> Poll<Option<Result<Bytes, CallError>>> {
        loop {
            if let Some(item) = self.inflow.pop() {
                return Poll::Ready(Some(Ok(item)));
            }
            if self.outcome.is_some() {
                return Poll::Ready(self.end());
            }
            std::task::ready!(self.inflow.must_yield(cx));
            let (call, stream) = (&self.call, self.call.stream());
            let (inflow, rest) = (&mut self.inflow, &mut self.rest);
            let outcome = inflow::enter(&call.link, |state| {
                if let Looked::Batch = inflow.look(state, stream) {
                    return None;
                }
                *rest = state.waiters.rest(call.key);
                Some(match state.waiters.outcome(call.key, cx.waker())? {
                    Ok(answer) => Ok(answer),
                    Err(failure) => Err(CallError { node: call.link.node(state), failure }),
                })
            });
            match outcome {
                Some(_) => {
                    self.outcome = outcome;
                    self.call.over = true;
                }
                None if self.inflow.is_empty() => return Poll::Pending,
                None => {}
            }
        }
    }

    /// What comes behind the items that were taken in time: the others, and how it ended.
    fn end(&mut self) -> Option<Result<Bytes, CallError>> {
        if let Some(item) = self.rest.next() {
            return Some(Ok(item));
        }
        match &self.outcome {
            Some(Err(error)) if !std::mem::replace(&mut self.told, true) => Some(Err(error.clone())),
            _ => None,
        }
    }
}

impl Handle for Items {
    fn of(call: OpenCall) -> Self {
        let inflow = if call.grows { Inflow::growing() } else { Inflow::default() };
        Self { call, inflow, rest: Rest::default(), outcome: None, told: false }
    }
}

impl Stream for Items {
    type Item = Result<Bytes, CallError>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.get_mut().poll_item(cx)
    }
}

impl fmt::Debug for Items {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Items").field("outcome", &self.outcome).finish_non_exhaustive()
    }
}

/// The items that a caller sends on a call: half of what [`Peer::bidi`](crate::Peer::bidi) opens.
///
/// Dropped before [`end`](Self::end) it cancels the call: the node would otherwise take half of it for the whole.
pub struct ItemSink {
    outflow: Outflow,
    call: tieline_core::conn::CallId,
    key: u32,
    ended: bool,
}

impl ItemSink {
    fn new(call: &OpenCall) -> Self {
        let outflow = Outflow::new(Arc::clone(&call.link), call.stream(), call.key);
        Self { outflow, call: call.id, key: call.key, ended: false }
    }

    /// Sends an item. It completes at once while there is room, and otherwise waits until the node has taken some of
    /// those before it. Dropped while it waits, it has sent nothing. Empty items are charged to the abuse budget of
    /// who sends them (protocol, R-ABU): a few do no harm, thousands a second end the connection.
    ///
    /// # Errors
    /// [`CallError`]: the call is over, or the item is larger than the node reads (`LOCAL_LIMIT`; the call goes on).
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
    pub fn poll_send(&mut self, cx: &Context<'_>, item: &mut Option<Bytes>) -> Poll<Result<(), CallError>> {
        self.outflow.poll_send(cx, item)
    }

    /// Ends the items: the node learns that these were all. A second time it does nothing.
    ///
    /// # Errors
    /// [`CallError`]: the call is over.
    pub fn end(&mut self) -> Result<(), CallError> {
        if std::mem::replace(&mut self.ended, true) { Ok(()) } else { self.outflow.end() }
    }
}

impl Drop for ItemSink {
    fn drop(&mut self) {
        if self.ended {
            return;
        }
        let link = Arc::clone(self.outflow.link());
        let mut entered = link.enter();
        let state = &mut *entered.state;
        if state.conn.cancel(state.now, self.call).is_none() {
            return;
        }
        let message = "the half of the stream that sends was dropped before its end";
        let failure = Failure::local(Status::CANCELLED, Ran::Maybe, message);
        let mut wakers = Vec::new();
        state.waiters.tell(self.key, Err(failure), Rest::default(), &mut wakers);
        entered.leave();
        wakers.into_iter().for_each(Waker::wake);
    }
}

impl fmt::Debug for ItemSink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ItemSink").field("ended", &self.ended).finish_non_exhaustive()
    }
}

/// The items that a caller sends on a call, and then its answer: what
/// [`Peer::client_stream`](crate::Peer::client_stream) opens.
///
/// Dropped before [`finish`](Self::finish) has returned it cancels the call, and the node stops its handler.
///
/// ```no_run
/// # async fn example(peer: tieline::Peer) -> Result<(), tieline::CallError> {
/// let mut upload = peer.client_stream("shop.Stock/Load", "fruit").await?;
/// for item in ["apples", "pears"] {
///     upload.send(item).await?;
/// }
/// let answer = upload.finish().await?;
/// println!("{:?}", answer.payload);
/// # Ok(())
/// # }
/// ```
#[must_use = "dropping it cancels the call"]
#[derive(Debug)]
pub struct ClientStream(Bidi);

impl ClientStream {
    /// As [`ItemSink::send`].
    ///
    /// # Errors
    /// As there. When the node has answered early, [`finish`](Self::finish) has its answer.
    pub async fn send(&mut self, item: impl Into<Bytes>) -> Result<(), CallError> {
        self.0.sink.send(item).await
    }

    /// As [`ItemSink::send_all`].
    ///
    /// # Errors
    /// As there.
    pub async fn send_all<I>(&mut self, items: I) -> Result<(), CallError>
    where
        I: IntoIterator,
        I::Item: Into<Bytes>,
    {
        self.0.sink.send_all(items).await
    }

    /// As [`ItemSink::poll_send`].
    ///
    /// # Errors
    /// As there.
    pub fn poll_send(&mut self, cx: &Context<'_>, item: &mut Option<Bytes>) -> Poll<Result<(), CallError>> {
        self.0.sink.poll_send(cx, item)
    }

    /// The half that sends, and the half on which the answer comes, for one task each. The node may answer before this
    /// end has ended its items: [`Items::next`] returns nothing then, and [`Items::finish`] has the answer.
    pub fn split(self) -> (ItemSink, Items) {
        self.0.split()
    }

    /// Ends the items and waits for the answer.
    ///
    /// # Errors
    /// [`CallError`]: the call failed.
    pub async fn finish(self) -> Result<Answer, CallError> {
        self.0.finish().await
    }
}

impl Handle for ClientStream {
    fn of(call: OpenCall) -> Self {
        Self(Bidi::of(call))
    }
}

/// A call on which both ends send items: what [`Peer::bidi`](crate::Peer::bidi) opens. The two directions are
/// independent of one another; [`split`](Self::split) gives each to a task of its own.
///
/// Dropped before its answer has come it cancels the call; so does either half, dropped before it did its part.
///
/// ```no_run
/// # async fn example(peer: tieline::Peer) -> Result<(), tieline::CallError> {
/// let mut talk = peer.bidi("shop.Help/Talk", "").await?;
/// talk.send("have you got apples?").await?;
/// println!("{:?}", talk.next().await.transpose()?);
///
/// let (mut sink, mut items) = talk.split();
/// sink.send_all(["and pears?", "and plums?"]).await?;
/// sink.end()?;
/// while let Some(item) = items.next().await {
///     println!("{:?}", item?);
/// }
/// items.finish().await?;
/// # Ok(())
/// # }
/// ```
#[must_use = "dropping it cancels the call"]
#[derive(Debug)]
pub struct Bidi {
    // In this order: with the items goes the call itself.
    items: Items,
    sink: ItemSink,
}

impl Bidi {
    /// As [`Items::next`].
    pub async fn next(&mut self) -> Option<Result<Bytes, CallError>> {
        self.items.next().await
    }

    /// As [`ItemSink::send`].
    ///
    /// # Errors
    /// As there.
    pub async fn send(&mut self, item: impl Into<Bytes>) -> Result<(), CallError> {
        self.sink.send(item).await
    }

    /// As [`ItemSink::end`].
    ///
    /// # Errors
    /// As there.
    pub fn end(&mut self) -> Result<(), CallError> {
        self.sink.end()
    }

    /// The two halves.
    pub fn split(self) -> (ItemSink, Items) {
        (self.sink, self.items)
    }

    /// Ends the items of this side and waits for the answer, and drops the items that still come before it.
    ///
    /// # Errors
    /// [`CallError`]: the call failed.
    pub async fn finish(mut self) -> Result<Answer, CallError> {
        // If it is over before, its outcome says why.
        let _ = self.sink.end();
        self.items.finish().await
    }
}

impl Handle for Bidi {
    fn of(call: OpenCall) -> Self {
        let sink = ItemSink::new(&call);
        Self { items: Items::of(call), sink }
    }
}

impl Stream for Bidi {
    type Item = Result<Bytes, CallError>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.get_mut().items.poll_item(cx)
    }
}
