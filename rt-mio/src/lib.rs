//! Tieline on raw readiness loops.
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

pub use tieline::*;
pub use tieline_core::{
    conn::{
        Body, CallHead, CallId, Cancel, Config, Connection, Event, Failure, Incoming, ItemError, MethodSpec,
        Rejected, Rejection, Reply, ReplyError, Rest, Served, Side, Stream, Taken,
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
