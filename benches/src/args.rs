//! The command line: words, and flags with or without a value.

use std::collections::BTreeMap;
use std::str::FromStr;
use std::time::Duration;

use crate::error::{Failure, Result};

/// What was written behind the name of the program. Each reader takes what it knows; [`Args::end`]
/// refuses the rest, so that a misspelt flag is never silently a default.
#[derive(Debug, Default)]
pub struct Args {
    words: std::collections::VecDeque<String>,
    flags: BTreeMap<String, Option<String>>,
}

impl Args {
    /// `switches` are the flags that have no value.
    pub fn parse(args: impl IntoIterator<Item = String>, switches: &[&str]) -> Result<Self> {
        let mut parsed = Self::default();
        let mut args = args.into_iter();
        while let Some(arg) = args.next() {
            if !arg.starts_with("--") {
                parsed.words.push_back(arg);
                continue;
            }
            let value = if switches.contains(&arg.as_str()) {
                None
            } else {
                let missing = || Failure::new(format!("{arg} needs a value"));
                Some(args.next().ok_or_else(missing)?)
            };
            if parsed.flags.insert(arg.clone(), value).is_some() {
                return Err(Failure::new(format!("{arg} is given twice")));
            }
        }
        Ok(parsed)
    }

    /// The next word.
    pub fn word(&mut self) -> Option<String> {
        self.words.pop_front()
    }

    /// The next word, which must be there.
    pub fn required(&mut self, what: &str) -> Result<String> {
        self.word().ok_or_else(|| Failure::new(format!("{what} is missing")))
    }

    /// Whether this switch is given.
    pub fn switch(&mut self, name: &str) -> bool {
        self.flags.remove(name).is_some()
    }

    /// The value of a flag, if it is given.
    pub fn value<T: FromStr>(&mut self, name: &str) -> Result<Option<T>> {
        match self.flags.remove(name).flatten() {
            None => Ok(None),
            Some(text) => parse(name, &text).map(Some),
        }
    }

    /// The value of a flag that is a time in seconds, or `default`.
    pub fn time(&mut self, name: &str, default: f64) -> Result<Duration> {
        time(name, self.value(name)?.unwrap_or(default))
    }

    /// Refuses what nobody took.
    pub fn end(self) -> Result<()> {
        let rest: Vec<_> = self.words.into_iter().chain(self.flags.into_keys()).collect();
        if rest.is_empty() {
            Ok(())
        } else {
            Err(Failure::new(format!("not understood: {}", rest.join(" "))))
        }
    }
}

/// A time of so many seconds.
pub fn time(name: &str, seconds: f64) -> Result<Duration> {
    Duration::try_from_secs_f64(seconds)
        .ok()
        .filter(|time| *time <= Duration::from_secs(3600))
        .ok_or_else(|| Failure::new(format!("{name} is from 0 to 3600")))
}

/// Reads one value, and names it if it cannot be read.
pub fn parse<T: FromStr>(name: &str, text: &str) -> Result<T> {
    text.parse().map_err(|_| Failure::new(format!("{name} cannot be {text:?}")))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn args(line: &str) -> Result<Args> {
        Args::parse(line.split_whitespace().map(str::to_owned), &["--json"])
    }

    #[test]
    fn words_switches_and_values() {
        let mut args = args("spin --json raw-header --seconds 1.5 7").unwrap();
        assert_eq!(args.required("a command").unwrap(), "spin");
        assert!(args.switch("--json"));
        assert_eq!(args.value::<f64>("--seconds").unwrap(), Some(1.5));
        assert_eq!(args.value::<u64>("--rate").unwrap(), None);
        assert_eq!(args.word().as_deref(), Some("raw-header"));
        assert_eq!(args.word().as_deref(), Some("7"));
        args.end().unwrap();
    }

    #[test]
    fn what_is_not_understood_is_refused() {
        assert!(args("--seconds").is_err());
        assert!(args("--rate 1 --rate 2").is_err());
        assert!(args("--rate x").unwrap().value::<u64>("--rate").is_err());
        assert!(args("word").unwrap().end().is_err());
        assert!(args("--sekonds 1").unwrap().end().is_err());
    }
}
