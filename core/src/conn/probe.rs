//! Asking a peer whether it lives, out of turn (protocol §4, two processes of one identifier).
//!
//! The answer is the next HEARTBEAT_ACK, as a frame like any other, so that it does not matter how input is cut (L6).

use super::machine::{Machine, Phase};

impl Machine {
    /// Sends a HEARTBEAT and waits for its answer; whether the connection is in a state for it.
    pub(crate) fn begin_probe(&mut self) -> bool {
        if self.phase != Phase::Ready || self.eof.is_some() {
            return false;
        }
        self.control.beat = true;
        self.live.unanswered = true;
        self.probing = true;
        true
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use core::time::Duration;

    use bytes::{Buf, BytesMut};

    use crate::{
        Instant,
        conn::{Config, Connection, Event, Outbox, Side},
        wire::{FrameType, Status},
    };

    const START: Instant = Instant::from_nanos(1);

    /// Carries what waits at one end to the other, and returns the types of the frames.
    fn carry(now: Instant, from: &mut Connection<()>, to: &mut Connection<()>) -> alloc::vec::Vec<u8> {
        let mut outbox = Outbox::new();
        let mut buffer = to.lend();
        while from.poll_transmit(now, &mut outbox) {
            let octets = outbox.remaining();
            outbox.chunks().for_each(|chunk| buffer.extend_from_slice(chunk));
            outbox.advance(octets);
            from.handle_sent(now, octets);
        }
        let mut types = alloc::vec::Vec::new();
        let mut rest: &[u8] = &buffer;
        while let Some((head, body)) = rest.split_first_chunk::<18>() {
            types.push(head[3]);
            rest = &body[u32::from_be_bytes([head[14], head[15], head[16], head[17]]) as usize..];
        }
        to.handle_input(now, buffer);
        types
    }

    fn alive(now: Instant, conn: &mut Connection<()>) -> usize {
        core::iter::from_fn(|| conn.poll_event(now)).filter(|event| matches!(event, Event::Alive)).count()
    }

    fn pair() -> (Connection<()>, Connection<()>) {
        let config = Config::builder("node").build().unwrap();
        let mut client = Connection::new(config.clone(), Side::Client, 1, START);
        let mut server = Connection::new(config, Side::Server, 2, START);
        assert!(!server.probe(START), "not before check-in");
        carry(START, &mut client, &mut server);
        assert_eq!(alive(START, &mut server), 0);
        carry(START, &mut server, &mut client);
        assert_eq!(alive(START, &mut client) + alive(START, &mut server), 0);
        (client, server)
    }

    #[test]
    fn a_probe_is_a_heartbeat_at_once_and_its_answer_is_told_once() {
        let (mut client, mut server) = pair();
        let now = START.saturating_add(Duration::from_millis(1));
        assert!(server.probe(now));
        assert_eq!(carry(now, &mut server, &mut client), [FrameType::HEARTBEAT.0]);
        assert_eq!(alive(now, &mut server), 0);
        assert_eq!(alive(now, &mut client), 0);
        assert_eq!(carry(now, &mut client, &mut server), [FrameType::HEARTBEAT_ACK.0]);
        assert_eq!(alive(now, &mut server), 1);
        assert_eq!(server.last_read(), now);
        assert!(client.probe(now));
        carry(now, &mut client, &mut server);
        assert_eq!(alive(now, &mut server), 0, "what comes without a probe is not told");
    }

    #[test]
    fn octets_are_no_answer_but_the_ack_is() {
        let (mut client, mut server) = pair();
        assert!(server.probe(START));
        assert!(client.probe(START));
        assert_eq!(carry(START, &mut client, &mut server), [FrameType::HEARTBEAT.0]);
        assert_eq!(alive(START, &mut server), 0, "it has not answered yet");
        let mut ack = BytesMut::from(&b"\xbe\xa7\x01\x04"[..]);
        ack.resize(17, 0);
        server.handle_input(START, ack);
        assert_eq!(alive(START, &mut server), 0, "nor now");
        server.handle_input(START, BytesMut::from(&b"\0"[..]));
        assert_eq!(alive(START, &mut server), 1);
    }

    #[test]
    fn a_probe_of_a_connection_that_ends_is_none() {
        let (mut client, mut server) = pair();
        assert!(server.probe(START));
        client.close(START, Status::NORMAL, "");
        carry(START, &mut client, &mut server);
        let events: alloc::vec::Vec<_> = core::iter::from_fn(|| server.poll_event(START)).collect();
        assert!(matches!(events[..], [Event::Closed(_)]), "the end is told instead: {events:?}");
        assert!(!server.probe(START));
    }
}
