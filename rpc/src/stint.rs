//! How long a driver goes on before other tasks of its runtime have their turn.
//!
//! Whoever makes a call meanwhile waits for what is read and written until then. Small calls by the hundred are better
//! gathered, so callers that were woken make it longer; parts of large messages gain nothing by that, and copying one
//! takes a good part of a small call's time.

/// Octets read and written.
const OCTETS: u32 = 256 * 1024;
/// The same of those that were so many and more at once.
const LARGE: u32 = 32 * 1024;
/// Octets for each caller that was woken, if that is more.
const OCTETS_A_CALLER: u32 = 4 * 1024;

/// What a driver has done since other tasks had their turn.
#[derive(Debug, Default)]
pub(crate) struct Stint {
    moved: u32,
    large: u32,
    woken: u32,
}

impl Stint {
    /// Octets were read or written at once.
    pub(crate) fn moved(&mut self, octets: usize) {
        let octets = number(octets);
        self.moved = self.moved.saturating_add(octets);
        if octets >= LARGE {
            self.large = self.large.saturating_add(octets);
        }
    }

    /// Callers were woken.
    pub(crate) fn woke(&mut self, callers: usize) {
        self.woken = self.woken.saturating_add(number(callers));
    }

    /// Whether other tasks are to have their turn.
    pub(crate) fn is_over(&self) -> bool {
        let few = self.woken.saturating_mul(OCTETS_A_CALLER);
        self.moved >= OCTETS.max(few) || self.large >= LARGE.max(few)
    }
}

fn number(of: usize) -> u32 {
    u32::try_from(of).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How many reads and writes of so many octets there are, where so many callers were woken.
    fn steps(octets: usize, callers: usize) -> usize {
        let mut stint = Stint::default();
        stint.woke(callers);
        (1..10_000)
            .find(|_| {
                stint.moved(octets);
                stint.is_over()
            })
            .unwrap_or(0)
    }

    #[test]
    fn a_piece_of_a_large_message_is_long_enough_and_small_ones_are_gathered() {
        assert_eq!(steps(32 << 10, 0), 1);
        assert_eq!(steps(64 << 10, 1), 1, "whoever was woken has something to do");
        assert_eq!(steps((32 << 10) - 1, 0), 9);
        assert_eq!(steps(1024, 0), 256);
    }

    #[test]
    fn callers_by_the_hundred_are_gathered_in_reads_of_any_length() {
        assert_eq!(steps(64 << 10, 800), 50);
        assert_eq!(steps(1024, 800), 3200);
        assert_eq!(steps(usize::MAX, usize::MAX), 1);
    }
}
