//! The router of one node, as a pure state machine: who is here, where the others are, and every message under way.
//!
//! Like a connection of the core it does nothing by itself. Whoever owns it turns this loop:
//!
//! 1. Something happened: [`Router::handle`].
//! 2. Do what [`Router::poll_output`] says until there is nothing more. An [`Output::Ask`], an [`Output::Deliver`] and
//!    an [`Output::Relay`] each want exactly one [`Input`] that says what came of them.
//! 3. At [`Router::poll_timeout`]: [`Router::handle_timeout`].
//!
//! # What it promises
//!
//! * Each ticket is answered exactly once, by the deadline that came with it.
//! * [`Verdict::Delivered`] is said only of what the receiver has acknowledged; [`Verdict::NotDelivered`] only of what
//!   it has not seen and will not see from here. Where neither is known it says [`Verdict::Unconfirmed`].
//! * Between two users messages keep their order: the next one starts when the one before has its outcome.
//! * A message whose route breaks is tried again until its deadline, over any node at which its receiver then is. The
//!   receiver's node knows a second copy by origin and number and acknowledges it unseen; where that node is another
//!   one by then, the receiver itself does, by the same rule ([`Seen`]).
//! * The text of a message is never looked at, and never copied.

mod directory;
mod flight;
mod seen;
mod session;

use std::{
    collections::{BTreeMap, VecDeque},
    time::Duration,
};

use thiserror::Error;
use tieline_core::Instant;

pub use self::seen::{Seen, Standing};
use self::{
    directory::{Directory, Found, Waiter},
    flight::{FlightId, Flights, From, State},
    session::Sessions,
};
use crate::{
    name::Name,
    wire::{Message, Origin, Place, Report, Verdict},
};

/// How long to wait before a route that broke is tried again; a login or a node that comes back is not waited for.
pub const RETRY: Duration = Duration::from_millis(100);

/// A connection of a user; numbers are the owner's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct SessionId(pub u64);

/// Somebody who waits for an answer; numbers are the owner's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Ticket(pub u64);

/// A question to the other nodes; numbers are the router's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Query(u64);

/// One attempt to hand a message on; numbers are the router's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Attempt(u64);

/// What happened.
#[derive(Debug, Clone)]
pub enum Input {
    /// There is such a node, or its connection has come back.
    Node(Name),
    /// A user would log in. Answered [`Answer::LoggedIn`] or refused.
    Login(Ticket, SessionId, Origin),
    /// The connection of a user is over.
    Logout(SessionId),
    /// A user sends a message. Answered with a [`Report`] or refused.
    Send(Ticket, SessionId, Message, Instant),
    /// Another node hands a message over. Answered with a [`Report`] or refused.
    Relayed(Ticket, Message, Instant),
    /// A user asks where another is. Answered with a [`Place`].
    Where(Ticket, Name),
    /// Whether the node has the user it was asked for, or why it could not be asked.
    Asked(Query, Name, Result<bool, String>),
    /// What came of handing a message on, and how long that took.
    Attempted(Attempt, Result<Report, Broken>, Duration),
    /// The node is to stop: nothing new is taken, what waits is given up, what is with somebody is waited for.
    Stop,
}

/// Why an attempt came to nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Broken {
    /// Whether it may have been delivered nevertheless.
    pub maybe: bool,
    /// Whether another attempt would end the same way.
    pub last: bool,
    /// For people.
    pub why: String,
}

/// What to do.
#[derive(Debug, Clone)]
pub enum Output {
    /// Answer who waits.
    Answer(Ticket, Result<Answer, Refusal>),
    /// Hand a message to the user behind this session, by the deadline; then [`Input::Attempted`], with a
    /// [`Verdict::Delivered`] once the user has acknowledged it.
    Deliver(Attempt, SessionId, Message, Instant),
    /// Hand a message to this node, by the deadline; then [`Input::Attempted`], with what it reports.
    Relay(Attempt, Name, Message, Instant),
    /// Ask this node whether it has the user; then [`Input::Asked`].
    Ask {
        /// To be named in the answer.
        query: Query,
        /// Whom to ask.
        node: Name,
        /// Whom to ask for.
        user: Name,
    },
}

/// A good answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// Come in.
    LoggedIn,
    /// What became of a message.
    Report(Report),
    /// Where a user is.
    Place(Place),
}

/// Why something was not taken.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum Refusal {
    /// Another process has the name.
    #[error("{0} is logged in here already, from another process; log out there or choose another name")]
    Taken(Name),
    /// This connection has another name.
    #[error("this connection is logged in under another name; use a connection for each user")]
    LoggedInAlready,
    /// Not yet.
    #[error("nobody is logged in on this connection; log in first")]
    NotLoggedIn,
    /// The sender is somebody else.
    #[error("the message names a sender who is not logged in on this connection; send under your own name")]
    NotYou,
    /// Too much waits, or too many are here.
    #[error("the node is full; try again later")]
    Full,
    /// The node stops.
    #[error("the node is stopping; go to another")]
    Stopping,
    /// The same message was sent again, and that call gets the answer.
    #[error("the same message was sent again; its outcome is answered there")]
    SentAgain,
}

/// The router of one node. See the [module](self).
#[derive(Debug)]
pub struct Router {
    node: Name,
    sessions: Sessions,
    directory: Directory,
    flights: Flights,
    seen: Seen,
    attempts: BTreeMap<Attempt, (FlightId, Message, bool)>,
    /// Flights whose turn it is.
    ready: VecDeque<FlightId>,
    output: VecDeque<Output>,
    stopping: bool,
    last: u64,
}

impl Router {
    /// The router of the node of this name.
    #[must_use]
    pub fn new(node: Name) -> Self {
        Self {
            node,
            sessions: Sessions::default(),
            directory: Directory::default(),
            flights: Flights::default(),
            seen: Seen::default(),
            attempts: BTreeMap::new(),
            ready: VecDeque::new(),
            output: VecDeque::new(),
            stopping: false,
            last: 0,
        }
    }

    /// Takes in what happened.
    pub fn handle(&mut self, now: Instant, input: Input) {
        match input {
            Input::Node(node) => {
                self.directory.add(node);
                self.ready.extend(self.paused(self.flights.ids()));
            }
            Input::Login(ticket, session, user) => self.login(ticket, session, user),
            Input::Logout(session) => self.sessions.logout(session),
            Input::Send(ticket, session, message, deadline) => {
                match self.sessions.speaks_for(session, &message.from) {
                    Ok(()) => self.take(now, ticket, message, From::User, deadline),
                    Err(refusal) => self.answer(ticket, Err(refusal)),
                }
            }
            Input::Relayed(ticket, message, deadline) => {
                self.take(now, ticket, message, From::Node, deadline);
            }
            Input::Where(ticket, user) => {
                if self.has(&user) {
                    self.answer(ticket, Ok(Answer::Place(Place::Here(self.node.clone()))));
                } else if let Some(found) =
                    self.directory.locate(now, &user, Waiter::Ticket(ticket), &mut self.output)
                {
                    self.found(now, found);
                }
            }
            Input::Asked(query, node, answer) => {
                if let Some(found) = self.directory.answer(query, &node, answer) {
                    self.found(now, found);
                }
            }
            Input::Attempted(attempt, result, took) => self.attempted(now, attempt, result, took),
            Input::Stop => self.stop(),
        }
        self.work(now);
    }

    /// The time that [`poll_timeout`](Self::poll_timeout) named has come. Too early is harmless.
    pub fn handle_timeout(&mut self, now: Instant) {
        while let Some(found) = self.directory.expired(now) {
            self.found(now, found);
        }
        while let Some((id, deadline)) = self.flights.expired(now) {
            if deadline {
                self.give_up(id);
            } else {
                self.ready.push_back(id);
            }
        }
        self.work(now);
    }

    /// The next thing to do.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.output.pop_front()
    }

    /// When [`handle_timeout`](Self::handle_timeout) is due.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        [self.flights.timeout(), self.directory.timeout()].into_iter().flatten().min()
    }

    /// The session of a user who is logged in here.
    #[must_use]
    pub fn session(&self, user: &Name) -> Option<SessionId> {
        self.sessions.of(user)
    }

    /// Whether the user is logged in here.
    #[must_use]
    pub fn has(&self, user: &Name) -> bool {
        self.sessions.of(user).is_some()
    }

    /// The users who are logged in here, in the order of their names.
    #[must_use]
    pub fn users(&self) -> impl ExactSizeIterator<Item = &Name> {
        self.sessions.users()
    }

    /// How many messages are under way.
    #[must_use]
    pub fn under_way(&self) -> usize {
        self.flights.len()
    }

    fn answer(&mut self, ticket: Ticket, answer: Result<Answer, Refusal>) {
        self.output.push_back(Output::Answer(ticket, answer));
    }

    fn login(&mut self, ticket: Ticket, session: SessionId, user: Origin) {
        if self.stopping {
            return self.answer(ticket, Err(Refusal::Stopping));
        }
        let name = user.user.clone();
        if let Err(refusal) = self.sessions.login(session, user) {
            return self.answer(ticket, Err(refusal));
        }
        self.answer(ticket, Ok(Answer::LoggedIn));
        let heads = self.flights.heads_to(&name);
        for id in &heads {
            let Some(flight) = self.flights.get_mut(*id) else { continue };
            if let State::Attempting(_, Some(before)) = flight.state
                && before != session
            {
                // The same process has come again: what went to its old connection may never be acknowledged.
                flight.maybe = true;
                self.ready.push_back(*id);
            }
        }
        self.ready.extend(self.paused(heads));
    }

    /// Those that wait for a better time.
    fn paused(&self, ids: Vec<FlightId>) -> Vec<FlightId> {
        let is_paused = |id: &FlightId| {
            self.flights.get(*id).is_some_and(|flight| matches!(flight.state, State::Paused(_)))
        };
        ids.into_iter().filter(is_paused).collect()
    }

    fn take(&mut self, now: Instant, ticket: Ticket, message: Message, from: From, deadline: Instant) {
        if let Some(id) = self.flights.of(&message) {
            // The caller lost its connection and asks again.
            if let Some(before) = self.flights.take_over(id, ticket, deadline) {
                self.answer(before, Err(Refusal::SentAgain));
            }
            return;
        }
        if self.stopping {
            return self.answer(ticket, Err(Refusal::Stopping));
        }
        match self.flights.add(message, ticket, from, deadline.max(now)) {
            Some((id, true)) => self.ready.push_back(id),
            Some((_, false)) => {}
            None => self.answer(ticket, Err(Refusal::Full)),
        }
    }

    /// Starts, or starts again, whoever's turn it is.
    fn work(&mut self, now: Instant) {
        while let Some(id) = self.ready.pop_front() {
            self.start(now, id);
        }
    }

    fn start(&mut self, now: Instant, id: FlightId) {
        let Some(flight) = self.flights.get(id) else { return };
        let (message, from) = (flight.message.clone(), flight.from);
        match self.seen.standing(&message.from, &message.to, message.number) {
            Standing::Fresh => {}
            Standing::Delivered => return self.settle(id, Verdict::Delivered),
            Standing::Passed => {
                // Only a copy that comes very late gets here. Whether the first one was shown is forgotten.
                let why = "a later message was delivered before it".to_owned();
                return self.settle(id, Verdict::Unconfirmed(why));
            }
        }
        if let Some(session) = self.sessions.of(&message.to) {
            let attempt = self.attempt(id, &message, Some(session));
            let deadline = self.departs(id, now, None);
            self.output.push_back(Output::Deliver(attempt, session, message, deadline));
        } else if from == From::Node {
            self.absent(now, id, Place::Offline);
        } else if let Some(node) = self.directory.view(&message.to).cloned() {
            self.relay(now, id, message, node);
        } else {
            self.flights.set_state(id, State::Locating);
            let waiter = Waiter::Flight(id);
            if let Some(found) = self.directory.locate(now, &message.to, waiter, &mut self.output) {
                self.found(now, found);
            }
        }
    }

    fn relay(&mut self, now: Instant, id: FlightId, message: Message, node: Name) {
        let attempt = self.attempt(id, &message, None);
        let deadline = self.departs(id, now, Some(node.clone()));
        self.output.push_back(Output::Relay(attempt, node, message, deadline));
    }

    fn attempt(&mut self, id: FlightId, message: &Message, session: Option<SessionId>) -> Attempt {
        self.last += 1;
        let attempt = Attempt(self.last);
        self.attempts.insert(attempt, (id, message.clone(), session.is_some()));
        self.flights.set_state(id, State::Attempting(attempt, session));
        attempt
    }

    /// There is a route: from here on this node answers for the message. Returns its deadline.
    fn departs(&mut self, id: FlightId, now: Instant, via: Option<Name>) -> Instant {
        let Some(flight) = self.flights.get_mut(id) else { return now };
        flight.accepted = true;
        flight.via = via;
        flight.deadline
    }

    /// The directory knows, as far as it can.
    fn found(&mut self, now: Instant, (place, waiters): Found) {
        for waiter in waiters {
            match (waiter, &place) {
                (Waiter::Ticket(ticket), _) => self.answer(ticket, Ok(Answer::Place(place.clone()))),
                (Waiter::Flight(id), _)
                    if self.flights.get(id).is_none_or(|flight| flight.state != State::Locating) => {}
                // It looks again who is here by now, before it is relayed.
                (Waiter::Flight(id), Place::Here(_)) => self.ready.push_back(id),
                (Waiter::Flight(id), _) => self.absent(now, id, place.clone()),
            }
        }
    }

    /// The receiver is nowhere, as far as is known. Who was on the way to it when a route broke waits for it to come
    /// back.
    fn absent(&mut self, now: Instant, id: FlightId, place: Place) {
        let Some(flight) = self.flights.get(id) else { return };
        let here = self.has(&flight.message.to);
        if here {
            self.ready.push_back(id);
        } else if flight.broken.is_some() {
            self.pause(now, id);
        } else {
            let verdict = match place {
                Place::Unknown(why) => Verdict::Unknown(why),
                Place::Offline | Place::Here(_) => Verdict::Offline,
            };
            self.settle(id, verdict);
        }
    }

    fn pause(&mut self, now: Instant, id: FlightId) {
        if self.stopping {
            self.give_up(id);
        } else {
            self.flights.set_state(id, State::Paused(now.saturating_add(RETRY)));
        }
    }

    fn attempted(&mut self, now: Instant, attempt: Attempt, result: Result<Report, Broken>, took: Duration) {
        let Some((id, message, to_session)) = self.attempts.remove(&attempt) else { return };
        let delivered = result.as_ref().is_ok_and(|report| report.verdict == Verdict::Delivered);
        if to_session && delivered {
            // Also if it comes too late for the sender: a copy must not be shown.
            self.seen.mark(&message.from, &message.to, message.number);
        }
        let Some(flight) = self.flights.get_mut(id) else { return };
        let current = matches!(flight.state, State::Attempting(latest, _) if latest == attempt);
        match result {
            // An earlier attempt that succeeds after all is as good as the latest.
            Ok(_) if delivered => {
                let via = flight.via.clone().filter(|_| !to_session);
                self.deliver(id, via, took);
            }
            _ if !current => {
                flight.maybe |= result.is_ok_and(|report| matches!(report.verdict, Verdict::Unconfirmed(_)));
            }
            Ok(Report { verdict: Verdict::Offline, .. }) => {
                // The view was old, or the user has just gone. Once it is worth asking at once.
                flight.misled += 1;
                let first = flight.misled == 1 && flight.broken.is_none();
                self.directory.forget(&message.to);
                if first {
                    self.ready.push_back(id);
                } else {
                    flight.broken.get_or_insert_with(|| format!("{} is between two logins", message.to));
                    self.pause(now, id);
                }
            }
            Ok(report) => {
                // The other node has tried until the deadline; or it is told apart from what it cannot mean.
                let verdict = match report.verdict {
                    Verdict::Unknown(why) => Verdict::NotDelivered(why),
                    Verdict::NotDelivered(why) if flight.maybe => Verdict::Unconfirmed(why),
                    verdict => verdict,
                };
                self.settle_after(id, verdict, took);
            }
            Err(broken) => {
                flight.maybe |= broken.maybe;
                flight.broken = Some(broken.why);
                self.directory.forget(&message.to);
                if broken.last {
                    flight.state = State::Locating;
                    self.give_up(id);
                } else {
                    self.pause(now, id);
                }
            }
        }
    }

    fn deliver(&mut self, id: FlightId, via: Option<Name>, took: Duration) {
        if let Some(flight) = self.flights.get_mut(id) {
            let hop = via.is_some();
            flight.via = via;
            self.settle_after(id, Verdict::Delivered, if hop { took } else { Duration::ZERO });
        }
    }

    /// It goes no further.
    fn give_up(&mut self, id: FlightId) {
        if let Some(verdict) = self.flights.get(id).map(flight::Flight::given_up) {
            self.settle(id, verdict);
        }
    }

    fn settle(&mut self, id: FlightId, verdict: Verdict) {
        self.settle_after(id, verdict, Duration::ZERO);
    }

    fn settle_after(&mut self, id: FlightId, verdict: Verdict, hop: Duration) {
        let Some((flight, next)) = self.flights.remove(id) else { return };
        let hop_us = u64::try_from(hop.as_micros()).unwrap_or(u64::MAX);
        let report = Report { accepted: flight.accepted, verdict, via: flight.via, hop_us };
        self.answer(flight.ticket, Ok(Answer::Report(report)));
        self.ready.extend(next);
    }

    fn stop(&mut self) {
        self.stopping = true;
        for id in self.flights.ids() {
            let Some(flight) = self.flights.get_mut(id) else { continue };
            if matches!(flight.state, State::Attempting(..)) {
                continue;
            }
            flight.broken.get_or_insert_with(|| "the node is stopping".to_owned());
            self.give_up(id);
        }
        self.ready.clear();
    }
}

#[cfg(test)]
mod tests;
#[cfg(test)]
mod world;
