//! Whatever goes without TLS goes with it.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use bytes::Bytes;
use tieline::{By, Limits, Status};

use crate::{
    ADDRESS, Adapter, Client, all,
    certificates::Authority,
    line::Line,
    node, to_node,
    wait::{MS, SECOND, pass, soon, until},
};

fn roomy() -> Limits {
    let mut limits = Limits::default();
    (limits.max_message, limits.memory) = (16 << 20, 64 << 20);
    limits
}

fn body(octets: usize) -> Bytes {
    (0..octets)
        .map(|at| at.to_le_bytes().iter().fold(7, |sum: u8, octet| sum.wrapping_mul(31) ^ octet))
        .collect()
}

/// From nothing to much more than a record, a read or what is encrypted together; and around each of those.
pub async fn bodies_of_every_size_come_back<A: Adapter>() {
    let authority = Authority::new();
    let server = node::<A>(&authority).limits(roomy()).listen(ADDRESS).await.unwrap();
    let client = Client::<A>::builder("a").tls(to_node(&authority)).limits(roomy());
    let client = client.connect(server.address()).await.unwrap();
    let edges =
        [2048, 4 << 10, 16 << 10, 64 << 10, 128 << 10].into_iter().flat_map(|edge| edge - 40..edge + 40);
    for octets in (0..10).chain(edges.step_by(3)).chain([1 << 20, 16 << 20]) {
        let sent = body(octets);
        let answer = soon::<A, _>("an echo", client.call("t.T/Echo", sent.clone())).await.unwrap();
        assert!(answer.payload == sent, "{octets} octets");
    }
    let stats = client.peer().unwrap().stats();
    assert!(stats.octets_in > 17 << 20 && stats.octets_out > 17 << 20, "{stats:?}");
}

/// Small calls beside large ones, from both ends, each with its own answer.
pub async fn both_ends_call_at_once<A: Adapter>() {
    let authority = Authority::new();
    let server = node::<A>(&authority).limits(roomy()).listen(ADDRESS).await.unwrap();
    let services = tieline::Services::new().method("t.T/Echo", |_cx, body| async move { Ok(body) });
    let client = Client::<A>::builder("a").tls(to_node(&authority)).limits(roomy()).services(services);
    let client = client.connect(server.address()).await.unwrap();
    until::<A>("the client is there", || !server.peers().is_empty()).await;
    let ends = [client.peer().unwrap(), server.peers().remove(0)];
    let calls = (0..400).map(|number: usize| {
        let peer = ends[number % 2].clone();
        let sent = body(if number % 40 < 2 { 500_000 + number } else { number });
        async move {
            let answer = peer.call("t.T/Echo", sent.clone()).await.unwrap();
            assert!(answer.payload == sent, "{number}");
        }
    });
    soon::<A, _>("all answers", all(calls)).await;
}

/// Items in both directions, more than windows and buffers hold.
pub async fn streams_run_in_both_directions<A: Adapter>() {
    const ITEMS: usize = 300;
    let authority = Authority::new();
    let server = node::<A>(&authority)
        .bidi("t.T/Mirror", |_cx, _body, mut items, mut sink| async move {
            while let Some(item) = items.next().await {
                sink.send(item?).await?;
            }
            Ok("that was all")
        })
        .listen(ADDRESS)
        .await
        .unwrap();
    let client = Client::<A>::builder("a").tls(to_node(&authority)).connect(server.address()).await.unwrap();
    let (mut sink, mut items) = client.bidi("t.T/Mirror", "").await.unwrap().split();
    let sending = async {
        for number in 0..ITEMS {
            sink.send(body(number * 50)).await.unwrap();
        }
        sink.end().unwrap();
        0
    };
    let taking = async {
        let mut count = 0;
        while let Some(item) = items.next().await {
            assert!(item.unwrap() == body(count * 50), "item {count}");
            count += 1;
        }
        assert_eq!(items.finish().await.unwrap().payload, "that was all");
        count
    };
    let both: [std::pin::Pin<Box<dyn Future<Output = usize>>>; 2] = [Box::pin(sending), Box::pin(taking)];
    assert_eq!(soon::<A, _>("both directions", all(both)).await, [0, ITEMS]);
}

/// A server that goes away answers what it has accepted, and says farewell.
pub async fn a_drain_lets_open_calls_finish<A: Adapter>() {
    let authority = Authority::new();
    let (begun, go) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
    let server = node::<A>(&authority);
    let server = {
        let (begun, go) = (Arc::clone(&begun), Arc::clone(&go));
        server.method("t.T/Wait", move |_cx, _body| {
            let (begun, go) = (Arc::clone(&begun), Arc::clone(&go));
            async move {
                begun.store(true, Ordering::SeqCst);
                until::<A>("leave to go on", || go.load(Ordering::SeqCst)).await;
                Ok(body(300_000))
            }
        })
    };
    let server = server.listen(ADDRESS).await.unwrap();
    let client = Client::<A>::builder("a").tls(to_node(&authority)).backoff(30 * SECOND);
    let client = client.connect(server.address()).await.unwrap();
    let peer = client.peer().unwrap();
    let call = async {
        let answer = peer.call("t.T/Wait", "").await.unwrap();
        assert!(answer.payload == body(300_000));
    };
    let shutdown = async {
        until::<A>("it runs", || begun.load(Ordering::SeqCst)).await;
        go.store(true, Ordering::SeqCst);
        server.shutdown(30 * SECOND).await;
    };
    let both: [std::pin::Pin<Box<dyn Future<Output = ()>>>; 2] = [Box::pin(call), Box::pin(shutdown)];
    soon::<A, _>("the answer and the end", all(both)).await;
    let closed = soon::<A, _>("the end", peer.closed()).await;
    assert_eq!((closed.by, closed.status), (By::Peer, Status::GOING_AWAY), "{closed}");
}

/// An idle line beats, and both ends hear it.
pub async fn heartbeats_keep_an_idle_line_up<A: Adapter>() {
    let authority = Authority::new();
    let server = node::<A>(&authority).heartbeat_bounds(10 * MS, SECOND).listen(ADDRESS).await.unwrap();
    let client = Client::<A>::builder("a").tls(to_node(&authority)).heartbeat_interval(100 * MS);
    let client = client.connect(server.address()).await.unwrap();
    let peer = client.peer().unwrap();
    until::<A>("many beats", || peer.stats().heartbeats_out >= 5).await;
    assert_eq!(soon::<A, _>("an echo", client.call("t.T/Echo", "x")).await.unwrap().payload, "x");
    assert!(peer.is_same(&client.peer().unwrap()), "it is the connection of before");
}

/// A line over which nothing comes any more is found dead by its silence.
pub async fn a_silent_line_is_found_dead<A: Adapter>() {
    let authority = Authority::new();
    let server = node::<A>(&authority).heartbeat_bounds(10 * MS, SECOND).listen(ADDRESS).await.unwrap();
    let line = Line::to(server.address());
    let client = Client::<A>::builder("a").tls(to_node(&authority)).heartbeat_interval(50 * MS);
    let client = client.backoff(30 * SECOND).connect(line.address()).await.unwrap();
    let peer = client.peer().unwrap();
    pass::<A>(MS).await;
    line.hold();
    let closed = soon::<A, _>("the end", peer.closed()).await;
    assert_eq!((closed.by, closed.status), (By::Us, Status::HEARTBEAT_LOST), "{closed}");
    until::<A>("the server has found out, too", || server.peers().is_empty()).await;
}
