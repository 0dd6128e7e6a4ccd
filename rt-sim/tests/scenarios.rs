//! What must hold on every runtime, in virtual time: on a quiet line, in other orders, and on a line that cuts what is
//! written and read into pieces.
#![allow(clippy::unwrap_used)]

use std::{future::Future, time::Duration};

use tieline_scenarios::Adapter;
use tieline_sim::Sim;

/// The scenarios run on one host, whose ends meet on its own line.
fn run<F: Future>(sim: &Sim, future: F) -> F::Output {
    sim.run_until(future).unwrap()
}

mod on_a_quiet_line {
    use super::{Adapter, Future, Sim, run};

    struct Quiet;

    impl Adapter for Quiet {
        type Runtime = Sim;

        fn block_on<F: Future>(future: F) -> F::Output {
            run(&Sim::new(1), future)
        }
    }

    tieline_scenarios::suite!(Quiet);
}

mod in_another_order {
    use super::{Adapter, Duration, Future, Sim, run};

    struct Far;

    impl Adapter for Far {
        type Runtime = Sim;

        fn block_on<F: Future>(future: F) -> F::Output {
            let sim = Sim::new(2);
            let latency = Duration::from_millis(2);
            let _ = sim.link("test", "test").latency(latency).jitter(latency);
            run(&sim, future)
        }
    }

    tieline_scenarios::suite!(Far);
}

mod in_pieces {
    use super::{Adapter, Future, Sim, run};

    struct Pieces;

    impl Adapter for Pieces {
        type Runtime = Sim;

        fn block_on<F: Future>(future: F) -> F::Output {
            let sim = Sim::new(3);
            let _ = sim.link("test", "test").slice(1..=30_000).partial_writes(true);
            run(&sim, future)
        }
    }

    tieline_scenarios::suite!(Pieces);
}
