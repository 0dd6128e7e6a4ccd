//! A connection that is kept up, as its users see it.
//!
//! | file | its one idea |
//! |---|---|
//! | `mod.rs` | the handle: calls, and what can be asked |
//! | `current.rs` | the connection that calls go to |
//! | `keeper.rs` | the state behind all handles, and the task that dials again |
//! | `dial.rs` | one attempt |
//! | `builder.rs` | what a client is told before it connects |

mod builder;
mod current;
mod dial;
mod keeper;

use std::{fmt, future::poll_fn, sync::Arc, task::Poll};

use bytes::Bytes;
use tieline_core::{conn::Closed, wire::Kind};

pub use self::builder::ClientBuilder;
use self::keeper::Shared;
use crate::{
    call::Call,
    error::{CallError, ConnectError},
    items::{Bidi, ClientStream, Items},
    link::{Link, watch},
    open::Open,
    peer::Peer,
    prepare::{Mode, Prepared, Target, not_connected},
    runtime::Runtime,
};

/// A connection to one node that is kept up: when it is lost it is dialled again, with growing waits, without being
/// asked. Cheap to clone; when the last clone is dropped the connection is closed in peace.
///
/// Calls that are under way when a connection is lost are not sent again by themselves: their error says whether they
/// ran. While there is no connection calls fail at once with `NO_ENDPOINT`; [`ready`](Self::ready) waits for one.
pub struct Client<R: Runtime> {
    handle: Arc<Handle<R>>,
}

impl<R: Runtime> Clone for Client<R> {
    fn clone(&self) -> Self {
        Self { handle: Arc::clone(&self.handle) }
    }
}

/// Dropped with the last clone; the task that keeps the connection up holds what is inside.
struct Handle<R: Runtime>(Arc<Shared<R>>);

impl<R: Runtime> Drop for Handle<R> {
    fn drop(&mut self) {
        self.0.close();
    }
}

/// What a [`Client`] is at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ClientState {
    /// It dials, or waits for the node to check it in.
    Connecting,
    /// There is a connection, and calls go to it.
    Ready,
    /// It lets some time pass before it dials again; [`Client::trouble`] says why and how much.
    Backoff,
    /// It was closed, and dials no more.
    Closed,
}

impl<R: Runtime> Client<R> {
    /// Starts to describe a client of this identifier: who it is to the node, 1 to 128 of `[A-Za-z0-9._:@/-]`.
    #[must_use]
    pub fn builder(identifier: &str) -> ClientBuilder<R> {
        ClientBuilder::new(identifier)
    }

    /// The first handle, and the task behind it.
    fn launch(shared: Arc<Shared<R>>, link: Option<Arc<Link>>) -> Self {
        keeper::launch(&shared, link);
        Self { handle: Arc::new(Handle(shared)) }
    }

    /// Connects to `address` under an identifier made from the number of this process.
    ///
    /// # Errors
    /// As [`ClientBuilder::connect`].
    pub async fn connect(address: &str) -> Result<Self, ConnectError> {
        Self::builder(&format!("process-{:x}", R::default().instance())).connect(address).await
    }

    #[inline]
    fn prepare<'a>(&'a self, method: &'a str, body: Bytes, mode: Mode) -> Prepared<'a> {
        Prepared::new(self.target(), method, body, mode)
    }

    /// Calls a method, `package.Service/Method`, with a raw argument.
    #[inline]
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

    #[inline]
    fn target(&self) -> Target<'_> {
        match self.shared().current.at_hand() {
            Some(link) => Target::Borrowed(link),
            None => self.other_target(),
        }
    }

    #[cold]
    fn other_target(&self) -> Target<'_> {
        match self.shared().current.get() {
            Some(link) => Target::Shared(link),
            None => Target::Nowhere(Box::new(self.nowhere())),
        }
    }

    fn nowhere(&self) -> CallError {
        let status = self.shared().status();
        let why = if status.closed { "the client is closed" } else { &status.why };
        not_connected(&self.shared().address, why)
    }

    #[inline]
    fn shared(&self) -> &Shared<R> {
        &self.handle.0
    }

    /// The connection that there is at present.
    #[must_use]
    pub fn peer(&self) -> Option<Peer> {
        self.shared().current.get().map(Peer::new)
    }

    /// Waits until there is a connection that takes calls: it is not over, and its node does not drain.
    ///
    /// # Errors
    /// The client was closed.
    pub async fn ready(&self) -> Result<Peer, CallError> {
        poll_fn(|cx| {
            let mut status = self.shared().status();
            if status.closed {
                return Poll::Ready(Err(not_connected(&self.shared().address, "the client is closed")));
            }
            // The task that keeps it up may not have seen the end yet; it will, and tells so.
            if let Some(link) = self.shared().current.get().filter(|link| link.lock().takes_calls()) {
                return Poll::Ready(Ok(Peer::new(link)));
            }
            watch(&mut status.watchers, cx);
            Poll::Pending
        })
        .await
    }

    /// The address that it dials.
    #[must_use]
    pub fn address(&self) -> &str {
        &self.shared().address
    }

    /// How often it has dialled.
    #[must_use]
    pub fn attempts(&self) -> u64 {
        self.shared().status().attempts
    }

    /// Why there is no connection at present; empty if there is one.
    #[must_use]
    pub fn trouble(&self) -> String {
        if self.shared().current.get().is_some() { String::new() } else { self.shared().status().why.clone() }
    }

    /// What it is at.
    #[must_use]
    pub fn state(&self) -> ClientState {
        let status = self.shared().status();
        match self.shared().current.get() {
            _ if status.closed => ClientState::Closed,
            Some(link) if link.lock().takes_calls() => ClientState::Ready,
            // The task that keeps it up has not seen yet that it is over, or that its node drains.
            Some(_) => ClientState::Backoff,
            None if status.waits => ClientState::Backoff,
            None => ClientState::Connecting,
        }
    }

    /// The connections whose node drains, and that are not over yet: open calls go on there, new ones go to the
    /// connection that replaces them.
    #[must_use]
    pub fn draining(&self) -> Vec<Peer> {
        let mut status = self.shared().status();
        status.look();
        status.draining.iter().map(|link| Peer::new(Arc::clone(link))).collect()
    }

    /// How the last connection that is over ended, or the last check-in that did not come about; nothing if there has been
    /// none, as when nobody could be dialled.
    #[must_use]
    pub fn last_close(&self) -> Option<Closed> {
        let mut status = self.shared().status();
        status.look();
        status.last.clone()
    }

    /// Closes the connection in peace, for all clones, and waits until that is done: what was sent before is out, and
    /// the node has closed as well, or has had a second for it. Calls that wait for their answers fail.
    pub async fn close(self) {
        let peer = self.peer();
        self.shared().close();
        if let Some(peer) = peer {
            peer.gone().await;
        }
    }
}

impl<R: Runtime> fmt::Debug for Client<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").field("address", &self.address()).field("peer", &self.peer()).finish()
    }
}
