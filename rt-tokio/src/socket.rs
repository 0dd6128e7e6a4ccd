//! Whichever kind of socket an address names.

use std::{
    io,
    task::{Context, Poll},
    time::Duration,
};

use bytes::BytesMut;
use tieline::{Address, Io, Listener, Outbox};

#[cfg(unix)]
use crate::unix_socket::{Unix, UnixListener};
use crate::{Tcp, TcpListener};

/// A connection of either kind.
#[derive(Debug)]
pub enum Socket {
    /// Over TCP.
    Tcp(Tcp),
    /// Over a Unix socket.
    #[cfg(unix)]
    Unix(Unix),
}

impl Socket {
    pub(crate) async fn connect(address: String) -> io::Result<Self> {
        match Address::parse(&address) {
            Address::Tcp(address) => Ok(Self::Tcp(Tcp::connect(address).await?)),
            #[cfg(unix)]
            Address::Unix(path) => Ok(Self::Unix(Unix::connect(path).await?)),
            #[cfg(not(unix))]
            other => Err(other.unsupported()),
        }
    }
}

impl From<Tcp> for Socket {
    fn from(tcp: Tcp) -> Self {
        Self::Tcp(tcp)
    }
}

#[cfg(unix)]
impl From<Unix> for Socket {
    fn from(unix: Unix) -> Self {
        Self::Unix(unix)
    }
}

impl Io for Socket {
    #[inline]
    fn poll_read(&mut self, cx: &mut Context<'_>, into: &mut BytesMut) -> Poll<io::Result<usize>> {
        match self {
            Self::Tcp(tcp) => tcp.poll_read(cx, into),
            #[cfg(unix)]
            Self::Unix(unix) => unix.poll_read(cx, into),
        }
    }

    #[inline]
    fn poll_write(&mut self, cx: &mut Context<'_>, out: &mut Outbox) -> Poll<io::Result<usize>> {
        match self {
            Self::Tcp(tcp) => tcp.poll_write(cx, out),
            #[cfg(unix)]
            Self::Unix(unix) => unix.poll_write(cx, out),
        }
    }

    fn poll_shutdown(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Tcp(tcp) => tcp.poll_shutdown(cx),
            #[cfg(unix)]
            Self::Unix(unix) => unix.poll_shutdown(cx),
        }
    }

    fn yield_now(&mut self, cx: &mut Context<'_>) {
        crate::octets::yield_now(cx);
    }

    fn set_dead_after(&mut self, silence: Duration) {
        match self {
            Self::Tcp(tcp) => tcp.set_dead_after(silence),
            // The peer's machine is this one: the kernel tells when it is gone.
            #[cfg(unix)]
            Self::Unix(_) => {}
        }
    }
}

/// A listening socket of either kind.
#[derive(Debug)]
pub enum SocketListener {
    /// For TCP.
    Tcp(TcpListener),
    /// A Unix socket.
    #[cfg(unix)]
    Unix(UnixListener),
}

impl SocketListener {
    pub(crate) async fn bind(address: String) -> io::Result<Self> {
        match Address::parse(&address) {
            Address::Tcp(address) => Ok(Self::Tcp(TcpListener::bind(address).await?)),
            #[cfg(unix)]
            Address::Unix(path) => Ok(Self::Unix(UnixListener::bind(path)?)),
            #[cfg(not(unix))]
            other => Err(other.unsupported()),
        }
    }
}

impl From<tokio::net::TcpListener> for SocketListener {
    fn from(listener: tokio::net::TcpListener) -> Self {
        Self::Tcp(listener.into())
    }
}

#[cfg(unix)]
impl From<tokio::net::UnixListener> for SocketListener {
    fn from(listener: tokio::net::UnixListener) -> Self {
        Self::Unix(listener.into())
    }
}

impl Listener for SocketListener {
    type Io = Socket;

    fn poll_accept(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<(Socket, String)>> {
        match self {
            Self::Tcp(tcp) => tcp.poll_accept(cx).map_ok(|(tcp, from)| (tcp.into(), from)),
            #[cfg(unix)]
            Self::Unix(unix) => unix.poll_accept(cx).map_ok(|(unix, from)| (unix.into(), from)),
        }
    }

    fn local_address(&self) -> String {
        match self {
            Self::Tcp(tcp) => tcp.local_address(),
            #[cfg(unix)]
            Self::Unix(unix) => unix.local_address(),
        }
    }
}
