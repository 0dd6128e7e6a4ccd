//! The streams of one connection, as an observer of its line sees them: who may send, what credit there is (L11), and
//! which items wait to be taken.

use std::collections::{BTreeMap, VecDeque};

use tieline_core::wire::FrameType;

use super::assembly::Message;

/// What an item costs besides its octets.
const ITEM: i64 = 256;
fn cost(item: &Message) -> i64 {
    i64::try_from(item.total).unwrap_or(i64::MAX).saturating_add(ITEM)
}

/// The most credit that there may be.
const MOST: i64 = i32::MAX as i64;

/// The direction in which the connection sends items.
#[derive(Debug)]
struct Out {
    credit: i64,
    ended: bool,
    /// Items that are committed whole.
    whole: usize,
}

/// The direction in which it receives items.
#[derive(Debug)]
struct In {
    initial: i64,
    /// What CREDIT gave back.
    returned: i64,
    /// The cost of items that have begun, as far as their frames were given.
    begun: i64,
    /// Items that were given whole and not taken.
    waiting: VecDeque<(Option<Vec<u8>>, i64)>,
    /// What the application owes to the peer: the cost of what it took, and what it granted.
    taken: i64,
    /// More was granted than there may be.
    clamped: bool,
    /// STREAM_END was given: nobody needs credit any more.
    ended: bool,
}

/// A call that streams.
#[derive(Debug)]
pub struct Flow {
    out: Option<Out>,
    into: Option<In>,
    /// The connection has ended it: CANCEL, or the RESPONSE.
    ended: bool,
    /// The application has its outcome, or has given it up.
    pub over: bool,
    /// The application has answered it.
    answered: bool,
    /// It is known which of the application's calls it is.
    known: bool,
}

impl Flow {
    /// One that streams in these directions, with the credit that each begins with.
    pub fn new(out: Option<u32>, into: Option<u32>) -> Self {
        let credit = |octets: u32| i64::from(octets).min(MOST);
        Self {
            out: out.map(|octets| Out { credit: credit(octets), ended: false, whole: 0 }),
            into: into.map(|octets| In {
                initial: credit(octets),
                returned: 0,
                begun: 0,
                waiting: VecDeque::new(),
                taken: 0,
                clamped: false,
                ended: false,
            }),
            ended: false,
            over: false,
            answered: false,
            known: false,
        }
    }

    /// The connection commits the first frame of an item.
    pub fn item_out(&mut self, message: &Message) {
        let id = message.id;
        assert!(!self.ended, "an item behind the end of {id}");
        assert!(!self.over, "an item of {id}, which is over");
        let out = self.out.as_mut().expect("an item in a direction that the kind has not");
        assert!(!out.ended, "an item behind STREAM_END of {id}");
        assert!(out.credit > 0, "L11: an item without credit on {id}");
        out.credit -= cost(message);
    }

    /// An item is committed whole.
    pub fn item_is_out(&mut self) {
        if let Some(out) = &mut self.out {
            out.whole += 1;
        }
    }

    /// Items that are committed whole.
    pub fn committed(&self) -> usize {
        self.out.as_ref().map_or(0, |out| out.whole)
    }

    /// The connection commits STREAM_END, CREDIT or CANCEL, or begins its RESPONSE.
    pub fn said(&mut self, frame_type: FrameType, octets: u32, id: u64) {
        match frame_type {
            FrameType::STREAM_END => {
                assert!(!self.ended, "STREAM_END behind the end of {id}");
                let out = self.out.as_mut().expect("STREAM_END of a kind that sends nothing");
                assert!(!std::mem::replace(&mut out.ended, true), "STREAM_END twice on {id}");
            }
            FrameType::CREDIT => {
                let over = self.ended || self.over || self.answered;
                assert!(!over, "CREDIT for {id}, which is over");
                let into = self.into.as_mut().expect("CREDIT for a direction that the kind has not");
                assert!(octets > 0, "a CREDIT of nothing");
                into.returned += i64::from(octets);
                let covered = into.returned <= into.taken;
                assert!(covered || !self.known, "L11: more credit is returned than was taken on {id}");
                let above = into.initial + into.returned - into.begun > MOST;
                assert!(!above || !self.known, "more credit than there may be");
            }
            _ => self.ended = true,
        }
    }

    /// CREDIT was given.
    pub fn credit_given(&mut self, octets: u32) {
        if let Some(out) = &mut self.out {
            out.credit += i64::from(octets);
        }
    }

    /// STREAM_END was given.
    pub fn end_given(&mut self) {
        if let Some(into) = &mut self.into {
            into.ended = true;
        }
    }

    /// The application has answered it: items that wait to be sent still go out, and none are taken.
    pub fn answered(&mut self) {
        self.answered = true;
    }

    /// The first frame of an item was given.
    pub fn item_in(&mut self, message: &Message) {
        if let Some(into) = &mut self.into {
            into.begun = into.begun.saturating_add(cost(message));
        }
    }

    /// The last one was given.
    pub fn item_is_in(&mut self, message: &Message) {
        if let Some(into) = &mut self.into {
            into.waiting.push_back((message.plain(), cost(message)));
        }
    }

    /// The application took an item.
    pub fn took(&mut self, item: &[u8], id: u64) {
        if !self.known {
            return;
        }
        let into = self.into.as_mut().expect("an item of a direction that the kind has not");
        let (plain, cost) = into.waiting.pop_front().expect("an item that never came");
        assert_eq!(plain.as_deref(), Some(item), "items come whole, once, and in their order ({id})");
        into.taken += cost;
    }

    /// The application lets more come.
    fn granted(&mut self, octets: u32) {
        if let Some(into) = &mut self.into {
            into.taken += i64::from(octets);
            into.clamped |= into.initial + into.taken > MOST;
        }
    }

    /// Whether the connection has not ended it.
    pub const fn goes_on(&self) -> bool {
        !self.ended
    }

    /// Whether there is something to take, as far as is known.
    pub fn waits(&self) -> bool {
        self.known && self.into.as_ref().is_some_and(|into| !into.waiting.is_empty())
    }

    /// L11, when nothing waits to be committed and all that was given is decoded: what was taken has been given back,
    /// but for less than a quarter of the window, and all of it if the peer can begin nothing.
    pub fn at_rest(&self, id: u64) {
        let Some(into) = self.into.as_ref().filter(|into| !into.clamped) else {
            return;
        };
        if self.over || self.ended || self.answered || into.ended || !self.known {
            return;
        }
        let owed = into.taken - into.returned;
        assert!(owed == 0 || owed < into.initial / 4, "L11: {owed} octets of credit are kept back on {id}");
        let credit = into.initial + into.returned - into.begun;
        assert!(owed == 0 || credit > 0, "L11: the peer of {id} is starved, and {owed} octets are owed");
    }
}

/// All of them, by the id of their call.
#[derive(Debug, Default)]
pub struct Flows {
    by_id: BTreeMap<u64, Flow>,
    /// Ids by who made the call and the number in its payload; `None` if two have the same.
    numbers: BTreeMap<(bool, u32), Option<u64>>,
    /// What was granted on calls of this side before they were on the wire.
    early: BTreeMap<u32, u32>,
    /// It is not known any more who takes what.
    forgotten: bool,
}

impl Flows {
    /// A call that streams.
    pub fn begin(&mut self, id: u64, flow: Flow) {
        self.by_id.entry(id).or_insert(flow);
    }

    /// The number of a call has become known; `ours`: one of this side. If two have the same nothing is known of both; nor
    /// is it known who took items that came before all of a call's argument was out, in which its number is.
    pub fn named(&mut self, ours: bool, number: u32, id: u64) {
        let before = self.numbers.insert((ours, number), Some(id));
        if let Some(flow) = self.by_id.get_mut(&id) {
            let fresh = flow.into.as_ref().is_none_or(|into| into.begun == 0);
            flow.known = before.is_none() && fresh && !self.forgotten;
            if ours && let Some(octets) = self.early.remove(&number) {
                flow.granted(octets);
            }
        }
        if let Some(before) = before {
            self.numbers.insert((ours, number), None);
            if let Some(flow) = before.and_then(|id| self.by_id.get_mut(&id)) {
                flow.known = false;
            }
        }
    }

    /// The application lets more come on a call; `ours`: one of this side, which may not be on the wire.
    pub fn grant(&mut self, ours: bool, number: Option<u32>, octets: u32) {
        match (self.by_number(ours, number), number) {
            (Some((_, flow)), _) => flow.granted(octets),
            (None, Some(number)) if ours => {
                let early = self.early.entry(number).or_default();
                *early = early.saturating_add(octets);
            }
            _ => {}
        }
    }

    /// The call with this number, if there is just one.
    pub fn by_number(&mut self, ours: bool, number: Option<u32>) -> Option<(u64, &mut Flow)> {
        let id = self.id(ours, number?)?;
        Some((id, self.by_id.get_mut(&id)?))
    }

    /// Its id.
    pub fn id(&self, ours: bool, number: u32) -> Option<u64> {
        *self.numbers.get(&(ours, number))?
    }

    pub fn get(&mut self, id: u64) -> Option<&mut Flow> {
        self.by_id.get_mut(&id)
    }

    /// What is given is not understood any more: who took what is not known from now on.
    pub fn forget(&mut self) {
        self.forgotten = true;
        self.by_id.values_mut().for_each(|flow| flow.known = false);
    }

    /// Asks all of them.
    pub fn at_rest(&self) {
        self.by_id.iter().for_each(|(id, flow)| flow.at_rest(*id));
    }
}
