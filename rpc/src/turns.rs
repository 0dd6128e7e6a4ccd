//! Which connections have turns at the same time.

use std::sync::{
    Arc, LazyLock,
    atomic::{AtomicU64, Ordering},
};

/// Counts the turns of all connections of a process: one whose turns follow each other has the process to itself, and its
/// driver sees to it that the peer has something to do meanwhile; where there are more, they have. See
/// [`Runtime::turns`](crate::Runtime::turns). Cheap to clone; clones count together.
#[derive(Debug, Clone, Default)]
pub struct Turns(Arc<AtomicU64>);

impl Turns {
    /// Those of this process.
    pub(crate) fn of_process() -> Self {
        static ALL: LazyLock<Turns> = LazyLock::new(Turns::default);
        ALL.clone()
    }

    /// A connection has its turn. The number of this turn.
    pub(crate) fn begin(&self) -> u64 {
        self.0.fetch_add(1, Ordering::Relaxed)
    }
}
