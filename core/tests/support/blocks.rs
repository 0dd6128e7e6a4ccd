//! Blocks of Snappy, written and read by hand, and the messages that carry them.

use tieline_core::wire::{
    CheckIn, Envelope, Flags, FrameType, Item, Kind, Repeated, Request, Response, Status,
};

use super::{
    frames::flagged,
    scene::What,
    streams::{head, peer},
};

pub const BOTH: Flags = Flags(Flags::COMPRESSED.0 | Flags::MORE.0);

/// A peer that has feature 1, and takes streams of any length.
pub fn able() -> CheckIn<'static> {
    CheckIn { features: Repeated::from(&[1][..]), stream_window: 1 << 30, ..peer() }
}

pub fn preamble(mut len: usize) -> Vec<u8> {
    let mut out = Vec::new();
    while len >= 0x80 {
        out.push(len as u8 | 0x80);
        len >>= 7;
    }
    out.push(len as u8);
    out
}

pub fn literal(octets: &[u8]) -> Vec<u8> {
    let less = octets.len() - 1;
    let tag = match less {
        0..60 => vec![(less as u8) << 2],
        60..256 => vec![60 << 2, less as u8],
        _ => vec![61 << 2, less as u8, (less >> 8) as u8],
    };
    [&tag, octets].concat()
}

/// 4 to 11 octets from up to 2047 back.
pub fn copy1(len: usize, back: usize) -> Vec<u8> {
    vec![((back >> 8) as u8) << 5 | ((len - 4) as u8) << 2 | 1, back as u8]
}

/// 1 to 64 octets from up to 65 535 back.
pub fn copy2(len: usize, back: usize) -> Vec<u8> {
    vec![((len - 1) as u8) << 2 | 2, back as u8, (back >> 8) as u8]
}

/// 1 to 64 octets from anywhere.
pub fn copy4(len: usize, back: usize) -> Vec<u8> {
    [&[((len - 1) as u8) << 2 | 3][..], &(back as u32).to_le_bytes()].concat()
}

/// A block of one literal.
pub fn stored(octets: &[u8]) -> Vec<u8> {
    [preamble(octets.len()), literal(octets)].concat()
}

/// A block of so many equal octets, which are 21 times as many.
pub fn run(len: usize) -> Vec<u8> {
    let mut out = [preamble(len), literal(b"a")].concat();
    let mut left = len - 1;
    while left > 0 {
        let copy = left.min(64);
        out.extend(copy2(copy, 1));
        left -= copy;
    }
    out
}

/// What a good block says.
pub fn plain(block: &[u8]) -> Vec<u8> {
    let end = block.iter().position(|octet| octet & 0x80 == 0).unwrap();
    let declared = block[..=end].iter().rev().fold(0, |len, octet| len << 7 | usize::from(octet & 0x7f));
    let (mut out, mut at) = (Vec::new(), end + 1);
    let number = |at: usize, octets: usize| {
        (0..octets).rev().fold(0, |number, octet| number << 8 | usize::from(block[at + octet]))
    };
    while at < block.len() {
        let tag = usize::from(block[at]);
        at += 1;
        let (len, back, used) = match tag & 3 {
            0 => {
                let (len, used) = match tag >> 2 {
                    less @ 0..60 => (less + 1, 0),
                    long => (number(at, long - 59) + 1, long - 59),
                };
                at += used;
                out.extend_from_slice(&block[at..at + len]);
                at += len;
                continue;
            }
            1 => ((tag >> 2 & 7) + 4, tag >> 5 << 8 | number(at, 1), 1),
            2 => ((tag >> 2) + 1, number(at, 2), 2),
            _ => ((tag >> 2) + 1, number(at, 4), 4),
        };
        at += used;
        (0..len).for_each(|_| out.push(out[out.len() - back]));
    }
    assert_eq!(out.len(), declared);
    out
}

// ---- messages -------------------------------------------------------------------------------------------------

/// A first frame with these flags; `total` goes with MORE.
pub fn first(what: What, id: u64, flags: Flags, total: usize, part: &[u8]) -> Vec<u8> {
    let total = if flags.contains(Flags::MORE) { total as u64 } else { 0 };
    let request = Envelope::Request(Request { total, ..head(Kind::Unary) });
    let (frame_type, envelope) = match what {
        What::Request => (FrameType::REQUEST, request),
        What::OneWay => (FrameType::ONE_WAY, request),
        What::Response => {
            (FrameType::RESPONSE, Envelope::Response(Response { total, ..Response::default() }))
        }
        What::ItemUp | What::ItemDown => (FrameType::STREAM_ITEM, Envelope::Item(Item { total })),
    };
    flagged(frame_type, id, Status::OK, flags, envelope, part)
}

pub fn whole(what: What, id: u64, block: &[u8]) -> Vec<u8> {
    first(what, id, Flags::COMPRESSED, 0, block)
}
