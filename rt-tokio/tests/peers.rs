//! Both ends are equals: calls in both directions, under load, inside one another, and given up at any moment.
#![allow(clippy::unwrap_used, clippy::panic)]

mod support;

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use support::{narrow, only_peer, soon, until, within};
use tieline_tokio::{Client, Limits, Peer, Ran, Server, ServerBuilder, Services, Status, Tokio};
use tokio::task::JoinSet;

const SECOND: Duration = Duration::from_secs(1);

/// Room for everything that these tests have under way at once.
fn roomy() -> Limits {
    let mut limits = Limits::default();
    limits.memory = 64 << 20;
    limits.max_queued = 64 << 20;
    limits
}

fn echo() -> Services {
    Services::new().method("t.T/Echo", |_cx, body| async move { Ok(body) }).method(
        "t.T/Later",
        |_cx, body| async {
            tokio::task::yield_now().await;
            Ok(body)
        },
    )
}

/// Calls `count` times at once, each with octets of its own.
async fn storm(peer: &Peer, method: &'static str, count: usize, octets: usize) {
    let mut calls = JoinSet::new();
    for number in 0..count {
        let peer = peer.clone();
        calls.spawn(async move {
            let mut body = vec![u8::try_from(number % 251).unwrap(); octets];
            body[..8].copy_from_slice(&(number as u64).to_be_bytes());
            let body = Bytes::from(body);
            let answer = peer.call(method, body.clone()).timeout(30 * SECOND).await.unwrap();
            assert!(answer.payload == body, "call {number} got another one's answer");
        });
    }
    while let Some(call) = calls.join_next().await {
        call.unwrap();
    }
}

async fn both_ways() {
    for method in ["t.T/Echo", "t.T/Later"] {
        let server =
            Server::builder("node-2").services(echo()).limits(roomy()).serve_on(narrow().0.into()).unwrap();
        let client = Client::builder("node-1").services(echo()).limits(roomy());
        let client = client.connect(server.address()).await.unwrap();
        let (here, there) = (client.peer().unwrap(), only_peer(&server).await);
        within(20 * SECOND, "both directions at once", async {
            tokio::join!(storm(&here, method, 200, 60 << 10), storm(&there, method, 200, 60 << 10));
        })
        .await;
        assert!(here.is_ready() && there.is_ready());
    }
}

#[tokio::test]
async fn both_sides_press_through_small_buffers_on_one_thread() {
    both_ways().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn both_sides_press_through_small_buffers_on_several_threads() {
    both_ways().await;
}

/// A service that calls its caller's same method with one less, down to 0, and counts the way back up.
fn ladder() -> Services {
    Services::new().method("t.T/Down", |cx, body: Bytes| async move {
        let left = body[0];
        if left == 0 {
            return Ok(Bytes::from_static(&[0]));
        }
        let answer = cx.peer().call("t.T/Down", vec![left - 1]).await?;
        Ok(Bytes::from(vec![answer.payload[0] + 1]))
    })
}

#[tokio::test]
async fn handlers_call_back_inside_one_another() {
    let server = Server::builder("node-2").services(ladder()).listen("127.0.0.1:0").await.unwrap();
    let client = Client::builder("node-1").services(ladder()).connect(server.address()).await.unwrap();
    let there = only_peer(&server).await;
    let mut calls = JoinSet::new();
    for depth in 0..=100u8 {
        let (client, there) = (client.clone(), there.clone());
        calls.spawn(async move { (depth, client.call("t.T/Down", vec![depth]).await.unwrap().payload[0]) });
        calls.spawn(async move { (depth, there.call("t.T/Down", vec![depth]).await.unwrap().payload[0]) });
    }
    while let Some(call) = soon("the way down and up", calls.join_next()).await {
        let (depth, climbed) = call.unwrap();
        assert_eq!(depth, climbed);
    }
}

#[tokio::test]
async fn a_deadline_and_a_cancel_reach_the_innermost_handler() {
    let running = Arc::new(AtomicUsize::new(0));
    let deepest = Arc::clone(&running);
    let forever = Services::new().method("t.T/Forever", move |_cx, body: Bytes| {
        let held = Held::new(&deepest);
        async move {
            let _held = held;
            std::future::pending::<()>().await;
            Ok(body)
        }
    });
    let relay = |cx: tieline_tokio::Context, body: Bytes| async move {
        // Without a time-out of its own: it has its caller's.
        Ok(cx.peer().call("t.T/Forever", body).no_timeout().await?.payload)
    };
    let server = Server::builder("node-2").method("t.T/Relay", relay).listen("127.0.0.1:0").await.unwrap();
    let client = Client::builder("node-1").services(forever).connect(server.address()).await.unwrap();

    let error = client.call("t.T/Relay", "x").timeout(Duration::from_millis(80)).await.unwrap_err();
    assert!(
        [Status::TIMEOUT, Status::EXPIRED_RUNNING, Status::INTERNAL].contains(&error.status()),
        "{error}"
    );
    until("the deadline has come through", || running.load(Ordering::SeqCst) == 0).await;

    {
        let call = client.call("t.T/Relay", "x").no_timeout();
        let begun = until("the innermost runs", || running.load(Ordering::SeqCst) == 1);
        tokio::select! {
            _ = call => panic!("it never ends"),
            () = begun => {}
        }
    }
    until("the cancel has come through", || running.load(Ordering::SeqCst) == 0).await;
}

/// Counts while it lives.
struct Held(Arc<AtomicUsize>);

impl Held {
    fn new(count: &Arc<AtomicUsize>) -> Self {
        count.fetch_add(1, Ordering::SeqCst);
        Self(Arc::clone(count))
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

/// A number from which the next one follows.
fn next(seed: &mut u64) -> u64 {
    *seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
    *seed >> 33
}

/// Turns of the others for which a handler or a caller waits, from none to longer than a call takes.
const TURNS: [u32; 4] = [0, 1, 40, 400];

async fn turns(count: u32) {
    for _ in 0..count {
        tokio::task::yield_now().await;
    }
}

fn counting(running: &Arc<AtomicUsize>, started: &Arc<AtomicUsize>) -> ServerBuilder<Tokio> {
    let (running, started) = (Arc::clone(running), Arc::clone(started));
    Server::builder("node-2").method("t.T/Sleep", move |_cx, body: Bytes| {
        let held = Held::new(&running);
        started.fetch_add(1, Ordering::Relaxed);
        async move {
            let _held = held;
            turns(TURNS[usize::from(body[0] % 4)]).await;
            Ok(body)
        }
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn calls_given_up_at_any_moment_leave_nothing_behind() {
    const WORKERS: u64 = 20;
    const CALLS: u64 = 500;
    let (running, started) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let server = counting(&running, &started).listen("127.0.0.1:0").await.unwrap();
    let client = Client::connect(server.address()).await.unwrap();
    let (here, there) = (client.peer().unwrap(), only_peer(&server).await);
    let (answered, dropped) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let mut workers = JoinSet::new();
    for worker in 0..WORKERS {
        let (client, answered, dropped) = (client.clone(), Arc::clone(&answered), Arc::clone(&dropped));
        workers.spawn(async move {
            let mut seed = worker;
            for number in 0..CALLS {
                let mut body = vec![u8::try_from(next(&mut seed) % 256).unwrap()];
                body.extend((worker * CALLS + number).to_be_bytes());
                if number % 16 == 0 {
                    body.resize(30_000, 0);
                }
                let body = Bytes::from(body);
                let call = client.call("t.T/Sleep", body.clone());
                let moment = next(&mut seed) % 8;
                let give_up = async {
                    match TURNS.get(usize::try_from(moment).unwrap()) {
                        Some(count) => turns(*count).await,
                        None => std::future::pending().await,
                    }
                };
                tokio::select! {
                    biased;
                    answer = call => {
                        assert!(answer.unwrap().payload == body, "another one's answer");
                        answered.fetch_add(1, Ordering::Relaxed);
                    }
                    () = give_up => {
                        dropped.fetch_add(1, Ordering::Relaxed);
                    }
                }
            }
        });
    }
    within(25 * SECOND, "all of them", async {
        while let Some(worker) = workers.join_next().await {
            worker.unwrap();
        }
    })
    .await;
    let (answered, dropped) = (answered.load(Ordering::Relaxed), dropped.load(Ordering::Relaxed));
    assert_eq!(answered + dropped, 10_000);
    assert!(answered > 1000 && dropped > 1000, "{answered} answered, {dropped} dropped");
    until("every handler has stopped", || running.load(Ordering::SeqCst) == 0).await;
    let (out, came) = (here.stats(), there.stats());
    assert!(out.calls_out >= answered as u64 && out.calls_out <= 10_000, "{out:?}");
    let started = started.load(Ordering::Relaxed);
    // Some were given up before their handler could begin.
    assert!(started >= answered && started as u64 <= came.calls_in, "{started} started, {came:?}");
    assert!(here.is_ready(), "the connection lives");
    // Every place is free again: as many as there are run at once.
    let mut calls = JoinSet::new();
    for _ in 0..4096 {
        let client = client.clone();
        calls.spawn(async move { client.call("t.T/Sleep", Bytes::from_static(&[3])).await.map(|_| ()) });
    }
    while let Some(call) = soon("every place", calls.join_next()).await {
        call.unwrap().unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn a_connection_that_ends_under_calls_ends_each_of_them_once() {
    let (running, started) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let server = counting(&running, &started).listen("127.0.0.1:0").await.unwrap();
    for round in 0..20 {
        let client = Client::builder("a").backoff(30 * SECOND).connect(server.address()).await.unwrap();
        let there = only_peer(&server).await;
        let mut calls = JoinSet::new();
        for number in 0..200u8 {
            let client = client.clone();
            calls.spawn(async move {
                client.call("t.T/Sleep", vec![number]).await.map(|answer| answer.payload[0] == number)
            });
        }
        let mut ended = 0;
        while let Some(call) = soon("every call ends", calls.join_next()).await {
            match call.unwrap() {
                Ok(own) => assert!(own, "another one's answer"),
                Err(error) => {
                    let lost =
                        [Status::CONNECTION_LOST, Status::INTERRUPTED, Status::NOT_SENT, Status::NO_ENDPOINT];
                    assert!(lost.contains(&error.status()), "{error}");
                    assert!(error.ran() != Ran::Yes, "{error}");
                }
            }
            ended += 1;
            if ended == round * 10 {
                let status = if round % 2 == 0 { Status::NORMAL } else { Status::EXCESSIVE_LOAD };
                there.close(status, "that is enough");
            }
        }
        assert_eq!(ended, 200);
        drop(client);
        until("it is forgotten", || server.peers().is_empty()).await;
    }
    until("every handler has stopped", || running.load(Ordering::SeqCst) == 0).await;
}
