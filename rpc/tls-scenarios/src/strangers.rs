//! Those who speak no TLS, something else, or nothing at all.

use std::{
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    thread::{self, JoinHandle},
};

use tieline::{ConnectError, Status, TlsError};

use crate::{
    ADDRESS, Adapter, Client, Server,
    certificates::Authority,
    node, to_node,
    wait::{LONG, MS, SECOND, soon, until},
};

async fn failure<A: Adapter>(address: &str) -> TlsError {
    let client = Client::<A>::builder("a").tls(to_node(&Authority::new())).connect(address);
    match soon::<A, _>("an error", client).await.map(drop).unwrap_err() {
        ConnectError::Tls { source, .. } => source,
        other => panic!("{other:?}"),
    }
}

async fn works<A: Adapter>(authority: &Authority, server: &tieline::Server<A::Runtime>) {
    let client = Client::<A>::builder("b").tls(to_node(authority)).connect(server.address());
    let client = soon::<A, _>("check-in", client).await.unwrap();
    assert_eq!(soon::<A, _>("an echo", client.call("t.T/Echo", "x")).await.unwrap().payload, "x");
}

/// A client that is nothing but octets: says them, and hears what the node says to the end of the stream.
fn stranger(address: &str, says: &'static [u8]) -> JoinHandle<Vec<u8>> {
    // Here and not in the thread: whoever dials after this is accepted after it.
    let mut stream = TcpStream::connect(address).unwrap();
    thread::spawn(move || {
        stream.set_read_timeout(Some(LONG)).unwrap();
        stream.write_all(says).unwrap();
        let mut heard = Vec::new();
        match stream.read_to_end(&mut heard) {
            Ok(_) => {}
            Err(error) => assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset, "{error}"),
        }
        heard
    })
}

async fn heard<A: Adapter>(stranger: JoinHandle<Vec<u8>>) -> Vec<u8> {
    until::<A>("the end of the stream", || stranger.is_finished()).await;
    stranger.join().unwrap()
}

/// A node that is nothing but octets: says them to whoever dials it, and hears until the client ends.
fn strange_node(says: &'static [u8]) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        stream.set_read_timeout(Some(LONG)).unwrap();
        stream.write_all(says).unwrap();
        let _ = stream.read_to_end(&mut Vec::new());
    });
    address
}

/// It hears it in words that it understands.
pub async fn a_plain_client_is_told_that_the_node_speaks_tls<A: Adapter>() {
    let authority = Authority::new();
    let server = node::<A>(&authority).listen(ADDRESS).await.unwrap();
    let client = Client::<A>::builder("a").connect(server.address());
    let error = soon::<A, _>("an error", client).await.map(drop).unwrap_err();
    let message = error.to_string();
    match error {
        ConnectError::CheckIn { closed, .. } => assert_eq!(closed.status, Status::PROTOCOL_ERROR, "{closed}"),
        other => panic!("{other:?}"),
    }
    assert!(message.contains("this node speaks TLS"), "what: {message}");
    assert!(message.contains(server.address()), "where: {message}");
    assert!(message.ends_with("give the client its TLS"), "what to do: {message}");
    works::<A>(&authority, &server).await;
}

/// And the other way round.
pub async fn a_plain_node_is_recognised<A: Adapter>() {
    let server = Server::<A>::builder("node-2").listen(ADDRESS).await.unwrap();
    let error = failure::<A>(server.address()).await;
    assert_eq!(error, TlsError::Plain);
    assert!(error.to_string().contains("leave TLS away here, or give it TLS there"), "{error}");
    assert!(server.peers().is_empty());
}

/// Whatever it is, it is not TLS.
pub async fn a_node_that_speaks_http_is_recognised<A: Adapter>() {
    let address = strange_node(b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n");
    assert_eq!(failure::<A>(&address).await, TlsError::NotTls);
}

/// Nobody talks this end down to a version that it does not want.
pub async fn a_node_of_an_older_version_is_recognised<A: Adapter>() {
    // What such a node answers: the alert protocol_version.
    let address = strange_node(b"\x15\x03\x03\x00\x02\x02\x46");
    assert_eq!(failure::<A>(&address).await, TlsError::Version);
}

/// It hears an alert, and nothing happens to the others.
pub async fn a_client_that_speaks_http_is_sent_away<A: Adapter>() {
    let authority = Authority::new();
    let server = node::<A>(&authority).listen(ADDRESS).await.unwrap();
    let heard = heard::<A>(stranger(server.address(), b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")).await;
    assert_eq!(heard.first(), Some(&21), "an alert of TLS: {heard:?}");
    works::<A>(&authority, &server).await;
}

/// The time for the check-in is that for the handshake, whatever has come of it.
pub async fn a_client_that_says_nothing_is_closed<A: Adapter>() {
    let authority = Authority::new();
    let server =
        node::<A>(&authority).configure(|c| c.check_in_timeout(100 * MS)).listen(ADDRESS).await.unwrap();
    for says in [&b""[..], b"\x16", b"\x16\x03\x01\x02\x00\x01\x00\x01\xFC\x03\x03"] {
        let heard = heard::<A>(stranger(server.address(), says)).await;
        assert!(heard.is_empty(), "{says:?}: {heard:?}");
    }
}

/// A client does not wait longer for a handshake than for an ack.
pub async fn a_node_that_says_nothing_is_given_up<A: Adapter>() {
    for says in [&b""[..], b"\x16\x03\x03\x00\x7A\x02"] {
        let address = strange_node(says);
        let client = Client::<A>::builder("a").tls(to_node(&Authority::new()));
        let client = client.configure(|c| c.ack_timeout(100 * MS)).connect(&address);
        match soon::<A, _>("an error", client).await.map(drop).unwrap_err() {
            ConnectError::CheckIn { closed, .. } => assert_eq!(closed.status, Status::CHECK_IN_TIMEOUT),
            other => panic!("{other:?}"),
        }
    }
}

/// Octets of a message that never ends are not collected for ever.
pub async fn a_handshake_without_end_is_cut_off<A: Adapter>() {
    let authority = Authority::new();
    let server = node::<A>(&authority).configure(|c| c.check_in_timeout(60 * SECOND));
    let server = server.listen(ADDRESS).await.unwrap();
    // A ClientHello of almost 64 KiB, in records of one octet each: their headers are most of it.
    let mut says = Vec::new();
    for octet in [1, 0, 0xFF, 0xF0].into_iter().chain(std::iter::repeat_n(0, 60_000)) {
        says.extend_from_slice(&[0x16, 3, 1, 0, 1, octet]);
    }
    let address = server.address().to_owned();
    let stranger = thread::spawn(move || {
        let mut stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(LONG)).unwrap();
        stream.set_write_timeout(Some(LONG)).unwrap();
        let written = stream.write_all(&says);
        let read = stream.read_to_end(&mut Vec::new());
        written.is_err() || read.is_err() || read.is_ok()
    });
    until::<A>("the end of the stream", || stranger.is_finished()).await;
    assert!(stranger.join().unwrap());
    works::<A>(&authority, &server).await;
}

/// Who has not said who it is has nothing to lose.
pub async fn a_shutdown_does_not_wait_for_a_handshake<A: Adapter>() {
    let authority = Authority::new();
    let server = node::<A>(&authority).configure(|c| c.check_in_timeout(60 * SECOND));
    let server = server.listen(ADDRESS).await.unwrap();
    let silent = stranger(server.address(), b"\x16\x03\x01");
    works::<A>(&authority, &server).await;
    soon::<A, _>("the end", server.shutdown(60 * SECOND)).await;
    assert!(heard::<A>(silent).await.is_empty());
}
