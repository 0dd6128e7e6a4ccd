//! The sans-IO core of Tieline, an RPC protocol for the long connections between the nodes of a cluster.
//!
//! Everything here is a pure state machine: octets, verbs and the time go in; octets, events and the next time-out
//! come out. No socket, clock, thread, task, lock, waker, log line or random source can be named in this crate, so
//! the same code runs under tokio, on raw epoll loops, in virtual time and in a loop of your own.
//!
//! | room | what it knows |
//! |---|---|
//! | [`wire`] | frames, headers, envelopes and status numbers: the bytes, without any state |
//! | [`conn`] | one connection: check-in, calls, heartbeats, drain, close. Start at [`conn::Connection`] |
//! | [`pool`] | above one connection: when to dial again |
//! | [`drive`] | beside many connections: who has something to do, and who is due next, for loops |
//! | [`record`] | a flight recorder: what a connection was told and did, and doing it again |
//!
//! The contract on the wire is the project's `docs/protocol.md`; section numbers in these pages refer to it. Most
//! users want an adapter crate instead, such as `tieline-tokio`.
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;
#[cfg(test)]
extern crate std;

pub mod conn;
pub mod drive;
pub mod pool;
pub mod record;
mod time;
pub mod wire;

pub use time::Instant;
