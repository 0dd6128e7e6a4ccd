//! Follows the frames in a direction and says which of its octets are worth keeping.
//!
//! Kept are headers and envelopes, for the core's decisions hang on them, and the beginning of payloads; the rest of a
//! payload is cut, and how much that was is kept. What is compressed is kept whole, since whether it unfolds is a decision
//! too. Of octets that are no frames the beginning is kept, as much as the core shows of them.

use alloc::vec::Vec;

use super::{
    ink,
    mask::{Mask, Number},
};
use crate::wire::{Flags, FrameType, HEADER_LEN, Header};

/// What is kept of octets that are no frame.
const FOREIGN: u64 = 24;
/// Compressed messages that are followed at once; if there are more, all continuations are kept.
const FOLLOWED: usize = 64;

/// Tells octets apart that differ by mistake: FNV-1a, folded.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Digest(u64);

impl Digest {
    pub(crate) const fn new() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }

    pub(crate) fn add(&mut self, octets: &[u8]) {
        for octet in octets {
            self.0 = (self.0 ^ u64::from(*octet)).wrapping_mul(0x0000_0100_0000_01b3);
        }
    }

    /// Never 0, which stands for none.
    pub(crate) fn value(self) -> u32 {
        let [a, b, c, d, e, f, g, h] = self.0.to_le_bytes();
        u32::from_le_bytes([a ^ e, b ^ f, c ^ g, d ^ h]).max(1)
    }
}

/// Pieces of a run of octets, as they are written down: how many are kept, how many were cut behind them, and those
/// that are kept.
#[derive(Debug, Default)]
pub(crate) struct Cutter {
    pub(crate) pieces: Vec<u8>,
    run: Vec<u8>,
    cut: u64,
    /// Follows all of them, kept or cut, but masked.
    pub(crate) digest: Option<Digest>,
    /// Octets that were cut since the recording began.
    pub(crate) total_cut: u64,
}

impl Cutter {
    pub(crate) fn clear(&mut self) {
        self.pieces.clear();
    }

    fn keep(&mut self, octets: &[u8]) {
        if self.cut > 0 {
            self.finish();
        }
        self.run.extend_from_slice(octets);
        if let Some(digest) = &mut self.digest {
            digest.add(octets);
        }
    }

    fn cut(&mut self, octets: &[u8]) {
        self.cut += octets.len() as u64;
        self.total_cut = self.total_cut.saturating_add(octets.len() as u64);
        if let Some(digest) = &mut self.digest {
            digest.add(octets);
        }
    }

    /// Writes down the last piece.
    pub(crate) fn finish(&mut self) {
        if self.run.is_empty() && self.cut == 0 {
            return;
        }
        ink::put(self.run.len() as u64, &mut self.pieces);
        ink::put(self.cut, &mut self.pieces);
        self.pieces.extend_from_slice(&self.run);
        self.run.clear();
        self.cut = 0;
    }
}

#[derive(Debug, Clone, Copy)]
enum Part {
    /// The length before an envelope.
    Length(Number),
    /// So much of an envelope.
    Envelope(u64),
    /// So much of the payload is kept.
    Payload(u64),
}

#[derive(Debug)]
pub(crate) struct Scan {
    /// The header of the frame, as much of it as has passed.
    head: [u8; HEADER_LEN],
    have: usize,
    /// Octets of its body that have not passed.
    left: u64,
    part: Part,
    mask: Option<Mask>,
    /// What is kept of this frame's payload, and of any that is not compressed.
    keep: u64,
    payload: u64,
    /// Whether what is compressed is kept whole; and the ids of messages whose rest is.
    follows: bool,
    compressed: Vec<u64>,
    crowded: bool,
}

impl Scan {
    /// Keeps so much of a payload; and all of one that is compressed, if it `follows` those.
    pub(crate) const fn new(payload: u64, follows: bool) -> Self {
        Self {
            head: [0; HEADER_LEN],
            have: 0,
            left: 0,
            part: Part::Payload(0),
            mask: None,
            keep: 0,
            payload,
            follows,
            compressed: Vec::new(),
            crowded: false,
        }
    }

    /// The header that has begun, and how much of the body that belongs to it has not passed.
    pub(crate) fn place(&self) -> (&[u8], u64) {
        (self.head.get(..self.have).unwrap_or_default(), self.left)
    }

    pub(crate) fn pass(&mut self, mut octets: &[u8], to: &mut Cutter) {
        while !octets.is_empty() {
            let free = self.head.get_mut(self.have..).unwrap_or_default();
            if free.is_empty() {
                octets = self.body(octets, to);
            } else {
                let (taken, rest) = octets.split_at_checked(free.len()).unwrap_or((octets, &[]));
                free.iter_mut().zip(taken).for_each(|(place, octet)| *place = *octet);
                self.have += taken.len();
                to.keep(taken);
                octets = rest;
                if self.have == HEADER_LEN {
                    self.begin();
                }
            }
            if self.have == HEADER_LEN && self.left == 0 {
                self.have = 0;
            }
        }
    }

    /// A header is whole.
    fn begin(&mut self) {
        self.mask = None;
        let Ok(header) = Header::parse(&self.head) else {
            self.left = u64::MAX;
            self.part = Part::Payload(FOREIGN - HEADER_LEN as u64);
            return;
        };
        self.left = header.len.into();
        let more = header.flags.contains(Flags::MORE);
        let continues = header.frame_type == FrameType::CONTINUATION;
        let whole = self.follows
            && if continues {
                let known = self.compressed.iter().position(|id| *id == header.id);
                if let Some(known) = known.filter(|_| !more) {
                    self.compressed.swap_remove(known);
                }
                known.is_some() || self.crowded
            } else {
                header.flags.contains(Flags::COMPRESSED)
            };
        if whole && more && !continues {
            self.crowded |= self.compressed.len() >= FOLLOWED;
            if !self.crowded {
                self.compressed.push(header.id);
            }
        }
        self.keep = if whole { u64::MAX } else { self.payload };
        if header.frame_type == FrameType::CHECK_IN {
            // It has no payload; whatever stands there instead may be as secret as the envelope.
            self.keep = 0;
            self.mask = Some(Mask::default());
        }
        let has_envelope = header.frame_type.name().is_some() && !continues;
        self.part = if has_envelope { Part::Length(Number::default()) } else { Part::Payload(self.keep) };
    }

    /// Passes octets of the body; those behind them come back.
    fn body<'a>(&mut self, octets: &'a [u8], to: &mut Cutter) -> &'a [u8] {
        let least = |a: u64, b: usize| usize::try_from(a).unwrap_or(usize::MAX).min(b);
        let here = least(self.left, octets.len());
        let step = match self.part {
            Part::Length(_) => 1,
            Part::Envelope(left) => least(left, here),
            Part::Payload(_) => here,
        };
        let (taken, rest) = octets.split_at_checked(step).unwrap_or((octets, &[]));
        self.left -= taken.len() as u64;
        match &mut self.part {
            Part::Length(number) => {
                to.keep(taken);
                match taken.first().and_then(|octet| number.add(*octet)) {
                    Some(Ok(octets)) if octets > 0 => self.part = Part::Envelope(octets),
                    Some(_) => self.part = Part::Payload(self.keep),
                    None => {}
                }
            }
            Part::Envelope(left) => {
                *left -= taken.len() as u64;
                match &mut self.mask {
                    Some(mask) => taken.iter().for_each(|octet| to.keep(&[mask.pass(*octet)])),
                    None => to.keep(taken),
                }
                if *left == 0 {
                    self.part = Part::Payload(self.keep);
                }
            }
            Part::Payload(keep) => {
                let (kept, cut) = taken.split_at_checked(least(*keep, taken.len())).unwrap_or((taken, &[]));
                *keep -= kept.len() as u64;
                to.keep(kept);
                to.cut(cut);
            }
        }
        rest
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use alloc::vec;

    use super::*;
    use crate::{
        record::pieces::Pieces,
        wire::{CheckIn, Envelope, Frame, Request, Status},
    };

    fn frame(frame_type: FrameType, flags: Flags, envelope: Envelope<'_>, payload: &[u8]) -> Vec<u8> {
        let header = Header { frame_type, flags, status: Status::OK, id: 1, len: 0 };
        let header = Header { id: if frame_type == FrameType::CHECK_IN { 0 } else { 1 }, ..header };
        let mut out = Vec::new();
        Frame { header, envelope, payload }.emit(&mut out).unwrap();
        out
    }

    /// What comes back of octets that pass in pieces of this size.
    fn pass(octets: &[u8], size: usize, payload: u64) -> (Vec<u8>, u64) {
        let (mut scan, mut cutter, mut back) = (Scan::new(payload, true), Cutter::default(), Vec::new());
        for part in octets.chunks(size) {
            scan.pass(part, &mut cutter);
            cutter.finish();
            Pieces(&cutter.pieces).restore(&mut back);
            cutter.clear();
        }
        (back, cutter.total_cut)
    }

    #[test]
    fn only_payloads_are_cut_however_they_come() {
        let request = Request { method: 3, timeout_us: Some(10_000_000), ..Request::default() };
        let mut octets = Vec::new();
        let mut expected = Vec::new();
        for payload in [&b""[..], b"short", &[7; 300]] {
            let whole = frame(FrameType::REQUEST, Flags::NONE, Envelope::Request(request), payload);
            octets.extend(&whole);
            let kept = whole.len() - payload.len().saturating_sub(10);
            expected.extend(&whole[..kept]);
            expected.extend(vec![0; whole.len() - kept]);
        }
        for size in [1, 2, 17, 40, 1000] {
            assert_eq!(pass(&octets, size, 10), (expected.clone(), 290), "in pieces of {size}");
        }
        assert_eq!(pass(&octets, 50, 1000), (octets, 0));
    }

    #[test]
    fn what_is_compressed_is_kept_with_its_continuations() {
        let request = Request { method: 3, total: 600, ..Request::default() };
        let flags = Flags(Flags::COMPRESSED.0 | Flags::MORE.0);
        let mut octets = frame(FrameType::REQUEST, flags, Envelope::Request(request), &[9; 300]);
        octets.extend(frame(FrameType::CONTINUATION, Flags::NONE, Envelope::None, &[9; 300]));
        let kept = octets.clone();
        octets.extend(frame(FrameType::CONTINUATION, Flags::NONE, Envelope::None, &[9; 300]));
        let (back, cut) = pass(&octets, 64, 0);
        assert_eq!((&back[..kept.len()], cut), (&kept[..], 300));
    }

    #[test]
    fn a_credential_never_passes_nor_what_follows_strange_octets() {
        let said = CheckIn { identifier: "node", credential: b"open sesame", ..CheckIn::default() };
        let octets = frame(FrameType::CHECK_IN, Flags::NONE, Envelope::CheckIn(said), &[]);
        for size in [1, 5, 100] {
            let (back, _) = pass(&octets, size, 1000);
            assert_eq!(back.len(), octets.len());
            assert!(!back.windows(4).any(|four| four == b"open" || four == b"same"));
        }
        let (back, cut) = pass(b"GET / HTTP/1.1\r\nAuthorization: Basic c2VzYW1l\r\n\r\n", 7, 1000);
        assert_eq!((&back[..24], cut), (&b"GET / HTTP/1.1\r\nAuthoriz"[..], 25));
        assert!(back[24..].iter().all(|octet| *octet == 0));
    }
}
