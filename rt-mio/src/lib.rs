//! Tieline on raw readiness loops, without an async runtime: for Unix systems.
//!
//! There are three ways to use it, which share one poller and may share one thread.
//!
//! # A runtime in a loop
//!
//! [`Client`], [`Server`] and everything else of the `tieline` crate, as on any runtime. The runtime is a [`Loop`]: tasks
//! are polled on its thread, handlers where their calls arrive.
//!
//! ```
//! use tieline_mio::{Client, Server, block_on};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! block_on(async {
//!     let server = Server::builder("node-2")
//!         .method("demo.Text/Upper", |_cx, body| async move { Ok(body.to_ascii_uppercase()) })
//!         .listen("127.0.0.1:0")
//!         .await?;
//!
//!     let client = Client::connect(server.address()).await?;
//!     let answer = client.call("demo.Text/Upper", "hello").await?;
//!     assert_eq!(answer.payload, "HELLO");
//!     Ok(())
//! })?
//! # }
//! ```
//!
//! # The direct layer
//!
//! No tasks, wakers or locks: a [`Loop`] calls the methods of an [`App`], or the closures of [`Handlers`], when something
//! happens on a connection, and they act on the [`Net`], whose verbs are those of the core. A call that comes is answered
//! there or at any later time; a call that is made carries a value of the application's, which comes back with its
//! outcome. This is the least that a call can cost, and the least memory that a connection can.
//!
//! ```
//! use tieline_mio::{Body, CallHead, Config, Handlers, Loop};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let handlers = Handlers::new().function("demo.Text/Upper", |body| Ok(body.to_ascii_uppercase()));
//! let config = handlers.describe(Config::builder("node-2")).build()?;
//! let mut node = Loop::new(handlers)?;
//! let listener = node.net().listen("127.0.0.1:0", &config)?;
//! let address = node.net().listening(listener).ok_or("it listens")?;
//!
//! let conn = node.net().connect(&address, &Config::builder("node-1").build()?)?;
//! node.net().call_then(conn, &CallHead::new("demo.Text/Upper"), Body::Copy(b"hello"), |net, _, outcome| {
//!     assert!(outcome.is_ok_and(|answer| answer.payload == "HELLO"));
//!     net.stop();
//! })?;
//! node.run()?;
//! # Ok(())
//! # }
//! ```
//!
//! What it leaves to the application is what stands above a connection: to dial again when one is lost
//! ([`tieline_core::pool::Backoff`] says when), and to decide between two processes of one identifier. Clients and servers
//! of the runtime do both.
//!
//! # Calls without a loop
//!
//! [`blocking::Client`]: the thread that calls writes and reads by itself.
//!
//! # Threads
//!
//! A loop is one thread's. Others reach it by its [`Handle`]: a bounded queue, and a wake-up that costs a system call only
//! if the loop sleeps. [`threads`] runs several loops that share an address (SO_REUSEPORT). [`Loop::busy_poll`] lets a
//! loop that has a core of its own ask the poller again and again before it sleeps.
//!
//! # A loop of your own
//!
//! The core is driven by whoever likes to, and what this loop has besides it is there for others as well:
//! [`tieline_core::drive`] knows who is ready and who is due.
//!
//! Addresses are `host:port` or `unix:/path`. TCP connections set TCP_NODELAY, TCP_NOTSENT_LOWAT and, once checked in,
//! TCP_USER_TIMEOUT. A panic of a handler is answered `HANDLER_PANIC`; no panic ends a loop, and no error ends a listener.
#![cfg(unix)]

mod accept;
mod app;
pub mod blocking;
mod clock;
mod driven;
mod event_loop;
mod fill;
mod handle;
mod handlers;
mod listener;
mod net;
mod poller;
mod runtime;
mod shared;
mod slots;
mod socket;
mod source;
mod tasks;
pub mod threads;
mod timers;
mod turn;
mod verbs;

pub use tieline::*;
pub use tieline_core::{
    conn::{
        Body, CallHead, CallId, Cancel, Config, Connection, Disconnect, End, Event, Failure, Incoming,
        ItemError, MethodSpec, Next, Rejected, Rejection, Reply, ReplyError, Rest, Served, Side, Stream,
        Taken,
    },
    wire::Kind,
};

pub use self::{
    app::App,
    event_loop::{Loop, block_on},
    handle::{Handle, Refused},
    handlers::{Called, Handlers, Then},
    net::{ConnId, Counters, ListenerId, Net, TimerId},
    runtime::{Mio, MioListener, MioStream},
    timers::Timer,
};

/// A client on a loop; see [`tieline::Client`].
pub type Client = tieline::Client<Mio>;
/// A server on a loop; see [`tieline::Server`].
pub type Server = tieline::Server<Mio>;
