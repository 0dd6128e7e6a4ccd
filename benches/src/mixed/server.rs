//! The server: takes the large message, gives it back, and answers small calls.

use std::convert::Infallible;
use std::future::pending;
use std::net;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use tieline_tokio::{Error, Server, Status};
use tokio::runtime::Builder;

use super::{LARGEST, hash, limits};
use crate::error::{Context, Result};

/// Returns its argument.
pub(super) const ECHO: &str = "tieline.bench.v1.Mixed/Echo";
/// Keeps its argument, and returns nothing.
pub(super) const TAKE: &str = "tieline.bench.v1.Mixed/Take";
/// Returns what was taken last.
pub(super) const GIVE: &str = "tieline.bench.v1.Mixed/Give";
/// Returns the hash of what was taken last.
pub(super) const HASH: &str = "tieline.bench.v1.Mixed/Hash";
/// Forgets what was taken last, so that its memory can be used again.
pub(super) const DROP: &str = "tieline.bench.v1.Mixed/Drop";
/// Returns how many heartbeats this end of the connection has sent.
pub(super) const BEATS: &str = "tieline.bench.v1.Mixed/Beats";

/// Serves until the process ends.
pub(crate) fn serve(listener: net::TcpListener) -> Result<Infallible> {
    listener.set_nonblocking(true)?;
    Builder::new_current_thread().enable_all().build()?.block_on(async {
        let listener = tokio::net::TcpListener::from_std(listener)?;
        let kept = Arc::new(Mutex::new(Bytes::new()));
        let keep =
            move |body| std::mem::replace(&mut *kept.lock().unwrap_or_else(PoisonError::into_inner), body);
        let keep = Arc::new(keep);
        let (take, give, forget) = (Arc::clone(&keep), Arc::clone(&keep), Arc::clone(&keep));
        let server = Server::builder("bench-server")
            .limits(limits(LARGEST))
            .method(ECHO, |_context, body| async move { Ok(body) })
            .method(TAKE, move |_context, body| {
                drop(take(body));
                async { Ok("") }
            })
            .method(GIVE, move |_context, _body| {
                let body = give(Bytes::new());
                give(body.clone());
                async { Ok(body) }
            })
            .method(DROP, move |_context, _body| {
                drop(forget(Bytes::new()));
                async { Ok("") }
            })
            .method(HASH, move |_context, _body| {
                let body = keep(Bytes::new());
                keep(body.clone());
                async move {
                    // On a thread of its own: the connection must go on beating.
                    let hash = tokio::task::spawn_blocking(move || hash(&body)).await;
                    let hash = hash.map_err(|error| Error::new(Status::INTERNAL, error.to_string()))?;
                    Ok(hash.to_string())
                }
            })
            .method(
                BEATS,
                |context, _body| async move { Ok(context.peer().stats().heartbeats_out.to_string()) },
            );
        let _server = server.serve_on(listener.into()).context("serve")?;
        pending().await
    })
}
