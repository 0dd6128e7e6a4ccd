//! Other threads and a loop: what they hand in is done, in order, and they are told what became of it.
#![allow(clippy::unwrap_used, clippy::panic)]

mod support;

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
        mpsc,
    },
    thread,
    time::Duration,
};

use support::LIMIT;
use tieline_mio::{Config, ConnId, Handle, Handlers, Loop, Ran, Refused, Status, threads};

const ECHO: &str = "t.T/Echo";
const NEVER: &str = "t.T/Never";

/// A loop on a thread of its own that has a connection to itself.
fn node() -> (Handle<Handlers>, ConnId, thread::JoinHandle<()>) {
    busy_node(Duration::ZERO)
}

/// The same, which polls busily for so long before it sleeps.
fn busy_node(spell: Duration) -> (Handle<Handlers>, ConnId, thread::JoinHandle<()>) {
    let (tell, told) = mpsc::channel();
    let thread = thread::spawn(move || {
        let handlers = Handlers::new().function(ECHO, Ok).method(NEVER, |_net, _conn, _request| {});
        let config = handlers.describe(Config::builder("node")).build().unwrap();
        let mut node = Loop::new(handlers).unwrap().busy_poll(spell);
        let listener = node.net().listen("127.0.0.1:0", &config).unwrap();
        let address = node.net().listening(listener).unwrap();
        let conn = node.net().connect(&address, &config).unwrap();
        tell.send((node.handle(), conn)).unwrap();
        node.run().unwrap();
    });
    let (handle, conn) = told.recv_timeout(LIMIT).unwrap();
    (handle, conn, thread)
}

#[test]
fn calls_of_many_threads_are_answered_each_with_its_own() {
    let (handle, conn, thread) = node();
    let callers: Vec<_> = (0..4u32)
        .map(|caller| {
            let handle = handle.clone();
            thread::spawn(move || {
                for number in 0..200u32 {
                    let body = (caller * 1000 + number).to_be_bytes().to_vec();
                    let called = handle.call(conn, ECHO, body.clone(), Some(LIMIT)).unwrap();
                    assert_eq!(called.wait().unwrap().payload, body);
                }
            })
        })
        .collect();
    for caller in callers {
        caller.join().unwrap();
    }
    handle.stop();
    thread.join().unwrap();
}

#[test]
fn a_call_of_another_thread_ends_by_its_deadline_or_with_the_loop() {
    let (handle, conn, thread) = node();
    let late = handle.call(conn, NEVER, "", Some(Duration::from_millis(20))).unwrap();
    let failure = late.wait().unwrap_err();
    assert!(matches!(failure.status(), Status::TIMEOUT | Status::EXPIRED_RUNNING), "{failure}");
    let lost = handle.call(conn, NEVER, "", None).unwrap();
    let gone = handle.call(conn, "t.T/None", "", None).unwrap();
    assert_eq!(gone.wait().unwrap_err().status(), Status::NO_SUCH_METHOD);
    handle.stop();
    thread.join().unwrap();
    assert_eq!(lost.wait().unwrap_err().ran(), Ran::Maybe);
    assert_eq!(handle.call(conn, ECHO, "", None).unwrap_err(), Refused::Over);
    assert_eq!(handle.spawn(async {}).unwrap_err(), Refused::Over);
}

#[test]
fn the_queue_is_bounded_and_keeps_the_order() {
    let mut node = Loop::new(()).unwrap();
    let handle = node.handle();
    let (tell, told) = mpsc::channel();
    for number in 0..4096 {
        let tell = tell.clone();
        handle.submit(move |(), _| tell.send(number).unwrap()).unwrap();
    }
    assert_eq!(handle.submit(|(), _| panic!("it is not done")).unwrap_err(), Refused::Full);
    node.turn(Some(LIMIT)).unwrap();
    assert!(told.try_iter().eq(0..4096));
    handle.submit(|(), _| panic!("this is contained")).unwrap();
    handle.submit(move |(), _| tell.send(1).unwrap()).unwrap();
    node.turn(Some(LIMIT)).unwrap();
    assert_eq!(told.recv_timeout(LIMIT).unwrap(), 1);
    assert_eq!(node.net().counters().panics, 1);
}

#[test]
fn a_task_is_run_and_one_that_panics_ends_alone() {
    let mut node = Loop::new(()).unwrap();
    let handle = node.handle();
    let ran = Arc::new(AtomicBool::new(false));
    let seen = Arc::clone(&ran);
    let stop = handle.clone();
    handle.spawn(async { panic!("this task panics") }).unwrap();
    handle
        .spawn(async move {
            seen.store(true, Ordering::SeqCst);
            stop.stop();
        })
        .unwrap();
    node.run().unwrap();
    assert!(ran.load(Ordering::SeqCst));
    assert_eq!(node.tasks(), 0);
}

/// A loop that sleeps is woken by whatever is handed in; if a wake-up were lost this would not end.
#[test]
fn a_loop_that_sleeps_is_woken_each_time() {
    for spell in [Duration::ZERO, Duration::from_micros(20)] {
        let (handle, conn, thread) = busy_node(spell);
        for _ in 0..2000 {
            let (tell, told) = mpsc::sync_channel(1);
            handle.submit(move |_, _| tell.send(()).unwrap()).unwrap();
            told.recv_timeout(LIMIT).unwrap();
        }
        assert_eq!(handle.call(conn, ECHO, "x", Some(LIMIT)).unwrap().wait().unwrap().payload, "x");
        handle.stop();
        thread.join().unwrap();
    }
}

#[test]
fn loops_share_an_address_and_all_of_them_serve() {
    let listeners = threads::listeners("127.0.0.1:0", 3).unwrap();
    let address = listeners[0].local_addr().unwrap().to_string();
    assert!(listeners.iter().all(|listener| listener.local_addr().unwrap().to_string() == address));
    let used = Arc::new(AtomicUsize::new(0));
    let seen = Arc::clone(&used);
    let loops = threads::run(listeners, move |listener| {
        let bit = 1 << seen.fetch_add(1 << 8, Ordering::SeqCst).min(2 << 8).wrapping_shr(8);
        let seen = Arc::clone(&seen);
        let handlers = Handlers::new().function(ECHO, move |body| {
            seen.fetch_or(bit, Ordering::SeqCst);
            Ok(body)
        });
        let config = handlers.describe(Config::builder("node")).build().map_err(std::io::Error::other)?;
        let mut node = Loop::new(handlers)?;
        node.net().listen_on(listener, &config)?;
        Ok(node)
    })
    .unwrap();
    assert_eq!(loops.handles().count(), 3);
    // The kernel spreads them by their ports; that one loop gets none of so many is out of the question.
    for _ in 0..100 {
        let client = tieline_mio::blocking::Client::connect(&address).unwrap();
        assert_eq!(client.call(ECHO, "x").unwrap().payload, "x");
    }
    assert_eq!(used.load(Ordering::SeqCst) & 0xFF, 0b111);
    loops.stop().unwrap();
    assert!(threads::listeners("127.0.0.1:0", 0).is_err());
}

#[test]
fn a_loop_that_cannot_be_made_is_an_error() {
    let listeners = threads::listeners("127.0.0.1:0", 2).unwrap();
    let made = threads::run(listeners, |_| Err::<Loop<()>, _>(std::io::Error::other("not today")));
    assert_eq!(made.unwrap_err().to_string(), "not today");
}
