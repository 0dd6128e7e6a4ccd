//! Small calls while a large message crosses the same connection.
//!
//! One client, one connection, one server: first the small calls alone, then the large message alone, then both. The
//! large message is made once and sent again and again, one directly behind the other; each counts as arrived when its
//! answer is there, and the last one is hashed at both ends when nothing is measured any more. The connection's
//! heartbeat interval is the least that a server grants by default, so that a heartbeat that is late closes it.

mod report;
mod run;
mod server;
pub(crate) mod table;

use crate::args::Args;
use crate::error::{Failure, Result};
use crate::process::{self, LOAD_CORE, Server};
use crate::served::Served;

pub(crate) use report::{Latency, MixedReport, Traffic};
pub(crate) use server::serve;

use std::time::Duration;

use tieline_tokio::Limits;

/// Octets of the argument of a small call.
const SMALL: usize = 64;
/// The least heartbeat interval that a server grants by default.
const HEARTBEAT: Duration = Duration::from_millis(200);
/// What senders cut at while anything else waits (protocol, R-FRG-11).
pub(crate) const FRAGMENT: u32 = 16 << 10;
/// The largest message that there can be.
pub(crate) const LARGEST: u32 = 1 << 30;

/// The way that the large message takes; the small calls always go from the client to the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    /// As the argument of a call.
    Up,
    /// As its answer.
    Down,
}

impl Way {
    pub(crate) const ALL: [Self; 2] = [Self::Up, Self::Down];

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Up => "up",
            Self::Down => "down",
        }
    }

    fn from_name(name: &str) -> Result<Self> {
        Self::ALL
            .into_iter()
            .find(|way| way.name() == name)
            .ok_or_else(|| Failure::new(format!("--way is up or down, not {name}")))
    }
}

/// What a run does.
#[derive(Clone, Copy, Debug)]
struct Plan {
    way: Way,
    /// Octets of the large message.
    octets: u32,
    /// How often it crosses in each part of the run, at least.
    times: u32,
    /// How long the small calls are measured alone.
    alone: Duration,
    /// Small calls a second in the open loop.
    rate: u32,
}

/// What somebody sets who has such messages; all else is the default. Both ends hold one message that arrives, and the
/// buffer of the one before; and what waits to be sent must not keep small calls waiting for room.
fn limits(octets: u32) -> Limits {
    let mut limits = Limits::default();
    limits.max_message = octets.max(limits.max_message);
    limits.memory = limits.memory.max(3 * octets as usize);
    limits.server_memory = limits.server_memory.max(limits.memory);
    limits.max_queued = limits.max_queued.max(2 * octets as usize);
    limits
}

/// `mixed [--way up|down] [--octets N] [--times N] [--seconds S] [--rate R] [--json]`
pub(crate) fn command(mut args: Args) -> Result<()> {
    let way: Option<String> = args.value("--way")?;
    let plan = Plan {
        way: way.map_or(Ok(Way::Up), |way| Way::from_name(&way))?,
        octets: args.value("--octets")?.unwrap_or(LARGEST),
        times: args.value("--times")?.unwrap_or(3),
        alone: args.time("--seconds", 1.0)?,
        rate: args.value("--rate")?.unwrap_or(2000),
    };
    let json = args.switch("--json");
    args.end()?;
    if !(FRAGMENT..=LARGEST).contains(&plan.octets)
        || plan.times == 0
        || plan.rate == 0
        || plan.alone.is_zero()
    {
        return Err(Failure::new(
            "--octets is from 16384 to 2^30; --times, --seconds and --rate are above 0",
        ));
    }
    process::pin(LOAD_CORE);
    let server = Server::start(Served::Mixed.name())?;
    let report = run::run(&plan, server.address)?;
    if json {
        println!("{}", report.to_json());
    } else {
        println!("{report}");
    }
    Ok(())
}

/// A cheap hash in which every octet and its place count.
fn hash(octets: &[u8]) -> u64 {
    let mix = |hash: u64, word: u64| (hash.rotate_left(5) ^ word).wrapping_mul(0x517C_C1B7_2722_0A95);
    let (words, rest) = octets.as_chunks::<8>();
    let words = words.iter().fold(octets.len() as u64, |hash, word| mix(hash, u64::from_le_bytes(*word)));
    rest.iter().fold(words, |hash, octet| mix(hash, u64::from(*octet)))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::indexing_slicing)]

    use super::*;

    #[test]
    fn every_octet_and_its_place_count() {
        let octets: Vec<u8> = (0..=250).cycle().take(1003).collect();
        let whole = hash(&octets);
        for at in [0, 1, 500, 999, 1000, 1002] {
            let mut other = octets.clone();
            other[at] ^= 1;
            assert_ne!(hash(&other), whole, "{at}");
        }
        let mut moved = octets.clone();
        moved.swap(100, 900);
        assert_ne!(hash(&moved), whole);
        assert_ne!(hash(&octets[..1002]), whole);
    }
}
