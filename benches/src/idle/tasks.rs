//! The server on a runtime, whose connections are tasks.

use std::convert::Infallible;
use std::future::pending;
use std::net::TcpListener;
use std::sync::{Arc, OnceLock};

use tieline_tokio::{Runtime, ServerBuilder};
use tokio::runtime::Builder;

use super::noted;
use super::server::{BEATS, HEAP, IDLE};
use super::state::{Beats, heap_to_json};
use crate::error::{Context, Result};
use crate::sys;
use crate::targets::tieline::ECHO;

/// Serves on tokio.
pub(super) fn on_tokio<R: Runtime>(
    listener: TcpListener,
    wrap: impl FnOnce(tieline_tokio::SocketListener) -> R::Listener,
) -> Result<Infallible> {
    listener.set_nonblocking(true)?;
    Builder::new_current_thread()
        .enable_all()
        .build()?
        .block_on(async { serve::<R>(wrap(tokio::net::TcpListener::from_std(listener)?.into())).await })
}

/// Serves on async-std.
pub(super) fn on_async_std<R: Runtime>(
    listener: TcpListener,
    wrap: impl FnOnce(tieline_async_std::SocketListener) -> R::Listener,
) -> Result<Infallible> {
    let listener = wrap(listener.try_into()?);
    async_std::task::block_on(async_std::task::spawn(serve::<R>(listener)))
}

async fn serve<R: Runtime>(listener: R::Listener) -> Result<Infallible> {
    let server = Arc::new(OnceLock::new());
    let serving = builder::<R>(&server).serve_on(listener).context("serve")?;
    // Nobody else sets it.
    let _ = server.set(serving);
    pending().await
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
    let mut beats = noted::so_far();
    for peer in server.peers() {
        if peer.info().is_some_and(|info| info.identifier.starts_with(IDLE)) {
            beats.add(&peer.stats());
        }
    }
    beats
}
