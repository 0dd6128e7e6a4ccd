//! Snappy blocks in raw format (protocol §1, `COMPRESSED`), by the `snap` crate.
//!
//! Without the feature `snappy` there is no compressor and no block is understood; the feature number is not offered
//! at check-in then, so no peer sends one.

use alloc::vec::Vec;

/// The most plain octets that a block of so many octets can unfold to: a copy of 64 octets takes three.
#[must_use]
pub const fn most(packed: usize) -> usize {
    packed.saturating_mul(22)
}

/// A block that does not unfold to exactly what it declares (protocol §1, *bad compression*).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BadBlock;

/// Unfolds `packed`, which was found to declare `plain` octets. All of them are allocated here: judge the length first.
///
/// # Errors
///
/// [`BadBlock`] if an element is cut off or reaches before the start, if octets are left over, or if the output has
/// another length.
#[cfg(feature = "snappy")]
pub fn decompress(packed: &[u8], plain: usize) -> Result<Vec<u8>, BadBlock> {
    // Zeroed, so that nothing old could ever be seen in it.
    let mut out = alloc::vec![0; plain];
    match snap::raw::Decoder::new().decompress(packed, &mut out) {
        Ok(octets) if octets == plain && !packed.is_empty() => Ok(out),
        _ => Err(BadBlock),
    }
}

/// Without the feature `snappy` no block is understood.
///
/// # Errors
///
/// Always [`BadBlock`].
#[cfg(not(feature = "snappy"))]
pub fn decompress(_packed: &[u8], _plain: usize) -> Result<Vec<u8>, BadBlock> {
    Err(BadBlock)
}

/// Folds payloads. Its memory comes with the first one.
#[derive(Default)]
pub struct Encoder {
    #[cfg(feature = "snappy")]
    encoder: Option<alloc::boxed::Box<snap::raw::Encoder>>,
}

impl Encoder {
    /// The block for `plain`; `None` without the feature `snappy`, or for more than 4 GiB.
    #[cfg(feature = "snappy")]
    pub fn compress(&mut self, plain: &[u8]) -> Option<Vec<u8>> {
        let new = || alloc::boxed::Box::new(snap::raw::Encoder::new());
        self.encoder.get_or_insert_with(new).compress_vec(plain).ok()
    }

    /// Without the feature `snappy` there is none.
    #[cfg(not(feature = "snappy"))]
    pub fn compress(&mut self, _plain: &[u8]) -> Option<Vec<u8>> {
        None
    }
}

impl core::fmt::Debug for Encoder {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("Encoder")
    }
}

#[cfg(all(test, feature = "snappy"))]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_block_of_the_protocols_example_unfolds() {
        let mut packed = alloc::vec![0x80, 0x08, 0x00, 0x61];
        for _ in 0..15 {
            packed.extend_from_slice(&[0xFE, 0x01, 0x00]);
        }
        packed.extend_from_slice(&[0xFA, 0x01, 0x00]);
        assert_eq!(decompress(&packed, 1024).unwrap(), [0x61; 1024]);
        assert_eq!(decompress(&packed[..packed.len() - 1], 1024), Err(BadBlock), "cut off");
        packed.push(0);
        assert_eq!(decompress(&packed, 1024), Err(BadBlock), "left over");
    }

    #[test]
    fn offsets_before_the_start_and_of_nothing_are_bad() {
        assert_eq!(decompress(&[4, 0, b'a', 0x09, 0x02], 4), Err(BadBlock));
        assert_eq!(decompress(&[4, 0, b'a', 0x09, 0x00], 4), Err(BadBlock));
        assert_eq!(decompress(&[], 0), Err(BadBlock));
        assert_eq!(decompress(&[0], 0), Ok(Vec::new()));
    }

    proptest! {
        #[test]
        fn what_is_folded_unfolds(plain in proptest::collection::vec(0u8..4, 0..5000)) {
            let packed = Encoder::default().compress(&plain).unwrap();
            prop_assert!(plain.len() <= most(packed.len()));
            prop_assert_eq!(decompress(&packed, plain.len()).unwrap(), plain);
        }

        #[test]
        fn any_octets_are_a_block_or_not(octets in proptest::collection::vec(any::<u8>(), 0..200), plain in 0usize..4000) {
            if let Ok(out) = decompress(&octets, plain) {
                prop_assert_eq!(out.len(), plain);
                prop_assert!(plain <= most(octets.len()));
            }
        }
    }
}
