//! Two connections of the core, joined by a tight loop: what a driver does in each of its turns, without the sockets,
//! tasks and clocks that a real one has. So what is measured here is the cost of the core, and next to nothing else.

use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use tieline_core::Instant;
use tieline_core::conn::{Body, Config, Connection, Event, Side};

use crate::end::{DEADLINE, ECHO, End, PAYLOAD, TURN, Unexpected, client_config, server_config};

/// How often the timers are looked at while there is traffic. A driver sleeps until the next one is due, and traffic
/// only ever moves that further away.
const LOOK: Duration = Duration::from_secs(1);

/// What happened while octets were carried.
#[derive(Default)]
struct Seen {
    ready: u32,
    served: u32,
    /// Calls that ended well. They were numbered from 0, and end in that order.
    done: u32,
}

/// A client and a server that have checked in.
#[derive(Debug)]
pub struct Pair {
    now: Instant,
    look: Instant,
    client: End<u32>,
    server: End<u32>,
}

impl Pair {
    /// Two new connections with the default limits, checked in.
    ///
    /// # Errors
    /// [`ConfigError`](tieline_core::conn::ConfigError), or [`Unexpected`] if check-in does not succeed.
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
        if pair.settle()? == 2 { Ok(pair) } else { Err(Unexpected("the two connections did not check in")) }
    }

    /// Makes `count` calls at once and carries them there and back: one turn of each driver. Each answer is compared
    /// with what was sent.
    ///
    /// # Errors
    /// [`Unexpected`] if a call is refused, or has another outcome than its own payload.
    // Not inlined, here and below: each of these functions is the only one that calls what it calls, so the core is
    // inlined into them as it is into the one loop of a driver, and not according to who else there is.
    #[inline(never)]
    pub fn round_trips(&mut self, count: u32) -> Result<(), Unexpected> {
        let now = self.turn();
        for user in 0..count {
            let deadline = now.saturating_add(DEADLINE);
            let call = self.client.conn.ask(now, ECHO, Some(deadline), Body::Copy(&PAYLOAD), user);
            call.map_err(|_| Unexpected("a call was refused"))?;
        }
        let mut seen = Seen::default();
        carry(now, &mut self.client, &mut self.server, count, &mut seen)?;
        carry(now, &mut self.server, &mut self.client, count, &mut seen)?;
        if (seen.served, seen.done) == (count, count) {
            Ok(())
        } else {
            Err(Unexpected("calls were not answered"))
        }
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
            self.settle()?;
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

    #[inline(never)]
    fn look_at_events(&mut self, seen: &mut Seen) -> Result<u32, Unexpected> {
        events(self.now, &mut self.server.conn, u32::MAX, seen)
    }

    /// Carries whatever there is until both are quiet. How many connections became ready: no calls are open.
    fn settle(&mut self) -> Result<u32, Unexpected> {
        let mut seen = Seen::default();
        while self.client.conn.next().write || self.server.conn.next().write {
            carry(self.now, &mut self.client, &mut self.server, u32::MAX, &mut seen)?;
            carry(self.now, &mut self.server, &mut self.client, u32::MAX, &mut seen)?;
            // A server is ready once its ack is committed, without another octet from the client.
            self.look_at_events(&mut seen)?;
        }
        if (seen.served, seen.done) == (0, 0) {
            Ok(seen.ready)
        } else {
            Err(Unexpected("a call is left over"))
        }
    }
}

/// One way of a turn: until `to` has so many events, or no more.
#[inline(never)]
fn carry(
    now: Instant,
    from: &mut End<u32>,
    to: &mut End<u32>,
    most: u32,
    seen: &mut Seen,
) -> Result<(), Unexpected> {
    let mut left = most;
    from.carry(now, to, |conn| {
        left -= events(now, conn, left, seen)?;
        Ok(())
    })
}

/// Fetches at most so many events, and serves what is asked. How many there were.
#[inline(always)]
fn events(now: Instant, conn: &mut Connection<u32>, most: u32, seen: &mut Seen) -> Result<u32, Unexpected> {
    let mut fetched = 0;
    while fetched < most {
        match conn.poll_event(now) {
            None => break,
            Some(Event::Request(request)) => {
                let answered = conn.answer(now, request.call, Body::Share(request.payload));
                answered.map_err(|_| Unexpected("an answer was refused"))?;
                seen.served += 1;
            }
            Some(Event::Done { user, outcome, .. }) => {
                let answer = outcome.map_err(|_| Unexpected("a call was not answered"))?;
                if user != seen.done || answer.payload != PAYLOAD[..] {
                    return Err(Unexpected("an answer is not what was sent"));
                }
                seen.done += 1;
            }
            Some(Event::Ready(_)) => seen.ready += 1,
            Some(_) => return Err(Unexpected("a connection has an event that nothing here leads to")),
        }
        fetched += 1;
    }
    Ok(fetched)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use tieline_core::conn::CallHead;

    #[test]
    fn batches_of_every_size_come_back() {
        let mut pair = Pair::start().unwrap();
        for count in [1, 2, 16, 128, 1024, 0, 1] {
            pair.round_trips(count).unwrap();
        }
        let (client, server) = (pair.client.conn.stats(), pair.server.conn.stats());
        assert_eq!((client.calls_out, server.calls_in, server.refused), (1172, 1172, 0));
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

    /// How many octets a call has tells whether its method went by name or by number.
    #[test]
    fn the_last_of_many_methods_is_learned() {
        let server = server_config(1000).unwrap();
        let mut pair = Pair::check_in(&client_config().unwrap(), &server).unwrap();
        let last = server.method_name(999).unwrap();
        let head = CallHead::new(last);
        let before = pair.client.conn.stats().octets_out;
        pair.client.conn.call(pair.now, &head, Body::Copy(&PAYLOAD), 0).unwrap();
        let mut seen = Seen::default();
        carry(pair.now, &mut pair.client, &mut pair.server, 1, &mut seen).unwrap();
        carry(pair.now, &mut pair.server, &mut pair.client, 1, &mut seen).unwrap();
        assert_eq!((seen.served, seen.done), (1, 1));
        let octets = usize::try_from(pair.client.conn.stats().octets_out - before).unwrap();
        assert!(octets < 18 + PAYLOAD.len() + last.len(), "{octets}");
    }

    #[test]
    fn a_wrong_answer_is_seen() {
        let mut pair = Pair::start().unwrap();
        pair.client.conn.call(pair.now, &CallHead::new(ECHO), Body::Copy(b"other"), 0).unwrap();
        assert!(pair.round_trips(1).is_err());
    }
}
