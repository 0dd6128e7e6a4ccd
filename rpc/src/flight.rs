//! A flight recorder on disk: what a connection has recorded goes to a file when it has come to grief.
//!
//! The recording is copied under the connection's lock, which is copying some memory; it is written by a thread of its
//! own, so that neither a driver nor a handler waits for a disk. Whatever goes wrong there never harms the connection.

use std::{
    any::Any,
    fmt, fs, io,
    io::Write,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, SystemTime},
};

use tieline_core::{
    conn::Closed,
    record::{Record, Recording},
    wire::Status,
};

use crate::{
    client::Client,
    link::{Link, State},
    peer::Peer,
    runtime::Runtime,
};

/// What the files are called at the end.
const EXTENSION: &str = "tlrec";
/// Whose they are said to be, if nobody has checked in.
const UNKNOWN: &str = "unknown";
/// Recordings that are written at once; what comes meanwhile is not kept.
const AT_ONCE: usize = 4;

type Notify = dyn Fn(io::Result<PathBuf>) + Send + Sync;

/// Records each connection of a [`Client`] or a [`Server`](crate::Server), and writes what was recorded to a file when a
/// connection ends by a mistake of the protocol, by either side, or when a handler panics. `tieline-replay FILE` shows
/// it, step by step.
///
/// A file holds the end of the connection's story, its check-in, method names, metadata, and the beginning of payloads. It
/// never holds a credential. On Unix only its owner may read it.
///
/// ```
/// use tieline::FlightRecorder;
///
/// let recorder = FlightRecorder::to("/var/lib/node/flight")
///     .payload(0)
///     .files(20)
///     .notify(|written| match written {
///         Ok(path) => eprintln!("a connection came to grief, see {}", path.display()),
///         Err(error) => eprintln!("a connection came to grief, and no recording could be written: {error}"),
///     });
/// # let _ = recorder;
/// ```
#[derive(Clone)]
pub struct FlightRecorder {
    directory: PathBuf,
    record: Record,
    files: usize,
    notify: Option<Arc<Notify>>,
}

impl FlightRecorder {
    /// Writes into `directory`, which is made if it is not there: up to 64 files.
    #[must_use]
    pub fn to(directory: impl Into<PathBuf>) -> Self {
        Self { directory: directory.into(), record: Record::new(), files: 64, notify: None }
    }

    /// How many octets of its story each connection keeps in memory: 16 KiB to 1 GiB, default 256 KiB. See
    /// [`Record::octets`].
    #[must_use]
    pub fn octets(mut self, octets: usize) -> Self {
        self.record = self.record.octets(octets);
        self
    }

    /// How many octets of each payload are kept, default 64; see [`Record::payload`].
    #[must_use]
    pub fn payload(mut self, octets: usize) -> Self {
        self.record = self.record.payload(octets);
        self
    }

    /// How many recordings the directory may hold, default 64. When there are so many no more are written until some
    /// are taken away. Those of peers that never checked in get a quarter of it, so that strangers at the port
    /// cannot fill it.
    #[must_use]
    pub const fn files(mut self, files: usize) -> Self {
        self.files = files;
        self
    }

    /// Tells of each file that was written, or why it was not. Called by a thread of its own.
    #[must_use]
    pub fn notify(mut self, notify: impl Fn(io::Result<PathBuf>) + Send + Sync + 'static) -> Self {
        self.notify = Some(Arc::new(notify));
        self
    }

    pub(crate) const fn record(&self) -> Record {
        self.record
    }
}

impl fmt::Debug for FlightRecorder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FlightRecorder")
            .field("directory", &self.directory)
            .field("record", &self.record)
            .field("files", &self.files)
            .finish_non_exhaustive()
    }
}

/// Where the recordings of many connections go.
pub(crate) struct Archive {
    recorder: FlightRecorder,
    writing: AtomicUsize,
}

/// A recording that is to be written.
pub(crate) struct Grief {
    recording: Recording,
    /// Who the peer is, if it has checked in.
    peer: Option<String>,
}

impl Archive {
    pub(crate) fn new(recorder: FlightRecorder) -> Arc<Self> {
        Arc::new(Self { recorder, writing: AtomicUsize::new(0) })
    }

    /// Writes it, in the background.
    fn write(self: &Arc<Self>, grief: Grief) {
        if self.writing.fetch_add(1, Ordering::Relaxed) >= AT_ONCE {
            self.writing.fetch_sub(1, Ordering::Relaxed);
            self.tell(Err(io::Error::other("too many recordings are being written")));
            return;
        }
        let archive = Arc::clone(self);
        let job = move || {
            let written = archive.keep(&grief);
            archive.writing.fetch_sub(1, Ordering::Relaxed);
            archive.tell(written);
        };
        if let Err(error) = std::thread::Builder::new().name("tieline-flight".to_owned()).spawn(job) {
            self.writing.fetch_sub(1, Ordering::Relaxed);
            self.tell(Err(error));
        }
    }

    fn tell(&self, written: io::Result<PathBuf>) {
        if let Some(notify) = &self.recorder.notify {
            notify(written);
        }
    }

    fn keep(&self, grief: &Grief) -> io::Result<PathBuf> {
        let FlightRecorder { directory, files, .. } = &self.recorder;
        fs::create_dir_all(directory)?;
        let (mut all, mut unknown) = (0, 0);
        for entry in fs::read_dir(directory)? {
            let path = entry?.path();
            if path.extension().is_some_and(|extension| extension == EXTENSION) {
                all += 1;
                let name =
                    path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
                unknown += usize::from(name.contains(UNKNOWN));
            }
        }
        if all >= *files || (grief.peer.is_none() && unknown >= files.div_ceil(4)) {
            let (place, full) = (directory.display(), if all >= *files { all } else { unknown });
            return Err(io::Error::other(format!(
                "{full} recordings are in {place} already; take some away"
            )));
        }
        let peer = grief.peer.as_deref().map_or_else(|| UNKNOWN.to_owned(), escaped);
        let name = format!("{}-{peer}", utc(SystemTime::now()));
        let octets = grief.recording.to_octets();
        for number in 0..100 {
            let number = if number == 0 { String::new() } else { format!("-{number}") };
            let path = directory.join(format!("{name}{number}.{EXTENSION}"));
            match write(&path, &octets, true) {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                written => return written.map(|()| path),
            }
        }
        Err(io::ErrorKind::AlreadyExists.into())
    }
}

/// Writes a file that only its owner may read.
fn write(path: &Path, octets: &[u8], new: bool) -> io::Result<()> {
    let mut options = fs::OpenOptions::new();
    options.write(true).create(true).truncate(!new).create_new(new);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path)?.write_all(octets)
}

/// For a file name: other characters than `[A-Za-z0-9._-]` as `%XX`, and not too many.
fn escaped(name: &str) -> String {
    let mut out = String::new();
    for octet in name.bytes().take(64) {
        match octet {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'.' | b'_' | b'-' => out.push(octet.into()),
            _ => out.push_str(&format!("%{octet:02X}")),
        }
    }
    out
}

/// The time as `20261125T190512.123Z`.
fn utc(time: SystemTime) -> String {
    let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or(Duration::ZERO);
    let (days, seconds) = (since.as_secs() / 86_400, since.as_secs() % 86_400);
    // Years that begin in March have their leap day last; eras of 400 of them are all alike.
    let shifted = days + 719_468;
    let (era, day_of_era) = (shifted / 146_097, shifted % 146_097);
    let year = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year + year / 4 - year / 100);
    let month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    let year = 400 * era + year + u64::from(month <= 2);
    let (hour, minute, second) = (seconds / 3_600, seconds / 60 % 60, seconds % 60);
    let ms = since.subsec_millis();
    format!("{year:04}{month:02}{day:02}T{hour:02}{minute:02}{second:02}.{ms:03}Z")
}

/// What a panic said, for people.
pub(crate) fn said(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&'static str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("a value that is no text")
}

/// Whether a connection ended because one side did what the protocol forbids.
fn is_mistake(closed: &Closed) -> bool {
    matches!(closed.status, Status::PROTOCOL_ERROR | Status::FRAME_TOO_LARGE | Status::EXCESSIVE_LOAD)
}

impl Link {
    /// What is recorded, with where it comes from; `None` if nothing is.
    fn recording(&self, state: &State, why: &str) -> Option<Recording> {
        let recording = state.conn.recording()?;
        let peer = state.conn.peer().map_or(UNKNOWN, |peer| peer.identifier.as_str());
        Some(
            recording
                .note("why", why)
                .note("when", &utc(SystemTime::now()))
                .note("peer", peer)
                .note("address", &self.address)
                .note("written by", concat!("tieline ", env!("CARGO_PKG_VERSION"))),
        )
    }

    /// What is to be written of a connection that has ended, if it ended badly.
    #[cold]
    pub(crate) fn grief(&self, state: &State, closed: &Closed) -> Option<Box<Grief>> {
        if self.common.archive.is_none() || !is_mistake(closed) {
            return None;
        }
        self.grief_for(state, &closed.to_string()).map(Box::new)
    }

    fn grief_for(&self, state: &State, why: &str) -> Option<Grief> {
        let peer = state.conn.peer().map(|peer| peer.identifier.clone());
        Some(Grief { recording: self.recording(state, why)?, peer })
    }

    /// Not under the lock.
    #[cold]
    pub(crate) fn write(&self, grief: Grief) {
        if let Some(archive) = &self.common.archive {
            archive.write(grief);
        }
    }

    /// A handler panicked. Not under the lock.
    #[cold]
    pub(crate) fn panicked(&self, panic: &(dyn Any + Send)) {
        if self.common.archive.is_none() {
            return;
        }
        let why = format!("a handler panicked: {}", said(panic));
        let grief = self.grief_for(&self.lock(), &why);
        if let Some(grief) = grief {
            self.write(grief);
        }
    }
}

impl Peer {
    /// What the connection has recorded so far, if it has a [`FlightRecorder`] or was told to record otherwise
    /// ([`ConfigBuilder::record`](crate::ConfigBuilder::record)). A copy: the connection goes on.
    #[must_use]
    pub fn record(&self) -> Option<Recording> {
        self.link.recording(&self.link.lock(), "it was asked for")
    }

    /// Writes [what is recorded](Self::record) to a file, in place of one that is there. It takes as long as the disk
    /// does: not for the thread of a runtime.
    ///
    /// # Errors
    /// `Unsupported` if nothing is recorded; otherwise what the system reports.
    pub fn write_recording(&self, path: impl AsRef<Path>) -> io::Result<()> {
        let Some(recording) = self.record() else {
            let what = "the connection records nothing: give it a flight recorder";
            return Err(io::Error::new(io::ErrorKind::Unsupported, what));
        };
        write(path.as_ref(), &recording.to_octets(), false)
    }
}

impl<R: Runtime> Client<R> {
    /// Writes what the present connection has recorded to a file; see [`Peer::write_recording`].
    ///
    /// # Errors
    /// `NotConnected` if there is no connection, and those of [`Peer::write_recording`].
    pub fn write_recording(&self, path: impl AsRef<Path>) -> io::Result<()> {
        match self.peer() {
            Some(peer) => peer.write_recording(path),
            None => Err(io::Error::new(io::ErrorKind::NotConnected, "there is no connection at present")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_of_the_calendar() {
        for (seconds, expected) in [
            (0, "19700101T000000.000Z"),
            (951_782_399, "20000228T235959.000Z"),
            (951_782_400, "20000229T000000.000Z"),
            (1_709_251_200, "20240301T000000.000Z"),
            (4_107_542_400, "21000301T000000.000Z"),
        ] {
            assert_eq!(utc(SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)), expected);
        }
    }

    #[test]
    fn a_name_leads_nowhere_else() {
        assert_eq!(escaped("../etc/a:b@c"), "..%2Fetc%2Fa%3Ab%40c");
        assert_eq!(escaped("é\n"), "%C3%A9%0A");
        assert!(escaped(&"/".repeat(1000)).len() < 200);
    }
}
