//! Calls that nobody answers. Apart from [`pair`](crate::pair), so that neither loop is compiled otherwise for the sake
//! of the other.

use std::error::Error;

use tieline_core::Instant;
use tieline_core::conn::{Body, Event, Side};

use crate::end::{DEADLINE, End, PAYLOAD, TURN, Unexpected, client_config, head, server_config};

/// A client and a server that have checked in.
#[derive(Debug)]
pub struct OneWays {
    now: Instant,
    client: End<()>,
    server: End<()>,
}

impl OneWays {
    /// Two new connections with the default limits, checked in.
    ///
    /// # Errors
    /// [`ConfigError`](tieline_core::conn::ConfigError), or [`Unexpected`] if check-in does not succeed.
    pub fn start() -> Result<Self, Box<dyn Error>> {
        let now = Instant::from_nanos(1);
        let mut client = End::new(&client_config()?, Side::Client, 1, now);
        let mut server = End::new(&server_config(1)?, Side::Server, 2, now);
        let mut ready = false;
        client.carry(now, &mut server, |server| {
            while server.poll_event(now).is_some() {}
            Ok(())
        })?;
        server.carry(now, &mut client, |client| {
            while let Some(event) = client.poll_event(now) {
                ready |= matches!(event, Event::Ready(_));
            }
            Ok(())
        })?;
        while server.conn.poll_event(now).is_some() {}
        if ready { Ok(Self { now, client, server }) } else { Err(Unexpected("no check-in").into()) }
    }

    /// Sends `count` one-ways at once, carries them to the server, and lets its handlers stop.
    ///
    /// # Errors
    /// [`Unexpected`] if one is refused, dropped, or not told as sent.
    #[inline(never)]
    pub fn send(&mut self, count: u32) -> Result<(), Unexpected> {
        self.now = self.now.saturating_add(TURN);
        let now = self.now;
        for _ in 0..count {
            let head = head(now.saturating_add(DEADLINE));
            let sent = self.client.conn.one_way(now, &head, Body::Copy(&PAYLOAD), ());
            sent.map_err(|_| Unexpected("a one-way was refused"))?;
        }
        let (mut left, mut told) = (count, 0);
        self.client.carry(now, &mut self.server, |server| {
            while left > 0 {
                match server.poll_event(now) {
                    Some(Event::Request(request)) if request.one_way => server.stopped(now, request.call),
                    Some(_) => return Err(Unexpected("the server has another event than a one-way")),
                    None => break,
                }
                left -= 1;
            }
            Ok(())
        })?;
        while let Some(event) = self.client.conn.poll_event(now) {
            if !matches!(event, Event::Done { outcome: Ok(_), .. }) {
                return Err(Unexpected("a one-way has another outcome than sent"));
            }
            told += 1;
        }
        // What answers the server has to give are heartbeats at most, and there was no time for those.
        if (left, told) == (0, count) { Ok(()) } else { Err(Unexpected("one-ways were lost")) }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn batches_of_every_size_arrive() {
        let mut pair = OneWays::start().unwrap();
        for count in [1, 2, 16, 128, 1024, 0, 1] {
            pair.send(count).unwrap();
        }
        let (client, server) = (pair.client.conn.stats(), pair.server.conn.stats());
        assert_eq!((client.calls_out, server.calls_in, server.dropped_one_ways), (1172, 1172, 0));
        assert_eq!(pair.server.conn.open_calls(), (0, 0));
    }
}
