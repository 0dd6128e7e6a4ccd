//! Tieline in virtual time, on a network that fails on command.
#![forbid(unsafe_code)]

mod check;
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
    check::check,
    fault::{Fault, Faults},
    link::Link,
    runtime::{Socket, SocketListener, Timer},
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
