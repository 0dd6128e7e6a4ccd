//! What the poller is told and what it tells: tokens, and whom they name.

use mio::{Interest, Token};

/// Both directions, once and for all: with edges nothing is told twice, so nothing needs to be switched off.
pub(crate) const BOTH: Interest = Interest::READABLE.add(Interest::WRITABLE);

/// Wakes the loop, and says nothing else.
pub(crate) const WAKER: Token = Token(usize::MAX);

/// Whom a token names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Named {
    /// A connection or a listener of the direct layer, by number.
    Direct(u32),
    /// A socket of a task, by number.
    Task(u32),
    /// Whoever wanted the loop to wake.
    Waker,
}

/// The token of a connection or a listener of the direct layer.
#[inline]
pub(crate) const fn direct(number: u32) -> Token {
    Token((number as usize) << 1)
}

/// The token of a socket of a task.
pub(crate) const fn task(number: u32) -> Token {
    Token((number as usize) << 1 | 1)
}

#[inline]
pub(crate) fn named(token: Token) -> Named {
    match u32::try_from(token.0 >> 1) {
        Ok(number) if token != WAKER => {
            if token.0 & 1 == 0 {
                Named::Direct(number)
            } else {
                Named::Task(number)
            }
        }
        _ => Named::Waker,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_names_whom_it_was_made_for() {
        for number in [0, 1, 77, u32::MAX - 1] {
            assert_eq!(named(direct(number)), Named::Direct(number));
            assert_eq!(named(task(number)), Named::Task(number));
        }
        assert_eq!(named(WAKER), Named::Waker);
    }
}
