//! Base-128 varints and zigzag numbers, as Protocol Buffers has them.
//!
//! They carry the numbers of every envelope, the length before it, and are free for payloads:
//! the testee's methods, for one, take them (protocol §7).
//!
//! ```
//! use tieline_core::wire::varint;
//!
//! let mut octets = Vec::new();
//! varint::put(300, &mut octets);
//! varint::put(varint::zigzag(-2), &mut octets);
//! assert_eq!(octets, [0xac, 0x02, 0x03]);
//!
//! let mut input = &octets[..];
//! assert_eq!(varint::take(&mut input), Ok(300));
//! assert_eq!(varint::take(&mut input).map(varint::unzigzag), Ok(-2));
//! assert!(input.is_empty());
//! ```

use alloc::vec::Vec;

use super::fault::Malformed;

/// The most octets that a varint may have, which is what 64 bits need.
pub const MAX_LEN: usize = 10;

/// How many octets [`put`] writes for `value`: 1 to 10.
///
/// ```
/// # use tieline_core::wire::varint;
/// assert_eq!(varint::len(127), 1);
/// assert_eq!(varint::len(128), 2);
/// assert_eq!(varint::len(u64::MAX), varint::MAX_LEN);
/// ```
#[inline]
#[must_use]
pub const fn len(value: u64) -> usize {
    // ⌈bits / 7⌉ without a division: 9 / 64 is near enough to 1 / 7 for up to 64 bits.
    let bits = 64_u32.wrapping_sub((value | 1).leading_zeros());
    (bits.wrapping_mul(9).wrapping_add(64) >> 6) as usize
}

/// Appends `value` in its shortest form.
#[inline]
pub fn put(value: u64, out: &mut Vec<u8>) {
    let [low, ..] = value.to_le_bytes();
    if value < 0x80 {
        out.push(low);
    } else {
        put_long(value, out);
    }
}

fn put_long(mut value: u64, out: &mut Vec<u8>) {
    while value >= 0x80 {
        let [low, ..] = value.to_le_bytes();
        out.push(low | 0x80);
        value >>= 7;
    }
    let [low, ..] = value.to_le_bytes();
    out.push(low);
}

/// Takes one varint from the front of `input`. A longer form than needed is accepted; bits
/// beyond the 64th are dropped.
///
/// # Errors
///
/// [`Malformed::Truncated`] if `input` ends before the varint does, [`Malformed::Overlong`] if
/// it has more than [`MAX_LEN`] octets. `input` is then left as it was.
///
/// ```
/// # use tieline_core::wire::{Malformed, varint};
/// assert_eq!(varint::take(&mut &[0x80, 0x00][..]), Ok(0));
/// assert_eq!(varint::take(&mut &[0x80][..]), Err(Malformed::Truncated));
/// assert_eq!(varint::take(&mut &[0xff; 10][..]), Err(Malformed::Overlong));
/// ```
#[inline]
pub fn take(input: &mut &[u8]) -> Result<u64, Malformed> {
    if let Some((&first, rest)) = input.split_first()
        && first < 0x80
    {
        *input = rest;
        return Ok(u64::from(first));
    }
    take_at_most(input, MAX_LEN)
}

/// [`take`] with a lower bound on the octets: the length before an envelope has at most 5.
pub(super) fn take_at_most(input: &mut &[u8], most: usize) -> Result<u64, Malformed> {
    let mut rest = *input;
    let mut value = 0_u64;
    let mut shift = 0_u32;
    for _ in 0..most {
        let (&octet, after) = rest.split_first().ok_or(Malformed::Truncated)?;
        rest = after;
        value |= u64::from(octet & 0x7f).wrapping_shl(shift);
        if octet < 0x80 {
            *input = rest;
            return Ok(value);
        }
        shift = shift.wrapping_add(7);
    }
    Err(Malformed::Overlong)
}

/// Folds a signed number so that those near zero, of either sign, are short: 0, −1, 1, −2, 2 …
/// become 0, 1, 2, 3, 4 …
///
/// ```
/// # use tieline_core::wire::varint;
/// assert_eq!(varint::zigzag(-1), 1);
/// assert_eq!(varint::unzigzag(varint::zigzag(i64::MIN)), i64::MIN);
/// ```
#[inline]
#[must_use]
pub const fn zigzag(value: i64) -> u64 {
    ((value << 1) ^ (value >> 63)).cast_unsigned()
}

/// Undoes [`zigzag`].
#[inline]
#[must_use]
pub const fn unzigzag(value: u64) -> i64 {
    (value >> 1).cast_signed() ^ (value & 1).cast_signed().wrapping_neg()
}

/// [`zigzag`] for 32 bits, protobuf's `sint32`.
///
/// ```
/// # use tieline_core::wire::varint;
/// assert_eq!(varint::zigzag32(-2), 3);
/// assert_eq!(varint::unzigzag32(3), -2);
/// ```
#[inline]
#[must_use]
pub const fn zigzag32(value: i32) -> u32 {
    ((value << 1) ^ (value >> 31)).cast_unsigned()
}

/// Undoes [`zigzag32`].
#[inline]
#[must_use]
pub const fn unzigzag32(value: u32) -> i32 {
    (value >> 1).cast_signed() ^ (value & 1).cast_signed().wrapping_neg()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use alloc::vec;

    use super::*;

    /// The first and the last value of each length.
    fn edges() -> impl Iterator<Item = (usize, u64)> {
        (1..=MAX_LEN).flat_map(|octets| {
            let shift = u32::try_from(octets).unwrap().saturating_mul(7);
            let last = 1_u64.checked_shl(shift).map_or(u64::MAX, |v| v.wrapping_sub(1));
            let first = 1_u64 << shift.saturating_sub(7);
            [(octets, if octets == 1 { 0 } else { first }), (octets, last)]
        })
    }

    #[test]
    fn every_length_is_exact_at_its_edges() {
        for (octets, value) in edges() {
            let mut out = vec![];
            put(value, &mut out);
            assert_eq!((out.len(), len(value)), (octets, octets), "{value}");
            let mut input = &out[..];
            assert_eq!(take(&mut input), Ok(value));
            assert!(input.is_empty());
        }
    }

    #[test]
    fn a_cut_varint_is_truncated_and_leaves_the_input() {
        for (octets, value) in edges() {
            let mut out = vec![];
            put(value, &mut out);
            for cut in 0..octets {
                let mut input = out.get(..cut).unwrap();
                assert_eq!(take(&mut input), Err(Malformed::Truncated));
                assert_eq!(input.len(), cut);
            }
        }
    }

    #[test]
    fn ten_octets_that_go_on_are_overlong_whether_or_not_more_follow() {
        for octets in [10, 11, 30] {
            let input = vec![0x80; octets];
            assert_eq!(take(&mut &input[..]), Err(Malformed::Overlong));
        }
        assert_eq!(take(&mut &[0x80; 9][..]), Err(Malformed::Truncated));
    }

    #[test]
    fn bits_beyond_the_64th_are_dropped() {
        let mut octets = [0xff; 10];
        octets[9] = 0x7f;
        assert_eq!(take(&mut &octets[..]), Ok(u64::MAX));
        octets[9] = 0x7e;
        assert_eq!(take(&mut &octets[..]), Ok(u64::MAX >> 1));
    }

    #[test]
    fn zigzag_keeps_small_numbers_small_and_all_numbers_apart() {
        for (signed, folded) in [(0, 0), (-1, 1), (1, 2), (-2, 3), (2, 4)] {
            assert_eq!(zigzag(i64::from(signed)), u64::from(folded));
            assert_eq!(zigzag32(signed), folded);
        }
        for signed in [i64::MIN, i64::MIN.wrapping_add(1), -1, 0, 1, i64::MAX] {
            assert_eq!(unzigzag(zigzag(signed)), signed);
        }
        for signed in [i32::MIN, i32::MIN.wrapping_add(1), -1, 0, 1, i32::MAX] {
            assert_eq!(unzigzag32(zigzag32(signed)), signed);
        }
        assert_eq!(zigzag(i64::MIN), u64::MAX);
        assert_eq!(zigzag32(i32::MIN), u32::MAX);
    }
}
