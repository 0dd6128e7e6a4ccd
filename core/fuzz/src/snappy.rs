//! Snappy blocks. What is folded unfolds; what unfolds does so for a second reader, too; and a connection judges what a
//! block declares before any work on it: a bomb gets an answer, and no memory.

use tieline_core::{
    Instant,
    conn::{Config, Connection, Event, Limits, MethodSpec, Outbox, Side},
    wire::{Envelope, Flags, FrameType, Request, Status, snappy, varint},
};

use super::{
    frames::{self, Terms},
    heap,
    node::START,
};

/// What the connection reads: small, so that bombs show.
const MAX_MESSAGE: u32 = 4_096;
/// What a connection asks for at once, whatever it is given: its read buffer and one for the message.
const MOST: usize = 140_000;

/// The plain octets of a block of at most `most`, by the description of the format and nothing else; `None` if it is
/// not one.
fn unfold(block: &[u8], most: usize) -> Option<Vec<u8>> {
    let mut rest = block;
    let declared = usize::try_from(varint::take(&mut rest).ok()?).ok()?;
    if block.len() - rest.len() > 5 || declared > most {
        return None;
    }
    let mut plain: Vec<u8> = Vec::new();
    while let Some((&tag, after)) = rest.split_first() {
        rest = after;
        let (low, high) = (tag & 3, usize::from(tag >> 2));
        if low == 0 {
            let extra = high.saturating_sub(59);
            let len = if extra == 0 { high } else { little(&mut rest, extra)? } + 1;
            let (literal, after) = rest.split_at_checked(len)?;
            plain.extend_from_slice(literal);
            rest = after;
        } else {
            let (len, offset) = match low {
                1 => ((high & 7) + 4, (high >> 3) << 8 | little(&mut rest, 1)?),
                2 => (high + 1, little(&mut rest, 2)?),
                _ => (high + 1, little(&mut rest, 4)?),
            };
            let from = plain.len().checked_sub(offset).filter(|_| offset > 0)?;
            // One by one: a copy may reach into itself.
            (from..from + len).for_each(|at| plain.push(plain[at]));
        }
        if plain.len() > declared {
            return None;
        }
    }
    (plain.len() == declared).then_some(plain)
}

fn little(rest: &mut &[u8], octets: usize) -> Option<usize> {
    let (number, after) = rest.split_at_checked(octets)?;
    *rest = after;
    Some(number.iter().rev().fold(0, |number, octet| number << 8 | usize::from(*octet)))
}

/// What the block says that it unfolds to.
fn declared(block: &[u8]) -> Option<usize> {
    let mut rest = block;
    let plain = varint::take(&mut rest).ok().and_then(|plain| u32::try_from(plain).ok())?;
    (block.len() - rest.len() <= 5).then_some(plain as usize)
}

/// One octet says how the rest is cut; the rest is a payload, plain and as a block.
pub fn snappy(octets: &[u8]) -> u64 {
    let Some((choice, octets)) = octets.split_first() else { return 0 };
    let Some(packed) = snappy::Encoder::default().compress(octets) else {
        assert_eq!(snappy::decompress(octets, 1), Err(snappy::BadBlock), "without the feature there is none");
        return told(*choice, octets);
    };
    assert!(octets.len() <= snappy::most(packed.len()), "a block within what blocks can unfold to");
    assert_eq!(snappy::decompress(&packed, octets.len()).as_deref(), Ok(octets), "what is folded unfolds");
    assert_eq!(unfold(&packed, octets.len()).as_deref(), Some(octets), "for the second reader, too");
    assert!(snappy::decompress(&packed, octets.len() + 1).is_err(), "to nothing else");
    assert_eq!(declared(&packed), Some(octets.len()));

    // As a block: whoever has judged what it declares may unfold it.
    let most = snappy::most(octets.len()).min(1 << 20);
    if let Some(plain) = declared(octets).filter(|plain| *plain <= most) {
        let (read, largest) = heap::largest(|| snappy::decompress(octets, plain));
        assert!(largest <= plain.max(64), "{largest} octets for {plain}");
        assert_eq!(read.ok(), unfold(octets, most), "two readers of one block");
    }
    told(*choice, octets) ^ told(*choice, &packed)
}

/// What a connection makes of a call with this payload, compressed. Returns how it was answered.
fn told(choice: u8, block: &[u8]) -> u64 {
    let limits = limits();
    let config = Config::builder("server").limits(limits).method(MethodSpec::unary("t.S/Echo")).build();
    let now = Instant::from_nanos(START);
    let mut conn: Connection<()> =
        Connection::new(config.expect("a good configuration"), Side::Server, 1, now);
    let terms = Terms { concurrent: 1, message: 0, streams: 0, window: 0, item: 0, snappy: true };
    let mut taken = Taken::default();
    taken.give(&mut conn, now, &frames::hello(true, terms));
    let (outcome, largest) = heap::largest(|| {
        for frame in call(choice, block) {
            taken.give(&mut conn, now, &frame);
        }
        taken
    });
    let outcome = outcome.outcome;
    let granted = snappy::Encoder::default().compress(b"").is_some();
    assert!(largest <= MOST + 4 * block.len(), "L8: {largest} octets at once for a block of {}", block.len());
    let most = MAX_MESSAGE as usize;
    match outcome {
        Outcome::Ran(plain) => {
            assert_eq!(Some(plain), unfold(block, most), "a handler gets what was sent");
            1
        }
        Outcome::Refused(status) => {
            assert!(granted, "a frame that nobody may send");
            let large = block.len() > most || declared(block).is_some_and(|plain| plain > most);
            let bad = unfold(block, usize::MAX >> 16).is_none();
            match status {
                Status::TOO_LARGE => assert!(large, "refused as too large, and is not"),
                Status::BAD_COMPRESSION => assert!(bad, "refused as no block, and is one"),
                other => panic!("refused with {other}"),
            }
            status.0.into()
        }
        Outcome::None => {
            assert!(!granted, "a call without an answer");
            0
        }
    }
}

fn limits() -> Limits {
    let mut limits = Limits::default();
    limits.max_message = MAX_MESSAGE;
    limits.memory = 2 * MAX_MESSAGE as usize;
    limits
}

/// The frames of a call, cut as `choice` says.
fn call(choice: u8, block: &[u8]) -> Vec<Vec<u8>> {
    let piece = match choice {
        0 => block.len(),
        choice => usize::from(choice).max(block.len() / 40),
    };
    let pieces: Vec<&[u8]> = block.chunks(piece.max(1)).collect();
    let more = pieces.len() > 1;
    let total = if more { block.len() as u64 } else { 0 };
    let head = Request { method: 1, total, ..Request::default() };
    let first = pieces.first().copied().unwrap_or_default();
    let mut first = frames::emit(FrameType::REQUEST, 1, Status::OK, Envelope::Request(head), first);
    first[4] = Flags::COMPRESSED.0 | if more { Flags::MORE.0 } else { 0 };
    let mut frames = vec![first];
    for (number, piece) in pieces.iter().enumerate().skip(1) {
        let flags = if number + 1 < pieces.len() { Flags::MORE.0 } else { 0 };
        frames.push(frames::octets(FrameType::CONTINUATION.0, flags, 0, 1, piece));
    }
    frames
}

#[derive(Default)]
enum Outcome {
    #[default]
    None,
    Ran(Vec<u8>),
    Refused(Status),
}

/// What has come of a connection so far.
#[derive(Default)]
struct Taken {
    outcome: Outcome,
}

impl Taken {
    fn give(&mut self, conn: &mut Connection<()>, now: Instant, octets: &[u8]) {
        let mut rest = octets;
        while !rest.is_empty() {
            let mut buffer = conn.lend();
            let (piece, later) = rest.split_at(rest.len().min(buffer.capacity().max(1)));
            buffer.extend_from_slice(piece);
            conn.handle_input(now, buffer);
            rest = later;
        }
        while let Some(event) = conn.poll_event(now) {
            if let Event::Request(incoming) = event {
                self.outcome = Outcome::Ran(incoming.payload.to_vec());
            }
        }
        let mut outbox = Outbox::new();
        conn.poll_transmit(now, &mut outbox);
        let mut written = outbox.chunks().flatten().copied().collect();
        for seen in frames::take_frames(&mut written).0 {
            if seen.header.frame_type == FrameType::RESPONSE {
                self.outcome = Outcome::Refused(seen.header.status);
            }
        }
    }
}
