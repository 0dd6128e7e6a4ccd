//! The same operations give the same outcomes on every runtime, line for line.
//!
//! One connection, one operation after the other: what callers and handlers see of it is written down and compared with
//! the trace that is kept beside this file. What two ends decide in a race (who says first that the time is over) is
//! written as what both have in common. A change of the trace is a change of what applications see.

use std::fmt::Display;

use bytes::Bytes;
use tieline::{Answer, CallError, Error, Peer, Ran, Services, Status};

use crate::{
    Adapter, Client, Server,
    ends::refused,
    only_peer, task,
    wait::{Guard, LONG, MS, Shared, either, soon},
};

/// What happened, a line each.
#[derive(Clone, Default)]
struct Log(Shared<Vec<String>>);

impl Log {
    fn note(&self, line: impl Display) {
        self.0.change(|lines| lines.push(line.to_string()));
    }

    fn outcome(&self, what: &str, outcome: Result<Answer, CallError>) {
        self.note(format_args!("{what}: {}", said(outcome.map(|answer| answer.payload))));
    }
}

/// An outcome in words.
fn said(outcome: Result<Bytes, CallError>) -> String {
    match outcome {
        Ok(payload) if payload.len() > 40 => format!("ok, {} octets", payload.len()),
        Ok(payload) => format!("ok, {}", String::from_utf8_lossy(&payload)),
        Err(error) => match error.status() {
            Status::TIMEOUT | Status::EXPIRED_RUNNING => "out of time".to_owned(),
            status => {
                let ran = match error.ran() {
                    Ran::No => "did not run",
                    Ran::Maybe => "may have run",
                    Ran::Yes => "ran",
                };
                let (code, detail) = (error.code(), String::from_utf8_lossy(error.detail()));
                format!("{status}, {ran}, {:?}, code {code}, detail {detail:?}", error.message())
            }
        },
    }
}

/// What the node tells the script.
#[derive(Clone, Default)]
struct Signals {
    log: Log,
    begun: Shared<u64>,
    stopped: Shared<u64>,
    release: Shared<u64>,
}

fn services(signals: &Signals) -> Services {
    let [waits, forever, tells, keyed] = [(); 4].map(|()| signals.clone());
    let quits = signals.clone();
    Services::new()
        .method("t.T/Echo", |_cx, body| async move { Ok(body) })
        .method("t.T/Fail", |_cx, _body| async {
            Err::<Bytes, _>(Error::application(7, "so it goes").detail("why"))
        })
        .method("t.T/Wrong", |_cx, _body| async {
            Err::<Bytes, _>(Error::new(Status::DRAINING, "not for a handler to say"))
        })
        .method("t.T/Panic", |_cx, body: Bytes| async move {
            assert!(!body.is_empty(), "it panics, as it is to");
            Ok(body)
        })
        .method("t.T/Back", |cx, body| async move {
            let answer = cx.peer().call("t.T/Here", body).await?;
            Ok(answer.payload)
        })
        .method("t.T/Wait", move |_cx, body| {
            let signals = waits.clone();
            async move {
                signals.log.note("  the node waits");
                signals.begun.add();
                signals.release.one().await;
                Ok(body)
            }
        })
        .method("t.T/Forever", move |_cx, _body| {
            let signals = forever.clone();
            let guard = Guard(signals.stopped.clone());
            async move {
                let _guard = guard;
                signals.begun.add();
                std::future::pending::<Result<&str, Error>>().await
            }
        })
        .method("t.T/Tell", move |cx, body: Bytes| {
            let signals = tells.clone();
            async move {
                let body = String::from_utf8_lossy(&body).into_owned();
                signals.log.note(format_args!("  the node hears {body:?}, one-way {}", cx.is_one_way()));
                signals.begun.add();
                Ok("")
            }
        })
        .method("t.T/Keyed", move |cx, body: Bytes| {
            let signals = keyed.clone();
            async move {
                let (key, body) = (cx.ordering_key().to_vec(), body.to_vec());
                let (key, body) = (String::from_utf8_lossy(&key), String::from_utf8_lossy(&body));
                signals.log.note(format_args!("  the node runs {body} of key {key}"));
                if body == "first" {
                    signals.begun.add();
                    signals.release.one().await;
                }
                Ok("")
            }
        })
        .server_stream("t.T/Count", |_cx, body: Bytes, mut sink| async move {
            for number in 0..body.len() {
                sink.send(number.to_string()).await?;
            }
            Ok("these were all")
        })
        .server_stream("t.T/Breaks", |_cx, _body, mut sink| async move {
            sink.send("one").await?;
            Err::<Bytes, _>(Error::new(Status::ABORTED, "no more"))
        })
        .client_stream("t.T/Join", |_cx, body, mut items| async move {
            let mut all = body.to_vec();
            while let Some(item) = items.next().await {
                all.extend_from_slice(&item?);
            }
            Ok(all)
        })
        .client_stream("t.T/First", |_cx, _body, mut items| async move {
            items.next().await.unwrap_or(Ok(Bytes::new())).map_err(Error::from)
        })
        .bidi("t.T/Talk", move |_cx, body, mut items, mut sink| {
            let guard = Guard(quits.stopped.clone());
            async move {
                let _guard = guard;
                while let Some(item) = items.next().await {
                    sink.send(item?.to_ascii_uppercase()).await?;
                }
                sink.send("you are done").await?;
                Ok(body)
            }
        })
}

async fn calls<A: Adapter>(peer: &Peer, log: &Log) {
    for size in [0, 5, 1000, 70_000, 1 << 20] {
        let outcome = soon::<A, _>("an echo", peer.call("t.T/Echo", vec![b'x'; size])).await;
        log.outcome(&format!("Echo of {size}"), outcome);
    }
    for (method, body) in [
        ("Fail", ""),
        ("Wrong", ""),
        ("Nothing", ""),
        ("Panic", ""),
        ("Panic", "calm"),
        ("Back", "and forth"),
        ("Count", "a stream"),
    ] {
        let outcome = soon::<A, _>("an outcome", peer.call(&format!("t.T/{method}"), body)).await;
        log.outcome(&format!("{method} of {body:?}"), outcome);
    }
    let outcome = peer.call("t.T/Echo", vec![0; (4 << 20) + 1]).await;
    log.outcome("Echo of more than the node reads", outcome);
    let outcome = peer.call("t.T/Echo", "x").ordering_key(&[b'k'; 65]).await;
    log.outcome("Echo with a key that is too long", outcome);
    let outcome = peer.call("t.T/Echo", "x").metadata("Capital", b"").await;
    log.outcome("Echo with metadata of a bad name", outcome);
    let outcome = peer.call("t.T/Echo", "late").timeout(std::time::Duration::ZERO).await;
    log.outcome("Echo with no time", outcome);
}

async fn ends<A: Adapter>(peer: &Peer, signals: &Signals) {
    let log = &signals.log;
    let call = peer.call("t.T/Forever", "").timeout(20 * MS);
    log.outcome("Forever for 20 ms", soon::<A, _>("the time is over", call).await);
    soon::<A, _>("the handler is stopped", signals.stopped.one()).await;
    log.note("  the node has stopped it");
    soon::<A, _>("it had begun", signals.begun.one()).await;
    let dropped = either(peer.call("t.T/Forever", "").no_timeout(), signals.begun.one()).await;
    log.note(format_args!("Forever, dropped once it runs: {}", dropped.is_err()));
    soon::<A, _>("the handler is stopped", signals.stopped.one()).await;
    log.note("  the node has stopped it");
    let outcome = peer.one_way("t.T/Tell", "news").await;
    soon::<A, _>("it is heard", signals.begun.one()).await;
    log.outcome("Tell", outcome);
    log.outcome("Nothing, one-way", peer.one_way("t.T/Nothing", "").await);
}

async fn keys<A: Adapter>(peer: &Peer, signals: &Signals) {
    let log = &signals.log;
    let mut open = Vec::new();
    for (body, key) in [("first", "k"), ("second", "k"), ("third", "k")] {
        let peer = peer.clone();
        let handed: Shared<u64> = Shared::default();
        let tell = handed.clone();
        open.push(task::spawn::<A, _>(async move {
            let mut call = Box::pin(peer.call("t.T/Keyed", body).ordering_key(key.as_bytes()));
            // Once it was polled it has its place.
            let handing = either(&mut call, async {}).await;
            tell.add();
            match handing {
                Ok(outcome) => outcome,
                Err(()) => call.await,
            }
        }));
        soon::<A, _>("it is handed over", handed.one()).await;
    }
    soon::<A, _>("the first runs", signals.begun.one()).await;
    let other = peer.call("t.T/Keyed", "another").ordering_key(b"l");
    log.outcome("Keyed, of another key", soon::<A, _>("it passes", other).await);
    signals.release.add();
    for outcome in soon::<A, _>("those of one key", task::all(open)).await {
        log.outcome("Keyed", outcome);
    }
}

async fn streams<A: Adapter>(peer: &Peer, signals: &Signals) {
    let log = &signals.log;
    for (method, body) in [("Count", "123"), ("Count", ""), ("Breaks", ""), ("Nothing", ""), ("Echo", "")] {
        let mut items = peer.server_stream(&format!("t.T/{method}"), body).credit(1).await.unwrap();
        while let Some(item) = soon::<A, _>("an item", items.next()).await {
            log.note(format_args!("{method} of {body:?} has an item: {}", said(item)));
        }
        log.outcome(&format!("{method} of {body:?}"), items.finish().await);
    }

    let mut upload = peer.client_stream("t.T/Join", "a").await.unwrap();
    for item in ["b", "", "c"] {
        log.note(format_args!("Join takes {item:?}: {:?}", upload.send(item).await));
    }
    let outcome = upload.send(vec![0; (256 << 10) + 1]).await.map(|()| Bytes::new());
    log.note(format_args!("Join does not take more than the node reads: {}", said(outcome)));
    log.outcome("Join", soon::<A, _>("the answer", upload.finish()).await);
    log.outcome("First of none", {
        let upload = peer.client_stream("t.T/First", "").await.unwrap();
        soon::<A, _>("the answer", upload.finish()).await
    });

    let (mut sink, mut items) = peer.bidi("t.T/Talk", "bye").await.unwrap().split();
    for item in ["one", "two"] {
        sink.send(item).await.unwrap();
        let item = soon::<A, _>("an item", items.next()).await.unwrap();
        log.note(format_args!("Talk: {}", said(item)));
    }
    sink.end().unwrap();
    let outcome = sink.send("three").await.map(|()| Bytes::new());
    log.note(format_args!("Talk, after the end: {}", said(outcome)));
    let item = soon::<A, _>("an item", items.next()).await.unwrap();
    log.note(format_args!("Talk: {}", said(item)));
    log.outcome("Talk", soon::<A, _>("the answer", items.finish()).await);
    soon::<A, _>("its handler has ended", signals.stopped.one()).await;

    let mut talk = peer.bidi("t.T/Talk", "").await.unwrap();
    talk.send("one").await.unwrap();
    let item = soon::<A, _>("an item", talk.next()).await.unwrap();
    log.note(format_args!("Talk, given up after: {}", said(item)));
    drop(talk);
    soon::<A, _>("the handler is stopped", signals.stopped.one()).await;
    log.note("  the node has stopped it");
}

async fn end<A: Adapter>(server: Server<A>, client: Client<A>, signals: &Signals) {
    let log = &signals.log;
    let peer = client.peer().unwrap();
    let caller = peer.clone();
    let open = task::spawn::<A, _>(async move { caller.call("t.T/Wait", "slow").timeout(LONG).await });
    soon::<A, _>("the call runs", signals.begun.one()).await;
    let there = only_peer::<A>(&server).await;
    let shutdown = task::spawn::<A, _>(server.shutdown(LONG));
    // How many calls cross the DRAIN, and are refused over there, is a race; after that none is sent.
    refused::<A>(&peer, "t.T/Echo").await;
    log.outcome("Echo during the drain", peer.call("t.T/Echo", "x").await);
    log.outcome("the node's own call", there.call("t.T/Here", "x").await);
    signals.release.add();
    log.outcome("Wait", soon::<A, _>("the open call", open.join()).await);
    soon::<A, _>("the shutdown", shutdown.join()).await;
    log.note(format_args!("the node: {}", soon::<A, _>("its end", there.closed()).await));
    log.note(format_args!("the client: {}", soon::<A, _>("its end", peer.closed()).await));
    log.outcome("Echo after the end", peer.call("t.T/Echo", "x").await);
}

/// Every kind of outcome, one after the other.
pub async fn the_same_script_gives_the_same_trace<A: Adapter>() {
    let signals = Signals::default();
    let log = &signals.log;
    let server =
        Server::<A>::builder("node-2").services(services(&signals)).listen(A::ADDRESS).await.unwrap();
    let here = Services::new().method("t.T/Here", |_cx, body: Bytes| async move {
        Ok(body.iter().rev().copied().collect::<Vec<u8>>())
    });
    let client = Client::<A>::builder("node-1").services(here).backoff(LONG);
    let client = client.connect(server.address()).await.unwrap();
    let peer = client.peer().unwrap();
    calls::<A>(&peer, log).await;
    ends::<A>(&peer, &signals).await;
    keys::<A>(&peer, &signals).await;
    streams::<A>(&peer, &signals).await;
    let (here, there) = (peer.stats(), only_peer::<A>(&server).await.stats());
    log.note(format_args!("calls out {}, in {}", here.calls_out, here.calls_in));
    log.note(format_args!("items out {}, in {}", there.items_out, there.items_in));
    end::<A>(server, client, &signals).await;
    let trace = log.0.see(|lines| lines.join("\n"));
    let kept = include_str!("trace.txt").trim_end();
    let differs = trace.lines().zip(kept.lines()).position(|(seen, kept)| seen != kept);
    assert!(
        trace == kept,
        "from line {differs:?} on it is another trace than the one that is kept:\n{trace}"
    );
}
