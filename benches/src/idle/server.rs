//! The server process: an echo that tells what lies on its heap, who is connected, and when it had turns.

use std::convert::Infallible;
use std::net::TcpListener;

use tieline_async_std::AsyncStd;
use tieline_tokio::Tokio;

use super::noted::{Noted, NotedListener};
use super::{direct, tasks};
use crate::error::{Failure, Result};
use crate::sys;

/// Returns what lies on the heap.
pub(super) const HEAP: &str = "tieline.bench.v1.Idle/Heap";
/// Returns the [`Beats`](super::state::Beats) of the idle connections. It asks every connection, which takes memory for a
/// moment.
pub(super) const BEATS: &str = "tieline.bench.v1.Idle/Beats";
/// How the identifiers of the idle ones begin, and of nobody else.
pub(super) const IDLE: &str = "idle-";

/// An adapter, by its server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Product {
    Tokio,
    AsyncStd,
    /// The direct layer of rt-mio.
    Mio,
}

impl Product {
    pub(crate) const ALL: [Self; 3] = [Self::Tokio, Self::AsyncStd, Self::Mio];

    /// The name on the command line and in the table.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Tokio => "tieline-tokio",
            Self::AsyncStd => "tieline-async-std",
            Self::Mio => "tieline-mio",
        }
    }

    pub(super) fn from_name(name: &str) -> Result<Self> {
        Self::ALL.into_iter().find(|product| product.name() == name).ok_or_else(|| {
            let known: Vec<_> = Self::ALL.iter().map(|product| product.name()).collect();
            Failure::new(format!("no idle connections to {name:?}; there are {}", known.join(", ")))
        })
    }

    /// Octets of the server's heap that an idle connection may take.
    pub(super) const fn most_octets(self) -> f64 {
        match self {
            // A task, a timer and a socket of the runtime are among them.
            Self::Tokio | Self::AsyncStd => 2048.0,
            Self::Mio => 1024.0,
        }
    }

    /// What a server process of this adapter is called.
    pub(crate) const fn served(self, noted: bool) -> &'static str {
        match (self, noted) {
            (Self::Tokio, false) => "idle:tieline-tokio",
            (Self::Tokio, true) => "polls:tieline-tokio",
            (Self::AsyncStd, false) => "idle:tieline-async-std",
            (Self::AsyncStd, true) => "polls:tieline-async-std",
            (Self::Mio, false) => "idle:tieline-mio",
            (Self::Mio, true) => "polls:tieline-mio",
        }
    }

    /// Serves on `listener` until the process ends. `noted`: when it has turns is noted, which takes memory, so not where
    /// memory is measured.
    pub(crate) fn serve(self, listener: TcpListener, noted: bool) -> Result<Infallible> {
        sys::watch();
        match (self, noted) {
            (Self::Tokio, false) => tasks::on_tokio::<Tokio>(listener, |listener| listener),
            (Self::Tokio, true) => tasks::on_tokio::<Noted<Tokio>>(listener, NotedListener),
            (Self::AsyncStd, false) => tasks::on_async_std::<AsyncStd>(listener, |listener| listener),
            (Self::AsyncStd, true) => tasks::on_async_std::<Noted<AsyncStd>>(listener, NotedListener),
            (Self::Mio, noted) => direct::serve(listener, noted),
        }
    }
}
