//! What Tieline asks of a runtime, by the simulation.

use std::{
    fmt,
    future::{Future, poll_fn},
    io,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use bytes::BytesMut;
use tieline::{Address, BoxFuture, Clock, Instant, Io, Listener, Outbox, Runtime, Time, Turns};

use crate::{
    conn::{Side, Way},
    events::Due,
    sim::Sim,
    world::World,
};

impl Runtime for Sim {
    type Io = Socket;
    type Time = Timer;
    type Listener = SocketListener;

    fn clock(&self) -> Arc<dyn Clock> {
        Arc::new(VirtualClock(Arc::clone(&self.world)))
    }

    fn time(&self) -> Timer {
        Timer { world: Arc::clone(&self.world), due: None }
    }

    fn spawn(&self, task: BoxFuture<()>) {
        self.world.spawn(self.host, task);
    }

    fn connect(&self, address: &str) -> impl Future<Output = io::Result<Socket>> + Send {
        let (sim, address) = (self.at(self.host), address.to_owned());
        async move {
            let name = sim.tcp(&address)?;
            let conn = sim.world.with(|state| state.dial(sim.host, name))?;
            // Dropped before it is connected, it gives the attempt up.
            let socket = Socket { world: Arc::clone(&sim.world), way: Way { conn, from: Side::Dialler } };
            poll_fn(|cx| sim.world.with(|state| state.poll_dialled(cx, conn))).await?;
            Ok(socket)
        }
    }

    fn listen(&self, address: &str) -> impl Future<Output = io::Result<SocketListener>> + Send {
        let (sim, address) = (self.at(self.host), address.to_owned());
        async move {
            let name = sim.tcp(&address)?;
            let (port, name, incarnation) = sim.world.with(|state| {
                let incarnation = state.hosts.get(sim.host).map_or(0, |host| host.incarnation);
                state.listen(sim.host, name).map(|(port, name)| (port, name, incarnation))
            })?;
            Ok(SocketListener { world: Arc::clone(&sim.world), host: sim.host, port, name, incarnation })
        }
    }

    fn seed(&self) -> u64 {
        self.world.with(|state| state.rng.next())
    }

    /// That of the process of this host: a later start has a higher one.
    fn instance(&self) -> u64 {
        self.world.with(|state| {
            let starts = state.hosts.get(self.host).map_or(0, |host| host.incarnation);
            // Milliseconds of a day long ago, and the host as the random bits.
            ((1_000_000_000_000 + starts) << 22) | (self.host as u64 & ((1 << 22) - 1))
        })
    }

    /// Those of this host: what other simulations of this process do must not matter.
    fn turns(&self) -> Turns {
        self.world.with(|state| state.hosts.get(self.host).map(|host| host.turns.clone()).unwrap_or_default())
    }
}

impl Sim {
    fn tcp<'a>(&self, address: &'a str) -> io::Result<&'a str> {
        if self.world.detached {
            let what = "not on a host of a simulation: do it in a future of Sim::host or Sim::run_until";
            return Err(io::Error::other(what));
        }
        match Address::parse(address) {
            Address::Tcp(address) => Ok(address),
            Address::Unix(_) => {
                let what = "the simulation has no Unix sockets; use HOST:PORT";
                Err(io::Error::new(io::ErrorKind::Unsupported, what))
            }
        }
    }
}

#[derive(Debug)]
struct VirtualClock(Arc<World>);

impl Clock for VirtualClock {
    fn now(&self) -> Instant {
        Instant::from_nanos(self.0.with(|state| state.now))
    }
}

/// A timer of virtual time.
pub struct Timer {
    world: Arc<World>,
    due: Option<Due>,
}

impl Time for Timer {
    fn poll_until(&mut self, cx: &mut Context<'_>, at: Instant) -> Poll<()> {
        let due = self.due.take();
        // What is taken out of the world is dropped outside its lock.
        let (due, _event, _waker) = self.world.with(|state| {
            let at = at.as_nanos();
            if at <= state.now {
                return (None, due.and_then(|due| state.events.take_back(due)), None);
            }
            if let Some(due) = due.filter(|due| due.at == at)
                && let Some(waker) = state.events.rewake(due, cx.waker())
            {
                return (Some(due), None, waker);
            }
            let before = due.and_then(|due| state.events.take_back(due));
            (Some(state.events.arrange(at, crate::events::Event::Wake(cx.waker().clone()))), before, None)
        });
        self.due = due;
        if due.is_some() { Poll::Pending } else { Poll::Ready(()) }
    }
}

impl Drop for Timer {
    fn drop(&mut self) {
        if let Some(due) = self.due {
            drop(self.world.with(|state| state.events.take_back(due)));
        }
    }
}

impl fmt::Debug for Timer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Timer").field("due", &self.due).finish_non_exhaustive()
    }
}

/// One end of a connection between hosts.
#[derive(Debug)]
pub struct Socket {
    world: Arc<World>,
    way: Way,
}

impl Io for Socket {
    fn poll_read(&mut self, cx: &mut Context<'_>, into: &mut BytesMut) -> Poll<io::Result<usize>> {
        self.world.with(|state| state.poll_read(cx, self.way, into))
    }

    fn poll_write(&mut self, cx: &mut Context<'_>, out: &mut Outbox) -> Poll<io::Result<usize>> {
        self.world.with(|state| state.poll_write(cx, self.way, out))
    }

    fn poll_shutdown(&mut self, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(self.world.with(|state| state.shut_write(self.way)))
    }

    fn set_dead_after(&mut self, silence: Duration) {
        let silence = u64::try_from(silence.as_nanos()).unwrap_or(u64::MAX);
        self.world.with(|state| state.set_dead_after(self.way, silence));
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        self.world.with(|state| state.close(self.way));
    }
}

/// Accepts connections at a port of a host.
#[derive(Debug)]
pub struct SocketListener {
    world: Arc<World>,
    host: usize,
    port: u16,
    name: String,
    /// A listener of a process that has crashed has no port any more.
    incarnation: u64,
}

impl Listener for SocketListener {
    type Io = Socket;

    fn poll_accept(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<(Socket, String)>> {
        let accepted = self.world.with(|state| state.poll_accept(cx, self.host, self.port));
        accepted.map(|accepted| {
            let (conn, address) = accepted?;
            let way = Way { conn, from: Side::Acceptor };
            Ok((Socket { world: Arc::clone(&self.world), way }, address))
        })
    }

    fn local_address(&self) -> String {
        self.name.clone()
    }
}

impl Drop for SocketListener {
    fn drop(&mut self) {
        self.world.with(|state| state.unlisten(self.host, self.port, self.incarnation));
    }
}
