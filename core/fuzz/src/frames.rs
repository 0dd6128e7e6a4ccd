//! Frames that a hostile peer would send: good ones, and headers around anything.

use tieline_core::wire::{
    CheckIn, CheckInAck, Envelope, Flags, Frame, FrameType, Header, Repeated, Request, Response, Status,
    varint,
};

/// The longest body that the targets read.
pub const MAX_BODY: u32 = 1 << 20;

/// A good frame.
pub fn emit(
    frame_type: FrameType,
    id: u64,
    status: Status,
    envelope: Envelope<'_>,
    payload: &[u8],
) -> Vec<u8> {
    let mut out = Vec::new();
    let header = Header { frame_type, flags: Flags::NONE, status, id, len: 0 };
    Frame { header, envelope, payload }.emit(&mut out).expect("targets build frames that can be built");
    out
}

/// A good header around any body.
pub fn octets(frame_type: u8, flags: u8, status: u8, id: u64, body: &[u8]) -> Vec<u8> {
    let header = Header {
        frame_type: FrameType(frame_type),
        flags: Flags(flags),
        status: Status(status),
        id,
        len: u32::try_from(body.len()).expect("bodies are short"),
    };
    [&header.emit()[..], body].concat()
}

/// What a hostile peer announces.
#[derive(Clone, Copy)]
pub struct Terms {
    pub concurrent: u32,
    pub message: u32,
    pub streams: u32,
    pub window: u32,
    pub item: u32,
    pub snappy: bool,
}

/// What it says first, as a client or as a server.
pub fn hello(client: bool, terms: Terms) -> Vec<u8> {
    let Terms { concurrent, message, streams, window, item, snappy } = terms;
    let features = Repeated::from(if snappy { &[1u32][..] } else { &[] });
    if client {
        let said = CheckIn {
            identifier: "peer",
            features,
            max_concurrent: concurrent,
            max_message: message,
            max_item: item,
            max_streams: streams,
            stream_window: window,
            ..CheckIn::default()
        };
        return emit(FrameType::CHECK_IN, 0, Status::OK, Envelope::CheckIn(said), b"");
    }
    let said = CheckInAck {
        identifier: "peer",
        features,
        max_concurrent: concurrent,
        max_message: message,
        max_item: item,
        max_streams: streams,
        stream_window: window,
        ..CheckInAck::default()
    };
    emit(FrameType::CHECK_IN_ACK, 0, Status::OK, Envelope::CheckInAck(said), b"")
}

/// A payload as a Snappy block of nothing but literals: good, and longer than what it says.
pub fn literals(plain: &[u8]) -> Vec<u8> {
    let mut block = Vec::new();
    varint::put(plain.len() as u64, &mut block);
    for piece in plain.chunks(60) {
        block.push(u8::try_from(piece.len() - 1).expect("at most 60") << 2);
        block.extend_from_slice(piece);
    }
    block
}

/// A call or a one-way of the method with this number.
pub fn call(frame_type: FrameType, id: u64, method: u32, timeout_us: Option<u64>, payload: &[u8]) -> Vec<u8> {
    let head = Request { method, timeout_us, ..Request::default() };
    emit(frame_type, id, Status::OK, Envelope::Request(head), payload)
}

/// An answer.
pub fn response(id: u64, status: Status, payload: &[u8]) -> Vec<u8> {
    emit(FrameType::RESPONSE, id, status, Envelope::Response(Response::default()), payload)
}

/// A frame that was read, with octets of its own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    /// Its header.
    pub header: Header,
    /// All of it.
    pub octets: Vec<u8>,
}

impl Seen {
    /// The same, decoded.
    pub fn frame(&self) -> Frame<'_> {
        Frame::parse(&self.octets, MAX_BODY).expect("was read before").expect("is whole").0
    }
}

/// Takes the whole frames off the front of `octets`, and says whether the rest may become one.
pub fn take_frames(octets: &mut Vec<u8>) -> (Vec<Seen>, bool) {
    let mut seen = Vec::new();
    let mut at = 0;
    let sound = loop {
        match Frame::parse(&octets[at..], MAX_BODY) {
            Ok(Some((frame, used))) => {
                seen.push(Seen { header: frame.header, octets: octets[at..at + used].to_vec() });
                at += used;
            }
            Ok(None) => break true,
            Err(_) => break false,
        }
    };
    octets.drain(..at);
    (seen, sound)
}
