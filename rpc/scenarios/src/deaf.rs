//! Peers that do not read what is written to them, or slowly; and a handler that does not let go of its thread.

use std::{
    io::{Read, Write},
    sync::{Mutex, mpsc},
    time::{Duration, Instant},
};

use bytes::Bytes;
use tieline::{By, Services, Status};

use crate::{
    Adapter, Client, Server,
    calls::{echo, works},
    only_peer,
    raw::{CLOSE, CONTINUATION, HEARTBEAT, RESPONSE, Raw, frame, request},
    roomy, task,
    wait::{LONG, MS, SECOND, Shared, soon},
};

/// The least that a server grants by default.
const INTERVAL: Duration = Duration::from_millis(200);
/// Together more than the buffers of both sockets hold.
const ANSWERS: u64 = 300;
const OCTETS: usize = 60_000;

async fn server<A: Adapter>() -> Server<A> {
    let much = Services::new().method("s.S/Much", |_cx, _body| async { Ok(vec![7; OCTETS]) });
    let server = Server::<A>::builder("node-2").services(echo().and(much)).limits(roomy());
    server.listen(A::ADDRESS).await.unwrap()
}

/// A peer that asks for much, and says twice an interval that it lives.
struct Greedy {
    raw: Raw,
    beats: u64,
    last: Instant,
}

impl Greedy {
    fn ask(address: &str) -> Self {
        let mut raw = Raw::check_in(address, "raw", INTERVAL);
        for call in 0..ANSWERS {
            raw.send(&request(call * 2 + 1, "s.S/Much", b""));
        }
        Self { raw, beats: 0, last: Instant::now() }
    }

    /// Lets time pass, and beats if one is due. Whether the line takes it.
    fn wait(&mut self) -> bool {
        std::thread::sleep(20 * MS);
        if self.last.elapsed() < INTERVAL * 2 / 3 {
            return true;
        }
        self.last = Instant::now();
        self.beats += 1;
        self.raw.stream.write_all(&frame(HEARTBEAT, 0, self.beats, b"")).is_ok()
    }
}

/// It talks, so it lives; but of what it asked for it takes nothing. A neighbour does not notice.
pub async fn a_peer_that_stops_reading_is_closed<A: Adapter>() {
    let server = server::<A>().await;
    let address = server.address().to_owned();
    let over: Shared<bool> = Shared::default();
    let stop = over.clone();
    let raw = task::thread(move || {
        let mut greedy = Greedy::ask(&address);
        while greedy.wait() && !stop.see(|stop| *stop) {}
    });
    let peer = only_peer::<A>(&server).await;
    let neighbour = Client::<A>::builder("b").connect(server.address()).await.unwrap();
    let closed = soon::<A, _>("it is given up", async {
        let calls = async {
            loop {
                works::<A>(&neighbour).await;
            }
        };
        crate::wait::either(peer.closed(), calls).await
    });
    let Ok(closed) = closed.await;
    assert_eq!((closed.by, closed.status), (By::Us, Status::HEARTBEAT_LOST), "{closed}");
    assert!(closed.message.contains("took no octet"), "{closed}");
    over.change(|over| *over = true);
    raw.join().await;
    works::<A>(&neighbour).await;
    assert_eq!(neighbour.attempts(), 1);
}

/// It takes far longer than silence would be borne, and gets everything.
pub async fn a_peer_that_reads_slowly_is_served<A: Adapter>() {
    let server = server::<A>().await;
    let address = server.address().to_owned();
    let raw = task::thread(move || {
        let mut greedy = Greedy::ask(&address);
        let begun = Instant::now();
        let (mut came, mut part, mut payload) = (Vec::new(), vec![0; 200_000], 0);
        while payload < OCTETS * usize::try_from(ANSWERS).unwrap() {
            assert!(greedy.wait());
            let count = greedy.raw.stream.read(&mut part).unwrap();
            assert!(count > 0, "cut off after {payload} octets of answers");
            came.extend_from_slice(&part[..count]);
            payload += sevens(&mut came);
        }
        begun.elapsed()
    });
    let took = soon::<A, _>("everything", raw.join()).await;
    assert!(took > INTERVAL * 3, "it was not slow enough to prove anything: {took:?}");
    works::<A>(&Client::<A>::connect(server.address()).await.unwrap()).await;
}

/// Takes the whole frames out of what came; how many octets of payload are in them.
fn sevens(came: &mut Vec<u8>) -> usize {
    let (mut sum, mut at) = (0, 0);
    while let Some(head) = came.get(at..at + 18) {
        let length = u32::from_be_bytes(head[14..].try_into().unwrap()) as usize;
        let Some(body) = came.get(at + 18..at + 18 + length) else { break };
        assert_ne!(head[3], CLOSE, "closed, status {:#x}", head[5]);
        if [RESPONSE, CONTINUATION].contains(&head[3]) {
            sum += body.iter().filter(|octet| **octet == 7).count();
        }
        at += 18 + length;
    }
    came.drain(..at);
    sum
}

/// A handler that blocks its thread against the rules of most runtimes. Where there is another thread, those on other connections are
/// served meanwhile; where there is none they wait, and are served when it lets go. Nobody is closed for it.
pub async fn a_handler_that_blocks_holds_no_other_connection<A: Adapter>() {
    let (begun, has_begun) = mpsc::channel();
    let (release, released) = mpsc::channel();
    let released = Mutex::new(released);
    let services = echo().method("s.S/Block", move |_cx, _body: Bytes| {
        begun.send(()).unwrap();
        A::block(|| released.lock().unwrap().recv_timeout(LONG)).unwrap();
        async { Ok("let go") }
    });
    let server = Server::<A>::builder("node-2").services(services).listen(A::ADDRESS).await.unwrap();
    let client = Client::<A>::builder("a").connect(server.address()).await.unwrap();
    let address = server.address().to_owned();
    // It checks in before, and needs no thread of the runtime.
    let mut raw = task::thread(move || Raw::check_in(&address, "raw", 10 * SECOND)).join().await;
    let neighbour = task::thread(move || {
        has_begun.recv_timeout(LONG).unwrap();
        raw.send(&request(1, "s.S/Echo", b"meanwhile"));
        if A::is_parallel() {
            assert_eq!(raw.next(RESPONSE).id, 1);
        }
        release.send(()).unwrap();
        if !A::is_parallel() {
            assert_eq!(raw.next(RESPONSE).id, 1);
        }
    });
    let answer = soon::<A, _>("it lets go", client.call("s.S/Block", "").timeout(LONG)).await.unwrap();
    assert_eq!(answer.payload, "let go");
    soon::<A, _>("the neighbour is served", neighbour.join()).await;
    works::<A>(&client).await;
    assert_eq!(client.attempts(), 1);
}
