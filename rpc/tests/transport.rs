//! A transport that fails in ways that sockets only do when nobody looks: a runtime made for that.
#![allow(clippy::unwrap_used, clippy::panic)]

mod support;

use std::{
    future::{Future, pending},
    io,
    pin::pin,
    sync::Arc,
    task::{Context, Poll, Wake, Waker},
    thread::{self, Thread},
    time::Duration,
};

use bytes::{Buf, BytesMut};
use tieline::{BoxFuture, By, Client, Clock, Instant, Io, Outbox, Ran, Runtime, Status};

use support::{Never, Nobody, frame};

struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

fn block_on<F: Future>(future: F) -> F::Output {
    let mut future = pin!(future);
    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    let begun = std::time::Instant::now();
    loop {
        if let Poll::Ready(output) = future.as_mut().poll(&mut Context::from_waker(&waker)) {
            return output;
        }
        assert!(begun.elapsed() < Duration::from_secs(10), "it hangs");
        thread::park_timeout(Duration::from_secs(1));
    }
}

/// Every task a thread, no timers, and connections that end as [`Failing`] says.
#[derive(Clone, Default)]
struct Threads;

struct Wall(std::time::Instant);

impl Clock for Wall {
    fn now(&self) -> Instant {
        Instant::from_nanos(u64::try_from(self.0.elapsed().as_nanos()).unwrap() + 1)
    }
}
/// Takes the check-in and answers it; then fails the next write, while a CLOSE has arrived that was not read.
struct Failing {
    written: usize,
    arrived: Vec<Vec<u8>>,
    broken: bool,
    reader: Option<Waker>,
}

impl Io for Failing {
    fn poll_read(&mut self, cx: &mut Context<'_>, into: &mut BytesMut) -> Poll<io::Result<usize>> {
        match self.arrived.pop() {
            Some(octets) => {
                into.extend_from_slice(&octets);
                Poll::Ready(Ok(octets.len()))
            }
            None if self.broken => Poll::Ready(Err(io::ErrorKind::ConnectionReset.into())),
            None => {
                self.reader = Some(cx.waker().clone());
                Poll::Pending
            }
        }
    }

    fn poll_write(&mut self, _cx: &mut Context<'_>, out: &mut Outbox) -> Poll<io::Result<usize>> {
        self.written += 1;
        if self.written > 1 {
            self.broken = true;
            // An envelope of one field, `message`.
            self.arrived.push(frame(0x0E, 0x8A, &[0; 8], &[8, 0x0A, 6, b'e', b'n', b'o', b'u', b'g', b'h']));
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        let octets = out.remaining();
        out.advance(octets);
        // An envelope of an identifier and of calls that it serves at once.
        self.arrived.push(frame(0x02, 0, &[0; 8], &[5, 0x0A, 1, b's', 0x40, 9]));
        if let Some(reader) = self.reader.take() {
            reader.wake();
        }
        Poll::Ready(Ok(octets))
    }

    fn poll_shutdown(&mut self, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

impl Runtime for Threads {
    type Io = Failing;
    type Time = Never;
    type Listener = Nobody<Failing>;

    fn clock(&self) -> Arc<dyn Clock> {
        Arc::new(Wall(std::time::Instant::now()))
    }

    fn time(&self) -> Never {
        Never
    }

    fn spawn(&self, task: BoxFuture<()>) {
        thread::spawn(move || block_on(task));
    }

    async fn connect(&self, address: &str) -> io::Result<Failing> {
        if address == "nowhere" {
            return pending().await;
        }
        Ok(Failing { written: 0, arrived: Vec::new(), broken: false, reader: None })
    }

    async fn listen(&self, _address: &str) -> io::Result<Nobody<Failing>> {
        Ok(Nobody::new())
    }
}

#[test]
fn a_write_that_fails_does_not_hide_why_the_peer_closed() {
    let client = Client::<Threads>::builder("a");
    let client = block_on(client.connect("there")).unwrap();
    let peer = client.peer().unwrap();
    let error = block_on(peer.call("t.T/Echo", "x")).unwrap_err();
    assert_eq!((error.status(), error.ran()), (Status::CONNECTION_LOST, Ran::Maybe), "{error}");
    let closed = block_on(peer.closed());
    assert_eq!((closed.by, closed.status), (By::Peer, Status::EXCESSIVE_LOAD), "{closed}");
    assert_eq!(closed.message, "enough");
    block_on(client.close());
}
