//! What a connection tells the application, and what the application tells it.

use alloc::{boxed::Box, string::String, sync::Arc, vec::Vec};
use core::{fmt, time::Duration};

use bytes::Bytes;
use thiserror::Error;

use super::rest::Rest;
use crate::{
    time::Instant,
    wire::{Escaped, Kind, Metadata, Ran, Request, Response, Status},
};

/// What happened, from [`Connection::poll_event`](super::Connection::poll_event).
#[derive(Debug)]
#[non_exhaustive]
pub enum Event<U> {
    /// A client would check in and the configuration asks to verify. Decide within 5 s with
    /// [`accept_check_in`](super::Connection::accept_check_in) or
    /// [`refuse_check_in`](super::Connection::refuse_check_in).
    CheckIn(Box<CheckingIn>),
    /// Check-in is complete: calls flow from now on.
    Ready(Arc<PeerInfo>),
    /// The peer calls, or sends a one-way. The call is running from now on; say what became of it with
    /// [`reply`](super::Connection::reply), [`refuse`](super::Connection::refuse) or
    /// [`stopped`](super::Connection::stopped).
    Request(Incoming),
    /// A running call need not go on: its answer, if it had to have one, is given already. It holds its place until
    /// the application says that it has stopped.
    Cancelled(Served, Cancel),
    /// A call of this side has ended, and this is its one outcome.
    Done {
        /// What the application gave along with the call.
        user: U,
        /// The answer, or why there is none.
        outcome: Result<Answer, Failure>,
        /// The items of its stream that were not taken before: they belong before the outcome.
        rest: Rest,
    },
    /// Items of a stream can be taken, or its end: call [`take_item`](super::Connection::take_item) until it returns
    /// nothing. Told again only for what comes after that.
    Readable(Stream),
    /// After [`send_item`](super::Connection::send_item) found no room: there is room again.
    Writable(Stream),
    /// After a refusal for want of room: there is room again.
    Room,
    /// The peer drains: it accepts no new calls on this connection. What is open goes on.
    Draining {
        /// When the peer will end the connection at the latest.
        until: Instant,
        /// Why, e.g. `GOING_AWAY`.
        status: Status,
    },
    /// After a [`probe`](super::Connection::probe): the peer has answered a HEARTBEAT.
    Alive,
    /// The connection is over. Always the last event, and there is just one.
    Closed(Closed),
}

/// What the peer said of itself at check-in, in range and clamped (protocol §4).
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct PeerInfo {
    /// Who it says that it is.
    pub identifier: String,
    /// Its instance number; 0 if it did not say.
    pub instance: u64,
    /// The heartbeat interval that was granted: both sides keep it.
    pub heartbeat_interval: Duration,
    /// The longest frame body that it reads.
    pub max_frame: u32,
    /// The largest payload that it reads.
    pub max_message: u32,
    /// The largest stream item that it reads.
    pub max_item: u32,
    /// The calls that it serves at once.
    pub max_concurrent: u32,
    /// Of those, how many may stream.
    pub max_streams: u32,
    /// The initial credit for items sent to it.
    pub stream_window: u32,
    /// Whether both sides understand Snappy.
    pub snappy: bool,
    /// Zone, weight, version and the like.
    pub labels: Vec<(String, String)>,
}

/// A check-in that waits for a decision.
#[derive(Debug)]
#[non_exhaustive]
pub struct CheckingIn {
    /// What the client said of itself.
    pub peer: Arc<PeerInfo>,
    /// What it showed as its credential; opaque to the protocol.
    pub credential: Bytes,
}

/// A call of this side: names it from [`Connection::call`](super::Connection::call) until its outcome.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct CallId {
    pub(crate) slot: u32,
    pub(crate) generation: u32,
}

/// A call of the peer that is being served: a slot and a generation, so that a name that is used too late finds
/// nothing, and never another call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Served {
    pub(crate) slot: u32,
    pub(crate) generation: u32,
}

impl Served {
    /// The slot: dense, and below three times the announced `max_concurrent` plus 17 plus the bound of one-ways. An
    /// application may keep what belongs to the call in an array by it.
    #[must_use]
    pub const fn slot(self) -> usize {
        self.slot as usize
    }
}

impl CallId {
    /// The slot: dense, and below `max_calls`. An application may keep what belongs to the call in an array by it.
    #[must_use]
    pub const fn slot(self) -> usize {
        self.slot as usize
    }
}

/// A call that streams, of either side.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Stream {
    /// One that this side made.
    Ours(CallId),
    /// One of the peer that is being served.
    Theirs(Served),
}

impl From<CallId> for Stream {
    fn from(id: CallId) -> Self {
        Self::Ours(id)
    }
}

impl From<Served> for Stream {
    fn from(call: Served) -> Self {
        Self::Theirs(call)
    }
}

/// What [`Connection::take_item`](super::Connection::take_item) found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Taken {
    /// The next item.
    Item(Bytes),
    /// The caller sends no more items. Told as often as it is asked.
    End,
}

/// Why an item, or the end of the items, was not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Error)]
pub enum ItemError {
    /// As much waits as may. [`Event::Writable`] says when to try again.
    #[error("as many items wait to be sent as may; try again at Writable")]
    Full,
    /// Larger than the peer reads.
    #[error("the item is larger than the peer reads")]
    TooLarge,
    /// The call is over, its kind has no items in this direction, or they have been ended.
    #[error("the stream is over, or sends no items in this direction")]
    Over,
}

/// A call that the peer makes.
#[derive(Debug)]
#[non_exhaustive]
pub struct Incoming {
    /// Names it.
    pub call: Served,
    /// The index of the method in the configuration.
    pub method: u32,
    /// Whether nobody waits for an answer.
    pub one_way: bool,
    /// −1 background, 0, or 1.
    pub priority: i8,
    /// The codec of the argument: one that the method was configured with.
    pub codec: u32,
    /// The kind of the method: which directions stream.
    pub kind: Kind,
    /// When the caller stops waiting.
    pub deadline: Option<Instant>,
    /// The argument.
    pub payload: Bytes,
    /// The envelope, if it says more than the fields above.
    pub(crate) envelope: Option<Box<[u8]>>,
}

impl Incoming {
    /// The metadata, in the order of the sender.
    pub fn metadata(&self) -> impl Iterator<Item = Metadata<'_>> {
        self.request().metadata.iter()
    }

    /// The W3C trace context as it was sent; empty if there is none.
    #[must_use]
    pub fn trace(&self) -> &[u8] {
        self.request().trace
    }

    /// The ordering key; empty if there is none.
    #[must_use]
    pub fn ordering_key(&self) -> &[u8] {
        self.request().ordering_key
    }

    /// It decoded when it came in; an empty envelope is an empty request.
    fn request(&self) -> Request<'_> {
        Request::parse(self.envelope.as_deref().unwrap_or_default()).unwrap_or_default()
    }
}

/// Why a running call need not go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Cancel {
    /// The caller gave it up.
    ByCaller,
    /// Its deadline has passed.
    Expired,
    /// An item of its stream was too large, could not be decompressed, or never came whole.
    BrokenItem,
    /// The connection has ended, or will before the call could.
    Disconnected,
}

/// A good answer.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Answer {
    /// The result.
    pub payload: Bytes,
    /// The envelope, if it says anything.
    pub(crate) envelope: Option<Box<Envelope>>,
}

/// An envelope that is kept. In a box of its own, so that an answer without one, which is nearly every one, is shorter and
/// moved in fewer steps.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Envelope(pub(crate) Box<[u8]>);

impl Answer {
    fn response(&self) -> Response<'_> {
        let envelope = self.envelope.as_ref().map_or(&[][..], |envelope| &envelope.0);
        Response::parse(envelope).unwrap_or_default()
    }

    /// What the responder says to its result, in words; mostly nothing. It comes from the peer: escape it before you log
    /// it.
    #[must_use]
    pub fn message(&self) -> &str {
        self.response().message
    }

    /// The metadata, in the order of the responder.
    pub fn metadata(&self) -> impl Iterator<Item = Metadata<'_>> {
        self.response().metadata.iter()
    }
}

/// Why a call has no good answer: what, whether it ran, and what to do about it.
#[derive(Clone, PartialEq, Eq)]
pub struct Failure(Box<FailureParts>);

#[derive(Debug, Clone, PartialEq, Eq)]
struct FailureParts {
    status: Status,
    ran: Ran,
    message: String,
    detail: Bytes,
    envelope: Option<Box<[u8]>>,
}

impl Failure {
    /// A failure that arose on this side.
    #[must_use]
    pub fn local(status: Status, ran: Ran, message: &str) -> Self {
        Self::new(status, ran, message, Bytes::new(), None)
    }

    pub(crate) fn new(
        status: Status,
        ran: Ran,
        message: &str,
        detail: Bytes,
        envelope: Option<Box<[u8]>>,
    ) -> Self {
        Self(Box::new(FailureParts { status, ran, message: message.into(), detail, envelope }))
    }

    /// The status (protocol §6).
    #[must_use]
    pub fn status(&self) -> Status {
        self.0.status
    }

    /// Whether the handler ran.
    #[must_use]
    pub fn ran(&self) -> Ran {
        self.0.ran
    }

    /// The message, as the peer or the core wrote it: escape it before you log it.
    #[must_use]
    pub fn message(&self) -> &str {
        &self.0.message
    }

    /// The payload that came along with an error.
    #[must_use]
    pub fn detail(&self) -> &Bytes {
        &self.0.detail
    }

    /// The application's own code, with statuses of class 6.
    #[must_use]
    pub fn code(&self) -> u32 {
        self.response().code
    }

    /// How long to wait before another try, if the peer said so; at most 5 min.
    #[must_use]
    pub fn retry_after(&self) -> Option<Duration> {
        let ms = self.response().retry_after_ms.min(300_000);
        (ms > 0).then(|| Duration::from_millis(ms.into()))
    }

    /// The node that should have been asked, with `WRONG_NODE`; empty otherwise.
    #[must_use]
    pub fn owner(&self) -> &str {
        self.response().owner
    }

    /// The metadata, in the order of the responder.
    pub fn metadata(&self) -> impl Iterator<Item = Metadata<'_>> {
        self.response().metadata.iter()
    }

    fn response(&self) -> Response<'_> {
        Response::parse(self.0.envelope.as_deref().unwrap_or_default()).unwrap_or_default()
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let parts = &self.0;
        write!(f, "{}", parts.status)?;
        if !parts.message.is_empty() {
            write!(f, ": {}", Escaped(parts.message.as_bytes()))?;
        }
        f.write_str(match parts.ran {
            Ran::No => " (the call did not run)",
            Ran::Maybe => " (the call may have run)",
            Ran::Yes => " (the call ran)",
        })
    }
}

impl core::error::Error for Failure {}

impl fmt::Debug for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Failure({self})")
    }
}

/// Who ended a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum By {
    /// This side.
    Us,
    /// The peer, with CLOSE or a refused check-in.
    Peer,
    /// The transport: end of stream, or an error.
    Transport,
}

/// How a connection ended.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Closed {
    /// Who ended it.
    pub by: By,
    /// Why; always of class 4, or `CONNECTION_LOST` if the transport ended it.
    pub status: Status,
    /// More about it; escaped if it came from the peer.
    pub message: String,
    /// How long the peer asked us to stay away.
    pub retry_after: Option<Duration>,
}

impl fmt::Display for Closed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let by = match self.by {
            By::Us => "closed by this side",
            By::Peer => "closed by the peer",
            By::Transport => "the transport ended",
        };
        write!(f, "{by}: {}", self.status)?;
        if self.message.is_empty() { Ok(()) } else { write!(f, ": {}", self.message) }
    }
}

/// How the transport ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Disconnect {
    /// The peer has shut down its writing: a read returned 0.
    Eof,
    /// A read or a write failed, or could not be waited for any longer.
    Error(&'static str),
}

/// The body of what is sent.
#[derive(Debug, Clone)]
pub enum Body<'a> {
    /// Is copied, at once.
    Copy(&'a [u8]),
    /// Is kept as it is, if it is long enough to make that worth while.
    Share(Bytes),
}

impl Body<'_> {
    #[inline]
    pub(crate) fn octets(&self) -> &[u8] {
        match self {
            Self::Copy(octets) => octets,
            Self::Share(octets) => octets,
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.octets().len()
    }
}

impl<'a> From<&'a [u8]> for Body<'a> {
    fn from(octets: &'a [u8]) -> Self {
        Self::Copy(octets)
    }
}

impl From<Bytes> for Body<'_> {
    fn from(octets: Bytes) -> Self {
        Self::Share(octets)
    }
}

/// What a call says besides its argument.
#[derive(Debug, Clone, Copy, Default)]
#[non_exhaustive]
pub struct CallHead<'a> {
    /// The method, `package.Service/Method`.
    pub method: &'a str,
    /// When this side stops waiting. `None`: it waits as long as the connection lives.
    pub deadline: Option<Instant>,
    /// −1 background, 0 or 1; others are clamped. Orders what waits.
    pub priority: i8,
    /// The codec of the argument and the result (protocol §5, `Request.codec`).
    pub codec: u32,
    /// The fingerprint of the signature that this side knows; 0 is unknown.
    pub fingerprint: u64,
    /// At most 64 of them, keys `[a-z0-9-]{1,64}`.
    pub metadata: &'a [Metadata<'a>],
    /// W3C trace context: version 1, trace id 16, parent id 8, flags 1 octets.
    pub trace: &'a [u8],
    /// The served call on whose behalf this one is made: it may still go out while this side drains.
    pub parent: Option<Served>,
    /// Which directions stream; it must be the method's. Default: none.
    pub kind: Kind,
    /// The initial credit for items sent to this side on this call, instead of `stream_window`; held to 2^31−1.
    pub credit: Option<u32>,
    /// Calls with one key run one after the other, in the order in which they go out; at most 64 octets, empty is none.
    pub ordering_key: &'a [u8],
    /// Compresses argument and items where that gains an eighth, if the peer understands it.
    pub compress: bool,
}

impl<'a> CallHead<'a> {
    /// A call of `method`, without a deadline, with codec raw.
    #[must_use]
    pub const fn new(method: &'a str) -> Self {
        Self {
            method,
            deadline: None,
            priority: 0,
            codec: 0,
            fingerprint: 0,
            metadata: &[],
            trace: &[],
            parent: None,
            kind: Kind::Unary,
            credit: None,
            ordering_key: &[],
            compress: false,
        }
    }

    /// Whether there is nothing special about it: the usual case.
    #[inline]
    pub(crate) fn is_plain(&self) -> bool {
        self.metadata.is_empty()
            && self.trace.is_empty()
            && self.ordering_key.is_empty()
            && self.codec == 0
            && self.priority == 0
            && self.kind == Kind::Unary
            && !self.compress
    }

    /// The same with a deadline.
    #[must_use]
    pub const fn deadline(mut self, deadline: Option<Instant>) -> Self {
        self.deadline = deadline;
        self
    }
}

/// What a handler answers.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Reply<'a> {
    /// `OK`, or another status of class 0 or 6. Any other goes out as `INTERNAL`: they belong to the runtime.
    pub status: Status,
    /// The result, or detail of the error.
    pub body: Body<'a>,
    /// In words, for people; with errors.
    pub message: &'a str,
    /// The application's own code, with class 6.
    pub code: u32,
    /// How long the caller should wait before another try.
    pub retry_after: Option<Duration>,
    /// The node that should have been asked, when refusing with `WRONG_NODE`.
    pub owner: &'a str,
    /// At most 64 of them, keys `[a-z0-9-]{1,64}`.
    pub metadata: &'a [Metadata<'a>],
}

impl<'a> Reply<'a> {
    /// A good answer.
    #[must_use]
    pub const fn ok(body: Body<'a>) -> Self {
        Self { status: Status::OK, body, message: "", code: 0, retry_after: None, owner: "", metadata: &[] }
    }

    /// An error with a message.
    #[must_use]
    pub const fn error(status: Status, message: &'a str) -> Self {
        Self { status, body: Body::Copy(&[]), message, code: 0, retry_after: None, owner: "", metadata: &[] }
    }

    /// Whether the envelope is empty: the usual case.
    pub(crate) const fn is_plain(&self) -> bool {
        self.message.is_empty()
            && self.code == 0
            && self.retry_after.is_none()
            && self.owner.is_empty()
            && self.metadata.is_empty()
    }
}

/// Why an answer was of no use any more. In both cases the call's place is free now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum ReplyError {
    /// The call was cancelled, expired or cut off before, and has been answered accordingly.
    #[error("the call was answered before: it was cancelled, expired or cut off")]
    Answered,
    /// No such call: its place was given back before, or the connection is over.
    #[error("no such call: its place was given back before, or the connection is over")]
    Unknown,
}

/// A call that was not accepted. Nothing of it left, and the value that came with it comes back.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{reason}")]
pub struct Rejected<U> {
    /// What the application gave along with the call.
    pub user: U,
    /// Why.
    pub reason: Rejection,
}

/// Why a call was not accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Error)]
#[non_exhaustive]
pub enum Rejection {
    /// Too much waits already. [`Event::Room`] says when to try again.
    #[error("too many calls wait on this connection; try again at Room, or elsewhere")]
    Full,
    /// This side or the peer drains; nothing new begins here.
    #[error("the connection drains; call elsewhere")]
    Draining,
    /// The connection is over.
    #[error("the connection is over; call elsewhere")]
    Closed,
    /// Larger than the peer reads, or than may wait here.
    #[error("the call is larger than the peer reads or than may wait to be sent")]
    TooLarge,
    /// The peer serves no calls at all, or no streams.
    #[error("the peer serves no such calls")]
    NotServed,
    /// The method's name is empty or longer than 255 octets, or a key or the amount of metadata is out of bounds.
    #[error("the method name, the ordering key or the metadata is out of bounds")]
    BadHead,
    /// The peer's method of that name has another signature.
    #[error("the peer's method has another signature; bring both ends to the same version")]
    WrongSignature,
}

impl Rejection {
    /// The status that a caller sees for it.
    #[must_use]
    pub const fn status(self) -> Status {
        match self {
            Self::Full | Self::TooLarge | Self::BadHead => Status::LOCAL_LIMIT,
            Self::Draining | Self::Closed | Self::NotServed => Status::NOT_SENT,
            Self::WrongSignature => Status::WRONG_SIGNATURE,
        }
    }
}

/// What is worth doing next; see [`Connection::next`](super::Connection::next).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Next {
    /// Whether octets from the transport are wanted.
    pub read: bool,
    /// Whether [`poll_transmit`](super::Connection::poll_transmit) would append something.
    pub write: bool,
    /// Whether [`poll_event`](super::Connection::poll_event) may return something.
    pub event: bool,
    /// When [`handle_timeout`](super::Connection::handle_timeout) is due.
    pub wake: Option<Instant>,
    /// How far the end has come, and what that asks of the transport.
    pub end: End,
}

/// How far the end of a connection has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum End {
    /// It is open.
    Open,
    /// Shut down writing when everything committed is sent; go on reading until the peer does the same, so that the
    /// reason of the close is not lost in a reset.
    ShutWrite,
    /// Close the transport now, whatever has not been sent: the peer has gone, has said CLOSE, or does not take it.
    Close,
}
