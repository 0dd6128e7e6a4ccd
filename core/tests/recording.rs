//! Recordings: over random runs of two connections a replay is the same, whatever is cut and whatever is lost.
#![allow(clippy::unwrap_used, clippy::panic, clippy::cast_possible_truncation)]

mod support;

use support::{pair, random::Random};
use tieline_core::record::{Record, Recording, Verdict};

/// Through a file and back, and done again: the verdict, and what was told.
fn replay(recording: &Recording) -> (Verdict, String) {
    let octets = recording.to_octets();
    let read = Recording::parse(&octets).unwrap();
    assert_eq!(read.to_octets(), octets, "a file that is read and written is the same");
    let mut told = String::new();
    let verdict = read.replay(&mut told).unwrap();
    (verdict, told)
}

/// The last lines before the first difference.
fn about(told: &str) -> String {
    let lines: Vec<&str> = told.lines().collect();
    let at = lines.iter().position(|line| line.contains("DIFFERS")).unwrap_or(lines.len() - 1);
    lines[at.saturating_sub(30)..(at + 3).min(lines.len())].join("\n")
}

/// Recording is invisible (so says the trace of the run), and what is recorded does itself again: in every verb, with every
/// fault, whether payloads are kept, cut or left out.
#[test]
fn a_recorded_run_is_the_same_run_and_replays_octet_for_octet() {
    let mut steps = 0;
    for seed in 0..400 {
        let payload = [usize::MAX, 64, 0, 1000][seed as usize % 4];
        let record = Record::new().octets(1 << 30).payload(payload);
        let (run, recordings) = pair::recorded(seed, record);
        assert_eq!(run.trace, pair::run(seed, false).trace, "seed {seed}: recording changes what happens");
        for recording in recordings {
            assert!(recording.is_complete());
            let (verdict, told) = replay(&recording);
            assert!(verdict.is_same(), "seed {seed}, payload {payload}: {verdict}\n{}", about(&told));
            assert_eq!(verdict.same, verdict.steps);
            steps += verdict.steps;
        }
    }
    assert!(steps > 1_000_000, "{steps} steps are too few to say anything");
}
