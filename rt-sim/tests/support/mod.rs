//! What the tests share: a node that echoes, and a client that beats often.
#![allow(dead_code, clippy::unwrap_used, clippy::panic)]

use std::time::Duration;

use tieline_sim::{Client, ClientBuilder, Server, Services, Sim};

pub(crate) const MS: Duration = Duration::from_millis(1);
pub(crate) const SECOND: Duration = Duration::from_secs(1);
/// The heartbeat interval of these tests.
pub(crate) const I: Duration = Duration::from_millis(200);
/// Within this time after its last octet a peer is given up (R-HB-06), and one look of the driver later it has been.
pub(crate) const WINDOW: std::ops::RangeInclusive<Duration> =
    Duration::from_millis(600)..=Duration::from_millis(1_105);

pub(crate) fn services() -> Services {
    Services::new()
        .method("t.T/Echo", |_cx, body| async move { Ok(body) })
        .method("t.T/Slow", |_cx, body| async move {
            tieline_sim::sleep(SECOND / 2).await;
            Ok(body)
        })
        .method("t.T/Compute", |_cx, body| async move {
            tieline_sim::compute(SECOND / 2).await;
            Ok(body)
        })
}

/// A node that serves [`services`] at `name:7400`.
pub(crate) fn node(sim: &Sim, name: &'static str) {
    sim.host(name, move || async move {
        let _server = Server::builder(name).services(services()).listen(&format!("{name}:7400")).await?;
        std::future::pending().await
    });
}

pub(crate) fn client() -> ClientBuilder<Sim> {
    Client::builder("one").heartbeat_interval(I).backoff(50 * MS)
}

pub(crate) async fn works(client: &Client) {
    let answer = client.call("t.T/Echo", "are you there").await.unwrap();
    assert_eq!(answer.payload, "are you there");
}
