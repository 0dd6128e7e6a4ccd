//! Servers that stop: in peace, in haste, and with the ground taken from under them.
#![allow(clippy::unwrap_used, clippy::panic)]

mod support;

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use support::{REQUEST, Raw, only_peer, request, soon, until, works};
use tieline_tokio::{By, CallError, Client, Ran, Server, Status};
use tokio::{
    runtime::{Builder, Runtime},
    sync::Notify,
    task::JoinSet,
};

const MS: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);

/// A server with a method that waits to be released, and one that ends at once.
async fn waiting() -> (Server, Arc<Notify>, Arc<Notify>) {
    let (begun, release) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let (begin, wait) = (Arc::clone(&begun), Arc::clone(&release));
    let server = Server::builder("node-2")
        .method("t.T/Wait", move |_cx, body| {
            let (begin, wait) = (Arc::clone(&begin), Arc::clone(&wait));
            async move {
                begin.notify_one();
                wait.notified().await;
                Ok(body)
            }
        })
        .method("t.T/Echo", |_cx, body| async move { Ok(body) })
        .listen("127.0.0.1:0")
        .await
        .unwrap();
    (server, begun, release)
}

fn open_call(client: &Client) -> tokio::task::JoinHandle<Result<bytes::Bytes, CallError>> {
    let client = client.clone();
    tokio::spawn(
        async move { client.call("t.T/Wait", "slow").no_timeout().await.map(|answer| answer.payload) },
    )
}

#[tokio::test]
async fn a_client_that_does_not_take_its_answer_does_not_hold_the_shutdown_up() {
    let server = Server::builder("node-2")
        .method("t.T/Much", |_cx, _body| async { Ok(vec![7; 60_000]) })
        .listen("127.0.0.1:0")
        .await
        .unwrap();
    let mut raw = Raw::check_in(server.address(), "raw", 10 * SECOND).await;
    for call in 0..200 {
        raw.send(&request(REQUEST, call * 2 + 1, "t.T/Much", b"")).await;
    }
    let begin = Instant::now();
    soon("the shutdown", server.shutdown(100 * MS)).await;
    assert!(begin.elapsed() < 8 * SECOND, "{:?}", begin.elapsed());
}

#[tokio::test]
async fn dropping_a_server_ends_its_calls_and_frees_its_address() {
    let (server, begun, _release) = waiting().await;
    let address = server.address().to_owned();
    let client = Client::builder("a").backoff(5 * MS).connect(&address).await.unwrap();
    let peer = client.peer().unwrap();
    let open = open_call(&client);
    soon("the call runs", begun.notified()).await;
    drop(server);
    let error = soon("the call ends", open).await.unwrap().unwrap_err();
    assert_eq!(error.status(), Status::INTERRUPTED, "{error}");
    let closed = soon("the end", peer.closed()).await;
    assert_eq!((closed.by, closed.status), (By::Peer, Status::GOING_AWAY));
    let again = soon("the address is free", async {
        loop {
            let again = Server::builder("b").method("t.T/Echo", |_cx, body| async move { Ok(body) });
            match again.listen(&address).await {
                Ok(again) => break again,
                Err(_) => tokio::task::yield_now().await,
            }
        }
    })
    .await;
    soon("the client is there again", client.ready()).await.unwrap();
    works(&client).await;
    drop(again);
}

#[tokio::test]
async fn a_process_may_end_when_its_shutdown_or_its_close_has() {
    const COUNT: u64 = 40;
    for server_side in [true, false] {
        let runtime = Builder::new_current_thread().enable_all().build().unwrap();
        // Kept: who drops a call gives it up.
        let mut sent = JoinSet::new();
        let (listener, at) = support::narrow();
        let (mut raw, end) = if server_side {
            drop(listener);
            let serving = async {
                let server = Server::builder("node-2")
                    .method("t.T/Much", |_cx, _body| async { Ok(vec![7; 60_000]) })
                    .serve_on(support::narrow().0.into())
                    .unwrap();
                let address = server.address().to_owned();
                (server, address)
            };
            let ((server, address), drop_it) = ground(runtime, serving);
            let mut raw = Raw::check_in(&address, "raw", 10 * SECOND).await;
            for call in 0..COUNT {
                raw.send(&request(REQUEST, call * 2 + 1, "t.T/Much", b"")).await;
            }
            until("all of them have run", || {
                server.peers().first().is_some_and(|peer| peer.stats().calls_in == COUNT)
            })
            .await;
            (
                raw,
                tokio::spawn(async move {
                    server.shutdown(5 * SECOND).await;
                    drop_it();
                }),
            )
        } else {
            let connecting = async move { Client::connect(&at).await.unwrap() };
            let accepting = std::thread::spawn(move || ground(runtime, connecting));
            let raw = Raw::welcome(&listener, 10 * SECOND).await;
            let (client, drop_it) = accepting.join().unwrap();
            for _ in 0..COUNT {
                let client = client.clone();
                sent.spawn(async move { client.one_way("t.T/Tell", vec![7; 60_000]).await });
            }
            tokio::task::yield_now().await;
            tokio::task::yield_now().await;
            (
                raw,
                tokio::spawn(async move {
                    client.close().await;
                    drop_it();
                }),
            )
        };
        // Slowly, so that the last of it is still on its way when the rest has been read.
        let (mut octets, mut buffer) = (Vec::new(), vec![0; 50_000]);
        soon("everything", async {
            loop {
                let count = tokio::io::AsyncReadExt::read(&mut raw.stream, &mut buffer).await.unwrap();
                if count == 0 {
                    break;
                }
                octets.extend_from_slice(&buffer[..count]);
                tokio::time::sleep(MS).await;
            }
        })
        .await;
        // In whatever pieces they came.
        let runs = octets.chunk_by(|a, b| a == b).filter(|run| run.len() > 100);
        let large: usize = runs.map(<[u8]>::len).sum();
        assert_eq!(large as u64, COUNT * 60_000, "server side: {server_side}");
        let close = octets.windows(4).any(|head| head == [0xBE, 0xA7, 1, support::CLOSE]);
        assert!(close, "and the reason for the end, server side: {server_side}");
        drop(raw);
        soon("the end", end).await.unwrap();
        while let Some(result) = sent.join_next().await {
            result.unwrap().unwrap();
        }
    }
}

#[tokio::test]
async fn the_reason_reaches_a_peer_that_has_said_its_last_word() {
    let server = Server::builder("node-2")
        .method("t.T/Much", |_cx, _body| async { Ok(vec![7; 60_000]) })
        .serve_on(support::narrow().0.into())
        .unwrap();
    let mut raw = Raw::check_in(server.address(), "raw", 10 * SECOND).await;
    let there = only_peer(&server).await;
    for call in 0..100 {
        raw.send(&request(REQUEST, call * 2 + 1, "t.T/Much", b"")).await;
    }
    let mut taken = 0;
    until("nothing more is taken", || {
        let before = std::mem::replace(&mut taken, there.stats().octets_out);
        before == taken && taken > 0 && there.stats().calls_in == 100
    })
    .await;
    there.close(Status::EXCESSIVE_LOAD, "that is enough");
    soon("it is over", there.closed()).await;
    tokio::io::AsyncWriteExt::shutdown(&mut raw.stream).await.unwrap();
    let close = raw.next(support::CLOSE).await;
    assert_eq!(close.status, Status::EXCESSIVE_LOAD.0);
    assert!(close.text().contains("that is enough"));
}

fn runtimes() -> [Runtime; 2] {
    let one = Builder::new_current_thread().enable_all().build().unwrap();
    let many = Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    [one, many]
}

/// Runs `here` on a thread of its own in `runtime` until it is told to stop, then drops the runtime.
fn ground<T: Send + 'static>(
    runtime: Runtime,
    here: impl Future<Output = T> + Send + 'static,
) -> (T, impl FnOnce()) {
    let (out, made) = std::sync::mpsc::channel();
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let thread = std::thread::spawn(move || {
        runtime.block_on(async move {
            let made = here.await;
            assert!(out.send(made).is_ok());
            let _ = stopped.await;
        });
        drop(runtime);
    });
    let made = made.recv().unwrap();
    (made, move || {
        stop.send(()).unwrap();
        thread.join().unwrap();
    })
}

#[tokio::test]
async fn a_runtime_that_is_dropped_under_a_server_leaves_no_caller_hanging() {
    for runtime in runtimes() {
        let ((server, begun, _release), drop_it) = ground(runtime, waiting());
        let client = Client::connect(server.address()).await.unwrap();
        let calls: Vec<_> = (0..20).map(|_| open_call(&client)).collect();
        soon("they run", begun.notified()).await;
        let there = only_peer(&server).await;
        drop_it();
        for call in calls {
            let error = soon("every call ends", call).await.unwrap().unwrap_err();
            assert_ne!(error.status(), Status::TIMEOUT, "{error}");
        }
        // What is left of the server outside of its runtime ends as well.
        soon("its connections are over", there.closed()).await;
        assert!(there.call("t.T/Echo", "x").await.is_err());
        soon("so is its shutdown", server.shutdown(60 * SECOND)).await;
    }
}

#[tokio::test]
async fn a_runtime_that_is_dropped_under_a_client_leaves_no_caller_hanging() {
    for runtime in runtimes() {
        let (server, begun, _release) = waiting().await;
        let address = server.address().to_owned();
        let at = address.clone();
        let both = async move {
            let lazy = Client::builder("b").connect_lazily("127.0.0.1:1").unwrap();
            (Client::connect(&at).await.unwrap(), lazy)
        };
        let ((client, lazy), drop_it) = tokio::task::spawn_blocking(|| ground(runtime, both)).await.unwrap();
        // These tasks are of another runtime than the connection.
        let calls: Vec<_> = (0..20).map(|_| open_call(&client)).collect();
        soon("they run", begun.notified()).await;
        let waiting = tokio::spawn(async move { lazy.ready().await.map(|_| ()) });
        tokio::task::spawn_blocking(drop_it).await.unwrap();
        for call in calls {
            let error = soon("every call ends", call).await.unwrap().unwrap_err();
            assert_eq!((error.status(), error.ran()), (Status::CONNECTION_LOST, Ran::Maybe), "{error}");
        }
        assert_eq!(client.call("t.T/Echo", "x").await.unwrap_err().ran(), Ran::No);
        assert!(soon("nobody waits for a connection", client.ready()).await.is_err());
        assert!(soon("nor from the start", waiting).await.unwrap().is_err());
        soon("it closes", client.close()).await;
        soon("the server is rid of it", server.shutdown(SECOND)).await;
    }
}
