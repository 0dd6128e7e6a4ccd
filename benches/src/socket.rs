//! Sockets of all targets alike: one congestion control for every one of them, whatever the system's default is.
//!
//! `bbr` paces, on loopback too, by an estimate that differs from connection to connection; with it the rows of large
//! payloads are a matter of luck. What is set here is set before a connection is made: a socket that was once paced
//! stays so.

use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::sync::OnceLock;

use socket2::{Domain, SockRef, Socket, Type};

use crate::sys;

/// The variable that names another one; `system` leaves the default of the system.
pub const CONGESTION: &str = "BENCH_CONGESTION";
/// Every kernel has it, and lets everybody choose it.
const DEFAULT: &str = "reno";
const SYSTEM: &str = "system";

/// What is in use, for people to read.
pub fn congestion() -> &'static str {
    static NAME: OnceLock<String> = OnceLock::new();
    NAME.get_or_init(|| std::env::var(CONGESTION).unwrap_or_else(|_| DEFAULT.to_owned()))
}

fn choose(socket: SockRef<'_>) -> io::Result<()> {
    match congestion() {
        SYSTEM => Ok(()),
        name => socket.set_tcp_congestion(name.as_bytes()),
    }
}

/// Listens; what is accepted has the same.
pub fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let listener = TcpListener::bind(address)?;
    choose(SockRef::from(&listener))?;
    Ok(listener)
}

/// Where the connections of this process come from, if it is not to be left to the system.
static SOURCE: OnceLock<IpAddr> = OnceLock::new();

/// From now on connections of this process come from `source`. Between two addresses there are only as many connections
/// as there are ports; whoever makes more of them comes from more addresses. The first that is named stays.
pub fn come_from(source: IpAddr) {
    let _ = SOURCE.set(source);
}

/// Connects, and waits until that is done, which on loopback is at once.
pub fn connect(address: SocketAddr) -> io::Result<TcpStream> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
    choose(SockRef::from(&socket))?;
    if let Some(source) = SOURCE.get() {
        sys::choose_port_late(socket.as_fd())?;
        socket.bind(&SocketAddr::new(*source, 0).into())?;
    }
    socket.connect(&address.into())?;
    Ok(socket.into())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn both_ends_have_what_was_chosen() {
        let listener = listen(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
        let near = connect(listener.local_addr().unwrap()).unwrap();
        let (far, _) = listener.accept().unwrap();
        for end in [&near, &far] {
            let name = SockRef::from(end).tcp_congestion().unwrap();
            let name = String::from_utf8(name).unwrap();
            assert_eq!(name.trim_end_matches('\0'), congestion());
        }
    }
}
