//! No error ends a listener: a process that has no descriptors left accepts again when it has.
#![allow(clippy::unwrap_used, clippy::panic)]

mod support;

use std::{fs::File, net::TcpStream};

use support::{ECHO, Told, call, config, outcome, run, soon, told, until};
use tieline_mio::{Client, Loop, Server};
use tieline_scenarios::process::alone;

/// Opens files until there is no descriptor left.
fn use_up() -> Vec<File> {
    std::iter::from_fn(|| File::open("/dev/null").ok()).collect()
}

#[test]
fn a_listener_of_the_direct_layer_outlives_a_lack_of_descriptors() {
    if !alone("a_listener_of_the_direct_layer_outlives_a_lack_of_descriptors", 64) {
        return;
    }
    let mut node = Loop::new(support::Scribe::default()).unwrap();
    let listener = node.net().listen("127.0.0.1:0", &config("server")).unwrap();
    let address = node.net().listening(listener).unwrap();
    // One more descriptor than it takes to dial: what is dialled cannot be accepted.
    let mut files = use_up();
    files.pop();
    let waiting = TcpStream::connect(&address).unwrap();
    until(&mut node, "an accept that fails twice", |node| node.net().counters().accept_errors >= 2);
    assert_eq!(node.net().counters().accepted, 0);
    drop(files);
    until(&mut node, "the accept", |node| node.net().counters().accepted == 1);
    drop(waiting);
    let client = node.net().connect(&address, &config("client")).unwrap();
    told(&mut node, "check-in", |told| match told {
        Told::Opened(conn, _) if conn == client => Some(()),
        _ => None,
    });
    call(&mut node, client, ECHO, b"x", 1);
    assert_eq!(outcome(&mut node, 1).unwrap().payload, "x");
}

#[test]
fn a_server_on_the_loop_outlives_a_lack_of_descriptors() {
    if !alone("a_server_on_the_loop_outlives_a_lack_of_descriptors", 64) {
        return;
    }
    run(async {
        let server =
            Server::builder("server").method(ECHO, |_cx, body| async move { Ok(body) }).listen("127.0.0.1:0");
        let server = server.await.unwrap();
        let mut files = use_up();
        files.pop();
        let waiting = TcpStream::connect(server.address()).unwrap();
        // It is not accepted: the next one who comes has no descriptor either, and both wait.
        assert!(Client::connect(server.address()).await.is_err());
        drop(files);
        let client = soon("a connection", Client::connect(server.address())).await.unwrap();
        assert_eq!(client.call(ECHO, "x").await.unwrap().payload, "x");
        drop(waiting);
    });
}
