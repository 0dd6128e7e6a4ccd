//! Work inside one process, repeated as often as asked: what instruction and allocation counts count.

use std::fmt::Display;
use std::hint::black_box;

use tieline_benches::Pair;

use crate::error::{Context, Failure, Result};
use crate::frame::{self, Kind};
use crate::sys;

/// One function whose instructions and allocations are counted.
pub(crate) struct Spin {
    /// Its name on the command line.
    pub(crate) label: &'static str,
    /// What one round trip is.
    pub(crate) what: &'static str,
    /// Makes so many round trips. What it does besides must not depend on their number.
    pub(crate) round_trips: fn(usize) -> Result<()>,
    /// What a round trip may cost at most.
    pub(crate) target: Option<Cost>,
    /// Instructions a round trip of the core as it was first built, counted with the same toolchain.
    pub(crate) before: Option<f64>,
}

/// What one round trip costs.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Cost {
    pub(crate) instructions: f64,
    pub(crate) allocations: f64,
}

/// The core alone, both of its connections together.
const CORE: Option<Cost> = Some(Cost { instructions: 1200.0, allocations: 0.0 });

impl Spin {
    pub(crate) const ALL: &[Self] = &[
        Self {
            label: "raw-header",
            what: "64 octets: request emitted and parsed, response emitted and parsed, by hand; no connection",
            round_trips: raw_header,
            target: None,
            before: None,
        },
        Self {
            label: "core-round-trip",
            what: "64 octets through two connections of the core: call, encode, decode, reply, encode, decode, done; \
                   deadline of 10 s; one in flight",
            round_trips: |count| core_round_trips(count, 1),
            target: CORE,
            before: Some(2578.0),
        },
        Self {
            label: "core-round-trip-128",
            what: "the same in batches of 128",
            round_trips: |count| core_round_trips(count, 128),
            target: CORE,
            before: Some(1579.0),
        },
    ];

    pub(crate) fn from_label(label: &str) -> Result<&'static Self> {
        Self::ALL.iter().find(|spin| spin.label == label).ok_or_else(|| {
            let known: Vec<_> = Self::ALL.iter().map(|spin| spin.label).collect();
            Failure::new(format!("no label {label:?}; there are {}", known.join(", ")))
        })
    }

    /// Makes so many round trips, and counts the allocations, those of the start among them.
    pub(crate) fn run(&self, count: usize) -> Result<u64> {
        let before = sys::allocations();
        (self.round_trips)(count)?;
        Ok(sys::allocations() - before)
    }

    /// Allocations a round trip, once warm: those of 2N round trips beyond those of N, divided by N. Exact, and the
    /// same on every run.
    pub(crate) fn allocations(&self, count: usize) -> Result<f64> {
        let (single, double) = (self.run(count)?, self.run(2 * count)?);
        Ok(double.saturating_sub(single) as f64 / count as f64)
    }
}

fn raw_header(count: usize) -> Result<()> {
    let payload = [7; 64];
    let (mut requests, mut responses) = (Vec::new(), Vec::new());
    for id in (1..).step_by(2).take(count) {
        frame::emit(&mut requests, Kind::Request, id, black_box(&payload)).context("request")?;
        frame::echo(black_box(&requests), &mut responses).context("request")?;
        let reply = frame::parse(black_box(&responses), Kind::Response).context("response")?;
        black_box(reply);
        requests.clear();
        responses.clear();
    }
    Ok(())
}

fn core_round_trips(count: usize, batch: u32) -> Result<()> {
    let failed = |error: &dyn Display| Failure::new(format!("two connections of the core: {error}"));
    let mut pair = Pair::start().map_err(|error| failed(&error))?;
    let mut left = count;
    while left > 0 {
        let batch = batch.min(u32::try_from(left).unwrap_or(batch));
        pair.round_trips(black_box(batch)).map_err(|error| failed(&error))?;
        left -= batch as usize;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn once_warm_nothing_is_allocated() {
        for spin in Spin::ALL {
            assert_eq!(spin.allocations(2000).unwrap(), 0.0, "{}", spin.label);
        }
    }

    #[test]
    fn an_allocation_in_every_tenth_round_trip_is_seen() {
        let leaky = Spin {
            label: "leaky",
            what: "",
            round_trips: |count| {
                (0..count).step_by(10).for_each(|number| drop(black_box(Box::new(number))));
                Ok(())
            },
            target: None,
            before: None,
        };
        assert_eq!(leaky.allocations(1000).unwrap(), 0.1);
    }
}
