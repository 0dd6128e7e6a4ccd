//! Connecting: who is not there, who is somebody else, and connections that are cut.
#![allow(clippy::unwrap_used, clippy::panic)]

mod support;

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use support::{
    CHECK_IN, CHECK_IN_ACK, CLOSE, REQUEST, RESPONSE, Raw, body, echo, frame, hello, listener, only_peer,
    request, soon, works,
};
use tieline_tokio::{By, Client, Closed, ConnectError, ListenError, Ran, Server, Status};
use tokio::io::AsyncWriteExt;

const SECOND: Duration = Duration::from_secs(1);

/// How a connection that failed at check-in ended, and the whole message.
async fn failure(error: ConnectError) -> (Closed, String) {
    let message = error.to_string();
    match error {
        ConnectError::CheckIn { closed, .. } => (closed, message),
        other => panic!("somebody answered, but: {other:?}"),
    }
}

#[tokio::test]
async fn nobody_listens() {
    let (listener, address) = listener().await;
    drop(listener);
    let error = soon("an error", Client::connect(&address)).await.unwrap_err();
    assert!(matches!(&error, ConnectError::Dial { .. }), "{error:?}");
    let message = error.to_string();
    assert!(message.contains(&address) && message.contains("refused"), "{message}");
    assert!(message.ends_with("is a node listening there?"), "{message}");
}

#[tokio::test]
async fn a_peer_that_speaks_http_is_recognised_by_what_it_says() {
    let (listener, address) = listener().await;
    let (result, ()) = tokio::join!(soon("an error", Client::connect(&address)), async {
        let mut raw = Raw::accept(&listener).await;
        raw.send(b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n").await;
        raw.rest().await;
    });
    let (closed, message) = failure(result.unwrap_err()).await;
    assert_eq!((closed.by, closed.status), (By::Us, Status::PROTOCOL_ERROR));
    assert!(message.contains("HTTP/1.1 400") && message.contains("is it a Tieline node"), "{message}");
    assert!(!message.contains('\r'), "what a stranger says is escaped");
}

#[tokio::test]
async fn a_client_that_speaks_http_is_sent_away() {
    let server = echo("127.0.0.1:0").await;
    let mut raw = Raw::connect(server.address()).await;
    raw.send(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").await;
    raw.stream.shutdown().await.unwrap();
    let frames = raw.rest().await;
    assert_eq!(frames.len(), 1);
    assert_eq!((frames[0].kind, frames[0].status), (CLOSE, Status::PROTOCOL_ERROR.0));
    works(&Client::connect(server.address()).await.unwrap()).await;
}

#[tokio::test]
async fn a_peer_that_says_nothing_is_waited_for_no_longer_than_configured() {
    let (listener, address) = listener().await;
    let client = Client::builder("a").configure(|c| c.ack_timeout(Duration::from_millis(50)));
    let begun = std::time::Instant::now();
    let (result, raw) = tokio::join!(soon("an error", client.connect(&address)), Raw::accept(&listener));
    let (closed, message) = failure(result.unwrap_err()).await;
    assert_eq!(closed.status, Status::CHECK_IN_TIMEOUT);
    assert!(message.contains(&address) && message.contains("in time"), "{message}");
    assert!((Duration::from_millis(50)..2 * SECOND).contains(&begun.elapsed()));
    drop(raw);
}

#[tokio::test]
async fn a_server_of_another_version_is_told_from_other_mistakes() {
    let (listener, address) = listener().await;
    let (result, ()) = tokio::join!(soon("an error", Client::connect(&address)), async {
        let mut raw = Raw::accept(&listener).await;
        raw.next(CHECK_IN).await;
        let mut ack = frame(CHECK_IN_ACK, Status::VERSION_UNSUPPORTED.0, 0, b"");
        ack[2] = 2;
        raw.send(&ack).await;
        assert!(raw.rest().await.is_empty(), "there is nothing to say in a version that one does not speak");
    });
    let (closed, message) = failure(result.unwrap_err()).await;
    assert_eq!((closed.by, closed.status), (By::Peer, Status::VERSION_UNSUPPORTED));
    assert!(message.contains("version 2") && message.contains("same version"), "{message}");
}

#[tokio::test]
async fn a_client_of_another_version_learns_the_servers() {
    let server = echo("127.0.0.1:0").await;
    let mut raw = Raw::connect(server.address()).await;
    raw.send(&[0xBE, 0xA7, 2]).await;
    let frames = raw.rest().await;
    assert_eq!(frames.len(), 1);
    let ack = &frames[0];
    assert_eq!((ack.kind, ack.status, ack.version), (CHECK_IN_ACK, Status::VERSION_UNSUPPORTED.0, 1));
}

#[tokio::test]
async fn a_bad_identifier_is_refused_here_and_there() {
    let server = echo("127.0.0.1:0").await;
    let error = Client::builder("two words").connect(server.address()).await.unwrap_err();
    assert!(matches!(error, ConnectError::Config(_)), "{error:?}");
    assert!(error.to_string().contains("two words"), "{error}");
    assert!(Client::builder("").connect_lazily(server.address()).is_err());
    assert!(matches!(Server::builder("ü").listen("127.0.0.1:0").await, Err(ListenError::Config(_))));

    let mut raw = Raw::connect(server.address()).await;
    raw.send(&hello(CHECK_IN, "two words", SECOND)).await;
    let frames = raw.rest().await;
    assert_eq!(frames.len(), 1, "no CLOSE follows an ack that refuses");
    assert_eq!((frames[0].kind, frames[0].status), (CHECK_IN_ACK, Status::CHECK_IN_REFUSED.0));
    assert!(frames[0].text().contains("two words"));
}

#[tokio::test]
async fn a_port_that_is_taken_is_named_with_a_way_out() {
    let server = echo("127.0.0.1:0").await;
    let error = Server::builder("b").listen(server.address()).await.unwrap_err();
    let message = error.to_string();
    assert!(message.contains(server.address()), "where: {message}");
    assert!(message.contains("in use"), "what: {message}");
    assert!(message.contains("port 0"), "what to do: {message}");
    let message = Server::builder("b").listen("nonsense").await.unwrap_err().to_string();
    assert!(message.contains("nonsense") && message.contains("HOST:PORT"), "{message}");
}

#[derive(Clone, Copy, Debug)]
enum Cut {
    Close,
    Reset,
}

async fn cut(mut raw: Raw, how: Cut) {
    match how {
        Cut::Close => {
            raw.stream.shutdown().await.unwrap();
            raw.rest().await;
        }
        Cut::Reset => raw.reset(),
    }
}

#[tokio::test]
async fn an_ack_that_is_cut_anywhere_is_one_clear_error() {
    let (listener, address) = listener().await;
    let ack = hello(CHECK_IN_ACK, &"n".repeat(100), SECOND);
    for octets in 0..64 {
        for how in [Cut::Close, Cut::Reset] {
            let (result, ()) = tokio::join!(soon("an error", Client::connect(&address)), async {
                let mut raw = Raw::accept(&listener).await;
                raw.next(CHECK_IN).await;
                raw.send(&ack[..octets]).await;
                cut(raw, how).await;
            });
            let (closed, message) = failure(result.unwrap_err()).await;
            assert_eq!(
                (closed.by, closed.status),
                (By::Transport, Status::CONNECTION_LOST),
                "{octets} {how:?}"
            );
            assert!(message.contains(&address), "{message}");
            if matches!(how, Cut::Close) {
                assert_eq!(message.contains("inside a frame"), octets > 0, "{octets}: {message}");
            }
        }
    }
}

#[tokio::test]
async fn a_check_in_that_is_cut_anywhere_leaves_the_server_as_it_was() {
    let server = echo("127.0.0.1:0").await;
    let check_in = hello(CHECK_IN, &"n".repeat(100), SECOND);
    for octets in 0..64 {
        for how in [Cut::Close, Cut::Reset] {
            let mut raw = Raw::connect(server.address()).await;
            raw.send(&check_in[..octets]).await;
            // With an end of stream the server's own end is awaited, too.
            cut(raw, how).await;
        }
    }
    assert!(server.peers().is_empty());
    works(&Client::connect(server.address()).await.unwrap()).await;
    let begun = std::time::Instant::now();
    soon("nothing is left of them", server.shutdown(10 * SECOND)).await;
    assert!(begun.elapsed() < 3 * SECOND);
}

#[tokio::test]
async fn an_answer_that_is_cut_anywhere_ends_the_call_as_lost() {
    let (listener, address) = listener().await;
    for octets in 0..64 {
        for how in [Cut::Close, Cut::Reset] {
            let client = Client::builder("a").backoff(30 * SECOND).connect(&address);
            let (client, mut raw) = tokio::join!(soon("check-in", client), Raw::welcome(&listener, SECOND));
            let client = client.unwrap();
            let peer = client.peer().unwrap();
            let (answer, ()) = tokio::join!(soon("an end", client.call("t.T/Echo", "x")), async {
                let request = raw.next(REQUEST).await;
                let response = frame(RESPONSE, 0, request.id, &body(b"", &[7; 60]));
                raw.send(&response[..octets]).await;
                cut(raw, how).await;
            });
            let error = answer.unwrap_err();
            assert_eq!(
                (error.status(), error.ran()),
                (Status::CONNECTION_LOST, Ran::Maybe),
                "{octets} {error}"
            );
            assert!(error.to_string().starts_with(&format!("raw ({address})")), "{error}");
            let closed = soon("the end", peer.closed()).await;
            assert_eq!(closed.by, By::Transport, "{octets} {how:?}");
            let next = client.call("t.T/Echo", "x").await.unwrap_err();
            assert_eq!(next.ran(), Ran::No, "{next}");
        }
    }
}

#[tokio::test]
async fn a_call_that_is_cut_anywhere_does_not_run() {
    let started = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&started);
    let server = Server::builder("node-2")
        .method("t.T/Count", move |_cx, body| {
            count.fetch_add(1, Ordering::SeqCst);
            async move { Ok(body) }
        })
        .listen("127.0.0.1:0")
        .await
        .unwrap();
    let call = request(REQUEST, 1, "t.T/Count", &[7; 60]);
    for octets in 0..64 {
        for how in [Cut::Close, Cut::Reset] {
            let mut raw = Raw::check_in(server.address(), "raw", SECOND).await;
            let peer = only_peer(&server).await;
            raw.send(&call[..octets]).await;
            cut(raw, how).await;
            let closed = soon("the end", peer.closed()).await;
            assert_eq!(
                (closed.by, closed.status),
                (By::Transport, Status::CONNECTION_LOST),
                "{octets} {how:?}"
            );
            soon("it is forgotten", async {
                while !server.peers().is_empty() {
                    tokio::task::yield_now().await;
                }
            })
            .await;
        }
    }
    assert_eq!(started.load(Ordering::SeqCst), 0);
}
