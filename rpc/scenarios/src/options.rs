//! The options of the sockets, as the kernel has them.

use std::{net::SocketAddr, time::Duration};

use rustix::process::{PidfdFlags, PidfdGetfdFlags, getpid, pidfd_getfd, pidfd_open};
use socket2::{SockAddr, Socket};

use crate::{
    Adapter, Client,
    calls::echoing,
    only_peer,
    process::{Part, part},
    wait::until,
};

/// Every TCP socket of this process that has a peer: its own port, the peer's, and a handle of its own.
fn sockets() -> Vec<(u16, u16, Socket)> {
    let process = pidfd_open(getpid(), PidfdFlags::empty()).unwrap();
    let mut sockets = Vec::new();
    for entry in std::fs::read_dir("/proc/self/fd").unwrap() {
        let entry = entry.unwrap();
        let is_socket =
            std::fs::read_link(entry.path()).is_ok_and(|link| link.to_string_lossy().starts_with("socket:"));
        let number = entry.file_name().to_str().unwrap().parse().unwrap();
        let copy = pidfd_getfd(&process, number, PidfdGetfdFlags::empty());
        let Some(socket) = copy.ok().filter(|_| is_socket).map(Socket::from) else { continue };
        let port = |address: std::io::Result<SockAddr>| address.ok()?.as_socket().map(|at| at.port());
        if let (Some(here), Some(there)) = (port(socket.local_addr()), port(socket.peer_addr())) {
            sockets.push((here, there, socket));
        }
    }
    sockets
}

/// TCP_NODELAY and TCP_NOTSENT_LOWAT from the start, TCP_USER_TIMEOUT once the interval is known. In a process of its
/// own, which has no other sockets.
pub fn both_ends_have_their_options<A: Adapter>(test: &str) {
    if part().is_none() {
        return A::block_on(Part::start(test, "alone", "").end::<A>());
    }
    A::block_on(async {
        let server = echoing::<A>(A::ADDRESS).await;
        let interval = Duration::from_secs(2);
        let client = Client::<A>::builder("a").heartbeat_interval(interval).connect(server.address()).await;
        let client = client.unwrap();
        let port = |address: &str| address.parse::<SocketAddr>().unwrap().port();
        let ends = (port(server.address()), port(only_peer::<A>(&server).await.address()));
        // Not before the protocol's own window, three intervals and half a one, is over.
        let dead_after = Some(interval * 3 + interval / 2);
        until::<A>("both ends know their interval", || {
            let timeouts = sockets().into_iter().map(|(.., socket)| socket.tcp_user_timeout().unwrap());
            timeouts.filter(|timeout| *timeout == dead_after).count() == 2
        })
        .await;
        let sockets = sockets();
        assert_eq!(sockets.len(), 2);
        for (here, there, socket) in sockets {
            assert!((here, there) == ends || (there, here) == ends, "{here} to {there}");
            assert!(socket.tcp_nodelay().unwrap(), "{here} to {there}");
            assert_eq!(socket.tcp_notsent_lowat().unwrap(), 128 * 1024, "{here} to {there}");
        }
        drop(client);
    });
}
