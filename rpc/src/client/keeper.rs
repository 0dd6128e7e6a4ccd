//! Holding the line up: what all handles of a client and its one task share, and the task.
//!
//! The task waits for the end of the connection, dials another one, and publishes each change, so that calls find the
//! connection without asking anybody. Whoever closes the client only says so here, and the task ends.

use std::{
    future::{Future, poll_fn},
    pin::pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Poll, Waker},
    time::Duration,
};

use tieline_core::{
    conn::{Closed, Config},
    pool::Backoff,
    wire::Status,
};

use super::current::Current;
use crate::{
    common::Common,
    error::ConnectError,
    link::{Link, watch},
    peer::Peer,
    runtime::Runtime,
    services::Services,
};

/// What a client is, and what it is at.
pub(super) struct Shared<R: Runtime> {
    pub(super) runtime: R,
    pub(super) common: Arc<Common>,
    pub(super) config: Arc<Config>,
    pub(super) services: Arc<Services>,
    pub(super) address: String,
    #[cfg(feature = "tls")]
    pub(super) tls: Option<crate::tls::Towards>,
    pub(super) backoff: Duration,
    /// The connection that calls go to. It is locked for a moment only: whoever holds `status` may ask for it, but never the
    /// other way round.
    pub(super) current: Current,
    pub(super) status: Mutex<Progress>,
}

/// How keeping it up goes.
#[derive(Default)]
pub(super) struct Progress {
    /// Nobody wants it any more.
    pub(super) closed: bool,
    /// It waits before it dials again.
    pub(super) waits: bool,
    /// How the last connection that is over ended, or the last check-in that did not come about.
    pub(super) last: Option<Closed>,
    /// Connections whose node drains, and that may not be over yet.
    pub(super) draining: Vec<Arc<Link>>,
    /// Why there is no connection, for people.
    pub(super) why: String,
    /// How often it has dialled.
    pub(super) attempts: u64,
    /// Those who wait for the next change of what calls go to.
    pub(super) watchers: Vec<Waker>,
}

impl Progress {
    /// Forgets those that were draining and are over now.
    pub(super) fn look(&mut self) {
        let last = &mut self.last;
        self.draining.retain(|link| match &link.lock().closed {
            Some(closed) => {
                *last = Some(Closed::clone(closed));
                false
            }
            None => true,
        });
    }
}

impl<R: Runtime> Shared<R> {
    pub(super) fn status(&self) -> MutexGuard<'_, Progress> {
        self.status.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes what calls go to, and tells those who wait.
    pub(super) fn publish(&self, link: Option<Arc<Link>>, why: String) {
        self.current.set(link);
        let watchers = {
            let mut status = self.status();
            status.why = why;
            std::mem::take(&mut status.watchers)
        };
        watchers.into_iter().for_each(Waker::wake);
    }

    pub(super) fn close(&self) {
        self.status().closed = true;
        let link = self.current.get();
        self.publish(None, "the client is closed".to_owned());
        if let Some(link) = link {
            Peer::new(link).close(Status::NORMAL, "");
        }
    }

    /// `None`: the client was closed meanwhile, and the attempt is given up.
    async fn attempt_unless_closed(&self) -> Option<Result<Arc<Link>, ConnectError>> {
        let mut attempt = pin!(self.attempt());
        let mut closed = pin!(self.closed());
        poll_fn(|cx| match closed.as_mut().poll(cx) {
            Poll::Ready(()) => Poll::Ready(None),
            Poll::Pending => attempt.as_mut().poll(cx).map(Some),
        })
        .await
    }

    /// Keeps a connection up until the client is closed.
    async fn keep_up(&self, mut link: Option<Arc<Link>>) {
        let mut backoff = Backoff::new(self.backoff, self.runtime.seed());
        loop {
            let trouble = match link.take() {
                Some(current) => {
                    let since = self.common.clock.now();
                    self.publish(Some(Arc::clone(&current)), String::new());
                    if self.status().closed {
                        return self.close();
                    }
                    let ended = self.ended(&current).await;
                    let peer = Peer::new(current).info();
                    let interval = peer.map_or(Duration::ZERO, |peer| peer.heartbeat_interval);
                    let healthy = self.common.clock.now().saturating_since(since) >= interval * 3;
                    if healthy {
                        backoff.reset();
                    }
                    match ended {
                        // The node drains: another connection is needed at once, or another node. Not in a circle.
                        None if healthy && !self.status().closed => {
                            self.publish(None, "the node drains; dialling again".to_owned());
                            continue;
                        }
                        None => Trouble { closed: None, why: "the node drains".to_owned() },
                        Some(closed) => Trouble { why: closed.to_string(), closed: Some(closed) },
                    }
                }
                None => match self.attempt_unless_closed().await {
                    None => return,
                    Some(Ok(new)) => {
                        link = Some(new);
                        continue;
                    }
                    Some(Err(error)) => {
                        let closed = error.closed().cloned();
                        if closed.is_some() {
                            self.status().last.clone_from(&closed);
                        }
                        Trouble { closed, why: error.to_string() }
                    }
                },
            };
            if self.status().closed {
                return;
            }
            let wait = trouble.wait(&mut backoff);
            self.status().waits = true;
            self.publish(None, format!("{}; dialling again in {wait:.1?}", trouble.why));
            if self.runtime.timeout(wait, self.closed()).await.is_some() {
                return;
            }
        }
    }

    /// Waits until a connection takes no more calls, and notes it: `None` if the peer drains, how it ended if it is over.
    async fn ended(&self, link: &Arc<Link>) -> Option<Closed> {
        let ended = poll_fn(|cx| {
            let mut state = link.lock();
            if let Some(closed) = &state.closed {
                return Poll::Ready(Some(Closed::clone(closed)));
            }
            if state.draining {
                return Poll::Ready(None);
            }
            watch(&mut state.watchers, cx);
            Poll::Pending
        })
        .await;
        let mut status = self.status();
        status.look();
        match &ended {
            Some(closed) => status.last = Some(closed.clone()),
            None => status.draining.push(Arc::clone(link)),
        }
        ended
    }

    /// Waits until the client is closed.
    async fn closed(&self) {
        poll_fn(|cx| {
            let mut status = self.status();
            if status.closed {
                return Poll::Ready(());
            }
            watch(&mut status.watchers, cx);
            Poll::Pending
        })
        .await;
    }
}

/// Why there is no connection.
struct Trouble {
    /// How the last one ended, if there was one and it is over.
    closed: Option<Closed>,
    /// For people.
    why: String,
}

impl Trouble {
    /// How long not to dial after it.
    fn wait(&self, backoff: &mut Backoff) -> Duration {
        let closed = self.closed.as_ref();
        backoff.next(closed.map(|closed| closed.status), closed.and_then(|closed| closed.retry_after))
    }
}

/// Starts the task that keeps a connection up, beginning with this one if there is one already.
pub(super) fn launch<R: Runtime>(shared: &Arc<Shared<R>>, link: Option<Arc<Link>>) {
    let keeper = Keeper(Arc::clone(shared));
    shared.runtime.spawn(Box::pin(async move { keeper.0.keep_up(link).await }));
}

/// Held by the task that keeps a client up. If the runtime drops that task nobody dials any more, and nobody is to
/// wait for it.
struct Keeper<R: Runtime>(Arc<Shared<R>>);

impl<R: Runtime> Drop for Keeper<R> {
    fn drop(&mut self) {
        self.0.close();
    }
}
