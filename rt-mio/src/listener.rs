//! Listening sockets, TCP's and Unix'.

use std::{
    io,
    net::{SocketAddr, ToSocketAddrs},
};

use mio::{
    Interest, Registry, Token,
    event::Source,
    net::{TcpListener, UnixListener},
};
use socket2::{Domain, Protocol, Socket as Socket2, Type};
use tieline::{
    Address,
    unix::{self, SocketFile},
};

use crate::socket::Socket;

/// Connections that wait to be accepted, at most; the system may hold fewer.
const BACKLOG: i32 = 4096;

/// A listening socket that does not wait.
#[derive(Debug)]
pub(crate) enum Listening {
    Tcp(TcpListener),
    /// The file is dropped before the listener, so that nobody reaches a socket that is about to close.
    Unix {
        file: SocketFile,
        listener: UnixListener,
    },
}

impl Listening {
    /// Listens on `address`: `host:port` or `unix:/path`.
    pub(crate) fn bind(address: &str) -> io::Result<Self> {
        match Address::parse(address) {
            Address::Tcp(address) => Self::from_tcp(bind_tcp(address, false)?),
            Address::Unix(path) => {
                let (listener, file) = unix::listen(path)?;
                Ok(Self::Unix { file, listener: UnixListener::from_std(listener) })
            }
        }
    }

    /// Takes over a listener that was made otherwise.
    pub(crate) fn from_tcp(listener: std::net::TcpListener) -> io::Result<Self> {
        listener.set_nonblocking(true)?;
        Ok(Self::Tcp(TcpListener::from_std(listener)))
    }

    /// The next connection, and the other end for people to read.
    pub(crate) fn accept(&self) -> io::Result<(Socket, String)> {
        match self {
            Self::Tcp(listener) => {
                listener.accept().map(|(stream, address)| (Socket::tcp(stream), address.to_string()))
            }
            Self::Unix { listener, .. } => {
                // Who dials has no address of its own, so the listener's stands for it.
                listener.accept().map(|(stream, _)| (Socket::Unix(stream), self.local_address()))
            }
        }
    }

    /// The address, with the port that the kernel chose if it was asked to; as it is written for dialling.
    pub(crate) fn local_address(&self) -> String {
        match self {
            Self::Tcp(listener) => listener.local_addr().ok().map(|address| address.to_string()),
            Self::Unix { file, .. } => Some(file.address().to_owned()),
        }
        .unwrap_or_else(|| "an unknown address".to_owned())
    }
}

impl Source for Listening {
    fn register(&mut self, registry: &Registry, token: Token, interests: Interest) -> io::Result<()> {
        match self {
            Self::Tcp(listener) => listener.register(registry, token, interests),
            Self::Unix { listener, .. } => listener.register(registry, token, interests),
        }
    }

    fn reregister(&mut self, registry: &Registry, token: Token, interests: Interest) -> io::Result<()> {
        match self {
            Self::Tcp(listener) => listener.reregister(registry, token, interests),
            Self::Unix { listener, .. } => listener.reregister(registry, token, interests),
        }
    }

    fn deregister(&mut self, registry: &Registry) -> io::Result<()> {
        match self {
            Self::Tcp(listener) => listener.deregister(registry),
            Self::Unix { listener, .. } => listener.deregister(registry),
        }
    }
}

/// A listener on the first address of `address` that can be taken. `shared`: others of this user may listen there too.
pub(crate) fn bind_tcp(address: &str, shared: bool) -> io::Result<std::net::TcpListener> {
    let mut last = io::Error::new(io::ErrorKind::InvalidInput, "the name has no address");
    for address in address.to_socket_addrs()? {
        match bind_one(address, shared) {
            Ok(listener) => return Ok(listener),
            Err(error) => last = error,
        }
    }
    Err(last)
}

fn bind_one(address: SocketAddr, shared: bool) -> io::Result<std::net::TcpListener> {
    let socket = Socket2::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    // A server that starts again takes its port although old connections linger there.
    socket.set_reuse_address(true)?;
    if shared {
        socket.set_reuse_port(true)?;
    }
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}
