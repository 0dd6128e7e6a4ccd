//! Tieline on tokio, by its public client and server, with all that a product has and a bench might leave out: check-in,
//! methods by name, a deadline on each call, heartbeats, limits, statistics.

use std::convert::Infallible;
use std::future::pending;
use std::net::{self, SocketAddr};
use std::time::Duration;

use bytes::Bytes;
use tieline_tokio::{Limits, Server};
use tokio::runtime::Builder;

use crate::error::{Context, Result};
use crate::load::{Caller, MAX_BODY};
use crate::runtime::Client;

/// The method that returns its argument.
pub const ECHO: &str = "tieline.bench.v1.Echo/Echo";

/// The deadline of each call; it travels to the server with the call.
pub const DEADLINE: Duration = Duration::from_secs(10);

/// The longest frame body that the protocol allows.
const MAX_FRAME: u32 = 1 << 20;
/// The largest payload of a call: what the hand-written baselines read.
pub const MOST_PAYLOAD: usize = MAX_BODY - 1;
/// What may wait or be served on a connection: more than the heaviest load of a row.
const MEMORY: usize = 256 << 20;

/// The defaults are made for small messages. These are what somebody sets who has large ones; they are bounds, and
/// nothing is set aside for them.
#[must_use]
pub fn limits() -> Limits {
    let mut limits = Limits::default();
    limits.max_frame = MAX_FRAME;
    limits.max_message = u32::try_from(MOST_PAYLOAD).unwrap_or(u32::MAX);
    limits.memory = MEMORY;
    limits.max_queued = MEMORY;
    limits
}

/// Serves until the process ends.
pub fn serve(listener: net::TcpListener) -> Result<Infallible> {
    listener.set_nonblocking(true)?;
    Builder::new_current_thread().enable_all().build()?.block_on(async {
        let listener = tokio::net::TcpListener::from_std(listener)?;
        let server = Server::builder("bench-server")
            .limits(limits())
            .method(ECHO, |_context, body| async move { Ok(body) });
        let _server = server.serve_on(listener.into()).context("serve")?;
        pending().await
    })
}

/// Opens a connection on the current runtime, and checks in.
pub async fn connect(address: SocketAddr) -> Result<Tieline> {
    let client = Client::builder("bench-client").limits(limits());
    Ok(Tieline(client.connect(&address.to_string()).await.context("connect")?))
}

/// One connection. Clones share it.
#[derive(Clone, Debug)]
pub struct Tieline(Client);

impl Caller for Tieline {
    async fn call(&self, payload: Bytes) -> Result<Bytes> {
        let answer = self.0.call(ECHO, payload).timeout(DEADLINE).await.context("call")?;
        Ok(answer.payload)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    /// One call at a time is the row in which it would pay most to leave something out.
    #[test]
    fn nothing_is_switched_off() {
        Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
            let server = Server::builder("bench-server")
                .limits(limits())
                .method(ECHO, |context, body: Bytes| async move {
                    Ok(if context.deadline().is_some() { body } else { Bytes::new() })
                })
                .listen("127.0.0.1:0")
                .await
                .unwrap();
            let client = connect(server.address().parse().unwrap()).await.unwrap();
            for calls in 1..=3 {
                assert_eq!(client.call(Bytes::from_static(b"armed")).await.unwrap(), "armed");
                let peer = client.0.peer().unwrap();
                assert_eq!(peer.stats().calls_out, calls);
                assert_eq!(peer.info().unwrap().heartbeat_interval, Duration::from_secs(10));
            }
        });
    }

    #[test]
    fn the_longest_payload_is_carried() {
        let listener = net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        std::thread::spawn(|| serve(listener));
        Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
            let client = connect(address).await.unwrap();
            let payload = Bytes::from(vec![7; MOST_PAYLOAD]);
            assert!(client.call(payload.clone()).await.unwrap() == payload);
            assert!(client.call(vec![7; MOST_PAYLOAD + 1].into()).await.is_err());
        });
    }
}
