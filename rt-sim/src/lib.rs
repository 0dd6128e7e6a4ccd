//! Tieline in virtual time, on a network that fails on command.
//!
//! The same [`Client`], [`Server`] and services that run on sockets run here on a few hosts inside of one test, on one
//! thread, without a socket and without waiting: a minute of heartbeats takes a millisecond. Everything that chance
//! decides follows from one seed, so a run that has failed can be run again, step by step.
//!
//! Node `one` tells node `two` something and does not give up; meanwhile the line between them fails:
//!
//! ```
//! use std::{
//!     sync::{Arc, Mutex},
//!     time::Duration,
//! };
//! use tieline_sim::{Client, Fault, Server, check, sleep};
//!
//! let faults = check(0..20, |sim| {
//!     let arrived = Arc::new(Mutex::new(Vec::new()));
//!     let book = Arc::clone(&arrived);
//!     sim.host("two", move || {
//!         // What a real node has on its disk: it outlives the process.
//!         let book = Arc::clone(&book);
//!         async move {
//!             let _server = Server::builder("two")
//!                 .method("demo.Box/Put", move |_cx, note| {
//!                     let mut notes = book.lock().unwrap();
//!                     if !notes.contains(&note) {
//!                         notes.push(note); // put twice, it is there once
//!                     }
//!                     async { Ok("") }
//!                 })
//!                 .listen("two:7400")
//!                 .await?;
//!             std::future::pending().await
//!         }
//!     });
//!     sim.host("one", || async {
//!         let client = Client::builder("one")
//!             .heartbeat_interval(Duration::from_secs(1))
//!             .connect_lazily("two:7400")?;
//!         for note in ["to be", "or not", "to be told"] {
//!             sleep(Duration::from_millis(200)).await;
//!             while let Err(error) = client.call("demo.Box/Put", note).await {
//!                 println!("{error}: {:?}", error.ran());
//!                 client.ready().await?;
//!                 sleep(Duration::from_millis(100)).await;
//!             }
//!         }
//!         Ok(())
//!     });
//!     sim.run_for(Duration::from_millis(sim.draw(700)))?; // at any moment
//!     sim.partition("one", "two");
//!     sim.run_for(Duration::from_secs(30))?;
//!     sim.heal("one", "two");
//!     sim.run_for(Duration::from_secs(30))?;
//!     assert_eq!(*arrived.lock().unwrap(), ["to be", "or not", "to be told"], "each once, in order");
//!     Ok(())
//! });
//! assert!(faults.count(Fault::Partition) > 0); // a fault that never fired proves nothing
//! ```
//!
//! # Hosts and time
//!
//! [`Sim::host`] adds a host and starts it; tasks that it spawns, also those of its clients and servers, are its own. It
//! listens at `name:port`, or at `localhost:port`, and is dialled as `name:port`. The test itself is the host `test`:
//! what [`Sim::run_until`] is given runs there. [`sleep`], [`spawn`], [`until`] and [`compute`] are for code on hosts;
//! handlers use them, too.
//!
//! Of the tasks that were woken, chance chooses the next one, whatever its host. Each poll takes a microsecond
//! ([`Sim::poll_takes`]). If nobody was woken the clock jumps to what is due next. If nothing is due either, or after an
//! hour ([`Sim::time_limit`]), the run ends with [`Stuck`], as it does if a task panics or a host ends with an error.
//!
//! A host can be [paused](Sim::pause), [kept busy](Sim::keep_busy), [crashed](Sim::crash),
//! [switched off](Sim::power_off) and [started again](Sim::restart).
//!
//! # The network
//!
//! Connections behave as TCP does: octets arrive in order or not at all; each end has a send and a receive buffer, so
//! that who does not read makes the other end wait; closing with unread octets resets; a reset can get lost, and then
//! the other end hears of it when it sends. [`Link`] says what a line between two hosts is like (latency, bandwidth,
//! buffers, pieces) and lets it fail (cut, half-close, delay, stall, partition, black hole, attempts that are refused or
//! not answered), in both directions ([`Sim::link`]) or one ([`Sim::direction`]).
//!
//! | fault | what happens to connections | and to new ones | ends by |
//! |---|---|---|---|
//! | [`delay`](Link::delay), [`stall`](Link::stall) | octets wait | they are made | itself; [`heal`](Link::heal) |
//! | [`partition`](Link::partition) | octets wait, resets are lost | attempts hang | `heal`: what waited goes on |
//! | [`black_hole`](Link::black_hole) | they are dead and nobody is told | attempts hang | `heal`: for new ones only |
//! | [`cut`](Link::cut), [`half_close`](Link::half_close) | reset; end of the stream | they are made | itself |
//!
//! [`Storm`] brings all of these about by chance.
//!
//! # Seeds
//!
//! [`check`] runs a test for many seeds. When it fails, it prints the last of the [trace](Sim::trace), the faults, and
//! the command that runs the seed again:
//!
//! ```text
//! again: TIELINE_SIM_SEED=17 cargo test -p shop stock_survives_a_partition -- --nocapture
//! ```
//!
//! That works as long as the program decides nothing by other means: no clock of the system, no threads, no iteration
//! over a `HashMap`. [`Sim::hash`] is a hash of all that has happened; run a seed twice and compare it, and you know.
//! [`Sim::faults`] says how often each kind of fault had an effect.
//!
//! # What it does not do
//!
//! It has no Unix sockets, no threads within a host, and no clocks that differ between hosts. Acknowledgements and resets
//! take no bandwidth. Code that computes takes no virtual time, unless it says so by [`compute`].
#![forbid(unsafe_code)]

mod conn;
mod dial;
mod ends;
mod events;
mod fault;
mod flow;
mod hosts;
mod line;
mod link;
mod rng;
mod runtime;
mod seeds;
mod sim;
mod state;
mod storm;
mod stuck;
mod task;
mod tasks;
mod trace;
mod world;

pub use tieline::*;

pub use self::{
    fault::{Fault, Faults},
    link::Link,
    runtime::{Socket, SocketListener, Timer},
    seeds::check,
    sim::Sim,
    state::Ended,
    storm::Storm,
    stuck::Stuck,
    task::{Joined, compute, sleep, spawn, until},
    trace::{Entry, What},
};

/// A client on a host of a simulation; see [`tieline::Client`].
pub type Client = tieline::Client<Sim>;
/// A server on a host of a simulation; see [`tieline::Server`].
pub type Server = tieline::Server<Sim>;
