//! Calls over real sockets: answers, errors, both directions, cancelling, deadlines.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use tieline_tokio::{Client, Error, Ran, Server, Status};
use tokio::sync::Notify;

async fn server() -> Server {
    Server::builder("node-2")
        .method("t.T/Echo", |_cx, body| async move { Ok(body) })
        .method("t.T/Fail", |_cx, _body| async move {
            Err::<&'static str, _>(Error::application(7, "so it goes").detail("detail"))
        })
        .method("t.T/Panic", |_cx, body| async move {
            assert!(!body.is_empty(), "the handler panics");
            Ok(body)
        })
        .method("t.T/CallMe", |cx, body| async move {
            let answer = cx.peer().call("t.T/Double", body).await?;
            Ok(answer.payload)
        })
        .listen("127.0.0.1:0")
        .await
        .unwrap()
}

#[tokio::test]
async fn a_call_is_answered() {
    let server = server().await;
    let client = Client::connect(server.address()).await.unwrap();
    for size in [0, 1, 100, 5_000, 60_000] {
        let body = vec![7u8; size];
        let answer = client.call("t.T/Echo", body.clone()).await.unwrap();
        assert_eq!(answer.payload, body);
    }
    assert_eq!(client.peer().unwrap().info().unwrap().identifier, "node-2");
    client.close().await;
    server.shutdown(Duration::from_secs(1)).await;
}

#[tokio::test]
async fn a_thousand_calls_at_once_are_answered_each_with_its_own() {
    let server = server().await;
    let client = Arc::new(Client::connect(server.address()).await.unwrap());
    let mut calls = tokio::task::JoinSet::new();
    for number in 0..1000u32 {
        let client = Arc::clone(&client);
        calls.spawn(async move {
            let answer = client.call("t.T/Echo", number.to_be_bytes().to_vec()).await.unwrap();
            assert_eq!(answer.payload, number.to_be_bytes()[..]);
        });
    }
    while let Some(done) = calls.join_next().await {
        done.unwrap();
    }
}

#[tokio::test]
async fn errors_say_what_where_and_whether_it_ran() {
    let server = server().await;
    let client = Client::connect(server.address()).await.unwrap();

    let error = client.call("t.T/Fail", "").await.unwrap_err();
    assert_eq!((error.status(), error.code(), error.ran()), (Status(0xC0), 7, Ran::Yes));
    assert_eq!(error.detail(), "detail");
    assert!(error.to_string().starts_with("node-2 (127.0.0.1:"), "{error}");

    let error = client.call("t.T/Nothing", "").await.unwrap_err();
    assert_eq!((error.status(), error.ran()), (Status::NO_SUCH_METHOD, Ran::No));

    let error = client.call("t.T/Panic", "").await.unwrap_err();
    assert_eq!(error.status(), Status::HANDLER_PANIC);
    assert!(!error.message().contains("the handler panics"), "no word of the panic goes out");
    assert_eq!(client.call("t.T/Panic", "x").await.unwrap().payload, "x", "the connection lives on");
}

#[tokio::test]
async fn a_handler_calls_its_caller_on_the_same_connection() {
    let server = server().await;
    let client = Client::builder("node-1")
        .method("t.T/Double", |_cx, body| async move { Ok([&body[..], &body[..]].concat()) })
        .connect(server.address())
        .await
        .unwrap();
    assert_eq!(client.call("t.T/CallMe", "ab").await.unwrap().payload, "abab");

    let deaf = Client::builder("node-3").connect(server.address()).await.unwrap();
    let error = deaf.call("t.T/CallMe", "ab").await.unwrap_err();
    assert_eq!(error.status(), Status::INTERNAL, "a client that serves nothing cannot be called: {error}");
}

/// A handler that never ends, and shows when it was stopped.
async fn stubborn_until_dropped() -> (Server, Arc<Notify>, Arc<AtomicUsize>) {
    struct Dropped(Arc<AtomicUsize>, Arc<Notify>);
    impl Drop for Dropped {
        fn drop(&mut self) {
            self.0.fetch_add(1, Ordering::SeqCst);
            self.1.notify_one();
        }
    }
    let (notify, dropped) = (Arc::new(Notify::new()), Arc::new(AtomicUsize::new(0)));
    let (signal, count) = (Arc::clone(&notify), Arc::clone(&dropped));
    let server = Server::builder("node-2")
        .method("t.T/Forever", move |_cx, body| {
            let (signal, count) = (Arc::clone(&signal), Arc::clone(&count));
            async move {
                let _shown = Dropped(count, Arc::clone(&signal));
                signal.notify_one();
                std::future::pending::<()>().await;
                Ok(body)
            }
        })
        .listen("127.0.0.1:0")
        .await
        .unwrap();
    (server, notify, dropped)
}

#[tokio::test]
async fn dropping_a_call_stops_its_handler() {
    let (server, notify, dropped) = stubborn_until_dropped().await;
    let client = Client::connect(server.address()).await.unwrap();
    {
        let call = client.call("t.T/Forever", "");
        tokio::select! {
            _ = call => panic!("it never ends"),
            () = notify.notified() => {}
        }
    }
    notify.notified().await;
    assert_eq!(dropped.load(Ordering::SeqCst), 1);
    assert_eq!(client.peer().unwrap().info().unwrap().identifier, "node-2", "the connection lives on");
}

#[tokio::test]
async fn a_deadline_ends_the_call_here_and_its_handler_there() {
    let (server, notify, dropped) = stubborn_until_dropped().await;
    let client = Client::connect(server.address()).await.unwrap();
    let error = client.call("t.T/Forever", "").timeout(Duration::from_millis(50)).await.unwrap_err();
    assert!(matches!(error.status(), Status::TIMEOUT | Status::EXPIRED_RUNNING), "{error}");
    while dropped.load(Ordering::SeqCst) == 0 {
        notify.notified().await;
    }
}

#[tokio::test]
async fn a_one_way_runs_and_is_not_answered() {
    let notify = Arc::new(Notify::new());
    let heard = Arc::clone(&notify);
    let server = Server::builder("node-2")
        .method("t.T/Tell", move |cx, body| {
            let heard = Arc::clone(&heard);
            async move {
                assert!(cx.is_one_way());
                heard.notify_one();
                Ok(body)
            }
        })
        .listen("127.0.0.1:0")
        .await
        .unwrap();
    let client = Client::connect(server.address()).await.unwrap();
    assert!(client.one_way("t.T/Tell", "x").await.unwrap().payload.is_empty());
    notify.notified().await;
}
