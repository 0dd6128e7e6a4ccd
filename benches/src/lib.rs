//! What the command and the criterion benches share: [`pair`], two connections of the core in one process.
//!
//! Everything else is the command `tieline-benches`; `README.md` says what is measured and how.

pub mod pair;
