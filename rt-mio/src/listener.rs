//! Listening sockets, TCP's and Unix'.

use std::{
    fs, io,
    net::{SocketAddr, ToSocketAddrs},
    os::unix::fs::{FileTypeExt, MetadataExt},
    path::{Path, PathBuf},
};

use mio::{
    Interest, Registry, Token,
    event::Source,
    net::{TcpListener, UnixListener, UnixStream},
};
use socket2::{Domain, Protocol, Socket as Socket2, Type};
use tieline::Address;

use crate::socket::Socket;

/// Connections that wait to be accepted, at most; the system may hold fewer.
const BACKLOG: i32 = 4096;

/// A listening socket that does not wait.
#[derive(Debug)]
pub(crate) enum Listening {
    Tcp(TcpListener),
    Unix { listener: UnixListener, _file: Option<File> },
}

impl Listening {
    /// Listens on `address`: `host:port` or `unix:/path`.
    pub(crate) fn bind(address: &str) -> io::Result<Self> {
        match Address::parse(address) {
            Address::Tcp(address) => Self::from_tcp(bind_tcp(address, false)?),
            Address::Unix(path) => bind_unix(path),
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
                listener.accept().map(|(stream, _)| (Socket::Unix(stream), "unix".to_owned()))
            }
        }
    }

    /// The address, with the port that the kernel chose if it was asked to; as it is written for dialling.
    pub(crate) fn local_address(&self) -> String {
        match self {
            Self::Tcp(listener) => listener.local_addr().ok().map(|address| address.to_string()),
            Self::Unix { listener, .. } => listener
                .local_addr()
                .ok()
                .and_then(|address| Some(format!("unix:{}", address.as_pathname()?.display()))),
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

/// The file of a Unix socket. It is removed with the listener, unless another one stands there by then.
#[derive(Debug)]
pub(crate) struct File {
    path: PathBuf,
    /// Device and number.
    identity: (u64, u64),
}

impl File {
    fn at(path: &Path) -> io::Result<Self> {
        Ok(Self { path: path.to_owned(), identity: identity(path)? })
    }
}

impl Drop for File {
    fn drop(&mut self) {
        if identity(&self.path).is_ok_and(|identity| identity == self.identity) {
            // That it stays is seen by who listens there next.
            let _ = fs::remove_file(&self.path);
        }
    }
}

fn identity(path: &Path) -> io::Result<(u64, u64)> {
    let about = fs::symlink_metadata(path)?;
    Ok((about.dev(), about.ino()))
}

/// Listens at `path`. What a process that has ended left there is cleared away; a socket at which somebody listens, and
/// a file of any other kind, are not touched.
fn bind_unix(path: &Path) -> io::Result<Listening> {
    let listener = match UnixListener::bind(path) {
        Err(error) if error.kind() == io::ErrorKind::AddrInUse && is_left_over(path) => {
            fs::remove_file(path)?;
            UnixListener::bind(path)?
        }
        bound => bound?,
    };
    Ok(Listening::Unix { listener, _file: File::at(path).ok() })
}

/// A socket at which nobody listens.
fn is_left_over(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok_and(|about| about.file_type().is_socket())
        // One that does not wait: a listener that does not keep up is one all the same.
        && UnixStream::connect(path)
            .is_err_and(|error| error.kind() == io::ErrorKind::ConnectionRefused)
}
