//! Stream sockets, TCP's and Unix', as both layers use them: never waiting, with the options that the protocol wants.

use std::{
    io::{self, IoSlice, Write},
    net::{Shutdown, SocketAddr},
    path::Path,
    time::Duration,
};

use bytes::{Buf, BytesMut};
use mio::{
    Interest, Registry, Token,
    event::Source,
    net::{TcpStream, UnixStream},
};
use socket2::SockRef;
use tieline::{Outbox, unix};

use crate::fill::fill;

/// Unsent octets that the kernel holds before it asks for more. What waits longer waits where it can still be put in
/// order: a heartbeat overtakes it in the core, but not in the kernel.
pub(crate) const NOTSENT_LOWAT: u32 = 128 * 1024;
/// Pieces of one gathered write.
const PIECES: usize = 64;

/// A stream socket that does not wait.
#[derive(Debug)]
pub(crate) enum Socket {
    Tcp(TcpStream),
    Unix(UnixStream),
}

/// What one write did.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Wrote {
    /// Octets that the kernel took.
    pub(crate) octets: usize,
    /// It was offered more: it is full.
    pub(crate) short: bool,
}

impl Socket {
    /// Begins to dial. Whether somebody answers is known once it is writable; see [`is_open`](Self::is_open).
    pub(crate) fn dial(address: SocketAddr) -> io::Result<Self> {
        Ok(Self::tcp(TcpStream::connect(address)?))
    }

    /// Dials a Unix socket; that is done at once.
    pub(crate) fn dial_unix(path: &Path) -> io::Result<Self> {
        unix::check(path)?;
        Ok(Self::Unix(UnixStream::connect(path).map_err(unix::explain)?))
    }

    /// Options that the system does not have are left as they are.
    pub(crate) fn tcp(stream: TcpStream) -> Self {
        // Frames are coalesced already; what is written is meant to go out.
        let _ = stream.set_nodelay(true);
        #[cfg(any(target_os = "linux", target_os = "android"))]
        let _ = SockRef::from(&stream).set_tcp_notsent_lowat(NOTSENT_LOWAT);
        Self::Tcp(stream)
    }

    /// Takes over a connection that was made otherwise.
    pub(crate) fn from_tcp(stream: std::net::TcpStream) -> io::Result<Self> {
        stream.set_nonblocking(true)?;
        Ok(Self::tcp(TcpStream::from_std(stream)))
    }

    /// Takes over a connection that was made otherwise.
    pub(crate) fn from_unix(stream: std::os::unix::net::UnixStream) -> io::Result<Self> {
        stream.set_nonblocking(true)?;
        Ok(Self::Unix(UnixStream::from_std(stream)))
    }

    /// Whether dialling has come to an end: `Ok(false)` while it has not.
    pub(crate) fn is_open(&self) -> io::Result<bool> {
        let Self::Tcp(stream) = self else { return Ok(true) };
        if let Some(error) = stream.take_error()? {
            return Err(error);
        }
        match stream.peer_addr() {
            Ok(_) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::NotConnected => Ok(false),
            // What macOS says of a connection that is being made.
            Err(error) if error.kind() == io::ErrorKind::InvalidInput => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Appends what has arrived to `into`, as much as it has room for. 0 is the end of the stream, or no room.
    #[inline]
    pub(crate) fn read(&self, into: &mut BytesMut) -> io::Result<usize> {
        loop {
            let read = match self {
                Self::Tcp(stream) => fill(into, |room| SockRef::from(stream).recv(room)),
                Self::Unix(stream) => fill(into, |room| SockRef::from(stream).recv(room)),
            };
            match read {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                read => return read,
            }
        }
    }

    /// Writes from `out` as much as the kernel takes in one call, and advances `out` by it.
    #[inline]
    pub(crate) fn write(&mut self, out: &mut Outbox) -> io::Result<Wrote> {
        match self {
            Self::Tcp(stream) => write_to(stream, out),
            Self::Unix(stream) => write_to(stream, out),
        }
    }

    /// Ends the stream in the direction of the peer.
    pub(crate) fn shut_write(&self) -> io::Result<()> {
        let shut = match self {
            Self::Tcp(stream) => stream.shutdown(Shutdown::Write),
            Self::Unix(stream) => stream.shutdown(Shutdown::Write),
        };
        match shut {
            // It has ended already, in both directions.
            Err(error) if error.kind() == io::ErrorKind::NotConnected => Ok(()),
            shut => shut,
        }
    }

    /// A peer that acknowledges nothing for so long is dead.
    pub(crate) fn set_dead_after(&self, silence: Duration) {
        #[cfg(any(target_os = "linux", target_os = "android"))]
        if let Self::Tcp(stream) = self {
            let _ = SockRef::from(stream).set_tcp_user_timeout(Some(silence));
        }
        #[cfg(not(any(target_os = "linux", target_os = "android")))]
        let _ = silence;
    }

    /// The other end, for people to read.
    pub(crate) fn peer_address(&self) -> String {
        match self {
            Self::Tcp(stream) => {
                stream.peer_addr().map_or_else(|_| "unknown".to_owned(), |address| address.to_string())
            }
            Self::Unix(_) => "unix".to_owned(),
        }
    }
}

/// One write, gathered if there are several pieces.
#[inline]
pub(crate) fn write_to(stream: &mut impl Write, out: &mut Outbox) -> io::Result<Wrote> {
    loop {
        let chunk = out.chunk();
        let (written, offered) = if chunk.len() == out.remaining() {
            (stream.write(chunk), chunk.len())
        } else {
            let mut pieces = [IoSlice::new(&[]); PIECES];
            let (mut count, mut offered) = (0, 0);
            for (piece, chunk) in pieces.iter_mut().zip(out.chunks()) {
                *piece = IoSlice::new(chunk);
                count += 1;
                offered += chunk.len();
            }
            (stream.write_vectored(pieces.get(..count).unwrap_or_default()), offered)
        };
        match written {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(octets) => {
                out.advance(octets);
                return Ok(Wrote { octets, short: octets < offered });
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

impl Source for Socket {
    fn register(&mut self, registry: &Registry, token: Token, interests: Interest) -> io::Result<()> {
        match self {
            Self::Tcp(stream) => stream.register(registry, token, interests),
            Self::Unix(stream) => stream.register(registry, token, interests),
        }
    }

    fn reregister(&mut self, registry: &Registry, token: Token, interests: Interest) -> io::Result<()> {
        match self {
            Self::Tcp(stream) => stream.reregister(registry, token, interests),
            Self::Unix(stream) => stream.reregister(registry, token, interests),
        }
    }

    fn deregister(&mut self, registry: &Registry) -> io::Result<()> {
        match self {
            Self::Tcp(stream) => stream.deregister(registry),
            Self::Unix(stream) => stream.deregister(registry),
        }
    }
}
