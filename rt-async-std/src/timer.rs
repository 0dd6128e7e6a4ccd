//! Time, by the standard library's clock and async-io's timers.

use std::{
    future::Future,
    pin::Pin,
    sync::OnceLock,
    task::{Context, Poll},
    time::{Duration, Instant as StdInstant},
};

use tieline::{Clock, Instant, Time};

/// Instants of the core are counted from here: the first time that anybody asks.
fn epoch() -> StdInstant {
    static EPOCH: OnceLock<StdInstant> = OnceLock::new();
    *EPOCH.get_or_init(StdInstant::now)
}

/// The clock that async-io's timers go by.
pub(crate) struct StdClock;

impl Clock for StdClock {
    #[inline]
    fn now(&self) -> Instant {
        let since = epoch().elapsed();
        Instant::from_nanos(u64::try_from(since.as_nanos()).unwrap_or(u64::MAX))
    }
}

/// A timer of async-io's reactor.
#[derive(Debug, Default)]
pub struct Timer {
    armed: Option<(Instant, async_io::Timer)>,
}

impl Time for Timer {
    fn poll_until(&mut self, cx: &mut Context<'_>, at: Instant) -> Poll<()> {
        let deadline = || epoch() + Duration::from_nanos(at.as_nanos());
        let (armed, timer) = self.armed.get_or_insert_with(|| (at, async_io::Timer::at(deadline())));
        if *armed != at {
            *armed = at;
            timer.set_at(deadline());
        }
        let fired = Pin::new(timer).poll(cx).map(drop);
        if fired.is_ready() {
            // One that has fired never does so again.
            self.armed = None;
        }
        fired
    }
}
