//! Octets of which some were cut, as they stand in a recording; and the frames that they make.

use alloc::vec::Vec;

use super::ink::{Damage, Reader};
use crate::wire::HEADER_LEN;

/// The most octets that one run may have had: more than a driver reads or writes at once.
pub(crate) const MOST: u64 = 64 << 20;

/// Pieces, each with how many octets are kept, how many were cut behind them, and those that are kept. They have been
/// [checked](Self::check).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Pieces<'a>(pub(crate) &'a [u8]);

impl<'a> Pieces<'a> {
    pub(crate) fn check(self) -> Result<Self, Damage> {
        let mut reader = Reader::new(self.0);
        let mut total = 0_u64;
        while !reader.is_empty() {
            let (kept, cut) = (reader.number()?, reader.number()?);
            total = total.saturating_add(kept).saturating_add(cut);
            if total > MOST {
                return Err(reader.damage("a run of octets is longer than 64 MiB"));
            }
            reader.take(usize::try_from(kept).unwrap_or(usize::MAX))?;
        }
        Ok(self)
    }

    /// Each piece: what is kept, and how much was cut behind it.
    pub(crate) fn iter(self) -> impl Iterator<Item = (&'a [u8], usize)> {
        let mut reader = Reader::new(self.0);
        core::iter::from_fn(move || {
            if reader.is_empty() {
                return None;
            }
            let (kept, cut) = (reader.small().ok()?, reader.small().ok()?);
            Some((reader.take(kept).ok()?, cut))
        })
    }

    /// How many octets there were, and how many of them were cut.
    pub(crate) fn len(self) -> (usize, usize) {
        self.iter().fold((0, 0), |(all, gone), (kept, cut)| {
            (all.saturating_add(kept.len()).saturating_add(cut), gone.saturating_add(cut))
        })
    }

    /// Appends them, with zeros for what was cut.
    pub(crate) fn restore(self, to: &mut Vec<u8>) {
        for (kept, cut) in self.iter() {
            to.extend_from_slice(kept);
            to.resize(to.len().saturating_add(cut), 0);
        }
    }
}

/// One direction, put together again.
#[derive(Debug, Default)]
pub(crate) struct Stream {
    octets: Vec<u8>,
    /// Octets of a frame whose beginning is lost.
    skip: u64,
}

impl Stream {
    /// From within a stream: with the header that had begun, and how much of its frame's body was to come.
    pub(crate) fn from(head: &[u8], left: u64) -> Self {
        match head.len() {
            HEADER_LEN => Self { octets: Vec::new(), skip: left },
            _ => Self { octets: head.to_vec(), skip: 0 },
        }
    }

    pub(crate) fn push(&mut self, pieces: Pieces<'_>) {
        let before = self.octets.len();
        pieces.restore(&mut self.octets);
        let came = self.octets.len().saturating_sub(before);
        let skipped = usize::try_from(self.skip).unwrap_or(usize::MAX).min(came);
        self.skip -= skipped as u64;
        if skipped > 0 {
            self.octets.drain(before..before.saturating_add(skipped));
        }
    }

    /// The next frame that is whole, header and body.
    pub(crate) fn frame(&mut self) -> Option<Vec<u8>> {
        let &[.., a, b, c, d] = self.octets.first_chunk::<HEADER_LEN>()?;
        let end = HEADER_LEN.saturating_add(u32::from_be_bytes([a, b, c, d]) as usize);
        if self.octets.len() < end {
            return None;
        }
        let rest = self.octets.split_off(end);
        Some(core::mem::replace(&mut self.octets, rest))
    }

    /// What has come of a frame that is not whole.
    pub(crate) fn rest(&self) -> &[u8] {
        &self.octets
    }
}
