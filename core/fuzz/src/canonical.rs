//! What a canonical envelope is (protocol §1, R-ENV-04), said once more and in another way: by a table of fields, a
//! judge that walks the octets, and nothing of the codec. Two who say the same of every input are both likely right.

/// A field: its number and what it holds. Tables are in ascending order, which is the order on the wire.
pub type Field = (u64, Holds);

/// What a field holds. But for the optional ones, the default value is not written.
#[derive(Clone, Copy)]
pub enum Holds {
    Uint32,
    Uint64,
    OptionalUint32,
    OptionalUint64,
    Sint32,
    Enum,
    Fixed64,
    /// `string` or `bytes`.
    Octets,
    /// `repeated uint32`.
    Packed,
    /// `repeated` of a message.
    Messages(&'static [Field]),
}

use Holds::*;

/// What both envelopes of check-in have, and then what one of them has.
macro_rules! check_in_fields {
    ($($own:expr),*) => {
        &[
            (1, Octets), (2, Uint32), (3, Fixed64), (4, Packed), (5, Uint32), (6, Uint32), (7, Uint32), (8, Uint32),
            (9, Uint32), (10, Uint32), $($own),*
        ]
    };
}

const PAIR: &[Field] = &[(1, Octets), (2, Octets)];
const METHOD: &[Field] = &[(1, Uint32), (2, Octets), (3, Fixed64)];

pub const CHECK_IN: &[Field] = check_in_fields![(11, Octets), (12, Messages(PAIR))];
pub const CHECK_IN_ACK: &[Field] = check_in_fields![(12, Messages(PAIR)), (20, Octets), (21, Uint32)];
pub const REQUEST: &[Field] = &[
    (1, Uint32),
    (2, Octets),
    (3, OptionalUint64),
    (4, Octets),
    (5, Sint32),
    (6, Messages(PAIR)),
    (7, Uint32),
    (8, Enum),
    (9, OptionalUint32),
    (10, Octets),
    (15, Uint64),
];
pub const RESPONSE: &[Field] =
    &[(1, Octets), (2, Uint32), (3, Messages(PAIR)), (4, Octets), (5, Uint32), (15, Uint64)];
pub const ITEM: &[Field] = &[(15, Uint64)];
pub const CREDIT: &[Field] = &[(1, Uint32)];
pub const DRAIN: &[Field] = &[(1, Uint32), (2, Octets)];
pub const CLOSE: &[Field] = &[(1, Octets)];
pub const TABLE: &[Field] = &[(1, Messages(METHOD))];

/// Whether `octets`, which decode, are what a canonical sender writes for a message of these fields.
pub fn is_canonical(mut octets: &[u8], fields: &[Field]) -> bool {
    let mut last = 0;
    while !octets.is_empty() {
        let Some(tag) = minimal(&mut octets) else { return false };
        let (number, wire_type) = (tag >> 3, tag & 7);
        let Some((_, holds)) = fields.iter().find(|field| field.0 == number) else { return false };
        let again = number == last && matches!(holds, Messages(_));
        if (number <= last && !again) || wire_type != wire_type_of(*holds) || !holds_it(*holds, &mut octets) {
            return false;
        }
        last = number;
    }
    true
}

fn wire_type_of(holds: Holds) -> u64 {
    match holds {
        Fixed64 => 1,
        Octets | Packed | Messages(_) => 2,
        _ => 0,
    }
}

fn holds_it(holds: Holds, octets: &mut &[u8]) -> bool {
    let narrow = u64::from(u32::MAX);
    match holds {
        Uint32 | Sint32 => minimal(octets).is_some_and(|value| (1..=narrow).contains(&value)),
        Uint64 => minimal(octets).is_some_and(|value| value > 0),
        OptionalUint32 => minimal(octets).is_some_and(|value| value <= narrow),
        OptionalUint64 => minimal(octets).is_some(),
        // A negative one is written in 64 bits.
        Enum => minimal(octets).is_some_and(|value| value != 0 && i32::try_from(value.cast_signed()).is_ok()),
        Fixed64 => take(octets, 8).is_some_and(|value| value.iter().any(|octet| *octet != 0)),
        Octets => counted(octets).is_some_and(|value| !value.is_empty()),
        Packed => counted(octets).is_some_and(|mut list| {
            let some = !list.is_empty();
            while !list.is_empty() {
                if minimal(&mut list).is_none_or(|value| value > narrow) {
                    return false;
                }
            }
            some
        }),
        Messages(fields) => counted(octets).is_some_and(|message| is_canonical(message, fields)),
    }
}

fn take<'a>(octets: &mut &'a [u8], len: usize) -> Option<&'a [u8]> {
    let (taken, rest) = octets.split_at_checked(len)?;
    *octets = rest;
    Some(taken)
}

fn counted<'a>(octets: &mut &'a [u8]) -> Option<&'a [u8]> {
    let len = usize::try_from(minimal(octets)?).ok()?;
    take(octets, len)
}

/// A varint in its shortest form, and only that.
pub fn minimal(octets: &mut &[u8]) -> Option<u64> {
    let len = octets.iter().position(|octet| *octet < 0x80)? + 1;
    let digits = take(octets, len)?;
    if len > 1 && digits[len - 1] == 0 {
        return None;
    }
    digits
        .iter()
        .rev()
        .try_fold(0u64, |value, octet| (value >> 57 == 0).then_some(value << 7 | u64::from(octet & 0x7f)))
}
