//! Octets from and to whatever kind of stream of tokio.

use std::{
    future::Future,
    io::{self, IoSlice},
    pin::{Pin, pin},
    task::{Context, Poll},
};

use bytes::{Buf, BytesMut};
use tieline::Outbox;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite};

/// Pieces of one gathered write.
const PIECES: usize = 64;

/// Never grows the buffer: it is full when it is full.
#[inline]
pub(crate) fn read<S: AsyncRead + Unpin>(
    stream: &mut S,
    cx: &mut Context<'_>,
    into: &mut BytesMut,
) -> Poll<io::Result<usize>> {
    let room = into.capacity() - into.len();
    if room == 0 {
        return Poll::Pending;
    }
    pin!(stream.read_buf(into)).poll(cx)
}

#[inline]
pub(crate) fn write<S: AsyncWrite + Unpin>(
    stream: &mut S,
    cx: &mut Context<'_>,
    out: &mut Outbox,
) -> Poll<io::Result<usize>> {
    let stream = Pin::new(stream);
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

/// Tokio polls a task that wakes itself up to 61 times before it looks at its sockets; what has arrived would wait for
/// as many writes.
pub(crate) fn yield_now(cx: &mut Context<'_>) {
    if pin!(tokio::task::yield_now()).poll(cx).is_ready() {
        cx.waker().wake_by_ref();
    }
}
