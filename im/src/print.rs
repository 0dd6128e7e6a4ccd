//! Lines for people. What comes from others is escaped, so that nobody can steer another's terminal.

use std::{fmt::Write as _, io::Write as _};

use crate::{
    name::Name,
    wire::{Place, Report, Roll, Verdict},
};

/// A line on the standard output. If nobody reads it any more that is no reason to stop.
pub(crate) fn say(line: &str) {
    let mut out = std::io::stdout().lock();
    let _ = writeln!(out, "{line}").and_then(|()| out.flush());
}

/// A line on the standard error, for whoever operates it.
pub(crate) fn note(line: &str) {
    let _ = writeln!(std::io::stderr().lock(), "{line}");
}

/// Text of a user, made safe for a terminal: what cannot be printed is escaped; quotes and backslashes stay.
///
/// ```
/// assert_eq!(tieline_im::shown("it's \"鲍勃\" \u{1b}[31m"), r#"it's "鲍勃" \u{1b}[31m"#);
/// ```
#[must_use]
pub fn shown(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for piece in text.split_inclusive(['"', '\'', '\\']) {
        let (body, mark) = match piece.char_indices().next_back() {
            Some((at, mark @ ('"' | '\'' | '\\'))) => (piece.get(..at).unwrap_or_default(), Some(mark)),
            _ => (piece, None),
        };
        let _ = write!(out, "{}", body.escape_debug());
        out.extend(mark);
    }
    out
}

/// What became of a message of `from` at node `node` to `to`.
pub(crate) fn outcome(from: &Name, node: &Name, to: &Name, report: &Report) -> String {
    match &report.verdict {
        Verdict::Delivered => {
            let hop = match &report.via {
                Some(via) => format!(" ─rpc {}→ {via}", micros(report.hop_us)),
                None => String::new(),
            };
            format!("{from} → {node}{hop} → {to}  ✓ accepted ✓ delivered")
        }
        Verdict::NotDelivered(why) => format!("{to}: not delivered: {}; try again", shown(why)),
        Verdict::Unconfirmed(why) => {
            format!(
                "{to}: not confirmed: {}; it may have arrived, so ask before you send it again",
                shown(why)
            )
        }
        Verdict::Offline => {
            format!(
                "{to}: not delivered: {to} is not logged in at any node; look at /who, or try again later"
            )
        }
        Verdict::Unknown(why) => {
            format!("{to}: not delivered: nobody knows where {to} is: {}; try again", shown(why))
        }
    }
}

pub(crate) fn place(user: &Name, place: &Place) -> String {
    match place {
        Place::Here(node) => format!("{user} is at {node}"),
        Place::Offline => format!("{user} is not logged in at any node"),
        Place::Unknown(why) => format!("nobody knows where {user} is: {}", shown(why)),
    }
}

pub(crate) fn roll(roll: &Roll) -> String {
    let node = &roll.node;
    if !roll.trouble.is_empty() {
        return format!("{node}: cannot be asked: {}", shown(&roll.trouble));
    }
    let users: Vec<&str> = roll.users.iter().map(Name::as_str).collect();
    match (users.is_empty(), roll.more) {
        (true, 0) => format!("{node}: nobody"),
        (true, more) => format!("{node}: {more} users"),
        (false, 0) => format!("{node}: {}", users.join(", ")),
        (false, more) => format!("{node}: {} and {more} more", users.join(", ")),
    }
}

/// `84 µs`, `1.2 ms`.
pub(crate) fn micros(us: u64) -> String {
    match us {
        0..10_000 => format!("{us} µs"),
        10_000..10_000_000 => format!("{} ms", us / 1000),
        _ => format!("{} s", us / 1_000_000),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn name(text: &str) -> Name {
        text.parse().unwrap()
    }

    #[test]
    fn what_could_steer_a_terminal_is_escaped() {
        assert_eq!(shown("a\tb\r\n\u{7}\u{9b}"), r"a\tb\r\n\u{7}\u{9b}");
        assert_eq!(shown("\u{202e}\u{200b}\u{2028}"), r"\u{202e}\u{200b}\u{2028}");
        assert_eq!(shown(r#"C:\dir "x" it's"#), r#"C:\dir "x" it's"#);
        assert_eq!(shown("\\\u{1b}'"), "\\\\u{1b}'");
        assert_eq!(shown("née — 节点 🚀"), "née — 节点 🚀");
        let all: String = ('\0'..='\u{ff}').collect();
        assert!(!shown(&all).chars().any(char::is_control));
    }

    #[test]
    fn each_outcome_is_one_line_that_says_what_where_and_what_to_do() {
        let (alice, one, bob) = (name("alice"), name("one"), name("bob"));
        let line = |report: &Report| outcome(&alice, &one, &bob, report);
        let mut report = Report::new(true, Verdict::Delivered);
        assert_eq!(line(&report), "alice → one → bob  ✓ accepted ✓ delivered");
        report.via = Some(name("two"));
        report.hop_us = 84;
        assert_eq!(line(&report), "alice → one ─rpc 84 µs→ two → bob  ✓ accepted ✓ delivered");
        report.verdict = Verdict::NotDelivered("node two cannot be reached\n(gone)".to_owned());
        assert_eq!(line(&report), r"bob: not delivered: node two cannot be reached\n(gone); try again");
        for verdict in
            [Verdict::Offline, Verdict::Unknown("x\n".to_owned()), Verdict::Unconfirmed("x\n".to_owned())]
        {
            let line = line(&Report::new(false, verdict));
            assert!(line.starts_with("bob: not ") && !line.contains('\n') && !line.contains('✓'), "{line}");
        }
    }

    #[test]
    fn a_roll_is_one_line() {
        let mut at_one = Roll::new(name("one"), [name("alice"), name("bob")].into_iter());
        assert_eq!(roll(&at_one), "one: alice, bob");
        at_one.more = 3;
        assert_eq!(roll(&at_one), "one: alice, bob and 3 more");
        at_one.trouble = "down".to_owned();
        assert_eq!(roll(&at_one), "one: cannot be asked: down");
        assert_eq!(roll(&Roll::new(name("two"), std::iter::empty())), "two: nobody");
    }
}
