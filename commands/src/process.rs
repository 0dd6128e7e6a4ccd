//! Processes under test: started, talked to by lines, waited for with a bound, and never left behind.
//!
//! What is not as a test expects panics, with what the process has said so far.
#![allow(clippy::unwrap_used, clippy::panic, clippy::missing_panics_doc)]

use std::{
    collections::VecDeque,
    io::{BufRead, BufReader, Read, Write},
    process::{Child, ChildStdin, Command, Stdio},
    sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel},
    thread,
    time::{Duration, Instant},
};

/// How long anything may take. Nothing comes near it unless it is broken.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// A process with its three streams. It is killed when this is dropped.
#[derive(Debug)]
pub struct Process {
    what: String,
    child: Child,
    input: Option<ChildStdin>,
    lines: Receiver<(usize, String)>,
    /// What came on the standard output and on the standard error and was not looked for yet. The order between the two
    /// is by chance.
    waiting: [VecDeque<String>; 2],
    seen: Vec<String>,
}

/// How a process has ended.
#[derive(Debug)]
pub struct Ended {
    /// The exit code, if it was not a signal.
    pub code: Option<i32>,
    /// All lines that it has ever written.
    pub seen: Vec<String>,
    /// Those on the standard output and on the standard error that nobody has looked for.
    pub left: [Vec<String>; 2],
}

fn pump(stream: usize, from: impl Read + Send + 'static, to: Sender<(usize, String)>) {
    thread::spawn(move || {
        for line in BufReader::new(from).lines().map_while(Result::ok) {
            if to.send((stream, line)).is_err() {
                return;
            }
        }
    });
}

impl Process {
    /// Starts the program at this path with these arguments. In an integration test, `CARGO_BIN_EXE_…` is the path.
    #[must_use]
    pub fn start(program: &str, args: &[&str]) -> Self {
        let mut child = Command::new(program)
            .args(args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let (sender, lines) = channel();
        pump(0, child.stdout.take().unwrap(), sender.clone());
        pump(1, child.stderr.take().unwrap(), sender);
        let input = child.stdin.take();
        Self { what: args.join(" "), child, input, lines, waiting: Default::default(), seen: Vec::new() }
    }

    /// Runs it to its end, without input.
    #[must_use]
    pub fn run(program: &str, args: &[&str]) -> Ended {
        let mut process = Self::start(program, args);
        process.hang_up();
        process.end()
    }

    /// Types a line.
    pub fn say(&mut self, line: &str) {
        let input = self.input.as_mut().unwrap();
        writeln!(input, "{line}").unwrap();
        input.flush().unwrap();
    }

    /// The end of the input.
    pub fn hang_up(&mut self) {
        self.input = None;
    }

    /// Sends a signal by its name, e.g. `TERM`.
    pub fn signal(&self, name: &str) {
        signal(self.child.id(), name);
    }

    /// The next line with this in it, of either stream; lines before it in its stream are passed over.
    pub fn expect(&mut self, part: &str) -> String {
        self.wait(&format!("{part:?}"), |waiting| {
            waiting.iter_mut().find_map(|lines| {
                let at = lines.iter().position(|line| line.contains(part))?;
                lines.drain(..=at).next_back()
            })
        })
    }

    /// The first line for which this is so, of the standard output (0) or error (1); others are kept. `what` names it.
    pub fn find(&mut self, stream: usize, what: &str, is: impl Fn(&str) -> bool) -> String {
        self.wait(what, |waiting| {
            let lines = waiting.get_mut(stream)?;
            let at = lines.iter().position(|line| is(line))?;
            lines.remove(at)
        })
    }

    /// Takes lines in until something is found among those that wait.
    fn wait(
        &mut self,
        what: &str,
        mut find: impl FnMut(&mut [VecDeque<String>; 2]) -> Option<String>,
    ) -> String {
        let limit = Instant::now() + PATIENCE;
        loop {
            if let Some(line) = find(&mut self.waiting) {
                return line;
            }
            match self.lines.recv_timeout(limit.saturating_duration_since(Instant::now())) {
                Ok(line) => self.keep(line),
                Err(error) => panic!("{}: {error:?}, no {what} among {:#?}", self.what, self.seen),
            }
        }
    }

    fn keep(&mut self, (stream, line): (usize, String)) {
        self.seen.push(line.clone());
        self.waiting[stream].push_back(line);
    }

    /// Waits for the end.
    pub fn end(mut self) -> Ended {
        let limit = Instant::now() + PATIENCE;
        loop {
            match self.lines.recv_timeout(limit.saturating_duration_since(Instant::now())) {
                Ok(line) => self.keep(line),
                // Its output is closed: it has ended.
                Err(RecvTimeoutError::Disconnected) => break,
                Err(RecvTimeoutError::Timeout) => panic!("{}: it does not end: {:#?}", self.what, self.seen),
            }
        }
        let code = self.child.wait().unwrap().code();
        let left = std::mem::take(&mut self.waiting).map(Vec::from);
        Ended { code, seen: std::mem::take(&mut self.seen), left }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Sends a signal by its name to a process that need not be one of these.
pub fn signal(pid: u32, name: &str) {
    let done = Command::new("sh").args(["-c", &format!("kill -{name} {pid}")]).status().unwrap();
    assert!(done.success(), "kill -{name} {pid}");
}

/// One error in one line on the standard error, with these parts in it; nothing else; and this exit code.
pub fn assert_one_error(ended: &Ended, code: i32, parts: &[&str]) {
    assert_eq!(ended.code, Some(code), "{ended:#?}");
    let [out, err] = &ended.left;
    assert!(out.is_empty(), "{out:#?}");
    let [line] = &err[..] else { panic!("not one line: {err:#?}") };
    assert!(line.starts_with("error: "), "{line}");
    for part in parts {
        assert!(line.contains(part), "no {part:?} in {line:?}");
    }
}
