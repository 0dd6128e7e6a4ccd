//! What a connection allocates: nothing a round trip once it is warm, and never more than its limits whatever the peer
//! does (L8).
#![allow(clippy::unwrap_used, clippy::panic, clippy::cast_possible_truncation, clippy::print_stdout)]

mod support;

use std::sync::Arc;

use bytes::Buf;
use support::{
    frames::{self, KIB, MIB},
    heap::{COUNT, Counting, LIVE, peak},
    raw::{Raw, SECOND, config, ms},
};
use tieline_core::{
    Instant,
    conn::{Body, CallHead, Config, Connection, Event, Limits, Outbox, Side},
    wire::{Envelope, FrameType, Metadata, Method, Repeated, Request, Status},
};

#[global_allocator]
static ALLOCATOR: Counting = Counting;

struct Ends {
    client: Connection<u32>,
    server: Connection<u32>,
    /// Connections share them, and so they are not counted.
    configs: [Arc<Config>; 2],
    outbox: Outbox,
    now: u64,
    share: bool,
    done: u32,
}

fn carry(now: Instant, outbox: &mut Outbox, from: &mut Connection<u32>, to: &mut Connection<u32>) {
    while from.poll_transmit(now, outbox) {
        let octets = outbox.remaining();
        while outbox.remaining() > 0 {
            let mut buffer = to.lend();
            let chunk = outbox.chunk();
            let take = chunk.len().min(buffer.capacity());
            buffer.extend_from_slice(&chunk[..take]);
            outbox.advance(take);
            to.handle_input(now, buffer);
        }
        from.handle_sent(now, octets);
    }
}

impl Ends {
    fn new(share: bool) -> Self {
        let now = 1_000 * SECOND;
        let at = Instant::from_nanos(now);
        let client = Config::builder("client").build().unwrap();
        let server = config().build().unwrap();
        let mut ends = Self {
            client: Connection::new(Arc::clone(&client), Side::Client, 1, at),
            server: Connection::new(Arc::clone(&server), Side::Server, 2, at),
            configs: [client, server],
            outbox: Outbox::new(),
            now,
            share,
            done: 0,
        };
        for _ in 0..4 {
            ends.turn();
        }
        assert!(ends.client.peer().is_some());
        ends
    }

    fn at(&self) -> Instant {
        Instant::from_nanos(self.now)
    }

    fn call(&mut self, user: u32) {
        let head = CallHead::new("t.S/Echo").deadline(Some(self.at().saturating_add(ms(5_000))));
        self.client.call(self.at(), &head, Body::Copy(&[7; 64]), user).unwrap();
    }

    fn turn(&mut self) {
        let at = self.at();
        carry(at, &mut self.outbox, &mut self.client, &mut self.server);
        while let Some(event) = self.server.poll_event(at) {
            if let Event::Request(incoming) = event {
                let body = if self.share { Body::Share(incoming.payload) } else { Body::Copy(&[8; 64]) };
                self.server.answer(at, incoming.call, body).unwrap();
            }
        }
        carry(at, &mut self.outbox, &mut self.server, &mut self.client);
        while let Some(event) = self.client.poll_event(at) {
            if let Event::Done { outcome, .. } = event {
                assert_eq!(outcome.unwrap().payload.len(), 64);
                self.done += 1;
            }
        }
    }

    fn round_trips(&mut self, in_flight: u32, rounds: u32) {
        let before = self.done;
        for _ in 0..rounds {
            for user in 0..in_flight {
                self.call(user);
            }
            self.turn();
            self.now += 50_000;
        }
        assert_eq!(self.done - before, in_flight * rounds);
    }
}

#[test]
fn a_round_trip_allocates_nothing_once_warm() {
    for share in [false, true] {
        for in_flight in [1, 128] {
            let before = COUNT.get();
            let mut ends = Ends::new(share);
            ends.round_trips(in_flight, 300);
            assert!(COUNT.get() > before + 10, "what is allocated is counted");
            let before = COUNT.get();
            ends.round_trips(in_flight, 1_000);
            let allocations = COUNT.get() - before;
            assert_eq!(allocations, 0, "{in_flight} in flight, payload shared: {share}");
        }
    }
}

/// Short reads, as slow lines bring them, and buffers that come back empty, as they do with every timer: what has come
/// of a message must not be copied for each of them, or one of a GiB keeps a connection from doing anything else.
#[test]
fn a_message_that_comes_in_short_reads_grows_and_is_not_copied_for_each_of_them() {
    const MESSAGE: usize = 2 << 20;
    let mut ends = Ends::new(false);
    let at = ends.at();
    let head = CallHead::new("t.S/Echo");
    ends.client.call(at, &head, Body::Share(vec![7; MESSAGE].into()), 1).unwrap();
    let (mut allocations, mut reads, mut whole) = (0, 0_u64, false);
    while ends.client.poll_transmit(at, &mut ends.outbox) {
        let octets = ends.outbox.remaining();
        while ends.outbox.remaining() > 0 {
            let before = COUNT.get();
            let mut buffer = ends.server.lend();
            if reads % 5 < 4 {
                let chunk = ends.outbox.chunk();
                let take = chunk.len().min(buffer.capacity()).min(1_000);
                buffer.extend_from_slice(&chunk[..take]);
                ends.outbox.advance(take);
            }
            ends.server.handle_input(at, buffer);
            while let Some(event) = ends.server.poll_event(at) {
                let Event::Request(incoming) = event else { continue };
                whole = incoming.payload.len() == MESSAGE && incoming.payload.iter().all(|octet| *octet == 7);
            }
            allocations += COUNT.get() - before;
            reads += 1;
        }
        ends.client.handle_sent(at, octets);
    }
    assert!(whole, "after {reads} reads");
    // The buffer doubles, and each frame has a few reads into the inbox.
    assert!(allocations < reads / 4, "{allocations} allocations for {reads} reads");
}

/// What an idle connection holds, in octets on the heap and in itself.
#[test]
fn an_idle_connection_holds_next_to_nothing() {
    let mut ends = Ends::new(false);
    ends.round_trips(128, 100);
    let before = LIVE.get();
    // Heartbeats come and go; then it has given back what it needed when it was busy, the tables of 128 calls too.
    for _ in 0..5 {
        ends.now += 10 * SECOND;
        let at = ends.at();
        // The client beats first, always: the server has nothing to beat for.
        ends.client.handle_timeout(at);
        ends.turn();
        ends.server.handle_timeout(at);
        ends.turn();
    }
    assert_eq!(ends.server.stats().heartbeats_out, 0);
    ends.outbox.release();
    assert!(LIVE.get() < before);
    assert!(ends.client.poll_timeout().is_some());
    let idle = LIVE.get();
    let Ends { client, server, configs, .. } = ends;
    let own = size_of_val(&server).cast_signed();
    drop(server);
    let server = idle - LIVE.get();
    println!("an idle server's connection: {own} octets and {server} on the heap");
    assert!(own + server <= 640, "{own} octets and {server} on the heap");
    let idle = LIVE.get();
    drop(client);
    let client = idle - LIVE.get();
    drop(configs);
    println!("an idle client's connection: {own} octets and {client} on the heap");
    // It knows what the server serves, by name and by number.
    assert!(own + client <= 1280, "{own} octets and {client} on the heap");
}

/// What was forgotten for the sake of memory is not missed: names of old calls find nothing, and calls go on.
#[test]
fn a_connection_that_was_idle_goes_on_as_before() {
    let mut ends = Ends::new(false);
    ends.call(1);
    let head = CallHead::new("t.S/Echo");
    let old = ends.client.call(ends.at(), &head, Body::Copy(b"old"), 2).unwrap();
    ends.turn();
    let before = ends.client.stats();
    for _ in 0..3 {
        ends.now += 10 * SECOND;
        let at = ends.at();
        ends.client.handle_timeout(at);
        ends.server.handle_timeout(at);
        ends.turn();
        ends.turn();
        assert_eq!(ends.client.open_calls(), (0, 0));
    }
    let at = ends.at();
    assert_eq!(ends.client.last_read(), at);
    assert!(ends.client.next().wake > Some(at) && ends.client.next().read && !ends.client.next().write);
    assert!(ends.client.stats().heartbeats_out >= before.heartbeats_out + 3, "it beats");
    assert_eq!(ends.client.stats().calls_out, before.calls_out);
    assert!(ends.client.peer().is_some() && ends.client.side() == Side::Client);
    let new = ends.client.call(at, &head, Body::Copy(&[7; 64]), 3).unwrap();
    assert_ne!(old, new);
    assert_eq!(ends.client.cancel(at, old), None, "the name of a call that is over");
    ends.turn();
    ends.round_trips(4, 3);
}

fn flood(name: &str, most: usize, mut frame: impl FnMut(u64) -> Vec<u8>) {
    let mut limits = Limits::default();
    (limits.memory, limits.max_message, limits.max_concurrent) = (1 << 20, 64 << 10, 1_000);
    let mut raw = Raw::server(config().limits(limits));
    raw.takes = false;
    let mut running = Vec::with_capacity(20_000);
    let held = peak(|| {
        for number in 0..10_000 {
            raw.feed(&frame(number));
            // The application holds on to whatever it is given.
            while let Some(event) = raw.conn.poll_event(raw.at()) {
                running.push(event);
            }
            raw.conn.poll_transmit(raw.at(), &mut raw.outbox);
        }
    });
    println!("{name}: {} KiB at the peak of {}", held / KIB, most / KIB);
    assert!(held <= most, "{name}: {} KiB at the peak", held / KIB);
}

#[test]
fn what_a_peer_can_make_a_connection_hold_is_bounded() {
    let id = |number: u64| 2 * number + 1;
    let head = Request { method: 1, ..Request::default() };
    let one_way = |number, len| {
        frames::emit(FrameType::ONE_WAY, id(number), Status::OK, Envelope::Request(head), &vec![0; len])
    };
    let metadata = [Metadata { key: "k", value: &[7; 900] }; 60];
    let rich = Request { metadata: Repeated::from(&metadata), ..head };
    // The budget is 1 MiB of arguments; a block of 64 KiB may be held for an argument above 4 KiB.
    flood("large arguments", 3 * MIB, |number| frames::call(id(number), &[1; 60_000]));
    flood("arguments of 5 KiB", 20 * MIB, |number| frames::call(id(number), &[1; 5_000]));
    flood("small arguments", 4 * MIB, |number| frames::call(id(number), &[1; 10]));
    flood("metadata", 3 * MIB, |number| frames::request(id(number), rich, b""));
    flood("large one-ways", 5 * MIB, |number| one_way(number, 60_000));
    flood("small one-ways", 5 * MIB, |number| one_way(number, 10));
    flood("refusals", 3 * MIB, |number| frames::request(id(number), Request { method: 9, ..head }, b""));
    flood("late frames", MIB, |_| frames::heartbeat_ack(1));
    flood("tables", 6 * MIB, |number| {
        let names: Vec<String> = (0..500).map(|name| format!("{number}/{name:0100}")).collect();
        let methods: Vec<Method<'_>> = (0..)
            .zip(&names)
            .map(|(at, name)| Method { id: number as u32 * 500 + at + 1, name, fingerprint: 0 })
            .collect();
        frames::table(&methods)
    });
    flood("rapid reset", 4 * MIB, |number| {
        [frames::call(id(number), b""), frames::cancel(id(number))].concat()
    });
    let long = |number: u64| {
        let mut frame = frames::octets(0x80, 0, 0, number, b"");
        frame[14..18].copy_from_slice(&65_536u32.to_be_bytes());
        frame.resize(60_000, 0);
        frame
    };
    flood("frames that do not end", MIB, |number| if number == 0 { long(0) } else { vec![0; 5] });
}
