//! Takes the credential out of a check-in, octet by octet, however it is cut.
//!
//! A CHECK_IN may arrive in many pieces, and each is written down before the next has come; so what is looked for is
//! found by the tags of the envelope (protocol §4) as they pass by. What does not decode is taken for secret from there
//! on.

/// The field `CheckIn.credential`.
const CREDENTIAL: u64 = 11;

#[derive(Debug, Clone, Copy)]
pub(crate) enum Mask {
    /// In a tag, of which this much has passed.
    Tag(Number),
    /// In the length of this field.
    Length(u64, Number),
    /// In the content of a field: so many octets of it, secret or not.
    Content(u64, bool),
    /// In a varint.
    Varint,
    /// In something that does not decode.
    Blind,
}

/// A varint that passes by.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Number {
    value: u64,
    shift: u32,
}

impl Number {
    /// The value, if this octet was its last; or that it has too many.
    pub(crate) fn add(&mut self, octet: u8) -> Option<Result<u64, ()>> {
        if self.shift >= 70 {
            return Some(Err(()));
        }
        self.value |= u64::from(octet & 0x7F).checked_shl(self.shift).unwrap_or(0);
        self.shift += 7;
        (octet < 0x80).then_some(Ok(self.value))
    }
}

impl Default for Mask {
    fn default() -> Self {
        Self::Tag(Number::default())
    }
}

impl Mask {
    /// The octet as it may be written down.
    pub(crate) fn pass(&mut self, octet: u8) -> u8 {
        match self {
            Self::Tag(number) => {
                if let Some(tag) = number.add(octet) {
                    *self = match tag {
                        Ok(tag) => match tag & 7 {
                            0 => Self::Varint,
                            1 => Self::Content(8, false),
                            2 => Self::Length(tag >> 3, Number::default()),
                            5 => Self::Content(4, false),
                            _ => Self::Blind,
                        },
                        Err(()) => Self::Blind,
                    };
                }
                octet
            }
            Self::Length(field, number) => {
                if let Some(length) = number.add(octet) {
                    *self = match length {
                        Ok(0) => Self::default(),
                        Ok(octets) => Self::Content(octets, *field == CREDENTIAL),
                        Err(()) => Self::Blind,
                    };
                }
                octet
            }
            Self::Content(left, secret) => {
                let shown = if *secret { 0 } else { octet };
                *left -= 1;
                if *left == 0 {
                    *self = Self::default();
                }
                shown
            }
            Self::Varint => {
                if octet < 0x80 {
                    *self = Self::default();
                }
                octet
            }
            Self::Blind => 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use alloc::vec::Vec;

    use super::*;
    use crate::wire::CheckIn;

    #[test]
    fn of_a_check_in_all_but_the_credential_passes() {
        let secret = b"open sesame";
        let said = CheckIn { identifier: "node", max_frame: 300, instance: 7, ..CheckIn::default() };
        let mut octets = Vec::new();
        CheckIn { credential: secret, ..said }.emit(&mut octets);
        let mut mask = Mask::default();
        let passed: Vec<u8> = octets.iter().map(|octet| mask.pass(*octet)).collect();
        assert_eq!(CheckIn::parse(&passed), Ok(CheckIn { credential: &[0; 11], ..said }));
    }

    #[test]
    fn behind_what_does_not_decode_nothing_passes() {
        let mut mask = Mask::default();
        // Wire type 7 is none.
        let passed: Vec<u8> = [0x0F, 1, 2, 3].iter().map(|octet| mask.pass(*octet)).collect();
        assert_eq!(passed, [0x0F, 0, 0, 0]);
    }
}
