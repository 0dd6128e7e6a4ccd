//! Calls that find as many waiting on their connection as may: they wait for room, in order, and not for ever.
#![allow(clippy::unwrap_used, clippy::panic)]

mod support;

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use support::{soon, within};
use tieline_tokio::{Client, Limits, Ran, Server, Status};
use tokio::{
    sync::{Notify, Semaphore},
    task::JoinSet,
};

const MS: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);

/// A server whose handler waits to be released, and a client that may have so many calls open.
async fn held(calls: u32) -> (Server, Client, Arc<Semaphore>, Arc<Mutex<Vec<String>>>) {
    let (release, order) = (Arc::new(Semaphore::new(0)), Arc::new(Mutex::new(Vec::new())));
    let (wait, log) = (Arc::clone(&release), Arc::clone(&order));
    let server = Server::builder("node-2")
        .method("t.R/Wait", move |_cx, body| {
            log.lock().unwrap().push(String::from_utf8_lossy(&body).into_owned());
            let wait = Arc::clone(&wait);
            async move {
                wait.acquire().await.unwrap().forget();
                Ok(body)
            }
        })
        .server_stream("t.R/Stream", |_cx, body, mut sink| async move {
            sink.send(body).await?;
            Ok("")
        })
        .listen("127.0.0.1:0")
        .await
        .unwrap();
    let mut limits = Limits::default();
    limits.max_calls = calls;
    let client = Client::builder("node-1").limits(limits).connect(server.address()).await.unwrap();
    (server, client, release, order)
}

#[tokio::test]
async fn calls_beyond_the_limit_wait_in_the_order_in_which_they_came() {
    let (_server, client, release, order) = held(4).await;
    let mut calls = JoinSet::new();
    for number in 0..300u32 {
        let client = client.clone();
        calls.spawn(async move {
            let answer = client.call("t.R/Wait", number.to_string()).no_timeout().await.unwrap();
            assert_eq!(answer.payload, number.to_string());
        });
        // Handed over in this order.
        tokio::task::yield_now().await;
    }
    release.add_permits(300);
    within(30 * SECOND, "all of them", async {
        while let Some(call) = calls.join_next().await {
            call.unwrap();
        }
    })
    .await;
    let expected: Vec<String> = (0..300).map(|number| number.to_string()).collect();
    assert_eq!(*order.lock().unwrap(), expected);
}

#[tokio::test]
async fn streams_and_one_ways_wait_as_calls_do() {
    let (_server, client, release, _order) = held(1).await;
    let first = tokio::spawn({
        let client = client.clone();
        async move { client.call("t.R/Wait", "first").no_timeout().await.unwrap() }
    });
    tokio::task::yield_now().await;
    let stream = tokio::spawn({
        let client = client.clone();
        async move {
            let mut items = client.server_stream("t.R/Stream", "x").await.unwrap();
            let item = items.next().await.unwrap().unwrap();
            items.finish().await.unwrap();
            item
        }
    });
    let one_way = tokio::spawn({
        let client = client.clone();
        async move { client.one_way("t.R/Wait", "told").await.unwrap() }
    });
    tokio::task::yield_now().await;
    assert!(!stream.is_finished() && !one_way.is_finished());
    release.add_permits(2);
    soon("the first", first).await.unwrap();
    assert_eq!(soon("the stream", stream).await.unwrap(), "x");
    soon("the one-way", one_way).await.unwrap();
}

#[tokio::test]
async fn whoever_waits_for_room_does_not_wait_for_ever_and_holds_nobody_up() {
    let (_server, client, release, order) = held(1).await;
    let spawn = |name: &'static str, timeout: Option<Duration>| {
        let client = client.clone();
        tokio::spawn(async move {
            let call = client.call("t.R/Wait", name);
            match timeout {
                Some(timeout) => call.timeout(timeout).await,
                None => call.no_timeout().await,
            }
        })
    };
    let first = spawn("first", None);
    tokio::task::yield_now().await;
    let (late, given_up, last) = (spawn("late", Some(20 * MS)), spawn("given up", None), spawn("last", None));
    let error = soon("the time is over", late).await.unwrap().unwrap_err();
    assert_eq!((error.status(), error.ran()), (Status::TIMEOUT, Ran::No), "{error}");
    given_up.abort();
    assert!(given_up.await.unwrap_err().is_cancelled());
    release.add_permits(2);
    soon("the first", first).await.unwrap().unwrap();
    soon("the last", last).await.unwrap().unwrap();
    assert_eq!(*order.lock().unwrap(), ["first", "last"], "the others never left");
}

#[tokio::test]
async fn a_connection_that_ends_tells_those_who_wait_for_room() {
    for drain in [false, true] {
        let (server, client, release, _order) = held(1).await;
        let peer = client.peer().unwrap();
        let mut calls = JoinSet::new();
        let begun = Arc::new(Notify::new());
        for number in 0..100u32 {
            let (peer, begin) = (peer.clone(), Arc::clone(&begun));
            calls.spawn(async move {
                begin.notify_one();
                peer.call("t.R/Wait", number.to_string())
                    .no_timeout()
                    .await
                    .map(|_| ())
                    .map_err(|error| error.ran())
            });
            begun.notified().await;
        }
        if drain {
            let shutdown = tokio::spawn(server.shutdown(10 * SECOND));
            soon("the drain is known", peer_drains(&peer)).await;
            release.add_permits(1);
            soon("the shutdown", shutdown).await.unwrap();
        } else {
            peer.close(Status::NORMAL, "");
            drop(server);
        }
        let mut outcomes = Vec::new();
        soon("all of them", async {
            while let Some(call) = calls.join_next().await {
                outcomes.push(call.unwrap());
            }
        })
        .await;
        assert_eq!(outcomes.iter().filter(|outcome| **outcome == Err(Ran::No)).count(), 99, "drain: {drain}");
    }
}

/// Waits until a peer is known to drain: a call of it is not even queued then.
async fn peer_drains(peer: &tieline_tokio::Peer) {
    loop {
        let refused = peer.call("t.R/Wait", "probe").timeout(MS).await.unwrap_err();
        if refused.status() == Status::NOT_SENT {
            return;
        }
    }
}

#[tokio::test]
async fn no_more_than_a_bounded_number_waits_for_room() {
    const MOST: usize = 16_384;
    let (_server, client, release, _order) = held(1).await;
    let first = tokio::spawn({
        let client = client.clone();
        async move { client.call("t.R/Wait", "first").no_timeout().await }
    });
    tokio::task::yield_now().await;
    let mut waiting = Vec::new();
    let cx = &mut std::task::Context::from_waker(std::task::Waker::noop());
    for _ in 0..MOST {
        let mut call = Box::pin(client.call("t.R/Wait", "x"));
        assert!(call.as_mut().poll(cx).is_pending());
        waiting.push(call);
    }
    let error = client.call("t.R/Wait", "one more").await.unwrap_err();
    assert_eq!((error.status(), error.ran()), (Status::LOCAL_LIMIT, Ran::No), "{error}");
    drop(waiting);
    release.add_permits(2);
    soon("the first", first).await.unwrap().unwrap();
    soon("those who come when the others have gone", client.call("t.R/Wait", "y")).await.unwrap();
}
