//! Time, by tokio's clock.

use std::{
    future::Future,
    pin::Pin,
    sync::{Arc, OnceLock},
    task::{Context, Poll},
    time::Duration,
};

use tieline::{Clock, Instant, Time};
use tokio::time::{Instant as TokioInstant, Sleep, sleep_until};

/// Instants of the core are counted from here: the first time that anybody asks.
fn epoch() -> TokioInstant {
    static EPOCH: OnceLock<TokioInstant> = OnceLock::new();
    *EPOCH.get_or_init(TokioInstant::now)
}

/// Tokio's clock, on every thread.
pub(crate) struct TokioClock;

impl Clock for TokioClock {
    #[inline]
    fn now(&self) -> Instant {
        let since = TokioInstant::now().saturating_duration_since(epoch());
        Instant::from_nanos(u64::try_from(since.as_nanos()).unwrap_or(u64::MAX))
    }
}

/// The one clock, shared by all connections.
pub(crate) fn clock() -> Arc<dyn Clock> {
    static CLOCK: OnceLock<Arc<TokioClock>> = OnceLock::new();
    Arc::clone(CLOCK.get_or_init(|| Arc::new(TokioClock))) as Arc<dyn Clock>
}

/// A timer of tokio's wheel. It takes no memory until it is first armed.
#[derive(Debug, Default)]
pub struct Timer {
    sleep: Option<(Instant, Pin<Box<Sleep>>)>,
}

impl Time for Timer {
    fn poll_until(&mut self, cx: &mut Context<'_>, at: Instant) -> Poll<()> {
        let deadline = || epoch() + Duration::from_nanos(at.as_nanos());
        let (armed, sleep) = self.sleep.get_or_insert_with(|| (at, Box::pin(sleep_until(deadline()))));
        if *armed != at {
            *armed = at;
            sleep.as_mut().reset(deadline());
        }
        sleep.as_mut().poll(cx)
    }
}
