//! One connection and what its driver holds beside it; and the wire between two of them, which is a loop.

use std::error::Error;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Buf;
use tieline_core::Instant;
use tieline_core::conn::{CallHead, Config, ConfigError, Connection, MethodSpec, Outbox, Side};

/// The method that is called.
pub const ECHO: &str = "tieline.bench.v1.Echo/Echo";

/// What each call carries: 64 octets.
pub const PAYLOAD: [u8; 64] = *b"The quick brown fox jumps over the lazy dog. 0123456789 ABCDEFGH";

/// What passes between two batches: about what one takes over a socket.
pub(crate) const TURN: Duration = Duration::from_micros(20);
/// The deadline of each call, counted from its batch. The same that a call through the public client has.
pub(crate) const DEADLINE: Duration = Duration::from_secs(10);
/// The copy from one outbox to the other inbox is the kernel's work, not a driver's. It is made in parts, because a long
/// one is one instruction of the processor which callgrind counts once an octet.
const COPIED: usize = 1024;

/// One of the two connections did something else than it should have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unexpected(pub(crate) &'static str);

impl fmt::Display for Unexpected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

impl Error for Unexpected {}

/// What the client says of itself.
///
/// # Errors
/// [`ConfigError`] if the core takes none of this any more.
pub fn client_config() -> Result<Arc<Config>, ConfigError> {
    Config::builder("bench-client").build()
}

/// A server of [`ECHO`] and of as many other methods as it takes to make `methods`.
///
/// # Errors
/// [`ConfigError`] if there are more than the core takes.
pub fn server_config(methods: usize) -> Result<Arc<Config>, ConfigError> {
    let other = |number| MethodSpec::unary(&format!("tieline.bench.v1.Other{number}/Other"));
    let builder = Config::builder("bench-server").method(MethodSpec::unary(ECHO));
    (1..methods).fold(builder, |builder, number| builder.method(other(number))).build()
}

/// The head of a call that begins now.
#[inline]
pub(crate) const fn head(until: Instant) -> CallHead<'static> {
    CallHead::new(ECHO).deadline(Some(until))
}

/// A connection and the outbox of its driver.
#[derive(Debug)]
pub(crate) struct End<U> {
    pub(crate) conn: Connection<U>,
    outbox: Outbox,
}

impl<U> End<U> {
    pub(crate) fn new(config: &Arc<Config>, side: Side, seed: u64, now: Instant) -> Self {
        Self { conn: Connection::new(Arc::clone(config), side, seed, now), outbox: Outbox::new() }
    }

    /// Commits what waits and hands it to `to`, which decodes what it was lent for, with `events`, before it lends
    /// again. The outbox stands for the kernel's buffer: it takes all of a write at once, and gives it out as it is
    /// read.
    #[inline]
    pub(crate) fn carry(
        &mut self,
        now: Instant,
        to: &mut Self,
        mut events: impl FnMut(&mut Connection<U>) -> Result<(), Unexpected>,
    ) -> Result<(), Unexpected> {
        loop {
            self.conn.poll_transmit(now, &mut self.outbox);
            let full = !self.outbox.has_room();
            if self.outbox.has_remaining() {
                self.conn.handle_sent(now, self.outbox.remaining());
            }
            while self.outbox.has_remaining() {
                let mut buffer = to.conn.lend();
                let piece = self.outbox.chunk();
                let octets = piece.len().min(buffer.capacity());
                let piece = piece.get(..octets).filter(|piece| !piece.is_empty());
                let piece = piece.ok_or(Unexpected("a buffer without room was lent"))?;
                piece.chunks(COPIED).for_each(|part| buffer.extend_from_slice(part));
                self.outbox.advance(octets);
                to.conn.handle_input(now, buffer);
                events(&mut to.conn)?;
            }
            if !full {
                return Ok(());
            }
        }
    }
}
