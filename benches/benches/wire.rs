//! The bytes alone: what parsing and emitting each part of a frame costs.

use std::hint::black_box;

use criterion::{Criterion, Throughput};
use tieline_core::wire::{
    CheckIn, Envelope, Flags, Frame, FrameType, HEADER_LEN, Header, Label, Metadata, Parts, Repeated,
    Request, Response, Status, varint,
};

const MAX_BODY: u32 = 64 * 1024;

fn header(len: u32) -> Header {
    Header { frame_type: FrameType::REQUEST, flags: Flags::NONE, status: Status::OK, id: 0x1_0002_0003, len }
}

/// What nearly every request says: a method by its number, and what is left of 10 s.
fn plain_request() -> Request<'static> {
    Request { method: 7, timeout_us: Some(9_999_980), ..Request::default() }
}

fn headers(c: &mut Criterion) {
    let mut group = c.benchmark_group("wire/header");
    let octets: [u8; HEADER_LEN] = header(70).emit();
    group.bench_function("parse", |b| b.iter(|| Header::parse(black_box(&octets))));
    group.bench_function("parse_and_validate", |b| {
        b.iter(|| {
            let header = Header::parse(black_box(&octets))?;
            header.check_len(MAX_BODY)?;
            header.validate().map(|()| header)
        });
    });
    group.bench_function("emit", |b| b.iter(|| black_box(header(70)).emit()));
    group.finish();
}

fn varints(c: &mut Criterion) {
    let mut group = c.benchmark_group("wire/varint");
    for value in [7, 9_999_980, u64::MAX] {
        let mut out = Vec::new();
        varint::put(value, &mut out);
        let octets = out.clone();
        group.bench_function(format!("take_{}_octets", octets.len()), |b| {
            b.iter(|| varint::take(&mut black_box(octets.as_slice())));
        });
        group.bench_function(format!("put_{}_octets", octets.len()), |b| {
            b.iter(|| {
                out.clear();
                varint::put(black_box(value), &mut out);
                out.len()
            });
        });
    }
    group.finish();
}

/// An envelope both ways. `emit` writes into a buffer that has the room.
macro_rules! envelope {
    ($group:expr, $name:literal, $kind:ident, $value:expr) => {{
        let mut out = Vec::new();
        $value.emit(&mut out);
        let octets = out.clone();
        $group.throughput(Throughput::Bytes(octets.len() as u64));
        $group.bench_function(concat!($name, "/parse"), |b| {
            b.iter(|| $kind::parse(black_box(&octets)).is_ok());
        });
        $group.bench_function(concat!($name, "/emit"), |b| {
            b.iter(|| {
                out.clear();
                black_box(&$value).emit(&mut out);
                out.len()
            });
        });
    }};
}

fn envelopes(c: &mut Criterion) {
    let mut group = c.benchmark_group("wire/envelope");
    let metadata = [
        Metadata { key: "tenant", value: b"blue" },
        Metadata { key: "request-id", value: b"0123456789abcdef" },
    ];
    let labels = [Label { key: "zone", value: "eu-1" }, Label { key: "version", value: "1.2.3" }];

    let plain = plain_request();
    envelope!(group, "request", Request, plain);
    let full = Request {
        ordering_key: b"room-17",
        metadata: Repeated::from(&metadata[..]),
        codec: 1,
        trace: &[1; 26],
        ..plain
    };
    envelope!(group, "request_with_metadata", Request, full);

    let plain = Response::default();
    envelope!(group, "response", Response, plain);
    let error = Response {
        message: "the room is full",
        retry_after_ms: 250,
        metadata: Repeated::from(&metadata[..]),
        code: 17,
        ..plain
    };
    envelope!(group, "response_with_error", Response, error);

    let features = [1, 1007];
    let check_in = CheckIn {
        identifier: "node-1",
        heartbeat_interval_ms: 10_000,
        instance: 1_767_225_600_000 << 22,
        features: Repeated::from(&features[..]),
        max_concurrent: 4096,
        credential: b"0123456789abcdef",
        labels: Repeated::from(&labels[..]),
        ..CheckIn::default()
    };
    envelope!(group, "check_in", CheckIn, check_in);
    group.finish();
}

fn frames(c: &mut Criterion) {
    let mut group = c.benchmark_group("wire/frame");
    let payload = [7; 64];
    let frame = Frame { header: header(0), envelope: Envelope::Request(plain_request()), payload: &payload };
    let mut octets = Vec::new();
    frame.emit(&mut octets).expect("the payload is short");
    group.throughput(Throughput::Elements(1));
    let body = octets.get(HEADER_LEN..).unwrap_or_default();
    group.bench_function("split_body", |b| b.iter(|| Parts::split(black_box(body))));
    group.bench_function("parse", |b| b.iter(|| Frame::parse(black_box(&octets), MAX_BODY).is_ok()));
    let mut out = Vec::new();
    group.bench_function("emit", |b| {
        b.iter(|| {
            out.clear();
            black_box(&frame).emit(&mut out).is_ok()
        });
    });
    group.finish();
}

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    headers(&mut criterion);
    varints(&mut criterion);
    envelopes(&mut criterion);
    frames(&mut criterion);
    criterion.final_summary();
}
