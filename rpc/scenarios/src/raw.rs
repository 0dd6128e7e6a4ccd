//! A peer that is nothing but octets, on a thread: it does what the scenario says, and nothing by itself.

use std::{
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    time::Duration,
};

use crate::wait::LONG;

/// A client's first frame.
pub const CHECK_IN: u8 = 0x01;
/// A server's answer to it.
pub const CHECK_IN_ACK: u8 = 0x02;
/// A sign of life, and a request for one.
pub const HEARTBEAT: u8 = 0x03;
/// The answer to that.
pub const HEARTBEAT_ACK: u8 = 0x04;
/// A call.
pub const REQUEST: u8 = 0x05;
/// Its answer.
pub const RESPONSE: u8 = 0x06;
/// A call that nobody answers.
pub const ONE_WAY: u8 = 0x07;
/// More of a message.
pub const CONTINUATION: u8 = 0x0C;
/// The end, and why.
pub const CLOSE: u8 = 0x0E;

/// A frame of this type, status, context id and body (protocol §1).
#[must_use]
pub fn frame(kind: u8, status: u8, id: u64, body: &[u8]) -> Vec<u8> {
    let mut octets = vec![0xBE, 0xA7, 1, kind, 0, status];
    octets.extend(id.to_be_bytes());
    octets.extend(u32::try_from(body.len()).unwrap().to_be_bytes());
    octets.extend(body);
    octets
}

fn varint(mut value: u64, into: &mut Vec<u8>) {
    while value >= 0x80 {
        into.push(value.to_le_bytes()[0] | 0x80);
        value >>= 7;
    }
    into.push(value.to_le_bytes()[0]);
}

/// Appends a field of an envelope that is a number.
pub fn number(field: u64, value: u64, into: &mut Vec<u8>) {
    varint(field << 3, into);
    varint(value, into);
}

/// Appends a field of an envelope that is a text.
pub fn string(field: u64, value: &str, into: &mut Vec<u8>) {
    varint(field << 3 | 2, into);
    varint(value.len() as u64, into);
    into.extend(value.as_bytes());
}

/// An envelope and a payload.
#[must_use]
pub fn body(envelope: &[u8], payload: &[u8]) -> Vec<u8> {
    let mut body = Vec::new();
    varint(envelope.len() as u64, &mut body);
    body.extend(envelope);
    body.extend(payload);
    body
}

/// A good check-in, or a good ack.
#[must_use]
pub fn hello(kind: u8, identifier: &str, interval: Duration) -> Vec<u8> {
    let mut envelope = Vec::new();
    string(1, identifier, &mut envelope);
    number(2, u64::try_from(interval.as_millis()).unwrap(), &mut envelope);
    number(8, 1000, &mut envelope);
    frame(kind, 0, 0, &body(&envelope, b""))
}

/// A call by name.
#[must_use]
pub fn request(id: u64, method: &str, payload: &[u8]) -> Vec<u8> {
    let mut envelope = Vec::new();
    string(2, method, &mut envelope);
    frame(REQUEST, 0, id, &body(&envelope, payload))
}

/// A frame that came.
#[derive(Debug)]
pub struct Frame {
    /// The version that its header names.
    pub version: u8,
    /// Its type.
    pub kind: u8,
    /// Its status (protocol §6).
    pub status: u8,
    /// Its context id.
    pub id: u64,
    /// Envelope and payload, as they came.
    pub body: Vec<u8>,
}

impl Frame {
    /// What a header says, and the body behind it.
    #[must_use]
    pub fn new(head: [u8; 18], body: Vec<u8>) -> Self {
        let [_, _, version, kind, _, status, id @ .., _, _, _, _] = head;
        Self { version, kind, status, id: u64::from_be_bytes(id), body }
    }

    /// How long the body is that a header announces.
    #[must_use]
    pub const fn announced(head: &[u8; 18]) -> usize {
        let [.., a, b, c, d] = *head;
        u32::from_be_bytes([a, b, c, d]) as usize
    }

    /// The body as far as it is text.
    #[must_use]
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

/// The peer. Its reads and writes block.
#[derive(Debug)]
pub struct Raw {
    /// What it reads from and writes to.
    pub stream: TcpStream,
}

impl Raw {
    fn new(stream: TcpStream) -> Self {
        stream.set_read_timeout(Some(LONG)).unwrap();
        stream.set_write_timeout(Some(LONG)).unwrap();
        stream.set_nodelay(true).unwrap();
        Self { stream }
    }

    /// Connects, and checks in as a client.
    #[must_use]
    pub fn check_in(address: &str, identifier: &str, interval: Duration) -> Self {
        let mut raw = Self::new(TcpStream::connect(address).unwrap());
        raw.send(&hello(CHECK_IN, identifier, interval));
        assert_eq!(raw.next(CHECK_IN_ACK).status, 0);
        raw
    }

    /// Accepts a client, and takes its check-in.
    #[must_use]
    pub fn welcome(listener: &TcpListener, interval: Duration) -> Self {
        let mut raw = Self::new(listener.accept().unwrap().0);
        raw.next(CHECK_IN);
        raw.send(&hello(CHECK_IN_ACK, "raw", interval));
        raw
    }

    /// Sends octets.
    pub fn send(&mut self, octets: &[u8]) {
        self.stream.write_all(octets).unwrap();
    }

    /// The next frame; nothing at the end of the stream.
    pub fn frame(&mut self) -> Option<Frame> {
        let mut head = [0; 18];
        if let Err(error) = self.stream.read_exact(&mut head) {
            let late = matches!(error.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut);
            assert!(!late, "no frame within {LONG:?}");
            return None;
        }
        let mut body = vec![0; Frame::announced(&head)];
        self.stream.read_exact(&mut body).unwrap();
        Some(Frame::new(head, body))
    }

    /// The next frame of this type; others are passed over, but for an end.
    pub fn next(&mut self, kind: u8) -> Frame {
        loop {
            let frame = self.frame().unwrap_or_else(|| panic!("the end instead of a frame of type {kind}"));
            if frame.kind == kind {
                return frame;
            }
            assert_ne!(frame.kind, CLOSE, "closed instead of a frame of type {kind}: {frame:?}");
        }
    }
}

/// A listener, and its address.
#[must_use]
pub fn listener() -> (TcpListener, String) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    (listener, address)
}
