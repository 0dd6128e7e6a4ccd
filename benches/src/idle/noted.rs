//! A runtime that notes when its tasks are polled, and when its connections move octets.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::BytesMut;
use tieline_tokio::{BoxFuture, Clock, Io, Listener, Outbox, Runtime};

use super::state::Beats;

/// What is kept of each: more than the quiet server that is watched does.
const MOST: usize = 4096;

/// Moments in microseconds since the first.
#[derive(Debug, Default)]
struct Log {
    polls: Vec<u64>,
    moved: Vec<u64>,
}

fn log() -> MutexGuard<'static, Log> {
    static LOG: Mutex<Log> = Mutex::new(Log { polls: Vec::new(), moved: Vec::new() });
    LOG.lock().unwrap_or_else(PoisonError::into_inner)
}

fn note(list: impl FnOnce(&mut Log) -> &mut Vec<u64>) {
    static FIRST: OnceLock<Instant> = OnceLock::new();
    let since = FIRST.get_or_init(Instant::now).elapsed();
    let mut log = log();
    let list = list(&mut log);
    if list.len() < MOST {
        list.push(u64::try_from(since.as_micros()).unwrap_or(u64::MAX));
    }
}

/// What has been noted so far; no connections yet.
pub(super) fn so_far() -> Beats {
    let log = log();
    Beats { polls: log.polls.clone(), moved: log.moved.clone(), least: u64::MAX, ..Beats::default() }
}

/// Notes a turn of a loop that has no tasks. `moved`: whether octets were read or written in it.
pub(super) fn turn(moved: bool) {
    note(|log| &mut log.polls);
    if moved {
        note(|log| &mut log.moved);
    }
}

/// The runtime.
#[derive(Clone, Debug, Default)]
pub(super) struct Noted<R>(R);

impl<R: Runtime> Runtime for Noted<R> {
    type Io = NotedIo<R::Io>;
    type Time = R::Time;
    type Listener = NotedListener<R::Listener>;

    fn clock(&self) -> Arc<dyn Clock> {
        self.0.clock()
    }

    fn time(&self) -> R::Time {
        self.0.time()
    }

    fn spawn(&self, task: BoxFuture<()>) {
        self.0.spawn(Box::pin(Task(task)));
    }

    async fn connect(&self, address: &str) -> io::Result<Self::Io> {
        self.0.connect(address).await.map(NotedIo)
    }

    async fn listen(&self, address: &str) -> io::Result<Self::Listener> {
        self.0.listen(address).await.map(NotedListener)
    }
}

struct Task(BoxFuture<()>);

impl Future for Task {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        note(|log| &mut log.polls);
        self.0.as_mut().poll(cx)
    }
}

/// A listener whose connections note what they move.
#[derive(Debug)]
pub(super) struct NotedListener<L>(pub(super) L);

impl<L: Listener> Listener for NotedListener<L> {
    type Io = NotedIo<L::Io>;

    fn poll_accept(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<(Self::Io, String)>> {
        self.0.poll_accept(cx).map_ok(|(io, address)| (NotedIo(io), address))
    }

    fn local_address(&self) -> String {
        self.0.local_address()
    }
}

/// A connection that notes when it moves octets.
#[derive(Debug)]
pub(super) struct NotedIo<I>(I);

fn noted(result: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
    if result.is_ready() {
        note(|log| &mut log.moved);
    }
    result
}

impl<I: Io> Io for NotedIo<I> {
    fn poll_read(&mut self, cx: &mut Context<'_>, into: &mut BytesMut) -> Poll<io::Result<usize>> {
        noted(self.0.poll_read(cx, into))
    }

    fn poll_write(&mut self, cx: &mut Context<'_>, out: &mut Outbox) -> Poll<io::Result<usize>> {
        noted(self.0.poll_write(cx, out))
    }

    fn poll_shutdown(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.0.poll_shutdown(cx)
    }

    fn yield_now(&mut self, cx: &mut Context<'_>) {
        self.0.yield_now(cx);
    }

    fn set_dead_after(&mut self, silence: Duration) {
        self.0.set_dead_after(silence);
    }
}
