//! Above one connection: what a client decides about its links, as pure state machines.

mod backoff;

pub use backoff::Backoff;
