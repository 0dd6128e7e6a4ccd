//! Whether compressing is worth while, and the guard before decompressing (protocol §1, `COMPRESSED`).
//!
//! A payload goes out compressed only if that gains an eighth; a method whose last 16 tries did not is not tried
//! again on this connection. What comes in is judged by its preamble alone before any work: the plain length it
//! declares must be within the limit, and within what its octets could possibly unfold to. A bomb costs nothing.

use alloc::{boxed::Box, collections::BTreeMap, string::String};

use bytes::Bytes;

use crate::wire::{snappy, varint};

/// Tries without gain after which a method is left alone.
const TRIES: u8 = 16;
/// Methods that are watched; those beyond are not compressed.
const METHODS: usize = 4096;

/// What is known about compressing each method, and the compressor's memory, once there is one.
#[derive(Default)]
pub(crate) struct Gain {
    /// Tries in a row without gain, by the name of the method.
    tries: BTreeMap<Box<str>, u8>,
    encoder: snappy::Encoder,
}

impl Gain {
    /// The payload compressed, if that is worth while.
    pub(crate) fn compress(&mut self, method: &str, plain: &[u8]) -> Option<Bytes> {
        let known = self.tries.get(method).copied();
        let tried = known.unwrap_or(0);
        if tried >= TRIES || (known.is_none() && self.tries.len() >= METHODS) {
            return None;
        }
        let packed = self.encoder.compress(plain);
        // An eighth: packed × 8 ≤ plain × 7.
        let packed = packed.filter(|packed| packed.len() <= plain.len() / 8 * 7);
        let tries = if packed.is_some() { 0 } else { tried + 1 };
        match self.tries.get_mut(method) {
            Some(known) => *known = tries,
            None => {
                self.tries.insert(String::from(method).into_boxed_str(), tries);
            }
        }
        packed.map(Bytes::from)
    }

    /// Gives the compressor's memory back.
    pub(crate) fn shrink(&mut self) {
        self.encoder = snappy::Encoder::default();
    }
}

/// What the beginning of a compressed payload says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Declared {
    /// Not there yet.
    Unknown,
    /// The plain length.
    Plain(usize),
    /// It is no Snappy block.
    Bad,
}

/// Reads the plain length that a block declares, of which `head` has come and `total` octets will have.
pub(crate) fn declared(head: &[u8], total: usize) -> Declared {
    let mut rest = head.get(..head.len().min(5)).unwrap_or_default();
    let seen = rest.len();
    match varint::take(&mut rest) {
        Ok(plain) => match usize::try_from(plain) {
            Ok(plain) if u32::try_from(plain).is_ok() && plain <= snappy::most(total) => {
                Declared::Plain(plain)
            }
            _ => Declared::Bad,
        },
        // Cut off, and more will come.
        Err(_) if seen < 5 && head.len() < total => Declared::Unknown,
        Err(_) => Declared::Bad,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_preamble_is_judged_as_soon_as_it_is_there() {
        assert_eq!(declared(&[], 10), Declared::Unknown);
        assert_eq!(declared(&[0x80], 10), Declared::Unknown);
        assert_eq!(declared(&[0x80, 0x02], 100), Declared::Plain(256));
        assert_eq!(declared(&[], 0), Declared::Bad, "an empty payload is no block");
        assert_eq!(declared(&[0x80], 1), Declared::Bad);
        assert_eq!(declared(&[0xFF, 0xFF, 0xFF, 0xFF, 0x7F], 100), Declared::Bad);
        assert_eq!(declared(&[0xFF, 0xFF, 0xFF, 0xFF, 0x0F], 100), Declared::Bad, "4 GiB from 100 octets");
    }

    #[cfg(feature = "snappy")]
    #[test]
    fn a_method_that_never_gains_is_left_alone() {
        let mut gain = Gain::default();
        let mut noise = alloc::vec::Vec::new();
        let mut state = 1u64;
        while noise.len() < 4096 {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            noise.extend_from_slice(&state.to_be_bytes()[..4]);
        }
        for _ in 0..15 {
            assert_eq!(gain.compress("noise", &noise), None);
        }
        assert!(gain.compress("noise", &[0; 4096]).is_some(), "one gain makes up for all before it");
        for _ in 0..16 {
            assert_eq!(gain.compress("noise", &noise), None);
        }
        assert_eq!(gain.compress("noise", &[0; 4096]), None);
        assert!(gain.compress("other", &[0; 4096]).is_some());
    }
}
