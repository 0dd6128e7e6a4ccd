//! RSocket, by rsocket_rust: request and response.

use std::convert::Infallible;
use std::net::{self, SocketAddr};

use bytes::Bytes;
use rsocket_rust::prelude::{Flux, Payload, RSocket, RSocketFactory};
use rsocket_rust::transport::ServerTransport;
use rsocket_rust::{Client, async_trait, stream};
use rsocket_rust_transport_tcp::TcpClientTransport;
use tieline_benches::error::{Context, Failure, Result};
use tieline_benches::load::Caller;
use tokio::net::TcpListener;

use super::{connected, current_thread};

/// The listener that all peers have, instead of one that it opens itself: with the same options on its sockets.
struct Listening(TcpListener);

#[async_trait]
impl ServerTransport for Listening {
    type Item = TcpClientTransport;

    async fn start(&mut self) -> rsocket_rust::Result<()> {
        Ok(())
    }

    async fn next(&mut self) -> Option<rsocket_rust::Result<TcpClientTransport>> {
        let accepted = self.0.accept().await.and_then(|(stream, _)| {
            stream.set_nodelay(true)?;
            Ok(TcpClientTransport::from(stream))
        });
        Some(accepted.map_err(Into::into))
    }
}

struct Echo;

#[async_trait]
impl RSocket for Echo {
    async fn metadata_push(&self, _request: Payload) -> rsocket_rust::Result<()> {
        Ok(())
    }

    async fn fire_and_forget(&self, _request: Payload) -> rsocket_rust::Result<()> {
        Ok(())
    }

    async fn request_response(&self, request: Payload) -> rsocket_rust::Result<Option<Payload>> {
        Ok(Some(request))
    }

    fn request_stream(&self, request: Payload) -> Flux<rsocket_rust::Result<Payload>> {
        Box::pin(stream! { yield Ok(request); })
    }

    fn request_channel(
        &self,
        requests: Flux<rsocket_rust::Result<Payload>>,
    ) -> Flux<rsocket_rust::Result<Payload>> {
        requests
    }
}

pub(crate) fn serve(listener: net::TcpListener) -> Result<Infallible> {
    listener.set_nonblocking(true)?;
    current_thread()?.block_on(async {
        let transport = Listening(TcpListener::from_std(listener)?);
        let server = RSocketFactory::receive()
            .acceptor(Box::new(|_setup, _socket| Ok(Box::new(Echo))))
            .transport(transport);
        server.serve().await.context("rsocket")?;
        Err(Failure::new("rsocket stopped serving"))
    })
}

pub(crate) async fn connect(address: SocketAddr) -> Result<Rsocket> {
    let transport = TcpClientTransport::from(connected(address)?);
    Ok(Rsocket(RSocketFactory::connect().transport(transport).start().await.context("connect")?))
}

/// One connection.
#[derive(Clone)]
pub(crate) struct Rsocket(Client);

impl Caller for Rsocket {
    async fn call(&self, payload: Bytes) -> Result<Bytes> {
        let answer = self.0.request_response(Payload::new(Some(payload), None)).await.context("call")?;
        let (data, _) = answer.ok_or_else(|| Failure::new("rsocket answered nothing"))?.split();
        Ok(data.unwrap_or_default())
    }
}
