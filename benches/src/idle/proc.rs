//! What the kernel tells of another process.

use std::fs;

use crate::error::{Context, Failure, Result};

/// Memory of a process that is in RAM, in octets, with what it shares with others (RSS), and with its part of that (PSS).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Resident {
    pub(super) rss: u64,
    pub(super) pss: u64,
}

impl Resident {
    pub(super) fn of(pid: u32) -> Result<Self> {
        let path = format!("/proc/{pid}/smaps_rollup");
        let text = fs::read_to_string(&path).context(&path)?;
        let kib = |name| number(&text, name).ok_or_else(|| Failure::new(format!("no {name} in {path}")));
        Ok(Self { rss: kib("Rss:")? * 1024, pss: kib("Pss:")? * 1024 })
    }
}

/// How often the threads of a process have gone to sleep. Each time one waited for events it did, so this is how often
/// they were woken.
pub(super) fn sleeps(pid: u32) -> Result<u64> {
    let path = format!("/proc/{pid}/task");
    let mut all = 0;
    for thread in fs::read_dir(&path).context(&path)? {
        let path = thread?.path().join("status");
        let text = fs::read_to_string(&path).context(&path.display().to_string())?;
        let name = "voluntary_ctxt_switches:";
        let missing = || Failure::new(format!("no {name} in {}", path.display()));
        all += number(&text, name).ok_or_else(missing)?;
    }
    Ok(all)
}

/// The number of the line that begins with `name`.
fn number(text: &str, name: &str) -> Option<u64> {
    let rest = text.lines().find_map(|line| line.strip_prefix(name))?;
    rest.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn the_kernel_tells_of_this_process() {
        let own = std::process::id();
        let resident = Resident::of(own).unwrap();
        assert!(resident.rss >= resident.pss && resident.pss > 4096);
        sleeps(own).unwrap();
    }

    #[test]
    fn a_number_is_found_by_its_whole_name() {
        let text = "nonvoluntary_ctxt_switches:\t7\nRss:     12 kB\nvoluntary_ctxt_switches:\t5\n";
        assert_eq!(number(text, "Rss:"), Some(12));
        assert_eq!(number(text, "voluntary_ctxt_switches:"), Some(5));
        assert_eq!(number(text, "Pss:"), None);
    }
}
