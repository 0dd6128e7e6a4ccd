//! What a client is told before it connects.

use std::{
    fmt,
    sync::{Arc, Mutex},
    time::Duration,
};

use tieline_core::conn::{Config, ConfigBuilder, Limits};

use super::{
    Client,
    current::Current,
    keeper::{Progress, Shared},
};
use crate::{
    common::Common,
    error::ConnectError,
    flight::FlightRecorder,
    runtime::Runtime,
    services::{Services, methods},
};

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
    pub(super) fn new(identifier: &str) -> Self {
        let runtime = R::default();
        Self {
            config: Config::builder(identifier).instance(runtime.instance()),
            runtime,
            services: Services::new(),
            #[cfg(feature = "tls")]
            tls: None,
            backoff: Duration::from_millis(100),
            recorder: None,
        }
    }

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
            current: Current::default(),
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
        Ok(Client::launch(shared, Some(link)))
    }

    /// Returns at once and connects in the background, however often that takes.
    ///
    /// # Errors
    /// [`ConnectError::Config`] if the configuration is wrong.
    pub fn connect_lazily(self, address: &str) -> Result<Client<R>, ConnectError> {
        Ok(Client::launch(self.share(address)?, None))
    }
}

impl<R: Runtime> fmt::Debug for ClientBuilder<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientBuilder")
            .field("config", &self.config)
            .field("services", &self.services)
            .finish_non_exhaustive()
    }
}
