//! What the command and the criterion benches share: two connections of the core, joined by a tight loop in one process.
//! [`Pair`] calls and is answered, [`OneWays`] only sends.
//!
//! Everything else is the command `tieline-benches`; `README.md` says what is measured and how.

mod end;
mod one_way;
mod pair;

pub use end::{ECHO, PAYLOAD, Unexpected, client_config, server_config};
pub use one_way::OneWays;
pub use pair::Pair;
