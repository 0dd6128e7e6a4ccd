//! The load generator: what is asked for, how it is paced, what is counted.
//!
//! Closed loop: each of `connections × in_flight` callers has one call open and begins the next when the
//! reply is there. Open loop: calls begin at a fixed rate whatever the target does, and the latency of a
//! call counts from the moment at which it *should* have begun, so that a stall shows in all the calls
//! that it delayed and not only in those that were open.

mod meter;
mod payload;
mod report;
mod schedule;
pub mod tasks;
pub mod waits;

use std::time::Duration;

pub use meter::{Meter, Phases, Sampler};
pub use payload::{Payloads, Verifier};
pub use report::Report;
pub use schedule::Schedule;
pub use tasks::Caller;

use crate::error::{Failure, Result};

/// The longest body of a frame that a target reads, in octets. Large enough for every row, small enough to bound a buffer.
pub const MAX_BODY: usize = 16 * 1024 * 1024;

/// How long a call that is open at the end may still take before the run counts as failed.
pub const GRACE: Duration = Duration::from_secs(5);

/// How calls are paced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Each caller begins its next call when the reply is there.
    Closed,
    /// Calls begin at a fixed rate.
    Open {
        /// Calls a second, over all connections.
        rate: u32,
    },
}

/// How long a run lasts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Length {
    /// A warm-up that is not measured, then the measured window.
    Time {
        /// Not measured.
        warmup: Duration,
        /// Measured.
        window: Duration,
    },
    /// Exactly so many calls, all of them measured: what an instruction count needs.
    Calls(u64),
}

/// One run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Plan {
    /// Octets.
    pub payload: usize,
    /// Each with its own socket.
    pub connections: usize,
    /// Calls open at once on each connection; in an open loop the most that may be.
    pub in_flight: usize,
    /// How calls are paced.
    pub mode: Mode,
    /// How long it lasts.
    pub length: Length,
}

impl Plan {
    /// Refuses what could not be run.
    pub fn check(&self) -> Result<()> {
        let refuse = |why: &str| Err(Failure::new(why));
        if self.payload >= MAX_BODY {
            return refuse("--payload must be under 16 MiB");
        }
        if self.connections == 0 || self.in_flight == 0 {
            return refuse("--connections and --in-flight must be at least 1");
        }
        // A slot has 16 bits in the ids of the hand-written clients.
        if self.in_flight > 1 << 16 {
            return refuse("--in-flight must be at most 65536");
        }
        match (self.mode, self.length) {
            (Mode::Open { .. }, Length::Calls(_)) => refuse("--calls is for the closed loop"),
            (Mode::Open { rate: 0 }, _) => refuse("--rate must be at least 1"),
            (_, Length::Calls(0)) => refuse("--calls must be at least 1"),
            (_, Length::Time { window, .. }) if window.is_zero() => refuse("--seconds must be above 0"),
            _ => Ok(()),
        }
    }

    /// All callers together.
    pub fn callers(&self) -> usize {
        self.connections * self.in_flight
    }

    /// One call in so many has its latency taken. Reading the clock costs about 21 ns, which is nothing
    /// beside one call in flight and a tenth of a call when hundreds are.
    pub fn sample_every(&self) -> u32 {
        if self.mode == Mode::Closed && self.callers() > 16 { 16 } else { 1 }
    }
}
