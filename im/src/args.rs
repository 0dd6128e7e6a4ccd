//! The command line.

use std::{ffi::OsString, time::Duration};

use tieline_commands::{
    args::{self, Asked, CommandLine, Rest, UsageError},
    runtimes::Flavour,
};
use tieline_core::wire::Escaped;

use crate::name::Name;

const LINE: CommandLine = CommandLine { program: "tieline-im", commands: &["demo", "node", "chat"] };

/// What `help` prints.
pub const USAGE: &str = "\
tieline-im: an instant-messaging node on Tieline

tieline-im demo [--script] [--messages N] [--runtimes NAME[,NAME]]
    Starts two nodes, logs alice in at one and bob at two, and sends messages both ways. Then you type.
    With --script, or without a terminal, it sends N more each way (default 1000), checks them and exits.
    --runtimes says what node one and node two run on, e.g. tokio,mio; default tokio.

tieline-im node --id NAME [--listen HOST:PORT] [--peer NAME=HOST:PORT]... [--stop-at-eof] [--runtime NAME]
    A node. It prints `listening HOST:PORT` first; --listen is 127.0.0.1:0 by default, and port 0 is one that
    the kernel chooses. Of two nodes one needs the other as a --peer. Ctrl-c stops it; with --stop-at-eof the
    end of its standard input does, too. --runtime is tokio (the default), async-std or mio.

tieline-im chat --as NAME --node HOST:PORT [--timeout TIME]
    A user. /to NAME TEXT sends, /who, /where NAME, /quit. TIME is how long a node has for an answer and a
    message for its way, e.g. 500ms or 2s; default 5s.

tieline-im help | --version
";

/// Something to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// `demo`
    Demo {
        /// Do not ask anybody to type.
        script: bool,
        /// Messages each way, after the first two.
        messages: u32,
        /// What node one and node two run on.
        runtimes: [Flavour; 2],
    },
    /// `node`
    Node {
        /// Its name.
        id: Name,
        /// Where it listens.
        listen: String,
        /// Nodes that it dials.
        peers: Vec<(Name, String)>,
        /// Whether the end of the standard input stops it.
        stop_at_eof: bool,
        /// What it runs on.
        runtime: Flavour,
    },
    /// `chat`
    Chat {
        /// The user.
        user: Name,
        /// The address of a node.
        node: String,
        /// How long to wait for anything.
        timeout: Duration,
    },
    /// `help`
    Help,
    /// `--version`
    Version,
}

/// Understands the arguments, without the program's name.
///
/// # Errors
/// [`UsageError`] says which argument is wrong and how.
pub fn parse(args: impl IntoIterator<Item = OsString>) -> Result<Command, UsageError> {
    match LINE.take(args)? {
        Asked::Help => Ok(Command::Help),
        Asked::Version => Ok(Command::Version),
        Asked::Command("demo", rest) => demo(rest),
        Asked::Command("node", rest) => node(rest),
        Asked::Command(_, rest) => chat(rest),
    }
}

fn demo(mut rest: Rest) -> Result<Command, UsageError> {
    let (mut script, mut messages, mut runtimes) = (false, 1000, [Flavour::default(); 2]);
    while let Some((option, inline)) = rest.option() {
        match (&*option, inline) {
            ("--script", None) => script = true,
            ("--messages", inline) => {
                let value = rest.value("--messages", inline)?;
                messages = match value.parse() {
                    Ok(number @ 0..=100_000) => number,
                    _ => return LINE.wrong(format!("--messages {value:?} is not a number up to 100000")),
                };
            }
            ("--runtimes", inline) => runtimes = pair(&rest.value("--runtimes", inline)?)?,
            _ => return rest.unknown(&option),
        }
    }
    Ok(Command::Demo { script, messages, runtimes })
}

fn node(mut rest: Rest) -> Result<Command, UsageError> {
    let (mut id, mut listen, mut stop_at_eof, mut runtime) = (None, None, false, Flavour::default());
    let mut peers: Vec<(Name, String)> = Vec::new();
    while let Some((option, inline)) = rest.option() {
        match (&*option, inline) {
            ("--id", inline) => id = Some(rest.read("--id", inline)?),
            ("--listen", inline) => {
                listen = Some(address("--listen", rest.value("--listen", inline)?, true)?);
            }
            ("--peer", inline) => peers.push(peer(&rest.value("--peer", inline)?)?),
            ("--stop-at-eof", None) => stop_at_eof = true,
            ("--runtime", inline) => runtime = rest.read("--runtime", inline)?,
            _ => return rest.unknown(&option),
        }
    }
    let Some(id) = id else { return LINE.wrong("a node needs a name: --id NAME") };
    for (index, (name, _)) in peers.iter().enumerate() {
        if *name == id {
            return LINE.wrong(format!("--peer {name} is this node itself"));
        }
        if peers.iter().take(index).any(|(other, _)| other == name) {
            return LINE.wrong(format!("--peer {name} is given twice"));
        }
    }
    let listen = listen.unwrap_or_else(|| "127.0.0.1:0".to_owned());
    Ok(Command::Node { id, listen, peers, stop_at_eof, runtime })
}

fn chat(mut rest: Rest) -> Result<Command, UsageError> {
    let (mut user, mut node, mut timeout) = (None, None, Duration::from_secs(5));
    while let Some((option, inline)) = rest.option() {
        match &*option {
            "--as" => user = Some(rest.read("--as", inline)?),
            "--node" => node = Some(address("--node", rest.value("--node", inline)?, false)?),
            "--timeout" => timeout = time(&rest.value("--timeout", inline)?)?,
            _ => return rest.unknown(&option),
        }
    }
    let Some(user) = user else { return LINE.wrong("chat needs to know who you are: --as NAME") };
    let Some(node) = node else {
        return LINE.wrong("chat needs the address of a node: --node HOST:PORT");
    };
    Ok(Command::Chat { user, node, timeout })
}

/// `NAME,NAME`, or one for both.
fn pair(value: &str) -> Result<[Flavour; 2], UsageError> {
    let (one, two) = value.split_once(',').unwrap_or((value, value));
    Ok([LINE.read("--runtimes", one)?, LINE.read("--runtimes", two)?])
}

fn peer(value: &str) -> Result<(Name, String), UsageError> {
    let Some((name, at)) = value.split_once('=') else {
        return LINE.wrong(format!("--peer {:?} is not NAME=HOST:PORT", Escaped::from(value)));
    };
    let name = LINE.read("--peer", name)?;
    Ok((name, address("--peer", at.to_owned(), false)?))
}

/// `HOST:PORT`. Whether there is such a host is found out when it is used.
fn address(option: &str, value: String, may_be_0: bool) -> Result<String, UsageError> {
    match args::port(&value) {
        Some(0) if !may_be_0 => {
            LINE.wrong(format!("{option} {value}: port 0 cannot be dialled; take what `listening` says"))
        }
        Some(_) => Ok(value),
        None => {
            LINE.wrong(format!("{option} {:?} is not HOST:PORT, e.g. 127.0.0.1:7001", Escaped::from(&*value)))
        }
    }
}

/// From 10 ms to a minute.
fn time(value: &str) -> Result<Duration, UsageError> {
    match args::time(value) {
        Some(time) if (10..=60_000).contains(&time.as_millis()) => Ok(time),
        _ => LINE.wrong(format!("--timeout {:?} is not a time from 10ms to 60s", Escaped::from(value))),
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
    fn the_lines_of_the_tutorial_are_understood() {
        let two = ("two".parse().unwrap(), "127.0.0.1:7002".to_owned());
        let node = Command::Node {
            id: "one".parse().unwrap(),
            listen: "127.0.0.1:0".to_owned(),
            peers: vec![two],
            stop_at_eof: false,
            runtime: Flavour::Tokio,
        };
        assert_eq!(of("node --id one --listen 127.0.0.1:0 --peer two=127.0.0.1:7002"), Ok(node.clone()));
        assert_eq!(of("node --id=one --peer=two=127.0.0.1:7002"), Ok(node));
        let chat = Command::Chat {
            user: "alice".parse().unwrap(),
            node: "localhost:7001".to_owned(),
            timeout: Duration::from_millis(500),
        };
        assert_eq!(of("chat --as alice --node localhost:7001 --timeout 500ms"), Ok(chat));
        let demo = |script, messages, one, two| Command::Demo { script, messages, runtimes: [one, two] };
        let (tokio, other) = (Flavour::Tokio, Flavour::AsyncStd);
        assert_eq!(of("demo"), Ok(demo(false, 1000, tokio, tokio)));
        assert_eq!(of("demo --script --messages 5"), Ok(demo(true, 5, tokio, tokio)));
        assert_eq!(of("demo --runtimes tokio,async-std"), Ok(demo(false, 1000, tokio, other)));
        assert_eq!(of("demo --runtimes=async-std"), Ok(demo(false, 1000, other, other)));
        assert_eq!(of("node --help"), Ok(Command::Help));
    }

    #[test]
    fn a_mistake_is_named_in_one_line() {
        for (line, part) in [
            ("", "say what to do"),
            ("frobnicate", r#"no command "frobnicate""#),
            ("demo --fast", r#"`demo` does not know "--fast""#),
            ("demo --messages many", "not a number"),
            ("node", "--id NAME"),
            ("node --id", "--id wants a value"),
            ("node --id tw/o=1", r#"the name "tw/o=1" is not 1 to 64"#),
            (
                "node --id one --runtime smol",
                r#"--runtime: there is no runtime "smol": say one of tokio, async-std"#,
            ),
            ("demo --runtimes tokio,", r#"--runtimes: there is no runtime "": say one of"#),
            ("demo --runtimes tokio,tokio,tokio", r#"there is no runtime "tokio,tokio""#),
            ("demo --runtimes", "--runtimes wants a value"),
            ("node --id one --listen 7001", r#"--listen "7001" is not HOST:PORT"#),
            ("node --id one --listen 127.0.0.1:99999", "is not HOST:PORT"),
            ("node --id one --peer two", "is not NAME=HOST:PORT"),
            ("node --id one --peer two=127.0.0.1:0", "port 0 cannot be dialled"),
            ("node --id one --peer two=h\u{1b}:0", r#"--peer "h\u{1b}:0" is not HOST:PORT"#),
            ("node --id one --peer one=127.0.0.1:1", "this node itself"),
            ("node --id one --peer two=h:1 --peer two=h:2", "given twice"),
            ("chat --as alice", "--node HOST:PORT"),
            ("chat --node h:1", "--as NAME"),
            ("chat --as al\u{1b}ice --node h:1", "choose another"),
            ("chat --as alice --node h:1 --timeout soon", "not a time"),
            ("chat --as alice --node h:1 --timeout 0s", "not a time"),
        ] {
            let error = of(line).unwrap_err().to_string();
            assert!(error.contains(part), "{line}: {error}");
            assert!(!error.contains(['\n', '\u{1b}']) && error.ends_with("shows the usage"), "{error}");
        }
    }
}
