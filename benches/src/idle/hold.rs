//! The process at the other end: connections that check in, and then only beat.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{IpAddr, SocketAddr};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::Duration;

use tokio::runtime::Builder;
use tokio::time::{Instant, sleep_until};

use super::server::IDLE;
use crate::args::{self, Args};
use crate::error::{Context, Failure, Result};
use crate::process::{self, myself};
use crate::socket;
use crate::targets::runtime::Client;
use crate::targets::tieline::ECHO;

/// `hold ADDRESS N [--heartbeat S] [--from ADDRESS] [--first K] [--core N]`: says `holding N` when all are checked in,
/// and `held N` when stdin ends, if every connection is still the one that it was and answers a call.
pub(crate) fn command(mut args: Args) -> Result<()> {
    let address: SocketAddr = args::parse("the address", &args.required("the address")?)?;
    let count = args::parse("N", &args.required("the number of connections")?)?;
    let heartbeat = args.time("--heartbeat", 10.0)?;
    let from: Option<IpAddr> = args.value("--from")?;
    let first = args.value("--first")?.unwrap_or(0);
    let core = args.value("--core")?.unwrap_or(process::LOAD_CORE);
    args.end()?;
    process::pin(core);
    if let Some(from) = from {
        socket::come_from(from);
    }
    Builder::new_current_thread().enable_all().build()?.block_on(async {
        let held = connect(address, count, first, heartbeat).await?;
        say(&format!("holding {}", held.len()))?;
        let ended = tokio::task::spawn_blocking(|| io::copy(&mut io::stdin().lock(), &mut io::sink()));
        ended.await.context("stdin")??;
        for (number, client) in held.iter().enumerate() {
            let answer = client.call(ECHO, "still there").await;
            if answer.is_err() || client.attempts() != 1 {
                return Err(Failure::new(format!("idle connection {number} of {count} was lost")));
            }
        }
        say(&format!("held {}", held.len()))
    })?;
    // Nothing is closed in peace: the kernel does it all at once.
    std::process::exit(0)
}

/// Evenly over one interval, so that heartbeats are as even afterwards.
async fn connect(address: SocketAddr, count: u32, first: u32, heartbeat: Duration) -> Result<Vec<Client>> {
    let start = Instant::now();
    let mut held = Vec::new();
    for number in 0..count {
        sleep_until(start + heartbeat.mul_f64(f64::from(number) / f64::from(count))).await;
        let client = Client::builder(&format!("{IDLE}{}", first + number)).heartbeat_interval(heartbeat);
        let client = client.connect(&address.to_string()).await;
        held.push(client.context(&format!("idle connection {number} of {count}"))?);
    }
    Ok(held)
}

fn say(line: &str) -> Result<()> {
    let mut stdout = io::stdout().lock();
    writeln!(stdout, "{line}")?;
    Ok(stdout.flush()?)
}

/// A process that holds connections, started by this one. It ends when this is dropped.
#[derive(Debug)]
pub(super) struct Holder {
    child: Child,
    stdout: BufReader<ChildStdout>,
    count: u32,
}

impl Holder {
    /// Starts to connect `count` times from `from`, as the idle ones number `first` and on.
    pub(super) fn start(
        address: SocketAddr,
        (from, first, count): (IpAddr, u32, u32),
        heartbeat: Duration,
        core: usize,
    ) -> Result<Self> {
        let mut child = Command::new(myself()?)
            .args(["hold", &address.to_string(), &count.to_string()])
            .args(["--heartbeat", &heartbeat.as_secs_f64().to_string(), "--from", &from.to_string()])
            .args(["--first", &first.to_string(), "--core", &core.to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("start the idle connections")?;
        let stdout = child.stdout.take().ok_or_else(|| Failure::new("idle connections without output"))?;
        Ok(Self { child, stdout: BufReader::new(stdout), count })
    }

    /// Waits until all are checked in.
    pub(super) fn ready(&mut self) -> Result<()> {
        let mut line = String::new();
        self.stdout.read_line(&mut line)?;
        if line.trim() == format!("holding {}", self.count) {
            Ok(())
        } else {
            Err(Failure::new(format!("{} idle connections did not come about", self.count)))
        }
    }

    /// The number of the process.
    pub(super) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Ends it. An error if one of the connections had been lost.
    pub(super) fn stop(mut self) -> Result<()> {
        drop(self.child.stdin.take());
        let mut rest = String::new();
        self.stdout.read_to_string(&mut rest)?;
        if rest.trim() == format!("held {}", self.count) {
            Ok(())
        } else {
            Err(Failure::new("idle connections were lost"))
        }
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        // Nothing is left to be told if it cannot be waited for.
        let _ = self.child.wait();
    }
}
