//! The two processes of a run: the server on one core, the load on another.

use std::convert::Infallible;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::process::{Child, ChildStdin, ChildStdout, Command, ExitStatus, Stdio};
use std::thread;

use crate::error::{Context, Failure, Result};
use crate::{socket, sys};

/// The core of the server, unless another is asked for.
pub const SERVER_CORE: usize = 0;
/// The core of the load.
pub const LOAD_CORE: usize = 1;

/// Set to 1 for every process of this program: one thread beside the one that all share, as all other targets have.
pub const ASYNC_STD_THREADS: &str = "ASYNC_STD_THREAD_COUNT";

/// This program, to be started again as server or as load.
pub fn myself() -> Result<PathBuf> {
    std::env::current_exe().context("the path of this program")
}

/// Binds this process to `core`. A machine without that core is measured unpinned, and told so.
pub fn pin(core: usize) {
    if let Err(error) = sys::pin(core) {
        // Whoever reads the figures is to know.
        #[allow(clippy::print_stderr)]
        {
            eprintln!("tieline-benches: not pinned to core {core}: {error}");
        }
    }
}

/// Is the server process: says where it listens, then serves by `serve` until stdin ends.
pub fn serve(
    serve: impl FnOnce(TcpListener) -> Result<Infallible>,
    listen: SocketAddr,
    core: usize,
) -> Result<Infallible> {
    pin(core);
    let listener = socket::listen(listen).context("listen")?;
    let address = listener.local_addr()?;
    thread::Builder::new().spawn(|| {
        // Whoever started this process holds the other end: if it goes, so does the server.
        let _ = io::copy(&mut io::stdin().lock(), &mut io::sink());
        std::process::exit(0);
    })?;
    let mut stdout = io::stdout().lock();
    writeln!(stdout, "listening {address}")?;
    stdout.flush()?;
    drop(stdout);
    serve(listener)
}

/// A server process that this process has started. It ends when this is dropped.
#[derive(Debug)]
pub struct Server {
    child: Child,
    stdin: Option<ChildStdin>,
    stdout: BufReader<ChildStdout>,
    /// Where it listens.
    pub address: SocketAddr,
}

impl Server {
    /// Starts the server of this name on the server's core.
    pub fn start(name: &str) -> Result<Self> {
        Self::start_under(Command::new(myself()?), name)
    }

    /// The same by `command`, which may run it inside of something: the arguments are added to it.
    pub fn start_under(mut command: Command, name: &str) -> Result<Self> {
        let mut child = command
            .args(["serve", name])
            .env(ASYNC_STD_THREADS, "1")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("start the server")?;
        let stdin = child.stdin.take();
        let stdout = child.stdout.take();
        let stdout = stdout.ok_or_else(|| Failure::new("a server without output"))?;
        let mut server = Self {
            child,
            stdin,
            stdout: BufReader::new(stdout),
            address: SocketAddr::from(([127, 0, 0, 1], 0)),
        };
        let mut line = String::new();
        server.stdout.read_line(&mut line)?;
        server.address = line
            .trim()
            .strip_prefix("listening ")
            .and_then(|address| address.parse().ok())
            .ok_or_else(|| Failure::new(format!("the server {name} did not start")))?;
        Ok(server)
    }

    /// The number of the process.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Ends the server and waits for it. Returns what it wrote to stderr, if that was piped.
    pub fn stop(mut self) -> Result<(ExitStatus, String)> {
        drop(self.stdin.take());
        let mut text = String::new();
        if let Some(mut stderr) = self.child.stderr.take() {
            stderr.read_to_string(&mut text)?;
        }
        Ok((self.child.wait()?, text))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.stdin.take());
        // Nothing is left to be told if it cannot be waited for.
        let _ = self.child.wait();
    }
}
