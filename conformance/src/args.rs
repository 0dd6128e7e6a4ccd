//! The command line.

use std::{ffi::OsString, fmt::Write as _, time::Duration};

use tieline::{Address, Limits};
use tieline_commands::{
    args::{self, Asked, CommandLine, Rest, UsageError},
    runtimes::{Flavour, NAMES},
};
use tieline_core::wire::Escaped;

use crate::testee::Settings;

const LINE: CommandLine = CommandLine { program: "tieline-conformance", commands: &["testee", "driver"] };

/// Something to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// `testee`
    Testee {
        /// What it runs on.
        runtime: Flavour,
        /// Where it listens.
        listen: String,
        /// All else that it was told.
        settings: Box<Settings>,
    },
    /// `driver`
    Driver {
        /// What it runs on.
        runtime: Flavour,
    },
    /// `help`
    Help,
    /// `--version`
    Version,
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

/// Understands the arguments, without the program's name.
///
/// # Errors
/// [`UsageError`] says which argument is wrong and how.
pub fn parse(args: impl IntoIterator<Item = OsString>) -> Result<Command, UsageError> {
    match LINE.take(args)? {
        Asked::Help => Ok(Command::Help),
        Asked::Version => Ok(Command::Version),
        Asked::Command("testee", rest) => testee(rest),
        Asked::Command(_, rest) => driver(rest),
    }
}

fn without_runtime<T>(command: &str) -> Result<T, UsageError> {
    let names = NAMES.map(|(text, _)| text).join(", ");
    LINE.wrong(format!("{command} needs to know what to run on: --runtime, one of {names}"))
}

fn testee(mut rest: Rest) -> Result<Command, UsageError> {
    let (mut runtime, mut listen, mut settings) = (None, "127.0.0.1:0".to_owned(), Settings::default());
    while let Some((option, inline)) = rest.option() {
        match &*option {
            "--runtime" => runtime = Some(rest.read("--runtime", inline)?),
            "--listen" => listen = address(rest.value("--listen", inline)?)?,
            _ => match OPTIONS.iter().find(|(name, _)| *name == option) {
                Some((name, sets)) => set(&mut settings, name, *sets, &rest.value(name, inline)?)?,
                None => return rest.unknown(&option),
            },
        }
    }
    match runtime {
        Some(runtime) => Ok(Command::Testee { runtime, listen, settings: Box::new(settings) }),
        None => without_runtime("testee"),
    }
}

fn driver(mut rest: Rest) -> Result<Command, UsageError> {
    let mut runtime = None;
    while let Some((option, inline)) = rest.option() {
        match &*option {
            "--runtime" => runtime = Some(rest.read("--runtime", inline)?),
            _ => return rest.unknown(&option),
        }
    }
    match runtime {
        Some(runtime) => Ok(Command::Driver { runtime }),
        None => without_runtime("driver"),
    }
}

fn set(settings: &mut Settings, option: &str, sets: Sets, value: &str) -> Result<(), UsageError> {
    let number = || match size(value) {
        Some(number) => Ok(number),
        None => {
            LINE.wrong(format!("{option} {:?} is not a number, e.g. 65536 or 64KiB", Escaped::from(value)))
        }
    };
    let too_large = |_| LINE.error(format!("{option} {value} is more than this machine can count"));
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
    let unix = matches!(Address::parse(&value), Address::Unix(path) if path.is_absolute());
    if unix || args::port(&value).is_some() {
        return Ok(value);
    }
    let shown = Escaped::from(&*value);
    LINE.wrong(format!("--listen {shown:?} is not HOST:PORT, e.g. 127.0.0.1:0, nor unix:/path"))
}

/// `65536`, `64KiB`, `1MiB` or `1GiB`.
fn size(value: &str) -> Option<u64> {
    let units = [("KiB", 1 << 10), ("MiB", 1 << 20), ("GiB", 1 << 30)];
    let unit = units.iter().find_map(|(unit, octets)| Some((value.strip_suffix(unit)?, *octets)));
    let (digits, octets) = unit.unwrap_or((value, 1));
    digits.parse::<u64>().ok()?.checked_mul(octets)
}

/// Up to an hour.
fn time(option: &str, value: &str) -> Result<Duration, UsageError> {
    match args::time(value) {
        Some(time) if time <= Duration::from_secs(3600) => Ok(time),
        _ => {
            let value = Escaped::from(value);
            LINE.wrong(format!("{option} {value:?} is not a time up to 3600s, e.g. 500ms or 2s"))
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
        let testee = Command::Testee { runtime: Flavour::Tokio, listen, settings: Box::new(settings) };
        let line = "testee --runtime tokio --listen=127.0.0.1:7001 --max-frame 16KiB --memory 2097152 \
                    --check-in-timeout 250ms --identifier other";
        assert_eq!(of(line), Ok(testee));
        assert_eq!(of("driver --runtime=tokio"), Ok(Command::Driver { runtime: Flavour::Tokio }));
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
