//! The form of a recording as a file: sections, each with a tag, a length and a check sum, so that a damage has a place.

use alloc::{
    string::{String, ToString},
    vec::Vec,
};
use core::fmt;

use thiserror::Error;

use super::{
    Record,
    entry::{Entry, entries},
    ink::{Damage, Reader, put, put_octets},
    setup,
};
use crate::{
    conn::Side,
    time::Instant,
    wire::{Escaped, fnv1a_64},
};

/// The first octets of every recording. The first is no text, and line ends that were translated show.
const MAGIC: &[u8; 8] = b"\x89TLREC\r\n";
const VERSION: u8 = 1;
/// Whether this build understands Snappy, which a replay has to, too.
const SNAPPY: bool = cfg!(feature = "snappy");

const START: u8 = 1;
const SETUP: u8 = 2;
const NOTES: u8 = 3;
const BEGINNING: u8 = 4;
const LOST: u8 = 5;
const PART: u8 = 6;
const END: u8 = 0xFF;

/// How a connection began.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Start {
    pub(crate) side: Side,
    pub(crate) seed: u64,
    pub(crate) now: Instant,
}

/// What a connection has written down of itself: how it began, its configuration, check-in, and the last of what it was
/// told and did since. From [`Connection::recording`](crate::conn::Connection::recording), or from a file.
///
/// There is no credential in it. All else that came and went may be: method names, metadata, and the beginning of
/// payloads, as [`Record::payload`] says.
#[derive(Debug, Clone)]
pub struct Recording {
    pub(super) start: Start,
    pub(super) settings: Record,
    pub(super) setup: Vec<u8>,
    pub(super) notes: Vec<(String, String)>,
    pub(super) beginning: Vec<u8>,
    /// Entries and octets that are gone between the beginning and the first part.
    pub(super) lost: (u64, u64),
    pub(super) parts: Vec<Vec<u8>>,
}

/// Why octets are no recording, or none that this build understands.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum RecordingError {
    /// It does not begin as recordings do.
    #[error("this is no recording of a connection: it does not begin with \\x89TLREC")]
    Foreign,
    /// Another version of the form.
    #[error("the recording has form {0}, this build reads form 1: replay it with the build that wrote it")]
    Version(u64),
    /// It was recorded with Snappy, which this build lacks, or without it.
    #[error("the recording was made {} Snappy, this build is {} it: replay it with the build that wrote it",
        if *.0 { "with" } else { "without" }, if *.0 { "without" } else { "with" })]
    Snappy(bool),
    /// It is damaged.
    #[error("the recording is damaged in {section}, at octet {at}: {what}")]
    Damaged {
        /// The part of it.
        section: &'static str,
        /// From the first octet of the file.
        at: usize,
        /// What is wrong there.
        what: String,
    },
}

/// Names a section and knows where in the file it begins.
#[derive(Clone, Copy)]
struct Place {
    section: &'static str,
    at: usize,
}

impl Place {
    fn damaged(self, damage: Damage) -> RecordingError {
        let at = self.at.saturating_add(damage.at);
        RecordingError::Damaged { section: self.section, at, what: damage.what.to_string() }
    }
}

fn section(tag: u8, octets: &[u8], out: &mut Vec<u8>) {
    out.push(tag);
    put_octets(octets, out);
    out.extend_from_slice(&fnv1a_64(octets).to_le_bytes());
}

impl Recording {
    /// Adds a line about where it comes from, for people: why it was written, when, of which peer. Control characters are
    /// escaped when it is shown.
    #[must_use]
    pub fn note(mut self, key: &str, value: &str) -> Self {
        self.notes.push((key.to_string(), value.to_string()));
        self
    }

    /// The lines that were [added](Self::note), in order.
    pub fn notes(&self) -> impl Iterator<Item = (&str, &str)> {
        self.notes.iter().map(|(key, value)| (key.as_str(), value.as_str()))
    }

    /// Whether it holds everything since the connection began, so that a replay can do it all again.
    #[must_use]
    pub const fn is_complete(&self) -> bool {
        self.lost.0 == 0
    }

    /// As the octets of a file.
    #[must_use]
    pub fn to_octets(&self) -> Vec<u8> {
        let mut out = MAGIC.to_vec();
        put(VERSION, &mut out);
        let mut part = Vec::new();
        put(u8::from(SNAPPY), &mut part);
        put(u8::from(self.start.side == Side::Server), &mut part);
        put(self.start.seed, &mut part);
        put(self.start.now.as_nanos(), &mut part);
        put(self.settings.octets as u64, &mut part);
        put(self.settings.payload as u64, &mut part);
        section(START, &part, &mut out);
        section(SETUP, &self.setup, &mut out);
        part.clear();
        for (key, value) in &self.notes {
            put_octets(key.as_bytes(), &mut part);
            put_octets(value.as_bytes(), &mut part);
        }
        section(NOTES, &part, &mut out);
        section(BEGINNING, &self.beginning, &mut out);
        part.clear();
        put(self.lost.0, &mut part);
        put(self.lost.1, &mut part);
        section(LOST, &part, &mut out);
        self.parts.iter().for_each(|octets| section(PART, octets, &mut out));
        section(END, &[], &mut out);
        out
    }

    /// Reads the octets of a file, and looks at every entry.
    ///
    /// # Errors
    /// [`RecordingError`]: what is wrong, and where.
    pub fn parse(octets: &[u8]) -> Result<Self, RecordingError> {
        let head = Place { section: "its head", at: MAGIC.len() };
        let rest = octets.strip_prefix(MAGIC).ok_or(RecordingError::Foreign)?;
        let mut reader = Reader::new(rest);
        match reader.number().map_err(|damage| head.damaged(damage))? {
            1 => {}
            version => return Err(RecordingError::Version(version)),
        }
        let (_, start) = next(&mut reader, START)?;
        let (start, settings) = read_start(start)?;
        let (place, setup) = next(&mut reader, SETUP)?;
        match setup::read(setup, settings) {
            Err(damage) => return Err(place.damaged(damage)),
            Ok(Err(error)) => {
                let (section, at) = (place.section, place.at);
                return Err(RecordingError::Damaged { section, at, what: error.to_string() });
            }
            Ok(Ok(_)) => {}
        }
        let (place, notes) = next(&mut reader, NOTES)?;
        let notes = read_notes(notes).map_err(|damage| place.damaged(damage))?;
        let (place, beginning) = next(&mut reader, BEGINNING)?;
        check(place, beginning, false)?;
        let (place, lost) = next(&mut reader, LOST)?;
        let mut lost = Reader::new(lost);
        let mut number = || lost.number().map_err(|damage| place.damaged(damage));
        let mut recording = Self {
            start,
            settings,
            setup: setup.to_vec(),
            notes,
            beginning: beginning.to_vec(),
            lost: (number()?, number()?),
            parts: Vec::new(),
        };
        loop {
            match next(&mut reader, PART)? {
                (place, part) if place.section == NAME_OF_PART => {
                    check(place, part, true)?;
                    recording.parts.push(part.to_vec());
                }
                (place, _) if !reader.is_empty() => {
                    let damage = Damage { at: 0, what: "more octets follow the end" };
                    return Err(place.damaged(damage));
                }
                _ => return Ok(recording),
            }
        }
    }
}

const NAME_OF_PART: &str = "a part of what followed";

fn name(tag: u8) -> &'static str {
    match tag {
        START => "its head",
        SETUP => "the configuration",
        NOTES => "the notes",
        BEGINNING => "the beginning of the connection",
        LOST => "the count of what is lost",
        PART => NAME_OF_PART,
        _ => "its end",
    }
}

/// The next section, which must be this one; instead of a part the end may come.
fn next<'a>(reader: &mut Reader<'a>, tag: u8) -> Result<(Place, &'a [u8]), RecordingError> {
    let begin = MAGIC.len();
    let place =
        |reader: &Reader<'_>, tag| Place { section: name(tag), at: begin.saturating_add(reader.at()) };
    let here = place(reader, tag);
    let damaged = |damage: Damage| Place { section: here.section, at: begin }.damaged(damage);
    let found = match reader.take(1).map_err(damaged)? {
        [found] if *found == tag || (tag == PART && *found == END) => *found,
        _ => return Err(here.damaged(Damage { at: 0, what: "another section was expected here" })),
    };
    let length: usize = reader.small().map_err(damaged)?;
    let body = place(reader, found);
    let octets = reader.take(length).map_err(damaged)?;
    let sum = reader.take(8).map_err(damaged)?;
    if sum != fnv1a_64(octets).to_le_bytes() {
        return Err(body.damaged(Damage { at: 0, what: "the check sum is another: the octets were changed" }));
    }
    Ok((body, octets))
}

fn read_start(octets: &[u8]) -> Result<(Start, Record), RecordingError> {
    let mut reader = Reader::new(octets);
    let of = &mut reader;
    let mut read = || {
        let (snappy, server) = (of.flag()?, of.flag()?);
        let side = if server { Side::Server } else { Side::Client };
        let start = Start { side, seed: of.number()?, now: Instant::from_nanos(of.number()?) };
        let settings = Record { octets: of.small()?, payload: of.small()? };
        Ok((snappy, start, settings))
    };
    let head = Place { section: "its head", at: MAGIC.len() };
    let (snappy, start, settings) = read().map_err(|damage| head.damaged(damage))?;
    if snappy == SNAPPY { Ok((start, settings)) } else { Err(RecordingError::Snappy(snappy)) }
}

fn read_notes(octets: &[u8]) -> Result<Vec<(String, String)>, Damage> {
    let mut reader = Reader::new(octets);
    let mut notes = Vec::new();
    while !reader.is_empty() {
        notes.push((reader.text()?.to_string(), reader.text()?.to_string()));
    }
    Ok(notes)
}

/// Reads every entry. A part begins with a mark.
fn check(place: Place, octets: &[u8], marked: bool) -> Result<(), RecordingError> {
    let mut first = marked;
    for entry in entries(octets) {
        let (at, entry) = entry.map_err(|damage| place.damaged(damage))?;
        let here = Place { at: place.at.saturating_add(at), ..place };
        let (_, entry) = Entry::read(entry).map_err(|damage| here.damaged(damage))?;
        if core::mem::take(&mut first) != matches!(entry, Entry::Mark(_)) {
            return Err(here.damaged(Damage { at: 0, what: "a mark stands elsewhere than at the beginning" }));
        }
    }
    Ok(())
}

/// The head of it, in lines.
impl fmt::Display for Recording {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let side = match self.start.side {
            Side::Client => "client",
            Side::Server => "server",
        };
        writeln!(f, "a recording of the {side}'s side of a connection")?;
        for (key, value) in self.notes() {
            writeln!(f, "  {}: {}", Escaped::from(key), Escaped::from(value))?;
        }
        if let Ok(Ok(config)) = setup::read(&self.setup, self.settings) {
            writeln!(f, "  identifier: {}", config.identifier())?;
            writeln!(f, "  limits: {}", config.limits())?;
        }
        writeln!(f, "  seed: {:#018x}", self.start.seed)?;
        match self.settings.payload {
            usize::MAX => writeln!(f, "  kept of a payload: all"),
            octets => writeln!(f, "  kept of a payload: {octets} octets"),
        }
    }
}
