//! What the peer said that it serves (TABLE, protocol §4).

use alloc::{collections::BTreeMap, sync::Arc};

use crate::wire::Method;

/// A TABLE that contradicts an earlier one, or itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Contradiction;

/// The peer's methods, by name and by id. Ordered maps: a peer chooses the names, and an ordered map has no worst
/// case that it could choose.
#[derive(Default)]
pub(crate) struct Learned {
    by_name: BTreeMap<Arc<str>, (u32, u64)>,
    by_id: BTreeMap<u32, Arc<str>>,
    octets: usize,
    /// What was asked for last: most callers ask for few methods.
    recent: Option<(Arc<str>, u32, u64)>,
}

impl Learned {
    /// Whether the peer serves nothing, or has not said so yet.
    pub(crate) fn is_empty(&self) -> bool {
        self.by_id.is_empty()
    }

    /// Adds a method, unless there are too many already.
    pub(crate) fn add(
        &mut self,
        method: &Method<'_>,
        most: usize,
        most_octets: usize,
    ) -> Result<(), Contradiction> {
        if method.id == 0 {
            return Err(Contradiction);
        }
        let same_id = self.by_id.get(&method.id);
        match (self.by_name.get(method.name), same_id) {
            (Some(known), _) if *known == (method.id, method.fingerprint) => return Ok(()),
            (None, None) => {}
            _ => return Err(Contradiction),
        }
        let octets = self.octets.saturating_add(method.name.len());
        if self.by_id.len() < most && octets <= most_octets {
            let name: Arc<str> = Arc::from(method.name);
            self.octets = octets;
            self.by_name.insert(Arc::clone(&name), (method.id, method.fingerprint));
            self.by_id.insert(method.id, name);
        }
        Ok(())
    }

    /// The id of the method that was asked for last, if it is this one, its id is one octet, and its signature does not
    /// differ from what the caller knows.
    #[inline(always)]
    pub(crate) fn recent(&self, name: &str, fingerprint: u64) -> Option<u8> {
        let (recent, id, known) = self.recent.as_ref()?;
        let same = *known == fingerprint || *known == 0 || fingerprint == 0;
        if **recent == *name && same && *id < 0x80 { u8::try_from(*id).ok() } else { None }
    }

    /// Id and fingerprint of a method.
    #[inline]
    pub(crate) fn find(&mut self, name: &str) -> Option<(u32, u64)> {
        match &self.recent {
            Some((recent, id, fingerprint)) if **recent == *name => Some((*id, *fingerprint)),
            _ => self.look_up(name),
        }
    }

    #[inline(never)]
    fn look_up(&mut self, name: &str) -> Option<(u32, u64)> {
        let (name, &(id, fingerprint)) = self.by_name.get_key_value(name)?;
        self.recent = Some((Arc::clone(name), id, fingerprint));
        Some((id, fingerprint))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn method(id: u32, name: &str, fingerprint: u64) -> Method<'_> {
        Method { id, name, fingerprint }
    }

    #[test]
    fn the_same_again_is_no_contradiction_and_anything_else_is() {
        let mut learned = Learned::default();
        let mut add = |id, name, fingerprint| learned.add(&method(id, name, fingerprint), 10, 100);
        assert_eq!(add(1, "S/A", 7), Ok(()));
        assert_eq!(add(1, "S/A", 7), Ok(()));
        assert_eq!(add(1, "S/A", 8), Err(Contradiction));
        assert_eq!(add(2, "S/A", 7), Err(Contradiction));
        assert_eq!(add(1, "S/B", 7), Err(Contradiction));
        assert_eq!(add(0, "S/C", 7), Err(Contradiction));
        assert_eq!(learned.find("S/A"), Some((1, 7)));
    }

    #[test]
    fn learning_stops_at_the_limits() {
        let mut learned = Learned::default();
        assert_eq!(learned.add(&method(1, "one", 0), 2, 7), Ok(()));
        assert_eq!(learned.add(&method(2, "three", 0), 2, 7), Ok(()), "too many octets is not an error");
        assert_eq!(learned.find("three"), None);
        assert_eq!(learned.add(&method(3, "two", 0), 2, 7), Ok(()));
        assert_eq!(learned.add(&method(4, "", 0), 2, 7), Ok(()), "too many methods is not an error");
        assert_eq!(learned.find(""), None);
    }
}
