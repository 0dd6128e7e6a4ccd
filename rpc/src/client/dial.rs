//! One attempt to get a connection: dialling, TLS if it is spoken, check-in.

use std::{sync::Arc, time::Duration};

#[cfg(feature = "tls")]
use tieline_core::conn::By;
use tieline_core::{
    conn::{Connection, Side},
    wire::Status,
};

use super::keeper::Shared;
#[cfg(feature = "tls")]
use crate::tls::Tls;
use crate::{
    driver,
    error::ConnectError,
    link::{Far, Link},
    peer::Peer,
    registry::Role,
    runtime::Runtime,
};

/// How long one attempt may take until somebody answers the dialling; check-in has a bound of its own.
const DIAL_TIMEOUT: Duration = Duration::from_secs(5);

impl<R: Runtime> Shared<R> {
    /// Dials and checks in.
    pub(super) async fn attempt(&self) -> Result<Arc<Link>, ConnectError> {
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
