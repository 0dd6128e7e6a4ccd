//! The far end of one connection.

use std::{
    fmt,
    future::poll_fn,
    sync::Arc,
    task::{Poll, Waker},
    time::Duration,
};

use bytes::Bytes;
use tieline_core::{
    Instant,
    conn::{Closed, PeerInfo, Served, Stats},
    wire::{Kind, Status},
};

use crate::{
    call::Call,
    items::{Bidi, ClientStream, Items},
    link::{Entered, Link, watch},
    open::Open,
    prepare::{Mode, Prepared, Target},
};

/// The far end of one connection: call it. Cheap to clone; it does not keep the connection open.
///
/// A [`Client`](crate::Client) has one for each connection that it makes, and a handler finds the node that called it
/// in [`Context::peer`](crate::Context::peer).
#[derive(Clone)]
pub struct Peer {
    pub(crate) link: Arc<Link>,
    /// Calls through this handle end here at the latest.
    pub(crate) limit: Option<Instant>,
    /// The served call on whose behalf calls are made.
    pub(crate) parent: Option<Served>,
}

impl Peer {
    pub(crate) const fn new(link: Arc<Link>) -> Self {
        Self { link, limit: None, parent: None }
    }

    fn prepare<'a>(&'a self, method: &'a str, body: Bytes, mode: Mode) -> Prepared<'a> {
        let target = match self {
            Self { link, limit: None, parent: None } => Target::Borrowed(link),
            peer => Target::OnBehalf(peer),
        };
        Prepared::new(target, method, body, mode)
    }

    /// Calls a method, `package.Service/Method`, with a raw argument.
    pub fn call<'a>(&'a self, method: &'a str, body: impl Into<Bytes>) -> Call<'a> {
        Call::new(self.prepare(method, body.into(), Mode::Call(Kind::Unary)))
    }

    /// Sends what nobody answers. It completes once it is committed to the connection; whether it arrives is not known.
    pub fn one_way<'a>(&'a self, method: &'a str, body: impl Into<Bytes>) -> Call<'a> {
        Call::new(self.prepare(method, body.into(), Mode::OneWay))
    }

    /// Calls a method that answers with items, and then with an answer; see [`Items`].
    pub fn server_stream<'a>(&'a self, method: &'a str, body: impl Into<Bytes>) -> Open<'a, Items> {
        Open::new(self.prepare(method, body.into(), Mode::Call(Kind::ServerStream)))
    }

    /// Calls a method that takes items besides its argument; see [`ClientStream`].
    pub fn client_stream<'a>(&'a self, method: &'a str, body: impl Into<Bytes>) -> Open<'a, ClientStream> {
        Open::new(self.prepare(method, body.into(), Mode::Call(Kind::ClientStream)))
    }

    /// Calls a method with items in both directions; see [`Bidi`].
    pub fn bidi<'a>(&'a self, method: &'a str, body: impl Into<Bytes>) -> Open<'a, Bidi> {
        Open::new(self.prepare(method, body.into(), Mode::Call(Kind::Bidi)))
    }

    /// What the peer said of itself at check-in.
    #[must_use]
    pub fn info(&self) -> Option<Arc<PeerInfo>> {
        self.link.lock().conn.peer().cloned()
    }

    /// The peer's address, for people to read.
    #[must_use]
    pub fn address(&self) -> &str {
        &self.link.address
    }

    /// The certificate that the peer has shown: a node always, if the connection speaks TLS; a client if the server
    /// required one.
    #[cfg(feature = "tls")]
    #[must_use]
    pub fn certificate(&self) -> Option<&crate::tls::Certificate> {
        self.link.certificate()
    }

    /// Whether check-in is complete and the connection is not over.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        let state = self.link.lock();
        state.ready && state.closed.is_none()
    }

    /// The same peer, free of the call that this handle came with: for keeping it, to call later. A handler's own
    /// handle ends with the deadline of its call.
    #[must_use]
    pub fn detached(&self) -> Self {
        Self::new(Arc::clone(&self.link))
    }

    /// Whether both handles are of the same connection.
    #[must_use]
    pub fn is_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.link, &other.link)
    }

    /// Counters of the connection.
    #[must_use]
    pub fn stats(&self) -> Stats {
        self.link.lock().conn.stats()
    }

    /// Ends the connection when its open calls are done, or after `grace`; nothing new begins on it.
    pub fn drain(&self, status: Status, grace: Duration, message: &str) {
        let mut entered = self.link.enter();
        let state = &mut *entered.state;
        state.conn.drain(state.now, status, grace, message);
        leave_and_tell(entered);
    }

    /// Ends the connection. With `NORMAL` or `GOING_AWAY` what waits goes out first; calls that are open fail.
    pub fn close(&self, status: Status, message: &str) {
        let mut entered = self.link.enter();
        let state = &mut *entered.state;
        state.conn.close(state.now, status, message);
        leave_and_tell(entered);
    }

    /// Waits until the connection is over and says how it ended.
    pub async fn closed(&self) -> Closed {
        let closed = poll_fn(|cx| {
            let mut state = self.link.lock();
            match &state.closed {
                Some(closed) => Poll::Ready(Arc::clone(closed)),
                None => {
                    watch(&mut state.watchers, cx);
                    Poll::Pending
                }
            }
        })
        .await;
        Closed::clone(&closed)
    }

    /// Waits until the last octet is out, or never will be.
    pub(crate) async fn gone(&self) {
        poll_fn(|cx| {
            let mut state = self.link.lock();
            if state.gone {
                return Poll::Ready(());
            }
            watch(&mut state.watchers, cx);
            Poll::Pending
        })
        .await;
    }

    /// Waits until check-in is complete, or the connection is over without it.
    pub(crate) async fn ready(&self) -> Result<Arc<PeerInfo>, Closed> {
        poll_fn(|cx| {
            let mut state = self.link.lock();
            match (&state.closed, state.conn.peer()) {
                (_, Some(peer)) if state.ready => Poll::Ready(Ok(Arc::clone(peer))),
                (Some(closed), _) => Poll::Ready(Err(Closed::clone(closed))),
                _ => {
                    watch(&mut state.watchers, cx);
                    Poll::Pending
                }
            }
        })
        .await
    }
}

/// Tells those who wait for room on a connection that is about to end.
fn leave_and_tell(entered: Entered<'_>) {
    let mut wakers = Vec::new();
    entered.state.room.call(&mut wakers);
    entered.leave();
    wakers.into_iter().for_each(Waker::wake);
}

impl fmt::Debug for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Peer({})", self.link.node(&self.link.lock()))
    }
}
