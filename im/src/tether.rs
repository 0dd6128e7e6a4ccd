//! Tasks that end when nobody holds them any more, on any runtime.

use std::future::Future;

use tieline_tokio::Runtime;
use tokio::sync::oneshot;

/// Holds a task: when it is dropped, the task is dropped where it waits.
#[derive(Debug)]
pub(crate) struct Tether {
    _held: oneshot::Sender<()>,
}

impl Tether {
    /// Runs a task for as long as it is held.
    pub(crate) fn spawn<R: Runtime>(runtime: &R, task: impl Future<Output = ()> + Send + 'static) -> Self {
        let (held, cut) = oneshot::channel();
        runtime.spawn(Box::pin(async move {
            tokio::select! {
                biased;
                _ = cut => {}
                () = task => {}
            }
        }));
        Self { _held: held }
    }
}
