//! One call, from `peer.call(..)` to its answer.

use std::{
    fmt,
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use tieline_core::{
    Instant,
    conn::{Answer, Body, CallHead, Failure, Served},
    wire::{Metadata, Ran, Status},
};

use crate::{error::CallError, link::Link};

/// What a caller waits for by default. Long enough for a node that pauses, short enough that nobody waits for ever.
pub(crate) const DEFAULT_TIMEOUT: Duration = Duration::from_secs(10);

/// A call that is being prepared, and then waited for: `.await` it.
///
/// Nothing happens until it is first polled. Dropping it before the answer is there cancels it: if it has not left
/// yet it never will, and if it has, the node stops its handler.
///
/// ```no_run
/// # async fn example(peer: tieline::Peer) -> Result<(), tieline::CallError> {
/// use std::time::Duration;
///
/// let answer = peer.call("shop.Stock/Count", "apples").timeout(Duration::from_millis(200)).await?;
/// println!("{:?}", answer.payload);
/// # Ok(())
/// # }
/// ```
#[must_use = "a call does nothing until it is awaited"]
pub struct Call<'a> {
    target: Target<'a>,
    method: &'a str,
    body: Bytes,
    options: Options<'a>,
    one_way: bool,
    stage: Stage,
}

/// Where it goes.
pub(crate) enum Target<'a> {
    /// The connection of a [`Peer`](crate::Peer), which outlives the call.
    Borrowed(&'a Link),
    /// The connection that a client has at present.
    Shared(Arc<Link>),
    /// Nowhere.
    Nowhere(CallError),
}

/// What most calls leave as it is.
struct Options<'a> {
    timeout: Option<Duration>,
    limit: Option<Instant>,
    priority: i8,
    metadata: Vec<Metadata<'a>>,
    parent: Option<Served>,
}

#[derive(Clone, Copy)]
enum Stage {
    Prepared,
    Waiting(u32),
    Over,
}

impl<'a> Call<'a> {
    pub(crate) fn new(
        target: Target<'a>,
        method: &'a str,
        body: Bytes,
        one_way: bool,
        limit: Option<Instant>,
        parent: Option<Served>,
    ) -> Self {
        let options =
            Options { timeout: Some(DEFAULT_TIMEOUT), limit, priority: 0, metadata: Vec::new(), parent };
        Self { target, method, body, options, one_way, stage: Stage::Prepared }
    }

    /// How long to wait, instead of 10 s. The node is told and stops when the time is over. A call that is made on
    /// behalf of another one never outlives that one's deadline.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.options.timeout = Some(timeout);
        self
    }

    /// Waits as long as the connection lives.
    pub fn no_timeout(mut self) -> Self {
        self.options.timeout = None;
        self
    }

    /// −1 background, 0 (the default) or 1: orders what waits, at both ends.
    pub fn priority(mut self, priority: i8) -> Self {
        self.options.priority = priority;
        self
    }

    /// Something that travels beside the argument. The key is of `[a-z0-9-]`, 1 to 64 of them; at most 64 entries.
    pub fn metadata(mut self, key: &'a str, value: &'a [u8]) -> Self {
        self.options.metadata.push(Metadata { key, value });
        self
    }

    /// The first poll: into the core. A number to wait by, or why it cannot go there.
    #[inline]
    fn begin(&mut self, cx: &Context<'_>) -> Result<u32, CallError> {
        let link = match &self.target {
            Target::Borrowed(link) => link,
            Target::Shared(link) => &**link,
            Target::Nowhere(error) => return Err(error.clone()),
        };
        let options = &self.options;
        let mut entered = link.enter();
        let state = &mut *entered.state;
        let mut head = CallHead::new(self.method);
        head.deadline = match (options.timeout, options.limit) {
            (None, limit) => limit,
            (Some(timeout), None) => Some(state.now.saturating_add(timeout)),
            (Some(timeout), Some(limit)) => Some(limit.min(state.now.saturating_add(timeout))),
        };
        head.priority = options.priority;
        head.metadata = &options.metadata;
        head.parent = options.parent;
        let key = state.waiters.insert(cx.waker().clone());
        let body = Body::Share(std::mem::take(&mut self.body));
        let begun = if self.one_way {
            state.conn.one_way(state.now, &head, body, key)
        } else {
            state.conn.call(state.now, &head, body, key)
        };
        match begun {
            Ok(id) => {
                state.waiters.set_id(key, id);
                entered.leave();
                Ok(key)
            }
            Err(rejected) => {
                state.waiters.remove(key);
                let reason = rejected.reason;
                let message = match &state.closed {
                    Some(closed) => format!("{reason}: {closed}"),
                    None => reason.to_string(),
                };
                let failure = Failure::local(reason.status(), Ran::No, &message);
                Err(CallError { node: link.node(state), failure })
            }
        }
    }

    fn link(&self) -> Option<&Link> {
        match &self.target {
            Target::Borrowed(link) => Some(link),
            Target::Shared(link) => Some(link),
            Target::Nowhere(_) => None,
        }
    }

    /// Every other poll: is the outcome there?
    #[inline]
    fn outcome(&self, key: u32, cx: &Context<'_>) -> Poll<Result<Answer, CallError>> {
        let Some(link) = self.link() else { return Poll::Pending };
        let mut state = link.lock();
        match state.waiters.outcome(key, cx.waker()) {
            None => Poll::Pending,
            Some(Ok(answer)) => Poll::Ready(Ok(answer)),
            Some(Err(failure)) => Poll::Ready(Err(CallError { node: link.node(&state), failure })),
        }
    }
}

impl Future for Call<'_> {
    type Output = Result<Answer, CallError>;

    /// The outcome is returned once; a call that is polled after that stays pending.
    #[inline]
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.get_mut();
        match this.stage {
            Stage::Prepared => match this.begin(cx) {
                Ok(key) => {
                    this.stage = Stage::Waiting(key);
                    Poll::Pending
                }
                Err(error) => {
                    this.stage = Stage::Over;
                    Poll::Ready(Err(error))
                }
            },
            Stage::Waiting(key) => {
                let outcome = this.outcome(key, cx);
                if outcome.is_ready() {
                    this.stage = Stage::Over;
                }
                outcome
            }
            Stage::Over => Poll::Pending,
        }
    }
}

impl Drop for Call<'_> {
    fn drop(&mut self) {
        let (Some(link), Stage::Waiting(key)) = (self.link(), self.stage) else { return };
        let mut entered = link.enter();
        let state = &mut *entered.state;
        if let Some(id) = state.waiters.abandon(key) {
            state.conn.cancel(state.now, id);
            entered.leave();
        }
    }
}

impl fmt::Debug for Call<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Call").field("method", &self.method).finish_non_exhaustive()
    }
}

/// No connection to send it on.
pub(crate) fn not_connected(node: &str, why: &str) -> CallError {
    CallError { node: node.into(), failure: Failure::local(Status::NO_ENDPOINT, Ran::No, why) }
}
