//! Sockets of tasks: readiness that the loop notes, and the wakers of who waits for it.

use std::{
    fmt, io,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU8, Ordering},
    },
    task::{Context, Poll, Waker},
};

use mio::event;

use crate::{
    poller::{BOTH, task},
    shared::{Shared, lock},
};

/// Bits of readiness, and of the end of a direction.
pub(crate) const READ: u8 = 1;
pub(crate) const WRITE: u8 = 2;
const ENDING: u8 = 4;

/// What is known of one socket.
#[derive(Debug, Default)]
pub(crate) struct Source {
    readiness: AtomicU8,
    /// Who waits to read, and to write.
    wakers: Mutex<[Option<Waker>; 2]>,
}

impl Source {
    /// The poller has told of it.
    pub(crate) fn note(&self, event: &event::Event) {
        let mut bits = 0;
        if event.is_readable() || event.is_read_closed() || event.is_error() {
            bits |= READ;
        }
        if event.is_writable() || event.is_write_closed() || event.is_error() {
            bits |= WRITE;
        }
        if event.is_read_closed() || event.is_error() {
            bits |= ENDING;
        }
        self.readiness.fetch_or(bits, Ordering::AcqRel);
        self.wake(bits);
    }

    /// The loop ends: whoever waits is woken, and finds that it has.
    pub(crate) fn end(&self) {
        self.wake(READ | WRITE);
    }

    fn wake(&self, bits: u8) {
        let [read, write] = {
            let [reader, writer] = &mut *lock(&self.wakers);
            [
                if bits & READ == 0 { None } else { reader.take() },
                if bits & WRITE == 0 { None } else { writer.take() },
            ]
        };
        read.into_iter().chain(write).for_each(Waker::wake);
    }

    /// Whether the end of what comes in was announced.
    pub(crate) fn is_ending(&self) -> bool {
        self.readiness.load(Ordering::Acquire) & ENDING != 0
    }

    /// Says that a direction may be ready still.
    pub(crate) fn again(&self, bit: u8) {
        self.readiness.fetch_or(bit, Ordering::AcqRel);
    }

    /// Takes the readiness of a direction, or leaves a waker for it. It is taken before it is used: what the poller
    /// notes meanwhile is not lost.
    fn poll_ready(&self, bit: u8, cx: &Context<'_>) -> Poll<()> {
        if self.readiness.fetch_and(!bit, Ordering::AcqRel) & bit != 0 {
            return Poll::Ready(());
        }
        let mut wakers = lock(&self.wakers);
        let [reader, writer] = &mut *wakers;
        let place = if bit == READ { reader } else { writer };
        if place.as_ref().is_none_or(|waker| !waker.will_wake(cx.waker())) {
            *place = Some(cx.waker().clone());
        }
        drop(wakers);
        // It may have become ready before the waker was there.
        if self.readiness.fetch_and(!bit, Ordering::AcqRel) & bit != 0 {
            return Poll::Ready(());
        }
        Poll::Pending
    }
}

/// A socket that a loop watches for a task.
pub(crate) struct Watched<S: event::Source> {
    pub(crate) socket: S,
    pub(crate) source: Arc<Source>,
    shared: Arc<Shared>,
    number: u32,
}

impl<S: event::Source> Watched<S> {
    pub(crate) fn new(shared: Arc<Shared>, mut socket: S) -> io::Result<Self> {
        // It is tried once, whatever the poller says.
        let source = Arc::new(Source { readiness: AtomicU8::new(READ | WRITE), ..Source::default() });
        let inserted = lock(&shared.sources).insert(Arc::clone(&source));
        let name =
            inserted.map_err(|_| io::Error::other("the loop has no number left for another socket"))?;
        if let Err(error) = shared.registry.register(&mut socket, task(name.number), BOTH) {
            lock(&shared.sources).remove(name.number);
            return Err(error);
        }
        Ok(Self { socket, source, shared, number: name.number })
    }

    /// Does something with the socket as soon as it is ready for that.
    pub(crate) fn poll_io<T>(
        &mut self,
        bit: u8,
        cx: &Context<'_>,
        mut act: impl FnMut(&mut S, &Source) -> io::Result<T>,
    ) -> Poll<io::Result<T>> {
        loop {
            if self.source.poll_ready(bit, cx).is_pending() {
                // A loop that has ended tells of nothing any more.
                return if self.shared.is_over() {
                    Poll::Ready(Err(io::Error::other("the loop has ended")))
                } else {
                    Poll::Pending
                };
            }
            match act(&mut self.socket, &self.source) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                done => return Poll::Ready(done),
            }
        }
    }
}

impl<S: event::Source> Watched<S> {
    /// The loop that watches it.
    pub(crate) fn shared(&self) -> Arc<Shared> {
        Arc::clone(&self.shared)
    }
}

impl<S: event::Source> Drop for Watched<S> {
    fn drop(&mut self) {
        // That it cannot be taken out means that it is not in it.
        let _ = self.shared.registry.deregister(&mut self.socket);
        let gone = lock(&self.shared.sources).remove(self.number);
        drop(gone);
    }
}

impl<S: event::Source + fmt::Debug> fmt::Debug for Watched<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.socket.fmt(f)
    }
}
