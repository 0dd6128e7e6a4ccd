//! The bodies of the fuzz targets: functions of octets that need no fuzzer. `fuzz_targets` hands them to libFuzzer, and
//! `core/tests/corpus.rs` gives them the corpus as an ordinary test.
//!
//! | file | what |
//! |---|---|
//! | `parsers`, `canonical` | one target a parser, and a second opinion on what is canonical |
//! | `hostile`, `stranger` | a connection as client or as server opposite octets that the input makes up |
//! | `operations`, `pair` | two connections: any verbs in any order; any line between them |
//! | `node`, `verbs` | a connection whose application keeps account, its laws, and the table of its verbs |
//! | `streams` | streams as the application of a node has to do with them |
//! | `two` | two nodes, the line between them, and the account at the end |
//! | `watch`, `assembly`, `flows` | an observer of a line: frames, messages in pieces, streams and their credit |
//! | `frames` | frames built by hand |
//! | `snappy`, `heap` | Snappy blocks, against a second reader; the largest allocation |
//! | `input` | the fuzzer's octets as a row of choices |
#![allow(
    dead_code,
    missing_docs,
    missing_debug_implementations,
    unreachable_pub,
    clippy::unwrap_used,
    clippy::panic,
    clippy::missing_panics_doc,
    clippy::must_use_candidate,
    unsafe_code
)]

pub mod assembly;
pub mod canonical;
pub mod flows;
pub mod frames;
pub mod heap;
pub mod hostile;
pub mod input;
pub mod node;
pub mod operations;
pub mod pair;
pub mod parsers;
pub mod snappy;
pub mod stranger;
pub mod streams;
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

/// The target for compressed payloads.
pub const SNAPPY: Target = ("snappy", snappy::snappy);
