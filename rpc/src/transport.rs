//! What everybody who drives connections by a transport of the system decides alike.

use std::{io, time::Duration};

/// The first wait after an accept that failed for want of something that the process lacks, and the longest: it doubles
/// from the one to the other. Those who wait to be accepted stay in the backlog.
pub const ACCEPT_PAUSES: [Duration; 2] = [Duration::from_millis(10), Duration::from_millis(100)];

/// Whether an error of accept(2) is of the connection that would have been accepted. All others are of the process: no
/// descriptors, no memory. Neither ends a listener.
///
/// ```
/// use std::io::{Error, ErrorKind};
/// use tieline::transport::is_of_one_connection;
///
/// assert!(is_of_one_connection(&ErrorKind::ConnectionAborted.into()));
/// assert!(!is_of_one_connection(&Error::from_raw_os_error(24)), "EMFILE");
/// ```
#[must_use]
pub fn is_of_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind as Kind;
    matches!(
        error.kind(),
        Kind::ConnectionAborted
            | Kind::ConnectionReset
            | Kind::ConnectionRefused
            | Kind::Interrupted
            | Kind::HostUnreachable
            | Kind::NetworkUnreachable
            | Kind::NetworkDown
            | Kind::TimedOut
            | Kind::PermissionDenied
    )
}

/// When a transport that watches by itself may give a peer up: not before the protocol does (protocol §5, "Heartbeat"),
/// whose reason says more. `interval` is the heartbeat interval that was granted.
#[must_use]
pub fn dead_after(interval: Duration) -> Duration {
    interval * 3 + (interval / 2).max(Duration::from_millis(500))
}

/// What went wrong with the transport, for people.
#[must_use]
pub fn what_broke(error: &io::Error) -> &'static str {
    #[cfg(feature = "tls")]
    if let Some(error) = error.get_ref().and_then(|error| error.downcast_ref::<crate::tls::TlsError>()) {
        return error.brief();
    }
    match error.kind() {
        io::ErrorKind::ConnectionReset => "the peer reset the connection",
        io::ErrorKind::BrokenPipe => "the peer has closed the connection",
        io::ErrorKind::TimedOut => "the peer's machine does not answer",
        io::ErrorKind::ConnectionAborted => "the connection was aborted",
        io::ErrorKind::WriteZero => "the transport takes nothing",
        io::ErrorKind::ConnectionRefused => "nobody listens there",
        io::ErrorKind::HostUnreachable | io::ErrorKind::NetworkUnreachable => "the peer cannot be reached",
        _ => "the transport failed",
    }
}
