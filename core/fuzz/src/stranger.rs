//! A peer that says what the input has it say: good calls, answers, streams and pieces, and anything else.

use std::collections::VecDeque;

use tieline_core::{
    conn::Side,
    wire::{Credit, Envelope, Flags, FrameType, Item, Request, Response, Status, snappy, varint},
};

use super::{
    frames::{self, Seen, Terms},
    hostile::step,
    input::Input,
    streams,
};

/// What it knows of the line.
pub struct Stranger {
    /// It is the client.
    client: bool,
    next_id: u64,
    /// REQUESTs that it has read and not answered.
    due: Vec<u64>,
    /// Calls that stream: its own, and those that it has read.
    streams: Vec<u64>,
    /// Frames that were made and not sent.
    held: VecDeque<Vec<u8>>,
}

impl Stranger {
    /// Opposite a connection of this side.
    pub fn new(side: Side) -> Self {
        Self {
            client: side == Side::Server,
            next_id: if side == Side::Client { 2 } else { 1 },
            due: Vec::new(),
            streams: Vec::new(),
            held: VecDeque::new(),
        }
    }

    /// The connection has written this.
    pub fn read(&mut self, seen: &Seen) {
        if seen.header.frame_type == FrameType::REQUEST {
            self.due.push(seen.header.id);
            if let Envelope::Request(said) = seen.frame().envelope
                && said.kind != 0
            {
                self.streams.push(seen.header.id);
            }
        }
    }

    fn new_id(&mut self) -> u64 {
        let id = self.next_id;
        self.next_id += 2;
        id
    }

    /// Makes octets.
    pub fn compose(&mut self, choice: u8, input: &mut Input<'_>, out: &mut Vec<u8>) {
        let octets = match choice {
            step::HELLO => {
                let (choice, message) = (input.octet(), input.pick([0, 1_024, 65_536]));
                let concurrent = [100, 1, 0, 3][usize::from(choice % 4)];
                let has = |bit: u8, number| if choice & bit == 0 { 0 } else { number };
                let terms = Terms {
                    concurrent,
                    message,
                    streams: has(8, 100),
                    window: has(16, 600),
                    item: has(32, 300),
                    snappy: choice & 4 != 0,
                };
                frames::hello(self.client, terms)
            }
            step::RAW => {
                let len = input.small();
                input.take(len).to_vec()
            }
            step::FRAME => {
                let [frame_type, flags, status] = [input.octet(), input.octet(), input.octet()];
                let (id, len) = (input.number(), input.small());
                frames::octets(frame_type, flags, status, id.into(), input.take(len))
            }
            step::LARGE => {
                let [frame_type, flags, status] = [input.octet(), input.octet(), input.octet()];
                let (id, front, len) = (input.number(), input.small(), usize::from(input.number()));
                let mut body = input.take(front % 32).to_vec();
                body.resize(len.max(body.len()), 0);
                frames::octets(frame_type, flags, status, id.into(), &body)
            }
            step::FLOOD => self.flood(input),
            step::CALL => {
                let (head, len, fill) = (input.octet(), input.small(), input.octet());
                let timeout = [None, Some(0), Some(50_000), Some(u64::MAX)][usize::from(head >> 2 & 3)];
                let frame_type = if head & 16 == 0 { FrameType::REQUEST } else { FrameType::ONE_WAY };
                let id = self.new_id();
                frames::call(frame_type, id, (head & 3) as u32 ^ 1, timeout, &vec![fill; len])
            }
            step::ANSWER => {
                let (which, status, len) = (input.small(), Status(input.octet()), input.small());
                let Some(id) = self.take_due(which) else { return };
                frames::response(id, status, &vec![1; len])
            }
            step::OPEN => self.open(input),
            step::PIECES => return self.pieces(input, out),
            step::STREAM => self.stream(input),
            _ => return,
        };
        out.extend(octets);
    }

    fn take_due(&mut self, which: usize) -> Option<u64> {
        (!self.due.is_empty()).then(|| self.due.swap_remove(which % self.due.len()))
    }

    fn flood(&mut self, input: &mut Input<'_>) -> Vec<u8> {
        let (count, what) = (input.small(), input.octet());
        let mut octets = Vec::new();
        for number in 0..count {
            let (frame_type, body): (_, &[u8]) = match what % 8 {
                0 => (FrameType::REQUEST, &[2, 8, 1]),
                1 => (FrameType::ONE_WAY, &[2, 8, 1]),
                2 => (FrameType::CANCEL, b""),
                3 => (FrameType::HEARTBEAT, b""),
                4 => (FrameType::CONTINUATION, b""),
                5 => (FrameType(0x80), &[0; 100]),
                // A call, and its end at once.
                6 if number % 2 == 0 => (FrameType::REQUEST, &[2, 8, 1]),
                6 => (FrameType::CANCEL, b""),
                // A call of which more would come.
                _ => (FrameType::REQUEST, &[4, 8, 1, 120, 9]),
            };
            let begins = matches!(frame_type, FrameType::REQUEST | FrameType::ONE_WAY);
            let id = if begins { self.next_id } else { self.next_id.saturating_sub(2) };
            self.next_id = id + 2;
            let flags = u8::from(what % 8 == 7);
            octets.extend(frames::octets(frame_type.0, flags, 0, id, body));
        }
        octets
    }

    /// A call that streams, by name; or, for once, a unary one with a key.
    fn open(&mut self, input: &mut Input<'_>) -> Vec<u8> {
        let (choice, len, fill) = (input.octet(), input.small(), input.octet());
        let id = self.new_id();
        let names = ["t.S/Echo", "t.S/Down", "t.S/Up", "t.S/Both"];
        // One bit of lying about the kind.
        let kind = u32::from(choice & 3) ^ u32::from(choice >> 7);
        let head = Request {
            method_name: names[usize::from(choice & 3)],
            kind,
            credit: [None, Some(0), Some(300), Some(u32::MAX)][usize::from(choice >> 2 & 3)],
            ordering_key: if choice & 16 == 0 { b"" } else { b"k" },
            timeout_us: (choice & 32 != 0).then_some(50_000),
            priority: if choice & 64 == 0 { 0 } else { 1 },
            ..Request::default()
        };
        if kind != 0 {
            self.streams.push(id);
        }
        let mut payload = vec![fill; len + 6];
        payload[..2].fill(0);
        payload[2..6].copy_from_slice(&u32::try_from(id).unwrap_or(u32::MAX).to_be_bytes());
        frames::emit(FrameType::REQUEST, id, Status::OK, Envelope::Request(head), &payload)
    }

    /// The id of a stream; a few octets say which.
    fn which(&self, which: u8) -> u64 {
        let at = usize::from(which) % self.streams.len().max(1);
        self.streams.get(at).copied().unwrap_or(u64::from(which).max(1))
    }

    fn stream(&mut self, input: &mut Input<'_>) -> Vec<u8> {
        let (what, which) = (input.octet(), input.octet());
        let id = self.which(which);
        let (item, ok) = (Envelope::Item(Item::default()), Status::OK);
        match what % 8 {
            0 => frames::emit(FrameType::STREAM_ITEM, id, ok, item, &vec![what; input.small()]),
            1 => frames::emit(FrameType::STREAM_END, id, ok, Envelope::None, b""),
            2 => {
                let octets = input.pick([256, 1_000, 0, 1, u32::MAX, 1 << 31, 100_000]);
                frames::emit(FrameType::CREDIT, id, ok, Envelope::Credit(Credit { octets }), b"")
            }
            3 => self.held.pop_front().unwrap_or_default(),
            4 => {
                let count = self.held.len();
                self.held.rotate_left(usize::from(which) % count.max(1));
                self.held.pop_front().unwrap_or_default()
            }
            // Several small ones in a row.
            5 => {
                let one = frames::emit(FrameType::STREAM_ITEM, id, ok, item, &vec![what; input.small()]);
                one.repeat(usize::from(what >> 3))
            }
            6 => frames::octets(FrameType::CANCEL.0, 0, 1 + (which & 1) * 3, id, b""),
            _ => {
                let block = Self::block(what >> 3, &vec![which; input.small()]);
                let mut octets = frames::emit(FrameType::STREAM_ITEM, id, ok, item, &block);
                octets[4] |= Flags::COMPRESSED.0;
                octets
            }
        }
    }

    /// A payload as a Snappy block, or as none.
    fn block(how: u8, plain: &[u8]) -> Vec<u8> {
        let good = || snappy::Encoder::default().compress(plain).unwrap_or_else(|| frames::literals(plain));
        match how % 8 {
            0..=2 => good(),
            3 => frames::literals(plain),
            4 => Vec::new(),
            5 => {
                let mut block = good();
                block.pop();
                block
            }
            6 => [good(), vec![0]].concat(),
            // A length that is a lie.
            _ => {
                let mut block = Vec::new();
                varint::put(plain.len() as u64 * 300_000, &mut block);
                block.extend_from_slice(plain);
                block
            }
        }
    }

    /// A message in pieces: some are sent, the rest is held back.
    fn pieces(&mut self, input: &mut Input<'_>, out: &mut Vec<u8>) {
        let (what, how, which) = (input.octet(), input.octet(), input.octet());
        let (len, piece, sent) = (usize::from(input.number()), usize::from(input.number()), input.small());
        let plain = streams::octets(len, what, what & 4 != 0);
        let compressed = what & 8 != 0;
        let payload = if compressed { Self::block(which >> 5, &plain) } else { plain };
        let lie = [0, 0, 0, 0, 1, -1, 1 << 40, -1_000][usize::from(how & 7)];
        let total = (payload.len() as u64).saturating_add_signed(lie);
        let head = Request {
            method: u32::from(what >> 4 & 3) + 1,
            ordering_key: if what & 0x40 == 0 { b"" } else { b"k" },
            total,
            ..Request::default()
        };
        let (frame_type, id, envelope) = match what & 3 {
            0 => (FrameType::REQUEST, self.new_id(), Envelope::Request(head)),
            1 => (FrameType::ONE_WAY, self.new_id(), Envelope::Request(head)),
            2 => {
                let Some(id) = self.take_due(which.into()) else { return };
                (FrameType::RESPONSE, id, Envelope::Response(Response { total, ..Response::default() }))
            }
            _ => (FrameType::STREAM_ITEM, self.which(which), Envelope::Item(Item { total })),
        };
        // At most fifty pieces, for the sake of time.
        let piece = piece.max(payload.len() / 50).max(1);
        let mut parts: Vec<&[u8]> = payload.chunks(piece).collect();
        if how & 8 != 0 || parts.is_empty() {
            parts.insert(0, b"");
        }
        let end = how >> 4 & 3;
        let last = parts.len() - 1;
        let mut frames: VecDeque<Vec<u8>> = VecDeque::new();
        for (number, part) in parts.iter().enumerate() {
            // An end that never comes, or comes without a word.
            let more = number < last || end != 0;
            let mut octets = if number == 0 {
                let mut first = frames::emit(frame_type, id, Status::OK, envelope, part);
                first[4] |= if compressed { Flags::COMPRESSED.0 } else { 0 };
                first
            } else {
                frames::octets(FrameType::CONTINUATION.0, 0, 0, id, part)
            };
            octets[4] |= if more { Flags::MORE.0 } else { 0 };
            frames.push_back(octets);
        }
        match end {
            2 => frames.push_back(frames::octets(FrameType::CONTINUATION.0, 0, 0, id, b"")),
            3 => frames.push_back(frames::octets(FrameType::CONTINUATION.0, Flags::MORE.0, 0, id, b"")),
            _ => {}
        }
        for _ in 0..sent {
            out.extend(frames.pop_front().unwrap_or_default());
        }
        self.held.extend(frames);
    }
}
