//! Calls that are given up and say how that ended, handlers that do not stop, and what both ends can tell of themselves.
#![allow(clippy::unwrap_used, clippy::panic)]

mod support;

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use support::{echo, only_peer, soon, until, works};
use tieline_tokio::{Client, ClientState, Limits, Ran, Server, Status};
use tokio::sync::Notify;

/// A server on which `t.T/Wait` waits until it is told to go on, and its counter of those that are through.
async fn waiting(limits: Limits, keep_running: bool) -> (Server, Arc<Notify>, Arc<AtomicUsize>) {
    let (go, through) = (Arc::new(Notify::new()), Arc::new(AtomicUsize::new(0)));
    let (told, count) = (Arc::clone(&go), Arc::clone(&through));
    let mut server = Server::builder("node-2").limits(limits).method("t.T/Wait", move |_cx, _body| {
        let (told, count) = (Arc::clone(&told), Arc::clone(&count));
        async move {
            told.notified().await;
            count.fetch_add(1, Ordering::Relaxed);
            Ok("")
        }
    });
    if keep_running {
        server = server.keep_running();
    }
    let server = server.method("t.T/Echo", |_cx, body| async move { Ok(body) });
    (server.listen("127.0.0.1:0").await.unwrap(), go, through)
}

fn one_call() -> Limits {
    let mut limits = Limits::default();
    limits.max_concurrent = 1;
    limits
}

#[tokio::test]
async fn a_call_that_is_given_up_says_whether_it_left() {
    let (server, _go, _through) = waiting(one_call(), false).await;
    let client = Client::connect(server.address()).await.unwrap();
    let never = client.call("t.T/Wait", "").cancel().unwrap_err();
    assert_eq!((never.status(), never.ran()), (Status::NOT_SENT, Ran::No), "it was not even begun");

    let mut first = client.call("t.T/Wait", "");
    let mut second = client.call("t.T/Echo", "");
    tokio::select! {
        biased;
        _ = &mut first => panic!("nobody told it to go on"),
        _ = &mut second => panic!("there is one slot"),
        () = until("the first one runs", || server.meter().read().stats.calls_in == 1) => {}
    }
    let second = second.cancel().unwrap_err();
    assert_eq!((second.status(), second.ran()), (Status::NOT_SENT, Ran::No));
    let first = first.cancel().unwrap_err();
    assert_eq!((first.status(), first.ran()), (Status::CANCELLED, Ran::Maybe));
    works(&client).await;
}

#[tokio::test]
async fn an_outcome_that_was_faster_is_the_outcome() {
    let server = echo("127.0.0.1:0").await;
    let client = Client::connect(server.address()).await.unwrap();
    let peer = client.peer().unwrap();
    let mut call = client.call("t.T/Echo", "fast");
    let polled = std::future::poll_fn(|cx| {
        std::task::Poll::Ready(Future::poll(std::pin::Pin::new(&mut call), cx).is_ready())
    });
    assert!(!polled.await);
    // Its answer is there when that of one behind it is, and nobody has taken it.
    works(&client).await;
    assert_eq!(call.cancel().unwrap().payload, "fast");
    assert_eq!(peer.stats().calls_out, 2);

    let nowhere = Client::builder("alone").connect_lazily("127.0.0.1:1").unwrap();
    let error = nowhere.call("t.T/Echo", "").cancel().unwrap_err();
    assert_eq!((error.status(), error.ran()), (Status::NO_ENDPOINT, Ran::No));
}

#[tokio::test]
async fn a_stream_that_is_given_up_says_how_it_ended() {
    let server = Server::builder("node-2")
        .bidi("t.T/Chat", |_cx, _body, mut items, mut sink| async move {
            while let Some(item) = items.next().await {
                sink.send(item?).await?;
            }
            Ok("bye")
        })
        .client_stream("t.T/Early", |_cx, _body, _items| async move { Ok("early") });
    let server = server.listen("127.0.0.1:0").await.unwrap();
    let client = Client::connect(server.address()).await.unwrap();
    let (mut sink, mut items) = client.bidi("t.T/Chat", "").await.unwrap().split();
    sink.send("hello").await.unwrap();
    assert_eq!(soon("an item", items.next()).await.unwrap().unwrap(), "hello");
    let error = items.cancel().unwrap_err();
    assert_eq!((error.status(), error.ran()), (Status::CANCELLED, Ran::Maybe));
    assert!(sink.send("more").await.is_err(), "the call is over for its other half, too");

    // The answer of a node that does not wait for the end of the items.
    let (_sink, mut items) = client.client_stream("t.T/Early", "").await.unwrap().split();
    assert!(soon("the answer", items.next()).await.is_none());
    assert_eq!(items.cancel().unwrap().payload, "early");
}

#[tokio::test]
async fn a_handler_that_keeps_running_holds_its_slot_to_its_end() {
    for keep_running in [true, false] {
        let (server, go, through) = waiting(one_call(), keep_running).await;
        let client = Client::connect(server.address()).await.unwrap();
        let given_up = client.call("t.T/Wait", "").timeout(Duration::from_millis(20));
        assert_eq!(soon("the deadline", given_up).await.unwrap_err().status(), Status::TIMEOUT);
        if keep_running {
            let refused = soon("a refusal", client.call("t.T/Echo", "")).await.unwrap_err();
            assert_eq!(refused.status(), Status::TOO_MANY_CALLS);
        }
        let meter = server.meter();
        client.close().await;
        until("the connection is gone", || meter.read().connections == 0).await;
        go.notify_one();
        if keep_running {
            until("the handler has ended by itself", || through.load(Ordering::Relaxed) == 1).await;
        }
        let client = Client::connect(server.address()).await.unwrap();
        works(&client).await;
        assert_eq!(through.load(Ordering::Relaxed), usize::from(keep_running));
    }
}

#[tokio::test]
async fn a_meter_goes_on_counting_what_is_over() {
    let server = echo("127.0.0.1:0").await;
    let meter = server.meter();
    for round in 1..=3 {
        let client = Client::connect(server.address()).await.unwrap();
        works(&client).await;
        client.call("t.T/NoSuch", "").await.unwrap_err();
        assert_eq!(meter.read().connections, 1);
        client.close().await;
        until("it is gone", || meter.read().connections == 0).await;
        let stats = meter.read().stats;
        assert_eq!((stats.calls_in, stats.refused), (round, round));
    }
    server.shutdown(Duration::ZERO).await;
    assert_eq!(meter.read().stats.calls_in, 3, "also when there is no server any more");
}

#[tokio::test]
async fn a_client_says_what_it_is_at() {
    let alone =
        Client::builder("alone").backoff(Duration::from_secs(10)).connect_lazily("127.0.0.1:1").unwrap();
    until("it waits", || alone.state() == ClientState::Backoff).await;
    assert_eq!((alone.attempts(), alone.last_close()), (1, None), "nobody was there to close anything");

    let (server, go, _through) = waiting(Limits::default(), false).await;
    let address = server.address().to_owned();
    let client = Client::connect(&address).await.unwrap();
    assert_eq!((client.state(), client.last_close()), (ClientState::Ready, None));
    assert!(client.draining().is_empty());
    let calling = client.clone();
    let call = tokio::spawn(async move { calling.call("t.T/Wait", "").await });
    until("it runs", || server.meter().read().stats.calls_in == 1).await;
    let peer = only_peer(&server).await;
    peer.drain(Status::GOING_AWAY, Duration::from_secs(10), "restart");
    until("it drains", || client.draining().len() == 1).await;
    go.notify_one();
    assert_eq!(soon("the call", call).await.unwrap().unwrap().payload, "");
    until("it is over", || client.draining().is_empty()).await;
    assert_eq!(client.last_close().unwrap().status, Status::GOING_AWAY);
    soon("another connection", client.ready()).await.unwrap();
    assert_eq!(client.state(), ClientState::Ready);
    let watching = client.clone();
    client.close().await;
    assert_eq!(watching.state(), ClientState::Closed);
}

#[tokio::test]
async fn snappy_is_not_offered_if_that_is_asked() {
    let server = echo("127.0.0.1:0").await;
    for offered in [true, false] {
        let client = Client::builder("c").configure(|config| config.snappy(offered).compress(true));
        let client = client.connect(server.address()).await.unwrap();
        let peer = client.peer().unwrap();
        assert_eq!(peer.info().unwrap().snappy, offered);
        let answer = soon("an echo", client.call("t.T/Echo", vec![7; 10_000])).await.unwrap();
        assert_eq!(answer.payload, vec![7; 10_000]);
        assert_eq!(peer.stats().octets_saved > 0, offered);
        client.close().await;
    }
}
