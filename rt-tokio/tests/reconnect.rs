//! Clients that come back, and clients that leave.
#![allow(clippy::unwrap_used, clippy::panic)]

mod support;

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use support::{
    CHECK_IN, CHECK_IN_ACK, CLOSE, HEARTBEAT, ONE_WAY, Raw, body, echo, frame, listener, number, only_peer,
    soon, string, until, works,
};
use tieline_tokio::{Client, Ran, Server, Status};
use tokio::sync::Notify;

const MS: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);

#[tokio::test]
async fn waits_grow_and_every_dial_is_counted() {
    let (listener, address) = listener().await;
    let base = 40 * MS;
    let client = Client::builder("a").backoff(base).connect_lazily(&address).unwrap();
    let mut dials = Vec::new();
    for _ in 0..6 {
        let raw = Raw::accept(&listener).await;
        dials.push(Instant::now());
        raw.reset();
    }
    // A dial is counted before it is made, and the next one waits far longer than this takes.
    assert_eq!(client.attempts(), 6);
    let mut least = base / 2;
    for (attempt, pair) in dials.windows(2).enumerate() {
        let wait = pair[1] - pair[0];
        // A wait is drawn from [d/2, d]; the clock of the accepting side may be late by a little.
        assert!(wait + 5 * MS >= least, "wait {attempt} was {wait:?}, at least {least:?} is due");
        least = least.mul_f64(1.6);
    }
}

#[tokio::test]
async fn what_the_server_asks_for_is_respected() {
    let (listener, address) = listener().await;
    let client = Client::builder("a").backoff(MS).connect_lazily(&address).unwrap();
    let mut raw = Raw::accept(&listener).await;
    raw.next(CHECK_IN).await;
    let mut envelope = Vec::new();
    string(20, "come back later", &mut envelope);
    number(21, 500, &mut envelope);
    raw.send(&frame(CHECK_IN_ACK, Status::TOO_MANY_CONNECTIONS.0, 0, &body(&envelope, b""))).await;
    let told = Instant::now();
    drop(raw);
    until("the application is told", || client.trouble().contains("come back later")).await;
    let again = Raw::accept(&listener).await;
    assert!(told.elapsed() >= 500 * MS, "{:?}", told.elapsed());
    drop(again);
}

#[tokio::test]
async fn a_lazy_client_needs_nobody_there() {
    let (listener, address) = listener().await;
    drop(listener);
    let client = Client::builder("a").backoff(10 * MS).connect_lazily(&address).unwrap();
    assert_eq!(client.address(), address);
    let error = client.call("t.T/Echo", "x").await.unwrap_err();
    assert_eq!((error.status(), error.ran()), (Status::NO_ENDPOINT, Ran::No), "{error}");
    until("it has tried", || client.attempts() >= 2).await;
    let (waiting, _server) = tokio::join!(soon("it connects", client.ready()), echo(&address));
    assert_eq!(waiting.unwrap().info().unwrap().identifier, "node-2");
    works(&client).await;
}

#[tokio::test]
async fn a_client_that_is_closed_while_it_dials_is_done_at_once() {
    let (listener, address) = listener().await;
    let client = Client::builder("a").connect_lazily(&address).unwrap();
    // Dialled, and never answered.
    let mut raw = Raw::accept(&listener).await;
    raw.next(CHECK_IN).await;
    let waiting = client.clone();
    let waiting = tokio::spawn(async move { waiting.ready().await });
    tokio::task::yield_now().await;
    soon("it closes", client.close()).await;
    let error = soon("who waits is told", waiting).await.unwrap().unwrap_err();
    assert!(error.to_string().contains("closed"), "{error}");
    assert!(raw.rest().await.is_empty(), "the attempt is given up");
}

#[tokio::test]
async fn a_drain_moves_the_client_and_lets_open_calls_finish() {
    let (asked, release) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let (ask, wait) = (Arc::clone(&asked), Arc::clone(&release));
    let old = Server::builder("old")
        .method("t.T/Wait", move |_cx, body| {
            let (ask, wait) = (Arc::clone(&ask), Arc::clone(&wait));
            async move {
                ask.notify_one();
                wait.notified().await;
                Ok(body)
            }
        })
        .listen("127.0.0.1:0")
        .await
        .unwrap();
    let address = old.address().to_owned();
    let client = Client::builder("a").backoff(5 * MS).connect(&address).await.unwrap();
    let caller = client.clone();
    let open = tokio::spawn(async move { caller.call("t.T/Wait", "slow").await });
    soon("the call runs", asked.notified()).await;

    let shutdown = tokio::spawn(old.shutdown(10 * SECOND));
    // The address is free as soon as the accepting has ended.
    let new = soon("the address is free", async {
        loop {
            let new = Server::builder("new").method("t.T/Echo", |_cx, body| async move { Ok(body) });
            if let Ok(new) = new.listen(&address).await {
                break new;
            }
            tokio::task::yield_now().await;
        }
    })
    .await;
    until("the replacement is there", || {
        client.peer().and_then(|peer| peer.info()).is_some_and(|peer| peer.identifier == "new")
    })
    .await;
    works(&client).await;
    assert!(!open.is_finished() && !shutdown.is_finished());

    release.notify_one();
    assert_eq!(soon("the open call", open).await.unwrap().unwrap().payload, "slow");
    soon("the old node ends", shutdown).await.unwrap();
    works(&client).await;
    drop(new);
}

#[tokio::test]
async fn closing_sends_what_was_sent_before_and_waits_for_it() {
    const COUNT: usize = 240;
    let (listener, address) = support::narrow();
    let (client, mut raw) = tokio::join!(Client::connect(&address), Raw::welcome(&listener, 10 * SECOND));
    let client = client.unwrap();
    let mut sent = tokio::task::JoinSet::new();
    for number in 0..COUNT {
        let client = client.clone();
        sent.spawn(
            async move { client.one_way("t.T/Tell", vec![u8::try_from(number).unwrap(); 15_000]).await },
        );
    }
    // Each of them has been polled once, and so is on its way, when this is.
    tokio::task::yield_now().await;
    tokio::task::yield_now().await;

    let peer = client.peer().unwrap();
    let reads = Arc::new(AtomicBool::new(false));
    let closing = tokio::spawn({
        let reads = Arc::clone(&reads);
        async move {
            client.close().await;
            reads.load(Ordering::Relaxed)
        }
    });
    // The buffers of both sockets hold less than two of them.
    until("it is told to close", || !peer.is_ready()).await;
    until("they are on their way", || peer.stats().octets_out >= 1_000).await;
    assert!(!closing.is_finished(), "3.6 MB are not out while nobody reads");
    reads.store(true, Ordering::Relaxed);
    let frames = raw.rest().await;
    let mut seen: Vec<u8> = frames
        .iter()
        .filter(|frame| frame.kind == ONE_WAY)
        .map(|frame| {
            let payload = &frame.body[frame.body.len() - 15_000..];
            assert!(payload.iter().all(|octet| octet == &payload[0]));
            payload[0]
        })
        .collect();
    seen.sort_unstable();
    assert_eq!(seen, (0..u8::try_from(COUNT).unwrap()).collect::<Vec<_>>());
    let close = frames.last().unwrap();
    assert_eq!((close.kind, close.status), (CLOSE, Status::NORMAL.0));
    assert!(frames.iter().all(|frame| matches!(frame.kind, ONE_WAY | CLOSE | HEARTBEAT)));
    drop(raw);
    assert!(soon("it is closed", closing).await.unwrap(), "it waited for who reads");
    while let Some(result) = soon("the outcomes", sent.join_next()).await {
        result.unwrap().unwrap();
    }
}

#[tokio::test]
async fn a_one_way_that_came_whole_runs_though_its_sender_has_left() {
    let (begun, done) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let (release, heard) = (Arc::new(Notify::new()), Arc::clone(&done));
    let (begin, wait) = (Arc::clone(&begun), Arc::clone(&release));
    let server = Server::builder("node-2")
        .method("t.T/Store", move |_cx, _body| {
            let (begin, wait, heard) = (Arc::clone(&begin), Arc::clone(&wait), Arc::clone(&heard));
            async move {
                begin.notify_one();
                wait.notified().await;
                heard.notify_one();
                Ok("")
            }
        })
        .listen("127.0.0.1:0")
        .await
        .unwrap();
    let client = Client::connect(server.address()).await.unwrap();
    let peer = only_peer(&server).await;
    client.one_way("t.T/Store", "x").await.unwrap();
    soon("it runs", begun.notified()).await;
    soon("the sender leaves", client.close()).await;
    soon("the server sees it", peer.closed()).await;
    until("and forgets it", || server.peers().is_empty()).await;
    release.notify_one();
    soon("it runs to its end", done.notified()).await;
}
