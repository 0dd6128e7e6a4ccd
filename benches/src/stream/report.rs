//! The figures of one stream, for people and for programs.

use std::fmt;

use serde_json::{Value, json};

use crate::error::{Failure, Result};

/// One run. Processor time in nanoseconds an item.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct StreamReport {
    pub(crate) sender: String,
    /// The credit, in octets, where there is any.
    pub(crate) window: Option<u32>,
    pub(crate) seconds: f64,
    pub(crate) items: u64,
    pub(crate) items_per_second: f64,
    pub(crate) server_cpu: f64,
    pub(crate) client_cpu: f64,
}

impl StreamReport {
    /// One line.
    pub(crate) fn to_json(&self) -> String {
        json!({
            "sender": self.sender,
            "window_octets": self.window,
            "seconds": self.seconds,
            "items": self.items,
            "items_per_second": self.items_per_second,
            "server_cpu_ns_per_item": self.server_cpu,
            "client_cpu_ns_per_item": self.client_cpu,
        })
        .to_string()
    }

    /// Reads what [`StreamReport::to_json`] wrote.
    pub(crate) fn from_json(line: &str) -> Result<Self> {
        let value: Value = serde_json::from_str(line)?;
        let missing = |name: &str| Failure::new(format!("a report without {name}: {line}"));
        let float = |name: &str| value[name].as_f64().ok_or_else(|| missing(name));
        Ok(Self {
            sender: value["sender"].as_str().ok_or_else(|| missing("sender"))?.to_owned(),
            window: value["window_octets"].as_u64().and_then(|window| u32::try_from(window).ok()),
            seconds: float("seconds")?,
            items: value["items"].as_u64().ok_or_else(|| missing("items"))?,
            items_per_second: float("items_per_second")?,
            server_cpu: float("server_cpu_ns_per_item")?,
            client_cpu: float("client_cpu_ns_per_item")?,
        })
    }
}

impl fmt::Display for StreamReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: items of {} octets on one stream, ", self.sender, super::ITEM)?;
        match self.window {
            Some(window) => writeln!(f, "window {window} octets, {:.2} s", self.seconds)?,
            None => writeln!(f, "no credit, {:.2} s", self.seconds)?,
        }
        writeln!(f, "  {:.0} items/s ({} items)", self.items_per_second, self.items)?;
        write!(f, "  CPU ns an item: server {:.1}, client {:.1}", self.server_cpu, self.client_cpu)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn a_report_survives_json() {
        let mut report = StreamReport {
            sender: "raw".to_owned(),
            window: None,
            seconds: 1.5,
            items: 1_000_000,
            items_per_second: 666_666.5,
            server_cpu: 12.5,
            client_cpu: 30.25,
        };
        assert_eq!(StreamReport::from_json(&report.to_json()).unwrap(), report);
        report.window = Some(65_536);
        assert_eq!(StreamReport::from_json(&report.to_json()).unwrap(), report);
        assert!(StreamReport::from_json("{}").is_err());
    }
}
