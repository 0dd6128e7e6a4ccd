//! A connection that is attacked, and its neighbour of the same configuration.

use std::sync::Arc;

use tieline_core::{
    conn::{Body, Config, Event, Limits, Served, Side, Taken},
    wire::{CheckInAck, FrameType, Kind, Status},
};

use super::{
    frames::{self, outline},
    raw::{Raw, limits},
    scene::What,
    streams::{credit, item, pattern, peer, peer_id, serves, sharing, streaming},
};

pub fn serving(max_concurrent: u32) -> Limits {
    limits(|it| (it.max_concurrent, it.max_streams) = (max_concurrent, max_concurrent))
}

/// A connection that is checked in, of either side, and shares its configuration.
pub fn shared(config: &Arc<Config>, side: Side) -> Raw {
    if side == Side::Server {
        return sharing(config, peer());
    }
    let mut raw = Raw::new(config.clone(), side);
    raw.frames();
    raw.feed(&frames::ack(CheckInAck {
        identifier: "peer",
        max_concurrent: 100,
        max_streams: 100,
        ..CheckInAck::default()
    }));
    assert!(matches!(raw.events()[..], [Event::Ready(_)]));
    raw.frames();
    raw
}

/// An id of the calls of this side.
pub const fn own_id(side: Side, n: u64) -> u64 {
    peer_id(if matches!(side, Side::Server) { Side::Client } else { Side::Server }, n)
}

/// A connection of the same configuration whose peer does no wrong.
pub struct Neighbour {
    raw: Raw,
    /// It makes a stream that is open all the while.
    call: Served,
    id: u64,
    next: u64,
}

impl Neighbour {
    pub fn new(config: &Arc<Config>, side: Side) -> Self {
        let mut raw = shared(config, side);
        let id = peer_id(side, 0);
        let call = serves(&mut raw, id, Kind::Bidi).call;
        Self { raw, call, id, next: 1 }
    }

    /// An item each way on the stream that is open, and a call in two fragments.
    pub fn goes_on(&mut self) {
        let raw = &mut self.raw;
        raw.feed(&item(self.id, b"ping"));
        assert!(matches!(raw.events()[..], [Event::Readable(_)]));
        assert_eq!(raw.conn.take_item(raw.at(), self.call), Some(Taken::Item("ping".into())));
        assert_eq!(raw.conn.take_item(raw.at(), self.call), None);
        raw.conn.send_item(raw.at(), self.call, Body::Copy(b"pong")).unwrap();
        let sent: Vec<_> =
            raw.frames().into_iter().filter(|it| it.frame_type() != FrameType::CREDIT).collect();
        assert_eq!(outline(&sent), [(FrameType::STREAM_ITEM, self.id, Status::OK)]);
        let cost = 256 + 4;
        raw.feed(&credit(self.id, cost));
        let id = peer_id(raw.conn.side(), self.next);
        self.next += 1;
        let argument = pattern(600);
        raw.feed_all(What::Request.cut(id, &argument, 300, 300));
        let incoming = raw.incoming();
        assert_eq!(incoming.payload, argument);
        raw.reply(incoming.call, b"good");
        assert_eq!(outline(&raw.frames()), [(FrameType::RESPONSE, id, Status::OK)]);
        raw.is_quiet();
        assert_eq!(raw.conn.stats().late_frames, 0);
    }
}

/// An attacked connection and its neighbour.
pub fn attacked(side: Side, bounds: Limits) -> (Raw, Neighbour) {
    let config = streaming().limits(bounds).build().unwrap();
    let mut neighbour = Neighbour::new(&config, side);
    neighbour.goes_on();
    (shared(&config, side), neighbour)
}

/// The status with which the connection ended, if it has; other events are passed over.
pub fn ended(raw: &mut Raw) -> Option<Status> {
    let events = raw.events();
    let status = events.iter().find_map(|event| match event {
        Event::Closed(closed) => Some(closed.status),
        _ => None,
    });
    raw.passed.extend(events);
    status
}

/// How many rounds are borne before the connection ends, and how it does.
pub fn borne(raw: &mut Raw, most: u64, mut round: impl FnMut(&mut Raw, u64)) -> (u64, Status) {
    for n in 0..most {
        round(raw, n);
        if let Some(status) = ended(raw) {
            return (n, status);
        }
        raw.frames();
    }
    panic!("{most} rounds are borne")
}

pub fn started(raw: &Raw) -> usize {
    raw.passed.iter().filter(|event| matches!(event, Event::Request(_))).count()
}
