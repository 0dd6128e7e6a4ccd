//! The laws of [`tieline_core::conn::Connection`] over random runs of two connections in virtual time.
//!
//! `TIELINE_SEEDS=n` runs n seeds instead of 10 000, `TIELINE_FIRST=n` leaves those before n out, and
//! `TIELINE_SEED=x` replays one with a readable trace.
#![allow(clippy::unwrap_used, clippy::panic, clippy::cast_possible_truncation, clippy::print_stdout)]

mod support;

use std::panic::{AssertUnwindSafe, catch_unwind};

use support::{pair, tally::Tally};

fn seeds(usual: u64) -> u64 {
    std::env::var("TIELINE_SEEDS").ok().and_then(|seeds| seeds.parse().ok()).unwrap_or(usual)
}

/// Where to begin, for going on behind a seed that failed.
fn first() -> u64 {
    std::env::var("TIELINE_FIRST").ok().and_then(|first| first.parse().ok()).unwrap_or(0)
}

fn replay() -> Option<u64> {
    std::env::var("TIELINE_SEED").ok().and_then(|seed| seed.parse().ok())
}

/// Runs every seed; on failure it says how to replay the one that failed.
fn over_seeds(name: &str, usual: u64, run: impl Fn(u64, bool) -> Tally) -> Option<Tally> {
    if let Some(seed) = replay() {
        run(seed, true);
        return None;
    }
    let mut tally = Tally::default();
    for seed in first()..seeds(usual) {
        match catch_unwind(AssertUnwindSafe(|| run(seed, false))) {
            Ok(counts) => tally.add(&counts),
            Err(panic) => {
                println!(
                    "seed {seed} failed; replay it with\n  TIELINE_SEED={seed} cargo test -p tieline-core --test laws {name} -- --exact --nocapture"
                );
                std::panic::resume_unwind(panic);
            }
        }
    }
    Some(tally)
}

#[test]
fn two_connections_keep_the_laws() {
    let run = |seed, talk| {
        let run = pair::run(seed, talk);
        if seed % 50 == 0 {
            assert_eq!(run.trace, pair::run(seed, false).trace, "L13: the same seed, another trace");
        }
        run.tally
    };
    if let Some(tally) = over_seeds("two_connections_keep_the_laws", 5_000, run) {
        tally.report(
            "two connections",
            &[
                "cancel",
                "cancel of a stream",
                "clock jump",
                "close",
                "connection dropped",
                "drain",
                "drip",
                "end of stream",
                "half-sent frames",
                "partial write",
                "pause",
                "reset",
                "slow reader",
                "stall",
                "stopped reader",
                "L11 credit is conserved",
                "L11 exactly what was taken is returned",
                "L4 no spin",
                "ONE_WAY abandoned",
                "REQUEST abandoned",
                "RESPONSE abandoned",
                "STREAM_END in its place",
                "STREAM_ITEM abandoned",
                "Ran::No is true",
                "Ran::Yes is true",
                "a handler once a request",
                "a refusal gives the value back",
                "a second DRAIN",
                "an item that overdraws",
                "arguments arrive as they were sent",
                "dead peers are found in time",
                "deadlines are honest",
                "everything finishes",
                "fragments in sequence",
                "frames judged",
                "granted",
                "granted before it is out",
                "ids increase",
                "into_unfinished",
                "items to the callee",
                "items to the caller",
                "items too large for the peer",
                "items within credit",
                "keyed calls one after the other",
                "laws",
                "max_concurrent kept",
                "max_streams kept",
                "messages in fragments",
                "no dead peer is kept",
                "no room for an item",
                "one RESPONSE a REQUEST",
                "one outcome a call",
                "results arrive as they were given",
                "results too large for the caller",
                "the end behind the last item",
                "who is not told finds nothing",
            ],
        );
        if cfg!(feature = "snappy") {
            tally.report("two connections with Snappy", &["compressed messages"]);
        }
    }
}

#[test]
fn a_hostile_peer_finds_the_laws_kept() {
    if let Some(tally) = over_seeds("a_hostile_peer_finds_the_laws_kept", 2_000, support::hostile::run) {
        tally.report(
            "hostile peer",
            &[
                "mutated frame",
                "mutated body",
                "repeated frame",
                "random octets",
                "inserted frame",
                "extension",
                "half a frame",
                "items of a hostile peer",
                "items to a hostile peer",
                "a refusal gives the value back",
                "mistakes found",
                "other ends",
                "frames judged",
                "laws",
            ],
        );
    }
}

#[test]
fn how_input_is_cut_and_drained_is_invisible() {
    if let Some(tally) = over_seeds("how_input_is_cut_and_drained_is_invisible", 3_000, support::replay::run)
    {
        tally.report(
            "cuts",
            &[
                "items in scripts",
                "L6 cuts are invisible",
                "L7 draining is invisible",
                "L7 arguments and items are the same",
                "mutated frame",
            ],
        );
    }
}
