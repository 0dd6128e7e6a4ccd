//! Building frames with the codec of the crate, and frames as they were seen.

use tieline_core::wire::{
    CheckIn, CheckInAck, Close, Drain, Envelope, Flags, Frame, FrameType, HEADER_LEN, Header, Method,
    Repeated, Request, Response, Status, Table,
};

/// The longest body that the tests read.
pub const MAX_BODY: u32 = 1 << 20;

pub const KIB: usize = 1024;
pub const MIB: usize = 1024 * KIB;

pub fn emit(
    frame_type: FrameType,
    id: u64,
    status: Status,
    envelope: Envelope<'_>,
    payload: &[u8],
) -> Vec<u8> {
    flagged(frame_type, id, status, Flags::NONE, envelope, payload)
}

pub fn flagged(
    frame_type: FrameType,
    id: u64,
    status: Status,
    flags: Flags,
    envelope: Envelope<'_>,
    payload: &[u8],
) -> Vec<u8> {
    let mut out = Vec::new();
    let header = Header { frame_type, flags, status, id, len: 0 };
    Frame { header, envelope, payload }.emit(&mut out).expect("tests build frames that can be built");
    out
}

/// A frame as it is, however wrong: the header's fields and any body.
pub fn octets(frame_type: u8, flags: u8, status: u8, id: u64, body: &[u8]) -> Vec<u8> {
    let header = Header {
        frame_type: FrameType(frame_type),
        flags: Flags(flags),
        status: Status(status),
        id,
        len: u32::try_from(body.len()).unwrap(),
    };
    [&header.emit()[..], body].concat()
}

pub fn check_in(said: CheckIn<'_>) -> Vec<u8> {
    emit(FrameType::CHECK_IN, 0, Status::OK, Envelope::CheckIn(said), b"")
}

pub fn ack(said: CheckInAck<'_>) -> Vec<u8> {
    emit(FrameType::CHECK_IN_ACK, 0, Status::OK, Envelope::CheckInAck(said), b"")
}

pub fn heartbeat(token: u64) -> Vec<u8> {
    emit(FrameType::HEARTBEAT, token, Status::OK, Envelope::None, b"")
}

pub fn heartbeat_ack(token: u64) -> Vec<u8> {
    emit(FrameType::HEARTBEAT_ACK, token, Status::OK, Envelope::None, b"")
}

pub fn request(id: u64, head: Request<'_>, payload: &[u8]) -> Vec<u8> {
    emit(FrameType::REQUEST, id, Status::OK, Envelope::Request(head), payload)
}

/// The head of a call of the first method.
pub fn echo() -> Request<'static> {
    Request { method: 1, ..Request::default() }
}

/// A REQUEST of the first method.
pub fn call(id: u64, payload: &[u8]) -> Vec<u8> {
    request(id, echo(), payload)
}

pub fn one_way(id: u64, payload: &[u8]) -> Vec<u8> {
    emit(FrameType::ONE_WAY, id, Status::OK, Envelope::Request(echo()), payload)
}

pub fn response(id: u64, status: Status, payload: &[u8]) -> Vec<u8> {
    emit(FrameType::RESPONSE, id, status, Envelope::Response(Response::default()), payload)
}

pub fn cancel(id: u64) -> Vec<u8> {
    emit(FrameType::CANCEL, id, Status::CANCELLED, Envelope::None, b"")
}

pub fn continuation(id: u64, more: bool, octets: &[u8]) -> Vec<u8> {
    let flags = if more { Flags::MORE } else { Flags::NONE };
    flagged(FrameType::CONTINUATION, id, Status::OK, flags, Envelope::None, octets)
}

pub fn drain(id: u64, grace_ms: u32) -> Vec<u8> {
    emit(FrameType::DRAIN, id, Status::GOING_AWAY, Envelope::Drain(Drain { grace_ms, message: "bye" }), b"")
}

pub fn close(status: Status) -> Vec<u8> {
    emit(FrameType::CLOSE, 0, status, Envelope::Close(Close { message: "closing" }), b"")
}

pub fn table(methods: &[Method<'_>]) -> Vec<u8> {
    let table = Table { methods: Repeated::from(methods) };
    emit(FrameType::TABLE, 0, Status::OK, Envelope::Table(table), b"")
}

/// A frame that was read, with octets of its own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    pub header: Header,
    pub octets: Vec<u8>,
}

impl Seen {
    pub fn frame(&self) -> Frame<'_> {
        Frame::parse(&self.octets, MAX_BODY).expect("was read before").expect("is whole").0
    }

    pub fn frame_type(&self) -> FrameType {
        self.header.frame_type
    }

    pub fn id(&self) -> u64 {
        self.header.id
    }

    pub fn status(&self) -> Status {
        self.header.status
    }

    pub fn payload(&self) -> &[u8] {
        self.frame().payload
    }

    pub fn request(&self) -> Request<'_> {
        match self.frame().envelope {
            Envelope::Request(request) => request,
            other => panic!("no request: {other:?}"),
        }
    }

    /// The message of an error, a DRAIN, a CLOSE or a refused check-in.
    pub fn message(&self) -> &str {
        match self.frame().envelope {
            Envelope::Response(it) => it.message,
            Envelope::Close(it) => it.message,
            Envelope::Drain(it) => it.message,
            Envelope::CheckInAck(it) => it.message,
            other => panic!("no message: {other:?}"),
        }
    }
}

/// Takes the whole frames off the front of `octets`.
pub fn take_frames(octets: &mut Vec<u8>) -> Vec<Seen> {
    let mut seen = Vec::new();
    let mut at = 0;
    while let Some((frame, used)) = Frame::parse(&octets[at..], MAX_BODY).expect("a connection writes frames")
    {
        seen.push(Seen { header: frame.header, octets: octets[at..at + used].to_vec() });
        at += used;
    }
    assert!(octets.len() - at < HEADER_LEN + MAX_BODY as usize);
    octets.drain(..at);
    seen
}

pub fn types(frames: &[Seen]) -> Vec<FrameType> {
    frames.iter().map(Seen::frame_type).collect()
}

/// Types and ids: what most expectations are about.
pub fn outline(frames: &[Seen]) -> Vec<(FrameType, u64, Status)> {
    frames.iter().map(|seen| (seen.frame_type(), seen.id(), seen.status())).collect()
}
