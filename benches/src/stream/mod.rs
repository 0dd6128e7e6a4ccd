//! Items of one stream on one connection, from the server to the client, as fast as they go.
//!
//! The client takes every item and compares it with what must come next, so an item that is lost, doubled, changed or
//! out of turn fails the run. What is sent are [`KINDS`] different items in turn, made beforehand.

mod product;
mod raw;
mod report;
pub(crate) mod table;

use std::convert::Infallible;
use std::net::{SocketAddr, TcpListener};
use std::time::{Duration, Instant};

use bytes::Bytes;

pub(crate) use report::StreamReport;

use crate::args::Args;
use crate::error::{Context, Failure, Result};
use crate::load::Payloads;
use crate::process::{self, LOAD_CORE, Server};
use crate::served::Served;
use crate::sys;

/// Octets of an item.
pub(crate) const ITEM: usize = 64;
/// How many different items there are.
const KINDS: usize = 1024;
/// Items between two looks at the clock.
const LOOK: u64 = 1024;
/// The default of the product: `stream_window` of its limits.
pub(crate) const DEFAULT_WINDOW: u32 = 64 << 10;

/// Who sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sender {
    /// A coalescing loop by hand on tokio, without credit: the limit.
    Raw,
    /// The product, a handler that sends item by item.
    Each,
    /// The product, a handler that hands over many at a time.
    Many,
}

impl Sender {
    pub(crate) const ALL: [Self; 3] = [Self::Raw, Self::Each, Self::Many];

    /// The name on the command line of `stream` and in the table.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Raw => "raw",
            Self::Each => "tieline-tokio",
            Self::Many => "tieline-tokio-many",
        }
    }

    /// The name on the command line of `serve`.
    pub(crate) const fn served(self) -> &'static str {
        match self {
            Self::Raw => "items:raw",
            Self::Each => "items:tieline-tokio",
            Self::Many => "items:tieline-tokio-many",
        }
    }

    fn from_name(name: &str) -> Result<Self> {
        Self::ALL.into_iter().find(|sender| sender.name() == name).ok_or_else(|| {
            let known: Vec<_> = Self::ALL.iter().map(|sender| sender.name()).collect();
            Failure::new(format!("no sender {name:?}; there are {}", known.join(", ")))
        })
    }

    /// What it is, and what it does not do.
    pub(crate) const fn description(self) -> &'static str {
        match self {
            Self::Raw => {
                "hand-written loop on tokio: frames of the same size are laid into a buffer of 64 KiB and written, the client reads \
                 what is there, parses and checks headers. Not: credit, calls, handlers, cancelling, heartbeats, deadlines, statistics"
            }
            Self::Each => {
                "Tieline by its public client and server: the handler is an async fn that awaits `send` for each item, the client awaits \
                 `next` for each; credit, heartbeats, limits, statistics. Not: layers, stubs, TLS, a deadline (a stream has none by default)"
            }
            Self::Many => "the same, but the handler hands its items over by `send_all`",
        }
    }

    /// Serves on `listener` until the process ends.
    pub(crate) fn serve(self, listener: TcpListener) -> Result<Infallible> {
        match self {
            Self::Raw => Ok(raw::serve(listener)?),
            Self::Each => product::serve(listener, false),
            Self::Many => product::serve(listener, true),
        }
    }

    fn take(self, address: SocketAddr, window: u32, tally: &mut Tally) -> Result<()> {
        match self {
            Self::Raw => raw::take(address, tally),
            Self::Each | Self::Many => product::take(address, window, tally),
        }
    }
}

/// The items, in the order in which they are sent, again and again.
fn items() -> Vec<Bytes> {
    let payloads = Payloads::new(ITEM, KINDS);
    (0..KINDS).map(|kind| payloads.of(kind)).collect()
}

/// The state of both processes at one moment.
#[derive(Clone, Copy, Debug)]
struct Mark {
    at: Instant,
    items: u64,
    client_cpu: Duration,
    server_cpu: Duration,
}

/// Checks and counts what comes, through a warm-up and a window.
struct Tally {
    wanted: Vec<Bytes>,
    next: usize,
    items: u64,
    server: u32,
    begins: Instant,
    ends: Instant,
    begin: Option<Mark>,
    end: Option<Mark>,
}

impl Tally {
    fn new(server: u32, warmup: Duration, window: Duration) -> Self {
        let begins = Instant::now() + warmup;
        let (begin, end) = (None, None);
        Self { wanted: items(), next: 0, items: 0, server, begins, ends: begins + window, begin, end }
    }

    /// Takes one item; whether more are wanted.
    #[inline]
    fn take(&mut self, item: &[u8]) -> Result<bool> {
        if self.wanted.get(self.next).is_none_or(|wanted| *wanted != item) {
            return Err(Failure::new(format!("item {} is not what must come here", self.items)));
        }
        self.next = (self.next + 1) % KINDS;
        self.items += 1;
        if self.items.is_multiple_of(LOOK) { self.look() } else { Ok(true) }
    }

    fn look(&mut self) -> Result<bool> {
        let now = Instant::now();
        if self.begin.is_none() && now >= self.begins {
            self.begin = Some(self.mark(now)?);
        } else if self.begin.is_some() && now >= self.ends {
            self.end = Some(self.mark(now)?);
        }
        Ok(self.end.is_none())
    }

    fn mark(&self, at: Instant) -> Result<Mark> {
        let server_cpu = sys::cpu_of(self.server).context("the server's clock")?;
        Ok(Mark { at, items: self.items, client_cpu: sys::own_cpu()?, server_cpu })
    }

    fn report(&self, sender: Sender, window: u32) -> Result<StreamReport> {
        let (Some(begin), Some(end)) = (self.begin, self.end) else {
            return Err(Failure::new("the stream ended before it was measured"));
        };
        let (items, time) = ((end.items - begin.items) as f64, (end.at - begin.at).as_secs_f64());
        let an_item = |used: Duration| used.as_secs_f64() * 1e9 / items;
        Ok(StreamReport {
            sender: sender.name().to_owned(),
            window: if sender == Sender::Raw { None } else { Some(window) },
            seconds: time,
            items: end.items - begin.items,
            items_per_second: items / time,
            server_cpu: an_item(end.server_cpu - begin.server_cpu),
            client_cpu: an_item(end.client_cpu - begin.client_cpu),
        })
    }
}

/// `stream --sender SENDER [--window OCTETS] [--seconds S] [--warmup S] [--json]`
pub(crate) fn command(mut args: Args) -> Result<()> {
    let name: String = args.value("--sender")?.ok_or_else(|| Failure::new("--sender is missing"))?;
    let sender = Sender::from_name(&name)?;
    let window = args.value("--window")?.unwrap_or(DEFAULT_WINDOW);
    let seconds = args.time("--seconds", 2.0)?;
    let warmup = args.time("--warmup", 0.25)?;
    let json = args.switch("--json");
    args.end()?;
    if window == 0 || seconds.is_zero() {
        return Err(Failure::new("--window and --seconds are above 0"));
    }
    process::pin(LOAD_CORE);
    let server = Server::start(Served::Items(sender).name())?;
    let mut tally = Tally::new(server.pid(), warmup, seconds);
    sender.take(server.address, window, &mut tally)?;
    let report = tally.report(sender, window)?;
    if json {
        println!("{}", report.to_json());
    } else {
        println!("{report}");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]

    use super::*;

    #[test]
    fn an_item_out_of_turn_is_seen() {
        let all = items();
        let mut tally = Tally::new(std::process::id(), Duration::ZERO, Duration::from_secs(60));
        for item in all.iter().chain(&all) {
            assert!(tally.take(item).unwrap());
        }
        assert!(tally.take(&all[1]).is_err(), "one is missing");
        assert!(tally.take(&all[0][1..]).is_err(), "one is short");
        assert!(tally.take(&all[0]).unwrap());
    }

    #[test]
    fn only_the_window_counts() {
        let all = items();
        let mut tally = Tally::new(std::process::id(), Duration::ZERO, Duration::ZERO);
        let taken = (0..).take_while(|number| tally.take(&all[number % KINDS]).unwrap()).count();
        assert_eq!(taken as u64 + 1, 2 * LOOK);
        assert_eq!(tally.report(Sender::Raw, 1).unwrap().items, LOOK);
    }
}
