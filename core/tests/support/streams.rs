//! Calls of every kind, their items and their fragments, and opening them from either side.

use std::sync::Arc;

use bytes::Bytes;
use tieline_core::{
    conn::{Body, CallHead, CallId, Config, ConfigBuilder, Event, Incoming, MethodSpec, Side, Stream, Taken},
    wire::{CheckIn, CheckInAck, Credit, Envelope, Flags, FrameType, Item, Kind, Request, Response, Status},
};

use super::{
    frames::{self, Seen, emit, flagged},
    raw::{Raw, config, window},
};

pub const SIDES: [Side; 2] = [Side::Server, Side::Client];
pub const KINDS: [Kind; 4] = [Kind::Unary, Kind::ServerStream, Kind::ClientStream, Kind::Bidi];
/// Those of which the caller sends items, and those of which the callee does.
pub const SENDS_UP: [Kind; 2] = [Kind::ClientStream, Kind::Bidi];
pub const SENDS_DOWN: [Kind; 2] = [Kind::ServerStream, Kind::Bidi];

/// What an item costs beside its octets.
pub const ITEM_COST: usize = 256;

/// A configuration with one method of each kind; their ids on the wire are 1 to 4, in the order of [`KINDS`].
pub fn streaming() -> ConfigBuilder {
    KINDS[1..].iter().fold(config(), |config, kind| config.method(MethodSpec::new(name(*kind), *kind)))
}

pub const fn name(kind: Kind) -> &'static str {
    match kind {
        Kind::Unary => "t.S/Echo",
        Kind::ServerStream => "t.S/Down",
        Kind::ClientStream => "t.S/Up",
        Kind::Bidi => "t.S/Chat",
    }
}

/// The head of a call of the peer.
pub fn head(kind: Kind) -> Request<'static> {
    Request { method: kind as u32 + 1, kind: kind as u32, ..Request::default() }
}

/// The head of a call of this side.
pub fn call_head(kind: Kind) -> CallHead<'static> {
    let mut head = CallHead::new(name(kind));
    head.kind = kind;
    head
}

// ---- the peer -------------------------------------------------------------------------------------------------

/// A peer that serves 100 calls and 100 streams, and has the defaults of the protocol besides.
pub fn peer() -> CheckIn<'static> {
    CheckIn { identifier: "peer", max_concurrent: 100, max_streams: 100, ..CheckIn::default() }
}

/// A peer that takes a stream of any length.
pub fn wide() -> CheckIn<'static> {
    CheckIn { stream_window: 1 << 30, ..peer() }
}

fn as_ack(said: CheckIn<'_>) -> CheckInAck<'_> {
    CheckInAck {
        identifier: said.identifier,
        heartbeat_interval_ms: said.heartbeat_interval_ms,
        features: said.features,
        max_frame: said.max_frame,
        max_message: said.max_message,
        max_item: said.max_item,
        max_concurrent: said.max_concurrent,
        max_streams: said.max_streams,
        stream_window: said.stream_window,
        ..CheckInAck::default()
    }
}

/// A connection that is checked in, of either side.
pub fn node(side: Side, config: ConfigBuilder, said: CheckIn<'_>) -> Raw {
    match side {
        Side::Server => Raw::server_for(config, said),
        Side::Client => Raw::client_for(config, as_ack(said)),
    }
}

/// A server's connection that shares its configuration with others.
pub fn sharing(config: &Arc<Config>, said: CheckIn<'_>) -> Raw {
    let mut raw = Raw::new(config.clone(), Side::Server);
    raw.feed(&frames::check_in(said));
    assert!(raw.events().is_empty());
    assert_eq!(raw.frames()[0].status(), Status::OK);
    assert!(matches!(raw.events()[..], [Event::Ready(_)]));
    raw
}

/// The id of the `n`th call, from 0, of the peer of a connection of this side.
pub const fn peer_id(side: Side, n: u64) -> u64 {
    match side {
        Side::Server => 2 * n + 1,
        Side::Client => 2 * n + 2,
    }
}

// ---- frames ---------------------------------------------------------------------------------------------------

/// Octets of which no two stretches look the same.
pub fn pattern(len: usize) -> Vec<u8> {
    (0..len).map(|at| (at * 31 + at / 251 + at / 65_521) as u8).collect()
}

/// A call of the peer, with an empty argument.
pub fn open(id: u64, kind: Kind) -> Vec<u8> {
    frames::request(id, head(kind), b"")
}

pub fn item(id: u64, octets: &[u8]) -> Vec<u8> {
    emit(FrameType::STREAM_ITEM, id, Status::OK, Envelope::Item(Item::default()), octets)
}

pub fn end(id: u64) -> Vec<u8> {
    emit(FrameType::STREAM_END, id, Status::OK, Envelope::None, b"")
}

pub fn credit(id: u64, octets: u32) -> Vec<u8> {
    emit(FrameType::CREDIT, id, Status::OK, Envelope::Credit(Credit { octets }), b"")
}

pub fn abandon(id: u64) -> Vec<u8> {
    frames::continuation(id, false, b"")
}

pub fn begin_request(id: u64, head: Request<'_>, total: u64, part: &[u8]) -> Vec<u8> {
    let envelope = Envelope::Request(Request { total, ..head });
    flagged(FrameType::REQUEST, id, Status::OK, Flags::MORE, envelope, part)
}

pub fn begin_one_way(id: u64, head: Request<'_>, total: u64, part: &[u8]) -> Vec<u8> {
    let envelope = Envelope::Request(Request { total, ..head });
    flagged(FrameType::ONE_WAY, id, Status::OK, Flags::MORE, envelope, part)
}

pub fn begin_response(id: u64, status: Status, total: u64, part: &[u8]) -> Vec<u8> {
    let envelope = Envelope::Response(Response { total, ..Response::default() });
    flagged(FrameType::RESPONSE, id, status, Flags::MORE, envelope, part)
}

pub fn begin_item(id: u64, total: u64, part: &[u8]) -> Vec<u8> {
    flagged(FrameType::STREAM_ITEM, id, Status::OK, Flags::MORE, Envelope::Item(Item { total }), part)
}

/// The rest of a message in CONTINUATIONs of `piece` octets.
pub fn rest(id: u64, octets: &[u8], piece: usize) -> Vec<Vec<u8>> {
    let pieces: Vec<&[u8]> = octets.chunks(piece).collect();
    let last = pieces.len().saturating_sub(1);
    pieces.iter().enumerate().map(|(at, piece)| frames::continuation(id, at < last, piece)).collect()
}

/// What a CREDIT grants.
pub fn granted(frame: &Seen) -> u32 {
    match frame.frame().envelope {
        Envelope::Credit(credit) => credit.octets,
        other => panic!("no CREDIT: {other:?}"),
    }
}

// ---- calls and their items ------------------------------------------------------------------------------------

/// This side calls, with an empty argument; the call, and its id on the wire.
pub fn calls(raw: &mut Raw, head: CallHead<'_>, user: u32) -> (CallId, u64) {
    let call = raw.conn.call(raw.at(), &head, Body::Copy(b""), user).unwrap();
    let frame = raw.frame();
    assert_eq!(frame.frame_type(), FrameType::REQUEST);
    (call, frame.id())
}

/// The peer calls, and its handler runs.
pub fn serves(raw: &mut Raw, id: u64, kind: Kind) -> Incoming {
    raw.feed(&open(id, kind));
    raw.incoming()
}

/// A call of the peer that streams to it, with this credit.
pub fn serves_down(
    raw: &mut Raw,
    n: u64,
    kind: Kind,
    credit: Option<u32>,
) -> (tieline_core::conn::Served, u64) {
    let id = peer_id(raw.conn.side(), n);
    raw.feed(&frames::request(id, Request { credit, ..head(kind) }, b""));
    (raw.incoming().call, id)
}

/// Either end of a stream on which the peer sends, with the credit that it has.
pub fn receiving(side: Side, up: bool, initial: u32) -> (Raw, Stream, u64) {
    if up {
        let mut raw = node(side, streaming().limits(window(initial)), peer());
        let id = peer_id(side, 0);
        let call = serves(&mut raw, id, Kind::Bidi).call;
        (raw, call.into(), id)
    } else {
        let mut raw = node(side, streaming(), peer());
        let mut head = call_head(Kind::Bidi);
        head.credit = Some(initial);
        let (call, id) = calls(&mut raw, head, 1);
        (raw, call.into(), id)
    }
}

pub fn send(raw: &mut Raw, to: impl Into<Stream>, octets: &[u8]) {
    raw.conn.send_item(raw.at(), to, Body::Copy(octets)).unwrap();
}

/// All items that can be taken now.
pub fn take_all(raw: &mut Raw, from: impl Into<Stream>) -> Vec<Bytes> {
    let from = from.into();
    let mut items = Vec::new();
    while let Some(Taken::Item(octets)) = raw.conn.take_item(raw.at(), from) {
        items.push(octets);
    }
    items
}
