//! Peers that fall silent, and peers that are only idle.

use std::time::Duration;

use tieline::{By, Ran, Services, Status};

use crate::{
    Adapter, Client, Server,
    calls::{echo, works},
    only_peer,
    raw::{HEARTBEAT, HEARTBEAT_ACK, REQUEST, RESPONSE, Raw, frame, listener, request},
    task,
    wait::{LONG, MS, SECOND, either, soon, until},
};

/// A silent peer is closed in [3·I, 3·I + max(I/2, 500 ms)] (protocol §5, "Heartbeat").
const SHORT: Duration = Duration::from_millis(60);
/// Another one's window begins when that of the first is long over, and so tells by the same clock whether it was.
const OTHER: Duration = Duration::from_millis(600);

async fn server<A: Adapter>(services: Services) -> Server<A> {
    let server = Server::<A>::builder("node-2").heartbeat_bounds(10 * MS, SECOND).services(services);
    server.listen(A::ADDRESS).await.unwrap()
}

/// Nothing but heartbeats, for far longer than silence would be borne; and no more of them than are due.
pub async fn idle_connections_live_on<A: Adapter>() {
    let server = server::<A>(echo()).await;
    let client = Client::<A>::builder("a").heartbeat_interval(20 * MS).connect(server.address()).await;
    let client = client.unwrap();
    let (here, there) = (client.peer().unwrap(), only_peer::<A>(&server).await);
    for peer in [&here, &there] {
        assert_eq!(peer.info().unwrap().heartbeat_interval, 20 * MS);
    }
    until::<A>("fifty heartbeats have come and gone", || {
        let (here, there) = (here.stats(), there.stats());
        let least = [here.heartbeats_out, here.heartbeats_in, there.heartbeats_out, there.heartbeats_in];
        here.heartbeats_out + there.heartbeats_out >= 50 && least.into_iter().all(|count| count > 0)
    })
    .await;
    assert!(here.is_ready() && there.is_ready());
    works::<A>(&client).await;
    assert_eq!(client.attempts(), 1);
}

/// The server closes it within the window of its own interval, which is over before that of another one begins.
pub async fn a_client_that_falls_silent_is_closed_in_time<A: Adapter>() {
    let server = server::<A>(echo()).await;
    let mut silent = Vec::new();
    for interval in [OTHER, SHORT] {
        let address = server.address().to_owned();
        silent.push(task::thread(move || Raw::check_in(&address, "raw", interval)).join().await);
    }
    until::<A>("both are there", || server.peers().len() == 2).await;
    let peers = server.peers();
    let (short, other): (Vec<_>, Vec<_>) =
        peers.iter().partition(|peer| peer.info().is_some_and(|info| info.heartbeat_interval == SHORT));
    let first = either(short[0].closed(), other[0].closed());
    let closed = soon::<A, _>("the first end", first).await.expect("the shorter interval ends first");
    assert_eq!((closed.by, closed.status), (By::Us, Status::HEARTBEAT_LOST), "{closed}");
    assert!(closed.message.contains("no octet was read"), "{closed}");
    let closed = soon::<A, _>("the second end", other[0].closed()).await;
    assert_eq!((closed.by, closed.status), (By::Us, Status::HEARTBEAT_LOST), "{closed}");
    drop(silent);
}

/// So does a client, and what it had called there may have run.
pub async fn a_server_that_falls_silent_is_closed_in_time<A: Adapter>() {
    let mut clients = Vec::new();
    let mut silent = Vec::new();
    for interval in [OTHER, SHORT] {
        let (listener, address) = listener();
        let raw = task::thread(move || Raw::welcome(&listener, interval));
        clients.push(Client::<A>::builder("a").backoff(LONG).connect(&address).await.unwrap());
        silent.push(raw.join().await);
    }
    let [other, short] = [&clients[0], &clients[1]].map(|client| client.peer().unwrap());
    let caller = short.clone();
    let call = task::spawn::<A, _>(async move { caller.call("s.S/Echo", "x").timeout(LONG).await });
    let mut raw = silent.pop().unwrap();
    let raw = task::thread(move || {
        raw.next(REQUEST);
        raw
    });
    let closed = soon::<A, _>("the first end", either(short.closed(), other.closed())).await;
    let closed = closed.expect("the shorter interval ends first");
    assert_eq!((closed.by, closed.status), (By::Us, Status::HEARTBEAT_LOST), "{closed}");
    let error = soon::<A, _>("the call ends", call.join()).await.unwrap_err();
    assert_eq!((error.status(), error.ran()), (Status::CONNECTION_LOST, Ran::Maybe), "{error}");
    assert!(error.to_string().contains("three heartbeat intervals"), "{error}");
    assert!(short.stats().heartbeats_out >= 1, "it was asked before");
    drop(raw.join().await);
}

/// Its answers to heartbeats are life enough.
pub async fn a_peer_that_beats_is_not_closed<A: Adapter>() {
    let server = server::<A>(echo()).await;
    let address = server.address().to_owned();
    let raw = task::thread(move || {
        let mut raw = Raw::check_in(&address, "raw", SHORT);
        // For five times as long as silence would be borne.
        for _ in 0..15 {
            let beat = raw.next(HEARTBEAT);
            raw.send(&frame(HEARTBEAT_ACK, 0, beat.id, b""));
        }
        raw.send(&request(1, "s.S/Echo", b"still here"));
        let answer = raw.next(RESPONSE);
        assert_eq!((answer.id, answer.status), (1, 0));
    });
    soon::<A, _>("it lives", raw.join()).await;
}
