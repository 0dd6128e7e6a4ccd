//! Waiting for events, within a bound of the runtime's own clock.

use std::{
    future::{Future, poll_fn},
    pin::pin,
    task::Poll,
    time::Duration,
};

use tieline::{Runtime, Time};

use crate::Adapter;

/// A millisecond.
pub const MS: Duration = Duration::from_millis(1);
/// A second.
pub const SECOND: Duration = Duration::from_secs(1);
/// What is waited for longer than this will not come. A busy machine is no reason for that.
pub const LONG: Duration = Duration::from_secs(60);

/// Lets time pass.
pub async fn pass<A: Adapter>(time: Duration) {
    let runtime = A::Runtime::default();
    let at = runtime.clock().now().saturating_add(time);
    let mut timer = runtime.time();
    poll_fn(|cx| timer.poll_until(cx, at)).await;
}

/// Waits, but not for ever.
pub async fn soon<A: Adapter, F: Future>(what: &str, future: F) -> F::Output {
    let (mut future, mut late) = (pin!(future), pin!(pass::<A>(LONG)));
    poll_fn(|cx| match future.as_mut().poll(cx) {
        Poll::Ready(output) => Poll::Ready(output),
        Poll::Pending => {
            assert!(late.as_mut().poll(cx).is_pending(), "{what}: not within {LONG:?}");
            Poll::Pending
        }
    })
    .await
}

/// Waits until something that has no event of its own is so.
pub async fn until<A: Adapter>(what: &str, mut so: impl FnMut() -> bool) {
    soon::<A, _>(what, async {
        while !so() {
            pass::<A>(2 * MS).await;
        }
    })
    .await;
}

/// All at once.
pub async fn all<F: Future>(futures: impl IntoIterator<Item = F>) -> Vec<F::Output> {
    let mut futures: Vec<_> = futures.into_iter().map(|future| (Box::pin(future), None)).collect();
    poll_fn(|cx| {
        let mut pending = false;
        for (future, output) in &mut futures {
            if output.is_none() {
                match future.as_mut().poll(cx) {
                    Poll::Ready(ready) => *output = Some(ready),
                    Poll::Pending => pending = true,
                }
            }
        }
        if pending { Poll::Pending } else { Poll::Ready(()) }
    })
    .await;
    futures.into_iter().map(|(_, output)| output.unwrap()).collect()
}
