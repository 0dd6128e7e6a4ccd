//! A scenario in several processes: each is this test program once more, told which part it has.

use std::{
    collections::VecDeque,
    io::{BufRead, BufReader, Write},
    process::{ChildStdin, Command, Stdio},
};

use rustix::process::{Pid, Resource, Rlimit, Signal, getrlimit, kill_process, setrlimit};

use crate::{
    Adapter,
    task::thread,
    wait::{Shared, soon},
};

const PART: &str = "TIELINE_SCENARIO_PART";
const SAID: &str = "TIELINE_SCENARIO_SAID";
/// What lines of a scenario begin with, to tell them from those of the test program.
const MARK: &str = "scenario: ";

/// Lines that come, and whether no more will.
#[derive(Debug, Default)]
struct Lines {
    lines: VecDeque<String>,
    over: bool,
}

impl Lines {
    fn next(&mut self) -> Option<Option<String>> {
        self.lines.pop_front().map(Some).or(self.over.then_some(None))
    }
}

/// Which part of a scenario this process has, and what it was told with it. `None`: it is the first one.
#[must_use]
pub fn part() -> Option<(String, String)> {
    let get = |name| std::env::var(name).ok();
    get(PART).map(|part| (part, get(SAID).unwrap_or_default()))
}

/// Another process of the scenario. Dropped, it is killed.
#[derive(Debug)]
pub struct Part {
    process: std::process::Child,
    stdin: Option<ChildStdin>,
    lines: Shared<Lines>,
}

impl Part {
    /// Starts `part` of the test of this whole name, and tells it something.
    #[must_use]
    pub fn start(test: &str, part: &str, say: &str) -> Self {
        // The name of a test has no crate.
        let name = test.split_once("::").map_or(test, |(_, name)| name);
        let mut process = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", name, "--nocapture", "--test-threads=1"])
            .env(PART, part)
            .env(SAID, say)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = Shared::<Lines>::default();
        let (stdout, said) = (BufReader::new(process.stdout.take().unwrap()), lines.clone());
        drop(thread(move || {
            for line in stdout.lines().map_while(Result::ok) {
                // The test program may have begun the line.
                if let Some((_, line)) = line.split_once(MARK) {
                    said.change(|said| said.lines.push_back(line.to_owned()));
                }
            }
            said.change(|said| said.over = true);
        }));
        let stdin = process.stdin.take();
        Self { process, stdin, lines }
    }

    /// The next line that it says.
    pub async fn line<A: Adapter>(&self) -> String {
        let line = soon::<A, _>("a line", self.lines.take(Lines::next)).await;
        line.expect("a process of the scenario ended before it said all")
    }

    /// Waits for this line, which must be the next.
    pub async fn expect<A: Adapter>(&self, line: &str) {
        assert_eq!(self.line::<A>().await, line);
    }

    /// Says a line to it.
    pub fn say(&mut self, line: &str) {
        writeln!(self.stdin.as_mut().unwrap(), "{line}").unwrap();
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.process), signal).unwrap();
    }

    /// Waits until it has ended, as a test that passed.
    pub async fn end<A: Adapter>(mut self) {
        // Its end ends its output.
        self.stdin = None;
        let rest = soon::<A, _>("its end", self.lines.take(Lines::next)).await;
        assert_eq!(rest, None, "it had more to say");
        assert!(self.process.wait().unwrap().success(), "a process of the scenario failed");
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        // One that has ended cannot be killed.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Says a line to the process that started this one.
pub fn say(line: &str) {
    let mut stdout = std::io::stdout().lock();
    writeln!(stdout, "{MARK}{line}").unwrap();
    stdout.flush().unwrap();
}

/// What the process that started this one says.
#[derive(Debug)]
pub struct Told(Shared<Lines>);

impl Told {
    /// Listens from now on.
    #[must_use]
    pub fn listen() -> Self {
        let lines = Shared::<Lines>::default();
        let said = lines.clone();
        drop(thread(move || {
            for line in std::io::stdin().lock().lines().map_while(Result::ok) {
                said.change(|said| said.lines.push_back(line));
            }
            said.change(|said| said.over = true);
        }));
        Self(lines)
    }

    /// The next line; nothing once no more will come.
    pub async fn line(&self) -> Option<String> {
        self.0.take(Lines::next).await
    }
}

/// Lets this process have no more than so many descriptors, or as many as it may.
///
/// Returns how many that are; `None` if there is no limit.
#[allow(clippy::must_use_candidate)]
pub fn descriptors(most: Option<u64>) -> Option<u64> {
    let now = getrlimit(Resource::Nofile);
    let current = most.or(now.maximum);
    setrlimit(Resource::Nofile, Rlimit { current, maximum: now.maximum }).unwrap();
    current
}

/// The same test in a process of its own, with another limit of descriptors. `true` in that process.
#[must_use]
pub fn alone(test: &str, descriptors: u32) -> bool {
    if std::env::var_os("TIELINE_ALONE").is_some() {
        return true;
    }
    let program = std::env::current_exe().unwrap();
    let script = format!("ulimit -n {descriptors} && exec \"$0\" --exact {test} --nocapture");
    let output =
        Command::new("sh").args(["-c", &script]).arg(program).env("TIELINE_ALONE", "1").output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}\n{}", String::from_utf8_lossy(&output.stderr));
    assert!(said.contains("1 passed"), "{said}");
    false
}

/// Told when this process is asked to end by SIGTERM.
#[must_use]
pub fn asked_to_end() -> Shared<bool> {
    let asked = Shared::new(false);
    let (mut signals, end) = std::os::unix::net::UnixStream::pair().unwrap();
    signal_hook::low_level::pipe::register(signal_hook::consts::SIGTERM, end).unwrap();
    let tell = asked.clone();
    drop(thread(move || {
        std::io::Read::read_exact(&mut signals, &mut [0]).unwrap();
        tell.change(|asked| *asked = true);
    }));
    asked
}
