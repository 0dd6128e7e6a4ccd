//! The two alphabets of the protocol: who a peer is, and what metadata is called.

/// Whether `text` can be `CheckIn.identifier`: 1 to 128 of `[A-Za-z0-9._:@/-]` (protocol §4).
/// Such text is safe to log as it stands.
///
/// ```
/// use tieline_core::wire::is_identifier;
///
/// assert!(is_identifier("im-node-1.eu/rack:7@prod"));
/// assert!(!is_identifier(""));
/// assert!(!is_identifier("two words"));
/// ```
#[must_use]
pub fn is_identifier(text: &str) -> bool {
    matches!(text.len(), 1..=128)
        && text.bytes().all(
            |b| matches!(b, b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'.' | b'_' | b':' | b'@' | b'/' | b'-'),
        )
}

/// Whether `text` can be `Metadata.key`: 1 to 64 of `[a-z0-9-]` (protocol §5).
///
/// ```
/// use tieline_core::wire::is_metadata_key;
///
/// assert!(is_metadata_key("x-tenant-7"));
/// assert!(!is_metadata_key("X-Tenant"));
/// ```
#[must_use]
pub fn is_metadata_key(text: &str) -> bool {
    matches!(text.len(), 1..=64) && text.bytes().all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'-'))
}

#[cfg(test)]
mod tests {
    use alloc::string::String;

    use super::*;

    fn one(c: char) -> String {
        String::from(c)
    }

    #[test]
    fn the_alphabets_are_exact() {
        let identifier: String = ('\0'..='ÿ').filter(|c| is_identifier(&one(*c))).collect();
        assert_eq!(identifier, "-./0123456789:@ABCDEFGHIJKLMNOPQRSTUVWXYZ_abcdefghijklmnopqrstuvwxyz");
        let key: String = ('\0'..='ÿ').filter(|c| is_metadata_key(&one(*c))).collect();
        assert_eq!(key, "-0123456789abcdefghijklmnopqrstuvwxyz");
    }

    #[test]
    fn the_lengths_are_exact() {
        assert!(is_identifier(&"a".repeat(128)) && !is_identifier(&"a".repeat(129)));
        assert!(is_metadata_key(&"a".repeat(64)) && !is_metadata_key(&"a".repeat(65)));
        assert!(!is_identifier("") && !is_metadata_key(""));
    }
}
