//! How streams end before their time: given up at either half, out of time, drained, cut off, or refused.
#![allow(clippy::unwrap_used, clippy::panic)]

mod support;

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use support::{Dropped, cable, soon};
use tieline_tokio::{CallError, Client, Limits, Ran, Server, Services, Status};
use tokio::sync::{Notify, mpsc};

const MS: Duration = Duration::from_millis(1);

/// What handlers tell the test.
#[derive(Default)]
struct Signals {
    /// A handler is at its first await.
    begun: Arc<Notify>,
    /// A handler was dropped.
    stopped: Arc<Notify>,
}

/// Handlers of every kind that send an item and then never end by themselves.
async fn stubborn() -> (Server, Signals) {
    let signals = Signals::default();
    let guard = |signals: &Signals| {
        let (begun, stopped) = (Arc::clone(&signals.begun), Arc::clone(&signals.stopped));
        move || {
            begun.notify_one();
            Dropped(Arc::clone(&stopped))
        }
    };
    let (a, b, c) = (guard(&signals), guard(&signals), guard(&signals));
    let services = Services::new()
        .server_stream("t.S/Down", move |_cx, _body, mut sink| {
            let guard = a();
            async move {
                let _guard = guard;
                sink.send("first").await?;
                std::future::pending::<()>().await;
                Ok("")
            }
        })
        .client_stream("t.S/Up", move |_cx, _body, mut items| {
            let guard = b();
            async move {
                let _guard = guard;
                while items.next().await.is_some() {}
                std::future::pending::<()>().await;
                Ok("")
            }
        })
        .bidi("t.S/Both", move |_cx, _body, mut items, mut sink| {
            let guard = c();
            async move {
                let _guard = guard;
                sink.send("first").await?;
                while items.next().await.is_some() {}
                std::future::pending::<()>().await;
                Ok("")
            }
        })
        .method("t.S/Unary", |_cx, body| async move { Ok(body) });
    let server = Server::builder("node-2").services(services).listen("127.0.0.1:0").await.unwrap();
    (server, signals)
}

#[tokio::test]
async fn dropping_the_half_that_receives_cancels_the_call_and_ends_the_other() {
    let (server, signals) = stubborn().await;
    let client = Client::connect(server.address()).await.unwrap();
    let (mut sink, items) = client.bidi("t.S/Both", "").await.unwrap().split();
    soon("it runs", signals.begun.notified()).await;
    let sender = tokio::spawn(async move {
        loop {
            if let Err(error) = sink.send("x").await {
                return error;
            }
        }
    });
    drop(items);
    soon("the handler is stopped", signals.stopped.notified()).await;
    let error = soon("the sender hears of it", sender).await.unwrap();
    assert_eq!(error.status(), Status::INTERRUPTED, "{error}");
}

#[tokio::test]
async fn dropping_the_half_that_sends_before_its_end_cancels_the_call_and_ends_the_other() {
    let (server, signals) = stubborn().await;
    let client = Client::connect(server.address()).await.unwrap();
    let (sink, mut items) = client.bidi("t.S/Both", "").await.unwrap().split();
    assert_eq!(soon("an item", items.next()).await.unwrap().unwrap(), "first");
    let reader = tokio::spawn(async move {
        let error = items.next().await.unwrap().unwrap_err();
        assert!(items.next().await.is_none(), "an error is told once");
        assert_eq!(items.finish().await.unwrap_err(), error, "and is the outcome");
        error
    });
    tokio::task::yield_now().await;
    drop(sink);
    soon("the handler is stopped", signals.stopped.notified()).await;
    let error = soon("the reader hears of it", reader).await.unwrap();
    assert_eq!(error.status(), Status::CANCELLED, "{error}");
}

#[tokio::test]
async fn a_deadline_ends_a_stream_at_both_ends() {
    let (server, signals) = stubborn().await;
    let client = Client::connect(server.address()).await.unwrap();
    let late = |error: CallError| {
        assert!(matches!(error.status(), Status::TIMEOUT | Status::EXPIRED_RUNNING), "{error}");
    };
    let mut items = client.server_stream("t.S/Down", "").timeout(50 * MS).await.unwrap();
    let error = soon("the time is over", async {
        loop {
            match items.next().await.unwrap() {
                Ok(item) => assert_eq!(item, "first"),
                Err(error) => break error,
            }
        }
    });
    late(error.await);
    soon("the handler is stopped", signals.stopped.notified()).await;

    let mut upload = client.client_stream("t.S/Up", "").timeout(50 * MS).await.unwrap();
    let error = soon("the time is over", async {
        loop {
            if let Err(error) = upload.send("x").await {
                break error;
            }
        }
    });
    late(error.await);
    soon("the handler is stopped", signals.stopped.notified()).await;
    late(upload.finish().await.unwrap_err());
}

/// A handler that gives its ends of the stream away, and what became of them.
async fn giving() -> (Server, mpsc::UnboundedReceiver<CallError>) {
    let (tell, told) = mpsc::unbounded_channel();
    let server = Server::builder("node-2")
        .bidi("t.S/Give", move |_cx, _body, mut items, mut sink| {
            let (out, back) = (tell.clone(), tell.clone());
            tokio::spawn(async move {
                while let Some(item) = items.next().await {
                    if let Err(error) = item {
                        out.send(error).unwrap();
                    }
                }
            });
            tokio::spawn(async move {
                loop {
                    if let Err(error) = sink.send("x").await {
                        back.send(error).unwrap();
                        return;
                    }
                }
            });
            std::future::pending::<Result<Bytes, tieline_tokio::Error>>()
        })
        .listen("127.0.0.1:0")
        .await
        .unwrap();
    (server, told)
}

#[tokio::test]
async fn what_a_handler_gave_away_ends_with_its_call() {
    let (server, mut told) = giving().await;
    let client = Client::connect(server.address()).await.unwrap();
    let mut talk = client.bidi("t.S/Give", "").await.unwrap();
    soon("an item", talk.next()).await.unwrap().unwrap();
    drop(talk);
    for _ in 0..2 {
        let error = soon("both ends hear of it", told.recv()).await.unwrap();
        assert_eq!(error.status(), Status::CANCELLED_RUNNING, "{error}");
    }
    let mut talk = client.bidi("t.S/Give", "").timeout(50 * MS).await.unwrap();
    soon("an item", talk.next()).await.unwrap().unwrap();
    for _ in 0..2 {
        let error = soon("both ends hear of it", told.recv()).await.unwrap();
        assert_eq!(error.status(), Status::EXPIRED_RUNNING, "{error}");
    }
}

#[tokio::test]
async fn a_connection_that_is_lost_ends_its_streams_at_both_ends() {
    let (server, mut told) = giving().await;
    let (address, cable) = cable(server.address()).await;
    let client = Client::connect(&address).await.unwrap();
    let (mut sink, mut items) = client.bidi("t.S/Give", "").await.unwrap().split();
    soon("an item", items.next()).await.unwrap().unwrap();
    cable.abort();
    let error = soon("the reader hears of it", async {
        loop {
            if let Err(error) = items.next().await.unwrap() {
                break error;
            }
        }
    })
    .await;
    assert_eq!((error.status(), error.ran()), (Status::CONNECTION_LOST, Ran::Maybe), "{error}");
    let error = sink.send("x").await.unwrap_err();
    assert_eq!(error.status(), Status::CONNECTION_LOST, "{error}");
    for _ in 0..2 {
        let error = soon("both ends of the handler hear of it", told.recv()).await.unwrap();
        assert_eq!(error.status(), Status::INTERRUPTED, "{error}");
    }
}

#[tokio::test]
async fn a_stream_that_outlives_the_grace_is_interrupted() {
    let (server, signals) = stubborn().await;
    let client = Client::connect(server.address()).await.unwrap();
    let mut items = client.server_stream("t.S/Down", "").await.unwrap();
    assert_eq!(soon("an item", items.next()).await.unwrap().unwrap(), "first");
    soon("the shutdown", server.shutdown(50 * MS)).await;
    let error = soon("the end", items.next()).await.unwrap().unwrap_err();
    assert_eq!(error.status(), Status::INTERRUPTED, "{error}");
    soon("the handler is stopped", signals.stopped.notified()).await;
}

#[tokio::test]
async fn what_cannot_be_sent_or_served_says_so() {
    let mut limits = Limits::default();
    limits.max_item = 1000;
    let server = Server::builder("node-2")
        .limits(limits)
        .client_stream("t.S/Up", |_cx, _body, mut items| async move {
            let mut octets = 0;
            while let Some(item) = items.next().await {
                octets += item?.len();
            }
            Ok(octets.to_string())
        })
        .method("t.S/Unary", |_cx, body| async move { Ok(body) })
        .server_stream("t.S/Large", |_cx, _body, mut sink| async move {
            let error = sink.send(vec![0; 300 << 10]).await.unwrap_err();
            assert_eq!(error.status(), Status::LOCAL_LIMIT, "{error}");
            Ok("too large for you")
        })
        .listen("127.0.0.1:0")
        .await
        .unwrap();
    let client = Client::connect(server.address()).await.unwrap();
    let mut upload = client.client_stream("t.S/Up", "").await.unwrap();
    let error = upload.send(vec![0; 1001]).await.unwrap_err();
    assert_eq!(error.status(), Status::LOCAL_LIMIT, "{error}");
    upload.send(vec![0; 1000]).await.unwrap();
    assert_eq!(soon("the call goes on", upload.finish()).await.unwrap().payload, "1000");

    let items = client.server_stream("t.S/Large", "").await.unwrap();
    assert_eq!(soon("the answer", items.finish()).await.unwrap().payload, "too large for you");

    let items = client.server_stream("t.S/Unary", "").await.unwrap();
    let error = soon("the refusal", items.finish()).await.unwrap_err();
    assert_eq!((error.status(), error.ran()), (Status::WRONG_KIND, Ran::No), "{error}");

    let items = client.server_stream("t.S/Nothing", "").await.unwrap();
    let error = soon("the refusal", items.finish()).await.unwrap_err();
    assert_eq!((error.status(), error.ran()), (Status::NO_SUCH_METHOD, Ran::No), "{error}");

    let unary = support::echo("127.0.0.1:0").await;
    let client = Client::connect(unary.address()).await.unwrap();
    let error = client.server_stream("t.T/Echo", "").await.unwrap_err();
    assert_eq!((error.status(), error.ran()), (Status::NOT_SENT, Ran::No), "{error}");
}
