//! The loop: one thread, one poller, an application and tasks.

use std::{fmt, future::Future, hint, io, mem, pin::pin, sync::Arc, task::Poll, time::Duration};

use mio::{Events, Poll as Poller};
use tieline::Instant;

use crate::{
    app::App,
    clock,
    handle::{Handle, Jobs},
    net::{Net, Place},
    poller::{Named, WAKER, named},
    shared::{Entered, Shared, lock},
    tasks::{MainWaker, Tasks},
    turn::{contain, turn},
};

/// Events of the poller in one turn. Those that do not fit come in the next.
const EVENTS: usize = 1024;

/// A loop over listeners, connections, timers and tasks, which one thread drives.
///
/// `A` is the application of the direct layer; `()` is none, for a loop that only runs tasks. Drive it with
/// [`run`](Self::run), which ends when somebody stops it; with [`block_on`](Self::block_on), until a future is done; or
/// turn by turn with [`turn`](Self::turn).
///
/// A turn sleeps until something happens, and then gives everybody who has something to do their turn: connections by
/// their numbers, going round, each with a bounded amount of octets; then tasks. It costs what those cost who have
/// something to do, however many others there are.
pub struct Loop<A: App> {
    poller: Poller,
    events: Events,
    /// The poller was asked in the turn before.
    asked: bool,
    app: A,
    net: Net<A::User>,
    tasks: Tasks,
    jobs: Arc<Jobs<A>>,
    shared: Arc<Shared>,
    busy: Duration,
}

impl<A: App> Loop<A> {
    /// A loop without connections.
    ///
    /// # Errors
    /// The system has no poller left.
    pub fn new(app: A) -> io::Result<Self> {
        let poller = Poller::new()?;
        let waker = mio::Waker::new(poller.registry(), WAKER)?;
        let shared = Shared::new(poller.registry(), waker)?;
        let net = Net::new(Arc::clone(&shared));
        Ok(Self {
            events: Events::with_capacity(EVENTS),
            asked: false,
            app,
            net,
            tasks: Tasks::new(Arc::clone(&shared)),
            jobs: Arc::default(),
            poller,
            shared,
            busy: Duration::ZERO,
        })
    }

    /// Asks the poller again and again for so long, before each time that it would sleep. An answer that comes within
    /// that time is there sooner, by what it takes to wake a thread; in exchange a core is never idle. Default: not at
    /// all. For threads that have a core of their own.
    #[must_use]
    pub const fn busy_poll(mut self, spell: Duration) -> Self {
        self.busy = spell;
        self
    }

    /// The application.
    pub const fn app(&mut self) -> &mut A {
        &mut self.app
    }

    /// The connections, to begin something before the loop runs or between its turns.
    pub fn net(&mut self) -> &mut Net<A::User> {
        self.net.now = self.net.now.max(clock::now());
        &mut self.net
    }

    /// The application and the connections, for what is begun between turns. A panic goes on to the caller.
    pub fn with<T>(&mut self, act: impl FnOnce(&mut A, &mut Net<A::User>) -> T) -> T {
        self.net();
        act(&mut self.app, &mut self.net)
    }

    /// Reaches this loop from other threads.
    #[must_use]
    pub fn handle(&self) -> Handle<A> {
        Handle::new(Arc::clone(&self.shared), Arc::clone(&self.jobs))
    }

    /// Makes `within` run as if it were in a turn of this loop: [`Client`](crate::Client) and
    /// [`Server`](crate::Server) that are made there are on it.
    pub fn enter<T>(&mut self, within: impl FnOnce() -> T) -> T {
        let _entered = Entered::new(&self.shared);
        within()
    }

    /// How many tasks there are.
    #[must_use]
    pub fn tasks(&self) -> usize {
        self.tasks.len()
    }

    /// Turns until [`Net::stop`] or [`Handle::stop`] is called; if it was before, once.
    ///
    /// # Errors
    /// The poller failed, which no connection can bring about.
    pub fn run(&mut self) -> io::Result<()> {
        loop {
            self.turn(None)?;
            if self.shared.take_stopped() {
                return Ok(());
            }
        }
    }

    /// Turns until `future` is done; tasks and the application have their turns meanwhile. Stopping does not end it.
    ///
    /// # Errors
    /// As [`run`](Self::run).
    pub fn block_on<F: Future>(&mut self, future: F) -> io::Result<F::Output> {
        let mut future = pin!(future);
        let waker = MainWaker::new(&self.shared);
        loop {
            if let Poll::Ready(output) = waker.poll(future.as_mut()) {
                return Ok(output);
            }
            self.turn(None)?;
        }
    }

    /// Closes the listeners, drains every connection of the direct layer, and turns until the last of them is gone: at
    /// the latest after `grace` and a few seconds for octets to go out. Tasks are not waited for: those of a
    /// [`Server`](crate::Server) are ended by its own `shutdown`.
    ///
    /// # Errors
    /// As [`run`](Self::run).
    pub fn shutdown(&mut self, grace: Duration) -> io::Result<()> {
        self.net().drain_all(grace, "the node shuts down");
        // After the grace a connection has a second to write and a second to linger: that bound is the core's.
        while !self.net.is_empty() {
            self.turn(None)?;
        }
        Ok(())
    }

    /// One turn: sleeps until something happens, but not longer than `most`, and acts on all that has.
    ///
    /// # Errors
    /// As [`run`](Self::run).
    pub fn turn(&mut self, most: Option<Duration>) -> io::Result<()> {
        self.wait(most)?;
        let now = clock::now().max(self.net.now);
        self.net.now = now;
        self.net.counters.turns += 1;
        let _entered = Entered::new(&self.shared);
        self.note();
        let pending = self.shared.take_pending();
        if pending {
            self.do_jobs();
        }
        self.expire(now);
        // Everybody who is ready now, once; who becomes ready meanwhile comes in the next turn.
        let ready = self.net.ready.len();
        self.net.alone = ready == 1;
        for _ in 0..ready {
            let Some(number) = self.net.ready.pop() else { break };
            turn(&mut self.app, &mut self.net, number);
        }
        // Whoever spawns or wakes a task says so.
        if pending || self.shared.has_pending() {
            self.tasks.run();
        }
        Ok(())
    }

    /// Waits for the poller, unless there is something to do already: then it is only asked, and not in two turns out of
    /// two. What is begun between turns goes out without a call of the system more, and what arrives waits for one turn of
    /// those who are ready.
    fn wait(&mut self, most: Option<Duration>) -> io::Result<()> {
        if !self.net.ready.is_empty() || self.shared.has_pending() {
            if mem::take(&mut self.asked) {
                return Ok(());
            }
            self.asked = true;
            return self.poll(Some(Duration::ZERO));
        }
        self.asked = true;
        self.net.counters.sleeps += 1;
        if !self.busy.is_zero() && self.spin(most)? {
            return Ok(());
        }
        let timeout = self.until_next(clock::now(), most);
        // What comes from other threads from here on wakes the poller.
        if !self.shared.may_sleep() {
            return self.poll(Some(Duration::ZERO));
        }
        let polled = self.poll(timeout);
        self.shared.awake();
        polled
    }

    /// Asks again and again, for as long as it is told to and nothing is due. Whether there is something to do.
    fn spin(&mut self, most: Option<Duration>) -> io::Result<bool> {
        let start = clock::now();
        let least = self.until_next(start, most).map_or(self.busy, |next| next.min(self.busy));
        loop {
            self.poll(Some(Duration::ZERO))?;
            if !self.events.is_empty() || self.shared.has_pending() {
                return Ok(true);
            }
            if clock::now().saturating_since(start) >= least {
                // What was due may be so now.
                return Ok(least < self.busy);
            }
            hint::spin_loop();
        }
    }

    /// How long nothing is due.
    fn until_next(&self, now: Instant, most: Option<Duration>) -> Option<Duration> {
        let net = &self.net;
        let next = [net.deadlines.next(), net.timer_deadlines.next(), self.shared.timers.next()];
        let next = next.into_iter().flatten().min().map(|next| next.saturating_since(now));
        match (next, most) {
            (Some(next), Some(most)) => Some(next.min(most)),
            (next, most) => next.or(most),
        }
    }

    fn poll(&mut self, timeout: Option<Duration>) -> io::Result<()> {
        match self.poller.poll(&mut self.events, timeout) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {
                self.events.clear();
                Ok(())
            }
            polled => polled,
        }
    }

    /// Takes note of what the poller tells.
    fn note(&mut self) {
        for event in &self.events {
            match named(event.token()) {
                Named::Direct(number) => match self.net.place(number) {
                    Some(Place::Conn(driven)) => {
                        driven.note(event);
                        self.net.ready.insert(number);
                    }
                    Some(Place::Listener(_)) => {
                        self.net.ready.insert(number);
                    }
                    // It was forgotten after the poller had noticed it.
                    None => {}
                },
                Named::Task(number) => {
                    let source = lock(&self.shared.sources).get_mut(number).cloned();
                    if let Some(source) = source {
                        source.note(event);
                    }
                }
                Named::Waker => {}
            }
        }
        self.events.clear();
    }

    /// Does what other threads asked for.
    fn do_jobs(&mut self) {
        for job in self.jobs.take() {
            contain(&mut self.app, &mut self.net, job);
        }
    }

    /// Gives a turn to those whose time has come.
    fn expire(&mut self, now: Instant) {
        let net = &mut self.net;
        if net.deadlines.next().is_some_and(|next| next <= now) {
            let ready = &mut net.ready;
            net.deadlines.expire(now, |number| {
                ready.insert(number);
            });
        }
        if net.timer_deadlines.next().is_some_and(|next| next <= now) {
            let mut come = Vec::new();
            net.timer_deadlines.expire(now, |number| come.push(number));
            // Named before any is told of: what is set meanwhile may get the number of one that has come.
            let come: Vec<_> = come.into_iter().filter_map(|number| net.take_timer(number)).collect();
            for timer in come {
                contain(&mut self.app, &mut self.net, |app, net| app.timer(net, timer));
            }
        }
        if self.shared.timers.next().is_some_and(|next| next <= now) {
            self.shared.timers.fire(now);
        }
    }
}

/// Tasks are dropped with their loop, and so are its connections: nobody is told any more but by the drop of what they
/// hold.
impl<A: App> Drop for Loop<A> {
    fn drop(&mut self) {
        self.tasks.end();
        drop(self.jobs.end());
    }
}

impl<A: App> fmt::Debug for Loop<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Loop")
            .field("net", &self.net)
            .field("tasks", &self.tasks.len())
            .finish_non_exhaustive()
    }
}

/// Turns a loop of its own on this thread until `future` is done. Whatever it spawned and is not done by then is
/// dropped.
///
/// ```
/// use tieline_mio::{Client, Server, block_on};
///
/// block_on(async {
///     let server = Server::builder("node-2")
///         .method("demo.Text/Upper", |_cx, body| async move { Ok(body.to_ascii_uppercase()) })
///         .listen("127.0.0.1:0")
///         .await?;
///     let client = Client::connect(server.address()).await?;
///     assert_eq!(client.call("demo.Text/Upper", "hello").await?.payload, "HELLO");
///     Ok::<(), Box<dyn std::error::Error>>(())
/// })?
/// # .map_err(|error| std::io::Error::other(error.to_string()))?;
/// # Ok::<(), std::io::Error>(())
/// ```
///
/// # Errors
/// The system has no poller left.
pub fn block_on<F: Future>(future: F) -> io::Result<F::Output> {
    Loop::new(())?.block_on(future)
}
