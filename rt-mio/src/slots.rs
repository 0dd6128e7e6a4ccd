//! Things by number. Numbers are used again, and a generation tells who came later from who was meant.

/// A name that was given out: the number, and which of its users was meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Name {
    pub(crate) number: u32,
    pub(crate) generation: u32,
}

#[derive(Debug)]
struct Slot<T> {
    generation: u32,
    value: Option<T>,
}

#[derive(Debug)]
pub(crate) struct Slots<T> {
    slots: Vec<Slot<T>>,
    free: Vec<u32>,
}

impl<T> Slots<T> {
    pub(crate) const fn new() -> Self {
        Self { slots: Vec::new(), free: Vec::new() }
    }

    /// Gives `value` a name; back it comes if all numbers are in use.
    pub(crate) fn insert(&mut self, value: T) -> Result<Name, T> {
        if let Some(number) = self.free.pop()
            && let Some(slot) = self.slots.get_mut(number as usize)
        {
            slot.value = Some(value);
            return Ok(Name { number, generation: slot.generation });
        }
        // The highest number is no one's, so that it can stand for nobody.
        let Some(number) = u32::try_from(self.slots.len()).ok().filter(|number| *number < u32::MAX) else {
            return Err(value);
        };
        self.slots.push(Slot { generation: 0, value: Some(value) });
        Ok(Name { number, generation: 0 })
    }

    /// Who has this number at present.
    #[inline]
    pub(crate) fn get_mut(&mut self, number: u32) -> Option<&mut T> {
        self.slots.get_mut(number as usize)?.value.as_mut()
    }

    /// The name of who has this number at present.
    #[inline]
    pub(crate) fn name(&self, number: u32) -> Option<Name> {
        let slot = self.slots.get(number as usize)?;
        slot.value.as_ref().map(|_| Name { number, generation: slot.generation })
    }

    /// Who was meant, if it is there still.
    #[inline]
    pub(crate) fn find(&self, name: Name) -> Option<&T> {
        let slot = self.slots.get(name.number as usize)?;
        if slot.generation == name.generation { slot.value.as_ref() } else { None }
    }

    /// The same, to change it.
    #[inline]
    pub(crate) fn find_mut(&mut self, name: Name) -> Option<&mut T> {
        let slot = self.slots.get_mut(name.number as usize)?;
        if slot.generation == name.generation { slot.value.as_mut() } else { None }
    }

    /// Takes out who has this number at present. Its name finds nothing from now on.
    pub(crate) fn remove(&mut self, number: u32) -> Option<T> {
        let slot = self.slots.get_mut(number as usize)?;
        let value = slot.value.take()?;
        slot.generation = slot.generation.wrapping_add(1);
        self.free.push(number);
        Some(value)
    }

    /// All that are there. Looks at every number.
    pub(crate) fn names(&self) -> impl Iterator<Item = (Name, &T)> {
        (0u32..).zip(&self.slots).filter_map(|(number, slot)| {
            Some((Name { number, generation: slot.generation }, slot.value.as_ref()?))
        })
    }

    /// All that are there, without their names.
    pub(crate) fn into_values(self) -> impl Iterator<Item = T> {
        self.slots.into_iter().filter_map(|slot| slot.value)
    }

    /// How many are there.
    pub(crate) fn len(&self) -> usize {
        self.slots.len() - self.free.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_never_finds_who_came_later() {
        let mut slots = Slots::new();
        let first = slots.insert("first").ok();
        let number = first.map_or(u32::MAX, |name| name.number);
        assert_eq!(slots.remove(number), Some("first"));
        assert_eq!(slots.remove(number), None);
        let second = slots.insert("second").ok();
        assert_eq!(second.map(|name| name.number), Some(number), "the number is used again");
        assert_eq!(first.and_then(|name| slots.find(name)), None);
        assert_eq!(first.and_then(|name| slots.find_mut(name)), None);
        assert_eq!(second.and_then(|name| slots.find(name)), Some(&"second"));
        assert_eq!(slots.get_mut(number), Some(&mut "second"));
        assert_eq!(slots.name(number), second);
        assert_eq!((slots.len(), slots.names().count()), (1, 1));
    }
}
