//! What many idle connections cost the few that are busy: the same load with them and without them, in turns.

use std::process::{Command, Stdio};
use std::time::Instant;

use super::server::Product;
use super::world::{Held, World};
use crate::error::{Failure, Result};
use crate::load::Report;
use crate::process::myself;
use crate::targets::Target;

/// The load: a row of the table.
pub(super) const CONNECTIONS: usize = 16;
pub(super) const IN_FLIGHT: usize = 64;
pub(super) const PAYLOAD: usize = 64;

/// One run of the load.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Slice {
    pub(super) report: Report,
    /// The part of a core that the idle connections' own processes used meanwhile.
    pub(super) holders: f64,
}

/// All runs.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Beside {
    pub(super) held: Held,
    pub(super) seconds: f64,
    /// A round each: without and with the idle ones.
    pub(super) rounds: Vec<(Slice, Slice)>,
}

impl Beside {
    /// A figure with the idle ones as a part of the one without, round by round.
    pub(super) fn ratios(&self, figure: impl Fn(&Report) -> f64) -> Vec<f64> {
        self.rounds.iter().map(|(alone, beside)| figure(&beside.report) / figure(&alone.report)).collect()
    }
}

/// Runs so many rounds; who is first changes from round to round.
pub(super) fn measure(product: Product, held: Held, rounds: u32, seconds: f64) -> Result<Beside> {
    let idle = held.count;
    let slice = |count| slice(product, Held { count, ..held }, seconds);
    let mut all = Vec::new();
    for round in 1..=rounds {
        eprintln!(
            "round {round} of {rounds}: {CONNECTIONS} busy connections without and with {idle} idle ones"
        );
        all.push(if round % 2 == 1 {
            let alone = slice(0)?;
            (alone, slice(idle)?)
        } else {
            let beside = slice(idle)?;
            (slice(0)?, beside)
        });
    }
    Ok(Beside { held, seconds, rounds: all })
}

/// One run, with a server of its own.
fn slice(product: Product, held: Held, seconds: f64) -> Result<Slice> {
    let mut world = World::start(product, false)?;
    world.hold(held)?;
    let (began, used) = (Instant::now(), world.holders_cpu()?);
    let output = Command::new(myself()?)
        .args(["load", "--json", "--target", Target::Tieline.name()])
        .args(["--address", &world.server.address.to_string()])
        .args(["--server-pid", &world.server.pid().to_string()])
        .args(["--connections", &CONNECTIONS.to_string(), "--in-flight", &IN_FLIGHT.to_string()])
        .args(["--payload", &PAYLOAD.to_string()])
        .args(["--warmup", "0.25", "--seconds", &seconds.to_string()])
        .stderr(Stdio::inherit())
        .output()?;
    let (took, used) = (began.elapsed(), world.holders_cpu()?.saturating_sub(used));
    if !output.status.success() {
        return Err(Failure::new(format!("the load beside {} idle connections failed", held.count)));
    }
    world.check()?;
    world.stop()?;
    let report = Report::from_json(String::from_utf8_lossy(&output.stdout).trim())?;
    Ok(Slice { report, holders: used.as_secs_f64() / took.as_secs_f64() })
}
