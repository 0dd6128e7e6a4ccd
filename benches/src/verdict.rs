//! The figures that Tieline is held to, each beside its target: what a reader wants to see first.

use std::fmt::Write;

use crate::count::{self, Count};
use crate::stats::{median, ratios};
use crate::table::{Rounds, Row};
use crate::targets::Target;

/// What Tieline, as `of`, is to reach in a row, as a ratio to another target in the same round.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Goal {
    /// Calls/s, as a part of those of `beside`.
    Calls { of: Target, beside: Target, least: f64 },
    /// The median latency, as a multiple of that of `beside`.
    P50 { of: Target, beside: Target, most: f64 },
}

impl Goal {
    /// Whose it is.
    pub(crate) const fn of(self) -> Target {
        match self {
            Self::Calls { of, .. } | Self::P50 { of, .. } => of,
        }
    }

    /// What it is compared with.
    pub(crate) const fn beside(self) -> Target {
        match self {
            Self::Calls { beside, .. } | Self::P50 { beside, .. } => beside,
        }
    }

    fn is_met(self, ratio: f64) -> bool {
        match self {
            Self::Calls { least, .. } => ratio >= least,
            Self::P50 { most, .. } => ratio <= most,
        }
    }

    fn bound(self) -> String {
        match self {
            Self::Calls { least, .. } => format!("≥ {least:.2}"),
            Self::P50 { most, .. } => format!("≤ {most:.2}"),
        }
    }

    fn what(self) -> String {
        let of = if self.of() == Target::Tieline { String::new() } else { format!("{}: ", self.of().name()) };
        match self {
            Self::Calls { beside, .. } => format!("{of}calls/s ÷ {}", beside.name()),
            Self::P50 { beside, .. } => format!("{of}p50 ÷ {}", beside.name()),
        }
    }

    /// The ratio of each round of `target`; empty if it or what it is compared with is not in the row.
    fn ratios(self, target: Target, row: &[Rounds]) -> Vec<f64> {
        let figures = |target: Target| {
            let rounds = row.iter().find(|rounds| rounds.target == target);
            rounds.map_or_else(
                Vec::new,
                match self {
                    Self::Calls { .. } => Rounds::calls,
                    Self::P50 { .. } => Rounds::p50,
                },
            )
        };
        ratios(&figures(target), &figures(self.beside()))
    }
}

/// A figure, beside what it is to be.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Line {
    pub(crate) row: String,
    pub(crate) figure: String,
    pub(crate) measured: String,
    pub(crate) range: String,
    /// What the same runtime does without a product.
    pub(crate) by_hand: String,
    pub(crate) before: String,
    pub(crate) target: String,
    pub(crate) verdict: String,
}

impl Line {
    /// Nothing known yet.
    pub(crate) fn new(row: &str, figure: &str) -> Self {
        let none = || "–".to_owned();
        Self {
            row: row.to_owned(),
            figure: figure.to_owned(),
            measured: none(),
            range: none(),
            by_hand: none(),
            before: none(),
            target: none(),
            verdict: none(),
        }
    }
}

/// Prints the table of verdicts.
pub(crate) fn print(lines: impl Iterator<Item = Line>, rounds: u32) {
    println!("| Tieline | figure | measured | range | by hand on tokio | before | target | verdict |");
    println!("|---|---|--:|--:|--:|--:|--:|---|");
    for Line { row, figure, measured, range, by_hand, before, target, verdict } in lines {
        println!("| {row} | {figure} | {measured} | {range} | {by_hand} | {before} | {target} | {verdict} |");
    }
    println!();
    println!(
        "Ratios: tieline-tokio's, or those of the one that is named, taken within a round; the median of the rounds, its range, and whether the median is on \
         the right side of the target. Counts are exact; *before* is the core as it was first built."
    );
    if rounds == 1 {
        println!("**One round: enough to see whether something broke, not to judge by.**");
    }
}

/// A line for each goal of each row.
pub(crate) fn of_rows(table: &[(Row, Vec<Rounds>)]) -> Vec<Line> {
    let lines = |(row, rounds): &(Row, Vec<Rounds>)| -> Vec<Line> {
        row.goals.iter().map(|goal| of_ratio(row.label, *goal, rounds)).collect()
    };
    table.iter().flat_map(lines).collect()
}

/// The lines of what was counted.
pub(crate) fn of_counts(counts: &[Count]) -> Vec<Line> {
    counts.iter().flat_map(of_count).collect()
}

fn of_ratio(label: &str, goal: Goal, row: &[Rounds]) -> Line {
    let each = goal.ratios(goal.of(), row);
    let by_hand = if matches!(goal.beside(), Target::TokioEcho | Target::Tieline) {
        Vec::new()
    } else {
        goal.ratios(Target::TokioEcho, row)
    };
    let middle = |ratios: &[f64]| median(ratios).map_or("–".to_owned(), |ratio| format!("{ratio:.2}"));
    let own = match range(&by_hand) {
        Some(range) => format!("{} ({range})", middle(&by_hand)),
        None => "–".to_owned(),
    };
    let there = row.iter().any(|rounds| rounds.target == goal.beside());
    let absent = if there { "not carried" } else { "not installed" };
    Line {
        measured: middle(&each),
        range: range(&each).unwrap_or_else(|| "–".to_owned()),
        by_hand: own,
        target: goal.bound(),
        verdict: verdict(&each, |ratio| goal.is_met(ratio)).unwrap_or_else(|| absent.to_owned()),
        ..Line::new(label, &goal.what())
    }
}

pub(crate) fn range(ratios: &[f64]) -> Option<String> {
    let least = ratios.iter().copied().reduce(f64::min)?;
    let most = ratios.iter().copied().reduce(f64::max)?;
    Some(format!("{least:.2}–{most:.2}"))
}

/// The median decides; rounds that disagree are told. `None` without a round.
pub(crate) fn verdict(values: &[f64], is_met: impl Fn(f64) -> bool) -> Option<String> {
    let met = is_met(median(values)?);
    let mut verdict = if met { "met" } else { "**missed**" }.to_owned();
    let others = values.iter().filter(|value| is_met(**value) != met).count();
    if others > 0 {
        let how = if met { "missed" } else { "met" };
        // Writing to a string does not fail.
        let _ = write!(verdict, ", {how} in {others} of {} rounds", values.len());
    }
    Some(verdict)
}

/// A line for each count that has a target.
fn of_count(count: &Count) -> Vec<Line> {
    let Some(target) = count.target else { return Vec::new() };
    let line = |figure: &str, measured: Option<(f64, String)>, most: f64| {
        let verdict = match &measured {
            None => "not counted",
            Some((value, _)) if *value <= most => "met",
            Some(_) => "**missed**",
        };
        Line {
            measured: measured.map_or_else(|| "–".to_owned(), |(_, text)| text),
            range: "exact".to_owned(),
            target: count::bound(most),
            verdict: verdict.to_owned(),
            ..Line::new(&count.name, figure)
        }
    };
    let instructions = count.instructions.map(|value| (value, format!("{value:.0}")));
    let allocations = count.allocations.map(|value| (value, count::allocations(value)));
    let before = count.before.map_or_else(|| "–".to_owned(), |before| format!("{before:.0}"));
    vec![
        Line { before, ..line("instructions a round trip", instructions, target.instructions) },
        line("allocations a round trip", allocations, target.allocations),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    const CALLS: Goal = Goal::Calls { of: Target::Tieline, beside: Target::TokioEcho, least: 0.85 };
    const P50: Goal = Goal::P50 { of: Target::Tieline, beside: Target::Blocking, most: 1.10 };

    #[test]
    fn the_median_of_the_rounds_decides() {
        let verdict = |goal: Goal, ratios: &[f64]| verdict(ratios, |ratio| goal.is_met(ratio));
        let said = |text: &str| Some(text.to_owned());
        assert_eq!(verdict(CALLS, &[0.9, 0.86, 0.85]), said("met"));
        assert_eq!(verdict(CALLS, &[0.9, 0.86, 0.7]), said("met, missed in 1 of 3 rounds"));
        assert_eq!(verdict(CALLS, &[0.9, 0.8, 0.7]), said("**missed**, met in 1 of 3 rounds"));
        assert_eq!(verdict(P50, &[1.2, 1.3, 1.4]), said("**missed**"));
        assert_eq!(verdict(P50, &[1.1]), said("met"));
        assert_eq!(verdict(P50, &[]), None);
    }

    #[test]
    fn a_line_is_of_tieline_and_shows_what_by_hand_costs() {
        let row = [
            Rounds::fake(Target::Blocking, &[(1.0, 10.0), (1.0, 20.0), (1.0, 10.0)]),
            Rounds::fake(Target::TokioEcho, &[(100.0, 11.0), (50.0, 22.0), (100.0, 12.0)]),
            Rounds::fake(Target::Tieline, &[(90.0, 12.0), (45.0, 23.0), (70.0, 13.0)]),
        ];
        let shown = |goal, row| {
            let Line { figure, measured, range, by_hand, target, verdict, .. } = of_ratio("row", goal, row);
            [figure, measured, range, by_hand, target, verdict]
        };
        let p50 = ["p50 ÷ blocking", "1.20", "1.15–1.30", "1.10 (1.10–1.20)", "≤ 1.10", "**missed**"];
        assert_eq!(shown(P50, &row), p50);
        let calls =
            ["calls/s ÷ tokio-echo", "0.90", "0.70–0.90", "–", "≥ 0.85", "met, missed in 1 of 3 rounds"];
        assert_eq!(shown(CALLS, &row), calls);
        let [_, measured, .., verdict] = shown(CALLS, row.get(..2).unwrap_or_default());
        assert_eq!((measured.as_str(), verdict.as_str()), ("–", "not carried"));
        let [.., verdict] = shown(CALLS, row.get(2..).unwrap_or_default());
        assert_eq!(verdict, "not installed");
    }

    #[test]
    fn another_runtime_is_held_against_tokio() {
        let row = [
            Rounds::fake(Target::Tieline, &[(100.0, 1.0), (200.0, 1.0), (100.0, 1.0)]),
            Rounds::fake(Target::AsyncStd, &[(70.0, 1.0), (100.0, 1.0), (80.0, 1.0)]),
        ];
        let goal = Goal::Calls { of: Target::AsyncStd, beside: Target::Tieline, least: 0.6 };
        let line = of_ratio("row", goal, &row);
        assert_eq!(line.figure, "tieline-async-std: calls/s ÷ tieline-tokio");
        assert_eq!((line.measured.as_str(), line.by_hand.as_str()), ("0.70", "–"));
        assert_eq!(line.verdict, "met, missed in 1 of 3 rounds");
    }

    #[test]
    fn what_is_not_counted_is_neither_met_nor_missed() {
        let verdicts = |instructions, allocations| -> Vec<String> {
            let lines = of_count(&Count::fake(instructions, allocations));
            lines.into_iter().map(|line| line.verdict).collect()
        };
        assert_eq!(verdicts(Some(1200.0), 0.0), ["met", "met"]);
        assert_eq!(verdicts(Some(1200.5), 0.00005), ["**missed**", "**missed**"]);
        assert_eq!(verdicts(None, 0.0), ["not counted", "met"]);
    }
}
