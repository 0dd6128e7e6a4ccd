//! Payloads that need not be kept to be known: a few numbers say every octet.

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Piece {
    pub tag: u64,
    pub len: usize,
    /// Noise, which does not compress; otherwise it does.
    pub noise: bool,
}

impl Piece {
    pub fn octets(self) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.len + 8);
        let mut state = self.tag.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
        while out.len() < self.len {
            out.extend_from_slice(&state.to_be_bytes());
            if self.noise || out.len().is_multiple_of(512) {
                state = state.rotate_left(25).wrapping_mul(0xD134_2543_DE82_EF95).wrapping_add(0x1F);
            }
        }
        out.truncate(self.len);
        out
    }

    pub fn is(self, octets: &[u8]) -> bool {
        octets.len() == self.len && self.octets() == octets
    }
}

/// What the first octets of an argument say: whose call it is, whether a handler makes it, and its number.
pub const NAME: usize = 6;

/// An argument: its name, and then the piece.
pub fn argument(who: usize, for_handler: bool, number: u32, piece: Piece) -> Vec<u8> {
    let mut out = vec![who as u8, u8::from(for_handler)];
    out.extend_from_slice(&number.to_be_bytes());
    out.extend_from_slice(&piece.octets());
    out
}

/// Whether a handler made the call, and its number.
pub fn name(octets: &[u8]) -> Option<(bool, u32)> {
    let number = octets.get(2..NAME)?.try_into().ok()?;
    Some((octets[1] == 1, u32::from_be_bytes(number)))
}
