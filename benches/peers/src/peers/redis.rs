//! Redis: `ECHO`, pipelined on each connection by the client of the `redis` crate. Its server is the one that is installed;
//! this program starts it, and ends it by its number.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

use bytes::Bytes;
use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, RedisConnectionInfo};
use tieline_benches::error::{Context, Failure, Result};
use tieline_benches::load::Caller;
use tieline_benches::process::{self, SERVER_CORE};
use tieline_benches::socket;

use super::connected;

/// After this a call fails, as those of the others do.
const DEADLINE: Duration = Duration::from_secs(10);
const PROGRAM: &str = "redis-server";

/// What is installed.
pub(crate) fn version() -> Result<String> {
    let output = Command::new(PROGRAM).arg("--version").output();
    let output = output.context("redis-server is not there (`apt-get install redis-server` on Debian)")?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let version = text.split_whitespace().find_map(|word| word.strip_prefix("v="));
    version.map(str::to_owned).ok_or_else(|| Failure::new("redis-server told no version"))
}

/// A server process. It ends when this is dropped.
pub(crate) struct Redis {
    child: Child,
    pub(crate) address: SocketAddr,
}

impl Redis {
    pub(crate) fn start() -> Result<Self> {
        version()?;
        // It opens the port itself, so what is known to be free is given back first.
        let address = socket::listen(SocketAddr::from(([127, 0, 0, 1], 0)))?.local_addr()?;
        let start = move || {
            // Of this thread only, and of what it starts.
            process::pin(SERVER_CORE);
            Command::new(PROGRAM)
                .args(["--bind", "127.0.0.1", "--port", &address.port().to_string(), "--tcp-backlog", "128"])
                .args(["--save", "", "--appendonly", "no", "--daemonize", "no", "--logfile", ""])
                .stdin(Stdio::null())
                .stdout(Stdio::piped())
                .spawn()
        };
        let child = thread::spawn(start).join().map_err(|_| Failure::new("redis-server did not start"))?;
        let mut redis = Self { child: child.context("start redis-server")?, address };
        let stdout = redis.child.stdout.take().ok_or_else(|| Failure::new("redis-server without output"))?;
        let mut lines = BufReader::new(stdout).lines();
        let ready = lines.any(|line| line.is_ok_and(|line| line.contains("Ready to accept connections")));
        if !ready {
            return Err(Failure::new("redis-server did not come up"));
        }
        // What else it says is taken, so that it never waits for a reader.
        thread::spawn(move || lines.for_each(drop));
        Ok(redis)
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        // It may have ended by itself; it keeps nothing.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub(crate) async fn connect(address: SocketAddr) -> Result<Client> {
    let config = AsyncConnectionConfig::new().set_response_timeout(Some(DEADLINE));
    let info = RedisConnectionInfo::default();
    let stream = connected(address)?;
    let (connection, driver) =
        MultiplexedConnection::new_with_config(&info, stream, config).await.context("connect")?;
    tokio::spawn(driver);
    Ok(Client(connection))
}

/// One connection.
#[derive(Clone)]
pub(crate) struct Client(MultiplexedConnection);

impl Caller for Client {
    async fn call(&self, payload: Bytes) -> Result<Bytes> {
        let mut connection = self.0.clone();
        let mut echo = redis::cmd("ECHO");
        let answer: Vec<u8> = echo.arg(&*payload).query_async(&mut connection).await.context("call")?;
        Ok(answer.into())
    }
}
