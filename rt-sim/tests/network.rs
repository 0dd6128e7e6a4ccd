//! Each fault of the network, and what a client and a server make of it.
#![allow(clippy::unwrap_used, clippy::panic)]

mod support;

use std::{io::ErrorKind, time::Duration};

use support::{I, MS, SECOND, WINDOW, client, node, works};
use tieline_sim::{By, Client, ConnectError, Fault, Peer, Ran, Sim, Status, What, sleep, spawn, until};

/// A world of a node, `two`, and a client of it on the host of the test.
fn world() -> Sim {
    let sim = Sim::new(1);
    node(&sim, "two");
    sim
}

async fn connected() -> (Client, Peer) {
    let client = client().connect("two:7400").await.unwrap();
    works(&client).await;
    let peer = client.peer().unwrap();
    (client, peer)
}

fn fired(sim: &Sim, fault: Fault) -> bool {
    sim.faults().count(fault) > 0
}

#[test]
fn a_cut_loses_the_call_that_was_under_way_and_the_client_comes_back() {
    let sim = world();
    sim.run_until(async {
        let (client, peer) = connected().await;
        let caller = client.clone();
        let call = spawn(async move { caller.call("t.T/Slow", "x").await });
        sleep(10 * MS).await;
        sim.link("test", "two").cut();
        let error = call.await.unwrap().unwrap_err();
        assert_eq!((error.status(), error.ran()), (Status::CONNECTION_LOST, Ran::Maybe), "{error}");
        assert!(error.to_string().contains("reset"), "{error}");
        assert!(!client.ready().await.unwrap().is_same(&peer));
        works(&client).await;
    })
    .unwrap();
    assert_eq!(sim.faults().count(Fault::Cut), 2, "once for each direction");
}

#[test]
fn a_half_close_ends_the_connection_after_what_was_sent_before() {
    let sim = world();
    sim.run_until(async {
        let (client, peer) = connected().await;
        sim.direction("two", "test").half_close();
        let closed = peer.closed().await;
        assert_eq!(closed.status, Status::CONNECTION_LOST, "{closed}");
        until(|| client.peer().is_none()).await;
        client.ready().await.unwrap();
        works(&client).await;
    })
    .unwrap();
    assert_eq!(sim.faults().count(Fault::HalfClose), 1);
}

#[test]
fn what_is_delayed_or_stalled_for_less_than_the_bound_comes_later_on_the_same_connection() {
    for fault in [Fault::Delay, Fault::Stall, Fault::Partition] {
        let sim = world();
        sim.run_until(async {
            let (client, peer) = connected().await;
            let begun = sim.elapsed();
            let link = sim.link("test", "two");
            match fault {
                Fault::Delay => link.delay(300 * MS),
                Fault::Stall => link.stall(),
                _ => link.partition(),
            }
            let caller = client.clone();
            let call = spawn(async move { works(&caller).await });
            sleep(300 * MS - 1 * MS).await;
            assert!(!call.is_finished());
            sleep(1 * MS).await;
            if fault != Fault::Delay {
                link.heal();
            }
            call.await.unwrap();
            let took = sim.elapsed() - begun;
            assert!((300 * MS..302 * MS).contains(&took), "{took:?}");
            assert!(client.peer().unwrap().is_same(&peer));
        })
        .unwrap();
        assert!(fired(&sim, fault), "{fault:?}");
    }
}

#[test]
fn a_black_hole_is_found_by_both_ends_inside_the_window() {
    let sim = world();
    sim.run_until(async {
        let (client, peer) = connected().await;
        sleep(3 * SECOND).await;
        assert!(client.peer().unwrap().is_same(&peer), "an idle line lives");
        let last = peer.stats();
        sim.link("test", "two").black_hole();
        let since = sim.elapsed();
        let closed = peer.closed().await;
        assert_eq!((closed.by, closed.status), (By::Us, Status::HEARTBEAT_LOST), "{closed}");
        let silence = sim.elapsed() - since;
        // The last octet came at most an interval before.
        assert!(silence + I >= *WINDOW.start() && silence <= *WINDOW.end(), "{silence:?}");
        assert!(peer.stats().heartbeats_out > last.heartbeats_out, "it asked before it judged");

        let tries = client.attempts();
        sleep(10 * SECOND).await;
        assert!(client.attempts() > tries && client.peer().is_none(), "attempts are not answered");
        assert!(client.trouble().contains("two:7400"), "{}", client.trouble());
        sim.heal("test", "two");
        assert!(!client.ready().await.unwrap().is_same(&peer));
        works(&client).await;
        // The node has found it as well: it has one connection, not two.
        assert_eq!(sim.connections(), 1);
    })
    .unwrap();
    assert!(fired(&sim, Fault::BlackHole));
}

#[test]
fn a_connection_that_a_black_hole_has_swallowed_stays_dead_and_new_ones_work() {
    let sim = world();
    sim.run_until(async {
        let (client, peer) = connected().await;
        sim.link("test", "two").black_hole();
        sim.heal("test", "two");
        let other = support::client().connect("two:7400").await.unwrap();
        works(&other).await;
        let call = client.call("t.T/Echo", "x").await.unwrap_err();
        assert_eq!(call.status(), Status::CONNECTION_LOST, "{call}");
        assert_eq!(peer.closed().await.status, Status::HEARTBEAT_LOST);
    })
    .unwrap();
}

#[test]
fn after_a_partition_heals_the_client_comes_back_by_itself() {
    let sim = world();
    sim.run_until(async {
        let (client, peer) = connected().await;
        sim.partition("test", "two");
        let since = sim.elapsed();
        let closed = peer.closed().await;
        assert_eq!((closed.by, closed.status), (By::Us, Status::HEARTBEAT_LOST), "{closed}");
        assert!(sim.elapsed() - since <= *WINDOW.end());
        until(|| client.peer().is_none()).await;
        let error = client.call("t.T/Echo", "x").await.unwrap_err();
        assert_eq!((error.status(), error.ran()), (Status::NO_ENDPOINT, Ran::No), "{error}");
        sleep(60 * SECOND).await;
        sim.heal("test", "two");
        client.ready().await.unwrap();
        works(&client).await;
        assert!(!client.peer().unwrap().is_same(&peer));
    })
    .unwrap();
    assert!(fired(&sim, Fault::Partition));
}

#[test]
fn a_partition_of_one_direction_is_found_by_both_ends() {
    for (from, to) in [("test", "two"), ("two", "test")] {
        let sim = world();
        sim.run_until(async {
            let (_client, peer) = connected().await;
            sim.direction(from, to).partition();
            let since = sim.elapsed();
            let closed = peer.closed().await;
            assert_eq!(closed.status, Status::HEARTBEAT_LOST, "{from} to {to}: {closed}");
            assert!(sim.elapsed() - since <= *WINDOW.end());
        })
        .unwrap();
    }
}

#[test]
fn everything_works_in_pieces_of_one_octet_and_with_partial_writes() {
    let sim = world();
    let _ = sim.link("test", "two").slice(1..=1).partial_writes(true);
    sim.run_until(async {
        let (client, peer) = connected().await;
        let body: Vec<u8> = (0..=255).cycle().take(10_000).collect();
        let answer = client.call("t.T/Echo", body.clone()).await.unwrap();
        assert!(answer.payload == body);
        assert!(client.peer().unwrap().is_same(&peer));
    })
    .unwrap();
    assert!(sim.trace().iter().all(|entry| entry.what != What::Read || entry.octets == 1));
    assert!(
        sim.faults().count(Fault::Slice) > 20_000 && fired(&sim, Fault::PartialWrite),
        "{}",
        sim.faults()
    );
}

#[test]
fn what_is_coalesced_arrives_together() {
    let sim = world();
    let _ = sim.link("test", "two").coalesce(20 * MS);
    sim.run_until(async {
        let (client, _peer) = connected().await;
        let calls: Vec<_> = (0..10)
            .map(|_| {
                let client = client.clone();
                spawn(async move { works(&client).await })
            })
            .collect();
        for call in calls {
            call.await.unwrap();
        }
    })
    .unwrap();
    for entry in sim.trace().iter().filter(|entry| entry.what == What::Arrived) {
        assert_eq!(entry.at.as_nanos() % 20_000_000, 0, "{entry}");
    }
    assert!(fired(&sim, Fault::Coalesce));
}

#[test]
fn a_body_that_outlasts_the_heartbeat_on_a_slow_line_arrives_and_the_line_lives() {
    for (from, to) in [("test", "two"), ("two", "test")] {
        let sim = world();
        let _ = sim.direction(from, to).bandwidth(100_000);
        sim.run_until(async {
            let (client, peer) = connected().await;
            let begun = sim.elapsed();
            let body = vec![7; 1_000_000];
            let answer = client.call("t.T/Echo", body.clone()).timeout(60 * SECOND).await.unwrap();
            assert!(answer.payload == body);
            assert!(sim.elapsed() - begun >= 10 * SECOND, "{:?}", sim.elapsed());
            assert!(client.peer().unwrap().is_same(&peer));
            let stats = peer.stats();
            let beats = if from == "test" { stats.heartbeats_in } else { stats.heartbeats_out };
            assert!(beats >= 40, "the silent end has beaten each interval: {stats:?}");
        })
        .unwrap();
        assert!(fired(&sim, Fault::Bandwidth));
    }
}

#[test]
fn what_does_not_fit_into_the_buffers_of_the_kernels_waits() {
    let sim = world();
    let _ = sim.link("test", "two").buffers(1_000, 700);
    sim.run_until(async {
        let (client, peer) = connected().await;
        let body = vec![7; 100_000];
        let link = sim.direction("test", "two");
        link.stall();
        let caller = client.clone();
        let call = spawn(async move { caller.call("t.T/Echo", body).await });
        sleep(300 * MS).await;
        assert!(!call.is_finished());
        let written: u64 = sim
            .trace()
            .iter()
            .filter(|e| e.what == What::Wrote && &*e.host == "test")
            .map(|e| e.octets)
            .sum();
        assert!(written < 3_000, "{written} octets were written against a buffer of 1000");
        link.heal();
        assert_eq!(call.await.unwrap().unwrap().payload.len(), 100_000);
        assert!(client.peer().unwrap().is_same(&peer));
    })
    .unwrap();
    assert!(fired(&sim, Fault::Backpressure));
}

#[test]
fn a_transport_that_takes_nothing_is_given_up_inside_the_window() {
    let sim = world();
    let _ = sim.link("test", "two").buffers(1_000, 700);
    sim.run_until(async {
        let (client, peer) = connected().await;
        sim.direction("test", "two").stall();
        let since = sim.elapsed();
        let error = client.call("t.T/Echo", vec![7; 100_000]).await.unwrap_err();
        assert_eq!(error.status(), Status::CONNECTION_LOST, "{error}");
        let took = sim.elapsed() - since;
        assert!(took <= *WINDOW.end(), "{took:?}");
        assert_eq!(peer.closed().await.status, Status::HEARTBEAT_LOST);
    })
    .unwrap();
}

fn dial_error(error: ConnectError) -> ErrorKind {
    match error {
        ConnectError::Dial { source, .. } => source.kind(),
        error => panic!("{error}"),
    }
}

#[test]
fn attempts_are_refused_or_not_answered() {
    let sim = world();
    sim.run_until(async {
        let dial = async |address: &str| client().connect(address).await.map_err(dial_error);
        assert_eq!(dial("two:7401").await.unwrap_err(), ErrorKind::ConnectionRefused, "nobody listens there");
        assert_eq!(dial("three:7400").await.unwrap_err(), ErrorKind::NotFound);
        assert_eq!(dial("two").await.unwrap_err(), ErrorKind::InvalidInput);
        assert_eq!(dial("unix:/run/two").await.unwrap_err(), ErrorKind::Unsupported);

        sim.link("test", "two").refuse();
        assert_eq!(dial("two:7400").await.unwrap_err(), ErrorKind::ConnectionRefused);
        sim.heal("test", "two");

        for partition in [false, true] {
            let link = sim.link("test", "two");
            if partition {
                link.partition();
            } else {
                link.leave_unanswered();
            }
            let since = sim.elapsed();
            assert_eq!(dial("two:7400").await.unwrap_err(), ErrorKind::TimedOut);
            assert!(sim.elapsed() - since >= 5 * SECOND);
            link.heal();
        }
        drop(dial("two:7400").await.unwrap());
    })
    .unwrap();
    for fault in [Fault::Refused, Fault::Unanswered, Fault::Partition] {
        assert!(fired(&sim, fault), "{fault:?}");
    }
}

#[test]
fn an_attempt_that_meets_a_partition_gets_through_when_it_heals() {
    let sim = world();
    sim.run_until(async {
        sim.partition("test", "two");
        let dialling = spawn(client().connect("two:7400"));
        sleep(2 * SECOND).await;
        assert!(!dialling.is_finished());
        sim.heal("test", "two");
        works(&dialling.await.unwrap().unwrap()).await;
    })
    .unwrap();
}

#[test]
fn latency_and_jitter_are_kept() {
    let sim = world();
    let _ = sim.direction("test", "two").latency(40 * MS).jitter(Duration::ZERO);
    let _ = sim.direction("two", "test").latency(10 * MS).jitter(5 * MS);
    sim.run_until(async {
        let (client, _peer) = connected().await;
        let begun = sim.elapsed();
        works(&client).await;
        let took = sim.elapsed() - begun;
        assert!((50 * MS..56 * MS).contains(&took), "{took:?}");
    })
    .unwrap();
}

#[test]
fn an_attempt_that_is_cut_fails_and_leaves_nothing_behind() {
    let sim = world();
    let _ = sim.link("test", "two").latency(50 * MS).jitter(Duration::ZERO);
    sim.run_until(async {
        // On its way there, and on its way back.
        for after in [20 * MS, 70 * MS] {
            let dialling = spawn(client().connect("two:7400"));
            sleep(after).await;
            sim.link("test", "two").cut();
            assert_eq!(dial_error(dialling.await.unwrap().unwrap_err()), ErrorKind::ConnectionReset);
            sleep(SECOND).await;
            assert_eq!(sim.connections(), 0);
        }
        // Nobody waits for it any more.
        let mut dialling = Box::pin(client().connect("two:7400"));
        std::future::poll_fn(|cx| {
            assert!(dialling.as_mut().poll(cx).is_pending());
            std::task::Poll::Ready(())
        })
        .await;
        sleep(70 * MS).await;
        drop(dialling);
        sleep(SECOND).await;
        assert_eq!(sim.connections(), 0);
    })
    .unwrap();
}
