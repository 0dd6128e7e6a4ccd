//! Streams over real sockets: every kind in both directions, order, back-pressure, and what waits for room.
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
use support::{only_peer, soon, until, within};
use tieline_tokio::{Client, Error, Limits, Peer, Ran, Server, Services, Status};
use tokio::{sync::Notify, task::JoinSet};

const SECOND: Duration = Duration::from_secs(1);

fn number(octets: &[u8]) -> u32 {
    u32::from_be_bytes(octets[..4].try_into().unwrap())
}

fn item(number: u32) -> Bytes {
    Bytes::copy_from_slice(&number.to_be_bytes())
}

/// One method of each kind.
fn services() -> Services {
    Services::new()
        .server_stream("t.S/Count", |_cx, body, mut sink| async move {
            let count = number(&body);
            for number in 0..count {
                sink.send(item(number)).await?;
            }
            Ok(item(count))
        })
        .server_stream("t.S/CountAll", |_cx, body, mut sink| async move {
            sink.send_all((0..number(&body)).map(item)).await?;
            Ok("all")
        })
        .client_stream("t.S/Sum", |_cx, body, mut items| async move {
            let mut sum = number(&body);
            while let Some(item) = items.next().await {
                sum = sum.wrapping_add(number(&item?));
            }
            Ok(item(sum))
        })
        .bidi("t.S/Echo", |_cx, body, mut items, mut sink| async move {
            while let Some(item) = items.next().await {
                sink.send(item?).await?;
            }
            Ok(body)
        })
        .method("t.S/Unary", |_cx, body| async move { Ok(body) })
}

async fn pair(limits: Limits) -> (Server, Client) {
    let server = Server::builder("node-2")
        .services(services())
        .limits(limits.clone())
        .listen("127.0.0.1:0")
        .await
        .unwrap();
    let client = Client::builder("node-1")
        .services(services())
        .limits(limits)
        .connect(server.address())
        .await
        .unwrap();
    (server, client)
}

/// Every kind once, with so many items.
async fn every_kind(peer: &Peer, count: u32) {
    for method in ["t.S/Count", "t.S/CountAll"] {
        let mut items = peer.server_stream(method, item(count)).await.unwrap();
        for expected in 0..count {
            assert_eq!(number(&items.next().await.unwrap().unwrap()), expected);
        }
        assert!(items.next().await.is_none());
        assert!(items.next().await.is_none(), "and so it stays");
        let answer = items.finish().await.unwrap().payload;
        assert!(answer == item(count) || answer == "all");
    }

    let mut upload = peer.client_stream("t.S/Sum", item(1)).await.unwrap();
    for number in 0..count {
        upload.send(item(number)).await.unwrap();
    }
    upload.send_all((0..count).map(item)).await.unwrap();
    let sum = (0..count).fold(0u32, u32::wrapping_add).wrapping_mul(2).wrapping_add(1);
    assert_eq!(number(&upload.finish().await.unwrap().payload), sum);

    let mut talk = peer.bidi("t.S/Echo", "bye").await.unwrap();
    talk.send("one").await.unwrap();
    assert_eq!(talk.next().await.unwrap().unwrap(), "one", "an item goes out though no other follows");
    let (mut sink, mut items) = talk.split();
    let sender = tokio::spawn(async move {
        for number in 0..count {
            sink.send(item(number)).await.unwrap();
        }
        sink.end().unwrap();
        sink.end().unwrap();
        let error = sink.send("more").await.unwrap_err();
        assert_eq!(error.status(), Status::INTERRUPTED, "{error}");
    });
    for expected in 0..count {
        assert_eq!(number(&items.next().await.unwrap().unwrap()), expected);
    }
    sender.await.unwrap();
    assert_eq!(items.finish().await.unwrap().payload, "bye");
}

async fn every_kind_in_both_directions() {
    let (server, client) = pair(Limits::default()).await;
    let (there, here) = (client.peer().unwrap(), only_peer(&server).await);
    for count in [0, 1, 10_000] {
        let both = async { tokio::join!(every_kind(&there, count), every_kind(&here, count)) };
        within(60 * SECOND, "every kind", both).await;
    }
    client.close().await;
    soon("the shutdown", server.shutdown(SECOND)).await;
}

#[tokio::test]
async fn every_kind_works_in_both_directions() {
    every_kind_in_both_directions().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_kind_works_in_both_directions_on_two_threads() {
    every_kind_in_both_directions().await;
}

#[tokio::test]
async fn many_streams_at_once_keep_their_items_apart() {
    let (server, client) = pair(Limits::default()).await;
    let mut streams = JoinSet::new();
    // More than the server serves at once: the others wait for their turn.
    for stream in 0..600u32 {
        let client = client.clone();
        streams.spawn(async move {
            let mut talk = client.bidi("t.S/Echo", item(stream)).await.unwrap();
            for number in 0..20 {
                talk.send(item(stream * 100 + number)).await.unwrap();
            }
            for expected in 0..20 {
                assert_eq!(number(&talk.next().await.unwrap().unwrap()), stream * 100 + expected);
            }
            assert_eq!(talk.finish().await.unwrap().payload, item(stream));
        });
    }
    within(60 * SECOND, "all of them", async {
        while let Some(stream) = streams.join_next().await {
            stream.unwrap();
        }
    })
    .await;
    drop(server);
}

/// As much as a stream of small items may have on its way, with default limits: what waits at the sender, a window, a
/// batch at the receiver, and what the lines between them hold.
const ON_ITS_WAY: usize = 2 * 256 + 128 + 2 * 300;

#[tokio::test]
async fn a_reader_that_stops_holds_the_handler() {
    let sent = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&sent);
    let server = Server::builder("node-2")
        .services(services())
        .server_stream("t.S/Endless", move |_cx, _body, mut sink| {
            let count = Arc::clone(&count);
            async move {
                for _ in 0..100_000 {
                    sink.send("x").await?;
                    count.fetch_add(1, Ordering::SeqCst);
                }
                Ok("")
            }
        })
        .listen("127.0.0.1:0")
        .await
        .unwrap();
    let client = Client::connect(server.address()).await.unwrap();
    let mut items = client.server_stream("t.S/Endless", "").await.unwrap();
    items.next().await.unwrap().unwrap();
    until("the handler fills what there is", || sent.load(Ordering::SeqCst) >= 256).await;
    // Others are not held up.
    for _ in 0..100 {
        assert_eq!(soon("an echo", client.call("t.S/Unary", "x")).await.unwrap().payload, "x");
    }
    let most = sent.load(Ordering::SeqCst);
    assert!(most <= ON_ITS_WAY, "{most} items were sent that nobody took");
    let mut taken = 1;
    within(60 * SECOND, "the others", async {
        while let Some(item) = items.next().await {
            item.unwrap();
            taken += 1;
        }
    })
    .await;
    assert_eq!(taken, 100_000);
}

#[tokio::test]
async fn a_handler_that_stops_reading_holds_its_caller() {
    let release = Arc::new(Notify::new());
    let wait = Arc::clone(&release);
    let server = Server::builder("node-2")
        .client_stream("t.S/Late", move |_cx, _body, mut items| {
            let wait = Arc::clone(&wait);
            async move {
                wait.notified().await;
                let mut count = 0u32;
                while let Some(item) = items.next().await {
                    item?;
                    count += 1;
                }
                Ok(item(count))
            }
        })
        .services(services())
        .listen("127.0.0.1:0")
        .await
        .unwrap();
    let client = Client::connect(server.address()).await.unwrap();
    let mut upload = client.client_stream("t.S/Late", "").await.unwrap();
    let sent = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&sent);
    let sender = tokio::spawn(async move {
        for _ in 0..20_000 {
            upload.send("x").await.unwrap();
            count.fetch_add(1, Ordering::SeqCst);
        }
        upload.finish().await.unwrap()
    });
    until("the caller fills what there is", || sent.load(Ordering::SeqCst) >= 256).await;
    for _ in 0..100 {
        soon("an echo", client.call("t.S/Unary", "x")).await.unwrap();
    }
    let most = sent.load(Ordering::SeqCst);
    assert!(most <= ON_ITS_WAY, "{most} items were sent that nobody took");
    release.notify_one();
    let answer = within(60 * SECOND, "the answer", sender).await.unwrap();
    assert_eq!(number(&answer.payload), 20_000);
}

#[tokio::test]
async fn what_a_handler_leaves_is_dropped_and_its_answer_is_good() {
    let server = Server::builder("node-2")
        .client_stream("t.S/First", |_cx, _body, mut items| async move {
            items.next().await.unwrap().map_err(Error::from)
        })
        .listen("127.0.0.1:0")
        .await
        .unwrap();
    let client = Client::connect(server.address()).await.unwrap();
    for _ in 0..100 {
        let mut upload = client.client_stream("t.S/First", "").await.unwrap();
        let mut over = None;
        for number in 0..2000 {
            if let Err(error) = soon("room, or the end", upload.send(item(number))).await {
                over = Some(error);
                break;
            }
        }
        if let Some(error) = over {
            assert_eq!((error.status(), error.ran()), (Status::INTERRUPTED, Ran::Yes), "{error}");
        }
        assert_eq!(soon("the answer", upload.finish()).await.unwrap().payload, item(0));
    }
}

#[tokio::test]
async fn a_handler_that_never_waits_lets_others_have_their_turn() {
    let server = Server::builder("node-2")
        .services(services())
        .server_stream("t.S/Busy", |_cx, _body, mut sink| async move {
            for _ in 0..u64::MAX {
                sink.send("x").await?;
            }
            Ok("")
        })
        .listen("127.0.0.1:0")
        .await
        .unwrap();
    // One thread for both ends: whoever keeps it stops the other.
    let client = Client::connect(server.address()).await.unwrap();
    let mut items = client.server_stream("t.S/Busy", "").credit(1 << 24).await.unwrap();
    let reader = tokio::spawn(async move { while items.next().await.is_some() {} });
    for _ in 0..200 {
        soon("an echo", client.call("t.S/Unary", "x")).await.unwrap();
    }
    reader.abort();
    assert!(reader.await.unwrap_err().is_cancelled());
}

#[tokio::test]
async fn a_credit_of_its_own_lets_more_come() {
    let (server, client) = pair(Limits::default()).await;
    let credit = 10_000 * 260;
    let items = client.server_stream("t.S/Count", item(10_000)).credit(credit).await.unwrap();
    let there = only_peer(&server).await;
    until("everything came without one being taken", || there.stats().items_out == 10_000).await;
    drop(items);
    let small = client.server_stream("t.S/Count", item(1000)).credit(0).await.unwrap();
    assert_eq!(small.finish().await.unwrap().payload, item(1000), "credit of 0 is held to 1");
}

#[tokio::test]
async fn handles_are_streams() {
    use std::{future::poll_fn, pin::Pin};

    fn next<S: futures_core::Stream + Unpin>(stream: &mut S) -> impl Future<Output = Option<S::Item>> {
        poll_fn(|cx| Pin::new(&mut *stream).poll_next(cx))
    }
    let (_server, client) = pair(Limits::default()).await;
    let mut items = client.server_stream("t.S/Count", item(2)).await.unwrap();
    assert_eq!(next(&mut items).await.unwrap().unwrap(), item(0));
    let mut talk = client.bidi("t.S/Echo", "").await.unwrap();
    talk.send("x").await.unwrap();
    assert_eq!(next(&mut talk).await.unwrap().unwrap(), "x");
}
