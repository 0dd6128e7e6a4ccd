//! Nodes that stop, in peace or in haste, nodes that come back, clients that leave.

use std::collections::BTreeSet;

use tieline::{By, Limits, Peer, Ran, Services, Status};

use crate::{
    Adapter, Client, Server,
    calls::{echo, echoing, works},
    only_peer, pair, task,
    task::Task,
    wait::{Guard, LONG, MS, SECOND, Shared, now, pass, soon, turn, until},
};

/// What handlers have run, by number.
pub(crate) type Ledger = Shared<BTreeSet<u32>>;

/// A method that takes note of each call, and now and then has to wait before it answers.
pub(crate) fn noting<A: Adapter>(ran: &Ledger) -> Services {
    let ran = ran.clone();
    Services::new().method("s.S/Run", move |_cx, body| {
        let ran = ran.clone();
        async move {
            let number = u32::from_be_bytes(body[..4].try_into().unwrap());
            assert!(ran.change(|ran| ran.insert(number)), "{number} ran twice");
            if number % 3 == 0 {
                turn().await;
            }
            if number % 7 == 0 {
                pass::<A>(5 * MS).await;
            }
            Ok(body)
        }
    })
}

/// Callers that call until they are refused: which calls were answered, and which did not run.
pub(crate) struct Load {
    callers: Vec<Task<()>>,
    /// Answered.
    pub(crate) good: Ledger,
    /// Refused, or never sent.
    pub(crate) bad: Ledger,
}

impl Load {
    pub(crate) async fn on<A: Adapter>(address: &str) -> Self {
        let numbers: Shared<u64> = Shared::default();
        let (good, bad) = (Ledger::default(), Ledger::default());
        let mut callers = Vec::new();
        for name in ["a", "b"] {
            // It does not come back while the callers of this load are there.
            let client = Client::<A>::builder(name).backoff(LONG).connect(address).await.unwrap();
            for _ in 0..32 {
                let (client, numbers) = (client.clone(), numbers.clone());
                let (good, bad) = (good.clone(), bad.clone());
                callers.push(task::spawn::<A, _>(async move {
                    loop {
                        let number =
                            u32::try_from(numbers.change(|next| std::mem::replace(next, *next + 1))).unwrap();
                        let mut body = number.to_be_bytes().to_vec();
                        body.resize(if number % 5 == 0 { 20_000 } else { 40 }, 0);
                        match client.call("s.S/Run", body.clone()).timeout(LONG).await {
                            Ok(answer) => {
                                assert_eq!(answer.payload, body);
                                good.change(|good| good.insert(number));
                            }
                            Err(error) => {
                                assert_eq!(error.ran(), Ran::No, "{number}: {error}");
                                bad.change(|bad| bad.insert(number));
                                return;
                            }
                        }
                    }
                }));
            }
        }
        let load = Self { callers, good, bad };
        let enough = load.good.take(|good| (good.len() > 500).then_some(()));
        soon::<A, _>("there is load", enough).await;
        load
    }

    /// Waits until every caller was refused.
    pub(crate) async fn end<A: Adapter>(self) -> (Ledger, Ledger) {
        soon::<A, _>("the callers end", task::all(self.callers)).await;
        (self.good, self.bad)
    }
}

/// Whatever ran was answered, and whatever was not answered did not run.
pub async fn a_shutdown_under_load_loses_nothing_that_was_accepted<A: Adapter>() {
    let ran = Ledger::default();
    let server = Server::<A>::builder("node-2").services(noting::<A>(&ran)).listen(A::ADDRESS).await.unwrap();
    let load = Load::on::<A>(server.address()).await;
    // With a grace that nobody waits for: it ends when the calls have.
    soon::<A, _>("the shutdown", server.shutdown(100 * LONG)).await;
    let (good, bad) = load.end::<A>().await;
    let (good, bad) = (good.see(BTreeSet::clone), bad.see(BTreeSet::clone));
    assert_eq!(ran.see(BTreeSet::clone), good);
    assert!(good.is_disjoint(&bad));
    assert_eq!(bad.len(), 64, "each caller ended by one refusal");
}

/// New streams are refused, the open one goes on to its end, and then the connection closes.
pub async fn a_drain_lets_open_streams_finish<A: Adapter>() {
    let services = echo().bidi("s.S/Talk", |_cx, body, mut items, mut sink| async move {
        while let Some(item) = items.next().await {
            sink.send(item?).await?;
        }
        Ok(body)
    });
    let (server, client) = pair::<A>(services, Services::new(), Limits::default()).await;
    let peer = client.peer().unwrap();
    let mut talk = peer.bidi("s.S/Talk", "bye").await.unwrap();
    talk.send("one").await.unwrap();
    assert_eq!(soon::<A, _>("an echo", talk.next()).await.unwrap().unwrap(), "one");
    let there = only_peer::<A>(&server).await;
    let shutdown = task::spawn::<A, _>(server.shutdown(LONG));
    refused::<A>(&peer, "s.S/Echo").await;
    for number in 0..1000u32 {
        let item = number.to_be_bytes().to_vec();
        talk.send(item.clone()).await.unwrap();
        assert_eq!(soon::<A, _>("an echo", talk.next()).await.unwrap().unwrap(), item);
    }
    assert!(shutdown.is_running());
    assert_eq!(soon::<A, _>("the answer", talk.finish()).await.unwrap().payload, "bye");
    soon::<A, _>("the shutdown", shutdown.join()).await;
    assert_eq!(there.closed().await.status, Status::GOING_AWAY);
    let closed = soon::<A, _>("the end", peer.closed()).await;
    assert_eq!((closed.by, closed.status), (By::Peer, Status::GOING_AWAY));
}

/// Calls until the peer is known to drain. None that is refused has run, and once one was none is served.
pub(crate) async fn refused<A: Adapter>(peer: &Peer, method: &str) {
    let mut refused = false;
    soon::<A, _>("the drain is known", async {
        loop {
            match peer.call(method, "x").await {
                Ok(_) => assert!(!refused, "refused once, and then served"),
                Err(error) => {
                    assert_eq!(error.ran(), Ran::No, "{error}");
                    // The first may cross the DRAIN and be refused there; then nothing is sent any more.
                    match error.status() {
                        Status::DRAINING => refused = true,
                        Status::NOT_SENT => return,
                        _ => panic!("{error}"),
                    }
                }
            }
        }
    })
    .await;
}

/// Its caller is told that it may have run, and it is stopped.
pub async fn a_handler_that_outlives_the_grace_is_interrupted<A: Adapter>() {
    let (begun, stopped): (Shared<u64>, Shared<u64>) = Default::default();
    let (begin, stop) = (begun.clone(), stopped.clone());
    let services = echo().method("s.S/Forever", move |_cx, body| {
        let (begin, guard) = (begin.clone(), Guard(stop.clone()));
        async move {
            let _guard = guard;
            begin.add();
            std::future::pending::<()>().await;
            Ok(body)
        }
    });
    let (server, client) = pair::<A>(services, Services::new(), Limits::default()).await;
    let address = server.address().to_owned();
    let caller = client.clone();
    let open = task::spawn::<A, _>(async move { caller.call("s.S/Forever", "").no_timeout().await });
    soon::<A, _>("the call runs", begun.one()).await;
    let begun = now::<A>();
    soon::<A, _>("the shutdown", server.shutdown(200 * MS)).await;
    assert!(now::<A>().saturating_since(begun) >= 200 * MS, "it has its grace");
    let error = soon::<A, _>("the call ends", open.join()).await.unwrap_err();
    assert_eq!((error.status(), error.ran()), (Status::INTERRUPTED, Ran::Maybe), "{error}");
    soon::<A, _>("the handler is stopped", stopped.one()).await;
    // The address is free.
    drop(echoing::<A>(&address).await);
}

/// Its node stops, others take the address, and each time the client is there again without being asked.
pub async fn a_client_comes_back_when_its_node_does<A: Adapter>() {
    let mut server = echoing::<A>(A::ADDRESS).await;
    comes_back::<A>(&mut server).await;
}

async fn comes_back<A: Adapter>(server: &mut Server<A>) {
    let address = server.address().to_owned();
    let client = Client::<A>::builder("a").backoff(10 * MS).connect(&address).await.unwrap();
    for _ in 0..3 {
        works::<A>(&client).await;
        let before = client.peer().unwrap();
        let attempts = client.attempts();
        let old = std::mem::replace(server, echoing::<A>(A::ADDRESS).await);
        soon::<A, _>("the node stops", old.shutdown(SECOND)).await;
        until::<A>("it tries again and again", || client.attempts() >= attempts + 2).await;
        let error = client.call("s.S/Echo", "x").await.unwrap_err();
        assert_eq!((error.status(), error.ran()), (Status::NO_ENDPOINT, Ran::No), "{error}");
        assert!(error.to_string().contains("dialling again in"), "{error}");
        assert!(client.peer().is_none() && !client.trouble().is_empty());
        *server = echoing::<A>(&address).await;
        let after = soon::<A, _>("it comes back", client.ready()).await.unwrap();
        assert!(!after.is_same(&before));
        assert_eq!(client.trouble(), "");
    }
    works::<A>(&client).await;
}

/// Whoever sees a connection end, or its node drain, before the client itself does is not given that connection once more.
pub async fn who_waits_for_a_client_gets_a_connection_that_takes_calls<A: Adapter>() {
    let services = echo().method("s.S/Drain", |cx, body| async move {
        cx.peer().drain(Status::GOING_AWAY, SECOND, "");
        Ok(body)
    });
    let server = Server::<A>::builder("node-2").services(services).listen(A::ADDRESS).await.unwrap();
    for drains in [false, true] {
        let client = Client::<A>::builder("a").backoff(MS).connect(server.address()).await.unwrap();
        for _ in 0..3 {
            let before = soon::<A, _>("a connection", client.ready()).await.unwrap();
            if drains {
                soon::<A, _>("it drains", before.call("s.S/Drain", "")).await.unwrap();
                refused::<A>(&before, "s.S/Echo").await;
            } else {
                before.close(Status::NORMAL, "");
                soon::<A, _>("it ends", before.closed()).await;
            }
            let after = soon::<A, _>("another one", client.ready()).await.unwrap();
            assert!(!after.is_same(&before), "{before:?} takes no more calls");
        }
        works::<A>(&client).await;
    }
}

/// The last handle of a client is its end, and its node hears why.
pub async fn a_client_that_leaves_says_so<A: Adapter>() {
    let server = echoing::<A>(A::ADDRESS).await;
    for close in [false, true] {
        let client = Client::<A>::builder("a").connect(server.address()).await.unwrap();
        let other = client.clone();
        let peer = only_peer::<A>(&server).await;
        drop(client);
        works::<A>(&other).await;
        if close {
            soon::<A, _>("it closes", other.close()).await;
        } else {
            drop(other);
        }
        let closed = soon::<A, _>("the node sees it", peer.closed()).await;
        assert_eq!((closed.by, closed.status), (By::Peer, Status::NORMAL));
        until::<A>("and forgets it", || server.peers().is_empty()).await;
    }
}

/// Large and small calls, a stop and a start on the same path. Nothing to do where there are no such sockets.
pub async fn unix_sockets_do_as_well<A: Adapter>() {
    if !A::UNIX {
        return;
    }
    let place = std::env::temp_dir().join(format!("tieline-{}-{:x}", std::process::id(), rand::<A>()));
    let address = format!("unix:{}", place.display());
    let mut server = echoing::<A>(&address).await;
    assert_eq!(server.address(), address);
    let client = Client::<A>::builder("a").connect(&address).await.unwrap();
    for size in [0, 1, 1000, 1 << 20] {
        let body = crate::calls::noise(1, size);
        let answer = soon::<A, _>("an echo", client.call("s.S/Echo", body.clone())).await.unwrap();
        assert!(answer.payload == body);
    }
    let refused = Server::<A>::builder("b").listen(&address).await.unwrap_err();
    assert!(refused.to_string().contains(&address), "{refused}");
    works::<A>(&client).await;
    client.close().await;
    soon::<A, _>("the shutdown", server.shutdown(SECOND)).await;
    server = echoing::<A>(&address).await;
    works::<A>(&Client::<A>::connect(&address).await.unwrap()).await;
    soon::<A, _>("the shutdown", server.shutdown(SECOND)).await;
    assert!(Client::<A>::connect(&address).await.is_err(), "nobody listens");
}

fn rand<A: Adapter>() -> u64 {
    tieline::Runtime::seed(&A::Runtime::default())
}
