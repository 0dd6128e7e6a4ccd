//! Messages under way, one at a time in each conversation.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use tieline_core::Instant;

use super::{Attempt, SessionId, Ticket};
use crate::{
    name::Name,
    wire::{Message, Origin, Verdict},
};

/// Messages that may wait in one conversation.
const MAX_QUEUE: usize = 1024;
/// Messages under way in all.
const MAX_FLIGHTS: usize = 65_536;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct FlightId(u64);

/// Where a flight comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum From {
    /// A user who is logged in here: it may be relayed.
    User,
    /// Another node: it ends here.
    Node,
}

/// How far it is.
///
/// ```text
///            ┌──────────── Paused ◄────────────┐ the route broke
///            ▼                                 │
/// Waiting ─► Locating ─► Attempting ───────────┴─► settled
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    /// Behind others of its conversation.
    Waiting,
    /// The directory is asked.
    Locating,
    /// It is with its receiver's session, or with another node if there is none.
    Attempting(Attempt, Option<SessionId>),
    /// Its route broke; it is tried again then.
    Paused(Instant),
}

#[derive(Debug)]
pub(super) struct Flight {
    pub(super) message: Message,
    pub(super) ticket: Ticket,
    pub(super) from: From,
    pub(super) state: State,
    pub(super) deadline: Instant,
    /// A route was found.
    pub(super) accepted: bool,
    /// An attempt ended without a word about what became of it.
    pub(super) maybe: bool,
    /// Why the route broke, the last time.
    pub(super) broken: Option<String>,
    /// Where it went last.
    pub(super) via: Option<Name>,
    /// Nodes have said that the user is not there, as often as this.
    pub(super) misled: u32,
}

impl Flight {
    /// What to say if it goes no further.
    pub(super) fn given_up(&self) -> Verdict {
        let pending = match self.state {
            State::Attempting(_, Some(_)) => {
                Some(format!("{} has not acknowledged in time", self.message.to))
            }
            State::Attempting(_, None) => {
                Some(format!("node {} has not answered in time", self.via.as_ref().map_or("?", Name::as_str)))
            }
            _ => None,
        };
        let maybe = self.maybe || pending.is_some();
        let waited = || match self.state {
            State::Waiting => "it waited too long behind other messages".to_owned(),
            _ => format!("{} could not be found in time", self.message.to),
        };
        let why = pending.or_else(|| self.broken.clone()).unwrap_or_else(waited);
        if maybe { Verdict::Unconfirmed(why) } else { Verdict::NotDelivered(why) }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Timer {
    Retry(FlightId),
    Deadline(FlightId),
}

/// All flights, their conversations and their timers.
#[derive(Debug, Default)]
pub(super) struct Flights {
    flights: BTreeMap<FlightId, Flight>,
    /// By receiver, then by sender; in the order in which they came.
    conversations: BTreeMap<Name, BTreeMap<Name, VecDeque<FlightId>>>,
    by_message: BTreeMap<(Name, Origin, u64), FlightId>,
    timers: BTreeSet<(Instant, Timer)>,
    last: u64,
}

fn identity(message: &Message) -> (Name, Origin, u64) {
    (message.to.clone(), message.from.clone(), message.number)
}

impl Flights {
    pub(super) fn get(&self, id: FlightId) -> Option<&Flight> {
        self.flights.get(&id)
    }

    pub(super) fn get_mut(&mut self, id: FlightId) -> Option<&mut Flight> {
        self.flights.get_mut(&id)
    }

    pub(super) fn len(&self) -> usize {
        self.flights.len()
    }

    /// The flight of this message, if it is under way already.
    pub(super) fn of(&self, message: &Message) -> Option<FlightId> {
        self.by_message.get(&identity(message)).copied()
    }

    /// A new flight, at the end of its conversation. Whether it is its turn; `None` if there is no room.
    pub(super) fn add(
        &mut self,
        message: Message,
        ticket: Ticket,
        from: From,
        deadline: Instant,
    ) -> Option<(FlightId, bool)> {
        let sender = &message.from.user;
        let waiting = self.conversations.get(&message.to).and_then(|senders| senders.get(sender));
        let waiting = waiting.map_or(0, VecDeque::len);
        if waiting >= MAX_QUEUE || self.flights.len() >= MAX_FLIGHTS {
            return None;
        }
        self.last += 1;
        let id = FlightId(self.last);
        let senders = self.conversations.entry(message.to.clone()).or_default();
        senders.entry(sender.clone()).or_default().push_back(id);
        self.by_message.insert(identity(&message), id);
        self.timers.insert((deadline, Timer::Deadline(id)));
        let flight = Flight {
            message,
            ticket,
            from,
            state: State::Waiting,
            deadline,
            accepted: false,
            maybe: false,
            broken: None,
            via: None,
            misled: 0,
        };
        self.flights.insert(id, flight);
        Some((id, waiting == 0))
    }

    /// Somebody else waits for its outcome from now on, and as long as this. The one who did before.
    pub(super) fn take_over(&mut self, id: FlightId, ticket: Ticket, deadline: Instant) -> Option<Ticket> {
        let flight = self.flights.get_mut(&id)?;
        self.timers.remove(&(flight.deadline, Timer::Deadline(id)));
        self.timers.insert((deadline, Timer::Deadline(id)));
        flight.deadline = deadline;
        Some(std::mem::replace(&mut flight.ticket, ticket))
    }

    pub(super) fn set_state(&mut self, id: FlightId, state: State) {
        let Some(flight) = self.flights.get_mut(&id) else { return };
        if let State::Paused(until) = flight.state {
            self.timers.remove(&(until, Timer::Retry(id)));
        }
        if let State::Paused(until) = state {
            self.timers.insert((until, Timer::Retry(id)));
        }
        flight.state = state;
    }

    /// Takes it out; and whose turn it is now, if it was at the head of its conversation.
    pub(super) fn remove(&mut self, id: FlightId) -> Option<(Flight, Option<FlightId>)> {
        self.drop_retry(id);
        let flight = self.flights.remove(&id)?;
        self.timers.remove(&(flight.deadline, Timer::Deadline(id)));
        self.by_message.remove(&identity(&flight.message));
        let (to, sender) = (&flight.message.to, &flight.message.from.user);
        let senders = self.conversations.get_mut(to)?;
        let queue = senders.get_mut(sender)?;
        let next = if queue.front() == Some(&id) {
            queue.pop_front();
            queue.front().copied()
        } else {
            queue.retain(|other| *other != id);
            None
        };
        if queue.is_empty() {
            senders.remove(sender);
            if senders.is_empty() {
                self.conversations.remove(to);
            }
        }
        Some((flight, next))
    }

    /// Drops its retry timer, but keeps what the state says for whoever takes the flight out.
    fn drop_retry(&mut self, id: FlightId) {
        if let Some(Flight { state: State::Paused(until), .. }) = self.flights.get(&id) {
            self.timers.remove(&(*until, Timer::Retry(id)));
        }
    }

    /// The heads of all conversations with this receiver.
    pub(super) fn heads_to(&self, to: &Name) -> Vec<FlightId> {
        let senders = self.conversations.get(to).into_iter().flat_map(BTreeMap::values);
        senders.filter_map(|queue| queue.front().copied()).collect()
    }

    pub(super) fn ids(&self) -> Vec<FlightId> {
        self.flights.keys().copied().collect()
    }

    pub(super) fn timeout(&self) -> Option<Instant> {
        self.timers.first().map(|(at, _)| *at)
    }

    /// A flight whose timer has come, and whether that is its deadline.
    pub(super) fn expired(&mut self, now: Instant) -> Option<(FlightId, bool)> {
        let (at, timer) = self.timers.first().copied()?;
        if at > now {
            return None;
        }
        self.timers.pop_first();
        match timer {
            Timer::Retry(id) => Some((id, false)),
            Timer::Deadline(id) => Some((id, true)),
        }
    }
}
