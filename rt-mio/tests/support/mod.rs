//! What the tests on real sockets share: bounded waits, and an application that remembers what it was told.
#![allow(dead_code, unreachable_pub)]

use std::{
    collections::VecDeque,
    future::{Future, poll_fn},
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    task::Poll,
    time::{Duration, Instant},
};

use tieline_mio::{
    Answer, App, Body, CallHead, Cancel, Closed, Config, ConnId, Failure, Incoming, Loop, MethodSpec, Mio,
    Net, PeerInfo, Rest, Runtime, Served, Status, Stream, Time, TimerId, block_on,
};

/// How long anything may take that is bound to happen.
pub const LIMIT: Duration = Duration::from_secs(20);

/// Runs a test on a loop of its own.
pub fn run<F: Future>(test: F) -> F::Output {
    block_on(soon("the test", test)).unwrap()
}

/// Waits, but not for ever.
pub async fn soon<F: Future>(what: &str, future: F) -> F::Output {
    let mut future = pin!(future);
    let mut time = Mio::default().time();
    let end = Mio::default().clock().now().saturating_add(LIMIT);
    poll_fn(|cx| match future.as_mut().poll(cx) {
        Poll::Ready(output) => Poll::Ready(output),
        Poll::Pending => {
            assert!(time.poll_until(cx, end).is_pending(), "{what}: not within {LIMIT:?}");
            Poll::Pending
        }
    })
    .await
}

/// Turns `node` until something is so.
pub fn until<A: App>(node: &mut Loop<A>, what: &str, mut so: impl FnMut(&mut Loop<A>) -> bool) {
    let start = Instant::now();
    while !so(node) {
        assert!(start.elapsed() < LIMIT, "{what}: not within {LIMIT:?}");
        node.turn(Some(LIMIT)).unwrap();
    }
}

/// What an application was told.
#[derive(Debug)]
pub enum Told {
    Request(ConnId, Incoming),
    Done(ConnId, u32, Result<Answer, Failure>, Vec<bytes::Bytes>),
    Opened(ConnId, Arc<PeerInfo>),
    Closed(ConnId, Closed),
    Cancelled(ConnId, Served, Cancel),
    Readable(ConnId, Stream),
    Writable(ConnId, Stream),
    Draining(ConnId, Status),
    Timer(TimerId),
}

/// An application that does nothing by itself but echo, and remembers the rest.
#[derive(Debug, Default)]
pub struct Scribe {
    pub told: VecDeque<Told>,
    /// The methods by number that are not answered at once.
    pub keeps: u32,
}

pub const ECHO: &str = "t.T/Echo";
pub const KEEP: &str = "t.T/Keep";
pub const PANIC: &str = "t.T/Panic";
pub const STREAM: &str = "t.T/Stream";

/// A configuration with the methods above, in this order.
pub fn config(identifier: &str) -> Arc<Config> {
    Config::builder(identifier)
        .method(MethodSpec::unary(ECHO))
        .method(MethodSpec::unary(KEEP))
        .method(MethodSpec::unary(PANIC))
        .method(MethodSpec::new(STREAM, tieline_mio::Kind::Bidi))
        .build()
        .unwrap()
}

impl App for Scribe {
    type User = u32;

    fn request(&mut self, net: &mut Net<u32>, conn: ConnId, request: Incoming) {
        match request.method {
            0 if !request.one_way => {
                net.answer(conn, request.call, Body::Share(request.payload)).unwrap();
            }
            2 => panic!("this application panics when it is asked to"),
            _ => self.told.push_back(Told::Request(conn, request)),
        }
    }

    fn done(
        &mut self,
        _: &mut Net<u32>,
        conn: ConnId,
        user: u32,
        outcome: Result<Answer, Failure>,
        rest: Rest,
    ) {
        self.told.push_back(Told::Done(conn, user, outcome, rest.collect()));
    }

    fn opened(&mut self, _: &mut Net<u32>, conn: ConnId, peer: &Arc<PeerInfo>) {
        self.told.push_back(Told::Opened(conn, Arc::clone(peer)));
    }

    fn closed(&mut self, _: &mut Net<u32>, conn: ConnId, closed: Closed) {
        self.told.push_back(Told::Closed(conn, closed));
    }

    fn cancelled(&mut self, net: &mut Net<u32>, conn: ConnId, call: Served, why: Cancel) {
        net.stopped(conn, call);
        self.told.push_back(Told::Cancelled(conn, call, why));
    }

    fn readable(&mut self, _: &mut Net<u32>, conn: ConnId, stream: Stream) {
        self.told.push_back(Told::Readable(conn, stream));
    }

    fn writable(&mut self, _: &mut Net<u32>, conn: ConnId, stream: Stream) {
        self.told.push_back(Told::Writable(conn, stream));
    }

    fn draining(&mut self, _: &mut Net<u32>, conn: ConnId, status: Status) {
        self.told.push_back(Told::Draining(conn, status));
    }

    fn timer(&mut self, _: &mut Net<u32>, timer: TimerId) {
        self.told.push_back(Told::Timer(timer));
    }
}

/// Turns `node` until it is told something that `pick` wants; all else that it was told before is dropped.
pub fn told<T>(node: &mut Loop<Scribe>, what: &str, mut pick: impl FnMut(Told) -> Option<T>) -> T {
    let mut found = None;
    until(node, what, |node| {
        while found.is_none()
            && let Some(told) = node.app().told.pop_front()
        {
            found = pick(told);
        }
        found.is_some()
    });
    found.unwrap()
}

/// The outcome of the call with this number.
pub fn outcome(node: &mut Loop<Scribe>, number: u32) -> Result<Answer, Failure> {
    told(node, "an outcome", |told| match told {
        Told::Done(_, user, outcome, _) if user == number => Some(outcome),
        _ => None,
    })
}

/// The next call that is not answered by itself.
pub fn request(node: &mut Loop<Scribe>) -> (ConnId, Incoming) {
    told(node, "a request", |told| match told {
        Told::Request(conn, request) => Some((conn, request)),
        _ => None,
    })
}

/// A loop that listens, and a connection from it to itself: the client's end and the server's.
pub fn pair(address: &str) -> (Loop<Scribe>, ConnId, ConnId) {
    let mut node = Loop::new(Scribe::default()).unwrap();
    let listener = node.net().listen(address, &config("server")).unwrap();
    let address = node.net().listening(listener).unwrap();
    let client = node.net().connect(&address, &config("client")).unwrap();
    let mut server = None;
    let mut opened = 0;
    told(&mut node, "both ends to open", |told| {
        if let Told::Opened(conn, _) = told {
            opened += 1;
            if conn != client {
                server = Some(conn);
            }
        }
        (opened == 2).then_some(())
    });
    (node, client, server.unwrap())
}

pub fn call(node: &mut Loop<Scribe>, conn: ConnId, method: &str, body: &[u8], user: u32) {
    node.net().call(conn, &CallHead::new(method), Body::Copy(body), user).unwrap();
}

/// A path for a Unix socket that nobody else uses.
pub fn socket_path() -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let path = std::env::temp_dir().join(format!("tieline-mio-{}-{number}.sock", std::process::id()));
    path.to_str().unwrap().to_owned()
}
