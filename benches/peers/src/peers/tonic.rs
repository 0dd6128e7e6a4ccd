//! gRPC, by tonic. The service is written by hand, as its generator would: that needs no `protoc`.

use std::convert::Infallible;
use std::net::{self, SocketAddr};
use std::task::{Context as Poller, Poll};

use bytes::Bytes;
use hyper_util::rt::TokioIo;
use tieline_benches::error::{Context, Result};
use tieline_benches::load::Caller;
use tokio::net::{TcpListener, TcpStream};
use tonic::codegen::http::uri::PathAndQuery;
use tonic::codegen::{Body, BoxFuture, Service, StdError, http};
use tonic::transport::server::TcpIncoming;
use tonic::transport::{Channel, Endpoint, Server};
use tonic::{Request, Response, Status};
use tonic_prost::ProstCodec;

use super::{connected, current_thread};

const PATH: &str = "/tieline.bench.v1.Echo/Echo";
/// Both ends of each: more than the heaviest row has under way, so that no window is waited for.
const STREAMS: u32 = 4096;
const STREAM_WINDOW: u32 = 2 << 20;
const CONNECTION_WINDOW: u32 = 64 << 20;

#[derive(Clone, PartialEq, prost::Message)]
struct Payload {
    #[prost(bytes = "bytes", tag = "1")]
    body: Bytes,
}

/// What answers one call.
#[derive(Clone, Copy)]
struct Echo;

impl Service<Request<Payload>> for Echo {
    type Response = Response<Payload>;
    type Error = Status;
    type Future = std::future::Ready<std::result::Result<Self::Response, Status>>;

    fn poll_ready(&mut self, _cx: &mut Poller<'_>) -> Poll<std::result::Result<(), Status>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Payload>) -> Self::Future {
        std::future::ready(Ok(Response::new(request.into_inner())))
    }
}

/// What answers one request of HTTP.
#[derive(Clone, Copy)]
struct Route;

impl<B> Service<http::Request<B>> for Route
where
    B: Body + Send + 'static,
    B::Error: Into<StdError> + Send + 'static,
{
    type Response = http::Response<tonic::body::Body>;
    type Error = Infallible;
    type Future = BoxFuture<Self::Response, Infallible>;

    fn poll_ready(&mut self, _cx: &mut Poller<'_>) -> Poll<std::result::Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<B>) -> Self::Future {
        Box::pin(async move {
            if request.uri().path() != PATH {
                return Ok(Status::unimplemented("no such method").into_http());
            }
            let mut grpc = tonic::server::Grpc::new(ProstCodec::<Payload, Payload>::new());
            Ok(grpc.unary(Echo, request).await)
        })
    }
}

pub(crate) fn serve(listener: net::TcpListener) -> Result<Infallible> {
    listener.set_nonblocking(true)?;
    current_thread()?.block_on(async {
        let incoming = TcpIncoming::from(TcpListener::from_std(listener)?).with_nodelay(Some(true));
        let server = Server::builder()
            .max_concurrent_streams(STREAMS)
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW);
        server.serve_with_incoming(Route, incoming).await.context("tonic")?;
        Err(tieline_benches::error::Failure::new("tonic stopped serving"))
    })
}

pub(crate) async fn connect(address: SocketAddr) -> Result<Tonic> {
    let endpoint = Endpoint::from_shared(format!("http://{address}")).context("tonic")?;
    let endpoint =
        endpoint.initial_stream_window_size(STREAM_WINDOW).initial_connection_window_size(CONNECTION_WINDOW);
    let connector = tower::service_fn(move |_uri| async move {
        let stream: std::io::Result<TcpStream> = connected(address);
        stream.map(TokioIo::new)
    });
    let channel = endpoint.connect_with_connector(connector).await.context("connect")?;
    Ok(Tonic(channel))
}

/// One connection.
#[derive(Clone)]
pub(crate) struct Tonic(Channel);

impl Caller for Tonic {
    async fn call(&self, payload: Bytes) -> Result<Bytes> {
        let mut grpc = tonic::client::Grpc::new(self.0.clone());
        grpc.ready().await.context("call")?;
        let path = PathAndQuery::from_static(PATH);
        let request = Request::new(Payload { body: payload });
        let answer: Response<Payload> =
            grpc.unary(request, path, ProstCodec::<Payload, Payload>::new()).await.context("call")?;
        Ok(answer.into_inner().body)
    }
}
