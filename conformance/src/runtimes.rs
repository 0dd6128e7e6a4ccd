//! The runtimes, by name. To add one is a line in each of the two lists here.

use std::{future::Future, io, str::FromStr};

use thiserror::Error;
use tieline::Runtime;
use tieline_async_std::AsyncStd;
use tieline_core::wire::Escaped;
use tieline_mio::Mio;
use tieline_tokio::Tokio;
use tokio::sync::oneshot;

/// A runtime that this build has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Name {
    /// tokio, with two threads: what is served at once is then served at once.
    Tokio,
    /// async-std, with as many threads as the machine has cores.
    AsyncStd,
    /// A loop over mio, in one thread.
    Mio,
}

/// All of them, as they are called on the command line.
pub const NAMES: [(&str, Name); 3] =
    [("tokio", Name::Tokio), ("async-std", Name::AsyncStd), ("mio", Name::Mio)];

/// A name that is none of [`NAMES`].
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("there is no runtime \"{}\": say one of {}", Escaped(.0.as_bytes()), NAMES.map(|(text, _)| text).join(", "))]
pub struct UnknownRuntime(String);

impl FromStr for Name {
    type Err = UnknownRuntime;

    fn from_str(text: &str) -> Result<Self, UnknownRuntime> {
        let known = NAMES.iter().find(|(name, _)| *name == text);
        known.map(|(_, name)| *name).ok_or_else(|| UnknownRuntime(text.to_owned()))
    }
}

/// Something that runs on any runtime.
pub trait Program: Send + 'static {
    /// What comes of it.
    type Output: Send;

    /// Runs it on this one.
    fn run<R: Runtime>(self, runtime: R) -> impl Future<Output = Self::Output> + Send;
}

/// Runs a program on the runtime of this name, to its end.
///
/// # Errors
/// The system gives no event loop.
pub fn run<P: Program>(name: Name, program: P) -> io::Result<P::Output> {
    match name {
        Name::Tokio => {
            let mut threads = tokio::runtime::Builder::new_multi_thread();
            Ok(threads.worker_threads(2).enable_all().build()?.block_on(program.run(Tokio)))
        }
        Name::AsyncStd => spawned(AsyncStd, program),
        // Its runtime is the loop that it is in.
        Name::Mio => tieline_mio::block_on(async { program.run(Mio::default()).await }),
    }
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
