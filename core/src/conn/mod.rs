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
mod waiting;

use alloc::{boxed::Box, sync::Arc, vec::Vec};
use core::{fmt, time::Duration};

use bytes::BytesMut;

pub use self::{
    config::{Config, ConfigBuilder, ConfigError, Limits, MethodSpec, Side},
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
    machine::{Machine, Phase, Step},
    quick::Quick,
    recorded::Tape,
};
use crate::{
    record::{How, Recording},
    time::{Instant, NEVER, instant},
    wire::{Class, Kind, Ran, Status},
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

    // ---- the application in -----------------------------------------------------------------------------------

    /// Calls a method of the peer. The call waits here until it is committed by [`poll_transmit`](Self::poll_transmit);
    /// until then it can be withdrawn with the certainty that nothing of it left. Calls may be made before check-in is
    /// complete.
    ///
    /// # Errors
    /// [`Rejected`] gives `user` back and says why: too much waits, the connection drains or is over, or the call
    /// cannot be sent to this peer at all.
    #[inline]
    pub fn call(
        &mut self,
        now: Instant,
        head: &CallHead<'_>,
        body: Body<'_>,
        user: U,
    ) -> Result<CallId, Rejected<U>> {
        self.begin(now, head, body, false, user)
    }

    /// Calls a unary method and says nothing but until when: what [`call`](Self::call) does with [`CallHead::new`], in
    /// fewer steps.
    ///
    /// # Errors
    /// As [`call`](Self::call).
    #[inline(always)]
    pub fn ask(
        &mut self,
        now: Instant,
        method: &str,
        deadline: Option<Instant>,
        body: Body<'_>,
        user: U,
    ) -> Result<CallId, Rejected<U>> {
        let machine = self.awake();
        machine.pass(now);
        if let Some(id) = machine.quick_call(method, 0, deadline, body.octets()) {
            self.keep_user(id, user);
            return Ok(id);
        }
        self.begin_any(now, &CallHead::new(method).deadline(deadline), body, false, user)
    }

    /// Sends a one-way: a call that is never answered. Its outcome says that it was committed, with an empty
    /// [`Answer`], or that it was not.
    ///
    /// # Errors
    /// As [`call`](Self::call).
    pub fn one_way(
        &mut self,
        now: Instant,
        head: &CallHead<'_>,
        body: Body<'_>,
        user: U,
    ) -> Result<CallId, Rejected<U>> {
        self.begin(now, head, body, true, user)
    }

    #[inline(always)]
    fn begin(
        &mut self,
        now: Instant,
        head: &CallHead<'_>,
        body: Body<'_>,
        one_way: bool,
        user: U,
    ) -> Result<CallId, Rejected<U>> {
        let machine = self.awake();
        machine.pass(now);
        let plain = head.is_plain() && head.parent.is_none() && !one_way;
        if plain
            && let Some(id) = machine.quick_call(head.method, head.fingerprint, head.deadline, body.octets())
        {
            self.keep_user(id, user);
            return Ok(id);
        }
        self.begin_any(now, head, body, one_way, user)
    }

    /// A call that does not go the straight way.
    #[inline(never)]
    fn begin_any(
        &mut self,
        now: Instant,
        head: &CallHead<'_>,
        body: Body<'_>,
        one_way: bool,
        user: U,
    ) -> Result<CallId, Rejected<U>> {
        if self.tape.is_some() {
            return self.record_call(now, head, body, one_way, user);
        }
        self.awake().tick(now);
        match self.awake().enqueue(head, body, one_way) {
            Ok(id) => {
                self.keep_user(id, user);
                Ok(id)
            }
            Err(reason) => Err(Rejected { user, reason }),
        }
    }

    #[inline]
    fn keep_user(&mut self, id: CallId, user: U) {
        let slot = id.slot as usize;
        if self.users.len() <= slot {
            self.users.resize_with(slot + 1, || None);
        }
        if let Some(place) = self.users.get_mut(slot) {
            *place = Some(user);
        }
    }

    /// Gives a call up and returns its value: withdrawn if nothing of it left, cancelled at the peer otherwise. `None`
    /// if its outcome was delivered before.
    pub fn cancel(&mut self, now: Instant, id: CallId) -> Option<U> {
        self.cancel_and_tell(now, id).map(|(user, _)| user)
    }

    /// What [`cancel`](Self::cancel) does, and whether the call may have run: `No` if it was withdrawn, `Maybe` if
    /// something of it had left (protocol §9, R-CAN-05).
    pub fn cancel_and_tell(&mut self, now: Instant, id: CallId) -> Option<(U, Ran)> {
        if self.tape.is_some() {
            return self.record_cancel(now, id);
        }
        self.awake().tick(now);
        let ran = self.awake().cancel(id);
        let user = ran.and_then(|ran| Some((self.take_user(id.slot)?, ran)));
        self.awake().settle();
        user
    }

    /// Answers a call of the peer with its result and nothing else: what [`reply`](Self::reply) does with
    /// [`Reply::ok`], in fewer steps.
    ///
    /// # Errors
    /// As [`reply`](Self::reply).
    #[inline(always)]
    pub fn answer(&mut self, now: Instant, to: Served, body: Body<'_>) -> Result<(), ReplyError> {
        let machine = self.awake();
        machine.pass(now);
        if machine.quick_reply(to, body.octets()) { Ok(()) } else { self.reply(now, to, &Reply::ok(body)) }
    }

    /// Answers a call of the peer; its handler has stopped. A status that is not of class 0 or 6 goes out as
    /// `INTERNAL`: the others belong to the runtime ([`refuse`](Self::refuse), [`panicked`](Self::panicked)). An
    /// answer that the caller does not read becomes a small error, never silence. For a one-way it only says that the
    /// handler has stopped.
    ///
    /// # Errors
    /// [`ReplyError`] if the answer is of no use any more; the call's place is free then, too.
    pub fn reply(&mut self, now: Instant, to: Served, reply: &Reply<'_>) -> Result<(), ReplyError> {
        self.awake().pass(now);
        if reply.status == Status::OK && reply.is_plain() && self.awake().quick_reply(to, reply.body.octets())
        {
            return Ok(());
        }
        if self.tape.is_some() {
            return self.record_reply(now, How::Reply, to, reply);
        }
        self.awake().tick(now);
        let status = match reply.status.class() {
            Class::Handler | Class::Application => reply.status,
            _ => Status::INTERNAL,
        };
        let done = self.awake().reply(to, reply, status);
        self.awake().settle();
        done
    }

    /// Refuses a call whose handler was not started: for layers in front of it. A status that is not of class 1 or 2
    /// goes out as `DENIED`.
    ///
    /// # Errors
    /// As [`reply`](Self::reply).
    pub fn refuse(&mut self, now: Instant, to: Served, reply: &Reply<'_>) -> Result<(), ReplyError> {
        if self.tape.is_some() {
            return self.record_reply(now, How::Refuse, to, reply);
        }
        self.awake().tick(now);
        let status = match reply.status.class() {
            Class::RefusedByNode | Class::RefusedRequest => reply.status,
            _ => Status::DENIED,
        };
        let done = self.awake().reply(to, reply, status);
        self.awake().settle();
        done
    }

    /// The handler of a call panicked: answered `HANDLER_PANIC`, without a word of the panic.
    ///
    /// # Errors
    /// As [`reply`](Self::reply).
    pub fn panicked(&mut self, now: Instant, to: Served) -> Result<(), ReplyError> {
        if self.tape.is_some() {
            return self.record_reply(now, How::Panicked, to, &Reply::ok(Body::Copy(&[])));
        }
        self.awake().tick(now);
        let reply = Reply::error(Status::HANDLER_PANIC, "the handler panicked");
        let done = self.awake().reply(to, &reply, Status::HANDLER_PANIC);
        self.awake().settle();
        done
    }

    /// The handler of a call that was cancelled, or of a one-way, has stopped: its place is free. A call that still
    /// wants an answer gets `INTERNAL`.
    pub fn stopped(&mut self, now: Instant, call: Served) {
        let reply = Reply::error(Status::INTERNAL, "the handler stopped without an answer");
        // That the answer was of no use is what is expected here.
        let _ = self.reply(now, call, &reply);
    }

    // ---- streams ----------------------------------------------------------------------------------------------

    /// Sends an item on a call that streams: of this side's own, or of one that is served. Items wait here for credit
    /// and for their turn, up to [`Limits::max_queued_items`] a call.
    ///
    /// # Errors
    /// [`ItemError`]: full, which [`Event::Writable`] ends; too large for the peer; or over. Nothing is sent then.
    #[inline]
    pub fn send_item(
        &mut self,
        now: Instant,
        to: impl Into<Stream>,
        item: Body<'_>,
    ) -> Result<(), ItemError> {
        if self.tape.is_some() {
            return self.record_send_item(now, to.into(), item);
        }
        self.awake().tick(now);
        let sent = self.awake().send_item(to.into(), item);
        self.awake().straighten();
        sent
    }

    /// Ends what this side sends on a call of its own: STREAM_END goes out behind the last item. Whoever serves a
    /// call ends its items with [`reply`](Self::reply).
    ///
    /// # Errors
    /// [`ItemError::Over`].
    pub fn end_items(&mut self, now: Instant, call: CallId) -> Result<(), ItemError> {
        if self.tape.is_some() {
            return self.record_end_items(now, call);
        }
        self.awake().tick(now);
        let ended = self.awake().end_items(call);
        self.awake().straighten();
        ended
    }

    /// Takes the next item that has come on a call, and so lets the peer send more. `None`: there is none now, and
    /// [`Event::Readable`] will tell of the next; or the call is over.
    #[inline]
    pub fn take_item(&mut self, now: Instant, from: impl Into<Stream>) -> Option<Taken> {
        if self.tape.is_some() {
            return self.record_take_item(now, from.into());
        }
        self.awake().tick(now);
        let taken = self.awake().take_item(from.into());
        self.awake().straighten();
        taken
    }

    /// Lets so many octets more come than were taken: an item costs its octets as sent, and 256. Without it a call
    /// that began with no credit gets no items. Credit never rises above 2^31−1.
    pub fn grant(&mut self, now: Instant, from: impl Into<Stream>, octets: u32) {
        if self.tape.is_some() {
            return self.record_grant(now, from.into(), octets);
        }
        self.awake().tick(now);
        self.awake().grant(from.into(), octets);
        self.awake().straighten();
    }

    /// What the application gave along with a call of this side, until it gets it back.
    #[must_use]
    pub fn user(&self, id: CallId) -> Option<&U> {
        if !self.machine.as_ref()?.calls.is_open(id) {
            return None;
        }
        self.users.get(id.slot as usize)?.as_ref()
    }

    // ---- the life of the connection ---------------------------------------------------------------------------

    /// Accepts the check-in that [`Event::CheckIn`] asked about.
    pub fn accept_check_in(&mut self, now: Instant) {
        if self.tape.is_some() {
            return self.record_accept(now);
        }
        self.awake().tick(now);
        if self.awake().phase == Phase::Verifying {
            self.awake().accept();
        }
    }

    /// Refuses the check-in that [`Event::CheckIn`] asked about. `status` is of class 4, such as `CHECK_IN_REFUSED`,
    /// `IDENTITY_CONFLICT` or `TOO_MANY_CONNECTIONS`.
    pub fn refuse_check_in(
        &mut self,
        now: Instant,
        status: Status,
        message: &str,
        retry_after: Option<Duration>,
    ) {
        if self.tape.is_some() {
            return self.record_refusal(now, status, message, retry_after);
        }
        self.awake().tick(now);
        if self.awake().phase == Phase::Verifying {
            let ms = retry_after.map_or(0, |after| u32::try_from(after.as_millis()).unwrap_or(u32::MAX));
            self.awake().refuse(status.as_close(), message.into(), ms);
        }
    }

    /// Asks whether the peer lives: a HEARTBEAT goes out now, whether one is due or not, and [`Event::Alive`] comes
    /// when octets of the peer do. A second probe before that starts anew. `false`, and nothing happens, unless the
    /// connection is checked in and not about to end. For deciding between two processes of one identifier
    /// (protocol §4); that the peer is dead is still decided by its silence alone.
    pub fn probe(&mut self, now: Instant) -> bool {
        if self.tape.is_some() {
            return self.record_probe(now);
        }
        self.awake().tick(now);
        self.awake().begin_probe()
    }

    /// When octets were last read, or the connection began.
    #[must_use]
    pub fn last_read(&self) -> Instant {
        let last = self.machine.as_ref().map_or(self.folded.last_read(), |machine| machine.live.last_read());
        Instant::from_nanos(last)
    }

    /// Drains: no new calls begin, on either side, but those of handlers that still run; when the open ones are done,
    /// or after `grace`, the connection closes with `status` (protocol §5, "Drain"). Again, with less grace, hastens
    /// it. Before check-in it closes at once.
    pub fn drain(&mut self, now: Instant, status: Status, grace: Duration, message: &str) {
        if self.tape.is_some() {
            return self.record_drain(now, status, grace, message);
        }
        self.awake().tick(now);
        self.awake().drain(status, grace, message);
        self.awake().settle();
    }

    /// Closes. With `NORMAL`, `GOING_AWAY` or `IDLE` what waits goes out first, and calls that are open end as
    /// `INTERRUPTED` or `CONNECTION_LOST`; with any other status of class 4 the CLOSE goes out before all else.
    pub fn close(&mut self, now: Instant, status: Status, message: &str) {
        if self.tape.is_some() {
            return self.record_close(now, status, message);
        }
        self.awake().tick(now);
        self.awake().close(status.as_close(), message);
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

    /// Whether the connection is idle, has been so for a heartbeat's time, and has given its memory back: a good moment for
    /// its driver to do the same. What it has lent belongs to nothing then, and may be dropped.
    #[must_use]
    pub const fn is_folded(&self) -> bool {
        self.machine.is_none()
    }

    /// The calls whose outcome was not fetched, with what is known about each. For when a connection is dropped.
    pub fn into_unfinished(mut self) -> impl Iterator<Item = (U, Ran)> {
        let users = core::mem::take(&mut self.users);
        (0u32..).zip(users).filter_map(move |(slot, user)| Some((user?, self.awake().unfinished(slot))))
    }

    /// What the peer said at check-in, once it has.
    #[must_use]
    pub fn peer(&self) -> Option<&Arc<PeerInfo>> {
        self.machine.as_ref().map_or_else(|| self.folded.peer(), |machine| machine.peer.as_ref())
    }

    /// Which end this is.
    #[must_use]
    pub fn side(&self) -> Side {
        self.folded.side()
    }

    /// What was recorded so far, if the configuration asks for that
    /// ([`ConfigBuilder::record`]). It is a copy: take it under a lock, write it to a file without.
    #[must_use]
    pub fn recording(&self) -> Option<Recording> {
        Some(self.tape.as_ref()?.recording(self.folded.config()))
    }

    /// Counters since the connection began.
    #[must_use]
    pub fn stats(&self) -> Stats {
        self.machine.as_ref().map_or_else(|| self.folded.stats(), |machine| machine.stats)
    }

    /// Calls of this side whose outcome was not fetched or whose RESPONSE is due, also if they were given up; and calls
    /// of the peer that hold a place.
    #[must_use]
    pub fn open_calls(&self) -> (usize, usize) {
        self.machine.as_ref().map_or((0, 0), |machine| (machine.calls.open(), machine.served.open()))
    }

    #[inline]
    fn take_user(&mut self, slot: u32) -> Option<U> {
        self.users.get_mut(slot as usize)?.take()
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

impl<U> fmt::Debug for Connection<U> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection")
            .field("side", &self.side())
            .field("phase", &self.machine.as_ref().map_or(Phase::Ready, |machine| machine.phase))
            .field("peer", &self.peer().map(|peer| peer.identifier.as_str()))
            .field("open", &self.open_calls())
            .finish_non_exhaustive()
    }
}
