//! The figures, as Markdown.

use super::beside::{Beside, CONNECTIONS, IN_FLIGHT, PAYLOAD};
use super::memory::{Measured, Memory};
use super::quiet::Quiet;
use super::server::Product;
use crate::load::Report;
use crate::stats::median;
use crate::table::short;
use crate::verdict::{range, verdict};

/// Calls/s beside the idle ones, as a part of those without.
const LEAST: f64 = 0.95;

/// All that was measured of one adapter; what was not asked for is not there.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Idle {
    pub(super) product: Product,
    pub(super) memory: Option<Measured>,
    pub(super) quiet: Option<Quiet>,
    pub(super) beside: Option<Beside>,
}

impl Idle {
    /// The verdicts: figure, what was measured, target, verdict.
    fn lines(&self) -> Vec<[String; 4]> {
        let mut lines = Vec::new();
        if let Some(memory) = &self.memory {
            let most = self.product.most_octets();
            let octets = memory.idle.octets;
            lines.push([
                format!("heap of the server, octets an idle connection, of {}", memory.connections),
                format!("{octets:.0}"),
                format!("≤ {most:.0}"),
                verdict(&[octets], |octets| octets <= most).unwrap_or_default(),
            ]);
        }
        if let Some(quiet) = &self.quiet {
            lines.push([
                format!(
                    "wake-ups of an idle connection between its heartbeats, in {:.0} intervals",
                    quiet.intervals
                ),
                format!("{}", quiet.empty),
                "0".to_owned(),
                if quiet.empty == 0 { "met" } else { "**missed**" }.to_owned(),
            ]);
        }
        if let Some(beside) = &self.beside {
            let ratios = beside.ratios(|report| report.calls_per_second);
            let middle = median(&ratios).unwrap_or(f64::NAN);
            lines.push([
                format!(
                    "calls/s of {CONNECTIONS} connections × {IN_FLIGHT}, {PAYLOAD} B: beside {} idle ÷ alone",
                    beside.held.count
                ),
                format!("{middle:.3} ({})", range(&ratios).unwrap_or_default()),
                format!("≥ {LEAST:.2}"),
                verdict(&ratios, |ratio| ratio >= LEAST).unwrap_or_default(),
            ]);
        }
        lines
    }
}

/// Prints the verdicts of all, and then what stands behind them.
pub(super) fn all(measured: &[Idle]) {
    println!("| target | figure | measured | target | verdict |");
    println!("|---|---|--:|--:|---|");
    for one in measured {
        for line in one.lines() {
            println!("| {} | {} |", one.product.name(), line.join(" | "));
        }
    }
    for one in measured {
        let name = one.product.name();
        if let Some(memory) = &one.memory {
            println!();
            print_memory(name, memory);
        }
        if let Some(quiet) = &one.quiet {
            println!();
            print_quiet(name, quiet);
        }
        if let Some(beside) = &one.beside {
            println!();
            print_beside(name, beside);
        }
    }
}

fn print_memory(name: &str, memory: &Measured) {
    let Measured { connections, heartbeat, fresh, idle, came, went } = memory;
    println!(
        "`{name}`: memory of the server process, without the kernel's, for each of {connections} connections that are checked in, \
         each under an identifier of its own, with an interval of {heartbeat:?}. *Heap* is exact, by the allocator, as it was asked for; \
         RSS and PSS are the kernel's, with what the allocator adds and has not given back  "
    );
    println!(
        "When it is looked at again 2.5 intervals later, {came:.1} heartbeats a connection have come in and {went:.1} have gone out\n"
    );
    println!("| | heap octets | blocks | RSS | PSS |");
    println!("|---|--:|--:|--:|--:|");
    for (when, Memory { octets, blocks, rss, pss, .. }) in [("checked in", fresh), ("idle", idle)] {
        println!("| {when} | {octets:.0} | {blocks:.1} | {rss:.0} | {pss:.0} |");
    }
    println!("\nBlocks of an idle connection, size × number: {}", sizes(idle));
}

/// The largest first, and what is left.
fn sizes(memory: &Memory) -> String {
    let mut parts: Vec<String> = memory
        .sizes
        .iter()
        .rev()
        .map(|(size, count)| {
            // A size that most have exactly so often is a part of a connection; others are shared or differ.
            if (count - count.round()).abs() < 0.01 {
                format!("{size} × {count:.0}")
            } else {
                format!("{size} × {count:.2}")
            }
        })
        .collect();
    let known: f64 = memory.sizes.iter().map(|(size, count)| *size as f64 * count).sum();
    parts.push(format!("all others {:.0}", memory.octets - known));
    parts.join(", ")
}

fn print_quiet(name: &str, quiet: &Quiet) {
    let Quiet { heartbeat, intervals, beats, polls, moments, empty, woken } = quiet;
    println!(
        "`{name}`: one idle connection with an interval of {heartbeat:?}, over {intervals:.1} intervals: {beats} heartbeats in and out; \
         tasks of the server, or its loop without tasks, had {polls} turns at {moments} moments (a tenth of an interval or more apart), {empty} of them without an octet read or written; the process was woken \
         {woken} times, by the runtime's own timers as well"
    );
}

fn print_beside(name: &str, beside: &Beside) {
    println!(
        "`{name}`: {CONNECTIONS} connections × {IN_FLIGHT} in flight, {PAYLOAD} octets, {} rounds of {} s, without and with {} idle \
         connections whose interval is {:?}; the median of the rounds. The idle ones' own processes run on core {}\n",
        beside.rounds.len(),
        beside.seconds,
        beside.held.count,
        beside.held.heartbeat,
        beside.held.core
    );
    println!(
        "| | calls/s | p50 µs | p99 µs | server CPU µs/call | client CPU µs/call | idle ones' CPU, % of a core |"
    );
    println!("|---|--:|--:|--:|--:|--:|--:|");
    for (what, beside_idle) in [("alone", false), ("beside", true)] {
        let slices =
            || beside.rounds.iter().map(move |(alone, beside)| if beside_idle { beside } else { alone });
        let of = |figure: &dyn Fn(&Report) -> f64| {
            let values: Vec<f64> = slices().map(|slice| figure(&slice.report)).collect();
            median(&values).unwrap_or(f64::NAN)
        };
        let holders: Vec<f64> = slices().map(|slice| slice.holders * 100.0).collect();
        println!(
            "| {what} | {} | {:.1} | {:.1} | {:.3} | {:.3} | {:.1} |",
            short(of(&|report| report.calls_per_second)),
            of(&|report| report.p50),
            of(&|report| report.p99),
            of(&|report| report.server_cpu.unwrap_or(f64::NAN)),
            of(&|report| report.client_cpu),
            median(&holders).unwrap_or(f64::NAN),
        );
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::indexing_slicing)]

    use super::*;
    use std::time::Duration;

    use super::super::beside::Slice;
    use super::super::world::Held;
    use crate::table::Rounds;
    use crate::targets::Target;

    fn slice(calls: f64) -> Slice {
        let report = Rounds::fake(Target::Tieline, &[(calls, 1.0)]).reports.remove(0);
        Slice { report, holders: 0.0 }
    }

    #[test]
    fn each_figure_is_held_against_its_target() {
        let memory = |octets| Memory { octets, blocks: 1.0, rss: 0.0, pss: 0.0, sizes: vec![(1000, 1.0)] };
        let idle = |octets, empty, calls: [f64; 3]| Idle {
            product: Product::Tokio,
            memory: Some(Measured {
                connections: 10,
                heartbeat: Duration::from_secs(1),
                fresh: memory(octets + 1.0),
                idle: memory(octets),
                came: 2.0,
                went: 2.0,
            }),
            quiet: Some(Quiet {
                heartbeat: Duration::from_secs(1),
                intervals: 10.0,
                beats: 10,
                polls: 20,
                moments: 10,
                empty,
                woken: 30,
            }),
            beside: Some(Beside {
                held: Held { count: 15_000, heartbeat: Duration::from_secs(1), core: 0 },
                seconds: 1.0,
                rounds: calls.map(|calls| (slice(100.0), slice(calls))).into(),
            }),
        };
        let verdicts =
            |idle: &Idle| idle.lines().into_iter().map(|[.., verdict]| verdict).collect::<Vec<_>>();
        assert_eq!(verdicts(&idle(2048.0, 0, [95.0, 96.0, 97.0])), ["met", "met", "met"]);
        let missed = idle(2048.5, 1, [94.0, 96.0, 90.0]);
        assert_eq!(verdicts(&missed), ["**missed**", "**missed**", "**missed**, met in 1 of 3 rounds"]);
        assert_eq!(missed.lines()[2][1], "0.940 (0.90–0.96)");
    }

    #[test]
    fn what_is_not_listed_by_size_is_told_as_the_rest() {
        let sizes_of = vec![(16, 2.0), (280, 0.143), (2504, 1.001)];
        let memory = Memory { octets: 2700.0, blocks: 3.2, rss: 0.0, pss: 0.0, sizes: sizes_of };
        assert_eq!(sizes(&memory), "2504 × 1, 280 × 0.14, 16 × 2, all others 121");
    }
}
