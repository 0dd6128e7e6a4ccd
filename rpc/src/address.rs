//! How addresses are written, the same on every adapter.

use std::{io, path::Path};

/// The prefix of the path of a Unix socket.
const UNIX: &str = "unix:";

/// Where to dial or to listen: `host:port` for TCP, `unix:/path` for a Unix socket.
///
/// Adapters parse what was given to [`Runtime::connect`](crate::Runtime::connect) and
/// [`Runtime::listen`](crate::Runtime::listen) with it.
///
/// ```
/// use std::{io, path::Path};
/// use tieline::Address;
///
/// assert_eq!(Address::parse("127.0.0.1:7400"), Address::Tcp("127.0.0.1:7400"));
/// assert_eq!(Address::parse("unix:/run/node.sock"), Address::Unix(Path::new("/run/node.sock")));
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Address<'a> {
    /// A host, by name or number, and a port. It is not looked at here: the resolver says what is wrong with it.
    Tcp(&'a str),
    /// The path of a Unix socket.
    Unix(&'a Path),
}

impl<'a> Address<'a> {
    /// Reads an address. There is none that is wrong: whatever does not begin with `unix:` is for the resolver.
    #[must_use]
    pub fn parse(address: &'a str) -> Self {
        match address.strip_prefix(UNIX) {
            Some(path) => Self::Unix(Path::new(path)),
            None => Self::Tcp(address),
        }
    }

    /// What an adapter says of an address of a kind that it does not have.
    #[must_use]
    pub fn unsupported(&self) -> io::Error {
        let what = match self {
            Self::Tcp(_) => "there is no TCP here",
            Self::Unix(_) => "there are no Unix sockets here",
        };
        io::Error::new(io::ErrorKind::Unsupported, what)
    }
}
