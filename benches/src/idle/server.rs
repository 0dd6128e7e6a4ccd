//! The server process: an echo that tells what lies on its heap, who is connected, and when its tasks were polled.

use std::convert::Infallible;
use std::future::{Future, pending};
use std::io;
use std::net::TcpListener;
use std::pin::Pin;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::task::{Context as Poller, Poll};
use std::time::Instant;

use tieline_tokio::{BoxFuture, Clock, Runtime, ServerBuilder, Tokio};
use tokio::runtime::Builder;

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
/// Polls that are kept: more than the quiet server that is watched makes.
const MOST_POLLS: usize = 4096;

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
            (Self::Tokio, false) => on_tokio::<Tokio>(listener),
            (Self::Tokio, true) => on_tokio::<Noted<Tokio>>(listener),
        }
    }
}

fn on_tokio<R>(listener: TcpListener) -> Result<Infallible>
where
    R: Runtime<Listener = tieline_tokio::TcpListener>,
{
    listener.set_nonblocking(true)?;
    Builder::new_current_thread().enable_all().build()?.block_on(async {
        let listener = tokio::net::TcpListener::from_std(listener)?;
        let server = Arc::new(OnceLock::new());
        let serving = builder::<R>(&server).serve_on(listener.into()).context("serve")?;
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
    let mut beats = Beats { least: u64::MAX, polls: polls().clone(), ..Beats::default() };
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

/// A runtime that notes when its tasks are polled.
#[derive(Clone, Debug, Default)]
struct Noted<R>(R);

impl<R: Runtime> Runtime for Noted<R> {
    type Io = R::Io;
    type Time = R::Time;
    type Listener = R::Listener;

    fn clock(&self) -> Arc<dyn Clock> {
        self.0.clock()
    }

    fn time(&self) -> R::Time {
        self.0.time()
    }

    fn spawn(&self, task: BoxFuture<()>) {
        self.0.spawn(Box::pin(Task(task)));
    }

    fn connect(&self, address: &str) -> impl Future<Output = io::Result<R::Io>> + Send {
        self.0.connect(address)
    }

    fn listen(&self, address: &str) -> impl Future<Output = io::Result<R::Listener>> + Send {
        self.0.listen(address)
    }
}

struct Task(BoxFuture<()>);

impl Future for Task {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Poller<'_>) -> Poll<()> {
        note();
        self.0.as_mut().poll(cx)
    }
}

/// When tasks were polled, in microseconds since the first time.
fn polls() -> std::sync::MutexGuard<'static, Vec<u64>> {
    static POLLS: Mutex<Vec<u64>> = Mutex::new(Vec::new());
    POLLS.lock().unwrap_or_else(PoisonError::into_inner)
}

fn note() {
    static FIRST: OnceLock<Instant> = OnceLock::new();
    let since = FIRST.get_or_init(Instant::now).elapsed();
    let mut polls = polls();
    if polls.len() < MOST_POLLS {
        polls.push(u64::try_from(since.as_micros()).unwrap_or(u64::MAX));
    }
}
