//! What an application does with a connection: its calls, its answers, the items of both.
//!
//! Each verb goes the straight way if that is open (see [`quick`](super::quick)), to the recording if there is one,
//! and to the machine otherwise.

use super::{
    Body, CallHead, CallId, Connection, ItemError, Rejected, Reply, ReplyError, Served, Stream, Taken,
};
use crate::{
    record::How,
    time::Instant,
    wire::{Class, Ran, Status},
};

impl<U> Connection<U> {
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
    /// [`Answer`](super::Answer), or that it was not.
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
    pub(super) fn begin(
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
    /// and for their turn, up to [`Limits::max_queued_items`](super::Limits::max_queued_items) a call.
    ///
    /// # Errors
    /// [`ItemError`]: full, which [`Event::Writable`](super::Event::Writable) ends; too large for the peer; or over.
    /// Nothing is sent then.
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
    /// [`Event::Readable`](super::Event::Readable) will tell of the next; or the call is over.
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

    #[inline]
    pub(super) fn take_user(&mut self, slot: u32) -> Option<U> {
        self.users.get_mut(slot as usize)?.take()
    }
}
