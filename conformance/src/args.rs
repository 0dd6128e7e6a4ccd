//! The command line.

use std::{ffi::OsString, fmt::Write as _, time::Duration};

use thiserror::Error;
use tieline::{Address, Limits};
use tieline_core::wire::Escaped;

use crate::{
    runtimes::{NAMES, Name},
    testee::Settings,
};

/// Something to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// `testee`
    Testee {
        /// What it runs on.
        runtime: Name,
        /// Where it listens.
        listen: String,
        /// All else that it was told.
        settings: Box<Settings>,
    },
    /// `driver`
    Driver {
        /// What it runs on.
        runtime: Name,
    },
    /// `help`
    Help,
    /// `--version`
    Version,
}

/// A command line that makes no sense.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{0}; `tieline-conformance help` shows the usage")]
pub struct UsageError(String);

fn wrong<T>(what: String) -> Result<T, UsageError> {
    Err(UsageError(what))
}

/// What an option of the testee sets.
#[derive(Clone, Copy)]
enum Sets {
    /// A number of octets or of things, of 32 bits.
    Number(fn(&mut Limits) -> &mut u32),
    /// A number that may be larger.
    Size(fn(&mut Limits) -> &mut usize),
    Time(fn(&mut Settings) -> &mut Duration),
    Identifier,
    Credential,
}

/// The options of the testee besides `--runtime` and `--listen`: its limits (R-TST-04), then all else that may be set.
/// Whether a value is in range is for the configuration to say, which knows all of them.
const OPTIONS: &[(&str, Sets)] = &[
    ("--max-frame", Sets::Number(|limits| &mut limits.max_frame)),
    ("--max-message", Sets::Number(|limits| &mut limits.max_message)),
    ("--max-item", Sets::Number(|limits| &mut limits.max_item)),
    ("--stream-window", Sets::Number(|limits| &mut limits.stream_window)),
    ("--max-concurrent", Sets::Number(|limits| &mut limits.max_concurrent)),
    ("--max-streams", Sets::Number(|limits| &mut limits.max_streams)),
    ("--memory", Sets::Size(|limits| &mut limits.memory)),
    ("--server-memory", Sets::Size(|limits| &mut limits.server_memory)),
    ("--max-one-ways", Sets::Size(|limits| &mut limits.max_one_ways)),
    ("--max-one-way-octets", Sets::Size(|limits| &mut limits.max_one_way_octets)),
    ("--max-calls", Sets::Number(|limits| &mut limits.max_calls)),
    ("--max-queued", Sets::Size(|limits| &mut limits.max_queued)),
    ("--max-queued-items", Sets::Size(|limits| &mut limits.max_queued_items)),
    ("--max-learned", Sets::Size(|limits| &mut limits.max_learned)),
    ("--max-learned-octets", Sets::Size(|limits| &mut limits.max_learned_octets)),
    ("--least-heartbeat", Sets::Time(|settings| &mut settings.heartbeat.0)),
    ("--most-heartbeat", Sets::Time(|settings| &mut settings.heartbeat.1)),
    ("--check-in-timeout", Sets::Time(|settings| &mut settings.check_in_timeout)),
    ("--grace", Sets::Time(|settings| &mut settings.grace)),
    ("--identifier", Sets::Identifier),
    ("--credential", Sets::Credential),
];

/// What `help` prints.
#[must_use]
pub fn usage() -> String {
    let names = NAMES.map(|(text, _)| text).join("|");
    let mut text = format!(
        "\
tieline-conformance: what it takes to certify a Tieline implementation

tieline-conformance testee --runtime {names} [--listen HOST:PORT] [OPTION VALUE]...
    Serves tieline.testee.v1.Testee (docs/testee.md). It prints `listening HOST:PORT` first; --listen is
    127.0.0.1:0 by default (port 0 is one that the kernel chooses), or unix:/path where the runtime has
    that. SIGTERM and ctrl-c drain it, for as long as --grace; asked twice it stops at once.
    Sizes are octets, e.g. 65536 or 64KiB; times are e.g. 500ms or 2s. The options:
"
    );
    for options in OPTIONS.chunks(5) {
        let names: Vec<&str> = options.iter().map(|(name, _)| *name).collect();
        let _ = writeln!(text, "    {}", names.join(" "));
    }
    let _ = write!(
        text,
        "
tieline-conformance driver --runtime {names}
    Drives a client by lines of JSON on its standard input and output (docs/conformance.md).

tieline-conformance help | --version
"
    );
    text
}

/// The arguments behind the command, taken one after the other.
struct Rest {
    command: &'static str,
    args: std::vec::IntoIter<String>,
}

impl Rest {
    /// The next option, and its value if it was given as `--option=value`.
    fn option(&mut self) -> Option<(String, Option<String>)> {
        let arg = self.args.next()?;
        match arg.split_once('=') {
            Some((option, value)) if arg.starts_with("--") => {
                Some((option.to_owned(), Some(value.to_owned())))
            }
            _ => Some((arg, None)),
        }
    }

    fn value(&mut self, option: &str, inline: Option<String>) -> Result<String, UsageError> {
        match inline.or_else(|| self.args.next()) {
            Some(value) if !value.is_empty() => Ok(value),
            _ => wrong(format!("{option} wants a value")),
        }
    }

    fn unknown<T>(&self, arg: &str) -> Result<T, UsageError> {
        wrong(format!("`{}` does not know \"{}\"", self.command, Escaped(arg.as_bytes())))
    }

    fn runtime(&mut self, inline: Option<String>) -> Result<Name, UsageError> {
        let value = self.value("--runtime", inline)?;
        value.parse().or_else(|error| wrong(format!("--runtime: {error}")))
    }

    fn without_runtime<T>(&self) -> Result<T, UsageError> {
        let names = NAMES.map(|(text, _)| text).join(", ");
        wrong(format!("{} needs to know what to run on: --runtime, one of {names}", self.command))
    }
}

/// Understands the arguments, without the program's name.
///
/// # Errors
/// [`UsageError`] says which argument is wrong and how.
pub fn parse(args: impl IntoIterator<Item = OsString>) -> Result<Command, UsageError> {
    let mut texts = Vec::new();
    for arg in args {
        match arg.into_string() {
            Ok(text) => texts.push(text),
            Err(raw) => return wrong(format!("{raw:?} is not UTF-8")),
        }
    }
    let mut args = texts.into_iter();
    let Some(command) = args.next() else { return wrong("say what to do: testee or driver".to_owned()) };
    let command = match &*command {
        "help" | "--help" | "-h" => return Ok(Command::Help),
        "--version" | "-V" => return Ok(Command::Version),
        "testee" => "testee",
        "driver" => "driver",
        other => {
            let other = Escaped(other.as_bytes());
            return wrong(format!("there is no command \"{other}\": say testee or driver"));
        }
    };
    if args.as_slice().iter().any(|arg| arg == "--help" || arg == "-h") {
        return Ok(Command::Help);
    }
    let rest = Rest { command, args };
    if command == "testee" { testee(rest) } else { driver(rest) }
}

fn testee(mut rest: Rest) -> Result<Command, UsageError> {
    let (mut runtime, mut listen, mut settings) = (None, "127.0.0.1:0".to_owned(), Settings::default());
    while let Some((option, inline)) = rest.option() {
        match &*option {
            "--runtime" => runtime = Some(rest.runtime(inline)?),
            "--listen" => listen = address(rest.value("--listen", inline)?)?,
            _ => match OPTIONS.iter().find(|(name, _)| *name == option) {
                Some((name, sets)) => set(&mut settings, name, *sets, &rest.value(name, inline)?)?,
                None => return rest.unknown(&option),
            },
        }
    }
    match runtime {
        Some(runtime) => Ok(Command::Testee { runtime, listen, settings: Box::new(settings) }),
        None => rest.without_runtime(),
    }
}

fn driver(mut rest: Rest) -> Result<Command, UsageError> {
    let mut runtime = None;
    while let Some((option, inline)) = rest.option() {
        match &*option {
            "--runtime" => runtime = Some(rest.runtime(inline)?),
            _ => return rest.unknown(&option),
        }
    }
    match runtime {
        Some(runtime) => Ok(Command::Driver { runtime }),
        None => rest.without_runtime(),
    }
}

fn set(settings: &mut Settings, option: &str, sets: Sets, value: &str) -> Result<(), UsageError> {
    let number = || match size(value) {
        Some(number) => Ok(number),
        None => {
            wrong(format!("{option} \"{}\" is not a number, e.g. 65536 or 64KiB", Escaped(value.as_bytes())))
        }
    };
    let too_large = |_| UsageError(format!("{option} {value} is more than this machine can count"));
    match sets {
        Sets::Number(place) => *place(&mut settings.limits) = number()?.try_into().map_err(too_large)?,
        Sets::Size(place) => *place(&mut settings.limits) = number()?.try_into().map_err(too_large)?,
        Sets::Time(place) => *place(settings) = time(option, value)?,
        Sets::Identifier => settings.identifier = value.to_owned(),
        Sets::Credential => settings.credential = Some(value.to_owned()),
    }
    Ok(())
}

/// `HOST:PORT`, or `unix:/path`. Whether there is such a place is found out when it is used.
fn address(value: String) -> Result<String, UsageError> {
    if matches!(Address::parse(&value), Address::Unix(path) if path.is_absolute()) {
        return Ok(value);
    }
    let parts = value.rsplit_once(':').filter(|(host, _)| !host.is_empty());
    let good = parts.is_some_and(|(_, port)| port.parse::<u16>().is_ok())
        && !value.chars().any(|c| c.is_whitespace() || c.is_control());
    let shown = Escaped(value.as_bytes());
    if good {
        Ok(value)
    } else {
        wrong(format!("--listen \"{shown}\" is not HOST:PORT, e.g. 127.0.0.1:0, nor unix:/path"))
    }
}

/// `65536`, `64KiB`, `1MiB` or `1GiB`.
fn size(value: &str) -> Option<u64> {
    let units = [("KiB", 1 << 10), ("MiB", 1 << 20), ("GiB", 1 << 30)];
    let unit = units.iter().find_map(|(unit, octets)| Some((value.strip_suffix(unit)?, *octets)));
    let (digits, octets) = unit.unwrap_or((value, 1));
    digits.parse::<u64>().ok()?.checked_mul(octets)
}

/// `500ms` or `2s`, up to an hour.
fn time(option: &str, value: &str) -> Result<Duration, UsageError> {
    let number = |text: &str| text.parse::<u64>().ok();
    let time = match (value.strip_suffix("ms"), value.strip_suffix('s')) {
        (Some(text), _) => number(text).map(Duration::from_millis),
        (None, Some(text)) => number(text).map(Duration::from_secs),
        (None, None) => None,
    };
    match time {
        Some(time) if time <= Duration::from_secs(3600) => Ok(time),
        _ => {
            let value = Escaped(value.as_bytes());
            wrong(format!("{option} \"{value}\" is not a time up to 3600s, e.g. 500ms or 2s"))
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn of(line: &str) -> Result<Command, UsageError> {
        parse(line.split_whitespace().map(OsString::from))
    }

    #[test]
    fn what_is_said_is_set() {
        let mut settings = Settings::default();
        settings.limits.max_frame = 16 << 10;
        settings.limits.memory = 2 << 20;
        settings.check_in_timeout = Duration::from_millis(250);
        settings.identifier = "other".to_owned();
        let listen = "127.0.0.1:7001".to_owned();
        let testee = Command::Testee { runtime: Name::Tokio, listen, settings: Box::new(settings) };
        let line = "testee --runtime tokio --listen=127.0.0.1:7001 --max-frame 16KiB --memory 2097152 \
                    --check-in-timeout 250ms --identifier other";
        assert_eq!(of(line), Ok(testee));
        assert_eq!(of("driver --runtime=tokio"), Ok(Command::Driver { runtime: Name::Tokio }));
        assert_eq!(of("driver --runtime x --help"), Ok(Command::Help));
    }

    #[test]
    fn every_option_sets_something_of_its_own() {
        let mut seen = vec![Settings::default()];
        for (option, sets) in OPTIONS {
            let value = if matches!(sets, Sets::Time(_)) { "77s" } else { "77777" };
            let Ok(Command::Testee { settings, .. }) =
                of(&format!("testee --runtime tokio {option} {value}"))
            else {
                unreachable!("{option} is not taken");
            };
            assert!(!seen.contains(&settings), "{option}");
            assert!(usage().contains(option), "{option}");
            seen.push(*settings);
        }
    }

    #[test]
    fn a_mistake_is_named_in_one_line() {
        for (line, part) in [
            ("", "say what to do: testee or driver"),
            ("suite", r#"no command "suite""#),
            ("testee", "--runtime, one of tokio"),
            ("driver", "--runtime, one of tokio"),
            ("driver --runtime smol", r#"there is no runtime "smol": say one of tokio"#),
            ("driver --runtime", "--runtime wants a value"),
            ("driver --listen h:1", r#"`driver` does not know "--listen""#),
            ("testee --fast", r#"`testee` does not know "--fast""#),
            ("testee --listen 7001", r#"--listen "7001" is not HOST:PORT"#),
            ("testee --listen unix:", "nor unix:/path"),
            ("testee --max-frame many", "not a number"),
            ("testee --max-frame -1", "not a number"),
            ("testee --max-frame 5GiB", "more than this machine can count"),
            ("testee --memory 99999999999GiB", "not a number"),
            ("testee --grace soon", "not a time"),
            ("testee --grace 3601s", "not a time"),
            ("testee --max-item \u{1b}", r"\u{1b}"),
        ] {
            let error = of(line).unwrap_err().to_string();
            assert!(error.contains(part), "{line}: {error}");
            assert!(!error.contains(['\n', '\u{1b}']) && error.ends_with("shows the usage"), "{error}");
        }
    }
}
