//! The one command: every row for every target, in turns, as a table with ratios.
//!
//! A shared machine drifts by a third within an hour. So no target is measured at a stretch: each round
//! gives every target of a row a short slice, directly one after the other and in another order than the
//! round before. A ratio is taken within a round; what is printed is the median of the rounds.

use std::process::{Command, Stdio};
use std::time::Instant;

use crate::args::Args;
use crate::count;
use crate::error::{Failure, Result};
use crate::load::Report;
use crate::machine::{self, Bystanders};
use crate::process::{self, LOAD_CORE, SERVER_CORE, myself};
use crate::stats::{median, ratios, spread};
use crate::targets::{Target, zeromq};
use crate::verdict::{self, Goal};
use crate::{mixed, stream};

/// What this program was built from.
pub(crate) const LOCK: &str = include_str!("../../Cargo.lock");
/// Whose versions are printed.
pub(crate) const CRATES: [&str; 3] = ["tokio", "bytes", "tieline-benches"];

/// One kind of load.
pub(crate) struct Row {
    pub(crate) label: &'static str,
    payload: usize,
    connections: usize,
    in_flight: usize,
    /// The core of the load process. On the server's core nothing has to be woken on another one, which
    /// on a virtual machine can cost more than all the rest of a call.
    core: usize,
    /// What Tieline is to reach in it.
    pub(crate) goals: &'static [Goal],
}

/// At least this part of the calls that another target makes.
const fn calls(of: Target, beside: Target, least: f64) -> Goal {
    Goal::Calls { of, beside, least }
}

/// At most this multiple of the latency floor.
const fn latency(of: Target, most: f64) -> Goal {
    Goal::P50 { of, beside: Target::Blocking, most }
}

/// The floor of latency, against which one call in flight is held.
const LATENCY: &[Goal] = &[
    latency(Target::Tieline, 1.10),
    latency(Target::Mio, 1.06),
    latency(Target::MioBlocking, 1.06),
    latency(Target::MioBusy, 0.50),
];
/// The same where both ends share a core, and a loop that polls busily would only be in the way.
const LATENCY_ON_ONE: &[Goal] =
    &[latency(Target::Tieline, 1.10), latency(Target::Mio, 1.06), latency(Target::MioBlocking, 1.06)];
/// What a careful person writes by hand on the same runtime.
const BY_HAND: Goal = calls(Target::Tieline, Target::TokioEcho, 0.85);
const ASYNC_STD: Goal = calls(Target::AsyncStd, Target::Tieline, 0.60);
const MANY: &[Goal] = &[BY_HAND, ASYNC_STD, calls(Target::Mio, Target::Epoll, 0.70)];
const VERY_MANY: &[Goal] = &[BY_HAND, ASYNC_STD, calls(Target::Mio, Target::Epoll, 0.60)];
const CONNECTIONS: &[Goal] = &[BY_HAND, ASYNC_STD];
/// What the machine can do with large payloads, and what others do.
const LARGE: &[Goal] =
    &[calls(Target::Tieline, Target::Epoll, 0.85), calls(Target::Tieline, Target::Zeromq, 1.5)];
const LARGEST: &[Goal] =
    &[calls(Target::Tieline, Target::Epoll, 0.95), calls(Target::Tieline, Target::Zeromq, 1.0)];
/// From this payload on there is a comparison with what is not of this house.
const FOREIGN_FROM: usize = 64 << 10;

const ROWS: [Row; 7] = [
    Row::new("64 B, 1 in flight", 64, 1, 1, LATENCY),
    Row { core: SERVER_CORE, ..Row::new("64 B, 1 in flight, both on one core", 64, 1, 1, LATENCY_ON_ONE) },
    Row::new("64 B, 128 in flight", 64, 1, 128, MANY),
    Row::new("64 B, 1024 in flight", 64, 1, 1024, VERY_MANY),
    Row::new("64 B, 16 connections × 64", 64, 16, 64, CONNECTIONS),
    Row::new("64 KiB, 16 in flight", 64 << 10, 1, 16, LARGE),
    Row::new("1 MiB, 16 in flight", 1 << 20, 1, 16, LARGEST),
];

impl Row {
    const fn new(
        label: &'static str,
        payload: usize,
        connections: usize,
        in_flight: usize,
        goals: &'static [Goal],
    ) -> Self {
        Self { label, payload, connections, in_flight, core: LOAD_CORE, goals }
    }

    /// Those that can carry this load at all.
    fn targets(&self) -> Vec<Target> {
        let single = self.connections * self.in_flight == 1;
        let mut targets = Target::ALL.to_vec();
        targets.retain(|target| single || target.multiplexes());
        targets.retain(|target| self.payload <= target.most_payload());
        targets.retain(|target| self.core == LOAD_CORE || !target.spins());
        let foreign = self.payload >= FOREIGN_FROM && zeromq::program().is_some();
        targets.retain(|target| foreign || !target.is_foreign());
        targets
    }

    /// One slice, in processes of its own.
    fn slice(&self, target: Target, seconds: f64) -> Result<Report> {
        let numbers = [self.payload, self.connections, self.in_flight, self.core];
        let [payload, connections, in_flight, core] = &numbers.map(|number| number.to_string());
        let output = Command::new(myself()?)
            .args(["load", "--json", "--target", target.name()])
            .env(process::ASYNC_STD_THREADS, "1")
            .args(["--payload", payload])
            .args(["--connections", connections, "--in-flight", in_flight, "--core", core])
            .args(["--warmup", "0.25", "--seconds", &seconds.to_string()])
            .stderr(Stdio::inherit())
            .output()?;
        let failed = || Failure::new(format!("{}: the slice of {} failed", self.label, target.name()));
        if !output.status.success() {
            return Err(failed());
        }
        let line = String::from_utf8(output.stdout).map_err(|_| failed())?;
        Report::from_json(line.trim())
    }
}

/// The rounds of one target in one row.
pub(crate) struct Rounds {
    pub(crate) target: Target,
    pub(crate) reports: Vec<Report>,
}

impl Rounds {
    pub(crate) fn of(&self, figure: impl Fn(&Report) -> f64) -> Vec<f64> {
        self.reports.iter().map(figure).collect()
    }

    pub(crate) fn calls(&self) -> Vec<f64> {
        self.of(|report| report.calls_per_second)
    }

    pub(crate) fn p50(&self) -> Vec<f64> {
        self.of(|report| report.p50)
    }
}

/// `table [--quick] [--rounds N] [--seconds S]`
pub(crate) fn command(mut args: Args) -> Result<()> {
    let quick = args.switch("--quick");
    let rounds: u32 = args.value("--rounds")?.unwrap_or(if quick { 1 } else { 5 });
    let seconds: f64 = args.value("--seconds")?.unwrap_or(1.5);
    args.end()?;
    if rounds == 0 || !(0.1..=60.0).contains(&seconds) {
        return Err(Failure::new("--rounds is at least 1, --seconds from 0.1 to 60"));
    }

    let start = Instant::now();
    let machine = machine::describe(LOCK, &CRATES);
    let bystanders = Bystanders::watch()?;
    let table = measure(rounds, seconds)?;
    let streams = stream::table::measure(rounds, seconds)?;
    let mixed = mixed::table::measure(rounds, quick)?;
    let bystanders = bystanders.describe()?;
    let counts = count::all()?;
    for line in &machine {
        println!("{line}  ");
    }
    println!("{bystanders}\n");
    let lines = verdict::of_rows(&table).into_iter().chain(stream::table::lines(&streams));
    let lines = lines.chain(mixed::table::lines(&mixed)).chain(verdict::of_counts(&counts));
    verdict::print(lines, rounds);
    println!();
    print(&table, rounds, seconds);
    println!();
    for target in Target::ALL {
        match target {
            Target::Zeromq if zeromq::program().is_none() => {
                println!("- `{}`: {}", target.name(), zeromq::NOT_INSTALLED);
            }
            _ => println!("- `{}`: {}", target.name(), target.description()),
        }
    }
    println!();
    stream::table::print(&streams, rounds, seconds);
    println!();
    mixed::table::print(&mixed);
    println!();
    match count::valgrind() {
        Some(version) => println!("Instructions a call, by {version}, and allocations:\n"),
        None => println!("{}\n", count::NO_VALGRIND),
    }
    count::print(&counts);
    eprintln!("took {:.0} s", start.elapsed().as_secs_f64());
    Ok(())
}

fn measure(rounds: u32, seconds: f64) -> Result<Vec<(Row, Vec<Rounds>)>> {
    let empty = |target| Rounds { target, reports: Vec::new() };
    let mut table: Vec<(Row, Vec<Rounds>)> = ROWS
        .into_iter()
        .map(|row| {
            let targets = row.targets().into_iter().map(empty).collect();
            (row, targets)
        })
        .collect();
    for round in 1..=rounds {
        for (row, targets) in &mut table {
            eprintln!("round {round} of {rounds}: {}", row.label);
            for one in targets.iter_mut() {
                one.reports.push(row.slice(one.target, seconds)?);
            }
            // Who was first is last in the next round; printing restores the order.
            targets.rotate_left(1);
        }
    }
    for (_, targets) in &mut table {
        targets.sort_by_key(|one| Target::ALL.iter().position(|target| *target == one.target));
    }
    Ok(table)
}

fn print(table: &[(Row, Vec<Rounds>)], rounds: u32, seconds: f64) {
    println!(
        "echo, closed loop; median of the rounds, {rounds} of {seconds} s a target, targets in turns; spread: half of the range over the rounds  "
    );
    println!(
        "CPU: user and system, of the whole process; the client's includes the load generator. \
         Latency: of every call up to 16 in flight, else of one call in 16, since a look at the clock costs about 21 ns  "
    );
    println!("÷: calls/s as a part of that target's, in the same round; p50 ÷: less is better\n");
    println!(
        "| load | target | calls/s | spread | p50 µs | p99 µs | server CPU µs/call | client CPU µs/call \
         | ÷ tokio-echo | ÷ epoll | ÷ zeromq | p50 ÷ blocking |"
    );
    println!("|---|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|");
    for (row, targets) in table {
        for one in targets {
            println!("| {} | {} |", row.label, cells(one, targets).join(" | "));
        }
    }
}

fn cells(one: &Rounds, row: &[Rounds]) -> Vec<String> {
    let against = |base: Target, figure: fn(&Rounds) -> Vec<f64>| {
        row.iter()
            .find(|other| other.target == base)
            .and_then(|other| median(&ratios(&figure(one), &figure(other))))
            .map_or("–".to_owned(), |ratio| format!("{ratio:.2}"))
    };
    let middle = |values: Vec<f64>, digits: usize| {
        median(&values).map_or("–".to_owned(), |value| format!("{value:.digits$}"))
    };
    let server: Vec<f64> = one.reports.iter().filter_map(|report| report.server_cpu).collect();
    vec![
        one.target.name().to_owned(),
        median(&one.calls()).map_or("–".to_owned(), short),
        spread(&one.calls()).map_or("–".to_owned(), |spread| format!("±{:.0} %", spread * 100.0)),
        middle(one.p50(), 1),
        middle(one.of(|report| report.p99), 1),
        middle(server, 3),
        middle(one.of(|report| report.client_cpu), 3),
        against(Target::TokioEcho, Rounds::calls),
        against(Target::Epoll, Rounds::calls),
        against(Target::Zeromq, Rounds::calls),
        against(Target::Blocking, Rounds::p50),
    ]
}

/// Three digits and a unit.
pub(crate) fn short(value: f64) -> String {
    let (value, unit) = if value >= 1e6 {
        (value / 1e6, " M")
    } else if value >= 1e4 {
        (value / 1e3, " k")
    } else {
        return format!("{value:.0}");
    };
    let digits = if value < 10.0 {
        2
    } else if value < 100.0 {
        1
    } else {
        0
    };
    format!("{value:.digits$}{unit}")
}

#[cfg(test)]
impl Rounds {
    /// One round for each pair of calls/s and p50.
    pub(crate) fn fake(target: Target, figures: &[(f64, f64)]) -> Self {
        let report = |&(calls_per_second, p50): &(f64, f64)| Report {
            target: target.name().to_owned(),
            payload: 64,
            connections: 1,
            in_flight: 1,
            rate: None,
            seconds: 1.0,
            calls: 1,
            calls_per_second,
            latency_samples: 1,
            sample_every: 1,
            p50,
            p99: p50,
            p999: p50,
            max: p50,
            not_begun: 0,
            server_cpu: None,
            client_cpu: 0.1,
        };
        Self { target, reports: figures.iter().map(report).collect() }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]

    use super::*;

    #[test]
    fn a_line_has_medians_and_ratios() {
        let row = [
            Rounds::fake(Target::Epoll, &[(100_000.0, 10.0), (50_000.0, 20.0), (90_000.0, 11.0)]),
            Rounds::fake(Target::TokioEcho, &[(80_000.0, 12.0), (40_000.0, 24.0), (72_000.0, 13.2)]),
        ];
        let cells = cells(&row[1], &row);
        assert_eq!(
            cells,
            ["tokio-echo", "72.0 k", "±28 %", "13.2", "13.2", "–", "0.100", "1.00", "0.80", "–", "–"]
        );
    }

    #[test]
    fn a_row_has_the_targets_that_can_carry_it() {
        let targets = ROWS.map(|row| row.targets());
        assert!(Target::ALL.iter().all(|target| targets[0].contains(target) != target.is_foreign()));
        assert!(!targets[2].contains(&Target::Blocking) && targets[2].contains(&Target::Tieline));
        for row in &ROWS {
            assert!(row.targets().iter().all(|target| row.payload <= target.most_payload()));
            for beside in row.goals.iter().map(|goal| goal.beside()) {
                assert!(row.targets().contains(&beside) || beside.is_foreign(), "{}", row.label);
            }
        }
    }

    #[test]
    fn numbers_are_short() {
        let shown = [1_229.4, 61_234.0, 285_000.0, 2_851_223.0, 18_900_000.0].map(short);
        assert_eq!(shown, ["1229", "61.2 k", "285 k", "2.85 M", "18.9 M"]);
    }
}
