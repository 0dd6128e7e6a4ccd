//! Two nodes and the line between them. Both keep to the protocol, whatever is done to the line.

use tieline_core::{
    conn::{Disconnect, End, Side},
    wire::{Ran, Status},
};

use super::{
    input::Input,
    node::{Call, Heard, MS, Node},
    verbs,
};

/// One direction of the line.
#[derive(Default)]
pub struct Pipe {
    octets: Vec<u8>,
    /// Nothing can be read before.
    pub stalled_until: u64,
    end: Option<Disconnect>,
    end_told: bool,
    /// Nobody reads any more: what is written vanishes.
    unread: bool,
}

impl Pipe {
    fn write(&mut self, octets: &[u8]) {
        if !self.unread && self.end.is_none() {
            self.octets.extend_from_slice(octets);
        }
    }

    /// Whether there is something to read, or an end to be told.
    fn is_ready(&self) -> bool {
        !self.octets.is_empty() || self.end.is_some() && !self.end_told
    }

    /// Breaks it behind the next `keep` octets.
    pub fn cut(&mut self, keep: usize, end: Disconnect) {
        self.octets.truncate(keep);
        self.end.get_or_insert(end);
    }
}

/// The two ends: the client is node 0 and writes into pipe 0.
pub struct Two {
    pub nodes: [Node; 2],
    pub pipes: [Pipe; 2],
}

impl Two {
    /// From four octets: the choices of both.
    pub fn new(input: &mut Input<'_>) -> Self {
        let mut node = |side| {
            let choice = input.octet();
            Node::new(side, choice, input.octet(), true)
        };
        Self { nodes: [node(Side::Client), node(Side::Server)], pipes: [Pipe::default(), Pipe::default()] }
    }

    /// What time it is, for both.
    pub fn now(&self) -> u64 {
        self.nodes[0].now
    }

    /// Time passes.
    pub fn pass(&mut self, nanos: u64) {
        for node in &mut self.nodes {
            node.now += nanos;
        }
    }

    /// A node's transport takes up to `most` octets.
    pub fn write(&mut self, who: usize, most: usize) {
        let octets = self.nodes[who].write(most);
        self.pipes[who].write(&octets);
        self.end(who);
    }

    /// A node reads up to `most` octets, as far as it wants any.
    pub fn read(&mut self, who: usize, most: usize) {
        let node = &mut self.nodes[who];
        let pipe = &mut self.pipes[1 - who];
        if node.gone || node.now < pipe.stalled_until || !node.conn.next().read {
            return;
        }
        let len = most.min(pipe.octets.len());
        let octets: Vec<u8> = pipe.octets.drain(..len).collect();
        node.feed(&octets);
        if let Some(end) = pipe.end
            && pipe.octets.is_empty()
            && !pipe.end_told
        {
            pipe.end_told = true;
            node.disconnect(end);
        }
    }

    /// A node's application fetches up to `most` events.
    pub fn events(&mut self, who: usize, most: usize) {
        for _ in 0..most {
            if self.nodes[who].event().is_none() {
                break;
            }
        }
        self.blameless(who);
        self.end(who);
    }

    /// Nobody who keeps to the protocol is accused.
    fn blameless(&self, who: usize) {
        let blame = [Status::PROTOCOL_ERROR, Status::FRAME_TOO_LARGE, Status::CHECK_IN_REQUIRED];
        let [ours, theirs] = [&self.nodes[who], &self.nodes[1 - who]];
        if let Some(status) = ours.closed
            && blame.contains(&status)
        {
            let own = ours.blames || theirs.blames;
            assert!(own, "{who} accuses a peer that keeps to the protocol: {status}");
        }
    }

    /// What the end of a connection asks of the transport.
    fn end(&mut self, who: usize) {
        let node = &mut self.nodes[who];
        let next = node.conn.next();
        let all_sent = node.outbox.chunks().next().is_none();
        match next.end {
            End::ShutWrite if all_sent => self.pipes[who].cut(usize::MAX, Disconnect::Eof),
            End::Close if !next.event && !node.gone => {
                assert!(node.closed.is_some(), "L3: an end that the application was not told");
                self.go(who);
            }
            _ => {}
        }
    }

    /// A node gives its transport up, and its connection with it.
    pub fn go(&mut self, who: usize) {
        if !self.nodes[who].gone {
            self.nodes[who].abandon();
        }
        self.pipes[who].cut(usize::MAX, Disconnect::Eof);
        self.pipes[1 - who].unread = true;
    }

    /// One whole turn of a node's driver, and handlers that answer if `answers`.
    pub fn turn(&mut self, who: usize, answers: bool) {
        if self.nodes[who].gone {
            return;
        }
        self.read(who, usize::MAX);
        self.events(who, usize::MAX);
        if self.nodes[who].gone {
            return;
        }
        if answers {
            let node = &mut self.nodes[who];
            if node.undecided {
                verbs::act(node, verbs::ACCEPT, &mut Input::new(&[]));
            }
            node.finish_streams();
            while !node.running.is_empty() {
                verbs::act(node, verbs::ECHO, &mut Input::new(&[]));
            }
        }
        let node = &mut self.nodes[who];
        while node.transmit() || node.outbox.chunks().next().is_some() {
            let octets = node.write(usize::MAX);
            self.pipes[who].write(&octets);
        }
        self.end(who);
    }

    /// When there is next something to do.
    fn wake(&self, who: usize) -> u64 {
        let node = &self.nodes[who];
        let pipe = &self.pipes[1 - who];
        if node.gone {
            return u64::MAX;
        }
        let readable = if node.conn.next().read && pipe.is_ready() { pipe.stalled_until } else { u64::MAX };
        node.wake().min(readable)
    }

    /// The line is whole again and handlers answer: for so long both do all that there is to do.
    pub fn live(&mut self, nanos: u64) {
        let until = self.now() + nanos;
        let mut turns = 0;
        while self.now() < until && !self.nodes.iter().all(|node| node.gone) {
            let now = self.now();
            for who in 0..2 {
                if self.nodes[who].wake() <= now && !self.nodes[who].gone {
                    self.nodes[who].timeout();
                }
                self.turn(who, true);
            }
            let wake = self.wake(0).min(self.wake(1)).clamp(now, until);
            self.pass(wake - now);
            turns += 1;
            assert!(turns < 20_000, "two nodes that never rest");
        }
    }

    /// After the script: everything finishes, and every call has the one outcome that is true.
    pub fn heal(mut self) -> u64 {
        for pipe in &mut self.pipes {
            pipe.stalled_until = 0;
        }
        self.nodes.iter_mut().for_each(|node| node.slip = 0);
        self.live(6_000 * MS);
        if self.nodes.iter().all(|node| node.ready && !node.gone) {
            for node in &self.nodes {
                assert!(node.open.is_empty(), "everything finishes: {:?} {:?}", node.conn, node.open);
                assert_eq!(node.conn.open_calls(), (0, 0));
                assert_eq!(node.closed, None);
            }
            let at = self.nodes[0].at();
            self.nodes[0].conn.close(at, Status::NORMAL, "done");
        }
        self.live(80_000 * MS);
        for who in 0..2 {
            assert!(self.nodes[who].gone, "one end is gone, the other is not: {:?}", self.nodes[who].conn);
            self.account(who);
        }
        self.nodes[0].trace ^ self.nodes[1].trace.rotate_left(1)
    }

    /// What one end has taken is what the other has sent: whole, once, in order; all of it if the call went well.
    fn same(&self, who: usize, call: &Call, heard: Option<&Heard>) {
        let Some(heard) = heard else {
            assert!(call.talk.taken.is_empty() && call.answer.is_none(), "an answer of nobody");
            return;
        };
        assert_eq!(call.argument, heard.argument, "another argument arrived than {who} sent");
        let (up, down) = ((&call.talk, &heard.talk), (&heard.talk, &call.talk));
        for (from, to) in [up, down] {
            assert!(from.sent.starts_with(&to.taken), "items come whole, once, and in their order");
        }
        if heard.talk.saw_end {
            assert!(call.talk.ended && call.talk.sent == heard.talk.taken, "an end before the last item");
        }
        if call.answer.is_some() {
            assert_eq!(call.answer, heard.answer, "another answer arrived than was given");
            assert_eq!(heard.talk.sent, call.talk.taken, "a good answer without all of its items");
        }
    }

    /// L1 and L10: each call has one outcome, and what is said to have run or not is true.
    fn account(&self, who: usize) {
        let [ours, theirs] = [&self.nodes[who], &self.nodes[1 - who]];
        for (number, call) in (0u32..).zip(&ours.calls) {
            let Some((status, ran)) = call.outcome else {
                panic!("L1: call {number} of {who} has no outcome")
            };
            let seen = theirs.heard.iter().filter(|heard| **heard == number).count();
            assert!(seen <= 1, "call {number} of {who} ran twice");
            self.same(who, call, theirs.served.get(&number));
            let ended = "of a call that";
            match ran {
                Ran::No => {
                    let refused = theirs.refused.contains(&number);
                    assert!(seen == 0 || refused, "L10: {status} {ended} ran ({number} of {who})");
                }
                Ran::Yes if !call.one_way => {
                    assert!(seen == 1, "{status} {ended} did not run ({number} of {who})");
                }
                _ => {}
            }
        }
    }
}
