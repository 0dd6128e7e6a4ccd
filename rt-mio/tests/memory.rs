//! What an idle connection costs a server on the direct layer, the kernel apart.
#![allow(clippy::unwrap_used, clippy::panic, unsafe_code)]

mod support;

use std::{
    alloc::{GlobalAlloc, Layout, System},
    os::unix::net::UnixStream,
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};

use support::{ECHO, Scribe, call, config};
use tieline_mio::{Config, ConnId, Loop, Side, Stats};

/// Octets that are allocated, by all threads.
static HELD: AtomicUsize = AtomicUsize::new(0);

struct Counting;

// SAFETY: every request is passed on to the system's allocator as it came.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        HELD.fetch_add(layout.size(), Ordering::Relaxed);
        // SAFETY: the caller keeps the contract of `alloc`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        HELD.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: the caller keeps the contract of `dealloc`.
        unsafe { System.dealloc(memory, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Octets of memory that an idle connection holds, at most: the core's, folded up, what the peer said at check-in, and the
/// loop's own hundred; see `driven.rs`.
const MOST: usize = 1024;

#[test]
fn an_idle_connection_holds_next_to_nothing_but_the_core() {
    const CONNECTIONS: usize = 1000;
    let interval = Duration::from_millis(200);
    let client = Config::builder("client").heartbeat_interval(interval).build().unwrap();
    let server = config("server");
    let mut near = Loop::new(Scribe::default()).unwrap();
    let mut far = Loop::new(Scribe::default()).unwrap();

    let open = |near: &mut Loop<Scribe>, far: &mut Loop<Scribe>| -> (ConnId, ConnId) {
        let (here, there) = UnixStream::pair().unwrap();
        let conn = far.net().adopt_unix(there, Side::Server, &server).unwrap();
        let from = near.net().adopt_unix(here, Side::Client, &client).unwrap();
        while far.net().peer(conn).is_none() {
            near.turn(Some(Duration::ZERO)).unwrap();
            far.turn(Some(Duration::ZERO)).unwrap();
        }
        (from, conn)
    };
    let mut conns = vec![open(&mut near, &mut far)];
    for _ in 0..CONNECTIONS {
        conns.push(open(&mut near, &mut far));
    }
    // Each has served a call, and has been idle for longer than it keeps what it needed for that.
    for (from, _) in conns.iter().copied() {
        call(&mut near, from, ECHO, b"a call", 0);
    }
    let all = |far: &mut Loop<Scribe>, so: fn(&Stats) -> bool| {
        conns.iter().all(|(_, conn)| so(&far.net().stats(*conn).unwrap()))
    };
    let start = std::time::Instant::now();
    while !all(&mut far, |stats| stats.heartbeats_in >= 3 && stats.calls_in == 1) {
        assert!(start.elapsed() < support::LIMIT, "they beat");
        near.turn(Some(Duration::ZERO)).unwrap();
        far.turn(Some(Duration::from_millis(1))).unwrap();
    }
    far.app().told.clear();
    far.app().told.shrink_to_fit();
    // All that is freed with the loop was held by it: its connections, and what it has for all of them.
    let before = HELD.load(Ordering::Relaxed);
    drop(far);
    let held_by_far = before - HELD.load(Ordering::Relaxed);
    let each = held_by_far / CONNECTIONS;
    assert!(each <= MOST, "an idle connection holds {each} octets");
    drop(near);
}
