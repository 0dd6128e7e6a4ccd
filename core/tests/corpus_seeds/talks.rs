//! Scripts about streams, keys, pieces and compression.

use super::{
    super::targets::{
        hostile::{MORE, step as hostile},
        operations::{SERVER, step as operations},
        pair::step as pair,
    },
    ECHO, verb,
};

/// Verbs of the application, with parameters.
const DOWN: &[u8] = &[16, 0, 0, 4];
const UP: &[u8] = &[16, 1, 0, 4];
const BOTH: &[u8] = &[16, 2, 0, 4];
const POOR: &[u8] = &[16, 0, 1, 4];
const UP_LARGE: &[u8] = &[16, 0x21, 16, 0x40, 0];
const KEYED: &[u8] = &[17, 0, 4, 20];
const PACKED: &[u8] = &[17, 0x10, 16, 100];
const HUGE: &[u8] = &[17, 0x34, 0, 0xC0, 0];
const LOUD: &[u8] = &[17, 0x30, 16, 0x80, 0];
const ITEM: &[u8] = &[18, 0, 0x11, 30];
const ITEMS: &[u8] = &[18, 0, 0xF2, 9];
const LARGE_ITEM: &[u8] = &[18, 0, 0x0F, 0x80, 0];
const BACK: &[u8] = &[19, 0, 0x11, 30];
const BACK_MANY: &[u8] = &[19, 0, 0xF2, 9];
const BACK_LARGE: &[u8] = &[19, 0, 0x0B, 0x90, 0];
const END: &[u8] = &[20, 0];
const TAKE: &[u8] = &[21, 0x80];
const TAKE_BACK: &[u8] = &[22, 0x80];
const ONE_BACK: &[u8] = &[22, 0];
const GRANT: &[u8] = &[23, 0, 2];
const GRANT_BACK: &[u8] = &[23, 0x80, 3];
const CANCEL: &[u8] = &[2, 0];

/// What follows after check-in, by the client (or its server, with [`SERVER`]).
const PLOTS: [&[(u8, &[u8])]; 12] = [
    &[(0, DOWN), (SERVER, BACK), (0, TAKE), (SERVER, BACK_MANY), (0, TAKE), (SERVER, ECHO)],
    &[(0, UP), (0, ITEM), (0, ITEMS), (SERVER, TAKE_BACK), (0, END), (SERVER, TAKE_BACK), (SERVER, ECHO)],
    &[(0, BOTH), (0, ITEM), (SERVER, BACK), (SERVER, ONE_BACK), (0, TAKE), (0, END), (SERVER, ECHO)],
    &[(0, POOR), (SERVER, BACK), (0, GRANT), (0, TAKE), (SERVER, BACK_MANY), (SERVER, ECHO), (0, GRANT)],
    &[(0, KEYED), (0, KEYED), (0, KEYED), (SERVER, ECHO), (0, CANCEL), (SERVER, ECHO)],
    &[(0, HUGE), (0, KEYED), (SERVER, HUGE), (SERVER, ECHO), (0, ECHO), (SERVER, ECHO)],
    &[(0, HUGE), (0, CANCEL), (0, UP_LARGE), (0, LARGE_ITEM), (0, CANCEL), (SERVER, ECHO)],
    &[(0, UP), (0, LARGE_ITEM), (0, LARGE_ITEM), (SERVER, ONE_BACK), (SERVER, GRANT_BACK), (0, END)],
    &[(0, DOWN), (SERVER, BACK_LARGE), (SERVER, BACK_LARGE), (0, TAKE), (0, CANCEL), (SERVER, ECHO)],
    &[(0, PACKED), (0, LOUD), (SERVER, ECHO), (SERVER, ECHO), (0, BOTH), (0, ITEMS), (SERVER, BACK_MANY)],
    &[(SERVER, UP), (SERVER, ITEMS), (0, TAKE_BACK), (SERVER, END), (0, TAKE_BACK), (0, ECHO)],
    &[(0, BOTH), (0, ITEMS), (0, ITEMS), (0, END), (0, CANCEL), (SERVER, BACK), (SERVER, ECHO)],
];

/// The configurations of both ends, by the number of the script.
fn ends(script: u8) -> [u8; 4] {
    [[0, 3, 0, 3], [0x20, 2, 0xA0, 2], [0xC0, 1, 0xE0, 3], [1, 0, 0x41, 1]][usize::from(script / 12 % 4)]
}

fn plot(script: u8) -> &'static [(u8, &'static [u8])] {
    PLOTS[usize::from(script % 12)]
}

pub(super) fn an_operation(script: u8) -> Vec<u8> {
    let mut out = ends(script).to_vec();
    out.extend([operations::CARRY, SERVER | operations::CARRY]);
    for (who, what) in plot(script) {
        out.extend(verb(operations::APPLICATION, *who, what));
        // Some of what waits is still on its way.
        match script % 5 {
            0 => out.push(who | operations::CARRY),
            1 => out.extend([who | operations::TRANSMIT, who | operations::WRITE, 90]),
            2 => out.extend([
                who | operations::TRANSMIT,
                who | operations::WRITE,
                250,
                operations::LATER,
                0,
                9,
            ]),
            _ => out.extend([who | operations::CARRY, operations::CARRY, SERVER | operations::CARRY]),
        }
    }
    out
}

pub(super) fn a_pair(script: u8) -> Vec<u8> {
    const EACH: [u8; 9] = [pair::TURN, 0, 0, SERVER | pair::TURN, 0, 0, pair::LATER, 0, 5];
    const FEW: [u8; 6] = [pair::TURN, 0b0101_0001, 200, SERVER | pair::TURN, 0b0101_0001, 90];
    let mut out = ends(script).to_vec();
    out.extend(EACH);
    out.extend(EACH);
    for (number, (who, what)) in (0..).zip(plot(script)) {
        out.extend(verb(pair::APPLICATION, *who, what));
        if script.is_multiple_of(3) {
            out.extend(FEW);
        } else {
            out.extend(EACH);
        }
        match (script + number) % 16 {
            3 => out.extend([pair::STALL, 100]),
            7 => out.extend([SERVER | pair::STALL, 30]),
            11 => out.extend([pair::BREAK, 1, 90, 30]),
            _ => {}
        }
    }
    out
}

/// A peer that streams, in pieces and with what is wrong about them, opposite an application that does the same.
pub(super) fn a_stranger(script: u8) -> Vec<u8> {
    let [choice, mark, ..] = ends(script);
    // Snappy, streams, and a window or an item of its own.
    let terms = 4 | 8 | (script % 4) << 4;
    let mut out = vec![choice, mark, hostile::HELLO, terms, 0, hostile::CUT, script * 5 + 1];
    let kind = script % 4;
    out.extend([hostile::OPEN, kind | (script & 0x1C), 9, 1, hostile::OPEN | MORE, 3, 0, 5]);
    for number in 0..6u8 {
        let what = (script + number) % 8;
        out.extend([hostile::STREAM, what | number << 3, number, 200]);
        // A message of one of four sorts, whole, abandoned, endless or lying.
        let how = ((script % 24) * 7 + number * 11) & 0x3F;
        let sort = ((number + script) % 4) | if number % 2 == 0 { 8 } else { 0 };
        out.extend([hostile::PIECES, sort, how, script << 5, 4, 0, 1, 0, number + 1]);
        out.extend([hostile::STREAM | MORE, 3, 0, hostile::STREAM, 4, 1]);
    }
    for (who, what) in plot(script) {
        if *who == 0 {
            out.extend(verb(hostile::APPLICATION, 0, what));
        }
        out.extend([hostile::STREAM, 2, 0, script, hostile::LATER, 0, 40, hostile::CLOCK]);
    }
    out.extend([hostile::ANSWER, 0, script % 3, 9, hostile::LATER, 0x1F, 0xFF, hostile::CLOCK]);
    out
}
