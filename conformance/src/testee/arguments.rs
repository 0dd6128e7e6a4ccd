//! What the testee's methods take: varints and octets (R-TST-02, R-TST-03).

use bytes::{Buf, Bytes};
use tieline::{Error, Status};
use tieline_core::wire::varint;

/// An argument that does not fit its method.
pub(super) fn unfit(what: &str) -> Error {
    Error::new(Status::INVALID_ARGUMENT, what)
}

/// Takes a varint of up to 64 bits from the front.
pub(super) fn take_varint(argument: &mut Bytes) -> Result<u64, Error> {
    let mut rest = &argument[..];
    let value = varint::take(&mut rest).map_err(|error| unfit(&format!("no varint: {error}")))?;
    let octets = argument.len() - rest.len();
    // The tenth octet has one bit of the 64; `take` drops the others, and here they are a mistake.
    if octets == varint::MAX_LEN && argument.get(varint::MAX_LEN - 1).is_some_and(|last| *last > 1) {
        return Err(unfit("a varint of more than 64 bits"));
    }
    argument.advance(octets);
    Ok(value)
}

/// That there is nothing more.
pub(super) fn end(argument: &Bytes) -> Result<(), Error> {
    if argument.is_empty() {
        return Ok(());
    }
    Err(unfit(&format!("{} octets are left over after the last varint", argument.len())))
}

pub(super) fn varint_of(value: u64) -> Bytes {
    let mut out = Vec::new();
    varint::put(value, &mut out);
    out.into()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn take(octets: &'static [u8]) -> Option<(u64, usize)> {
        let mut argument = Bytes::from_static(octets);
        let value = take_varint(&mut argument).ok()?;
        Some((value, argument.len()))
    }

    #[test]
    fn a_varint_has_up_to_64_bits_and_an_end() {
        assert_eq!(take(&[0x81, 0x00, 7]), Some((1, 1)), "longer than need be");
        assert_eq!(take(&[0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0x01]), Some((u64::MAX, 0)));
        assert_eq!(take(&[0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x00]), Some((0, 0)));
        assert_eq!(take(&[0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0x02]), None, "65 bits");
        assert_eq!(take(&[0x80; 11]), None, "11 octets");
        assert_eq!(take(&[0x80]), None, "cut off");
        assert_eq!(take(&[]), None, "nothing");
        let mut argument = Bytes::from_static(&[0x80]);
        take_varint(&mut argument).unwrap_err();
        assert_eq!(argument.len(), 1, "left as it was");
    }
}
