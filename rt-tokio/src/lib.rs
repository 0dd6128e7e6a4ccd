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
//! # TLS
//!
//! With the feature `tls` connections are encrypted and both ends can know each other by certificates, by rustls and
//! TLS 1.3, over TCP and Unix sockets alike. A node speaks TLS from the first octet or not at all. This one lets in those
//! whom the cluster's own authority knows, each under its own name only:
//!
//! ```no_run
//! use tieline_tokio::{Authorities, Client, ClientTls, Identity, Server, ServerTls, by_certificate};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let authority = Authorities::from_pem(std::fs::read("cluster.pem")?)?;
//!
//! let node_2 = Identity::from_pem(std::fs::read("node-2.pem")?, std::fs::read("node-2.key")?)?;
//! let server = Server::builder("node-2")
//!     .tls(ServerTls::new(&node_2).require_client(&authority))
//!     .verify(by_certificate)
//!     .method("demo.Text/Upper", |_cx, body| async move { Ok(body.to_ascii_uppercase()) })
//!     .listen("0.0.0.0:7400")
//!     .await?;
//!
//! let node_1 = Identity::from_pem(std::fs::read("node-1.pem")?, std::fs::read("node-1.key")?)?;
//! let client = Client::builder("node-1")
//!     .tls(ClientTls::new(&authority).identity(&node_1).server_name("node-2"))
//!     .connect("10.0.0.2:7400")
//!     .await?;
//! # drop((server, client));
//! # Ok(())
//! # }
//! ```
//!
//! What a peer has shown is at hand where it is decided about it (`Applicant::certificate`) and in handlers
//! (`Peer::certificate`). What goes wrong is a `TlsError` that says what to do about it.
//!
//! # What else there is
//!
//! Everything else is the `tieline` crate, re-exported here: see [`Client`], [`Server`], [`Peer`], [`CallError`].
//! TCP connections set TCP_NODELAY, TCP_NOTSENT_LOWAT and, once checked in, TCP_USER_TIMEOUT. An address `unix:/PATH`
//! is a Unix socket; its listener removes a file that a killed process left behind, and its own when it goes.
#![forbid(unsafe_code)]

mod octets;
mod socket;
mod timer;

use std::{future::Future, io, sync::Arc};

pub use tieline::*;

pub use self::{
    socket::{Socket, SocketListener},
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
