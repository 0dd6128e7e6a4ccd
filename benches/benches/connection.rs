//! Two connections of the core in one process, without sockets: what each thing that they do costs both of them
//! together, unless it says otherwise.

use std::hint::black_box;
use std::sync::Arc;

use bytes::{Buf, BytesMut};
use criterion::{BatchSize, Criterion, Throughput};
use tieline_benches::{OneWays, Pair, client_config, server_config};
use tieline_core::Instant;
use tieline_core::conn::{Config, Connection, Event, Outbox, Side};

/// A figure of something that went wrong would be none.
const WRONG: &str = "the two connections do what the bench is about";

/// How many methods the server of the table benches has.
const METHODS: usize = 1000;

fn configs(methods: usize) -> (Arc<Config>, Arc<Config>) {
    (client_config().expect(WRONG), server_config(methods).expect(WRONG))
}

fn calls(c: &mut Criterion) {
    for in_flight in [1, 16, 128, 1024] {
        let mut group = c.benchmark_group("connection/round_trip");
        group.throughput(Throughput::Elements(in_flight.into()));
        let mut pair = Pair::start().expect(WRONG);
        group.bench_function(format!("{in_flight}_in_flight"), |b| {
            b.iter(|| pair.round_trips(black_box(in_flight)).expect(WRONG));
        });
        group.finish();
    }
    for batch in [1, 128] {
        let mut group = c.benchmark_group("connection/one_way");
        group.throughput(Throughput::Elements(batch.into()));
        let mut pair = OneWays::start().expect(WRONG);
        group.bench_function(format!("batches_of_{batch}"), |b| {
            b.iter(|| pair.send(black_box(batch)).expect(WRONG));
        });
        group.finish();
    }
}

fn idleness(c: &mut Criterion) {
    let mut group = c.benchmark_group("connection/idle");
    let mut pair = Pair::start().expect(WRONG);
    // Both ends beat, and both answer.
    group.bench_function("heartbeat_turn", |b| b.iter(|| pair.heartbeat().expect(WRONG)));
    // One connection: `handle_timeout` with nothing due, and `poll_timeout`.
    let mut pair = Pair::start().expect(WRONG);
    group.bench_function("handle_timeout", |b| b.iter(|| pair.idle_timeout().expect(WRONG)));
    group.finish();
}

fn beginnings(c: &mut Criterion) {
    let mut group = c.benchmark_group("connection/begin");
    for methods in [1, METHODS] {
        let (client, server) = configs(methods);
        group.bench_function(format!("check_in_{methods}_methods"), |b| {
            b.iter(|| Pair::check_in(&client, &server).expect(WRONG));
        });
    }
    // The client's part alone: the ack, and a table of so many methods learned.
    let (client, server) = configs(METHODS);
    let greeting = greeting(&client, &server);
    group.bench_function(format!("learn_{METHODS}_methods"), |b| {
        b.iter_batched(
            || (greeted(&client).0, BytesMut::from(greeting.as_slice())),
            |(mut client, greeting)| {
                let now = Instant::from_nanos(1);
                client.handle_input(now, greeting);
                let mut ready = false;
                while let Some(event) = client.poll_event(now) {
                    ready |= matches!(event, Event::Ready(_));
                }
                assert!(ready, "{WRONG}");
                // To be dropped outside of the measurement.
                client
            },
            BatchSize::SmallInput,
        );
    });
    group.finish();
}

/// A client that has sent its check-in, and the octets of that.
fn greeted(config: &Arc<Config>) -> (Connection<()>, BytesMut) {
    let now = Instant::from_nanos(1);
    let mut client = Connection::new(Arc::clone(config), Side::Client, 1, now);
    let octets = transmitted(&mut client, now);
    (client, octets)
}

/// What a server says first: the ack and its table.
fn greeting(client: &Arc<Config>, server: &Arc<Config>) -> Vec<u8> {
    let now = Instant::from_nanos(1);
    let mut server: Connection<()> = Connection::new(Arc::clone(server), Side::Server, 2, now);
    server.handle_input(now, greeted(client).1);
    while server.poll_event(now).is_some() {}
    let octets = transmitted(&mut server, now);
    // Fewer octets than names could not hold them.
    assert!(octets.len() > METHODS * "tieline.bench.v1.".len(), "{WRONG}");
    octets.to_vec()
}

fn transmitted(from: &mut Connection<()>, now: Instant) -> BytesMut {
    let mut octets = BytesMut::new();
    let mut outbox = Outbox::new();
    while from.poll_transmit(now, &mut outbox) {
        let written = outbox.remaining();
        outbox.chunks().for_each(|chunk| octets.extend_from_slice(chunk));
        outbox.advance(written);
        from.handle_sent(now, written);
    }
    octets
}

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    calls(&mut criterion);
    idleness(&mut criterion);
    beginnings(&mut criterion);
    criterion.final_summary();
}
