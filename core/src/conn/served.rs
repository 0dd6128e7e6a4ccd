//! The table of the peer's calls that are being served.
//!
//! Few frames but the first name such a call by its id, so finding one must be bounded rather than fast: an index by the
//! low bits of the id, which are what senders vary, may forget, and then the ids are looked through. There is no hash map
//! for a peer to attack, and keeping the index costs one store a call. A place is held until the answer is committed *and* the handler has
//! really stopped, whichever is later (protocol §5, "One outcome").

use alloc::{boxed::Box, sync::Arc, vec::Vec};

use bytes::Bytes;

use super::{
    event::{Incoming, Served},
    folded::unused,
    lanes::NORMAL,
    streaming::Streaming,
};
use crate::{time::NEVER, wire::Status};

/// What few served calls have.
#[derive(Debug, Default)]
pub(crate) struct Cold {
    /// The head, and the argument once it is whole, of a call that has not started: it arrives, or waits for its turn.
    pub(crate) parked: Option<Incoming>,
    /// The argument is not whole.
    pub(crate) arriving: bool,
    /// Octets that are reserved for it and have not come.
    pub(crate) missing: usize,
    /// What a one-way that waits holds of the backlog's octets.
    pub(crate) weight: usize,
    pub(crate) key: Option<Arc<[u8]>>,
    pub(crate) stream: Option<Streaming>,
    /// The answer goes out behind the items.
    pub(crate) answer_waits: bool,
    /// How much of the answer's payload was committed, while more of it is to come.
    pub(crate) sent: Option<usize>,
    /// The answer is compressed.
    pub(crate) compressed: bool,
    /// Result and items are to be compressed.
    pub(crate) compress: bool,
    /// The index of the method.
    pub(crate) method: u32,
}

pub(crate) struct Serving {
    pub(crate) generation: u32,
    /// While the slot is free: the next free one.
    next: u32,
    pub(crate) id: u64,
    /// The handler has started and not stopped.
    pub(crate) running: bool,
    /// An answer is there, or none is due.
    pub(crate) answered: bool,
    /// The answer waits to be committed.
    pub(crate) unwritten: bool,
    /// It was admitted, and counts against `max_concurrent`; a refusal does not.
    pub(crate) admitted: bool,
    pub(crate) one_way: bool,
    /// A usual call that runs, and nothing has become of it so far: it is admitted, has no priority, and its answer is
    /// due. Whoever looks at it in order to change it takes that back.
    pub(crate) quick: bool,
    pub(crate) lane: u8,
    pub(crate) deadline: u64,
    /// Octets of the argument, charged to the memory of the connection.
    pub(crate) held: u32,
    pub(crate) status: Status,
    /// The answer: envelope, and payload if it is small.
    pub(crate) buf: Vec<u8>,
    pub(crate) envelope: u32,
    pub(crate) body: Bytes,
    pub(crate) cold: Option<Box<Cold>>,
}

impl Serving {
    /// Whether it was admitted and has not started.
    pub(crate) fn is_pending(&self) -> bool {
        self.cold.as_ref().is_some_and(|cold| cold.parked.is_some())
    }

    /// What few have; made if it is not there.
    pub(crate) fn cold(&mut self) -> &mut Cold {
        self.cold.get_or_insert_default()
    }
}

/// Buffers up to this capacity stay with their slot for the next answer.
const KEEP: usize = 1024;

impl Serving {
    fn is_usual(&self) -> bool {
        let open = self.running && self.admitted && !self.answered && !self.unwritten && !self.one_way;
        open && self.lane == NORMAL && self.id != 0 && self.cold.is_none()
    }
}

/// No slot.
const NONE: u32 = u32::MAX;

pub(crate) struct ServedCalls {
    slots: Vec<Serving>,
    /// The generation of a new slot.
    first_generation: u32,
    /// The first free slot, which names the next one.
    free: u32,
    open: u32,
    /// Slots by the low bits of the id; a hint.
    index: Vec<u32>,
    /// REQUESTs that were admitted and hold their place.
    pub(crate) admitted: u32,
    /// REQUESTs in the table, refused ones whose answer is unwritten among them.
    pub(crate) requests: u32,
    /// One-ways that run.
    pub(crate) one_ways: u32,
    /// REQUESTs that were admitted, hold their place and stream.
    pub(crate) streams: u32,
    /// Octets of arguments that are held.
    pub(crate) held: usize,
}

impl Default for ServedCalls {
    fn default() -> Self {
        Self {
            slots: Vec::new(),
            first_generation: 0,
            free: NONE,
            open: 0,
            index: Vec::new(),
            admitted: 0,
            requests: 0,
            one_ways: 0,
            streams: 0,
            held: 0,
        }
    }
}

impl ServedCalls {
    /// A table without memory whose slots begin at this generation.
    pub(crate) fn begin_at(&mut self, generation: u32) {
        self.first_generation = generation;
    }

    /// A generation that no slot has had.
    pub(crate) fn unused_generation(&self) -> u32 {
        unused(self.first_generation, self.slots.iter().map(|serving| serving.generation))
    }

    /// How many are in the table.
    pub(crate) fn open(&self) -> usize {
        self.open as usize
    }

    /// A place for the one-way `id`, which does not run yet.
    pub(crate) fn admit_one_way(&mut self, id: u64) -> (u32, &mut Serving) {
        let slot = self.free_slot();
        let serving = self.place(slot, id);
        serving.one_way = true;
        serving.admitted = false;
        serving.running = false;
        serving.answered = true;
        (slot, serving)
    }

    /// A place for the REQUEST `id`; if it is admitted it runs.
    #[inline(always)]
    pub(crate) fn admit(&mut self, id: u64, admitted: bool) -> (u32, &mut Serving) {
        self.requests += 1;
        self.admitted += u32::from(admitted);
        let slot = self.free_slot();
        let hint = self.hint(id);
        if let Some(place) = self.index.get_mut(hint) {
            *place = slot;
        }
        let serving = self.place(slot, id);
        serving.one_way = false;
        serving.admitted = admitted;
        serving.running = admitted;
        serving.answered = false;
        (slot, serving)
    }

    /// The first free slot.
    #[inline(always)]
    fn free_slot(&mut self) -> u32 {
        if self.free == NONE {
            self.grow();
        }
        self.free
    }

    /// Takes the first free slot.
    #[inline(always)]
    fn place(&mut self, slot: u32, id: u64) -> &mut Serving {
        // It is in the list of free ones, which only slots of the table come into.
        #[allow(clippy::indexing_slicing)]
        let serving = &mut self.slots[slot as usize];
        self.free = serving.next;
        self.open = self.open.wrapping_add(1);
        serving.id = id;
        serving.lane = NORMAL;
        serving.deadline = NEVER;
        serving
    }

    #[cold]
    fn grow(&mut self) {
        self.free = u32::try_from(self.slots.len()).unwrap_or(NONE);
        self.slots.push(Serving {
            generation: self.first_generation,
            next: NONE,
            id: 0,
            running: false,
            answered: true,
            unwritten: false,
            admitted: false,
            one_way: false,
            quick: false,
            lane: NORMAL,
            deadline: NEVER,
            held: 0,
            status: Status::OK,
            buf: Vec::new(),
            envelope: 0,
            body: Bytes::new(),
            cold: None,
        });
        if self.index.len() < self.slots.len() {
            self.index.resize((self.slots.len() * 2).next_power_of_two(), 0);
        }
    }

    #[inline]
    fn hint(&self, id: u64) -> usize {
        // Only the low bits count.
        #[allow(clippy::cast_possible_truncation)]
        let low = (id >> 1) as usize;
        low & self.index.len().wrapping_sub(1)
    }

    /// The slot of the REQUEST with this id, if it is in the table.
    pub(crate) fn by_wire_id(&self, id: u64) -> Option<u32> {
        let is = |serving: &Serving| serving.id == id && !serving.one_way;
        let hinted = self.index.get(self.hint(id)).copied()?;
        if self.slots.get(hinted as usize).is_some_and(is) {
            return Some(hinted);
        }
        let slot = self.slots.iter().position(is)?;
        u32::try_from(slot).ok()
    }

    #[inline]
    pub(crate) fn get(&mut self, slot: u32) -> Option<&mut Serving> {
        let serving = self.slots.get_mut(slot as usize)?;
        serving.quick = false;
        Some(serving)
    }

    /// The call that the application names, while its handler runs.
    #[inline]
    pub(crate) fn find(&mut self, call: Served) -> Option<&mut Serving> {
        self.get(call.slot).filter(|serving| serving.generation == call.generation && serving.running)
    }

    /// A call that the application names is answered, and its handler has stopped, if nothing unusual has become of it:
    /// its place is free now. Its id and its deadline.
    #[inline(always)]
    pub(crate) fn answered(&mut self, call: Served) -> Option<(u64, u64)> {
        let serving = self.slots.get_mut(call.slot as usize)?;
        if serving.generation != call.generation || !serving.quick {
            return None;
        }
        debug_assert!(serving.is_usual());
        serving.quick = false;
        serving.running = false;
        serving.answered = true;
        serving.generation = serving.generation.wrapping_add(1);
        serving.next = self.free;
        self.free = call.slot;
        // All of this was counted when it was admitted.
        self.open = self.open.wrapping_sub(1);
        self.requests = self.requests.wrapping_sub(1);
        self.admitted = self.admitted.wrapping_sub(1);
        self.held = self.held.wrapping_sub(core::mem::take(&mut serving.held) as usize);
        Some((core::mem::take(&mut serving.id), serving.deadline))
    }

    /// The call with this name, whether it runs, waits, or is over but for its answer.
    #[inline]
    pub(crate) fn standing(&mut self, call: Served) -> Option<&mut Serving> {
        self.get(call.slot).filter(|serving| serving.generation == call.generation && serving.id != 0)
    }

    /// A one-way starts.
    pub(crate) fn start_one_way(&mut self, slot: u32) {
        if let Some(serving) = self.slots.get_mut(slot as usize) {
            serving.running = true;
            serving.admitted = true;
            self.one_ways += 1;
        }
    }

    /// Gives a place back if the answer is out and the handler has stopped.
    #[inline]
    pub(crate) fn release(&mut self, slot: u32) {
        if let Some(serving) = self.slots.get_mut(slot as usize)
            && !serving.running
            && serving.answered
            && !serving.unwritten
            && serving.id != 0
            && !serving.is_pending()
        {
            serving.id = 0;
            serving.generation = serving.generation.wrapping_add(1);
            self.held = self.held.saturating_sub(serving.held as usize);
            serving.held = 0;
            if serving.cold.take().is_some_and(|cold| cold.stream.is_some()) {
                self.streams = self.streams.saturating_sub(1);
            }
            if serving.one_way {
                self.one_ways = self.one_ways.saturating_sub(u32::from(serving.admitted));
            } else {
                self.requests = self.requests.saturating_sub(1);
                self.admitted = self.admitted.saturating_sub(u32::from(serving.admitted));
            }
            if serving.buf.capacity() > KEEP {
                serving.buf = Vec::new();
            }
            serving.next = core::mem::replace(&mut self.free, slot);
            self.open = self.open.saturating_sub(1);
        }
    }

    /// Every slot number, for the end of the connection.
    pub(crate) fn slots(&self) -> u32 {
        u32::try_from(self.slots.len()).unwrap_or(u32::MAX)
    }

    /// Gives memory back on an idle line.
    pub(crate) fn shrink(&mut self) {
        for serving in self.slots.iter_mut().filter(|serving| serving.id == 0) {
            serving.buf = Vec::new();
        }
    }
}
