//! What the figures were measured on, and whether anybody else used it meanwhile.

use std::fs;
use std::thread::available_parallelism;
use std::time::{Duration, Instant};

use crate::error::{Context, Failure, Result};
use crate::process::{LOAD_CORE, SERVER_CORE};
use crate::sys;

/// The versions that this program was built from.
const LOCK: &str = include_str!("../../Cargo.lock");

/// The lines above a table. To be called before it is measured, since the load average is among them.
pub(crate) fn describe() -> Vec<String> {
    let of = |path: &str| {
        fs::read_to_string(path).map_or_else(|_| "unknown".to_owned(), |text| text.trim().to_owned())
    };
    let cpu = of("/proc/cpuinfo");
    let model = cpu
        .lines()
        .find_map(|line| line.strip_prefix("model name")?.split_once(':'))
        .map_or("unknown", |(_, model)| model.trim());
    let cores = available_parallelism().map_or(0, Into::into);
    let pinned = if cores > LOAD_CORE {
        format!("server process pinned to core {SERVER_CORE}, load process to core {LOAD_CORE}")
    } else {
        "NOT PINNED: too few cores, so server and load share what there is".to_owned()
    };
    vec![
        format!("kernel {}, {model}, {cores} cores; {pinned}", of("/proc/sys/kernel/osrelease")),
        format!(
            "TCP over loopback, TCP_NODELAY, congestion control {}, rmem {}, wmem {}",
            of("/proc/sys/net/ipv4/tcp_congestion_control"),
            of("/proc/sys/net/ipv4/tcp_rmem").replace('\t', " "),
            of("/proc/sys/net/ipv4/tcp_wmem").replace('\t', " "),
        ),
        format!(
            "{}, {} build, tokio {}, bytes {}, tieline-benches {}",
            env!("BENCH_RUSTC"),
            if cfg!(debug_assertions) { "DEBUG" } else { "release" },
            version("tokio"),
            version("bytes"),
            env!("CARGO_PKG_VERSION"),
        ),
    ]
}

/// The version of a crate in the lock file.
fn version(name: &str) -> &'static str {
    let entry = format!("name = \"{name}\"");
    LOCK.lines()
        .skip_while(|line| *line != entry)
        .nth(1)
        .and_then(|line| line.strip_prefix("version = \"")?.strip_suffix('"'))
        .unwrap_or("unknown")
}

/// Who used the processors between two moments.
#[derive(Debug)]
pub(crate) struct Bystanders {
    start: Instant,
    machine: Machine,
    own: Duration,
}

/// Processor time of the whole machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Machine {
    busy: Duration,
    stolen: Duration,
}

impl Bystanders {
    pub(crate) fn watch() -> Result<Self> {
        Ok(Self { start: Instant::now(), machine: Machine::read()?, own: own()? })
    }

    /// A line that says how far the figures can be trusted.
    pub(crate) fn describe(&self) -> Result<String> {
        let machine = Machine::read()?;
        let cores = available_parallelism().map_or(1, usize::from);
        let whole = self.start.elapsed().as_secs_f64() * cores as f64;
        let own = (own()? - self.own).as_secs_f64();
        let busy = (machine.busy - self.machine.busy).as_secs_f64();
        let stolen = (machine.stolen - self.machine.stolen).as_secs_f64();
        Ok(format!(
            "Meanwhile other processes used {:.1} % of the {cores} cores, and the hypervisor withheld {:.1} %.",
            ((busy - own) / whole * 100.0).max(0.0),
            stolen / whole * 100.0,
        ))
    }
}

fn own() -> Result<Duration> {
    Ok(sys::own_cpu()? + sys::children_cpu()?)
}

impl Machine {
    fn read() -> Result<Self> {
        let text = fs::read_to_string("/proc/stat").context("/proc/stat")?;
        Self::parse(&text).ok_or_else(|| Failure::new("/proc/stat is not as expected"))
    }

    /// The first line: `cpu user nice system idle iowait irq softirq steal …`, in ticks.
    fn parse(text: &str) -> Option<Self> {
        let ticks: Vec<u32> = text
            .lines()
            .next()?
            .strip_prefix("cpu ")?
            .split_whitespace()
            .take(8)
            .map(|field| field.parse().ok())
            .collect::<Option<_>>()?;
        let [user, nice, system, _idle, _wait, irq, softirq, steal] = ticks.try_into().ok()?;
        let tick = sys::tick();
        Some(Self {
            busy: tick * user + tick * nice + tick * system + tick * irq + tick * softirq,
            stolen: tick * steal,
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn busy_is_what_is_neither_idle_nor_stolen() {
        let machine = Machine::parse("cpu  1 2 3 1000 1000 4 5 6 7 8\ncpu0 1 2\n").unwrap();
        assert_eq!(machine.busy, sys::tick() * 15);
        assert_eq!(machine.stolen, sys::tick() * 6);
        assert_eq!(Machine::parse("cpu0 1 2 3"), None);
    }

    #[test]
    fn versions_come_from_the_lock_file() {
        assert!(version("tokio").starts_with("1."));
        assert_eq!(version("no-such-crate"), "unknown");
    }
}
