//! What TLS must do on every runtime, on a loop.

use std::future::Future;

use tieline_mio::{Mio, block_on};
use tieline_scenarios::Adapter;

struct OnMio;

impl Adapter for OnMio {
    type Runtime = Mio;

    const UNIX: bool = true;

    fn block_on<F: Future>(future: F) -> F::Output {
        block_on(future).expect("a loop")
    }
}

tieline_tls_scenarios::suite!(OnMio);
