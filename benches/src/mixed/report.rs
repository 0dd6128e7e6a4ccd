//! The figures of one run, for people and for programs.

use std::fmt;

use hdrhistogram::Histogram;
use serde_json::{Value, json};

use super::{FRAGMENT, HEARTBEAT};
use crate::error::{Failure, Result};

/// How long calls took, in microseconds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Latency {
    pub(crate) calls: u64,
    pub(crate) p50: f64,
    pub(crate) p90: f64,
    pub(crate) p99: f64,
    pub(crate) p999: f64,
    pub(crate) max: f64,
}

impl Latency {
    /// Of nanoseconds.
    pub(super) fn of(taken: &Histogram<u64>) -> Self {
        let at = |quantile| taken.value_at_quantile(quantile) as f64 / 1000.0;
        let (calls, max) = (taken.len(), taken.max() as f64 / 1000.0);
        Self { calls, p50: at(0.5), p90: at(0.9), p99: at(0.99), p999: at(0.999), max }
    }

    fn to_value(self) -> Value {
        json!([self.calls, self.p50, self.p90, self.p99, self.p999, self.max])
    }

    fn from_value(value: &Value) -> Option<Self> {
        let float = |at: usize| value.get(at)?.as_f64();
        let (calls, p50, p90) = (value.get(0)?.as_u64()?, float(1)?, float(2)?);
        Some(Self { calls, p50, p90, p99: float(3)?, p999: float(4)?, max: float(5)? })
    }
}

/// What was sent to show life, in a part of a run.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Traffic {
    pub(crate) seconds: f64,
    pub(crate) client_beats: u64,
    pub(crate) server_beats: u64,
}

impl Traffic {
    /// How many intervals have passed.
    pub(crate) fn intervals(&self) -> f64 {
        self.seconds / HEARTBEAT.as_secs_f64()
    }

    fn to_value(self) -> Value {
        json!([self.seconds, self.client_beats, self.server_beats])
    }

    fn from_value(value: &Value) -> Option<Self> {
        let (seconds, client, server) =
            (value.get(0)?.as_f64()?, value.get(1)?.as_u64()?, value.get(2)?.as_u64()?);
        Some(Self { seconds, client_beats: client, server_beats: server })
    }
}

/// One run. Rates of the large message in octets a second.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct MixedReport {
    pub(crate) way: String,
    pub(crate) octets: u32,
    /// Small calls a second in the open loop.
    pub(crate) open_loop: u32,
    /// Of the first message, whose memory is new.
    pub(crate) first_rate: f64,
    /// Without small calls.
    pub(crate) rate: f64,
    /// Beside the closed and the open loop.
    pub(crate) closed_rate: f64,
    pub(crate) open_rate: f64,
    pub(crate) closed: Latency,
    pub(crate) closed_beside: Latency,
    pub(crate) open: Latency,
    pub(crate) open_beside: Latency,
    /// Heartbeats on an idle line, while the large message crosses alone, and beside small calls.
    pub(crate) idle: Traffic,
    pub(crate) large_alone: Traffic,
    pub(crate) both: Traffic,
}

/// What a fragment of 16 KiB takes at so many octets a second, in microseconds.
pub(crate) fn fragment(rate: f64) -> f64 {
    f64::from(FRAGMENT) / rate * 1e6
}

impl MixedReport {
    /// One line.
    pub(crate) fn to_json(&self) -> String {
        json!({
            "way": self.way,
            "octets": self.octets,
            "open_loop": self.open_loop,
            "first_rate": self.first_rate,
            "rate": self.rate,
            "closed_rate": self.closed_rate,
            "open_rate": self.open_rate,
            "closed": self.closed.to_value(),
            "closed_beside": self.closed_beside.to_value(),
            "open": self.open.to_value(),
            "open_beside": self.open_beside.to_value(),
            "idle": self.idle.to_value(),
            "large_alone": self.large_alone.to_value(),
            "both": self.both.to_value(),
        })
        .to_string()
    }

    /// Reads what [`MixedReport::to_json`] wrote.
    pub(crate) fn from_json(line: &str) -> Result<Self> {
        let value: Value = serde_json::from_str(line)?;
        let missing = |name: &str| Failure::new(format!("a report without {name}: {line}"));
        let float = |name: &str| value[name].as_f64().ok_or_else(|| missing(name));
        let number = |name: &str| {
            let number = value[name].as_u64().and_then(|number| u32::try_from(number).ok());
            number.ok_or_else(|| missing(name))
        };
        let latency = |name: &str| Latency::from_value(&value[name]).ok_or_else(|| missing(name));
        let traffic = |name: &str| Traffic::from_value(&value[name]).ok_or_else(|| missing(name));
        Ok(Self {
            way: value["way"].as_str().ok_or_else(|| missing("way"))?.to_owned(),
            octets: number("octets")?,
            open_loop: number("open_loop")?,
            first_rate: float("first_rate")?,
            rate: float("rate")?,
            closed_rate: float("closed_rate")?,
            open_rate: float("open_rate")?,
            closed: latency("closed")?,
            closed_beside: latency("closed_beside")?,
            open: latency("open")?,
            open_beside: latency("open_beside")?,
            idle: traffic("idle")?,
            large_alone: traffic("large_alone")?,
            both: traffic("both")?,
        })
    }
}

impl fmt::Display for MixedReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mib = |rate: f64| rate / f64::from(1 << 20);
        writeln!(f, "large message of {} octets, {}; connection and content whole", self.octets, self.way)?;
        writeln!(
            f,
            "  MiB/s: first {:.0}, alone {:.0}, beside a closed loop {:.0}, beside an open loop {:.0}",
            mib(self.first_rate),
            mib(self.rate),
            mib(self.closed_rate),
            mib(self.open_rate),
        )?;
        let loops = [
            ("closed loop, alone", &self.closed, None),
            ("closed loop, beside", &self.closed_beside, Some(self.closed_rate)),
            ("open loop, alone", &self.open, None),
            ("open loop, beside", &self.open_beside, Some(self.open_rate)),
        ];
        for (name, latency, rate) in loops {
            write!(
                f,
                "  {name}: {} calls, µs p50 {:.1}, p90 {:.1}, p99 {:.1}, p99.9 {:.1}, max {:.1}",
                latency.calls, latency.p50, latency.p90, latency.p99, latency.p999, latency.max
            )?;
            match rate {
                Some(rate) => writeln!(
                    f,
                    "; a fragment takes {:.1}, three {:.1}",
                    fragment(rate),
                    3.0 * fragment(rate)
                )?,
                None => writeln!(f)?,
            }
        }
        let parts =
            [("idle", &self.idle), ("large alone", &self.large_alone), ("large and small", &self.both)];
        let parts = parts.map(|(name, part)| {
            format!(
                "{name}: {} and {} in {:.1} intervals",
                part.client_beats,
                part.server_beats,
                part.intervals()
            )
        });
        write!(f, "  heartbeats of client and server, {}", parts.join("; "))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn latency(p99: f64) -> Latency {
        Latency { calls: 1000, p50: 1.5, p90: 2.5, p99, p999: 4.5, max: 5.5 }
    }

    #[test]
    fn a_report_survives_json() {
        let traffic = Traffic { seconds: 1.25, client_beats: 6, server_beats: 0 };
        let report = MixedReport {
            way: "up".to_owned(),
            octets: 1 << 30,
            open_loop: 2000,
            first_rate: 5e8,
            rate: 1.5e9,
            closed_rate: 1.25e9,
            open_rate: 1e9,
            closed: latency(20.5),
            closed_beside: latency(30.5),
            open: latency(40.5),
            open_beside: latency(50.5),
            idle: traffic,
            large_alone: Traffic { seconds: 2.5, ..traffic },
            both: traffic,
        };
        assert_eq!(MixedReport::from_json(&report.to_json()).unwrap(), report);
        assert!(MixedReport::from_json("{}").is_err());
        assert_eq!(fragment(f64::from(16 << 20)), 1e6 / 1024.0);
        assert!((traffic.intervals() - 6.25).abs() < 1e-9);
    }
}
