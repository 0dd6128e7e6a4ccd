//! Work inside one process, repeated as often as asked: what an instruction count counts.

use std::hint::black_box;

use crate::error::{Context, Failure, Result};
use crate::frame::{self, Kind};

/// One function whose instructions are counted.
pub(crate) struct Spin {
    /// Its name on the command line.
    pub(crate) label: &'static str,
    /// What one round trip is.
    pub(crate) what: &'static str,
    /// Makes so many round trips. What it does besides must not depend on their number.
    pub(crate) round_trips: fn(usize) -> Result<()>,
}

impl Spin {
    pub(crate) const ALL: &[Self] = &[Self {
        label: "raw-header",
        what: "64 octets: request emitted and parsed, response emitted and parsed, by hand; no connection",
        round_trips: raw_header,
    }];

    pub(crate) fn from_label(label: &str) -> Result<&'static Self> {
        Self::ALL.iter().find(|spin| spin.label == label).ok_or_else(|| {
            let known: Vec<_> = Self::ALL.iter().map(|spin| spin.label).collect();
            Failure::new(format!("no label {label:?}; there are {}", known.join(", ")))
        })
    }
}

fn raw_header(count: usize) -> Result<()> {
    let payload = [7; 64];
    let (mut requests, mut responses) = (Vec::new(), Vec::new());
    for id in (1..).step_by(2).take(count) {
        frame::emit(&mut requests, Kind::Request, id, black_box(&payload)).context("request")?;
        frame::echo(black_box(&requests), &mut responses).context("request")?;
        let reply = frame::parse(black_box(&responses), Kind::Response).context("response")?;
        black_box(reply);
        requests.clear();
        responses.clear();
    }
    Ok(())
}
