//! What must hold on every runtime, on async-std.

use std::future::Future;

use tieline_async_std::AsyncStd;
use tieline_scenarios::Adapter;

struct OnAsyncStd;

impl Adapter for OnAsyncStd {
    type Runtime = AsyncStd;

    const UNIX: bool = true;

    /// Its executor has a thread for each core.
    fn is_parallel() -> bool {
        std::thread::available_parallelism().is_ok_and(|cores| cores.get() > 1)
    }

    fn block_on<F: Future>(future: F) -> F::Output {
        async_std::task::block_on(future)
    }
}

tieline_scenarios::suite!(OnAsyncStd);
tieline_scenarios::sockets!(OnAsyncStd);
