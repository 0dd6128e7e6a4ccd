//! Frames that a hostile peer would send: good ones, and headers around anything.

use tieline_core::wire::{
    CheckIn, CheckInAck, Envelope, Flags, Frame, FrameType, Header, Request, Response, Status,
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

/// What a client says first.
pub fn check_in(max_concurrent: u32, max_message: u32) -> Vec<u8> {
    let said = CheckIn { identifier: "peer", max_concurrent, max_message, ..CheckIn::default() };
    emit(FrameType::CHECK_IN, 0, Status::OK, Envelope::CheckIn(said), b"")
}

/// What a server answers.
pub fn ack(max_concurrent: u32, max_message: u32) -> Vec<u8> {
    let said = CheckInAck { identifier: "peer", max_concurrent, max_message, ..CheckInAck::default() };
    emit(FrameType::CHECK_IN_ACK, 0, Status::OK, Envelope::CheckInAck(said), b"")
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

/// Takes the whole frames off the front of what a connection wrote.
pub fn take_frames(octets: &mut Vec<u8>) -> Vec<Seen> {
    let mut seen = Vec::new();
    let mut at = 0;
    while let Some((frame, used)) = Frame::parse(&octets[at..], MAX_BODY).expect("a connection writes frames")
    {
        seen.push(Seen { header: frame.header, octets: octets[at..at + used].to_vec() });
        at += used;
    }
    octets.drain(..at);
    seen
}
