//! The 18 octets at the head of every frame, and the rules that hold for each type whatever the
//! state of the connection (protocol §1 and §2).

use super::fault::{Fault, What};
use super::frame_type::{Flags, FrameType, Rule};
use super::status::Status;

/// The length of a header, in octets.
pub const HEADER_LEN: usize = 18;

/// The first two octets of every frame. The first is neither ASCII, nor a UTF-8 lead byte, nor
/// TLS, so other protocols can share a port.
pub const MAGIC: [u8; 2] = [0xbe, 0xa7];

/// The protocol version of this crate.
pub const VERSION: u8 = 1;

/// The longest body that is skipped for a type of 80–FF, in octets (protocol §1).
pub const MAX_EXTENSION: u32 = 65_536;

/// Magic and version, as the top three octets of a frame read as a number.
const PREFIX: [u8; 3] = [0xbe, 0xa7, VERSION];
/// Where the fields of a header begin.
const AT_VERSION: u32 = 2;
pub(super) const AT_TYPE: u32 = 3;
const AT_FLAGS: u32 = 4;
const AT_STATUS: u32 = 5;
const AT_ID: u32 = 6;
pub(super) const AT_LEN: u32 = 14;
pub(super) const AT_BODY: u32 = 18;

/// A header, read but for magic and version, which are always the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// What the frame is.
    pub frame_type: FrameType,
    /// How its payload is to be taken.
    pub flags: Flags,
    /// The outcome, on the types that have one; else [`Status::OK`].
    pub status: Status,
    /// The context id: a call, a token, or 0 (protocol §3).
    pub id: u64,
    /// How many octets of body follow the header.
    pub len: u32,
}

impl Header {
    /// Reads a whole header. Only magic and version are checked; [`Header::validate`] does the
    /// rest, and between the two comes the reader's own limit on `len`.
    ///
    /// # Errors
    ///
    /// [`What::Magic`] or [`What::Version`], as [`Header::check_prefix`] has it.
    #[inline]
    pub fn parse(octets: &[u8; HEADER_LEN]) -> Result<Self, Fault> {
        let [m, a, v, kind, flags, status, i, j, ..] = *octets;
        let [_, _, _, _, _, _, id @ .., _, _, _, _] = *octets;
        let [.., w, x, y, z] = *octets;
        // One load, one shift, one compare for the three octets that every frame shares.
        let head = u64::from_be_bytes([m, a, v, kind, flags, status, i, j]);
        let [p0, p1, p2] = PREFIX;
        if head >> 40 != u64::from_be_bytes([0, 0, 0, 0, 0, p0, p1, p2]) {
            return Err(foreign(octets));
        }
        Ok(Self {
            frame_type: FrameType(kind),
            flags: Flags(flags),
            status: Status(status),
            id: u64::from_be_bytes(id),
            len: u32::from_be_bytes([w, x, y, z]),
        })
    }

    /// Checks as much of magic and version as has arrived, so that a stranger is recognised at
    /// the first octet that differs and not when it happens to have sent 18.
    ///
    /// # Errors
    ///
    /// [`What::Magic`] at octet 0 or 1, [`What::Version`] at octet 2.
    pub fn check_prefix(octets: &[u8]) -> Result<(), Fault> {
        for ((octet, expected), offset) in octets.iter().zip(PREFIX).zip(0_u32..) {
            if *octet != expected {
                let what = match offset {
                    AT_VERSION => What::Version(*octet),
                    _ => What::Magic,
                };
                return Err(Fault::at(offset, what));
            }
        }
        Ok(())
    }

    /// The octets of this header.
    #[inline]
    #[must_use]
    pub const fn emit(&self) -> [u8; HEADER_LEN] {
        let [m, a, v] = PREFIX;
        let [i, j, k, l, n, o, p, q] = self.id.to_be_bytes();
        let [w, x, y, z] = self.len.to_be_bytes();
        let (kind, flags, status) = (self.frame_type.0, self.flags.0, self.status.0);
        [m, a, v, kind, flags, status, i, j, k, l, n, o, p, q, w, x, y, z]
    }

    /// Checks the body length against what this side reads: `max`, and for a type of 80–FF no
    /// more than [`MAX_EXTENSION`]. Comes before anything is allocated or awaited.
    ///
    /// # Errors
    ///
    /// [`What::TooLong`] at octet 14.
    #[inline]
    pub fn check_len(&self, max: u32) -> Result<(), Fault> {
        let max = if self.frame_type.is_extension() { max.min(MAX_EXTENSION) } else { max };
        if self.len <= max {
            Ok(())
        } else {
            let len = self.len;
            Err(Fault::at(AT_LEN, What::TooLong { len, max }))
        }
    }

    /// Checks what §1 and §2 of the protocol say of the type alone: that it exists, its flags,
    /// its id, its status, and that it has no body if it must not, in this order. Types 80–FF
    /// pass at once. Side, state, parity and order of ids are for the connection.
    ///
    /// # Errors
    ///
    /// [`What::Type`], [`What::Flags`], [`What::Id`], [`What::Status`] or [`What::Body`], each at
    /// the octet where the field begins.
    #[inline]
    pub fn validate(&self) -> Result<(), Fault> {
        let Some(rule) = self.frame_type.rule() else {
            return self.validate_unknown();
        };
        // All that must be zero is gathered, so that the common path has two branches.
        let excess = u32::from(self.flags.0 & !rule.flags.0)
            | u32::from(self.status.0 & !rule.status)
            | (self.len & !rule.len);
        if excess == 0 && rule.id.admits(self.id) { Ok(()) } else { Err(self.breach(rule)) }
    }

    #[cold]
    fn validate_unknown(&self) -> Result<(), Fault> {
        if self.frame_type.is_extension() {
            Ok(())
        } else {
            Err(Fault::at(AT_TYPE, What::Type(self.frame_type.0)))
        }
    }

    #[cold]
    fn breach(&self, rule: &Rule) -> Fault {
        if self.flags.0 & !rule.flags.0 != 0 {
            Fault::at(AT_FLAGS, What::Flags(self.flags.0))
        } else if !rule.id.admits(self.id) {
            Fault::at(AT_ID, What::Id)
        } else if self.status.0 & !rule.status != 0 {
            Fault::at(AT_STATUS, What::Status(self.status.0))
        } else {
            Fault::at(AT_LEN, What::Body)
        }
    }
}

#[cold]
fn foreign(octets: &[u8; HEADER_LEN]) -> Fault {
    match Header::check_prefix(octets) {
        Err(fault) => fault,
        // Not reached: the caller has found that the prefix differs.
        Ok(()) => Fault::at(0, What::Magic),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]

    use alloc::string::ToString;

    use super::*;

    const REQUEST: Header = Header {
        frame_type: FrameType::REQUEST,
        flags: Flags::COMPRESSED,
        status: Status::OK,
        id: 0x0102_0304_0506_0708,
        len: 0x0a0b_0c0d,
    };

    fn of(frame_type: u8) -> Header {
        Header { frame_type: FrameType(frame_type), flags: Flags::NONE, status: Status::OK, id: 0, len: 0 }
    }

    fn fault(header: Header) -> Option<(What, u32)> {
        header.validate().err().map(|fault| (fault.what, fault.offset))
    }

    #[test]
    fn octets_stand_where_the_protocol_says() {
        let octets = REQUEST.emit();
        assert_eq!(
            octets,
            [0xbe, 0xa7, 0x01, 0x05, 0x80, 0x00, 1, 2, 3, 4, 5, 6, 7, 8, 0x0a, 0x0b, 0x0c, 0x0d]
        );
        assert_eq!(Header::parse(&octets), Ok(REQUEST));
        assert_eq!(HEADER_LEN, usize::try_from(AT_BODY).unwrap());
        assert_eq!((MAGIC[0], MAGIC[1], VERSION), (PREFIX[0], PREFIX[1], PREFIX[2]));
    }

    #[test]
    fn a_stranger_is_known_by_the_first_octet_that_differs() {
        let good = REQUEST.emit();
        for (at, what) in [(0, What::Magic), (1, What::Magic), (2, What::Version(0x16))] {
            let mut octets = good;
            octets[at] = 0x16;
            octets[3..].fill(0xff);
            let expected = Err(Fault::at(u32::try_from(at).unwrap(), what));
            assert_eq!(Header::parse(&octets).map(drop), expected);
            for len in 0..=18 {
                let so_far = if len > at { expected } else { Ok(()) };
                assert_eq!(Header::check_prefix(&octets[..len]), so_far, "{len}");
            }
        }
        // Magic is looked at before version, whichever of them differs.
        assert_eq!(Header::check_prefix(&[0xbe, 0, 9]), Err(Fault::at(1, What::Magic)));
    }

    #[test]
    fn parse_takes_every_value_of_every_other_field() {
        for octet in 0..=u8::MAX {
            let mut octets = [octet; 18];
            octets[..3].copy_from_slice(&PREFIX);
            let header = Header::parse(&octets).unwrap();
            assert_eq!(header.emit(), octets);
        }
    }

    #[test]
    fn types_exist_or_do_not() {
        for octet in 0..=u8::MAX {
            let header = Header { id: 1, ..of(octet) };
            let missing = matches!(octet, 0 | 0x10..=0x7f);
            assert_eq!(fault(header) == Some((What::Type(octet), 3)), missing, "{octet:#x}");
            assert_eq!(FrameType(octet).name().is_some(), (1..=15).contains(&octet));
            assert_eq!(FrameType(octet).is_extension(), octet >= 0x80);
        }
        assert_eq!(FrameType::STREAM_ITEM.to_string(), "STREAM_ITEM");
        assert_eq!(FrameType(0x10).to_string(), "type 0x10");
    }

    #[test]
    fn flags_are_for_the_types_that_carry_payload() {
        for octet in 1..=15 {
            let header = Header { id: of_id(octet), ..of(octet) };
            for flags in 0..=u8::MAX {
                let allowed = match octet {
                    0x05 | 0x06 | 0x07 | 0x09 => 0x81,
                    0x0c => 0x01,
                    _ => 0x00,
                };
                let expected = (flags & !allowed != 0).then_some((What::Flags(flags), 4));
                assert_eq!(fault(Header { flags: Flags(flags), ..header }), expected);
            }
        }
    }

    /// An id that suits the type.
    fn of_id(octet: u8) -> u64 {
        u64::from((0x05..=0x0c).contains(&octet))
    }

    #[test]
    fn ids_are_zero_a_call_or_anything() {
        const MAX: u64 = (1 << 63) - 1;
        for octet in 1..=15 {
            for id in [0, 1, 2, MAX, MAX + 1, u64::MAX] {
                let good = match octet {
                    0x01 | 0x02 | 0x0e | 0x0f => id == 0,
                    0x03 | 0x04 | 0x0d => true,
                    _ => (1..=MAX).contains(&id),
                };
                let expected = (!good).then_some((What::Id, 6));
                assert_eq!(fault(Header { id, ..of(octet) }), expected, "{octet} {id}");
            }
        }
    }

    #[test]
    fn statuses_are_for_the_types_that_report() {
        for octet in 1..=15 {
            for status in 0..=u8::MAX {
                let good = status == 0 || matches!(octet, 0x02 | 0x06 | 0x08 | 0x0d | 0x0e);
                let expected = (!good).then_some((What::Status(status), 5));
                let header = Header { id: of_id(octet), status: Status(status), ..of(octet) };
                assert_eq!(fault(header), expected, "{octet} {status}");
            }
        }
    }

    #[test]
    fn four_types_have_no_body() {
        for octet in 1..=15 {
            for len in [1, 0x0100_0000, u32::MAX] {
                let good = !matches!(octet, 0x03 | 0x04 | 0x08 | 0x0a);
                let expected = (!good).then_some((What::Body, 14));
                assert_eq!(fault(Header { id: of_id(octet), len, ..of(octet) }), expected);
            }
        }
    }

    #[test]
    fn the_first_of_several_faults_is_the_one() {
        let mut header = Header { flags: Flags(0xff), status: Status(0xff), id: 0, len: 1, ..of(0x0a) };
        assert_eq!(fault(Header { frame_type: FrameType(0x7f), ..header }), Some((What::Type(0x7f), 3)));
        assert_eq!(fault(Header { frame_type: FrameType(0x80), ..header }), None);
        assert_eq!(fault(header), Some((What::Flags(0xff), 4)));
        header.flags = Flags::NONE;
        assert_eq!(fault(header), Some((What::Id, 6)));
        header.id = 1;
        assert_eq!(fault(header), Some((What::Status(0xff), 5)));
        header.status = Status::OK;
        assert_eq!(fault(header), Some((What::Body, 14)));
    }

    #[test]
    fn extensions_have_a_limit_of_their_own() {
        let limit = |octet, len, max| Header { len, ..of(octet) }.check_len(max);
        assert_eq!(limit(0x05, 1 << 20, 1 << 20), Ok(()));
        assert_eq!(limit(0x80, MAX_EXTENSION, 1 << 20), Ok(()));
        let too_long = |len, max| Err(Fault::at(14, What::TooLong { len, max }));
        assert_eq!(limit(0x05, 11, 10), too_long(11, 10));
        assert_eq!(limit(0x80, 65_537, 1 << 20), too_long(65_537, 65_536));
        assert_eq!(limit(0xff, 11, 10), too_long(11, 10));
    }

    #[test]
    fn flags_combine() {
        let both = Flags::MORE | Flags::COMPRESSED;
        assert_eq!(both, Flags(0x81));
        assert!(both.contains(Flags::MORE) && both.contains(both) && both.contains(Flags::NONE));
        assert!(!Flags::MORE.contains(both));
    }
}
