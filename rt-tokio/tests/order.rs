//! The order of calls by key: one after the other with one key, past one another without.
#![allow(clippy::unwrap_used, clippy::panic)]

mod support;

use std::sync::{Arc, Mutex};

use support::{only_peer, soon};
use tieline_tokio::{Client, Peer, Server, Services};
use tokio::{
    sync::{Notify, Semaphore},
    task::JoinSet,
};

type Log = Arc<Mutex<Vec<String>>>;

/// What handlers and the test share: the notes, what releases a handler that holds, and its word that it does.
fn shared() -> (Log, Arc<Semaphore>, Arc<Notify>) {
    (Log::default(), Arc::new(Semaphore::new(0)), Arc::default())
}

/// Handlers that note when they begin and end. With the argument `hold` they end once they are released.
fn noting(log: &Log, release: &Arc<Semaphore>, held: &Arc<Notify>) -> Services {
    let (log, release, held) = (Arc::clone(log), Arc::clone(release), Arc::clone(held));
    let notes = Arc::clone(&log);
    Services::new()
        .method("t.O/Note", move |cx, body| {
            let (log, release, held) = (Arc::clone(&notes), Arc::clone(&release), Arc::clone(&held));
            async move {
                let name = String::from_utf8_lossy(&body).into_owned();
                let key = String::from_utf8_lossy(cx.ordering_key()).into_owned();
                log.lock().unwrap().push(format!("{key}+{name}"));
                if name == "hold" {
                    held.notify_one();
                    release.acquire().await.unwrap().forget();
                } else {
                    tokio::task::yield_now().await;
                }
                log.lock().unwrap().push(format!("{key}-{name}"));
                Ok(body)
            }
        })
        .bidi("t.O/Stream", move |cx, body, mut items, _sink| {
            let log = Arc::clone(&log);
            async move {
                let key = String::from_utf8_lossy(cx.ordering_key()).into_owned();
                log.lock().unwrap().push(format!("{key}+stream"));
                while items.next().await.transpose()?.is_some() {}
                log.lock().unwrap().push(format!("{key}-stream"));
                Ok(body)
            }
        })
}

/// Calls with one key wait for the first one; calls with another key, or with none, do not.
async fn in_order(peer: &Peer, log: &Mutex<Vec<String>>, release: &Semaphore, held: &Notify) {
    let mut calls = JoinSet::new();
    let call = |calls: &mut JoinSet<()>, name: String| {
        let peer = peer.clone();
        calls.spawn(async move {
            peer.call("t.O/Note", name).ordering_key(b"a").await.unwrap();
        });
    };
    call(&mut calls, "hold".to_owned());
    soon("the first runs", held.notified()).await;
    for number in 0..50 {
        call(&mut calls, number.to_string());
        // Handed over in this order.
        tokio::task::yield_now().await;
    }
    for _ in 0..20 {
        soon("another key", peer.call("t.O/Note", "x").ordering_key(b"b")).await.unwrap();
        soon("no key", peer.call("t.O/Note", "x")).await.unwrap();
    }
    let of_a = |log: &Mutex<Vec<String>>| -> Vec<String> {
        log.lock().unwrap().iter().filter(|note| note.starts_with('a')).cloned().collect()
    };
    assert_eq!(of_a(log), ["a+hold"], "those behind the first wait, and all others have passed");
    release.add_permits(1);
    soon("all of them", async {
        while let Some(call) = calls.join_next().await {
            call.unwrap();
        }
    })
    .await;
    let names = std::iter::once("hold".to_owned()).chain((0..50).map(|number| number.to_string()));
    let expected: Vec<String> = names.flat_map(|name| [format!("a+{name}"), format!("a-{name}")]).collect();
    assert_eq!(of_a(log), expected, "each begins when the one before has ended");
}

#[tokio::test]
async fn keyed_calls_run_one_after_the_other_in_both_directions() {
    let (log, release, held) = shared();
    let server = Server::builder("node-2").services(noting(&log, &release, &held));
    let server = server.listen("127.0.0.1:0").await.unwrap();
    let client = Client::builder("node-1").services(noting(&log, &release, &held));
    let client = client.connect(server.address()).await.unwrap();
    for peer in [client.peer().unwrap(), only_peer(&server).await] {
        in_order(&peer, &log, &release, &held).await;
        log.lock().unwrap().clear();
    }
}

#[tokio::test]
async fn a_keyed_stream_holds_the_calls_behind_it() {
    let (log, release, held) = shared();
    let server = Server::builder("node-2").services(noting(&log, &release, &held));
    let server = server.listen("127.0.0.1:0").await.unwrap();
    let client = Client::connect(server.address()).await.unwrap();
    let mut stream = client.bidi("t.O/Stream", "").ordering_key(b"a").await.unwrap();
    let behind = {
        let client = client.clone();
        tokio::spawn(async move { client.call("t.O/Note", "behind").ordering_key(b"a").await })
    };
    tokio::task::yield_now().await;
    stream.send("x").await.unwrap();
    for _ in 0..20 {
        soon("no key", client.call("t.O/Note", "x")).await.unwrap();
    }
    assert!(!behind.is_finished());
    soon("the stream", stream.finish()).await.unwrap();
    soon("what was behind it", behind).await.unwrap().unwrap();
    let of_a: Vec<String> =
        log.lock().unwrap().iter().filter(|note| note.starts_with('a')).cloned().collect();
    assert_eq!(of_a, ["a+stream", "a-stream", "a+behind", "a-behind"]);
}
