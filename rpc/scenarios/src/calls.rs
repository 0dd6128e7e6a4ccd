//! Calls of one argument and one answer: sizes, errors, both directions, cancelling, deadlines.

use bytes::Bytes;
use tieline::{Error, Limits, Peer, Ran, Services, Status};

use crate::{
    Adapter, Client, Server, only_peer, pair, roomy, task,
    wait::{Guard, MS, SECOND, Shared, both, either, soon, turn},
};

/// Octets that do not repeat soon, and differ from seed to seed.
pub(crate) fn noise(seed: u64, octets: usize) -> Bytes {
    let mut state = seed;
    let mut noise = Vec::with_capacity(octets + 8);
    while noise.len() < octets {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        noise.extend_from_slice(&(state ^ (state >> 29)).to_be_bytes());
    }
    noise.truncate(octets);
    noise.into()
}

pub(crate) fn echo() -> Services {
    Services::new().method("s.S/Echo", |_cx, body| async move { Ok(body) }).method(
        "s.S/Later",
        |_cx, body| async move {
            turn().await;
            Ok(body)
        },
    )
}

pub(crate) async fn works<A: Adapter>(client: &Client<A>) {
    assert_eq!(soon::<A, _>("an echo", client.call("s.S/Echo", "x")).await.unwrap().payload, "x");
}

/// From none to some mebioctets, with the neighbours of the sizes at which something changes.
pub async fn every_size_comes_back_from_either_end<A: Adapter>() {
    let (server, client) = pair::<A>(echo(), echo(), roomy()).await;
    let peers = [client.peer().unwrap(), only_peer::<A>(&server).await];
    let edges = [64, 128, 512, 1024, 4096, 16 << 10, 64 << 10, 256 << 10, 1 << 20];
    let sizes = edges.into_iter().flat_map(|edge| [edge - 1, edge, edge + 1]);
    for size in [0, 1, 2, 10].into_iter().chain(sizes).chain([5 << 20]) {
        for peer in &peers {
            let body = noise(size as u64, size);
            let answer = soon::<A, _>("an echo", peer.call("s.S/Echo", body.clone()).timeout(60 * SECOND));
            assert!(answer.await.unwrap().payload == body, "{size} octets came back changed");
        }
    }
    let error = client.call("s.S/Echo", vec![0; (8 << 20) + 1]).await.unwrap_err();
    assert_eq!((error.status(), error.ran()), (Status::LOCAL_LIMIT, Ran::No), "{error}");
    client.close().await;
    soon::<A, _>("the shutdown", server.shutdown(SECOND)).await;
}

/// Callers as tasks, each with octets of its own.
async fn storm<A: Adapter>(peer: &Peer, method: &'static str, count: u64, octets: usize) {
    let calls: Vec<_> = (0..count)
        .map(|number| {
            let peer = peer.clone();
            task::spawn::<A, _>(async move {
                let body = noise(number, octets);
                let answer = peer.call(method, body.clone()).timeout(60 * SECOND).await.unwrap();
                assert!(answer.payload == body, "call {number} got another one's answer");
            })
        })
        .collect();
    soon::<A, _>("every answer", task::all(calls)).await;
}

/// More than are served at once, and more than may wait at the node.
pub async fn a_thousand_calls_at_once_get_each_its_own_answer<A: Adapter>() {
    let (server, client) = pair::<A>(echo(), echo(), Limits::default()).await;
    storm::<A>(&client.peer().unwrap(), "s.S/Echo", 1000, 40).await;
    storm::<A>(&only_peer::<A>(&server).await, "s.S/Later", 1000, 40).await;
}

/// Both ends send more than the line between them holds, before either has read an answer.
pub async fn both_ends_press_at_once<A: Adapter>() {
    let (server, client) = pair::<A>(echo(), echo(), roomy()).await;
    let (there, here) = (client.peer().unwrap(), only_peer::<A>(&server).await);
    for method in ["s.S/Echo", "s.S/Later"] {
        both(storm::<A>(&there, method, 100, 150_000), storm::<A>(&here, method, 100, 150_000)).await;
    }
    assert!(here.is_ready() && there.is_ready());
}

/// The handler's own, the application's, a panic, and what is refused before any handler.
pub async fn errors_say_what_and_whether_it_ran<A: Adapter>() {
    let services = echo()
        .method("s.S/Fail", |_cx, _body| async {
            Err::<Bytes, _>(Error::application(7, "so it goes").detail("detail"))
        })
        .method("s.S/Missing", |_cx, _body| async {
            Err::<Bytes, _>(Error::new(Status::NOT_FOUND, "no such thing").retry_after(90 * SECOND))
        });
    let (server, client) = pair::<A>(services, Services::new(), Limits::default()).await;
    let error = client.call("s.S/Fail", "").await.unwrap_err();
    assert_eq!((error.status(), error.code(), error.ran()), (Status(0xC0), 7, Ran::Yes));
    assert_eq!((error.message(), &error.detail()[..]), ("so it goes", &b"detail"[..]));
    let error = client.call("s.S/Missing", "").await.unwrap_err();
    assert_eq!((error.status(), error.retry_after()), (Status::NOT_FOUND, Some(90 * SECOND)));
    let error = client.call("s.S/Nothing", "").await.unwrap_err();
    assert_eq!((error.status(), error.ran()), (Status::NO_SUCH_METHOD, Ran::No));
    assert!(error.to_string().contains("node-2"), "it says who was asked: {error}");
    let deaf = only_peer::<A>(&server).await;
    let error = deaf.call("s.S/Echo", "").await.unwrap_err();
    assert_eq!(error.ran(), Ran::No, "a client that serves nothing cannot be called: {error}");
    works::<A>(&client).await;
}

/// The node asks back while it serves, three deep.
pub async fn a_handler_calls_its_caller_on_the_same_connection<A: Adapter>() {
    let ladder = || {
        Services::new().method("s.S/Down", |cx, body: Bytes| async move {
            match body.split_last() {
                Some((_, rest)) if !rest.is_empty() => {
                    let below = cx.peer().call("s.S/Down", body.slice_ref(rest)).await?.payload;
                    Ok([&below[..], b"!"].concat().into())
                }
                _ => Ok(body),
            }
        })
    };
    let (server, client) = pair::<A>(ladder(), ladder(), Limits::default()).await;
    let answer = soon::<A, _>("the bottom", client.call("s.S/Down", "abcd")).await.unwrap();
    assert_eq!(answer.payload, "a!!!");
    let here = only_peer::<A>(&server).await;
    let answer = soon::<A, _>("the bottom", here.call("s.S/Down", "xyz")).await.unwrap();
    assert_eq!(answer.payload, "x!!");
    assert_eq!(server.peers().len(), 1, "all of it on one connection");
}

/// Handlers that never end by themselves, that tell when they have begun, and when they are stopped.
fn stubborn(begun: &Shared<u64>, stopped: &Shared<u64>) -> Services {
    let (begun, stopped) = (begun.clone(), stopped.clone());
    echo().method("s.S/Forever", move |_cx, body| {
        let (begun, guard) = (begun.clone(), Guard(stopped.clone()));
        async move {
            let _guard = guard;
            begun.add();
            std::future::pending::<()>().await;
            Ok(body)
        }
    })
}

/// A caller that has gone is no reason to go on.
pub async fn dropping_a_call_stops_its_handler<A: Adapter>() {
    let (begun, stopped) = (Shared::default(), Shared::default());
    let (_server, client) = pair::<A>(stubborn(&begun, &stopped), Services::new(), Limits::default()).await;
    for _ in 0..20 {
        let dropped = either(client.call("s.S/Forever", "").no_timeout(), begun.one()).await;
        assert!(dropped.is_err(), "it never ends");
        soon::<A, _>("the handler is stopped", stopped.one()).await;
    }
    works::<A>(&client).await;
    assert_eq!(client.attempts(), 1, "the connection lives on");
}

/// Whoever is asked first says so; the handler stops in any case.
pub async fn a_deadline_ends_a_call_at_both_ends<A: Adapter>() {
    let (begun, stopped) = (Shared::default(), Shared::default());
    let (_server, client) = pair::<A>(stubborn(&begun, &stopped), Services::new(), Limits::default()).await;
    for _ in 0..3 {
        let call = client.call("s.S/Forever", "").timeout(50 * MS);
        let error = soon::<A, _>("the time is over", call).await.unwrap_err();
        assert!(matches!(error.status(), Status::TIMEOUT | Status::EXPIRED_RUNNING), "{error}");
        assert_ne!(error.ran(), Ran::No, "{error}");
        soon::<A, _>("the handler is stopped", stopped.one()).await;
    }
    assert_eq!(begun.count(), 3);
    works::<A>(&client).await;
}

/// A server that echoes, on this address.
pub(crate) async fn echoing<A: Adapter>(address: &str) -> Server<A> {
    Server::<A>::builder("node-2").services(echo()).listen(address).await.unwrap()
}
