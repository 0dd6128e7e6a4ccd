//! Testees and drivers under test.
#![allow(dead_code, unreachable_pub, clippy::unwrap_used, clippy::print_stdout, clippy::missing_panics_doc)]

use std::{future::Future, time::Instant};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::{Value, json};
use tieline_commands::{
    process::{Ended, PATIENCE, Process},
    runtimes::NAMES,
};
use tieline_tokio::{Client, Peer, Status};
use tokio::time::timeout;

const PROGRAM: &str = env!("CARGO_BIN_EXE_tieline-conformance");

/// Runs `tieline-conformance` to its end, without input.
pub fn run(args: &[&str]) -> Ended {
    Process::run(PROGRAM, args)
}

/// Every runtime that there is.
pub fn runtimes() -> impl Iterator<Item = &'static str> + Clone {
    NAMES.into_iter().map(|(name, _)| name)
}

// ---- testees ------------------------------------------------------------------------------------------------------

pub struct Testee {
    pub process: Process,
    pub address: String,
}

impl Testee {
    pub fn start(runtime: &str, options: &[&str]) -> Self {
        let mut process = Process::start(PROGRAM, &[&["testee", "--runtime", runtime], options].concat());
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
        Self { process: Process::start(PROGRAM, &["driver", "--runtime", runtime]) }
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
