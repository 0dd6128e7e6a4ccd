//! The messages that there are, and a connection at the point where one of them may be sent.

use tieline_core::{
    conn::{Body, CallHead, CallId, ConfigBuilder, Event, Served, Side, Stream, Taken},
    wire::{CheckIn, Kind, Status},
};

use super::{
    raw::Raw,
    streams::{
        SIDES, begin_item, begin_one_way, begin_request, begin_response, call_head, calls, head, node, peer,
        peer_id, rest, serves, streaming,
    },
};

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

/// Each of them, with a connection of each side.
pub fn all() -> impl Iterator<Item = (Side, What)> {
    SIDES.into_iter().flat_map(|side| What::ALL.map(|what| (side, what)))
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
        Self::opposite(side, what, config, peer())
    }

    /// The same opposite this peer.
    pub fn opposite(side: Side, what: What, config: ConfigBuilder, said: CheckIn<'_>) -> Self {
        let mut scene = Self { raw: node(side, config, said), id: 0, what, ours: None, theirs: None };
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
