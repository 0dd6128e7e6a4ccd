//! What TLS must do on every runtime, on tokio.

use std::future::Future;

use tieline_scenarios::Adapter;
use tieline_tokio::Tokio;

struct OnTokio;

impl Adapter for OnTokio {
    type Runtime = Tokio;

    const UNIX: bool = true;

    fn block_on<F: Future>(future: F) -> F::Output {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
        runtime.expect("a runtime").block_on(future)
    }
}

tieline_tls_scenarios::suite!(OnTokio);
