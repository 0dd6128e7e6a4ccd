//! What a connection writes down while it lives: the beginning, and the last of what followed, in a ring.
//!
//! The beginning, up to the end of check-in, is kept for good. What follows is kept in parts of an eighth of the ring; the
//! oldest part goes when there is no room. Each begins with a [`Mark`](Entry::Mark), which says how the connection stood,
//! so what is left can be read without what has gone. As long as nothing has gone the recording is complete.

use alloc::{collections::VecDeque, vec::Vec};

use super::{
    Record,
    entry::{Entry, Given, Mark},
    form::{Recording, Start},
    ink::put_octets,
    pieces::MOST,
    scan::{Cutter, Digest, Scan},
    setup,
};
use crate::{
    conn::{Config, Stats},
    time::Instant,
};

/// The most that is kept of the beginning.
const BEGINNING: usize = 64 << 10;
const PARTS: usize = 8;

/// How a connection stands.
pub(crate) struct View {
    pub(crate) phase: &'static str,
    pub(crate) begins: bool,
    pub(crate) open: (u64, u64),
    pub(crate) highest: (u64, u64),
    pub(crate) unsent: u64,
    pub(crate) stats: Stats,
}

#[derive(Debug, Default)]
struct Part {
    octets: Vec<u8>,
    entries: u64,
}

#[derive(Debug)]
pub(crate) struct Recorder {
    start: Start,
    settings: Record,
    scans: [Scan; 2],
    pub(crate) cutters: [Cutter; 2],
    /// Something that an application gave was cut.
    cut_given: bool,
    /// The last entry, without its length.
    pub(crate) last: Vec<u8>,
    last_at: Instant,
    beginning: Vec<u8>,
    begins: bool,
    parts: VecDeque<Part>,
    used: usize,
    lost: (u64, u64),
    spare: Vec<u8>,
}

impl Recorder {
    pub(crate) fn new(start: Start, settings: Record) -> Self {
        Self {
            start,
            settings,
            scans: [Scan::new(settings.payload as u64, true), Scan::new(0, false)],
            cutters: [Cutter::default(), Cutter::default()],
            cut_given: false,
            last: Vec::new(),
            last_at: start.now,
            beginning: Vec::new(),
            begins: true,
            parts: VecDeque::new(),
            used: 0,
            lost: (0, 0),
            spare: Vec::new(),
        }
    }

    /// Takes octets that come in for the entry that is next: its pieces.
    pub(crate) fn comes(&mut self, octets: &[u8]) -> Vec<u8> {
        let [cutter, _] = &mut self.cutters;
        let [scan, _] = &mut self.scans;
        cutter.clear();
        scan.pass(octets, cutter);
        cutter.finish();
        core::mem::take(&mut cutter.pieces)
    }

    /// Takes octets that go out for the entry that is next: its pieces, and the digest of them all.
    pub(crate) fn goes<'a>(&mut self, octets: impl Iterator<Item = &'a [u8]>) -> (Vec<u8>, u32) {
        let whole = self.is_whole();
        let [_, cutter] = &mut self.cutters;
        let [_, scan] = &mut self.scans;
        cutter.clear();
        cutter.digest = whole.then(Digest::new);
        octets.for_each(|octets| scan.pass(octets, cutter));
        cutter.finish();
        (core::mem::take(&mut cutter.pieces), cutter.digest.map_or(0, Digest::value))
    }

    /// Gives the memory of pieces back, of those that came or of those that went.
    pub(crate) fn used_in(&mut self, pieces: Vec<u8>) {
        let [cutter, _] = &mut self.cutters;
        cutter.pieces = pieces;
    }

    pub(crate) fn used_out(&mut self, pieces: Vec<u8>) {
        let [_, cutter] = &mut self.cutters;
        cutter.pieces = pieces;
    }

    /// As much of what the application gave as is kept; all of it, if it is to be compressed.
    pub(crate) fn given<'a>(&mut self, octets: &'a [u8], whole: bool) -> Given<'a> {
        let keep = if whole { octets.len() } else { octets.len().min(self.settings.payload) };
        self.cut_given |= keep < octets.len();
        Given { len: octets.len(), kept: octets.get(..keep).unwrap_or_default() }
    }

    /// Whether all that is recorded is whole, so that a replay has the same octets.
    fn is_whole(&self) -> bool {
        !self.cut_given && self.cutters.first().is_some_and(|cutter| cutter.total_cut == 0)
    }

    /// The digest of a payload, as long as all that is recorded is whole; else 0.
    pub(crate) fn digest(&self, octets: &[u8]) -> u32 {
        if !self.is_whole() {
            return 0;
        }
        let mut digest = Digest::new();
        digest.add(octets);
        digest.value()
    }

    /// Writes an entry down. `large` is how many octets it stands for, if those are many.
    pub(crate) fn note(
        &mut self,
        now: Instant,
        large: usize,
        entry: &Entry<'_>,
        view: impl FnOnce() -> View,
    ) {
        let since = now.as_nanos().saturating_sub(self.last_at.as_nanos());
        self.last.clear();
        entry.put(since, &mut self.last);
        if self.last.len() > self.settings.octets / 2 || large as u64 > MOST {
            self.last.clear();
            Entry::Lost(large as u64).put(since, &mut self.last);
        }
        self.last_at = now.max(self.last_at);
        if self.begins {
            put_octets(&self.last, &mut self.beginning);
            let view = view();
            if !view.begins || self.beginning.len() >= BEGINNING {
                self.begins = false;
                self.begin_part(&view);
            }
            return;
        }
        // With its length before it.
        while self.used + self.last.len() + 8 > self.settings.octets && self.parts.len() > 1 {
            self.forget();
        }
        let Some(part) = self.parts.back_mut() else { return };
        let had = part.octets.len();
        put_octets(&self.last, &mut part.octets);
        part.entries += 1;
        self.used += part.octets.len() - had;
        if part.octets.len() >= self.settings.octets / PARTS {
            self.begin_part(&view());
        }
    }

    /// The oldest part goes.
    fn forget(&mut self) {
        let Some(part) = self.parts.pop_front() else { return };
        self.used -= part.octets.len();
        self.lost.0 += part.entries;
        self.lost.1 += part.octets.len() as u64;
        self.spare = part.octets;
    }

    fn begin_part(&mut self, view: &View) {
        let mut octets = core::mem::take(&mut self.spare);
        octets.clear();
        let mut mark = Vec::new();
        Entry::Mark(self.mark(view)).put(0, &mut mark);
        put_octets(&mark, &mut octets);
        self.used += octets.len();
        self.parts.push_back(Part { octets, entries: 0 });
    }

    pub(crate) fn mark(&self, view: &View) -> Mark<'_> {
        let [comes, goes] = &self.scans;
        Mark {
            now: self.last_at,
            phase: view.phase,
            open: view.open,
            highest: view.highest,
            unsent: view.unsent,
            stats: view.stats,
            places: [comes.place(), goes.place()],
        }
    }

    /// What is written down so far.
    pub(crate) fn snapshot(&self, config: &Config) -> Recording {
        let mut setup = Vec::new();
        setup::put_config(config, &mut setup);
        Recording {
            start: self.start,
            settings: self.settings,
            setup,
            notes: Vec::new(),
            beginning: self.beginning.clone(),
            lost: self.lost,
            parts: self.parts.iter().map(|part| part.octets.clone()).collect(),
        }
    }
}
