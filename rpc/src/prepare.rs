//! A call on its way into the core, whatever its kind: what it says, and how it waits for room there.

use std::{
    sync::Arc,
    task::{Context, Poll, Waker},
    time::Duration,
};

use bytes::Bytes;
use tieline_core::{
    Instant,
    conn::{Body, CallHead, CallId, Failure, Rejected, Rejection},
    wire::{Kind, Metadata, Ran, Status},
};

use crate::{
    error::CallError,
    link::{Entered, Link, State},
    peer::Peer,
};

/// What a caller waits for by default. Long enough for a node that pauses, short enough that nobody waits for ever.
pub(crate) const DEFAULT_TIMEOUT: Duration = Duration::from_secs(10);
/// Arguments up to this length are copied into the core in any case, and the caller keeps them until that is done.
const COPIED: usize = 1024;

/// Where it goes.
pub(crate) enum Target<'a> {
    /// A connection that outlives the call.
    Borrowed(&'a Arc<Link>),
    /// The connection of a peer, on behalf of a call that is served.
    OnBehalf(&'a Peer),
    /// The connection that a client has at present.
    Shared(Arc<Link>),
    /// Nowhere.
    Nowhere(Box<CallError>),
}

impl Target<'_> {
    #[inline]
    fn link(&self) -> Option<&Arc<Link>> {
        match self {
            Self::Borrowed(link) => Some(link),
            Self::OnBehalf(peer) => Some(&peer.link),
            Self::Shared(link) => Some(link),
            Self::Nowhere(_) => None,
        }
    }
}

/// What is called.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    Call(Kind),
    OneWay,
}

/// What most calls leave as it is.
#[derive(Default)]
pub(crate) struct Options<'a> {
    pub(crate) priority: i8,
    pub(crate) metadata: Vec<Metadata<'a>>,
    pub(crate) ordering_key: &'a [u8],
    pub(crate) compress: bool,
    pub(crate) credit: Option<u32>,
}

/// How long it may take.
#[derive(Clone, Copy)]
enum Until {
    /// In nanoseconds, counted from the first try, which has not been made yet.
    Timeout(Option<u64>),
    Deadline(Option<Instant>),
}

/// It is in the core.
pub(crate) struct Begun {
    /// A number to wait by.
    pub(crate) key: u32,
    pub(crate) id: CallId,
}

/// A call that is not in the core yet. It is moved a few times before it gets there, and so is small.
pub(crate) struct Prepared<'a> {
    target: Target<'a>,
    pub(crate) method: &'a str,
    /// Until it is in the core.
    body: Option<Bytes>,
    options: Option<Box<Options<'a>>>,
    mode: Mode,
    until: Until,
    /// Its place among those who wait for room.
    ticket: Option<u64>,
}

impl<'a> Prepared<'a> {
    #[inline]
    pub(crate) const fn new(target: Target<'a>, method: &'a str, body: Bytes, mode: Mode) -> Self {
        let until = match mode {
            Mode::Call(Kind::Unary) | Mode::OneWay => Until::timeout(Some(DEFAULT_TIMEOUT)),
            Mode::Call(_) => Until::timeout(None),
        };
        Self { target, method, body: Some(body), options: None, mode, until, ticket: None }
    }

    pub(crate) fn link(&self) -> Option<&Arc<Link>> {
        self.target.link()
    }

    #[inline]
    pub(crate) const fn set_timeout(&mut self, timeout: Option<Duration>) {
        self.until = Until::timeout(timeout);
    }

    /// To be changed.
    pub(crate) fn options(&mut self) -> &mut Options<'a> {
        self.options.get_or_insert_default()
    }

    /// Why it goes nowhere; of a call that goes somewhere, that it was given up.
    pub(crate) fn nowhere(&self) -> CallError {
        match &self.target {
            Target::Nowhere(error) => CallError::clone(error),
            _ => not_connected("", "the call was given up"),
        }
    }

    /// Puts the call into the core, or waits for room there.
    #[inline]
    pub(crate) fn poll_begin(&mut self, cx: &Context<'_>) -> Poll<Result<Begun, CallError>> {
        let Some(link) = self.target.link() else { return Poll::Ready(Err(self.nowhere())) };
        let mut entered = link.enter();
        let state = &mut *entered.state;
        let deadline = self.until.deadline(state.now, &self.target);
        if !state.room.may_try(self.ticket) {
            return wait(&mut self.ticket, link, entered, deadline, cx);
        }
        let body = match &self.body {
            Some(body) if body.len() > COPIED => Body::Share(body.clone()),
            body => Body::Copy(body.as_deref().unwrap_or_default()),
        };
        let key = state.waiters.vacant();
        let streams = !matches!(self.mode, Mode::OneWay | Mode::Call(Kind::Unary));
        let begun = match (self.mode, &self.target, &self.options) {
            (Mode::Call(Kind::Unary), Target::Borrowed(_) | Target::Shared(_), None) => {
                state.conn.ask(state.now, self.method, deadline, body, key)
            }
            (mode, target, options) => {
                let head = CallHead::new(self.method).deadline(deadline);
                begin(state, head, mode, target, options.as_deref(), body, key)
            }
        };
        match begun {
            Ok(id) => {
                state.waiters.occupy(key, cx.waker().clone(), id, streams);
                self.body = None;
                let next = self.ticket.take().and_then(|ticket| state.room.leave(ticket));
                entered.leave();
                next.into_iter().for_each(Waker::wake);
                Poll::Ready(Ok(Begun { key, id }))
            }
            Err(rejected) => refused(&mut self.ticket, link, entered, deadline, rejected.reason, cx),
        }
    }
}

impl Until {
    #[inline]
    const fn timeout(timeout: Option<Duration>) -> Self {
        Self::Timeout(match timeout {
            // 584 years at most.
            Some(timeout) => {
                let whole = timeout.as_secs().saturating_mul(1_000_000_000);
                Some(whole.saturating_add(timeout.subsec_nanos() as u64))
            }
            None => None,
        })
    }

    /// The deadline, which stays the same from the first try on.
    #[inline]
    fn deadline(&mut self, now: Instant, target: &Target<'_>) -> Option<Instant> {
        let timeout = match *self {
            Self::Deadline(deadline) => return deadline,
            Self::Timeout(timeout) => timeout,
        };
        let own = timeout.map(|timeout| Instant::from_nanos(now.as_nanos().saturating_add(timeout)));
        let deadline = match target {
            Target::OnBehalf(Peer { limit: Some(limit), .. }) => {
                Some(own.map_or(*limit, |own| own.min(*limit)))
            }
            _ => own,
        };
        *self = Self::Deadline(deadline);
        deadline
    }
}

/// Puts a call into the core that has more to say than most.
#[inline(never)]
fn begin<'a>(
    state: &mut State,
    mut head: CallHead<'a>,
    mode: Mode,
    target: &Target<'_>,
    options: Option<&'a Options<'a>>,
    body: Body<'_>,
    key: u32,
) -> Result<CallId, Rejected<u32>> {
    if let Some(options) = options {
        head.priority = options.priority;
        head.metadata = &options.metadata;
        head.ordering_key = options.ordering_key;
        head.compress = options.compress;
        head.credit = options.credit;
    }
    if let Target::OnBehalf(peer) = target {
        head.parent = peer.parent;
    }
    match mode {
        Mode::OneWay => state.conn.one_way(state.now, &head, body, key),
        Mode::Call(kind) => {
            head.kind = kind;
            state.conn.call(state.now, &head, body, key)
        }
    }
}

/// The core does not take the call: there is no room, or it cannot be made.
#[cold]
fn refused(
    ticket: &mut Option<u64>,
    link: &Link,
    entered: Entered<'_>,
    deadline: Option<Instant>,
    reason: Rejection,
    cx: &Context<'_>,
) -> Poll<Result<Begun, CallError>> {
    if reason == Rejection::Full {
        return wait(ticket, link, entered, deadline, cx);
    }
    let message = match &entered.state.closed {
        Some(closed) => format!("{reason}: {closed}"),
        None => reason.to_string(),
    };
    fail(ticket, link, entered, reason.status(), &message)
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
    #[inline]
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
            self.prepared.options().priority = priority;
            self
        }

        /// Something that travels beside the argument. The key is of `[a-z0-9-]`, 1 to 64 of them; at most 64 entries.
        pub fn metadata(mut self, key: &'a str, value: &'a [u8]) -> Self {
            self.prepared.options().metadata.push(tieline_core::wire::Metadata { key, value });
            self
        }

        /// Calls with one key on one connection run one after the other, in the order in which they were handed over;
        /// others pass them. At most 64 octets; empty, the default, is none.
        pub fn ordering_key(mut self, key: &'a [u8]) -> Self {
            self.prepared.options().ordering_key = key;
            self
        }

        /// Compresses the argument, and the items that this end sends, where that gains an eighth and the node
        /// understands it. Answers are compressed as the method says; see [`Services::compress`](crate::Services::compress).
        pub fn compress(mut self) -> Self {
            self.prepared.options().compress = true;
            self
        }
    };
}
pub(crate) use options;
