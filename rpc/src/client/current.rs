//! The connection that calls go to: asked for at every call, changed when one is lost.

use std::sync::{
    Arc, OnceLock, PoisonError, RwLock,
    atomic::{AtomicUsize, Ordering},
};

use crate::link::Link;

/// How many connections are kept at hand. Each that is over still holds a few kilooctets, and its recording if there is
/// one.
const AT_HAND: usize = 8;

/// What calls go to at present.
///
/// The first connections of a client stay here as long as it does, so that a call borrows the one that it goes to: what a
/// lock and a counted reference take instead is four atomic operations, a fifteenth of a client's work for a small call
/// when many are in flight. Later ones are counted. A connection that is lost is a rare thing, and what is kept has to be
/// bounded.
#[derive(Default)]
pub(super) struct Current {
    published: RwLock<Published>,
    at_hand: [OnceLock<Arc<Link>>; AT_HAND],
    /// Where in `at_hand` the present one is; otherwise beyond its end. Changed under the lock of `published`.
    place: AtomicUsize,
}

#[derive(Default)]
struct Published {
    link: Option<Arc<Link>>,
    /// How many there were before.
    number: usize,
}

impl Current {
    /// The present one, if it is at hand.
    #[inline]
    pub(super) fn at_hand(&self) -> Option<&Arc<Link>> {
        self.at_hand.get(self.place.load(Ordering::Acquire))?.get()
    }

    /// The present one.
    pub(super) fn get(&self) -> Option<Arc<Link>> {
        self.published.read().unwrap_or_else(PoisonError::into_inner).link.clone()
    }

    /// Another one, or none.
    pub(super) fn set(&self, link: Option<Arc<Link>>) {
        let mut published = self.published.write().unwrap_or_else(PoisonError::into_inner);
        let place = match &link {
            Some(link) => {
                let place = published.number;
                published.number = place.saturating_add(1);
                // Nobody else sets it: its number is new.
                self.at_hand.get(place).map_or(AT_HAND, |free| match free.set(Arc::clone(link)) {
                    Ok(()) => place,
                    Err(_) => AT_HAND,
                })
            }
            None => AT_HAND,
        };
        self.place.store(place, Ordering::Release);
        published.link = link;
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use tieline_core::conn::{Config, Connection, Side};

    use super::*;
    use crate::{common::Common, link::Far};

    fn link() -> Arc<Link> {
        let config = Config::builder("test").build().unwrap();
        let common = Common::standing_still();
        let conn = Connection::new(config, Side::Client, 1, common.clock.now());
        Link::new(conn, common, Far::new("somewhere"))
    }

    #[test]
    fn what_is_at_hand_is_what_is_current_and_so_many_are_kept() {
        let current = Current::default();
        assert!(current.get().is_none() && current.at_hand().is_none());
        let mut all = Vec::new();
        for number in 0..2 * AT_HAND {
            let link = link();
            current.set(Some(Arc::clone(&link)));
            assert!(Arc::ptr_eq(&current.get().unwrap(), &link));
            match current.at_hand() {
                Some(borrowed) => assert!(Arc::ptr_eq(borrowed, &link)),
                None => assert!(number >= AT_HAND, "{number}"),
            }
            current.set(None);
            assert!(current.get().is_none() && current.at_hand().is_none());
            all.push(link);
        }
        let kept = all.iter().filter(|link| Arc::strong_count(link) > 1).count();
        assert_eq!(kept, AT_HAND);
    }
}
