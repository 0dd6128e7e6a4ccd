//! What is sent, and whether the same came back.

use bytes::Bytes;

/// Up to this length every reply is compared whole.
const ALWAYS_WHOLE: usize = 4 * 1024;
/// Of longer ones the length and both ends are compared always, the whole one time in so many.
const WHOLE_EVERY: u32 = 64;
const END: usize = 64;

/// A payload for each caller. They are windows of one random text, each an octet further than the one
/// before: all different, so that a reply that reaches the wrong caller is seen, and yet in one place, so
/// that a row with large payloads does not measure the generator's cache misses.
#[derive(Clone, Debug)]
pub struct Payloads {
    text: Bytes,
    length: usize,
}

impl Payloads {
    /// One of `length` octets for each of so many callers.
    pub fn new(length: usize, callers: usize) -> Self {
        // xorshift64: the numbers need to differ, not to be secret.
        let mut state = 0x9E37_79B9_7F4A_7C15_u64;
        let text: Vec<u8> = (0..length + callers)
            .map(|_| {
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                state.to_be_bytes()[0]
            })
            .collect();
        Self { text: text.into(), length }
    }

    /// The payload of caller `index`, below the number that was announced.
    pub fn of(&self, index: usize) -> Bytes {
        self.text.slice(index..index + self.length)
    }
}

/// Compares replies with what was sent.
#[derive(Clone, Copy, Debug, Default)]
pub struct Verifier {
    turn: u32,
}

impl Verifier {
    /// Whether the reply is what was sent, as far as it is looked at.
    pub fn matches(&mut self, sent: &[u8], reply: &[u8]) -> bool {
        if sent.len() != reply.len() {
            return false;
        }
        if sent.len() > ALWAYS_WHOLE {
            self.turn = (self.turn + 1) % WHOLE_EVERY;
            if self.turn != 1 {
                return sent.first_chunk::<END>() == reply.first_chunk::<END>()
                    && sent.last_chunk::<END>() == reply.last_chunk::<END>();
            }
        }
        sent == reply
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn every_caller_has_another_payload() {
        let payloads = Payloads::new(64, 1024);
        let all: HashSet<Bytes> = (0..1024).map(|index| payloads.of(index)).collect();
        assert_eq!(all.len(), 1024);
    }

    #[test]
    fn a_wrong_octet_is_seen() {
        let mut verifier = Verifier::default();
        let short = vec![5; ALWAYS_WHOLE];
        for at in [0, 100, ALWAYS_WHOLE - 1] {
            let mut wrong = short.clone();
            if let Some(octet) = wrong.get_mut(at) {
                *octet = 6;
            }
            assert!(!verifier.matches(&short, &wrong));
        }
        assert!(verifier.matches(&short, &short));
        assert!(!verifier.matches(&short, &short[1..]));

        let long = vec![5; ALWAYS_WHOLE + 1];
        let mut middle = long.clone();
        middle[2000] = 6;
        let seen = (0..WHOLE_EVERY).filter(|_| !verifier.matches(&long, &middle)).count();
        assert_eq!(seen, 1);
        let mut end = long.clone();
        end[ALWAYS_WHOLE] = 6;
        assert!((0..WHOLE_EVERY).all(|_| !verifier.matches(&long, &end)));
    }
}
