//! Processes under test: started, talked to by lines, waited for with a bound, and never left behind.
#![allow(
    dead_code,
    unreachable_pub,
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::missing_panics_doc
)]

use std::{
    future::Future,
    io::{BufRead, BufReader, Read, Write},
    process::{Child, ChildStdin, Command, Stdio},
    sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel},
    thread,
    time::{Duration, Instant},
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::{Value, json};
use tieline_conformance::runtimes::NAMES;
use tieline_tokio::{Client, Peer, Status};
use tokio::time::timeout;

/// How long anything may take. Nothing comes near it unless it is broken.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// Every runtime that there is.
pub fn runtimes() -> impl Iterator<Item = &'static str> + Clone {
    NAMES.into_iter().map(|(name, _)| name)
}

pub struct Process {
    what: String,
    child: Child,
    input: Option<ChildStdin>,
    lines: Receiver<(usize, String)>,
    /// What came on the standard output and on the standard error and was not looked for yet.
    waiting: [Vec<String>; 2],
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
    /// Starts `tieline-conformance` with these arguments.
    pub fn start(args: &[&str]) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_tieline-conformance"))
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
        Self { what: args.join(" "), child, input, lines, waiting: Default::default() }
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

    pub fn signal(&self, name: &str) {
        let script = format!("kill -{name} {}", self.child.id());
        assert!(Command::new("sh").args(["-c", &script]).status().unwrap().success());
    }

    /// The first line for which this is so, of the standard output (0) or error (1); others are kept.
    pub fn find(&mut self, stream: usize, what: &str, is: impl Fn(&str) -> bool) -> String {
        let limit = Instant::now() + PATIENCE;
        loop {
            if let Some(at) = self.waiting[stream].iter().position(|line| is(line)) {
                return self.waiting[stream].remove(at);
            }
            match self.lines.recv_timeout(limit.saturating_duration_since(Instant::now())) {
                Ok((stream, line)) => self.waiting[stream].push(line),
                Err(error) => panic!("{}: {error:?}, no {what} among {:#?}", self.what, self.waiting),
            }
        }
    }

    /// Waits for the end: the exit code, if it was not a signal, and the lines that are left.
    pub fn end(mut self) -> (Option<i32>, [Vec<String>; 2]) {
        let limit = Instant::now() + PATIENCE;
        loop {
            match self.lines.recv_timeout(limit.saturating_duration_since(Instant::now())) {
                Ok((stream, line)) => self.waiting[stream].push(line),
                // Its output is closed: it has ended.
                Err(RecvTimeoutError::Disconnected) => break,
                Err(RecvTimeoutError::Timeout) => {
                    panic!("{}: it does not end: {:#?}", self.what, self.waiting)
                }
            }
        }
        let code = self.child.wait().unwrap().code();
        (code, std::mem::take(&mut self.waiting))
    }

    /// Runs it to its end, without input.
    pub fn run(args: &[&str]) -> (Option<i32>, [Vec<String>; 2]) {
        let mut process = Self::start(args);
        process.hang_up();
        process.end()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// One error in one line, with this in it, nothing else, and a failed exit.
pub fn assert_one_error(ended: &(Option<i32>, [Vec<String>; 2]), expected: i32, part: &str) {
    let (code, [out, err]) = ended;
    assert_eq!(*code, Some(expected), "{err:#?}");
    assert!(out.is_empty(), "{out:#?}");
    let [line] = &err[..] else { panic!("not one line: {err:#?}") };
    assert!(line.starts_with("error: ") && line.contains(part), "no {part:?} in {line:?}");
}

// ---- testees ------------------------------------------------------------------------------------------------------

pub struct Testee {
    pub process: Process,
    pub address: String,
}

impl Testee {
    pub fn start(runtime: &str, options: &[&str]) -> Self {
        let mut process = Process::start(&[&["testee", "--runtime", runtime], options].concat());
        let line = process.find(0, "address", |line| line.starts_with("listening "));
        let address = line.strip_prefix("listening ").unwrap().to_owned();
        Self { process, address }
    }

    pub async fn client(&self) -> Client {
        Client::builder("suite").connect(&self.address).await.unwrap()
    }
}

/// Runs a test against a testee on every runtime.
pub fn each<F: Future<Output = ()>>(options: &[&str], test: impl Fn(Testee) -> F) {
    for runtime in runtimes() {
        println!("on {runtime}");
        let testee = Testee::start(runtime, options);
        block_on(test(testee));
    }
}

pub fn block_on<F: Future>(future: F) -> F::Output {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async { timeout(PATIENCE, future).await.expect("the test hangs") })
}

pub fn name(method: &str) -> String {
    format!("tieline.testee.v1.Testee/{method}")
}

pub fn varint(mut value: u64) -> Vec<u8> {
    let mut out = Vec::new();
    while value >= 0x80 {
        out.push(value.to_le_bytes()[0] | 0x80);
        value >>= 7;
    }
    out.push(value.to_le_bytes()[0]);
    out
}

/// Calls a method; its status and payload.
pub async fn call(peer: &Peer, method: &str, argument: &[u8]) -> (Status, Vec<u8>) {
    match peer.call(&name(method), argument.to_vec()).await {
        Ok(answer) => (Status::OK, answer.payload.to_vec()),
        Err(error) => (error.status(), error.detail().to_vec()),
    }
}

/// What Stats says.
pub async fn stats(peer: &Peer) -> Value {
    let (status, json) = call(peer, "Stats", &[]).await;
    assert_eq!(status, Status::OK);
    serde_json::from_slice(&json).unwrap()
}

/// Asks until it is so: the testee tells of nothing by itself. Each answer is waited for before it is asked again.
pub async fn stats_until(peer: &Peer, so: impl Fn(&Value) -> bool) -> Value {
    let limit = Instant::now() + PATIENCE;
    loop {
        let stats = stats(peer).await;
        if so(&stats) {
            return stats;
        }
        assert!(Instant::now() < limit, "{stats}");
    }
}

// ---- drivers ------------------------------------------------------------------------------------------------------

pub struct Driver {
    pub process: Process,
}

impl Driver {
    pub fn start(runtime: &str) -> Self {
        Self { process: Process::start(&["driver", "--runtime", runtime]) }
    }

    /// A driver with a checked-in connection.
    pub fn connected(runtime: &str, address: &str) -> Self {
        let mut driver = Self::start(runtime);
        let connect = json!({"t": "connect", "cmd": "connect", "addrs": [address], "identifier": "driver", "wait_ms": 10_000});
        assert_eq!(driver.ask(&connect), json!({"t": "connect", "ok": true, "ready": 1}));
        driver
    }

    pub fn tell(&mut self, command: &Value) {
        self.process.say(&command.to_string());
    }

    /// The answer for this token.
    pub fn answer(&mut self, token: &Value) -> Value {
        let is = |line: &str| serde_json::from_str::<Value>(line).unwrap()["t"] == *token;
        let line = self.process.find(0, &format!("answer for {token}"), is);
        serde_json::from_str(&line).unwrap()
    }

    /// A command and its answer.
    pub fn ask(&mut self, command: &Value) -> Value {
        self.tell(command);
        self.answer(&command["t"])
    }
}

pub fn b64(octets: &[u8]) -> String {
    STANDARD.encode(octets)
}

/// A refusal with this in its message.
pub fn assert_refused(answer: &Value, part: &str) {
    assert_eq!((&answer["ok"], &answer["ran"]), (&json!(false), &json!("No")), "{answer}");
    assert!(answer["status"].is_u64(), "{answer}");
    assert!(answer["message"].as_str().unwrap().contains(part), "no {part:?} in {answer}");
}
