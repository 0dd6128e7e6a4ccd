//! Where users are who are not here: asked of every other node, remembered until it proves wrong.
//!
//! There is no register yet. A user whom no node has is offline; but a node that could not be asked may have had the
//! user, and then nobody can say: that is [`Place::Unknown`], which is not the same.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use tieline_core::Instant;

use super::{Output, Query, Ticket, flight::FlightId};
use crate::{name::Name, wire::Place};

/// How long the other nodes have for an answer.
pub(super) const ASK_PATIENCE: Duration = Duration::from_secs(1);
/// Nodes in the list.
pub(super) const MAX_NODES: usize = 1024;
/// Places that are remembered.
const MAX_VIEWS: usize = 65_536;

/// Who waits to hear where a user is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Waiter {
    Flight(FlightId),
    Ticket(Ticket),
}

/// What this node believes: the user was there when it was last heard of.
#[derive(Debug)]
struct View {
    node: Name,
}

/// A question to all nodes.
#[derive(Debug)]
struct Lookup {
    user: Name,
    /// Who has not answered yet.
    asked: BTreeSet<Name>,
    /// Who could not be asked, and why.
    silent: Vec<String>,
    waiters: Vec<Waiter>,
    deadline: Instant,
}

#[derive(Debug, Default)]
pub(super) struct Directory {
    nodes: BTreeSet<Name>,
    views: BTreeMap<Name, View>,
    lookups: BTreeMap<Query, Lookup>,
    by_user: BTreeMap<Name, Query>,
    last: u64,
}

/// A question that has its answer, and those who wait for it.
pub(super) type Found = (Place, Vec<Waiter>);

impl Directory {
    pub(super) fn add(&mut self, node: Name) {
        if self.nodes.len() < MAX_NODES {
            self.nodes.insert(node);
        }
    }

    pub(super) fn view(&self, user: &Name) -> Option<&Name> {
        self.views.get(user).map(|view| &view.node)
    }

    pub(super) fn forget(&mut self, user: &Name) {
        self.views.remove(user);
    }

    /// Asks all nodes, or joins those who wait already. The answer, if nobody has to be asked; else the questions and
    /// the time by which they are answered.
    pub(super) fn locate(
        &mut self,
        now: Instant,
        user: &Name,
        waiter: Waiter,
        output: &mut impl Extend<Output>,
    ) -> Option<Found> {
        if let Some(lookup) = self.by_user.get(user).and_then(|query| self.lookups.get_mut(query)) {
            lookup.waiters.push(waiter);
            return None;
        }
        if self.nodes.is_empty() {
            return Some((Place::Offline, vec![waiter]));
        }
        self.last += 1;
        let query = Query(self.last);
        output.extend(self.nodes.iter().map(|node| Output::Ask {
            query,
            node: node.clone(),
            user: user.clone(),
        }));
        let lookup = Lookup {
            user: user.clone(),
            asked: self.nodes.clone(),
            silent: Vec::new(),
            waiters: vec![waiter],
            deadline: now.saturating_add(ASK_PATIENCE),
        };
        self.by_user.insert(user.clone(), query);
        self.lookups.insert(query, lookup);
        None
    }

    /// A node has answered, or cannot be asked. Answers to questions that are closed are dropped.
    pub(super) fn answer(
        &mut self,
        query: Query,
        node: &Name,
        answer: Result<bool, String>,
    ) -> Option<Found> {
        let lookup = self.lookups.get_mut(&query)?;
        if !lookup.asked.remove(node) {
            return None;
        }
        match answer {
            Ok(true) => {
                if self.views.len() >= MAX_VIEWS {
                    self.views.clear();
                }
                self.views.insert(lookup.user.clone(), View { node: node.clone() });
                return self.close(query, Place::Here(node.clone()));
            }
            Ok(false) => {}
            Err(why) => lookup.silent.push(why),
        }
        if lookup.asked.is_empty() { self.conclude(query) } else { None }
    }

    /// The first deadline.
    pub(super) fn timeout(&self) -> Option<Instant> {
        // All have the same patience, so the oldest is the first.
        self.lookups.values().next().map(|lookup| lookup.deadline)
    }

    /// A question whose time is over. Who has not answered by now is silent.
    pub(super) fn expired(&mut self, now: Instant) -> Option<Found> {
        let (query, lookup) = self.lookups.iter_mut().next()?;
        if lookup.deadline > now {
            return None;
        }
        let query = *query;
        for node in std::mem::take(&mut lookup.asked) {
            lookup.silent.push(format!("node {node} has not answered within {ASK_PATIENCE:?}"));
        }
        self.conclude(query)
    }

    /// Nobody has the user.
    fn conclude(&mut self, query: Query) -> Option<Found> {
        let silent = self.lookups.get(&query)?.silent.join("; ");
        self.close(query, if silent.is_empty() { Place::Offline } else { Place::Unknown(silent) })
    }

    fn close(&mut self, query: Query, place: Place) -> Option<Found> {
        let lookup = self.lookups.remove(&query)?;
        self.by_user.remove(&lookup.user);
        Some((place, lookup.waiters))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn name(text: &str) -> Name {
        text.parse().unwrap()
    }

    const START: Instant = Instant::from_nanos(1);
    const WAITER: Waiter = Waiter::Ticket(Ticket(1));

    fn asking() -> (Directory, Query) {
        let mut directory = Directory::default();
        directory.add(name("two"));
        directory.add(name("three"));
        let mut output = Vec::new();
        assert_eq!(directory.locate(START, &name("bob"), WAITER, &mut output), None);
        let Some(Output::Ask { query, .. }) = output.first() else { unreachable!() };
        assert_eq!(output.len(), 2);
        (directory, *query)
    }

    #[test]
    fn the_first_who_has_the_user_is_believed() {
        let (mut directory, query) = asking();
        let mut output = Vec::new();
        let second = Waiter::Ticket(Ticket(2));
        assert_eq!(directory.locate(START, &name("bob"), second, &mut output), None);
        assert!(output.is_empty(), "the same question is asked once");
        let found = directory.answer(query, &name("two"), Ok(true));
        assert_eq!(found, Some((Place::Here(name("two")), vec![WAITER, second])));
        assert_eq!(directory.view(&name("bob")), Some(&name("two")));
        assert_eq!(directory.answer(query, &name("three"), Ok(true)), None);
        assert_eq!(directory.timeout(), None);
    }

    #[test]
    fn offline_is_what_all_say_and_unknown_what_some_cannot() {
        let (mut directory, query) = asking();
        assert_eq!(directory.answer(query, &name("two"), Ok(false)), None);
        assert_eq!(directory.answer(query, &name("two"), Err("twice".to_owned())), None);
        let found = directory.answer(query, &name("three"), Ok(false));
        assert_eq!(found, Some((Place::Offline, vec![WAITER])));

        let (mut directory, query) = asking();
        assert_eq!(directory.answer(query, &name("two"), Err("node two is down".to_owned())), None);
        let found = directory.answer(query, &name("three"), Ok(false));
        assert_eq!(found, Some((Place::Unknown("node two is down".to_owned()), vec![WAITER])));
    }

    #[test]
    fn who_says_nothing_is_not_waited_for() {
        let (mut directory, query) = asking();
        assert_eq!(directory.answer(query, &name("two"), Ok(false)), None);
        let deadline = directory.timeout().unwrap();
        assert_eq!(directory.expired(START), None);
        let why = "node three has not answered within 1s".to_owned();
        assert_eq!(directory.expired(deadline), Some((Place::Unknown(why), vec![WAITER])));
        assert_eq!(directory.timeout(), None);
    }

    #[test]
    fn without_other_nodes_who_is_not_here_is_offline() {
        let found = Directory::default().locate(START, &name("bob"), WAITER, &mut Vec::new());
        assert_eq!(found, Some((Place::Offline, vec![WAITER])));
    }
}
