//! Doing it all again: a recording stepped on a real connection, and told in words.
//!
//! The connection of a replay records itself, with the same settings. A step is the same if what it writes down is the same,
//! octet for octet: its result, what was committed, what was told. At the first step that is not, or where the recording
//! has a gap, there is no connection any more that could be asked; the rest is told as it was recorded.

use alloc::{string::String, vec::Vec};
use core::fmt::{self, Write};

use bytes::BytesMut;

use super::{
    entry::{Answered, Entry, Given, How, Told, entries},
    form::Recording,
    pieces::{Pieces, Stream},
    setup,
    words::Framed,
};
use crate::{
    conn::{Body, CallHead, Connection, Disconnect, Outbox, Reply, Stats},
    time::Instant,
    wire::Escaped,
};

/// What a [replay](Recording::replay) has shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Verdict {
    /// Steps in the recording.
    pub steps: u64,
    /// Of those, how many were done again and were the same.
    pub same: u64,
    /// The first step that this build does otherwise.
    pub differs: Option<u64>,
    /// Entries that are missing, because the ring was full or one was too large.
    pub lost: u64,
}

impl Verdict {
    /// Whether every step was done again and was the same.
    #[must_use]
    pub const fn is_same(&self) -> bool {
        self.differs.is_none() && self.lost == 0
    }
}

/// One line, for people.
impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { steps, same, differs, lost } = self;
        match (differs, lost) {
            (Some(step), _) => write!(f, "this build behaves differently from step {step} on, of {steps}"),
            (None, 0) => write!(f, "all {steps} steps are the same in this build"),
            (None, lost) => write!(
                f,
                "{lost} entries are missing: the first {same} steps are the same in this build, the other {} can \
                 only be shown",
                steps.saturating_sub(*same)
            ),
        }
    }
}

impl Recording {
    /// Steps it and writes to `out`, line by line, what came and went, frame by frame, what was decided, and how the state
    /// changed. It does not matter where and when: only what is recorded is looked at.
    ///
    /// # Errors
    /// What `out` reports.
    pub fn replay(&self, out: &mut dyn Write) -> Result<Verdict, fmt::Error> {
        write!(out, "{self}")?;
        let mut teller = Teller::new(self, out);
        teller.all(&self.beginning)?;
        if self.lost.0 > 0 {
            teller.gap(self.lost)?;
        }
        for part in &self.parts {
            teller.all(part)?;
        }
        teller.end()
    }
}

/// A connection that does it again.
struct Again {
    conn: Connection<u64>,
    phase: &'static str,
    stats: Stats,
    wake: Option<Instant>,
    /// What a mark is compared with.
    mark: Vec<u8>,
    /// What the transport said.
    failed: Option<&'static str>,
}

struct Teller<'a> {
    out: &'a mut dyn Write,
    again: Option<Again>,
    /// What came in, and what went out.
    comes: Stream,
    goes: Stream,
    start: Instant,
    now: Instant,
    verdict: Verdict,
    /// A mark is told, for it says where the rest begins.
    tells_mark: bool,
}

impl<'a> Teller<'a> {
    fn new(recording: &Recording, out: &'a mut dyn Write) -> Self {
        let start = recording.start;
        let config = setup::read(&recording.setup, recording.settings);
        let again = config.ok().and_then(Result::ok).map(|config| {
            let conn = Connection::new(config, start.side, start.seed, start.now);
            let (phase, stats) = (conn.phase_name(), conn.stats());
            Again { conn, phase, stats, wake: None, mark: Vec::new(), failed: None }
        });
        Self {
            out,
            again,
            comes: Stream::default(),
            goes: Stream::default(),
            start: start.now,
            now: start.now,
            verdict: Verdict { steps: 0, same: 0, differs: None, lost: 0 },
            tells_mark: false,
        }
    }

    fn all(&mut self, octets: &[u8]) -> fmt::Result {
        for octets in entries(octets) {
            // They were read once before, when the recording was.
            if let Ok((_, octets)) = octets
                && let Ok((since, entry)) = Entry::read(octets)
            {
                self.step(octets, since, &entry)?;
            }
        }
        Ok(())
    }

    fn gap(&mut self, (entries, octets): (u64, u64)) -> fmt::Result {
        self.verdict.lost = self.verdict.lost.saturating_add(entries);
        self.again = None;
        self.tells_mark = true;
        writeln!(
            self.out,
            "-- {entries} entries, of {octets} octets, are missing here: the ring was full. What follows is told as it \
             was recorded."
        )
    }

    fn step(&mut self, octets: &[u8], since: u64, entry: &Entry<'_>) -> fmt::Result {
        if let Entry::Mark(mark) = entry {
            return self.mark(octets, entry, mark.now);
        }
        self.verdict.steps = self.verdict.steps.saturating_add(1);
        self.now = Instant::from_nanos(self.now.as_nanos().saturating_add(since));
        self.tell(entry)?;
        if let Entry::Lost(_) = entry {
            self.verdict.lost = self.verdict.lost.saturating_add(1);
            self.again = None;
        }
        if let Some(again) = &mut self.again {
            again.apply(self.now, self.verdict.steps, entry);
            if again.conn.last_recorded() == octets {
                self.verdict.same = self.verdict.same.saturating_add(1);
            } else {
                let words = Entry::read(again.conn.last_recorded())
                    .map_or_else(|_| String::new(), |(_, entry)| alloc::format!("{entry}"));
                self.differs(&words)?;
            }
        }
        self.frames(entry)?;
        self.changes()
    }

    /// Marks say how it stood when a part began: a replay compares, and behind a gap they are told.
    fn mark(&mut self, octets: &[u8], entry: &Entry<'_>, now: Instant) -> fmt::Result {
        if core::mem::take(&mut self.tells_mark)
            && let Entry::Mark(mark) = entry
        {
            self.now = now;
            let [(head, left), (head_out, left_out)] = mark.places;
            (self.comes, self.goes) = (Stream::from(head, left), Stream::from(head_out, left_out));
            writeln!(self.out, "-- {} after it began {entry}", self.since())?;
        }
        if let Some(again) = &mut self.again {
            again.mark.clear();
            again.conn.mark_recorded(&mut again.mark);
            if again.mark != octets {
                let words =
                    Entry::read(&again.mark).map_or_else(|_| String::new(), |(_, it)| alloc::format!("{it}"));
                writeln!(self.out, "   recorded: {entry}")?;
                return self.differs(&words);
            }
        }
        Ok(())
    }

    fn differs(&mut self, words: &str) -> fmt::Result {
        self.verdict.differs.get_or_insert(self.verdict.steps);
        self.again = None;
        writeln!(self.out, "   DIFFERS: this build does: {words}")?;
        writeln!(self.out, "-- what follows is told as it was recorded")
    }

    fn since(&self) -> String {
        alloc::format!("{:?}", self.now.saturating_since(self.start))
    }

    /// The step in a line, unless nothing happened in it.
    fn tell(&mut self, entry: &Entry<'_>) -> fmt::Result {
        match entry {
            Entry::Event(Told::Nothing) => Ok(()),
            Entry::Transmit { pieces, .. } if pieces.0.is_empty() => Ok(()),
            _ => writeln!(self.out, "{:>6} {:>14} {entry}", self.verdict.steps, self.since()),
        }
    }

    /// The frames that have become whole in this step.
    fn frames(&mut self, entry: &Entry<'_>) -> fmt::Result {
        let (arrow, stream, pieces) = match entry {
            Entry::Input(pieces) => ("->", &mut self.comes, *pieces),
            Entry::Transmit { pieces, .. } => ("<-", &mut self.goes, *pieces),
            _ => return Ok(()),
        };
        stream.push(pieces);
        while let Some(frame) = stream.frame() {
            writeln!(self.out, "       {arrow} {}", Framed(&frame))?;
        }
        Ok(())
    }

    /// What has become of the state.
    fn changes(&mut self) -> fmt::Result {
        let now = self.now;
        let Some(again) = &mut self.again else { return Ok(()) };
        let phase = again.conn.phase_name();
        if phase != again.phase {
            writeln!(self.out, "       state: {} -> {phase}", again.phase)?;
            again.phase = phase;
        }
        let stats = again.conn.stats();
        let counters = [
            (stats.refused, again.stats.refused, "calls of the peer refused"),
            (stats.late_frames, again.stats.late_frames, "frames for calls that are over"),
            (stats.dropped_one_ways, again.stats.dropped_one_ways, "one-ways of the peer dropped"),
            (stats.signature_mismatches, again.stats.signature_mismatches, "other signatures let pass"),
        ];
        for (after, before, what) in counters {
            if after != before {
                writeln!(self.out, "       decided: {what}, {after} in all")?;
            }
        }
        again.stats = stats;
        let wake = again.conn.next().wake;
        if wake != again.wake {
            again.wake = wake;
            match wake {
                Some(at) => writeln!(self.out, "       timer: in {:?}", at.saturating_since(now))?,
                None => writeln!(self.out, "       timer: none")?,
            }
        }
        Ok(())
    }

    fn end(self) -> Result<Verdict, fmt::Error> {
        for (stream, what) in [(&self.comes, "came"), (&self.goes, "went out")] {
            let rest = stream.rest();
            if !rest.is_empty() {
                let start = rest.get(..32).unwrap_or(rest);
                let octets = rest.len();
                writeln!(
                    self.out,
                    "-- {octets} octets {what} that make no whole frame: \"{}\"",
                    Escaped(start)
                )?;
            }
        }
        writeln!(self.out, "{}", self.verdict)?;
        Ok(self.verdict)
    }
}

impl Again {
    fn apply(&mut self, now: Instant, step: u64, entry: &Entry<'_>) {
        let conn = &mut self.conn;
        match entry {
            Entry::Input(pieces) => conn.handle_input(now, restored(*pieces)),
            Entry::Sent(octets) => conn.handle_sent(now, usize::try_from(*octets).unwrap_or(usize::MAX)),
            Entry::Disconnect(None) => conn.handle_disconnect(now, Disconnect::Eof),
            Entry::Disconnect(Some(what)) => {
                // The core takes texts that live as long as the program; a replay leaves one behind at most.
                let known = *self.failed.get_or_insert_with(|| String::from(*what).leak());
                conn.handle_disconnect(now, Disconnect::Error(known));
            }
            Entry::Timeout => conn.handle_timeout(now),
            Entry::Call { head, metadata, one_way, body, .. } => {
                let head = CallHead { metadata, ..*head };
                let _ = if *one_way {
                    conn.one_way(now, &head, share(body), step)
                } else {
                    conn.call(now, &head, share(body), step)
                };
            }
            Entry::Cancel { call, .. } => drop(conn.cancel_and_tell(now, *call)),
            Entry::Reply { how, call, answer, body, .. } => {
                let Answered { status, message, code, retry_after, owner, metadata } = answer;
                let mut reply = Reply::error(*status, message);
                reply.body = share(body);
                (reply.code, reply.retry_after, reply.owner) = (*code, *retry_after, owner);
                reply.metadata = metadata;
                let _ = match how {
                    How::Reply => conn.reply(now, *call, &reply),
                    How::Refuse => conn.refuse(now, *call, &reply),
                    How::Panicked => conn.panicked(now, *call),
                };
            }
            Entry::SendItem { stream, body, .. } => drop(conn.send_item(now, *stream, share(body))),
            Entry::EndItems { call, .. } => drop(conn.end_items(now, *call)),
            Entry::TakeItem { stream, .. } => drop(conn.take_item(now, *stream)),
            Entry::Grant { stream, octets } => conn.grant(now, *stream, *octets),
            Entry::Accept => conn.accept_check_in(now),
            Entry::Refuse { status, message, retry_after } => {
                conn.refuse_check_in(now, *status, message, *retry_after);
            }
            Entry::Probe(_) => drop(conn.probe(now)),
            Entry::Drain { status, grace, message } => conn.drain(now, *status, *grace, message),
            Entry::Close { status, message } => conn.close(now, *status, message),
            Entry::Event(_) => drop(conn.poll_event(now)),
            Entry::Transmit { room, bulk, .. } => {
                let [room, bulk] = [*room, *bulk].map(|octets| usize::try_from(octets).unwrap_or(usize::MAX));
                let mut outbox = Outbox::with_marks(room, bulk);
                conn.poll_transmit(now, &mut outbox);
            }
            Entry::Mark(_) | Entry::Lost(_) => {}
        }
    }
}

fn restored(pieces: Pieces<'_>) -> BytesMut {
    let mut octets = Vec::new();
    pieces.restore(&mut octets);
    octets.as_slice().into()
}

fn share(body: &Given<'_>) -> Body<'static> {
    Body::Share(body.restore().into())
}
