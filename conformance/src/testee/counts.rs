//! What Stats says (R-TST-25, R-TST-26): counters of handlers, all under one lock so that a snapshot is one, and the
//! server's own.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread,
};

use serde::Serialize;
use tieline::{ConfigError, Meter, Runtime, Server, Totals};

#[derive(Default)]
pub(super) struct Counts {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    started: u64,
    finished: u64,
    cancelled: u64,
    max_running: u64,
    sunk: u64,
    /// One-ways to methods that are not for them (R-TST-24).
    dropped: u64,
    meter: Option<Meter>,
}

/// The members of R-TST-25.
#[derive(Serialize)]
struct Snapshot {
    started: u64,
    finished: u64,
    cancelled: u64,
    running: u64,
    max_running: u64,
    sunk: u64,
    connections: usize,
    late_frames: u64,
    refused: u64,
    dropped_one_ways: u64,
}

impl Counts {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Starts a server and counts what it does: whoever asks meanwhile waits until it is known.
    pub(super) fn meter_of<R: Runtime>(
        &self,
        start: impl FnOnce() -> Result<Server<R>, ConfigError>,
    ) -> Result<Server<R>, ConfigError> {
        let mut state = self.lock();
        let server = start()?;
        state.meter = Some(server.meter());
        Ok(server)
    }

    /// A handler starts.
    pub(super) fn start(self: &Arc<Self>) -> Running {
        let mut state = self.lock();
        state.started += 1;
        state.max_running = state.max_running.max(state.started - state.finished);
        Running { counts: Arc::clone(self), end: End::Dropped }
    }

    pub(super) fn drop_one_way(&self) {
        self.lock().dropped += 1;
    }

    pub(super) fn sink(&self, octets: usize) {
        self.lock().sunk += octets as u64;
    }

    /// Everything at once, as JSON.
    pub(super) fn to_json(&self) -> Result<Vec<u8>, serde_json::Error> {
        let state = self.lock();
        let Totals { connections, stats, .. } = state.meter.as_ref().map(Meter::read).unwrap_or_default();
        serde_json::to_vec(&Snapshot {
            started: state.started,
            finished: state.finished,
            cancelled: state.cancelled,
            running: state.started - state.finished,
            max_running: state.max_running,
            sunk: state.sunk,
            connections,
            late_frames: stats.late_frames,
            refused: stats.refused,
            dropped_one_ways: stats.dropped_one_ways + state.dropped,
        })
    }
}

/// A handler that runs. However it ends, it is counted when it does.
pub(super) struct Running {
    counts: Arc<Counts>,
    end: End,
}

#[derive(PartialEq, Eq)]
enum End {
    /// By itself.
    Done,
    /// It was dropped where it waited, or found its call over.
    Dropped,
}

impl Running {
    /// It has come to its own end, good or bad.
    pub(super) fn done(mut self) {
        self.end = End::Done;
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let mut state = self.counts.lock();
        state.finished += 1;
        // A panic is an end of its own.
        if self.end == End::Dropped && !thread::panicking() {
            state.cancelled += 1;
        }
    }
}
