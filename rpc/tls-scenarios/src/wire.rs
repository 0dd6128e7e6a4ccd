//! What is on the line, and lines that are not honest.

use tieline::{By, ConnectError, Status, TlsError};

use crate::{
    ADDRESS, Adapter, Client, Server,
    certificates::Authority,
    line::{Line, To},
    node, to_node,
    wait::{SECOND, soon, until},
};

fn contains(octets: &[u8], what: &[u8]) -> bool {
    octets.windows(what.len()).any(|window| window == what)
}

/// Who listens on the line hears neither names nor bodies, and nothing before the handshake.
pub async fn nothing_goes_in_clear<A: Adapter>() {
    let authority = Authority::new();
    let server = node::<A>(&authority).listen(ADDRESS).await.unwrap();
    let line = Line::to(server.address());
    let client = Client::<A>::builder("identifier-of-mine").credential(b"credential-of-mine");
    let client = client.tls(to_node(&authority)).connect(line.address()).await.unwrap();
    let body = "body-of-mine".repeat(10_000);
    assert_eq!(client.call("t.T/Echo", body.clone()).await.unwrap().payload, body);
    for to in [To::Node, To::Client] {
        let seen = line.seen(to);
        assert!(seen.len() > body.len());
        assert_eq!(seen.first(), Some(&0x16), "a record of the handshake comes first");
        for what in ["identifier-of-mine", "credential-of-mine", "body-of-mine", "t.T/Echo"] {
            assert!(!contains(&seen, what.as_bytes()), "{what} {to:?}");
        }
    }
}

/// After any octet of any flight: one error that says so at the client, nothing that is left at the node.
pub async fn a_handshake_that_is_cut_anywhere_is_one_clear_error<A: Adapter>() {
    let authority = Authority::new();
    // A node that serves nothing says nothing after the ack.
    let tls = tieline::ServerTls::new(&authority.identity("node-2"));
    let server = Server::<A>::builder("node-2").tls(tls).listen(ADDRESS).await.unwrap();
    let whole = Line::to(server.address());
    let client = Client::<A>::builder("a").tls(to_node(&authority)).connect(whole.address()).await.unwrap();
    for to in [To::Node, To::Client] {
        // A signature has an octet or two more or less.
        let ends = whole.seen(to).len() - 8;
        for after in (0..12).chain((12..ends).step_by(97)).chain(ends - 60..ends) {
            let line = Line::that_is_cut(server.address(), to, after);
            let client = Client::<A>::builder("a").tls(to_node(&authority)).connect(line.address());
            let error = soon::<A, _>("an error", client).await.map(drop);
            let Err(error) = error else { panic!("{to:?} after {after} of {ends}: it was not cut") };
            let message = error.to_string();
            assert!(message.contains(line.address()), "{message}");
            match error {
                ConnectError::Tls { source: TlsError::HandshakeCut | TlsError::Cut, .. } => {}
                // A reset tells nothing of TLS.
                ConnectError::CheckIn { closed, .. } => {
                    assert_eq!((closed.by, closed.status), (By::Transport, Status::CONNECTION_LOST));
                }
                other => panic!("{to:?} after {after}: {other:?}"),
            }
        }
    }
    let there = || server.peers().len();
    until::<A>("nothing is left of them", || there() <= 1).await;
    assert!(client.peer().unwrap().is_ready(), "the whole line is not touched");
    drop(Client::<A>::builder("b").tls(to_node(&authority)).connect(server.address()).await.unwrap());
    soon::<A, _>("the end", client.close()).await;
    soon::<A, _>("the end", server.shutdown(SECOND)).await;
}

/// An end of the stream that nobody has said is no end.
pub async fn a_line_that_is_cut_is_told_from_an_end<A: Adapter>() {
    let authority = Authority::new();
    let server = node::<A>(&authority).listen(ADDRESS).await.unwrap();
    let line = Line::to(server.address());
    let client = Client::<A>::builder("a").tls(to_node(&authority)).backoff(30 * SECOND);
    let client = client.connect(line.address()).await.unwrap();
    until::<A>("it is there", || !server.peers().is_empty()).await;
    let ends = [client.peer().unwrap(), server.peers().remove(0)];
    line.cut();
    for peer in ends {
        let closed = soon::<A, _>("the end", peer.closed()).await;
        assert_eq!((closed.by, closed.status), (By::Transport, Status::CONNECTION_LOST), "{closed}");
        assert!(closed.message.contains("without the farewell of TLS"), "{closed}");
    }
    // An end that was said is one.
    let client = Client::<A>::builder("b").tls(to_node(&authority)).connect(server.address()).await.unwrap();
    until::<A>("it is there", || !server.peers().is_empty()).await;
    let peer = server.peers().remove(0);
    soon::<A, _>("the end", client.close()).await;
    let closed = soon::<A, _>("the end", peer.closed()).await;
    assert_eq!((closed.by, closed.status), (By::Peer, Status::NORMAL), "{closed}");
}

/// What was changed on the way is not taken for what was sent.
pub async fn an_octet_that_is_changed_ends_the_connection<A: Adapter>() {
    let authority = Authority::new();
    let server = node::<A>(&authority).listen(ADDRESS).await.unwrap();
    let line = Line::to(server.address());
    let client = Client::<A>::builder("a").tls(to_node(&authority)).backoff(30 * SECOND);
    let client = client.connect(line.address()).await.unwrap();
    assert_eq!(client.call("t.T/Echo", "x").await.unwrap().payload, "x");
    let peer = client.peer().unwrap();
    line.change();
    let error = soon::<A, _>("an outcome", client.call("t.T/Echo", "x")).await.unwrap_err();
    assert_eq!(error.status(), Status::CONNECTION_LOST, "{error}");
    let closed = soon::<A, _>("the end", peer.closed()).await;
    assert_eq!(closed.by, By::Transport, "{closed}");
    assert!(closed.message.contains("TLS failed"), "{closed}");
}

/// Whatever the stream is, TLS goes over it.
pub async fn unix_sockets_do_as_well<A: Adapter>() {
    if !A::UNIX {
        return;
    }
    let authority = Authority::new();
    let place = std::env::temp_dir().join(format!("tieline-tls-{}-{}", std::process::id(), number::<A>()));
    let address = format!("unix:{}", place.display());
    let server = node::<A>(&authority).listen(&address).await.unwrap();
    let client = Client::<A>::builder("a").tls(to_node(&authority)).connect(server.address()).await.unwrap();
    let body = "x".repeat(1 << 20);
    assert_eq!(client.call("t.T/Echo", body.clone()).await.unwrap().payload, body);
    let plain = Client::<A>::builder("b").connect(server.address()).await.map(drop).unwrap_err().to_string();
    assert!(plain.contains("this node speaks TLS"), "{plain}");
    soon::<A, _>("the end", client.close()).await;
    soon::<A, _>("the end", server.shutdown(SECOND)).await;
}

/// One that no other test has.
fn number<A: Adapter>() -> u64 {
    tieline::Runtime::seed(&A::Runtime::default())
}
