//! Unix sockets: the same calls, and the file that comes and goes.
#![cfg(unix)]
#![allow(clippy::unwrap_used, clippy::panic)]

mod support;

use std::{
    path::PathBuf,
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use bytes::Bytes;
use support::{echo, only_peer, soon, works};
use tieline_tokio::{Client, ConnectError, Limits, Server};

const SECOND: Duration = Duration::from_secs(1);

/// A path for a socket, in a directory that goes away with the test.
struct Place(PathBuf);

impl Place {
    fn new() -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("tieline-tokio-{}-{number}", std::process::id()));
        std::fs::create_dir(&path).unwrap();
        Self(path)
    }

    fn socket(&self) -> PathBuf {
        self.0.join("node.sock")
    }

    fn address(&self) -> String {
        format!("unix:{}", self.socket().display())
    }

    fn is_empty(&self) -> bool {
        std::fs::read_dir(&self.0).unwrap().next().is_none()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

#[tokio::test]
async fn calls_and_streams_of_any_size_go_both_ways() {
    let limits = || {
        let mut limits = Limits::default();
        (limits.max_message, limits.memory) = (16 << 20, 64 << 20);
        limits
    };
    let place = Place::new();
    let server = Server::builder("node-2")
        .limits(limits())
        .method("t.T/Echo", |_cx, body| async move { Ok(body) })
        .server_stream("t.T/Count", |_cx, _body, mut sink| async move {
            for number in 0..1000_u32 {
                sink.send(number.to_be_bytes().to_vec()).await?;
            }
            Ok("done")
        })
        .listen(&place.address())
        .await
        .unwrap();
    assert_eq!(server.address(), place.address());
    let client = Client::builder("node-1").limits(limits()).connect(server.address()).await.unwrap();
    works(&client).await;
    let large: Bytes = (0..16 << 20).map(|at: u32| at.to_le_bytes()[1]).collect();
    let answer = soon("a large echo", client.call("t.T/Echo", large.clone())).await.unwrap();
    assert!(answer.payload == large);
    let mut items = client.server_stream("t.T/Count", "").await.unwrap();
    let mut seen = 0;
    while let Some(item) = soon("an item", items.next()).await {
        assert_eq!(item.unwrap(), u32::to_be_bytes(seen).to_vec());
        seen += 1;
    }
    assert_eq!(seen, 1000);
    assert_eq!(items.finish().await.unwrap().payload, "done");
    assert_eq!(only_peer(&server).await.address(), place.address());
}

#[tokio::test]
async fn a_shutdown_takes_the_file_away() {
    let place = Place::new();
    let server = echo(&place.address()).await;
    let client = Client::connect(server.address()).await.unwrap();
    works(&client).await;
    soon("the end", server.shutdown(SECOND)).await;
    assert!(place.is_empty());
    let error = Client::connect(&place.address()).await.unwrap_err();
    assert!(matches!(&error, ConnectError::Dial { .. }), "{error:?}");
    assert!(error.to_string().contains(&place.address()), "{error}");
}

#[tokio::test]
async fn a_client_finds_the_node_that_comes_back() {
    let place = Place::new();
    let server = echo(&place.address()).await;
    let client = Client::builder("a").backoff(Duration::from_millis(1));
    let client = client.connect(server.address()).await.unwrap();
    let peer = client.peer().unwrap();
    drop(server);
    soon("the end", peer.closed()).await;
    // As a process leaves it that was killed. The one before may still be about to take its own away.
    support::until("the file is gone", || place.is_empty()).await;
    drop(std::os::unix::net::UnixListener::bind(place.socket()).unwrap());
    let error = Client::connect(&place.address()).await.unwrap_err().to_string();
    assert!(error.contains("left behind"), "{error}");
    let _server = echo(&place.address()).await;
    let calls_again = async {
        while client.call("t.T/Echo", "x").await.is_err() {
            let _ = client.ready().await.unwrap();
        }
    };
    soon("a connection to the new node", calls_again).await;
}

#[tokio::test]
async fn what_is_wrong_with_an_address_is_said_with_a_way_out() {
    let place = Place::new();
    let server = echo(&place.address()).await;
    let listen = async |address: &str| {
        let error = Server::builder("b").listen(address).await.unwrap_err().to_string();
        assert!(error.contains(address), "where: {error}");
        error
    };
    let error = listen(server.address()).await;
    assert!(error.contains("somebody listens") && error.contains("another one"), "{error}");
    let long = format!("{}{}", place.address(), "x".repeat(200));
    let error = listen(&long).await;
    assert!(error.contains("octets") && error.contains("at most"), "{error}");
    let error = Client::connect(&long).await.unwrap_err().to_string();
    assert!(error.contains("octets") && error.contains("at most"), "{error}");
    let error = listen("unix:").await;
    assert!(error.contains("empty") && error.contains("unix:/PATH"), "{error}");
    let error = listen(&format!("unix:{}/nowhere/node.sock", place.0.display())).await;
    assert!(error.contains("directory first"), "{error}");
    let file = place.0.join("letter");
    std::fs::write(&file, "dear").unwrap();
    let error = listen(&format!("unix:{}", file.display())).await;
    assert!(error.contains("no socket") && error.contains("move the file away"), "{error}");
    works(&Client::connect(server.address()).await.unwrap()).await;
}

#[tokio::test]
async fn a_listener_that_was_made_otherwise_keeps_its_file() {
    let place = Place::new();
    let listener = tokio::net::UnixListener::bind(place.socket()).unwrap();
    let server = Server::builder("node-2").method("t.T/Echo", |_cx, body| async move { Ok(body) });
    let server = server.serve_on(listener.into()).unwrap();
    assert_eq!(server.address(), place.address());
    works(&Client::connect(server.address()).await.unwrap()).await;
    soon("the end", server.shutdown(SECOND)).await;
    assert!(!place.is_empty(), "whoever made it may still want it");
}
