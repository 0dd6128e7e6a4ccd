//! Time as the core sees it: a number that the caller brings along.

use core::{fmt, num::NonZeroU64, time::Duration};

/// A point in time: nanoseconds since an epoch that the caller chose.
///
/// The core never reads a clock. Whoever drives it passes `now` into every verb, from one monotonic source per
/// connection; a process's start is a fine epoch. An `Option<Instant>` takes 8 octets. Time that runs backwards is
/// harmless: a connection remembers the latest instant that it was told and reads an earlier one as that.
///
/// ```
/// use core::time::Duration;
/// use tieline_core::Instant;
///
/// let start = Instant::from_nanos(1_000);
/// let later = start.saturating_add(Duration::from_millis(5));
/// assert_eq!(later.saturating_since(start), Duration::from_millis(5));
/// ```
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Instant(NonZeroU64);

impl Instant {
    /// The instant `nanos` nanoseconds after the epoch. The epoch itself is read as its first nanosecond.
    #[must_use]
    #[inline]
    pub const fn from_nanos(nanos: u64) -> Self {
        match NonZeroU64::new(nanos) {
            Some(nanos) => Self(nanos),
            None => Self(NonZeroU64::MIN),
        }
    }

    /// Nanoseconds since the epoch.
    #[must_use]
    #[inline]
    pub const fn as_nanos(self) -> u64 {
        self.0.get()
    }

    /// The instant `duration` later, or the last one that can be expressed (584 years after the epoch).
    #[must_use]
    pub fn saturating_add(self, duration: Duration) -> Self {
        Self::from_nanos(self.as_nanos().saturating_add(nanos(duration)))
    }

    /// How long after `earlier` this is; zero if it is not after it.
    #[must_use]
    pub fn saturating_since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.as_nanos().saturating_sub(earlier.as_nanos()))
    }
}

impl fmt::Debug for Instant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Duration::from_nanos(self.as_nanos()).fmt(f)
    }
}

/// The time that no timer reaches.
pub(crate) const NEVER: u64 = u64::MAX;

/// One second in the core's unit.
pub(crate) const SECOND: u64 = 1_000_000_000;

/// One millisecond in the core's unit.
pub(crate) const MILLISECOND: u64 = 1_000_000;

/// A duration in the core's unit; what does not fit is longer than any connection lives.
pub(crate) fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(NEVER)
}

/// An internal time as the public type; `NEVER` is no time at all.
#[inline]
pub(crate) fn instant(nanos: u64) -> Option<Instant> {
    (nanos != NEVER).then(|| Instant::from_nanos(nanos))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_optional_instant_is_eight_octets() {
        assert_eq!(size_of::<Option<Instant>>(), 8);
    }

    #[test]
    fn arithmetic_saturates() {
        let last = Instant::from_nanos(u64::MAX);
        assert_eq!(last.saturating_add(Duration::MAX), last);
        assert_eq!(Instant::from_nanos(0).saturating_since(last), Duration::ZERO);
    }
}
