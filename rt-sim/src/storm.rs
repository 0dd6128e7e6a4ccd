//! Faults of all kinds, by chance: how often, where and for how long follows from the seed.

use std::time::Duration;

use crate::{
    fault::Fault,
    sim::{Sim, nanos},
    state::WEATHER,
    task::{sleep, spawn_on},
};

/// A time of trouble: faults of the given kinds between the given hosts, at times, places and lengths that chance
/// chooses. Several may be at work at once. At its end everything is healed.
///
/// ```
/// use std::time::Duration;
/// use tieline_sim::{Fault, Sim, Storm};
///
/// # fn main() -> Result<(), tieline_sim::Stuck> {
/// let sim = Sim::new(7);
/// sim.host("one", || async { std::future::pending().await });
/// sim.host("two", || async { std::future::pending().await });
/// let storm = Storm::new(&["one", "two"]).kinds(&[Fault::Pause, Fault::Crash]);
/// sim.run_until(storm.rage(&sim, Duration::from_secs(60)))?;
/// assert!(sim.faults().count(Fault::Crash) > 0);
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct Storm {
    hosts: Vec<String>,
    kinds: Vec<Fault>,
    every: Duration,
    lasts: Duration,
}

/// What a storm can bring about by itself; the other kinds follow from these.
const KINDS: &[Fault] = &[
    Fault::Cut,
    Fault::HalfClose,
    Fault::Delay,
    Fault::Stall,
    Fault::BlackHole,
    Fault::Partition,
    Fault::Slice,
    Fault::Coalesce,
    Fault::PartialWrite,
    Fault::Bandwidth,
    Fault::Backpressure,
    Fault::Refused,
    Fault::Unanswered,
    Fault::Pause,
    Fault::Busy,
    Fault::Crash,
    Fault::PowerOff,
];

impl Storm {
    /// A storm over these hosts, of every kind, a new fault every second on the average, each for a second on the average.
    #[must_use]
    pub fn new(hosts: &[&str]) -> Self {
        Self {
            hosts: hosts.iter().map(|&host| host.to_owned()).collect(),
            kinds: KINDS.to_vec(),
            every: Duration::from_secs(1),
            lasts: Duration::from_secs(1),
        }
    }

    /// Only these kinds. [`Fault::Restart`] and [`Fault::UserTimeout`] follow from others and are no kinds of a storm.
    #[must_use]
    pub fn kinds(mut self, kinds: &[Fault]) -> Self {
        self.kinds = kinds.iter().copied().filter(|kind| KINDS.contains(kind)).collect();
        self
    }

    /// All but these kinds.
    #[must_use]
    pub fn without(mut self, kinds: &[Fault]) -> Self {
        self.kinds.retain(|kind| !kinds.contains(kind));
        self
    }

    /// How far apart faults are on the average, at least 1 µs; chance draws from nothing to twice that.
    #[must_use]
    pub fn every(mut self, time: Duration) -> Self {
        self.every = time.max(Duration::from_micros(1));
        self
    }

    /// How long faults last on the average, those that last; chance draws from nothing to twice that.
    #[must_use]
    pub fn lasting(mut self, time: Duration) -> Self {
        self.lasts = time;
        self
    }

    /// Rages for so long, heals everything, and returns.
    pub async fn rage(self, sim: &Sim, time: Duration) {
        let weather = sim.at(WEATHER);
        spawn_on(&weather, self.blow(weather.clone(), time)).await;
    }

    async fn blow(self, sim: Sim, time: Duration) {
        let sim = &sim;
        let end = sim.elapsed() + time;
        if self.kinds.is_empty() || self.hosts.is_empty() {
            return sleep(time).await;
        }
        loop {
            let left = end.saturating_sub(sim.elapsed());
            if left.is_zero() {
                break;
            }
            sleep(drawn(sim, self.every).min(left)).await;
            let (Some(kind), Some(one), Some(two)) =
                (pick(sim, &self.kinds), pick(sim, &self.hosts), pick(sim, &self.hosts))
            else {
                break;
            };
            let strike = strike(sim.clone(), *kind, one.clone(), two.clone(), drawn(sim, self.lasts));
            spawn_on(sim, strike);
        }
        // What is still under way ends by itself; it must not begin again what is healed here.
        sleep(self.lasts * 2).await;
        for one in &self.hosts {
            for two in &self.hosts {
                sim.direction(one, two).reset();
            }
        }
        sim.heal_all();
    }
}

fn pick<'a, T>(sim: &Sim, from: &'a [T]) -> Option<&'a T> {
    from.get(usize::try_from(sim.draw(from.len() as u64)).ok()?)
}

fn drawn(sim: &Sim, mean: Duration) -> Duration {
    Duration::from_nanos(sim.draw(nanos(mean).saturating_mul(2)))
}

async fn strike(sim: Sim, kind: Fault, one: String, two: String, lasts: Duration) {
    // Mostly both directions, sometimes one.
    let link = if sim.draw(3) > 0 { sim.link(&one, &two) } else { sim.direction(&one, &two) };
    let sizes = 1 + usize::try_from(sim.draw(64)).unwrap_or(0);
    match kind {
        Fault::Cut => return link.cut(),
        Fault::HalfClose => return sim.direction(&one, &two).half_close(),
        Fault::Delay => return link.delay(lasts),
        Fault::Stall => link.stall(),
        Fault::BlackHole => link.black_hole(),
        Fault::Partition => link.partition(),
        Fault::Refused => link.refuse(),
        Fault::Unanswered => link.leave_unanswered(),
        Fault::Slice => return shape(link.slice(1..=sizes), lasts).await,
        Fault::Coalesce => return shape(link.coalesce(Duration::from_millis(1 + sim.draw(30))), lasts).await,
        Fault::PartialWrite => return shape(link.partial_writes(true), lasts).await,
        Fault::Bandwidth => return shape(link.bandwidth(10_000 << sim.draw(8)), lasts).await,
        Fault::Backpressure => return shape(link.buffers(sizes * 64, sizes * 64), lasts).await,
        Fault::Pause => {
            sim.pause(&one);
            sleep(lasts).await;
            return sim.resume(&one);
        }
        Fault::Busy => return sim.keep_busy(&one, lasts),
        Fault::Crash => sim.crash(&one),
        Fault::PowerOff => sim.power_off(&one),
        Fault::Restart | Fault::UserTimeout => return,
    }
    sleep(lasts).await;
    match kind {
        Fault::Crash | Fault::PowerOff => sim.restart(&one),
        _ => link.heal(),
    }
}

/// A line that is like that for a while.
async fn shape(link: crate::Link, lasts: Duration) {
    sleep(lasts).await;
    link.reset();
}
