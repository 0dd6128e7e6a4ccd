//! One connection opposite a peer that is written by hand, octet by octet, in virtual time.

use std::{sync::Arc, time::Duration};

use bytes::{Buf, Bytes};
use tieline_core::{
    Instant,
    conn::{
        Body, CallHead, CallId, Closed, Config, ConfigBuilder, Connection, Disconnect, End, Event, Failure,
        Incoming, Limits, MethodSpec, Outbox, Served, Side,
    },
    wire::{CheckIn, CheckInAck, FrameType, Method, Status},
};

use super::frames::{self, Seen};

pub const MS: u64 = 1_000_000;
pub const SECOND: u64 = 1_000_000_000;

/// A configuration with the one method `t.S/Echo`.
pub fn config() -> ConfigBuilder {
    Config::builder("node").method(MethodSpec::unary("t.S/Echo"))
}

/// The limits that are usual, but for this.
pub fn limits(change: impl FnOnce(&mut Limits)) -> Limits {
    let mut limits = Limits::default();
    change(&mut limits);
    limits
}

/// Those with this much initial credit.
pub fn window(octets: u32) -> Limits {
    limits(|it| it.stream_window = octets)
}

pub struct Raw {
    pub conn: Connection<u32>,
    pub now: u64,
    pub outbox: Outbox,
    /// Committed octets that are no whole frame yet.
    unread: Vec<u8>,
    /// When false, the transport takes nothing.
    pub takes: bool,
    /// Events of kinds that a helper passed over.
    pub passed: Vec<Event<u32>>,
}

impl Raw {
    pub fn new(config: Arc<Config>, side: Side) -> Self {
        let now = 1_000 * SECOND;
        Self {
            conn: Connection::new(config, side, 7, Instant::from_nanos(now)),
            now,
            outbox: Outbox::new(),
            unread: Vec::new(),
            takes: true,
            passed: Vec::new(),
        }
    }

    /// A server that has accepted the check-in of a peer that serves 100 calls at once, and knows its methods.
    pub fn server(config: ConfigBuilder) -> Self {
        Self::stranger(config).acquainted()
    }

    /// The same before the peer's TABLE has come.
    pub fn stranger(config: ConfigBuilder) -> Self {
        Self::server_for(config, CheckIn { identifier: "peer", max_concurrent: 100, ..CheckIn::default() })
    }

    /// Learns the method that the tests call, so that small calls go the straight way.
    pub fn acquainted(mut self) -> Self {
        self.feed(&frames::table(&[Method { id: 100, name: "t.S/Echo", fingerprint: 0 }]));
        self.is_quiet();
        let call = self.call(0);
        assert_eq!(self.conn.cancel(self.at(), call), Some(0));
        self.is_quiet();
        self
    }

    pub fn server_for(config: ConfigBuilder, said: CheckIn<'_>) -> Self {
        let mut raw = Self::new(config.build().unwrap(), Side::Server);
        raw.feed(&frames::check_in(said));
        assert!(raw.events().is_empty());
        let frames = raw.frames();
        assert_eq!(frames[0].frame_type(), FrameType::CHECK_IN_ACK);
        assert_eq!(frames[0].status(), Status::OK);
        assert!(matches!(raw.events()[..], [Event::Ready(_)]));
        raw
    }

    /// A client that was accepted by a peer that serves 100 calls at once, and knows its methods.
    pub fn client(config: ConfigBuilder) -> Self {
        Self::client_for(
            config,
            CheckInAck { identifier: "peer", max_concurrent: 100, ..CheckInAck::default() },
        )
        .acquainted()
    }

    pub fn client_for(config: ConfigBuilder, said: CheckInAck<'_>) -> Self {
        let mut raw = Self::new(config.build().unwrap(), Side::Client);
        assert_eq!(raw.frames()[0].frame_type(), FrameType::CHECK_IN);
        raw.feed(&frames::ack(said));
        assert!(matches!(raw.events()[..], [Event::Ready(_)]));
        raw.frames();
        raw
    }

    pub fn at(&self) -> Instant {
        Instant::from_nanos(self.now)
    }

    pub fn after(&self, duration: Duration) -> Instant {
        self.at().saturating_add(duration)
    }

    /// Octets arrive.
    pub fn feed(&mut self, octets: &[u8]) {
        let mut rest = octets;
        while !rest.is_empty() {
            let mut buffer = self.conn.lend();
            let take = rest.len().min(buffer.capacity().max(1));
            buffer.extend_from_slice(&rest[..take]);
            self.conn.handle_input(self.at(), buffer);
            rest = &rest[take..];
        }
    }

    pub fn feed_all(&mut self, frames: impl IntoIterator<Item = Vec<u8>>) {
        frames.into_iter().for_each(|frame| self.feed(&frame));
    }

    pub fn eof(&mut self) {
        self.conn.handle_disconnect(self.at(), Disconnect::Eof);
    }

    pub fn events(&mut self) -> Vec<Event<u32>> {
        std::iter::from_fn(|| self.conn.poll_event(self.at())).collect()
    }

    /// The frames that are committed now.
    pub fn frames(&mut self) -> Vec<Seen> {
        self.conn.poll_transmit(self.at(), &mut self.outbox);
        while self.takes && self.outbox.remaining() > 0 {
            let octets = self.outbox.remaining();
            self.outbox.chunks().for_each(|chunk| self.unread.extend_from_slice(chunk));
            self.outbox.advance(octets);
            self.conn.handle_sent(self.at(), octets);
            self.conn.poll_transmit(self.at(), &mut self.outbox);
        }
        frames::take_frames(&mut self.unread)
    }

    /// The one frame that is committed now.
    pub fn frame(&mut self) -> Seen {
        let mut frames = self.frames();
        assert_eq!(frames.len(), 1, "{:?}", frames::outline(&frames));
        frames.remove(0)
    }

    /// Events, then frames; for when the events do not matter.
    pub fn turn(&mut self) -> Vec<Seen> {
        let events = self.events();
        self.passed.extend(events);
        self.frames()
    }

    /// Lets time pass and looks at the clock whenever the connection asks for it. Frames that it sends of its own
    /// accord are returned; a peer's heartbeats are not answered.
    pub fn wait(&mut self, duration: Duration) -> Vec<Seen> {
        let until = self.now + duration.as_nanos() as u64;
        let mut frames = Vec::new();
        let mut steps = 0;
        loop {
            frames.extend(self.turn());
            // While the outbox is full what waits to be committed is no reason to look again.
            let full = !self.outbox.has_room() && !self.conn.next().event;
            let wake = if full { self.conn.next().wake } else { self.conn.poll_timeout() };
            let wake = wake.map_or(u64::MAX, Instant::as_nanos);
            if wake > until {
                break;
            }
            self.now = self.now.max(wake);
            self.conn.handle_timeout(self.at());
            steps += 1;
            assert!(steps < 100_000, "spins");
        }
        self.now = until;
        frames
    }

    /// As [`wait`](Self::wait), with a peer that answers heartbeats at once.
    pub fn live(&mut self, duration: Duration) -> Vec<Seen> {
        let until = self.now + duration.as_nanos() as u64;
        let mut seen = Vec::new();
        while self.now < until {
            let frames = self.wait(Duration::from_millis(20).min(Duration::from_nanos(until - self.now)));
            for frame in frames {
                if frame.frame_type() == FrameType::HEARTBEAT {
                    self.feed(&frames::heartbeat_ack(frame.id()));
                } else {
                    seen.push(frame);
                }
            }
        }
        seen
    }

    /// The one event of now, which is a call.
    pub fn incoming(&mut self) -> Incoming {
        match self.events().pop() {
            Some(Event::Request(incoming)) => incoming,
            other => panic!("no request: {other:?}"),
        }
    }

    pub fn reply(&mut self, to: Served, octets: &[u8]) {
        self.conn.answer(self.at(), to, Body::Copy(octets)).unwrap();
    }

    /// Begins a call; what it is called by comes back with its outcome.
    pub fn call(&mut self, user: u32) -> CallId {
        self.conn.call(self.at(), &CallHead::new("t.S/Echo"), Body::Copy(b"x"), user).unwrap()
    }

    /// The outcomes that are told now, with payload or failure.
    pub fn outcomes(&mut self) -> Vec<(u32, Result<Bytes, Failure>)> {
        let done = |event| match event {
            Event::Done { user, outcome, .. } => Some((user, outcome.map(|answer| answer.payload))),
            _ => None,
        };
        self.events().into_iter().filter_map(done).collect()
    }

    /// The connection ends with a CLOSE of this status, within two seconds; the reason that the application is told.
    pub fn closes_with(&mut self, status: Status) -> Closed {
        let events = self.events();
        let frames = self.frames();
        let close = frames.last().expect("a CLOSE");
        assert_eq!((close.frame_type(), close.status()), (FrameType::CLOSE, status), "{}", close.message());
        assert_eq!(frames.iter().filter(|frame| frame.frame_type() == FrameType::CLOSE).count(), 1);
        assert_eq!(self.conn.next().end, End::ShutWrite);
        let closed = self.closed(events);
        assert_eq!(closed.status, status);
        self.wait(Duration::from_millis(999));
        assert_eq!(self.conn.next().end, End::ShutWrite, "lingers for a second");
        self.wait(Duration::from_millis(1));
        assert_eq!(self.conn.next().end, End::Close);
        assert_eq!(self.conn.poll_timeout(), None);
        closed
    }

    /// The last event, which says how it ended; `before` are events that came earlier.
    pub fn closed(&mut self, before: Vec<Event<u32>>) -> Closed {
        let mut events = before;
        events.extend(self.events());
        match events.pop() {
            Some(Event::Closed(closed)) => {
                assert!(!events.iter().any(|event| matches!(event, Event::Closed(_))), "Closed is unique");
                self.passed.extend(events);
                closed
            }
            other => panic!("not closed: {other:?}"),
        }
    }

    /// Nothing is wrong: no event, no frame but those that keep the line alive, and it is still open.
    pub fn is_quiet(&mut self) {
        let events = self.events();
        assert!(events.is_empty(), "{events:?}");
        let frames = self.frames();
        assert!(frames.is_empty(), "{:?}", frames::outline(&frames));
        assert_eq!(self.conn.next().end, End::Open);
    }
}

pub const fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

pub const fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}
