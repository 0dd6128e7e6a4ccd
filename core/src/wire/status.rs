//! Status numbers (protocol §6): what became of a call or a connection, in one octet.
//!
//! The top three bits are the *class*. They tell a caller what it may do, so a number that this
//! version does not know is still safe to act on: [`Status`] is total, [`Status::class`],
//! [`Status::retry`] and [`Status::ran`] answer for all 256 values, and only [`Status::name`]
//! can come up empty.
//!
//! Two questions are kept apart. *May it be tried again?* is [`Retry`]; *did the handler run?*
//! is [`Ran`]. A call refused for its own fault ran nowhere, and trying again is useless; a call
//! that was interrupted may have run, and trying again is a matter of idempotence.

use core::fmt;

/// One status octet. Every value is valid.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Status(pub u8);

macro_rules! statuses {
    ($($(#[$doc:meta])* $name:ident = $value:literal;)*) => {
        impl Status {
            $($(#[$doc])* pub const $name: Self = Self($value);)*

            /// Every status that protocol §6 names, in ascending order.
            pub const NAMED: &'static [Self] = &[$(Self::$name,)*];

            /// The name in protocol §6, `None` for a number without one.
            #[must_use]
            pub const fn name(self) -> Option<&'static str> {
                match self {
                    $(Self::$name => Some(stringify!($name)),)*
                    _ => None,
                }
            }
        }
    };
}

statuses! {
    /// The call succeeded.
    OK = 0x00;
    /// The handler gave up because its caller had. In CANCEL: the caller lost interest.
    CANCELLED = 0x01;
    /// The handler failed in a way that it could not name.
    UNKNOWN = 0x02;
    /// The argument does not suit the method, whatever the state of the system.
    INVALID_ARGUMENT = 0x03;
    /// The handler saw the deadline pass. In CANCEL: the caller's deadline passed.
    DEADLINE_EXCEEDED = 0x04;
    /// What was asked for does not exist.
    NOT_FOUND = 0x05;
    /// What was to be created exists.
    ALREADY_EXISTS = 0x06;
    /// The caller is known and may not do this.
    PERMISSION_DENIED = 0x07;
    /// A quota or a resource of the application is used up.
    RESOURCE_EXHAUSTED = 0x08;
    /// The system is not in the state that the call needs.
    FAILED_PRECONDITION = 0x09;
    /// The call lost a race with another one.
    ABORTED = 0x0a;
    /// The call went past the valid range.
    OUT_OF_RANGE = 0x0b;
    /// The handler does not offer this.
    UNIMPLEMENTED = 0x0c;
    /// The handler broke, or answered with a status that is not its own to give.
    INTERNAL = 0x0d;
    /// The handler cannot serve at the moment.
    UNAVAILABLE = 0x0e;
    /// Data is lost or corrupt beyond recovery.
    DATA_LOSS = 0x0f;
    /// The caller is not known.
    UNAUTHENTICATED = 0x10;

    /// The node has too much to do, or no memory for the call.
    OVERLOADED = 0x20;
    /// The node finishes its calls and takes no new ones.
    DRAINING = 0x21;
    /// The node is not ready to serve yet.
    NOT_READY = 0x22;
    /// The caller sends more than its share.
    RATE_LIMITED = 0x23;
    /// Another node owns what the call is about; `Response.owner` names it.
    WRONG_NODE = 0x24;
    /// More calls are open than the node granted.
    TOO_MANY_CALLS = 0x25;
    /// The request did not arrive whole in its time. Not moved to another node by itself.
    NOT_COMPLETED = 0x26;

    /// No method has this id or name.
    NO_SUCH_METHOD = 0x40;
    /// The method is of another kind than the request says.
    WRONG_KIND = 0x41;
    /// The request's envelope does not decode, or contradicts itself or its bounds.
    BAD_REQUEST = 0x42;
    /// The method does not speak the request's codec.
    UNSUPPORTED_CODEC = 0x43;
    /// The payload is above what the node reads.
    TOO_LARGE = 0x44;
    /// The node does not let this caller call this method.
    DENIED = 0x45;
    /// The deadline passed before the handler started.
    EXPIRED_IN_QUEUE = 0x46;
    /// The call was cancelled before the handler started.
    CANCELLED_IN_QUEUE = 0x47;
    /// The payload does not decompress to what it declares.
    BAD_COMPRESSION = 0x48;

    /// The handler panicked.
    HANDLER_PANIC = 0x60;
    /// The handler's answer is larger than the caller reads.
    RESPONSE_TOO_LARGE = 0x61;
    /// The handler's answer could not be encoded.
    RESPONSE_ENCODE = 0x62;
    /// The call was cut off: by a broken stream or the end of a drain.
    INTERRUPTED = 0x63;
    /// The call was cancelled while the handler ran.
    CANCELLED_RUNNING = 0x64;
    /// The deadline passed while the handler ran.
    EXPIRED_RUNNING = 0x65;

    /// The connection ends in peace.
    NORMAL = 0x80;
    /// The peer broke the protocol.
    PROTOCOL_ERROR = 0x81;
    /// The peer speaks another version.
    VERSION_UNSUPPORTED = 0x82;
    /// The first frame was not CHECK_IN.
    CHECK_IN_REQUIRED = 0x83;
    /// The check-in was not complete in its time.
    CHECK_IN_TIMEOUT = 0x84;
    /// The check-in was read and refused.
    CHECK_IN_REFUSED = 0x85;
    /// The identifier belongs to a newer instance.
    IDENTITY_CONFLICT = 0x86;
    /// Nothing came from the peer, or went to it, for three heartbeat intervals.
    HEARTBEAT_LOST = 0x87;
    /// The connection had no calls for as long as this endpoint keeps idle ones.
    IDLE = 0x88;
    /// A frame's body is longer than this side reads.
    FRAME_TOO_LARGE = 0x89;
    /// The peer used up its abuse budget, or opened far more calls than granted.
    EXCESSIVE_LOAD = 0x8a;
    /// The peer sends or takes octets below the least rate.
    SLOW_PEER = 0x8b;
    /// The node goes away.
    GOING_AWAY = 0x8d;
    /// The node has no room for another connection.
    TOO_MANY_CONNECTIONS = 0x8e;

    /// No octet of the call left this process.
    NOT_SENT = 0xe0;
    /// The connection ended after the call was sent, and no answer came.
    CONNECTION_LOST = 0xe1;
    /// No endpoint is known, or none can be reached.
    NO_ENDPOINT = 0xe2;
    /// The breaker of the endpoint is open.
    CIRCUIT_OPEN = 0xe3;
    /// A limit of this process or of what the peer announced: the call cannot be encoded within
    /// it, or the reply is above it.
    LOCAL_LIMIT = 0xe4;
    /// The deadline passed here before an answer came.
    TIMEOUT = 0xe5;
    /// A reply came and could not be read.
    BAD_REPLY = 0xe6;
    /// A reply was begun and never finished.
    LOST_REPLY = 0xe7;
    /// The peer's method has another signature.
    WRONG_SIGNATURE = 0xe8;
}

/// What the top three bits of a [`Status`] say (protocol §6).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Class {
    /// Class 0, 00–1F: the handler's own answer; 0 to 16 are gRPC's codes.
    Handler,
    /// Class 1, 20–3F: refused before the handler started, for this node's condition.
    RefusedByNode,
    /// Class 2, 40–5F: refused before the handler started, for the request's condition.
    RefusedRequest,
    /// Class 3, 60–7F: the handler started, or it is not known.
    Started,
    /// Class 4, 80–9F: about the connection, in CHECK_IN_ACK, DRAIN and CLOSE.
    Connection,
    /// Class 5, A0–BF: reserved; treated as class 3.
    Reserved,
    /// Class 6, C0–DF: the handler's own, application-defined; `Response.code` has the rest.
    Application,
    /// Class 7, E0–FF: local to the caller, never sent.
    Local,
}

/// What a caller may do with a call that ended so.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Retry {
    /// The handler answered; whether that is worth another try is the method's policy.
    Policy,
    /// Yes, elsewhere or later, even if the method is not idempotent: it did not run.
    Elsewhere,
    /// No: the same call fails the same way everywhere.
    Never,
    /// Only if the method is idempotent: it may have run.
    IfIdempotent,
    /// It is about the connection; protocol §5 "Reconnecting" says when to dial again.
    Reconnect,
}

/// Whether the handler of a call ran.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Ran {
    /// It never started, and never will.
    No,
    /// Nobody can tell.
    Maybe,
    /// It started; it need not have finished.
    Yes,
}

impl fmt::Display for Ran {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::No => "No",
            Self::Maybe => "Maybe",
            Self::Yes => "Yes",
        })
    }
}

impl Status {
    /// The class, from the top three bits.
    #[inline]
    #[must_use]
    pub const fn class(self) -> Class {
        match self.0 >> 5 {
            0 => Class::Handler,
            1 => Class::RefusedByNode,
            2 => Class::RefusedRequest,
            3 => Class::Started,
            4 => Class::Connection,
            5 => Class::Reserved,
            6 => Class::Application,
            _ => Class::Local,
        }
    }

    /// What the caller may do, by the table of protocol §6.
    ///
    /// [`Status::NOT_COMPLETED`] is [`Retry::Elsewhere`] like its class, for it did not run; but
    /// a pool never moves it by itself, since the slow link would most likely fail it again.
    /// Numbers of class 7 without a name are answered as class 3.
    #[must_use]
    pub const fn retry(self) -> Retry {
        match self.class() {
            Class::Handler | Class::Application => Retry::Policy,
            Class::RefusedByNode => Retry::Elsewhere,
            Class::RefusedRequest => Retry::Never,
            Class::Started | Class::Reserved => Retry::IfIdempotent,
            Class::Connection => Retry::Reconnect,
            Class::Local => match self {
                Self::NOT_SENT | Self::NO_ENDPOINT | Self::CIRCUIT_OPEN => Retry::Elsewhere,
                Self::LOCAL_LIMIT | Self::WRONG_SIGNATURE => Retry::Never,
                _ => Retry::IfIdempotent,
            },
        }
    }

    /// Whether the handler ran, as far as the status alone can tell.
    ///
    /// Who knows more says so instead. Two cases matter: a [`Status::TIMEOUT`] of a call of which
    /// no octet left is `No`, and a [`Status::LOCAL_LIMIT`] that a *reply* ran into is `Maybe`,
    /// where this function answers for the request that could not be encoded.
    #[must_use]
    pub const fn ran(self) -> Ran {
        match self.class() {
            Class::RefusedByNode | Class::RefusedRequest => Ran::No,
            Class::Handler | Class::Application => Ran::Yes,
            Class::Started => match self {
                Self::HANDLER_PANIC
                | Self::RESPONSE_TOO_LARGE
                | Self::RESPONSE_ENCODE
                | Self::CANCELLED_RUNNING
                | Self::EXPIRED_RUNNING => Ran::Yes,
                _ => Ran::Maybe,
            },
            Class::Connection | Class::Reserved => Ran::Maybe,
            Class::Local => match self {
                Self::NOT_SENT
                | Self::NO_ENDPOINT
                | Self::CIRCUIT_OPEN
                | Self::WRONG_SIGNATURE
                | Self::LOCAL_LIMIT => Ran::No,
                _ => Ran::Maybe,
            },
        }
    }

    /// The status as CHECK_IN_ACK (other than 00), DRAIN and CLOSE mean it: class 4 stays,
    /// another class reads as [`Status::PROTOCOL_ERROR`].
    #[must_use]
    pub const fn as_close(self) -> Self {
        match self.class() {
            Class::Connection => self,
            _ => Self::PROTOCOL_ERROR,
        }
    }

    /// The status as CANCEL means it: [`Status::DEADLINE_EXCEEDED`] stays, all others read as
    /// [`Status::CANCELLED`].
    #[must_use]
    pub const fn as_cancel(self) -> Self {
        match self {
            Self::DEADLINE_EXCEEDED => self,
            _ => Self::CANCELLED,
        }
    }
}

/// `OVERLOADED (0x20)`, or `status 0x29` for a number without a name.
impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => write!(f, "{name} ({:#04x})", self.0),
            None => write!(f, "status {:#04x}", self.0),
        }
    }
}

impl fmt::Debug for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use alloc::string::ToString;

    use super::*;

    fn all() -> impl Iterator<Item = Status> {
        (0..=u8::MAX).map(Status)
    }

    #[test]
    fn names_are_unique_and_listed_in_order() {
        assert!(Status::NAMED.is_sorted_by(|a, b| a.0 < b.0 && a.name() != b.name()));
        assert_eq!(all().filter(|s| s.name().is_some()).count(), Status::NAMED.len());
        assert_eq!(Status::NAMED.len(), 17 + 7 + 9 + 6 + 14 + 9);
    }

    #[test]
    fn every_class_has_32_numbers() {
        let firsts = [0x00, 0x20, 0x40, 0x60, 0x80, 0xa0, 0xc0, 0xe0].map(|n| Status(n).class());
        let lasts = [0x1f, 0x3f, 0x5f, 0x7f, 0x9f, 0xbf, 0xdf, 0xff].map(|n| Status(n).class());
        assert_eq!(firsts, lasts);
        assert_eq!(firsts[1], Class::RefusedByNode);
        assert_eq!(firsts[7], Class::Local);
    }

    #[test]
    fn what_may_be_retried_anywhere_did_not_run() {
        for status in all() {
            match status.retry() {
                Retry::Elsewhere | Retry::Never => assert_eq!(status.ran(), Ran::No, "{status}"),
                Retry::Policy => assert_eq!(status.ran(), Ran::Yes, "{status}"),
                Retry::IfIdempotent => assert_ne!(status.ran(), Ran::No, "{status}"),
                Retry::Reconnect => assert_eq!(status.ran(), Ran::Maybe, "{status}"),
            }
        }
    }

    #[test]
    fn unknown_numbers_are_as_careful_as_their_class() {
        let answers = [0x1f, 0x3f, 0x5f, 0x7f, 0x9f, 0xbf, 0xdf, 0xff]
            .map(Status)
            .map(|s| (s.name(), s.retry(), s.ran()));
        assert_eq!(
            answers,
            [
                (None, Retry::Policy, Ran::Yes),
                (None, Retry::Elsewhere, Ran::No),
                (None, Retry::Never, Ran::No),
                (None, Retry::IfIdempotent, Ran::Maybe),
                (None, Retry::Reconnect, Ran::Maybe),
                (None, Retry::IfIdempotent, Ran::Maybe),
                (None, Retry::Policy, Ran::Yes),
                (None, Retry::IfIdempotent, Ran::Maybe),
            ]
        );
    }

    #[test]
    fn class_3_and_7_go_by_name() {
        let ran = |status: Status| status.ran();
        assert_eq!(ran(Status::HANDLER_PANIC), Ran::Yes);
        assert_eq!(ran(Status::INTERRUPTED), Ran::Maybe);
        assert_eq!(ran(Status::NOT_SENT), Ran::No);
        assert_eq!(ran(Status::CONNECTION_LOST), Ran::Maybe);
        assert_eq!(ran(Status::TIMEOUT), Ran::Maybe);
        assert_eq!(ran(Status::LOST_REPLY), Ran::Maybe);
        assert_eq!(ran(Status::BAD_REPLY), Ran::Maybe);
        assert_eq!(Status::NO_ENDPOINT.retry(), Retry::Elsewhere);
        assert_eq!(Status::WRONG_SIGNATURE.retry(), Retry::Never);
        assert_eq!(Status::BAD_REPLY.retry(), Retry::IfIdempotent);
    }

    #[test]
    fn close_and_cancel_read_what_does_not_belong() {
        assert_eq!(Status::IDLE.as_close(), Status::IDLE);
        assert_eq!(Status(0x9f).as_close(), Status(0x9f));
        for status in all().filter(|s| s.class() != Class::Connection) {
            assert_eq!(status.as_close(), Status::PROTOCOL_ERROR);
        }
        for status in all().filter(|s| s.0 != 4) {
            assert_eq!(status.as_cancel(), Status::CANCELLED);
        }
        assert_eq!(Status(4).as_cancel(), Status::DEADLINE_EXCEEDED);
    }

    #[test]
    fn a_status_prints_its_name_and_number() {
        assert_eq!(Status::OVERLOADED.to_string(), "OVERLOADED (0x20)");
        assert_eq!(Status::OK.to_string(), "OK (0x00)");
        assert_eq!(Status(0x29).to_string(), "status 0x29");
        assert_eq!(Ran::Maybe.to_string(), "Maybe");
    }
}
