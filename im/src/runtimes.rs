//! The runtimes that a node can run on, by name. To add one is a line in each of the two lists here.

use std::{fmt, future::Future, io, str::FromStr};

use thiserror::Error;
use tieline_async_std::AsyncStd;
use tieline_core::wire::Escaped;
use tieline_mio::Mio;
use tieline_tokio::{Runtime, Tokio};
use tokio::{sync::oneshot, task};

/// A runtime that this build has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum Flavour {
    /// tokio, on the thread of the command.
    #[default]
    Tokio,
    /// async-std, on its own threads.
    AsyncStd,
    /// A loop over mio, in a thread of its own.
    Mio,
}

/// All of them, as they are called on the command line.
const NAMES: [(&str, Flavour); 3] =
    [("tokio", Flavour::Tokio), ("async-std", Flavour::AsyncStd), ("mio", Flavour::Mio)];

/// A name that no runtime has.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("there is no runtime \"{}\": say one of {}", Escaped(.0.as_bytes()), NAMES.map(|(name, _)| name).join(", "))]
pub struct UnknownRuntime(String);

impl FromStr for Flavour {
    type Err = UnknownRuntime;

    fn from_str(text: &str) -> Result<Self, UnknownRuntime> {
        let known = NAMES.iter().find(|(name, _)| *name == text);
        known.map(|(_, flavour)| *flavour).ok_or_else(|| UnknownRuntime(text.to_owned()))
    }
}

impl fmt::Display for Flavour {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = NAMES.iter().find(|(_, flavour)| flavour == self).map_or("unknown", |(name, _)| name);
        f.write_str(name)
    }
}

/// Something that runs on any runtime.
pub(crate) trait Program: Send + 'static {
    /// What comes of it.
    type Output: Send;

    /// Runs it on this one.
    fn run<R: Runtime>(self, runtime: R) -> impl Future<Output = Self::Output> + Send;
}

/// Runs a program on a runtime, to its end. The caller is on tokio; others get a thread to wait on.
pub(crate) async fn run<P: Program>(flavour: Flavour, program: P) -> io::Result<P::Output> {
    match flavour {
        Flavour::Tokio => Ok(program.run(Tokio).await),
        Flavour::AsyncStd => apart(move || spawned(AsyncStd, program)).await,
        // Its runtime is the loop that it is in.
        Flavour::Mio => apart(|| tieline_mio::block_on(async { program.run(Mio::default()).await })).await,
    }
}

/// Waits for something that blocks its thread.
async fn apart<T: Send + 'static>(work: impl FnOnce() -> io::Result<T> + Send + 'static) -> io::Result<T> {
    task::spawn_blocking(work).await.map_err(io::Error::other)?
}

/// Runs a program on a runtime whose threads are there without being asked for, and waits for its end.
fn spawned<R: Runtime, P: Program>(runtime: R, program: P) -> io::Result<P::Output> {
    let (done, outcome) = oneshot::channel();
    let on = runtime.clone();
    runtime.spawn(Box::pin(async move {
        // It is waited for, just below.
        let _ = done.send(program.run(on).await);
    }));
    outcome.blocking_recv().map_err(|_| io::Error::other("the runtime has dropped what was to run"))
}
