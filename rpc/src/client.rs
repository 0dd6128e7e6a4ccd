//! A connection that is kept up.

use std::{
    fmt,
    future::{Future, poll_fn},
    pin::pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock},
    task::{Poll, Waker},
    time::Duration,
};

use bytes::Bytes;
use tieline_core::{
    conn::{Closed, Config, ConfigBuilder, Connection, Limits, Side},
    pool::Backoff,
    wire::{Kind, Status},
};

#[cfg(feature = "tls")]
use tieline_core::conn::By;

#[cfg(feature = "tls")]
use crate::tls::Tls;
use crate::{
    call::Call,
    driver::{self, Common},
    error::{CallError, ConnectError},
    flight::FlightRecorder,
    items::{Bidi, ClientStream, Items},
    link::{Far, Link, watch},
    open::Open,
    peer::Peer,
    prepare::{Mode, Prepared, Target, not_connected},
    registry::Role,
    runtime::Runtime,
    services::{Services, methods},
};

/// How long one attempt may take until somebody answers the dialling; check-in has a bound of its own.
const DIAL_TIMEOUT: Duration = Duration::from_secs(5);

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

impl Progress {
    /// Forgets those that were draining and are over now.
    fn look(&mut self) {
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

/// Dropped with the last clone; the task that keeps the connection up holds what is inside.
struct Handle<R: Runtime>(Arc<Shared<R>>);

impl<R: Runtime> Drop for Handle<R> {
    fn drop(&mut self) {
        self.0.close();
    }
}

struct Shared<R: Runtime> {
    runtime: R,
    common: Common,
    config: Arc<Config>,
    services: Arc<Services>,
    address: String,
    #[cfg(feature = "tls")]
    tls: Option<crate::tls::Towards>,
    backoff: Duration,
    /// The connection that calls go to.
    current: RwLock<Option<Arc<Link>>>,
    status: Mutex<Progress>,
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

/// How keeping it up goes.
#[derive(Default)]
struct Progress {
    closed: bool,
    /// It waits before it dials again.
    waits: bool,
    /// How the last connection that is over ended, or the last check-in that did not come about.
    last: Option<Closed>,
    /// Connections whose node drains, and that may not be over yet.
    draining: Vec<Arc<Link>>,
    /// Why there is no connection, for people.
    why: String,
    attempts: u64,
    watchers: Vec<Waker>,
}

impl<R: Runtime> Client<R> {
    /// Starts to describe a client of this identifier: who it is to the node, 1 to 128 of `[A-Za-z0-9._:@/-]`.
    #[must_use]
    pub fn builder(identifier: &str) -> ClientBuilder<R> {
        let runtime = R::default();
        ClientBuilder {
            config: Config::builder(identifier).instance(runtime.instance()),
            runtime,
            services: Services::new(),
            #[cfg(feature = "tls")]
            tls: None,
            backoff: Duration::from_millis(100),
            recorder: None,
        }
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
        Prepared::new(self.target(), method, body, mode, None, None)
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
        let current = self.shared().current.read().unwrap_or_else(PoisonError::into_inner);
        match &*current {
            Some(link) => Target::Shared(Arc::clone(link)),
            None => Target::Nowhere(self.nowhere()),
        }
    }

    #[cold]
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
        self.shared().current().map(Peer::new)
    }

    /// Waits until there is a connection.
    ///
    /// # Errors
    /// The client was closed.
    pub async fn ready(&self) -> Result<Peer, CallError> {
        poll_fn(|cx| {
            let mut status = self.shared().status();
            if let Some(link) = self.shared().current() {
                return Poll::Ready(Ok(Peer::new(link)));
            }
            if status.closed {
                return Poll::Ready(Err(not_connected(&self.shared().address, "the client is closed")));
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
        if self.shared().current().is_some() { String::new() } else { self.shared().status().why.clone() }
    }

    /// What it is at.
    #[must_use]
    pub fn state(&self) -> ClientState {
        let status = self.shared().status();
        match self.shared().current() {
            _ if status.closed => ClientState::Closed,
            Some(link) if Peer::new(Arc::clone(&link)).is_ready() => ClientState::Ready,
            // The task that keeps it up has not seen the end yet.
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

impl<R: Runtime> Shared<R> {
    fn status(&self) -> MutexGuard<'_, Progress> {
        self.status.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn current(&self) -> Option<Arc<Link>> {
        self.current.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Changes what calls go to, and tells those who wait.
    fn publish(&self, link: Option<Arc<Link>>, why: String) {
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = link;
        let watchers = {
            let mut status = self.status();
            status.why = why;
            std::mem::take(&mut status.watchers)
        };
        watchers.into_iter().for_each(Waker::wake);
    }

    fn close(&self) {
        self.status().closed = true;
        let link = self.current();
        self.publish(None, "the client is closed".to_owned());
        if let Some(link) = link {
            Peer::new(link).close(Status::NORMAL, "");
        }
    }

    /// Dials and checks in.
    async fn attempt(&self) -> Result<Arc<Link>, ConnectError> {
        {
            let mut status = self.status();
            status.attempts += 1;
            status.waits = false;
        }
        let dialled = self.runtime.timeout(DIAL_TIMEOUT, self.runtime.connect(&self.address)).await;
        let io = dialled
            .unwrap_or_else(|| Err(std::io::ErrorKind::TimedOut.into()))
            .map_err(|source| ConnectError::Dial { address: self.address.clone(), source })?;
        let conn = Connection::new(
            Arc::clone(&self.config),
            Side::Client,
            self.runtime.seed(),
            self.common.clock.now(),
        );
        let link = self.start(io, conn)?;
        let closing = CloseOnDrop(Some(Arc::clone(&link)));
        match Peer::new(Arc::clone(&link)).ready().await {
            Ok(_) => {
                closing.keep();
                Ok(link)
            }
            #[cfg(feature = "tls")]
            Err(closed)
                if closed.by == By::Transport
                    && let Some(error) = link.tls.as_ref().and_then(|tls| tls.error.get()) =>
            {
                Err(self.no_tls(error.clone()))
            }
            Err(closed) => Err(ConnectError::CheckIn { address: self.address.clone(), closed }),
        }
    }

    /// Drives a connection that was dialled.
    fn start(&self, io: R::Io, conn: Connection<u32>) -> Result<Arc<Link>, ConnectError> {
        let services = Arc::clone(&self.services);
        #[cfg(feature = "tls")]
        if let Some(tls) = &self.tls {
            let (io, known) = Tls::client(io, tls).map_err(|error| self.no_tls(error))?;
            let far = Far { address: &self.address, tls: Some(known) };
            return Ok(driver::start(&self.runtime, &self.common, io, conn, far, services, Role::Client));
        }
        Ok(driver::start(
            &self.runtime,
            &self.common,
            io,
            conn,
            Far::new(&self.address),
            services,
            Role::Client,
        ))
    }

    #[cfg(feature = "tls")]
    fn no_tls(&self, source: crate::tls::TlsError) -> ConnectError {
        ConnectError::Tls { address: self.address.clone(), source }
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
            let (status, retry_after, why) = match link.take() {
                Some(current) => {
                    let since = self.common.clock.now();
                    self.publish(Some(Arc::clone(&current)), String::new());
                    if self.status().closed {
                        return self.close();
                    }
                    let ended = Peer::new(Arc::clone(&current)).ended().await;
                    {
                        let mut status = self.status();
                        status.look();
                        match &ended {
                            Some(closed) => status.last = Some(closed.clone()),
                            None => status.draining.push(Arc::clone(&current)),
                        }
                    }
                    let interval =
                        Peer::new(current).info().map_or(Duration::ZERO, |peer| peer.heartbeat_interval);
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
                        None => (None, None, "the node drains".to_owned()),
                        Some(closed) => (Some(closed.status), closed.retry_after, closed.to_string()),
                    }
                }
                None => match self.attempt_unless_closed().await {
                    None => return,
                    Some(Ok(new)) => {
                        link = Some(new);
                        continue;
                    }
                    Some(Err(error)) => {
                        let closed = error.closed();
                        if let Some(closed) = closed {
                            self.status().last = Some(closed.clone());
                        }
                        (
                            closed.map(|closed| closed.status),
                            closed.and_then(|closed| closed.retry_after),
                            error.to_string(),
                        )
                    }
                },
            };
            if self.status().closed {
                return;
            }
            let wait = backoff.next(status, retry_after);
            self.status().waits = true;
            self.publish(None, format!("{why}; dialling again in {wait:.1?}"));
            if self.runtime.timeout(wait, self.closed()).await.is_some() {
                return;
            }
        }
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

/// Held by the task that keeps a client up. If the runtime drops that task nobody dials any more, and nobody is to
/// wait for it.
struct Keeper<R: Runtime>(Arc<Shared<R>>);

impl<R: Runtime> Drop for Keeper<R> {
    fn drop(&mut self) {
        self.0.close();
    }
}

/// Closes a connection whose check-in nobody waits for any more.
struct CloseOnDrop(Option<Arc<Link>>);

impl CloseOnDrop {
    fn keep(mut self) {
        self.0 = None;
    }
}

impl Drop for CloseOnDrop {
    fn drop(&mut self) {
        if let Some(link) = self.0.take() {
            Peer::new(link).close(Status::NORMAL, "");
        }
    }
}

impl Peer {
    /// Waits until the connection takes no more calls: `None` if the peer drains, how it ended if it is over.
    async fn ended(&self) -> Option<Closed> {
        poll_fn(|cx| {
            let mut state = self.link.lock();
            if let Some(closed) = &state.closed {
                return Poll::Ready(Some(Closed::clone(closed)));
            }
            if state.draining {
                return Poll::Ready(None);
            }
            watch(&mut state.watchers, cx);
            Poll::Pending
        })
        .await
    }
}

/// Describes a [`Client`]; see [`Client::builder`].
pub struct ClientBuilder<R: Runtime> {
    runtime: R,
    config: ConfigBuilder,
    services: Services,
    #[cfg(feature = "tls")]
    tls: Option<crate::tls::ClientTls>,
    backoff: Duration,
    recorder: Option<FlightRecorder>,
}

impl<R: Runtime> ClientBuilder<R> {
    methods!();

    /// Methods that the node may call on this client.
    #[must_use]
    pub fn services(mut self, services: Services) -> Self {
        self.services = self.services.and(services);
        self
    }

    /// How often to beat on an idle line, as a proposal to the node. Default 10 s.
    #[must_use]
    pub fn heartbeat_interval(mut self, interval: Duration) -> Self {
        self.config = self.config.heartbeat_interval(interval);
        self
    }

    /// Speaks TLS with the node, from the first octet. A node that does not is an error, as is one whose certificate is
    /// not accepted: see [`TlsError`](crate::TlsError).
    #[cfg(feature = "tls")]
    #[must_use]
    pub fn tls(mut self, tls: crate::tls::ClientTls) -> Self {
        self.tls = Some(tls);
        self
    }

    /// What to show to the node's verifier. Clear text unless the transport encrypts.
    #[must_use]
    pub fn credential(mut self, credential: &[u8]) -> Self {
        self.config = self.config.credential(credential);
        self
    }

    /// Limits, instead of the defaults.
    #[must_use]
    pub fn limits(mut self, limits: Limits) -> Self {
        self.config = self.config.limits(limits);
        self
    }

    /// The first wait before dialling again, from which the others grow. Default 100 ms.
    #[must_use]
    pub fn backoff(mut self, base: Duration) -> Self {
        self.backoff = base;
        self
    }

    /// Records each connection, and writes what was recorded to a file when one comes to grief. Off by default.
    #[must_use]
    pub fn flight_recorder(mut self, recorder: FlightRecorder) -> Self {
        self.config = self.config.record(recorder.record());
        self.recorder = Some(recorder);
        self
    }

    /// Everything else that a connection can be told; see [`ConfigBuilder`].
    #[must_use]
    pub fn configure(mut self, change: impl FnOnce(ConfigBuilder) -> ConfigBuilder) -> Self {
        self.config = change(self.config);
        self
    }

    fn share(self, address: &str) -> Result<Arc<Shared<R>>, ConnectError> {
        let config = self.services.describe(self.config).build()?;
        #[cfg(feature = "tls")]
        let tls = match self.tls.map(|tls| tls.towards(address)) {
            Some(Err(source)) => return Err(ConnectError::Tls { address: address.to_owned(), source }),
            Some(Ok(tls)) => Some(tls),
            None => None,
        };
        let common = Common::new(&self.runtime, self.recorder);
        Ok(Arc::new(Shared {
            runtime: self.runtime,
            common,
            config,
            services: Arc::new(self.services),
            address: address.to_owned(),
            #[cfg(feature = "tls")]
            tls,
            backoff: self.backoff,
            current: RwLock::new(None),
            status: Mutex::new(Progress { why: "not connected yet".to_owned(), ..Progress::default() }),
        }))
    }

    /// Connects to `address`, `HOST:PORT`, and returns once the node has checked it in. From then on the connection is
    /// kept up.
    ///
    /// # Errors
    /// [`ConnectError`]: the configuration is wrong, nobody answers, or whoever answers does not check in. It is not
    /// tried again; [`connect_lazily`](Self::connect_lazily) does that.
    pub async fn connect(self, address: &str) -> Result<Client<R>, ConnectError> {
        let shared = self.share(address)?;
        let link = shared.attempt().await?;
        shared.publish(Some(Arc::clone(&link)), String::new());
        Ok(launch(shared, Some(link)))
    }

    /// Returns at once and connects in the background, however often that takes.
    ///
    /// # Errors
    /// [`ConnectError::Config`] if the configuration is wrong.
    pub fn connect_lazily(self, address: &str) -> Result<Client<R>, ConnectError> {
        Ok(launch(self.share(address)?, None))
    }
}

fn launch<R: Runtime>(shared: Arc<Shared<R>>, link: Option<Arc<Link>>) -> Client<R> {
    let keeper = Keeper(Arc::clone(&shared));
    shared.runtime.spawn(Box::pin(async move { keeper.0.keep_up(link).await }));
    Client { handle: Arc::new(Handle(shared)) }
}

impl<R: Runtime> fmt::Debug for ClientBuilder<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientBuilder")
            .field("config", &self.config)
            .field("services", &self.services)
            .finish_non_exhaustive()
    }
}
