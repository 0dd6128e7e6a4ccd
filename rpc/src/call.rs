//! One call, from `peer.call(..)` to its answer.

use std::{
    fmt,
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, Waker},
    time::Duration,
};

use tieline_core::{
    conn::{Answer, Failure},
    wire::{Ran, Status},
};

use crate::{
    error::CallError,
    link::Link,
    prepare::{Prepared, options},
};

/// A call that is being prepared, and then waited for: `.await` it.
///
/// Nothing happens until it is first polled. Dropping it before the answer is there cancels it: if it has not left
/// yet it never will, and if it has, the node stops its handler.
///
/// When as many calls wait on the connection as may (`max_calls` and `max_queued` of [`Limits`](crate::Limits)) it waits
/// for room, in the order in which calls came, until its time is over. Up to 16 384 calls of a connection wait so; the
/// next fails at once with `LOCAL_LIMIT`.
///
/// ```no_run
/// # async fn example(peer: tieline::Peer) -> Result<(), tieline::CallError> {
/// use std::time::Duration;
///
/// let answer = peer.call("shop.Stock/Count", "apples").timeout(Duration::from_millis(200)).await?;
/// println!("{:?}", answer.payload);
///
/// // Two moves of one account never overtake each other; the text is worth compressing.
/// peer.call("shop.Account/Move", "a long text").ordering_key(b"account 7").compress().await?;
/// # Ok(())
/// # }
/// ```
#[must_use = "a call does nothing until it is awaited"]
pub struct Call<'a> {
    prepared: Prepared<'a>,
    stage: Stage,
}

#[derive(Clone, Copy)]
enum Stage {
    Prepared,
    Waiting(u32),
    Over,
}

impl<'a> Call<'a> {
    pub(crate) const fn new(prepared: Prepared<'a>) -> Self {
        Self { prepared, stage: Stage::Prepared }
    }

    /// How long to wait, instead of 10 s. The node is told and stops when the time is over. A call that is made on
    /// behalf of another one never outlives that one's deadline.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.prepared.set_timeout(Some(timeout));
        self
    }

    /// Waits as long as the connection lives.
    pub fn no_timeout(mut self) -> Self {
        self.prepared.set_timeout(None);
        self
    }

    options!();

    /// Gives the call up, as dropping it does, and says how it ended.
    ///
    /// # Errors
    /// [`CallError`] with the status `NOT_SENT` if nothing of the call left this process, and `CANCELLED` if the node is told
    /// to stop: it may have run. Or how the call ended otherwise, if that was faster and was not returned before.
    pub fn cancel(mut self) -> Result<Answer, CallError> {
        let stage = std::mem::replace(&mut self.stage, Stage::Over);
        match (self.link(), stage) {
            (Some(link), Stage::Waiting(key)) => give_up(link, key),
            (Some(link), stage) => {
                let ran = if matches!(stage, Stage::Prepared) { Ran::No } else { Ran::Maybe };
                Err(CallError { node: link.node(&link.lock()), failure: given_up(ran) })
            }
            (None, _) => Err(self.prepared.nowhere()),
        }
    }

    fn link(&self) -> Option<&Arc<Link>> {
        self.prepared.link()
    }

    /// Is the outcome there?
    #[inline(always)]
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
    // Inlined into whoever awaits it: an outcome that is handed over by memory is read before it is quite written, and the
    // wait for that is a twentieth of a client's work for a small call.
    #[inline(always)]
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.get_mut();
        match this.stage {
            Stage::Prepared => match this.prepared.poll_begin(cx) {
                Poll::Pending => Poll::Pending,
                Poll::Ready(Ok(begun)) => {
                    this.stage = Stage::Waiting(begun.key);
                    Poll::Pending
                }
                Poll::Ready(Err(error)) => {
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
    #[inline]
    fn drop(&mut self) {
        let Stage::Waiting(key) = self.stage else { return };
        let Some(link) = self.link() else { return };
        let mut entered = link.enter();
        let state = &mut *entered.state;
        if let (Some(id), _) = state.waiters.abandon(key) {
            state.conn.cancel(state.now, id);
            entered.leave();
        }
    }
}

/// Ends a call that somebody waits for by this number, and says how it ended.
pub(crate) fn give_up(link: &Link, key: u32) -> Result<Answer, CallError> {
    let mut entered = link.enter();
    let state = &mut *entered.state;
    if let Some(outcome) = state.waiters.take(key) {
        return outcome.map_err(|failure| CallError { node: link.node(state), failure });
    }
    let (id, sender) = state.waiters.abandon(key);
    let ran = id.and_then(|id| state.conn.cancel_and_tell(state.now, id));
    let failure = given_up(ran.map_or(Ran::Maybe, |(_, ran)| ran));
    let node = link.node(state);
    entered.leave();
    sender.into_iter().for_each(Waker::wake);
    Err(CallError { node, failure })
}

fn given_up(ran: Ran) -> Failure {
    match ran {
        Ran::No => Failure::local(Status::NOT_SENT, ran, "the caller gave the call up before it left"),
        _ => Failure::local(Status::CANCELLED, ran, "the caller gave the call up"),
    }
}

impl fmt::Debug for Call<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Call").field("method", &self.prepared.method).finish_non_exhaustive()
    }
}
