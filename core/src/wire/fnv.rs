//! The hash of method fingerprints (protocol §4).

/// FNV-1a with 64 bits. It tells signatures apart that differ by mistake; it is no defence
/// against one who wants two to agree.
///
/// ```
/// use tieline_core::wire::fnv1a_64;
///
/// const ECHO: u64 = fnv1a_64(b"Echo(bytes) -> bytes");
/// assert_ne!(ECHO, fnv1a_64(b"Echo(string) -> bytes"));
/// ```
#[must_use]
pub const fn fnv1a_64(octets: &[u8]) -> u64 {
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    let mut rest = octets;
    while let [first, after @ ..] = rest {
        hash = (hash ^ *first as u64).wrapping_mul(0x0000_0100_0000_01b3);
        rest = after;
    }
    hash
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_published_values_hold() {
        // From the reference page of the hash's authors.
        assert_eq!(fnv1a_64(b""), 0xcbf2_9ce4_8422_2325);
        assert_eq!(fnv1a_64(b"a"), 0xaf63_dc4c_8601_ec8c);
        assert_eq!(fnv1a_64(b"foobar"), 0x8594_4171_f739_67e8);
    }
}
