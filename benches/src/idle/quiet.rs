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
    /// How often a task was polled.
    pub(super) polls: usize,
    /// The same, where polls that follow one another within a tenth of an interval are one.
    pub(super) moments: usize,
    /// How often the process was woken, the runtime's own timers included.
    pub(super) woken: u64,
}

impl Quiet {
    /// Wake-ups of the connection that no heartbeat was the cause of, an interval.
    pub(super) fn between(&self) -> f64 {
        let beats = usize::try_from(self.beats).unwrap_or(usize::MAX);
        self.moments.saturating_sub(beats) as f64 / self.intervals
    }
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
    Ok(Quiet {
        heartbeat,
        intervals,
        beats,
        polls: polls.len(),
        moments: moments(polls, heartbeat / 10),
        woken,
    })
}

/// Polls, where those that are closer than `apart` to the one before are not counted.
fn moments(polls: &[u64], apart: Duration) -> usize {
    let apart = u64::try_from(apart.as_micros()).unwrap_or(u64::MAX);
    let later = polls.windows(2).filter(|pair| match pair {
        [one, next] => next.saturating_sub(*one) >= apart,
        _ => false,
    });
    usize::from(!polls.is_empty()) + later.count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn polls_that_follow_one_another_are_one_moment() {
        let apart = Duration::from_micros(100);
        assert_eq!(moments(&[], apart), 0);
        assert_eq!(moments(&[5], apart), 1);
        assert_eq!(moments(&[5, 50, 104, 300, 310], apart), 2);
    }

    #[test]
    fn a_moment_without_a_heartbeat_is_one_too_many() {
        let quiet = |moments| Quiet {
            heartbeat: Duration::from_secs(1),
            intervals: 10.0,
            beats: 10,
            polls: 20,
            moments,
            woken: 30,
        };
        assert!(quiet(10).between() == 0.0 && quiet(9).between() == 0.0);
        assert!((quiet(15).between() - 0.5).abs() < 1e-9);
    }
}
