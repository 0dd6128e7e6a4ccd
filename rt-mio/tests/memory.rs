//! What an idle connection costs a server on the direct layer, the kernel apart.
#![allow(clippy::unwrap_used, clippy::panic, unsafe_code)]

mod support;

use std::{
    alloc::{GlobalAlloc, Layout, System},
    os::unix::net::UnixStream,
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};

use support::{Scribe, call, config};
use tieline_mio::{Config, ConnId, Loop, Side};

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

/// A kilobyte for each connection, all that grows with their number included.
#[test]
fn an_idle_connection_costs_a_kilobyte() {
    const CONNECTIONS: usize = 1000;
    let interval = Duration::from_millis(200);
    let client = Config::builder("client").heartbeat_interval(interval).build().unwrap();
    let server = config("server");
    let mut near = Loop::new(Scribe::default()).unwrap();
    let mut far = Loop::new(Scribe::default()).unwrap();

    // The first pays for what all share.
    let mut open = |near: &mut Loop<Scribe>, far: &mut Loop<Scribe>| -> ConnId {
        let (here, there) = UnixStream::pair().unwrap();
        let conn = far.net().adopt_unix(there, Side::Server, &server).unwrap();
        near.net().adopt_unix(here, Side::Client, &client).unwrap();
        while far.net().peer(conn).is_none() {
            near.turn(Some(Duration::ZERO)).unwrap();
            far.turn(Some(Duration::ZERO)).unwrap();
        }
        conn
    };
    let first = open(&mut near, &mut far);
    let mut conns = vec![first];

    // What the other end holds is told apart by the order of things: the near end is made anew and thrown away.
    let mut held_by_far = 0;
    for _ in 0..CONNECTIONS {
        conns.push(open(&mut near, &mut far));
    }
    // Each has served a call, and has been idle for longer than it keeps what it needed for that.
    for conn in conns.iter().copied() {
        call(&mut far, conn, "t.T/None", b"", 0);
    }
    let beats = |far: &mut Loop<Scribe>, least| {
        conns.iter().all(|conn| far.net().stats(*conn).unwrap().heartbeats_in >= least)
    };
    let start = std::time::Instant::now();
    while !beats(&mut far, 3) {
        assert!(start.elapsed() < support::LIMIT, "they beat");
        near.turn(Some(Duration::ZERO)).unwrap();
        far.turn(Some(Duration::from_millis(1))).unwrap();
    }
    far.app().told.clear();
    far.app().told.shrink_to_fit();
    let before = HELD.load(Ordering::Relaxed);
    drop(far);
    held_by_far += before - HELD.load(Ordering::Relaxed);
    let each = held_by_far / CONNECTIONS;
    println!("an idle connection holds {each} octets");
    assert!(each <= 1024, "an idle connection holds {each} octets");
    drop(near);
}
