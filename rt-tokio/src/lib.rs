//! Tieline on tokio.
//!
//! ```
//! use tieline_tokio::{Client, Server};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let server = Server::builder("node-2")
//!     .method("demo.Text/Upper", |_cx, body| async move { Ok(body.to_ascii_uppercase()) })
//!     .listen("127.0.0.1:0")
//!     .await?;
//!
//! let client = Client::connect(server.address()).await?;
//! let answer = client.call("demo.Text/Upper", "hello").await?;
//! assert_eq!(answer.payload, "HELLO");
//! # Ok(())
//! # }
//! ```
//!
//! Items from the node, as many as the caller takes, and then the answer:
//!
//! ```
//! use tieline_tokio::{Client, Server};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let server = Server::builder("node-2")
//!     .server_stream("demo.Text/Words", |_cx, body, mut sink| async move {
//!         for word in body.split(|octet| *octet == b' ') {
//!             sink.send(body.slice_ref(word)).await?; // waits while the caller does not keep up
//!         }
//!         Ok("these were all")
//!     })
//!     .listen("127.0.0.1:0")
//!     .await?;
//!
//! let client = Client::connect(server.address()).await?;
//! let mut words = client.server_stream("demo.Text/Words", "to be or not").await?;
//! while let Some(word) = words.next().await {
//!     println!("{:?}", word?);
//! }
//! assert_eq!(words.finish().await?.payload, "these were all");
//! # Ok(())
//! # }
//! ```
//!
//! Everything else is the `tieline` crate, re-exported here: see [`Client`], [`Server`], [`Peer`], [`CallError`].
//! TCP connections set TCP_NODELAY, TCP_NOTSENT_LOWAT and, once checked in, TCP_USER_TIMEOUT. An address `unix:/PATH`
//! is a Unix socket; its listener removes a file that a killed process left behind, and its own when it goes.
#![forbid(unsafe_code)]

mod octets;
mod socket;
mod tcp;
mod timer;
#[cfg(unix)]
mod unix_socket;

use std::{future::Future, io, sync::Arc};

pub use tieline::*;

#[cfg(unix)]
pub use self::unix_socket::{Unix, UnixListener};
pub use self::{
    socket::{Socket, SocketListener},
    tcp::{Tcp, TcpListener},
    timer::Timer,
};

/// A client on tokio; see [`tieline::Client`].
pub type Client = tieline::Client<Tokio>;
/// A server on tokio; see [`tieline::Server`].
pub type Server = tieline::Server<Tokio>;

/// The tokio runtime: the one in whose context a client or a server is made.
#[derive(Debug, Clone, Copy, Default)]
pub struct Tokio;

impl Runtime for Tokio {
    type Io = Socket;
    type Time = Timer;
    type Listener = SocketListener;

    fn clock(&self) -> Arc<dyn Clock> {
        timer::clock()
    }

    fn time(&self) -> Timer {
        Timer::default()
    }

    fn spawn(&self, task: BoxFuture<()>) {
        tokio::spawn(task);
    }

    fn connect(&self, address: &str) -> impl Future<Output = io::Result<Socket>> + Send {
        Socket::connect(address.to_owned())
    }

    fn listen(&self, address: &str) -> impl Future<Output = io::Result<SocketListener>> + Send {
        SocketListener::bind(address.to_owned())
    }
}
