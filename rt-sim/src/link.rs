//! What hosts are connected by, as a test sees it: what it is like, and commands by which it fails.

use std::{fmt, ops::RangeInclusive, time::Duration};

use crate::{
    events::Event,
    line::Line,
    sim::{Sim, nanos},
};

/// One or both directions between two hosts; see [`Sim::link`] and [`Sim::direction`].
///
/// The first group of methods says what it is like, from now on; they return the link, to say more. The second group
/// makes it fail, and [`heal`](Self::heal) ends that.
///
/// ```
/// use std::time::Duration;
/// use tieline_sim::Sim;
///
/// let sim = Sim::new(1);
/// sim.host("one", || async { Ok(()) });
/// sim.host("two", || async { Ok(()) });
/// // A slow, far line; and what comes back comes in pieces of one to three octets.
/// sim.link("one", "two").latency(Duration::from_millis(40)).bandwidth(100_000);
/// sim.direction("two", "one").slice(1..=3);
/// sim.link("one", "two").partition();
/// ```
pub struct Link {
    sim: Sim,
    ends: Vec<(usize, usize)>,
    usual: bool,
}

impl Link {
    pub(crate) fn new(sim: &Sim, ends: &[(&str, &str)]) -> Self {
        let mut known: Vec<(usize, usize)> = sim.world.with(|state| {
            ends.iter().filter_map(|(from, to)| Some((state.named(from)?, state.named(to)?))).collect()
        });
        known.dedup();
        Self { sim: sim.clone(), ends: known, usual: false }
    }

    pub(crate) fn usual(sim: &Sim) -> Self {
        Self { sim: sim.clone(), ends: Vec::new(), usual: true }
    }

    fn change(&self, change: impl Fn(&mut Line)) {
        self.sim.world.with(|state| {
            for &(from, to) in &self.ends {
                change(state.line(from, to));
                // What has waited for something that is over goes on.
                state.release(from, to);
            }
            if self.usual {
                change(&mut state.usual);
            }
        });
    }

    /// How long octets are on their way. Default 100 µs, and 10 µs from a host to itself.
    #[allow(clippy::must_use_candidate, reason = "the link is returned to say more")]
    pub fn latency(self, latency: Duration) -> Self {
        self.change(|line| line.latency = nanos(latency));
        self
    }

    /// The most by which chance lengthens that, for each piece. They stay in their order. Default 50 µs; none from a host
    /// to itself.
    #[allow(clippy::must_use_candidate, reason = "the link is returned to say more")]
    pub fn jitter(self, most: Duration) -> Self {
        self.change(|line| line.jitter = nanos(most));
        self
    }

    /// Octets a second, for all connections in a direction together. No limit by default. 0 is 1.
    #[allow(clippy::must_use_candidate, reason = "the link is returned to say more")]
    pub fn bandwidth(self, octets: u64) -> Self {
        self.change(|line| line.bandwidth = Some(octets.max(1)));
        self
    }

    /// Octets travel and are read in pieces whose size is drawn from this range, at least 1.
    #[allow(clippy::must_use_candidate, reason = "the link is returned to say more")]
    pub fn slice(self, sizes: RangeInclusive<usize>) -> Self {
        let least = (*sizes.start()).max(1);
        let most = (*sizes.end()).max(least);
        self.change(|line| line.slice = Some((least, most)));
        self
    }

    /// Octets travel in pieces as the line and the kernels have room for, and are read in any pieces: the default.
    #[allow(clippy::must_use_candidate, reason = "the link is returned to say more")]
    pub fn whole(self) -> Self {
        self.change(|line| line.slice = None);
        self
    }

    /// What would arrive within an interval of this length arrives together at its end. Zero, the default, is off.
    #[allow(clippy::must_use_candidate, reason = "the link is returned to say more")]
    pub fn coalesce(self, interval: Duration) -> Self {
        self.change(|line| line.coalesce = nanos(interval));
        self
    }

    /// Whether a write takes less than there is room for, as chance will have it. Off by default.
    #[allow(clippy::must_use_candidate, reason = "the link is returned to say more")]
    pub fn partial_writes(self, on: bool) -> Self {
        self.change(|line| line.partial_writes = on);
        self
    }

    /// The octets that kernels hold for one connection and direction: at the sender until they are acknowledged, and at
    /// the receiver until they are read. At least 1 each. Default 256 KiB each.
    #[allow(clippy::must_use_candidate, reason = "the link is returned to say more")]
    pub fn buffers(self, send: usize, receive: usize) -> Self {
        self.change(|line| {
            line.send_buffer = send.max(1);
            line.receive_buffer = receive.max(1);
        });
        self
    }

    /// Nothing passes: octets wait, attempts to connect hang, resets are lost. What waited passes when it heals, as
    /// kernels send again what nobody has acknowledged; connections that ended meanwhile are then found to be gone.
    pub fn partition(&self) {
        self.change(|line| line.parted = true);
    }

    /// Nothing passes and nothing is reported, as behind a firewall that has forgotten a connection: the connections that
    /// there are at this moment stay dead even when it heals. Attempts to connect hang until it heals.
    pub fn black_hole(&self) {
        self.change(|line| line.black = true);
        self.sim.world.with(|state| self.ends.iter().for_each(|&(from, to)| state.lose(from, to)));
    }

    /// Octets are taken and acknowledged connections stay as they are, but nothing is delivered until it
    /// [heals](Self::heal). Connecting is possible.
    pub fn stall(&self) {
        self.change(|line| line.stalled = true);
    }

    /// Nothing is delivered for so long; then it goes on by itself.
    pub fn delay(&self, time: Duration) {
        self.sim.world.with(|state| {
            let until = state.now.saturating_add(nanos(time));
            for &(from, to) in &self.ends {
                state.line(from, to).held_until = until;
                state.events.arrange(until, Event::Release { from, to });
            }
        });
    }

    /// Attempts to connect are refused until it heals.
    pub fn refuse(&self) {
        self.change(|line| line.refuses = true);
    }

    /// Attempts to connect are not answered until it heals. Connections that there are go on.
    pub fn leave_unanswered(&self) {
        self.change(|line| line.unanswered = true);
    }

    /// Resets every connection between the two, at both ends.
    pub fn cut(&self) {
        self.sim.world.with(|state| {
            for &(from, to) in &self.ends {
                state.cut(from, to);
            }
        });
    }

    /// Ends every connection in this direction, as if its sender had shut down writing: what was written before still
    /// arrives, and then the end of the stream; further writes fail.
    pub fn half_close(&self) {
        self.sim.world.with(|state| {
            for &(from, to) in &self.ends {
                state.half_close(from, to);
            }
        });
    }

    /// Everything passes again. What it is like stays as it was set.
    pub fn heal(&self) {
        self.change(Line::heal);
    }

    /// As it was in the beginning: heals, and has the usual latency, bandwidth, pieces and buffers.
    pub fn reset(&self) {
        self.sim.world.with(|state| {
            for &(from, to) in &self.ends {
                state.lines.remove(&(from, to));
                state.release(from, to);
            }
            if self.usual {
                state.usual = Line::between_hosts();
            }
        });
    }
}

impl fmt::Debug for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Link").field("ends", &self.ends).field("usual", &self.usual).finish_non_exhaustive()
    }
}
