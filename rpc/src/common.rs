//! What all connections of a client or a server have in common.

use std::sync::Arc;

use crate::{
    flight::{Archive, FlightRecorder},
    runtime::{BoxFuture, Clock, Runtime},
    turns::Turns,
};

/// Held by each of them.
pub(crate) struct Common {
    pub(crate) clock: Arc<dyn Clock>,
    spawn: Box<dyn Fn(BoxFuture<()>) + Send + Sync>,
    pub(crate) turns: Turns,
    /// Where what they have recorded goes.
    pub(crate) archive: Option<Arc<Archive>>,
}

impl Common {
    pub(crate) fn new<R: Runtime>(runtime: &R, recorder: Option<FlightRecorder>) -> Arc<Self> {
        let spawner = runtime.clone();
        Arc::new(Self {
            clock: runtime.clock(),
            spawn: Box::new(move |task| spawner.spawn(task)),
            turns: runtime.turns(),
            archive: recorder.map(Archive::new),
        })
    }

    /// Runs a task on their runtime.
    pub(crate) fn spawn(&self, task: BoxFuture<()>) {
        (self.spawn)(task);
    }
}

#[cfg(test)]
impl Common {
    /// Where no time passes and no task runs.
    pub(crate) fn standing_still() -> Arc<Self> {
        struct Still;

        impl Clock for Still {
            fn now(&self) -> tieline_core::Instant {
                tieline_core::Instant::from_nanos(1)
            }
        }

        Arc::new(Self {
            clock: Arc::new(Still),
            spawn: Box::new(drop),
            turns: Turns::default(),
            archive: None,
        })
    }
}
