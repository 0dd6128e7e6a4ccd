//! Small frames on the straight way out: encoded once, when the application hands them over.
//!
//! As long as little is under way, a small call or answer need not wait its turn: its frame is laid down here, id and
//! all, and the next `poll_transmit` moves everything to the outbox at once, usually by swapping two buffers. Until then
//! it can still be taken back, because the frames describe themselves. What finds no room here, what is large, and what
//! has a priority waits in the lanes instead; and once something waits there, so does everything that comes after it.
//! So priority orders whatever waits, but what is staged has its place already: as much as is under way, and no more.

use alloc::vec::Vec;

use super::outbox::Outbox;
use crate::{
    time::NEVER,
    wire::{FrameType, HEADER_LEN, Header},
};

/// Octets that may be on their way, here and in the outbox, before others have to wait their turn.
pub(crate) const MOST: usize = 128 * 1024;
/// The first size of the buffer: a few small frames.
const LEAST: usize = 512;

pub(crate) struct Staging {
    /// The frames are its first `len` octets. What follows is left over from other turns, so that the next frame is
    /// laid down with one look at the length of the buffer, which only grows.
    octets: Vec<u8>,
    len: usize,
    /// How many frames, and how many of them are answers.
    pub(crate) frames: u32,
    pub(crate) answers: u32,
    /// When the first call with a deadline was laid down; `NEVER` if there is none.
    pub(crate) oldest: u64,
}

impl Default for Staging {
    fn default() -> Self {
        Self { octets: Vec::new(), len: 0, frames: 0, answers: 0, oldest: NEVER }
    }
}

impl Staging {
    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.len == 0
    }

    #[inline]
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Lays down a frame: the first `len` octets of its head, which hold the header, and the rest of its body.
    #[inline(always)]
    pub(crate) fn push<const N: usize>(&mut self, head: &[u8; N], len: usize, rest: &[u8]) {
        let most = self.len + N + rest.len();
        if most > self.octets.len() {
            self.grow(most);
        }
        let room = self.octets.get_mut(self.len..).unwrap_or_default();
        // All of the head, because its size is known when this is compiled; what is too much of it is overwritten.
        if let Some(place) = room.first_chunk_mut() {
            *place = *head;
        }
        if let Some(place) = room.get_mut(len..).and_then(|room| room.get_mut(..rest.len())) {
            place.copy_from_slice(rest);
        }
        self.len += len + rest.len();
        self.frames += 1;
    }

    #[cold]
    fn grow(&mut self, most: usize) {
        self.octets.resize(most.next_power_of_two().max(LEAST), 0);
    }

    /// Lays down a whole frame.
    fn lay(&mut self, frame: &[u8]) {
        self.push(&[], 0, frame);
    }

    /// Moves everything to the outbox; how many frames that were.
    #[inline]
    pub(crate) fn flush(&mut self, out: &mut Outbox) -> u32 {
        out.append(&mut self.octets, self.len);
        self.len = 0;
        self.answers = 0;
        self.oldest = NEVER;
        core::mem::take(&mut self.frames)
    }

    /// Takes back the frames that `keep` does not want.
    #[cold]
    pub(crate) fn retain(&mut self, mut keep: impl FnMut(&Header) -> bool, answer: impl Fn(&Header) -> bool) {
        let octets = core::mem::take(&mut self.octets);
        let mut rest = octets.get(..self.len).unwrap_or_default();
        (self.len, self.frames, self.answers) = (0, 0, 0);
        while let Some((header, frame, after)) = next_frame(rest) {
            if keep(&header) {
                self.lay(frame);
                self.answers += u32::from(answer(&header));
            }
            rest = after;
        }
    }

    /// Everything that is staged, to be put back changed.
    pub(crate) fn take(&mut self) -> Vec<u8> {
        let mut staged = core::mem::take(self);
        staged.octets.truncate(staged.len);
        staged.octets
    }

    /// Puts a frame back as it was.
    pub(crate) fn put_back(&mut self, header: &Header, frame: &[u8]) {
        self.lay(frame);
        self.answers += u32::from(header.frame_type == FrameType::RESPONSE);
    }

    pub(crate) fn clear(&mut self) {
        *self = Self::default();
    }

    /// Gives memory back when nothing is staged.
    pub(crate) fn shrink(&mut self) {
        if self.is_empty() {
            self.octets = Vec::new();
        }
    }
}

/// The first of some frames, and those after it.
pub(crate) fn next_frame(octets: &[u8]) -> Option<(Header, &[u8], &[u8])> {
    let header = Header::parse(octets.first_chunk()?).ok()?;
    let (frame, after) = octets.split_at_checked(HEADER_LEN + header.len as usize)?;
    Some((header, frame, after))
}

#[cfg(test)]
mod tests {
    use bytes::Buf;

    use super::*;
    use crate::wire::{Flags, Status};

    fn header(id: u64, len: u32) -> Header {
        Header { frame_type: FrameType::REQUEST, flags: Flags::NONE, status: Status::OK, id, len }
    }

    #[test]
    fn frames_can_be_taken_back_one_by_one() {
        let mut staging = Staging::default();
        for id in [1, 3, 5] {
            staging.push(&header(id, 2).emit(), HEADER_LEN, b"xy");
        }
        staging.retain(|header| header.id != 3, |header| header.id == 5);
        assert_eq!((staging.len(), staging.frames, staging.answers), (2 * (HEADER_LEN + 2), 2, 1));
        let mut out = Outbox::new();
        assert_eq!(staging.flush(&mut out), 2);
        assert!(staging.is_empty() && staging.answers == 0);
        assert_eq!(out.remaining(), 40);
        assert_eq!(out.chunk().get(..18), Some(&header(1, 2).emit()[..]));
    }
}
