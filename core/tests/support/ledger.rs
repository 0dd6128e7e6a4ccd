//! Calls that stream, and their credit, as the wire at one node shows them (law L11).
//!
//! Nothing here is taken from the connection: what a sender may still spend is its initial credit, plus every CREDIT that
//! came, minus every item that went; what a receiver owes is what its application took and granted, minus every CREDIT
//! that went.

use std::collections::{BTreeMap, VecDeque};

use tieline_core::wire::{Kind, Request};

use super::tally::Tally;

/// What an item costs besides its octets.
const ITEM: i64 = 256;
const MOST: i64 = i32::MAX as i64;

/// The direction in which the node receives.
struct Takes {
    initial: i64,
    /// What the peer may still spend, as far as what this node committed says.
    credit: i64,
    paid: i64,
    taken: i64,
    granted: i64,
    /// As sent: items that are whole and were not taken.
    queue: VecDeque<usize>,
    ended: bool,
}

/// One call that streams.
struct Line {
    ours: bool,
    /// The REQUEST is whole.
    whole: bool,
    /// This side's CANCEL or STREAM_END went out, or the first frame of its RESPONSE.
    cancelled: bool,
    ended: bool,
    responded: bool,
    /// The last of the RESPONSE came.
    answered: bool,
    /// What this side may still spend, if it sends items.
    sends: Option<i64>,
    takes: Option<Takes>,
}

#[derive(Default)]
pub struct Ledger {
    lines: BTreeMap<u64, Line>,
    /// Initial credit for items to this node, and to the peer.
    pub own_window: i64,
    pub peer_window: i64,
    /// Grants for calls that are not out, by number.
    early: BTreeMap<u32, i64>,
}

fn window(said: u32) -> i64 {
    if said == 0 { 64 << 10 } else { i64::from(said).min(MOST) }
}

impl Ledger {
    pub fn own_said(&mut self, said: u32) {
        self.own_window = window(said);
    }

    pub fn peer_said(&mut self, said: u32) {
        self.peer_window = window(said);
    }

    /// The first frame of a REQUEST that streams.
    pub fn opened(&mut self, id: u64, ours: bool, request: &Request<'_>, number: Option<u32>, whole: bool) {
        let Some(kind) = Kind::from_wire(request.kind).filter(|kind| *kind != Kind::Unary) else { return };
        let to_callee = matches!(kind, Kind::ClientStream | Kind::Bidi);
        let to_caller = matches!(kind, Kind::ServerStream | Kind::Bidi);
        let caller = if ours { self.own_window } else { self.peer_window };
        let callee = if ours { self.peer_window } else { self.own_window };
        let caller = request.credit.map_or(caller, |credit| i64::from(credit).min(MOST));
        let (sends, takes) = if ours {
            (to_callee.then_some(callee), to_caller.then_some(caller))
        } else {
            (to_caller.then_some(caller), to_callee.then_some(callee))
        };
        let granted = number.filter(|_| ours).and_then(|number| self.early.remove(&number)).unwrap_or(0);
        let takes = takes.map(|initial| Takes {
            initial,
            credit: initial,
            paid: 0,
            taken: 0,
            granted,
            queue: VecDeque::new(),
            ended: false,
        });
        let line = Line {
            ours,
            whole,
            cancelled: false,
            ended: false,
            responded: false,
            answered: false,
            sends,
            takes,
        };
        self.lines.insert(id, line);
    }

    pub fn request_whole(&mut self, id: u64) {
        if let Some(line) = self.lines.get_mut(&id) {
            line.whole = true;
        }
    }

    pub fn streams(&self, id: u64) -> bool {
        self.lines.contains_key(&id)
    }

    // ---- what the node sent -----------------------------------------------------------------------------------

    /// The node begins an item. What it may spend is only known where the peer keeps to the protocol.
    pub fn item_out(&mut self, id: u64, total: usize, trusted: bool, tally: &mut Tally) {
        let Some(line) = self.lines.get_mut(&id) else {
            assert!(!trusted, "an item of {id}, which does not stream");
            return;
        };
        assert!(line.whole, "an item before the REQUEST {id} is whole");
        assert!(!line.ended, "an item behind STREAM_END of {id}");
        assert!(!line.cancelled, "an item behind CANCEL of {id}");
        assert!(!line.responded, "an item behind the RESPONSE of {id}");
        let Some(credit) = &mut line.sends else { panic!("an item in a direction that {id} has not") };
        if trusted {
            assert!(*credit > 0, "an item of {id} without credit: {credit}");
            tally.check("items within credit");
            if *credit < total as i64 + ITEM {
                tally.check("an item that overdraws");
            }
        }
        *credit -= total as i64 + ITEM;
    }

    pub fn item_abandoned_out(&mut self, id: u64, missing: usize) {
        if let Some(credit) = self.lines.get_mut(&id).and_then(|line| line.sends.as_mut()) {
            *credit += missing as i64;
        }
    }

    pub fn end_out(&mut self, id: u64, tally: &mut Tally) {
        let Some(line) = self.lines.get_mut(&id) else { panic!("STREAM_END of {id}, which does not stream") };
        assert!(line.ours && line.whole && line.sends.is_some(), "STREAM_END out of place: {id}");
        assert!(!line.ended && !line.cancelled, "STREAM_END twice, or behind CANCEL: {id}");
        line.ended = true;
        tally.check("STREAM_END in its place");
    }

    pub fn credit_out(&mut self, id: u64, octets: u32, trusted: bool, tally: &mut Tally) {
        assert!(octets > 0, "CREDIT of 0 for {id}");
        let Some(line) = self.lines.get_mut(&id) else {
            assert!(!trusted, "CREDIT for {id}, which does not stream");
            return;
        };
        assert!(line.whole && !line.responded, "CREDIT out of place: {id}");
        let Some(takes) = &mut line.takes else { panic!("CREDIT for a direction that {id} has not") };
        takes.paid += i64::from(octets);
        takes.credit += i64::from(octets);
        if trusted {
            let Takes { credit, paid, taken, granted, initial, .. } = *takes;
            assert!(
                credit <= MOST,
                "CREDIT of {octets} for {id}, which has {credit}: initial {initial}, paid {paid}, taken {taken}, granted {granted}"
            );
            let due = takes.taken + takes.granted;
            // Near the most that there may be, less is granted than was asked for.
            let held_down = takes.initial + takes.granted + takes.taken > MOST;
            assert!(takes.paid <= due, "CREDIT for {id}: {} were returned of {due}", takes.paid);
            assert!(held_down || takes.paid == due, "CREDIT for {id}: {} of {due}", takes.paid);
            tally.check("L11 exactly what was taken is returned");
        }
    }

    pub fn cancel_out(&mut self, id: u64) {
        if let Some(line) = self.lines.get_mut(&id) {
            line.cancelled = true;
        }
    }

    pub fn response_out(&mut self, id: u64) {
        if let Some(line) = self.lines.get_mut(&id) {
            line.responded = true;
        }
    }

    // ---- what the node was given ------------------------------------------------------------------------------

    pub fn item_in(&mut self, id: u64, total: usize) {
        if let Some(takes) = self.lines.get_mut(&id).and_then(|line| line.takes.as_mut()) {
            assert!(takes.credit > 0, "an item of {id} came without credit");
            takes.credit -= total as i64 + ITEM;
        }
    }

    pub fn item_whole_in(&mut self, id: u64, total: usize) {
        if let Some(takes) = self.lines.get_mut(&id).and_then(|line| line.takes.as_mut()) {
            takes.queue.push_back(total);
        }
    }

    pub fn item_abandoned_in(&mut self, id: u64, missing: usize) {
        if let Some(takes) = self.lines.get_mut(&id).and_then(|line| line.takes.as_mut()) {
            takes.credit += missing as i64;
        }
    }

    pub fn end_in(&mut self, id: u64) {
        if let Some(takes) = self.lines.get_mut(&id).and_then(|line| line.takes.as_mut()) {
            takes.ended = true;
        }
    }

    pub fn credit_in(&mut self, id: u64, octets: u32) {
        if let Some(credit) = self.lines.get_mut(&id).and_then(|line| line.sends.as_mut()) {
            *credit += i64::from(octets);
            assert!(*credit <= MOST, "credit of {id} above 2^31-1");
        }
    }

    pub fn answered_in(&mut self, id: u64) {
        if let Some(line) = self.lines.get_mut(&id) {
            line.answered = true;
        }
    }

    // ---- what the application did -----------------------------------------------------------------------------

    /// The application took the next item.
    pub fn took(&mut self, id: u64) {
        let takes = self.lines.get_mut(&id).and_then(|line| line.takes.as_mut());
        let takes = takes.expect("items come on calls that stream");
        let total = takes.queue.pop_front().expect("an item that the wire has not shown");
        takes.taken += total as i64 + ITEM;
    }

    /// The application let more come. `id` is 0 while the call is not out.
    pub fn granted(&mut self, id: u64, number: u32, octets: u32) {
        match self.lines.get_mut(&id).and_then(|line| line.takes.as_mut()) {
            Some(takes) => takes.granted += i64::from(octets),
            None => *self.early.entry(number).or_default() += i64::from(octets),
        }
    }

    /// Nothing waits to be read or written at this node: what it owes for an open stream is below a quarter of the
    /// initial credit, and nothing at all if the peer can begin nothing. So what the peer has, what is owed, what was
    /// not taken and what is on its way are the initial credit and the grants.
    pub fn at_rest(&self, id: u64, tally: &mut Tally) {
        let Some(line) = self.lines.get(&id) else { return };
        let Some(takes) = &line.takes else { return };
        if !line.whole || line.responded || line.cancelled || line.answered || takes.ended {
            return;
        }
        let owed = takes.taken + takes.granted - takes.paid;
        let held_down = takes.initial + takes.granted + takes.taken > MOST;
        if !held_down {
            assert!(
                owed < (takes.initial / 4).max(1),
                "{id} owes {owed} of {} and is at rest",
                takes.initial
            );
            assert!(owed == 0 || takes.credit > 0, "{id} owes {owed}, and the peer has {}", takes.credit);
            tally.check("L11 credit is conserved");
        }
    }
}
