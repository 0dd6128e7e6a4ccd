//! What the connections of a server did, those that are over included.

use std::{fmt, sync::Arc};

use tieline_core::conn::Stats;

use crate::registry::Registry;

/// Reads the counters of a [`Server`](crate::Server), from anywhere, its handlers included. Cheap to clone; it keeps no
/// server running, and goes on telling what there was when the server is gone.
///
/// ```no_run
/// # fn example<R: tieline::Runtime>(server: &tieline::Server<R>) {
/// let totals = server.meter().read();
/// println!("{} connections, {} calls served", totals.connections, totals.stats.calls_in);
/// # }
/// ```
#[derive(Clone)]
pub struct Meter {
    registry: Arc<Registry>,
}

/// What a [`Meter`] reads.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Totals {
    /// Connections that are checked in at present.
    pub connections: usize,
    /// The counters of all connections since the server began, summed up: those that are open, and those that are over.
    pub stats: Stats,
}

impl Meter {
    pub(crate) const fn new(registry: Arc<Registry>) -> Self {
        Self { registry }
    }

    /// All counters now. Costs a short lock on each connection.
    #[must_use]
    pub fn read(&self) -> Totals {
        let (connections, stats) = self.registry.totals();
        Totals { connections, stats }
    }
}

impl fmt::Debug for Meter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Meter").field(&self.read()).finish()
    }
}
