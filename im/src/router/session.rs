//! Who is logged in at this node.

use std::collections::BTreeMap;

use super::{Refusal, SessionId};
use crate::{name::Name, wire::Origin};

/// Users that one node takes.
const MAX_SESSIONS: usize = 65_536;

/// A user who is logged in.
#[derive(Debug, Clone)]
pub(super) struct Session {
    pub(super) id: SessionId,
    pub(super) instance: u64,
}

/// All of them, each user at most once.
#[derive(Debug, Default)]
pub(super) struct Sessions {
    by_user: BTreeMap<Name, Session>,
    by_id: BTreeMap<SessionId, Name>,
}

impl Sessions {
    /// Logs in. The same process may come again over a new connection, which then counts alone; another process has
    /// to wait until the first has gone.
    pub(super) fn login(&mut self, id: SessionId, user: Origin) -> Result<(), Refusal> {
        if self.by_id.get(&id).is_some_and(|name| *name != user.user) {
            return Err(Refusal::LoggedInAlready);
        }
        match self.by_user.get(&user.user) {
            Some(before) if before.instance != user.instance => return Err(Refusal::Taken(user.user)),
            Some(before) => {
                let before = before.id;
                self.by_id.remove(&before);
            }
            None if self.by_user.len() >= MAX_SESSIONS => return Err(Refusal::Full),
            None => {}
        }
        self.by_id.insert(id, user.user.clone());
        self.by_user.insert(user.user, Session { id, instance: user.instance });
        Ok(())
    }

    /// The connection is over.
    pub(super) fn logout(&mut self, id: SessionId) {
        if let Some(user) = self.by_id.remove(&id) {
            self.by_user.remove(&user);
        }
    }

    pub(super) fn of(&self, user: &Name) -> Option<SessionId> {
        self.by_user.get(user).map(|session| session.id)
    }

    /// Whether messages of `from` may come over this session.
    pub(super) fn speaks_for(&self, id: SessionId, from: &Origin) -> Result<(), Refusal> {
        let user = self.by_id.get(&id).ok_or(Refusal::NotLoggedIn)?;
        let session = self.by_user.get(user).ok_or(Refusal::NotLoggedIn)?;
        if *user == from.user && session.instance == from.instance { Ok(()) } else { Err(Refusal::NotYou) }
    }

    pub(super) fn users(&self) -> impl ExactSizeIterator<Item = &Name> {
        self.by_user.keys()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn user(name: &str, instance: u64) -> Origin {
        Origin { user: name.parse().unwrap(), instance }
    }

    #[test]
    fn a_name_is_one_process_at_a_time() {
        let mut sessions = Sessions::default();
        let alice = user("alice", 7);
        sessions.login(SessionId(1), alice.clone()).unwrap();
        let other = sessions.login(SessionId(2), user("alice", 8));
        assert_eq!(other, Err(Refusal::Taken(alice.user.clone())));
        sessions.login(SessionId(3), alice.clone()).unwrap();
        assert_eq!(sessions.of(&alice.user), Some(SessionId(3)), "the same process came again");
        sessions.logout(SessionId(1));
        assert_eq!(sessions.of(&alice.user), Some(SessionId(3)), "the old connection takes nothing with it");
        sessions.logout(SessionId(3));
        sessions.login(SessionId(2), user("alice", 8)).unwrap();
        assert_eq!(sessions.users().len(), 1);
    }

    #[test]
    fn nobody_speaks_for_another() {
        let mut sessions = Sessions::default();
        assert_eq!(sessions.speaks_for(SessionId(1), &user("alice", 7)), Err(Refusal::NotLoggedIn));
        sessions.login(SessionId(1), user("alice", 7)).unwrap();
        assert_eq!(sessions.speaks_for(SessionId(1), &user("alice", 7)), Ok(()));
        assert_eq!(sessions.speaks_for(SessionId(1), &user("bob", 7)), Err(Refusal::NotYou));
        assert_eq!(sessions.speaks_for(SessionId(1), &user("alice", 8)), Err(Refusal::NotYou));
        assert_eq!(sessions.login(SessionId(1), user("bob", 7)), Err(Refusal::LoggedInAlready));
    }
}
