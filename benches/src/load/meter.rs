//! What a run counts.
//!
//! All load comes from one thread. The counters are atomics only because tasks must be `Send`: they are
//! read and written with plain loads and stores, which cost no more than an ordinary variable.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;

use super::{Length, Mode, Plan, Report};
use crate::error::{Context, Failure, Result};
use crate::sys;

/// The longest latency that is told apart; a longer one counts as this.
const LONGEST: Duration = Duration::from_secs(100);

/// The state of both processes at one end of the measured window.
#[derive(Clone, Copy, Debug)]
struct Mark {
    at: Instant,
    completed: u64,
    client_cpu: Duration,
    server_cpu: Option<Duration>,
}

/// Counts calls and latencies between [`Meter::begin`] and [`Meter::finish`].
#[derive(Debug)]
pub struct Meter {
    plan: Plan,
    server: Option<u32>,
    /// Calls that may still begin.
    budget: AtomicU64,
    completed: AtomicU64,
    /// Tickets of an open loop that found no free caller before the end.
    not_begun: AtomicU64,
    measuring: AtomicBool,
    latencies: Mutex<Histogram<u64>>,
    marks: Mutex<(Option<Mark>, Option<Mark>)>,
}

impl Meter {
    /// `server` is the process whose processor time is charged to the calls, if it is known.
    pub fn new(plan: Plan, server: Option<u32>) -> Result<Self> {
        let longest = u64::try_from(LONGEST.as_nanos()).unwrap_or(u64::MAX);
        let latencies = Histogram::new_with_max(longest, 3).context("histogram")?;
        let budget = match plan.length {
            Length::Time { .. } => u64::MAX,
            Length::Calls(calls) => calls,
        };
        Ok(Self {
            plan,
            server,
            budget: AtomicU64::new(budget),
            completed: AtomicU64::new(0),
            not_begun: AtomicU64::new(0),
            measuring: AtomicBool::new(plan.mode != Mode::Closed),
            latencies: Mutex::new(latencies),
            marks: Mutex::new((None, None)),
        })
    }

    /// Whether one more call may begin. False once the run is over.
    #[inline]
    pub fn issue(&self) -> bool {
        let budget = self.budget.load(Relaxed);
        self.budget.store(budget.saturating_sub(1), Relaxed);
        budget > 0
    }

    /// One call has its right reply.
    #[inline]
    pub fn complete(&self) {
        self.completed.store(self.completed.load(Relaxed) + 1, Relaxed);
    }

    /// Calls completed since the start, warm-up included.
    pub fn completed(&self) -> u64 {
        self.completed.load(Relaxed)
    }

    /// The latency of one call. Outside the window it is dropped; an open loop, whose tickets say which
    /// of them belong to the window, hands in only those, and they always count.
    #[inline]
    pub fn record(&self, latency: Duration) {
        if self.measuring.load(Relaxed) {
            let nanos = u64::try_from(latency.as_nanos()).unwrap_or(u64::MAX);
            lock(&self.latencies).saturating_record(nanos);
        }
    }

    /// A measured ticket that never began, and the age that it had at the end: its latency would have
    /// been at least that.
    pub fn record_not_begun(&self, age: Duration) {
        self.not_begun.store(self.not_begun.load(Relaxed) + 1, Relaxed);
        self.record(age);
    }

    /// How many recorded latencies are above `limit`.
    #[cfg(test)]
    pub fn slower_than(&self, limit: Duration) -> u64 {
        let latencies = lock(&self.latencies);
        let limit = u64::try_from(limit.as_nanos()).unwrap_or(u64::MAX);
        latencies.len() - latencies.count_between(0, limit)
    }

    /// The measured window begins.
    pub fn begin(&self) -> Result<()> {
        lock(&self.marks).0 = Some(self.mark()?);
        self.measuring.store(true, Relaxed);
        Ok(())
    }

    /// The measured window ends, and no more calls begin.
    pub fn finish(&self) -> Result<()> {
        self.measuring.store(self.plan.mode != Mode::Closed, Relaxed);
        lock(&self.marks).1 = Some(self.mark()?);
        self.budget.store(0, Relaxed);
        Ok(())
    }

    fn mark(&self) -> Result<Mark> {
        Ok(Mark {
            at: Instant::now(),
            completed: self.completed(),
            client_cpu: sys::own_cpu()?,
            server_cpu: self.server.map(sys::cpu_of).transpose().context("the server's clock")?,
        })
    }

    /// The figures, once the run has finished.
    pub fn report(&self, target: &str) -> Result<Report> {
        let (Some(begin), Some(end)) = *lock(&self.marks) else {
            return Err(Failure::new("the run was not measured"));
        };
        let calls = end.completed - begin.completed;
        let window = end.at - begin.at;
        if calls == 0 {
            return Err(Failure::new(format!("{target} answered nothing in {window:?}")));
        }
        let a_call = |used: Duration| used.as_secs_f64() * 1e6 / calls as f64;
        let latencies = lock(&self.latencies);
        let micros = |nanos: u64| nanos as f64 / 1000.0;
        Ok(Report {
            target: target.to_owned(),
            payload: self.plan.payload,
            connections: self.plan.connections,
            in_flight: self.plan.in_flight,
            rate: match self.plan.mode {
                Mode::Closed => None,
                Mode::Open { rate } => Some(rate),
            },
            seconds: window.as_secs_f64(),
            calls,
            calls_per_second: calls as f64 / window.as_secs_f64(),
            latency_samples: latencies.len(),
            sample_every: self.plan.sample_every(),
            p50: micros(latencies.value_at_quantile(0.5)),
            p99: micros(latencies.value_at_quantile(0.99)),
            p999: micros(latencies.value_at_quantile(0.999)),
            max: micros(latencies.max()),
            not_begun: self.not_begun.load(Relaxed),
            server_cpu: begin.server_cpu.zip(end.server_cpu).map(|(a, b)| a_call(b - a)),
            client_cpu: a_call(end.client_cpu - begin.client_cpu),
        })
    }
}

/// A thread that panicked while it held one of these locks left nothing half done in it.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Moves a meter through warm-up and window, for loops that look at the clock themselves.
#[derive(Debug)]
pub struct Phases<'a> {
    meter: &'a Meter,
    length: Length,
    start: Instant,
    begun: bool,
}

impl<'a> Phases<'a> {
    /// Begins with the warm-up at `now`.
    pub fn start(meter: &'a Meter, length: Length, now: Instant) -> Result<Self> {
        let mut phases = Self { meter, length, start: now, begun: false };
        phases.go_on(now)?;
        Ok(phases)
    }

    /// Whether the run goes on at `now`.
    #[inline]
    pub fn go_on(&mut self, now: Instant) -> Result<bool> {
        let (warmup, over) = match self.length {
            Length::Time { warmup, window } => (warmup, now - self.start >= warmup + window),
            Length::Calls(calls) => (Duration::ZERO, self.meter.completed() >= calls),
        };
        if !self.begun && now - self.start >= warmup {
            self.begun = true;
            self.meter.begin()?;
        }
        if self.begun && over {
            self.meter.finish()?;
        }
        Ok(!(self.begun && over))
    }
}

/// Picks the calls whose latency is taken: one in `every`, at another place for each caller, so that all
/// places of a batch are seen.
#[derive(Clone, Copy, Debug)]
pub struct Sampler {
    every: u32,
    left: u32,
}

impl Sampler {
    /// One in `every`, at the place of this caller.
    pub fn new(every: u32, caller: usize) -> Self {
        let place = caller % every.max(1) as usize;
        Self { every, left: u32::try_from(place).unwrap_or(0) }
    }

    /// Whether this call's latency is taken.
    #[inline]
    pub fn take(&mut self) -> bool {
        if self.left == 0 {
            self.left = self.every - 1;
            true
        } else {
            self.left -= 1;
            false
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn plan(length: Length) -> Plan {
        Plan { payload: 64, connections: 1, in_flight: 1, mode: Mode::Closed, length }
    }

    #[test]
    fn a_sampler_takes_one_in_so_many_and_callers_differ_in_their_place() {
        let mut first = Vec::new();
        for caller in 0..32 {
            let mut sampler = Sampler::new(16, caller);
            let taken: Vec<usize> = (0..160).filter(|_| sampler.take()).collect();
            assert_eq!(taken.len(), 10);
            assert!(taken.windows(2).all(|pair| pair[1] - pair[0] == 16));
            first.push(taken[0]);
        }
        first.sort_unstable();
        first.dedup();
        assert_eq!(first.len(), 16);
    }

    #[test]
    fn only_the_window_counts() {
        let (warmup, window) = (Duration::from_secs(1), Duration::from_secs(2));
        let length = Length::Time { warmup, window };
        let meter = Meter::new(plan(length), Some(std::process::id())).unwrap();
        let start = Instant::now();
        let mut phases = Phases::start(&meter, length, start).unwrap();
        for (second, latency) in [(0, 900), (1, 5), (2, 7), (3, 800), (4, 700)] {
            let go_on = phases.go_on(start + Duration::from_secs(second)).unwrap();
            assert_eq!(go_on, second < 3);
            if go_on {
                assert!(meter.issue());
                meter.complete();
            }
            meter.record(Duration::from_micros(latency));
        }
        assert!(!meter.issue());
        let report = meter.report("x").unwrap();
        assert_eq!((report.calls, report.latency_samples), (2, 2));
        assert!(report.max > 6.9 && report.max < 7.1);
        assert!(report.server_cpu.is_some());
    }

    #[test]
    fn a_run_of_calls_issues_exactly_those() {
        let length = Length::Calls(3);
        let meter = Meter::new(plan(length), None).unwrap();
        let now = Instant::now();
        let mut phases = Phases::start(&meter, length, now).unwrap();
        let mut issued = 0;
        while phases.go_on(now).unwrap() {
            assert!(meter.issue());
            issued += 1;
            meter.complete();
        }
        assert_eq!((issued, meter.issue()), (3, false));
        assert_eq!(meter.report("x").unwrap().calls, 3);
    }

    #[test]
    fn a_target_that_answers_nothing_has_no_figures() {
        let meter = Meter::new(plan(Length::Calls(1)), None).unwrap();
        meter.begin().unwrap();
        meter.finish().unwrap();
        assert!(meter.report("x").is_err());
    }
}
