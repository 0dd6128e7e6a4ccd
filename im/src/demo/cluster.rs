//! Two node processes on ports that the kernel chooses.

use std::{
    env, io,
    process::{ExitStatus, Stdio},
    time::Duration,
};

use thiserror::Error;
use tieline_commands::runtimes::Flavour;
use tieline_core::wire::Escaped;
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::{Child, ChildStdin, ChildStdout, Command},
    time,
};

/// How long a node has to listen, and to stop.
const PATIENCE: Duration = Duration::from_secs(10);

/// Why there is no cluster.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ClusterError {
    /// No process.
    #[error("node {0} cannot be started: {1}; may this program be executed from where it lies?")]
    Start(&'static str, io::Error),
    /// A process that does not say where it listens.
    #[error("node {0} does not listen: {1}; try `tieline-im node --id {0}` by hand")]
    Listen(&'static str, String),
}

/// A node process. When it is dropped the process is killed.
#[derive(Debug)]
pub(super) struct NodeProcess {
    pub(super) name: &'static str,
    pub(super) address: String,
    pub(super) id: u32,
    child: Child,
    /// Its end stops the node; also if this process dies.
    stop: Option<ChildStdin>,
    /// Open for as long as the node may want to say something.
    output: BufReader<ChildStdout>,
}

impl NodeProcess {
    /// Starts a node and waits until it listens.
    pub(super) async fn start(
        name: &'static str,
        runtime: Flavour,
        peers: &[&Self],
    ) -> Result<Self, ClusterError> {
        let program = env::current_exe().map_err(|error| ClusterError::Start(name, error))?;
        let mut command = Command::new(program);
        command.args(["node", "--id", name, "--listen", "127.0.0.1:0", "--stop-at-eof"]);
        command.arg("--runtime").arg(runtime.to_string());
        for peer in peers {
            command.arg("--peer").arg(format!("{}={}", peer.name, peer.address));
        }
        let child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            // Ctrl-c at the terminal is for the demo, which stops its nodes itself.
            .process_group(0)
            .spawn();
        let mut child = child.map_err(|error| ClusterError::Start(name, error))?;
        let (stop, output) = (child.stdin.take(), child.stdout.take());
        let Some(output) = output else {
            return Err(ClusterError::Listen(name, "its output is not there".to_owned()));
        };
        let mut output = BufReader::new(output);
        let mut line = String::new();
        match time::timeout(PATIENCE, output.read_line(&mut line)).await {
            Ok(Ok(_)) => {}
            Ok(Err(error)) => return Err(ClusterError::Listen(name, error.to_string())),
            Err(_) => {
                return Err(ClusterError::Listen(name, format!("it has said nothing within {PATIENCE:?}")));
            }
        }
        let Some(address) = line.trim_end().strip_prefix("listening ").map(str::to_owned) else {
            let said = format!("it says \"{}\"", Escaped(line.trim_end().as_bytes()));
            return Err(ClusterError::Listen(name, said));
        };
        let id = child.id().unwrap_or(0);
        Ok(Self { name, address, id, child, stop, output })
    }

    /// Stops it and waits for that: what it says at the end, and how it ended. `None`: it had to be killed.
    pub(super) async fn stop(mut self) -> (String, Option<ExitStatus>) {
        drop(self.stop.take());
        let mut goodbye = String::new();
        let ended = time::timeout(PATIENCE, async {
            // Whether it says goodbye or not: how it ended is what counts.
            while let Ok(1..) = self.output.read_line(&mut goodbye).await
                && !goodbye.starts_with("goodbye")
            {
                goodbye.clear();
            }
            self.child.wait().await.ok()
        });
        let status = ended.await.ok().flatten();
        (goodbye.trim_end().to_owned(), status)
    }
}
