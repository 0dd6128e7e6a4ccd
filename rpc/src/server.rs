//! Accepting connections and serving the calls that come on them.

use std::{
    fmt,
    future::{Future, poll_fn},
    sync::{Arc, Mutex, PoisonError},
    task::{Poll, Waker},
    time::Duration,
};

use tieline_core::conn::{Config, ConfigBuilder, ConfigError, Connection, Limits, Side};

pub use crate::registry::{Applicant, Decision};
#[cfg(feature = "tls")]
use crate::tls::Tls;
use crate::{
    common::Common,
    driver,
    error::ListenError,
    flight::FlightRecorder,
    link::Far,
    meter::Meter,
    peer::Peer,
    registry::{Registry, Role, Sleep, Verifier},
    runtime::{Listener, Runtime},
    services::{Services, methods},
    transport::{ACCEPT_PAUSES, is_of_one_connection},
};

/// A node that others connect to.
///
/// It serves until it is shut down or dropped. Dropping it stops accepting and closes every connection; shutting it
/// down lets the open calls finish first.
pub struct Server<R: Runtime> {
    runtime: R,
    registry: Arc<Registry>,
    address: String,
    config: Arc<Config>,
    stop: Arc<StopAccepting>,
}

impl<R: Runtime> Server<R> {
    /// Starts to describe a server of this identifier: who it is to its peers, 1 to 128 of `[A-Za-z0-9._:@/-]`.
    #[must_use]
    pub fn builder(identifier: &str) -> ServerBuilder<R> {
        let runtime = R::default();
        ServerBuilder {
            config: Config::builder(identifier).instance(runtime.instance()),
            runtime,
            services: Services::new(),
            verifier: None,
            #[cfg(feature = "tls")]
            tls: None,
            recorder: None,
        }
    }

    /// The address that it listens on, with the port that the kernel chose if it was asked to.
    #[must_use]
    pub fn address(&self) -> &str {
        &self.address
    }

    /// Its limits, as they are kept: good to have in a log when it starts.
    #[must_use]
    pub fn limits(&self) -> &Limits {
        self.config.limits()
    }

    /// Those who are connected and checked in: call them.
    #[must_use]
    pub fn peers(&self) -> Vec<Peer> {
        self.registry.peers()
    }

    /// Check-ins under an identifier that another process uses as well. Only counted where nobody verifies check-ins;
    /// with a verifier the older process's connections are closed.
    #[must_use]
    pub fn duplicate_identifiers(&self) -> u64 {
        self.registry.duplicates()
    }

    /// Counts what its connections do; see [`Meter`].
    #[must_use]
    pub fn meter(&self) -> Meter {
        Meter::new(Arc::clone(&self.registry))
    }

    /// Stops accepting, tells every peer that this node goes away, lets the open calls finish for as long as `grace`,
    /// and returns when the last answer is out, the last connection is closed and the address is free.
    pub async fn shutdown(self, grace: Duration) {
        self.stop.stop();
        self.registry.drain(grace);
        // After the grace a connection has a second to write and a second to linger; that bound is the core's. This
        // one is for a runtime that has lost its tasks.
        let limit = grace.saturating_add(Duration::from_secs(10));
        let _ = self.runtime.timeout(limit, self.registry.over()).await;
    }
}

impl<R: Runtime> Drop for Server<R> {
    fn drop(&mut self) {
        self.stop.stop();
        self.registry.drain(Duration::ZERO);
    }
}

impl<R: Runtime> fmt::Debug for Server<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Server").field("address", &self.address).finish_non_exhaustive()
    }
}

/// Describes a [`Server`]; see [`Server::builder`].
pub struct ServerBuilder<R: Runtime> {
    runtime: R,
    config: ConfigBuilder,
    services: Services,
    verifier: Option<Verifier>,
    #[cfg(feature = "tls")]
    tls: Option<crate::tls::ServerTls>,
    recorder: Option<FlightRecorder>,
}

impl<R: Runtime> ServerBuilder<R> {
    methods!();

    /// Methods that it serves.
    #[must_use]
    pub fn services(mut self, services: Services) -> Self {
        self.services = self.services.and(services);
        self
    }

    /// Speaks TLS with every client, from the first octet. One that does not is told so and sent away. The time for the
    /// handshake is that for the check-in.
    #[cfg(feature = "tls")]
    #[must_use]
    pub fn tls(mut self, tls: crate::tls::ServerTls) -> Self {
        self.tls = Some(tls);
        self
    }

    /// Decides who may check in, by what they say of themselves and the credential that they show. Within 5 s; who is
    /// not decided about is refused. Without a verifier everybody comes in.
    #[must_use]
    pub fn verify<F, Fut>(mut self, verifier: F) -> Self
    where
        F: Fn(Applicant) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Decision> + Send + 'static,
    {
        self.verifier = Some(Box::new(move |check_in| Box::pin(verifier(check_in))));
        self.config = self.config.verify(true);
        self
    }

    /// The bounds to which the heartbeat interval of a client is clamped. Default 200 ms to 5 min.
    #[must_use]
    pub fn heartbeat_bounds(mut self, least: Duration, most: Duration) -> Self {
        self.config = self.config.heartbeat_bounds(least, most);
        self
    }

    /// Limits, instead of the defaults.
    #[must_use]
    pub fn limits(mut self, limits: Limits) -> Self {
        self.config = self.config.limits(limits);
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

    /// Listens on `address`, e.g. `127.0.0.1:0`, and serves.
    ///
    /// # Errors
    /// [`ListenError`]: the configuration is wrong, or the address cannot be taken.
    pub async fn listen(self, address: &str) -> Result<Server<R>, ListenError> {
        let listener = self.runtime.listen(address).await;
        let listener =
            listener.map_err(|source| ListenError::Listen { address: address.to_owned(), source })?;
        Ok(self.serve_on(listener)?)
    }

    /// Serves on a listener that was made otherwise, such as one that the process was started with.
    ///
    /// # Errors
    /// [`ConfigError`]: the configuration is wrong.
    pub fn serve_on(self, listener: R::Listener) -> Result<Server<R>, ConfigError> {
        let config = self.services.describe(self.config).build()?;
        let common = Common::new(&self.runtime, self.recorder);
        let sleep: Sleep = {
            let runtime = self.runtime.clone();
            Box::new(move |time| {
                let runtime = runtime.clone();
                Box::pin(async move { runtime.sleep(time).await })
            })
        };
        let registry = Registry::new(self.verifier, sleep);
        let stop = Arc::new(StopAccepting::default());
        let server = Server {
            runtime: self.runtime.clone(),
            registry: Arc::clone(&registry),
            address: listener.local_address(),
            config: Arc::clone(&config),
            stop: Arc::clone(&stop),
        };
        let acceptor = Acceptor {
            runtime: self.runtime.clone(),
            common,
            config,
            services: Arc::new(self.services),
            registry,
            stop,
            #[cfg(feature = "tls")]
            tls: self.tls.map(crate::tls::ServerTls::ready),
        };
        self.runtime.spawn(Box::pin(acceptor.run(listener)));
        Ok(server)
    }
}

impl<R: Runtime> fmt::Debug for ServerBuilder<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServerBuilder")
            .field("config", &self.config)
            .field("services", &self.services)
            .finish_non_exhaustive()
    }
}

/// The instance number of this process (protocol §4): when it started, and 22 random bits. What [`Client`](crate::Client)
/// and [`Server`] say of themselves; for those who make a [`Config`] of their own.
#[must_use]
pub fn instance() -> u64 {
    use std::{
        hash::{BuildHasher, Hasher},
        sync::OnceLock,
        time::SystemTime,
    };
    static INSTANCE: OnceLock<u64> = OnceLock::new();
    *INSTANCE.get_or_init(|| {
        let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let ms = u64::try_from(since.as_millis()).unwrap_or(0);
        let random = std::collections::hash_map::RandomState::new().build_hasher().finish();
        (ms << 22) | (random & ((1 << 22) - 1))
    })
}

/// Ends the accepting.
#[derive(Default)]
struct StopAccepting {
    state: Mutex<(bool, Option<Waker>)>,
}

impl StopAccepting {
    fn stop(&self) {
        let waker = {
            let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
            state.0 = true;
            state.1.take()
        };
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// Waits until it is told.
    async fn stopped(&self) {
        poll_fn(|cx| if self.is_stopped(cx.waker()) { Poll::Ready(()) } else { Poll::Pending }).await;
    }

    fn is_stopped(&self, waker: &Waker) -> bool {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.1.as_ref().is_none_or(|known| !known.will_wake(waker)) {
            state.1 = Some(waker.clone());
        }
        state.0
    }
}

struct Acceptor<R: Runtime> {
    runtime: R,
    common: Arc<Common>,
    config: Arc<Config>,
    services: Arc<Services>,
    registry: Arc<Registry>,
    stop: Arc<StopAccepting>,
    #[cfg(feature = "tls")]
    tls: Option<Arc<rustls::ServerConfig>>,
}

impl<R: Runtime> Acceptor<R> {
    /// Accepts until it is told to stop. No error ends it: other protocols' servers died of one connection's.
    async fn run(self, mut listener: R::Listener) {
        let [shortest, longest] = ACCEPT_PAUSES;
        let mut pause = shortest;
        loop {
            let accepted = poll_fn(|cx| {
                if self.stop.is_stopped(cx.waker()) {
                    return Poll::Ready(None);
                }
                listener.poll_accept(cx).map(Some)
            })
            .await;
            match accepted {
                None => return,
                Some(Ok((io, address))) => {
                    pause = shortest;
                    self.serve(io, &address);
                }
                Some(Err(error)) if is_of_one_connection(&error) => {}
                Some(Err(_)) => {
                    // The process lacks something, descriptors most likely; those who wait stay in the backlog.
                    let _ = self.runtime.timeout(pause, self.stop.stopped()).await;
                    pause = (pause * 2).min(longest);
                }
            }
        }
    }

    fn serve(&self, io: R::Io, address: &str) {
        let conn = Connection::new(
            Arc::clone(&self.config),
            Side::Server,
            self.runtime.seed(),
            self.common.clock.now(),
        );
        let role = Role::server(&self.registry);
        let services = Arc::clone(&self.services);
        #[cfg(feature = "tls")]
        if let Some(tls) = &self.tls {
            // Without a session there is nothing that could be said to the client.
            if let Ok((io, known)) = Tls::server(io, tls) {
                let far = Far { address, tls: Some(known) };
                driver::start(&self.runtime, &self.common, io, conn, far, services, role);
            }
            return;
        }
        driver::start(&self.runtime, &self.common, io, conn, Far::new(address), services, role);
    }
}

/// However the accepting ends, nobody waits for it any more. The listener is closed before this is.
impl<R: Runtime> Drop for Acceptor<R> {
    fn drop(&mut self) {
        self.registry.accepts_no_more();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_instance_is_later_than_any_process_of_before_today() {
        let of_2026 = 1_767_225_600_000_u64 << 22;
        assert!(instance() > of_2026);
        assert_eq!(instance(), instance());
    }
}
