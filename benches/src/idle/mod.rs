//! What connections cost that do nothing: memory of the server, wake-ups, and what they take from those that are busy.
//!
//! The server is a process of its own, as everywhere here; so are the idle ones, which are clients of the product that
//! check in and then only beat. A third connection asks the server what lies on its heap.

mod beside;
mod direct;
mod hold;
mod memory;
mod noted;
mod print;
mod proc;
mod quiet;
mod server;
mod state;
mod tasks;
mod world;

use std::thread::available_parallelism;
use std::time::Duration;

pub(crate) use hold::command as hold;
pub(crate) use server::Product;

use crate::args::Args;
use crate::error::{Failure, Result};
use crate::machine::{self, Bystanders};
use crate::process::SERVER_CORE;
use crate::table::{CRATES, LOCK};
use print::Idle;
use world::Held;

/// More are not needed to see what one takes.
const MOST: u32 = 100_000;
/// Idle ones beside those that are busy.
const BESIDE: u32 = 15_000;
/// Of both in a quick run: enough to see that it works.
const QUICK: u32 = 1000;
/// The interval of the one connection that is watched, and how many of them.
const WATCHED: Duration = Duration::from_secs(1);
const INTERVALS: u32 = 10;
const QUICK_INTERVALS: u32 = 3;
/// A core that neither server nor load uses.
const SPARE_CORE: usize = 2;

/// What can be asked for alone.
const PARTS: [&str; 3] = ["memory", "wakeups", "beside"];

/// `idle [PART…] [--target NAME] [--quick] [--connections N] [--heartbeat S] [--rounds N] [--seconds S] [--idle-core N]`
pub(crate) fn command(mut args: Args) -> Result<()> {
    let quick = args.switch("--quick");
    let mut parts = Vec::new();
    while let Some(part) = args.word() {
        if !PARTS.contains(&part.as_str()) {
            return Err(Failure::new(format!("no part {part:?}; there are {}", PARTS.join(", "))));
        }
        parts.push(part);
    }
    let asked = |part: &str| parts.is_empty() || parts.iter().any(|known| known == part);
    let products = match args.value::<String>("--target")? {
        None => Product::ALL.to_vec(),
        Some(name) => vec![Product::from_name(&name)?],
    };
    let most = world::most_connections()?;
    let connections = args.value("--connections")?.unwrap_or(if quick { QUICK } else { MOST.min(most) });
    let heartbeat = args.time("--heartbeat", if quick { 1.0 } else { 10.0 })?;
    let rounds: u32 = args.value("--rounds")?.unwrap_or(if quick { 1 } else { 3 });
    let seconds: f64 = args.value("--seconds")?.unwrap_or(if quick { 0.5 } else { 2.0 });
    // A core of their own, where there is one.
    let spare = available_parallelism().is_ok_and(|cores| cores.get() > SPARE_CORE);
    let core = args.value("--idle-core")?.unwrap_or(if spare { SPARE_CORE } else { SERVER_CORE });
    args.end()?;
    if connections == 0 || connections > most {
        return Err(Failure::new(format!(
            "--connections is from 1 to {most} here: a process may open only so many files (RLIMIT_NOFILE, its hard limit; `ulimit -Hn`)"
        )));
    }
    if heartbeat < Duration::from_millis(200) || heartbeat > Duration::from_secs(300) {
        return Err(Failure::new("--heartbeat is from 0.2 to 300, which is what a server grants"));
    }
    if rounds == 0 || !(0.1..=60.0).contains(&seconds) {
        return Err(Failure::new("--rounds is at least 1, --seconds from 0.1 to 60"));
    }

    let held = |count| Held { count, heartbeat, core };
    let described = machine::describe(LOCK, &CRATES);
    let bystanders = Bystanders::watch()?;
    let mut measured = Vec::new();
    for product in products {
        let memory = asked("memory").then(|| memory::measure(product, held(connections)));
        let quiet = asked("wakeups").then(|| {
            quiet::measure(
                product,
                Held { count: 1, heartbeat: WATCHED, core },
                if quick { QUICK_INTERVALS } else { INTERVALS },
            )
        });
        let idle = if quick { QUICK } else { BESIDE }.min(most);
        let beside = asked("beside").then(|| beside::measure(product, held(idle), rounds, seconds));
        measured.push(Idle {
            product,
            memory: memory.transpose()?,
            quiet: quiet.transpose()?,
            beside: beside.transpose()?,
        });
    }
    let bystanders = bystanders.describe()?;
    for line in &described {
        println!("{line}  ");
    }
    println!("a process may have {most} connections here (the hard limit of RLIMIT_NOFILE)  ");
    println!("{bystanders}\n");
    print::all(&measured);
    if quick {
        println!("\n**A quick run: enough to see whether something broke, not to judge by.**");
    }
    Ok(())
}
