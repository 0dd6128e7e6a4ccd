//! Items on their way in, at either end of a stream.
//!
//! They are taken out of the core a batch at a time, under one lock, and handed out from here without one. With that
//! their credit is returned, so a stream holds a window in the core, and here a batch: up to 128 items, which end with
//! the one that makes them 64 KiB. The window grows while the reader keeps up; see [`growth`](crate::growth).

use std::{
    collections::VecDeque,
    sync::Arc,
    task::{Context, Poll},
};

use bytes::Bytes;
use tieline_core::conn::{Stream, Taken};

use crate::{
    growth::Growth,
    link::{Link, State},
    outflow::RUN,
};

/// A batch: so many items, or the one that makes them so many octets.
const ITEMS: usize = 128;
const OCTETS: usize = 64 * 1024;

/// What looking into the core came to.
pub(crate) enum Looked {
    /// There is a batch.
    Batch,
    /// There is nothing at present.
    Nothing,
    /// The sender has ended.
    End,
}

/// The receiving direction of a stream.
#[derive(Default)]
pub(crate) struct Inflow {
    batch: VecDeque<Bytes>,
    /// Items since something had to be waited for.
    run: usize,
    /// If its window may grow.
    growth: Option<Growth>,
}

impl Inflow {
    /// Of a stream whose window grows while its items are taken as they come.
    pub(crate) fn growing() -> Self {
        Self { growth: Some(Growth::default()), ..Self::default() }
    }

    /// The next item that is here.
    #[inline]
    pub(crate) fn pop(&mut self) -> Option<Bytes> {
        self.batch.pop_front()
    }

    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.batch.is_empty()
    }

    /// Whether it is somebody else's turn before the next batch. The task is woken for its next one.
    pub(crate) fn must_yield(&mut self, cx: &Context<'_>) -> Poll<()> {
        if self.run < RUN {
            return Poll::Ready(());
        }
        self.run = 0;
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// Takes a batch, if there is none left.
    pub(crate) fn look(&mut self, state: &mut State, stream: Stream) -> Looked {
        let mut octets = 0;
        let mut emptied = true;
        let found = loop {
            match state.conn.take_item(state.now, stream) {
                Some(Taken::Item(item)) => {
                    octets += item.len();
                    self.batch.push_back(item);
                    if self.batch.len() >= ITEMS || octets >= OCTETS {
                        emptied = false;
                        break Looked::Batch;
                    }
                }
                Some(Taken::End) if self.batch.is_empty() => break Looked::End,
                None if self.batch.is_empty() => break Looked::Nothing,
                Some(Taken::End) | None => break Looked::Batch,
            }
        };
        match found {
            Looked::Batch => {
                self.run += self.batch.len();
                if let Some(growth) = &mut self.growth {
                    let (first, taken) = (state.conn.limits().stream_window, (self.batch.len(), octets));
                    if let Some(more) = growth.took(state.now, first, taken, emptied, &mut state.grown) {
                        state.conn.grant(state.now, stream, more);
                    }
                }
            }
            Looked::Nothing | Looked::End => self.run = 0,
        }
        found
    }
}

/// Locks for taking items; with the lock goes the duty to wake the driver if credit is to be returned.
pub(crate) fn enter<T>(link: &Arc<Link>, take: impl FnOnce(&mut State) -> T) -> T {
    let mut entered = link.enter();
    let taken = take(&mut entered.state);
    if entered.state.conn.next().write {
        entered.leave();
    }
    taken
}
