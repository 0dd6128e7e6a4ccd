//! One test, many seeds.

use std::{
    error::Error,
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
};

use crate::{
    fault::Faults,
    sim::{Sim, complain},
    stuck::SEED,
    world::text,
};

/// Runs `body` once for each seed, in a new world, and returns how often faults fired in all of them together. The first
/// failure, a panic or an error, ends it: it tells the seed, the last of the trace, and the command that runs that seed
/// alone, which is this test with `TIELINE_SIM_SEED` set. `TIELINE_SIM_SEEDS=1000` runs the seeds 0 to 999 instead.
///
/// ```
/// use tieline_sim::{check, sleep};
///
/// check(0..3, |sim| {
///     sim.host("one", || async {
///         sleep(std::time::Duration::from_secs(60)).await;
///         Ok(())
///     });
///     sim.run()?;
///     assert!(sim.elapsed().as_secs() == 60);
///     Ok(())
/// });
/// ```
pub fn check(
    seeds: impl IntoIterator<Item = u64>,
    body: impl Fn(&Sim) -> Result<(), Box<dyn Error>>,
) -> Faults {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let mut faults = Faults::default();
    match (number(SEED), number("TIELINE_SIM_SEEDS")) {
        (Some(seed), _) => one(seed, &body, &mut faults),
        (None, Some(count)) => (0..count).for_each(|seed| one(seed, &body, &mut faults)),
        (None, None) => seeds.into_iter().for_each(|seed| one(seed, &body, &mut faults)),
    }
    faults
}

fn one(seed: u64, body: &impl Fn(&Sim) -> Result<(), Box<dyn Error>>, faults: &mut Faults) {
    let sim = Sim::new(seed);
    match catch_unwind(AssertUnwindSafe(|| body(&sim))) {
        Ok(Ok(())) => faults.add(&sim.faults()),
        Ok(Err(error)) => {
            let what = format!("the test ended with an error: {error};");
            complain(&sim.world, &what);
            drop(sim);
            resume_unwind(Box::new(what));
        }
        Err(panic) => {
            complain(&sim.world, &format!("the test panicked: {};", text(&*panic)));
            drop(sim);
            resume_unwind(panic);
        }
    }
}
