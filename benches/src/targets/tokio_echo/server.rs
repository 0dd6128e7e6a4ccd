//! The echo server: one task a connection, no handlers.

use std::convert::Infallible;
use std::future::poll_fn;
use std::io;
use std::net;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Builder;

use crate::buffer::{Inbox, Outbox};
use crate::frame;

/// While more than this waits to be written, nothing more is read from that connection.
const OUTPUT_MOST: usize = 1 << 20;

/// Serves until the process ends.
pub(crate) fn serve(listener: net::TcpListener) -> io::Result<Infallible> {
    listener.set_nonblocking(true)?;
    Builder::new_current_thread().enable_io().build()?.block_on(async {
        let listener = TcpListener::from_std(listener)?;
        loop {
            let (stream, _) = listener.accept().await?;
            stream.set_nodelay(true)?;
            tokio::spawn(async move {
                let mut connection = Connection::new(stream);
                poll_fn(|context| connection.poll(context)).await
            });
        }
    })
}

#[derive(Debug)]
struct Connection {
    stream: TcpStream,
    inbox: Inbox,
    outbox: Outbox,
    /// The length of the frame that the inbox holds the start of.
    need: usize,
}

impl Connection {
    fn new(stream: TcpStream) -> Self {
        Self { stream, inbox: Inbox::new(), outbox: Outbox::default(), need: frame::HEADER }
    }

    /// Reads, answers and writes until the socket has nothing more. Reading goes on while writing
    /// waits, up to a bound.
    ///
    /// `poll_read` rather than `try_read`: only it takes a short read as the sign that the socket is
    /// empty, and spares the read that would find nothing.
    fn poll(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            let wrote = self.write(context)?;
            if self.outbox.waiting().len() >= OUTPUT_MOST {
                ready!(wrote);
            }
            let mut room = ReadBuf::new(self.inbox.room(self.need));
            ready!(Pin::new(&mut self.stream).poll_read(context, &mut room))?;
            let octets = room.filled().len();
            if octets == 0 {
                return Poll::Ready(Ok(()));
            }
            self.inbox.filled(octets);
            let echoed = frame::echo(self.inbox.waiting(), self.outbox.tail())?;
            self.inbox.consume(echoed.consumed);
            self.need = echoed.need;
        }
    }

    /// Ready when nothing waits any more.
    fn write(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.outbox.waiting().is_empty() {
            match ready!(Pin::new(&mut self.stream).poll_write(context, self.outbox.waiting()))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                octets => self.outbox.sent(octets),
            }
        }
        Poll::Ready(Ok(()))
    }
}
