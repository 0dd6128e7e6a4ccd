//! What `tieline-im` and `tieline-conformance` would write twice.
//!
//! | file | holds |
//! |---|---|
//! | [`args`] | the command line: a command, then options; and how mistakes in it are told |
//! | [`runtimes`] | the runtimes by name, and running a program on one of them |
//! | `process` | processes under test; with the feature `testing` only |
#![forbid(unsafe_code)]

pub mod args;
#[cfg(feature = "testing")]
pub mod process;
pub mod runtimes;

use std::{
    fmt::Display,
    io::{self, Write},
};

/// Writes `error: ` and this as one line to the standard error. If nobody reads that, the exit code still tells.
pub fn complain(what: &impl Display) {
    let _ = writeln!(io::stderr(), "error: {what}");
}
