//! What can go wrong, and how often it did. A fault is counted when it has an effect, not when it is asked for: one
//! that never fired proves nothing.

use std::fmt;

macro_rules! faults {
    ($($(#[$doc:meta])* $name:ident = $text:literal,)*) => {
        /// A kind of fault. It counts when it has an effect; what counts as one effect stands with each.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[non_exhaustive]
        pub enum Fault {
            $($(#[$doc])* $name,)*
        }

        impl Fault {
            /// Every kind that there is.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// Its name, as traces show it.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$name => $text,)*
                }
            }
        }
    };
}

faults! {
    /// A connection was reset at both ends.
    Cut = "cut",
    /// A connection was ended in one direction.
    HalfClose = "half-close",
    /// Octets that had come to their end were held back for a while: [`Link::delay`](crate::Link::delay).
    Delay = "delay",
    /// Octets that had come to their end were held back until the stall is over.
    Stall = "stall",
    /// Octets or an attempt to connect vanished in a black hole.
    BlackHole = "black hole",
    /// Octets or an attempt to connect met a partition.
    Partition = "partition",
    /// A piece was cut to a size by chance.
    Slice = "slice",
    /// A piece was held back to arrive together with those behind it.
    Coalesce = "coalesce",
    /// A write took less than there was room for.
    PartialWrite = "partial write",
    /// A piece had to wait for the line, because its bandwidth is limited.
    Bandwidth = "bandwidth",
    /// A write found the buffer of the kernel full.
    Backpressure = "backpressure",
    /// An attempt to connect was refused on command.
    Refused = "refused",
    /// An attempt to connect was not answered on command.
    Unanswered = "unanswered",
    /// A host stood still.
    Pause = "pause",
    /// A host computed and did nothing else meanwhile.
    Busy = "busy",
    /// A host's process ended; its kernel reset what it had open.
    Crash = "crash",
    /// A host vanished without a word.
    PowerOff = "power off",
    /// A host was started again.
    Restart = "restart",
    /// The kernel gave a connection up whose octets nobody acknowledged (TCP_USER_TIMEOUT).
    UserTimeout = "user timeout",
}

const KINDS: usize = Fault::ALL.len();

/// How often faults fired, by kind.
///
/// ```
/// use tieline_sim::{Fault, Faults};
///
/// let faults = Faults::default();
/// assert_eq!(faults.count(Fault::Cut), 0);
/// assert!(faults.never(&[Fault::Cut, Fault::Stall]).contains(&Fault::Stall));
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Faults {
    counts: [u64; KINDS],
}

impl Faults {
    /// How often this kind fired.
    #[must_use]
    pub fn count(&self, fault: Fault) -> u64 {
        self.counts.get(fault as usize).copied().unwrap_or(0)
    }

    /// Those of `kinds` that never fired.
    #[must_use]
    pub fn never(&self, kinds: &[Fault]) -> Vec<Fault> {
        kinds.iter().copied().filter(|&fault| self.count(fault) == 0).collect()
    }

    /// All that fired.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// Adds those of another run.
    pub fn add(&mut self, other: &Self) {
        for (count, more) in self.counts.iter_mut().zip(other.counts) {
            *count = count.saturating_add(more);
        }
    }

    pub(crate) fn fired(&mut self, fault: Fault) {
        if let Some(count) = self.counts.get_mut(fault as usize) {
            *count = count.saturating_add(1);
        }
    }
}

/// Those that fired, by name.
impl fmt::Display for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut first = true;
        for &fault in Fault::ALL {
            if self.count(fault) > 0 {
                let comma = if std::mem::take(&mut first) { "" } else { ", " };
                write!(f, "{comma}{} {}", fault.name(), self.count(fault))?;
            }
        }
        if first { f.write_str("none") } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_is_counted_for_itself() {
        let mut faults = Faults::default();
        assert_eq!(faults.to_string(), "none");
        for &fault in Fault::ALL {
            faults.fired(fault);
        }
        faults.fired(Fault::Cut);
        assert!(Fault::ALL.iter().all(|&fault| faults.count(fault) >= 1));
        assert_eq!((faults.count(Fault::Cut), faults.total()), (2, KINDS as u64 + 1));
        let mut sum = faults.clone();
        sum.add(&faults);
        assert_eq!(sum.count(Fault::UserTimeout), 2);
        assert!(sum.to_string().starts_with("cut 4, half-close 2"));
    }
}
