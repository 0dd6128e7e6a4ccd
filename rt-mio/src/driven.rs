//! One connection and its socket: what the direct layer keeps of each, and how it reads and writes.
//!
//! An idle connection holds neither a read buffer nor an outbox: the one is lent by the core for the length of a read,
//! the other is the loop's, and stays with a connection only while the kernel does not take what is in it.

use std::{io, net::SocketAddr};

use bytes::Buf;
use mio::{Registry, Token, event::Event};
use tieline::{
    Instant, Outbox,
    transport::{dead_after, what_broke},
};
use tieline_core::conn::{Connection, Disconnect, PeerInfo};

use crate::{poller::BOTH, socket::Socket};

/// Whether a read or a write that did less than it could means that the socket is empty or full, so that the next
/// event comes when it is not any more. Elsewhere it is asked once more.
pub(crate) const SHORT_SAYS_ALL: bool =
    cfg!(any(target_os = "linux", target_os = "android", target_os = "freebsd", target_os = "macos"));

pub(crate) struct Driven<U> {
    pub(crate) conn: Connection<U>,
    socket: Socket,
    /// What is committed and the kernel has not taken.
    rest: Option<Box<Outbox>>,
    /// It is being dialled; what is left to try.
    dialling: Option<Box<[SocketAddr]>>,
    /// Why the transport is over, once it is known that it is.
    cause: Option<Disconnect>,
    /// When the core wants to be woken.
    pub(crate) wake: Option<Instant>,
    readable: bool,
    writable: bool,
    /// The end of what comes in was announced: a short read does not mean that there is nothing more.
    ending: bool,
    /// The core takes octets.
    pub(crate) wants_read: bool,
    /// Nothing more can be read. After a write that failed there may be: why the peer closed.
    pub(crate) deaf: bool,
    /// Nothing more can be written.
    mute: bool,
    shut: bool,
    /// It has not checked in, and counts among those.
    pub(crate) unchecked: bool,
}

impl<U> Driven<U> {
    /// On a socket that is connected.
    pub(crate) fn new(conn: Connection<U>, socket: Socket) -> Self {
        let wake = conn.next().wake;
        Self {
            conn,
            socket,
            rest: None,
            dialling: None,
            cause: None,
            wake,
            // It is tried once, whatever the poller says.
            readable: true,
            writable: true,
            ending: false,
            wants_read: true,
            deaf: false,
            mute: false,
            shut: false,
            unchecked: false,
        }
    }

    /// On a socket that is being connected to the first of some addresses; `others` are tried after it.
    pub(crate) fn dial(conn: Connection<U>, socket: Socket, others: Vec<SocketAddr>) -> Self {
        let dialling = Some(others.into());
        Self { dialling, readable: false, writable: false, ..Self::new(conn, socket) }
    }

    pub(crate) fn register(&mut self, registry: &Registry, token: Token) -> io::Result<()> {
        registry.register(&mut self.socket, token, BOTH)
    }

    /// Takes the socket out of the poller. It is closed when this is dropped.
    pub(crate) fn deregister(&mut self, registry: &Registry) {
        // That it cannot be taken out means that it is not in it.
        let _ = registry.deregister(&mut self.socket);
    }

    pub(crate) fn note(&mut self, event: &Event) {
        self.readable |= event.is_readable() || event.is_read_closed() || event.is_error();
        self.writable |= event.is_writable() || event.is_write_closed() || event.is_error();
        self.ending |= event.is_read_closed() || event.is_error();
    }

    pub(crate) fn peer_address(&self) -> String {
        self.socket.peer_address()
    }

    pub(crate) fn checked_in(&self, peer: &PeerInfo) {
        self.socket.set_dead_after(dead_after(peer.heartbeat_interval));
    }

    /// What comes before reading: whether dialling has succeeded, and timers that are due.
    #[inline]
    pub(crate) fn begin(&mut self, now: Instant, registry: &Registry, token: Token) {
        if self.dialling.is_some() && self.writable {
            self.see_who_answered(now, registry, token);
        }
        if self.wake.is_some_and(|wake| wake <= now) {
            self.conn.handle_timeout(now);
        }
    }

    #[cold]
    fn see_who_answered(&mut self, now: Instant, registry: &Registry, token: Token) {
        let mut failed = match self.socket.is_open() {
            Ok(true) => {
                self.dialling = None;
                self.readable = true;
                return;
            }
            Ok(false) => {
                self.writable = false;
                return;
            }
            Err(error) => error,
        };
        (self.readable, self.writable, self.ending) = (false, false, false);
        let mut others = self.dialling.take().unwrap_or_default().into_iter();
        while let Some(address) = others.next() {
            match Socket::dial(address) {
                Ok(socket) => {
                    self.deregister(registry);
                    self.socket = socket;
                    match self.register(registry, token) {
                        Ok(()) => {
                            self.dialling = Some(others.collect());
                            return;
                        }
                        Err(error) => failed = error,
                    }
                }
                Err(error) => failed = error,
            }
        }
        self.mute = true;
        self.end(now, Disconnect::Error(what_broke(&failed)));
    }

    /// Whether a read may bring something.
    #[inline]
    pub(crate) fn may_read(&self) -> bool {
        self.readable && self.wants_read && !self.deaf
    }

    /// Reads once. The octets that came.
    #[inline]
    pub(crate) fn read(&mut self, now: Instant) -> usize {
        if !self.may_read() {
            return 0;
        }
        let mut buffer = self.conn.lend();
        let room = buffer.capacity() - buffer.len();
        let read =
            if room == 0 { Err(io::ErrorKind::WouldBlock.into()) } else { self.socket.read(&mut buffer) };
        self.conn.handle_input(now, buffer);
        match read {
            Ok(0) => {
                let cause = self.cause.unwrap_or(Disconnect::Eof);
                self.end(now, cause);
                0
            }
            Ok(octets) => {
                // After a write that failed it is read until there is no more: the end may have been announced before.
                if SHORT_SAYS_ALL && octets < room && !self.ending && self.cause.is_none() {
                    self.readable = false;
                }
                octets
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                self.readable = false;
                if let Some(cause) = self.cause {
                    // A write has failed before, and whoever closed has said no more than that.
                    self.end(now, cause);
                }
                0
            }
            Err(error) => {
                let cause = self.cause.unwrap_or(Disconnect::Error(what_broke(&error)));
                self.end(now, cause);
                0
            }
        }
    }

    fn end(&mut self, now: Instant, cause: Disconnect) {
        self.deaf = true;
        self.conn.handle_disconnect(now, cause);
    }

    /// Whether a write may take something.
    #[inline]
    pub(crate) fn may_write(&self) -> bool {
        self.writable && !self.mute && self.dialling.is_none()
    }

    /// Whether something is committed and not written.
    #[inline]
    pub(crate) const fn waits(&self) -> bool {
        self.rest.is_some()
    }

    /// Commits what waits, as far as the outbox has room. How much is in it.
    #[inline]
    pub(crate) fn commit(&mut self, now: Instant, scratch: &mut Outbox) -> usize {
        if self.dialling.is_some() {
            // Until somebody has answered every call can be withdrawn.
            return 0;
        }
        let out = self.rest.as_deref_mut().unwrap_or(scratch);
        self.conn.poll_transmit(now, out);
        out.remaining()
    }

    /// Commits what waits and writes until the kernel is full, nothing waits, or `most` octets are out. How many that
    /// were. What is left stays with the connection, and `scratch` is empty.
    #[inline]
    pub(crate) fn write(&mut self, now: Instant, scratch: &mut Outbox, most: usize) -> usize {
        let mut written = 0;
        while self.commit(now, scratch) > 0 && self.may_write() && written < most {
            let out = self.rest.as_deref_mut().unwrap_or(scratch);
            match self.socket.write(out) {
                Ok(wrote) => {
                    written += wrote.octets;
                    self.conn.handle_sent(now, wrote.octets);
                    if SHORT_SAYS_ALL && wrote.short {
                        self.writable = false;
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.writable = false,
                Err(error) => self.fail(&error),
            }
        }
        match &self.rest {
            None if scratch.remaining() > 0 => {
                self.rest = Some(Box::new(std::mem::take(scratch)));
            }
            Some(rest) if rest.remaining() == 0 => self.rest = None,
            _ => {}
        }
        written
    }

    /// The transport takes no more. What has arrived is still read: it may say why.
    #[cold]
    fn fail(&mut self, error: &io::Error) {
        self.mute = true;
        self.readable = true;
        self.cause.get_or_insert(Disconnect::Error(what_broke(error)));
    }

    /// Ends the stream to the peer once everything is out.
    pub(crate) fn shut(&mut self) {
        if self.rest.is_none() && !self.shut && !self.mute && self.dialling.is_none() {
            self.shut = true;
            if let Err(error) = self.socket.shut_write() {
                self.fail(&error);
            }
        }
    }

    /// Whether the last octets cannot go out any more.
    pub(crate) const fn is_mute(&self) -> bool {
        self.mute
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_that_is_driven_is_little_more_than_a_connection() {
        let beyond = size_of::<Driven<u32>>() - size_of::<Connection<u32>>();
        assert!(beyond <= 96, "{beyond}");
    }
}
