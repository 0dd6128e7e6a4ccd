//! The simulation as a test sees it: hosts, runs, and what is known afterwards.

use std::{fmt, future::Future, pin::pin, sync::Arc, time::Duration};

use crate::{
    fault::Faults,
    link::Link,
    state::{BEGINNING, Ended, Start, TEST},
    stuck::{Stuck, replay},
    trace::Entry,
    world::{Until, World, current, on},
};

/// A world of hosts in virtual time, and the [`Runtime`](tieline::Runtime) of whatever runs on them.
///
/// Inside of a host's future `Sim::default()` is the same world, seen from that host; [`Client`](crate::Client) and
/// [`Server`](crate::Server) take it by themselves. The world ends, and all its tasks are dropped, with the `Sim` that
/// [`new`](Self::new) has made; clones do not keep it alive, so that hosts may hold some.
pub struct Sim {
    pub(crate) world: Arc<World>,
    pub(crate) host: usize,
    _owner: Option<Owner>,
}

/// Ends the world.
struct Owner(Arc<World>);

impl Drop for Owner {
    fn drop(&mut self) {
        if std::thread::panicking() {
            complain(&self.0, "the test failed");
        }
        self.0.end();
    }
}

/// Tells how to see a failure again, where the test harness shows it.
#[allow(clippy::print_stderr, reason = "the output of a test that has failed")]
pub(crate) fn complain(world: &World, what: &str) {
    const SHOWN: usize = 40;
    let (now, entries, faults) = world.with(|state| {
        let trace = &state.log.trace;
        let entries: Vec<Entry> =
            trace.entries().skip(trace.entries().len().saturating_sub(SHOWN)).cloned().collect();
        (state.now, entries, state.log.faults.clone())
    });
    eprintln!("\nthe last of the trace:");
    for entry in entries {
        eprintln!("{entry}");
    }
    let at = Duration::from_nanos(now.saturating_sub(BEGINNING));
    eprintln!("{what} after {at:?} of virtual time with the seed {}; faults: {faults}", world.seed);
    eprintln!("again: {}\n", replay(world.seed));
}

impl Sim {
    /// A world with no hosts but the one of the test itself, `test`. Everything that is decided by chance in it follows
    /// from `seed`: the order in which tasks run, latencies, the sizes of pieces, and what hosts draw.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        let world = World::new(seed, false);
        Self { world: Arc::clone(&world), host: TEST, _owner: Some(Owner(world)) }
    }

    pub(crate) fn part_of(world: &Arc<World>, host: usize) -> Self {
        Self { world: Arc::clone(world), host, _owner: None }
    }

    /// The same world, seen from another host.
    pub(crate) fn at(&self, host: usize) -> Self {
        Self::part_of(&self.world, host)
    }

    /// The seed that it was made with.
    #[must_use]
    pub fn seed_of_run(&self) -> u64 {
        self.world.seed
    }

    /// Adds a host and starts it: what `start` makes is its first task, and everything that it spawns, dials and listens
    /// at belongs to it. Its addresses are `name:port`. After a [`crash`](Self::crash), [`restart`](Self::restart)
    /// calls `start` again.
    ///
    /// If the task ends with an error the run ends with it. A name that is taken, is empty or has a colon is a mistake
    /// that ends the run as well.
    pub fn host<F, Fut>(&self, name: &str, start: F)
    where
        F: Fn() -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Ended> + Send + 'static,
    {
        let start: Start = Arc::new(move || Box::pin(start()));
        let added = self.world.with(|state| {
            let numeric = name.bytes().all(|octet| octet.is_ascii_digit() || octet == b'.');
            if name == "localhost" || name.contains(':') || numeric || state.find(name).is_some() {
                state.mistake(format!(
                    "a host cannot be called {name:?}, or there is one of that name already"
                ));
                return None;
            }
            Some(state.add_host(name, Some(start)))
        });
        if let Some(host) = added {
            self.start(host);
        }
    }

    fn start(&self, host: usize) {
        let started = self.world.with(|state| {
            state.say_started(host);
            let host = state.hosts.get(host)?;
            Some((host.start.clone()?, host.incarnation))
        });
        let Some((start, incarnation)) = started else { return };
        let sim = self.at(host);
        let first = async move {
            let how = start().await;
            sim.world.with(|state| state.ended(sim.host, incarnation, how));
        };
        self.world.spawn(host, Box::pin(first));
    }

    /// Runs the world until `future` has ended, as a part of the host `test`, and returns what it returns. The other
    /// tasks stay as they are, for the next run.
    ///
    /// # Errors
    /// [`Stuck`].
    pub fn run_until<F: Future>(&self, future: F) -> Result<F::Output, Stuck> {
        let mut future = pin!(future);
        let output = self.world.run(self, Until::Done, |cx| future.as_mut().poll(cx))?;
        output.ok_or_else(|| self.stuck("the run ended before its future"))
    }

    /// Runs the world until the first task of every host has ended, or its host is down.
    ///
    /// # Errors
    /// [`Stuck`].
    pub fn run(&self) -> Result<(), Stuck> {
        self.world.run(self, Until::AllEnded, |_| std::task::Poll::<()>::Pending).map(|_| ())
    }

    /// Runs the world for so long.
    ///
    /// # Errors
    /// [`Stuck`], except that nothing has to be due.
    pub fn run_for(&self, duration: Duration) -> Result<(), Stuck> {
        let until = self.world.with(|state| state.now.saturating_add(nanos(duration)));
        self.world.run(self, Until::Time(until), |_| std::task::Poll::<()>::Pending).map(|_| ())
    }

    fn stuck(&self, why: &str) -> Stuck {
        self.world.stuck(self.world.with(|state| state.now), why.to_owned())
    }

    /// How long the world has run, in virtual time.
    #[must_use]
    pub fn elapsed(&self) -> Duration {
        Duration::from_nanos(self.world.with(|state| state.now.saturating_sub(BEGINNING)))
    }

    /// How long one run may take, in virtual time. Default one hour.
    pub fn time_limit(&self, limit: Duration) {
        self.world.with(|state| state.time_limit = nanos(limit));
    }

    /// How much virtual time passes while a task is polled once. Default 1 µs: with none at all, whoever waits by
    /// looking again and again would wait for ever.
    pub fn poll_takes(&self, time: Duration) {
        self.world.with(|state| state.poll_takes = nanos(time));
    }

    /// Both directions between two hosts: what they are like, and what goes wrong there. A host may be linked to itself.
    #[must_use]
    pub fn link(&self, one: &str, other: &str) -> Link {
        Link::new(self, &[(one, other), (other, one)])
    }

    /// One direction between two hosts.
    #[must_use]
    pub fn direction(&self, from: &str, to: &str) -> Link {
        Link::new(self, &[(from, to)])
    }

    /// What hosts are connected by if nothing was said about it; it is for those lines that nobody has used or named so
    /// far.
    #[must_use]
    pub fn usual_link(&self) -> Link {
        Link::usual(self)
    }

    /// Shorthand for [`link`](Self::link) and [`partition`](Link::partition).
    pub fn partition(&self, one: &str, other: &str) {
        self.link(one, other).partition();
    }

    /// Shorthand for [`link`](Self::link) and [`heal`](Link::heal).
    pub fn heal(&self, one: &str, other: &str) {
        self.link(one, other).heal();
    }

    /// Heals every line, and resumes and restarts every host.
    pub fn heal_all(&self) {
        let hosts = self.world.with(|state| {
            let ends: Vec<(usize, usize)> = state.lines.keys().copied().collect();
            for (from, to) in ends {
                state.line(from, to).heal();
                state.release(from, to);
            }
            let hosts = 0..state.hosts.len();
            hosts.clone().for_each(|host| state.resume(host));
            hosts
        });
        for host in hosts {
            self.restart_host(host);
        }
    }

    /// Stops a host as SIGSTOP does: none of its tasks runs. Its kernel goes on taking and acknowledging octets, and when
    /// it is [resumed](Self::resume), all its timers are late at once.
    pub fn pause(&self, host: &str) {
        self.world.with(|state| state.named(host).map(|host| state.pause(host)));
    }

    /// Lets a host go on.
    pub fn resume(&self, host: &str) {
        self.world.with(|state| state.named(host).map(|host| state.resume(host)));
    }

    /// Lets a host compute for so long and do nothing else meanwhile, as [`compute`](crate::compute) does from inside.
    pub fn keep_busy(&self, host: &str, time: Duration) {
        self.world.with(|state| state.named(host).map(|host| state.compute(host, nanos(time))));
    }

    /// Ends a host's process as SIGKILL does: its tasks are dropped, its kernel resets what it had open and refuses new
    /// connections.
    pub fn crash(&self, host: &str) {
        self.stop(host, false);
    }

    /// Ends a host as if the plug was pulled: its tasks are dropped, nobody is told, and nobody answers.
    pub fn power_off(&self, host: &str) {
        self.stop(host, true);
    }

    fn stop(&self, host: &str, off: bool) {
        let stopped = self.world.with(|state| {
            let host = state.named(host)?;
            if host == TEST {
                state.mistake("the host of the test itself cannot crash".to_owned());
                return None;
            }
            Some((host, state.stop(host, off)))
        });
        if let Some((host, tasks)) = stopped {
            on(self.at(host), || drop(tasks));
        }
    }

    /// Starts a host again that has crashed or was powered off. Connections from before are reset when their peers send.
    pub fn restart(&self, host: &str) {
        if let Some(host) = self.world.with(|state| state.named(host)) {
            self.restart_host(host);
        }
    }

    fn restart_host(&self, host: usize) {
        if self.world.with(|state| state.restart(host)) {
            self.start(host);
        }
    }

    /// How often faults fired, by kind.
    #[must_use]
    pub fn faults(&self) -> Faults {
        self.world.with(|state| state.log.faults.clone())
    }

    /// Connections that at least one end has open, or that are being dialled.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.world.with(|state| state.conns.len())
    }

    /// The last few thousand things that happened, the oldest first.
    #[must_use]
    pub fn trace(&self) -> Vec<Entry> {
        self.world.with(|state| state.log.trace.entries().cloned().collect())
    }

    /// How many things have happened, those that the trace has forgotten too.
    #[must_use]
    pub fn happened(&self) -> u64 {
        self.world.with(|state| state.log.trace.count())
    }

    /// A hash of everything that has happened so far, in its order and with its times. Two runs of the same program with
    /// the same seed have the same; if not, something in the program depends on more than the seed.
    #[must_use]
    pub fn hash(&self) -> u64 {
        self.world.with(|state| state.log.trace.hash())
    }

    /// A number below `bound`, by chance; 0 if `bound` is 0. It follows from the seed.
    #[must_use]
    pub fn draw(&self, bound: u64) -> u64 {
        self.world.with(|state| state.rng.below(bound))
    }

    /// Ends the run that is under way, if the caller is a part of one, with this as the reason; otherwise the next run
    /// begins and ends with it.
    pub fn fail(&self, why: &str) {
        self.world.with(|state| state.mistake(why.to_owned()));
    }
}

pub(crate) fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// The world and the host that the caller is a part of. Outside of every simulation it is an empty world that nobody
/// runs: dialling and listening fail in it, and say so.
impl Default for Sim {
    fn default() -> Self {
        current().unwrap_or_else(|| {
            let world = World::new(0, true);
            Self { world: Arc::clone(&world), host: TEST, _owner: Some(Owner(world)) }
        })
    }
}

impl Clone for Sim {
    fn clone(&self) -> Self {
        self.at(self.host)
    }
}

impl fmt::Debug for Sim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sim").field("seed", &self.world.seed).field("elapsed", &self.elapsed()).finish()
    }
}
