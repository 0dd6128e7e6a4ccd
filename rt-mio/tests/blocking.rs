//! The client that waits: on threads, without a loop.
#![allow(clippy::unwrap_used, clippy::panic)]

mod support;

use std::{sync::mpsc, thread, time::Duration};

use support::{LIMIT, socket_path};
use tieline_mio::{Config, ConnectError, Handle, Handlers, Loop, Ran, Status, blocking::Client};

const ECHO: &str = "t.T/Echo";
const NOTE: &str = "t.T/Note";
const NEVER: &str = "t.T/Never";

/// A node on a thread of its own; it tells of the one-ways that it gets.
struct Node {
    handle: Handle<Handlers>,
    address: String,
    notes: mpsc::Receiver<bytes::Bytes>,
    thread: thread::JoinHandle<()>,
}

impl Node {
    fn start(address: &str) -> Self {
        Self::with(address, |config| config)
    }

    fn with(
        address: &str,
        change: impl FnOnce(tieline_mio::ConfigBuilder) -> tieline_mio::ConfigBuilder + Send + 'static,
    ) -> Self {
        let (tell, told) = mpsc::channel();
        let (note, notes) = mpsc::channel();
        let address = address.to_owned();
        let thread = thread::spawn(move || {
            let handlers = Handlers::new()
                .function(ECHO, Ok)
                .method(NOTE, move |net, conn, request| {
                    note.send(request.payload).unwrap();
                    net.stopped(conn, request.call);
                })
                .method(NEVER, |_net, _conn, _request| {});
            let config = change(handlers.describe(Config::builder("node"))).build().unwrap();
            let mut node = Loop::new(handlers).unwrap();
            let listener = node.net().listen(&address, &config).unwrap();
            tell.send((node.handle(), node.net().listening(listener).unwrap())).unwrap();
            node.run().unwrap();
            node.shutdown(Duration::ZERO).unwrap();
        });
        let (handle, address) = told.recv_timeout(LIMIT).unwrap();
        Self { handle, address, notes, thread }
    }

    fn stop(self) {
        self.handle.stop();
        self.thread.join().unwrap();
    }
}

#[test]
fn calls_are_answered_small_and_large() {
    let node = Node::start("127.0.0.1:0");
    for busy in [Duration::ZERO, Duration::from_micros(50)] {
        let client = Client::connect(&node.address).unwrap().busy_poll(busy);
        for size in [0, 1, 64, 5_000, 60_000, 4_000_000] {
            let body = vec![7u8; size];
            assert_eq!(client.call(ECHO, &body).unwrap().payload, body);
            assert_eq!(client.call_shared(None, ECHO, body.clone().into()).unwrap().payload, body);
        }
        client.one_way(NOTE, "noted").unwrap();
        assert_eq!(node.notes.recv_timeout(LIMIT).unwrap(), "noted");
        client.close();
    }
    node.stop();
}

#[test]
fn threads_share_a_client_and_each_gets_its_own_answer() {
    let node = Node::start(&format!("unix:{}", socket_path()));
    let client = Client::connect(&node.address).unwrap();
    thread::scope(|scope| {
        for caller in 0..4u32 {
            let client = &client;
            scope.spawn(move || {
                for number in 0..100u32 {
                    let body = (caller * 1000 + number).to_be_bytes();
                    assert_eq!(client.call(ECHO, body).unwrap().payload, body[..]);
                }
            });
        }
    });
    drop(client);
    node.stop();
}

#[test]
fn errors_say_where_and_whether_it_ran() {
    let node = Node::start("127.0.0.1:0");
    let client = Client::connect(&node.address).unwrap();
    let error = client.call("t.T/None", "").unwrap_err();
    assert_eq!(
        (error.status(), error.ran(), error.node()),
        (Status::NO_SUCH_METHOD, Ran::No, &*node.address)
    );
    let late = client.call_within(Some(Duration::from_millis(30)), NEVER, "").unwrap_err();
    assert!(matches!(late.status(), Status::TIMEOUT | Status::EXPIRED_RUNNING), "{late}");
    assert_eq!(client.call(ECHO, "x").unwrap().payload, "x", "the connection lives on");
    let long = "m".repeat(300);
    assert_eq!(client.call(&long, "").unwrap_err().ran(), Ran::No);
    node.stop();
}

#[test]
fn nobody_there_and_nobody_who_checks_in() {
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = silent.local_addr().unwrap().to_string();
    let closer = thread::spawn(move || drop(silent.accept().unwrap()));
    let error = Client::connect(&address).unwrap_err();
    assert!(matches!(error, ConnectError::CheckIn { .. }), "{error}");
    closer.join().unwrap();
    // The listener is gone by now.
    let error = Client::connect(&address).unwrap_err();
    assert!(matches!(error, ConnectError::Dial { .. }), "{error}");
    assert!(matches!(Client::connect("unix:/nowhere").unwrap_err(), ConnectError::Dial { .. }));
}

/// While nobody calls, somebody beats: the node, which gives up whoever is silent for three intervals, has got beats
/// for many, and the connection that the client calls on is still the first.
#[test]
fn the_connection_beats_between_calls() {
    let node = Node::with("127.0.0.1:0", |config| config);
    let config = Config::builder("client").heartbeat_interval(Duration::from_millis(200)).build().unwrap();
    let client = Client::connect_as(&node.address, &config).unwrap();
    assert_eq!(client.call(ECHO, "x").unwrap().payload, "x");
    let beats = || {
        let (tell, told) = mpsc::channel();
        let ask = move |_: &mut Handlers, net: &mut tieline_mio::Net<tieline_mio::Then>| {
            let conns: Vec<_> = net.connections().collect();
            let stats: Vec<_> = conns.iter().filter_map(|conn| net.stats(*conn)).collect();
            tell.send(stats).unwrap();
        };
        node.handle.submit(ask).unwrap();
        told.recv_timeout(LIMIT).unwrap()
    };
    while beats().iter().all(|stats| stats.heartbeats_in < 5) {
        assert_eq!(beats().len(), 1, "the connection is the first and only one");
        thread::yield_now();
    }
    assert_eq!(client.call(ECHO, "y").unwrap().payload, "y");
    assert_eq!(beats().iter().map(|stats| stats.calls_in).sum::<u64>(), 2);
    drop(client);
    node.stop();
}

#[test]
fn a_connection_that_was_lost_between_calls_is_dialled_again() {
    let path = format!("unix:{}", socket_path());
    let node = Node::start(&path);
    let client = Client::connect(&path).unwrap();
    assert_eq!(client.call(ECHO, "x").unwrap().payload, "x");
    node.stop();
    // Nobody is there; whether that shows before the call is sent depends on who is faster.
    assert_ne!(client.call(ECHO, "x").unwrap_err().ran(), Ran::Yes);
    assert_eq!(client.call(ECHO, "x").unwrap_err().ran(), Ran::No, "by now it is known");
    let node = Node::start(&path);
    assert_eq!(client.call(ECHO, "x").unwrap().payload, "x");
    // A node that drains is left for a new connection, too.
    node.handle
        .submit(|_, net| {
            let conns: Vec<_> = net.connections().collect();
            for conn in conns {
                net.drain(conn, Status::GOING_AWAY, Duration::from_secs(5), "for now");
            }
        })
        .unwrap();
    assert_eq!(client.call(ECHO, "x").unwrap().payload, "x");
    node.stop();
}
