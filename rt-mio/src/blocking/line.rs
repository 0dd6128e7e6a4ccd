//! One connection that is driven by whoever waits for something on it.
//!
//! The socket waits when it is read and never when it is written: reading never waits for writing, at either end. While
//! the kernel takes no more, both are waited for at once, by a poller that is made for that.

use std::{
    hint, io,
    io::IoSlice,
    net::{SocketAddr, TcpStream},
    os::{
        fd::{AsFd, AsRawFd, BorrowedFd},
        unix::net::UnixStream,
    },
    path::Path,
    sync::Arc,
    time::Duration,
};

use bytes::Buf;
use mio::{Events, Poll as Poller, Token, unix::SourceFd};
use socket2::SockRef;
use tieline::{
    Instant, Outbox, Runtime,
    transport::{dead_after, what_broke},
    unix,
};
use tieline_core::{
    conn::{
        Answer, Body, CallHead, Closed, Config, Connection, Disconnect, End, Event, Failure, Rejection, Side,
    },
    wire::{Ran, Status},
};

use crate::{clock, fill::fill, poller::BOTH, runtime::Mio, socket::NOTSENT_LOWAT};

/// The longest that the kernel is asked to wait for octets.
const MOST_WAIT: Duration = Duration::from_millis(1024);
/// How long nobody asks whether a kernel that was full takes more, if nobody waits for it.
const FULL: Duration = Duration::from_millis(10);
/// Pieces of one gathered write.
const PIECES: usize = 64;

/// A socket.
#[derive(Debug)]
pub(super) enum Channel {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl Channel {
    pub(super) fn tcp(address: &SocketAddr, timeout: Duration) -> io::Result<Self> {
        let stream = TcpStream::connect_timeout(address, timeout)?;
        stream.set_nodelay(true)?;
        #[cfg(any(target_os = "linux", target_os = "android"))]
        let _ = SockRef::from(&stream).set_tcp_notsent_lowat(NOTSENT_LOWAT);
        Ok(Self::Tcp(stream))
    }

    pub(super) fn unix(path: &Path) -> io::Result<Self> {
        unix::check(path)?;
        Ok(Self::Unix(UnixStream::connect(path).map_err(unix::explain)?))
    }

    fn socket(&self) -> SockRef<'_> {
        SockRef::from(self)
    }

    fn set_dead_after(&self, silence: Duration) {
        #[cfg(any(target_os = "linux", target_os = "android"))]
        if let Self::Tcp(stream) = self {
            let _ = SockRef::from(stream).set_tcp_user_timeout(Some(silence));
        }
        #[cfg(not(any(target_os = "linux", target_os = "android")))]
        let _ = silence;
    }
}

impl AsFd for Channel {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Tcp(stream) => stream.as_fd(),
            Self::Unix(stream) => stream.as_fd(),
        }
    }
}

/// Whether to wait for octets.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Wait {
    No,
    Yes,
}

/// A connection. At most one call of it is waited for; others may have been given up.
pub(super) struct Line {
    conn: Connection<u64>,
    channel: Channel,
    out: Outbox,
    /// The number of the newest call.
    calls: u64,
    /// What became of it.
    outcome: Option<Result<Answer, Failure>>,
    ready: bool,
    /// The node takes no new calls on it.
    draining: bool,
    closed: Option<Closed>,
    /// The transport takes no more, and why.
    broken: Option<Disconnect>,
    /// The transport has ended, and the core knows.
    ended: bool,
    shut: bool,
    /// How long the kernel waits for octets.
    armed: Duration,
    /// Waits for both directions, once that was necessary.
    poller: Option<Poller>,
    /// The time, as it was last looked at.
    now: Instant,
}

impl Line {
    pub(super) fn new(channel: Channel, config: &Arc<Config>) -> io::Result<Self> {
        channel.socket().set_read_timeout(Some(MOST_WAIT))?;
        let now = clock::now();
        Ok(Self {
            conn: Connection::new(Arc::clone(config), Side::Client, Mio::default().seed(), now),
            channel,
            out: Outbox::new(),
            calls: 0,
            outcome: None,
            ready: false,
            draining: false,
            closed: None,
            broken: None,
            ended: false,
            shut: false,
            armed: MOST_WAIT,
            poller: None,
            now,
        })
    }

    /// Waits until check-in is complete.
    pub(super) fn check_in(mut self) -> Result<Self, Closed> {
        while !self.ready {
            if let Some(closed) = self.closed.take() {
                return Err(closed);
            }
            self.turn(Wait::Yes, Duration::ZERO);
        }
        Ok(self)
    }

    /// Hands a call to the core. Its number.
    pub(super) fn begin(
        &mut self,
        now: Instant,
        head: &CallHead<'_>,
        body: Body<'_>,
        one_way: bool,
    ) -> Result<u64, Rejection> {
        self.now = now;
        self.calls += 1;
        self.outcome = None;
        let begun = if one_way {
            self.conn.one_way(now, head, body, self.calls)
        } else {
            self.conn.call(now, head, body, self.calls)
        };
        begun.map(|_| self.calls).map_err(|rejected| rejected.reason)
    }

    /// Waits for the outcome of the newest call; and, of one that was sent and nobody answers, until it is out.
    pub(super) fn wait(&mut self, number: u64, busy: Duration) -> Result<Answer, Failure> {
        loop {
            self.flush();
            self.events();
            if self.calls == number
                && (self.out.remaining() == 0 || self.is_over())
                && let Some(outcome) = self.outcome.take()
            {
                return outcome;
            }
            if self.is_over() {
                // Not reached: every call has its outcome before the connection is over.
                return Err(Failure::local(Status::CONNECTION_LOST, Ran::Maybe, "the connection is over"));
            }
            self.turn(Wait::Yes, busy);
        }
    }

    /// Does what is due, without waiting.
    pub(super) fn look(&mut self) {
        self.now = clock::now();
        self.turn(Wait::No, Duration::ZERO);
    }

    /// Whether calls can be made on it. If it has not been used for `stale` it is looked whether the node has closed it.
    pub(super) fn lives(&mut self, now: Instant, stale: Duration) -> bool {
        if now.saturating_since(self.now) >= stale {
            self.look();
        }
        self.closed.is_none() && !self.draining && !self.is_over()
    }

    pub(super) fn is_over(&self) -> bool {
        self.conn.next().end == End::Close
    }

    /// When there is something to do without anything having come. While the kernel takes no more, and nobody waits for
    /// that, it is asked again after a while.
    pub(super) fn due(&self) -> Option<Instant> {
        if self.out.remaining() == 0 {
            return self.conn.poll_timeout();
        }
        let again = self.now.saturating_add(FULL);
        Some(self.conn.next().wake.map_or(again, |wake| wake.min(again)))
    }

    /// Closes in peace, as far as that goes without waiting.
    pub(super) fn close(&mut self) {
        self.conn.close(self.now, Status::NORMAL, "");
        self.look();
    }

    /// Waits until the node has closed as well; the core says for how long.
    pub(super) fn linger(&mut self) {
        while !self.is_over() {
            self.turn(Wait::Yes, Duration::ZERO);
        }
    }

    /// Reads once, after what is due was done and what waits was written; and takes note of what that brought.
    fn turn(&mut self, wait: Wait, busy: Duration) {
        if self.conn.next().wake.is_some_and(|wake| wake <= self.now) {
            self.conn.handle_timeout(self.now);
        }
        self.flush();
        let before = self.now;
        let next = self.conn.next();
        if next.end == End::ShutWrite && self.out.remaining() == 0 && !self.shut && self.broken.is_none() {
            self.shut = true;
            if let Err(error) = self.channel.socket().shutdown(std::net::Shutdown::Write) {
                self.fail(&error);
            }
        }
        if !self.ended && next.read {
            // What the core has to say already is not waited for.
            let wait = if next.event || next.end == End::Close { Wait::No } else { wait };
            self.receive(next.wake, wait, busy);
        }
        if before == self.now && wait == Wait::Yes {
            // Time passes, whether there was something to receive or not.
            self.now = self.now.max(clock::now());
        }
        self.events();
    }

    /// Writes what waits, as far as the kernel takes it.
    fn flush(&mut self) {
        let now = self.now;
        loop {
            self.conn.poll_transmit(now, &mut self.out);
            if self.out.remaining() == 0 || self.broken.is_some() {
                return;
            }
            let mut pieces = [IoSlice::new(&[]); PIECES];
            let mut count = 0;
            for (piece, chunk) in pieces.iter_mut().zip(self.out.chunks()) {
                *piece = IoSlice::new(chunk);
                count += 1;
            }
            let pieces = pieces.get(..count).unwrap_or_default();
            let flags = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
            let sent = match pieces {
                [piece] => self.channel.socket().send_with_flags(piece, flags),
                _ => self.channel.socket().send_vectored_with_flags(pieces, flags),
            };
            match sent {
                Ok(octets) => {
                    self.out.advance(octets);
                    self.conn.handle_sent(now, octets);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(error) => return self.fail(&error),
            }
        }
    }

    /// The transport takes no more. What has arrived is still read: it may say why.
    fn fail(&mut self, error: &io::Error) {
        self.broken.get_or_insert(Disconnect::Error(what_broke(error)));
    }

    /// Reads once, and waits for that until `until`.
    fn receive(&mut self, until: Option<Instant>, wait: Wait, busy: Duration) {
        let now = self.now;
        let mut flags = libc::MSG_DONTWAIT;
        if wait == Wait::Yes && self.broken.is_none() {
            if self.out.remaining() > 0 {
                self.wait_for_both(now, until);
            } else if busy.is_zero() {
                flags = 0;
            }
        }
        let mut buffer = self.conn.lend();
        let mut spun = Duration::ZERO;
        let read = loop {
            if flags == 0 {
                self.arm(now.saturating_add(spun), until);
            }
            let socket = self.channel.socket();
            match fill(&mut buffer, |room| socket.recv_with_flags(room, flags)) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error)
                    if error.kind() == io::ErrorKind::WouldBlock
                        && flags != 0
                        && wait == Wait::Yes
                        && self.out.remaining() == 0
                        && self.broken.is_none() =>
                {
                    spun = clock::now().saturating_since(now);
                    if spun >= busy {
                        flags = 0;
                    }
                    hint::spin_loop();
                }
                read => break read,
            }
        };
        self.now = now.max(clock::now());
        self.conn.handle_input(self.now, buffer);
        let cause = match read {
            Ok(octets) if octets > 0 => return,
            Ok(_) => Disconnect::Eof,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock && self.broken.is_none() => return,
            Err(error) => Disconnect::Error(what_broke(&error)),
        };
        self.ended = true;
        self.conn.handle_disconnect(self.now, self.broken.unwrap_or(cause));
    }

    /// Sees to it that the kernel waits no longer than until `until`: in steps of powers of two, so that the usual call
    /// need not tell it anything.
    fn arm(&mut self, now: Instant, until: Option<Instant>) {
        let left = until.map_or(MOST_WAIT, |until| until.saturating_since(now));
        let mut step = MOST_WAIT;
        while step > left && step > Duration::from_millis(1) {
            step /= 2;
        }
        if step != self.armed && self.channel.socket().set_read_timeout(Some(step)).is_ok() {
            self.armed = step;
        }
    }

    /// Waits until something can be read or written.
    #[cold]
    fn wait_for_both(&mut self, now: Instant, until: Option<Instant>) {
        let left = until.map_or(MOST_WAIT, |until| until.saturating_since(now)).min(MOST_WAIT);
        let waited = (|| {
            let fd = self.channel.as_fd().as_raw_fd();
            let poller = match &mut self.poller {
                Some(poller) => poller,
                place => {
                    let poller = Poller::new()?;
                    poller.registry().register(&mut SourceFd(&fd), Token(0), BOTH)?;
                    place.insert(poller)
                }
            };
            poller.poll(&mut Events::with_capacity(4), Some(left))
        })();
        match waited {
            Err(error) if error.kind() != io::ErrorKind::Interrupted => self.fail(&error),
            _ => {}
        }
    }

    fn events(&mut self) {
        while let Some(event) = self.conn.poll_event(self.now) {
            match event {
                Event::Done { user, outcome, .. } if user == self.calls => self.outcome = Some(outcome),
                Event::Ready(peer) => {
                    self.ready = true;
                    self.channel.set_dead_after(dead_after(peer.heartbeat_interval));
                }
                Event::Draining { .. } => self.draining = true,
                Event::Closed(closed) => self.closed = Some(closed),
                // It serves nothing: what a peer asks for all the same is answered at once.
                Event::Request(request) => self.conn.stopped(self.now, request.call),
                Event::Cancelled(call, _) => self.conn.stopped(self.now, call),
                _ => {}
            }
        }
    }
}
