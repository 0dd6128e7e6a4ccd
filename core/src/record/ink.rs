//! How the parts of a recording are written down and read back: varints, and octets behind their length.

use alloc::vec::Vec;

use crate::wire::varint;

/// What is wrong with octets that should be a recording, and where in them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Damage {
    /// From the first octet that was being read.
    pub(crate) at: usize,
    pub(crate) what: &'static str,
}

pub(crate) fn put(value: impl Into<u64>, out: &mut Vec<u8>) {
    varint::put(value.into(), out);
}

pub(crate) fn put_octets(octets: &[u8], out: &mut Vec<u8>) {
    put(octets.len() as u64, out);
    out.extend_from_slice(octets);
}

/// Reads from the front, and knows how far it has come.
#[derive(Clone)]
pub(crate) struct Reader<'a> {
    all: &'a [u8],
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    pub(crate) const fn new(octets: &'a [u8]) -> Self {
        Self { all: octets, rest: octets }
    }

    pub(crate) const fn at(&self) -> usize {
        self.all.len().saturating_sub(self.rest.len())
    }

    pub(crate) const fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    pub(crate) const fn damage(&self, what: &'static str) -> Damage {
        Damage { at: self.at(), what }
    }

    pub(crate) fn take(&mut self, octets: usize) -> Result<&'a [u8], Damage> {
        let Some((taken, rest)) = self.rest.split_at_checked(octets) else {
            return Err(self.damage("it ends in the middle of a field"));
        };
        self.rest = rest;
        Ok(taken)
    }

    pub(crate) fn number(&mut self) -> Result<u64, Damage> {
        varint::take(&mut self.rest).map_err(|_| self.damage("a number is cut off or too long"))
    }

    /// A number of a narrower type.
    pub(crate) fn small<T: TryFrom<u64>>(&mut self) -> Result<T, Damage> {
        let at = self.clone();
        T::try_from(self.number()?).map_err(|_| at.damage("a number is too large"))
    }

    pub(crate) fn flag(&mut self) -> Result<bool, Damage> {
        Ok(self.small::<u8>()? != 0)
    }

    pub(crate) fn octets(&mut self) -> Result<&'a [u8], Damage> {
        let octets = self.small()?;
        self.take(octets)
    }

    pub(crate) fn text(&mut self) -> Result<&'a str, Damage> {
        let at = self.clone();
        core::str::from_utf8(self.octets()?).map_err(|_| at.damage("a text is not UTF-8"))
    }
}
