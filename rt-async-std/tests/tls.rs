//! What TLS must do on every runtime, on async-std.

use std::future::Future;

use tieline_async_std::AsyncStd;
use tieline_scenarios::Adapter;

struct OnAsyncStd;

impl Adapter for OnAsyncStd {
    type Runtime = AsyncStd;

    const UNIX: bool = true;

    fn block_on<F: Future>(future: F) -> F::Output {
        async_std::task::block_on(future)
    }
}

tieline_tls_scenarios::suite!(OnAsyncStd);
