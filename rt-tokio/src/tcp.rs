//! TCP, by tokio.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use bytes::BytesMut;
use socket2::SockRef;
use tieline::{Io, Listener, Outbox};
use tokio::{io::AsyncWrite, net::TcpStream};

use crate::octets;

/// Unsent octets that the kernel holds before it asks for more. What waits longer waits where it can still be put in
/// order: a heartbeat overtakes it in the core, but not in the kernel.
const NOTSENT_LOWAT: u32 = 128 * 1024;
/// A TCP connection.
#[derive(Debug)]
pub struct Tcp {
    stream: TcpStream,
}

impl Tcp {
    pub(crate) async fn connect(address: &str) -> io::Result<Self> {
        Ok(Self::new(TcpStream::connect(address).await?))
    }

    /// Takes over a connection that was made otherwise. Options that the system does not have are left as they are.
    #[must_use]
    pub fn new(stream: TcpStream) -> Self {
        // Frames are coalesced already; what is written is meant to go out.
        let _ = stream.set_nodelay(true);
        #[cfg(any(target_os = "linux", target_os = "android"))]
        let _ = SockRef::from(&stream).set_tcp_notsent_lowat(NOTSENT_LOWAT);
        Self { stream }
    }
}

impl Io for Tcp {
    fn poll_read(&mut self, cx: &mut Context<'_>, into: &mut BytesMut) -> Poll<io::Result<usize>> {
        octets::read(&mut self.stream, cx, into)
    }

    fn poll_write(&mut self, cx: &mut Context<'_>, out: &mut Outbox) -> Poll<io::Result<usize>> {
        octets::write(&mut self.stream, cx, out)
    }

    fn poll_shutdown(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    fn yield_now(&mut self, cx: &mut Context<'_>) {
        octets::yield_now(cx);
    }

    fn set_dead_after(&mut self, silence: Duration) {
        #[cfg(any(target_os = "linux", target_os = "android"))]
        let _ = SockRef::from(&self.stream).set_tcp_user_timeout(Some(silence));
    }
}

/// A listening TCP socket.
#[derive(Debug)]
pub struct TcpListener {
    listener: tokio::net::TcpListener,
}

impl TcpListener {
    pub(crate) async fn bind(address: &str) -> io::Result<Self> {
        Ok(Self { listener: tokio::net::TcpListener::bind(address).await? })
    }
}

impl From<tokio::net::TcpListener> for TcpListener {
    fn from(listener: tokio::net::TcpListener) -> Self {
        Self { listener }
    }
}

impl Listener for TcpListener {
    type Io = Tcp;

    fn poll_accept(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<(Tcp, String)>> {
        self.listener
            .poll_accept(cx)
            .map(|accepted| accepted.map(|(stream, address)| (Tcp::new(stream), address.to_string())))
    }

    fn local_address(&self) -> String {
        self.listener
            .local_addr()
            .map_or_else(|_| "an unknown address".to_owned(), |address| address.to_string())
    }
}
