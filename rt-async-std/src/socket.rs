//! Stream sockets, of TCP and of Unix: octets by the traits of futures-io, readiness by async-io.

use std::{
    cell::Cell,
    future::Future,
    io::{self, IoSlice},
    net::{Shutdown, TcpListener, TcpStream},
    os::{fd::OwnedFd, unix::net::UnixStream},
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use async_io::{Async, Timer};
use async_std::net::ToSocketAddrs;
use bytes::{Buf, BytesMut};
use futures_io::{AsyncRead, AsyncWrite};
use socket2::{Domain, SockAddr, SockRef, Type};
use tieline::{Address, Io, Listener, Outbox};

/// Unsent octets that the kernel holds before it asks for more. What waits longer waits where it can still be put in
/// order: a heartbeat overtakes it in the core, but not in the kernel.
const NOTSENT_LOWAT: u32 = 128 * 1024;
/// Pieces of one gathered write.
const PIECES: usize = 64;
/// Octets of one read.
const READ: usize = 64 * 1024;
/// Connections that wait to be accepted.
const BACKLOG: i32 = 1024;

/// A connection.
#[derive(Debug)]
pub struct Socket {
    /// Of Unix too: a socket of any family is read and written alike.
    stream: Async<TcpStream>,
    /// Lets others have their turn.
    turn: Timer,
}

impl Socket {
    pub(crate) async fn connect(address: String) -> io::Result<Self> {
        let name = match Address::parse(&address) {
            Address::Unix(path) => {
                let stream = Async::<UnixStream>::connect(path).await?.into_inner()?;
                return Ok(Self::new(Async::new(OwnedFd::from(stream).into())?));
            }
            Address::Tcp(name) => name,
        };
        let mut failed = no_address();
        for at in name.to_socket_addrs().await? {
            match Async::<TcpStream>::connect(at).await {
                Ok(stream) => return Ok(Self::new(stream)),
                Err(error) => failed = error,
            }
        }
        Err(failed)
    }

    /// Takes over a connection that was made otherwise. Options that the system or the socket does not have are left as
    /// they are.
    #[must_use]
    pub fn new(stream: Async<TcpStream>) -> Self {
        // Frames are coalesced already; what is written is meant to go out.
        let _ = stream.get_ref().set_nodelay(true);
        #[cfg(any(target_os = "linux", target_os = "android"))]
        let _ = SockRef::from(&stream).set_tcp_notsent_lowat(NOTSENT_LOWAT);
        Self { stream, turn: Timer::never() }
    }
}

thread_local! {
    /// What reads fill: the traits of futures-io take none but initialised octets. Copying what came costs less than
    /// clearing a buffer for all that might have come, and an idle connection holds nothing of it.
    static SCRATCH: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

impl Io for Socket {
    fn poll_read(&mut self, cx: &mut Context<'_>, into: &mut BytesMut) -> Poll<io::Result<usize>> {
        // Never grows the buffer: it is full when it is full.
        let room = into.capacity() - into.len();
        if room == 0 {
            return Poll::Pending;
        }
        let mut scratch = SCRATCH.take();
        scratch.resize(READ, 0);
        let space = scratch.get_mut(..room.min(READ)).unwrap_or_default();
        let read = Pin::new(&mut self.stream).poll_read(cx, space);
        if let Poll::Ready(Ok(octets)) = read {
            into.extend_from_slice(space.get(..octets).unwrap_or_default());
        }
        SCRATCH.set(scratch);
        read
    }

    fn poll_write(&mut self, cx: &mut Context<'_>, out: &mut Outbox) -> Poll<io::Result<usize>> {
        let mut pieces = [IoSlice::new(&[]); PIECES];
        let mut count = 0;
        for (piece, chunk) in pieces.iter_mut().zip(out.chunks()) {
            *piece = IoSlice::new(chunk);
            count += 1;
        }
        let pieces = pieces.get(..count).unwrap_or_default();
        let written = Pin::new(&mut self.stream).poll_write_vectored(cx, pieces);
        if let Poll::Ready(Ok(octets)) = written {
            out.advance(octets);
        }
        written
    }

    /// Not by `poll_close`, which does no more to a socket of async-io than flush it.
    fn poll_shutdown(&mut self, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(self.stream.get_ref().shutdown(Shutdown::Write))
    }

    /// The executor polls tasks that wake themselves up to 200 times before it looks at its sockets. When it looks for a
    /// timer that is due it looks at those too, so the task comes back by one.
    fn yield_now(&mut self, cx: &mut Context<'_>) {
        self.turn.set_after(Duration::from_nanos(500));
        if Pin::new(&mut self.turn).poll(cx).is_ready() {
            cx.waker().wake_by_ref();
        }
    }

    fn set_dead_after(&mut self, silence: Duration) {
        #[cfg(any(target_os = "linux", target_os = "android"))]
        let _ = SockRef::from(&self.stream).set_tcp_user_timeout(Some(silence));
    }
}

/// A listening socket. The file of one of Unix goes with it.
#[derive(Debug)]
pub struct SocketListener {
    socket: Async<socket2::Socket>,
}

impl SocketListener {
    pub(crate) async fn bind(address: String) -> io::Result<Self> {
        let name = match Address::parse(&address) {
            Address::Unix(path) => return Self::on(Domain::UNIX, &SockAddr::unix(path)?),
            Address::Tcp(name) => name,
        };
        let mut failed = no_address();
        for at in name.to_socket_addrs().await? {
            match Self::on(Domain::for_address(at), &at.into()) {
                Ok(listener) => return Ok(listener),
                Err(error) => failed = error,
            }
        }
        Err(failed)
    }

    fn on(domain: Domain, address: &SockAddr) -> io::Result<Self> {
        let socket = socket2::Socket::new(domain, Type::STREAM, None)?;
        // Connections of the process before may still be on their way out.
        socket.set_reuse_address(true)?;
        socket.bind(address)?;
        socket.listen(BACKLOG)?;
        Ok(Self { socket: Async::new(socket)? })
    }
}

fn no_address() -> io::Error {
    io::Error::new(io::ErrorKind::NotFound, "the name has no address")
}

/// Takes over a listener that was made otherwise.
impl TryFrom<TcpListener> for SocketListener {
    type Error = io::Error;

    fn try_from(listener: TcpListener) -> io::Result<Self> {
        Ok(Self { socket: Async::new(listener.into())? })
    }
}

impl Listener for SocketListener {
    type Io = Socket;

    fn poll_accept(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<(Socket, String)>> {
        loop {
            match self.socket.get_ref().accept() {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    ready!(self.socket.poll_readable(cx))?;
                }
                Err(error) => return Poll::Ready(Err(error)),
                Ok((socket, from)) => {
                    let name = name(&from).unwrap_or_else(|| self.local_address());
                    return Poll::Ready(Ok((Socket::new(Async::new(socket.into())?), name)));
                }
            }
        }
    }

    fn local_address(&self) -> String {
        let here = self.socket.get_ref().local_addr().ok();
        here.as_ref().and_then(name).unwrap_or_else(|| "an unknown address".to_owned())
    }
}

/// The address, as [`Address`] reads it. Who dials a Unix socket has none.
fn name(address: &SockAddr) -> Option<String> {
    let path = || Some(format!("unix:{}", address.as_pathname()?.display()));
    address.as_socket().map(|socket| socket.to_string()).or_else(path)
}

impl Drop for SocketListener {
    fn drop(&mut self) {
        if let Some(path) = self.socket.get_ref().local_addr().ok().as_ref().and_then(SockAddr::as_pathname) {
            // Whoever listens there next finds the place free.
            let _ = std::fs::remove_file(path);
        }
    }
}
