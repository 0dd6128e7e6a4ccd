//! Idle connections beat, and those who do not are given up.
#![allow(clippy::unwrap_used, clippy::panic)]

mod support;

use std::{
    io::{Read, Write},
    net::TcpStream,
    time::Duration,
};

use bytes::{Buf, BytesMut};
use support::{Told, config, told, until};
use tieline_mio::{
    By, Client, Clock, Config, Connection, Event, Loop, Mio, Outbox, Runtime, Server, Side, Status,
};

const INTERVAL: Duration = Duration::from_millis(200);

/// A client that checks in and then says nothing more.
fn silent(address: &str) -> TcpStream {
    let clock = Mio::default().clock();
    let config = Config::builder("silent").heartbeat_interval(INTERVAL).build().unwrap();
    let mut conn: Connection<()> = Connection::new(config, Side::Client, 1, clock.now());
    let mut stream = TcpStream::connect(address).unwrap();
    let mut out = Outbox::new();
    loop {
        while conn.poll_transmit(clock.now(), &mut out) {
            stream.write_all(out.chunk()).unwrap();
            let octets = out.remaining();
            out.advance(octets);
        }
        let mut octets = [0; 4096];
        let came = stream.read(&mut octets).unwrap();
        conn.handle_input(clock.now(), BytesMut::from(octets.get(..came).unwrap()));
        if let Some(Event::Ready(peer)) = conn.poll_event(clock.now()) {
            assert_eq!(peer.heartbeat_interval, INTERVAL);
            return stream;
        }
    }
}

#[test]
fn an_idle_connection_beats_and_lives() {
    let mut node = Loop::new(support::Scribe::default()).unwrap();
    let listener = node.net().listen("127.0.0.1:0", &config("server")).unwrap();
    let address = node.net().listening(listener).unwrap();
    let client = Config::builder("client").heartbeat_interval(INTERVAL).build().unwrap();
    let conn = node.net().connect(&address, &client).unwrap();
    // More than the silence after which either end would give the other up.
    until(&mut node, "heartbeats", |node| {
        node.net().stats(conn).unwrap().heartbeats_out >= 6 && node.net().stats(conn).unwrap().octets_in > 0
    });
    assert_eq!(node.net().len(), 2);
    // It sleeps between them: turns are for heartbeats, their answers and timers that come early, not for looking.
    let turns = node.net().counters().turns;
    assert!(turns < 200, "{turns} turns");
}

#[test]
fn the_direct_layer_gives_up_who_does_not_beat() {
    let mut node = Loop::new(support::Scribe::default()).unwrap();
    let listener = node.net().listen("127.0.0.1:0", &config("server")).unwrap();
    let address = node.net().listening(listener).unwrap();
    let peer = std::thread::spawn(move || silent(&address));
    let closed = told(&mut node, "the end of who does not beat", |told| match told {
        Told::Closed(_, closed) => Some(closed),
        _ => None,
    });
    assert_eq!((closed.by, closed.status), (By::Us, Status::HEARTBEAT_TIMEOUT));
    let mut peer = peer.join().unwrap();
    until(&mut node, "the connection to be gone", |node| node.net().is_empty());
    // The reason was written, and the stream ended.
    let mut said = Vec::new();
    peer.read_to_end(&mut said).unwrap();
    assert!(!said.is_empty());
}

#[test]
fn a_server_on_the_loop_gives_up_who_does_not_beat() {
    support::run(async {
        let server = Server::builder("server").listen("127.0.0.1:0").await.unwrap();
        let address = server.address().to_owned();
        let peer = std::thread::spawn(move || silent(&address));
        let live =
            Client::builder("live").heartbeat_interval(INTERVAL).connect(server.address()).await.unwrap();
        let live = live.peer().unwrap();
        // Both check in; then one is given up, and the other is not.
        while server.peers().len() < 2 {
            turn().await;
        }
        while server.peers().len() > 1 {
            turn().await;
        }
        assert_eq!(server.peers()[0].info().unwrap().identifier, "live");
        assert!(live.is_ready());
        let mut peer = peer.join().unwrap();
        peer.set_nonblocking(false).unwrap();
        drop(peer.shutdown(std::net::Shutdown::Both));
    });
}

/// Lets the loop have a turn.
async fn turn() {
    use tieline_mio::Time;
    let mut timer = Mio::default().time();
    let at = Mio::default().clock().now().saturating_add(Duration::from_millis(1));
    std::future::poll_fn(|cx| timer.poll_until(cx, at)).await;
}
