//! Streams, as the application of a node has to do with them: what it sent and took, what it was told, and the verbs.

use bytes::Bytes;
use tieline_core::{
    Instant,
    conn::{Body, CallHead, CallId, End as Over, ItemError, Served, Stream, Taken},
    wire::{Kind, Ran, Status},
};

use super::{
    input::Input,
    node::{Call, MS, Node, STREAMS},
    watch::CALLBACK,
};

/// One end of a call that streams.
#[derive(Debug, Default)]
pub struct Talk {
    /// Items that were handed over and accepted, and items that were taken, each as a number.
    pub sent: Vec<u64>,
    pub taken: Vec<u64>,
    /// This side ended its items; it took the end of the peer's.
    pub ended: bool,
    pub saw_end: bool,
    /// The end was not told again: that it was cancelled is among what is to be told.
    gone: bool,
    /// `Readable` was told, and nothing that was found empty since.
    told: bool,
    /// An item found no room, and `Writable` was not told since; and how often, of which `Writable` may still tell.
    full: bool,
    refused: usize,
    /// Credit was given once, so that nothing is held up for ever.
    fed: bool,
}

/// Octets as a number.
pub fn sum(octets: &[u8]) -> u64 {
    let mix = |sum: u64, octet: &u8| (sum ^ u64::from(*octet)).wrapping_mul(0x100_0000_01B3);
    octets.iter().fold(0xCBF2_9CE4_8422_2325, mix)
}

/// Octets that are worth compressing, or are not.
pub fn octets(len: usize, fill: u8, noise: bool) -> Vec<u8> {
    let mut state = u32::from(fill) | 1 << 16;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        state.to_be_bytes()[0]
    };
    if noise { (0..len).map(|_| next()).collect() } else { vec![fill; len] }
}

/// Which end of which call: of one of its own, by its number, or of one that is served.
#[derive(Clone, Copy)]
struct End {
    ours: bool,
    number: Option<u32>,
    stream: Stream,
}

impl Node {
    fn talk(&mut self, end: End) -> &mut Talk {
        let talk = match end.stream {
            Stream::Ours(_) => {
                let call = end.number.and_then(|number| self.calls.get_mut(number as usize));
                call.map(|call| &mut call.talk)
            }
            Stream::Theirs(call) => {
                self.running.iter_mut().find(|running| running.call == call).map(|running| &mut running.talk)
            }
        };
        talk.expect("it has its place")
    }

    fn end_of(&self, stream: Stream) -> End {
        let ours = matches!(stream, Stream::Ours(_));
        let end = self.ends(ours).into_iter().find(|end| end.stream == stream && !self.is_cancelled(*end));
        end.expect("only who is open is told of its stream")
    }

    fn is_cancelled(&self, end: End) -> bool {
        self.running.iter().any(|running| end.stream == Stream::Theirs(running.call) && running.cancelled)
    }

    /// The calls that stream, of this side or served.
    fn ends(&self, ours: bool) -> Vec<End> {
        if ours {
            let open = self.open.iter().filter(|(_, user)| self.calls[*user as usize].kind != Kind::Unary);
            return open
                .map(|(id, user)| End { ours, number: Some(*user), stream: Stream::Ours(*id) })
                .collect();
        }
        let running = self.running.iter().filter(|running| running.kind != Kind::Unary);
        running.map(|it| End { ours, number: it.number, stream: Stream::Theirs(it.call) }).collect()
    }

    fn pick(&self, ours: bool, choice: usize) -> Option<End> {
        let ends = self.ends(ours);
        ends.get(choice % ends.len().max(1)).copied()
    }

    pub fn on_readable(&mut self, stream: Stream) -> String {
        let end @ End { ours, number, .. } = self.end_of(stream);
        let talk = self.talk(end);
        assert!(!std::mem::replace(&mut talk.told, true), "Readable twice");
        // A slow application takes a few.
        let most = if talk.taken.len() % 4 == 3 { 2 } else { usize::MAX };
        self.readable = Some((stream, most));
        format!("Readable {ours} {number:?}")
    }

    pub fn on_writable(&mut self, stream: Stream) -> String {
        let end @ End { ours, number, .. } = self.end_of(stream);
        let talk = self.talk(end);
        talk.full = false;
        talk.refused = talk.refused.checked_sub(1).expect("Writable, and nobody found it full");
        format!("Writable {ours} {number:?}")
    }

    /// An item has come to the application.
    pub fn note_taken(&mut self, ours: bool, number: Option<u32>, item: &[u8]) {
        assert!(item.len() <= self.limits.max_item as usize, "an item larger than was announced");
        if self.watch.is_clear()
            && let Some((id, flow)) = self.watch.flows.by_number(ours, number)
        {
            flow.took(item, id);
        }
        self.note(item);
    }

    fn take(&mut self, end: End) -> bool {
        let at = self.at();
        let taken = self.conn.take_item(at, end.stream);
        match &taken {
            Some(Taken::Item(item)) => {
                self.note_taken(end.ours, end.number, item);
                assert!(!self.talk(end).saw_end, "an item behind the end");
                self.talk(end).taken.push(sum(item));
            }
            Some(Taken::End) => {
                assert!(!end.ours, "the end of a callee's items is its RESPONSE");
                self.talk(end).saw_end = true;
            }
            None => {
                let over =
                    self.is_cancelled(end) || self.closed.is_some() || self.conn.next().end != Over::Open;
                let untold = self.conn.next().event;
                let talk = self.talk(end);
                assert!(!talk.saw_end || over || untold, "the end is told as often as it is asked");
                talk.gone |= talk.saw_end && !over;
                talk.told = false;
            }
        }
        matches!(taken, Some(Taken::Item(_)))
    }

    /// Takes everything that there is on a stream, or a few.
    pub fn take_some(&mut self, stream: Stream, most: usize) {
        let end = self.end_of(stream);
        for _ in 0..most {
            if !self.take(end) {
                break;
            }
        }
    }

    fn send(&mut self, end: End, item: Body<'_>) -> Result<(), ItemError> {
        let (octets, at) = (sum(&to_vec(&item)), self.at());
        let sent = self.conn.send_item(at, end.stream, item);
        let talk = self.talk(end);
        match sent {
            Ok(()) => {
                assert!(!talk.ended, "an item behind the end");
                talk.sent.push(octets);
            }
            Err(ItemError::Full) => {
                talk.full = true;
                talk.refused += 1;
            }
            Err(_) => {}
        }
        sent
    }

    /// Sends items on a served call of which nobody has heard before.
    pub fn send_back(&mut self, call: Served, items: usize, item: &[u8]) {
        let end = self.end_of(call.into());
        for _ in 0..items {
            // That there is no room is what a script may want.
            let _ = self.send(end, Body::Copy(item));
        }
    }

    fn grant(&mut self, end: End, octets: u32) {
        let at = self.at();
        self.conn.grant(at, end.stream, octets);
        self.watch.flows.grant(end.ours, end.number, octets);
    }

    /// All that was given is decoded and told: whoever has something to take knows it.
    pub fn all_told(&mut self) {
        if self.conn.next().event || self.closed.is_some() {
            return;
        }
        for end in self.ends(false) {
            let over = self.is_cancelled(end) || self.conn.next().end != Over::Open;
            assert!(!self.talk(end).gone || over, "the end is told as often as it is asked");
        }
        if !self.watch.is_clear() {
            return;
        }
        for ours in [true, false] {
            for end @ End { number, .. } in self.ends(ours) {
                let over = self.is_cancelled(end);
                let waits = self.watch.flows.by_number(ours, number).is_some_and(|(_, flow)| flow.waits());
                let told = self.talk(end).told;
                assert!(
                    over || !waits || told,
                    "items wait to be taken, and nobody is told ({ours}, {number:?})"
                );
            }
        }
    }

    /// Nothing waits to be committed, and all is decoded.
    pub fn at_rest(&mut self) {
        self.watch.at_rest();
        for ours in [true, false] {
            for end @ End { number, .. } in self.ends(ours) {
                let over = self.is_cancelled(end);
                let Some((_, flow)) = self.watch.flows.by_number(ours, number) else { continue };
                let out = flow.committed();
                let talk = self.talk(end);
                let stuck = talk.full && out == talk.sent.len() && !talk.ended && !over;
                assert!(!stuck, "there is room for items, and nobody is told ({ours}, {number:?})");
            }
        }
    }

    /// What an application does that wants everything to finish.
    pub fn finish_streams(&mut self) {
        for ours in [true, false] {
            for end in self.ends(ours) {
                while self.take(end) {}
                if !std::mem::replace(&mut self.talk(end).fed, true) {
                    self.grant(end, 1 << 20);
                }
                let ended = self.talk(end).ended;
                if let (Stream::Ours(id), false) = (end.stream, ended) {
                    self.end_of_items(id);
                }
            }
        }
    }

    fn end_of_items(&mut self, id: CallId) {
        let number = *self.conn.user(id).expect("it is open");
        let at = self.at();
        let ended = self.conn.end_items(at, id);
        let call = &mut self.calls[number as usize];
        let sends = matches!(call.kind, Kind::ClientStream | Kind::Bidi);
        assert!(ended.is_err() || sends && !call.talk.ended, "the end of what has none");
        call.talk.ended |= ended.is_ok();
    }
}

fn to_vec(item: &Body<'_>) -> Vec<u8> {
    match item {
        Body::Copy(octets) => octets.to_vec(),
        Body::Share(octets) => octets.to_vec(),
    }
}

/// A call that says something special: it streams, has a key, is large or worth compressing.
pub fn begin(node: &mut Node, input: &mut Input<'_>, streams: bool) {
    let (choice, more) = (input.octet(), input.octet());
    let user = u32::try_from(node.calls.len()).expect("scripts are short");
    let (method, mut kind) = STREAMS[usize::from(choice) % 3];
    let mut head = CallHead::new(if streams { method } else { super::node::METHODS[0] });
    if streams {
        if choice & 0x80 != 0 {
            kind = Kind::Bidi;
        }
        head.kind = kind;
        head.credit = [None, Some(0), Some(1_000), Some(u32::MAX)][usize::from(more & 3)];
    }
    head.ordering_key = [&b""[..], b"a", b"b", &[7; 65]][usize::from(more >> 2 & 3)];
    head.compress = more & 16 != 0;
    head.priority = [0, 1, -1, 0][usize::from(more >> 5 & 3)];
    let one_way = !streams && choice & 1 != 0;
    let len = match choice >> 4 & 3 {
        0 => input.small(),
        1 => input.small() * 64,
        2 => usize::from(input.number()),
        _ => usize::from(input.number()) * 3,
    };
    if choice & 8 != 0 {
        let after = u64::from(input.octet()) * 20 * MS;
        head.deadline = Some(Instant::from_nanos(node.now + after));
    }
    let parent = node.running.last().filter(|_| more & 0x80 != 0).map(|running| running.call);
    head.parent = parent;
    let mut payload = octets(len.max(6), choice, choice & 4 != 0);
    payload[0] = u8::from(one_way);
    payload[1] = if parent.is_some() { CALLBACK } else { 0 };
    payload[2..6].copy_from_slice(&user.to_be_bytes());
    let kind = if streams { kind } else { Kind::Unary };
    let mut record = Call { one_way, kind, argument: sum(&payload), ..Call::default() };
    let (at, body) = (node.at(), Body::Share(Bytes::from(payload)));
    let begun = if one_way {
        node.conn.one_way(at, &head, body, user)
    } else {
        node.conn.call(at, &head, body, user)
    };
    match begun {
        Ok(id) => node.open.push((id, user)),
        Err(rejected) => {
            assert_eq!(rejected.user, user, "L2: a refusal gives the value back");
            record.outcome = Some((rejected.reason.status(), Ran::No));
        }
    }
    node.calls.push(record);
}

/// Sends an item, or several.
pub fn items(node: &mut Node, input: &mut Input<'_>, ours: bool) {
    let (which, choice) = (input.small(), input.octet());
    let Some(end) = node.pick(ours, which) else { return };
    let len = match choice & 3 {
        0 => 0,
        1 => input.small(),
        2 => input.small() * 64,
        _ => usize::from(input.number()),
    };
    let item = octets(len, choice, choice & 4 != 0);
    for _ in 0..=(choice >> 4) {
        let body = if choice & 8 == 0 { Body::Copy(&item) } else { Body::Share(item.clone().into()) };
        if node.send(end, body).is_err() {
            break;
        }
    }
}

pub fn end_items(node: &mut Node, input: &mut Input<'_>) {
    if let Some(End { stream: Stream::Ours(id), .. }) = node.pick(true, input.small()) {
        node.end_of_items(id);
    }
}

/// Takes an item, or as many as there are.
pub fn take(node: &mut Node, input: &mut Input<'_>, ours: bool) {
    let which = input.small();
    if let Some(end) = node.pick(ours, which) {
        while node.take(end) && which & 0x80 != 0 {}
    }
}

pub fn grant(node: &mut Node, input: &mut Input<'_>) {
    let (which, much) = (input.small(), input.pick([1, 300, 5_000, 100_000, u32::MAX]));
    if let Some(end) = node.pick(which & 0x80 == 0, which & 0x7f) {
        node.grant(end, much);
    }
}

/// A handler's good answer is what its caller gets.
pub fn answered(node: &mut Node, number: Option<u32>, payload: &[u8], status: Status) {
    if status == Status::OK
        && let Some(heard) = number.and_then(|number| node.served.get_mut(&number))
    {
        heard.answer = Some(sum(payload));
    }
}
