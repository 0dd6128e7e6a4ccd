//! Load by a client that waits: one call in flight, on the thread of the generator.

use std::time::Instant;

use super::{Length, Meter, Mode, Phases, Plan, Sampler, Schedule};
use crate::error::{Failure, Result};

/// Runs `plan` by `call`, which makes a call and waits for its reply. The target's name is `name`, for errors.
pub fn drive(name: &str, plan: &Plan, meter: &Meter, call: impl FnMut() -> Result<()>) -> Result<()> {
    if plan.callers() != 1 {
        return Err(Failure::new(format!("{name} has one connection with one call in flight")));
    }
    match (plan.mode, plan.length) {
        (Mode::Closed, _) => closed(plan, meter, call),
        (Mode::Open { rate }, Length::Time { warmup, window }) => {
            open(plan, meter, &Schedule::new(Instant::now(), rate, warmup, window), call)
        }
        (Mode::Open { .. }, Length::Calls(_)) => Err(Failure::new("an open loop runs for a time")),
    }
}

fn closed(plan: &Plan, meter: &Meter, mut call: impl FnMut() -> Result<()>) -> Result<()> {
    let mut sampler = Sampler::new(plan.sample_every(), 0);
    let mut now = Instant::now();
    let mut phases = Phases::start(meter, plan.length, now)?;
    while phases.go_on(now)? && meter.issue() {
        call()?;
        // The end of one call is the start of the next: one look at the clock for both.
        let end = Instant::now();
        if sampler.take() {
            meter.record(end - now);
        }
        meter.complete();
        now = end;
    }
    Ok(())
}

fn open(plan: &Plan, meter: &Meter, schedule: &Schedule, mut call: impl FnMut() -> Result<()>) -> Result<()> {
    let mut now = schedule.intended(0);
    let mut phases = Phases::start(meter, plan.length, now)?;
    let mut issued = 0;
    let mut more = true;
    while more {
        // The end is looked at first and obeyed last: the last ticket has its chance too.
        more = phases.go_on(now)?;
        if issued < schedule.due(now) {
            call()?;
            meter.complete();
            if schedule.is_measured(issued) {
                meter.record(schedule.intended(issued).elapsed());
            }
            issued += 1;
        }
        now = Instant::now();
    }
    for ticket in issued..schedule.due(now) {
        if schedule.is_measured(ticket) {
            meter.record_not_begun(now - schedule.intended(ticket));
        }
    }
    Ok(())
}
