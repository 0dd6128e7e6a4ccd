//! One run, from check-in to the last hash.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use bytes::Bytes;
use hdrhistogram::Histogram;
use tieline_tokio::Peer;
use tokio::runtime::Builder;
use tokio::task::yield_now;

use super::server::{BEATS, DROP, ECHO, GIVE, HASH, TAKE};
use super::{HEARTBEAT, Latency, MixedReport, Plan, SMALL, Traffic, Way, hash, limits};
use crate::error::{Context, Failure, Result};
use crate::load::{Payloads, Schedule};
use crate::targets::runtime::Client;

/// How long a small call may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// The time in which an idle line is watched.
const IDLE: Duration = Duration::from_secs(2);

pub(super) fn run(plan: &Plan, address: SocketAddr) -> Result<MixedReport> {
    // Before there is a connection: while this goes on nothing beats.
    let large = Payloads::new(plan.octets as usize, 1).of(0);
    let wanted = hash(&large);
    Builder::new_current_thread().enable_all().build()?.block_on(async {
        let client =
            Client::builder("bench-client").limits(limits(plan.octets)).heartbeat_interval(HEARTBEAT);
        let client = client.connect(&address.to_string()).await.context("connect")?;
        let peer = client.peer().ok_or_else(|| Failure::new("no connection"))?;
        let interval = peer.info().map(|info| info.heartbeat_interval);
        if interval != Some(HEARTBEAT) {
            return Err(Failure::new(format!("the server grants {interval:?} between heartbeats")));
        }
        let run = Run { plan: *plan, peer: peer.clone(), small: Payloads::new(SMALL, 1).of(0) };
        let report = run.all(large, wanted).await?;
        let same = client.peer().is_some_and(|now| now.is_same(&peer)) && client.attempts() == 1;
        if !same || !peer.is_ready() {
            return Err(Failure::new("the connection was closed meanwhile"));
        }
        Ok(report)
    })
}

#[derive(Clone)]
struct Run {
    plan: Plan,
    peer: Peer,
    small: Bytes,
}

impl Run {
    async fn all(&self, large: Bytes, wanted: u64) -> Result<MixedReport> {
        let plan = self.plan;
        // Once for the memory at both ends. What goes down is what went up.
        self.raw(TAKE, large.clone()).await?;
        let warm = self.cross(&large, 1).await?;
        let idle = self.watched(tokio::time::sleep(IDLE)).await?.1;
        let closed = self.closed(plan.alone, || false).await?;
        let open = self.open(plan.alone, || false).await?;
        let (rate, large_alone) = self.watched(self.cross(&large, plan.times)).await?;
        let (beside, both) = self.watched(self.beside(&large, false)).await?;
        let (closed_rate, closed_beside) = beside?;
        let (open_rate, open_beside) = self.beside(&large, true).await?;
        self.verify(&large, wanted).await?;
        Ok(MixedReport {
            way: plan.way.name().to_owned(),
            octets: plan.octets,
            open_loop: plan.rate,
            first_rate: warm,
            rate: rate?,
            closed_rate,
            open_rate,
            closed,
            closed_beside,
            open,
            open_beside,
            idle,
            large_alone,
            both,
        })
    }

    /// A call that may take as long as it likes.
    async fn raw(&self, method: &str, body: Bytes) -> Result<Bytes> {
        Ok(self.peer.call(method, body).no_timeout().await.context(method)?.payload)
    }

    /// Lets the large message cross so often. Octets a second.
    async fn cross(&self, large: &Bytes, times: u32) -> Result<f64> {
        let start = Instant::now();
        for _ in 0..times {
            match self.plan.way {
                Way::Up => {
                    self.raw(TAKE, large.clone()).await?;
                    self.raw(DROP, Bytes::new()).await?;
                }
                Way::Down => {
                    let came = self.raw(GIVE, Bytes::new()).await?;
                    if came.len() != large.len() {
                        return Err(Failure::new("the large message came cut"));
                    }
                }
            }
        }
        Ok(f64::from(times) * f64::from(self.plan.octets) / start.elapsed().as_secs_f64())
    }

    /// Small calls, one after the other, while the large message crosses. Its octets a second, and their latency.
    async fn beside(&self, large: &Bytes, open: bool) -> Result<(f64, Latency)> {
        let (run, large) = (self.clone(), large.clone());
        let crossing = tokio::spawn(async move { run.cross(&large, run.plan.times).await });
        let over = || crossing.is_finished();
        let latency = if open {
            self.open(Duration::MAX, over).await?
        } else {
            self.closed(Duration::MAX, over).await?
        };
        Ok((crossing.await.context("the large message")??, latency))
    }

    async fn small(&self) -> Result<()> {
        let answer =
            self.peer.call(ECHO, self.small.clone()).timeout(PATIENCE).await.context("a small call")?;
        if answer.payload == self.small {
            Ok(())
        } else {
            Err(Failure::new("a small call has another's answer"))
        }
    }

    /// One in flight, until the time is over or `over` says so.
    async fn closed(&self, time: Duration, over: impl Fn() -> bool) -> Result<Latency> {
        let mut taken = histogram()?;
        let start = Instant::now();
        let mut now = start;
        while now - start < time && !over() {
            self.small().await?;
            let end = Instant::now();
            record(&mut taken, end - now);
            now = end;
        }
        Ok(Latency::of(&taken))
    }

    /// At a fixed rate, each latency from the moment at which the call should have begun. One is in flight at most: a
    /// call that is due while another is out begins when that is back, and has waited.
    async fn open(&self, time: Duration, over: impl Fn() -> bool) -> Result<Latency> {
        let mut taken = histogram()?;
        let start = Instant::now();
        let schedule = Schedule::new(start, self.plan.rate, Duration::ZERO, Duration::from_secs(3600));
        let mut next = 0;
        while start.elapsed() < time && !over() {
            if next < schedule.due(Instant::now()) {
                self.small().await?;
                record(&mut taken, schedule.intended(next).elapsed());
                next += 1;
            } else {
                // Not a timer, which is coarser than a call is long.
                yield_now().await;
            }
        }
        Ok(Latency::of(&taken))
    }

    /// Counts what keeps the connection alive while `work` goes on.
    async fn watched<T>(&self, work: impl Future<Output = T>) -> Result<(T, Traffic)> {
        let (start, before) = (Instant::now(), self.beats().await?);
        let done = work.await;
        let after = self.beats().await?;
        let traffic = Traffic {
            seconds: start.elapsed().as_secs_f64(),
            client_beats: after.0 - before.0,
            server_beats: after.1 - before.1,
        };
        Ok((done, traffic))
    }

    /// Heartbeats that the client and the server have sent.
    async fn beats(&self) -> Result<(u64, u64)> {
        let server = self.raw(BEATS, Bytes::new()).await?;
        let server = std::str::from_utf8(&server).ok().and_then(|text| text.parse().ok());
        let server = server.ok_or_else(|| Failure::new("the server tells no heartbeats"))?;
        Ok((self.peer.stats().heartbeats_out, server))
    }

    /// What is at both ends is what was made here. Once more up and down, not measured.
    async fn verify(&self, large: &Bytes, wanted: u64) -> Result<()> {
        if self.plan.way == Way::Up {
            self.raw(TAKE, large.clone()).await?;
        }
        let there = self.raw(HASH, Bytes::new()).await?;
        let here = self.raw(GIVE, Bytes::new()).await?;
        let here = tokio::task::spawn_blocking(move || hash(&here)).await.context("the hash")?;
        if there == wanted.to_string() && here == wanted {
            Ok(())
        } else {
            Err(Failure::new("the large message is not what was sent"))
        }
    }
}

fn histogram() -> Result<Histogram<u64>> {
    Histogram::new_with_max(100_000_000_000, 3).context("histogram")
}

fn record(taken: &mut Histogram<u64>, latency: Duration) {
    taken.saturating_record(u64::try_from(latency.as_nanos()).unwrap_or(u64::MAX));
}
