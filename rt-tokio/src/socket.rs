//! Stream sockets, of TCP and of Unix, by tokio.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
};

use bytes::BytesMut;
#[cfg(unix)]
use tieline::unix::{self, SocketFile};
use tieline::{Address, Io, Listener, Outbox};
#[cfg(unix)]
use tokio::net::{UnixListener, UnixStream};
use tokio::{
    io::AsyncWrite,
    net::{TcpListener, TcpStream},
};

use crate::octets;

/// Unsent octets that the kernel holds before it asks for more. What waits longer waits where it can still be put in
/// order: a heartbeat overtakes it in the core, but not in the kernel.
#[cfg(any(target_os = "linux", target_os = "android"))]
const NOTSENT_LOWAT: u32 = 128 * 1024;

/// A connection over TCP or over a Unix socket.
#[derive(Debug)]
pub struct Socket(Stream);

#[derive(Debug)]
enum Stream {
    Tcp(TcpStream),
    #[cfg(unix)]
    Unix(UnixStream),
}

impl Socket {
    pub(crate) async fn connect(address: String) -> io::Result<Self> {
        match Address::parse(&address) {
            Address::Tcp(address) => Ok(TcpStream::connect(address).await?.into()),
            #[cfg(unix)]
            Address::Unix(path) => {
                unix::check(path)?;
                Ok(UnixStream::connect(path).await.map_err(unix::explain)?.into())
            }
            #[cfg(not(unix))]
            other => Err(other.unsupported()),
        }
    }
}

/// Takes over a connection that was made otherwise. Options that the system does not have are left as they are.
impl From<TcpStream> for Socket {
    fn from(stream: TcpStream) -> Self {
        // Frames are coalesced already; what is written is meant to go out.
        let _ = stream.set_nodelay(true);
        #[cfg(any(target_os = "linux", target_os = "android"))]
        let _ = socket2::SockRef::from(&stream).set_tcp_notsent_lowat(NOTSENT_LOWAT);
        Self(Stream::Tcp(stream))
    }
}

/// Takes over a connection that was made otherwise, one half of a pair for instance.
#[cfg(unix)]
impl From<UnixStream> for Socket {
    fn from(stream: UnixStream) -> Self {
        Self(Stream::Unix(stream))
    }
}

impl Io for Socket {
    #[inline]
    fn poll_read(&mut self, cx: &mut Context<'_>, into: &mut BytesMut) -> Poll<io::Result<usize>> {
        match &mut self.0 {
            Stream::Tcp(tcp) => octets::read(tcp, cx, into),
            #[cfg(unix)]
            Stream::Unix(unix) => octets::read(unix, cx, into),
        }
    }

    #[inline]
    fn poll_write(&mut self, cx: &mut Context<'_>, out: &mut Outbox) -> Poll<io::Result<usize>> {
        match &mut self.0 {
            Stream::Tcp(tcp) => octets::write(tcp, cx, out),
            #[cfg(unix)]
            Stream::Unix(unix) => octets::write(unix, cx, out),
        }
    }

    fn poll_shutdown(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.0 {
            Stream::Tcp(tcp) => Pin::new(tcp).poll_shutdown(cx),
            #[cfg(unix)]
            Stream::Unix(unix) => Pin::new(unix).poll_shutdown(cx),
        }
    }

    fn yield_now(&mut self, cx: &mut Context<'_>) {
        octets::yield_now(cx);
    }

    /// The peer's machine at a Unix socket is this one: the kernel tells when it is gone.
    #[cfg(any(target_os = "linux", target_os = "android"))]
    fn set_dead_after(&mut self, silence: std::time::Duration) {
        if let Stream::Tcp(tcp) = &self.0 {
            let _ = socket2::SockRef::from(tcp).set_tcp_user_timeout(Some(silence));
        }
    }
}

/// A listening socket, of TCP or of Unix.
#[derive(Debug)]
pub struct SocketListener(Listening);

#[derive(Debug)]
enum Listening {
    Tcp(TcpListener),
    /// With the file that it made, if it did. That goes first.
    #[cfg(unix)]
    Unix(Option<SocketFile>, UnixListener),
}

impl SocketListener {
    pub(crate) async fn bind(address: String) -> io::Result<Self> {
        match Address::parse(&address) {
            Address::Tcp(address) => Ok(TcpListener::bind(address).await?.into()),
            #[cfg(unix)]
            Address::Unix(path) => {
                let (listener, file) = unix::listen(path)?;
                Ok(Self(Listening::Unix(Some(file), UnixListener::from_std(listener)?)))
            }
            #[cfg(not(unix))]
            other => Err(other.unsupported()),
        }
    }
}

/// Takes over a listener that was made otherwise.
impl From<TcpListener> for SocketListener {
    fn from(listener: TcpListener) -> Self {
        Self(Listening::Tcp(listener))
    }
}

/// Takes over a listener that was made otherwise; its file is left to whoever made it.
#[cfg(unix)]
impl From<UnixListener> for SocketListener {
    fn from(listener: UnixListener) -> Self {
        Self(Listening::Unix(None, listener))
    }
}

impl Listener for SocketListener {
    type Io = Socket;

    fn poll_accept(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<(Socket, String)>> {
        match &self.0 {
            Listening::Tcp(tcp) => {
                tcp.poll_accept(cx).map_ok(|(stream, from)| (stream.into(), from.to_string()))
            }
            // Who dials has no address of its own, so the listener's stands for it.
            #[cfg(unix)]
            Listening::Unix(_, unix) => {
                unix.poll_accept(cx).map_ok(|(stream, _)| (stream.into(), self.local_address()))
            }
        }
    }

    fn local_address(&self) -> String {
        let known = match &self.0 {
            Listening::Tcp(tcp) => tcp.local_addr().map(|here| here.to_string()),
            #[cfg(unix)]
            Listening::Unix(Some(file), _) => return file.address().to_owned(),
            #[cfg(unix)]
            Listening::Unix(None, unix) => unix.local_addr().map(|here| match here.as_pathname() {
                Some(path) => format!("unix:{}", path.display()),
                None => "an unnamed Unix socket".to_owned(),
            }),
        };
        known.unwrap_or_else(|_| "an unknown address".to_owned())
    }
}
