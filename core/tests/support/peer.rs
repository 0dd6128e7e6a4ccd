//! A peer that knows the protocol and keeps to it as much as it likes: frames that are valid, mutated, repeated,
//! inserted or random.

use tieline_core::{
    conn::Side,
    wire::{
        CheckIn, CheckInAck, Credit, Envelope, Flags, FrameType, Item, Kind, Method, Repeated, Request,
        Response, Status, varint,
    },
};

use super::{
    frames::{self, Seen},
    random::Random,
    tally::Tally,
};

/// A call that streams.
struct Line {
    id: u64,
    kind: Kind,
    /// What the peer may still send of items.
    credit: i64,
    /// It sends no more items.
    over: bool,
}

pub struct Peer {
    side: Side,
    next_id: u64,
    last_id: u64,
    /// How many frames are good for each ten or so that are not.
    pub good: usize,
    /// It gives up no call that streams or comes in fragments, and has no deadlines: what becomes of such a call would
    /// depend on what had been written.
    pub calm: bool,
    /// Its messages are small, whole and unary.
    pub plain: bool,
    pub snappy: bool,
    window: i64,
    /// Its own calls that stream.
    ours: Vec<Line>,
    /// REQUESTs that were read and not answered.
    due: Vec<Line>,
    /// Messages of which more is to be sent.
    unfinished: Vec<(u64, Vec<u8>)>,
    last: Vec<u8>,
}

/// The methods of the target: by number.
pub const KINDS: [Kind; 4] = [Kind::Unary, Kind::ServerStream, Kind::ClientStream, Kind::Bidi];

/// A Snappy block of one literal.
fn block(payload: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    varint::put(payload.len() as u64, &mut out);
    for piece in payload.chunks(60) {
        out.push((piece.len() as u8 - 1) << 2);
        out.extend_from_slice(piece);
    }
    out
}

impl Peer {
    pub fn new(side: Side) -> Self {
        Self {
            side,
            next_id: if side == Side::Client { 1 } else { 2 },
            last_id: 0,
            good: 60,
            calm: false,
            plain: false,
            snappy: false,
            window: 64 << 10,
            ours: Vec::new(),
            due: Vec::new(),
            unfinished: Vec::new(),
            last: Vec::new(),
        }
    }

    /// What the target sent.
    pub fn reads(&mut self, frames: &[Seen]) {
        for frame in frames {
            match frame.frame().envelope {
                Envelope::CheckIn(said) => self.window = i64::from(said.stream_window),
                Envelope::CheckInAck(said) => self.window = i64::from(said.stream_window),
                Envelope::Credit(said) => {
                    let lines = self.ours.iter_mut().chain(&mut self.due);
                    lines
                        .filter(|line| line.id == frame.id())
                        .for_each(|line| line.credit += i64::from(said.octets));
                }
                Envelope::Request(said) if frame.frame_type() == FrameType::REQUEST => {
                    let kind = Kind::from_wire(said.kind).unwrap();
                    let credit = i64::from(said.credit.unwrap_or(64 << 10));
                    let over = !matches!(kind, Kind::ServerStream | Kind::Bidi);
                    self.due.push(Line { id: frame.id(), kind, credit, over });
                }
                _ if frame.frame_type() == FrameType::RESPONSE => {
                    // Nothing more is sent of a call that is over.
                    self.ours.retain(|line| line.id != frame.id());
                    self.abandon(frame.id());
                }
                _ => {}
            }
        }
    }

    /// What is unfinished on `id` ends with its next frame.
    fn abandon(&mut self, id: u64) {
        let of_id = self.unfinished.iter_mut().filter(|(other, _)| *other == id);
        of_id.for_each(|(_, rest)| rest.clear());
    }

    fn is_unfinished(&self, id: u64) -> bool {
        self.unfinished.iter().any(|(other, _)| *other == id)
    }

    pub fn hello(&mut self, random: &mut Random) -> Vec<u8> {
        let max_concurrent = *random.pick(&[0, 1, 100]);
        let max_streams = max_concurrent.min(10);
        let features = [7, 1];
        self.snappy = cfg!(feature = "snappy") && random.once_in(2);
        let features = Repeated::from(&features[..if self.snappy { 2 } else { 1 }]);
        match self.side {
            Side::Client => frames::check_in(CheckIn {
                identifier: "peer",
                max_concurrent,
                max_streams,
                features,
                ..CheckIn::default()
            }),
            Side::Server => frames::ack(CheckInAck {
                identifier: "peer",
                max_concurrent,
                max_streams,
                features,
                ..CheckInAck::default()
            }),
        }
    }

    /// A message, or its first frame.
    fn message(
        &mut self,
        random: &mut Random,
        (frame_type, id, status): (FrameType, u64, Status),
        envelope: impl Fn(u64) -> Envelope<'static>,
        payload: &[u8],
    ) -> Vec<u8> {
        let packs = self.snappy && !self.plain && random.once_in(4);
        let payload = if packs { block(payload) } else { payload.to_vec() };
        let flags = if packs { Flags::COMPRESSED } else { Flags::NONE };
        let whole = payload.len() < 16_000 && (self.plain || !random.once_in(4));
        if payload.is_empty() || whole {
            return frames::flagged(frame_type, id, status, flags, envelope(0), &payload);
        }
        let part = random.below(payload.len().min(16_000));
        let total = payload.len() as u64;
        self.unfinished.push((id, payload[part..].to_vec()));
        let flags = Flags(flags.0 | Flags::MORE.0);
        frames::flagged(frame_type, id, status, flags, envelope(total), &payload[..part])
    }

    /// Goes on with a message, or abandons it.
    fn go_on(&mut self, random: &mut Random) -> Vec<u8> {
        let at = random.below(self.unfinished.len());
        let abandons = !self.calm && random.once_in(12);
        let (id, rest) = &mut self.unfinished[at];
        let (id, len) = (*id, if abandons { 0 } else { rest.len().min(1 + random.below(16_000)) });
        let piece: Vec<u8> = rest.drain(..len).collect();
        let more = len > 0 && !rest.is_empty();
        if !more {
            self.unfinished.swap_remove(at);
        }
        frames::continuation(id, more, &piece)
    }

    fn request(&mut self, random: &mut Random, kind: Kind, payload: &[u8]) -> Vec<u8> {
        let id = self.next_id;
        self.next_id += 2 * random.within(1..=3);
        let key: &[u8] = if random.once_in(5) { b"key" } else { b"" };
        let timeout_us = (!self.calm && random.once_in(3)).then_some(3_000_000);
        let credit = *random.pick(&[None, None, Some(0), Some(3_000)]);
        if kind != Kind::Unary {
            let over = kind == Kind::ServerStream;
            self.ours.push(Line { id, kind, credit: self.window, over });
        }
        let head = Request {
            method: 1 + kind.to_wire(),
            kind: kind.to_wire(),
            credit: credit.filter(|_| kind != Kind::Unary),
            ordering_key: key,
            priority: random.below(3) as i32 - 1,
            timeout_us,
            ..Request::default()
        };
        let head = if random.once_in(3) && !self.plain {
            head
        } else {
            Request { priority: 0, ordering_key: b"", ..head }
        };
        let before = self.unfinished.len();
        let frame = self.message(
            random,
            (FrameType::REQUEST, id, Status::OK),
            |total| Envelope::Request(Request { total, ..head }),
            payload,
        );
        let special = kind != Kind::Unary || self.unfinished.len() > before || !head.ordering_key.is_empty();
        if !self.calm || !special {
            self.last_id = id;
        }
        frame
    }

    /// An item of one of the calls that stream, if one may be sent.
    fn item(&mut self, random: &mut Random, ours: bool, payload: &[u8]) -> Option<Vec<u8>> {
        let unfinished: Vec<u64> = self.unfinished.iter().map(|(id, _)| *id).collect();
        let lines = if ours { &mut self.ours } else { &mut self.due };
        let may = |line: &Line| !line.over && line.credit > 0 && !unfinished.contains(&line.id);
        let ready: Vec<usize> = (0..lines.len()).filter(|at| may(&lines[*at])).collect();
        let at = *ready.get(random.below(ready.len().max(1)))?;
        let id = lines[at].id;
        let frame = self.message(
            random,
            (FrameType::STREAM_ITEM, id, Status::OK),
            |total| Envelope::Item(Item { total }),
            payload,
        );
        // A literal costs an octet for each sixty, and three for its length.
        let cost = (payload.len() + payload.len() / 60 + 4 + 256) as i64;
        let lines = if ours { &mut self.ours } else { &mut self.due };
        lines[at].credit -= cost;
        Some(frame)
    }

    fn response(&mut self, random: &mut Random, payload: &[u8]) -> Option<Vec<u8>> {
        let ready: Vec<usize> =
            (0..self.due.len()).filter(|at| !self.is_unfinished(self.due[*at].id)).collect();
        let at = *ready.get(random.below(ready.len().max(1)))?;
        let status = *random.pick(&[Status::OK, Status::OK, Status::ABORTED, Status::OVERLOADED]);
        let id = self.due.swap_remove(at).id;
        let envelope = |total| Envelope::Response(Response { total, ..Response::default() });
        Some(self.message(random, (FrameType::RESPONSE, id, status), envelope, payload))
    }

    fn stream_end(&mut self) -> Option<Vec<u8>> {
        let unfinished: Vec<u64> = self.unfinished.iter().map(|(id, _)| *id).collect();
        let line = self.ours.iter_mut().find(|line| !line.over && !unfinished.contains(&line.id))?;
        line.over = true;
        Some(frames::emit(FrameType::STREAM_END, line.id, Status::OK, Envelope::None, b""))
    }

    /// CREDIT for a direction that there is.
    fn credit(&self, random: &mut Random) -> Option<Vec<u8>> {
        let down = self.ours.iter().filter(|line| line.kind != Kind::ClientStream);
        let up = self.due.iter().filter(|line| matches!(line.kind, Kind::ClientStream | Kind::Bidi));
        let ids: Vec<u64> =
            down.chain(up).map(|line| line.id).filter(|id| !self.is_unfinished(*id)).collect();
        let id = *ids.get(random.below(ids.len().max(1)))?;
        let octets = *random.pick(&[256, 1_000, 20_000]);
        Some(frames::emit(FrameType::CREDIT, id, Status::OK, Envelope::Credit(Credit { octets }), b""))
    }

    /// A frame that a peer may send now.
    pub fn valid(&mut self, random: &mut Random) -> Vec<u8> {
        let len = *random.pick(&[0, 5, 100, 5_000, 40_000]);
        let len = if random.once_in(2) { len.min(100) } else { len };
        let payload = random.octets(if self.plain { len.min(5_000) } else { len });
        let frame = match random.below(20) {
            0..3 => Some(self.request(random, Kind::Unary, &payload)),
            3..6 if self.plain => Some(self.request(random, Kind::Unary, &payload)),
            3..6 => {
                let kind = *random.pick(&KINDS[1..]);
                Some(self.request(random, kind, &payload))
            }
            6 => {
                let id = self.next_id;
                self.next_id += 2;
                let head = Request { method: 1, ..Request::default() };
                let envelope = |total| Envelope::Request(Request { total, ..head });
                Some(self.message(random, (FrameType::ONE_WAY, id, Status::OK), envelope, &payload))
            }
            7 if self.last_id > 0 => {
                let id = self.last_id;
                self.ours.retain(|line| line.id != id);
                self.abandon(id);
                Some(frames::cancel(id))
            }
            8 | 9 => self.response(random, &payload),
            10 | 11 => self.item(random, true, &payload),
            12 => self.item(random, false, &payload),
            13 => self.stream_end(),
            14 => self.credit(random),
            15..18 if !self.unfinished.is_empty() => Some(self.go_on(random)),
            18 => Some(frames::table(&[Method { id: 1, name: "t.S/Echo", fingerprint: 0 }])),
            _ => None,
        };
        frame.unwrap_or_else(|| frames::heartbeat(random.next()))
    }

    /// Anything.
    pub fn any(&mut self, random: &mut Random, tally: &mut Tally) -> Vec<u8> {
        let mut frame = self.valid(random);
        match random.below(self.good) {
            0 => {
                tally.fault("mutated frame");
                let at = random.below(frame.len());
                frame[at] ^= 1 << random.below(8);
            }
            1 => {
                tally.fault("mutated body");
                for _ in 0..3 {
                    let at = random.below(frame.len());
                    if at >= 18 {
                        frame[at] = random.next() as u8;
                    }
                }
            }
            2 => {
                tally.fault("repeated frame");
                frame = self.last.clone();
            }
            3 => {
                tally.fault("random octets");
                let len = random.below(60);
                frame = random.octets(len);
            }
            4..8 => {
                tally.fault("inserted frame");
                let status = *random.pick(&[0, 0, 0x80, 0x8d, 0x21]);
                let flags = *random.pick(&[0, 0, 0, 1, 2, 3, 0x80]);
                let id = *random.pick(&[0, 1, 2, self.next_id, self.next_id.saturating_sub(2), 1 << 17]);
                let len = random.below(20);
                let body = if random.once_in(2) { vec![0; len.min(1)] } else { random.octets(len) };
                frame = frames::octets(random.below(17) as u8, flags, status, id, &body);
            }
            8 => {
                tally.fault("extension");
                frame = frames::octets(
                    0x80 + random.below(0x80) as u8,
                    random.next() as u8,
                    9,
                    random.next(),
                    &[1; 50],
                );
            }
            9 => {
                tally.fault("half a frame");
                frame.truncate(random.below(frame.len()));
            }
            _ => {}
        }
        self.last.clone_from(&frame);
        frame
    }
}
