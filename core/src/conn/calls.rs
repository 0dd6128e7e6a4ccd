//! The table of this side's calls: slots, and what waits in them.
//!
//! A call's place is a slot number, and the number is part of its wire id (protocol §3: counter 46 ‖ slot 16 ‖ side 1), so
//! that a RESPONSE finds its call by an array access and a comparison. Slots, and the buffers in them, are used again.

use alloc::{boxed::Box, collections::BTreeMap, sync::Arc, vec::Vec};

use bytes::Bytes;

use super::{
    event::{CallId, Failure},
    folded::unused,
    streaming::Streaming,
};
use crate::time::NEVER;

/// A call's place on the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wire {
    /// Not in use, or the RESPONSE has come.
    Off,
    /// Waits to be committed: nothing of it has left.
    Queued,
    /// A one-way of which the first frame is committed, and the last is not.
    Sending,
    /// Committed, the first frame at least; its RESPONSE is due.
    Sent,
}

/// What the application has of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Owner {
    /// It waits for the outcome.
    Waits,
    /// The outcome is known and waits to be fetched.
    Told,
    /// It has the outcome, or gave the call up.
    Gone,
}

/// What few calls have.
#[derive(Debug, Default)]
pub(crate) struct Cold {
    /// How much of the payload was committed, while more of it is to come.
    pub(crate) sent: Option<usize>,
    /// The argument is compressed.
    pub(crate) compressed: bool,
    /// The name of the method, if items are to be compressed.
    pub(crate) compress: Option<Arc<str>>,
    pub(crate) stream: Option<Streaming>,
    /// The ordering key, as long as the call waits to be committed.
    pub(crate) key: Option<Arc<[u8]>>,
    /// What the caller is told if the RESPONSE is a good one: an item is missing.
    pub(crate) broken: Option<Failure>,
}

pub(crate) struct Call {
    pub(crate) generation: u32,
    /// While the slot is free: the next free one.
    next: u32,
    pub(crate) wire: Wire,
    pub(crate) owner: Owner,
    pub(crate) one_way: bool,
    /// Made on behalf of a served call whose handler runs.
    pub(crate) for_handler: bool,
    /// An index of `LANES`.
    pub(crate) lane: u8,
    /// 0 until it is committed.
    pub(crate) id: u64,
    pub(crate) deadline: u64,
    /// Fields 1 and 2 of the envelope, fields 4 and above, and the payload if it is small. Between the first two
    /// goes what is left of the deadline, which is only known when the call is committed.
    pub(crate) buf: Vec<u8>,
    pub(crate) before: u16,
    pub(crate) after: u16,
    pub(crate) body: Bytes,
    pub(crate) failure: Option<Failure>,
    /// Its CANCEL is committed, or waits to be.
    pub(crate) cancelled: bool,
    pub(crate) cold: Option<Box<Cold>>,
}

impl Call {
    /// Octets that it holds while it waits.
    pub(crate) fn weight(&self) -> usize {
        self.buf.len() + self.body.len()
    }
}

/// Buffers up to this capacity stay with their slot for the next call.
const KEEP: usize = 1024;

/// No slot.
const NONE: u32 = u32::MAX;

pub(crate) struct Calls {
    slots: Vec<Call>,
    /// The generation of a new slot.
    first_generation: u32,
    /// The first free slot, which names the next one.
    free: u32,
    open: u32,
    /// Committed calls whose RESPONSE has not come.
    pub(crate) unanswered: u32,
    /// Of those, the ones that stream.
    pub(crate) streams: u32,
    /// Octets of the calls that wait to be committed, and how many those are.
    pub(crate) queued_octets: usize,
    pub(crate) queued: u32,
    /// The lane in which calls with a key wait, and how many: the key beats the priority.
    keys: BTreeMap<Arc<[u8]>, (u8, u32)>,
}

impl Default for Calls {
    fn default() -> Self {
        Self {
            slots: Vec::new(),
            first_generation: 0,
            free: NONE,
            open: 0,
            unanswered: 0,
            streams: 0,
            queued_octets: 0,
            queued: 0,
            keys: BTreeMap::new(),
        }
    }
}

impl Calls {
    /// A table without memory whose slots begin at this generation.
    pub(crate) fn begin_at(&mut self, generation: u32) {
        self.first_generation = generation;
    }

    /// A generation that no slot has had.
    pub(crate) fn unused_generation(&self) -> u32 {
        unused(self.first_generation, self.slots.iter().map(|call| call.generation))
    }

    /// How many are in use.
    #[inline]
    pub(crate) fn open(&self) -> usize {
        self.open as usize
    }

    /// A free slot.
    #[inline(always)]
    pub(crate) fn allocate(&mut self) -> (u32, &mut Call) {
        if self.free == NONE {
            self.grow();
        }
        let slot = self.free;
        // It is in the list of free ones, which only slots of the table come into.
        #[allow(clippy::indexing_slicing)]
        let call = &mut self.slots[slot as usize];
        self.free = call.next;
        self.open = self.open.wrapping_add(1);
        (slot, call)
    }

    #[cold]
    fn grow(&mut self) {
        // The limit on calls is below 2^16.
        self.free = u32::try_from(self.slots.len()).unwrap_or(NONE);
        self.slots.push(Call {
            generation: self.first_generation,
            next: NONE,
            wire: Wire::Off,
            owner: Owner::Gone,
            one_way: false,
            for_handler: false,
            lane: 0,
            id: 0,
            deadline: NEVER,
            buf: Vec::new(),
            before: 0,
            after: 0,
            body: Bytes::new(),
            failure: None,
            cancelled: false,
            cold: None,
        });
    }

    #[inline]
    pub(crate) fn get(&mut self, slot: u32) -> Option<&mut Call> {
        self.slots.get_mut(slot as usize)
    }

    #[inline]
    pub(crate) fn find(&mut self, id: CallId) -> Option<&mut Call> {
        self.slots.get_mut(id.slot as usize).filter(|call| call.generation == id.generation)
    }

    /// Whether the application still has to do with the call of this name.
    pub(crate) fn is_open(&self, id: CallId) -> bool {
        let call = self.slots.get(id.slot as usize);
        call.is_some_and(|call| call.generation == id.generation && call.owner != Owner::Gone)
    }

    /// The call with this wire id, if its RESPONSE is due.
    #[inline(always)]
    pub(crate) fn by_wire_id(&mut self, id: u64) -> Option<(u32, &mut Call)> {
        // 16 bits.
        #[allow(clippy::cast_possible_truncation)]
        let slot = (id >> 1) as u32 & 0xFFFF;
        let call = self.slots.get_mut(slot as usize)?;
        (call.id == id && call.wire == Wire::Sent).then_some((slot, call))
    }

    /// The RESPONSE with this wire id came and goes to who waits for it: the slot, which is free now, and the deadline.
    #[inline(always)]
    pub(crate) fn answered(&mut self, id: u64) -> Option<(u32, u64)> {
        let free = self.free;
        let (slot, call) = self.by_wire_id(id)?;
        if call.owner != Owner::Waits || call.cold.is_some() {
            return None;
        }
        call.wire = Wire::Off;
        call.owner = Owner::Gone;
        call.generation = call.generation.wrapping_add(1);
        call.id = 0;
        call.next = free;
        let deadline = call.deadline;
        self.free = slot;
        // It was counted when it was committed.
        self.open = self.open.wrapping_sub(1);
        self.unanswered = self.unanswered.wrapping_sub(1);
        Some((slot, deadline))
    }

    /// Gives a slot back if neither the wire nor the application needs it any more.
    #[inline]
    pub(crate) fn release(&mut self, slot: u32) {
        if let Some(call) = self.slots.get_mut(slot as usize)
            && call.wire == Wire::Off
            && call.owner == Owner::Gone
        {
            call.generation = call.generation.wrapping_add(1);
            call.id = 0;
            if call.buf.capacity() > KEEP {
                call.buf = Vec::new();
            }
            call.cancelled = false;
            call.cold = None;
            call.next = core::mem::replace(&mut self.free, slot);
            self.open = self.open.saturating_sub(1);
        }
    }

    /// The RESPONSE to a call is there, or will never be.
    pub(crate) fn not_due(&mut self, slot: u32) {
        self.unanswered = self.unanswered.saturating_sub(1);
        if let Some(call) = self.slots.get(slot as usize)
            && call.cold.as_ref().is_some_and(|cold| cold.stream.is_some())
        {
            self.streams = self.streams.saturating_sub(1);
        }
    }

    /// A call with this key is to wait: the key, to be kept with it, and the lane, which is that of those before it.
    pub(crate) fn join_key(&mut self, key: &[u8], lane: u8) -> (Arc<[u8]>, u8) {
        let key = match self.keys.get_key_value(key) {
            Some((key, _)) => Arc::clone(key),
            None => Arc::from(key),
        };
        let (lane, waiting) = self.keys.entry(Arc::clone(&key)).or_insert((lane, 0));
        *waiting += 1;
        (key, *lane)
    }

    /// A call is committed, or never will be: it waits with its key no more.
    pub(crate) fn leave_key(&mut self, slot: u32) {
        let cold = self.slots.get_mut(slot as usize).and_then(|call| call.cold.as_mut());
        let Some(key) = cold.and_then(|cold| cold.key.take()) else { return };
        if let Some((_, waiting)) = self.keys.get_mut(&key) {
            *waiting = waiting.saturating_sub(1);
            if *waiting == 0 {
                self.keys.remove(&key);
            }
        }
    }

    /// A call no longer waits to be committed; its octets are dropped.
    #[inline]
    pub(crate) fn unqueue(&mut self, slot: u32) {
        self.leave_key(slot);
        if let Some(call) = self.slots.get_mut(slot as usize) {
            self.queued_octets = self.queued_octets.saturating_sub(call.weight());
            self.queued = self.queued.saturating_sub(1);
            call.body = Bytes::new();
            call.buf.clear();
        }
    }

    /// Every slot number, for the end of the connection.
    pub(crate) fn slots(&self) -> u32 {
        u32::try_from(self.slots.len()).unwrap_or(u32::MAX)
    }

    /// Gives memory back when nothing is open. Generations go on, so that an old name finds nothing.
    pub(crate) fn shrink(&mut self) {
        for call in &mut self.slots {
            if call.wire == Wire::Off && call.owner == Owner::Gone {
                call.buf = Vec::new();
            }
        }
    }
}
