//! The runtimes that a command can run on, by name. To add one is a line in each of the two lists here.

use std::{fmt, future::Future, io, str::FromStr};

use thiserror::Error;
use tieline::Runtime;
use tieline_async_std::AsyncStd;
use tieline_core::wire::Escaped;
use tieline_mio::Mio;
use tieline_tokio::Tokio;
use tokio::{sync::oneshot, task};

/// A runtime that this build has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum Flavour {
    /// tokio.
    #[default]
    Tokio,
    /// async-std, with as many threads as the machine has cores.
    AsyncStd,
    /// A loop over mio, in one thread.
    Mio,
}

/// All of them, as they are called on the command line.
pub const NAMES: [(&str, Flavour); 3] =
    [("tokio", Flavour::Tokio), ("async-std", Flavour::AsyncStd), ("mio", Flavour::Mio)];

/// A name that is none of [`NAMES`].
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("there is no runtime {:?}: say one of {}", Escaped(.0.as_bytes()), NAMES.map(|(name, _)| name).join(", "))]
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
pub trait Program: Send + 'static {
    /// What comes of it.
    type Output: Send;

    /// Runs it on this one.
    fn run<R: Runtime>(self, runtime: R) -> impl Future<Output = Self::Output> + Send;
}

/// Runs a program on a runtime, to its end, for which the caller's thread is blocked. tokio gets two threads: what is
/// served at once is then served at once.
///
/// # Errors
/// The system gives no event loop.
pub fn block_on<P: Program>(flavour: Flavour, program: P) -> io::Result<P::Output> {
    match flavour {
        Flavour::Tokio => {
            let mut threads = tokio::runtime::Builder::new_multi_thread();
            Ok(threads.worker_threads(2).enable_all().build()?.block_on(program.run(Tokio)))
        }
        Flavour::AsyncStd => spawned(AsyncStd, program),
        // Its runtime is the loop that it is in.
        Flavour::Mio => tieline_mio::block_on(async { program.run(Mio::default()).await }),
    }
}

/// The same for a caller that is on tokio: what is to run on tokio runs where the caller does, and any other runtime gets
/// a thread to wait on.
///
/// # Errors
/// The system gives no event loop.
pub async fn run<P: Program>(flavour: Flavour, program: P) -> io::Result<P::Output> {
    match flavour {
        Flavour::Tokio => Ok(program.run(Tokio).await),
        other => task::spawn_blocking(move || block_on(other, program)).await.map_err(io::Error::other)?,
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::any::type_name;

    use super::*;

    /// Listens, which needs the runtime's event loop, and says which runtime it was.
    struct Listens;

    impl Program for Listens {
        type Output = io::Result<&'static str>;

        async fn run<R: Runtime>(self, runtime: R) -> Self::Output {
            runtime.listen("127.0.0.1:0").await?;
            Ok(type_name::<R>())
        }
    }

    #[test]
    fn each_is_known_by_its_name_and_runs_a_program() {
        let types = [type_name::<Tokio>(), type_name::<AsyncStd>(), type_name::<Mio>()];
        let caller = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        for ((name, flavour), expected) in NAMES.into_iter().zip(types) {
            assert_eq!((name.parse(), flavour.to_string()), (Ok(flavour), name.to_owned()));
            assert_eq!(block_on(flavour, Listens).unwrap().unwrap(), expected);
            assert_eq!(caller.block_on(run(flavour, Listens)).unwrap().unwrap(), expected);
        }
    }

    #[test]
    fn who_is_not_known_hears_who_is() {
        let error = "sm\u{1b}ol".parse::<Flavour>().unwrap_err().to_string();
        assert_eq!(error, r#"there is no runtime "sm\u{1b}ol": say one of tokio, async-std, mio"#);
    }
}
