//! A connection, the buffer of its driver, and an application that keeps account of every call. After each verb it is
//! asked whether the laws of [`Connection`] hold; what the verbs are is in `verbs`.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use bytes::{Buf, Bytes};
use tieline_core::{
    Instant,
    conn::{
        CallId, Config, Connection, Disconnect, End, Event, Incoming, Limits, MethodSpec, Outbox, Served,
        Side, Stream,
    },
    wire::{Class, Kind, Ran, Status},
};

use super::{
    frames::Seen,
    input::Input,
    streams::{Talk, sum},
    watch::{Watch, number_in},
};

/// One millisecond in nanoseconds.
pub const MS: u64 = 1_000_000;

/// When every script begins.
pub const START: u64 = 1_000_000 * MS;

/// The methods that nodes serve: the second one not always.
pub const METHODS: [&str; 3] = ["t.S/Echo", "t.S/Other", "t.S/None"];

/// Those that stream, by their kind.
pub const STREAMS: [(&str, Kind); 3] =
    [("t.S/Down", Kind::ServerStream), ("t.S/Up", Kind::ClientStream), ("t.S/Both", Kind::Bidi)];

/// A call of this node and what became of it.
#[derive(Default)]
pub struct Call {
    /// Nobody answers it.
    pub one_way: bool,
    /// The first octets of it were committed.
    pub committed: bool,
    /// Its one outcome.
    pub outcome: Option<(Status, Ran)>,
    pub kind: Kind,
    /// The argument, and the good answer, as a number.
    pub argument: u64,
    pub answer: Option<u64>,
    pub talk: Talk,
}

/// A call of the peer, by the number in its payload, also after it is over.
#[derive(Default)]
pub struct Heard {
    pub argument: u64,
    pub answer: Option<u64>,
    pub talk: Talk,
}

/// A call of the peer that holds its place.
pub struct Running {
    pub call: Served,
    pub payload: Bytes,
    pub one_way: bool,
    pub cancelled: bool,
    pub kind: Kind,
    pub key: Vec<u8>,
    /// The number in its payload.
    pub number: Option<u32>,
    pub talk: Talk,
}

/// A connection and who uses it.
pub struct Node {
    pub conn: Connection<u32>,
    pub side: Side,
    pub limits: Limits,
    /// What time it is; the connection may have been told an earlier one.
    pub now: u64,
    /// How far the next verb's clock is behind.
    pub slip: u64,
    pub outbox: Outbox,
    mark: usize,
    pub watch: Watch,
    /// By their number, which is also the value that travels with them.
    pub calls: Vec<Call>,
    pub open: Vec<(CallId, u32)>,
    /// A name that is used up.
    pub past_call: Option<CallId>,
    pub running: Vec<Running>,
    /// A name that is used up.
    pub past_served: Option<Served>,
    /// Numbers of the peer's calls whose handler started, and of those that were refused instead.
    pub heard: Vec<u32>,
    pub refused: BTreeSet<u32>,
    pub served: BTreeMap<u32, Heard>,
    /// The highest id of a call that started, by ordering key.
    turns: BTreeMap<Vec<u8>, u64>,
    /// What was just told to be readable, and how much of it would be taken.
    pub readable: Option<(Stream, usize)>,
    /// Octets that came since there was last no event, and the most that those ever were: blocks stay in use.
    unread: usize,
    most_unread: usize,
    pub ready: bool,
    pub probing: bool,
    pub undecided: bool,
    pub closed: Option<Status>,
    /// The application itself ended the connection, with any status at all.
    pub blames: bool,
    /// The application closed the connection.
    pub ended: bool,
    /// One-ways with one key run at once, which is as good as the end of the connection.
    together: bool,
    /// The transport was given up.
    pub gone: bool,
    /// Frames that were committed and not looked at yet.
    pub frames: Vec<Seen>,
    /// A number that any difference between two runs changes.
    pub trace: u64,
}

/// A configuration from an octet: ample or tight limits, with and without what is optional.
pub fn config(name: &str, choice: u8) -> Arc<Config> {
    let mut limits = Limits::default();
    if choice & 1 != 0 {
        limits.max_frame = 16 << 10;
        limits.max_message = 1 << 10;
        limits.memory = 1_500;
        limits.max_concurrent = 2;
        limits.max_calls = 4;
        limits.max_queued = 2_000;
        limits.max_one_ways = 2;
        limits.max_one_way_octets = 1_000;
        limits.max_learned = 2;
        limits.max_learned_octets = 64;
        limits.max_item = 512;
        limits.max_streams = 1;
        limits.stream_window = 600;
        limits.max_queued_items = 1_000;
    } else if choice & 64 != 0 {
        limits.max_item = 5_000;
        limits.stream_window = 700;
        limits.max_queued_items = 1_500;
    }
    if choice & 129 == 128 {
        limits.max_frame = 16 << 10;
        limits.max_message = 100_000;
        limits.max_item = limits.max_item.min(40_000);
        limits.memory = 150_000;
        limits.max_queued = 200_000;
        limits.max_one_way_octets = 120_000;
    }
    let beat = if choice & 2 == 0 { 1_000 } else { 200 };
    let mut config = Config::builder(name)
        .limits(limits)
        .heartbeat_interval(Duration::from_millis(beat))
        .verify(choice & 4 != 0)
        .compress(choice & 32 != 0)
        .compress_from(64)
        .method(MethodSpec::unary(METHODS[0]));
    if choice & 8 != 0 {
        config = config.idle_timeout(Duration::from_millis(500));
    }
    if choice & 16 != 0 {
        config = config.method(MethodSpec::unary(METHODS[1]).codecs(&[0, 2]).fingerprint(7));
    }
    for (name, kind) in STREAMS {
        config = config.method(MethodSpec::new(name, kind));
    }
    config.build().expect("a good configuration")
}

impl Node {
    /// A node from two choices: of its configuration, and of its outbox.
    pub fn new(side: Side, choice: u8, mark: u8, trusted: bool) -> Self {
        let config = config(if side == Side::Client { "client" } else { "server" }, choice);
        let mark = [1, 100, 4096, 65_536][usize::from(mark % 4)];
        Self {
            side,
            limits: config.limits().clone(),
            now: START,
            slip: 0,
            outbox: Outbox::with_mark(mark),
            mark,
            watch: Watch::new(side, trusted, config.limits()),
            calls: Vec::new(),
            open: Vec::new(),
            past_call: None,
            running: Vec::new(),
            past_served: None,
            heard: Vec::new(),
            refused: BTreeSet::new(),
            served: BTreeMap::new(),
            turns: BTreeMap::new(),
            readable: None,
            unread: 0,
            most_unread: 0,
            ready: false,
            probing: false,
            undecided: false,
            closed: None,
            blames: false,
            ended: false,
            together: false,
            gone: false,
            frames: Vec::new(),
            trace: 0,
            conn: Connection::new(config, side, u64::from(choice), Instant::from_nanos(START)),
        }
    }

    /// The time that a verb is told. It may run backwards.
    pub fn at(&mut self) -> Instant {
        Instant::from_nanos(self.now.saturating_sub(std::mem::take(&mut self.slip)))
    }

    /// Notes what happened, for comparing runs.
    pub fn note(&mut self, what: &[u8]) {
        let mix = |trace: u64, octet: &u8| (trace ^ u64::from(*octet)).wrapping_mul(0x100_0000_01B3);
        self.trace = what.iter().fold(self.trace, mix);
    }

    /// Octets arrive.
    pub fn feed(&mut self, octets: &[u8]) {
        self.watch.given(octets);
        self.unread += octets.len();
        self.most_unread = self.most_unread.max(self.unread);
        let mut rest = octets;
        while !rest.is_empty() {
            let mut buffer = self.conn.lend();
            assert!(buffer.is_empty(), "a lent buffer is empty");
            let most = (2 * self.most_unread + (140 << 10)).max(300 << 10);
            assert!(buffer.capacity() <= most, "L8: a lent buffer of {} is bounded", buffer.capacity());
            let (piece, later) = rest.split_at(rest.len().min(buffer.capacity().max(1)));
            buffer.extend_from_slice(piece);
            let at = self.at();
            self.conn.handle_input(at, buffer);
            rest = later;
        }
        self.laws();
    }

    /// The transport ends.
    pub fn disconnect(&mut self, cause: Disconnect) {
        let at = self.at();
        self.conn.handle_disconnect(at, cause);
        self.laws();
    }

    /// The next event: noted, accounted for, and told in words that do not depend on how input was cut.
    pub fn event(&mut self) -> Option<String> {
        let said = self.conn.next().event;
        let at = self.at();
        let Some(event) = self.conn.poll_event(at) else {
            let next = self.conn.next();
            assert!(!next.event || next.write, "next() says event, and there is none");
            assert!(next.read || next.end == End::Close, "L12: reading waits for writing");
            self.unread = 0;
            assert!(!self.together || self.closed.is_some(), "two one-ways with one key run at once");
            self.all_told();
            self.laws();
            return None;
        };
        assert!(said, "an event that next() did not announce: {event:?}");
        assert!(self.closed.is_none(), "L3: an event after Closed: {event:?}");
        let words = self.on(event);
        self.note(words.as_bytes());
        self.laws();
        Some(words)
    }

    fn on(&mut self, event: Event<u32>) -> String {
        match event {
            Event::CheckIn(_) => {
                self.undecided = true;
                "CheckIn".to_owned()
            }
            Event::Ready(peer) => {
                assert!(!self.ready, "checked in twice");
                self.ready = true;
                format!("Ready {peer:?}")
            }
            Event::Request(incoming) => self.on_request(incoming),
            Event::Cancelled(call, why) => {
                let running = self.running.iter_mut().find(|running| running.call == call);
                running.expect("only who runs is cancelled").cancelled = true;
                format!("Cancelled {why:?}")
            }
            Event::Done { user, outcome, rest } => {
                for item in rest {
                    self.note_taken(true, Some(user), &item);
                    self.calls[user as usize].talk.taken.push(sum(&item));
                }
                let (status, ran) = match &outcome {
                    Ok(answer) => {
                        let call = &mut self.calls[user as usize];
                        call.answer = (!call.one_way).then(|| sum(&answer.payload));
                        (Status::OK, Ran::Yes)
                    }
                    Err(failure) => (failure.status(), failure.ran()),
                };
                self.ended(user, status, ran);
                // Why a connection was lost may quote as much as has come of what was wrong.
                let words =
                    if status.class() == Class::Local { String::new() } else { format!("{outcome:?}") };
                format!("Done {user} {status} {ran:?} {words}")
            }
            Event::Draining { status, .. } => {
                self.watch.peer_drains = true;
                format!("Draining {status}")
            }
            Event::Alive => {
                assert!(std::mem::take(&mut self.probing), "alive, and nobody asked");
                "Alive".to_owned()
            }
            Event::Closed(closed) => {
                self.watch.over = true;
                self.closed = Some(closed.status);
                format!("Closed {:?} {}", closed.by, closed.status)
            }
            Event::Readable(stream) => self.on_readable(stream),
            Event::Writable(stream) => self.on_writable(stream),
            // `Room`, and what later versions tell.
            other => format!("{other:?}"),
        }
    }

    fn on_request(&mut self, incoming: Incoming) -> String {
        let words = format!("Request {} {} {:?}", incoming.method, incoming.one_way, incoming.payload);
        let limits = &self.limits;
        assert!(incoming.payload.len() <= limits.max_message as usize, "larger than was announced");
        assert!(self.running.iter().all(|running| running.call != incoming.call), "a name that is in use");
        assert!(incoming.call.slot() < self.most_served(), "L8: slots are dense");
        let number = number_in(&incoming.payload);
        self.heard.extend(number);
        let key = incoming.ordering_key().to_vec();
        self.take_turn(&key, number, incoming.one_way);
        let heard = Heard { argument: sum(&incoming.payload), ..Heard::default() };
        if let Some(number) = number {
            self.served.insert(number, heard);
        }
        let Incoming { call, payload, one_way, kind, .. } = incoming;
        self.running.push(Running {
            call,
            payload,
            one_way,
            cancelled: false,
            kind,
            key,
            number,
            talk: Talk::default(),
        });
        let held: usize = self.running.iter().map(|running| running.payload.len()).sum();
        // One-ways have a bound of their own: one may always run, and at the end all do.
        let most = self.limits.memory + self.limits.max_one_way_octets;
        assert!(held <= most, "L8: {held} octets are served");
        words
    }

    /// Calls with one key run one after the other, in the order of their ids; but one-ways that are left when the connection
    /// has ended wait for nobody (R-ORD-01). That it has is told last.
    fn take_turn(&mut self, key: &[u8], number: Option<u32>, one_way: bool) {
        if key.is_empty() {
            return;
        }
        let over = self.closed.is_some() || self.watch.over || self.conn.next().end != End::Open;
        let left = self.ended && one_way;
        if !over && !left && self.running.iter().any(|other| other.key == key) {
            assert!(one_way, "two calls with one key run at once");
            self.together = true;
        }
        let id = number.and_then(|number| self.watch.flows.id(false, number));
        if let Some(id) = id.filter(|_| self.watch.is_trusting()) {
            let last = self.turns.insert(key.to_vec(), id);
            assert!(last.is_none_or(|last| last < id), "calls with one key in another order");
        }
    }

    fn most_served(&self) -> usize {
        3 * self.limits.max_concurrent as usize + 17 + self.limits.max_one_ways
    }

    /// A call has left.
    pub fn ended(&mut self, user: u32, status: Status, ran: Ran) {
        let place = self.open.iter().position(|(_, open)| *open == user);
        let place = place.unwrap_or_else(|| panic!("L1: call {user} ended twice, or was never accepted"));
        self.past_call = Some(self.open.swap_remove(place).0);
        if let Some((_, flow)) = self.watch.flows.by_number(true, Some(user)) {
            flow.over = true;
        }
        let call = &mut self.calls[user as usize];
        assert!(call.outcome.replace((status, ran)).is_none(), "L1: call {user} ended twice");
        let left =
            call.committed && matches!(status, Status::NOT_SENT | Status::TIMEOUT | Status::LOCAL_LIMIT);
        assert!(ran != Ran::No || !left, "L10: call {user} left, and {status} says that it did not");
    }

    /// Commits what fits, and looks at it.
    pub fn transmit(&mut self) -> bool {
        let (said, room, before) = (self.conn.next().write, self.outbox.has_room(), self.outbox.remaining());
        let at = self.at();
        let any = self.conn.poll_transmit(at, &mut self.outbox);
        assert!(said || !any, "output that next() did not announce");
        assert_eq!(any, self.outbox.remaining() > before);
        assert!(any || !(said && room) || !self.conn.next().write, "next() says write, and there is nothing");
        let most = self.mark + self.watch.max_frame() + 140_000;
        assert!(self.outbox.remaining() < most, "L8: an outbox is bounded");
        let octets: Vec<u8> = self.outbox.chunks().flatten().copied().skip(before).collect();
        self.note(&octets);
        let (frames, calls) = self.watch.committed(&octets);
        self.frames.extend(frames);
        for payload in calls {
            let number = number_in(&payload).expect("a node's call has its number") as usize;
            let call = &mut self.calls[number];
            assert!(call.outcome.is_none(), "L10: call {number} is over, and leaves");
            assert!(!std::mem::replace(&mut call.committed, true), "call {number} left twice");
        }
        let next = self.conn.next();
        if !next.write && !next.event && next.end == End::Open {
            self.at_rest();
        }
        self.laws();
        any
    }

    /// The transport takes at most so many octets.
    pub fn write(&mut self, most: usize) -> Vec<u8> {
        let mut taken = Vec::new();
        while taken.len() < most && self.outbox.remaining() > 0 {
            let chunk = self.outbox.chunk();
            let piece = &chunk[..chunk.len().min(most - taken.len())];
            taken.extend_from_slice(piece);
            let len = piece.len();
            self.outbox.advance(len);
            let at = self.at();
            self.conn.handle_sent(at, len);
        }
        self.laws();
        taken
    }

    /// Commits and writes until nothing waits.
    pub fn flush(&mut self) -> Vec<u8> {
        let mut octets = Vec::new();
        while self.transmit() || self.outbox.remaining() > 0 {
            octets.extend(self.write(usize::MAX));
        }
        octets
    }

    /// Looks at the clock.
    pub fn timeout(&mut self) {
        let at = self.at();
        let honest = at.as_nanos() == self.now;
        self.conn.handle_timeout(at);
        let next = self.conn.next();
        if honest && !next.event && !next.write {
            let wake = self.conn.poll_timeout().map_or(u64::MAX, Instant::as_nanos);
            assert!(wake > self.now, "L4: asks to be woken at {wake}, and nothing has come of it");
        }
        self.laws();
    }

    /// Whoever ran has stopped, or is dropped with the connection.
    pub fn stopped(&mut self, running: Running) {
        if let Some(heard) = running.number.and_then(|number| self.served.get_mut(&number)) {
            heard.talk = running.talk;
        }
    }

    /// The application drops the connection; what is known about each call that is left.
    pub fn abandon(&mut self) {
        let none = Config::builder("none").build().expect("a good configuration");
        let none = Connection::new(none, self.side, 0, Instant::from_nanos(START));
        for (user, ran) in std::mem::replace(&mut self.conn, none).into_unfinished() {
            self.ended(user, Status::CONNECTION_LOST, ran);
        }
        for running in std::mem::take(&mut self.running) {
            self.stopped(running);
        }
        assert!(self.open.is_empty(), "L1: into_unfinished accounts for everything: {:?}", self.open);
        self.gone = true;
    }

    /// When it next has something to do of its own accord. While the outbox is full, what waits to be committed is no
    /// reason to look again.
    pub fn wake(&self) -> u64 {
        let next = self.conn.next();
        let full = !self.outbox.has_room() && !next.event;
        let wake = if full { next.wake } else { self.conn.poll_timeout() };
        wake.map_or(u64::MAX, Instant::as_nanos)
    }

    /// What holds at every moment.
    pub fn laws(&self) {
        let (next, wake) = (self.conn.next(), self.conn.poll_timeout());
        if next.event || next.write {
            assert!(wake.is_some_and(|at| at.as_nanos() <= self.now), "L5: what waits forces the time-out");
        } else {
            assert_eq!(wake, next.wake, "L5: next() and poll_timeout() agree");
        }
        assert_eq!(
            wake.is_none(),
            next.end == End::Close && !next.event,
            "until it is over it has a time-out"
        );
        let (ours, theirs) = self.conn.open_calls();
        // One that was given up holds its place until the peer has answered it.
        assert!(ours >= self.open.len(), "L1: whoever was accepted and has not left is open");
        assert!(ours <= self.limits.max_calls as usize, "L8: own calls are bounded");
        assert!(theirs <= self.most_served(), "L8: served calls are bounded");
        assert!(theirs >= self.running.len(), "whoever runs holds a place");
    }
}

/// The two ways in which a transport ends.
pub fn cause(input: &mut Input<'_>) -> Disconnect {
    input.pick([Disconnect::Eof, Disconnect::Error("connection reset")])
}
