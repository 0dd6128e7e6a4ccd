//! Items on their way out, at either end of a stream: into the core while there is room, waiting for it otherwise.
//!
//! Nothing is held here. An item that was accepted is in the core, which sends it as soon as credit and the line allow,
//! whether or not another one follows.

use std::{
    collections::VecDeque,
    sync::Arc,
    task::{Context, Poll},
};

use bytes::Bytes;
use tieline_core::{
    conn::{Body, Cancel, Failure, ItemError, Stream},
    wire::{Ran, Status},
};

use crate::{
    error::CallError,
    link::{Link, State},
};

/// Items that are sent or taken before other tasks of the runtime get their turn.
pub(crate) const RUN: usize = 1024;
/// Items that are drawn from an iterator at a time, and sent under one lock.
const BATCH: usize = 64;

/// The sending direction of a stream.
pub(crate) struct Outflow {
    link: Arc<Link>,
    stream: Stream,
    /// Of a call of this side: the number of who waits for it.
    key: u32,
    /// Items since something had to wait.
    run: usize,
}

impl Outflow {
    pub(crate) const fn new(link: Arc<Link>, stream: Stream, key: u32) -> Self {
        Self { link, stream, key, run: 0 }
    }

    pub(crate) const fn link(&self) -> &Arc<Link> {
        &self.link
    }

    /// Whether it is somebody else's turn. The task is woken for its next one.
    #[inline]
    fn must_yield(&mut self, cx: &Context<'_>) -> bool {
        let over = self.run >= RUN;
        if over {
            self.run = 0;
            cx.waker().wake_by_ref();
        }
        over
    }

    /// Sends one item, and leaves `None` in its place when that is done.
    #[inline]
    pub(crate) fn poll_send(
        &mut self,
        cx: &Context<'_>,
        item: &mut Option<Bytes>,
    ) -> Poll<Result<(), CallError>> {
        let Some(octets) = item else { return Poll::Ready(Ok(())) };
        if self.must_yield(cx) {
            return Poll::Pending;
        }
        let mut entered = self.link.enter();
        let state = &mut *entered.state;
        match state.conn.send_item(state.now, self.stream, Body::Share(octets.clone())) {
            Ok(()) => {
                entered.leave();
                *item = None;
                self.run += 1;
                Poll::Ready(Ok(()))
            }
            Err(ItemError::Full) => {
                self.wait(state, cx);
                drop(entered);
                self.run = 0;
                Poll::Pending
            }
            Err(error) => Poll::Ready(Err(self.error(state, error))),
        }
    }

    /// Sends many, each piece of them under one lock.
    pub(crate) fn poll_send_all<I>(
        &mut self,
        cx: &Context<'_>,
        items: &mut I,
        drawn: &mut VecDeque<Bytes>,
    ) -> Poll<Result<(), CallError>>
    where
        I: Iterator,
        I::Item: Into<Bytes>,
    {
        loop {
            if drawn.is_empty() {
                // Outside the lock: what the iterator does is not known.
                drawn.extend(items.by_ref().take(BATCH).map(Into::into));
            }
            if drawn.is_empty() {
                return Poll::Ready(Ok(()));
            }
            if self.must_yield(cx) {
                return Poll::Pending;
            }
            let mut entered = self.link.enter();
            let state = &mut *entered.state;
            let mut sent = Ok(());
            let mut any = 0;
            while let Some(octets) = drawn.front() {
                sent = state.conn.send_item(state.now, self.stream, Body::Share(octets.clone()));
                if sent.is_err() {
                    break;
                }
                drawn.pop_front();
                any += 1;
            }
            let result = match sent {
                Ok(()) => None,
                Err(ItemError::Full) => {
                    self.wait(state, cx);
                    Some(Poll::Pending)
                }
                Err(error) => Some(Poll::Ready(Err(self.error(state, error)))),
            };
            if any > 0 {
                entered.leave();
            } else {
                drop(entered);
            }
            self.run += any;
            match result {
                None => {}
                Some(result) => {
                    self.run = 0;
                    return result;
                }
            }
        }
    }

    /// Leaves a waker for when there is room.
    #[cold]
    fn wait(&self, state: &mut State, cx: &Context<'_>) {
        match self.stream {
            Stream::Ours(id) => state.waiters.wait_to_send(self.key, id, cx.waker()),
            Stream::Theirs(call) => state.seats.wait_to_send(call, cx.waker()),
        }
    }

    /// Ends the items of a call of this side.
    pub(crate) fn end(&self) -> Result<(), CallError> {
        let Stream::Ours(id) = self.stream else { return Ok(()) };
        let mut entered = self.link.enter();
        let state = &mut *entered.state;
        match state.conn.end_items(state.now, id) {
            Ok(()) => {
                entered.leave();
                Ok(())
            }
            Err(error) => Err(self.error(state, error)),
        }
    }

    #[cold]
    fn error(&self, state: &mut State, error: ItemError) -> CallError {
        let failure = match (error, self.stream) {
            (ItemError::TooLarge | ItemError::Full, _) => {
                Failure::local(Status::LOCAL_LIMIT, Ran::Maybe, &error.to_string())
            }
            (ItemError::Over, Stream::Theirs(call)) => over(state.seats.why(call)),
            (ItemError::Over, Stream::Ours(id)) => match state.waiters.end(self.key, id) {
                Some(Err(failure)) => failure.clone(),
                Some(Ok(_)) => {
                    Failure::local(Status::INTERRUPTED, Ran::Yes, "the node has answered the call")
                }
                None => match &state.closed {
                    Some(closed) => Failure::local(Status::CONNECTION_LOST, Ran::Maybe, &closed.to_string()),
                    None => {
                        Failure::local(Status::INTERRUPTED, Ran::Maybe, "the call or its items have ended")
                    }
                },
            },
        };
        CallError { node: self.link.node(state), failure }
    }
}

/// What a handler's ends of a stream say once its call is over.
pub(crate) fn over(why: Option<Cancel>) -> Failure {
    let (status, message) = match why {
        Some(Cancel::ByCaller) => (Status::CANCELLED_RUNNING, "the caller gave the call up"),
        Some(Cancel::Expired) => (Status::EXPIRED_RUNNING, "the deadline of the call has passed"),
        Some(Cancel::BrokenItem) => {
            (Status::INTERRUPTED, "an item was too large, broken, or never came whole")
        }
        Some(Cancel::Disconnected) => (Status::INTERRUPTED, "the connection has ended"),
        _ => (Status::INTERRUPTED, "the call has ended"),
    };
    Failure::local(status, Ran::Yes, message)
}
