//! tarpc, with Bincode over TCP.

use std::convert::Infallible;
use std::future::Future;
use std::net::{self, SocketAddr};

use bytes::Bytes;
use futures_util::StreamExt;
use tarpc::server::{BaseChannel, Channel};
use tarpc::tokio_serde::formats::Bincode;
use tarpc::{client, context, serde_transport};
use tieline_benches::error::{Context, Result};
use tieline_benches::load::Caller;

use super::{accept, connected, current_thread, framed};

/// More than the heaviest row has in flight.
const IN_FLIGHT: usize = 4096;

#[tarpc::service]
trait Echo {
    /// Returns its argument.
    async fn echo(body: Bytes) -> Bytes;
}

#[derive(Clone, Copy)]
struct Server;

impl Echo for Server {
    async fn echo(self, _context: context::Context, body: Bytes) -> Bytes {
        body
    }
}

async fn spawn(task: impl Future<Output = ()> + Send + 'static) {
    tokio::spawn(task);
}

pub(crate) fn serve(listener: net::TcpListener) -> Result<Infallible> {
    current_thread()?.block_on(accept(listener, |stream| {
        let transport = serde_transport::new(framed(stream), Bincode::default());
        tokio::spawn(BaseChannel::with_defaults(transport).execute(Server.serve()).for_each(spawn));
    }))
}

pub(crate) async fn connect(address: SocketAddr) -> Result<Tarpc> {
    let transport = serde_transport::new(framed(connected(address)?), Bincode::default());
    let mut config = client::Config::default();
    config.max_in_flight_requests = IN_FLIGHT;
    Ok(Tarpc(EchoClient::new(config, transport).spawn()))
}

/// One connection.
#[derive(Clone)]
pub(crate) struct Tarpc(EchoClient);

impl Caller for Tarpc {
    async fn call(&self, payload: Bytes) -> Result<Bytes> {
        // A deadline of 10 s goes with it.
        self.0.echo(context::current(), payload).await.context("call")
    }
}
