//! The command line: a command, then options with and without values. Which options there are is for the commands to say;
//! they take them one after the other, so that none is passed over.

use std::{ffi::OsString, fmt::Display, str::FromStr, time::Duration};

use thiserror::Error;
use tieline_core::wire::Escaped;

/// A command line that makes no sense: what is wrong, and which command shows the usage. It is one line.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{what}; `{program} help` shows the usage")]
pub struct UsageError {
    program: &'static str,
    what: String,
}

/// A program and its commands, besides `help` and `--version`.
///
/// ```
/// use std::ffi::OsString;
/// use tieline_commands::args::{Asked, CommandLine};
///
/// let line = CommandLine { program: "bell", commands: &["ring", "polish"] };
/// let Asked::Command("ring", mut rest) = line.take(["ring", "--times=3"].map(OsString::from))? else {
///     unreachable!()
/// };
/// let mut times = 1_u32;
/// while let Some((option, inline)) = rest.option() {
///     match &*option {
///         "--times" => times = rest.read("--times", inline)?,
///         _ => return Ok(rest.unknown(&option)?),
///     }
/// }
/// assert_eq!(times, 3);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, Copy)]
pub struct CommandLine {
    /// What it is called.
    pub program: &'static str,
    /// What it can be told to do.
    pub commands: &'static [&'static str],
}

/// What a command line asks for.
#[derive(Debug)]
pub enum Asked {
    /// `help`, `--help` or `-h`; the latter two behind a command, too.
    Help,
    /// `--version` or `-V`.
    Version,
    /// One of the commands, and its arguments.
    Command(&'static str, Rest),
}

impl CommandLine {
    /// The error that says that this is wrong.
    #[must_use]
    pub fn error(&self, what: impl Into<String>) -> UsageError {
        UsageError { program: self.program, what: what.into() }
    }

    /// The same as a result.
    ///
    /// # Errors
    /// Always.
    pub fn wrong<T>(&self, what: impl Into<String>) -> Result<T, UsageError> {
        Err(self.error(what))
    }

    /// Understands the value of an option.
    ///
    /// # Errors
    /// The option, and what is wrong with the value: the latter's own error, which escapes what it shows.
    pub fn read<T: FromStr<Err: Display>>(&self, option: &str, value: &str) -> Result<T, UsageError> {
        value.parse().map_err(|error| self.error(format!("{option}: {error}")))
    }

    /// Understands the arguments, without the program's name, as far as the command.
    ///
    /// # Errors
    /// There is no command, or none of this name; or an argument is not UTF-8.
    pub fn take(self, args: impl IntoIterator<Item = OsString>) -> Result<Asked, UsageError> {
        let mut texts = Vec::new();
        for arg in args {
            match arg.into_string() {
                Ok(text) => texts.push(text),
                Err(raw) => return self.wrong(format!("{raw:?} is not UTF-8")),
            }
        }
        let mut args = texts.into_iter();
        let Some(said) = args.next() else {
            return self.wrong(format!("say what to do: {}", self.alternatives()));
        };
        match &*said {
            "help" | "--help" | "-h" => return Ok(Asked::Help),
            "--version" | "-V" => return Ok(Asked::Version),
            _ => {}
        }
        let Some(command) = self.commands.iter().find(|command| **command == said) else {
            let said = Escaped::from(&*said);
            return self.wrong(format!("there is no command {said:?}: say {}", self.alternatives()));
        };
        if args.as_slice().iter().any(|arg| arg == "--help" || arg == "-h") {
            return Ok(Asked::Help);
        }
        Ok(Asked::Command(command, Rest { line: self, command, args }))
    }

    /// `demo, node or chat`
    fn alternatives(&self) -> String {
        match self.commands {
            [others @ .., last] if !others.is_empty() => format!("{} or {last}", others.join(", ")),
            all => all.concat(),
        }
    }
}

/// The arguments behind a command, taken one after the other.
#[derive(Debug)]
pub struct Rest {
    line: CommandLine,
    command: &'static str,
    args: std::vec::IntoIter<String>,
}

impl Rest {
    /// The next option, and its value if it was given as `--option=value`.
    pub fn option(&mut self) -> Option<(String, Option<String>)> {
        let arg = self.args.next()?;
        match arg.split_once('=') {
            Some((option, value)) if arg.starts_with("--") => {
                Some((option.to_owned(), Some(value.to_owned())))
            }
            _ => Some((arg, None)),
        }
    }

    /// The value of the option that was taken last: the one in it, or else the next argument.
    ///
    /// # Errors
    /// There is none, or it is empty.
    pub fn value(&mut self, option: &str, inline: Option<String>) -> Result<String, UsageError> {
        match inline.or_else(|| self.args.next()) {
            Some(value) if !value.is_empty() => Ok(value),
            _ => self.line.wrong(format!("{option} wants a value")),
        }
    }

    /// The same, understood.
    ///
    /// # Errors
    /// As of [`value`](Self::value) and [`CommandLine::read`].
    pub fn read<T: FromStr<Err: Display>>(
        &mut self,
        option: &str,
        inline: Option<String>,
    ) -> Result<T, UsageError> {
        let value = self.value(option, inline)?;
        self.line.read(option, &value)
    }

    /// The command does not know this argument.
    ///
    /// # Errors
    /// Always.
    pub fn unknown<T>(&self, arg: &str) -> Result<T, UsageError> {
        self.line.wrong(format!("`{}` does not know {:?}", self.command, Escaped::from(arg)))
    }
}

/// `500ms` or `2s`. What is in range is for the caller to say.
#[must_use]
pub fn time(text: &str) -> Option<Duration> {
    let number = |text: &str| text.parse::<u64>().ok();
    match (text.strip_suffix("ms"), text.strip_suffix('s')) {
        (Some(text), _) => number(text).map(Duration::from_millis),
        (None, Some(text)) => number(text).map(Duration::from_secs),
        (None, None) => None,
    }
}

/// The port of `HOST:PORT`, if it is written like that and can be shown as it is. Whether there is such a host is found out
/// when it is used.
#[must_use]
pub fn port(address: &str) -> Option<u16> {
    let (host, port) = address.rsplit_once(':')?;
    let plain = !host.is_empty() && !address.chars().any(|c| c.is_whitespace() || c.is_control());
    port.parse().ok().filter(|_| plain)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const LINE: CommandLine = CommandLine { program: "bell", commands: &["ring", "mend", "polish"] };

    fn of(line: &str) -> Result<Asked, UsageError> {
        LINE.take(line.split_whitespace().map(OsString::from))
    }

    fn rest(line: &str) -> Rest {
        match of(line) {
            Ok(Asked::Command("ring", rest)) => rest,
            other => unreachable!("{other:?}"),
        }
    }

    #[test]
    fn options_come_in_their_order_with_their_values() {
        let mut rest = rest("ring --times=3 --at noon --slow word=x --key=a=b");
        assert_eq!(rest.option(), Some(("--times".to_owned(), Some("3".to_owned()))));
        assert_eq!(rest.read("--times", Some("3".to_owned())), Ok(3_u8));
        assert_eq!(rest.option(), Some(("--at".to_owned(), None)));
        assert_eq!(rest.value("--at", None), Ok("noon".to_owned()));
        assert_eq!(rest.option(), Some(("--slow".to_owned(), None)));
        assert_eq!(rest.option(), Some(("word=x".to_owned(), None)));
        assert_eq!(rest.option(), Some(("--key".to_owned(), Some("a=b".to_owned()))));
        assert_eq!(rest.option(), None);
        for line in ["help", "--help", "-h", "ring --help", "mend --at -h"] {
            assert!(matches!(of(line), Ok(Asked::Help)), "{line}");
        }
        for line in ["--version", "-V"] {
            assert!(matches!(of(line), Ok(Asked::Version)), "{line}");
        }
    }

    #[test]
    fn a_mistake_is_named_in_one_line() {
        let shown = |error: UsageError| error.to_string();
        let usage = |what: &str| format!("{what}; `bell help` shows the usage");
        assert_eq!(shown(of("").unwrap_err()), usage("say what to do: ring, mend or polish"));
        let none = usage(r#"there is no command "br\u{1b}ing": say ring, mend or polish"#);
        assert_eq!(shown(of("br\u{1b}ing").unwrap_err()), none);
        let mut rest = rest("ring");
        let unknown = usage(r#"`ring` does not know "--f\u{1b}""#);
        assert_eq!(shown(rest.unknown::<()>("--f\u{1b}").unwrap_err()), unknown);
        for inline in [None, Some(String::new())] {
            assert_eq!(shown(rest.value("--at", inline).unwrap_err()), usage("--at wants a value"));
        }
        let error = rest.read::<u8>("--times", Some("256".to_owned())).unwrap_err();
        assert_eq!(shown(error), usage("--times: number too large to fit in target type"));
    }

    #[cfg(unix)]
    #[test]
    fn what_is_not_utf_8_is_shown_escaped() {
        use std::os::unix::ffi::OsStringExt;

        let raw = OsString::from_vec(b"a\xff\n".to_vec());
        let error = LINE.take(["ring".into(), raw]).unwrap_err().to_string();
        assert_eq!(error, r#""a\xFF\n" is not UTF-8; `bell help` shows the usage"#);
    }

    #[test]
    fn times_and_addresses() {
        assert_eq!(time("500ms"), Some(Duration::from_millis(500)));
        assert_eq!(time("2s"), Some(Duration::from_secs(2)));
        for text in ["", "2", "s", "ms", "-1s", "1.5s", "2 s", "99999999999999999999s"] {
            assert_eq!(time(text), None, "{text}");
        }
        for (address, expected) in [("127.0.0.1:0", 0), ("[::1]:7001", 7001), ("节点:65535", 65535)] {
            assert_eq!(port(address), Some(expected), "{address}");
        }
        for address in ["", "7001", ":7001", "host", "host:", "host:65536", "ho st:1", "ho\u{1b}st:1"] {
            assert_eq!(port(address), None, "{address}");
        }
    }
}
