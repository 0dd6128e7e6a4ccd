//! A server, somebody who asks it, and idle connections to it, each where it is in the way of the others least.

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use tokio::runtime::{Builder, Runtime};

use super::hold::Holder;
use super::server::{BEATS, HEAP, Product};
use super::state::{Beats, heap_of};
use crate::error::{Context, Failure, Result};
use crate::process::Server;
use crate::sys::{self, Heap};
use crate::targets::runtime::Client;

/// Files that a process of ours opens besides its connections, and some to spare.
const OTHER_FILES: u64 = 200;
/// Connections from one address: somewhat less than there are ports that the kernel chooses from.
const FROM_ONE_ADDRESS: u32 = 25_000;
/// The longest interval that a server grants: whoever asks is not to be among those that beat.
const LONG: Duration = Duration::from_secs(300);

/// The most connections that a process may have here, the limit of files being what it is.
pub(super) fn most_connections() -> Result<u32> {
    let files = sys::raise_files().context("the limit of open files")?;
    Ok(u32::try_from(files.saturating_sub(OTHER_FILES)).unwrap_or(u32::MAX))
}

/// Idle connections that are asked for.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Held {
    pub(super) count: u32,
    pub(super) heartbeat: Duration,
    /// Where their processes run.
    pub(super) core: usize,
}

/// A server process, and a connection that asks it.
pub(super) struct World {
    pub(super) server: Server,
    runtime: Runtime,
    probe: Client,
    holders: Vec<Holder>,
    held: u32,
}

impl World {
    /// Starts a server. `noted`: it notes when tasks are polled.
    pub(super) fn start(product: Product, noted: bool) -> Result<Self> {
        let server = Server::start(product.served(noted))?;
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let probe = Client::builder("bench-probe").heartbeat_interval(LONG);
        let probe = runtime.block_on(probe.connect(&server.address.to_string())).context("connect")?;
        let world = Self { server, runtime, probe, holders: Vec::new(), held: 0 };
        // What the first questions leave behind is there from now on.
        for _ in 0..3 {
            world.heap()?;
            world.beats()?;
        }
        Ok(world)
    }

    fn ask(&self, method: &str) -> Result<String> {
        let answer = self.runtime.block_on(async { self.probe.call(method, "").await }).context(method)?;
        String::from_utf8(answer.payload.into()).context(method)
    }

    pub(super) fn heap(&self) -> Result<Heap> {
        heap_of(&self.ask(HEAP)?)
    }

    pub(super) fn beats(&self) -> Result<Beats> {
        Beats::from_json(&self.ask(BEATS)?)
    }

    /// Makes idle connections, evenly over one interval, and returns when all are checked in.
    pub(super) fn hold(&mut self, Held { count, heartbeat, core }: Held) -> Result<()> {
        let each = FROM_ONE_ADDRESS.min(most_connections()?);
        while self.held < count {
            let (from, part) = (source(self.holders.len())?, each.min(count - self.held));
            // One process after the other: those that come first are as long checked in as they have to be.
            let mut holder = Holder::start(self.server.address, (from, self.held, part), heartbeat, core)?;
            holder.ready()?;
            self.holders.push(holder);
            self.held += part;
        }
        self.check()
    }

    /// An error unless all idle connections are there.
    pub(super) fn check(&self) -> Result<()> {
        let there = self.beats()?.connections;
        if there == u64::from(self.held) {
            Ok(())
        } else {
            Err(Failure::new(format!("{there} of {} idle connections are there", self.held)))
        }
    }

    /// Processor time that the processes of the idle connections have used.
    pub(super) fn holders_cpu(&self) -> Result<Duration> {
        let each = self.holders.iter().map(|holder| sys::cpu_of(holder.pid()));
        each.sum::<std::io::Result<Duration>>().context("the clock of the idle connections")
    }

    /// Ends everything. An error if a connection was lost on the way.
    pub(super) fn stop(self) -> Result<()> {
        for holder in self.holders {
            holder.stop()?;
        }
        self.server.stop()?;
        Ok(())
    }
}

/// An address of loopback for each process of idle connections, none of which is the server's.
fn source(process: usize) -> Result<IpAddr> {
    let last = u8::try_from(process + 2).ok().filter(|last| *last < 255);
    let last =
        last.ok_or_else(|| Failure::new("too many idle connections for the addresses of 127.0.0.0/24"))?;
    Ok(Ipv4Addr::new(127, 0, 0, last).into())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use std::net::SocketAddr;

    #[test]
    fn every_process_comes_from_an_address_of_its_own() {
        assert_eq!(source(0).unwrap(), IpAddr::from([127, 0, 0, 2]));
        assert_eq!(source(252).unwrap(), IpAddr::from([127, 0, 0, 254]));
        assert!(source(253).is_err());
    }

    #[test]
    fn the_server_is_elsewhere() {
        let address: SocketAddr = "127.0.0.1:1".parse().unwrap();
        assert!((0..253).all(|process| source(process).unwrap() != address.ip()));
    }
}
