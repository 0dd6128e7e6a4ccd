//! An idle connection, folded up.
//!
//! Most of what a connection holds are tables and queues in which nothing is while nobody calls. A connection that has
//! been idle for a heartbeat's time keeps what must not be forgotten, less than half a KiB, and gives everything else
//! back, what a burst of calls has left behind among it; the next verb that changes anything unfolds it. Nothing of this
//! is visible but in memory: ids, generations and counters go on, and random choices are made as if it had not been.

use alloc::{boxed::Box, sync::Arc};

use super::{
    budget::Budget,
    config::{Config, Side},
    event::{End, Next, PeerInfo},
    gain::Gain,
    learned::Learned,
    liveness::Asleep,
    machine::{Machine, Phase},
    stats::Stats,
};
use crate::time::{NEVER, instant, nanos};

/// What is kept. While the connection is unfolded only the first two mean anything.
pub(crate) struct Folded {
    config: Arc<Config>,
    side: Side,
    now: u64,
    seed: u64,
    /// `None` while it is unfolded: only a connection that is checked in is folded up.
    peer: Option<Arc<PeerInfo>>,
    gain: Option<Box<Gain>>,
    learned: Option<Box<Learned>>,
    counter: u64,
    highest_out: u64,
    highest_in: u64,
    transmitted: u64,
    /// From which on the generations of calls and of served calls were not used.
    generations: (u32, u32),
    late_credit: u64,
    late_until: u64,
    live: Asleep,
    budget: Budget,
    idle_since: u64,
    /// When `handle_timeout` would do something.
    wake: u64,
    stats: Stats,
}

/// A generation that no slot has had, if all of them began at `first`. Generations wrap.
pub(super) fn unused(first: u32, generations: impl Iterator<Item = u32>) -> u32 {
    let used = generations.map(|generation| generation.wrapping_sub(first)).max();
    used.map_or(first, |most| first.wrapping_add(most).wrapping_add(1))
}

impl Machine {
    /// Folds the connection up, if it is idle and has been for so long that it is likely to stay so; whether it was. What
    /// is left here is of no use then.
    #[cold]
    pub(super) fn fold(&mut self, into: &mut Folded) -> bool {
        if !self.is_idle() {
            return false;
        }
        self.lease.shrink(0, &self.config.shared);
        if let Some(gain) = &mut self.gain {
            gain.shrink();
        }
        let learned = core::mem::take(&mut self.learned);
        *into = Folded {
            config: Arc::clone(&self.config),
            side: self.side,
            now: self.now,
            seed: self.seed,
            peer: self.peer.take(),
            gain: self.gain.take(),
            learned: (!learned.is_empty()).then(|| Box::new(learned)),
            counter: self.counter,
            highest_out: self.highest_out,
            highest_in: self.highest_in,
            transmitted: self.transmitted,
            generations: (self.calls.unused_generation(), self.served.unused_generation()),
            late_credit: self.late_credit,
            late_until: self.late_until,
            live: self.live.fold(),
            budget: core::mem::replace(&mut self.budget, Budget::new(self.now)),
            idle_since: self.idle_since,
            wake: self.next_timer(),
            stats: self.stats,
        };
        true
    }

    /// Whether nothing is under way, waits or is remembered that [`Folded`] does not keep.
    fn is_idle(&mut self) -> bool {
        self.drowsy = self.now.saturating_sub(self.idle_since) >= self.live.interval();
        let now = self.now;
        if !self.drowsy || self.phase != Phase::Ready || self.peer.is_none() || self.has_event() {
            return false;
        }
        self.refused.retain(|_, until| *until >= now);
        self.calls.open() == 0
            && self.served.open() == 0
            && self.backlog.count == 0
            && self.outstanding == 0
            && self.arriving.is_empty()
            && self.refused.is_empty()
            && self.direct.is_none()
            && self.inbox.is_empty()
            && self.header_at.is_none()
            && self.eof.is_none()
            && self.room_wanted.is_none()
            && !self.probing
            && self.our_drain.is_none()
            && self.their_drain.is_none()
            && self.closed.is_none()
            && self.refusal.is_none()
            && self.phase_until == NEVER
            && self.lanes.is_empty()
            && self.nothing_is_small()
            && !self.has_output()
            && self.live.is_at_rest()
    }
}

impl Folded {
    /// Nothing yet.
    pub(super) fn new(config: Arc<Config>, side: Side, seed: u64, now: u64) -> Self {
        Self {
            config,
            side,
            now,
            seed,
            peer: None,
            gain: None,
            learned: None,
            counter: 0,
            highest_out: 0,
            highest_in: 0,
            transmitted: 0,
            generations: (0, 0),
            late_credit: 0,
            late_until: 0,
            live: Asleep::new(now),
            budget: Budget::new(now),
            idle_since: now,
            wake: NEVER,
            stats: Stats::default(),
        }
    }

    /// The connection as it was.
    #[cold]
    pub(super) fn unfold(&mut self) -> Box<Machine> {
        let mut machine = Box::new(Machine::new(Arc::clone(&self.config), self.side, self.seed, self.now));
        // Without a peer it has just begun.
        let Some(peer) = self.peer.take() else { return machine };
        machine.phase = Phase::Ready;
        machine.phase_until = NEVER;
        machine.meet(&peer);
        machine.gain = self.gain.take();
        machine.learned = self.learned.take().map_or_else(Learned::default, |learned| *learned);
        machine.counter = self.counter;
        machine.highest_out = self.highest_out;
        machine.highest_in = self.highest_in;
        machine.transmitted = self.transmitted;
        machine.calls.begin_at(self.generations.0);
        machine.served.begin_at(self.generations.1);
        machine.late_credit = self.late_credit;
        machine.late_until = self.late_until;
        machine.live = self.live.unfold(nanos(peer.heartbeat_interval));
        machine.budget = core::mem::replace(&mut self.budget, Budget::new(self.now));
        machine.idle_since = self.idle_since;
        machine.stats = self.stats;
        machine.drowsy = true;
        machine.straighten();
        machine
    }

    /// What is worth doing next.
    pub(super) fn next(&self) -> Next {
        Next { read: true, write: false, event: false, wake: instant(self.wake), end: End::Open }
    }

    pub(super) const fn peer(&self) -> Option<&Arc<PeerInfo>> {
        self.peer.as_ref()
    }

    pub(super) const fn config(&self) -> &Arc<Config> {
        &self.config
    }

    pub(super) const fn now(&self) -> u64 {
        self.now
    }

    /// The highest ids of calls, of this side and of the peer.
    pub(super) const fn highest(&self) -> (u64, u64) {
        (self.highest_out, self.highest_in)
    }

    pub(super) const fn side(&self) -> Side {
        self.side
    }

    pub(super) const fn stats(&self) -> Stats {
        self.stats
    }

    pub(super) const fn last_read(&self) -> u64 {
        self.live.last_read
    }
}
