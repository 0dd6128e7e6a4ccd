//! The entries of a recording: each verb with what it was given and what it led to.

use alloc::{borrow::Cow, vec::Vec};
use core::time::Duration;

use super::{
    ink::{Damage, Reader},
    pieces::Pieces,
};
use crate::{
    conn::{CallHead, CallId, ItemError, Rejection, ReplyError, Served, Stats, Stream},
    time::Instant,
    wire::{Kind, Metadata, Ran, Status},
};

/// A verb, by what it says about a call of the peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum How {
    Reply,
    Refuse,
    Panicked,
}

/// What an application gave: how long it was, and the beginning.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Given<'a> {
    pub(crate) len: usize,
    pub(crate) kept: &'a [u8],
}

impl Given<'_> {
    /// With zeros for what was cut.
    pub(crate) fn restore(&self) -> Vec<u8> {
        let mut octets = self.kept.to_vec();
        octets.resize(self.len, 0);
        octets
    }
}

/// What an answer says besides its body.
#[derive(Debug, Clone)]
pub(crate) struct Answered<'a> {
    pub(crate) status: Status,
    pub(crate) message: &'a str,
    pub(crate) code: u32,
    pub(crate) retry_after: Option<Duration>,
    pub(crate) owner: &'a str,
    pub(crate) metadata: Cow<'a, [Metadata<'a>]>,
}

/// What `poll_event` returned. Payloads are told by length and [digest](super::scan::Digest).
#[derive(Debug, Clone, Copy)]
pub(crate) enum Told<'a> {
    Nothing,
    Request {
        call: Served,
        method: u32,
        one_way: bool,
        priority: i8,
        codec: u32,
        kind: Kind,
        deadline: Option<Instant>,
        len: u64,
        digest: u32,
    },
    /// A good answer.
    Done {
        len: u64,
        digest: u32,
        rest: u64,
    },
    /// Anything else, in words.
    Other(&'a str),
}

/// What `take_item` found.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Found {
    Nothing,
    End,
    Item { len: u64, digest: u32 },
}

/// How a connection stood when a part of the recording began.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Mark<'a> {
    pub(crate) now: Instant,
    pub(crate) phase: &'a str,
    /// Open calls of this side, and of the peer.
    pub(crate) open: (u64, u64),
    pub(crate) highest: (u64, u64),
    pub(crate) unsent: u64,
    pub(crate) stats: Stats,
    /// In each direction, in and out: the header of the frame that is passing, and how much of its body is to come.
    pub(crate) places: [(&'a [u8], u64); 2],
}

#[derive(Debug, Clone)]
pub(crate) enum Entry<'a> {
    Input(Pieces<'a>),
    Sent(u64),
    /// The end of the stream, or an error of the transport.
    Disconnect(Option<&'a str>),
    Timeout,
    Call {
        head: CallHead<'a>,
        metadata: Cow<'a, [Metadata<'a>]>,
        one_way: bool,
        body: Given<'a>,
        result: Result<CallId, Rejection>,
    },
    /// Whether the call may have run; `None` if its outcome was fetched before.
    Cancel {
        call: CallId,
        ran: Option<Ran>,
    },
    Reply {
        how: How,
        call: Served,
        answer: Answered<'a>,
        body: Given<'a>,
        result: Result<(), ReplyError>,
    },
    SendItem {
        stream: Stream,
        body: Given<'a>,
        result: Result<(), ItemError>,
    },
    EndItems {
        call: CallId,
        result: Result<(), ItemError>,
    },
    TakeItem {
        stream: Stream,
        found: Found,
    },
    Grant {
        stream: Stream,
        octets: u32,
    },
    Accept,
    Refuse {
        status: Status,
        message: &'a str,
        retry_after: Option<Duration>,
    },
    Probe(bool),
    Drain {
        status: Status,
        grace: Duration,
        message: &'a str,
    },
    Close {
        status: Status,
        message: &'a str,
    },
    Event(Told<'a>),
    /// How much room the outbox had, and how much for large messages alone; what was committed, payloads cut; a digest of
    /// all of it while nothing was cut.
    Transmit {
        room: u64,
        bulk: u64,
        pieces: Pieces<'a>,
        digest: u32,
    },
    Mark(Mark<'a>),
    /// A verb that was too large to be written down.
    Lost(u64),
}

pub(super) const REJECTIONS: [Rejection; 7] = [
    Rejection::Full,
    Rejection::Draining,
    Rejection::Closed,
    Rejection::TooLarge,
    Rejection::NotServed,
    Rejection::BadHead,
    Rejection::WrongSignature,
];
pub(super) const REPLY_ERRORS: [ReplyError; 2] = [ReplyError::Answered, ReplyError::Unknown];
pub(super) const ITEM_ERRORS: [ItemError; 3] = [ItemError::Full, ItemError::TooLarge, ItemError::Over];
pub(super) const RANS: [Ran; 3] = [Ran::No, Ran::Maybe, Ran::Yes];
pub(super) const HOWS: [How; 3] = [How::Reply, How::Refuse, How::Panicked];

/// Splits entries that stand one behind the other: where each begins, and its octets.
pub(crate) fn entries(octets: &[u8]) -> impl Iterator<Item = Result<(usize, &[u8]), Damage>> {
    let mut reader = Reader::new(octets);
    let mut damaged = false;
    core::iter::from_fn(move || {
        if damaged || reader.is_empty() {
            return None;
        }
        let entry = reader.octets();
        damaged = entry.is_err();
        Some(entry.map(|entry| (reader.at().saturating_sub(entry.len()), entry)))
    })
}
