//! Large bodies: whole and unchanged both ways, beside small ones, compressed or not, through the narrowest line.
#![allow(clippy::unwrap_used, clippy::panic)]

mod support;

use std::time::Duration;

use bytes::Bytes;
use support::{Narrow, narrow, only_peer, soon, until, within};
use tieline_tokio::{Client, Limits, Peer, Server, Services, Status};
use tokio::task::JoinSet;

const MINUTE: Duration = Duration::from_secs(60);
const MIB: usize = 1 << 20;

/// Limits for bodies of this size, and for all that these tests have under way at once.
fn limits(body: usize, memory: usize) -> Limits {
    let mut limits = Limits::default();
    limits.max_message = u32::try_from(body).unwrap();
    limits.max_item = limits.max_message;
    limits.memory = memory;
    limits.max_queued = memory;
    limits
}

/// Octets that do not repeat soon, and differ from seed to seed.
fn noise(seed: u64, octets: usize) -> Bytes {
    let mut state = seed;
    let mut noise = Vec::with_capacity(octets + 8);
    while noise.len() < octets {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        noise.extend_from_slice(&(state ^ (state >> 29)).to_be_bytes());
    }
    noise.truncate(octets);
    noise.into()
}

fn services() -> Services {
    Services::new()
        .method("t.L/Echo", |_cx, body| async move { Ok(body) })
        .method("t.L/Small", |_cx, body| async move { Ok(body) })
        .bidi("t.L/Items", |_cx, _body, mut items, mut sink| async move {
            while let Some(item) = items.next().await {
                sink.send(item?).await?;
            }
            Ok("")
        })
        .method("t.L/Packed", |_cx, body| async move { Ok(body) })
        .compress()
        .bidi("t.L/PackedItems", |_cx, _body, mut items, mut sink| async move {
            while let Some(item) = items.next().await {
                sink.send(item?).await?;
            }
            Ok("")
        })
        .compress()
}

async fn pair(limits: Limits) -> (Server, Client) {
    let server = Server::builder("node-2").services(services()).limits(limits.clone());
    let server = server.listen("127.0.0.1:0").await.unwrap();
    let client = Client::builder("node-1").services(services()).limits(limits);
    let client = client.connect(server.address()).await.unwrap();
    (server, client)
}

async fn echo(peer: &Peer, method: &str, body: Bytes) {
    let answer = peer.call(method, body.clone()).timeout(5 * MINUTE).await.unwrap();
    assert!(answer.payload == body, "{} octets came back changed", body.len());
}

#[tokio::test]
async fn large_bodies_arrive_whole_in_both_directions() {
    let (server, client) = pair(limits(64 * MIB, 256 * MIB)).await;
    let there = client.peer().unwrap();
    let here = only_peer(&server).await;
    for (seed, octets) in [(1, MIB), (2, 64 * MIB)] {
        let body = noise(seed, octets);
        for peer in [&there, &here] {
            within(3 * MINUTE, "the echo", echo(peer, "t.L/Echo", body.clone())).await;
        }
        // And as items of a stream.
        let mut talk = there.bidi("t.L/Items", "").await.unwrap();
        talk.send(body.clone()).await.unwrap();
        let item = within(3 * MINUTE, "the item", talk.next()).await.unwrap().unwrap();
        assert!(item == body, "the item came back changed");
        soon("the end", talk.finish()).await.unwrap();
    }
}

#[tokio::test]
async fn what_is_too_large_for_the_node_is_not_sent() {
    let (_server, client) = pair(Limits::default()).await;
    let error = client.call("t.L/Echo", vec![0; 4 * MIB + 1]).await.unwrap_err();
    assert_eq!((error.status(), error.ran()), (Status::LOCAL_LIMIT, tieline_tokio::Ran::No), "{error}");
    echo(&client.peer().unwrap(), "t.L/Echo", noise(1, 4 * MIB)).await;
}

#[tokio::test]
async fn large_and_small_at_once_and_none_gets_anothers_octets() {
    let (server, client) = pair(limits(4 * MIB, 256 * MIB)).await;
    let peers = [client.peer().unwrap(), only_peer(&server).await];
    let mut calls = JoinSet::new();
    for number in 0..400 {
        for peer in &peers {
            let peer = peer.clone();
            let octets = if number % 20 == 0 { MIB + number } else { 10 + number * 7 };
            calls.spawn(async move { echo(&peer, "t.L/Echo", noise(number as u64, octets)).await });
        }
    }
    within(3 * MINUTE, "all of them", async {
        while let Some(call) = calls.join_next().await {
            call.unwrap();
        }
    })
    .await;
}

#[tokio::test]
async fn small_calls_pass_a_large_one() {
    let server = Server::builder("node-2")
        .services(services())
        .limits(limits(16 * MIB, 64 * MIB))
        .serve_on(narrow().0.into())
        .unwrap();
    let client = Client::builder("node-1").limits(limits(16 * MIB, 64 * MIB));
    let client = client.connect(server.address()).await.unwrap();
    let (peer, there) = (client.peer().unwrap(), only_peer(&server).await);
    let large = tokio::spawn({
        let peer = peer.clone();
        async move { echo(&peer, "t.L/Echo", noise(7, 16 * MIB)).await }
    });
    until("it is on its way", || there.stats().octets_in > 100_000).await;
    for number in 0..50 {
        soon("a small call", echo(&peer, "t.L/Small", noise(number, 64))).await;
    }
    assert!(!large.is_finished(), "the small ones did not wait for it");
    within(3 * MINUTE, "the large one", large).await.unwrap();
}

/// Octets that this end sent while something ran.
async fn sent(peer: &Peer, what: impl Future<Output = ()>) -> u64 {
    let before = peer.stats().octets_out;
    soon("the calls", what).await;
    peer.stats().octets_out - before
}

#[tokio::test]
async fn compression_saves_octets_where_it_is_asked_for() {
    let (server, client) = pair(limits(4 * MIB, 64 * MIB)).await;
    let (peer, there) = (client.peer().unwrap(), only_peer(&server).await);
    let text = Bytes::from("the same words again and again, ".repeat(4000));
    let size = text.len() as u64;

    let plain = sent(&peer, echo(&peer, "t.L/Echo", text.clone())).await;
    assert!(plain > size, "{plain}: not asked for");
    let packed = sent(&peer, async {
        let answer = peer.call("t.L/Echo", text.clone()).compress().await.unwrap();
        assert!(answer.payload == text);
    })
    .await;
    assert!(packed < size / 8, "{packed} of {size}");
    assert!(peer.stats().octets_saved > size / 2);

    // Answers, as the method says.
    let before = there.stats();
    echo(&peer, "t.L/Packed", text.clone()).await;
    until("the answer is out", || there.stats().octets_out > before.octets_out).await;
    assert!(there.stats().octets_saved > before.octets_saved + size / 2);
    let answered = there.stats().octets_out - before.octets_out;
    assert!(answered < size / 8, "{answered} of {size}");

    // Items, each way.
    let (mine, theirs) = (peer.stats().octets_saved, there.stats().octets_saved);
    let mut talk = peer.bidi("t.L/PackedItems", "").compress().await.unwrap();
    for _ in 0..10 {
        talk.send(text.clone()).await.unwrap();
        assert!(soon("an item", talk.next()).await.unwrap().unwrap() == text);
    }
    soon("the end", talk.finish()).await.unwrap();
    assert!(peer.stats().octets_saved - mine > 5 * size);
    assert!(there.stats().octets_saved - theirs > 5 * size);

    // What does not shrink is sent as it is.
    let noise = noise(3, 100_000);
    let saved = peer.stats().octets_saved;
    let answer = peer.call("t.L/Packed", noise.clone()).compress().await.unwrap();
    assert!(answer.payload == noise && peer.stats().octets_saved == saved);
}

/// A Tieline server and client over the smallest kernel buffers that there are.
type NarrowServer = tieline::Server<Narrow>;
type NarrowClient = tieline::Client<Narrow>;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn both_sides_send_much_through_a_narrow_line_and_neither_waits_for_the_other() {
    const CALLS: usize = 100;
    let limits = limits(4 * MIB, 512 * MIB);
    let server = NarrowServer::builder("node-2").services(services()).limits(limits.clone());
    let server = server.listen("127.0.0.1:0").await.unwrap();
    let client = NarrowClient::builder("node-1").services(services()).limits(limits);
    let client = client.connect(server.address()).await.unwrap();
    until("the client checks in", || !server.peers().is_empty()).await;
    let body = noise(9, 4 * MIB);
    let mut calls = JoinSet::new();
    for _ in 0..CALLS {
        for peer in [client.peer().unwrap(), server.peers().remove(0)] {
            let body = body.clone();
            calls.spawn(async move { echo(&peer, "t.L/Echo", body).await });
        }
    }
    within(5 * MINUTE, "all of them", async {
        while let Some(call) = calls.join_next().await {
            call.unwrap();
        }
    })
    .await;
}
