//! Cutting what goes out into frames (protocol §5, "Fragments").
//!
//! A payload that does not fit a frame goes out as a first frame and CONTINUATIONs, one at each of its turns. While
//! anything else waits a frame has at most 16 KiB, so that a small call behind a large one waits for little. A message
//! that is alone fills the peer's frames, or half of the usual ones if something small was sent a moment ago. So do large
//! ones that wait for each other while nothing small is sent: they are done one after the other instead of all at the end,
//! and none of them is in memory longer than need be. Payloads that are not short are shared into the outbox, piece by
//! piece, and not copied.

use bytes::Bytes;

use super::{
    machine::Machine,
    outbox::{Outbox, SHARE_FROM},
    sending::BESIDE_SMALL,
};
use crate::wire::{Flags, FrameType, Header, Status, varint};

/// The tag of `total`, field 15 of every envelope that has it, a varint.
const TOTAL_TAG: u8 = 15 << 3;
/// Longest body while anything else waits.
const WHILE_OTHERS_WAIT: usize = 16 * 1024;
/// The first frame of a longer payload is no longer than while others wait: the reader has to copy it to the place of the
/// message, and reads what follows straight into that.
const SHORT_FIRST_FROM: usize = 128 * 1024;
/// Envelopes up to this length leave room in every frame for a payload that is not shared.
pub(super) const SHORT_ENVELOPE: usize = 8 * 1024;

/// A message before its first frame.
pub(super) struct Whole<'a> {
    pub(super) frame_type: FrameType,
    pub(super) status: Status,
    pub(super) id: u64,
    pub(super) compressed: bool,
    /// The envelope, in pieces.
    pub(super) envelope: [&'a [u8]; 3],
    /// The payload, if it is short and the envelope is.
    pub(super) copied: &'a [u8],
    /// The payload otherwise.
    pub(super) shared: &'a Bytes,
}

impl Whole<'_> {
    /// Commits the first frame, or the only one, with a body of at most `room`, or `most` if the envelope alone is
    /// longer. How many octets of the payload it has; `None`, and nothing is committed, if the envelope does not fit.
    pub(super) fn commit(&self, out: &mut Outbox, room: usize, most: usize) -> Option<usize> {
        let envelope: usize = self.envelope.iter().map(|piece| piece.len()).sum();
        let payload = self.copied.len() + self.shared.len();
        let head = match (envelope, payload) {
            (0, 0) => 0,
            _ => varint::len(envelope as u64) + envelope,
        };
        let room = if payload < SHORT_FIRST_FROM { room } else { room.min(WHILE_OTHERS_WAIT) };
        if head + payload <= room {
            self.put(out, Flags::NONE, envelope, None, head, payload);
            return Some(payload);
        }
        let total = payload as u64;
        let envelope = envelope + 1 + varint::len(total);
        let head = varint::len(envelope as u64) + envelope;
        let part = room.max(head).min(most).checked_sub(head)?;
        if !self.copied.is_empty() {
            // Not reached: what is copied fits every frame.
            return None;
        }
        self.put(out, Flags::MORE, envelope, Some(total), head, part);
        Some(part)
    }

    fn put(
        &self,
        out: &mut Outbox,
        flags: Flags,
        envelope: usize,
        total: Option<u64>,
        head: usize,
        part: usize,
    ) {
        let compressed = if self.compressed { Flags::COMPRESSED } else { Flags::NONE };
        let header = Header {
            frame_type: self.frame_type,
            flags: Flags(flags.0 | compressed.0),
            status: self.status,
            id: self.id,
            // At most the peer's max_frame.
            len: u32::try_from(head + part).unwrap_or(u32::MAX),
        };
        // Items that waited for credit, for instance: by the hundred they are one piece of a gathered write.
        let few = part == self.shared.len() && part < SHARE_FROM;
        let small = out.small();
        let before = small.len();
        small.extend_from_slice(&header.emit());
        if head > 0 {
            varint::put(envelope as u64, small);
            self.envelope.iter().for_each(|piece| small.extend_from_slice(piece));
            if let Some(total) = total {
                small.push(TOTAL_TAG);
                varint::put(total, small);
            }
            small.extend_from_slice(self.copied);
            if few {
                small.extend_from_slice(self.shared);
            }
        }
        out.wrote(before);
        if !few && !self.shared.is_empty() {
            out.share(self.shared.slice(..part));
        }
    }
}

/// Commits the next frame of a payload of which `sent` octets are out; how many are now.
pub(super) fn commit_rest(out: &mut Outbox, id: u64, payload: &Bytes, sent: usize, room: usize) -> usize {
    let end = sent.saturating_add(room).min(payload.len());
    let more = if end < payload.len() { Flags::MORE } else { Flags::NONE };
    put_continuation(out, id, more, end - sent);
    out.share(payload.slice(sent..end));
    end
}

fn put_continuation(out: &mut Outbox, id: u64, flags: Flags, len: usize) {
    let header = Header {
        frame_type: FrameType::CONTINUATION,
        flags,
        status: Status::OK,
        id,
        len: u32::try_from(len).unwrap_or(u32::MAX),
    };
    let small = out.small();
    let before = small.len();
    small.extend_from_slice(&header.emit());
    out.wrote(before);
}

/// Abandons the message that is going out on `id`.
pub(super) fn commit_abandon(out: &mut Outbox, id: u64) {
    put_continuation(out, id, Flags::NONE, 0);
}

impl Machine {
    /// The longest body of the next frame.
    pub(super) fn room(&self) -> usize {
        let most = if !self.staging.is_empty() {
            WHILE_OTHERS_WAIT
        } else if self.nothing_is_small() {
            usize::MAX
        } else if self.lanes.is_empty() {
            BESIDE_SMALL
        } else {
            WHILE_OTHERS_WAIT
        };
        most.min(self.peer_frame)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use alloc::vec::Vec;

    use bytes::Buf;

    use super::*;
    use crate::wire::{Envelope, Frame, Parts};

    fn octets(out: &mut Outbox) -> Vec<u8> {
        let octets = out.chunks().flatten().copied().collect();
        out.advance(out.remaining());
        octets
    }

    /// The frames of the protocol's own example: 20 000 octets, cut at 16 KiB.
    #[test]
    fn a_payload_is_cut_as_the_protocol_shows_it() {
        let payload = Bytes::from(alloc::vec![0x5A; 20_000]);
        let mut out = Outbox::new();
        let whole = Whole {
            frame_type: FrameType::REQUEST,
            status: Status::OK,
            id: 9,
            compressed: false,
            envelope: [&[0x08, 0x01], &[], &[]],
            copied: &[],
            shared: &payload,
        };
        assert_eq!(whole.commit(&mut out, 16_384, 65_536), Some(16_377));
        let first = octets(&mut out);
        assert_eq!(
            first[..25],
            *b"\xBE\xA7\x01\x05\x01\x00\0\0\0\0\0\0\0\x09\0\0\x40\0\x06\x08\x01\x78\xA0\x9C\x01"
        );
        assert_eq!(commit_rest(&mut out, 9, &payload, 16_377, 16_384), 20_000);
        let last = octets(&mut out);
        assert_eq!(last[..18], *b"\xBE\xA7\x01\x0C\x00\x00\0\0\0\0\0\0\0\x09\0\0\x0E\x27");
        assert_eq!(first.len() + last.len(), 18 + 7 + 18 + 20_000);
        commit_abandon(&mut out, 9);
        assert_eq!(octets(&mut out), *b"\xBE\xA7\x01\x0C\0\0\0\0\0\0\0\0\0\x09\0\0\0\0");
    }

    #[test]
    fn an_envelope_may_fill_the_first_frame_and_may_not_be_longer() {
        let (payload, long) = (Bytes::from(alloc::vec![1; 50_000]), alloc::vec![0; 20_000]);
        let whole = Whole {
            frame_type: FrameType::RESPONSE,
            status: Status::OK,
            id: 2,
            compressed: true,
            envelope: [&long, &[], &[]],
            copied: &[],
            shared: &payload,
        };
        let mut out = Outbox::new();
        assert_eq!(whole.commit(&mut out, 16_384, 20_006), None, "total makes it longer");
        assert_eq!(out.remaining(), 0);
        assert_eq!(whole.commit(&mut out, 16_384, 20_007), Some(0), "the part of the payload may be empty");
        assert_eq!(whole.commit(&mut out, 16_384, 30_000), Some(0), "no longer than it must be");
        octets(&mut out);
        assert_eq!(whole.commit(&mut out, 80_000, 80_000), Some(50_000));
        let frame = octets(&mut out);
        assert_eq!(Parts::split(&frame[18..]).unwrap().payload.len(), 50_000);
        assert_eq!(frame[4], Flags::COMPRESSED.0);
    }

    #[test]
    fn nothing_is_an_empty_body() {
        let whole = Whole {
            frame_type: FrameType::RESPONSE,
            status: Status::OK,
            id: 2,
            compressed: false,
            envelope: [&[], &[], &[]],
            copied: &[],
            shared: &Bytes::new(),
        };
        let mut out = Outbox::new();
        assert_eq!(whole.commit(&mut out, 16_384, 65_536), Some(0));
        let octets = octets(&mut out);
        let (frame, used) = Frame::parse(&octets, 100).unwrap().unwrap();
        assert_eq!((used, frame.payload.len()), (18, 0));
        assert!(matches!(frame.envelope, Envelope::Response(_)));
    }
}
