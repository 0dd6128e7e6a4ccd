//! Calls that have an ordering key, and those of them that start.

use tieline_core::{
    conn::{Event, Incoming, Limits, Served, Side},
    wire::{Envelope, FrameType, Kind, Request, Status},
};

use super::{
    frames::{self, emit},
    raw::Raw,
    streams::{head, node, peer, peer_id, streaming},
};

pub fn ready(side: Side) -> Raw {
    node(side, streaming(), peer())
}

pub fn limited(side: Side, bounds: Limits) -> Raw {
    node(side, streaming().limits(bounds), peer())
}

pub const KEY: &[u8] = b"room";

pub fn keyed(key: &[u8]) -> Request<'_> {
    Request { ordering_key: key, ..head(Kind::Unary) }
}

pub fn request(id: u64, key: &[u8]) -> Vec<u8> {
    frames::request(id, keyed(key), b"")
}

pub fn one_way(id: u64, key: &[u8]) -> Vec<u8> {
    emit(FrameType::ONE_WAY, id, Status::OK, Envelope::Request(keyed(key)), b"")
}

/// The calls that start now, and nothing else happens.
pub fn starts(raw: &mut Raw) -> Vec<Incoming> {
    let start = |event| match event {
        Event::Request(incoming) => incoming,
        other => panic!("{other:?}"),
    };
    raw.events().into_iter().map(start).collect()
}

/// The one call that starts now.
pub fn one_starts(raw: &mut Raw) -> Incoming {
    let mut all = starts(raw);
    assert_eq!(all.len(), 1, "{all:?}");
    all.remove(0)
}

/// A call of this key runs, and is the first of the peer.
pub fn running(raw: &mut Raw) -> Served {
    raw.feed(&request(peer_id(raw.conn.side(), 0), KEY));
    one_starts(raw).call
}
