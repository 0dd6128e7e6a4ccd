//! Frame types and flags, and the table of what each type may have whatever the state of the
//! connection (protocol §2).

use core::fmt;
use core::ops::BitOr;

/// The highest id of a call (protocol §3).
const MAX_CALL: u64 = u64::MAX >> 1;

/// A frame type (protocol §2). Every octet is representable; not every one is valid.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct FrameType(pub u8);

impl FrameType {
    /// The client's first frame: who it is and what it reads.
    pub const CHECK_IN: Self = Self(0x01);
    /// The server's first frame: who it is, what it reads and what it grants.
    pub const CHECK_IN_ACK: Self = Self(0x02);
    /// Asks for a sign of life; the id is a token.
    pub const HEARTBEAT: Self = Self(0x03);
    /// The sign of life, with the token.
    pub const HEARTBEAT_ACK: Self = Self(0x04);
    /// Begins a call.
    pub const REQUEST: Self = Self(0x05);
    /// Ends a call.
    pub const RESPONSE: Self = Self(0x06);
    /// A call that is never answered.
    pub const ONE_WAY: Self = Self(0x07);
    /// The requester gives a call up.
    pub const CANCEL: Self = Self(0x08);
    /// One item of a stream.
    pub const STREAM_ITEM: Self = Self(0x09);
    /// The requester has sent its last item.
    pub const STREAM_END: Self = Self(0x0a);
    /// The receiver of items lets more of them come.
    pub const CREDIT: Self = Self(0x0b);
    /// The next octets of a fragmented payload.
    pub const CONTINUATION: Self = Self(0x0c);
    /// The sender finishes what is open and accepts no more.
    pub const DRAIN: Self = Self(0x0d);
    /// The last frame, with the reason.
    pub const CLOSE: Self = Self(0x0e);
    /// The methods that the sender serves.
    pub const TABLE: Self = Self(0x0f);

    /// The name in protocol §2, `None` for a type that it does not define.
    #[must_use]
    pub fn name(self) -> Option<&'static str> {
        self.rule().map(|rule| rule.name)
    }

    /// Whether the type is in 80–FF: room for optional extensions, skipped whole if not known.
    #[inline]
    #[must_use]
    pub const fn is_extension(self) -> bool {
        self.0 >= 0x80
    }

    #[inline]
    pub(super) fn rule(self) -> Option<&'static Rule> {
        // Type 00 has a row, so that the type is the index; it is no type.
        RULES.get(usize::from(self.0)).filter(|_| self.0 != 0)
    }
}

/// `REQUEST`, or `type 0x10` for one without a name.
impl fmt::Display for FrameType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => f.pad(name),
            None => write!(f, "type {:#04x}", self.0),
        }
    }
}

impl fmt::Debug for FrameType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The flags octet. Bits other than the two named ones are reserved, and 0 in version 1.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Flags(pub u8);

impl Flags {
    /// No flag.
    pub const NONE: Self = Self(0x00);
    /// More of the message follows in a CONTINUATION.
    pub const MORE: Self = Self(0x01);
    /// The payload is one Snappy block.
    pub const COMPRESSED: Self = Self(0x80);

    /// Whether all of `flags` are set here.
    #[inline]
    #[must_use]
    pub const fn contains(self, flags: Self) -> bool {
        self.0 & flags.0 == flags.0
    }
}

impl BitOr for Flags {
    type Output = Self;

    #[inline]
    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

impl fmt::Debug for Flags {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Flags({:#04x})", self.0)
    }
}

/// One row of the table of protocol §2: what a type may have, whatever the state.
#[derive(Debug)]
pub(super) struct Rule {
    pub(super) name: &'static str,
    /// The flags that it may have.
    pub(super) flags: Flags,
    /// The ids that it may have.
    pub(super) id: Ids,
    /// A mask of the status octets that it may have: all of them, or only 00.
    pub(super) status: u8,
    /// A mask of the body lengths that it may have: all of them, or only 0.
    pub(super) len: u32,
    /// What its body is made of.
    pub(super) body: Body,
}

/// The context ids that a type may have, as the first one and how many more.
#[derive(Debug)]
pub(super) struct Ids {
    first: u64,
    more: u64,
}

impl Ids {
    #[inline]
    pub(super) const fn admits(&self, id: u64) -> bool {
        id.wrapping_sub(self.first) <= self.more
    }
}

/// What the body of a type is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Body {
    /// Nothing.
    None,
    /// An envelope alone.
    Envelope,
    /// An envelope and a payload.
    Both,
    /// Payload alone, without the length that goes before an envelope.
    Payload,
}

const ZERO: Ids = Ids { first: 0, more: 0 };
const ANY: Ids = Ids { first: 0, more: u64::MAX };
const CALL: Ids = Ids { first: 1, more: MAX_CALL - 1 };

const PLAIN: Flags = Flags::NONE;
const MORE: Flags = Flags::MORE;
const DATA: Flags = Flags(Flags::MORE.0 | Flags::COMPRESSED.0);

const NO_STATUS: u8 = 0x00;
const STATUS: u8 = 0xff;

const fn rule(name: &'static str, flags: Flags, id: Ids, status: u8, body: Body) -> Rule {
    let len = match body {
        Body::None => 0,
        _ => u32::MAX,
    };
    Rule { name, flags, id, status, len, body }
}

/// The table of protocol §2, by type. The id of DRAIN is bounded by the calls that were opened,
/// which only the connection knows.
const RULES: [Rule; 16] = [
    rule("", PLAIN, ZERO, NO_STATUS, Body::None),
    rule("CHECK_IN", PLAIN, ZERO, NO_STATUS, Body::Envelope),
    rule("CHECK_IN_ACK", PLAIN, ZERO, STATUS, Body::Envelope),
    rule("HEARTBEAT", PLAIN, ANY, NO_STATUS, Body::None),
    rule("HEARTBEAT_ACK", PLAIN, ANY, NO_STATUS, Body::None),
    rule("REQUEST", DATA, CALL, NO_STATUS, Body::Both),
    rule("RESPONSE", DATA, CALL, STATUS, Body::Both),
    rule("ONE_WAY", DATA, CALL, NO_STATUS, Body::Both),
    rule("CANCEL", PLAIN, CALL, STATUS, Body::None),
    rule("STREAM_ITEM", DATA, CALL, NO_STATUS, Body::Both),
    rule("STREAM_END", PLAIN, CALL, NO_STATUS, Body::None),
    rule("CREDIT", PLAIN, CALL, NO_STATUS, Body::Envelope),
    rule("CONTINUATION", MORE, CALL, NO_STATUS, Body::Payload),
    rule("DRAIN", PLAIN, ANY, STATUS, Body::Envelope),
    rule("CLOSE", PLAIN, ZERO, STATUS, Body::Envelope),
    rule("TABLE", PLAIN, ZERO, NO_STATUS, Body::Envelope),
];
