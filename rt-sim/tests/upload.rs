//! experiment
#![allow(clippy::unwrap_used, clippy::panic)]
use std::time::Duration;
use tieline_sim::{Client, Limits, Server, Sim, sleep, spawn};

const MS: Duration = Duration::from_millis(1);

fn limits(body: usize) -> Limits {
    let mut limits = Limits::default();
    limits.max_message = u32::try_from(body).unwrap();
    limits.memory = body * 2;
    limits.max_queued = body * 2;
    limits
}

#[test]
fn probe() {
    let mib: usize = std::env::var("MIB").map_or(8, |v| v.parse().unwrap());
    for bandwidth in [64 << 10, 1 << 20, 16 << 20, 256 << 20, 0_u64] {
        for buffers in [16 << 10, 256 << 10, 4 << 20] {
            for up in [true, false] {
                let begun = std::time::Instant::now();
                let sim = Sim::new(1);
                let size = if bandwidth == 0 {
                    mib << 20
                } else {
                    (mib << 20).min(usize::try_from(bandwidth).unwrap() * 60)
                };
                sim.host("two", move || async move {
                    let _server = Server::builder("two")
                        .limits(limits(256 << 20))
                        .method("t.T/Len", |_cx, body| async move { Ok(body.len().to_string()) })
                        .method("t.T/Get", |_cx, body| async move {
                            Ok(vec![7; std::str::from_utf8(&body).unwrap().parse().unwrap()])
                        })
                        .listen("two:7400")
                        .await?;
                    std::future::pending().await
                });
                let mut link = sim.link("test", "two").buffers(buffers, buffers).latency(5 * MS);
                if bandwidth > 0 {
                    link = link.bandwidth(bandwidth);
                }
                let _ = link;
                let out = sim.run_until(async {
                    let client = Client::builder("one")
                        .limits(limits(256 << 20))
                        .heartbeat_interval(200 * MS)
                        .connect("two:7400")
                        .await
                        .unwrap();
                    let peer = client.peer().unwrap();
                    let r = if up {
                        client
                            .call("t.T/Len", vec![1; size])
                            .timeout(Duration::from_secs(3000))
                            .await
                            .map(|a| a.payload.len())
                    } else {
                        client
                            .call("t.T/Get", size.to_string())
                            .timeout(Duration::from_secs(3000))
                            .await
                            .map(|a| a.payload.len())
                    };
                    (r.map_err(|e| e.to_string()), peer.stats())
                });
                let el = sim.elapsed();
                let (r, s) = match out {
                    Ok(x) => x,
                    Err(e) => {
                        println!("{bandwidth} {buffers} up={up} STUCK {e}");
                        continue;
                    }
                };
                println!(
                    "bw {bandwidth:>9} buf {buffers:>8} up={up:<5} size {size:>10} virt {el:?} real {:?}: {r:?} beats out {} in {}",
                    begun.elapsed(),
                    s.heartbeats_out,
                    s.heartbeats_in
                );
                let _ = (sleep, spawn::<std::future::Ready<()>>);
            }
        }
    }
}
