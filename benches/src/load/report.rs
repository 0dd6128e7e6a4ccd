//! The figures of one run, for people and for programs.

use std::fmt;

use serde_json::{Value, json};

use crate::error::{Failure, Result};

/// One run. Latencies in microseconds, processor time in microseconds a call.
#[derive(Clone, Debug, PartialEq)]
pub struct Report {
    /// What was measured.
    pub target: String,
    /// Octets of a call, and of its reply.
    pub payload: usize,
    /// Connections.
    pub connections: usize,
    /// Calls open at once on each.
    pub in_flight: usize,
    /// Calls a second that an open loop was told to begin; `None` for a closed loop.
    pub rate: Option<u32>,
    /// The measured window.
    pub seconds: f64,
    /// Calls that ended in it.
    pub calls: u64,
    /// Over all connections.
    pub calls_per_second: f64,
    /// How many latencies were taken.
    pub latency_samples: u64,
    /// One call in so many had its latency taken.
    pub sample_every: u32,
    /// The median latency.
    pub p50: f64,
    /// Of a hundred calls one is slower.
    pub p99: f64,
    /// Of a thousand calls one is slower.
    pub p999: f64,
    /// The slowest.
    pub max: f64,
    /// Calls of an open loop that were due and never began; their age is among the latencies.
    pub not_begun: u64,
    /// Of the server process, if it is known.
    pub server_cpu: Option<f64>,
    /// Of the process of the load, generator included.
    pub client_cpu: f64,
}

impl Report {
    /// One line.
    pub fn to_json(&self) -> String {
        json!({
            "target": self.target,
            "payload_octets": self.payload,
            "connections": self.connections,
            "in_flight": self.in_flight,
            "mode": if self.rate.is_some() { "open" } else { "closed" },
            "rate": self.rate,
            "seconds": self.seconds,
            "calls": self.calls,
            "calls_per_second": self.calls_per_second,
            "latency_samples": self.latency_samples,
            "latency_sample_every": self.sample_every,
            "p50_us": self.p50,
            "p99_us": self.p99,
            "p999_us": self.p999,
            "max_us": self.max,
            "not_begun": self.not_begun,
            "server_cpu_us_per_call": self.server_cpu,
            "client_cpu_us_per_call": self.client_cpu,
        })
        .to_string()
    }

    /// Reads what [`Report::to_json`] wrote.
    pub fn from_json(line: &str) -> Result<Self> {
        let value: Value = serde_json::from_str(line)?;
        let missing = |name: &str| Failure::new(format!("a report without {name}: {line}"));
        let float = |name: &str| value[name].as_f64().ok_or_else(|| missing(name));
        let whole = |name: &str| value[name].as_u64().ok_or_else(|| missing(name));
        let size = |name: &str| usize::try_from(whole(name)?).map_err(|_| missing(name));
        Ok(Self {
            target: value["target"].as_str().ok_or_else(|| missing("target"))?.to_owned(),
            payload: size("payload_octets")?,
            connections: size("connections")?,
            in_flight: size("in_flight")?,
            rate: value["rate"].as_u64().and_then(|rate| u32::try_from(rate).ok()),
            seconds: float("seconds")?,
            calls: whole("calls")?,
            calls_per_second: float("calls_per_second")?,
            latency_samples: whole("latency_samples")?,
            sample_every: u32::try_from(whole("latency_sample_every")?)
                .map_err(|_| missing("latency_sample_every"))?,
            p50: float("p50_us")?,
            p99: float("p99_us")?,
            p999: float("p999_us")?,
            max: float("max_us")?,
            not_begun: whole("not_begun")?,
            server_cpu: value["server_cpu_us_per_call"].as_f64(),
            client_cpu: float("client_cpu_us_per_call")?,
        })
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let plural = if self.connections == 1 { "" } else { "s" };
        write!(
            f,
            "{}: {} octets, {} connection{plural} × {} in flight, ",
            self.target, self.payload, self.connections, self.in_flight
        )?;
        match self.rate {
            None => writeln!(f, "closed loop, {:.2} s", self.seconds)?,
            Some(rate) => writeln!(f, "open loop at {rate} calls/s, {:.2} s", self.seconds)?,
        }
        writeln!(f, "  {:.0} calls/s ({} calls)", self.calls_per_second, self.calls)?;
        write!(
            f,
            "  latency µs: p50 {:.1}, p99 {:.1}, p99.9 {:.1}, max {:.1}",
            self.p50, self.p99, self.p999, self.max
        )?;
        match (self.rate, self.sample_every) {
            (Some(_), _) => writeln!(f, " (of every call, from its intended start)")?,
            (None, 1) => writeln!(f, " (of every call)")?,
            (None, every) => writeln!(f, " (of one call in {every})")?,
        }
        if self.not_begun > 0 {
            writeln!(
                f,
                "  {} calls were due and never began: their age at the end is among the latencies",
                self.not_begun
            )?;
        }
        match self.server_cpu {
            Some(server) => write!(f, "  CPU µs a call: server {server:.3}, ")?,
            None => write!(f, "  CPU µs a call: ")?,
        }
        match self.rate {
            None => write!(f, "client {:.3}, load generator included", self.client_cpu),
            Some(_) => write!(f, "client {:.3}, which polls the clock in an open loop", self.client_cpu),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn a_report_survives_json() {
        let mut report = Report {
            target: "epoll".to_owned(),
            payload: 64,
            connections: 2,
            in_flight: 128,
            rate: Some(1000),
            seconds: 1.5,
            calls: 1500,
            calls_per_second: 1000.0,
            latency_samples: 1500,
            sample_every: 1,
            p50: 15.25,
            p99: 20.5,
            p999: 31.0,
            max: 99.0,
            not_begun: 3,
            server_cpu: Some(1.25),
            client_cpu: 2.5,
        };
        assert_eq!(Report::from_json(&report.to_json()).unwrap(), report);
        report.rate = None;
        report.server_cpu = None;
        assert_eq!(Report::from_json(&report.to_json()).unwrap(), report);
        assert!(Report::from_json("{}").is_err());
    }
}
