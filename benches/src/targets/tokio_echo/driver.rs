//! The one task that reads and writes the connection.

use std::future::Future;
use std::io;
use std::ops::Range;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, Waker, ready};

use bytes::{BufMut, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWrite};
use tokio::net::TcpStream;

use super::state::Shared;
use crate::buffer::Outbox;
use crate::frame::{self, HEADER, Kind, Parsed};

/// Room that a read has at first, and the most that it grows to while reads fill it.
const READ_LEAST: usize = 16 * 1024;
const READ_MOST: usize = 512 * 1024;
/// A frame longer than this is read to its end and no further: what would be read of the next one
/// would have to be moved.
const LONG: usize = 64 * 1024;

/// One connection's socket and buffers.
pub(super) struct Driver {
    stream: TcpStream,
    pub(super) shared: Arc<Shared>,
    outbox: Outbox,
    input: BytesMut,
    /// Room for the next read.
    room: usize,
    /// The length of the frame that the input holds the start of.
    need: usize,
    /// The replies of one read, and who waits for them; kept for their storage.
    replies: Vec<(u64, Range<usize>)>,
    wakers: Vec<Waker>,
}

impl Driver {
    pub(super) fn new(stream: TcpStream, shared: Arc<Shared>) -> Self {
        Self {
            stream,
            shared,
            outbox: Outbox::default(),
            input: BytesMut::new(),
            room: READ_LEAST,
            need: HEADER,
            replies: Vec::new(),
            wakers: Vec::new(),
        }
    }

    /// Ready when the connection is over.
    pub(super) fn poll(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if let Poll::Ready(unused) = self.write(context)?
            && unused
        {
            return Poll::Ready(Ok(()));
        }
        loop {
            let long = self.need > LONG;
            ready!(self.read(context))?;
            if long && self.need <= LONG {
                // A long reply is there. Its caller goes first: once it has dropped the reply, the next
                // one is read into the same storage.
                context.waker().wake_by_ref();
                return Poll::Pending;
            }
        }
    }

    /// Writes all that waits, in one call unless the kernel takes only a part. Ready when nothing waits
    /// any more: with true if nobody is there who could call.
    fn write(&mut self, context: &mut Context<'_>) -> Poll<io::Result<bool>> {
        loop {
            while !self.outbox.waiting().is_empty() {
                match ready!(Pin::new(&mut self.stream).poll_write(context, self.outbox.waiting()))? {
                    0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                    octets => self.outbox.sent(octets),
                }
            }
            let mut state = self.shared.lock();
            if state.out.is_empty() {
                state.driver = Some(context.waker().clone());
                return Poll::Ready(Ok(state.unused));
            }
            self.outbox.swap(&mut state.out);
        }
    }

    /// One read, and all replies of it.
    fn read(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let long = self.need > LONG;
        let missing = self.need.saturating_sub(self.input.len());
        let spare = self.input.capacity() - self.input.len();
        if spare < missing || (spare < READ_LEAST / 2 && !long) {
            self.input.reserve(missing.max(self.room));
        }
        let most = if long { missing } else { self.input.capacity() };
        let mut room = (&mut self.input).limit(most);
        let spare = room.remaining_mut();
        let octets = ready!(pin!(self.stream.read_buf(&mut room)).poll(context))?;
        if octets == 0 {
            return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into()));
        }
        if octets == spare && !long {
            self.room = (self.room * 2).min(READ_MOST);
        }
        Poll::Ready(self.decode())
    }

    fn decode(&mut self) -> io::Result<()> {
        let mut consumed = 0;
        self.need = loop {
            let rest = self.input.get(consumed..).unwrap_or_default();
            match frame::parse(rest, Kind::Response)? {
                Parsed::Partial { need } => break need,
                Parsed::Frame { id, payload, octets } => {
                    consumed += octets;
                    self.replies.push((id, consumed - payload.len()..consumed));
                }
            }
        };
        if consumed == 0 {
            return Ok(());
        }
        // The replies share the storage of the read: no copy and no allocation for each.
        let block = self.input.split_to(consumed).freeze();
        let mut state = self.shared.lock();
        for (id, place) in self.replies.drain(..) {
            self.wakers.extend(state.deliver(id, block.slice(place))?);
        }
        drop(state);
        self.wakers.drain(..).for_each(Waker::wake);
        Ok(())
    }
}
