//! The connections, listeners and timers of a loop. What is done to connections stands in `verbs.rs`.

use std::{collections::VecDeque, fmt, io, net::ToSocketAddrs, sync::Arc, time::Duration};

use mio::Registry;
use tieline::{Address, BoxFuture, Instant, Outbox, Runtime};
use tieline_core::{
    conn::{CallId, Config, Connection, PeerInfo, Side, Stats},
    drive::{DeadlineIndex, ReadySet},
    wire::Status,
};

use crate::{
    accept::Listener,
    clock,
    driven::Driven,
    listener::Listening,
    poller::direct,
    runtime::Mio,
    shared::Shared,
    slots::{Name, Slots},
    socket::Socket,
};

/// The number that nobody has.
pub(crate) const NOBODY: u32 = u32::MAX;
/// Connections that are not checked in, at most; a new one beyond that closes the oldest (protocol §4).
const MAX_UNCHECKED: usize = 1024;

/// Names a connection of a loop, for as long as it lives and never another one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ConnId(pub(crate) Name);

/// Names a listener of a loop.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ListenerId(pub(crate) Name);

/// Names a timer of a loop, until it has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TimerId(pub(crate) Name);

/// What a loop has counted since it was made.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Counters {
    /// Turns.
    pub turns: u64,
    /// How often it slept, or would have if nothing had come in time.
    pub sleeps: u64,
    /// Connections that were accepted.
    pub accepted: u64,
    /// Accepts that failed.
    pub accept_errors: u64,
    /// Panics of the application that were contained; those of requests are not among them, their callers know.
    pub panics: u64,
}

pub(crate) enum Place<U> {
    Conn(Box<Driven<U>>),
    Listener(Box<Listener>),
}

/// The connections, listeners and timers of a loop: see [`Loop::net`](crate::Loop::net). `U` is what travels with the
/// application's calls.
///
/// Its verbs are those of [`Connection`], and what they do is said there. They take effect in this turn of the loop or
/// in the next; none of them waits, and none makes a system call but those that dial and listen. A connection that has
/// gone is no error that could not happen otherwise: each verb answers as the core does once a connection is over.
pub struct Net<U> {
    pub(crate) shared: Arc<Shared>,
    places: Slots<Place<U>>,
    /// Connections and listeners with something to do.
    pub(crate) ready: ReadySet,
    /// When they want to be woken.
    pub(crate) deadlines: DeadlineIndex,
    /// Those of the application.
    timers: Slots<()>,
    pub(crate) timer_deadlines: DeadlineIndex,
    /// The time of this turn.
    pub(crate) now: Instant,
    /// Who has its turn: whatever it is told is found at the end of that.
    pub(crate) turning: u32,
    /// Nobody else has a turn in this one of the loop.
    pub(crate) alone: bool,
    /// Where committed octets stand between the core and the kernel.
    scratch: Outbox,
    connections: usize,
    /// Accepted connections that have not checked in, the oldest first; some of those in the queue have meanwhile.
    unchecked: usize,
    unchecked_queue: VecDeque<Name>,
    pub(crate) counters: Counters,
}

impl<U> Net<U> {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        Self {
            shared,
            places: Slots::new(),
            ready: ReadySet::new(),
            deadlines: DeadlineIndex::new(),
            timers: Slots::new(),
            timer_deadlines: DeadlineIndex::new(),
            now: clock::now(),
            turning: NOBODY,
            alone: true,
            scratch: Outbox::new(),
            connections: 0,
            unchecked: 0,
            unchecked_queue: VecDeque::new(),
            counters: Counters::default(),
        }
    }

    // ---- connections come and go ------------------------------------------------------------------------------

    /// Dials `address`, `host:port` or `unix:/path`, and checks in as a client with `config`. Calls may be made at
    /// once; they wait until somebody has answered. If nobody does the connection is closed like any other:
    /// [`App::closed`](crate::App::closed) tells.
    ///
    /// A host that is a name is looked up on the spot, which may take long: give numbers to a loop that has other
    /// things to do.
    ///
    /// # Errors
    /// The address is none, or the system has no socket left.
    pub fn connect(&mut self, address: &str, config: &Arc<Config>) -> io::Result<ConnId> {
        let conn = self.connection(Side::Client, config);
        let driven = match Address::parse(address) {
            Address::Unix(path) => Driven::new(conn, Socket::dial_unix(path)?),
            Address::Tcp(address) => {
                let mut addresses = address.to_socket_addrs()?;
                let mut dialled = Err(io::Error::new(io::ErrorKind::InvalidInput, "the name has no address"));
                while dialled.is_err()
                    && let Some(address) = addresses.next()
                {
                    dialled = Socket::dial(address);
                }
                Driven::dial(conn, dialled?, addresses.collect())
            }
        };
        self.open(driven)
    }

    /// Takes over a TCP connection that was made otherwise, as its `side`.
    ///
    /// # Errors
    /// What the system says to not waiting for it, or to watching it.
    pub fn adopt(
        &mut self,
        stream: std::net::TcpStream,
        side: Side,
        config: &Arc<Config>,
    ) -> io::Result<ConnId> {
        let conn = self.connection(side, config);
        self.open(Driven::new(conn, Socket::from_tcp(stream)?))
    }

    /// Takes over a connection of a Unix socket that was made otherwise, as its `side`.
    ///
    /// # Errors
    /// As [`adopt`](Self::adopt).
    pub fn adopt_unix(
        &mut self,
        stream: std::os::unix::net::UnixStream,
        side: Side,
        config: &Arc<Config>,
    ) -> io::Result<ConnId> {
        let conn = self.connection(side, config);
        self.open(Driven::new(conn, Socket::from_unix(stream)?))
    }

    fn connection(&self, side: Side, config: &Arc<Config>) -> Connection<U> {
        Connection::new(Arc::clone(config), side, Mio::default().seed(), self.now)
    }

    fn open(&mut self, driven: Driven<U>) -> io::Result<ConnId> {
        let name = self.places.insert(Place::Conn(Box::new(driven))).map_err(|_| no_number())?;
        self.connections += 1;
        if let Some((driven, _, registry)) = self.parts(name.number)
            && let Err(error) = driven.register(registry, direct(name.number))
        {
            self.forget(name.number);
            return Err(error);
        }
        self.ready.insert(name.number);
        Ok(ConnId(name))
    }

    /// A connection was accepted. The one that is to be closed in its favour, if there are too many that have not
    /// checked in.
    pub(crate) fn open_accepted(&mut self, socket: Socket, config: &Arc<Config>) -> io::Result<ConnId> {
        let conn = self.connection(Side::Server, config);
        let id = self.open(Driven::new(conn, socket))?;
        if let Some((driven, ..)) = self.parts(id.0.number) {
            driven.unchecked = true;
        }
        self.counters.accepted += 1;
        self.unchecked += 1;
        self.unchecked_queue.push_back(id.0);
        while let Some(&oldest) = self.unchecked_queue.front() {
            let waits = matches!(self.places.find(oldest), Some(Place::Conn(driven)) if driven.unchecked);
            if waits && self.unchecked <= MAX_UNCHECKED {
                break;
            }
            self.unchecked_queue.pop_front();
            if waits {
                self.checked(oldest.number);
                self.close(
                    ConnId(oldest),
                    Status::TOO_MANY_CONNECTIONS,
                    "too many connections have not checked in",
                );
            }
        }
        Ok(id)
    }

    /// It does not count among those that have not checked in any more.
    fn checked(&mut self, number: u32) {
        if let Some(Place::Conn(driven)) = self.places.get_mut(number)
            && std::mem::take(&mut driven.unchecked)
        {
            self.unchecked = self.unchecked.saturating_sub(1);
        }
    }

    pub(crate) fn checked_in(&mut self, id: ConnId, peer: &PeerInfo) {
        self.checked(id.0.number);
        if let Some((driven, ..)) = self.parts(id.0.number) {
            driven.checked_in(peer);
        }
    }

    /// A connection or a listener is over: its number is free.
    pub(crate) fn forget(&mut self, number: u32) {
        self.checked(number);
        self.deadlines.disarm(number);
        self.ready.remove(number);
        match self.places.remove(number) {
            Some(Place::Conn(mut driven)) => {
                driven.deregister(&self.shared.registry);
                self.connections = self.connections.saturating_sub(1);
            }
            Some(Place::Listener(mut listener)) => listener.deregister(&self.shared.registry),
            None => {}
        }
    }

    /// The connection of this number, and what its turn needs besides it.
    #[inline]
    pub(crate) fn parts(&mut self, number: u32) -> Option<(&mut Driven<U>, &mut Outbox, &Registry)> {
        match self.places.get_mut(number) {
            Some(Place::Conn(driven)) => Some((driven, &mut self.scratch, &self.shared.registry)),
            _ => None,
        }
    }

    /// The name of the connection of this number.
    pub(crate) fn conn_id(&self, number: u32) -> Option<ConnId> {
        self.places.name(number).map(ConnId)
    }

    pub(crate) fn place(&mut self, number: u32) -> Option<&mut Place<U>> {
        self.places.get_mut(number)
    }

    // ---- listeners --------------------------------------------------------------------------------------------

    /// Listens on `address`, `host:port` or `unix:/path`, and takes what comes as servers with `config`. Port 0 lets
    /// the kernel choose one; [`listening`](Self::listening) says which.
    ///
    /// No error of a connection ends a listener; when the process runs out of descriptors it waits a little, and those
    /// who want to connect wait with it. Connections that do not check in are held to 1024: one more closes the oldest.
    ///
    /// # Errors
    /// The address cannot be taken.
    pub fn listen(&mut self, address: &str, config: &Arc<Config>) -> io::Result<ListenerId> {
        self.attend(Listening::bind(address)?, config)
    }

    /// The same on a listener that was made otherwise, such as one of [`threads::listeners`](crate::threads::listeners).
    ///
    /// # Errors
    /// What the system says to not waiting for it, or to watching it.
    pub fn listen_on(
        &mut self,
        listener: std::net::TcpListener,
        config: &Arc<Config>,
    ) -> io::Result<ListenerId> {
        self.attend(Listening::from_tcp(listener)?, config)
    }

    fn attend(&mut self, listening: Listening, config: &Arc<Config>) -> io::Result<ListenerId> {
        let listener = Listener::new(listening, Arc::clone(config));
        let name = self.places.insert(Place::Listener(Box::new(listener))).map_err(|_| no_number())?;
        let registry = &self.shared.registry;
        if let Some(Place::Listener(listener)) = self.places.get_mut(name.number)
            && let Err(error) = listener.register(registry, direct(name.number))
        {
            self.forget(name.number);
            return Err(error);
        }
        self.ready.insert(name.number);
        Ok(ListenerId(name))
    }

    /// The address of a listener, with the port that the kernel chose; as it is written for dialling.
    #[must_use]
    pub fn listening(&self, listener: ListenerId) -> Option<String> {
        match self.places.find(listener.0)? {
            Place::Listener(listener) => Some(listener.address()),
            Place::Conn(_) => None,
        }
    }

    /// Closes a listener. Its connections go on.
    pub fn unlisten(&mut self, listener: ListenerId) {
        if let Some(Place::Listener(_)) = self.places.find(listener.0) {
            self.forget(listener.0.number);
        }
    }

    /// The connection that is meant. What was done to it is looked at in its next turn, or at the end of this one.
    #[inline]
    pub(crate) fn meant(&mut self, id: ConnId) -> Option<(&mut Connection<U>, Instant)> {
        let Some(Place::Conn(driven)) = self.places.find_mut(id.0) else { return None };
        if id.0.number != self.turning {
            self.ready.insert(id.0.number);
        }
        Some((&mut driven.conn, self.now))
    }

    // ---- what there is ---------------------------------------------------------------------------------------

    /// Closes every listener and drains every connection: what [`Loop::shutdown`](crate::Loop::shutdown) begins with.
    pub fn drain_all(&mut self, grace: Duration, message: &str) {
        let names: Vec<(Name, bool)> =
            self.places.names().map(|(name, place)| (name, matches!(place, Place::Conn(_)))).collect();
        for (name, is_connection) in names {
            if is_connection {
                self.drain(ConnId(name), Status::GOING_AWAY, grace, message);
            } else {
                self.forget(name.number);
            }
        }
    }

    /// What the peer said at check-in, once it has.
    #[must_use]
    pub fn peer(&self, id: ConnId) -> Option<&Arc<PeerInfo>> {
        self.look(id)?.conn.peer()
    }

    /// The other end's address, for people to read; nothing if the connection is over.
    #[must_use]
    pub fn peer_address(&self, id: ConnId) -> Option<String> {
        self.look(id).map(Driven::peer_address)
    }

    /// What a connection has counted.
    #[must_use]
    pub fn stats(&self, id: ConnId) -> Option<Stats> {
        self.look(id).map(|driven| driven.conn.stats())
    }

    /// What the application gave along with a call of this side, until it gets it back.
    #[must_use]
    pub fn user(&self, id: ConnId, call: CallId) -> Option<&U> {
        self.look(id)?.conn.user(call)
    }

    fn look(&self, id: ConnId) -> Option<&Driven<U>> {
        match self.places.find(id.0)? {
            Place::Conn(driven) => Some(driven),
            Place::Listener(_) => None,
        }
    }

    /// All connections, those that are not checked in too. Walks over all of them.
    pub fn connections(&self) -> impl Iterator<Item = ConnId> {
        let conns = self.places.names().filter(|(_, place)| matches!(place, Place::Conn(_)));
        conns.map(|(name, _)| ConnId(name))
    }

    /// How many connections there are.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.connections
    }

    /// Whether there is no connection.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.connections == 0
    }

    // ---- time and tasks ---------------------------------------------------------------------------------------

    /// The time of this turn: what deadlines of calls are counted from.
    #[must_use]
    #[inline]
    pub const fn now(&self) -> Instant {
        self.now
    }

    /// Calls [`App::timer`](crate::App::timer) after so long; up to a millisecond later if timers are not set in the
    /// order in which they come. `None`: more than 4 billion are set.
    pub fn set_timer(&mut self, after: Duration) -> Option<TimerId> {
        let name = self.timers.insert(()).ok()?;
        self.timer_deadlines.arm(name.number, self.now.saturating_add(after), self.now);
        Some(TimerId(name))
    }

    /// Forgets a timer. Whether it was still to come.
    pub fn clear_timer(&mut self, timer: TimerId) -> bool {
        let there = self.timers.find(timer.0).is_some();
        if there {
            self.timers.remove(timer.0.number);
            self.timer_deadlines.disarm(timer.0.number);
        }
        there
    }

    /// The timer of this number has come.
    pub(crate) fn take_timer(&mut self, number: u32) -> Option<TimerId> {
        let name = self.timers.name(number)?;
        self.timers.remove(number);
        Some(TimerId(name))
    }

    /// Runs a task on this loop.
    pub fn spawn(&self, task: BoxFuture<()>) {
        self.shared.spawn(task);
    }

    /// Ends [`Loop::run`](crate::Loop::run) after this turn.
    pub fn stop(&self) {
        self.shared.stop();
    }

    /// What the loop has counted.
    #[must_use]
    pub const fn counters(&self) -> Counters {
        self.counters
    }
}

fn no_number() -> io::Error {
    io::Error::other("the loop has no number left for another connection")
}

impl<U> fmt::Debug for Net<U> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Net")
            .field("connections", &self.connections)
            .field("ready", &self.ready.len())
            .field("counters", &self.counters)
            .finish_non_exhaustive()
    }
}
