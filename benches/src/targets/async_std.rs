//! Tieline on async-std: the same product on the other executor, one thread of it a process.

use std::convert::Infallible;
use std::future::{Future, pending};
use std::io;
use std::net::{self, SocketAddr};
use std::sync::Arc;

use bytes::Bytes;
use tieline_async_std::{Async, AsyncStd, BoxFuture, Clock, Runtime, Server, Socket, SocketListener, Timer};

use super::Caller;
use super::tieline::{DEADLINE, ECHO, limits};
use crate::error::{Context, Result};
use crate::socket;

/// [`AsyncStd`], but for dialling: its client's sockets are made as those of all other targets are.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Bench;

impl Runtime for Bench {
    type Io = Socket;
    type Time = Timer;
    type Listener = SocketListener;

    fn clock(&self) -> Arc<dyn Clock> {
        AsyncStd.clock()
    }

    fn time(&self) -> Timer {
        AsyncStd.time()
    }

    fn spawn(&self, task: BoxFuture<()>) {
        AsyncStd.spawn(task);
    }

    async fn connect(&self, address: &str) -> io::Result<Socket> {
        let address = address.parse().map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
        Ok(Socket::new(Async::new(socket::connect(address)?)?))
    }

    fn listen(&self, address: &str) -> impl Future<Output = io::Result<SocketListener>> + Send {
        AsyncStd.listen(address)
    }
}

/// Serves until the process ends.
pub(crate) fn serve(listener: net::TcpListener) -> Result<Infallible> {
    async_std::task::block_on(async_std::task::spawn(async {
        let server = Server::builder("bench-server")
            .limits(limits())
            .method(ECHO, |_context, body| async move { Ok(body) });
        let _server = server.serve_on(listener.try_into()?).context("serve")?;
        pending().await
    }))
}

/// Opens a connection, and checks in.
pub(crate) async fn connect(address: SocketAddr) -> Result<Tieline> {
    let client = tieline::Client::builder("bench-client").limits(limits());
    Ok(Tieline(client.connect(&address.to_string()).await.context("connect")?))
}

/// One connection. Clones share it.
#[derive(Clone, Debug)]
pub(crate) struct Tieline(tieline::Client<Bench>);

impl Caller for Tieline {
    async fn call(&self, payload: Bytes) -> Result<Bytes> {
        let answer = self.0.call(ECHO, payload).timeout(DEADLINE).await.context("call")?;
        Ok(answer.payload)
    }

    /// Callers are tasks of the executor that the connection is on.
    fn place<F>(future: F) -> impl Future<Output = F::Output> + Send + 'static
    where
        F: Future<Output: Send> + Send + 'static,
    {
        async_std::task::spawn(future)
    }
}
