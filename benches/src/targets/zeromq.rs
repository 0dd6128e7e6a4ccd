//! ZeroMQ, for the rows of large payloads: a program of its own, `peers/zeromq.c`, which was built if the library is
//! installed. This workspace does not depend on it.

use std::convert::Infallible;
use std::net::{SocketAddr, TcpListener};
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::error::{Context, Failure, Result};
use crate::load::{Length, Mode, Plan, Report};

/// How to get what is missing.
pub const NOT_INSTALLED: &str = "not installed: it takes pkg-config, a C compiler and the library when this program is \
     built (`apt-get install pkg-config gcc libzmq3-dev` on Debian)";

/// Each comes from an address of its own.
const MOST_CONNECTIONS: usize = 250;

/// The program, if there is one.
pub fn program() -> Option<&'static str> {
    option_env!("BENCH_ZEROMQ")
}

/// The version of the library.
pub fn version() -> Option<String> {
    let output = Command::new(program()?).arg("version").output().ok()?;
    let version = String::from_utf8(output.stdout).ok()?;
    output.status.success().then(|| version.trim().to_owned())
}

fn command() -> Result<Command> {
    program().map(Command::new).ok_or_else(|| Failure::new(format!("zeromq is {NOT_INSTALLED}")))
}

/// Becomes the server. The port is the one of `listener`, which it opens anew.
pub fn serve(listener: TcpListener) -> Result<Infallible> {
    let port = listener.local_addr()?.port().to_string();
    let mut command = command()?;
    drop(listener);
    Err(command.args(["serve", &port]).exec()).context("zeromq")
}

/// Runs `plan` against the server at `address`.
pub fn load(plan: &Plan, address: SocketAddr, server: Option<u32>) -> Result<Report> {
    let (warmup, window, calls) = match (plan.mode, plan.length) {
        (Mode::Closed, Length::Time { warmup, window }) => (warmup, window, 0),
        (Mode::Closed, Length::Calls(calls)) => (Duration::ZERO, Duration::ZERO, calls),
        (Mode::Open { .. }, _) => return Err(Failure::new("zeromq has a closed loop here")),
    };
    if plan.connections > MOST_CONNECTIONS {
        return Err(Failure::new(format!("zeromq has at most {MOST_CONNECTIONS} connections here")));
    }
    let output = command()?
        .args(["load", &address.port().to_string(), &plan.payload.to_string()])
        .args([plan.connections.to_string(), plan.in_flight.to_string()])
        .args([warmup.as_secs_f64().to_string(), window.as_secs_f64().to_string(), calls.to_string()])
        .arg(server.unwrap_or(0).to_string())
        .stderr(Stdio::inherit())
        .output()
        .context("zeromq")?;
    if !output.status.success() {
        return Err(Failure::new("the load by zeromq failed"));
    }
    Report::from_json(&String::from_utf8_lossy(&output.stdout))
}
