//! The bodies of the fuzz targets: functions of octets that need no fuzzer. `fuzz_targets` hands them to libFuzzer, and
//! `core/tests/corpus.rs` gives them the corpus as an ordinary test.
//!
//! | file | what |
//! |---|---|
//! | `parsers`, `canonical` | one target a parser, and a second opinion on what is canonical |
//! | `hostile` | a connection as client or as server opposite octets that the input makes up |
//! | `operations`, `pair` | two connections: any verbs in any order; any line between them |
//! | `node`, `verbs` | a connection whose application keeps account, its laws, and the table of its verbs |
//! | `two` | two nodes, the line between them, and the account at the end |
//! | `watch`, `frames` | an observer of what a connection writes; frames built by hand |
//! | `input` | the fuzzer's octets as a row of choices |
#![allow(
    dead_code,
    missing_docs,
    missing_debug_implementations,
    unreachable_pub,
    clippy::unwrap_used,
    clippy::panic,
    clippy::missing_panics_doc,
    clippy::must_use_candidate
)]

pub mod canonical;
pub mod frames;
pub mod hostile;
pub mod input;
pub mod node;
pub mod operations;
pub mod pair;
pub mod parsers;
pub mod two;
pub mod verbs;
pub mod watch;

/// A target: its name, which is also that of its corpus, and its body. Of two runs of one input the numbers that the
/// bodies of connections give are the same (L13).
pub type Target = (&'static str, fn(&[u8]) -> u64);

macro_rules! parsers {
    ($($name:ident),*) => { [$((stringify!($name), |octets| { parsers::$name(octets); 0 })),*] };
}

/// The targets for one parser each.
pub const PARSERS: [Target; 13] = parsers![
    body,
    check_in,
    check_in_ack,
    close,
    credit,
    drain,
    frame,
    header,
    item,
    number,
    request,
    response,
    table
];

/// The targets for connections.
pub const CONNECTIONS: [Target; 4] = [
    ("client", hostile::client),
    ("operations", operations::operations),
    ("pair", pair::pair),
    ("server", hostile::server),
];
