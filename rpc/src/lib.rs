//! Tieline: RPC for the long connections between the nodes of a cluster.
//!
//! This crate is what every runtime shares: [`Client`], [`Server`], the handler's [`Context`], and the driver that
//! turns one connection of [`tieline_core`]. You do not need to name it: an adapter crate such as `tieline-tokio`
//! re-exports all of it, with the runtime filled in.
//!
//! | to | start at |
//! |---|---|
//! | call a node | [`Client`], [`Peer`], [`Call`] |
//! | stream to or from it | [`Items`], [`ClientStream`], [`Bidi`], and [`Open`] for their options |
//! | serve calls | [`Server`], [`Services`], [`Context`], [`ServedItems`], [`ServedSink`] |
//! | encrypt, and know peers by certificates (feature `tls`) | `ClientTls`, `ServerTls`, `TlsError` |
//! | understand an error | [`CallError`], and [`Ran`]: did the call run? |
//! | see why a connection ended | [`FlightRecorder`], and the command `tieline-replay` |
//! | write an adapter for another runtime | [`Runtime`], [`Io`], [`Time`], [`Listener`], [`Address`] |
//!
//! Both ends of a connection are equals: a server calls its client with the same [`Peer`] that a client calls a server
//! with, on the same connection.
#![forbid(unsafe_code)]

mod address;
mod call;
mod client;
mod common;
mod driver;
mod error;
mod flight;
mod growth;
mod handler;
mod identity;
mod inflow;
mod items;
mod link;
mod meter;
mod open;
mod outflow;
mod peer;
mod prepare;
mod registry;
mod room;
mod runtime;
mod seats;
mod served;
mod server;
mod services;
mod stint;
mod tasks;
#[cfg(feature = "tls")]
mod tls;
pub mod transport;
mod turns;
#[cfg(unix)]
pub mod unix;
mod waiters;

pub use address::Address;
pub use call::Call;
pub use client::{Client, ClientBuilder, ClientState};
pub use error::{CallError, ConnectError, Error, ListenError};
pub use flight::FlightRecorder;
pub use handler::Context;
pub use items::{Bidi, ClientStream, ItemSink, Items};
pub use meter::{Meter, Totals};
pub use open::Open;
pub use peer::Peer;
pub use runtime::{BoxFuture, Clock, Io, Listener, Runtime, Time};
pub use served::{ServedItems, ServedSink};
pub use server::{Applicant, Decision, Server, ServerBuilder, instance};
pub use services::Services;
pub use tieline_core::{
    Instant,
    conn::{Answer, By, CheckingIn, Closed, ConfigBuilder, ConfigError, Limits, Outbox, PeerInfo, Stats},
    record::{Recording, RecordingError},
    wire::{Class, Escaped, Metadata, Ran, Retry, Status},
};
#[cfg(feature = "tls")]
pub use tls::{
    Authorities, Certificate, ClientTls, Identity, ServerTls, TlsConfigError, TlsError, by_certificate,
};
pub use turns::Turns;
