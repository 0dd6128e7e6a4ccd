//! What happens to whole hosts, and how runs end that do not come to their end.
#![allow(clippy::unwrap_used, clippy::panic)]

mod support;

use std::{
    future::pending,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
};

use support::{I, MS, SECOND, WINDOW, client, node, services, works};
use tieline_sim::{By, Client, Fault, Server, Sim, Status, compute, sleep, spawn, until};

#[test]
fn a_pause_of_both_ends_beyond_the_bound_kills_no_healthy_connection() {
    let sim = Sim::new(1);
    node(&sim, "two");
    sim.host("one", || async {
        let client = client().connect("two:7400").await?;
        let peer = client.peer().unwrap();
        loop {
            works(&client).await;
            assert!(client.peer().unwrap().is_same(&peer), "the first connection lives");
            sleep(I).await;
        }
    });
    sim.run_for(2 * SECOND).unwrap();
    for pause in [SECOND, 10 * SECOND, 1_000 * SECOND] {
        sim.pause("one");
        sim.pause("two");
        sim.run_for(pause).unwrap();
        sim.resume("one");
        sim.resume("two");
        sim.run_for(5 * SECOND).unwrap();
    }
    assert_eq!((sim.faults().count(Fault::Pause), sim.connections()), (6, 1));
}

#[test]
fn who_was_paused_judges_nobody_by_the_time_in_which_it_stood_still() {
    let sim = Sim::new(1);
    node(&sim, "two");
    sim.run_until(async {
        let client = client().connect("two:7400").await.unwrap();
        let peer = client.peer().unwrap();
        // Below the bound of the other end: nothing happens at all.
        sim.pause("two");
        sleep(I).await;
        sim.resume("two");
        works(&client).await;
        assert!(client.peer().unwrap().is_same(&peer));
        // Beyond it: the end that was awake judges, as it must; not the one that stood still.
        sim.pause("two");
        let since = sim.elapsed();
        let closed = peer.closed().await;
        assert_eq!((closed.by, closed.status), (By::Us, Status::HEARTBEAT_LOST));
        assert!(sim.elapsed() - since <= *WINDOW.end());
        sleep(10 * SECOND).await;
        sim.resume("two");
        client.ready().await.unwrap();
        works(&client).await;
    })
    .unwrap();
}

#[test]
fn the_paused_end_of_a_healthy_connection_finds_it_open_and_hears_of_the_other_ends_close() {
    let sim = Sim::new(1);
    let served = Arc::new(AtomicU32::new(0));
    let seen = Arc::clone(&served);
    sim.host("two", move || {
        let seen = Arc::clone(&seen);
        async move {
            let server = Server::builder("two").services(services()).listen("two:7400").await?;
            until(|| !server.peers().is_empty()).await;
            let closed = server.peers().first().unwrap().clone().closed().await;
            assert_eq!((closed.by, closed.status), (By::Peer, Status::HEARTBEAT_LOST), "{closed}");
            seen.fetch_add(1, Ordering::Relaxed);
            pending().await
        }
    });
    sim.run_until(async {
        let client = client().connect("two:7400").await.unwrap();
        sim.pause("two");
        client.peer().unwrap().closed().await;
        // Its kernel still has what the client said before it closed.
        sim.resume("two");
        until(|| served.load(Ordering::Relaxed) == 1).await;
    })
    .unwrap();
}

#[test]
fn a_host_that_computes_does_nothing_else() {
    let sim = Sim::new(1);
    node(&sim, "two");
    sim.run_until(async {
        let client = client().connect("two:7400").await.unwrap();
        let other = support::client().connect("two:7400").await.unwrap();
        let computing = spawn(async move { client.call("t.T/Compute", "x").await });
        sleep(10 * MS).await;
        let since = sim.elapsed();
        works(&other).await;
        assert!(sim.elapsed() - since >= 480 * MS, "{:?}", sim.elapsed() - since);
        assert_eq!(computing.await.unwrap().unwrap().payload, "x");
    })
    .unwrap();
    assert_eq!(sim.faults().count(Fault::Busy), 1);
}

struct Told(Arc<AtomicU32>);

impl Drop for Told {
    fn drop(&mut self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

/// A node that counts its starts and the ends of its tasks.
fn counted(sim: &Sim) -> (Arc<AtomicU32>, Arc<AtomicU32>) {
    let (starts, ends) = (Arc::new(AtomicU32::new(0)), Arc::new(AtomicU32::new(0)));
    let (started, ended) = (Arc::clone(&starts), Arc::clone(&ends));
    sim.host("two", move || {
        let (started, told) = (Arc::clone(&started), Told(Arc::clone(&ended)));
        async move {
            started.fetch_add(1, Ordering::Relaxed);
            let _server = Server::builder("two").services(services()).listen("two:7400").await?;
            spawn(async move {
                let _told = told;
                pending::<()>().await;
            });
            pending().await
        }
    });
    (starts, ends)
}

#[test]
fn a_crash_resets_what_was_open_and_the_host_starts_anew() {
    let sim = Sim::new(1);
    let (starts, ends) = counted(&sim);
    sim.run_until(async {
        let client = client().connect("two:7400").await.unwrap();
        let peer = client.peer().unwrap();
        let caller = client.clone();
        let call = spawn(async move { caller.call("t.T/Slow", "x").await });
        sleep(10 * MS).await;
        let since = sim.elapsed();
        sim.crash("two");
        assert_eq!(ends.load(Ordering::Relaxed), 1, "its tasks are dropped");
        let error = call.await.unwrap().unwrap_err();
        assert_eq!(error.status(), Status::CONNECTION_LOST, "{error}");
        assert!(sim.elapsed() - since < I, "the kernel tells at once");
        sleep(SECOND).await;
        assert!(client.peer().is_none() && client.trouble().contains("refused"), "{}", client.trouble());
        sim.restart("two");
        let again = client.ready().await.unwrap();
        works(&client).await;
        let instance = |peer: &tieline_sim::Peer| peer.info().unwrap().instance;
        assert!(instance(&again) > instance(&peer), "a later start of the same node");
    })
    .unwrap();
    assert_eq!(starts.load(Ordering::Relaxed), 2);
    assert_eq!((sim.faults().count(Fault::Crash), sim.faults().count(Fault::Restart)), (1, 1));
}

#[test]
fn a_machine_that_is_off_says_nothing_and_after_it_is_on_resets_what_it_does_not_know() {
    let sim = Sim::new(1);
    let (starts, ends) = counted(&sim);
    sim.run_until(async {
        let client = client().connect("two:7400").await.unwrap();
        let peer = client.peer().unwrap();
        // Back within the bound: the next heartbeat is answered by a reset.
        sim.power_off("two");
        assert_eq!(ends.load(Ordering::Relaxed), 1);
        sleep(50 * MS).await;
        sim.restart("two");
        let closed = peer.closed().await;
        assert_eq!(closed.status, Status::CONNECTION_LOST, "{closed}");
        client.ready().await.unwrap();
        until(|| client.peer().is_some_and(|now| !now.is_same(&peer))).await;
        works(&client).await;
        // Off for good: nobody is told, the heartbeat finds it.
        let peer = client.peer().unwrap();
        sim.power_off("two");
        let since = sim.elapsed();
        assert_eq!(peer.closed().await.status, Status::HEARTBEAT_LOST);
        assert!(sim.elapsed() - since <= *WINDOW.end());
        sleep(20 * SECOND).await;
        assert!(client.peer().is_none());
    })
    .unwrap();
    assert_eq!(starts.load(Ordering::Relaxed), 2);
    assert!(sim.faults().count(Fault::PowerOff) >= 2);
}

#[test]
fn a_kernel_gives_up_what_nobody_acknowledges_even_while_its_process_stands_still() {
    let sim = Sim::new(1);
    node(&sim, "two");
    sim.host("one", || async {
        let client = client().connect("two:7400").await?;
        let peer = client.peer().unwrap();
        let closed = peer.closed().await;
        assert_eq!(closed.status, Status::CONNECTION_LOST, "{closed}");
        assert!(closed.to_string().contains("does not answer"), "{closed}");
        Ok(())
    });
    sim.run_for(SECOND + 50 * MS).unwrap();
    sim.link("one", "two").black_hole();
    // A heartbeat goes out and is lost; then the process stops.
    sim.run_for(I).unwrap();
    sim.pause("one");
    sim.run_for(5 * SECOND).unwrap();
    sim.resume("one");
    sim.run_for(SECOND).unwrap();
    assert!(sim.faults().count(Fault::UserTimeout) > 0, "{}", sim.faults());
}

fn why(sim: &Sim) -> String {
    sim.run().unwrap_err().to_string()
}

#[test]
fn runs_that_do_not_come_to_their_end_say_why() {
    let sim = Sim::new(42);
    sim.host("one", || async {
        pending::<()>().await;
        Ok(())
    });
    let said = why(&sim);
    assert!(said.contains("nothing can run and nothing is due") && said.contains("seed 42"), "{said}");
    assert!(said.contains("TIELINE_SIM_SEED=42 cargo test -p tieline-sim runs_that_do_not"), "{said}");

    let sim = Sim::new(1);
    sim.host("one", || async {
        sleep(SECOND).await;
        panic!("what a pity")
    });
    assert!(why(&sim).contains("a task of host one panicked: what a pity"));

    let sim = Sim::new(1);
    sim.host("one", || async { Err("no disk".into()) });
    assert!(why(&sim).contains("host one ended with an error: no disk"));

    let sim = Sim::new(1);
    sim.time_limit(60 * SECOND);
    sim.host("one", || async {
        loop {
            sleep(SECOND).await;
        }
    });
    let stuck = sim.run().unwrap_err();
    assert!(stuck.why.contains("limit of 60s") && stuck.at == 60 * SECOND, "{stuck}");

    let sim = Sim::new(1);
    sim.host("one", || async { Ok(()) });
    sim.partition("one", "tow");
    assert!(why(&sim).contains("no host \"tow\"; there are test, one"));

    let sim = Sim::new(1);
    sim.host("one:7400", || async { Ok(()) });
    assert!(why(&sim).contains("cannot be called \"one:7400\""));

    let sim = Sim::new(1);
    let inner = sim.run_until(async { sim.run_for(SECOND) }).unwrap();
    assert!(inner.unwrap_err().why.contains("inside"));
}

#[test]
fn outside_of_a_simulation_nothing_can_be_dialled() {
    let mut dialling = Box::pin(Client::connect("two:7400"));
    let mut cx = std::task::Context::from_waker(std::task::Waker::noop());
    let std::task::Poll::Ready(Err(error)) = dialling.as_mut().poll(&mut cx) else { panic!("at once") };
    assert!(error.to_string().contains("not on a host of a simulation"), "{error}");
}

#[test]
fn two_listeners_of_one_host_have_two_ports_and_hosts_share_none() {
    let sim = Sim::new(1);
    node(&sim, "two");
    sim.run_until(async {
        let listen = async |address: &str| Server::builder("x").listen(address).await;
        let (one, two) = (listen("127.0.0.1:0").await.unwrap(), listen("test:0").await.unwrap());
        assert!(one.address().starts_with("test:") && one.address() != two.address());
        let taken = listen(one.address()).await.unwrap_err().to_string();
        assert!(taken.contains("in use"), "{taken}");
        assert!(listen("two:7500").await.unwrap_err().to_string().contains("not an address of this host"));
        let address = one.address().to_owned();
        one.shutdown(SECOND).await;
        listen(&address).await.unwrap();
        listen("localhost:7400").await.unwrap();
    })
    .unwrap();
}

#[test]
fn what_is_computed_in_turn_adds_up() {
    let sim = Sim::new(1);
    sim.host("one", || async {
        let other = spawn(compute(SECOND));
        compute(SECOND).await;
        other.await.unwrap();
        Ok(())
    });
    sim.run().unwrap();
    assert!(sim.elapsed() >= 2 * SECOND, "{:?}", sim.elapsed());
}
