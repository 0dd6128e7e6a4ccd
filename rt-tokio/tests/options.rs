//! The options of the sockets, as the kernel has them.
#![cfg(target_os = "linux")]
// Looking at the sockets of this very process takes their numbers, which nobody hands out.
#![allow(unsafe_code, clippy::unwrap_used, clippy::panic)]

mod support;

use std::{os::fd::BorrowedFd, time::Duration};

use socket2::SockRef;
use support::{echo, only_peer, until};
use tieline_tokio::Client;

/// Does something with every TCP socket of this process that has a peer, and names it by its two ports.
fn sockets(mut see: impl FnMut((u16, u16), SockRef<'_>)) {
    for entry in std::fs::read_dir("/proc/self/fd").unwrap() {
        let entry = entry.unwrap();
        let is_socket =
            std::fs::read_link(entry.path()).is_ok_and(|link| link.to_string_lossy().starts_with("socket:"));
        let number: i32 = entry.file_name().to_str().unwrap().parse().unwrap();
        if !is_socket {
            continue;
        }
        // SAFETY: the process has no other thread, so the descriptor stays open while it is borrowed here.
        let fd = unsafe { BorrowedFd::borrow_raw(number) };
        let socket = SockRef::from(&fd);
        let port = |address: std::io::Result<socket2::SockAddr>| Some(address.ok()?.as_socket()?.port());
        if let (Some(here), Some(there)) = (port(socket.local_addr()), port(socket.peer_addr())) {
            see((here, there), socket);
        }
    }
}

#[tokio::test]
async fn both_ends_have_their_options() {
    let server = echo("127.0.0.1:0").await;
    let interval = Duration::from_secs(2);
    let client = Client::builder("a").heartbeat_interval(interval).connect(server.address()).await.unwrap();
    let port: u16 = server.address().rsplit_once(':').unwrap().1.parse().unwrap();
    let peer = only_peer(&server).await;
    let client_port: u16 = peer.address().rsplit_once(':').unwrap().1.parse().unwrap();

    // Not before the protocol's own window, three intervals and half a one, is over.
    let dead_after = Some(interval * 3 + interval / 2);
    let mut ends = Vec::new();
    until("both ends know their interval", || {
        ends.clear();
        sockets(|ports, socket| {
            if socket.tcp_user_timeout().unwrap() == dead_after {
                ends.push(ports);
            }
        });
        ends.len() >= 2
    })
    .await;
    ends.sort_unstable();
    let mut both = [(port, client_port), (client_port, port)];
    both.sort_unstable();
    assert_eq!(ends, both);
    let mut seen = 0;
    sockets(|ports, socket| {
        seen += 1;
        assert!(both.contains(&ports));
        assert!(socket.tcp_nodelay().unwrap(), "{ports:?}");
        assert_eq!(socket.tcp_notsent_lowat().unwrap(), 128 * 1024, "{ports:?}");
    });
    assert_eq!(seen, 2);
    drop(client);
}
