//! The life of a connection from check-in to close, as far as its owner decides, and what is known of it.

use alloc::sync::Arc;
use core::{fmt, time::Duration};

use super::{Connection, Limits, PeerInfo, Side, Stats, machine::Phase};
use crate::{record::Recording, time::Instant, wire::Status};

impl<U> Connection<U> {
    /// Accepts the check-in that [`Event::CheckIn`](super::Event::CheckIn) asked about.
    pub fn accept_check_in(&mut self, now: Instant) {
        if self.tape.is_some() {
            return self.record_accept(now);
        }
        self.awake().tick(now);
        if self.awake().phase == Phase::Verifying {
            self.awake().accept();
        }
    }

    /// Refuses the check-in that [`Event::CheckIn`](super::Event::CheckIn) asked about. `status` is of class 4, such
    /// as `CHECK_IN_REFUSED`, `IDENTITY_CONFLICT` or `TOO_MANY_CONNECTIONS`.
    pub fn refuse_check_in(
        &mut self,
        now: Instant,
        status: Status,
        message: &str,
        retry_after: Option<Duration>,
    ) {
        if self.tape.is_some() {
            return self.record_refusal(now, status, message, retry_after);
        }
        self.awake().tick(now);
        if self.awake().phase == Phase::Verifying {
            let ms = retry_after.map_or(0, |after| u32::try_from(after.as_millis()).unwrap_or(u32::MAX));
            self.awake().refuse(status.as_close(), message.into(), ms);
        }
    }

    /// Asks whether the peer lives: a HEARTBEAT goes out now, whether one is due or not, and
    /// [`Event::Alive`](super::Event::Alive) comes with the next HEARTBEAT_ACK. A second probe before that asks again,
    /// and one answer serves both. `false`, and nothing happens, unless the connection is checked in and not about to
    /// end. For deciding between two processes of one identifier (protocol §4); that the peer is dead is still decided
    /// by its silence alone.
    pub fn probe(&mut self, now: Instant) -> bool {
        if self.tape.is_some() {
            return self.record_probe(now);
        }
        self.awake().tick(now);
        self.awake().begin_probe()
    }

    /// Drains: no new calls begin, on either side, but those of handlers that still run; when the open ones are done,
    /// or after `grace`, the connection closes with `status` (protocol §5, "Drain"). Again, with less grace, hastens
    /// it. Before check-in it closes at once.
    pub fn drain(&mut self, now: Instant, status: Status, grace: Duration, message: &str) {
        if self.tape.is_some() {
            return self.record_drain(now, status, grace, message);
        }
        self.awake().tick(now);
        self.awake().drain(status, grace, message);
        self.awake().settle();
    }

    /// Closes. With `NORMAL`, `GOING_AWAY` or `IDLE` what waits goes out first, and calls that are open end as
    /// `INTERRUPTED` or `CONNECTION_LOST`; with any other status of class 4 the CLOSE goes out before all else.
    pub fn close(&mut self, now: Instant, status: Status, message: &str) {
        if self.tape.is_some() {
            return self.record_close(now, status, message);
        }
        self.awake().tick(now);
        self.awake().close(status.as_close(), message);
    }

    /// When octets were last read, or the connection began.
    #[must_use]
    pub fn last_read(&self) -> Instant {
        let last = self.machine.as_ref().map_or(self.folded.last_read(), |machine| machine.live.last_read());
        Instant::from_nanos(last)
    }

    /// Whether the connection is idle, has been so for a heartbeat's time, and has given its memory back: a good
    /// moment for its driver to do the same. What it has lent belongs to nothing then, and may be dropped.
    #[must_use]
    pub const fn is_folded(&self) -> bool {
        self.machine.is_none()
    }

    /// What the peer said at check-in, once it has.
    #[must_use]
    pub fn peer(&self) -> Option<&Arc<PeerInfo>> {
        self.machine.as_ref().map_or_else(|| self.folded.peer(), |machine| machine.peer.as_ref())
    }

    /// Which end this is.
    #[must_use]
    pub fn side(&self) -> Side {
        self.folded.side()
    }

    /// What was recorded so far, if the configuration asks for that
    /// ([`ConfigBuilder::record`](super::ConfigBuilder::record)). It is a copy: take it under a lock, write it to a
    /// file without.
    #[must_use]
    pub fn recording(&self) -> Option<Recording> {
        Some(self.tape.as_ref()?.recording(self.folded.config()))
    }

    /// Whether something waits to be committed, all of it is what more there is of messages and streams that have begun,
    /// and a part of a large message is next. A driver that has just woken callers may let them call first: what is small
    /// then goes out before that part, instead of behind it.
    #[must_use]
    #[inline]
    pub fn only_continues(&self) -> bool {
        self.machine.as_ref().is_some_and(|machine| machine.only_continues())
    }

    /// What this end promises and keeps to.
    #[must_use]
    pub fn limits(&self) -> &Limits {
        self.machine.as_ref().map_or_else(|| self.folded.config(), |machine| &machine.config).limits()
    }

    /// Counters since the connection began.
    #[must_use]
    pub fn stats(&self) -> Stats {
        self.machine.as_ref().map_or_else(|| self.folded.stats(), |machine| machine.stats)
    }

    /// Calls of this side whose outcome was not fetched or whose RESPONSE is due, also if they were given up; and calls
    /// of the peer that hold a place.
    #[must_use]
    pub fn open_calls(&self) -> (usize, usize) {
        self.machine.as_ref().map_or((0, 0), |machine| (machine.calls.open(), machine.served.open()))
    }
}

impl<U> fmt::Debug for Connection<U> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection")
            .field("side", &self.side())
            .field("phase", &self.machine.as_ref().map_or(Phase::Ready, |machine| machine.phase))
            .field("peer", &self.peer().map(|peer| peer.identifier.as_str()))
            .field("open", &self.open_calls())
            .finish_non_exhaustive()
    }
}
