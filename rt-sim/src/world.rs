//! The executor: what is due happens, then a task runs that was woken; if there is none, the clock jumps.

use std::{
    any::Any,
    cell::RefCell,
    fmt,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll, Waker},
    time::Duration,
};

use tieline::BoxFuture;

use crate::{
    sim::Sim,
    state::{BEGINNING, State, TEST},
    stuck::Stuck,
    tasks::{MAIN, Rouser, TASKS},
    trace::What,
};

pub(crate) struct World {
    state: Mutex<State>,
    pub(crate) seed: u64,
    /// It was made because somebody outside of every simulation asked for one, and never runs.
    pub(crate) detached: bool,
}

thread_local! {
    /// The host whose task is being polled on this thread.
    static CURRENT: RefCell<Option<Sim>> = const { RefCell::new(None) };
}

/// The simulation and the host that the caller is part of.
pub(crate) fn current() -> Option<Sim> {
    CURRENT.with(|current| current.borrow().clone())
}

/// Runs `what` as a part of a host.
pub(crate) fn on<T>(sim: Sim, what: impl FnOnce() -> T) -> T {
    struct Leave(Option<Sim>);
    impl Drop for Leave {
        fn drop(&mut self) {
            let before = self.0.take();
            CURRENT.with(|current| *current.borrow_mut() = before);
        }
    }
    let _leave = Leave(CURRENT.with(|current| current.borrow_mut().replace(sim)));
    what()
}

/// Who runs next.
enum Next {
    Main,
    Task { id: u64, host: usize, future: BoxFuture<()>, waker: Waker },
    Nobody,
}

/// When a run ends, besides by its future.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Until {
    /// Its future has ended.
    Done,
    /// Every host has ended.
    AllEnded,
    /// The time has come.
    Time(u64),
}

impl World {
    pub(crate) fn new(seed: u64, detached: bool) -> Arc<Self> {
        Arc::new(Self { state: Mutex::new(State::new(seed)), seed, detached })
    }

    /// Changes the world. Those who are to be woken for it are woken outside the lock.
    pub(crate) fn with<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        let (result, wake, dropped) = {
            let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
            let result = change(&mut state);
            (result, std::mem::take(&mut state.wake), std::mem::take(&mut state.dropped))
        };
        wake.into_iter().for_each(Waker::wake);
        drop(dropped);
        result
    }

    /// Adds a task. One for a host that is not there is dropped, as everything else of it was.
    pub(crate) fn spawn(&self, host: usize, task: BoxFuture<()>) {
        let refused = self.with(|state| {
            if state.over || state.hosts.get(host).is_none_or(|host| !host.running) {
                return Some(task);
            }
            if state.tasks.all.len() >= TASKS {
                state.mistake(format!(
                    "there are {TASKS} tasks, which is the limit: does one spawn for ever?"
                ));
                return Some(task);
            }
            let ready = Arc::clone(&state.ready);
            state.tasks.add(host, task, &ready);
            None
        });
        drop(refused);
    }

    pub(crate) fn stuck(&self, at: u64, why: String) -> Stuck {
        Stuck { seed: self.seed, at: Duration::from_nanos(at.saturating_sub(BEGINNING)), why }
    }

    /// Runs until the future ends, or what else it was to run until.
    pub(crate) fn run<T>(
        self: &Arc<Self>,
        sim: &Sim,
        until: Until,
        mut main: impl FnMut(&mut Context<'_>) -> Poll<T>,
    ) -> Result<Option<T>, Stuck> {
        let begun = self.with(|state| state.now);
        if current().is_some() {
            return Err(self.stuck(begun, "a simulation cannot be run from inside of one".to_owned()));
        }
        let (ready, limit) = self.with(|state| (Arc::clone(&state.ready), state.time_limit));
        let horizon = if let Until::Time(at) = until { at } else { begun.saturating_add(limit) };
        let rouser = Rouser::new(MAIN, &ready);
        let waker = Waker::from(Arc::clone(&rouser));
        if until == Until::Done {
            waker.wake_by_ref();
        }
        let mut polls = 0;
        loop {
            while let Some(event) = self.with(|state| state.events.pop(state.now)) {
                self.with(|state| state.happen(event));
            }
            let (now, trouble, polls_left, ended) = self.with(|state| {
                let polls_left = state.poll_limit > polls;
                (state.now, state.trouble.take(), polls_left, until == Until::AllEnded && state.all_ended())
            });
            if let Some(trouble) = trouble {
                return Err(self.stuck(now, trouble));
            }
            if ended || matches!(until, Until::Time(at) if now >= at) {
                return Ok(None);
            }
            if now >= horizon {
                let why = format!("not done within the limit of {:?}", Duration::from_nanos(limit));
                return Err(self.stuck(now, why));
            }
            if !polls_left {
                let why = format!("not done within {polls} polls of tasks: does one wake itself for ever?");
                return Err(self.stuck(now, why));
            }
            match self.with(State::next) {
                Next::Main => {
                    polls += 1;
                    rouser.polled();
                    let polled = on(sim.at(TEST), || main(&mut Context::from_waker(&waker)));
                    self.with(|state| state.was_polled(MAIN));
                    if let Poll::Ready(output) = polled {
                        return Ok(Some(output));
                    }
                }
                Next::Task { id, host, future, waker } => {
                    polls += 1;
                    self.poll(sim, id, host, future, &waker)?;
                }
                Next::Nobody => match self.with(|state| state.jump(horizon)) {
                    true => {}
                    false if matches!(until, Until::Time(_)) => {}
                    false => {
                        let why = self.with(|state| state.describe_deadlock());
                        return Err(self.stuck(now, why));
                    }
                },
            }
        }
    }

    fn poll(
        &self,
        sim: &Sim,
        id: u64,
        host: usize,
        mut future: BoxFuture<()>,
        waker: &Waker,
    ) -> Result<(), Stuck> {
        let polled = on(sim.at(host), || {
            let polled =
                catch_unwind(AssertUnwindSafe(|| future.as_mut().poll(&mut Context::from_waker(waker))));
            // Its host may have crashed by its own hand.
            let rest = match polled {
                Ok(Poll::Pending) => self.with(|state| state.keep(id, future)),
                _ => Some(future),
            };
            drop(rest);
            polled
        });
        let done = !matches!(polled, Ok(Poll::Pending));
        let task = self.with(|state| {
            state.was_polled(id);
            if done { state.tasks.all.remove(&id) } else { None }
        });
        drop(task);
        match polled {
            Ok(_) => Ok(()),
            Err(panic) => {
                let (name, now) = self.with(|state| {
                    (state.hosts.get(host).map(|host| host.name.to_string()).unwrap_or_default(), state.now)
                });
                Err(self.stuck(now, format!("a task of host {name} panicked: {}", text(&*panic))))
            }
        }
    }

    /// Drops all tasks, and with them what they hold of this world.
    pub(crate) fn end(self: &Arc<Self>) {
        let (tasks, starts, events) = self.with(|state| {
            state.over = true;
            let starts: Vec<_> = state.hosts.iter_mut().filter_map(|host| host.start.take()).collect();
            (std::mem::take(&mut state.tasks.all), starts, state.events.clear())
        });
        for (_, task) in tasks {
            on(Sim::part_of(self, task.host), || drop(task));
        }
        drop(starts);
        drop(events);
    }
}

impl State {
    /// Who runs next: by chance, one of those who were woken and whose host runs.
    fn next(&mut self) -> Next {
        loop {
            let rng = &mut self.rng;
            let Some(id) = self.ready.take(|len| rng.index(len)) else { return Next::Nobody };
            let host = if id == MAIN { Some(TEST) } else { self.tasks.all.get(&id).map(|task| task.host) };
            let Some((number, host)) = host.and_then(|host| Some((host, self.hosts.get_mut(host)?))) else {
                continue;
            };
            if !host.runs(self.now) {
                host.waiting.push(id);
                continue;
            }
            if id == MAIN {
                return Next::Main;
            }
            let Some(task) = self.tasks.all.get_mut(&id) else { continue };
            if let Some(future) = task.future.take() {
                task.rouser.polled();
                return Next::Task { id, host: number, future, waker: task.waker.clone() };
            }
        }
    }

    /// A task that goes on; it comes back if there is no such task any more.
    fn keep(&mut self, id: u64, future: BoxFuture<()>) -> Option<BoxFuture<()>> {
        match self.tasks.all.get_mut(&id) {
            Some(task) => task.future.replace(future),
            None => Some(future),
        }
    }

    fn was_polled(&mut self, id: u64) {
        self.now = self.now.saturating_add(self.poll_takes);
        self.log.trace.mix(id);
        self.log.trace.mix(self.now);
    }

    /// Jumps to what is due next, but not beyond `horizon`. Whether there is anything.
    fn jump(&mut self, horizon: u64) -> bool {
        let next = self.events.next();
        self.now = self.now.max(next.unwrap_or(horizon).min(horizon));
        next.is_some()
    }

    fn describe_deadlock(&self) -> String {
        let mut why = "nothing can run and nothing is due: everybody waits for somebody".to_owned();
        for host in &self.hosts {
            if host.paused {
                why.push_str(&format!("; host {} is paused", host.name));
            }
            if !host.running {
                why.push_str(&format!("; host {} is down", host.name));
            }
        }
        why
    }

    pub(crate) fn say_started(&mut self, host: usize) {
        self.log.say(self.now, host, What::Started, 0, 0);
    }
}

/// What a panic says.
pub(crate) fn text(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "(not a text)".to_owned())
}

impl fmt::Debug for World {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("World").field("seed", &self.seed).finish_non_exhaustive()
    }
}
