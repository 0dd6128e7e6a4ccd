//! The loop as a runtime: what [`Client`](crate::Client) and [`Server`](crate::Server) are made of.

use std::{
    future::{Future, poll_fn},
    io,
    net::{SocketAddr, ToSocketAddrs},
    sync::{Arc, Mutex},
    task::{Context, Poll, Waker},
    thread,
    time::Duration,
};

use bytes::BytesMut;
use tieline::{Address, BoxFuture, Clock, Io, Outbox, Runtime};

use crate::{
    clock::SystemClock,
    driven::SHORT_SAYS_ALL,
    listener::Listening,
    shared::{Shared, current, lock},
    socket::Socket,
    source::{READ, WRITE, Watched},
    timers::Timer,
};

/// A loop, as the runtime of [`Client`](crate::Client) and [`Server`](crate::Server): its tasks, timers and sockets.
///
/// [`Mio::default`] is the loop that the thread is in: inside of [`block_on`](crate::block_on),
/// [`Loop::block_on`](crate::Loop::block_on) and [`Loop::enter`](crate::Loop::enter), in a task, and in every method of
/// an [`App`](crate::App). [`Handle::runtime`](crate::Handle::runtime) is a certain one, on any thread. What was made on
/// a loop belongs to it and may be used from all threads.
///
/// On a thread that is in no loop nothing can be dialled or listened on, which is an error that says so, and a task that
/// is spawned is dropped.
#[derive(Debug, Clone)]
pub struct Mio {
    shared: Option<Arc<Shared>>,
}

impl Default for Mio {
    fn default() -> Self {
        Self { shared: current() }
    }
}

impl Mio {
    pub(crate) const fn of(shared: Arc<Shared>) -> Self {
        Self { shared: Some(shared) }
    }

    fn shared(&self) -> io::Result<Arc<Shared>> {
        let alive = self.shared.as_ref().filter(|shared| !shared.is_over());
        alive.cloned().ok_or_else(|| {
            io::Error::other("this thread is in no loop; use block_on, Loop::enter or Handle::runtime")
        })
    }
}

impl Runtime for Mio {
    type Io = MioStream;
    type Time = Timer;
    type Listener = MioListener;

    fn clock(&self) -> Arc<dyn Clock> {
        Arc::new(SystemClock)
    }

    fn time(&self) -> Timer {
        Timer::new(self.shared.clone())
    }

    fn spawn(&self, task: BoxFuture<()>) {
        if let Some(shared) = &self.shared {
            shared.spawn(task);
        }
    }

    fn connect(&self, address: &str) -> impl Future<Output = io::Result<MioStream>> + Send {
        connect(self.shared(), address.to_owned())
    }

    fn listen(&self, address: &str) -> impl Future<Output = io::Result<MioListener>> + Send {
        let listener = self
            .shared()
            .and_then(|shared| Ok(MioListener(Watched::new(shared, Listening::bind(address)?)?)));
        std::future::ready(listener)
    }
}

async fn connect(shared: io::Result<Arc<Shared>>, address: String) -> io::Result<MioStream> {
    let shared = shared?;
    let address = match Address::parse(&address) {
        Address::Unix(path) => return MioStream::new(shared, Socket::dial_unix(path)?),
        Address::Tcp(address) => address.to_owned(),
    };
    let mut last = io::Error::new(io::ErrorKind::InvalidInput, "the name has no address");
    for address in resolve(address).await? {
        match dial(&shared, address).await {
            Ok(stream) => return Ok(stream),
            Err(error) => last = error,
        }
    }
    Err(last)
}

async fn dial(shared: &Arc<Shared>, address: SocketAddr) -> io::Result<MioStream> {
    let mut stream = MioStream::new(Arc::clone(shared), Socket::dial(address)?)?;
    poll_fn(|cx| {
        stream.0.poll_io(WRITE, cx, |socket, source| {
            if !socket.is_open()? {
                return Err(io::ErrorKind::WouldBlock.into());
            }
            source.again(WRITE);
            Ok(())
        })
    })
    .await?;
    Ok(stream)
}

/// The addresses of `HOST:PORT`. A host that is a name is looked up on a thread of its own, for the system's resolver
/// waits.
async fn resolve(address: String) -> io::Result<Vec<SocketAddr>> {
    if let Ok(address) = address.parse() {
        return Ok(vec![address]);
    }
    #[derive(Default)]
    struct Lookup {
        found: Option<io::Result<Vec<SocketAddr>>>,
        waker: Option<Waker>,
    }
    let lookup = Arc::new(Mutex::new(Lookup::default()));
    let theirs = Arc::clone(&lookup);
    thread::Builder::new().name("tieline-lookup".to_owned()).spawn(move || {
        let found = address.to_socket_addrs().map(Iterator::collect);
        let waker = {
            let mut lookup = lock(&theirs);
            lookup.found = Some(found);
            lookup.waker.take()
        };
        if let Some(waker) = waker {
            waker.wake();
        }
    })?;
    poll_fn(|cx| {
        let mut lookup = lock(&lookup);
        if let Some(found) = lookup.found.take() {
            return Poll::Ready(found);
        }
        lookup.waker = Some(cx.waker().clone());
        Poll::Pending
    })
    .await
}

/// A connection of a task: TCP, or a Unix socket.
#[derive(Debug)]
pub struct MioStream(Watched<Socket>);

impl MioStream {
    fn new(shared: Arc<Shared>, socket: Socket) -> io::Result<Self> {
        Ok(Self(Watched::new(shared, socket)?))
    }
}

impl Io for MioStream {
    fn poll_read(&mut self, cx: &mut Context<'_>, into: &mut BytesMut) -> Poll<io::Result<usize>> {
        let room = into.capacity() - into.len();
        if room == 0 {
            return Poll::Pending;
        }
        self.0.poll_io(READ, cx, |socket, source| {
            let octets = socket.read(into)?;
            if octets == room || !SHORT_SAYS_ALL || source.is_ending() {
                source.again(READ);
            }
            Ok(octets)
        })
    }

    fn poll_write(&mut self, cx: &mut Context<'_>, out: &mut Outbox) -> Poll<io::Result<usize>> {
        self.0.poll_io(WRITE, cx, |socket, source| {
            let wrote = socket.write(out)?;
            if !wrote.short || !SHORT_SAYS_ALL {
                source.again(WRITE);
            }
            Ok(wrote.octets)
        })
    }

    fn poll_shutdown(&mut self, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(self.0.socket.shut_write())
    }

    fn set_dead_after(&mut self, silence: Duration) {
        self.0.socket.set_dead_after(silence);
    }
}

/// A listening socket of a task: TCP's, or a Unix socket.
#[derive(Debug)]
pub struct MioListener(Watched<Listening>);

impl MioListener {
    /// Takes over a listener that was made otherwise, such as one of
    /// [`threads::listeners`](crate::threads::listeners), for the loop that the thread is in.
    ///
    /// # Errors
    /// The thread is in no loop; or what the system says to not waiting for it, or to watching it.
    pub fn new(listener: std::net::TcpListener) -> io::Result<Self> {
        let shared = Mio::default().shared()?;
        Ok(Self(Watched::new(shared, Listening::from_tcp(listener)?)?))
    }
}

impl tieline::Listener for MioListener {
    type Io = MioStream;

    fn poll_accept(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<(MioStream, String)>> {
        let shared = self.0.shared();
        self.0.poll_io(READ, cx, |listening, source| {
            let accepted = listening.accept();
            // There may be more, unless there was none.
            if accepted.as_ref().err().is_none_or(|error| error.kind() != io::ErrorKind::WouldBlock) {
                source.again(READ);
            }
            let (socket, address) = accepted?;
            Ok((MioStream::new(Arc::clone(&shared), socket)?, address))
        })
    }

    fn local_address(&self) -> String {
        self.0.socket.local_address()
    }
}
