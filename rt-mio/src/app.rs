//! What an application of the direct layer is: it is told what happens, on the loop's thread, and answers through the
//! [`Net`].

use std::sync::Arc;

use tieline_core::{
    conn::{Answer, Cancel, CheckingIn, Closed, Failure, Incoming, PeerInfo, Rest, Served, Stream},
    wire::Status,
};

use crate::net::{ConnId, ListenerId, Net, TimerId};

/// An application on a [`Loop`](crate::Loop), without tasks: each method is called when something has happened, gets
/// the [`Net`] to act on, and returns soon, for all else on the loop waits meanwhile.
///
/// A method that panics is contained: the panic ends nothing but what it was told of. A request whose handling panicked
/// is answered `HANDLER_PANIC`; after all others the loop goes on, and [`Counters::panics`](crate::Counters) tells.
///
/// If the requests are functions of their payload and answers go to closures, [`Handlers`](crate::Handlers) is one that
/// is ready made.
///
/// ```
/// use tieline_mio::{Answer, App, Body, CallHead, Config, ConnId, Failure, Incoming, Loop, MethodSpec, Net, Rest};
///
/// /// Doubles what it is sent, and counts the answers that it gets.
/// #[derive(Default)]
/// struct Doubler {
///     answers: Vec<u32>,
/// }
///
/// impl App for Doubler {
///     type User = u32;
///
///     fn request(&mut self, net: &mut Net<u32>, conn: ConnId, request: Incoming) {
///         let doubled = [&request.payload[..], &request.payload[..]].concat();
///         // That the caller may have gone meanwhile is not this application's concern.
///         let _ = net.answer(conn, request.call, Body::Copy(&doubled));
///     }
///
///     fn done(&mut self, net: &mut Net<u32>, _: ConnId, user: u32, outcome: Result<Answer, Failure>, _: Rest) {
///         assert!(outcome.is_ok_and(|answer| answer.payload == "abab"));
///         self.answers.push(user);
///         net.stop();
///     }
/// }
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let mut node = Loop::new(Doubler::default())?;
/// let config = Config::builder("node").method(MethodSpec::unary("demo.Text/Double")).build()?;
/// let listener = node.net().listen("127.0.0.1:0", &config)?;
/// let address = node.net().listening(listener).ok_or("it listens")?;
///
/// let conn = node.net().connect(&address, &config)?;
/// node.net().call(conn, &CallHead::new("demo.Text/Double"), Body::Copy(b"ab"), 42)?;
/// node.run()?;
/// assert_eq!(node.app().answers, [42]);
/// # Ok(())
/// # }
/// ```
pub trait App: Sized {
    /// What travels with each call of this side: it moves in with [`Net::call`] and out with
    /// [`done`](Self::done).
    type User;

    /// A peer calls, or sends a one-way. Say what became of it, now or later, with [`Net::answer`], [`Net::reply`],
    /// [`Net::refuse`] or [`Net::stopped`]; until then it holds a place.
    fn request(&mut self, net: &mut Net<Self::User>, conn: ConnId, request: Incoming);

    /// A call of this side has ended, and this is its one outcome. `rest` are the items of its stream that were not
    /// taken before.
    fn done(
        &mut self,
        net: &mut Net<Self::User>,
        conn: ConnId,
        user: Self::User,
        outcome: Result<Answer, Failure>,
        rest: Rest,
    );

    /// Check-in is complete: calls flow from now on.
    fn opened(&mut self, net: &mut Net<Self::User>, conn: ConnId, peer: &Arc<PeerInfo>) {
        let _ = (net, conn, peer);
    }

    /// The connection is over. The last that is told of it; its calls have had their outcomes.
    fn closed(&mut self, net: &mut Net<Self::User>, conn: ConnId, closed: Closed) {
        let _ = (net, conn, closed);
    }

    /// A call of the peer need not go on: it is answered already. It holds its place until [`Net::stopped`] is called,
    /// which this does by itself: an application that goes on working on calls overrides it.
    fn cancelled(&mut self, net: &mut Net<Self::User>, conn: ConnId, call: Served, why: Cancel) {
        let _ = why;
        net.stopped(conn, call);
    }

    /// Items of a stream can be taken, or its end: call [`Net::take_item`] until it returns nothing.
    fn readable(&mut self, net: &mut Net<Self::User>, conn: ConnId, stream: Stream) {
        let _ = (net, conn, stream);
    }

    /// After [`Net::send_item`] found no room: there is room again.
    fn writable(&mut self, net: &mut Net<Self::User>, conn: ConnId, stream: Stream) {
        let _ = (net, conn, stream);
    }

    /// After a call was refused for want of room: there is room again.
    fn room(&mut self, net: &mut Net<Self::User>, conn: ConnId) {
        let _ = (net, conn);
    }

    /// The peer drains: it takes no new calls on this connection. What is open goes on.
    fn draining(&mut self, net: &mut Net<Self::User>, conn: ConnId, status: Status) {
        let _ = (net, conn, status);
    }

    /// A client would check in, and the configuration asks to verify. Decide within 5 s with [`Net::accept_check_in`]
    /// or [`Net::refuse_check_in`]. By itself it refuses: who asks to verify and does not has forgotten something.
    fn check_in(&mut self, net: &mut Net<Self::User>, conn: ConnId, check_in: CheckingIn) {
        let _ = check_in;
        net.refuse_check_in(conn, Status::CHECK_IN_REFUSED, "nobody verifies here", None);
    }

    /// After a [`Net::probe`]: octets of the peer have come.
    fn alive(&mut self, net: &mut Net<Self::User>, conn: ConnId) {
        let _ = (net, conn);
    }

    /// A connection was accepted; it has not checked in.
    fn accepted(&mut self, net: &mut Net<Self::User>, listener: ListenerId, conn: ConnId) {
        let _ = (net, listener, conn);
    }

    /// A timer that was set with [`Net::set_timer`] has come.
    fn timer(&mut self, net: &mut Net<Self::User>, timer: TimerId) {
        let _ = (net, timer);
    }
}

/// No application: for a loop that only runs tasks. Calls that come all the same are not served: a configuration
/// without methods has none.
impl App for () {
    type User = ();

    fn request(&mut self, net: &mut Net<()>, conn: ConnId, request: Incoming) {
        net.stopped(conn, request.call);
    }

    fn done(&mut self, _: &mut Net<()>, _: ConnId, (): (), _: Result<Answer, Failure>, _: Rest) {}
}
