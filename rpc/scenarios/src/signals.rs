//! Nodes that are told to end, that are killed, and that stand still: in processes of their own.

use std::{collections::BTreeSet, time::Duration};

use rustix::process::Signal;
use tieline::{Ran, Status};

use crate::{
    Adapter, Client, Server,
    calls::{echo, echoing, works},
    ends::{Ledger, Load, noting},
    only_peer,
    process::{Part, Told, asked_to_end, part, say},
    raw::{RESPONSE, Raw, request},
    task,
    wait::{LONG, MS, Shared, pass, soon, until},
};

/// SIGTERM under load: it drains, everything that ran was answered, and the process ends well.
pub fn a_node_that_is_told_to_end_loses_nothing_that_it_accepted<A: Adapter>(test: &str) {
    if part().is_some() {
        return A::block_on(async {
            let (asked, ran) = (asked_to_end(), Ledger::default());
            let server = Server::<A>::builder("node-2").services(noting::<A>(&ran)).listen(A::ADDRESS).await;
            let server = server.unwrap();
            say(server.address());
            asked.take(|asked| asked.then_some(())).await;
            soon::<A, _>("the shutdown", server.shutdown(LONG)).await;
            let ran = ran.see(|ran| ran.iter().map(u32::to_string).collect::<Vec<_>>());
            say(&ran.join(" "));
        });
    }
    A::block_on(async {
        let node = Part::start(test, "node", "");
        let load = Load::on::<A>(&node.line::<A>().await).await;
        node.signal(Signal::TERM);
        let (good, bad) = load.end::<A>().await;
        let ran: BTreeSet<u32> =
            node.line::<A>().await.split(' ').map(|number| number.parse().unwrap()).collect();
        assert_eq!(ran, good.see(BTreeSet::clone), "whatever ran was answered");
        assert!(ran.is_disjoint(&bad.see(BTreeSet::clone)));
        node.end::<A>().await;
    });
}

/// SIGKILL: what it had accepted may have run, and its successor on the same port is found.
pub fn a_node_that_is_killed_is_found_again<A: Adapter>(test: &str) {
    if let Some((_, address)) = part() {
        return A::block_on(async {
            let begun: Shared<u64> = Shared::default();
            let begin = begun.clone();
            let server = Server::<A>::builder("node-2").services(echo()).method("s.S/Forever", {
                move |_cx, _body| {
                    let begin = begin.clone();
                    async move {
                        begin.add();
                        std::future::pending::<Result<&str, tieline::Error>>().await
                    }
                }
            });
            let server = server.listen(&address).await.unwrap();
            say(server.address());
            // It stays until it is killed, or until nothing more will be said to it.
            let told = Told::listen();
            let ended = async {
                told.line().await;
            };
            if crate::wait::either(ended, begun.one()).await.is_err() {
                say("it runs");
                std::future::pending::<()>().await;
            }
        });
    }
    A::block_on(async {
        let first = Part::start(test, "node", A::ADDRESS);
        let address = first.line::<A>().await;
        let client = Client::<A>::builder("a").backoff(10 * MS).connect(&address).await.unwrap();
        works::<A>(&client).await;
        let caller = client.clone();
        let open = task::spawn::<A, _>(async move { caller.call("s.S/Forever", "").no_timeout().await });
        first.expect::<A>("it runs").await;
        first.signal(Signal::KILL);
        let error = soon::<A, _>("the call ends", open.join()).await.unwrap_err();
        assert_eq!((error.status(), error.ran()), (Status::CONNECTION_LOST, Ran::Maybe), "{error}");
        drop(first);
        until::<A>("it tries again", || client.attempts() >= 3).await;
        let error = client.call("s.S/Echo", "x").await.unwrap_err();
        assert!(error.to_string().contains("refused"), "{error}");
        let second = Part::start(test, "node", &address);
        second.expect::<A>(&address).await;
        soon::<A, _>("it comes back", client.ready()).await.unwrap();
        works::<A>(&client).await;
        second.end::<A>().await;
    });
}

/// The least that a server grants by default.
const INTERVAL: Duration = Duration::from_millis(200);
/// Far more than the three intervals after which silence is death, and the grace behind them.
const STILL: Duration = Duration::from_millis(1500);

/// SIGSTOP, and SIGCONT when every timer of the process is late at once: peers that wrote meanwhile are read before they
/// are judged, and so are those who stood still as well.
pub fn a_process_that_stood_still_judges_nobody_unread<A: Adapter>(test: &str) {
    if part().is_some() {
        return A::block_on(async {
            let told = Told::listen();
            let server = echoing::<A>(A::ADDRESS).await;
            let client = Client::<A>::builder("a").heartbeat_interval(INTERVAL);
            let client = client.connect(server.address()).await.unwrap();
            let (here, there) = (client.peer().unwrap(), only_peer::<A>(&server).await);
            assert_eq!(there.info().unwrap().heartbeat_interval, INTERVAL);
            say(server.address());
            while let Some(line) = told.line().await {
                assert_eq!(line, "go on");
                works::<A>(&client).await;
                let beats = here.stats().heartbeats_out;
                until::<A>("it beats again", || here.stats().heartbeats_out > beats + 2).await;
                assert!(here.is_ready() && there.is_ready());
                assert_eq!(client.attempts(), 1);
                say("it lives");
            }
        });
    }
    A::block_on(async {
        let mut node = Part::start(test, "node", "");
        let address = node.line::<A>().await;
        let stop: Shared<bool> = Shared::default();
        let over = stop.clone();
        // It reads nothing, so it judges nobody, and calls every now and then.
        let raw = task::thread(move || {
            let mut raw = Raw::check_in(&address, "raw", INTERVAL);
            let mut calls = 0;
            while !over.see(|over| *over) {
                raw.send(&request(calls * 2 + 1, "s.S/Echo", b"x"));
                calls += 1;
                std::thread::sleep(INTERVAL / 4);
            }
            for call in 0..calls {
                assert_eq!(raw.next(RESPONSE).id, call * 2 + 1, "each is answered, in its turn");
            }
        });
        for _ in 0..2 {
            node.signal(Signal::STOP);
            pass::<A>(STILL).await;
            node.signal(Signal::CONT);
            node.say("go on");
            node.expect::<A>("it lives").await;
        }
        stop.change(|stop| *stop = true);
        soon::<A, _>("its answers", raw.join()).await;
        node.end::<A>().await;
    });
}
