//! The seeds of the corpora: the golden vectors, cut to what each target reads, and short scripts by hand.

mod talks;

use tieline_core::wire::{FrameType, HEADER_LEN, Parts};

use super::{
    targets::{
        hostile::{MORE, step as hostile},
        operations::{SERVER, step as operations},
        pair::step as pair,
    },
    vector_files::{FrameFile, VarintFile, frame_files, read},
};

/// A seed: its target, its name and its octets.
pub(crate) type Seed = (&'static str, String, Vec<u8>);

pub(crate) fn all() -> Vec<Seed> {
    let mut seeds = Vec::new();
    for file in frame_files() {
        for vector in read::<FrameFile>(&file).vectors {
            from_frame(&vector.id, &vector.hex.0, &mut seeds);
        }
    }
    for vector in read::<VarintFile>("varint.json").vectors {
        seeds.push(("number", vector.id, vector.hex.0));
    }
    for kind in 0..8 {
        let script = [1, 0, hostile::HELLO, 0, 0, hostile::TAKES, hostile::FLOOD, 255, kind, hostile::TAKES];
        seeds.push(("client", format!("flood-{kind}"), script.to_vec()));
        seeds.push(("server", format!("flood-{kind}"), script.to_vec()));
    }
    for script in 0..=31 {
        seeds.push(("operations", format!("script-{script}"), an_operation(script)));
        seeds.push(("pair", format!("script-{script}"), a_pair(script)));
        seeds.push(("client", format!("script-{script}"), a_stranger(script)));
        seeds.push(("server", format!("script-{script}"), a_stranger(script)));
        seeds.push(("client", format!("calls-{script}"), a_caller(script)));
        seeds.push(("server", format!("calls-{script}"), a_caller(script)));
    }
    for script in 0..48 {
        seeds.push(("operations", format!("streams-{script}"), talks::an_operation(script)));
        seeds.push(("pair", format!("streams-{script}"), talks::a_pair(script)));
        seeds.push(("client", format!("streams-{script}"), talks::a_stranger(script)));
        seeds.push(("server", format!("streams-{script}"), talks::a_stranger(script)));
    }
    blocks(&mut seeds);
    seeds
}

/// Blocks, good and bad: how a call is cut, and the payload.
fn blocks(seeds: &mut Vec<Seed>) {
    let unfolds =
        [&[0x80, 0x08, 0x00, 0x61][..], &[0xFE, 0x01, 0x00].repeat(15), &[0xFA, 0x01, 0x00]].concat();
    let bomb = [&[0xFF, 0xFF, 0xFF, 0xFF, 0x0F][..], &[0xFE, 0x01, 0x00].repeat(100)].concat();
    let large = [&[0x81, 0x20, 0x00, 0x61][..], &[0xFE, 0x01, 0x00].repeat(64)].concat();
    let exact = [&[0x80, 0x20, 0x00, 0x61][..], &[0xFE, 0x01, 0x00].repeat(63), &[0xFA, 0x01, 0x00]].concat();
    let far = [4, 0, b'a', 0x09, 0x02];
    let long_literal = [&[100, 60 << 2, 99][..], &[7; 100]].concat();
    let four = [5, 0, b'a', 3 << 2 | 3, 1, 0, 0, 0];
    let all: [&[u8]; 10] =
        [b"", &[0], &unfolds, &bomb, &large, &exact, &far, &long_literal, &four, &unfolds[..20]];
    for (number, block) in all.iter().enumerate() {
        for cut in [0, 1, 7] {
            seeds.push(("snappy", format!("block-{number}-{cut}"), [&[cut][..], block].concat()));
        }
    }
}

fn from_frame(id: &str, octets: &[u8], seeds: &mut Vec<Seed>) {
    let mut seed = |target, octets: &[u8]| seeds.push((target, id.to_owned(), octets.to_vec()));
    seed("frame", octets);
    seed("header", &octets[..octets.len().min(HEADER_LEN)]);
    let script = [&[0, 3, hostile::HELLO, 0, 0][..], &raw(octets)].concat();
    seed("client", &script);
    seed("server", &script);
    let Some((head, body)) = octets.split_at_checked(HEADER_LEN) else { return };
    seed("body", body);
    let Ok(Parts { envelope, .. }) = Parts::split(body) else { return };
    let target = match FrameType(head[3]) {
        FrameType::CHECK_IN => "check_in",
        FrameType::CHECK_IN_ACK => "check_in_ack",
        FrameType::REQUEST | FrameType::ONE_WAY => "request",
        FrameType::RESPONSE => "response",
        FrameType::STREAM_ITEM => "item",
        FrameType::CREDIT => "credit",
        FrameType::DRAIN => "drain",
        FrameType::CLOSE => "close",
        FrameType::TABLE => "table",
        _ => return,
    };
    seed(target, envelope);
}

/// Octets as they are, in steps of a hostile script.
fn raw(octets: &[u8]) -> Vec<u8> {
    let step = |piece: &[u8]| {
        let len = u8::try_from(piece.len()).unwrap();
        [&[hostile::RAW | MORE, len][..], piece].concat()
    };
    octets.chunks(255).flat_map(step).collect()
}

/// Verbs of the application, with parameters.
const CALL: &[u8] = &[0, 8, 20, 50];
const ONE_WAY: &[u8] = &[1, 0, 20];
const CANCEL: &[u8] = &[2, 0];
const REPLY: &[u8] = &[3, 0, 0, 30];
const REFUSE: &[u8] = &[4, 0, 0x20];
const PANICKED: &[u8] = &[5, 0];
const STOPPED: &[u8] = &[6, 0];
const DRAIN: &[u8] = &[7, 0x81, 20];
const CLOSE: &[u8] = &[8, 0];
const PROBE: &[u8] = &[9];
const ACCEPT: &[u8] = &[10];
const LARGE_CALL: &[u8] = &[0, 0x80, 0xc0, 0];
const MIDDLE_CALL: &[u8] = &[0, 0x80, 3, 0xe8];
const CALLBACK: &[u8] = &[0, 0x40, 20];
const SMALL_CALL: &[u8] = &[14];
const ECHO: &[u8] = &[15, 0];

/// What follows after check-in in the scripts, by the client (or its server, with [`SERVER`]).
const PLOTS: [&[(u8, &[u8])]; 8] = [
    &[(0, CALL), (SERVER, REPLY), (0, SMALL_CALL), (SERVER, ECHO)],
    &[(0, ONE_WAY), (0, ONE_WAY), (SERVER, STOPPED), (SERVER, STOPPED)],
    &[(0, CALL), (0, CALL), (0, CANCEL), (SERVER, STOPPED), (SERVER, REPLY)],
    &[(SERVER, CALL), (0, REFUSE), (SERVER, CALL), (0, PANICKED)],
    &[(0, CALL), (SERVER, CALLBACK), (SERVER, DRAIN), (0, ECHO), (SERVER, REPLY)],
    &[(0, LARGE_CALL), (0, MIDDLE_CALL), (0, MIDDLE_CALL), (SERVER, ECHO), (0, PROBE), (SERVER, PROBE)],
    &[(0, SMALL_CALL), (0, SMALL_CALL), (0, SMALL_CALL), (0, SMALL_CALL), (SERVER, ECHO), (SERVER, ECHO)],
    &[(0, CALL), (SERVER, CLOSE), (0, CALL), (0, CLOSE)],
];

/// The configurations of both ends, by the number of the script.
fn ends(script: u8) -> [u8; 4] {
    [[0, 3, 0, 3], [1, 0, 1, 1], [0x10, 2, 0x16, 2], [0x0b, 1, 0x0a, 3]][usize::from(script / 8)]
}

fn verb(from: u8, who: u8, verb: &[u8]) -> Vec<u8> {
    [&[who | (from + verb[0])], &verb[1..]].concat()
}

fn an_operation(script: u8) -> Vec<u8> {
    let mut out = ends(script).to_vec();
    out.extend([operations::CARRY, SERVER | operations::CARRY]);
    out.extend(verb(operations::APPLICATION, SERVER, ACCEPT));
    out.push(SERVER | operations::CARRY);
    for (who, what) in PLOTS[usize::from(script % 8)] {
        out.extend(verb(operations::APPLICATION, *who, what));
        out.extend([operations::LATER, 0, 20, who | operations::CLOCK, who | operations::CARRY]);
    }
    out
}

fn a_pair(script: u8) -> Vec<u8> {
    const EACH: [u8; 12] =
        [pair::TURN, 0, 0, SERVER | pair::TURN, 0, 0, pair::LATER, 0, 5, pair::TURN, 0b0101_0001, 20];
    let mut out = ends(script).to_vec();
    out.extend(EACH);
    out.extend(verb(pair::APPLICATION, SERVER, ACCEPT));
    out.extend([SERVER | pair::TURN, 0, 0]);
    for (number, (who, what)) in (0..).zip(PLOTS[usize::from(script % 8)]) {
        out.extend(verb(pair::APPLICATION, *who, what));
        out.extend(EACH);
        match (script + number) % 12 {
            3 => out.extend([pair::STALL, 100]),
            7 => out.extend([SERVER | pair::STALL, 30]),
            11 => out.extend([pair::BREAK, 1, 9, 30]),
            _ => {}
        }
    }
    out
}

fn a_stranger(script: u8) -> Vec<u8> {
    let [choice, mark, ..] = ends(script);
    let mut out = vec![choice, mark, hostile::HELLO, 0, 0, hostile::APPLICATION + ACCEPT[0]];
    out.extend([hostile::CUT, script + 1]);
    for (who, what) in PLOTS[usize::from(script % 8)] {
        if *who == 0 {
            out.extend([hostile::CALL | MORE, 0, script * 7, script, hostile::CALL, 4, 3, 2]);
        }
        out.extend(verb(hostile::APPLICATION, 0, what));
        out.extend([hostile::ANSWER, 0, script % 3, 9, hostile::LATER, 0, 100, hostile::CLOCK]);
    }
    out.extend([hostile::FLOOD, 20, script]);
    out
}

/// A peer that only calls, at an application that only answers: where how output is drained must not be seen.
fn a_caller(script: u8) -> Vec<u8> {
    let [_, mark, ..] = ends(script);
    let mut out = vec![0x10, mark, hostile::HELLO, 0, 0, hostile::CUT, script + 1];
    for number in 0..4 {
        let one_way = if (script + number).is_multiple_of(3) { 16 } else { 0 };
        out.extend([
            hostile::CALL | MORE,
            0,
            script + number,
            1,
            hostile::CALL,
            one_way,
            60 * number,
            number,
        ]);
        match (script / 4 + number) % 8 {
            0 => out.extend([hostile::FRAME | MORE, FrameType::CANCEL.0, 0, 0, 0, number * 2 + 1, 0]),
            1 => out.extend([hostile::FLOOD | MORE, 5, 3]),
            2 => out.extend([hostile::LATER, 0, 200, hostile::CLOCK]),
            3 => out.extend([hostile::CALL | MORE, 8, 10, 1]),
            4 => out.extend([hostile::LARGE, FrameType::REQUEST.0, 0, 0, 1, number, 3, 0x60, 0, 2, 8, 1]),
            _ => {}
        }
    }
    out
}
