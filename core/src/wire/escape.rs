//! Text that a peer controls, made safe for a log line or a terminal.

use core::fmt::{self, Write};

/// The most octets of input that are shown.
const SHOWN: usize = 256;
/// A character that begins among the shown octets ends within this many.
const WINDOW: usize = 259;

/// Shows octets that a peer controls: printable characters as they are, all others escaped, cut
/// with `…` after 256 octets of input. So a peer can neither forge a log line nor steer a
/// terminal nor fill a disk with its error messages.
///
/// Quotes and backslashes are escaped too; octets that are not UTF-8 are shown as `\x9f`.
///
/// ```
/// use tieline_core::wire::Escaped;
///
/// let message = "done\n\u{1b}[31mERROR all is lost";
/// assert_eq!(
///     Escaped::from(message).to_string(),
///     r"done\n\u{1b}[31mERROR all is lost",
/// );
/// ```
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Escaped<'a>(pub &'a [u8]);

impl<'a> From<&'a str> for Escaped<'a> {
    fn from(text: &'a str) -> Self {
        Self(text.as_bytes())
    }
}

impl<'a> From<&'a [u8]> for Escaped<'a> {
    fn from(octets: &'a [u8]) -> Self {
        Self(octets)
    }
}

impl fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Only the window is looked at, so the cost does not grow with what the peer sent.
        let window = self.0.get(..WINDOW).unwrap_or(self.0);
        let mut shown = 0_usize;
        for chunk in window.utf8_chunks() {
            for c in chunk.valid().chars() {
                shown = shown.saturating_add(c.len_utf8());
                if shown > SHOWN {
                    return f.write_char('…');
                }
                match c {
                    '\'' => f.write_char(c)?,
                    _ => write!(f, "{}", c.escape_debug())?,
                }
            }
            for octet in chunk.invalid() {
                shown = shown.saturating_add(1);
                if shown > SHOWN {
                    return f.write_char('…');
                }
                write!(f, "\\x{octet:02x}")?;
            }
        }
        Ok(())
    }
}

impl fmt::Debug for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{self}\"")
    }
}

#[cfg(test)]
mod tests {
    use alloc::{format, string::ToString};

    use super::*;

    #[test]
    fn what_could_steer_a_reader_is_escaped() {
        let shown = |text: &str| Escaped::from(text).to_string();
        assert_eq!(shown("it's a 节点 — fine"), "it's a 节点 — fine");
        assert_eq!(shown("a\r\nb\tc\0"), r"a\r\nb\tc\0");
        assert_eq!(shown("\u{1b}]0;x\u{7}"), r"\u{1b}]0;x\u{7}");
        // Right-to-left override, zero-width space, byte order mark, C1 control, line separator.
        assert_eq!(
            shown("\u{202e}\u{200b}\u{feff}\u{9b}\u{2028}"),
            r"\u{202e}\u{200b}\u{feff}\u{9b}\u{2028}"
        );
        assert_eq!(shown("\"\\"), r#"\"\\"#);
    }

    #[test]
    fn octets_that_are_not_text_are_shown_as_octets() {
        assert_eq!(Escaped(b"ok\xff\xc3(\xe2\x82").to_string(), r"ok\xff\xc3(\xe2\x82");
        assert_eq!(format!("{:?}", Escaped(b"a\n")), r#""a\n""#);
    }

    #[test]
    fn the_256th_octet_is_the_last() {
        let shown = |text: &str| Escaped::from(text).to_string();
        assert_eq!(shown(&"a".repeat(256)), "a".repeat(256));
        assert_eq!(shown(&"a".repeat(257)), "a".repeat(256) + "…");
        assert_eq!(shown(&"a".repeat(1_000_000)), "a".repeat(256) + "…");
        assert_eq!(Escaped(&[0xff; 300]).to_string(), r"\xff".repeat(256) + "…");
        // A character is shown whole or not at all, wherever it stands at the edge.
        for before in 250..=257 {
            let text = "a".repeat(before) + "🚀🚀🚀";
            let whole = (256_usize.saturating_sub(before) / 4).min(3);
            let expected = "a".repeat(before.min(256)) + &"🚀".repeat(whole);
            assert_eq!(shown(&text), expected + "…", "{before}");
        }
    }
}
