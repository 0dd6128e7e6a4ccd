//! What TLS must do on every runtime, written once. An adapter makes tests of it with one macro:
//!
//! ```ignore
//! struct OnMine;
//!
//! impl tieline_scenarios::Adapter for OnMine { /* … */ }
//!
//! tieline_tls_scenarios::suite!(OnMine);
//! ```
//!
//! Certificates are made on the spot. Peers that misbehave are plain sockets on threads of their own, so that they are the
//! same whatever the runtime is; a [`line::Line`] stands between two honest ends and cuts, holds or changes what passes.
// This is a test suite that has to be a library: what does not hold is to end it.
#![allow(clippy::unwrap_used, clippy::panic, clippy::missing_panics_doc)]
#![forbid(unsafe_code)]

pub mod calls;
pub mod certificates;
pub mod line;
pub mod strangers;
pub mod who;
pub mod wire;

use std::{
    future::{Future, poll_fn},
    task::Poll,
};

use tieline::{ClientTls, ServerBuilder};
pub use tieline_scenarios::{Adapter, Client, Server, wait};

use crate::certificates::Authority;

/// Where servers listen.
pub const ADDRESS: &str = "127.0.0.1:0";

/// A node with a certificate for `node-2`, that echoes.
pub(crate) fn node<A: Adapter>(authority: &Authority) -> ServerBuilder<A::Runtime> {
    Server::<A>::builder("node-2")
        .tls(tieline::ServerTls::new(&authority.identity("node-2")))
        .method("t.T/Echo", |_cx, body| async move { Ok(body) })
}

/// What a client needs to dial that node.
pub(crate) fn to_node(authority: &Authority) -> ClientTls {
    ClientTls::new(&authority.authorities()).server_name("node-2")
}

/// All at once.
pub(crate) async fn all<F: Future>(futures: impl IntoIterator<Item = F>) -> Vec<F::Output> {
    let mut futures: Vec<_> = futures.into_iter().map(|future| (Box::pin(future), None)).collect();
    poll_fn(|cx| {
        let mut pending = false;
        for (future, output) in &mut futures {
            if output.is_none() {
                match future.as_mut().poll(cx) {
                    Poll::Ready(ready) => *output = Some(ready),
                    Poll::Pending => pending = true,
                }
            }
        }
        if pending { Poll::Pending } else { Poll::Ready(()) }
    })
    .await;
    futures.into_iter().map(|(_, output)| output.unwrap()).collect()
}

/// Makes a test of each scenario.
#[macro_export]
macro_rules! suite {
    ($adapter:ty) => {
        $crate::tests! { $adapter,
            calls: bodies_of_every_size_come_back,
            calls: both_ends_call_at_once,
            calls: streams_run_in_both_directions,
            calls: a_drain_lets_open_calls_finish,
            calls: heartbeats_keep_an_idle_line_up,
            calls: a_silent_line_is_found_dead,
            who: each_end_knows_whom_it_talks_to,
            who: a_client_that_comes_back_is_still_known,
            who: an_identifier_belongs_to_whom_the_certificate_says,
            who: a_client_without_a_certificate_is_refused,
            who: a_client_of_another_authority_is_refused,
            who: a_client_whose_certificate_has_expired_is_refused,
            who: a_node_of_another_name_is_not_spoken_to,
            who: a_node_of_another_authority_is_not_spoken_to,
            who: a_node_whose_certificate_is_out_of_date_is_not_spoken_to,
            who: a_name_that_is_none_is_said,
            strangers: a_plain_client_is_told_that_the_node_speaks_tls,
            strangers: a_plain_node_is_recognised,
            strangers: a_node_that_speaks_http_is_recognised,
            strangers: a_node_of_an_older_version_is_recognised,
            strangers: a_client_that_speaks_http_is_sent_away,
            strangers: a_client_that_says_nothing_is_closed,
            strangers: a_node_that_says_nothing_is_given_up,
            strangers: a_handshake_without_end_is_cut_off,
            strangers: a_shutdown_does_not_wait_for_a_handshake,
            wire: nothing_goes_in_clear,
            wire: a_handshake_that_is_cut_anywhere_is_one_clear_error,
            wire: a_line_that_is_cut_is_told_from_an_end,
            wire: an_octet_that_is_changed_ends_the_connection,
            wire: unix_sockets_do_as_well,
        }
    };
}

/// What [`suite!`] is made of.
#[doc(hidden)]
#[macro_export]
macro_rules! tests {
    ($adapter:ty, $($room:ident: $name:ident,)*) => {$(
        #[test]
        fn $name() {
            <$adapter as $crate::Adapter>::block_on($crate::$room::$name::<$adapter>());
        }
    )*};
}
