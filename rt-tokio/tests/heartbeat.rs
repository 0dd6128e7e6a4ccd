//! Peers that fall silent, and peers that are only idle.
#![allow(clippy::unwrap_used, clippy::panic)]

mod support;

use std::time::{Duration, Instant};

use support::{REQUEST, Raw, listener, only_peer, request, soon, until, works};
use tieline_tokio::{By, Client, Peer, Ran, Server, Status};

const MS: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);

/// Waits for the end of a connection to a peer that has been silent since `since`; the interval is 60 ms.
async fn lost(peer: &Peer, since: Instant) {
    let closed = soon("the peer is given up", peer.closed()).await;
    assert_eq!((closed.by, closed.status), (By::Us, Status::HEARTBEAT_LOST), "{closed}");
    let silence = since.elapsed();
    // The window is [3·I, 3·I + 500 ms]; a busy machine is allowed as much again.
    assert!((180 * MS..180 * MS + SECOND).contains(&silence), "{silence:?}");
}

#[tokio::test]
async fn a_server_that_falls_silent_is_given_up() {
    let (listener, address) = listener().await;
    let client = Client::builder("a").backoff(30 * SECOND).connect(&address);
    let (client, mut raw) = tokio::join!(client, Raw::welcome(&listener, 60 * MS));
    let client = client.unwrap();
    let peer = client.peer().unwrap();
    let since = Instant::now();
    let (call, ()) = tokio::join!(client.call("t.T/Echo", "x"), async {
        raw.next(REQUEST).await;
        lost(&peer, since).await;
    });
    let error = call.unwrap_err();
    assert_eq!((error.status(), error.ran()), (Status::CONNECTION_LOST, Ran::Maybe), "{error}");
    assert!(error.to_string().contains("three heartbeat intervals"), "{error}");
    assert!(peer.stats().heartbeats_out >= 1);
}

fn server() -> tieline_tokio::ServerBuilder<tieline_tokio::Tokio> {
    Server::builder("node-2")
        .heartbeat_bounds(10 * MS, SECOND)
        .method("t.T/Echo", |_cx, body| async move { Ok(body) })
        .method("t.T/Much", |_cx, _body| async { Ok(vec![7; 60_000]) })
}

#[tokio::test]
async fn a_client_that_falls_silent_is_given_up() {
    let server = server().listen("127.0.0.1:0").await.unwrap();
    let raw = Raw::check_in(server.address(), "raw", 60 * MS).await;
    let since = Instant::now();
    let peer = only_peer(&server).await;
    lost(&peer, since).await;
    drop(raw);
}

#[tokio::test]
async fn a_client_that_talks_but_does_not_read_is_given_up() {
    let server = server().listen("127.0.0.1:0").await.unwrap();
    let mut raw = Raw::check_in(server.address(), "raw", 60 * MS).await;
    let peer = only_peer(&server).await;
    let mut beat = support::frame(support::HEARTBEAT, 0, 0, b"");
    for call in 0..300 {
        raw.send(&request(REQUEST, call * 2 + 1, "t.T/Much", b"")).await;
    }
    let talk = async {
        loop {
            beat[13] = beat[13].wrapping_add(1);
            if tokio::io::AsyncWriteExt::write_all(&mut raw.stream, &beat).await.is_err() {
                std::future::pending::<()>().await;
            }
            tokio::time::sleep(40 * MS).await;
        }
    };
    let closed = tokio::select! {
        closed = soon("it is given up", peer.closed()) => closed,
        () = talk => unreachable!(),
    };
    assert_eq!((closed.by, closed.status), (By::Us, Status::HEARTBEAT_LOST), "{closed}");
    assert!(closed.message.contains("took no octet"), "{closed}");
}

#[tokio::test]
async fn idle_connections_live_on() {
    let server = server().listen("127.0.0.1:0").await.unwrap();
    let client = Client::builder("a")
        .configure(|c| c.heartbeat_interval(20 * MS))
        .connect(server.address())
        .await
        .unwrap();
    let (here, there) = (client.peer().unwrap(), only_peer(&server).await);
    assert_eq!(here.info().unwrap().heartbeat_interval, 20 * MS);
    assert_eq!(there.info().unwrap().heartbeat_interval, 20 * MS);
    let since = Instant::now();
    until("fifty heartbeats have come and gone", || {
        let (here, there) = (here.stats(), there.stats());
        let least = [here.heartbeats_out, here.heartbeats_in, there.heartbeats_out, there.heartbeats_in];
        here.heartbeats_out + there.heartbeats_out >= 50 && least.into_iter().all(|count| count > 0)
    })
    .await;
    let intervals = u64::try_from(since.elapsed().as_millis() / 20).unwrap();
    for stats in [here.stats(), there.stats()] {
        assert!(stats.heartbeats_out <= intervals + 2, "{stats:?} in {intervals} intervals");
    }
    assert!(here.is_ready() && there.is_ready());
    works(&client).await;
    assert_eq!(client.attempts(), 1);
}

#[tokio::test]
async fn a_process_that_stood_still_does_not_judge_what_it_has_not_read() {
    let server = server().listen("127.0.0.1:0").await.unwrap();
    let client = Client::builder("a").heartbeat_interval(20 * MS).connect(server.address()).await.unwrap();
    let (here, there) = (client.peer().unwrap(), only_peer(&server).await);
    works(&client).await;
    for _ in 0..3 {
        // Both ends are on this thread: far beyond the three intervals, and beyond the grace after them.
        std::thread::sleep(400 * MS);
        works(&client).await;
        let beats = here.stats().heartbeats_out;
        until("it beats again", || here.stats().heartbeats_out > beats + 2).await;
    }
    assert!(here.is_ready() && there.is_ready());
    assert!(client.peer().unwrap().is_same(&here));
    assert_eq!(client.attempts(), 1);
}
