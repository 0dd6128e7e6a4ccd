//! What must hold on every runtime, on a loop.
#![allow(clippy::expect_used)]

use std::future::Future;

use tieline_mio::{Mio, block_on};
use tieline_scenarios::Adapter;

struct OnMio;

impl Adapter for OnMio {
    type Runtime = Mio;

    const UNIX: bool = true;

    /// A loop is one thread.
    fn is_parallel() -> bool {
        false
    }

    fn block_on<F: Future>(future: F) -> F::Output {
        block_on(future).expect("a loop")
    }
}

tieline_scenarios::suite!(OnMio);
tieline_scenarios::sockets!(OnMio);
