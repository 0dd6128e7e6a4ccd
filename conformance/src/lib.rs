//! What it takes to certify a Tieline implementation, in any language: see `docs/conformance.md`.
//!
//! | module | holds |
//! |---|---|
//! | [`testee`] | the service of the protocol's annex A, which a suite dials and judges |
//! | [`driver`] | a client that does what lines of JSON tell it, so that a harness can judge a client |
//! | [`args`], [`stop`] | the command line, and the signals that end a testee |
//!
//! What either runs on is for `tieline-commands` to know: both are written once, over [`tieline::Runtime`].
//!
//! The vectors beside this crate's source need no code: they are octets and what they mean.
#![forbid(unsafe_code)]

pub mod args;
pub mod driver;
pub mod stop;
pub mod testee;
