//! The rows of streams: each sender in turn, as in the table of calls.

use std::process::{Command, Stdio};

use super::{DEFAULT_WINDOW, ITEM, Sender, StreamReport};
use crate::error::{Failure, Result};
use crate::process::myself;
use crate::stats::{median, ratios, spread};
use crate::table::short;
use crate::verdict::{self, Line};

/// What a stream of the product is to reach, in items a second: 1.5 times what was published of tonic on a machine of
/// two cores like the one that the targets were set on.
const LEAST: f64 = 10e6;
const TONIC: f64 = 6.6e6;
/// The credit of the rows, in octets; an item costs 256 more than it has.
const WINDOWS: [u32; 2] = [DEFAULT_WINDOW, 1 << 20];

/// One sender with one window, and its rounds.
#[derive(Debug)]
pub(crate) struct Row {
    sender: Sender,
    window: Option<u32>,
    reports: Vec<StreamReport>,
}

impl Row {
    fn label(&self) -> String {
        let window = match self.window {
            None => "no credit".to_owned(),
            Some(window) if window == DEFAULT_WINDOW => {
                format!("window {} KiB, the default, which grows", window >> 10)
            }
            Some(window) => format!("window {} KiB", window >> 10),
        };
        format!("stream of {ITEM} B items, {window}")
    }

    fn slice(&self, seconds: f64) -> Result<StreamReport> {
        let window = self.window.unwrap_or(DEFAULT_WINDOW).to_string();
        let output = Command::new(myself()?)
            .args(["stream", "--json", "--sender", self.sender.name(), "--window", &window])
            .args(["--warmup", "0.25", "--seconds", &seconds.to_string()])
            .stderr(Stdio::inherit())
            .output()?;
        if !output.status.success() {
            return Err(Failure::new(format!("the stream of {} failed", self.sender.name())));
        }
        StreamReport::from_json(String::from_utf8_lossy(&output.stdout).trim())
    }

    fn of(&self, figure: impl Fn(&StreamReport) -> f64) -> Vec<f64> {
        self.reports.iter().map(figure).collect()
    }

    fn items(&self) -> Vec<f64> {
        self.of(|report| report.items_per_second)
    }
}

/// Measures all of them, in turns.
pub(crate) fn measure(rounds: u32, seconds: f64) -> Result<Vec<Row>> {
    let row = |sender, window| Row { sender, window, reports: Vec::new() };
    let mut rows = vec![row(Sender::Raw, None)];
    for window in WINDOWS {
        rows.extend([Sender::Each, Sender::Many].map(|sender| row(sender, Some(window))));
    }
    for round in 1..=rounds {
        eprintln!("round {round} of {rounds}: streams");
        for row in &mut rows {
            let report = row.slice(seconds)?;
            row.reports.push(report);
        }
    }
    Ok(rows)
}

/// The verdicts: of the handler that sends item by item.
pub(crate) fn lines(rows: &[Row]) -> Vec<Line> {
    let raw = rows.iter().find(|row| row.sender == Sender::Raw).map(Row::items).unwrap_or_default();
    let each = rows.iter().filter(|row| row.sender == Sender::Each);
    let line = |row: &Row| {
        let items = row.items();
        let part = median(&ratios(&items, &raw));
        Line {
            measured: median(&items).map_or("–".to_owned(), short),
            range: extremes(&items),
            by_hand: format!(
                "{} (÷ it: {})",
                median(&raw).map_or("–".to_owned(), short),
                part.map_or("–".to_owned(), |part| format!("{part:.2}"))
            ),
            target: format!("≥ {}", short(LEAST)),
            verdict: verdict::verdict(&items, |items| items >= LEAST).unwrap_or_else(|| "–".to_owned()),
            ..Line::new(&row.label(), "items/s")
        }
    };
    each.map(line).collect()
}

fn extremes(items: &[f64]) -> String {
    let least = items.iter().copied().reduce(f64::min);
    let most = items.iter().copied().reduce(f64::max);
    least.zip(most).map_or("–".to_owned(), |(least, most)| format!("{}–{}", short(least), short(most)))
}

/// Prints the table and what stands below it.
pub(crate) fn print(rows: &[Row], rounds: u32, seconds: f64) {
    println!(
        "one server stream on one connection, closed by the client at the end; median of the rounds, {rounds} of {seconds} s a \
         sender; every item is compared with what must come next  "
    );
    println!(
        "The window is the credit of the stream; an item costs its octets and 256. tonic is not run here: on a machine of two cores \
         like the one that the targets were set on it was measured at {} items/s\n",
        short(TONIC)
    );
    println!("| load | sender | items/s | spread | server CPU ns/item | client CPU ns/item | ÷ raw |");
    println!("|---|---|--:|--:|--:|--:|--:|");
    let raw = rows.iter().find(|row| row.sender == Sender::Raw).map(Row::items).unwrap_or_default();
    for row in rows {
        let items = row.items();
        let middle =
            |values: Vec<f64>| median(&values).map_or("–".to_owned(), |value| format!("{value:.1}"));
        println!(
            "| {} | {} | {} | {} | {} | {} | {} |",
            row.label(),
            row.sender.name(),
            median(&items).map_or("–".to_owned(), short),
            spread(&items).map_or("–".to_owned(), |spread| format!("±{:.0} %", spread * 100.0)),
            middle(row.of(|report| report.server_cpu)),
            middle(row.of(|report| report.client_cpu)),
            median(&ratios(&items, &raw)).map_or("–".to_owned(), |ratio| format!("{ratio:.2}")),
        );
    }
    println!();
    for sender in Sender::ALL {
        println!("- `{}`: {}", sender.name(), sender.description());
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::indexing_slicing)]

    use super::*;

    fn row(sender: Sender, window: Option<u32>, items: &[f64]) -> Row {
        let report = |&items_per_second: &f64| StreamReport {
            sender: sender.name().to_owned(),
            window,
            seconds: 1.0,
            items: 1,
            items_per_second,
            server_cpu: 1.0,
            client_cpu: 1.0,
        };
        Row { sender, window, reports: items.iter().map(report).collect() }
    }

    #[test]
    fn the_window_is_part_of_the_label_and_the_limit_stands_beside() {
        let rows = [
            row(Sender::Raw, None, &[20e6, 10e6]),
            row(Sender::Each, Some(65_536), &[5e6, 2.5e6]),
            row(Sender::Many, Some(65_536), &[6e6, 3e6]),
            row(Sender::Each, Some(1 << 20), &[11e6, 12e6]),
        ];
        let lines = lines(&rows);
        assert_eq!(lines.len(), 2);
        assert_eq!(lines[0].row, "stream of 64 B items, window 64 KiB, the default, which grows");
        assert_eq!(lines[0].measured, "3.75 M");
        assert_eq!(lines[0].range, "2.50 M–5.00 M");
        assert_eq!(lines[0].by_hand, "15.0 M (÷ it: 0.25)");
        assert_eq!((lines[0].target.as_str(), lines[0].verdict.as_str()), ("≥ 10.0 M", "**missed**"));
        assert_eq!(
            (lines[1].row.as_str(), lines[1].verdict.as_str()),
            ("stream of 64 B items, window 1024 KiB", "met")
        );
    }
}
