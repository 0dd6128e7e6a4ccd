//! Why a run ended before it was done, and how to see it again.

use std::{error::Error, fmt, time::Duration};

/// The environment variable with the one seed that [`check`](crate::check) is to run.
pub(crate) const SEED: &str = "TIELINE_SIM_SEED";

/// A run that did not come to its end: nothing could run and nothing was due, it took too long, a task panicked, a host
/// ended with an error, or the test asked for something that there is not. It says which, when, with which seed, and
/// how to see it again.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stuck {
    /// The seed of the run.
    pub seed: u64,
    /// When, since the beginning of the run.
    pub at: Duration,
    /// Why.
    pub why: String,
}

impl fmt::Display for Stuck {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { seed, at, why } = self;
        write!(f, "{why}; after {at:?} of virtual time with the seed {seed}; again: {}", replay(*seed))
    }
}

impl Error for Stuck {}

/// The command that runs this test with this seed.
pub(crate) fn replay(seed: u64) -> String {
    let package =
        std::env::var("CARGO_PKG_NAME").map_or_else(|_| String::new(), |name| format!(" -p {name}"));
    let thread = std::thread::current();
    // The name of a thread of the test harness is that of the test.
    let test =
        thread.name().filter(|name| *name != "main").map_or_else(String::new, |name| format!(" {name}"));
    format!("{SEED}={seed} cargo test{package}{test} -- --nocapture")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_says_why_when_and_how_to_see_it_again() {
        let stuck = Stuck { seed: 42, at: Duration::from_millis(1500), why: "nothing is due".to_owned() };
        let said = stuck.to_string();
        assert!(
            said.starts_with("nothing is due; after 1.5s of virtual time with the seed 42; again: "),
            "{said}"
        );
        assert!(
            said.contains("TIELINE_SIM_SEED=42 cargo test") && said.contains("it_says_why_when"),
            "{said}"
        );
    }
}
