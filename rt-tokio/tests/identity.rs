//! One identifier, one process: who takes over, and who stays out (protocol §4).
#![allow(clippy::unwrap_used, clippy::panic)]

mod support;

use std::time::{Duration, Instant};

use support::{
    CHECK_IN, CHECK_IN_ACK, CLOSE, HEARTBEAT, Raw, body, frame, only_peer, soon, string, until, works,
};
use tieline_tokio::{By, Client, Closed, ConnectError, Decision, Server, ServerBuilder, Status, Tokio};

const MS: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);

fn open() -> ServerBuilder<Tokio> {
    let bounds = |server: ServerBuilder<Tokio>| server.heartbeat_bounds(10 * MS, 10 * SECOND);
    bounds(Server::builder("node-2").method("t.T/Echo", |_cx, body| async move { Ok(body) }))
}

fn verified() -> ServerBuilder<Tokio> {
    open().verify(|_| async { Decision::Accept })
}

async fn client(server: &Server, instance: u64) -> Result<Client, ConnectError> {
    let client = Client::builder("twin").configure(|c| c.instance(instance)).backoff(30 * SECOND);
    soon("check-in", client.connect(server.address())).await
}

async fn refused(server: &Server, instance: u64) -> Closed {
    match client(server, instance).await.unwrap_err() {
        ConnectError::CheckIn { closed, .. } => closed,
        other => panic!("it was not even asked: {other}"),
    }
}

fn instances(server: &Server) -> Vec<u64> {
    let mut instances: Vec<u64> = server.peers().iter().map(|peer| peer.info().unwrap().instance).collect();
    instances.sort_unstable();
    instances
}

/// A check-in of an instance, by octets: this one answers no heartbeat.
async fn silent(server: &Server, instance: u64, interval: Duration) -> Raw {
    let mut envelope = Vec::new();
    string(1, "twin", &mut envelope);
    support::number(2, u64::try_from(interval.as_millis()).unwrap(), &mut envelope);
    // Field 3, 64 bits.
    envelope.push(3 << 3 | 1);
    envelope.extend(instance.to_le_bytes());
    let mut raw = Raw::connect(server.address()).await;
    raw.send(&frame(CHECK_IN, 0, 0, &body(&envelope, b""))).await;
    assert_eq!(raw.next(CHECK_IN_ACK).await.status, 0);
    let peers = || instances(server).contains(&instance);
    until("it is known", peers).await;
    raw
}

#[tokio::test]
async fn an_instance_that_is_configured_wins_over_the_default() {
    let server = open().configure(|c| c.instance(77)).listen("127.0.0.1:0").await.unwrap();
    let default = Client::connect(server.address()).await.unwrap();
    assert_eq!(default.peer().unwrap().info().unwrap().instance, 77);
    assert!(only_peer(&server).await.info().unwrap().instance > 1 << 60);
    let _other = client(&server, 5).await.unwrap();
    until("both are there", || instances(&server).len() == 2).await;
    assert_eq!(instances(&server)[0], 5);
}

#[tokio::test]
async fn a_restarted_process_takes_over() {
    let server = verified().listen("127.0.0.1:0").await.unwrap();
    let old = [client(&server, 5).await.unwrap(), client(&server, 5).await.unwrap()];
    until("one process may have two connections", || instances(&server) == [5, 5]).await;
    let lost = old.each_ref().map(|old| old.peer().unwrap());
    let new = client(&server, 6).await.unwrap();
    for peer in lost {
        let closed = soon("the old one is shown out", peer.closed()).await;
        assert_eq!((closed.by, closed.status), (By::Peer, Status::IDENTITY_CONFLICT));
    }
    works(&new).await;
    until("one is left", || instances(&server) == [6]).await;
    until("the application is told", || old[0].trouble().contains("IDENTITY_CONFLICT")).await;
}

#[tokio::test]
async fn a_lower_instance_stays_out_while_the_higher_one_answers() {
    let server = verified().listen("127.0.0.1:0").await.unwrap();
    let new = client(&server, 6).await.unwrap();
    until("it is known", || instances(&server) == [6]).await;
    let there = server.peers().remove(0);
    let begun = Instant::now();
    let closed = refused(&server, 5).await;
    assert!(begun.elapsed() < SECOND, "it is decided by an answer, not by a time: {:?}", begun.elapsed());
    assert_eq!((closed.by, closed.status), (By::Peer, Status::IDENTITY_CONFLICT));
    assert!(closed.retry_after.is_some_and(|wait| wait >= SECOND), "{closed:?}");
    assert_eq!(there.stats().heartbeats_out, 1, "it was asked");

    // One answer serves for all that come in the two seconds after it.
    for closed in [refused(&server, 5).await, refused(&server, 1).await] {
        assert_eq!(closed.status, Status::IDENTITY_CONFLICT);
    }
    assert_eq!(there.stats().heartbeats_out, 1, "it was not asked again");
    works(&new).await;
    assert_eq!(instances(&server), [6]);
}

#[tokio::test]
async fn many_at_once_are_one_question() {
    let server = verified().listen("127.0.0.1:0").await.unwrap();
    let mut new = silent(&server, 6, SECOND).await;
    let there = server.peers().remove(0);
    let (address, begun) = (server.address().to_owned(), Instant::now());
    let mut old = tokio::task::JoinSet::new();
    for instance in 1..6 {
        let client = Client::builder("twin").configure(|c| c.instance(instance));
        let address = address.clone();
        old.spawn(async move { client.connect(&address).await });
    }
    let question = new.next(HEARTBEAT).await;
    new.send(&frame(0x04, 0, question.id, b"")).await;
    while let Some(result) = soon("a decision", old.join_next()).await {
        assert!(result.unwrap().unwrap_err().to_string().contains("IDENTITY_CONFLICT"));
    }
    assert!(begun.elapsed() < SECOND, "{:?}", begun.elapsed());
    assert_eq!(there.stats().heartbeats_out, 1);
}

#[tokio::test]
async fn a_lower_instance_comes_in_if_the_higher_one_does_not_answer() {
    let server = verified().listen("127.0.0.1:0").await.unwrap();
    let mut dead = silent(&server, 6, 400 * MS).await;
    let there = server.peers().remove(0);
    let begun = Instant::now();
    let old = client(&server, 5).await.unwrap();
    assert!((390 * MS..1100 * MS).contains(&begun.elapsed()), "min(I, 2 s): {:?}", begun.elapsed());
    works(&old).await;
    assert_eq!(instances(&server), [5, 6], "the silent one is only suspect");
    let closed = soon("its silence decides about it", there.closed()).await;
    assert_eq!((closed.by, closed.status), (By::Us, Status::HEARTBEAT_LOST));
    assert_eq!(dead.next(CLOSE).await.status, Status::HEARTBEAT_LOST.0);
    works(&old).await;
    assert_eq!(instances(&server), [5]);
}

#[tokio::test]
async fn a_higher_instance_that_leaves_while_it_is_asked_makes_room() {
    let server = verified().listen("127.0.0.1:0").await.unwrap();
    let mut leaving = silent(&server, 6, 10 * SECOND).await;
    let (old, ()) = tokio::join!(client(&server, 5), async {
        leaving.next(HEARTBEAT).await;
        drop(leaving);
    });
    works(&old.unwrap()).await;
}

#[tokio::test]
async fn an_instance_that_is_not_said_neither_evicts_nor_is_evicted() {
    let server = verified().listen("127.0.0.1:0").await.unwrap();
    let said = client(&server, 5).await.unwrap();
    let unsaid = client(&server, 0).await.unwrap();
    let newer = client(&server, 6).await.unwrap();
    until("two stay", || instances(&server) == [0, 6]).await;
    works(&unsaid).await;
    works(&newer).await;
    drop(said);
}

#[tokio::test]
async fn without_a_verifier_all_stay_and_are_counted() {
    let server = open().listen("127.0.0.1:0").await.unwrap();
    let clients = [
        client(&server, 6).await.unwrap(),
        client(&server, 5).await.unwrap(),
        client(&server, 7).await.unwrap(),
    ];
    until("all are there", || instances(&server) == [5, 6, 7]).await;
    for client in &clients {
        works(client).await;
    }
    assert_eq!(server.duplicate_identifiers(), 2);
}
