//! The state of a connection, without the application's values: what the other files of this room work on.

use alloc::{
    boxed::Box,
    collections::{BTreeMap, VecDeque},
    string::String,
    sync::Arc,
};

use bytes::BytesMut;

use super::{
    assembly::{Arriving, Direct, Pool},
    budget::Budget,
    calls::Calls,
    config::{Config, Side},
    deadlines::Deadlines,
    ending::{OurDrain, TheirDrain},
    event::{Answer, Cancel, CheckingIn, Closed, End, Failure, Incoming, Next, PeerInfo, Served, Stream},
    gain::Gain,
    handshake::LARGEST,
    inbox::Inbox,
    keys::Keys,
    lanes::{LANES, Lanes, Window},
    learned::Learned,
    liveness::Liveness,
    memory::Lease,
    quick::{Straight, Usual},
    rest::Rest,
    served::ServedCalls,
    staging::Staging,
    stats::Stats,
};
use crate::{
    time::{Instant, NEVER, instant, nanos},
    wire::Status,
};

/// Where a connection stands.
///
/// ```text
/// client: Greeting ─ CHECK_IN out ─▶ AwaitAck ─ ack in ─────────────▶ Ready
/// server: AwaitCheckIn ─ CHECK_IN in ─▶ (Verifying ─▶) Acking ─ ack out ─▶ Ready
///         AwaitCheckIn, Verifying ─ refused ─▶ Refusing ─ ack out ─▶ Lingering
/// Ready ─ close in peace, drained ─▶ Flushing ─ CLOSE out ─▶ Lingering
/// any but the last three ─ mistake, time-out ─▶ Closing ─ CLOSE out ─▶ Lingering
/// Lingering ─ end of stream, or 1 s ─▶ Ended      any ─ CLOSE in, end of stream ─▶ Ended
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    /// A client whose CHECK_IN is not committed.
    Greeting,
    /// A client that waits for the ack.
    AwaitAck,
    /// A server that waits for the check-in.
    AwaitCheckIn,
    /// A server whose application decides about a check-in.
    Verifying,
    /// A server whose good ack is not committed.
    Acking,
    /// A server whose refusal is not committed.
    Refusing,
    /// Checked in.
    Ready,
    /// The CLOSE goes out behind everything that waits.
    Flushing,
    /// The CLOSE goes out next.
    Closing,
    /// The last frame is committed; what still comes in is discarded.
    Lingering,
    /// Over.
    Ended,
}

impl Phase {
    /// Whether frames of the peer are still acted on.
    pub(crate) const fn listens(self) -> bool {
        !matches!(self, Self::Flushing | Self::Closing | Self::Refusing | Self::Lingering | Self::Ended)
    }

    /// Whether nothing new can begin.
    pub(crate) const fn is_ending(self) -> bool {
        !self.listens()
    }
}

/// What the machine reports; the connection adds the application's value.
#[derive(Debug)]
pub(crate) enum Step {
    CheckIn(Box<CheckingIn>),
    Ready(Arc<PeerInfo>),
    Request(Incoming),
    Cancelled(Served, Cancel),
    Done { slot: u32, outcome: Result<Answer, Failure>, rest: Rest },
    Readable(Stream),
    Writable(Stream),
    Room,
    Draining { until: Instant, status: Status },
    Alive,
    Closed(Closed),
}

/// What is to be told about a stream.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Tiding {
    Readable(Stream),
    Writable(Stream),
}

/// One-ways that have a place and do not run.
#[derive(Debug, Default)]
pub(crate) struct Backlog {
    /// Those that could start, by priority, and what they hold.
    pub(crate) ready: [VecDeque<(Served, usize)>; LANES],
    /// All of them, those that arrive or wait for their key too, and their octets.
    pub(crate) count: usize,
    pub(crate) octets: usize,
}

/// Control frames that wait to be committed: a bounded number, whatever the peer sends.
#[derive(Default)]
pub(crate) struct Control {
    /// The newest token that wants a HEARTBEAT_ACK.
    pub(crate) ack: Option<u64>,
    pub(crate) beat: bool,
    pub(crate) drain: bool,
    /// The next method to announce.
    pub(crate) table: Option<u32>,
    /// TABLE frames so far.
    pub(crate) tables: u32,
    /// Calls to cancel: at most one a call that was committed.
    pub(crate) cancels: VecDeque<(u64, Status)>,
    /// Ids on which a message is to be abandoned: at most one a message that was begun.
    pub(crate) abandons: VecDeque<u64>,
    /// Streams whose credit is to be returned.
    pub(crate) credits: VecDeque<Stream>,
}

pub(crate) struct Machine {
    pub(crate) config: Arc<Config>,
    pub(crate) side: Side,
    /// The lowest bit of the ids of this side's calls: protocol §3.
    pub(crate) side_bit: bool,
    pub(crate) phase: Phase,
    /// The latest instant that was told.
    pub(crate) now: u64,
    pub(crate) seed: u64,
    /// Whether the straight way is open, and what is usual on it.
    pub(crate) straight: Straight,
    pub(crate) usual: Usual,

    pub(crate) inbox: Inbox,
    /// Octets may wait that were not looked at.
    pub(crate) unparsed: bool,
    /// When the header of the frame that is not whole yet was read.
    pub(crate) header_at: Option<u64>,
    pub(crate) eof: Option<&'static str>,

    pub(crate) peer: Option<Arc<PeerInfo>>,
    /// What the peer takes: longest body, largest payload, calls at once.
    pub(crate) peer_frame: usize,
    pub(crate) peer_message: usize,
    pub(crate) peer_concurrent: u32,
    pub(crate) peer_streams: u32,
    pub(crate) peer_item: usize,
    /// The initial credit for items to the peer.
    pub(crate) peer_window: u32,
    /// Both sides understand Snappy.
    pub(crate) snappy: bool,
    pub(crate) gain: Option<Box<Gain>>,
    pub(crate) learned: Learned,

    pub(crate) calls: Calls,
    pub(crate) call_timers: Deadlines,
    /// Counts committed calls; the upper part of their ids.
    pub(crate) counter: u64,
    /// The highest id that was committed.
    pub(crate) highest_out: u64,
    /// Slots of calls whose outcome is known but not fetched.
    pub(crate) finished: VecDeque<u32>,
    /// What the least call weighs that was refused for want of room.
    pub(crate) room_wanted: Option<usize>,

    /// Calls of the peer that this side serves at once.
    pub(crate) own_concurrent: u32,
    /// Of those, the ones that stream.
    pub(crate) own_streams: u32,
    /// Open calls and unwritten answers, at most: beyond twice what was announced, plus 16, it is a flood.
    pub(crate) most_unwritten: u32,
    pub(crate) served: ServedCalls,
    pub(crate) served_timers: Deadlines,
    /// The highest id of a call that the peer began.
    pub(crate) highest_in: u64,
    pub(crate) cancelled: VecDeque<(Served, Cancel)>,
    /// Calls whose turn has come.
    pub(crate) startable: VecDeque<Served>,
    pub(crate) backlog: Backlog,
    pub(crate) keys: Keys,
    /// What is to be told about streams.
    pub(crate) tidings: VecDeque<Tiding>,
    /// Octets of late items that are free, and until when.
    pub(crate) late_credit: u64,
    pub(crate) late_until: u64,
    /// Messages of which more is to come, by id.
    pub(crate) arriving: BTreeMap<u64, Arriving>,
    /// Not later than the first of them is given up.
    pub(crate) arriving_due: u64,
    pub(crate) direct: Option<Direct>,
    /// Octets that are reserved for arguments and have not come.
    pub(crate) outstanding: usize,
    pub(crate) pool: Pool,
    pub(crate) lease: Lease,
    /// Messages that were refused while they were being sent: their CONTINUATIONs are free for a while.
    pub(crate) refused: BTreeMap<u64, u64>,

    pub(crate) staging: Staging,
    /// The highest id of this side's calls that has reached the outbox.
    pub(crate) transmitted: u64,
    /// When something small was committed last.
    pub(crate) small_at: u64,
    pub(crate) lanes: Lanes,
    pub(crate) control: Control,
    pub(crate) live: Liveness,
    /// The application asked whether the peer lives, and there is no answer yet.
    pub(crate) probing: bool,
    pub(crate) budget: Budget,

    /// When check-in, the verifier's decision or the ack must have come; when a CLOSE must be out; when to stop
    /// lingering: what the present phase waits for at most.
    pub(crate) phase_until: u64,
    /// When lingering ends at the latest, however slowly the last octets are taken.
    pub(crate) cut_at: u64,
    pub(crate) idle_since: u64,
    /// A heartbeat went out or came in, so it may be idle: that is looked at when all is said.
    pub(crate) drowsy: bool,
    pub(crate) our_drain: Option<Box<OurDrain>>,
    pub(crate) their_drain: Option<TheirDrain>,
    /// How it ended, and whether the application knows.
    pub(crate) closed: Option<Box<Closed>>,
    pub(crate) closed_told: bool,
    /// A server's ack went out and the application does not know yet.
    pub(crate) ready_untold: bool,
    /// What an ack that refuses says.
    pub(crate) refusal: Option<Box<(Status, String, u32)>>,

    pub(crate) stats: Stats,
}

impl Machine {
    pub(crate) fn new(config: Arc<Config>, side: Side, seed: u64, now: u64) -> Self {
        let (phase, phase_until) = match side {
            Side::Client => (Phase::Greeting, now.saturating_add(nanos(config.ack_timeout))),
            Side::Server => (Phase::AwaitCheckIn, now.saturating_add(nanos(config.check_in_timeout))),
        };
        Self {
            side,
            side_bit: side == Side::Client,
            phase,
            now,
            seed,
            straight: Straight::default(),
            usual: Usual::default(),
            inbox: Inbox::new(BytesMut::new()),
            unparsed: false,
            header_at: None,
            eof: None,
            peer: None,
            peer_frame: 0,
            // Before check-in it is not known yet what the peer reads.
            peer_message: LARGEST as usize,
            peer_concurrent: 0,
            peer_streams: 0,
            peer_item: LARGEST as usize,
            peer_window: 0,
            snappy: false,
            gain: None,
            learned: Learned::default(),
            calls: Calls::default(),
            call_timers: Deadlines::default(),
            counter: 0,
            highest_out: 0,
            finished: VecDeque::new(),
            room_wanted: None,
            own_concurrent: config.announced_concurrency(),
            own_streams: config.announced_streams(),
            most_unwritten: config.announced_concurrency().saturating_mul(2).saturating_add(16),
            served: ServedCalls::default(),
            served_timers: Deadlines::default(),
            highest_in: 0,
            cancelled: VecDeque::new(),
            startable: VecDeque::new(),
            backlog: Backlog::default(),
            keys: Keys::default(),
            tidings: VecDeque::new(),
            late_credit: 0,
            late_until: 0,
            arriving: BTreeMap::new(),
            arriving_due: NEVER,
            direct: None,
            outstanding: 0,
            pool: Pool::default(),
            lease: Lease::default(),
            refused: BTreeMap::new(),
            staging: Staging::default(),
            transmitted: 0,
            small_at: 0,
            lanes: Lanes::default(),
            control: Control::default(),
            live: Liveness::new(now),
            probing: false,
            budget: Budget::new(now),
            phase_until,
            cut_at: NEVER,
            idle_since: now,
            drowsy: false,
            our_drain: None,
            their_drain: None,
            closed: None,
            closed_told: false,
            ready_untold: false,
            refusal: None,
            stats: Stats::default(),
            config,
        }
    }

    /// Takes note of the time, for a step on the straight way. Time that runs backwards stands still.
    #[inline]
    pub(crate) fn pass(&mut self, now: Instant) {
        debug_assert!(self.is_straight());
        self.now = self.now.max(now.as_nanos());
    }

    /// Takes note of the time, for a step of any other kind: whether the straight way is open afterwards is to be found
    /// out by [`straighten`](Self::straighten).
    #[inline]
    pub(crate) fn tick(&mut self, now: Instant) {
        self.pass(now);
        self.straight = Straight::default();
    }

    /// Whether ids of calls that this side begins are odd.
    #[inline]
    pub(crate) const fn side_bit(&self) -> u64 {
        self.side_bit as u64
    }

    /// Whether an id is one of the peer's calls, by its parity.
    #[inline]
    pub(crate) const fn is_theirs(&self, id: u64) -> bool {
        id & 1 != self.side_bit()
    }

    #[inline]
    pub(crate) const fn window_open(&self) -> bool {
        self.calls.unanswered < self.peer_concurrent
    }

    /// What the peer would take now.
    #[inline]
    pub(crate) const fn window(&self) -> Window {
        Window { requests: self.window_open(), streams: self.calls.streams < self.peer_streams }
    }

    /// Whether a small frame may go straight out: little is under way, and nobody waits who came before.
    pub(crate) fn may_stage(&self) -> bool {
        self.look().output && self.has_room()
    }

    #[inline]
    pub(crate) fn has_output(&self) -> bool {
        if self.straight.output {
            return !self.staging.is_empty();
        }
        match self.phase {
            Phase::Greeting | Phase::Acking | Phase::Refusing | Phase::Closing | Phase::Flushing => true,
            Phase::Ready => !self.staging.is_empty() || self.lanes.any(self.window()) || self.has_control(),
            _ => false,
        }
    }

    /// Whether something waits to be committed, and all of it is what more there is of what has begun; next, a part of a
    /// large message.
    #[inline]
    pub(crate) fn only_continues(&self) -> bool {
        self.lanes.only_rest(self.window())
            && self.staging.is_empty()
            && !self.has_control()
            && self.phase == Phase::Ready
    }

    #[inline]
    pub(crate) fn has_control(&self) -> bool {
        let control = &self.control;
        control.ack.is_some()
            || control.beat
            || control.drain
            || control.table.is_some()
            || !control.cancels.is_empty()
            || !control.abandons.is_empty()
            || !control.credits.is_empty()
    }

    #[inline]
    pub(crate) fn has_event(&self) -> bool {
        if self.straight.input {
            return self.unparsed;
        }
        self.unparsed
            || self.ready_untold
            || !self.finished.is_empty()
            || !self.cancelled.is_empty()
            || !self.startable.is_empty()
            || !self.tidings.is_empty()
            || self.next_one_way().is_some()
            || self.may_tell_room()
            || (self.closed.is_some() && !self.closed_told && self.may_tell_closed())
            || (self.eof.is_some() && self.phase.listens())
    }

    /// Below half of what may wait, so that those who were refused do not come one by one.
    pub(crate) fn may_tell_room(&self) -> bool {
        let Some(weight) = self.room_wanted else { return false };
        let limits = &self.config.limits;
        let (queued, most) = (self.calls.queued_octets, limits.max_queued);
        self.calls.open() * 2 <= limits.max_calls as usize && queued * 2 <= most && queued + weight <= most
    }

    pub(crate) fn next(&self) -> Next {
        Next {
            read: self.phase != Phase::Ended && self.inbox.len() < self.most_unparsed(),
            write: self.has_output(),
            event: self.has_event(),
            wake: instant(self.next_timer()),
            end: match self.phase {
                Phase::Ended => End::Close,
                Phase::Lingering => End::ShutWrite,
                _ => End::Open,
            },
        }
    }

    /// What may wait undecoded when the application does not fetch events: a frame and a read.
    fn most_unparsed(&self) -> usize {
        self.config.limits.max_frame as usize + 256 * 1024
    }

    /// The earliest thing that `handle_timeout` would do.
    pub(crate) fn next_timer(&self) -> u64 {
        if self.phase == Phase::Ended {
            return NEVER;
        }
        let mut next = self.phase_until.min(self.call_timers.next()).min(self.served_timers.next());
        next = next.min(self.arriving_due);
        if self.phase == Phase::Ready {
            next = next
                .min(self.live.next(self.has_output()))
                .min(self.idle_at())
                .min(self.our_drain.as_ref().map_or(NEVER, |drain| drain.until));
        }
        next
    }

    pub(crate) fn idle_at(&self) -> u64 {
        match self.config.idle_timeout {
            Some(timeout) if self.peer.is_some() => self.idle_since.saturating_add(nanos(timeout)),
            _ => NEVER,
        }
    }

    /// A number that nobody can foresee who does not know the seed (SplitMix64).
    pub(crate) fn random(&mut self) -> u64 {
        self.seed = self.seed.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.seed;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// Gives memory back on a line that has been idle for a heartbeat's time.
    pub(crate) fn shrink(&mut self) {
        self.inbox.release();
        self.pool.clear();
        self.gain.iter_mut().for_each(|gain| gain.shrink());
        let arrived = self.arrived();
        self.lease.shrink(arrived, &self.config.shared);
        self.lanes.shrink();
        self.staging.shrink();
        self.calls.shrink();
        self.served.shrink();
        self.call_timers.release();
        self.served_timers.release();
        if self.finished.is_empty() {
            self.finished = VecDeque::new();
        }
        if self.cancelled.is_empty() {
            self.cancelled = VecDeque::new();
        }
        if self.control.cancels.is_empty() {
            self.control.cancels = VecDeque::new();
        }
        if self.control.abandons.is_empty() {
            self.control.abandons = VecDeque::new();
        }
        if self.control.credits.is_empty() {
            self.control.credits = VecDeque::new();
        }
        if self.tidings.is_empty() {
            self.tidings = VecDeque::new();
        }
        if self.startable.is_empty() {
            self.startable = VecDeque::new();
        }
    }

    /// Octets of arguments that have come and are held.
    pub(crate) fn arrived(&self) -> usize {
        self.served.held.saturating_add(self.backlog.octets).saturating_sub(self.outstanding)
    }

    /// Gives back what was drawn of the server's memory and is several steps too much.
    pub(crate) fn trim(&mut self) {
        let arrived = self.arrived();
        self.lease.trim(arrived, &self.config.shared);
    }

    /// A frame has come whole.
    #[inline]
    pub(crate) fn frame_done(&mut self) {
        self.live.frame_done();
        self.stats.frames_in += 1;
        self.header_at = None;
    }

    /// Discards what has arrived.
    pub(crate) fn deafen(&mut self) {
        self.inbox.clear();
        self.unparsed = false;
        self.header_at = None;
        self.direct = None;
    }
}

impl Drop for Machine {
    /// What was drawn of the server's memory goes back.
    fn drop(&mut self) {
        self.lease.shrink(0, &self.config.shared);
    }
}
