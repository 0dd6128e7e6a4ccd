//! The rows of small calls beside a large message.

use std::process::{Command, Stdio};

use super::report::fragment;
use super::{HEARTBEAT, Latency, MixedReport, Traffic, Way};
use crate::error::{Failure, Result};
use crate::process::myself;
use crate::stats::median;
use crate::verdict::{self, Line};

/// More rounds than these would only take longer.
const MOST_ROUNDS: u32 = 3;
/// Octets of the large message in a quick table: enough to see that it works.
const QUICK: &str = "67108864";
const MIB: f64 = 1_048_576.0;

/// One way of the large message, and its rounds.
#[derive(Debug)]
pub(crate) struct Row {
    way: Way,
    reports: Vec<MixedReport>,
}

/// One of the two loops of small calls.
struct Loop {
    name: fn(&MixedReport) -> String,
    alone: fn(&MixedReport) -> Latency,
    beside: fn(&MixedReport) -> Latency,
    rate: fn(&MixedReport) -> f64,
}

const LOOPS: [Loop; 2] = [
    Loop {
        name: |_| "1 in flight".to_owned(),
        alone: |report| report.closed,
        beside: |report| report.closed_beside,
        rate: |report| report.closed_rate,
    },
    Loop {
        name: |report| format!("open loop, {} calls/s", report.open_loop),
        alone: |report| report.open,
        beside: |report| report.open_beside,
        rate: |report| report.open_rate,
    },
];

/// Runs both ways so often.
pub(crate) fn measure(rounds: u32, quick: bool) -> Result<Vec<Row>> {
    let mut rows = Way::ALL.map(|way| Row { way, reports: Vec::new() });
    let rounds = rounds.min(MOST_ROUNDS);
    for round in 1..=rounds {
        for row in &mut rows {
            eprintln!("round {round} of {rounds}: small calls beside a large message, {}", row.way.name());
            let mut command = Command::new(myself()?);
            command.args(["mixed", "--json", "--way", row.way.name()]);
            if quick {
                command.args(["--octets", QUICK, "--times", "1", "--seconds", "0.3"]);
            }
            let output = command.stderr(Stdio::inherit()).output()?;
            if !output.status.success() {
                return Err(Failure::new("the run of small calls beside a large message failed"));
            }
            row.reports.push(MixedReport::from_json(String::from_utf8_lossy(&output.stdout).trim())?);
        }
    }
    Ok(rows.into())
}

/// The verdicts.
pub(crate) fn lines(rows: &[Row]) -> Vec<Line> {
    rows.iter().flat_map(|row| LOOPS.iter().map(|one| line(row, one))).collect()
}

fn line(row: &Row, one: &Loop) -> Line {
    let each =
        |figure: &dyn Fn(&MixedReport) -> f64| -> Vec<f64> { row.reports.iter().map(figure).collect() };
    let bound = |report: &MixedReport| (one.alone)(report).p99 + 3.0 * fragment((one.rate)(report));
    let beside = each(&|report| (one.beside)(report).p99);
    let excess = each(&|report| (one.beside)(report).p99 - bound(report));
    let micros = |value: Option<f64>| value.map_or("–".to_owned(), |value| format!("{value:.1} µs"));
    let first = row.reports.first();
    let octets = first.map_or(0, |report| report.octets);
    let name = first.map_or_else(String::new, one.name);
    let label = format!("64 B, {name}, beside {} MiB going {}", octets >> 20, row.way.name());
    let range = beside.iter().copied().reduce(f64::min).zip(beside.iter().copied().reduce(f64::max));
    Line {
        measured: micros(median(&beside)),
        range: range.map_or("–".to_owned(), |(least, most)| format!("{least:.1}–{most:.1}")),
        target: format!("≤ {}", micros(median(&each(&bound)))),
        verdict: verdict::verdict(&excess, |excess| excess <= 0.0).unwrap_or_else(|| "–".to_owned()),
        ..Line::new(&label, "p99; target: alone + three fragments")
    }
}

/// Prints the tables and what stands below them.
pub(crate) fn print(rows: &[Row]) {
    println!(
        "small calls alone and while a large message crosses the same connection, again and again; of the round in the middle. \
         Limits that are not the default: max_message, memory (three messages), server_memory and max_queued (two messages)  "
    );
    println!(
        "A fragment is 16 KiB at the rate at which the message crossed beside these calls. Open loop: from the intended start, at \
         most one call in flight\n"
    );
    println!(
        "| message | small calls | | calls | p50 µs | p90 µs | p99 µs | p99.9 µs | max µs | MiB/s | fragment µs | three µs |"
    );
    println!("|---|---|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|");
    for row in rows {
        for one in &LOOPS {
            let Some(report) = middle(row, one) else { continue };
            let way = format!("{} MiB, {}", report.octets >> 20, row.way.name());
            let (name, rate) = ((one.name)(report), (one.rate)(report));
            println!("| {way} | {name} | alone | {} | – | – | – |", cells((one.alone)(report)));
            println!(
                "| {way} | {name} | beside | {} | {:.0} | {:.1} | {:.1} |",
                cells((one.beside)(report)),
                rate / MIB,
                fragment(rate),
                3.0 * fragment(rate)
            );
        }
    }
    println!();
    println!(
        "| message | first MiB/s | alone MiB/s | heartbeats of client and server: idle | large alone | large and small |"
    );
    println!("|---|--:|--:|--:|--:|--:|");
    for report in rows.iter().flat_map(|row| &row.reports) {
        println!(
            "| {} MiB, {} | {:.0} | {:.0} | {} | {} | {} |",
            report.octets >> 20,
            report.way,
            report.first_rate / MIB,
            report.rate / MIB,
            beats(&report.idle),
            beats(&report.large_alone),
            beats(&report.both),
        );
    }
    println!();
    println!(
        "The heartbeat interval is {} ms, the least that a server grants by default; after three of them without an octet a \
         connection is closed. None was: a run fails if its connection is not the same at the end, or if what lies at either end \
         is not what was sent. Who hears and writes something anyway sends none.",
        HEARTBEAT.as_millis()
    );
}

/// The round whose p99 beside the large message is in the middle.
fn middle<'a>(row: &'a Row, one: &Loop) -> Option<&'a MixedReport> {
    let mut reports: Vec<&MixedReport> = row.reports.iter().collect();
    reports.sort_by(|a, b| (one.beside)(a).p99.total_cmp(&(one.beside)(b).p99));
    reports.get(reports.len() / 2).copied()
}

fn cells(latency: Latency) -> String {
    let Latency { calls, p50, p90, p99, p999, max } = latency;
    format!("{calls} | {p50:.1} | {p90:.1} | {p99:.1} | {p999:.1} | {max:.1}")
}

fn beats(traffic: &Traffic) -> String {
    format!("{} and {} in {:.1} intervals", traffic.client_beats, traffic.server_beats, traffic.intervals())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::indexing_slicing)]

    use super::*;

    fn report(alone: f64, beside: f64) -> MixedReport {
        let latency = |p99| Latency { calls: 1, p50: 1.0, p90: 2.0, p99, p999: 3.0, max: 4.0 };
        let traffic = Traffic { seconds: 1.0, client_beats: 5, server_beats: 5 };
        MixedReport {
            way: "up".to_owned(),
            octets: 1 << 30,
            open_loop: 2000,
            first_rate: 1.0,
            rate: 1.0,
            // A fragment takes 10 µs.
            closed_rate: 16_384e5,
            open_rate: 16_384e5,
            closed: latency(alone),
            closed_beside: latency(beside),
            open: latency(alone),
            open_beside: latency(beside + 1000.0),
            idle: traffic,
            large_alone: traffic,
            both: traffic,
        }
    }

    #[test]
    fn three_fragments_are_allowed() {
        let reports =
            [(50.0, 80.0), (50.0, 79.0), (50.0, 500.0)].map(|(alone, beside)| report(alone, beside));
        let rows = [Row { way: Way::Up, reports: reports.into() }];
        let lines = lines(&rows);
        assert_eq!(lines[0].row, "64 B, 1 in flight, beside 1024 MiB going up");
        assert_eq!((lines[0].measured.as_str(), lines[0].target.as_str()), ("80.0 µs", "≤ 80.0 µs"));
        assert_eq!(lines[0].verdict, "met, missed in 1 of 3 rounds");
        assert_eq!(lines[1].verdict, "**missed**");
        assert_eq!(middle(&rows[0], &LOOPS[0]).map(|report| report.closed_beside.p99), Some(80.0));
    }
}
