//! TLS over any transport: an [`Io`] around another one.
//!
//! Reading brings the handshake on; writing waits for it, so that the time for it is the time for the check-in. What is
//! encrypted is a piece of what the connection has committed, and the next piece is only taken once all of that one is
//! with the transport below: nothing waits here that could still be put in order elsewhere. A piece counts as written
//! when its ciphertext is, so whoever waits for the transport sees it as it is.

use std::{
    collections::VecDeque,
    io,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use bytes::{Buf, Bytes, BytesMut};
use rustls::ServerConfig;
use tieline_core::{
    conn::Outbox,
    wire::{Close, Envelope, Flags, Frame, FrameType, Header, Status},
};

use super::{
    certificate::{Certificate, Known},
    config::Towards,
    error::TlsError,
    plain::{Arriving, Leaving, Sealing},
    session::{Session, Turn},
};
use crate::{error::SPEAKS_TLS, runtime::Io};

/// Octets that are read together: at first, and while more comes than that.
const LEAST_READ: usize = 8 * 1024;
const MOST_READ: usize = 64 * 1024;
/// Octets that encrypting adds to what is read together.
const SEALS: usize = 256;
/// Ciphertext that is not whole: the longest message of a handshake, and what was read behind it.
const MOST_UNREAD: usize = 80 * 1024;
/// Reads in a row that bring nothing for the connection, before other tasks have their turn.
const EMPTY_READS: usize = 16;
/// The first octet of Tieline's magic, which no record of TLS begins with.
const MAGIC: u8 = 0xBE;

/// A piece on its way: octets of plaintext and of ciphertext that the transport below has not taken. What is not the
/// connection's has no plaintext.
struct Piece {
    plain: usize,
    cipher: usize,
}

/// TLS over `I`.
pub(crate) struct Tls<I> {
    io: I,
    session: Session,
    known: Arc<Known>,
    /// Ciphertext that is not whole yet.
    came: BytesMut,
    /// How much to read next.
    reach: usize,
    /// Plaintext that the last reader had no room for.
    left: BytesMut,
    /// Ciphertext on its way.
    out: Outbox,
    pieces: VecDeque<Piece>,
    /// Octets of plaintext that are written, and that the connection has not been told of.
    written: usize,
    /// The handshake is complete.
    open: bool,
    /// The peer has said its farewell, or this end has.
    peer_closed: bool,
    closed: bool,
    failed: Option<TlsError>,
}

impl<I: Io> Tls<I> {
    /// The client's end. The name of the node is checked, and its certificate.
    pub(crate) fn client(io: I, towards: &Towards) -> Result<(Self, Arc<Known>), TlsError> {
        let mut tls = Self::new(io, Session::client(towards)?);
        tls.begin()?;
        let known = Arc::clone(&tls.known);
        Ok((tls, known))
    }

    /// The server's end.
    pub(crate) fn server(io: I, config: &Arc<ServerConfig>) -> Result<(Self, Arc<Known>), TlsError> {
        let tls = Self::new(io, Session::server(config)?);
        let known = Arc::clone(&tls.known);
        Ok((tls, known))
    }

    #[cfg(test)]
    pub(super) const fn is_open(&self) -> bool {
        self.open
    }

    /// Octets of ciphertext that the transport below has not taken.
    #[cfg(test)]
    pub(super) fn waiting(&self) -> usize {
        self.out.remaining()
    }

    fn new(io: I, session: Session) -> Self {
        Self {
            io,
            session,
            known: Arc::default(),
            came: BytesMut::new(),
            reach: LEAST_READ,
            left: BytesMut::new(),
            out: Outbox::new(),
            pieces: VecDeque::new(),
            written: 0,
            open: false,
            peer_closed: false,
            closed: false,
            failed: None,
        }
    }

    /// The client speaks first.
    fn begin(&mut self) -> Result<(), TlsError> {
        let mut nothing = BytesMut::new();
        let mut out = Vec::new();
        let mut arriving = Arriving { into: &mut nothing, left: &mut self.left };
        self.session.turn(&mut self.came, &mut arriving, &mut out)?;
        self.send(out, 0);
        Ok(())
    }

    /// Puts ciphertext on its way.
    fn send(&mut self, out: Vec<u8>, plain: usize) {
        if !out.is_empty() {
            self.pieces.push_back(Piece { plain, cipher: out.len() });
            self.out.push(Bytes::from(out));
        }
    }

    /// Writes ciphertext until all of it is with the transport below.
    fn flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.out.remaining() > 0 {
            match self.io.poll_write(cx, &mut self.out) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Ok(0)) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                Poll::Ready(Ok(octets)) => self.took(octets),
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
            }
        }
        Poll::Ready(Ok(()))
    }

    /// The transport below took so much ciphertext. The last octet of a piece counts once the whole piece is gone, so
    /// that whoever waits for it writes on.
    fn took(&mut self, mut octets: usize) {
        while let Some(piece) = self.pieces.front_mut() {
            let step = octets.min(piece.cipher);
            piece.cipher -= step;
            octets -= step;
            let left = piece.plain.min(piece.cipher);
            self.written += piece.plain - left;
            piece.plain = left;
            if piece.cipher > 0 {
                break;
            }
            self.pieces.pop_front();
        }
    }

    /// Notes what is wrong, and makes it an error of the transport.
    fn fail(&mut self, error: TlsError) -> io::Error {
        let error = self.failed.get_or_insert(error);
        let _ = self.known.error.set(error.clone());
        let kind = match error {
            TlsError::Cut | TlsError::HandshakeCut => io::ErrorKind::UnexpectedEof,
            _ => io::ErrorKind::InvalidData,
        };
        io::Error::new(kind, error.clone())
    }

    /// What an error of rustls means at this point: what was TLS before has been broken.
    fn name(&self, cause: rustls::Error) -> TlsError {
        match cause {
            rustls::Error::InvalidMessage(_) if self.open => TlsError::Failed(cause.to_string()),
            cause => cause.into(),
        }
    }

    /// What arrived cannot be TLS: it is said in words that the peer understands.
    fn refuse_plain(&mut self) -> TlsError {
        if self.session.is_server() {
            let header = Header {
                frame_type: FrameType::CLOSE,
                flags: Flags::NONE,
                status: Status::PROTOCOL_ERROR,
                id: 0,
                len: 0,
            };
            let envelope = Envelope::Close(Close { message: SPEAKS_TLS });
            let mut out = Vec::new();
            if (Frame { header, envelope, payload: b"" }).emit(&mut out).is_ok() {
                self.send(out, 0);
            }
        }
        TlsError::Plain
    }

    /// Looks at what has arrived, and hands plaintext on.
    fn look(&mut self, into: &mut BytesMut) -> Result<(), TlsError> {
        if !self.open && self.came.first() == Some(&MAGIC) {
            return Err(self.refuse_plain());
        }
        let mut out = Vec::new();
        let mut arriving = Arriving { into, left: &mut self.left };
        let turn = self.session.turn(&mut self.came, &mut arriving, &mut out);
        self.send(out, 0);
        self.peer_closed |= turn.map_err(|cause| self.name(cause))? == Turn::PeerClosed;
        if !self.open && !self.session.is_handshaking() {
            self.open = true;
            if let Some(certificate) = self.session.certificate() {
                let _ = self.known.certificate.set(Certificate::new(certificate));
            }
        }
        if self.came.len() > MOST_UNREAD {
            return Err(TlsError::Failed("a message of the handshake is too long".to_owned()));
        }
        Ok(())
    }

    /// Reads until there is plaintext. `Ok(0)`: the peer has said its farewell.
    fn read(&mut self, cx: &mut Context<'_>, into: &mut BytesMut) -> Poll<io::Result<usize>> {
        let before = into.len();
        for _ in 0..EMPTY_READS {
            // What belongs to the connection is written by it.
            let mut broken = None;
            if (self.failed.is_some() || self.pieces.iter().all(|piece| piece.plain == 0))
                && let Poll::Ready(Err(error)) = self.flush(cx)
            {
                broken = Some(error);
            }
            // What came whole before the end still counts.
            if into.len() > before {
                return Poll::Ready(Ok(into.len() - before));
            }
            if let Some(error) = &self.failed {
                let error = error.clone();
                return Poll::Ready(Err(self.fail(error)));
            }
            if self.peer_closed {
                return Poll::Ready(Ok(0));
            }
            // What the reader has no room for would be copied twice.
            let room = (into.capacity() - into.len() + SEALS).max(LEAST_READ);
            self.came.reserve(self.reach.min(room));
            match self.io.poll_read(cx, &mut self.came) {
                Poll::Pending => {
                    if self.came.is_empty() {
                        // An idle connection holds no buffer.
                        self.came = BytesMut::new();
                    }
                    // What arrived may say why a write failed; it did not.
                    return broken.map_or(Poll::Pending, |error| Poll::Ready(Err(error)));
                }
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Ready(Ok(0)) => {
                    let error = if self.open { TlsError::Cut } else { TlsError::HandshakeCut };
                    return Poll::Ready(Err(self.fail(error)));
                }
                Poll::Ready(Ok(octets)) => {
                    self.reach = match octets {
                        // Before the handshake is complete nobody is known who would deserve more.
                        octets if octets >= self.reach.min(room) && self.open => {
                            (self.reach * 2).min(MOST_READ)
                        }
                        octets if octets < LEAST_READ => LEAST_READ,
                        _ => self.reach,
                    };
                }
            }
            if let Err(error) = self.look(into) {
                // The next round tells the peer, and then the connection.
                self.fail(error);
            }
        }
        if into.len() > before {
            return Poll::Ready(Ok(into.len() - before));
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}

impl<I: Io> Io for Tls<I> {
    fn poll_read(&mut self, cx: &mut Context<'_>, into: &mut BytesMut) -> Poll<io::Result<usize>> {
        let room = into.capacity() - into.len();
        if room == 0 {
            return Poll::Pending;
        }
        if !self.left.is_empty() {
            let octets = room.min(self.left.len());
            into.extend_from_slice(self.left.get(..octets).unwrap_or_default());
            self.left.advance(octets);
            if self.left.is_empty() {
                self.left = BytesMut::new();
            }
            return Poll::Ready(Ok(octets));
        }
        let was_open = self.open;
        let read = self.read(cx, into);
        if read.is_pending() && self.open && !was_open {
            // What waits to be written waited for this.
            cx.waker().wake_by_ref();
        }
        read
    }

    fn poll_write(&mut self, cx: &mut Context<'_>, out: &mut Outbox) -> Poll<io::Result<usize>> {
        if let Some(error) = &self.failed {
            let error = error.clone();
            return Poll::Ready(Err(self.fail(error)));
        }
        if !self.open && self.session.is_server() {
            // A server speaks before the handshake only to close, and nobody could read that.
            return Poll::Ready(Err(self.fail(TlsError::HandshakeCut)));
        }
        loop {
            let flushed = self.flush(cx);
            if let Poll::Ready(Err(error)) = flushed {
                return Poll::Ready(Err(error));
            }
            if self.written > 0 {
                let octets = std::mem::take(&mut self.written);
                out.advance(octets);
                return Poll::Ready(Ok(octets));
            }
            if flushed.is_pending() || !self.open || !out.has_remaining() {
                return Poll::Pending;
            }
            let (mut nothing, mut sealed) = (BytesMut::new(), Vec::new());
            let arriving = Arriving { into: &mut nothing, left: &mut self.left };
            let mut sealing = Sealing { arriving, from: out, sealed: 0 };
            let turn = self.session.turn(&mut self.came, &mut sealing, &mut sealed);
            let plain = sealing.sealed;
            match turn {
                Ok(turn) => self.peer_closed |= turn == Turn::PeerClosed,
                Err(error) => return Poll::Ready(Err(self.fail(error.into()))),
            }
            if sealed.is_empty() {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.send(sealed, plain);
        }
    }

    fn poll_shutdown(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.open && !self.closed && self.failed.is_none() {
            self.closed = true;
            let (mut nothing, mut out) = (BytesMut::new(), Vec::new());
            let mut leaving = Leaving(Arriving { into: &mut nothing, left: &mut self.left });
            let turn = self.session.turn(&mut self.came, &mut leaving, &mut out);
            self.send(out, 0);
            if let Err(error) = turn {
                return Poll::Ready(Err(self.fail(error.into())));
            }
        }
        match self.flush(cx) {
            Poll::Ready(Ok(())) => self.io.poll_shutdown(cx),
            other => other,
        }
    }

    fn yield_now(&mut self, cx: &mut Context<'_>) {
        self.io.yield_now(cx);
    }

    fn set_dead_after(&mut self, silence: Duration) {
        self.io.set_dead_after(silence);
    }
}
