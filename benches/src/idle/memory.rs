//! What an idle connection takes of the server's memory.

use std::thread::sleep;
use std::time::Duration;

use super::proc::Resident;
use super::server::Product;
use super::world::{Held, World};
use crate::error::{Failure, Result};
use crate::sys::Heap;

/// Intervals after which a connection counts as idle: within these each has beaten twice.
const INTERVALS: f64 = 2.5;

/// One look at the server.
#[derive(Clone, Debug)]
struct Look {
    heap: Heap,
    resident: Resident,
}

impl Look {
    fn take(world: &World) -> Result<Self> {
        // The kernel first: to be asked takes memory, if only for a moment.
        let resident = Resident::of(world.server.pid())?;
        Ok(Self { heap: world.heap()?, resident })
    }
}

/// Memory a connection, in octets.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Memory {
    /// As it was asked for.
    pub(super) octets: f64,
    pub(super) blocks: f64,
    pub(super) rss: f64,
    pub(super) pss: f64,
    /// Blocks a connection, by their size; of sizes that one in ten connections has.
    pub(super) sizes: Vec<(usize, f64)>,
}

impl Memory {
    fn between(before: &Look, after: &Look, connections: u32) -> Self {
        let a_connection = |change: i64| change as f64 / f64::from(connections);
        let grown = |before: u64, after: u64| (after as f64 - before as f64) / f64::from(connections);
        let count = |heap: &Heap, size| {
            heap.sizes.iter().find(|(known, _)| *known == size).map_or(0, |(_, count)| *count)
        };
        let sizes = after
            .heap
            .sizes
            .iter()
            .map(|(size, count_after)| (*size, a_connection(count_after - count(&before.heap, *size))));
        Self {
            octets: a_connection(after.heap.octets - before.heap.octets),
            blocks: a_connection(after.heap.blocks - before.heap.blocks),
            rss: grown(before.resident.rss, after.resident.rss),
            pss: grown(before.resident.pss, after.resident.pss),
            sizes: sizes.filter(|(_, count)| *count >= 0.1).collect(),
        }
    }
}

/// Right after check-in, and idle.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Measured {
    pub(super) connections: u32,
    pub(super) heartbeat: Duration,
    pub(super) fresh: Memory,
    pub(super) idle: Memory,
    /// Heartbeats that came on a connection, and that went out on it, since check-in.
    pub(super) came: f64,
    pub(super) went: f64,
}

/// Measures with so many connections.
pub(super) fn measure(product: Product, held: Held) -> Result<Measured> {
    let Held { count: connections, heartbeat, .. } = held;
    let mut world = World::start(product, false)?;
    let before = Look::take(&world)?;
    world.hold(held)?;
    let fresh = Look::take(&world)?;
    sleep(heartbeat.mul_f64(INTERVALS));
    let idle = Look::take(&world)?;
    let beats = world.beats()?;
    if beats.connections != u64::from(connections) || beats.least < 2 {
        return Err(Failure::new(format!(
            "{} of {connections} connections are there, and one has seen {} heartbeats",
            beats.connections, beats.least
        )));
    }
    world.stop()?;
    Ok(Measured {
        connections,
        heartbeat,
        fresh: Memory::between(&before, &fresh, connections),
        idle: Memory::between(&before, &idle, connections),
        came: beats.came as f64 / f64::from(connections),
        went: beats.went as f64 / f64::from(connections),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_there_before_is_no_connections() {
        let look = |octets, blocks, sizes, rss| Look {
            heap: Heap { octets, blocks, sizes },
            resident: Resident { rss, pss: rss / 2 },
        };
        let before = look(1000, 10, vec![(16, 5), (700, 5)], 40_960);
        let after = look(3000, 30, vec![(16, 5), (700, 15), (900, 10), (1000, 1)], 81_920);
        let memory = Memory::between(&before, &after, 10);
        assert_eq!((memory.octets, memory.blocks, memory.rss, memory.pss), (200.0, 2.0, 4096.0, 2048.0));
        assert_eq!(memory.sizes, [(700, 1.0), (900, 1.0), (1000, 0.1)]);
    }
}
