//! The corpus of the fuzz targets as an ordinary test: what a fuzzer has found once stays found. And the seeds that the
//! corpus began with, for making them anew.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, clippy::print_stdout)]

mod corpus_seeds;
#[path = "../fuzz/src/lib.rs"]
mod targets;
#[allow(dead_code, reason = "the vectors are read whole here, and run by the tests of their own")]
mod vector_files;

use std::{
    fs,
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    path::PathBuf,
};

use targets::{CONNECTIONS, PARSERS, SNAPPY, Target, heap::Noting};

/// The target for compressed payloads asks how much was allocated at once.
#[global_allocator]
static HEAP: Noting = Noting;

fn corpus(target: &str) -> PathBuf {
    [env!("CARGO_MANIFEST_DIR"), "fuzz", "corpus", target].iter().collect()
}

/// Every input of a target, twice: the second run gives the same.
fn replay((name, body): Target) {
    let mut files: Vec<_> = fs::read_dir(corpus(name)).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    let mut traces = std::collections::BTreeSet::new();
    for file in &files {
        let input = fs::read(file).unwrap();
        match catch_unwind(AssertUnwindSafe(|| (body(&input), body(&input)))) {
            Ok((first, second)) => {
                assert_eq!(first, second, "L13: the same input, another run: {}", file.display());
                traces.insert(first);
            }
            Err(panic) => {
                println!("{name} failed on {}", file.display());
                resume_unwind(panic);
            }
        }
    }
    println!("{name}: {} inputs, {} different runs", files.len(), traces.len());
    assert!(files.len() >= 5, "{name} has no corpus to speak of");
}

#[test]
fn the_parsers_bear_their_corpus() {
    PARSERS.into_iter().for_each(replay);
}

#[test]
fn a_client_bears_its_corpus() {
    replay(CONNECTIONS[0]);
}

#[test]
fn any_operations_keep_the_laws() {
    replay(CONNECTIONS[1]);
}

#[test]
fn a_pair_keeps_the_laws_however_its_line_is_cut() {
    replay(CONNECTIONS[2]);
}

#[test]
fn blocks_are_judged_before_they_are_unfolded() {
    replay(SNAPPY);
}

#[test]
fn a_server_bears_its_corpus() {
    replay(CONNECTIONS[3]);
}

/// Every seed is good for its target, whatever has become of the corpus since.
#[test]
fn the_seeds_do_what_they_should() {
    let mut count = 0;
    for (target, name, octets) in corpus_seeds::all() {
        let body =
            PARSERS.iter().chain(&CONNECTIONS).chain([&SNAPPY]).find(|(name, _)| *name == target).unwrap().1;
        println!("{target} {name}");
        body(&octets);
        count += 1;
    }
    assert!(count > 1_000, "{count} seeds");
}

/// Writes the seeds into the corpora, beside what is there: `cargo test -p tieline-core --test corpus -- --ignored`.
#[test]
#[ignore = "writes files"]
fn write_seeds() {
    for (target, name, octets) in corpus_seeds::all() {
        fs::create_dir_all(corpus(target)).unwrap();
        fs::write(corpus(target).join(name), octets).unwrap();
    }
}
