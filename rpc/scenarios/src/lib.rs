//! What Tieline must do on every runtime, written once.
//!
//! An adapter implements [`Adapter`] in a test of its own and lets one macro or two make a test of each scenario:
//!
//! ```ignore
//! struct OnMine;
//!
//! impl tieline_scenarios::Adapter for OnMine { /* … */ }
//!
//! tieline_scenarios::suite!(OnMine);   // everything that needs no more than the runtime itself
//! tieline_scenarios::sockets!(OnMine); // what needs real sockets, threads, processes and signals
//! ```
//!
//! A scenario waits for events, and for nothing longer than [`wait::LONG`] by the runtime's own clock, so that it runs in
//! virtual time as well. It asks no more of a runtime than [`Runtime`]: one thread is enough.
//!
//! [`trace`] has the sequence of operations whose outcomes must be the same, line for line, on all of them.
// This is a test suite that has to be a library: what does not hold is to end it.
#![allow(clippy::unwrap_used, clippy::panic, clippy::missing_panics_doc, clippy::indexing_slicing)]
#![forbid(unsafe_code)]

pub mod calls;
pub mod deaf;
pub mod ends;
pub mod faults;
pub mod many;
pub mod options;
pub mod process;
pub mod raw;
pub mod signals;
pub mod silence;
pub mod streams;
pub mod task;
pub mod trace;
pub mod wait;

use std::future::Future;

use tieline::{Limits, Peer, Runtime, Services};

/// A runtime that the scenarios run on.
pub trait Adapter: Send + Sync + 'static {
    /// The runtime.
    type Runtime: Runtime;

    /// An address on which a server can listen as often as it likes, each time on another place: the port is 0.
    const ADDRESS: &str = "127.0.0.1:0";

    /// Whether addresses may be `unix:/path`.
    const UNIX: bool = false;

    /// Whether a task that blocks its thread, by [`block`](Self::block), leaves another one to the others.
    #[must_use]
    fn is_parallel() -> bool {
        false
    }

    /// Does what blocks the thread, by the means that the runtime has for that.
    fn block<T>(work: impl FnOnce() -> T) -> T {
        work()
    }

    /// Runs `future` to its end on the runtime, and what it spawns for so long at least. Within it, the default value of
    /// [`Runtime`](Self::Runtime) is this one.
    fn block_on<F: Future>(future: F) -> F::Output;
}

/// A server on the runtime of an adapter.
pub type Server<A> = tieline::Server<<A as Adapter>::Runtime>;
/// A client on the runtime of an adapter.
pub type Client<A> = tieline::Client<<A as Adapter>::Runtime>;

/// Makes a test of each scenario that needs nothing but the runtime.
#[macro_export]
macro_rules! suite {
    ($adapter:ty) => {
        $crate::tests! { $adapter, in
            calls: every_size_comes_back_from_either_end,
            calls: a_thousand_calls_at_once_get_each_its_own_answer,
            calls: errors_say_what_and_whether_it_ran,
            calls: a_handler_calls_its_caller_on_the_same_connection,
            calls: dropping_a_call_stops_its_handler,
            calls: a_deadline_ends_a_call_at_both_ends,
            calls: both_ends_press_at_once,
            streams: every_kind_works_in_both_directions,
            streams: many_streams_keep_their_items_apart,
            streams: either_direction_ends_for_itself,
            streams: an_early_answer_ends_the_items,
            streams: dropping_a_handle_stops_its_handler,
            streams: a_reader_that_stops_holds_the_handler,
            streams: a_handler_that_stops_reading_holds_its_caller,
            streams: a_handler_that_never_waits_lets_others_have_their_turn,
            streams: a_credit_of_its_own_lets_more_come_or_less,
            faults: a_handler_that_panics_harms_nobody_else,
            ends: a_shutdown_under_load_loses_nothing_that_was_accepted,
            ends: a_drain_lets_open_streams_finish,
            ends: a_handler_that_outlives_the_grace_is_interrupted,
            ends: a_client_comes_back_when_its_node_does,
            ends: a_client_that_leaves_says_so,
            silence: idle_connections_live_on,
            trace: the_same_script_gives_the_same_trace,
        }
    };
}

/// Makes a test of each scenario that needs sockets, threads, processes or signals of the system, which is Linux.
#[macro_export]
macro_rules! sockets {
    ($adapter:ty) => {
        $crate::tests! { $adapter, in
            silence: a_client_that_falls_silent_is_closed_in_time,
            silence: a_server_that_falls_silent_is_closed_in_time,
            silence: a_peer_that_beats_is_not_closed,
            silence: callers_that_hang_up_at_once_do_not_end_a_server,
            deaf: a_peer_that_stops_reading_is_closed,
            deaf: a_peer_that_reads_slowly_is_served,
            deaf: a_handler_that_blocks_holds_no_other_connection,
            ends: unix_sockets_do_as_well,
        }
        $crate::tests! { $adapter, over
            many: ten_thousand_connections_at_once,
            many: running_out_of_descriptors_does_not_end_a_server,
            options: both_ends_have_their_options,
            signals: a_node_that_is_told_to_end_loses_nothing_that_it_accepted,
            signals: a_node_that_is_killed_is_found_again,
            signals: a_process_that_stood_still_judges_nobody_unread,
        }
    };
}

/// What [`suite!`] and [`sockets!`] are made of.
#[doc(hidden)]
#[macro_export]
macro_rules! tests {
    ($adapter:ty, in $($room:ident: $name:ident,)*) => {$(
        #[test]
        fn $name() {
            <$adapter as $crate::Adapter>::block_on($crate::$room::$name::<$adapter>());
        }
    )*};
    ($adapter:ty, over $($room:ident: $name:ident,)*) => {$(
        #[test]
        fn $name() {
            $crate::$room::$name::<$adapter>(concat!(module_path!(), "::", stringify!($name)));
        }
    )*};
}

/// A server and a client of it, each with its services and these limits.
pub(crate) async fn pair<A: Adapter>(
    there: Services,
    here: Services,
    limits: Limits,
) -> (Server<A>, Client<A>) {
    let server = Server::<A>::builder("node-2").services(there).limits(limits.clone());
    let server = server.listen(A::ADDRESS).await.unwrap();
    let client = Client::<A>::builder("node-1").services(here).limits(limits);
    let client = client.connect(server.address()).await.unwrap();
    (server, client)
}

/// The one peer of a server.
pub(crate) async fn only_peer<A: Adapter>(server: &Server<A>) -> Peer {
    wait::until::<A>("somebody checks in", || !server.peers().is_empty()).await;
    server.peers().remove(0)
}

/// Room for everything that a scenario has under way at once.
pub(crate) fn roomy() -> Limits {
    let mut limits = Limits::default();
    limits.max_message = 8 << 20;
    limits.memory = 128 << 20;
    limits.max_queued = 128 << 20;
    limits
}
