//! How often an idle connection wakes the server.

use std::thread::sleep;
use std::time::Duration;

use super::proc::sleeps;
use super::server::Product;
use super::world::{Held, World};
use crate::error::{Failure, Result};

/// Intervals that pass before one is watched.
const BEFORE: u32 = 2;

/// A connection over some heartbeat intervals, as the server sees it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Quiet {
    pub(super) heartbeat: Duration,
    pub(super) intervals: f64,
    /// Heartbeats that came, and that went.
    pub(super) beats: u64,
    /// How often a task was polled, or a loop without tasks had a turn.
    pub(super) polls: usize,
    /// The same, where polls that follow one another within a tenth of an interval are one.
    pub(super) moments: usize,
    /// Moments at which no octet was read or written.
    pub(super) empty: usize,
    /// How often the process was woken, the runtime's own timers included.
    pub(super) woken: u64,
}

/// Watches one idle connection for so many intervals.
pub(super) fn measure(product: Product, held: Held, intervals: u32) -> Result<Quiet> {
    let heartbeat = held.heartbeat;
    let mut world = World::start(product, true)?;
    world.hold(held)?;
    sleep(heartbeat * BEFORE);
    let before = world.beats()?;
    // Whoever asks wakes the server as well, and is asked for nothing in between.
    let asked = world.beats()?.polls.len() - before.polls.len();
    let before = world.beats()?;
    let woken = sleeps(world.server.pid())?;
    let began = std::time::Instant::now();
    sleep(heartbeat * intervals);
    let woken = sleeps(world.server.pid())?.saturating_sub(woken);
    let intervals = began.elapsed().as_secs_f64() / heartbeat.as_secs_f64();
    let after = world.beats()?;
    world.check()?;
    world.stop()?;
    let polls = after.polls.get(before.polls.len()..).unwrap_or_default();
    // The last ones are those of the question itself.
    let polls = polls.get(..polls.len().saturating_sub(asked)).unwrap_or_default();
    let beats = (after.came + after.went).saturating_sub(before.came + before.went);
    if beats == 0 {
        return Err(Failure::new("the idle connection did not beat"));
    }
    let (moments, empty) = moments(polls, &after.moved, heartbeat / 10);
    Ok(Quiet { heartbeat, intervals, beats, polls: polls.len(), moments, empty, woken })
}

/// Polls, where those that are closer than `apart` to the one before are not counted; and how many of these moments are
/// empty, because nothing was moved then.
fn moments(polls: &[u64], moved: &[u64], apart: Duration) -> (usize, usize) {
    let apart = u64::try_from(apart.as_micros()).unwrap_or(u64::MAX);
    let each = || polls.chunk_by(|one, next| next.saturating_sub(*one) < apart);
    let is_empty = |moment: &&[u64]| match (moment.first(), moment.last()) {
        (Some(first), Some(last)) => !moved.iter().any(|at| at >= first && at.saturating_sub(*last) < apart),
        _ => false,
    };
    (each().count(), each().filter(is_empty).count())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn polls_that_follow_one_another_are_one_moment() {
        let moments = |polls: &[u64]| moments(polls, &[], Duration::from_micros(100)).0;
        assert_eq!([moments(&[]), moments(&[5]), moments(&[5, 50, 104, 300, 310])], [0, 1, 2]);
    }

    #[test]
    fn a_moment_at_which_nothing_is_moved_is_empty() {
        let empty = |moved: &[u64]| moments(&[1000, 1050, 5000], moved, Duration::from_micros(100)).1;
        assert_eq!(empty(&[1001, 5001]), 0);
        assert_eq!(empty(&[1149, 5099]), 0);
        assert_eq!(empty(&[1150, 5001]), 1);
        assert_eq!(empty(&[999, 4999]), 2);
    }
}
