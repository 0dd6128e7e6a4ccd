//! What must hold on every runtime, on tokio's two.
#![allow(clippy::unwrap_used)]

use std::future::Future;

use tieline_scenarios::Adapter;
use tieline_tokio::Tokio;
use tokio::runtime::Builder;

mod on_one_thread {
    use super::{Adapter, Builder, Future, Tokio};

    struct OneThread;

    impl Adapter for OneThread {
        type Runtime = Tokio;

        const UNIX: bool = true;

        fn block_on<F: Future>(future: F) -> F::Output {
            Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
        }
    }

    tieline_scenarios::suite!(OneThread);
    tieline_scenarios::sockets!(OneThread);
}

mod on_two_threads {
    use super::{Adapter, Builder, Future, Tokio};

    struct TwoThreads;

    impl Adapter for TwoThreads {
        type Runtime = Tokio;

        const UNIX: bool = true;

        fn is_parallel() -> bool {
            true
        }

        /// Without it the other worker may be asleep where no socket wakes it.
        fn block<T>(work: impl FnOnce() -> T) -> T {
            tokio::task::block_in_place(work)
        }

        fn block_on<F: Future>(future: F) -> F::Output {
            Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap().block_on(future)
        }
    }

    tieline_scenarios::suite!(TwoThreads);
    tieline_scenarios::sockets!(TwoThreads);
}
