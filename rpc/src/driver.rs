//! Turns one connection: the loop that every adapter shares.
//!
//! A turn reads once, takes the lock, lets the core decode what came and commit what waits, runs handlers and wakes
//! callers outside the lock, and writes once. Where nothing but parts of large messages waits, callers that were woken
//! have their turn before the next one is committed, so that what they ask goes first. If that was all that there was to
//! do, it parks until the transport, the clock or a caller wakes it; before that it takes the lock once more to tell the
//! core what was written, and to see whether anybody has called meanwhile, and asks the transport once more for what has
//! arrived, unless it knows that nothing has.

use std::{
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, Waker},
};

use bytes::{Buf, BytesMut};
use tieline_core::{
    Instant,
    conn::{CheckingIn, Connection, Disconnect, End, Event, Incoming, Next, Outbox, PeerInfo, Served},
    wire::Kind,
};

use crate::{
    common::Common,
    flight::Grief,
    handler::{Outcome, Progress},
    link::{Far, Link, State},
    registry::Role,
    runtime::{Io, Runtime, Time},
    services::{Services, Spares},
    stint::Stint,
    tasks::{Stop, Task, answer},
    transport::{dead_after, what_broke},
};

/// Events that are fetched under one lock, so that nobody waits long for it.
const EVENTS: usize = 32;
/// Callers that are woken together.
const WAKERS: usize = 256;
/// Octets of answers that are written together while there is more to answer: a quarter of what was read, within these;
/// the most if other connections have their turns meanwhile, whose peers have something to do then.
const LEAST_PIECE: usize = 2 * 1024;
const MOST_PIECE: usize = 64 * 1024;
/// So many callers and more are woken in two parts where the peer would have less to do otherwise; see [`later`].
const MANY_CALLERS: usize = 32;
/// Turns before other tasks of the runtime get theirs, if not too much is done before; see [`Stint`].
const TURNS: usize = 16;

pub(crate) struct Driver<I, T> {
    io: I,
    time: T,
    link: Arc<Link>,
    services: Arc<Services>,
    spares: Spares,
    role: Role,
    outbox: Outbox,
    buffer: Option<BytesMut>,
    /// The transport has said that nothing has arrived, and wakes this task when something does.
    dry: bool,
    next: Next,
    /// The core has given its memory back.
    folded: bool,
    /// When the timer that is armed fires.
    armed: Option<Instant>,
    /// Whom it wakes.
    timed: Option<Waker>,
    /// Octets that the transport took and the core has not heard of.
    sent: usize,
    broken: Option<Disconnect>,
    /// Nothing more can be read. After a write that failed there may be: why the peer closed.
    deaf: bool,
    /// Octets that the last read brought.
    came: u32,
    /// The number of this connection's last turn among those of the process, and whether no other connection had one since
    /// the turn before.
    turn_number: u64,
    alone: bool,
    stint: Stint,
    /// The last turn has left parts of large messages where they are.
    gave_way: bool,
    /// Nothing more can be written. After the end of what comes in there may be: why this side closed.
    mute: bool,
    write_shut: bool,
    /// How many of the callers that are to be woken wait until the others have made their next calls.
    held: usize,
    /// Kept between turns for their memory.
    wakers: Vec<Waker>,
    requests: Vec<Incoming>,
    answers: Vec<(Served, Outcome)>,
    stops: Vec<Arc<Stop>>,
    milestones: Vec<Milestone>,
    /// What stops the tasks of calls, by the slot of the call.
    running: Vec<Option<Arc<Stop>>>,
}

/// What those above the connection want to know.
enum Milestone {
    CheckIn(CheckingIn),
    Ready(Arc<PeerInfo>),
    /// With what is to be written of it, if it ended badly.
    Closed(Option<Box<Grief>>),
}

enum Turn {
    Again,
    /// After other tasks had theirs.
    Yield,
    /// After all other tasks had theirs, also those that the runtime polls only between others.
    GiveWay,
    Park,
    Over,
}

impl<I: Io, T: Time> Driver<I, T> {
    pub(crate) fn new(io: I, time: T, link: Arc<Link>, services: Arc<Services>, role: Role) -> Self {
        let next = link.lock().conn.next();
        Self {
            io,
            time,
            link,
            services,
            spares: Spares::default(),
            role,
            outbox: Outbox::new(),
            buffer: None,
            dry: false,
            next,
            folded: false,
            armed: None,
            timed: None,
            sent: 0,
            broken: None,
            deaf: false,
            came: 0,
            turn_number: 0,
            alone: true,
            stint: Stint::default(),
            gave_way: false,
            mute: false,
            write_shut: false,
            held: 0,
            wakers: Vec::new(),
            requests: Vec::new(),
            answers: Vec::new(),
            stops: Vec::new(),
            milestones: Vec::new(),
            running: Vec::new(),
        }
    }

    fn turn(&mut self, cx: &mut Context<'_>, link: &Link) -> Turn {
        self.read(cx);
        let now = link.common.clock.now();
        let mut state = link.lock();
        state.now = now;
        state.awake = true;
        self.feed(&mut state, now);
        // A large batch is answered in pieces, so that the peer has something to do while this end goes on; a piece is
        // large enough to be worth its system call.
        let piece =
            if self.alone { (self.came as usize / 4).clamp(LEAST_PIECE, MOST_PIECE) } else { MOST_PIECE };
        let mut gives_way;
        let more = loop {
            let more = self.fetch(&mut state, now);
            if !self.requests.is_empty() {
                drop(state);
                self.handle_requests();
                state = link.lock();
                for (call, outcome) in self.answers.drain(..) {
                    answer(&mut state.conn, now, call, outcome);
                    self.wakers.extend(state.seats.close(call, None).into_iter().flatten());
                }
            } else if more {
                // Others want the lock too.
                drop(state);
                state = link.lock();
            }
            gives_way = !more && self.gives_way(&state);
            if !gives_way {
                state.conn.poll_transmit(now, &mut self.outbox);
            }
            if !more || self.outbox.remaining() >= piece || self.wakers.len() >= WAKERS {
                break more;
            }
        };
        state.room.expire(now, &mut self.wakers);
        self.gave_way = gives_way;
        // What was not committed can still be overtaken.
        if gives_way {
            self.look(&mut state);
            drop(state);
            self.held = 0;
            self.tell();
            return Turn::GiveWay;
        }
        self.held = if more { 0 } else { self.to_hold(&state) };
        let waits = self.outbox.remaining() > 0;
        let mut done = !more && self.held == 0;
        // After a write it is looked at anyway.
        if more || !waits {
            self.look(&mut state);
            done = !self.next.event && self.held == 0;
        }
        if done && !waits {
            leave(&mut state, cx);
        }
        drop(state);
        self.tell();
        if waits {
            self.write(cx);
            done = done && self.is_settled(link, now, cx) && !self.is_failing();
        }
        // What has arrived meanwhile is for the next turn.
        done = done && !self.read(cx);
        if self.held > 0 { Turn::Yield } else { self.finish(cx, now, done) }
    }

    /// Whether what callers that were woken ask next is to go out before the next part of a large message. Not twice in a
    /// row, so that the large one goes on.
    fn gives_way(&self, state: &State) -> bool {
        !self.gave_way
            && !self.wakers.is_empty()
            && self.outbox.remaining() == 0
            && state.conn.only_continues()
    }

    /// How many of the callers are to be woken later. Those that have waited once do not wait again.
    fn to_hold(&self, state: &State) -> usize {
        if self.held == 0 && self.alone { later(self.wakers.len(), state.conn.open_calls()) } else { 0 }
    }

    /// What is to be done next; and if it is to read, a buffer for it.
    fn look(&mut self, state: &mut State) {
        self.next = state.conn.next();
        let folded = state.conn.is_folded();
        if folded && !self.folded {
            self.release();
        }
        self.folded = folded;
        if let Some(due) = state.room.due() {
            self.next.wake = Some(self.next.wake.map_or(due, |wake| wake.min(due)));
        }
        if self.next.read && self.buffer.is_none() {
            self.buffer = Some(state.conn.lend());
            self.dry = false;
        }
    }

    /// Gives memory back, as the core has done: nobody has called for a while. What waits for the end of this turn stays.
    #[cold]
    fn release(&mut self) {
        self.spares.release();
        self.outbox.release();
        self.buffer.take_if(|buffer| buffer.is_empty());
        // Of a vector without capacity nothing is left.
        self.wakers.shrink_to_fit();
        self.requests.shrink_to_fit();
        self.answers.shrink_to_fit();
        self.stops.shrink_to_fit();
        self.milestones.shrink_to_fit();
        if self.running.iter().all(Option::is_none) {
            self.running = Vec::new();
        }
    }

    /// Tells the core what was written. Whether nothing else is to be done.
    fn is_settled(&mut self, link: &Link, now: Instant, cx: &Context<'_>) -> bool {
        let mut state = link.lock();
        self.feed_sent(&mut state, now);
        self.look(&mut state);
        // Somebody may have called meanwhile, and wakes nobody as long as this task is awake.
        let more = self.next.event || (self.next.write && self.outbox.has_room());
        if !more {
            leave(&mut state, cx);
        }
        !more
    }

    /// What must not happen under the lock.
    fn tell(&mut self) {
        let now = self.wakers.len() - self.held;
        self.stint.woke(now);
        for waker in self.wakers.drain(..now) {
            waker.wake();
        }
        if self.stops.is_empty() && self.milestones.is_empty() {
            return;
        }
        for stop in self.stops.drain(..) {
            stop.stop();
        }
        for milestone in self.milestones.drain(..) {
            match milestone {
                Milestone::CheckIn(check_in) => self.role.verify(&self.link, check_in),
                Milestone::Ready(peer) => {
                    self.io.set_dead_after(dead_after(peer.heartbeat_interval));
                    self.role.ready(&peer);
                }
                Milestone::Closed(grief) => {
                    if let Some(grief) = grief {
                        self.link.write(*grief);
                    }
                    self.role.closed();
                }
            }
        }
    }

    /// Reads once, unless what was read waits to be fed, or it is known that nothing has arrived. Whether there is
    /// something to feed.
    fn read(&mut self, cx: &mut Context<'_>) -> bool {
        if !self.next.read || self.deaf || self.dry {
            return false;
        }
        let Some(buffer) = &mut self.buffer else { return false };
        if !buffer.is_empty() {
            return true;
        }
        let end = match self.io.poll_read(cx, buffer) {
            Poll::Ready(Ok(octets)) if octets > 0 => {
                self.came = u32::try_from(octets).unwrap_or(u32::MAX);
                self.stint.moved(octets);
                return true;
            }
            Poll::Pending if self.broken.is_none() => {
                self.dry = true;
                return false;
            }
            Poll::Pending => Disconnect::Eof,
            Poll::Ready(Ok(_)) => Disconnect::Eof,
            Poll::Ready(Err(error)) => Disconnect::Error(what_broke(&error)),
        };
        self.deaf = true;
        self.broken.get_or_insert(end);
        true
    }

    /// Tells the core what happened outside.
    fn feed(&mut self, state: &mut State, now: Instant) {
        self.feed_sent(state, now);
        let conn = &mut state.conn;
        if self.buffer.as_ref().is_some_and(|buffer| !buffer.is_empty())
            && let Some(buffer) = self.buffer.take()
        {
            conn.handle_input(now, buffer);
        }
        if let Some(cause) = self.broken
            && self.deaf
            && self.next.end != End::Close
        {
            conn.handle_disconnect(now, cause);
        }
        // Whatever has a deadline since then is looked at before this task parks.
        if self.next.wake.is_some_and(|wake| wake <= now) {
            conn.handle_timeout(now);
        }
    }

    fn feed_sent(&mut self, state: &mut State, now: Instant) {
        if self.sent > 0 {
            state.conn.handle_sent(now, self.sent);
            self.sent = 0;
        }
    }

    /// Fetches events: outcomes go to their waiters, calls are kept for after the lock. Whether there may be more.
    fn fetch(&mut self, state: &mut State, now: Instant) -> bool {
        for _ in 0..EVENTS {
            // Matched where it is made: an event that gets a name is moved first, and of a small call's cost that is a part.
            match state.conn.poll_event(now) {
                None => return false,
                Some(Event::Done { user, outcome, rest }) => {
                    state.waiters.tell(user, outcome, rest, &mut self.wakers);
                }
                Some(Event::Request(incoming)) => {
                    if incoming.kind != Kind::Unary {
                        state.seats.open(incoming.call);
                    }
                    self.requests.push(incoming);
                }
                Some(Event::Readable(stream)) => self.wakers.extend(state.reader(stream)),
                Some(Event::Writable(stream)) => self.wakers.extend(state.sender(stream)),
                Some(Event::Room) => state.room.call(&mut self.wakers),
                Some(Event::Cancelled(call, why)) => {
                    self.wakers.extend(state.seats.close(call, Some(why)).into_iter().flatten());
                    if let Some(at) = self.requests.iter().position(|incoming| incoming.call == call) {
                        // Its handler was not even started.
                        self.requests.remove(at);
                        state.conn.stopped(now, call);
                    } else if let Some(stop) = self.running.get_mut(call.slot()).and_then(Option::take) {
                        self.stops.push(stop);
                    }
                }
                Some(Event::CheckIn(check_in)) => self.milestones.push(Milestone::CheckIn(*check_in)),
                Some(Event::Ready(peer)) => {
                    state.ready = true;
                    self.wakers.append(&mut state.watchers);
                    self.milestones.push(Milestone::Ready(peer));
                }
                Some(Event::Closed(closed)) => {
                    self.milestones.push(Milestone::Closed(self.link.grief(state, &closed)));
                    state.closed = Some(Arc::new(closed));
                    self.wakers.append(&mut state.watchers);
                    state.room.call(&mut self.wakers);
                }
                Some(Event::Draining { .. }) => {
                    state.draining = true;
                    self.wakers.append(&mut state.watchers);
                    state.room.call(&mut self.wakers);
                }
                Some(Event::Alive) => {
                    if let Some(probe) = &mut state.probe {
                        probe.answered = Some(now);
                    }
                    self.wakers.append(&mut state.watchers);
                }
                // Others say nothing to a driver.
                Some(_) => {}
            }
        }
        true
    }

    /// Starts the handlers of calls that came. Those that do not have to wait are answered in this very turn.
    fn handle_requests(&mut self) {
        for incoming in self.requests.drain(..) {
            let (call, method) = (incoming.call, incoming.method);
            match self.services.start(&mut self.spares, &self.link, incoming) {
                Progress::Done(outcome) => self.answers.push((call, outcome)),
                Progress::Pending(future) => {
                    let stop = Arc::new(Stop::default());
                    if self.running.len() <= call.slot() {
                        self.running.resize_with(call.slot() + 1, || None);
                    }
                    if let Some(place) = self.running.get_mut(call.slot()) {
                        *place = (!self.services.keeps_running(method)).then(|| Arc::clone(&stop));
                    }
                    let task = Task::new(future, stop, Arc::clone(&self.link), call);
                    self.link.common.spawn(Box::pin(task));
                }
            }
        }
    }

    /// Writes what is committed.
    fn write(&mut self, cx: &mut Context<'_>) {
        while self.outbox.remaining() > 0 && !self.mute {
            match self.io.poll_write(cx, &mut self.outbox) {
                Poll::Pending => break,
                Poll::Ready(Ok(0)) => self.fail("the transport takes nothing"),
                Poll::Ready(Ok(octets)) => {
                    self.sent += octets;
                    self.stint.moved(octets);
                }
                Poll::Ready(Err(error)) => self.fail(what_broke(&error)),
            }
        }
    }

    /// The transport takes no more, and whether it has something to say is to be found out.
    fn is_failing(&self) -> bool {
        self.mute && !self.deaf
    }

    /// The transport takes no more. What has arrived is still read: it may say why.
    fn fail(&mut self, what: &'static str) {
        self.mute = true;
        self.dry = false;
        self.broken = Some(Disconnect::Error(what));
    }

    /// Goes on, parks, or ends.
    fn finish(&mut self, cx: &mut Context<'_>, now: Instant, park: bool) -> Turn {
        if self.next.end == End::Close {
            // What came whole before the end is still served.
            return if self.next.event { Turn::Again } else { Turn::Over };
        }
        if self.next.end == End::ShutWrite && self.outbox.remaining() == 0 && !self.write_shut {
            match self.io.poll_shutdown(cx) {
                Poll::Pending => {}
                Poll::Ready(result) => {
                    self.write_shut = true;
                    if let Err(error) = result {
                        self.fail(what_broke(&error));
                        return Turn::Again;
                    }
                }
            }
        }
        if !park {
            return Turn::Again;
        }
        // An armed timer that fires too early is cheaper than one that is moved with every call.
        if let Some(wake) = self.next.wake {
            let at = self.armed.map_or(wake, |armed| armed.min(wake));
            // A timer that is armed and cannot have fired yet need not be asked.
            let same = self.timed.as_ref().is_some_and(|waker| waker.will_wake(cx.waker()));
            if same && self.armed == Some(at) && at > now {
                return Turn::Park;
            }
            self.armed = Some(at);
            if self.time.poll_until(cx, at).is_ready() {
                self.armed = None;
                return Turn::Again;
            }
            if !same {
                self.timed = Some(cx.waker().clone());
            }
        }
        Turn::Park
    }
}

impl<I, T> Unpin for Driver<I, T> {}

impl<I: Io, T: Time> Future for Driver<I, T> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = self.get_mut();
        let link = Arc::clone(&this.link);
        // Whatever woke this task, the transport may have.
        this.dry = false;
        this.stint = Stint::default();
        let number = link.common.turns.begin();
        this.alone = number == this.turn_number.wrapping_add(1);
        this.turn_number = number;
        for _ in 0..TURNS {
            match this.turn(cx, &link) {
                Turn::Again if this.stint.is_over() => break,
                Turn::GiveWay => break,
                Turn::Again => {}
                Turn::Yield => {
                    cx.waker().wake_by_ref();
                    return Poll::Pending;
                }
                Turn::Park => return Poll::Pending,
                Turn::Over => return Poll::Ready(()),
            }
        }
        this.io.yield_now(cx);
        Poll::Pending
    }
}

/// A driver that ends, or is dropped with its runtime, leaves nobody waiting.
impl<I, T> Drop for Driver<I, T> {
    fn drop(&mut self) {
        let now = self.link.common.clock.now();
        let mut state = self.link.lock();
        state.conn.handle_disconnect(now, Disconnect::Error("the runtime was shut down"));
        let mut wakers = std::mem::take(&mut self.wakers);
        let mut closed = None;
        while let Some(event) = state.conn.poll_event(now) {
            match event {
                Event::Done { user, outcome, rest } => {
                    state.waiters.tell(user, outcome, rest, &mut wakers);
                }
                Event::Request(incoming) => state.conn.stopped(now, incoming.call),
                Event::Cancelled(call, why) => {
                    wakers.extend(state.seats.close(call, Some(why)).into_iter().flatten());
                    self.stops.extend(self.running.get_mut(call.slot()).and_then(Option::take));
                }
                Event::Closed(reason) => closed = Some(Arc::new(reason)),
                _ => {}
            }
        }
        if state.closed.is_none() {
            state.closed = closed;
        }
        state.gone = true;
        wakers.append(&mut state.watchers);
        state.room.call(&mut wakers);
        drop(state);
        // One-ways that run go on: nobody takes them back by going away.
        for stop in self.stops.drain(..) {
            stop.stop();
        }
        self.role.gone();
        for waker in wakers {
            waker.wake();
        }
    }
}

/// How many of so many callers are to be woken later, where so many calls of either side are still open: while callers
/// that are woken together make their next calls, the peer has nothing to do but what is still open of this side's. So
/// what the first quarter asks goes out before the others are woken.
const fn later(callers: usize, (ours, theirs): (usize, usize)) -> usize {
    if callers >= MANY_CALLERS && ours <= callers && theirs == 0 { callers - callers / 4 } else { 0 }
}

/// From here on somebody who changes something must wake this task.
fn leave(state: &mut State, cx: &Context<'_>) {
    state.awake = false;
    if state.driver.as_ref().is_none_or(|driver| !driver.will_wake(cx.waker())) {
        state.driver = Some(cx.waker().clone());
    }
}

/// A connection that is driven in the background.
pub(crate) fn start<R: Runtime, I: Io>(
    runtime: &R,
    common: &Arc<Common>,
    io: I,
    conn: Connection<u32>,
    far: Far<'_>,
    services: Arc<Services>,
    mut role: Role,
) -> Arc<Link> {
    let link = Link::new(conn, Arc::clone(common), far);
    role.opened(&link);
    let driver = Driver::new(io, runtime.time(), Arc::clone(&link), services, role);
    runtime.spawn(Box::pin(driver));
    link
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn callers_wait_for_others_only_if_the_peer_waits_for_them() {
        assert_eq!(later(MANY_CALLERS - 1, (0, 0)), 0, "few");
        assert_eq!(later(128, (0, 0)), 96);
        assert_eq!(later(128, (128, 0)), 96);
        assert_eq!(later(128, (129, 0)), 0, "the peer has enough to do");
        assert_eq!(later(128, (0, 1)), 0, "it is this side that is waited for");
    }
}
