//! What can be wrong with octets, and where.
//!
//! Two errors, one a verb: [`Fault`] for a frame, [`EnvelopeError`] for the envelope in it.
//! Both name the octet, and both have a *slug*, the word by which the golden vectors and the
//! counters call them.

use core::fmt;

use thiserror::Error;

/// A frame that is no frame of Tieline version 1.
///
/// It says nothing about what to do: the status for the CLOSE, or the RESPONSE instead of it,
/// depends on the type and the state (protocol §5, "What is wrong where").
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("{what} at octet {offset}: {}", Meaning(what))]
pub struct Fault {
    /// What is wrong.
    pub what: What,
    /// Where, in octets from the frame's first octet.
    pub offset: u32,
}

/// The kinds of [`Fault`], in the order in which they are looked for; but a length is looked at
/// before the type is (protocol §1, "Order of checks").
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum What {
    /// The first two octets are not `BE A7`.
    Magic,
    /// The version is not 1; it is this.
    Version(u8),
    /// No such frame type.
    Type(u8),
    /// The body is longer than this side reads.
    TooLong {
        /// The body length in the header.
        len: u32,
        /// The longest that is read.
        max: u32,
    },
    /// A flag that is not defined, or not for this type. All flags of the frame are here.
    Flags(u8),
    /// A context id on a type that has none, none on a type that needs one, or a call's id above
    /// 2^63 − 1.
    Id,
    /// A status on a type that has none.
    Status(u8),
    /// A body on a type that has none.
    Body,
    /// The length before the envelope is cut, has more than 5 octets, or reaches beyond the body.
    EnvelopeLength,
    /// The envelope does not decode.
    Envelope(Malformed),
    /// A payload on a type that has none.
    Payload,
}

/// What can be wrong with a varint or with an envelope (protocol §1). Everything else decodes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum Malformed {
    /// The octets end before the number does.
    #[error("cut short")]
    Truncated,
    /// A varint of more than 10 octets.
    #[error("varint over 10 octets")]
    Overlong,
    /// The field number 0.
    #[error("field number 0")]
    FieldZero,
    /// Wire type 3 or 4, a group.
    #[error("group")]
    Group,
    /// Wire type 6 or 7, which do not exist.
    #[error("wire type 6 or 7")]
    WireType,
    /// A length beyond the end of what holds it.
    #[error("length beyond the end")]
    Length,
    /// A string that is not UTF-8.
    #[error("string that is not UTF-8")]
    Utf8,
}

/// An envelope that does not decode.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("{malformed} at octet {offset} of the envelope")]
pub struct EnvelopeError {
    /// What is wrong.
    pub malformed: Malformed,
    /// Where: the first octet, counted from the envelope's, of the innermost token that is at
    /// fault. A token is a tag, a number, a length, a fixed-width value or a string's content.
    pub offset: u32,
}

impl Fault {
    #[inline]
    pub(super) const fn at(offset: u32, what: What) -> Self {
        Self { what, offset }
    }
}

impl Malformed {
    /// The word for it in the golden vectors.
    #[must_use]
    pub const fn slug(self) -> &'static str {
        match self {
            Self::Truncated => "truncated",
            Self::Overlong => "overlong",
            Self::FieldZero => "field_zero",
            Self::Group => "group",
            Self::WireType => "wire_type",
            Self::Length => "length",
            Self::Utf8 => "utf8",
        }
    }
}

impl What {
    /// The word for it in the golden vectors; for an envelope, the word for what is wrong there.
    #[must_use]
    pub const fn slug(&self) -> &'static str {
        match self {
            Self::Magic => "magic",
            Self::Version(_) => "version",
            Self::Type(_) => "type",
            Self::TooLong { .. } => "too_long",
            Self::Flags(_) => "flags",
            Self::Id => "id",
            Self::Status(_) => "status",
            Self::Body => "body",
            Self::EnvelopeLength => "envelope_length",
            Self::Envelope(malformed) => malformed.slug(),
            Self::Payload => "payload",
        }
    }
}

/// The first half of a fault's message.
impl fmt::Display for What {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Magic => f.write_str("bad magic"),
            Self::Version(version) => write!(f, "version {version}"),
            Self::Type(octet) => write!(f, "frame type {octet:#04x}"),
            Self::TooLong { len, .. } => write!(f, "body of {len} octets"),
            Self::Flags(flags) => write!(f, "flags {flags:#04x}"),
            Self::Id => f.write_str("wrong context id"),
            Self::Status(octet) => write!(f, "status {octet:#04x}"),
            Self::Body => f.write_str("body"),
            Self::EnvelopeLength => f.write_str("bad envelope length"),
            Self::Envelope(malformed) => malformed.fmt(f),
            Self::Payload => f.write_str("payload"),
        }
    }
}

/// The second half: what it tells the reader of a log.
struct Meaning<'a>(&'a What);

impl fmt::Display for Meaning<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match *self.0 {
            What::Magic => "this peer does not speak Tieline",
            What::Version(_) => "this side speaks version 1",
            What::Type(_) => "there is no such type, or it is not for this envelope",
            What::TooLong { max, .. } => {
                return write!(f, "more than {max}, the most that this side reads");
            }
            What::Flags(_) => "a flag that is not for this type",
            What::Id => "0 where a call is meant, above 0 where none is, or above 2^63 - 1",
            What::Status(_) => "the type has no status",
            What::Body => "the type has no body",
            What::EnvelopeLength => "cut, over 5 octets, or beyond the body",
            What::Envelope(_) => "the envelope does not decode",
            What::Payload => "the type has no payload",
        })
    }
}

#[cfg(test)]
mod tests {
    use alloc::string::ToString;

    use super::*;

    #[test]
    fn messages_say_what_where_and_what_it_means() {
        let text = |offset, what| Fault::at(offset, what).to_string();
        assert_eq!(text(1, What::Magic), "bad magic at octet 1: this peer does not speak Tieline");
        assert_eq!(text(2, What::Version(9)), "version 9 at octet 2: this side speaks version 1");
        assert_eq!(
            text(14, What::TooLong { len: 70_000, max: 65_536 }),
            "body of 70000 octets at octet 14: more than 65536, the most that this side reads"
        );
        assert_eq!(
            text(21, What::Envelope(Malformed::Utf8)),
            "string that is not UTF-8 at octet 21: the envelope does not decode"
        );
        let error = EnvelopeError { malformed: Malformed::Group, offset: 4 };
        assert_eq!(error.to_string(), "group at octet 4 of the envelope");
    }
}
