//! What callers and driver share.
//!
//! A caller encodes straight into the output buffer and wakes the driver only if that buffer was empty.
//! The outcome is left in the caller's slot, whose number is part of the id.

use std::io;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::{Poll, Waker};

use bytes::Bytes;

use crate::error::{Failure, Result};
use crate::frame::{self, Kind};

#[derive(Debug, Default)]
pub(super) struct Shared(Mutex<State>);

#[derive(Debug, Default)]
pub(super) struct State {
    /// Requests that the driver has not taken yet.
    pub(super) out: Vec<u8>,
    slots: Vec<Slot>,
    free: Vec<u16>,
    counter: u64,
    /// Set while the driver has nothing to write.
    pub(super) driver: Option<Waker>,
    /// No handle is left.
    pub(super) unused: bool,
    /// Why the connection is over.
    failed: Option<String>,
}

#[derive(Debug)]
struct Slot {
    id: u64,
    outcome: Outcome,
}

#[derive(Debug)]
enum Outcome {
    /// Nobody uses the slot.
    Free,
    Waits(Waker),
    /// The caller is gone; the reply frees the slot.
    Abandoned,
    Reply(Bytes),
}

impl Shared {
    /// No code that could panic runs under this lock, so a poisoned state is a whole one.
    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn fail(&self, why: &str) {
        let mut state = self.lock();
        state.failed = Some(why.to_owned());
        let wakers: Vec<Waker> = state
            .slots
            .iter()
            .filter_map(|slot| match &slot.outcome {
                Outcome::Waits(waker) => Some(waker.clone()),
                _ => None,
            })
            .collect();
        drop(state);
        wakers.into_iter().for_each(Waker::wake);
    }
}

impl State {
    /// How many calls were ever open at once.
    #[cfg(test)]
    pub(super) fn slots(&self) -> usize {
        self.slots.len()
    }

    fn failure(&self) -> Result<()> {
        match &self.failed {
            None => Ok(()),
            Some(why) => Err(Failure::new(why.as_str())),
        }
    }

    /// Takes a slot and encodes the request. Returns the slot and, if the driver sleeps, its waker.
    pub(super) fn begin(&mut self, payload: &[u8], waker: &Waker) -> Result<(u16, Option<Waker>)> {
        self.failure()?;
        let number = match self.free.pop() {
            Some(number) => number,
            None => {
                let number = u16::try_from(self.slots.len())
                    .map_err(|_| Failure::new("65536 calls are open on one connection"))?;
                self.slots.push(Slot { id: 0, outcome: Outcome::Free });
                number
            }
        };
        self.counter += 1;
        let id = self.counter << 17 | u64::from(number) << 1 | 1;
        if frame::emit(&mut self.out, Kind::Request, id, payload).is_err() {
            self.free.push(number);
            return Err(Failure::new("the payload is too long"));
        }
        if let Some(slot) = self.slots.get_mut(usize::from(number)) {
            slot.id = id;
            slot.outcome = Outcome::Waits(waker.clone());
        }
        Ok((number, self.driver.take()))
    }

    /// Leaves a reply in its slot; returns who waits for it.
    pub(super) fn deliver(&mut self, id: u64, reply: Bytes) -> io::Result<Option<Waker>> {
        let number = (id >> 1) & 0xFFFF;
        let slot = usize::try_from(number)
            .ok()
            .and_then(|index| self.slots.get_mut(index))
            .filter(|slot| slot.id == id)
            .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "a reply to no open call"))?;
        slot.id = 0;
        match std::mem::replace(&mut slot.outcome, Outcome::Reply(reply)) {
            Outcome::Waits(waker) => Ok(Some(waker)),
            Outcome::Abandoned | Outcome::Free | Outcome::Reply(_) => {
                slot.outcome = Outcome::Free;
                self.free.extend(u16::try_from(number));
                Ok(None)
            }
        }
    }

    /// The outcome of the call in this slot, if it has one; the slot is free then.
    pub(super) fn take(&mut self, number: u16, waker: &Waker) -> Poll<Result<Bytes>> {
        let failure = self.failure();
        let Some(slot) = self.slots.get_mut(usize::from(number)) else {
            return Poll::Ready(Err(Failure::new("no such slot")));
        };
        match std::mem::replace(&mut slot.outcome, Outcome::Free) {
            Outcome::Reply(reply) => {
                self.free.push(number);
                Poll::Ready(Ok(reply))
            }
            mut outcome => {
                failure?;
                if let Outcome::Waits(old) = &mut outcome {
                    old.clone_from(waker);
                }
                slot.outcome = outcome;
                Poll::Pending
            }
        }
    }

    pub(super) fn abandon(&mut self, number: u16) {
        if let Some(slot) = self.slots.get_mut(usize::from(number)) {
            match slot.outcome {
                Outcome::Waits(_) => slot.outcome = Outcome::Abandoned,
                Outcome::Reply(_) => {
                    slot.outcome = Outcome::Free;
                    self.free.push(number);
                }
                Outcome::Free | Outcome::Abandoned => {}
            }
        }
    }
}
