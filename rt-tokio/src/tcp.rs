//! TCP, by tokio.

use std::{
    io::{self, IoSlice},
    pin::{Pin, pin},
    task::{Context, Poll},
    time::Duration,
};

use bytes::{Buf, BytesMut};
use socket2::SockRef;
use tieline::{Io, Listener, Outbox};
use tokio::{
    io::{AsyncReadExt, AsyncWrite},
    net::TcpStream,
};

/// Unsent octets that the kernel holds before it asks for more. What waits longer waits where it can still be put in
/// order: a heartbeat overtakes it in the core, but not in the kernel.
const NOTSENT_LOWAT: u32 = 128 * 1024;
/// Pieces of one gathered write.
const PIECES: usize = 64;

/// A TCP connection.
#[derive(Debug)]
pub struct Tcp {
    stream: TcpStream,
}

impl Tcp {
    pub(crate) async fn connect(address: String) -> io::Result<Self> {
        Ok(Self::new(TcpStream::connect(&*address).await?))
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
        // Never grows the buffer: it is full when it is full.
        let room = into.capacity() - into.len();
        if room == 0 {
            return Poll::Pending;
        }
        pin!(self.stream.read_buf(into)).poll(cx)
    }

    fn poll_write(&mut self, cx: &mut Context<'_>, out: &mut Outbox) -> Poll<io::Result<usize>> {
        let stream = Pin::new(&mut self.stream);
        let chunk = out.chunk();
        let written = if chunk.len() == out.remaining() {
            stream.poll_write(cx, chunk)
        } else {
            let mut pieces = [IoSlice::new(&[]); PIECES];
            let mut count = 0;
            for (piece, chunk) in pieces.iter_mut().zip(out.chunks()) {
                *piece = IoSlice::new(chunk);
                count += 1;
            }
            stream.poll_write_vectored(cx, pieces.get(..count).unwrap_or_default())
        };
        if let Poll::Ready(Ok(octets)) = written {
            out.advance(octets);
        }
        written
    }

    fn poll_shutdown(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    /// Tokio polls a task that wakes itself up to 61 times before it looks at its sockets; what has arrived would wait for
    /// as many writes.
    fn yield_now(&mut self, cx: &mut Context<'_>) {
        if pin!(tokio::task::yield_now()).poll(cx).is_ready() {
            cx.waker().wake_by_ref();
        }
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
    pub(crate) async fn bind(address: String) -> io::Result<Self> {
        Ok(Self { listener: tokio::net::TcpListener::bind(&*address).await? })
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
