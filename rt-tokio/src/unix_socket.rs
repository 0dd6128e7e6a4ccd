//! Unix sockets, by tokio.

use std::{
    io,
    path::Path,
    pin::Pin,
    task::{Context, Poll},
};

use bytes::BytesMut;
use tieline::{
    Io, Listener, Outbox,
    unix::{SocketFile, check, explain, listen},
};
use tokio::{io::AsyncWrite, net::UnixStream};

use crate::octets;

/// A connection over a Unix socket.
#[derive(Debug)]
pub struct Unix {
    stream: UnixStream,
}

impl Unix {
    pub(crate) async fn connect(path: &Path) -> io::Result<Self> {
        check(path)?;
        Ok(Self::new(UnixStream::connect(path).await.map_err(explain)?))
    }

    /// Takes over a connection that was made otherwise, one half of a pair for instance.
    #[must_use]
    pub const fn new(stream: UnixStream) -> Self {
        Self { stream }
    }
}

impl Io for Unix {
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
}

/// A listening Unix socket. Its file goes away with it, if it made one.
#[derive(Debug)]
pub struct UnixListener {
    /// Removed before the socket closes.
    file: Option<SocketFile>,
    listener: tokio::net::UnixListener,
}

impl UnixListener {
    pub(crate) fn bind(path: &Path) -> io::Result<Self> {
        let (listener, file) = listen(path)?;
        Ok(Self { file: Some(file), listener: tokio::net::UnixListener::from_std(listener)? })
    }
}

/// Takes over a socket that was made otherwise; its file is left to whoever made it.
impl From<tokio::net::UnixListener> for UnixListener {
    fn from(listener: tokio::net::UnixListener) -> Self {
        Self { file: None, listener }
    }
}

impl Listener for UnixListener {
    type Io = Unix;

    /// Who dials has no address of its own, so the listener's stands for it.
    fn poll_accept(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<(Unix, String)>> {
        let accepted = self.listener.poll_accept(cx);
        accepted.map(|accepted| accepted.map(|(stream, _)| (Unix::new(stream), self.local_address())))
    }

    fn local_address(&self) -> String {
        if let Some(file) = &self.file {
            return file.address().to_owned();
        }
        match self.listener.local_addr() {
            Ok(address) => match address.as_pathname() {
                Some(path) => format!("unix:{}", path.display()),
                None => "an unnamed Unix socket".to_owned(),
            },
            Err(_) => "an unknown address".to_owned(),
        }
    }
}
