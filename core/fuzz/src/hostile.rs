//! One connection opposite octets that the input makes up: the targets `client` and `server`.
//!
//! The script is played three times. Whole: what arrives at once is given at once. Cut: it is given in pieces, and
//! events are fetched after each; the same must come of it (L6). Interleaved: output is committed between the events as
//! well; where no limit and no mistake is near, the same must come of that, too (L7).

use tieline_core::{
    conn::{End, Side},
    wire::{FrameType, Kind, Status},
};

use super::{
    assembly,
    frames::Seen,
    input::Input,
    node::{MS, Node, cause},
    stranger::Stranger,
    verbs,
};

/// One octet of a step says that it goes on with the next one: what both say arrives at once.
pub const MORE: u8 = 0x80;

/// The steps of a script, as their first octet has them; from [`APPLICATION`] on they are verbs of the application.
pub mod step {
    pub const HELLO: u8 = 0;
    /// A length, and octets as they are.
    pub const RAW: u8 = 1;
    /// Type, flags, status, an id of two octets, a length, and a body.
    pub const FRAME: u8 = 2;
    /// The same with a body whose length has two octets, behind a front that is given: zeros.
    pub const LARGE: u8 = 3;
    /// How many, and of what.
    pub const FLOOD: u8 = 4;
    /// A good call: method and time-out, length of the payload, its fill.
    pub const CALL: u8 = 5;
    /// A good answer to a call that was read: which, the status, the length.
    pub const ANSWER: u8 = 6;
    /// How the following steps are cut.
    pub const CUT: u8 = 7;
    /// Milliseconds that pass.
    pub const LATER: u8 = 8;
    pub const CLOCK: u8 = 9;
    /// Whether the transport takes anything.
    pub const TAKES: u8 = 10;
    pub const END: u8 = 11;
    pub const ABANDON: u8 = 12;
    /// A good call that streams, a key or metadata and all.
    pub const OPEN: u8 = 13;
    /// A message in pieces, good or not.
    pub const PIECES: u8 = 14;
    /// What belongs to a stream, or the next of the pieces that were held back.
    pub const STREAM: u8 = 15;
    pub const APPLICATION: u8 = 16;
}

#[derive(Clone, Copy, PartialEq, Debug)]
enum Play {
    Whole,
    Cut,
    Interleaved,
}

struct Player<'a> {
    node: Node,
    play: Play,
    input: Input<'a>,
    peer: Stranger,
    /// What arrives at the end of the step.
    arriving: Vec<u8>,
    cut: usize,
    takes: bool,
    events: Vec<String>,
    output: Vec<Seen>,
    /// Whether something happened for which it may matter when output is committed.
    timely: bool,
    /// The transport has ended.
    ended: bool,
    /// What was told and written when the script was over, if that may not depend on when output is committed.
    story: Option<(Vec<String>, Vec<Vec<u8>>)>,
}

/// A connection that was dialled, and a server that is not one.
pub fn client(script: &[u8]) -> u64 {
    run(Side::Client, script)
}

/// A connection that was accepted, and a client that is not one.
pub fn server(script: &[u8]) -> u64 {
    run(Side::Server, script)
}

fn run(side: Side, script: &[u8]) -> u64 {
    let whole = Player::play(side, Play::Whole, script);
    let cut = Player::play(side, Play::Cut, script);
    assert_eq!(whole.events, cut.events, "L6: how input is cut is seen in the events");
    assert_eq!(whole.written(), cut.written(), "L6: how input is cut is seen on the wire");
    let woven = Player::play(side, Play::Interleaved, script);
    if let (Some(whole), Some(woven)) = (&whole.story, &woven.story) {
        assert_eq!(whole, woven, "L7: how output is drained is seen");
    }
    whole.node.trace
}

impl<'a> Player<'a> {
    fn play(side: Side, play: Play, script: &'a [u8]) -> Self {
        let mut input = Input::new(script);
        let choice = input.octet();
        let mut player = Self {
            node: Node::new(side, choice, input.octet(), false),
            play,
            input,
            peer: Stranger::new(side),
            arriving: Vec::new(),
            cut: 1,
            takes: true,
            events: Vec::new(),
            output: Vec::new(),
            timely: choice & 1 != 0,
            ended: false,
            story: None,
        };
        player.settle();
        let mut steps = 0;
        while !player.input.is_empty() && !player.node.gone && steps < 300 {
            player.step();
            steps += 1;
        }
        if !player.node.gone {
            player.arrive();
            player.settle();
            player.story = (!player.timely).then(|| (player.events.clone(), player.drained()));
            player.finish();
        }
        player
    }

    fn step(&mut self) {
        let choice = self.input.octet();
        let more = choice & MORE != 0;
        match choice & !MORE {
            step::LATER => {
                self.arrive();
                self.settle();
                self.node.now += u64::from(self.input.number() % 8_192) * MS;
            }
            step::CLOCK => self.node.timeout(),
            step::CUT => self.cut = self.input.small().max(1),
            step::TAKES => {
                self.takes = !self.takes;
                self.timely = true;
            }
            step::END => {
                self.arrive();
                let cause = cause(&mut self.input);
                self.ended = true;
                self.node.disconnect(cause);
            }
            step::ABANDON => {
                self.arrive();
                self.settle();
                self.node.abandon();
                return;
            }
            verb @ step::APPLICATION.. => {
                self.arrive();
                self.settle();
                self.timely = true;
                verbs::act(&mut self.node, verb - step::APPLICATION, &mut self.input);
            }
            octets => {
                self.peer.compose(octets, &mut self.input, &mut self.arriving);
                if more && self.arriving.len() < 300_000 {
                    return;
                }
            }
        }
        self.arrive();
        self.settle();
    }

    /// What the peer has said arrives, in as many pieces as the play has.
    fn arrive(&mut self) {
        let octets = std::mem::take(&mut self.arriving);
        if self.play == Play::Whole {
            self.node.feed(&octets);
        } else {
            // Much at once is not cut into octets, for the sake of time.
            for piece in octets.chunks(self.cut.max(octets.len() / 150)) {
                self.node.feed(piece);
                self.events();
            }
        }
        self.timely |= self.node.watch.cut_short;
    }

    fn events(&mut self) {
        while self.event() {}
    }

    /// One event, and what the application does about it, which depends on nothing but what it was told.
    fn event(&mut self) -> bool {
        let before = self.node.running.len();
        let Some(words) = self.node.event() else { return false };
        // A server that was told of a mistake, or of an end, may have said more or less before.
        self.timely |= words.starts_with("Closed") || words.starts_with("Draining");
        self.events.push(words);
        if self.node.running.len() > before {
            self.on_request(before);
        }
        if let Some((stream, most)) = self.node.readable.take() {
            self.node.take_some(stream, most);
        }
        if self.play == Play::Interleaved && self.takes {
            self.drain_output();
        }
        true
    }

    /// A handler starts: it sends a few items if it may, and answers at once, later, or not at all.
    fn on_request(&mut self, before: usize) {
        let running = self.node.running.last().expect("one more than before");
        let (call, kind) = (running.call, running.kind);
        let sum = running.payload.iter().fold(0u32, |sum, octet| sum + u32::from(*octet)) % 5;
        let last = u8::try_from(before % 251).expect("below 251");
        if matches!(kind, Kind::ServerStream | Kind::Bidi) {
            self.node.send_back(call, sum as usize, &[7; 700][..sum as usize * 150]);
        }
        // Verbs pick a handler by its place; far behind, it is another one's turn, and that is as good.
        let verb = [verbs::REPLY, verbs::PANICKED, verbs::ECHO, verbs::STOPPED].get(sum as usize);
        if let Some(verb) = verb {
            verbs::act(&mut self.node, *verb, &mut Input::new(&[last, 1, 15]));
        }
    }

    /// All events, and then all output.
    fn settle(&mut self) {
        self.events();
        self.node.transmit();
        if self.takes {
            self.drain_output();
        }
        self.look();
        self.events();
    }

    fn drain_output(&mut self) {
        let before = self.node.frames.len();
        self.node.flush();
        // Items and the rest of large messages wait in their producers.
        let small = |seen: &&Seen| {
            !matches!(seen.header.frame_type, FrameType::STREAM_ITEM | FrameType::CONTINUATION)
        };
        let forced = self.node.frames[before..].iter().filter(small).count();
        let limits = &self.node.limits;
        let most =
            5 * limits.max_concurrent as usize + 64 + limits.max_one_ways + 4 * limits.max_calls as usize;
        assert!(forced <= most, "L12: {forced} frames waited");
        self.look();
    }

    /// The peer reads.
    fn look(&mut self) {
        for seen in self.node.frames.drain(..) {
            self.peer.read(&seen);
            self.output.push(seen);
        }
    }

    /// Whether a transport that has ended is still told of a mistake that came before is no matter.
    fn counts(&self, seen: &Seen) -> bool {
        let header = seen.header;
        let refusal = header.frame_type == FrameType::CHECK_IN_ACK && header.status != Status::OK;
        !(self.ended && (refusal || header.frame_type == FrameType::CLOSE))
    }

    /// What was written. A CLOSE may quote as much as has come of what was wrong.
    fn written(&self) -> Vec<&[u8]> {
        let counts = self.output.iter().filter(|seen| self.counts(seen));
        let said = counts.map(|seen| match seen.header.frame_type {
            FrameType::CLOSE => &seen.octets[..6],
            _ => &seen.octets[..],
        });
        said.collect()
    }

    /// The same, but for what is gathered or overtakes, and for how messages are cut.
    fn drained(&self) -> Vec<Vec<u8>> {
        let is_ack = |seen: &Seen| seen.header.frame_type == FrameType::HEARTBEAT_ACK;
        let counts = self.output.iter().filter(|seen| self.counts(seen) && !is_ack(seen));
        let mut all = assembly::told(counts);
        all.sort_unstable();
        all
    }

    /// Left alone it comes to an end by itself: whoever does not answer is dead.
    fn finish(&mut self) {
        let mut turns = 0;
        while self.node.conn.next().end != End::Close {
            self.settle();
            if self.takes {
                self.node.flush();
            }
            self.node.now = self.node.now.max(self.node.wake());
            self.node.timeout();
            turns += 1;
            assert!(turns < 10_000, "L4: a connection that never ends: {:?}", self.node.conn);
        }
        self.settle();
        assert!(self.node.closed.is_some(), "L3: an end that the application was not told");
        assert_eq!(self.node.conn.poll_timeout(), None);
        self.node.abandon();
    }
}
