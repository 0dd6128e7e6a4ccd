//! What the command `tieline-benches` shares with others.
//!
//! With the criterion benches: two connections of the core, joined by a tight loop in one process. [`Pair`] calls and is
//! answered, [`OneWays`] only sends.
//!
//! With whoever measures something else in the same way: [`load`] drives it and measures, [`process`] puts server and load
//! on a core each, [`machine`] says what it was measured on; and Tieline itself and ZeroMQ as targets, [`product`] and
//! [`zeromq`].
//!
//! Everything else is the command; `README.md` says what is measured and how.

// It serves the programs beside it, which show an error to a person: it is its text, and any of it ends the program.
#![allow(clippy::missing_errors_doc, clippy::must_use_candidate)]

pub mod args;
mod end;
pub mod error;
pub mod load;
pub mod machine;
mod one_way;
mod pair;
pub mod process;
#[path = "targets/tieline.rs"]
pub mod product;
#[path = "targets/runtime.rs"]
pub mod runtime;
pub mod socket;
pub mod stats;
pub mod sys;
#[path = "targets/zeromq.rs"]
pub mod zeromq;

pub use end::{ECHO, PAYLOAD, Unexpected, client_config, server_config};
pub use one_way::OneWays;
pub use pair::Pair;

#[cfg(test)]
#[global_allocator]
static ALLOCATOR: sys::CountingAllocator = sys::CountingAllocator;
