//! One direction is busy for long, the other end has nothing to say: heartbeats still come in time.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout)]

use std::{error::Error, time::Duration};

use tieline_sim::{Client, Fault, Limits, Peer, Server, Sim, check, sleep, spawn};

const MS: Duration = Duration::from_millis(1);
const MIB: u64 = 1 << 20;
const INTERVAL: Duration = Duration::from_millis(200);

fn limits() -> Limits {
    let mut limits = Limits::default();
    limits.max_message = 256 << 20;
    limits.memory = 512 << 20;
    limits.max_queued = 512 << 20;
    limits
}

fn number(octets: &[u8]) -> usize {
    std::str::from_utf8(octets).unwrap().parse().unwrap()
}

/// Says how long what came is, and sends as much as it is asked for.
fn add_node(sim: &Sim) {
    sim.host("two", || async {
        let _server = Server::builder("two")
            .limits(limits())
            .method("t.T/Length", |_cx, body| async move { Ok(body.len().to_string()) })
            .method("t.T/Get", |_cx, body| async move { Ok(vec![7; number(&body)]) })
            .listen("two:7400")
            .await?;
        std::future::pending().await
    });
}

async fn transfer(peer: &Peer, up: bool, octets: usize) -> usize {
    let minute = 60_000 * MS;
    if up {
        let answer = peer.call("t.T/Length", vec![1; octets]).timeout(10 * minute).await.unwrap();
        number(&answer.payload)
    } else {
        let answer = peer.call("t.T/Get", octets.to_string()).timeout(10 * minute).await.unwrap();
        answer.payload.len()
    }
}

/// Stalls that are shorter than what is left of the bound after an interval, with pauses in which a heartbeat passes.
async fn stalls(sim: Sim) {
    loop {
        sleep((300 + 40 * u32::try_from(sim.draw(20)).unwrap()) * MS).await;
        let (from, to) = if sim.draw(2) == 0 { ("test", "two") } else { ("two", "test") };
        let link = sim.direction(from, to);
        let time = u32::try_from(sim.draw(330)).unwrap() * MS;
        match sim.draw(3) {
            0 => link.delay(time),
            1 => {
                link.stall();
                sleep(time).await;
                link.heal();
            }
            _ => {
                sim.pause("two");
                sleep(time).await;
                sim.resume("two");
            }
        }
    }
}

fn busy(sim: &Sim, most: u64) -> Result<(), Box<dyn Error>> {
    add_node(sim);
    let bandwidth = MIB << sim.draw(9);
    let buffers = 16 << (10 + sim.draw(10));
    let latency = u32::try_from(sim.draw(20)).unwrap() * MS;
    let link = sim.link("test", "two").bandwidth(bandwidth).buffers(buffers, buffers).latency(latency);
    let sliced = sim.draw(4) == 0;
    let link = if sliced { link.slice(1_000..=20_000) } else { link };
    let _ = link.partial_writes(sim.draw(2) == 0);
    let round_trip = u64::try_from(latency.as_millis()).unwrap() * 2 + 1;
    // What a window lets through, for about ten seconds.
    let rate = bandwidth.min(buffers as u64 * 1000 / round_trip);
    let octets = usize::try_from(rate * 10).unwrap().min(usize::try_from(most).unwrap());
    let stats = sim.run_until(async {
        let client = Client::builder("one").limits(limits()).heartbeat_interval(INTERVAL);
        let client = client.connect("two:7400").await.unwrap();
        let peer = client.peer().unwrap();
        let trouble = spawn(stalls(sim.clone()));
        for up in [true, false] {
            assert_eq!(transfer(&peer, up, octets).await, octets);
        }
        assert!(!trouble.is_finished() && client.peer().unwrap().is_same(&peer));
        peer.stats()
    })?;
    if sim.elapsed() > 3 * INTERVAL {
        assert!(stats.heartbeats_in > 0 && stats.heartbeats_out > 0, "{stats:?} in {:?}", sim.elapsed());
    }
    Ok(())
}

#[test]
fn a_busy_line_with_stalls_below_the_bound_stays_alive() {
    let most = std::env::var("MIB").map_or(4, |v| v.parse().unwrap());
    let faults = check(0..60, |sim| busy(sim, most * MIB));
    println!("{faults}");
    let fired =
        [Fault::Bandwidth, Fault::Stall, Fault::Delay, Fault::Pause, Fault::Slice, Fault::PartialWrite];
    assert_eq!(faults.never(&fired), []);
}
