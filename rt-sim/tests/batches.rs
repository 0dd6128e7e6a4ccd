//! Many callers that are answered together, on connections of which each has its process to itself or has not: however
//! they are woken, each is, and in its turn.
#![allow(clippy::unwrap_used, clippy::panic)]

mod support;

use std::time::Duration;

use support::{client, node};
use tieline_sim::{Client, check, spawn};

const CALLERS: usize = 100;
const ROUNDS: u8 = 5;

/// Each caller makes its next call when the one before is answered.
async fn call_in_rounds(client: Client) {
    let callers = (0..CALLERS).map(|_| {
        let client = client.clone();
        spawn(async move {
            for round in 0..ROUNDS {
                let answer = client.call("t.T/Echo", vec![round; 64]).await.unwrap();
                assert_eq!(answer.payload, vec![round; 64]);
            }
        })
    });
    for caller in callers.collect::<Vec<_>>() {
        caller.await.unwrap();
    }
    assert_eq!(client.peer().unwrap().stats().calls_out, CALLERS as u64 * u64::from(ROUNDS));
}

#[test]
fn every_caller_of_a_batch_is_woken() {
    check(0..20, |sim| {
        node(sim, "two");
        sim.usual_link().delay(Duration::from_micros(50));
        let clients = 1 + sim.draw(3);
        sim.run_until(async {
            let mut all = Vec::new();
            for _ in 0..clients {
                let client = client().connect("two:7400").await.unwrap();
                all.push(spawn(call_in_rounds(client)));
            }
            for one in all {
                one.await.unwrap();
            }
        })?;
        Ok(())
    });
}
