//! What runtimes need that are made for one test: no timers, nobody who dials in, and frames by hand.

use std::{
    io,
    marker::PhantomData,
    task::{Context, Poll},
};

use tieline::{Instant, Io, Listener, Time};

/// A timer that never fires.
pub(crate) struct Never;

impl Time for Never {
    fn poll_until(&mut self, _cx: &mut Context<'_>, _at: Instant) -> Poll<()> {
        Poll::Pending
    }
}

/// A listener that nobody dials.
pub(crate) struct Nobody<I>(PhantomData<I>);

impl<I> Nobody<I> {
    pub(crate) const fn new() -> Self {
        Self(PhantomData)
    }
}

impl<I: Io> Listener for Nobody<I> {
    type Io = I;

    fn poll_accept(&mut self, _cx: &mut Context<'_>) -> Poll<io::Result<(I, String)>> {
        Poll::Pending
    }

    fn local_address(&self) -> String {
        String::new()
    }
}

pub(crate) fn frame(kind: u8, status: u8, id: &[u8], body: &[u8]) -> Vec<u8> {
    let len = u32::try_from(body.len()).unwrap();
    [&[0xBE, 0xA7, 1, kind, 0, status], id, &len.to_be_bytes(), body].concat()
}
