//! Clients and servers on a loop: what they do elsewhere, they do here.
#![allow(clippy::unwrap_used, clippy::panic)]

mod support;

use std::{
    future::{Future, pending, poll_fn},
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::Poll,
    thread,
    time::Duration,
};

use support::{run, socket_path, soon};
use tieline_mio::{By, Client, Error, Loop, Mio, Ran, Runtime, Server, Services, Status, Time, block_on};

fn services() -> Services {
    Services::new()
        .method("t.T/Echo", |_cx, body| async move { Ok(body) })
        .method("t.T/Fail", |_cx, _body| async move {
            Err::<&str, _>(Error::application(7, "so it goes").detail("detail"))
        })
        .method("t.T/Panic", |_cx, body| async move {
            assert!(!body.is_empty(), "the handler panics");
            Ok(body)
        })
        .method("t.T/Late", |_cx, body| async move {
            wait(Duration::from_millis(5)).await;
            assert!(!body.is_empty(), "the handler panics as a task");
            Ok(body)
        })
        .method("t.T/CallMe", |cx, body| async move {
            let answer = cx.peer().call("t.T/Double", body).await?;
            Ok(answer.payload)
        })
        .method("t.T/Forever", |_cx, body| async move {
            pending::<()>().await;
            Ok(body)
        })
        .server_stream("t.T/Count", |_cx, _body, mut sink| async move {
            for number in 0..1000u32 {
                sink.send(number.to_be_bytes().to_vec()).await?;
            }
            Ok("counted")
        })
        .client_stream("t.T/Length", |_cx, _body, mut items| async move {
            let mut octets = 0;
            while let Some(item) = items.next().await {
                octets += item?.len();
            }
            Ok(octets.to_string())
        })
        .bidi("t.T/Back", |_cx, _body, mut items, mut sink| async move {
            while let Some(item) = items.next().await {
                sink.send(item?).await?;
            }
            Ok("bye")
        })
}

async fn wait(time: Duration) {
    let at = Mio::default().clock().now().saturating_add(time);
    let mut timer = Mio::default().time();
    poll_fn(|cx| timer.poll_until(cx, at)).await;
}

async fn server() -> Server {
    Server::builder("node-2").services(services()).listen("127.0.0.1:0").await.unwrap()
}

#[test]
fn calls_are_answered() {
    run(async {
        let server = server().await;
        let client = Client::connect(server.address()).await.unwrap();
        for size in [0, 1, 100, 5_000, 60_000, 3_000_000] {
            let body = vec![7u8; size];
            assert_eq!(client.call("t.T/Echo", body.clone()).await.unwrap().payload, body);
        }
        client.one_way("t.T/Echo", "news").await.unwrap();
        client.close().await;
        server.shutdown(Duration::from_secs(1)).await;
    });
}

#[test]
fn errors_and_panics_reach_the_caller_and_end_nothing_else() {
    run(async {
        let server = server().await;
        let client = Client::connect(server.address()).await.unwrap();
        let error = client.call("t.T/Fail", "").await.unwrap_err();
        assert_eq!((error.status(), error.code(), error.ran()), (Status(0xC0), 7, Ran::Yes));
        assert_eq!(error.detail(), "detail");
        for method in ["t.T/Panic", "t.T/Late"] {
            let error = client.call(method, "").await.unwrap_err();
            assert_eq!(error.status(), Status::HANDLER_PANIC, "{method}");
            assert_eq!(client.call(method, "x").await.unwrap().payload, "x", "{method}");
        }
        let error = client.call("t.T/Nothing", "").await.unwrap_err();
        assert_eq!((error.status(), error.ran()), (Status::NO_SUCH_METHOD, Ran::No));
    });
}

#[test]
fn a_handler_calls_its_caller_on_the_same_connection() {
    run(async {
        let server = server().await;
        let client = Client::builder("node-1")
            .method("t.T/Double", |_cx, body| async move { Ok([&body[..], &body[..]].concat()) })
            .connect(server.address())
            .await
            .unwrap();
        assert_eq!(client.call("t.T/CallMe", "ab").await.unwrap().payload, "abab");
    });
}

#[test]
fn a_call_that_is_dropped_or_late_stops_its_handler() {
    /// Counts when it is dropped.
    struct Dropped(Arc<AtomicUsize>);
    impl Drop for Dropped {
        fn drop(&mut self) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }
    run(async {
        let dropped = Arc::new(AtomicUsize::new(0));
        let started = Arc::new(AtomicUsize::new(0));
        let (count, begun) = (Arc::clone(&dropped), Arc::clone(&started));
        let server = Server::builder("node-2")
            .method("t.T/Forever", move |_cx, body| {
                let shown = Dropped(Arc::clone(&count));
                begun.fetch_add(1, Ordering::SeqCst);
                async move {
                    let _shown = shown;
                    pending::<()>().await;
                    Ok(body)
                }
            })
            .listen("127.0.0.1:0")
            .await
            .unwrap();
        let client = Client::connect(server.address()).await.unwrap();
        {
            let mut call = pin!(client.call("t.T/Forever", ""));
            poll_fn(|cx| {
                assert!(call.as_mut().poll(cx).is_pending());
                if started.load(Ordering::SeqCst) == 1 {
                    return Poll::Ready(());
                }
                // Others have their turn first.
                cx.waker().wake_by_ref();
                Poll::Pending
            })
            .await;
        }
        while dropped.load(Ordering::SeqCst) == 0 {
            wait(Duration::from_millis(1)).await;
        }
        let late = client.call("t.T/Forever", "").timeout(Duration::from_millis(20)).await.unwrap_err();
        assert!(matches!(late.status(), Status::TIMEOUT | Status::EXPIRED_RUNNING), "{late}");
        while dropped.load(Ordering::SeqCst) == 1 {
            wait(Duration::from_millis(1)).await;
        }
    });
}

#[test]
fn streams_flow_in_all_directions() {
    run(async {
        let server = server().await;
        let client = Client::connect(server.address()).await.unwrap();

        let mut numbers = client.server_stream("t.T/Count", "").await.unwrap();
        let mut next = 0u32;
        while let Some(number) = numbers.next().await {
            assert_eq!(number.unwrap(), next.to_be_bytes()[..]);
            next += 1;
        }
        assert_eq!(next, 1000);
        assert_eq!(numbers.finish().await.unwrap().payload, "counted");

        let mut upload = client.client_stream("t.T/Length", "").await.unwrap();
        for _ in 0..100 {
            upload.send(vec![0; 2000]).await.unwrap();
        }
        assert_eq!(upload.finish().await.unwrap().payload, "200000");

        let mut both = client.bidi("t.T/Back", "").await.unwrap();
        for word in ["to", "be", "or", "not"] {
            both.send(word).await.unwrap();
            assert_eq!(both.next().await.unwrap().unwrap(), word);
        }
    });
}

#[test]
fn a_server_that_shuts_down_lets_calls_finish_and_frees_its_address() {
    run(async {
        let server = server().await;
        let address = server.address().to_owned();
        let client = Client::connect(&address).await.unwrap();
        let mut call = pin!(client.call("t.T/Late", "x"));
        // It is on its way before the server begins to shut down.
        poll_fn(|cx| {
            assert!(call.as_mut().poll(cx).is_pending());
            Poll::Ready(())
        })
        .await;
        let mut down = pin!(server.shutdown(Duration::from_secs(5)));
        let mut answer = None;
        poll_fn(|cx| {
            if answer.is_none()
                && let Poll::Ready(outcome) = call.as_mut().poll(cx)
            {
                answer = Some(outcome);
            }
            down.as_mut().poll(cx)
        })
        .await;
        // The drain may have come before the call: then nothing of it ran.
        match answer.unwrap() {
            Ok(answer) => assert_eq!(answer.payload, "x"),
            Err(error) => assert_eq!(error.ran(), Ran::No, "{error}"),
        }
        Server::builder("node-3").listen(&address).await.unwrap();
    });
}

#[test]
fn a_client_finds_a_node_that_was_started_again() {
    run(async {
        let first = server().await;
        let address = first.address().to_owned();
        let client = Client::builder("c").backoff(Duration::from_millis(5)).connect(&address).await.unwrap();
        first.shutdown(Duration::ZERO).await;
        while client.peer().is_some() {
            wait(Duration::from_millis(1)).await;
        }
        assert_eq!(client.call("t.T/Echo", "x").await.unwrap_err().ran(), Ran::No);
        let _second = Server::builder("node-2").services(services()).listen(&address).await.unwrap();
        client.ready().await.unwrap();
        assert_eq!(client.call("t.T/Echo", "x").await.unwrap().payload, "x");
    });
}

#[test]
fn a_unix_socket_works_and_one_that_was_left_over_is_cleared_away() {
    run(async {
        let path = socket_path();
        let address = format!("unix:{path}");
        // Closed without being removed, as by a process that was killed.
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        let server = Server::builder("node-2").services(services()).listen(&address).await.unwrap();
        assert_eq!(server.address(), address);
        let client = Client::connect(server.address()).await.unwrap();
        assert_eq!(client.call("t.T/Echo", "x").await.unwrap().payload, "x");
        let taken = Server::builder("node-3").listen(&address).await;
        assert!(taken.is_err(), "somebody listens there");
        assert_eq!(client.call("t.T/Echo", "y").await.unwrap().payload, "y");
        drop(client);
        server.shutdown(Duration::from_secs(1)).await;
        assert!(!std::fs::exists(&path).unwrap());
        // A file of another kind is nobody's to remove.
        std::fs::write(&path, "precious").unwrap();
        assert!(Server::builder("node-3").listen(&address).await.is_err());
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "precious");
        std::fs::remove_file(&path).unwrap();
    });
}

#[test]
fn a_host_that_is_a_name_is_looked_up() {
    run(async {
        let server = server().await;
        let port = server.address().rsplit(':').next().unwrap();
        let client = Client::connect(&format!("localhost:{port}")).await.unwrap();
        assert_eq!(client.call("t.T/Echo", "x").await.unwrap().payload, "x");
        assert!(Client::connect("no.such.host.invalid:1").await.is_err());
    });
}

#[test]
fn a_client_is_called_from_other_threads() {
    let mut node = Loop::new(()).unwrap();
    let handle = node.handle();
    let (server, client) = node
        .block_on(async {
            let server = server().await;
            let client = Client::connect(server.address()).await.unwrap();
            (server, client)
        })
        .unwrap();
    let callers: Vec<_> = (0..4u32)
        .map(|caller| {
            let client = client.clone();
            thread::spawn(move || {
                // Each caller has a loop of its own, and waits for the other one.
                block_on(soon("the calls", async {
                    for number in 0..200u32 {
                        let body = (caller * 1000 + number).to_be_bytes().to_vec();
                        assert_eq!(client.call("t.T/Echo", body.clone()).await.unwrap().payload, body);
                    }
                }))
                .unwrap();
            })
        })
        .collect();
    let over = thread::spawn(move || {
        let ended: Vec<_> = callers.into_iter().map(thread::JoinHandle::join).collect();
        handle.stop();
        ended
    });
    node.run().unwrap();
    for caller in over.join().unwrap() {
        caller.unwrap();
    }
    drop((server, client));
}

#[test]
fn what_is_left_when_a_loop_ends_does_not_hang() {
    let mut node = Loop::new(()).unwrap();
    let (server, client) = node
        .block_on(async {
            let server = server().await;
            let client = Client::connect(server.address()).await.unwrap();
            (server, client)
        })
        .unwrap();
    let runtime = node.handle().runtime();
    drop(node);
    let closed = block_on(soon("the failure", client.call("t.T/Echo", "x"))).unwrap().unwrap_err();
    assert_eq!(closed.ran(), Ran::No);
    // Tasks are not run, timers come at once, and nothing can be dialled.
    runtime.spawn(Box::pin(async { panic!("the loop has ended") }));
    assert!(block_on(soon("the error", runtime.connect("127.0.0.1:1"))).unwrap().is_err());
    block_on(soon("the shutdown", server.shutdown(Duration::from_secs(1)))).unwrap();
}

#[test]
fn outside_of_a_loop_nothing_is_dialled_and_the_error_says_why() {
    // Polled by hand: this thread is in no loop.
    let mut connect = pin!(Mio::default().connect("127.0.0.1:1"));
    let polled = connect.as_mut().poll(&mut std::task::Context::from_waker(std::task::Waker::noop()));
    let Poll::Ready(Err(error)) = polled else { panic!("it is an error at once") };
    assert!(error.to_string().contains("in no loop"), "{error}");
}

#[test]
fn the_peer_sees_why_a_connection_was_closed() {
    run(async {
        let server = server().await;
        let client = Client::connect(server.address()).await.unwrap();
        let peer = client.peer().unwrap();
        let mut peers = server.peers();
        while peers.is_empty() {
            wait(Duration::from_millis(1)).await;
            peers = server.peers();
        }
        peers.remove(0).close(Status::GOING_AWAY, "for a walk");
        let closed = peer.closed().await;
        assert_eq!((closed.by, closed.status), (By::Peer, Status::GOING_AWAY));
    });
}
