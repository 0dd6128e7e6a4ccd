//! Two connections of the core, joined by a tight loop: what a driver does in each of its turns, without the sockets,
//! tasks and clocks that a real one has. So what is measured here is the cost of the core, and next to nothing else.

use std::error::Error;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Buf;
use tieline_core::Instant;
use tieline_core::conn::{
    Body, CallHead, Config, ConfigError, Connection, Event, MethodSpec, Outbox, Reply, Side,
};

/// The method that is called.
pub const ECHO: &str = "tieline.bench.v1.Echo/Echo";

/// What each call carries: 64 octets.
pub const PAYLOAD: [u8; 64] = *b"The quick brown fox jumps over the lazy dog. 0123456789 ABCDEFGH";

/// What passes between two batches: about what one takes over a socket.
const TURN: Duration = Duration::from_micros(20);
/// The deadline of each call, counted from its batch. The same that a call through the public client has.
const DEADLINE: Duration = Duration::from_secs(10);
/// How often the timers are looked at while there is traffic. A driver sleeps until the next one is due, and traffic
/// only ever moves that further away.
const LOOK: Duration = Duration::from_secs(1);

/// One of the two connections did something else than it should have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unexpected(&'static str);

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

/// A connection and the outbox of its driver.
#[derive(Debug)]
struct End<U> {
    conn: Connection<U>,
    outbox: Outbox,
}

impl<U> End<U> {
    fn new(config: &Arc<Config>, side: Side, seed: u64, now: Instant) -> Self {
        Self { conn: Connection::new(Arc::clone(config), side, seed, now), outbox: Outbox::new() }
    }
}

/// A client and a server that have checked in.
#[derive(Debug)]
pub struct Pair {
    now: Instant,
    look: Instant,
    client: End<u32>,
    server: End<()>,
}

impl Pair {
    /// Two new connections with the default limits, checked in.
    ///
    /// # Errors
    /// [`ConfigError`], or [`Unexpected`] if check-in does not succeed.
    pub fn start() -> Result<Self, Box<dyn Error>> {
        Ok(Self::check_in(&client_config()?, &server_config(1)?)?)
    }

    /// Two new connections, checked in, and the server's methods learned.
    ///
    /// # Errors
    /// [`Unexpected`] if check-in does not succeed.
    pub fn check_in(client: &Arc<Config>, server: &Arc<Config>) -> Result<Self, Unexpected> {
        let now = Instant::from_nanos(1);
        let mut pair = Self {
            now,
            look: now.saturating_add(LOOK),
            client: End::new(client, Side::Client, 1, now),
            server: End::new(server, Side::Server, 2, now),
        };
        let mut ready = 0;
        pair.settle(&mut ready)?;
        if ready == 2 { Ok(pair) } else { Err(Unexpected("the two connections did not check in")) }
    }

    /// Makes `count` calls at once and carries them there and back: one turn of each driver. Each answer is compared
    /// with what was sent.
    ///
    /// # Errors
    /// [`Unexpected`] if a call is refused, or has another outcome than its own payload.
    #[inline]
    pub fn round_trips(&mut self, count: u32) -> Result<(), Unexpected> {
        let now = self.turn();
        for user in 0..count {
            let head = CallHead::new(ECHO).deadline(Some(now.saturating_add(DEADLINE)));
            let call = self.client.conn.call(now, &head, Body::Copy(&PAYLOAD), user);
            call.map_err(|_| Unexpected("a call was refused"))?;
        }
        let mut waiting = count;
        carry(now, &mut self.client, &mut self.server, |server| {
            while waiting > 0 {
                let request = match server.poll_event(now) {
                    Some(Event::Request(request)) => request,
                    Some(_) => return Err(Unexpected("the server has another event than a request")),
                    None => break,
                };
                let reply = Reply::ok(Body::Share(request.payload));
                server.reply(now, request.call, &reply).map_err(|_| Unexpected("an answer was refused"))?;
                waiting -= 1;
            }
            Ok(())
        })?;
        let mut done = 0;
        carry(now, &mut self.server, &mut self.client, |client| {
            while done < count {
                match client.poll_event(now) {
                    Some(Event::Done { user, outcome: Ok(answer) })
                        if user == done && answer.payload == PAYLOAD[..] => {}
                    Some(_) => return Err(Unexpected("the client has another event than the next answer")),
                    None => break,
                }
                done += 1;
            }
            Ok(())
        })?;
        if done == count { Ok(()) } else { Err(Unexpected("calls were not answered")) }
    }

    /// Sends `count` one-ways at once, carries them to the server, and lets its handlers stop.
    ///
    /// # Errors
    /// [`Unexpected`] if one is refused, dropped, or not told as sent.
    #[inline]
    pub fn one_ways(&mut self, count: u32) -> Result<(), Unexpected> {
        let now = self.turn();
        for user in 0..count {
            let head = CallHead::new(ECHO).deadline(Some(now.saturating_add(DEADLINE)));
            let sent = self.client.conn.one_way(now, &head, Body::Copy(&PAYLOAD), user);
            sent.map_err(|_| Unexpected("a one-way was refused"))?;
        }
        let mut waiting = count;
        carry(now, &mut self.client, &mut self.server, |server| {
            while waiting > 0 {
                match server.poll_event(now) {
                    Some(Event::Request(request)) if request.one_way => server.stopped(now, request.call),
                    Some(_) => return Err(Unexpected("the server has another event than a one-way")),
                    None => break,
                }
                waiting -= 1;
            }
            Ok(())
        })?;
        let mut told = 0;
        while let Some(event) = self.client.conn.poll_event(now) {
            if !matches!(event, Event::Done { outcome: Ok(_), .. }) {
                return Err(Unexpected("a one-way has another outcome than sent"));
            }
            told += 1;
        }
        if (waiting, told) == (0, count) { Ok(()) } else { Err(Unexpected("one-ways were lost")) }
    }

    /// Sleeps until the next heartbeat is due, and carries it and its answer. The number of times that a timer was due
    /// before: after traffic there may be some, of deadlines that the calls did not need.
    ///
    /// # Errors
    /// [`Unexpected`] if no timer is armed, or if too many were due before.
    pub fn heartbeat(&mut self) -> Result<u32, Unexpected> {
        let before = self.heartbeats();
        for looks in 0..16 {
            let due = [self.client.conn.poll_timeout(), self.server.conn.poll_timeout()];
            self.now = due.into_iter().flatten().min().ok_or(Unexpected("no timer is armed"))?;
            self.look_at_timers();
            self.settle(&mut 0)?;
            if self.heartbeats() > before {
                return Ok(looks);
            }
        }
        Err(Unexpected("no heartbeat was sent"))
    }

    /// A nanosecond passes, and the client looks at its timers: none is due. When it wants to look again.
    ///
    /// # Errors
    /// [`Unexpected`] if it wants to look at once, which would be a spin.
    #[inline]
    pub fn idle_timeout(&mut self) -> Result<Instant, Unexpected> {
        self.now = self.now.saturating_add(Duration::from_nanos(1));
        self.client.conn.handle_timeout(self.now);
        let next = self.client.conn.poll_timeout().filter(|next| *next > self.now);
        next.ok_or(Unexpected("an idle connection wants to be woken at once"))
    }

    /// Octets that one call puts on the wire once the server's methods are learned. It is answered before this returns.
    ///
    /// # Errors
    /// As [`round_trips`](Self::round_trips).
    pub fn octets_of_a_call(&mut self) -> Result<u64, Unexpected> {
        let before = self.client.conn.stats().octets_out;
        self.round_trips(1)?;
        Ok(self.client.conn.stats().octets_out - before)
    }

    fn heartbeats(&self) -> u64 {
        self.client.conn.stats().heartbeats_in + self.server.conn.stats().heartbeats_in
    }

    /// The clock goes on; the time of the next batch.
    #[inline]
    fn turn(&mut self) -> Instant {
        self.now = self.now.saturating_add(TURN);
        if self.now >= self.look {
            self.look = self.now.saturating_add(LOOK);
            self.look_at_timers();
        }
        self.now
    }

    fn look_at_timers(&mut self) {
        self.client.conn.handle_timeout(self.now);
        self.server.conn.handle_timeout(self.now);
    }

    /// Carries whatever there is until both are quiet. Only becoming ready may happen, and is counted.
    fn settle(&mut self, ready: &mut u32) -> Result<(), Unexpected> {
        let now = self.now;
        while self.client.conn.next().write || self.server.conn.next().write {
            carry(now, &mut self.client, &mut self.server, |server| only_ready(server, now, ready))?;
            carry(now, &mut self.server, &mut self.client, |client| only_ready(client, now, ready))?;
            // A server is ready once its ack is committed, without another octet from the client.
            only_ready(&mut self.server.conn, now, ready)?;
        }
        Ok(())
    }
}

fn only_ready<U>(conn: &mut Connection<U>, now: Instant, ready: &mut u32) -> Result<(), Unexpected> {
    while let Some(event) = conn.poll_event(now) {
        let Event::Ready(_) = event else { return Err(Unexpected("an event where all is quiet")) };
        *ready += 1;
    }
    Ok(())
}

/// Commits what waits in `from` and hands it to `to`, which decodes what it was lent for before it lends again. The
/// outbox stands for the kernel's buffer: it takes all of a write at once, and gives it out as it is read.
#[inline]
fn carry<A, B>(
    now: Instant,
    from: &mut End<A>,
    to: &mut End<B>,
    mut decode: impl FnMut(&mut Connection<B>) -> Result<(), Unexpected>,
) -> Result<(), Unexpected> {
    loop {
        from.conn.poll_transmit(now, &mut from.outbox);
        let full = !from.outbox.has_room();
        if from.outbox.has_remaining() {
            from.conn.handle_sent(now, from.outbox.remaining());
        }
        while from.outbox.has_remaining() {
            let mut buffer = to.conn.lend();
            let piece = from.outbox.chunk();
            let octets = piece.len().min(buffer.capacity());
            let piece = piece.get(..octets).filter(|piece| !piece.is_empty());
            buffer.extend_from_slice(piece.ok_or(Unexpected("a buffer without room was lent"))?);
            from.outbox.advance(octets);
            to.conn.handle_input(now, buffer);
            decode(&mut to.conn)?;
        }
        if !full {
            return Ok(());
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn batches_of_every_size_come_back() {
        let mut pair = Pair::start().unwrap();
        for count in [1, 2, 16, 128, 1024, 0, 1] {
            pair.round_trips(count).unwrap();
            pair.one_ways(count).unwrap();
        }
        let (client, server) = (pair.client.conn.stats(), pair.server.conn.stats());
        assert_eq!((client.calls_out, server.calls_in), (2 * 1172, 2 * 1172));
        assert_eq!((server.dropped_one_ways, server.refused), (0, 0));
        assert_eq!(pair.client.conn.open_calls(), (0, 0));
        assert_eq!(pair.server.conn.open_calls(), (0, 0));
    }

    #[test]
    fn a_connection_survives_its_timers() {
        let mut pair = Pair::start().unwrap();
        // Longer than every heartbeat and deadline.
        for _ in 0..DEADLINE.as_micros() * 11 / 10 / TURN.as_micros() {
            pair.round_trips(1).unwrap();
        }
        pair.heartbeat().unwrap();
        for _ in 0..100 {
            assert_eq!(pair.heartbeat().unwrap(), 0, "an idle connection wakes for its heartbeats only");
        }
        pair.idle_timeout().unwrap();
        pair.round_trips(3).unwrap();
    }

    #[test]
    fn a_learned_method_is_called_by_its_number() {
        let config = client_config().unwrap();
        let mut pair = Pair::check_in(&config, &server_config(1000).unwrap()).unwrap();
        let octets = usize::try_from(pair.octets_of_a_call().unwrap()).unwrap();
        assert!(octets < 18 + PAYLOAD.len() + ECHO.len(), "{octets}");
    }
}
