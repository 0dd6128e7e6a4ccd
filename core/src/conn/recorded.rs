//! Verbs that write themselves down.
//!
//! A connection that records keeps its straight way shut between verbs, and what it really is on the tape. So every verb
//! leaves the straight way, where it asks for the tape; the verb is then run anew without the tape, on the way that is
//! really open, and what came of it is written down. What is recorded is what would have happened, straight way or not; and
//! a connection that does not record pays nothing on the straight way.
//!
//! A connection that records folds itself up as any other does, in the verb in which it would have; so does its replay. What
//! does nothing while it is folded up is not written down.

use alloc::{boxed::Box, format, string::String};
use core::{mem::take, time::Duration};

use bytes::{Buf, BytesMut};

use super::{
    Connection,
    config::Side,
    event::{
        Body, CallHead, CallId, Cancel, Disconnect, Event, ItemError, Rejected, Reply, ReplyError, Served,
        Stream, Taken,
    },
    folded::Folded,
    machine::{Machine, Phase},
    outbox::Outbox,
    quick::Straight,
};
use crate::{
    record::{Answered, Entry, Found, How, Name, Pieces, Record, Recorder, Recording, Start, Told, View},
    time::Instant,
    wire::{Metadata, Ran, Status},
};

/// What is recorded, and whether the straight way is really open.
pub(super) struct Tape {
    recorder: Recorder,
    straight: Straight,
}

impl Tape {
    pub(super) fn new(record: Record, side: Side, seed: u64, now: Instant) -> Box<Self> {
        let recorder = Recorder::new(Start { side, seed, now }, record);
        Box::new(Self { recorder, straight: Straight::default() })
    }

    /// Shuts the straight way, and keeps whether it was open.
    pub(super) fn shut(&mut self, machine: &mut Machine) {
        self.straight = take(&mut machine.straight);
    }

    pub(super) fn recording(&self, config: &super::Config) -> Recording {
        self.recorder.snapshot(config)
    }
}

/// What a verb is written down with.
struct Pen<'a> {
    recorder: &'a mut Recorder,
    /// `None` if the connection is folded up now.
    machine: Option<&'a Machine>,
    folded: &'a Folded,
}

impl Pen<'_> {
    fn note(&mut self, entry: &Entry<'_>) {
        self.note_large(0, entry);
    }

    fn note_large(&mut self, octets: usize, entry: &Entry<'_>) {
        let (machine, folded) = (self.machine, self.folded);
        let now = machine.map_or(folded.now(), |machine| machine.now);
        self.recorder.note(Instant::from_nanos(now), octets, entry, || view(machine, folded));
    }
}

fn view(machine: Option<&Machine>, folded: &Folded) -> View {
    let Some(machine) = machine else {
        return View {
            phase: FOLDED,
            begins: false,
            open: (0, 0),
            highest: folded.highest(),
            unsent: 0,
            stats: folded.stats(),
        };
    };
    View {
        phase: phase(machine.phase),
        begins: matches!(
            machine.phase,
            Phase::Greeting | Phase::AwaitAck | Phase::AwaitCheckIn | Phase::Verifying | Phase::Acking
        ),
        open: (machine.calls.open() as u64, machine.served.open() as u64),
        highest: (machine.highest_out, machine.highest_in),
        unsent: machine.live.unsent as u64,
        stats: machine.stats,
    }
}

/// What stands for the phase of a connection that is folded up.
const FOLDED: &str = "Ready, folded up";

const fn phase(phase: Phase) -> &'static str {
    match phase {
        Phase::Greeting => "Greeting",
        Phase::AwaitAck => "AwaitAck",
        Phase::AwaitCheckIn => "AwaitCheckIn",
        Phase::Verifying => "Verifying",
        Phase::Acking => "Acking",
        Phase::Refusing => "Refusing",
        Phase::Ready => "Ready",
        Phase::Flushing => "Flushing",
        Phase::Closing => "Closing",
        Phase::Lingering => "Lingering",
        Phase::Ended => "Ended",
    }
}

impl<U> Connection<U> {
    /// Runs a verb as if nothing were recorded, and writes it down.
    fn run<T>(&mut self, verb: impl FnOnce(&mut Self) -> T, note: impl FnOnce(&mut Pen<'_>, &T)) -> T {
        let Some(mut tape) = self.tape.take() else { return verb(self) };
        if let Some(machine) = &mut self.machine {
            machine.straight = tape.straight;
        }
        let value = verb(self);
        let (machine, folded) = (self.machine.as_deref(), &self.folded);
        note(&mut Pen { recorder: &mut tape.recorder, machine, folded }, &value);
        if let Some(machine) = &mut self.machine {
            tape.shut(machine);
        }
        self.tape = Some(tape);
        value
    }

    /// The entry that was written down last, and a mark of how things stand: for a replay to compare.
    pub(crate) fn last_recorded(&self) -> &[u8] {
        self.tape.as_ref().map(|tape| tape.recorder.last.as_slice()).unwrap_or_default()
    }

    pub(crate) fn mark_recorded(&self, out: &mut alloc::vec::Vec<u8>) {
        if let Some(tape) = &self.tape {
            Entry::Mark(tape.recorder.mark(&view(self.machine.as_deref(), &self.folded))).put(0, out);
        }
    }

    pub(crate) fn phase_name(&self) -> &'static str {
        self.machine.as_ref().map_or(FOLDED, |machine| phase(machine.phase))
    }

    #[cold]
    #[inline(never)]
    pub(super) fn record_input(&mut self, now: Instant, filled: BytesMut) {
        let octets = filled.len();
        let comes = self.tape.as_mut().map(|tape| tape.recorder.comes(&filled)).unwrap_or_default();
        self.run(
            |conn| conn.handle_input(now, filled),
            |pen, ()| pen.note_large(octets, &Entry::Input(Pieces(&comes))),
        );
        if let Some(tape) = &mut self.tape {
            tape.recorder.used_in(comes);
        }
    }

    #[cold]
    #[inline(never)]
    pub(super) fn record_sent(&mut self, now: Instant, octets: usize) {
        self.run(|conn| conn.handle_sent(now, octets), |pen, ()| pen.note(&Entry::Sent(octets as u64)));
    }

    #[cold]
    #[inline(never)]
    pub(super) fn record_disconnect(&mut self, now: Instant, cause: Disconnect) {
        let error = match cause {
            Disconnect::Eof => None,
            Disconnect::Error(what) => Some(what),
        };
        self.run(|conn| conn.handle_disconnect(now, cause), |pen, ()| pen.note(&Entry::Disconnect(error)));
    }

    #[cold]
    #[inline(never)]
    pub(super) fn record_timeout(&mut self, now: Instant) {
        self.run(|conn| conn.handle_timeout(now), |pen, ()| pen.note(&Entry::Timeout));
    }

    #[cold]
    #[inline(never)]
    pub(super) fn record_call(
        &mut self,
        now: Instant,
        head: &CallHead<'_>,
        body: Body<'_>,
        one_way: bool,
        user: U,
    ) -> Result<CallId, Rejected<U>> {
        let machine = self.awake();
        let config = &machine.config;
        let packs = (head.compress || config.compress) && machine.snappy;
        let whole = packs && body.len() >= config.compress_from;
        let kept = body.clone();
        self.run(
            |conn| conn.begin(now, head, body, one_way, user),
            |pen, result| {
                let body = pen.recorder.given(kept.octets(), whole);
                let result = result.as_ref().map_or_else(|rejected| Err(rejected.reason), |id| Ok(*id));
                let metadata: &[Metadata<'_>] = head.metadata;
                let head = CallHead { metadata: &[], ..*head };
                pen.note_large(
                    body.len,
                    &Entry::Call { head, metadata: metadata.into(), one_way, body, result },
                );
            },
        )
    }

    #[cold]
    #[inline(never)]
    pub(super) fn record_cancel(&mut self, now: Instant, call: CallId) -> Option<(U, Ran)> {
        self.run(
            |conn| conn.cancel_and_tell(now, call),
            |pen, given_up| {
                let ran = given_up.as_ref().map(|(_, ran)| *ran);
                pen.note(&Entry::Cancel { call, ran });
            },
        )
    }

    #[cold]
    #[inline(never)]
    pub(super) fn record_reply(
        &mut self,
        now: Instant,
        how: How,
        call: Served,
        reply: &Reply<'_>,
    ) -> Result<(), ReplyError> {
        let whole = self.awake().may_pack(call.into(), reply.body.len());
        self.run(
            |conn| match how {
                How::Reply => conn.reply(now, call, reply),
                How::Refuse => conn.refuse(now, call, reply),
                How::Panicked => conn.panicked(now, call),
            },
            |pen, result| {
                let body = pen.recorder.given(reply.body.octets(), whole);
                let answer = Answered {
                    status: reply.status,
                    message: reply.message,
                    code: reply.code,
                    retry_after: reply.retry_after,
                    owner: reply.owner,
                    metadata: reply.metadata.into(),
                };
                pen.note_large(body.len, &Entry::Reply { how, call, answer, body, result: *result });
            },
        )
    }

    #[cold]
    #[inline(never)]
    pub(super) fn record_send_item(
        &mut self,
        now: Instant,
        stream: Stream,
        item: Body<'_>,
    ) -> Result<(), ItemError> {
        let whole = self.awake().may_pack(stream, item.len());
        let kept = item.clone();
        self.run(
            |conn| conn.send_item(now, stream, item),
            |pen, result| {
                let body = pen.recorder.given(kept.octets(), whole);
                pen.note_large(body.len, &Entry::SendItem { stream, body, result: *result });
            },
        )
    }

    #[cold]
    #[inline(never)]
    pub(super) fn record_end_items(&mut self, now: Instant, call: CallId) -> Result<(), ItemError> {
        self.run(
            |conn| conn.end_items(now, call),
            |pen, result| pen.note(&Entry::EndItems { call, result: *result }),
        )
    }

    #[cold]
    #[inline(never)]
    pub(super) fn record_take_item(&mut self, now: Instant, stream: Stream) -> Option<Taken> {
        self.run(
            |conn| conn.take_item(now, stream),
            |pen, taken| {
                let found = match taken {
                    None => Found::Nothing,
                    Some(Taken::End) => Found::End,
                    Some(Taken::Item(item)) => {
                        Found::Item { len: item.len() as u64, digest: pen.recorder.digest(item) }
                    }
                };
                pen.note(&Entry::TakeItem { stream, found });
            },
        )
    }

    #[cold]
    #[inline(never)]
    pub(super) fn record_grant(&mut self, now: Instant, stream: Stream, octets: u32) {
        self.run(
            |conn| conn.grant(now, stream, octets),
            |pen, ()| pen.note(&Entry::Grant { stream, octets }),
        );
    }

    #[cold]
    #[inline(never)]
    pub(super) fn record_accept(&mut self, now: Instant) {
        self.run(|conn| conn.accept_check_in(now), |pen, ()| pen.note(&Entry::Accept));
    }

    #[cold]
    #[inline(never)]
    pub(super) fn record_refusal(
        &mut self,
        now: Instant,
        status: Status,
        message: &str,
        retry_after: Option<Duration>,
    ) {
        self.run(
            |conn| conn.refuse_check_in(now, status, message, retry_after),
            |pen, ()| pen.note(&Entry::Refuse { status, message, retry_after }),
        );
    }

    #[cold]
    #[inline(never)]
    pub(super) fn record_probe(&mut self, now: Instant) -> bool {
        self.run(|conn| conn.probe(now), |pen, sent| pen.note(&Entry::Probe(*sent)))
    }

    #[cold]
    #[inline(never)]
    pub(super) fn record_drain(&mut self, now: Instant, status: Status, grace: Duration, message: &str) {
        self.run(
            |conn| conn.drain(now, status, grace, message),
            |pen, ()| pen.note(&Entry::Drain { status, grace, message }),
        );
    }

    #[cold]
    #[inline(never)]
    pub(super) fn record_close(&mut self, now: Instant, status: Status, message: &str) {
        self.run(
            |conn| conn.close(now, status, message),
            |pen, ()| pen.note(&Entry::Close { status, message }),
        );
    }

    #[cold]
    #[inline(never)]
    pub(super) fn record_event(&mut self, now: Instant) -> Option<Event<U>> {
        self.run(
            |conn| conn.poll_event(now),
            |pen, event| {
                let words;
                let digest = |octets: &[u8]| pen.recorder.digest(octets);
                let told = match event {
                    None => Told::Nothing,
                    Some(Event::Request(incoming)) => Told::Request {
                        call: incoming.call,
                        method: incoming.method,
                        one_way: incoming.one_way,
                        priority: incoming.priority,
                        codec: incoming.codec,
                        kind: incoming.kind,
                        deadline: incoming.deadline,
                        len: incoming.payload.len() as u64,
                        digest: digest(&incoming.payload),
                    },
                    Some(Event::Done { outcome: Ok(answer), rest, .. }) => Told::Done {
                        len: answer.payload.len() as u64,
                        digest: digest(&answer.payload),
                        rest: rest.len() as u64,
                    },
                    Some(other) => {
                        words = in_words(other);
                        Told::Other(&words)
                    }
                };
                pen.note(&Entry::Event(told));
            },
        )
    }

    #[cold]
    #[inline(never)]
    pub(super) fn record_transmit(&mut self, now: Instant, out: &mut Outbox) -> bool {
        let before = out.remaining();
        let (room, bulk) = out.room();
        let (room, bulk) = (room as u64, bulk as u64);
        // The outbox is lent to the verb and then looked at.
        self.run(
            |conn| {
                let any = conn.poll_transmit(now, out);
                (any, out)
            },
            |pen, (_, out)| {
                let (goes, digest) = pen.recorder.goes(behind(out, before));
                let octets = out.remaining().saturating_sub(before);
                pen.note_large(octets, &Entry::Transmit { room, bulk, pieces: Pieces(&goes), digest });
                pen.recorder.used_out(goes);
            },
        )
        .0
    }
}

/// What stands in the outbox behind so many octets.
fn behind(out: &Outbox, mut skip: usize) -> impl Iterator<Item = &[u8]> {
    out.chunks().map(move |chunk| {
        let here = skip.min(chunk.len());
        skip -= here;
        chunk.get(here..).unwrap_or_default()
    })
}

/// An event that is not one of the frequent ones.
fn in_words<U>(event: &Event<U>) -> String {
    match event {
        Event::CheckIn(check_in) => {
            format!("{} asks to be checked in", check_in.peer.identifier)
        }
        Event::Ready(peer) => {
            let (interval, snappy) =
                (peer.heartbeat_interval, if peer.snappy { ", with Snappy" } else { "" });
            format!("check-in is complete with {}: heartbeats every {interval:?}{snappy}", peer.identifier)
        }
        Event::Cancelled(call, why) => {
            let why = match why {
                Cancel::ByCaller => "its caller gave it up",
                Cancel::Expired => "its deadline has passed",
                Cancel::BrokenItem => "an item of its stream is broken",
                Cancel::Disconnected => "the connection ends",
            };
            format!("{} need not go on: {why}", Name((*call).into()))
        }
        Event::Done { outcome: Err(failure), rest, .. } => {
            let (detail, rest) = (failure.detail().len(), rest.len());
            format!(
                "a call of this side has failed: {failure}; detail of {detail} octets, {rest} items untaken"
            )
        }
        Event::Readable(stream) => format!("{} has something to be read", Name(*stream)),
        Event::Writable(stream) => format!("{} has room for items", Name(*stream)),
        Event::Room => "there is room for calls again".into(),
        Event::Draining { until, status } => format!("the peer drains until {until:?}: {status}"),
        Event::Alive => "the peer has answered the probe".into(),
        Event::Closed(closed) => format!("it is over, {closed}"),
        // The frequent ones are not told in words.
        Event::Request(_) | Event::Done { .. } => String::new(),
    }
}
