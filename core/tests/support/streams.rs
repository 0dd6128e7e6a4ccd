//! Building fragments and streams, and following the messages that a connection writes.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use bytes::Buf;
use tieline_core::{
    conn::{
        Body, CallHead, CallId, Config, ConfigBuilder, Event, Incoming, MethodSpec, Outbox, Served, Side,
        Stream, Taken,
    },
    wire::{CheckIn, CheckInAck, Credit, Envelope, Flags, FrameType, Item, Kind, Request, Response, Status},
};

use super::{
    frames::{self, Seen, emit, flagged},
    raw::{Raw, config},
};

pub const SIDES: [Side; 2] = [Side::Server, Side::Client];
pub const KINDS: [Kind; 4] = [Kind::Unary, Kind::ServerStream, Kind::ClientStream, Kind::Bidi];

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

// ---- messages, both ways --------------------------------------------------------------------------------------

/// The messages that there are, by their way between caller and callee.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum What {
    Request,
    OneWay,
    Response,
    ItemUp,
    ItemDown,
}

impl What {
    pub const ALL: [Self; 5] = [Self::Request, Self::OneWay, Self::Response, Self::ItemUp, Self::ItemDown];

    /// The first frame of it, which says that there is more.
    pub fn begin(self, id: u64, total: u64, part: &[u8]) -> Vec<u8> {
        match self {
            Self::Request => begin_request(id, head(Kind::Unary), total, part),
            Self::OneWay => begin_one_way(id, head(Kind::Unary), total, part),
            Self::Response => begin_response(id, Status::OK, total, part),
            Self::ItemUp | Self::ItemDown => begin_item(id, total, part),
        }
    }

    /// All of it: `first` octets, then pieces.
    pub fn cut(self, id: u64, payload: &[u8], first: usize, piece: usize) -> Vec<Vec<u8>> {
        let (part, more) = payload.split_at(first);
        let mut frames = vec![self.begin(id, payload.len() as u64, part)];
        frames.extend(rest(id, more, piece));
        frames
    }
}

/// A connection and a call on it, at the point where the message in question may be sent.
pub struct Scene {
    pub raw: Raw,
    /// The id of the call on the wire.
    pub id: u64,
    pub what: What,
    pub ours: Option<CallId>,
    pub theirs: Option<Served>,
}

impl Scene {
    /// The peer may send the message now.
    pub fn arriving(side: Side, what: What) -> Self {
        Self::arriving_with(side, what, streaming())
    }

    pub fn arriving_with(side: Side, what: What, config: ConfigBuilder) -> Self {
        let mut scene = Self { raw: node(side, config, peer()), id: 0, what, ours: None, theirs: None };
        match what {
            What::Request | What::OneWay => scene.id = peer_id(side, 0),
            What::Response => scene.calls(Kind::Unary),
            What::ItemUp => scene.serves(peer_id(side, 0), Kind::ClientStream),
            What::ItemDown => scene.calls(Kind::ServerStream),
        }
        scene
    }

    /// This side may send the message now.
    pub fn leaving(side: Side, what: What, said: CheckIn<'_>) -> Self {
        let mut scene = Self { raw: node(side, streaming(), said), id: 0, what, ours: None, theirs: None };
        match what {
            What::Request | What::OneWay => {}
            What::Response => scene.serves(peer_id(side, 0), Kind::Unary),
            What::ItemUp => scene.calls(Kind::ClientStream),
            What::ItemDown => scene.serves(peer_id(side, 0), Kind::ServerStream),
        }
        scene
    }

    fn calls(&mut self, kind: Kind) {
        let (call, id) = calls(&mut self.raw, call_head(kind), 1);
        (self.ours, self.id) = (Some(call), id);
    }

    fn serves(&mut self, id: u64, kind: Kind) {
        self.theirs = Some(serves(&mut self.raw, id, kind).call);
        self.id = id;
    }

    pub fn stream(&self) -> Stream {
        self.ours.map(Stream::from).or(self.theirs.map(Stream::from)).expect("a call is open")
    }

    /// The payload of the message, if it has come whole.
    pub fn received(&mut self) -> Option<Vec<u8>> {
        let events = self.raw.events();
        let payload = match self.what {
            What::ItemUp | What::ItemDown => match self.raw.conn.take_item(self.raw.at(), self.stream()) {
                Some(Taken::Item(octets)) => Some(octets),
                _ => None,
            },
            _ => events.into_iter().find_map(|event| match event {
                Event::Request(incoming) => Some(incoming.payload),
                Event::Done { outcome, .. } => Some(outcome.unwrap().payload),
                _ => None,
            }),
        };
        payload.map(|octets| octets.to_vec())
    }

    /// This side sends the message.
    pub fn send(&mut self, payload: &[u8]) {
        let (at, body) = (self.raw.at(), Body::Copy(payload));
        match self.what {
            What::Request => {
                self.ours = Some(self.raw.conn.call(at, &CallHead::new("t.S/Echo"), body, 1).unwrap());
            }
            What::OneWay => {
                self.ours = Some(self.raw.conn.one_way(at, &CallHead::new("t.S/Echo"), body, 1).unwrap());
            }
            What::Response => self.raw.reply(self.theirs.expect("is served"), payload),
            What::ItemUp | What::ItemDown => self.raw.conn.send_item(at, self.stream(), body).unwrap(),
        }
    }
}

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

// ---- the output -----------------------------------------------------------------------------------------------

/// From now on [`step`] commits as little as can be at a time.
pub fn stepwise(raw: &mut Raw) {
    raw.outbox = Outbox::with_mark(1);
}

/// The next frame, or the next few where a connection commits them together.
pub fn step(raw: &mut Raw) -> Vec<Seen> {
    raw.conn.poll_transmit(raw.at(), &mut raw.outbox);
    let mut octets = Vec::new();
    raw.outbox.chunks().for_each(|chunk| octets.extend_from_slice(chunk));
    raw.outbox.advance(octets.len());
    raw.conn.handle_sent(raw.at(), octets.len());
    let frames = frames::take_frames(&mut octets);
    assert!(octets.is_empty(), "frames are committed whole");
    frames
}

/// The next frame, which is committed alone.
pub fn step_one(raw: &mut Raw) -> Seen {
    let mut frames = step(raw);
    assert_eq!(frames.len(), 1, "{:?}", frames::outline(&frames));
    frames.remove(0)
}

/// All that is left, step by step.
pub fn steps(raw: &mut Raw) -> Vec<Seen> {
    let mut all = Vec::new();
    loop {
        let frames = step(raw);
        if frames.is_empty() {
            return all;
        }
        all.extend(frames);
    }
}

/// A message that was read whole or to its being abandoned.
#[derive(Debug, Clone)]
pub struct Message {
    pub frame_type: FrameType,
    pub id: u64,
    pub status: Status,
    pub compressed: bool,
    pub payload: Vec<u8>,
    /// The lengths of the bodies of its frames.
    pub bodies: Vec<usize>,
    pub abandoned: bool,
    total: u64,
}

/// Puts messages together and objects to what a sender must not do (protocol §11.1).
pub struct Reader {
    max_frame: usize,
    begun: BTreeMap<u64, Message>,
}

impl Reader {
    pub const fn new(max_frame: usize) -> Self {
        Self { max_frame, begun: BTreeMap::new() }
    }

    pub fn is_idle(&self) -> bool {
        self.begun.is_empty()
    }

    /// The messages that end with these frames.
    pub fn read(&mut self, frames: &[Seen]) -> Vec<Message> {
        frames.iter().filter_map(|frame| self.read_one(frame)).collect()
    }

    fn read_one(&mut self, seen: &Seen) -> Option<Message> {
        let (frame, id) = (seen.frame(), seen.id());
        let (more, body) = (frame.header.flags.contains(Flags::MORE), frame.header.len as usize);
        assert!(body <= self.max_frame, "a body of {body} octets");
        let total = match frame.envelope {
            Envelope::Request(head) => head.total,
            Envelope::Response(head) => head.total,
            Envelope::Item(head) => head.total,
            _ if seen.frame_type() == FrameType::CONTINUATION => {
                return self.go_on(id, more, body, frame.payload);
            }
            _ => {
                assert!(!more);
                let ends = seen.frame_type() == FrameType::STREAM_END;
                assert!(!(ends && self.begun.contains_key(&id)), "STREAM_END inside a message");
                return None;
            }
        };
        assert!(!self.begun.contains_key(&id), "a message inside a message of {id}");
        let message = Message {
            frame_type: seen.frame_type(),
            id,
            status: seen.status(),
            compressed: frame.header.flags.contains(Flags::COMPRESSED),
            payload: frame.payload.to_vec(),
            bodies: vec![body],
            abandoned: false,
            total,
        };
        if more {
            assert!(total > frame.payload.len() as u64, "MORE, and a total of {total}");
            self.begun.insert(id, message);
            return None;
        }
        assert_eq!(total, 0, "a total without MORE");
        Some(message)
    }

    fn go_on(&mut self, id: u64, more: bool, body: usize, octets: &[u8]) -> Option<Message> {
        let message = self.begun.get_mut(&id).expect("a CONTINUATION belongs to a message");
        message.payload.extend_from_slice(octets);
        message.bodies.push(body);
        assert!(message.payload.len() as u64 <= message.total, "more than the total");
        if octets.is_empty() {
            assert!(!more, "an empty CONTINUATION with MORE");
            message.abandoned = true;
        } else if !more {
            assert_eq!(message.payload.len() as u64, message.total, "other than the total");
        }
        if more { None } else { self.begun.remove(&id) }
    }
}

/// The status of the RESPONSE with this id, if it is among the frames.
pub fn answer(frames: &[Seen], id: u64) -> Option<Status> {
    let mut answers =
        frames.iter().filter(|frame| frame.frame_type() == FrameType::RESPONSE && frame.id() == id);
    let first = answers.next().map(Seen::status);
    assert!(answers.next().is_none(), "one RESPONSE a call");
    first
}

/// Frames but heartbeats.
pub fn without_heartbeats(frames: Vec<Seen>) -> Vec<Seen> {
    frames.into_iter().filter(|frame| frame.frame_type() != FrameType::HEARTBEAT).collect()
}

/// Nothing but heartbeats until shortly before `limit`, which then takes effect within half a second: the frames of
/// then. Events are in `passed`.
pub fn at_limit(raw: &mut Raw, limit: Duration) -> Vec<Seen> {
    let early = Duration::from_millis(20);
    let frames = raw.live(limit.saturating_sub(early));
    assert!(frames.is_empty(), "too early: {:?}", frames::outline(&frames));
    assert!(raw.passed.is_empty(), "too early: {:?}", raw.passed);
    raw.live(early + Duration::from_millis(500))
}

/// The points that are left of the budget of the peer; finding that out takes them all.
pub fn points(raw: &mut Raw) -> u32 {
    for spent in 1..=5_000 {
        raw.feed(&frames::heartbeat_ack(0));
        let closed = raw.events().into_iter().find_map(|event| match event {
            Event::Closed(closed) => Some(closed.status),
            _ => None,
        });
        if let Some(status) = closed {
            assert_eq!(status, Status::EXCESSIVE_LOAD);
            return spent;
        }
    }
    panic!("there is no budget");
}

/// A full budget.
pub const FULL: u32 = 4096;
