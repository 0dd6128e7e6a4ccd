//! The frame of Tieline (protocol §1), as little of it as an echo needs, written by hand.
//!
//! A request and its response are an 18-octet header, one octet `n` = 0 for the empty envelope, and
//! the payload. The baselines check what a real reader must check before it may trust a header: magic,
//! version, type, flags, status and length. They know no check-in, no other types and no fragments.

use std::fmt;

/// Octets of a header.
pub(crate) const HEADER: usize = 18;
/// Octets of a frame that are not payload: the header and the length of the envelope.
pub(crate) const OVERHEAD: usize = HEADER + 1;
/// The longest body that the baselines read.
pub(crate) use crate::load::MAX_BODY;

/// The types that the baselines speak.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Request,
    Response,
    Item,
}

impl Kind {
    /// Octets 0 to 5 of a header with no flag and status 00, in the upper 48 bits.
    const fn lead(self) -> u64 {
        match self {
            Self::Request => 0xBEA7_0105_0000_0000,
            Self::Response => 0xBEA7_0106_0000_0000,
            Self::Item => 0xBEA7_0109_0000_0000,
        }
    }
}

/// Octets 0 to 5: one masked compare checks all of them.
const LEAD: u64 = 0xFFFF_FFFF_FFFF_0000;

/// The octets are not a frame of the expected kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct BadFrame;

impl fmt::Display for BadFrame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("octets that are no frame of the expected kind")
    }
}

impl std::error::Error for BadFrame {}

impl From<BadFrame> for std::io::Error {
    fn from(bad: BadFrame) -> Self {
        Self::new(std::io::ErrorKind::InvalidData, bad)
    }
}

/// What stands at the front of the input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Parsed<'a> {
    /// A whole frame of `octets`.
    Frame { id: u64, payload: &'a [u8], octets: usize },
    /// Part of a frame: it is whole when this many octets, counted from its start, are there.
    Partial { need: usize },
}

/// Reads the frame at the front of `input`.
#[inline]
pub(crate) fn parse(input: &[u8], kind: Kind) -> Result<Parsed<'_>, BadFrame> {
    let Some(header) = input.first_chunk::<HEADER>() else {
        return Ok(Parsed::Partial { need: HEADER });
    };
    let [l0, l1, l2, l3, l4, l5, i0, i1, i2, i3, i4, i5, i6, i7, b0, b1, b2, b3] = *header;
    let lead = u64::from_be_bytes([l0, l1, l2, l3, l4, l5, i0, i1]);
    let length = u32::from_be_bytes([b0, b1, b2, b3]) as usize;
    if lead & LEAD != kind.lead() || length > MAX_BODY {
        return Err(BadFrame);
    }
    let octets = HEADER + length;
    let payload = match input.get(HEADER..octets) {
        Some([0, payload @ ..]) => payload,
        Some([]) => &[],
        Some(_) => return Err(BadFrame),
        None => return Ok(Parsed::Partial { need: octets }),
    };
    Ok(Parsed::Frame { id: u64::from_be_bytes([i0, i1, i2, i3, i4, i5, i6, i7]), payload, octets })
}

/// Appends one frame. A payload beyond [`MAX_BODY`] is refused: the other side would not read it.
#[inline]
pub(crate) fn emit(out: &mut Vec<u8>, kind: Kind, id: u64, payload: &[u8]) -> Result<(), BadFrame> {
    let length = payload.len() + 1;
    if length > MAX_BODY {
        return Err(BadFrame);
    }
    let length = u32::try_from(length).map_err(|_| BadFrame)?;
    let [l0, l1, l2, l3, l4, l5, ..] = kind.lead().to_be_bytes();
    let [i0, i1, i2, i3, i4, i5, i6, i7] = id.to_be_bytes();
    let [b0, b1, b2, b3] = length.to_be_bytes();
    out.reserve(OVERHEAD + payload.len());
    out.extend_from_slice(&[l0, l1, l2, l3, l4, l5, i0, i1, i2, i3, i4, i5, i6, i7, b0, b1, b2, b3, 0]);
    out.extend_from_slice(payload);
    Ok(())
}

/// How far [`echo`] came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Echoed {
    /// Octets of whole frames, which are answered.
    pub(crate) consumed: usize,
    /// The length of the frame that is not whole yet.
    pub(crate) need: usize,
}

/// Answers every whole request in `input` by a response with the same id and payload: the server of
/// all three baselines.
pub(crate) fn echo(input: &[u8], out: &mut Vec<u8>) -> Result<Echoed, BadFrame> {
    let mut consumed = 0;
    loop {
        let rest = input.get(consumed..).unwrap_or_default();
        match parse(rest, Kind::Request)? {
            Parsed::Frame { id, payload, octets } => {
                emit(out, Kind::Response, id, payload)?;
                consumed += octets;
            }
            Parsed::Partial { need } => return Ok(Echoed { consumed, need }),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

    use super::*;

    fn request(id: u64, payload: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        emit(&mut out, Kind::Request, id, payload).unwrap();
        out
    }

    #[test]
    fn the_octets_are_those_of_the_protocol() {
        assert_eq!(
            request(0x0102_0304_0506_0708, b"hi"),
            [0xBE, 0xA7, 1, 5, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 0, 0, 0, 3, 0, b'h', b'i']
        );
    }

    #[test]
    fn each_octet_that_is_checked_is_checked() {
        let good = request(1, b"payload");
        let checked = [0, 1, 2, 3, 4, 5, 18];
        for at in checked {
            let mut bad = good.clone();
            bad[at] ^= 0x40;
            assert_eq!(parse(&bad, Kind::Request), Err(BadFrame), "octet {at}");
        }
        let mut long = good.clone();
        long[14..18].copy_from_slice(&u32::MAX.to_be_bytes());
        assert_eq!(parse(&long, Kind::Request), Err(BadFrame));
        assert_eq!(parse(&good, Kind::Response), Err(BadFrame));
    }

    #[test]
    fn a_body_without_octets_is_an_empty_payload() {
        let mut frame = request(9, b"");
        frame.pop();
        frame[17] = 0;
        let parsed = parse(&frame, Kind::Request).unwrap();
        assert_eq!(parsed, Parsed::Frame { id: 9, payload: b"", octets: HEADER });
    }

    #[test]
    fn input_cut_anywhere_gives_the_same_answers() {
        let mut input = Vec::new();
        let mut answers = Vec::new();
        for (id, payload) in [(1, vec![7; 64]), (3, Vec::new()), (5, vec![9; 200])] {
            emit(&mut input, Kind::Request, id, &payload).unwrap();
            emit(&mut answers, Kind::Response, id, &payload).unwrap();
        }
        for cut in 0..=input.len() {
            let mut out = Vec::new();
            let first = echo(&input[..cut], &mut out).unwrap();
            assert!(first.consumed <= cut && first.consumed + first.need > cut);
            let second = echo(&input[first.consumed..], &mut out).unwrap();
            assert_eq!(first.consumed + second.consumed, input.len());
            assert_eq!(out, answers, "cut at {cut}");
        }
    }

    #[test]
    fn a_payload_that_no_reader_takes_is_not_sent() {
        let mut out = Vec::new();
        assert_eq!(emit(&mut out, Kind::Request, 1, &vec![0; MAX_BODY]), Err(BadFrame));
        assert!(out.is_empty());
    }
}
