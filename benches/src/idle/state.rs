//! What the server tells of itself.

use serde_json::{Value, json};
use tieline::Stats;

use crate::error::{Failure, Result};
use crate::sys::Heap;

/// What lies on the heap of a server, for [`heap_of`] to read.
pub(super) fn heap_to_json(heap: &Heap) -> String {
    json!({ "octets": heap.octets, "blocks": heap.blocks, "sizes": heap.sizes }).to_string()
}

/// Reads what [`heap_to_json`] wrote.
pub(super) fn heap_of(text: &str) -> Result<Heap> {
    let value: Value = serde_json::from_str(text)?;
    let odd = || Failure::new(format!("this is no heap: {text}"));
    let size = |pair: &Value| {
        let size = pair.get(0)?.as_u64()?;
        Some((usize::try_from(size).ok()?, pair.get(1)?.as_i64()?))
    };
    let sizes = value["sizes"].as_array().ok_or_else(odd)?;
    Ok(Heap {
        octets: value["octets"].as_i64().ok_or_else(odd)?,
        blocks: value["blocks"].as_i64().ok_or_else(odd)?,
        sizes: sizes.iter().map(size).collect::<Option<_>>().ok_or_else(odd)?,
    })
}

/// The idle connections of a server.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Beats {
    /// Those that are checked in.
    pub(super) connections: u64,
    /// Heartbeats that came in on them.
    pub(super) came: u64,
    /// Heartbeats that went out on them, answers not among them.
    pub(super) went: u64,
    /// Both together, of the connection that has seen the fewest.
    pub(super) least: u64,
    /// When tasks were polled, or a loop without tasks had its turns, in microseconds, where that is noted.
    pub(super) polls: Vec<u64>,
    /// The same of octets that a connection read or wrote.
    pub(super) moved: Vec<u64>,
}

impl Beats {
    /// Adds an idle connection. `least` is the largest number until there is one.
    pub(super) fn add(&mut self, stats: &Stats) {
        self.connections += 1;
        self.came += stats.heartbeats_in;
        self.went += stats.heartbeats_out;
        self.least = self.least.min(stats.heartbeats_in + stats.heartbeats_out);
    }

    pub(super) fn to_json(&self) -> String {
        let Self { connections, came, went, least, polls, moved } = self;
        json!({ "connections": connections, "came": came, "went": went, "least": least, "polls": polls, "moved": moved })
            .to_string()
    }

    /// Reads what [`Beats::to_json`] wrote.
    pub(super) fn from_json(text: &str) -> Result<Self> {
        let value: Value = serde_json::from_str(text)?;
        let odd = || Failure::new(format!("these are no heartbeats: {text}"));
        let number = |name: &str| value[name].as_u64().ok_or_else(odd);
        let moments = |name: &str| {
            let moments = value[name].as_array().ok_or_else(odd)?;
            moments.iter().map(Value::as_u64).collect::<Option<_>>().ok_or_else(odd)
        };
        Ok(Self {
            connections: number("connections")?,
            came: number("came")?,
            went: number("went")?,
            least: number("least")?,
            polls: moments("polls")?,
            moved: moments("moved")?,
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn what_a_server_tells_survives_json() {
        let heap = Heap { octets: -5, blocks: 3, sizes: vec![(16, 4), (4096, -1)] };
        assert_eq!(heap_of(&heap_to_json(&heap)).unwrap(), heap);
        let beats =
            Beats { connections: 7, came: 30, went: 4, least: 2, polls: vec![1, 1_000_000], moved: vec![7] };
        assert_eq!(Beats::from_json(&beats.to_json()).unwrap(), beats);
        for odd in ["", "{}", "[]"] {
            assert!(heap_of(odd).is_err() && Beats::from_json(odd).is_err(), "{odd}");
        }
    }
}
