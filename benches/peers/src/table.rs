//! Every peer under every load, in turns, as a table.

use std::process::{Command, Stdio};

use tieline_benches::args::Args;
use tieline_benches::error::{Failure, Result};
use tieline_benches::load::Report;
use tieline_benches::machine::{self, Bystanders};
use tieline_benches::process::myself;
use tieline_benches::stats::{median, ratios, spread};

use crate::LOCK;
use crate::peers::Peer;

/// One kind of load.
struct Row {
    label: &'static str,
    payload: usize,
    connections: usize,
    in_flight: usize,
}

const ROWS: [Row; 5] = [
    Row { label: "64 B, 1 in flight", payload: 64, connections: 1, in_flight: 1 },
    Row { label: "64 B, 128 in flight", payload: 64, connections: 1, in_flight: 128 },
    Row { label: "64 B, 1024 in flight", payload: 64, connections: 1, in_flight: 1024 },
    Row { label: "64 B, 16 connections × 64", payload: 64, connections: 16, in_flight: 64 },
    Row { label: "1 MiB, 16 in flight", payload: 1 << 20, connections: 1, in_flight: 16 },
];

impl Row {
    /// One slice, in processes of its own.
    fn slice(&self, peer: Peer, seconds: f64) -> Result<Report> {
        let server = peer.start()?;
        let output = Command::new(myself()?)
            .args(["load", peer.name(), &server.address().to_string()])
            .args(["--server-pid", &server.pid().to_string()])
            .args(["--payload", &self.payload.to_string(), "--connections", &self.connections.to_string()])
            .args(["--in-flight", &self.in_flight.to_string(), "--warmup", "0.25"])
            .args(["--seconds", &seconds.to_string()])
            .stdin(Stdio::null())
            .output()?;
        if output.status.success() {
            return Report::from_json(String::from_utf8_lossy(&output.stdout).trim());
        }
        // The last line says it; what stands before may be a library's.
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        let last = said.lines().last().unwrap_or("it said nothing");
        Err(Failure::new(last.trim_start_matches("tieline-peers: ")))
    }
}

/// The rounds of one peer in one row.
struct Rounds {
    peer: Peer,
    reports: Vec<Report>,
    failure: Option<String>,
}

impl Rounds {
    fn of(&self, figure: impl Fn(&Report) -> f64) -> Vec<f64> {
        self.reports.iter().map(figure).collect()
    }

    fn calls(&self) -> Vec<f64> {
        self.of(|report| report.calls_per_second)
    }
}

/// `table [--quick] [--rounds N] [--seconds S] [--only PEER]`
pub(crate) fn command(mut args: Args) -> Result<()> {
    let quick = args.switch("--quick");
    let rounds: u32 = args.value("--rounds")?.unwrap_or(if quick { 1 } else { 3 });
    let seconds: f64 = args.value("--seconds")?.unwrap_or(if quick { 0.5 } else { 1.0 });
    let only = args.value::<String>("--only")?.map(|name| Peer::from_name(&name)).transpose()?;
    args.end()?;
    if rounds == 0 || !(0.1..=60.0).contains(&seconds) {
        return Err(Failure::new("--rounds is at least 1, --seconds from 0.1 to 60"));
    }
    let mut peers = Peer::ALL.to_vec();
    peers.retain(|peer| only.is_none_or(|only| *peer == only || *peer == Peer::Tieline));

    let described = machine::describe(LOCK, &["tokio", "bytes"]);
    let bystanders = Bystanders::watch()?;
    let table = measure(&peers, rounds, seconds);
    let bystanders = bystanders.describe()?;
    for line in &described {
        println!("{line}  ");
    }
    println!("{bystanders}\n");
    print(&table, rounds, seconds);
    println!();
    for peer in &peers {
        println!("- `{}`: {}. {}", peer.name(), peer.version(), peer.description());
    }
    Ok(())
}

fn measure(peers: &[Peer], rounds: u32, seconds: f64) -> Vec<(&'static Row, Vec<Rounds>)> {
    let empty = |peer: &Peer| Rounds { peer: *peer, reports: Vec::new(), failure: None };
    let mut table: Vec<(&Row, Vec<Rounds>)> =
        ROWS.iter().map(|row| (row, peers.iter().map(empty).collect())).collect();
    for round in 1..=rounds {
        for (row, peers) in &mut table {
            eprintln!("round {round} of {rounds}: {}", row.label);
            for one in peers.iter_mut().filter(|one| one.failure.is_none()) {
                match row.slice(one.peer, seconds) {
                    Ok(report) => one.reports.push(report),
                    Err(failure) => one.failure = Some(failure.to_string()),
                }
            }
            // Who was first is last in the next round; printing restores the order.
            peers.rotate_left(1);
        }
    }
    for (_, peers) in &mut table {
        peers.sort_by_key(|one| Peer::ALL.iter().position(|peer| *peer == one.peer));
    }
    table
}

fn print(table: &[(&Row, Vec<Rounds>)], rounds: u32, seconds: f64) {
    println!(
        "echo, closed loop, every reply compared; median of the rounds, {rounds} of {seconds} s a peer, peers in turns; spread: half of \
         the range over the rounds  "
    );
    println!("÷: Tieline's calls/s as a multiple of this one's, in the same round\n");
    println!(
        "| load | peer | calls/s | spread | p50 µs | p99 µs | server CPU µs/call | client CPU µs/call | Tieline ÷ |"
    );
    println!("|---|---|--:|--:|--:|--:|--:|--:|--:|");
    for (row, peers) in table {
        let own = peers.iter().find(|one| one.peer == Peer::Tieline).map(Rounds::calls).unwrap_or_default();
        for one in peers {
            println!("| {} | {} | {} |", row.label, one.peer.name(), cells(one, &own).join(" | "));
        }
    }
    for line in failures(table) {
        println!("\n{line}");
    }
    if rounds == 1 {
        println!("\n**One round: enough to see whether something broke, not to judge by.**");
    }
}

/// A line for each peer and each reason, with the rows in which it failed.
fn failures(table: &[(&Row, Vec<Rounds>)]) -> Vec<String> {
    let mut known: Vec<(Peer, &str, Vec<&str>)> = Vec::new();
    for (row, peers) in table {
        for one in peers {
            let Some(failure) = &one.failure else { continue };
            match known.iter_mut().find(|(peer, why, _)| *peer == one.peer && why == failure) {
                Some((_, _, rows)) => rows.push(row.label),
                None => known.push((one.peer, failure, vec![row.label])),
            }
        }
    }
    let line = |(peer, why, rows): (Peer, &str, Vec<&str>)| {
        let rows = if rows.len() == table.len() { "every load".to_owned() } else { rows.join("; ") };
        format!("`{}` failed under {rows}: {why}", peer.name())
    };
    known.into_iter().map(line).collect()
}

fn cells(one: &Rounds, own: &[f64]) -> Vec<String> {
    let none = || "–".to_owned();
    let middle = |values: Vec<f64>, digits: usize| {
        median(&values).map_or_else(none, |value| format!("{value:.digits$}"))
    };
    let server: Vec<f64> = one.reports.iter().filter_map(|report| report.server_cpu).collect();
    vec![
        median(&one.calls()).map_or_else(none, short),
        spread(&one.calls()).map_or_else(none, |spread| format!("±{:.0} %", spread * 100.0)),
        middle(one.of(|report| report.p50), 1),
        middle(one.of(|report| report.p99), 1),
        middle(server, 3),
        middle(one.of(|report| report.client_cpu), 3),
        middle(ratios(own, &one.calls()), 2),
    ]
}

/// Whole, or in thousands and millions.
fn short(value: f64) -> String {
    if value >= 1e6 {
        format!("{:.2} M", value / 1e6)
    } else if value >= 1e4 {
        format!("{:.1} k", value / 1e3)
    } else {
        format!("{value:.0}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rounds(peer: Peer, calls: &[f64]) -> Rounds {
        let report = |&calls_per_second: &f64| Report {
            target: peer.name().to_owned(),
            payload: 64,
            connections: 1,
            in_flight: 1,
            rate: None,
            seconds: 1.0,
            calls: 1,
            calls_per_second,
            latency_samples: 1,
            sample_every: 1,
            p50: 2.0,
            p99: 3.0,
            p999: 4.0,
            max: 5.0,
            not_begun: 0,
            server_cpu: None,
            client_cpu: 0.25,
        };
        Rounds { peer, reports: calls.iter().map(report).collect(), failure: None }
    }

    #[test]
    fn a_ratio_is_taken_within_a_round() {
        let own = [100_000.0, 40_000.0, 90_000.0];
        let other = rounds(Peer::Tarpc, &[50_000.0, 80_000.0, 100_000.0]);
        let shown = ["80.0 k", "±31 %", "2.0", "3.0", "–", "0.250", "0.90"];
        assert_eq!(cells(&other, &own), shown);
    }

    #[test]
    fn a_peer_that_failed_is_shown_without_figures() {
        assert_eq!(cells(&rounds(Peer::Redis, &[]), &[1.0]), ["–"; 7]);
    }

    #[test]
    fn a_reason_is_told_once() {
        let failed = |peer, why: &str| Rounds { failure: Some(why.to_owned()), ..rounds(peer, &[]) };
        let table: Vec<(&Row, Vec<Rounds>)> = ROWS
            .iter()
            .enumerate()
            .map(|(at, row)| {
                let odd = if at == 2 { failed(Peer::Tonic, "too slow") } else { rounds(Peer::Tonic, &[1.0]) };
                (row, vec![failed(Peer::Redis, "not there"), odd])
            })
            .collect();
        let lines = [
            "`redis` failed under every load: not there",
            "`tonic` failed under 64 B, 1024 in flight: too slow",
        ];
        assert_eq!(failures(&table), lines);
    }

    #[test]
    fn every_row_fits_what_tieline_carries() {
        let most = tieline_benches::product::MOST_PAYLOAD;
        assert!(ROWS.iter().all(|row| row.payload <= most && row.in_flight > 0 && row.connections > 0));
    }
}
