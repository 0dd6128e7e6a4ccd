//! The baseline to be measured against: what a careful person writes by hand on tokio for this one echo.
//!
//! Everything is coalesced: all that waits goes out in one write, all of one read is decoded before
//! anyone is woken. Nothing is allocated for a call, and no lock is held across a call into the kernel.

mod client;
mod driver;
mod server;
mod state;

pub(crate) use client::connect;
pub(crate) use server::serve;
