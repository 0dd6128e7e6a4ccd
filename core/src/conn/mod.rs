//! One connection, as a pure state machine. Start at [`Connection`].

mod admission;
mod answers;
mod assembly;
mod budget;
mod calling;
mod calls;
mod config;
mod credit;
mod cutting;
pub(crate) mod deadlines;
mod ending;
mod event;
mod folded;
mod fragments;
mod gain;
mod handshake;
mod inbox;
mod input;
mod items;
mod items_in;
mod keys;
mod lanes;
mod learned;
mod life;
mod liveness;
mod machine;
mod memory;
mod outbox;
mod output;
mod pace;
mod probe;
mod quick;
mod recorded;
mod rest;
mod sending;
mod served;
mod serving;
mod staging;
mod stats;
mod streaming;
mod telling;
mod timers;
mod verbs;
mod waiting;

use alloc::{boxed::Box, sync::Arc, vec::Vec};

use bytes::BytesMut;

pub use self::{
    config::{Config, ConfigBuilder, ConfigError, Limits, MethodSpec, Side},
    credit::ITEM_COST,
    event::{
        Answer, Body, By, CallHead, CallId, Cancel, CheckingIn, Closed, Disconnect, End, Event, Failure,
        Incoming, ItemError, Next, PeerInfo, Rejected, Rejection, Reply, ReplyError, Served, Stream, Taken,
    },
    outbox::Outbox,
    rest::Rest,
    stats::Stats,
};
use self::{
    folded::Folded,
    machine::{Machine, Step},
    quick::Quick,
    recorded::Tape,
};
use crate::{
    time::{Instant, NEVER, instant},
    wire::{Kind, Ran},
};

/// The size of a read on a line that is folded up: room for the heartbeats of an interval.
const IDLE_READ: usize = 64;

/// One connection of the Tieline protocol, from check-in to close.
///
/// `U` is whatever the application wants back with the outcome of a call: the number of a waiter, a channel, a
/// request of its own. It moves in with [`call`](Self::call) and out with the call's one outcome.
///
/// # Driving it
///
/// A connection does nothing by itself. Whoever owns it turns this loop:
///
/// 1. When the transport has octets: [`lend`](Self::lend) a buffer, read into it, give it back with
///    [`handle_input`](Self::handle_input). At the end of the stream: [`handle_disconnect`](Self::handle_disconnect).
/// 2. Fetch events with [`poll_event`](Self::poll_event) until there is none.
/// 3. Commit output with [`poll_transmit`](Self::poll_transmit) into an [`Outbox`], write it, and say with
///    [`handle_sent`](Self::handle_sent) how much the transport took.
/// 4. Wait for the transport or until [`poll_timeout`](Self::poll_timeout), whichever is first; then call
///    [`handle_timeout`](Self::handle_timeout) if that time has come.
///
/// [`next`](Self::next) says in O(1) which of these is worth doing. No order is required: any verb may be called at
/// any time, and calling one too often does nothing.
///
/// # Streams and large payloads
///
/// A call whose [`CallHead::kind`] streams is begun as any other. Its items go with [`send_item`](Self::send_item) and
/// come with [`take_item`](Self::take_item), at both ends, from the moment at which the call has a name; the caller ends
/// its own with [`end_items`](Self::end_items), who serves ends them with [`reply`](Self::reply). Taking an item is what
/// lets the peer send more: an application that is slow holds its peer by credit, and never by not reading. Payloads of
/// any size up to the peer's limits are cut into frames and put together here.
///
/// # Laws
///
/// Each is a property test over random runs of two connections (`core/tests/laws.rs`), and asked by the fuzz targets
/// (`core/fuzz`).
///
/// * **L1** Each accepted call leaves exactly once: by [`Event::Done`], by the return of [`cancel`](Self::cancel), or by
///   [`into_unfinished`](Self::into_unfinished).
/// * **L2** Each refusal gives `user` back.
/// * **L3** [`Event::Closed`] is last and unique.
/// * **L4** After `handle_timeout(t)` there is output, an event, or `poll_timeout() > t`: never a spin.
/// * **L5** Pending output or events force `poll_timeout() <= now`.
/// * **L6** How input is cut is invisible.
/// * **L7** How draining and input interleave is invisible.
/// * **L8** Memory stays within [`Limits`] whatever the peer does.
/// * **L9** No input panics; time that runs backwards is clamped.
/// * **L10** [`Ran::No`] means that no octet of that call ever left, or that the peer refused it unstarted.
/// * **L11** Credit is conserved: a sender never begins an item without it, and what the application takes and grants is
///   what CREDIT returns, but for less than a quarter of the initial credit.
/// * **L12** Reading never waits for writing, and what reading forces to be written is bounded.
/// * **L13** The same configuration, seed and inputs give the same outputs, octet for octet.
///
/// # Example
///
/// Two connections, joined by nothing but this loop:
///
/// ```
/// use bytes::Buf;
/// use tieline_core::{Instant, conn::*};
///
/// let config = Config::builder("node").method(MethodSpec::unary("demo.Echo/Echo")).build()?;
/// let now = Instant::from_nanos(1);
/// let mut client: Connection<&str> = Connection::new(config.clone(), Side::Client, 1, now);
/// let mut server: Connection<()> = Connection::new(config, Side::Server, 2, now);
///
/// client.call(now, &CallHead::new("demo.Echo/Echo"), Body::Copy(b"hello"), "mine")?;
///
/// fn carry<A, B>(now: Instant, from: &mut Connection<A>, to: &mut Connection<B>) {
///     let mut outbox = Outbox::new();
///     while from.poll_transmit(now, &mut outbox) {
///         let octets = outbox.remaining();
///         let mut buffer = to.lend();
///         outbox.chunks().for_each(|chunk| buffer.extend_from_slice(chunk));
///         outbox.advance(octets);
///         from.handle_sent(now, octets);
///         to.handle_input(now, buffer);
///     }
/// }
///
/// let mut echoed = None;
/// while echoed.is_none() {
///     carry(now, &mut client, &mut server);
///     while let Some(event) = server.poll_event(now) {
///         if let Event::Request(request) = event {
///             server.reply(now, request.call, &Reply::ok(Body::Share(request.payload)))?;
///         }
///     }
///     carry(now, &mut server, &mut client);
///     while let Some(event) = client.poll_event(now) {
///         if let Event::Done { user, outcome, .. } = event {
///             echoed = Some((user, outcome?.payload));
///         }
///     }
/// }
/// assert_eq!(echoed, Some(("mine", "hello".into())));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Connection<U> {
    /// `None` while it is folded up.
    machine: Option<Box<Machine>>,
    folded: Folded,
    /// By the slot of the call.
    users: Vec<Option<U>>,
    /// What is recorded. While it is here the straight way is shut, so only the other ways ask for it; see
    /// [`recorded`].
    tape: Option<Box<Tape>>,
}

impl<U> Connection<U> {
    /// A connection that has just been dialled or accepted. `seed` makes its random choices (tokens and the like); two
    /// connections of one process should not share one.
    #[must_use]
    pub fn new(config: Arc<Config>, side: Side, seed: u64, now: Instant) -> Self {
        let tape = config.record.map(|record| Tape::new(record, side, seed, now));
        let mut folded = Folded::new(config, side, seed, now.as_nanos());
        Self { machine: Some(folded.unfold()), folded, users: Vec::new(), tape }
    }

    #[inline(always)]
    fn awake(&mut self) -> &mut Machine {
        self.machine.get_or_insert_with(|| wake(&mut self.folded, &mut self.tape))
    }

    /// Gives the memory of an idle connection back.
    #[cold]
    fn doze(&mut self) {
        if self.machine.as_mut().is_some_and(|machine| machine.fold(&mut self.folded)) {
            self.machine = None;
            self.users = Vec::new();
        }
    }

    // ---- octets in --------------------------------------------------------------------------------------------

    /// An empty buffer to read into, which continues the memory of what has arrived where that is possible. Give it
    /// back with [`handle_input`](Self::handle_input), filled or not; filling another one and giving that is fine too.
    #[inline(always)]
    pub fn lend(&mut self) -> BytesMut {
        let Some(machine) = &mut self.machine else { return BytesMut::with_capacity(IDLE_READ) };
        if machine.direct.is_none()
            && let Some(buffer) = machine.inbox.lend_rest()
        {
            return buffer;
        }
        machine.lend()
    }

    /// Octets have arrived. They are decoded when an event is asked for.
    #[inline(always)]
    pub fn handle_input(&mut self, now: Instant, filled: BytesMut) {
        match &mut self.machine {
            Some(machine) if machine.straight.input => {
                machine.pass(now);
                let octets = machine.take_in(filled);
                if !machine.quick_input(octets) {
                    machine.tick(now);
                    machine.handle_input(octets);
                }
            }
            _ => self.input_any(now, filled),
        }
    }

    /// Input that does not go the straight way.
    #[inline(never)]
    fn input_any(&mut self, now: Instant, filled: BytesMut) {
        if self.machine.is_none() && filled.is_empty() {
            return;
        }
        if self.tape.is_some() {
            return self.record_input(now, filled);
        }
        let machine = self.awake();
        machine.tick(now);
        let octets = machine.take_in(filled);
        machine.handle_input(octets);
    }

    /// The transport took `octets` of what was committed. Tell it after every write: the rules about idle lines and
    /// stuck peers count from it.
    #[inline(always)]
    pub fn handle_sent(&mut self, now: Instant, octets: usize) {
        let Some(machine) = &mut self.machine else { return };
        if self.tape.is_some() {
            return self.record_sent(now, octets);
        }
        machine.pass(now);
        machine.handle_sent(octets);
        if machine.drowsy {
            self.doze();
        }
    }

    /// The transport ended. What arrived before is still decoded; then everything open ends and
    /// [`Event::Closed`] follows.
    pub fn handle_disconnect(&mut self, now: Instant, cause: Disconnect) {
        if self.tape.is_some() {
            return self.record_disconnect(now, cause);
        }
        self.awake().tick(now);
        self.awake().handle_disconnect(cause);
    }

    /// The time that [`poll_timeout`](Self::poll_timeout) named has come. Too early or too late is harmless.
    pub fn handle_timeout(&mut self, now: Instant) {
        if self.tape.is_some() {
            return self.record_timeout(now);
        }
        self.awake().tick(now);
        self.awake().handle_timeout();
        self.awake().settle();
        if self.awake().drowsy {
            self.doze();
        }
    }

    // ---- out --------------------------------------------------------------------------------------------------

    /// The next event. `None`: nothing more until something else happens.
    #[inline(always)]
    pub fn poll_event(&mut self, now: Instant) -> Option<Event<U>> {
        let machine = self.machine.as_mut()?;
        machine.pass(now);
        if !machine.straight.input {
            return self.poll_any(now);
        }
        if !machine.unparsed {
            return None;
        }
        let Some((quick, place)) = machine.quick_event() else { return self.poll_any(now) };
        let payload = machine.quick_take(place);
        Some(match quick {
            Quick::Answer { slot } => {
                let user = self.take_user(slot)?;
                let outcome = Ok(Answer { payload, envelope: None });
                Event::Done { user, outcome, rest: Rest::NONE }
            }
            Quick::Request { call, method, deadline } => Event::Request(Incoming {
                call,
                method,
                one_way: false,
                priority: 0,
                codec: 0,
                kind: Kind::Unary,
                deadline: instant(deadline),
                payload,
                envelope: None,
            }),
        })
    }

    /// The next event, whatever it is.
    #[inline(never)]
    fn poll_any(&mut self, now: Instant) -> Option<Event<U>> {
        if self.tape.is_some() {
            return self.record_event(now);
        }
        self.awake().tick(now);
        let event = self.poll_step();
        self.awake().straighten();
        if event.is_none() && self.awake().drowsy {
            self.doze();
        }
        event
    }

    fn poll_step(&mut self) -> Option<Event<U>> {
        loop {
            let Some(step) = self.awake().poll() else {
                // What was decoded may have been the last that a drain waited for.
                self.awake().settle();
                self.awake().trim();
                return None;
            };
            let event = match step {
                Step::Done { slot, outcome, rest } => {
                    let user = self.take_user(slot);
                    self.awake().settle();
                    match user {
                        Some(user) => Event::Done { user, outcome, rest },
                        // Not reached: a slot that is told has its value.
                        None => continue,
                    }
                }
                Step::Request(incoming) => Event::Request(incoming),
                Step::Cancelled(call, why) => Event::Cancelled(call, why),
                Step::CheckIn(check_in) => Event::CheckIn(check_in),
                Step::Ready(peer) => Event::Ready(peer),
                Step::Readable(stream) => Event::Readable(stream),
                Step::Writable(stream) => Event::Writable(stream),
                Step::Room => Event::Room,
                Step::Draining { until, status } => Event::Draining { until, status },
                Step::Alive => Event::Alive,
                Step::Closed(closed) => Event::Closed(closed),
            };
            return Some(event);
        }
    }

    /// Commits frames to `out` until it has no room or nothing waits; whether any was committed. From then on they
    /// count as sent.
    #[inline(always)]
    pub fn poll_transmit(&mut self, now: Instant, out: &mut Outbox) -> bool {
        let Some(machine) = &mut self.machine else { return false };
        machine.pass(now);
        match machine.quick_transmit(out) {
            Some(any) => any,
            None => self.transmit_any(now, out),
        }
    }

    #[inline(never)]
    fn transmit_any(&mut self, now: Instant, out: &mut Outbox) -> bool {
        if self.tape.is_some() {
            return self.record_transmit(now, out);
        }
        self.awake().tick(now);
        let any = self.awake().transmit(out);
        self.awake().settle();
        any
    }

    /// When [`handle_timeout`](Self::handle_timeout) is due; not later than now if output or events wait. `None` once
    /// the connection is over.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        let Some(machine) = &self.machine else { return self.folded.next().wake };
        if machine.has_output() || machine.has_event() {
            return instant(machine.now.min(NEVER - 1));
        }
        instant(machine.next_timer())
    }

    /// What is worth doing next. O(1).
    #[must_use]
    pub fn next(&self) -> Next {
        self.machine.as_ref().map_or_else(|| self.folded.next(), |machine| machine.next())
    }

    /// The calls whose outcome was not fetched, with what is known about each. For when a connection is dropped.
    pub fn into_unfinished(mut self) -> impl Iterator<Item = (U, Ran)> {
        let users = core::mem::take(&mut self.users);
        (0u32..).zip(users).filter_map(move |(slot, user)| Some((user?, self.awake().unfinished(slot))))
    }
}

/// Unfolds a connection; the straight way of one that records stays shut.
#[cold]
#[inline(never)]
fn wake(folded: &mut Folded, tape: &mut Option<Box<Tape>>) -> Box<Machine> {
    let mut machine = folded.unfold();
    if let Some(tape) = tape {
        tape.shut(&mut machine);
    }
    machine
}
