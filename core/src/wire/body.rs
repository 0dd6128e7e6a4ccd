//! A frame's body, split into its envelope and its payload (protocol §1).

use super::fault::{Fault, What};
use super::header::AT_BODY;
use super::varint;

/// The most octets of the varint before the envelope.
const LENGTH_OCTETS: usize = 5;

const FAULT: Fault = Fault::at(AT_BODY, What::EnvelopeLength);

/// The two parts of a body: `varint n` ‖ envelope, n octets ‖ payload, the rest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Parts<'a> {
    /// The envelope, not decoded yet.
    pub envelope: &'a [u8],
    /// The payload, or the part of it that is in this frame.
    pub payload: &'a [u8],
}

impl<'a> Parts<'a> {
    /// Splits the whole body of a frame. An empty body is an empty envelope and an empty payload.
    ///
    /// # Errors
    ///
    /// [`What::EnvelopeLength`] at octet 18 if the length is cut, has more than 5 octets or
    /// reaches beyond the body.
    #[inline]
    pub fn split(body: &'a [u8]) -> Result<Self, Fault> {
        match body.split_first() {
            None => Ok(Self::default()),
            Some((&len, rest)) if len < 0x80 => {
                let parts = rest.split_at_checked(usize::from(len));
                parts.map(Self::from).ok_or(FAULT)
            }
            Some(_) => Self::split_long(body),
        }
    }

    fn split_long(mut body: &'a [u8]) -> Result<Self, Fault> {
        let len = varint::take_at_most(&mut body, LENGTH_OCTETS).map_err(|_| FAULT)?;
        let len = usize::try_from(len).map_err(|_| FAULT)?;
        let parts = body.split_at_checked(len);
        parts.map(Self::from).ok_or(FAULT)
    }
}

impl<'a> From<(&'a [u8], &'a [u8])> for Parts<'a> {
    #[inline]
    fn from((envelope, payload): (&'a [u8], &'a [u8])) -> Self {
        Self { envelope, payload }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]

    use alloc::vec;

    use super::*;

    #[test]
    fn an_empty_body_is_two_empty_parts() {
        assert_eq!(Parts::split(&[]), Ok(Parts::default()));
        assert_eq!(Parts::split(&[0]), Ok(Parts::default()));
    }

    #[test]
    fn the_length_may_be_longer_than_it_needs_up_to_five_octets() {
        for body in [&[2, 8, 7, 9][..], &[0x82, 0, 8, 7, 9], &[0x82, 0x80, 0x80, 0x80, 0, 8, 7, 9]] {
            let parts = Parts::split(body).unwrap();
            assert_eq!((parts.envelope, parts.payload), (&[8, 7][..], &[9][..]));
        }
        let mut body = vec![0x80, 0x01];
        body.resize(132, 5);
        let parts = Parts::split(&body).unwrap();
        assert_eq!((parts.envelope.len(), parts.payload), (128, &[5, 5][..]));
    }

    #[test]
    fn a_bad_length_is_one_fault_at_the_body() {
        for body in [
            &[1][..],                                 // beyond the body
            &[0x80],                                  // cut
            &[0x80, 0x80],                            // cut
            &[0x80, 0x80, 0x80, 0x80, 0x80, 0x00],    // six octets
            &[0xff, 0xff, 0xff, 0xff, 0x7f, 0, 0, 0], // 35 bits, far beyond
            &[0x80, 0x80, 0x80, 0x80, 0x10, 0, 0, 0], // 2^32, which is 0 in 32 bits
        ] {
            let fault = Parts::split(body).unwrap_err();
            assert_eq!((fault.what, fault.offset), (What::EnvelopeLength, 18), "{body:x?}");
        }
    }
}
