//! Who goes first on a connection: a runtime of one thread, and a peer that answers at once and notes the order of frames.
#![allow(clippy::unwrap_used, clippy::panic)]

mod support;

use std::{
    cell::{Cell, RefCell},
    collections::VecDeque,
    future::Future,
    io,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    task::{Context, Poll, Wake, Waker},
};

use bytes::{Buf, BytesMut};
use tieline::{BoxFuture, Client, Clock, Instant, Io, Outbox, Runtime};

use support::{Never, Nobody, frame};

thread_local! {
    /// Tasks that are to be polled, first come, first served.
    static READY: RefCell<VecDeque<Arc<Task>>> = const { RefCell::new(VecDeque::new()) };
    /// What the peer has read: `S` for a small call, `L` for a part of a large one; and `A` where an answer went out.
    static SEEN: RefCell<String> = const { RefCell::new(String::new()) };
    /// How often a driver let all others have their turn.
    static YIELDS: Cell<u32> = const { Cell::new(0) };
}

struct Task(Mutex<Option<BoxFuture<()>>>);

impl Wake for Task {
    fn wake(self: Arc<Self>) {
        READY.with_borrow_mut(|ready| {
            if !ready.iter().any(|task| Arc::ptr_eq(task, &self)) {
                ready.push_back(self);
            }
        });
    }
}

fn spawn(future: impl Future<Output = ()> + Send + 'static) {
    Arc::new(Task(Mutex::new(Some(Box::pin(future))))).wake();
}

/// Polls whoever is ready until `future` is done.
fn run<T: Send + 'static>(future: impl Future<Output = T> + Send + 'static) -> T {
    let output = Arc::new(Mutex::new(None));
    let place = Arc::clone(&output);
    spawn(async move {
        let done = future.await;
        *place.lock().unwrap() = Some(done);
    });
    loop {
        let task = READY.with_borrow_mut(VecDeque::pop_front).expect("everybody waits for somebody else");
        let waker = Waker::from(Arc::clone(&task));
        let mut future = task.0.lock().unwrap();
        if let Some(pending) = future.as_mut()
            && pending.as_mut().poll(&mut Context::from_waker(&waker)).is_ready()
        {
            *future = None;
        }
        drop(future);
        if let Some(output) = output.lock().unwrap().take() {
            return output;
        }
    }
}

#[derive(Clone, Default)]
struct OneThread;

struct Still;

impl Clock for Still {
    fn now(&self) -> Instant {
        Instant::from_nanos(1_000_000_000)
    }
}
/// A peer that serves a hundred calls at once and answers each with nothing as soon as it has come whole. Of its answers
/// one at a time is read.
#[derive(Default)]
struct Peer {
    came: Vec<u8>,
    answers: Vec<Vec<u8>>,
    reader: Option<Waker>,
}

const CHECK_IN: u8 = 1;
const REQUEST: u8 = 5;
const RESPONSE: u8 = 6;
const CONTINUATION: u8 = 12;
const MORE: u8 = 1;

impl Peer {
    /// Takes a frame off the front of what has come, if it is whole.
    fn take(&mut self) -> bool {
        let Some(head) = self.came.first_chunk::<18>().copied() else { return false };
        let len = u32::from_be_bytes([head[14], head[15], head[16], head[17]]);
        let whole = 18 + usize::try_from(len).unwrap();
        if self.came.len() < whole {
            return false;
        }
        self.came.drain(..whole);
        let (kind, more, id) = (head[3], head[4] & MORE != 0, &head[6..14]);
        match kind {
            // An identifier, and calls at once.
            CHECK_IN => self.answers.push(frame(2, 0, &[0; 8], &[5, 0x0A, 1, b's', 0x40, 100])),
            REQUEST | CONTINUATION => {
                let large = more || kind == CONTINUATION;
                SEEN.with_borrow_mut(|seen| seen.push(if large { 'L' } else { 'S' }));
                if !more {
                    self.answers.push(frame(RESPONSE, 0, id, b""));
                }
            }
            _ => {}
        }
        true
    }
}

impl Io for Peer {
    fn poll_read(&mut self, cx: &mut Context<'_>, into: &mut BytesMut) -> Poll<io::Result<usize>> {
        if self.answers.is_empty() {
            self.reader = Some(cx.waker().clone());
            return Poll::Pending;
        }
        let octets = self.answers.remove(0);
        if octets[3] == RESPONSE {
            SEEN.with_borrow_mut(|seen| seen.push('A'));
        }
        into.extend_from_slice(&octets);
        Poll::Ready(Ok(octets.len()))
    }

    fn poll_write(&mut self, _cx: &mut Context<'_>, out: &mut Outbox) -> Poll<io::Result<usize>> {
        let octets = out.remaining();
        out.chunks().for_each(|chunk| self.came.extend_from_slice(chunk));
        out.advance(octets);
        while self.take() {}
        if !self.answers.is_empty()
            && let Some(reader) = self.reader.take()
        {
            reader.wake();
        }
        Poll::Ready(Ok(octets))
    }

    fn poll_shutdown(&mut self, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn yield_now(&mut self, cx: &mut Context<'_>) {
        YIELDS.set(YIELDS.get() + 1);
        cx.waker().wake_by_ref();
    }
}

impl Runtime for OneThread {
    type Io = Peer;
    type Time = Never;
    type Listener = Nobody<Peer>;

    fn clock(&self) -> Arc<dyn Clock> {
        Arc::new(Still)
    }

    fn time(&self) -> Never {
        Never
    }

    fn spawn(&self, task: BoxFuture<()>) {
        spawn(task);
    }

    async fn connect(&self, _address: &str) -> io::Result<Peer> {
        Ok(Peer::default())
    }

    async fn listen(&self, _address: &str) -> io::Result<Nobody<Peer>> {
        Ok(Nobody::new())
    }
}

/// What the peer has read when a large message has crossed beside so many callers, each of whom asks again and again, so
/// often.
fn beside(callers: usize, often: usize) -> String {
    run(async move {
        let client = Client::<OneThread>::builder("a").connect("there").await.unwrap();
        let peer = client.peer().unwrap();
        peer.call("t.T/Small", "x").await.unwrap();
        let large = peer.clone();
        let done = Arc::new(AtomicBool::new(false));
        for _ in 0..callers {
            let (peer, done) = (peer.clone(), Arc::clone(&done));
            spawn(async move {
                let mut asked = 0;
                while asked < often && !done.load(Relaxed) {
                    peer.call("t.T/Small", "x").await.unwrap();
                    asked += 1;
                }
            });
        }
        large.call("t.T/Large", vec![7; 4 << 20]).await.unwrap();
        done.store(true, Relaxed);
    });
    SEEN.take()
}

/// A caller that has its answer asks again before the next part of the large message is written, and every time a part of
/// that goes along: neither waits for more of the other than must be.
#[test]
fn small_calls_and_a_large_one_take_turns() {
    let seen = beside(1, usize::MAX).replace('A', "");
    let (first, last) = (seen.find('L').unwrap(), seen.rfind('L').unwrap());
    let between: Vec<usize> = seen[first..=last].split('S').map(str::len).collect();
    let (_, rest) = between.split_first().unwrap();
    assert!(rest.len() > 100, "{seen}");
    assert!(rest.iter().all(|parts| (1..=2).contains(parts)), "{between:?}");
}

/// Callers that are woken one after the other and do not ask again do not hold the large message up.
#[test]
fn a_large_message_goes_on_between_answers() {
    let seen = beside(50, 1).replace('S', "");
    let together = seen.split('L').map(str::len).max().unwrap();
    assert!(together <= 3, "{seen}");
}

/// Whoever waits is polled before the driver goes on: once a small call, and not more.
#[test]
fn a_driver_lets_others_have_their_turn() {
    let before = YIELDS.get();
    let calls = beside(1, usize::MAX).matches('S').count();
    let yields = YIELDS.get() - before;
    assert!((calls..=calls * 2 + 4).contains(&yields.try_into().unwrap()), "{yields} in {calls} calls");
}
