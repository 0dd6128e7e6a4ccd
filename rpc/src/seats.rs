//! Who waits at streams of the peer: a seat for each that is served, by the slot of its call.
//!
//! A handler may hand its ends of a stream to other tasks, which outlive it. They find here that the call is over, and
//! why.

use std::task::Waker;

use tieline_core::conn::{Cancel, Served};

#[derive(Default)]
struct Seat {
    call: Option<Served>,
    /// It has ended; why, if it was not by the handler's answer.
    over: Option<Option<Cancel>>,
    reader: Option<Waker>,
    sender: Option<Waker>,
}

#[derive(Default)]
pub(crate) struct Seats(Vec<Seat>);

impl Seats {
    /// A call that streams begins.
    pub(crate) fn open(&mut self, call: Served) {
        if self.0.len() <= call.slot() {
            self.0.resize_with(call.slot() + 1, Seat::default);
        }
        if let Some(seat) = self.0.get_mut(call.slot()) {
            *seat = Seat { call: Some(call), ..Seat::default() };
        }
    }

    /// A call has ended; those who wait at it are to be woken, outside the lock. Of one that does not stream nothing is
    /// known here.
    #[inline]
    pub(crate) fn close(&mut self, call: Served, why: Option<Cancel>) -> [Option<Waker>; 2] {
        match self.0.get_mut(call.slot()) {
            Some(seat) if seat.call == Some(call) && seat.over.is_none() => {
                seat.over = Some(why);
                [seat.reader.take(), seat.sender.take()]
            }
            _ => [None, None],
        }
    }

    fn find(&mut self, call: Served) -> Option<&mut Seat> {
        self.0.get_mut(call.slot()).filter(|seat| seat.call == Some(call))
    }

    /// Who waits for items.
    pub(crate) fn reader(&mut self, call: Served) -> Option<Waker> {
        self.find(call)?.reader.take()
    }

    /// Who waits for room for an item.
    pub(crate) fn sender(&mut self, call: Served) -> Option<Waker> {
        self.find(call)?.sender.take()
    }

    /// Leaves the waker of somebody who waits for items; whether the call goes on.
    pub(crate) fn wait_to_read(&mut self, call: Served, waker: &Waker) -> bool {
        let seat = self.find(call).filter(|seat| seat.over.is_none());
        seat.map(|seat| seat.reader = Some(waker.clone())).is_some()
    }

    /// Leaves the waker of somebody who waits for room for an item.
    pub(crate) fn wait_to_send(&mut self, call: Served, waker: &Waker) {
        if let Some(seat) = self.find(call).filter(|seat| seat.over.is_none()) {
            seat.sender = Some(waker.clone());
        }
    }

    /// Why a call ended other than by its answer, as long as that is known.
    pub(crate) fn why(&mut self, call: Served) -> Option<Cancel> {
        self.find(call)?.over?
    }
}
