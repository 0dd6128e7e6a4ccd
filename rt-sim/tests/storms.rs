//! Everything at once, by chance: what holds whatever happens, and that a seed is a run.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout)]

mod support;

use std::{
    collections::BTreeMap,
    error::Error,
    future::pending,
    process::Command,
    sync::{Arc, Mutex},
    time::Duration,
};

use support::{I, MS, SECOND, client};
use tieline_sim::{Client, Fault, Ran, Server, Sim, Storm, check, sleep, spawn, until};

const NODES: [&str; 3] = ["one", "two", "three"];

/// How often each call was executed, and what its caller was told.
#[derive(Default)]
struct Book {
    ran: BTreeMap<String, u32>,
    told: BTreeMap<String, Result<(), Ran>>,
    begun: u32,
}

type Shared = Arc<Mutex<Book>>;

/// Nodes that serve, and write down what they are called for.
fn world(sim: &Sim) -> Shared {
    let book = Shared::default();
    for name in NODES {
        let book = Arc::clone(&book);
        sim.host(name, move || {
            let book = Arc::clone(&book);
            async move {
                let writes = Arc::clone(&book);
                let _server = Server::builder(name)
                    .method("t.T/Echo", move |_cx, body| {
                        let key = body.split(|octet| *octet == b'.').next().unwrap_or_default();
                        let key = String::from_utf8_lossy(key).into_owned();
                        *writes.lock().unwrap().ran.entry(key).or_default() += 1;
                        async move { Ok(body) }
                    })
                    .method("t.T/Slow", |_cx, body| async move {
                        sleep(300 * MS).await;
                        Ok(body)
                    })
                    .listen(&format!("{name}:7400"))
                    .await?;
                pending().await
            }
        });
    }
    book
}

/// Calls again and again until the storm is over; each call has a name of its own.
async fn caller(sim: Sim, book: Shared, client: Client, number: usize) {
    for call in 0.. {
        sleep(Duration::from_millis(sim.draw(200))).await;
        if sim.elapsed() > 20 * SECOND {
            return;
        }
        let key = format!("{number}/{call}");
        let mut body = key.clone();
        body.push_str(&".".repeat(usize::try_from(sim.draw(3) * sim.draw(20_000)).unwrap()));
        book.lock().unwrap().begun += 1;
        let told = match client.call("t.T/Echo", body.clone()).timeout(5 * SECOND).await {
            Ok(answer) => {
                assert!(answer.payload == body, "the answer of another call");
                Ok(())
            }
            Err(error) => Err(error.ran()),
        };
        let before = book.lock().unwrap().told.insert(key, told);
        assert!(before.is_none(), "a call ended twice");
    }
}

fn storm(sim: &Sim) -> Result<(), Box<dyn Error>> {
    let book = world(sim);
    let mut hosts = vec!["test"];
    hosts.extend(NODES);
    sim.run_until(async {
        let clients: Vec<Client> = (0..6)
            .map(|number| {
                let to = NODES[number % NODES.len()];
                client().connect_lazily(&format!("{to}:7400")).unwrap()
            })
            .collect();
        let callers: Vec<_> = clients
            .iter()
            .enumerate()
            .map(|(number, client)| spawn(caller(sim.clone(), Arc::clone(&book), client.clone(), number)))
            .collect();
        // The host of the test cannot crash; everything else happens to it as well.
        let crashes = [Fault::Crash, Fault::PowerOff];
        let weather = Storm::new(&hosts).every(400 * MS).lasting(700 * MS).without(&crashes);
        let crashes = Storm::new(&NODES).kinds(&crashes).every(4 * SECOND);
        let on = sim.clone();
        let crashing = spawn(async move { crashes.rage(&on, 15 * SECOND).await });
        weather.rage(sim, 20 * SECOND).await;
        crashing.await.unwrap();
        for caller in callers {
            caller.await.unwrap();
        }
        // After the faults heal everything finishes: every client comes back by itself and works.
        for client in &clients {
            until(|| client.peer().is_some()).await;
            let answer = loop {
                match client.call("t.T/Echo", "after").timeout(5 * SECOND).await {
                    Ok(answer) => break answer,
                    // It has not noticed yet that its connection was swallowed.
                    Err(_) => sleep(100 * MS).await,
                }
            };
            assert_eq!(answer.payload, "after");
        }
        for client in clients {
            client.close().await;
        }
        sleep(3 * SECOND).await;
    })?;
    let book = book.lock().unwrap();
    assert_eq!(u32::try_from(book.told.len()).unwrap(), book.begun, "each call ended once");
    for (key, told) in &book.told {
        let ran = book.ran.get(key).copied().unwrap_or(0);
        match told {
            Ok(()) => assert_eq!(ran, 1, "call {key} was answered"),
            Err(Ran::No) => assert_eq!(ran, 0, "call {key} did not run, it was said"),
            Err(_) => assert!(ran <= 1, "call {key} ran {ran} times"),
        }
    }
    assert_eq!(sim.connections(), 0, "nothing is left after everybody has closed");
    assert!(book.told.values().filter(|told| told.is_ok()).count() > 20, "most of the time it works");
    Ok(())
}

#[test]
fn whatever_happens_each_call_ends_once_and_after_it_heals_everything_finishes() {
    let faults = check(0..100, storm);
    println!("{faults}");
    assert_eq!(faults.never(Fault::ALL), [], "a fault that never fired proves nothing");
}

#[test]
fn a_seed_is_a_run() {
    let run = |seed| {
        let sim = Sim::new(seed);
        storm(&sim).unwrap();
        (sim.hash(), sim.happened(), sim.elapsed(), sim.faults())
    };
    let runs: Vec<_> = (0..6).map(run).collect();
    for (seed, before) in (0..).zip(&runs) {
        assert_eq!(&run(seed), before, "seed {seed}");
    }
    for (at, one) in runs.iter().enumerate() {
        assert!(runs[at + 1..].iter().all(|other| other.0 != one.0));
    }
}

/// In another process memory lies elsewhere, and whatever hashes by chance does so otherwise.
#[test]
fn a_seed_is_the_same_run_in_another_process() {
    let sim = Sim::new(9);
    storm(&sim).unwrap();
    let said = format!("the hash is {:016x}", sim.hash());
    if is_child() {
        println!("{said}");
        return;
    }
    let heard = child("a_seed_is_the_same_run_in_another_process");
    assert!(heard.contains(&said), "{said} here, but there: {heard}");
}

fn is_child() -> bool {
    std::env::var_os("TIELINE_SIM_CHILD").is_some()
}

/// What this test says when it runs in a process of its own.
fn child(test: &str) -> String {
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", test, "--nocapture"])
        .env("TIELINE_SIM_CHILD", "1")
        .env_remove("TIELINE_SIM_SEEDS")
        .env_remove("TIELINE_SIM_SEED")
        .output()
        .unwrap();
    [output.stdout, output.stderr].iter().map(|said| String::from_utf8_lossy(said).into_owned()).collect()
}

#[test]
fn a_failure_tells_its_seed_and_the_command_that_runs_it_again() {
    const NAME: &str = "a_failure_tells_its_seed_and_the_command_that_runs_it_again";
    if is_child() {
        check(3..9, |sim| {
            sim.host("one", || async {
                sleep(SECOND).await;
                Ok(())
            });
            sim.run()?;
            assert!(sim.seed_of_run() != 5, "the sixth fails");
            Ok(())
        });
    }
    let heard = child(NAME);
    let expected = [
        "one      ended",
        "the sixth fails; after 1.0",
        "with the seed 5; faults: none",
        &format!("again: TIELINE_SIM_SEED=5 cargo test -p tieline-sim {NAME} -- --nocapture"),
        "1 failed",
    ];
    for expected in expected {
        assert!(heard.contains(expected), "{expected:?} is not in {heard}");
    }
}

#[test]
fn a_storm_of_pauses_below_the_bound_loses_no_connection() {
    check(0..20, |sim| {
        let book = world(sim);
        drop(book);
        sim.run_until(async {
            let client = client().connect("one:7400").await.unwrap();
            let peer = client.peer().unwrap();
            for _ in 0..40 {
                sim.pause("one");
                if sim.draw(2) == 0 {
                    sim.direction("one", "test").delay(I / 2);
                }
                sleep(Duration::from_millis(sim.draw(300))).await;
                sim.resume("one");
                sleep(I * 2).await;
                assert_eq!(client.call("t.T/Echo", "x").await.unwrap().payload, "x");
            }
            assert!(client.peer().unwrap().is_same(&peer));
        })?;
        Ok(())
    });
}
