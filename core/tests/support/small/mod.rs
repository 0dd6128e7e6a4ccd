//! A world that is small enough for every run of it: two connections, the frames between them, and a few calls.

mod judged;

use std::{collections::VecDeque, time::Duration};

use bytes::Buf;
use tieline_core::{
    Instant,
    conn::{
        Body, CallHead, CallId, Connection, Disconnect, End, Event, ItemError, Limits, Outbox, Reply, Served,
        Side, Stream, Taken,
    },
    wire::{Kind, Ran, Status},
};

use super::{
    frames::{Seen, take_frames},
    hostile::{NAMES, all_kinds},
    peer::KINDS,
    piece::{self, Piece},
    raw::SECOND,
    tally::Tally,
    tap::Tap,
};

/// What can happen in a world.
#[derive(Clone, Copy)]
pub struct World {
    /// The calls that the client can make: kind, octets of the argument, key.
    pub calls: &'static [(usize, usize, &'static [u8])],
    /// Items that the caller of a stream can send, and the callee.
    pub up: u8,
    pub down: u8,
    pub cancels: bool,
    pub drains: bool,
    pub closes: bool,
    pub breaks: bool,
}

impl World {
    pub const DEFAULT: Self =
        Self { calls: &[], up: 0, down: 0, cancels: true, drains: true, closes: false, breaks: true };
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Action {
    /// A side commits a frame, or the few that go at once.
    Commit(usize),
    /// The next frame of a side reaches the other.
    Deliver(usize),
    Call(usize),
    Cancel(usize),
    SendUp(usize),
    EndUp(usize),
    TakeDown(usize),
    SendDown(usize),
    TakeUp(usize),
    Reply(usize),
    /// A handler that was cancelled stops.
    Stop(usize),
    Drain(usize),
    Close(usize),
    /// The line breaks; what is on it still arrives.
    Break,
    /// A side hears of the end of the line.
    Eof(usize),
}

/// A call, at its caller.
#[derive(Debug, Default, Hash)]
struct Made {
    /// Its place in the world's list.
    index: usize,
    outcome: Option<(u8, Option<bool>)>,
    sent: u8,
    ended: bool,
    got: u8,
    readable: bool,
}

/// A call, at its callee.
#[derive(Debug, Hash)]
struct Running {
    index: usize,
    cancelled: bool,
    sent: u8,
    got: u8,
    readable: bool,
    over: bool,
}

pub struct Small {
    world: World,
    conns: [Connection<u32>; 2],
    taps: [Tap; 2],
    tally: Tally,
    /// Frames from each side to the other.
    line: [VecDeque<Seen>; 2],
    out: [Vec<u8>; 2],
    made: Vec<(Made, Option<CallId>)>,
    running: Vec<(Running, Served)>,
    drained: [bool; 2],
    closing: [bool; 2],
    broken: bool,
    told_eof: [bool; 2],
    closed: [bool; 2],
    /// Wire ids, by the place in the world's list.
    ids: Vec<u64>,
}

const NOW: Instant = Instant::from_nanos(1_000 * SECOND);
const CLIENT: usize = 0;
const SERVER: usize = 1;

impl Small {
    /// Two ends that have checked in.
    pub fn new(world: World) -> Self {
        let mut limits = Limits::default();
        limits.max_frame = 16 << 10;
        limits.max_message = 20_000;
        limits.memory = 20_100;
        limits.max_concurrent = 2;
        limits.max_streams = 1;
        limits.stream_window = 300;
        limits.max_queued_items = 400;
        let conn = |side| Connection::new(all_kinds().limits(limits.clone()).build().unwrap(), side, 7, NOW);
        let mut small = Self {
            world,
            conns: [conn(Side::Client), conn(Side::Server)],
            taps: [Tap::new(Side::Client, true), Tap::new(Side::Server, true)],
            tally: Tally::default(),
            line: [VecDeque::new(), VecDeque::new()],
            out: [Vec::new(), Vec::new()],
            made: Vec::new(),
            running: Vec::new(),
            drained: [false; 2],
            closing: [false; 2],
            broken: false,
            told_eof: [false; 2],
            closed: [false; 2],
            ids: vec![0; world.calls.len()],
        };
        while small.move_everything() {}
        small
    }

    fn kind(&self, index: usize) -> Kind {
        KINDS[self.world.calls[index].0]
    }

    fn goes_up(&self, index: usize) -> bool {
        matches!(self.kind(index), Kind::ClientStream | Kind::Bidi)
    }

    fn goes_down(&self, index: usize) -> bool {
        matches!(self.kind(index), Kind::ServerStream | Kind::Bidi)
    }

    fn is_gone(&self, side: usize) -> bool {
        self.conns[side].next().end == End::Close
    }

    /// Everything that could happen next.
    pub fn enabled(&self) -> Vec<Action> {
        let mut all = Vec::new();
        for side in [CLIENT, SERVER] {
            let next = self.conns[side].next();
            if next.write {
                all.push(Action::Commit(side));
            }
            if !self.line[side].is_empty() {
                all.push(Action::Deliver(side));
            }
            let other = self.conns[1 - side].next().end;
            let over = self.broken || other != End::Open;
            if over && self.line[1 - side].is_empty() && !self.told_eof[side] && !self.is_gone(side) {
                all.push(Action::Eof(side));
            }
            if self.world.drains && !self.drained[side] && !self.closed[side] {
                all.push(Action::Drain(side));
            }
            if self.world.closes && !self.closing[side] && !self.closed[side] {
                all.push(Action::Close(side));
            }
        }
        if self.world.breaks && !self.broken {
            all.push(Action::Break);
        }
        if self.made.len() < self.world.calls.len() {
            all.push(Action::Call(self.made.len()));
        }
        for (at, (made, _)) in self.made.iter().enumerate().filter(|(_, (made, _))| made.outcome.is_none()) {
            if self.world.cancels {
                all.push(Action::Cancel(at));
            }
            if self.goes_up(made.index) && !made.ended {
                if made.sent < self.world.up {
                    all.push(Action::SendUp(at));
                }
                all.push(Action::EndUp(at));
            }
            if made.readable {
                all.push(Action::TakeDown(at));
            }
        }
        for (at, (running, _)) in self.running.iter().enumerate() {
            if running.cancelled {
                all.push(Action::Stop(at));
                continue;
            }
            all.push(Action::Reply(at));
            if self.goes_down(running.index) && running.sent < self.world.down {
                all.push(Action::SendDown(at));
            }
            if running.readable {
                all.push(Action::TakeUp(at));
            }
        }
        all
    }

    pub fn act(&mut self, action: Action) {
        match action {
            Action::Commit(side) => self.commit(side, 1),
            Action::Deliver(side) => self.deliver(side),
            Action::Call(index) => self.call(index),
            Action::Cancel(at) => {
                let id = self.made[at].1.unwrap();
                assert_eq!(self.conns[CLIENT].cancel(NOW, id), Some(at as u32));
                self.made[at].0.outcome = Some((Status::CANCELLED.0, None));
                self.made[at].0.readable = false;
            }
            Action::SendUp(at) => {
                let id = self.made[at].1.unwrap();
                let sent = self.conns[CLIENT].send_item(NOW, id, Body::Copy(&[self.made[at].0.sent; 100]));
                self.made[at].0.sent += u8::from(sent.is_ok());
                assert!(sent != Err(ItemError::TooLarge));
            }
            Action::EndUp(at) => {
                let id = self.made[at].1.unwrap();
                let _ = self.conns[CLIENT].end_items(NOW, id);
                self.made[at].0.ended = true;
            }
            Action::TakeDown(at) => {
                let (made, id) = &mut self.made[at];
                let stream = Stream::Ours(id.unwrap());
                let index = made.index;
                match self.conns[CLIENT].take_item(NOW, stream) {
                    Some(Taken::Item(item)) => {
                        assert_eq!(item[..], [made.got; 100]);
                        made.got += 1;
                        self.taps[CLIENT].ledger.took(self.ids[index]);
                    }
                    found => {
                        assert_eq!(found, None, "a callee's items end with the RESPONSE");
                        made.readable = false;
                    }
                }
            }
            Action::SendDown(at) => {
                let (running, call) = &mut self.running[at];
                let sent = self.conns[SERVER].send_item(NOW, *call, Body::Copy(&[running.sent; 100]));
                running.sent += u8::from(sent.is_ok());
            }
            Action::TakeUp(at) => {
                let (running, call) = &mut self.running[at];
                let index = running.index;
                match self.conns[SERVER].take_item(NOW, *call) {
                    Some(Taken::Item(item)) => {
                        assert_eq!(item[..], [running.got; 100]);
                        running.got += 1;
                        self.taps[SERVER].ledger.took(self.ids[index]);
                    }
                    Some(Taken::End) => {
                        let (made, _) = &self.made[index];
                        assert!(made.ended && made.sent == running.got, "an end before all items");
                        (running.readable, running.over) = (false, true);
                    }
                    None => running.readable = false,
                }
            }
            Action::Reply(at) => {
                let (running, call) = self.running.remove(at);
                let reply = [9, running.index as u8];
                let _ = self.conns[SERVER].reply(NOW, call, &Reply::ok(Body::Copy(&reply)));
            }
            Action::Stop(at) => {
                let (_, call) = self.running.remove(at);
                self.conns[SERVER].stopped(NOW, call);
            }
            Action::Drain(side) => {
                self.drained[side] = true;
                self.conns[side].drain(NOW, Status::GOING_AWAY, Duration::from_secs(3_600), "");
            }
            Action::Close(side) => {
                self.closing[side] = true;
                self.conns[side].close(NOW, Status::NORMAL, "");
            }
            Action::Break => self.broken = true,
            Action::Eof(side) => {
                self.told_eof[side] = true;
                self.conns[side].handle_disconnect(NOW, Disconnect::Eof);
            }
        }
        self.events();
    }

    fn call(&mut self, index: usize) {
        let (kind, octets, key) = self.world.calls[index];
        let mut head = CallHead::new(NAMES[kind]);
        head.kind = KINDS[kind];
        head.ordering_key = key;
        head.credit = Some(300);
        let argument = piece::argument(CLIENT, false, index as u32, argument(octets));
        let made = Made { index, ..Made::default() };
        match self.conns[CLIENT].call(NOW, &head, Body::Share(argument.into()), index as u32) {
            Ok(id) => self.made.push((made, Some(id))),
            Err(rejected) => {
                assert_eq!(rejected.user, index as u32);
                let outcome = Some((rejected.reason.status().0, Some(false)));
                self.made.push((Made { outcome, ..made }, None));
            }
        }
    }

    /// Commits until the outbox holds `mark` octets.
    fn commit(&mut self, side: usize, mark: usize) {
        let mut outbox = Outbox::with_mark(mark);
        self.conns[side].poll_transmit(NOW, &mut outbox);
        let octets: Vec<u8> = outbox.chunks().flatten().copied().collect();
        outbox.advance(octets.len());
        self.conns[side].handle_sent(NOW, octets.len());
        self.taps[side].committed(&octets, &mut self.tally);
        for call in std::mem::take(&mut self.taps[side].calls) {
            self.ids[call.number as usize] = call.id;
        }
        self.out[side].extend_from_slice(&octets);
        let frames = take_frames(&mut self.out[side]);
        if !self.broken && !self.is_gone(1 - side) {
            self.line[side].extend(frames);
        }
    }

    fn deliver(&mut self, side: usize) {
        let Some(frame) = self.line[side].pop_front() else { return };
        if !self.is_gone(1 - side) {
            self.taps[1 - side].given(&frame.octets);
            self.conns[1 - side].handle_input(NOW, frame.octets[..].into());
        }
    }

    fn events(&mut self) {
        for side in [CLIENT, SERVER] {
            while let Some(event) = self.conns[side].poll_event(NOW) {
                assert!(!self.closed[side], "behind Closed: {event:?}");
                self.on(side, event);
            }
        }
    }

    fn on(&mut self, side: usize, event: Event<u32>) {
        match event {
            Event::Request(incoming) => {
                let (_, number) = piece::name(&incoming.payload).unwrap();
                let index = number as usize;
                assert!(argument(self.world.calls[index].1).is(&incoming.payload[piece::NAME..]));
                let key = self.world.calls[index].2;
                let same = self.running.iter().filter(|(it, _)| self.world.calls[it.index].2 == key);
                assert!(key.is_empty() || same.count() == 0, "two of a key at once");
                let running =
                    Running { index, cancelled: false, sent: 0, got: 0, readable: false, over: false };
                self.running.push((running, incoming.call));
            }
            Event::Cancelled(call, _) => {
                let (running, _) = self.running.iter_mut().find(|(_, it)| *it == call).unwrap();
                running.cancelled = true;
            }
            Event::Done { user, outcome, rest } => {
                let (made, _) = &mut self.made[user as usize];
                assert!(made.outcome.is_none(), "two outcomes of {user}");
                for item in rest {
                    assert_eq!(item[..], [made.got; 100]);
                    made.got += 1;
                }
                made.readable = false;
                made.outcome = Some(match outcome {
                    Ok(answer) => {
                        assert_eq!(answer.payload[..], [9, made.index as u8]);
                        (Status::OK.0, Some(true))
                    }
                    Err(failure) => {
                        let ran = match failure.ran() {
                            Ran::No => Some(false),
                            Ran::Maybe => None,
                            Ran::Yes => Some(true),
                        };
                        (failure.status().0, ran)
                    }
                });
            }
            Event::Readable(Stream::Ours(id)) => {
                self.made.iter_mut().find(|(_, it)| *it == Some(id)).unwrap().0.readable = true;
            }
            Event::Readable(Stream::Theirs(call)) => {
                self.running.iter_mut().find(|(_, it)| *it == call).unwrap().0.readable = true;
            }
            Event::Draining { .. } => self.taps[side].peer_drains = true,
            Event::Closed(_) => {
                self.closed[side] = true;
                self.taps[side].over = true;
            }
            Event::Ready(_) | Event::Writable(_) | Event::Room => {}
            other => panic!("{other:?}"),
        }
    }
}

/// The piece that an argument of so many octets has behind its name.
const fn argument(octets: usize) -> Piece {
    Piece { tag: 1, len: octets, noise: true }
}
