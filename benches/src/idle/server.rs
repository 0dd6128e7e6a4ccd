//! The server process: an echo that tells what lies on its heap, who is connected, and when its tasks were polled.

use std::convert::Infallible;
use std::future::pending;
use std::net::TcpListener;
use std::sync::{Arc, OnceLock};

use tieline_tokio::{Runtime, ServerBuilder, SocketListener, Tokio};
use tokio::runtime::Builder;

use super::noted::{self, Noted, NotedListener};
use super::state::{Beats, heap_to_json};
use crate::error::{Context, Failure, Result};
use crate::sys;
use crate::targets::tieline::ECHO;

/// Returns what lies on the heap.
pub(super) const HEAP: &str = "tieline.bench.v1.Idle/Heap";
/// Returns the [`Beats`] of the idle connections. It asks every connection, which takes memory for a moment.
pub(super) const BEATS: &str = "tieline.bench.v1.Idle/Beats";
/// How the identifiers of the idle ones begin, and of nobody else.
pub(super) const IDLE: &str = "idle-";

/// An adapter, by its server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Product {
    Tokio,
}

impl Product {
    pub(crate) const ALL: [Self; 1] = [Self::Tokio];

    /// The name on the command line and in the table.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Tokio => "tieline-tokio",
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
            Self::Tokio => 2048.0,
        }
    }

    /// What a server process of this adapter is called.
    pub(crate) const fn served(self, noted: bool) -> &'static str {
        match (self, noted) {
            (Self::Tokio, false) => "idle:tieline-tokio",
            (Self::Tokio, true) => "polls:tieline-tokio",
        }
    }

    /// Serves on `listener` until the process ends. `noted`: when tasks are polled is noted, which takes memory, so not
    /// where memory is measured.
    pub(crate) fn serve(self, listener: TcpListener, noted: bool) -> Result<Infallible> {
        sys::watch();
        match (self, noted) {
            (Self::Tokio, false) => on_tokio::<Tokio>(listener, |listener| listener),
            (Self::Tokio, true) => on_tokio::<Noted<Tokio>>(listener, NotedListener),
        }
    }
}

fn on_tokio<R: Runtime>(
    listener: TcpListener,
    wrap: impl FnOnce(SocketListener) -> R::Listener,
) -> Result<Infallible> {
    listener.set_nonblocking(true)?;
    Builder::new_current_thread().enable_all().build()?.block_on(async {
        let listener = tokio::net::TcpListener::from_std(listener)?;
        let server = Arc::new(OnceLock::new());
        let serving = builder::<R>(&server).serve_on(wrap(listener.into())).context("serve")?;
        // Nobody else sets it.
        let _ = server.set(serving);
        pending().await
    })
}

/// A server with the defaults of the product. `server` is to hold it as soon as it serves.
fn builder<R: Runtime>(server: &Arc<OnceLock<tieline::Server<R>>>) -> ServerBuilder<R> {
    let server = Arc::clone(server);
    tieline::Server::builder("bench-server")
        .method(ECHO, |_context, body| async move { Ok(body) })
        .method(HEAP, |_context, _body| {
            // Before anything is made for the answer.
            let heap = sys::heap();
            async move { Ok(heap_to_json(&heap)) }
        })
        .method(BEATS, move |_context, _body| {
            let beats = server.get().map(beats).unwrap_or_default();
            async move { Ok(beats.to_json()) }
        })
}

fn beats<R: Runtime>(server: &tieline::Server<R>) -> Beats {
    let mut beats = Beats { least: u64::MAX, ..noted::so_far() };
    for peer in server.peers() {
        if peer.info().is_some_and(|info| info.identifier.starts_with(IDLE)) {
            let stats = peer.stats();
            beats.connections += 1;
            beats.came += stats.heartbeats_in;
            beats.went += stats.heartbeats_out;
            beats.least = beats.least.min(stats.heartbeats_in + stats.heartbeats_out);
        }
    }
    beats
}
