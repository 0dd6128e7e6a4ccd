//! Errors: what, where, whether it ran, and what to do.

use std::{io, sync::Arc, time::Duration};

use bytes::Bytes;
use thiserror::Error as ThisError;
use tieline_core::{
    conn::{Body, Closed, ConfigError, Failure, Reply},
    wire::{Escaped, Ran, Retry, Status},
};

use crate::address::Address;

/// Why a call has no good answer.
///
/// The message says which node was asked, what happened, and whether the call ran:
///
/// ```text
/// node two (127.0.0.1:7002): CONNECTION_LOST (0xe1): the peer ended the stream (the call may have run)
/// ```
#[derive(Debug, Clone, PartialEq, Eq, ThisError)]
#[error("{node}: {failure}")]
pub struct CallError {
    pub(crate) node: Arc<str>,
    pub(crate) failure: Failure,
}

impl CallError {
    /// A failure of a call to `node`: for adapters that make calls by themselves.
    #[must_use]
    pub fn new(node: &str, failure: Failure) -> Self {
        Self { node: node.into(), failure }
    }

    /// The status (protocol §6): the handler's own, or what the runtime, a layer or this side says.
    #[must_use]
    pub fn status(&self) -> Status {
        self.failure.status()
    }

    /// Whether the call ran: what decides if it may be sent again.
    #[must_use]
    pub fn ran(&self) -> Ran {
        self.failure.ran()
    }

    /// What a caller may do about it.
    #[must_use]
    pub fn retry(&self) -> Retry {
        self.failure.status().retry()
    }

    /// Which node was asked, for people to read.
    #[must_use]
    pub fn node(&self) -> &str {
        &self.node
    }

    /// The message of whoever refused or failed the call. It may come from the peer: escape it before you log it, or
    /// log the whole error, which does.
    #[must_use]
    pub fn message(&self) -> &str {
        self.failure.message()
    }

    /// The payload that came along with the error.
    #[must_use]
    pub fn detail(&self) -> &Bytes {
        self.failure.detail()
    }

    /// The application's own code, with statuses of class 6.
    #[must_use]
    pub fn code(&self) -> u32 {
        self.failure.code()
    }

    /// How long to wait before another try, if the node said so.
    #[must_use]
    pub fn retry_after(&self) -> Option<Duration> {
        self.failure.retry_after()
    }
}

/// What a handler answers when it has no good answer.
///
/// ```
/// use tieline::{Error, Status};
///
/// let error = Error::new(Status::NOT_FOUND, "nobody of that name is here");
/// assert_eq!(error.to_string(), "NOT_FOUND (0x05): nobody of that name is here");
/// ```
#[derive(Debug, Clone, PartialEq, Eq, ThisError)]
#[error("{}: {}", .0.status, Escaped(.0.message.as_bytes()))]
pub struct Error(pub(crate) Box<ErrorParts>);

/// In a box, so that the result of a handler that has a good answer takes no more room than the answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ErrorParts {
    pub(crate) status: Status,
    pub(crate) message: String,
    pub(crate) code: u32,
    pub(crate) detail: Bytes,
    pub(crate) retry_after: Option<Duration>,
}

impl Error {
    /// A status of class 0, with a message for people. Any other class but 6 reaches the caller as `INTERNAL`.
    #[must_use]
    pub fn new(status: Status, message: impl Into<String>) -> Self {
        let message = message.into();
        Self(Box::new(ErrorParts { status, message, code: 0, detail: Bytes::new(), retry_after: None }))
    }

    /// An error of the application's own: status C0, with a code of 32 bits.
    #[must_use]
    pub fn application(code: u32, message: impl Into<String>) -> Self {
        let mut error = Self::new(Status(0xC0), message);
        error.0.code = code;
        error
    }

    /// Detail for programs to read.
    #[must_use]
    pub fn detail(mut self, detail: impl Into<Bytes>) -> Self {
        self.0.detail = detail.into();
        self
    }

    /// How long the caller should wait before another try.
    #[must_use]
    pub fn retry_after(mut self, after: Duration) -> Self {
        self.0.retry_after = Some(after);
        self
    }

    /// The status.
    #[must_use]
    pub fn status(&self) -> Status {
        self.0.status
    }

    /// The message.
    #[must_use]
    pub fn message(&self) -> &str {
        &self.0.message
    }

    /// What goes out for it: for adapters that answer calls by themselves.
    #[must_use]
    pub fn reply(&self) -> Reply<'_> {
        let mut reply = Reply::error(self.0.status, &self.0.message);
        reply.body = Body::Share(self.0.detail.clone());
        reply.code = self.0.code;
        reply.retry_after = self.0.retry_after;
        reply
    }
}

/// A call that fails inside a handler fails the handler: what the other node answered by itself is passed on, all else
/// is `INTERNAL` here, with the whole story as the message.
impl From<CallError> for Error {
    fn from(error: CallError) -> Self {
        use tieline_core::wire::Class;
        match error.status().class() {
            Class::Handler | Class::Application => Self(Box::new(ErrorParts {
                status: error.status(),
                message: error.message().to_owned(),
                code: error.code(),
                detail: error.detail().clone(),
                retry_after: error.retry_after(),
            })),
            _ => Self::new(Status::INTERNAL, error.to_string()),
        }
    }
}

/// Why there is no connection.
#[derive(Debug, ThisError)]
#[non_exhaustive]
pub enum ConnectError {
    /// The configuration is wrong.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// Nobody could be dialled.
    #[error("cannot connect to {address}: {source}; is a node listening there?")]
    Dial {
        /// Who was dialled.
        address: String,
        /// What the transport reported.
        source: io::Error,
    },
    /// Somebody answered, but check-in did not come about.
    #[error("{address} did not check in: {closed}{}", hint(closed))]
    CheckIn {
        /// Who was dialled.
        address: String,
        /// How it ended.
        closed: Closed,
    },
}

impl ConnectError {
    /// How the connection ended, if there was one.
    pub(crate) fn closed(&self) -> Option<&Closed> {
        match self {
            Self::CheckIn { closed, .. } => Some(closed),
            _ => None,
        }
    }
}

/// What to do about it.
fn hint(closed: &Closed) -> &'static str {
    match closed.status {
        Status::VERSION_UNSUPPORTED => "; bring both ends to the same version",
        Status::CHECK_IN_REFUSED => "; look at the identifier and the credential",
        Status::IDENTITY_CONFLICT => "; another process uses this identifier",
        Status::TOO_MANY_CONNECTIONS => "; the node is full, try later",
        Status::CHECK_IN_TIMEOUT => "; is it a Tieline node?",
        Status::PROTOCOL_ERROR => "; is it a Tieline node of this version?",
        Status::CONNECTION_LOST => "; is it a Tieline node, and is it up?",
        _ => "",
    }
}

/// Why a server does not listen.
#[derive(Debug, ThisError)]
#[non_exhaustive]
pub enum ListenError {
    /// The configuration is wrong.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The address could not be taken.
    #[error("cannot listen on {address}: {source}; {}", listen_hint(address, source))]
    Listen {
        /// The address.
        address: String,
        /// What the transport reported.
        source: io::Error,
    },
}

fn listen_hint(address: &str, error: &io::Error) -> &'static str {
    match (Address::parse(address), error.kind()) {
        (Address::Tcp(_), io::ErrorKind::AddrInUse) => {
            "stop who uses the port, or take port 0 and let the kernel choose one"
        }
        (Address::Tcp(_), io::ErrorKind::PermissionDenied) => {
            "ports below 1024 are for root; take a higher one"
        }
        (Address::Tcp(_), io::ErrorKind::AddrNotAvailable) => "the address is not one of this machine",
        (Address::Tcp(_), _) => "give it as HOST:PORT, e.g. 127.0.0.1:0, or as unix:/PATH",
        (Address::Unix(_), io::ErrorKind::AddrInUse) => "stop who uses the path, or take another one",
        (Address::Unix(_), io::ErrorKind::AlreadyExists) => "move the file away, or take another path",
        (Address::Unix(_), io::ErrorKind::NotFound) => "make its directory first",
        (Address::Unix(_), io::ErrorKind::PermissionDenied) => {
            "take a directory in which this user may make files"
        }
        (Address::Unix(_), io::ErrorKind::Unsupported) => "give it as HOST:PORT, e.g. 127.0.0.1:0",
        (Address::Unix(_), _) => "give it as unix:/PATH, e.g. unix:/run/node.sock",
    }
}
