//! Tieline on async-std.
//!
//! ```
//! use tieline_async_std::{Client, Server};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! async_std::task::block_on(async {
//!     let server = Server::builder("node-2")
//!         .method("demo.Text/Upper", |_cx, body| async move { Ok(body.to_ascii_uppercase()) })
//!         .listen("127.0.0.1:0")
//!         .await?;
//!
//!     let client = Client::connect(server.address()).await?;
//!     let answer = client.call("demo.Text/Upper", "hello").await?;
//!     assert_eq!(answer.payload, "HELLO");
//!     Ok(())
//! })
//! # }
//! ```
//!
//! **async-std is discontinued upstream** (advisory RUSTSEC-2025-0052), and nobody mends it any more. This crate is for
//! programs that run on it already; it is the only one of the project that depends on async-std, and the exemption from
//! that advisory is its alone. The way out is smol, which the same people keep: this crate reads and writes by the traits
//! of futures-io and waits by async-io, which both are smol's too, so that an adapter for it is the same files with
//! `smol::spawn` and `smol::net::resolve` instead of [`async_std::task::spawn`] and [`async_std::net::ToSocketAddrs`].
//!
//! Everything else is the `tieline` crate, re-exported here: see [`Client`], [`Server`], [`Peer`], [`CallError`].
//! Addresses are `host:port`, or `unix:/path`. TCP connections set TCP_NODELAY, TCP_NOTSENT_LOWAT and, once checked in,
//! TCP_USER_TIMEOUT.
#![forbid(unsafe_code)]

mod socket;
mod timer;

use std::{future::Future, io, sync::Arc};

/// A socket that async-io watches: what [`Socket::new`] takes over.
pub use async_io::Async;
pub use tieline::*;

pub use self::{
    socket::{Socket, SocketListener},
    timer::Timer,
};

/// A client on async-std; see [`tieline::Client`].
pub type Client = tieline::Client<AsyncStd>;
/// A server on async-std; see [`tieline::Server`].
pub type Server = tieline::Server<AsyncStd>;

/// The async-std runtime: its one executor, which all of a process shares.
#[derive(Debug, Clone, Copy, Default)]
pub struct AsyncStd;

impl Runtime for AsyncStd {
    type Io = Socket;
    type Time = Timer;
    type Listener = SocketListener;

    fn clock(&self) -> Arc<dyn Clock> {
        Arc::new(timer::StdClock)
    }

    fn time(&self) -> Timer {
        Timer::default()
    }

    fn spawn(&self, task: BoxFuture<()>) {
        // Dropping its handle leaves it running.
        drop(async_std::task::spawn(task));
    }

    fn connect(&self, address: &str) -> impl Future<Output = io::Result<Socket>> + Send {
        Socket::connect(address.to_owned())
    }

    fn listen(&self, address: &str) -> impl Future<Output = io::Result<SocketListener>> + Send {
        SocketListener::bind(address.to_owned())
    }
}
