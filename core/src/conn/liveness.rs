//! When to beat, and when a peer is dead or too slow (protocol §5, "Heartbeat"). Pure timing: no frames here.
//!
//! Only octets that were read are life. What this side writes never is, and what the kernel does not take for three
//! intervals is a sign of death. Nobody is judged at the first look: the first expiry makes the peer suspect, the
//! next look closes, so that a process that was paused reads its socket before it reaps healthy peers.

use super::pace::Pace;
use crate::time::{MILLISECOND, NEVER, SECOND};

/// What a look at the clock found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    Fine,
    /// HEARTBEAT_LOST.
    Dead(&'static str),
    /// SLOW_PEER.
    Slow(&'static str),
}

/// What is being waited for of a frame that is not whole.
#[derive(Clone, Copy)]
enum Inbound {
    Nothing,
    /// The rest of a header, until then.
    Header(u64),
    /// The rest of a body.
    Body(Pace),
}

pub(crate) struct Liveness {
    /// The granted interval; 0 before check-in, when the check-in's own time-out rules.
    interval: u64,
    last_read: u64,
    last_sent: u64,
    /// A HEARTBEAT of this side has not been answered.
    pub(crate) unanswered: bool,
    /// When the peer's last HEARTBEAT came.
    last_beat_in: Option<u64>,
    /// From when on an early one is spared again.
    spares_from: u64,
    /// Committed octets that the transport has not taken, and since when it took none of them.
    pub(crate) unsent: usize,
    stalled_since: u64,
    /// When a suspect is condemned, if it stays silent.
    silent_until: u64,
    stalled_until: u64,
    inbound: Inbound,
    /// Off while nothing is unsent, and while nothing of what is unsent has moved since it was committed.
    outbound: Pace,
}

/// What is kept of it on an idle line, where nothing is under way, nothing is unanswered and nobody is suspect.
pub(crate) struct Asleep {
    pub(crate) last_read: u64,
    last_sent: u64,
    last_beat_in: Option<u64>,
    spares_from: u64,
}

impl Asleep {
    pub(crate) const fn new(now: u64) -> Self {
        Self { last_read: now, last_sent: now, last_beat_in: None, spares_from: 0 }
    }

    pub(crate) const fn unfold(&self, interval: u64) -> Liveness {
        let mut live = Liveness::new(self.last_sent);
        live.interval = interval;
        live.last_read = self.last_read;
        live.last_beat_in = self.last_beat_in;
        live.spares_from = self.spares_from;
        live
    }
}

impl Liveness {
    /// Whether [`fold`](Self::fold) forgets nothing.
    pub(crate) const fn is_at_rest(&self) -> bool {
        self.unsent == 0
            && !self.unanswered
            && self.silent_until == NEVER
            && self.stalled_until == NEVER
            && self.frame_is_whole()
            && self.outbound.is_off()
    }

    pub(crate) const fn fold(&self) -> Asleep {
        Asleep {
            last_read: self.last_read,
            last_sent: self.last_sent,
            last_beat_in: self.last_beat_in,
            spares_from: self.spares_from,
        }
    }

    /// The granted interval.
    pub(crate) const fn interval(&self) -> u64 {
        self.interval
    }

    pub(crate) const fn new(now: u64) -> Self {
        Self {
            interval: 0,
            last_read: now,
            last_sent: now,
            unanswered: false,
            last_beat_in: None,
            spares_from: 0,
            unsent: 0,
            stalled_since: now,
            silent_until: NEVER,
            stalled_until: NEVER,
            inbound: Inbound::Nothing,
            outbound: Pace::OFF,
        }
    }

    /// Check-in is complete: the rules hold from now on.
    pub(crate) fn begin(&mut self, now: u64, interval: u64) {
        self.interval = interval;
        self.last_read = now;
        self.last_sent = now;
        self.stalled_since = now;
    }

    const fn bound(&self) -> u64 {
        self.interval.saturating_mul(3)
    }

    /// The window of the least rate.
    fn window(&self) -> u64 {
        self.bound().max(5 * SECOND)
    }

    /// How long a suspect has: well inside max(I/2, 500 ms), in which it must be closed.
    fn grace(&self) -> u64 {
        (self.interval / 8).max(100 * MILLISECOND)
    }

    #[inline]
    pub(crate) fn read(&mut self, now: u64, octets: usize) {
        self.last_read = now;
        self.silent_until = NEVER;
        if let Inbound::Body(pace) = &mut self.inbound {
            pace.moved(now, octets);
        }
    }

    #[inline]
    pub(crate) fn committed(&mut self, now: u64, octets: usize) {
        if self.unsent == 0 {
            self.stalled_since = now;
        }
        self.unsent = self.unsent.saturating_add(octets);
    }

    /// The transport took octets; returns how many of them were known to be under way.
    #[inline]
    pub(crate) fn sent(&mut self, now: u64, octets: usize) -> usize {
        let octets = octets.min(self.unsent);
        if octets > 0 {
            if octets < self.unsent {
                self.measure();
                self.outbound.moved(now, octets);
            } else if !self.outbound.is_off() {
                self.outbound = Pace::OFF;
            }
            self.unsent -= octets;
            self.last_sent = now;
            self.stalled_since = now;
            self.stalled_until = NEVER;
        }
        octets
    }

    /// Measures how fast the transport takes what waits, from the moment on at which it began to wait. Mostly it takes
    /// all of it at once, and there is nothing to measure.
    #[cold]
    fn measure(&mut self) {
        if self.unsent > 0 && self.interval > 0 && self.outbound.is_off() {
            self.outbound = Pace::start(self.stalled_since, self.window());
        }
    }

    /// When octets were read last.
    pub(crate) const fn last_read(&self) -> u64 {
        self.last_read
    }

    /// A HEARTBEAT came; whether it came sooner than half an interval after the one before. `spares`: now and then an
    /// early one is not held against the peer, because a server may probe (protocol §4).
    pub(crate) fn beat_in(&mut self, now: u64, spares: bool) -> bool {
        let early = self
            .last_beat_in
            .is_some_and(|before| now.saturating_sub(before).saturating_mul(2) < self.interval);
        self.last_beat_in = Some(now);
        if early && spares && now >= self.spares_from {
            self.spares_from = now.saturating_add(self.interval.min(2 * SECOND));
            return false;
        }
        early
    }

    /// Octets stop inside a header.
    pub(crate) fn waits_for_header(&mut self, now: u64) {
        if self.interval > 0 && matches!(self.inbound, Inbound::Nothing) {
            self.inbound = Inbound::Header(now.saturating_add(self.window()));
        }
    }

    /// Octets stop inside a body of which `octets` have come. Those count, too: the rest of what comes at this instant
    /// does, and where it is cut is not seen (L6).
    pub(crate) fn waits_for_body(&mut self, now: u64, octets: usize) {
        if self.interval > 0 && !matches!(self.inbound, Inbound::Body(_)) {
            let mut pace = Pace::start(now, self.window());
            pace.moved(now, octets);
            self.inbound = Inbound::Body(pace);
        }
    }

    /// No frame has begun that is not whole.
    #[inline]
    pub(crate) const fn frame_is_whole(&self) -> bool {
        matches!(self.inbound, Inbound::Nothing)
    }

    /// A frame is whole.
    #[inline]
    pub(crate) fn frame_done(&mut self) {
        self.inbound = Inbound::Nothing;
    }

    /// When a HEARTBEAT is due. `output`: something waits to be committed, which is as good.
    pub(crate) fn beat_due(&self, output: bool) -> u64 {
        if self.interval == 0 {
            return NEVER;
        }
        let quiet =
            if output || self.unsent > 0 { NEVER } else { self.last_sent.saturating_add(self.interval) };
        let deaf = if self.unanswered { NEVER } else { self.last_read.saturating_add(self.interval) };
        quiet.min(deaf)
    }

    fn silent_at(&self) -> u64 {
        if self.silent_until == NEVER {
            self.last_read.saturating_add(self.bound())
        } else {
            self.silent_until
        }
    }

    fn stalled_at(&self) -> u64 {
        match (self.unsent, self.stalled_until) {
            (0, _) => NEVER,
            (_, NEVER) => self.stalled_since.saturating_add(self.bound()),
            (_, until) => until,
        }
    }

    /// When [`judge`](Self::judge) or a heartbeat is due.
    pub(crate) fn next(&self, output: bool) -> u64 {
        if self.interval == 0 {
            return NEVER;
        }
        let inbound = match &self.inbound {
            Inbound::Nothing => NEVER,
            Inbound::Header(until) => *until,
            Inbound::Body(pace) => pace.next(),
        };
        self.beat_due(output)
            .min(self.silent_at())
            .min(self.stalled_at())
            .min(inbound)
            .min(self.outbound_next())
    }

    fn outbound_next(&self) -> u64 {
        if self.unsent > 0 && self.outbound.is_off() {
            Pace::start(self.stalled_since, self.window()).next()
        } else {
            self.outbound.next()
        }
    }

    /// Looks at the clock. Death comes before slowness if both are due.
    pub(crate) fn judge(&mut self, now: u64) -> Verdict {
        if self.interval == 0 {
            return Verdict::Fine;
        }
        if now >= self.silent_at() {
            if self.silent_until != NEVER {
                return Verdict::Dead("no octet was read for three heartbeat intervals");
            }
            self.silent_until = now.saturating_add(self.grace());
        }
        if now >= self.stalled_at() {
            if self.stalled_until != NEVER {
                return Verdict::Dead("the transport took no octet for three heartbeat intervals");
            }
            self.stalled_until = now.saturating_add(self.grace());
        }
        let suspect = self.silent_until != NEVER || self.stalled_until != NEVER;
        let slow_in = match &mut self.inbound {
            Inbound::Nothing => false,
            Inbound::Header(until) if now < *until => false,
            Inbound::Header(until) => {
                *until = now.saturating_add(MILLISECOND);
                true
            }
            Inbound::Body(pace) => pace.too_slow(now),
        };
        self.measure();
        let slow_out = !self.outbound.is_off() && self.outbound.too_slow(now);
        if suspect {
            // If both are due it is death; if the suspect lives, slowness is found again.
            Verdict::Fine
        } else if slow_in {
            Verdict::Slow("a frame that had begun did not come at 1 KiB/s")
        } else if slow_out {
            Verdict::Slow("the peer does not take what waits for it at 1 KiB/s")
        } else {
            Verdict::Fine
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const I: u64 = SECOND;

    fn ready() -> Liveness {
        let mut live = Liveness::new(0);
        live.begin(0, I);
        live
    }

    #[test]
    fn a_heartbeat_is_due_when_nothing_was_written_or_nothing_was_read() {
        let mut live = ready();
        assert_eq!(live.beat_due(false), I);
        live.read(I / 2, 1);
        assert_eq!(live.beat_due(false), I, "what is read does not put off the duty to write");
        live.committed(I / 2, 10);
        assert_eq!(live.beat_due(false), I / 2 + I, "what waits to be written is as good as a heartbeat");
        live.sent(I, 10);
        live.unanswered = true;
        assert_eq!(live.beat_due(false), 2 * I, "one unanswered heartbeat is enough");
    }

    #[test]
    fn an_early_heartbeat_is_a_probe_now_and_then_where_probes_are_to_be_expected() {
        let mut live = ready();
        assert!(!live.beat_in(I, true), "the first is not early");
        assert!(!live.beat_in(I + 1, true), "spared");
        assert!(live.beat_in(I + 2, true), "not twice within an interval");
        assert!(!live.beat_in(2 * I + 1, true));
        let mut live = ready();
        assert!(!live.beat_in(I, false));
        assert!(live.beat_in(I + 1, false));
    }

    #[test]
    fn a_silent_peer_is_suspect_first_and_dead_at_the_next_look() {
        let mut live = ready();
        live.unanswered = true;
        assert_eq!(live.judge(3 * I - 1), Verdict::Fine);
        assert_eq!(live.judge(3 * I), Verdict::Fine);
        let look = live.next(true);
        assert!(look > 3 * I && look <= 3 * I + 500 * MILLISECOND);
        assert!(matches!(live.judge(look), Verdict::Dead(_)));
    }

    #[test]
    fn a_paused_process_reads_before_it_judges() {
        let mut live = ready();
        assert_eq!(live.judge(1000 * I), Verdict::Fine);
        live.read(1000 * I + 1, 18);
        assert_eq!(live.judge(1000 * I + 2), Verdict::Fine);
        assert!(live.silent_at() > 1000 * I + 2 * I);
    }

    #[test]
    fn own_writes_are_no_life_and_a_stuck_transport_is_death() {
        let mut live = ready();
        live.committed(0, 100);
        for now in [I, 2 * I, 3 * I] {
            live.read(now, 18);
            assert_eq!(live.judge(now), Verdict::Fine);
        }
        assert!(matches!(live.judge(live.next(true)), Verdict::Dead(_)));
    }

    #[test]
    fn a_dribbled_header_and_a_dribbled_body_are_slow() {
        let mut live = ready();
        live.waits_for_header(0);
        for second in 1..5 {
            live.read(second * I, 1);
            assert_eq!(live.judge(second * I), Verdict::Fine);
        }
        live.read(5 * I, 1);
        assert!(matches!(live.judge(5 * I), Verdict::Slow(_)));

        let mut live = ready();
        live.waits_for_body(0, 0);
        let slow = (1..20).find(|&second| {
            live.read(second * I, 500);
            live.judge(second * I) != Verdict::Fine
        });
        assert!(slow.is_some_and(|second| second <= 7));
    }
}
