//! What users and nodes are called.

use std::{borrow::Borrow, fmt, str::FromStr, sync::Arc};

use thiserror::Error;
use tieline_core::wire::{Escaped, is_identifier};

/// The longest name, in octets. A prefix (`user:`, `node:`) and a name fit an identifier of the protocol with room.
pub const MAX_NAME: usize = 64;

/// The name of a user or of a node: 1 to 64 of `[A-Za-z0-9._:@/-]`. Cheap to clone, and safe to print as it stands.
///
/// ```
/// use tieline_im::Name;
///
/// let alice: Name = "alice".parse()?;
/// assert_eq!(alice.as_str(), "alice");
/// assert_eq!(
///     "al ice".parse::<Name>().unwrap_err().to_string(),
///     r#"the name "al ice" is not 1 to 64 of [A-Za-z0-9._:@/-]; choose another"#,
/// );
/// # Ok::<(), tieline_im::BadName>(())
/// ```
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Name(Arc<str>);

/// Not a name.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("the name {:?} is not 1 to 64 of [A-Za-z0-9._:@/-]; choose another", Escaped(.0.as_bytes()))]
pub struct BadName(pub String);

impl Name {
    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The name behind `prefix` in an identifier of the protocol, such as `user:alice`.
    #[must_use]
    pub fn of_identifier(identifier: &str, prefix: &str) -> Option<Self> {
        identifier.strip_prefix(prefix)?.parse().ok()
    }
}

impl FromStr for Name {
    type Err = BadName;

    fn from_str(text: &str) -> Result<Self, BadName> {
        if text.len() <= MAX_NAME && is_identifier(text) {
            Ok(Self(text.into()))
        } else {
            Err(BadName(text.to_owned()))
        }
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Borrow<str> for Name {
    fn borrow(&self) -> &str {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_name_is_1_to_64_of_the_alphabet() {
        for good in ["a", "node-1.eu", "Al@home/2", &"x".repeat(64)] {
            assert_eq!(good.parse::<Name>().unwrap().as_str(), good);
        }
        for bad in ["", "two words", "ü", "a\n", "a=b", &"x".repeat(65)] {
            assert_eq!(bad.parse::<Name>(), Err(BadName(bad.to_owned())));
        }
    }

    #[test]
    fn a_bad_name_cannot_steer_the_terminal() {
        let error = "\u{1b}[31m".parse::<Name>().unwrap_err().to_string();
        assert!(!error.contains('\u{1b}'), "{error:?}");
    }

    #[test]
    fn an_identifier_holds_a_prefix_and_a_name() {
        assert_eq!(Name::of_identifier("user:alice", "user:").unwrap().as_str(), "alice");
        assert_eq!(Name::of_identifier("node:one", "user:"), None);
        assert_eq!(Name::of_identifier("user:", "user:"), None);
    }
}
