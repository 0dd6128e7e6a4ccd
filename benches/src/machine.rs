//! What the figures were measured on, and whether anybody else used it meanwhile.

use std::fs;
use std::thread::available_parallelism;
use std::time::{Duration, Instant};

use crate::error::{Context, Failure, Result};
use crate::process::{LOAD_CORE, SERVER_CORE};
use crate::{socket, sys, zeromq};

/// The lines above a table, with the versions of `crates` out of the lock file that the program was built from. To be
/// called before anything is measured, since the load average is among them.
pub fn describe(lock: &str, crates: &[&str]) -> Vec<String> {
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
    let zeromq = zeromq::version().map_or_else(String::new, |version| format!(", zeromq {version}"));
    vec![
        format!("kernel {}, {model}, {cores} cores; {pinned}", of("/proc/sys/kernel/osrelease")),
        format!(
            "idle cores: driver {}, governor {}, guest halt polling {} ns; load average at the start {}",
            of("/sys/devices/system/cpu/cpuidle/current_driver"),
            of("/sys/devices/system/cpu/cpuidle/current_governor"),
            of("/sys/module/haltpoll/parameters/guest_halt_poll_ns"),
            of("/proc/loadavg").split(' ').next().unwrap_or("unknown"),
        ),
        format!(
            "TCP over loopback, TCP_NODELAY, congestion control {} on every socket (the system has {}), rmem {}, wmem {}",
            socket::congestion(),
            of("/proc/sys/net/ipv4/tcp_congestion_control"),
            of("/proc/sys/net/ipv4/tcp_rmem").replace('\t', " "),
            of("/proc/sys/net/ipv4/tcp_wmem").replace('\t', " "),
        ),
        format!(
            "{}, {} build{}{zeromq}",
            env!("BENCH_RUSTC"),
            if cfg!(debug_assertions) { "DEBUG" } else { "release" },
            crates.iter().map(|name| format!(", {name} {}", version(lock, name))).collect::<String>(),
        ),
    ]
}

/// The version of a crate in a lock file.
pub fn version<'a>(lock: &'a str, name: &str) -> &'a str {
    let entry = format!("name = \"{name}\"");
    lock.lines()
        .skip_while(|line| *line != entry)
        .nth(1)
        .and_then(|line| line.strip_prefix("version = \"")?.strip_suffix('"'))
        .unwrap_or("unknown")
}

/// Who used the processors between two moments.
#[derive(Debug)]
pub struct Bystanders {
    start: Instant,
    all: Duration,
    own: Duration,
    stolen: Duration,
}

impl Bystanders {
    /// The first moment.
    pub fn watch() -> Result<Self> {
        Ok(Self { start: Instant::now(), all: all_processes()?, own: own()?, stolen: stolen()? })
    }

    /// A line that says how far the figures can be trusted.
    pub fn describe(&self) -> Result<String> {
        let cores = available_parallelism().map_or(1, usize::from);
        let whole = self.start.elapsed().as_secs_f64() * cores as f64;
        let own = own()?.saturating_sub(self.own);
        let others = all_processes()?.saturating_sub(self.all).saturating_sub(own);
        let stolen = stolen()?.saturating_sub(self.stolen);
        let part = |time: Duration| time.as_secs_f64() / whole * 100.0;
        Ok(format!(
            "Meanwhile other processes used {:.1} % of the {cores} cores, and the hypervisor withheld {:.1} %.",
            part(others),
            part(stolen),
        ))
    }
}

fn own() -> Result<Duration> {
    Ok(sys::own_cpu()? + sys::children_cpu()?)
}

/// The processor time of every process there is and of those that they have waited for. What a process
/// used moves to its parent when it ends, so the sum grows by exactly what is used.
///
/// The sums of `/proc/stat` are not used: they are sampled at ticks, and so miss up to a third of the
/// time of processes that sleep and wake thousands of times a second, as those of a bench do.
fn all_processes() -> Result<Duration> {
    let mut ticks = 0;
    for entry in fs::read_dir("/proc").context("/proc")? {
        let entry = entry?;
        // `self` is there too, and would count this process twice.
        let name = entry.file_name();
        if name.to_str().is_none_or(|name| name.parse::<u32>().is_err()) {
            continue;
        }
        // A process may end before it is read.
        if let Ok(text) = fs::read_to_string(entry.path().join("stat")) {
            ticks += process_ticks(&text).unwrap_or(0);
        }
    }
    Ok(sys::tick() * ticks)
}

/// User and system time of `/proc/PID/stat`, of the process and of its children, in ticks. The name of
/// the process may contain anything, so fields are counted from its closing bracket.
fn process_ticks(text: &str) -> Option<u32> {
    let (_, fields) = text.rsplit_once(')')?;
    let times: Vec<u32> =
        fields.split_whitespace().skip(11).take(4).map(|field| field.parse().ok()).collect::<Option<_>>()?;
    (times.len() == 4).then(|| times.iter().sum())
}

/// What the hypervisor gave to others, of all cores.
fn stolen() -> Result<Duration> {
    let text = fs::read_to_string("/proc/stat").context("/proc/stat")?;
    let ticks = stolen_ticks(&text).ok_or_else(|| Failure::new("/proc/stat is not as expected"))?;
    Ok(sys::tick() * ticks)
}

/// The first line: `cpu user nice system idle iowait irq softirq steal …`, in ticks.
fn stolen_ticks(text: &str) -> Option<u32> {
    text.lines().next()?.strip_prefix("cpu ")?.split_whitespace().nth(7)?.parse().ok()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn a_process_counts_with_its_children() {
        let text = "71 (a) name) S 1 71 71 0 -1 4194560 9 8 7 6 100 20 3000 400 20 0 1 0 55 0\n";
        assert_eq!(process_ticks(text), Some(3520));
        assert_eq!(process_ticks("71 (cut) S 1 71"), None);
    }

    #[test]
    fn steal_is_the_eighth_field() {
        assert_eq!(stolen_ticks("cpu  1 2 3 1000 1000 4 5 6 7 8\ncpu0 1 2\n"), Some(6));
        assert_eq!(stolen_ticks("cpu0 1 2 3"), None);
    }

    #[test]
    fn the_sum_over_processes_holds_this_one() {
        let (all, before) = (all_processes().unwrap(), own().unwrap());
        while own().unwrap() - before < Duration::from_millis(100) {
            std::hint::black_box(0);
        }
        assert!(all_processes().unwrap() - all >= Duration::from_millis(80));
    }

    #[test]
    fn versions_come_from_the_lock_file() {
        let lock = "[[package]]\nname = \"one\"\nversion = \"1.2.3\"\n\n[[package]]\nname = \"two\"\n";
        assert_eq!(version(lock, "one"), "1.2.3");
        assert_eq!((version(lock, "two"), version(lock, "on")), ("unknown", "unknown"));
    }
}
