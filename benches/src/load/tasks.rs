//! Load on asynchronous targets: each caller is a task of a current_thread runtime.

use std::collections::VecDeque;
use std::future::{Future, poll_fn};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Poll, Waker};
use std::time::Instant;

use bytes::Bytes;
use tokio::runtime::Builder;
use tokio::task::{JoinSet, yield_now};
use tokio::time::{sleep, timeout};

use super::{GRACE, Length, Meter, Mode, Payloads, Plan, Sampler, Schedule, Verifier};
use crate::error::{Failure, Result};

/// The client side of an asynchronous target: one connection. Clones share the connection.
pub trait Caller: Clone + Send + Sync + 'static {
    /// One call: the payload goes out, the reply's payload comes back.
    fn call(&self, payload: Bytes) -> impl Future<Output = Result<Bytes>> + Send;

    /// Where a task that calls runs: on the load generator's own runtime, unless the connection is on another one.
    fn place<F>(future: F) -> impl Future<Output = F::Output> + Send + 'static
    where
        F: Future<Output: Send> + Send + 'static,
    {
        future
    }
}

/// Runs `plan` with one caller from `connect` for each connection.
pub fn drive<C, F>(plan: &Plan, meter: &Arc<Meter>, mut connect: impl FnMut() -> F) -> Result<()>
where
    C: Caller,
    F: Future<Output = Result<C>>,
{
    Builder::new_current_thread().enable_all().build()?.block_on(async {
        let mut connections = Vec::with_capacity(plan.connections);
        for _ in 0..plan.connections {
            connections.push(connect().await?);
        }
        run(plan, meter, &connections).await
    })
}

async fn run<C: Caller>(plan: &Plan, meter: &Arc<Meter>, connections: &[C]) -> Result<()> {
    let payloads = Payloads::new(plan.payload, plan.callers());
    // Neighbours in the order of callers are on different connections.
    let callers = (0..plan.in_flight).flat_map(|_| connections).cloned();
    let workers = callers.enumerate().map(|(index, caller)| Worker {
        caller,
        payload: payloads.of(index),
        sampler: Sampler::new(plan.sample_every(), index),
        verifier: Verifier::default(),
        meter: Arc::clone(meter),
    });
    let mut tasks = JoinSet::new();
    match (plan.mode, plan.length) {
        (Mode::Closed, Length::Time { warmup, window }) => {
            for worker in workers {
                tasks.spawn(C::place(worker.closed()));
            }
            sleep(warmup).await;
            meter.begin()?;
            sleep(window).await;
            meter.finish()?;
            settle(tasks).await
        }
        (Mode::Closed, Length::Calls(_)) => {
            meter.begin()?;
            for worker in workers {
                tasks.spawn(C::place(worker.closed()));
            }
            while let Some(ended) = tasks.join_next().await {
                ended.map_err(|_| panicked())??;
            }
            meter.finish()
        }
        (Mode::Open { rate }, Length::Time { warmup, window }) => {
            let schedule = Schedule::new(Instant::now(), rate, warmup, window);
            let gate = Arc::new(Gate::default());
            for worker in workers {
                tasks.spawn(C::place(worker.open(schedule.clone(), Arc::clone(&gate))));
            }
            let start = schedule.intended(0);
            let mut begun = false;
            loop {
                let now = Instant::now();
                if !begun && now - start >= warmup {
                    begun = true;
                    meter.begin()?;
                }
                gate.release(schedule.due(now));
                // The callers go before the end is looked at, so that the last tickets have their chance.
                yield_now().await;
                if begun && now - start >= warmup + window {
                    break;
                }
            }
            meter.finish()?;
            let end = Instant::now();
            for ticket in gate.close() {
                if schedule.is_measured(ticket) {
                    meter.record_not_begun(end - schedule.intended(ticket));
                }
            }
            settle(tasks).await
        }
        (Mode::Open { .. }, Length::Calls(_)) => Err(Failure::new("an open loop runs for a time")),
    }
}

fn panicked() -> Failure {
    Failure::new("a caller panicked")
}

/// Waits for the calls that are open.
async fn settle(mut tasks: JoinSet<Result<()>>) -> Result<()> {
    let all = async {
        while let Some(ended) = tasks.join_next().await {
            ended.map_err(|_| panicked())??;
        }
        Ok(())
    };
    match timeout(GRACE, all).await {
        Ok(ended) => ended,
        Err(_) => {
            Err(Failure::new(format!("{} calls without an answer {GRACE:?} after the end", tasks.len())))
        }
    }
}

/// One caller.
struct Worker<C> {
    caller: C,
    payload: Bytes,
    sampler: Sampler,
    verifier: Verifier,
    meter: Arc<Meter>,
}

impl<C: Caller> Worker<C> {
    async fn closed(mut self) -> Result<()> {
        while self.meter.issue() {
            if self.sampler.take() {
                let start = Instant::now();
                self.call().await?;
                self.meter.record(start.elapsed());
            } else {
                self.call().await?;
            }
        }
        Ok(())
    }

    async fn open(mut self, schedule: Schedule, gate: Arc<Gate>) -> Result<()> {
        while let Some(ticket) = gate.take().await {
            self.call().await?;
            if schedule.is_measured(ticket) {
                self.meter.record(schedule.intended(ticket).elapsed());
            }
        }
        Ok(())
    }

    async fn call(&mut self) -> Result<()> {
        let reply = self.caller.call(self.payload.clone()).await?;
        if !self.verifier.matches(&self.payload, &reply) {
            return Err(Failure::new("a reply is not what was sent"));
        }
        self.meter.complete();
        Ok(())
    }
}

/// Where the callers of an open loop wait for their next ticket.
#[derive(Debug, Default)]
struct Gate(Mutex<Tickets>);

#[derive(Debug, Default)]
struct Tickets {
    due: u64,
    taken: u64,
    closed: bool,
    /// In the order in which they became free, so that all connections are used alike.
    idle: VecDeque<Waker>,
}

impl Gate {
    fn lock(&self) -> MutexGuard<'_, Tickets> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// All tickets below `due` may begin.
    fn release(&self, due: u64) {
        let mut tickets = self.lock();
        tickets.due = due;
        let free = usize::try_from(due - tickets.taken).unwrap_or(usize::MAX);
        let count = free.min(tickets.idle.len());
        for waker in tickets.idle.drain(..count) {
            waker.wake();
        }
    }

    /// The next ticket, `None` once the gate is closed.
    async fn take(&self) -> Option<u64> {
        poll_fn(|context| {
            let mut tickets = self.lock();
            if tickets.closed {
                return Poll::Ready(None);
            }
            if tickets.taken < tickets.due {
                tickets.taken += 1;
                return Poll::Ready(Some(tickets.taken - 1));
            }
            tickets.idle.push_back(context.waker().clone());
            Poll::Pending
        })
        .await
    }

    /// Sends all who wait home, and returns the tickets that were due and not taken.
    fn close(&self) -> std::ops::Range<u64> {
        let mut tickets = self.lock();
        tickets.closed = true;
        for waker in tickets.idle.drain(..) {
            waker.wake();
        }
        tickets.taken..tickets.due
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
    use std::time::Duration;

    /// Answers at once; stalls, or is silent, or answers wrongly, at one call.
    #[derive(Clone, Debug)]
    struct Fake {
        calls: Arc<AtomicU64>,
        at: u64,
        fault: Fault,
    }

    #[derive(Clone, Copy, Debug)]
    enum Fault {
        Stall(Duration),
        WrongReply,
    }

    impl Caller for Fake {
        async fn call(&self, payload: Bytes) -> Result<Bytes> {
            yield_now().await;
            if self.calls.fetch_add(1, Relaxed) == self.at {
                match self.fault {
                    Fault::Stall(time) => std::thread::sleep(time),
                    Fault::WrongReply => return Ok(Bytes::from_static(b"no")),
                }
            }
            Ok(payload)
        }
    }

    fn plan(mode: Mode, length: Length) -> Plan {
        Plan { payload: 64, connections: 2, in_flight: 4, mode, length }
    }

    fn run_fake(plan: Plan, at: u64, fault: Fault) -> (Result<()>, Arc<Meter>) {
        let meter = Arc::new(Meter::new(plan, None).unwrap());
        let calls = Arc::new(AtomicU64::new(0));
        let result = drive(&plan, &meter, || {
            let fake = Fake { calls: Arc::clone(&calls), at, fault };
            async move { Ok(fake) }
        });
        (result, meter)
    }

    /// A stall of 100 ms at 1000 calls a second delays about 100 calls, of which about 50 by 50 ms or
    /// more. A generator that measured from the real start would show at most 8 of them, those in flight.
    #[test]
    fn an_open_loop_charges_a_stall_to_all_that_it_delayed() {
        let length = Length::Time { warmup: Duration::ZERO, window: Duration::from_millis(400) };
        let plan = plan(Mode::Open { rate: 1000 }, length);
        let stall = Duration::from_millis(100);
        let (result, meter) = run_fake(plan, 100, Fault::Stall(stall));
        result.unwrap();
        let report = meter.report("fake").unwrap();
        assert_eq!(report.latency_samples, 400, "every ticket has a latency");
        assert!(report.max >= 99_000.0);
        assert!(report.p999 >= 90_000.0);
        assert!(meter.slower_than(Duration::from_millis(50)) >= 45);
    }

    #[test]
    fn a_run_of_calls_makes_exactly_those() {
        let (result, meter) = run_fake(plan(Mode::Closed, Length::Calls(1003)), u64::MAX, Fault::WrongReply);
        result.unwrap();
        assert_eq!(meter.report("fake").unwrap().calls, 1003);
    }

    #[test]
    fn a_wrong_reply_fails_the_run() {
        let (result, _) = run_fake(plan(Mode::Closed, Length::Calls(1000)), 500, Fault::WrongReply);
        assert!(result.is_err());
    }

    #[test]
    fn tickets_that_found_no_caller_are_recorded_by_their_age() {
        let length = Length::Time { warmup: Duration::ZERO, window: Duration::from_millis(100) };
        let plan = plan(Mode::Open { rate: 1000 }, length);
        // The stall outlasts the window, so that most tickets are never begun. However late the machine is, five calls go
        // before the one that stalls, and each of the eight callers makes one beside it and one or two behind it.
        let (result, meter) = run_fake(plan, 5, Fault::Stall(Duration::from_millis(200)));
        result.unwrap();
        let report = meter.report("fake").unwrap();
        assert_eq!(report.latency_samples, 100);
        assert!(report.not_begun >= 60, "{report}");
    }
}
