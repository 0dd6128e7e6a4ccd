//! What a person types: lines from the standard input, and what they mean.

use std::io::{self, BufRead, Read};

use tokio::sync::mpsc;

use crate::{name::Name, wire::MAX_TEXT};

/// What may be typed in one line, in octets: the longest message and a command before it.
const MAX_LINE: u64 = MAX_TEXT as u64 + 256;

/// What `/help` shows.
pub(crate) const HELP: &str =
    "/to NAME TEXT sends · TEXT alone goes to the same again · /who · /where NAME · /quit";

/// A line, understood.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Typed {
    /// `/to NAME TEXT`
    To(Name, String),
    /// `TEXT`
    Text(String),
    /// `/who`
    Who,
    /// `/where NAME`
    Where(Name),
    /// `/as NAME`
    As(Name),
    /// `/help`
    Help,
    /// `/quit`
    Quit,
    /// An empty line.
    Nothing,
}

impl Typed {
    /// Understands a line, or says what is wrong with it.
    pub(crate) fn parse(line: &str) -> Result<Self, String> {
        let line = line.trim();
        let Some(command) = line.strip_prefix('/') else {
            return Ok(if line.is_empty() { Self::Nothing } else { Self::Text(line.to_owned()) });
        };
        let (verb, rest) = command.split_once(char::is_whitespace).unwrap_or((command, ""));
        let rest = rest.trim();
        let name = |text: &str, usage: &str| {
            if text.is_empty() {
                return Err(format!("a name is missing; type {usage}"));
            }
            text.parse::<Name>().map_err(|error| error.to_string())
        };
        match (verb, rest) {
            ("to", rest) => {
                let usage = "/to NAME TEXT, e.g. /to bob hi";
                let (to, text) = rest.split_once(char::is_whitespace).unwrap_or((rest, ""));
                let to = name(to, usage)?;
                match text.trim() {
                    "" => Err(format!("the text is missing; type {usage}")),
                    text => Ok(Self::To(to, text.to_owned())),
                }
            }
            ("where", user) => name(user, "/where NAME, e.g. /where bob").map(Self::Where),
            ("as", user) => name(user, "/as NAME, e.g. /as bob").map(Self::As),
            ("who", "") => Ok(Self::Who),
            ("help", "") => Ok(Self::Help),
            ("quit", "") => Ok(Self::Quit),
            ("who" | "help" | "quit", _) => Err(format!("nothing goes behind /{verb}; type /{verb} alone")),
            _ => Err(format!("there is no /{}; {HELP}", crate::shown(verb))),
        }
    }
}

/// The lines of the standard input, from a thread of their own: reading them blocks, and a process must be able to end
/// without one more line. Closed at the end of the input.
pub(crate) fn lines() -> mpsc::Receiver<Result<String, String>> {
    let (sender, receiver) = mpsc::channel(16);
    std::thread::spawn(move || {
        let mut input = io::stdin().lock();
        while let Some(line) = next_line(&mut input) {
            if sender.blocking_send(line).is_err() {
                return;
            }
        }
    });
    receiver
}

/// The next line without its end, or what is wrong with it. No more of it is kept than a line may have.
fn next_line(input: &mut impl BufRead) -> Option<Result<String, String>> {
    let mut line = Vec::new();
    let read = input.by_ref().take(MAX_LINE).read_until(b'\n', &mut line);
    match read {
        Ok(0) => return None,
        // An input that cannot be read is at its end.
        Err(_) => return None,
        Ok(_) => {}
    }
    if line.last() != Some(&b'\n') && line.len() as u64 >= MAX_LINE {
        return skip_line(input)
            .then(|| Err(format!("a line is longer than {MAX_LINE} octets; it is left out")));
    }
    let text = String::from_utf8(line).map_err(|_| "a line is not UTF-8; it is left out".to_owned());
    Some(text.map(|text| text.trim_end_matches(['\n', '\r']).to_owned()))
}

/// Reads on to the end of the line, or of the input. Whether it could be read.
fn skip_line(input: &mut impl BufRead) -> bool {
    loop {
        let Ok(buffer) = input.fill_buf() else { return false };
        match buffer.iter().position(|octet| *octet == b'\n') {
            Some(end) => {
                input.consume(end + 1);
                return true;
            }
            None if buffer.is_empty() => return true,
            None => {
                let all = buffer.len();
                input.consume(all);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn bob() -> Name {
        "bob".parse().unwrap()
    }

    #[test]
    fn commands_are_understood() {
        assert_eq!(Typed::parse(" /to bob  hi there "), Ok(Typed::To(bob(), "hi there".to_owned())));
        assert_eq!(Typed::parse("hi"), Ok(Typed::Text("hi".to_owned())));
        assert_eq!(Typed::parse("/where bob"), Ok(Typed::Where(bob())));
        assert_eq!(Typed::parse("/as bob"), Ok(Typed::As(bob())));
        assert_eq!(Typed::parse("/who"), Ok(Typed::Who));
        assert_eq!(Typed::parse("/quit"), Ok(Typed::Quit));
        assert_eq!(Typed::parse(" "), Ok(Typed::Nothing));
    }

    #[test]
    fn a_mistake_is_told_with_what_to_do() {
        for (line, part) in [
            ("/to", "type /to NAME TEXT"),
            ("/to bob", "the text is missing"),
            ("/to b!b hi", "choose another"),
            ("/where", "type /where NAME"),
            ("/who are you", "type /who alone"),
            ("/\u{1b}[2J", r"there is no /\u{1b}[2J"),
        ] {
            let error = Typed::parse(line).unwrap_err();
            assert!(error.contains(part) && !error.contains('\u{1b}'), "{line:?}: {error}");
        }
    }

    #[test]
    fn lines_are_bounded_and_a_bad_one_does_not_end_the_input() {
        let long = "x".repeat(usize::try_from(MAX_LINE).unwrap());
        let mut input = format!("one\r\n{long}\n").into_bytes();
        input.extend_from_slice(b"\xff\nlast");
        let mut input = &input[..];
        assert_eq!(next_line(&mut input), Some(Ok("one".to_owned())));
        assert!(next_line(&mut input).unwrap().unwrap_err().contains("longer than"));
        assert!(next_line(&mut input).unwrap().unwrap_err().contains("not UTF-8"));
        assert_eq!(next_line(&mut input), Some(Ok("last".to_owned())));
        assert_eq!(next_line(&mut input), None);
    }
}
