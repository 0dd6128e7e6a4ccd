//! Exact counts: instructions by callgrind, allocations by our own allocator. Both of N and of 2N calls: the
//! difference, divided by N, is what one call costs; starting, connecting, warming up and ending cancel out.
//!
//! Inside one process a count is the same on every run. A server or client over a socket also has
//! batches that differ from run to run, so its count moves by a few per cent.

use std::net::SocketAddr;
use std::process::{Command, Stdio};

use crate::args::Args;
use crate::error::{Context, Failure, Result};
use crate::process::{Server, myself};
use crate::spin::{Cost, Spin};
use crate::targets::Target;

/// Calls of the shorter run.
const CALLS: u64 = 20_000;
/// Calls in flight where a socket is between the two sides.
const IN_FLIGHT: &str = "128";

/// What can be counted.
#[derive(Clone, Copy)]
enum Subject {
    Spin(&'static Spin),
    Server(Target),
    Client(Target),
}

impl Subject {
    fn all() -> impl Iterator<Item = Self> {
        let targets = Target::ALL
            .into_iter()
            .filter(|target| target.multiplexes() && !target.is_foreign())
            .flat_map(|target| [Self::Server(target), Self::Client(target)]);
        Spin::ALL.iter().map(Self::Spin).chain(targets)
    }

    fn name(self) -> String {
        match self {
            Self::Spin(spin) => spin.label.to_owned(),
            Self::Server(target) => format!("server:{}", target.name()),
            Self::Client(target) => format!("client:{}", target.name()),
        }
    }

    fn what(self) -> &'static str {
        match self {
            Self::Spin(spin) => spin.what,
            Self::Server(_) => "the whole server process",
            Self::Client(_) => "the whole load process, load generator included",
        }
    }

    /// Instructions of a run of `calls`, start and end included.
    fn count(self, calls: u64) -> Result<u64> {
        let calls = calls.to_string();
        match self {
            Self::Spin(spin) => run(callgrind()?.args(["spin", spin.label, &calls])),
            Self::Client(target) => {
                let server = Server::start(target.name())?;
                run(callgrind()?.args(load(target, server.address, &calls)))
            }
            Self::Server(target) => {
                let mut command = callgrind()?;
                command.stderr(Stdio::piped());
                let server = Server::start_under(command, target.name())?;
                let load = Command::new(myself()?)
                    .args(load(target, server.address, &calls))
                    .stdout(Stdio::null())
                    .status()?;
                let (_, text) = server.stop()?;
                if !load.success() {
                    return Err(Failure::new(format!("the load on {} failed", self.name())));
                }
                collected(&text)
            }
        }
    }

    fn instructions(self) -> Result<f64> {
        let (single, double) = (self.count(CALLS)?, self.count(2 * CALLS)?);
        Ok(double.saturating_sub(single) as f64 / CALLS as f64)
    }

    /// Counts what can be counted here.
    fn measure(self, valgrind: bool) -> Result<Count> {
        let instructions = if valgrind { Some(self.instructions()?) } else { None };
        let (allocations, target, before) = match self {
            Self::Spin(spin) => {
                let allocations = spin.allocations(usize::try_from(CALLS).unwrap_or(1))?;
                (Some(allocations), spin.target, spin.before)
            }
            Self::Server(_) | Self::Client(_) => (None, None, None),
        };
        Ok(Count { name: self.name(), what: self.what(), instructions, allocations, target, before })
    }
}

/// What one call of a subject costs.
#[derive(Clone, Debug)]
pub(crate) struct Count {
    pub(crate) name: String,
    what: &'static str,
    /// `None` without valgrind.
    pub(crate) instructions: Option<f64>,
    /// `None` of a whole process: its load generator allocates too.
    pub(crate) allocations: Option<f64>,
    pub(crate) target: Option<Cost>,
    /// Instructions of the core as it was first built.
    pub(crate) before: Option<f64>,
}

fn load(target: Target, address: SocketAddr, calls: &str) -> Vec<String> {
    let address = address.to_string();
    ["load", "--target", target.name(), "--address", &address]
        .into_iter()
        .chain(["--calls", calls, "--in-flight", IN_FLIGHT, "--json"])
        .map(str::to_owned)
        .collect()
}

/// This program under callgrind; its arguments are to be added.
fn callgrind() -> Result<Command> {
    let mut command = Command::new("valgrind");
    command.args(["--tool=callgrind", "--callgrind-out-file=/dev/null"]).arg(myself()?);
    Ok(command)
}

fn run(command: &mut Command) -> Result<u64> {
    let output = command.stdin(Stdio::null()).output().context("valgrind")?;
    let text = String::from_utf8_lossy(&output.stderr);
    if !output.status.success() {
        return Err(Failure::new(format!("valgrind failed:\n{text}")));
    }
    collected(&text)
}

/// The number in callgrind's line `==PID== Collected : NUMBER`.
fn collected(text: &str) -> Result<u64> {
    text.lines()
        .filter_map(|line| line.split_once("Collected :"))
        .find_map(|(_, number)| number.trim().parse().ok())
        .ok_or_else(|| Failure::new(format!("callgrind told no count:\n{text}")))
}

/// The version of valgrind, if it is there.
pub(crate) fn valgrind() -> Option<String> {
    let output = Command::new("valgrind").arg("--version").output().ok()?;
    let version = String::from_utf8(output.stdout).ok()?;
    output.status.success().then(|| version.trim().to_owned())
}

/// How to get what is missing.
pub(crate) const NO_VALGRIND: &str = "instruction counts need valgrind, which is not here. To install it: \
     `apt-get install valgrind` (Debian, Ubuntu), `dnf install valgrind` (Fedora), `pacman -S valgrind` (Arch)";

/// `instructions [NAME…]`: a table of the named subjects, or of all.
pub(crate) fn command(mut args: Args) -> Result<()> {
    let mut subjects = Vec::new();
    while let Some(name) = args.word() {
        let subject = Subject::all().find(|subject| subject.name() == name).ok_or_else(|| {
            let known: Vec<_> = Subject::all().map(Subject::name).collect();
            Failure::new(format!("nothing to count is {name:?}; there are {}", known.join(", ")))
        })?;
        subjects.push(subject);
    }
    args.end()?;
    if valgrind().is_none() {
        return Err(Failure::new(NO_VALGRIND));
    }
    if subjects.is_empty() {
        subjects.extend(Subject::all());
    }
    print(&measure(subjects)?);
    Ok(())
}

/// All of them. Without valgrind there are no instructions.
pub(crate) fn all() -> Result<Vec<Count>> {
    measure(Subject::all())
}

fn measure(subjects: impl IntoIterator<Item = Subject>) -> Result<Vec<Count>> {
    let valgrind = valgrind().is_some();
    let measure = |subject: Subject| {
        eprintln!("counting {}", subject.name());
        subject.measure(valgrind)
    };
    subjects.into_iter().map(measure).collect()
}

/// Prints them as a table, the targets beside what was counted.
pub(crate) fn print(counts: &[Count]) {
    println!("| counted | instructions a call | before | target | allocations a call | target | what |");
    println!("|---|--:|--:|--:|--:|--:|---|");
    let at_most = |target: Option<f64>| target.map_or("–".to_owned(), bound);
    for count in counts {
        println!(
            "| {} | {} | {} | {} | {} | {} | {} |",
            count.name,
            count.instructions.map_or("–".to_owned(), |count| format!("{count:.0}")),
            count.before.map_or("–".to_owned(), |count| format!("{count:.0}")),
            at_most(count.target.map(|target| target.instructions)),
            count.allocations.map_or("–".to_owned(), allocations),
            at_most(count.target.map(|target| target.allocations)),
            count.what,
        );
    }
}

/// How a target of at most so much is written.
pub(crate) fn bound(most: f64) -> String {
    if most == 0.0 { "0".to_owned() } else { format!("≤ {most}") }
}

/// A single allocation in thousands of calls is to be seen.
pub(crate) fn allocations(count: f64) -> String {
    if count.fract() == 0.0 { format!("{count:.0}") } else { format!("{count:.5}") }
}

#[cfg(test)]
impl Count {
    /// Of what may take 1200 instructions and no allocation.
    pub(crate) fn fake(instructions: Option<f64>, allocations: f64) -> Self {
        let target = Some(Cost { instructions: 1200.0, allocations: 0.0 });
        Self {
            name: "fake".to_owned(),
            what: "",
            instructions,
            allocations: Some(allocations),
            target,
            before: None,
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn the_count_is_read_from_what_callgrind_says() {
        let text = "==7== Events    : Ir\n==7== Collected : 123456\n==7== \n==7== I   refs:      123,456\n";
        assert_eq!(collected(text).unwrap(), 123_456);
        assert!(collected("==7== no counts").is_err());
    }

    #[test]
    fn few_allocations_are_not_none() {
        assert_eq!([0.0, 2.0, 0.00005, 1.5].map(allocations), ["0", "2", "0.00005", "1.50000"]);
    }

    #[test]
    fn every_subject_has_a_name_of_its_own() {
        let mut names: Vec<_> = Subject::all().map(Subject::name).collect();
        let all = names.len();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), all);
    }
}
