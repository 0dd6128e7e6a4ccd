//! A call on its way into the core, whatever its kind: what it says, and how it waits for room there.

use std::{
    sync::Arc,
    task::{Context, Poll, Waker},
    time::Duration,
};

use bytes::Bytes;
use tieline_core::{
    Instant,
    conn::{Body, CallHead, CallId, Failure, Rejection, Served},
    wire::{Kind, Metadata, Ran, Status},
};

use crate::{
    error::CallError,
    link::{Entered, Link},
};

/// What a caller waits for by default. Long enough for a node that pauses, short enough that nobody waits for ever.
pub(crate) const DEFAULT_TIMEOUT: Duration = Duration::from_secs(10);
/// Arguments up to this length are copied into the core in any case, and the caller keeps them until that is done.
const COPIED: usize = 1024;

/// Where it goes.
pub(crate) enum Target<'a> {
    /// The connection of a [`Peer`](crate::Peer), which outlives the call.
    Borrowed(&'a Arc<Link>),
    /// The connection that a client has at present.
    Shared(Arc<Link>),
    /// Nowhere.
    Nowhere(CallError),
}

/// What is called.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    Call(Kind),
    OneWay,
}

/// What most calls leave as it is.
pub(crate) struct Options<'a> {
    pub(crate) timeout: Option<Duration>,
    limit: Option<Instant>,
    pub(crate) priority: i8,
    pub(crate) metadata: Vec<Metadata<'a>>,
    pub(crate) ordering_key: &'a [u8],
    pub(crate) compress: bool,
    pub(crate) credit: Option<u32>,
    parent: Option<Served>,
}

/// It is in the core.
pub(crate) struct Begun {
    /// A number to wait by.
    pub(crate) key: u32,
    pub(crate) id: CallId,
}

/// A call that is not in the core yet.
pub(crate) struct Prepared<'a> {
    target: Target<'a>,
    pub(crate) method: &'a str,
    body: Bytes,
    pub(crate) options: Options<'a>,
    mode: Mode,
    /// Counted from the first try.
    deadline: Option<Option<Instant>>,
    /// Its place among those who wait for room.
    ticket: Option<u64>,
}

impl<'a> Prepared<'a> {
    pub(crate) fn new(
        target: Target<'a>,
        method: &'a str,
        body: Bytes,
        mode: Mode,
        limit: Option<Instant>,
        parent: Option<Served>,
    ) -> Self {
        let streams = matches!(mode, Mode::Call(kind) if kind != Kind::Unary);
        let options = Options {
            timeout: (!streams).then_some(DEFAULT_TIMEOUT),
            limit,
            priority: 0,
            metadata: Vec::new(),
            ordering_key: &[],
            compress: false,
            credit: None,
            parent,
        };
        Self { target, method, body, options, mode, deadline: None, ticket: None }
    }

    pub(crate) fn link(&self) -> Option<&Arc<Link>> {
        match &self.target {
            Target::Borrowed(link) => Some(link),
            Target::Shared(link) => Some(link),
            Target::Nowhere(_) => None,
        }
    }

    /// Why it goes nowhere; of a call that goes somewhere, that it was given up.
    pub(crate) fn nowhere(&self) -> CallError {
        match &self.target {
            Target::Nowhere(error) => error.clone(),
            _ => not_connected("", "the call was given up"),
        }
    }

    /// Puts the call into the core, or waits for room there.
    #[inline]
    pub(crate) fn poll_begin(&mut self, cx: &Context<'_>) -> Poll<Result<Begun, CallError>> {
        let link = match &self.target {
            Target::Borrowed(link) => link,
            Target::Shared(link) => link,
            Target::Nowhere(error) => return Poll::Ready(Err(error.clone())),
        };
        let options = &self.options;
        let mut entered = link.enter();
        let state = &mut *entered.state;
        let deadline = *self.deadline.get_or_insert_with(|| match (options.timeout, options.limit) {
            (None, limit) => limit,
            (Some(timeout), None) => Some(state.now.saturating_add(timeout)),
            (Some(timeout), Some(limit)) => Some(limit.min(state.now.saturating_add(timeout))),
        });
        if !state.room.may_try(self.ticket) {
            return wait(&mut self.ticket, link, entered, deadline, cx);
        }
        let mut head = CallHead::new(self.method).deadline(deadline);
        head.priority = options.priority;
        head.metadata = &options.metadata;
        head.ordering_key = options.ordering_key;
        head.compress = options.compress;
        head.credit = options.credit;
        head.parent = options.parent;
        let body =
            if self.body.len() <= COPIED { Body::Copy(&self.body) } else { Body::Share(self.body.clone()) };
        let key = state.waiters.insert(cx.waker().clone());
        let begun = match self.mode {
            Mode::OneWay => state.conn.one_way(state.now, &head, body, key),
            Mode::Call(kind) => {
                head.kind = kind;
                state.conn.call(state.now, &head, body, key)
            }
        };
        let reason = match begun {
            Ok(id) => {
                state.waiters.set_id(key, id, head.kind != Kind::Unary);
                self.body = Bytes::new();
                let next = self.ticket.take().and_then(|ticket| state.room.leave(ticket));
                entered.leave();
                next.into_iter().for_each(Waker::wake);
                return Poll::Ready(Ok(Begun { key, id }));
            }
            Err(rejected) => rejected.reason,
        };
        state.waiters.remove(key);
        if reason == Rejection::Full {
            return wait(&mut self.ticket, link, entered, deadline, cx);
        }
        let message = match &state.closed {
            Some(closed) => format!("{reason}: {closed}"),
            None => reason.to_string(),
        };
        fail(&mut self.ticket, link, entered, reason.status(), &message)
    }
}

/// Waits for room, unless the time is over or too many wait.
#[cold]
fn wait(
    ticket: &mut Option<u64>,
    link: &Link,
    mut entered: Entered<'_>,
    deadline: Option<Instant>,
    cx: &Context<'_>,
) -> Poll<Result<Begun, CallError>> {
    let state = &mut *entered.state;
    if deadline.is_some_and(|deadline| deadline <= state.now) {
        let message = "the deadline passed before there was room for the call on the connection";
        return fail(ticket, link, entered, Status::TIMEOUT, message);
    }
    match ticket {
        Some(ticket) => state.room.stay(*ticket, cx.waker()),
        None => {
            *ticket = state.room.join(cx.waker(), deadline);
            if ticket.is_none() {
                let message = "as many calls wait for room on the connection as may";
                return fail(ticket, link, entered, Status::LOCAL_LIMIT, message);
            }
        }
    }
    // The driver has to know until when to wait at most.
    entered.leave();
    Poll::Pending
}

/// The call ends here; nothing of it left.
#[cold]
fn fail(
    ticket: &mut Option<u64>,
    link: &Link,
    mut entered: Entered<'_>,
    status: Status,
    message: &str,
) -> Poll<Result<Begun, CallError>> {
    let state = &mut *entered.state;
    let next = ticket.take().and_then(|ticket| state.room.leave(ticket));
    let error = CallError { node: link.node(state), failure: Failure::local(status, Ran::No, message) };
    drop(entered);
    next.into_iter().for_each(Waker::wake);
    Poll::Ready(Err(error))
}

/// Whoever is dropped while it waits for room does not keep those behind it waiting.
impl Drop for Prepared<'_> {
    fn drop(&mut self) {
        let Some(ticket) = self.ticket.take() else { return };
        let next = self.link().and_then(|link| link.lock().room.leave(ticket));
        next.into_iter().for_each(Waker::wake);
    }
}

/// No connection to send it on.
pub(crate) fn not_connected(node: &str, why: &str) -> CallError {
    CallError { node: node.into(), failure: Failure::local(Status::NO_ENDPOINT, Ran::No, why) }
}

/// The options that calls of every kind have, for a builder whose field `prepared` holds them.
macro_rules! options {
    () => {
        /// −1 background, 0 (the default) or 1: orders what waits, at both ends.
        pub fn priority(mut self, priority: i8) -> Self {
            self.prepared.options.priority = priority;
            self
        }

        /// Something that travels beside the argument. The key is of `[a-z0-9-]`, 1 to 64 of them; at most 64 entries.
        pub fn metadata(mut self, key: &'a str, value: &'a [u8]) -> Self {
            self.prepared.options.metadata.push(tieline_core::wire::Metadata { key, value });
            self
        }

        /// Calls with one key on one connection run one after the other, in the order in which they were handed over;
        /// others pass them. At most 64 octets; empty, the default, is none.
        pub fn ordering_key(mut self, key: &'a [u8]) -> Self {
            self.prepared.options.ordering_key = key;
            self
        }

        /// Compresses the argument, and the items that this end sends, where that gains an eighth and the node
        /// understands it. Answers are compressed as the method says; see [`Services::compress`](crate::Services::compress).
        pub fn compress(mut self) -> Self {
            self.prepared.options.compress = true;
            self
        }
    };
}
pub(crate) use options;
