//! The time of this process.

use std::sync::OnceLock;

use tieline::{Clock, Instant};

/// Nanoseconds since the first time that anybody asked, on every thread alike.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct SystemClock;

impl Clock for SystemClock {
    #[inline]
    fn now(&self) -> Instant {
        now()
    }
}

#[inline]
pub(crate) fn now() -> Instant {
    static EPOCH: OnceLock<std::time::Instant> = OnceLock::new();
    let since = EPOCH.get_or_init(std::time::Instant::now).elapsed();
    Instant::from_nanos(u64::try_from(since.as_nanos()).unwrap_or(u64::MAX))
}
