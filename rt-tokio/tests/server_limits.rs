//! What a server bears: verifiers of all kinds, too many connections, too many calls.
#![allow(clippy::unwrap_used, clippy::panic)]

mod support;

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use support::{
    CHECK_IN, CHECK_IN_ACK, CLOSE, ONE_WAY, REQUEST, RESPONSE, Raw, echo, hello, only_peer, request, soon,
    until, works,
};
use tieline_scenarios::process::alone;
use tieline_tokio::{
    By, Client, ConnectError, Decision, Error, Limits, Server, ServerBuilder, Status, Tokio,
};
use tokio::sync::Semaphore;

const SECOND: Duration = Duration::from_secs(1);

fn echoing() -> ServerBuilder<Tokio> {
    Server::builder("node-2").method("t.T/Echo", |_cx, body| async move { Ok(body) })
}

async fn refused(server: &Server, credential: &[u8]) -> (tieline_tokio::Closed, String) {
    let client = Client::builder("a").credential(credential).connect(server.address());
    let error = soon("an error", client).await.unwrap_err();
    let message = error.to_string();
    match error {
        ConnectError::CheckIn { closed, .. } => (closed, message),
        other => panic!("it was not even asked: {other}"),
    }
}

#[tokio::test]
async fn a_verifier_lets_in_and_keeps_out() {
    let server = echoing()
        .verify(|check_in| async move {
            tokio::task::yield_now().await;
            match &check_in.credential[..] {
                b"good" if check_in.peer.identifier == "a" => Decision::Accept,
                b"later" => Decision::RefuseFor("not today".to_owned(), 90 * SECOND),
                b"panic" => panic!("the verifier panics"),
                _ => Decision::Refuse("not on the list".to_owned()),
            }
        })
        .listen("127.0.0.1:0")
        .await
        .unwrap();
    let client = Client::builder("a").credential(b"good").connect(server.address()).await.unwrap();
    works(&client).await;

    let (closed, message) = refused(&server, b"bad").await;
    assert_eq!((closed.by, closed.status, closed.retry_after), (By::Peer, Status::CHECK_IN_REFUSED, None));
    assert!(message.contains("not on the list") && message.contains("credential"), "{message}");
    let (closed, _) = refused(&server, b"later").await;
    assert_eq!(closed.retry_after, Some(90 * SECOND));

    let begun = Instant::now();
    let (closed, message) = refused(&server, b"panic").await;
    assert_eq!(closed.status, Status::CHECK_IN_REFUSED);
    assert!(!message.contains("panics"), "no word of the panic goes out: {message}");
    assert!(begun.elapsed() < 2 * SECOND, "nobody waits for a verifier that is no more");
    works(&client).await;
    assert_eq!(server.peers().len(), 1);
}

#[tokio::test]
async fn a_verifier_that_panics_before_its_first_await_refuses_too() {
    let server = echoing()
        .verify(|check_in| {
            assert!(check_in.credential.is_empty(), "the verifier panics");
            async { Decision::Accept }
        })
        .listen("127.0.0.1:0")
        .await
        .unwrap();
    assert_eq!(refused(&server, b"x").await.0.status, Status::CHECK_IN_REFUSED);
    works(&Client::connect(server.address()).await.unwrap()).await;
}

#[tokio::test]
async fn a_verifier_that_never_decides_refuses_and_keeps_nothing() {
    let pending = Arc::new(());
    let held = Arc::clone(&pending);
    let server = echoing()
        .verify(move |_| {
            let held = Arc::clone(&held);
            async move {
                let _held = held;
                std::future::pending().await
            }
        })
        .listen("127.0.0.1:0")
        .await
        .unwrap();
    let holders = Arc::strong_count(&pending);
    let mut gone = Raw::connect(server.address()).await;
    gone.send(&hello(CHECK_IN, "gone", SECOND)).await;
    until("the verifier is asked", || Arc::strong_count(&pending) > holders).await;
    drop(gone);
    until("who has left is forgotten", || Arc::strong_count(&pending) == holders).await;

    let begun = Instant::now();
    let (closed, message) = refused(&server, b"").await;
    assert_eq!((closed.by, closed.status), (By::Peer, Status::CHECK_IN_REFUSED), "{message}");
    assert!(closed.retry_after.is_some());
    assert!((4 * SECOND..8 * SECOND).contains(&begun.elapsed()), "{:?}", begun.elapsed());
    until("nothing is left of it", || Arc::strong_count(&pending) == holders).await;
}

#[test]
fn too_many_that_do_not_check_in_push_the_oldest_out() {
    if !alone("too_many_that_do_not_check_in_push_the_oldest_out", 4000) {
        return;
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let server =
            echoing().configure(|c| c.check_in_timeout(60 * SECOND)).listen("127.0.0.1:0").await.unwrap();
        let mut strangers = Vec::new();
        for _ in 0..1100 {
            strangers.push(Raw::connect(server.address()).await);
        }
        let mut client = None;
        let mut rest = strangers.split_off(76);
        for (number, stranger) in strangers.iter_mut().enumerate() {
            let frames = stranger.rest().await;
            assert_eq!(frames.len(), 1, "{number}");
            assert_eq!(
                (frames[0].kind, frames[0].status),
                (CLOSE, Status::TOO_MANY_CONNECTIONS.0),
                "{number}"
            );
            if number == 40 {
                // While the house is full, and others are being shown out.
                client = Some(Client::connect(server.address()).await.unwrap());
            }
        }
        let client = client.unwrap();
        works(&client).await;
        // It was one more than there was room for while it checked in.
        assert_eq!(rest.remove(0).rest().await.len(), 1);
        let mut octet = [0];
        for stranger in &rest {
            let read = stranger.stream.try_read(&mut octet);
            assert!(read.is_err_and(|error| error.kind() == std::io::ErrorKind::WouldBlock));
        }
        // Nor are those who stayed of no use: the last of them checks in.
        let mut last = rest.pop().unwrap();
        last.send(&hello(CHECK_IN, "last", SECOND)).await;
        assert_eq!(last.next(CHECK_IN_ACK).await.status, 0);
        works(&client).await;
        soon("all of them are shown out", server.shutdown(SECOND)).await;
    });
}

#[tokio::test]
async fn calls_beyond_the_limit_are_refused_and_the_clients_keep_to_it() {
    let (gate, running, most) =
        (Arc::new(Semaphore::new(0)), Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let (wait, now, top) = (Arc::clone(&gate), Arc::clone(&running), Arc::clone(&most));
    let mut limits = Limits::default();
    limits.max_concurrent = 2;
    let server = Server::builder("node-2")
        .limits(limits)
        .method("t.T/Wait", move |_cx, body| {
            let (wait, now, top) = (Arc::clone(&wait), Arc::clone(&now), Arc::clone(&top));
            async move {
                top.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                wait.acquire().await.map_err(|_| Error::new(Status::INTERNAL, "closed"))?.forget();
                now.fetch_sub(1, Ordering::SeqCst);
                Ok(body)
            }
        })
        .listen("127.0.0.1:0")
        .await
        .unwrap();

    // Who does not keep to it is refused, call by call.
    let mut raw = Raw::check_in(server.address(), "raw", 10 * SECOND).await;
    for call in 0..6 {
        raw.send(&request(REQUEST, 2 * call + 1, "t.T/Wait", b"")).await;
    }
    for call in 2..6 {
        let answer = raw.next(RESPONSE).await;
        assert_eq!((answer.id, answer.status), (2 * call + 1, Status::TOO_MANY_CALLS.0));
    }
    assert_eq!(running.load(Ordering::SeqCst), 2);

    // A client waits in its own house.
    let client = Client::connect(server.address()).await.unwrap();
    let calls: Vec<_> = (0..20)
        .map(|_| {
            let client = client.clone();
            tokio::spawn(async move { client.call("t.T/Wait", "x").await })
        })
        .collect();
    until("two more run", || running.load(Ordering::SeqCst) == 4).await;
    gate.add_permits(22);
    for call in calls {
        soon("an answer", call).await.unwrap().unwrap();
    }
    for _ in 0..2 {
        assert_eq!(raw.next(RESPONSE).await.status, Status::OK.0);
    }
    assert_eq!(most.load(Ordering::SeqCst), 4, "two of each connection");
}

#[tokio::test]
async fn a_flood_of_one_ways_is_bounded() {
    let (gate, running, most, ran) = (
        Arc::new(Semaphore::new(0)),
        Arc::new(AtomicUsize::new(0)),
        Arc::new(AtomicUsize::new(0)),
        Arc::new(AtomicUsize::new(0)),
    );
    let (wait, now, top, all) =
        (Arc::clone(&gate), Arc::clone(&running), Arc::clone(&most), Arc::clone(&ran));
    let mut limits = Limits::default();
    limits.max_concurrent = 4;
    limits.max_one_ways = 100;
    let server = echoing()
        .limits(limits)
        .method("t.T/Tell", move |_cx, _body| {
            let (wait, now, top, all) =
                (Arc::clone(&wait), Arc::clone(&now), Arc::clone(&top), Arc::clone(&all));
            async move {
                top.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                let permit = wait.acquire().await.map_err(|_| Error::new(Status::INTERNAL, "closed"))?;
                now.fetch_sub(1, Ordering::SeqCst);
                all.fetch_add(1, Ordering::SeqCst);
                drop(permit);
                Ok("")
            }
        })
        .listen("127.0.0.1:0")
        .await
        .unwrap();
    let client = Client::connect(server.address()).await.unwrap();
    let peer = only_peer(&server).await;
    for _ in 0..5000 {
        client.one_way("t.T/Tell", "x").await.unwrap();
    }
    // What comes behind the flood is served beside it.
    works(&client).await;
    assert_eq!(running.load(Ordering::SeqCst), 4);
    assert_eq!(peer.stats().dropped_one_ways, 5000 - 104);
    gate.add_permits(1);
    until("the rest runs", || ran.load(Ordering::SeqCst) == 104).await;
    assert_eq!(most.load(Ordering::SeqCst), 4);
    works(&client).await;
    assert_eq!(client.attempts(), 1);
}

/// R-CAL-06: they are dropped and counted; an answer is what the budget prices.
#[tokio::test]
async fn one_ways_that_nobody_serves_are_counted_and_cost_nothing() {
    let server = echo("127.0.0.1:0").await;
    let mut raw = Raw::check_in(server.address(), "raw", 10 * SECOND).await;
    let mut flood = Vec::new();
    for call in 0..20_000 {
        flood.extend(request(ONE_WAY, 2 * call + 1, "t.T/Nothing", b""));
    }
    flood.extend(request(REQUEST, 40_001, "t.T/Echo", b"still here"));
    raw.send(&flood).await;
    assert_eq!(raw.next(RESPONSE).await.id, 40_001);
    assert_eq!(only_peer(&server).await.stats().dropped_one_ways, 20_000);
}
