//! The runtime of the product, tokio's, except that its client's sockets are made as those of all other targets are.

use std::future::Future;
use std::io;
use std::sync::Arc;

use tieline_tokio::{BoxFuture, Clock, Runtime, Socket, SocketListener, Timer, Tokio};
use tokio::net::TcpStream;

use crate::socket;

/// A client that dials by [`socket::connect`].
pub type Client = tieline::Client<Bench>;

/// [`Tokio`], but for dialling.
#[derive(Debug, Clone, Copy, Default)]
pub struct Bench;

impl Runtime for Bench {
    type Io = Socket;
    type Time = Timer;
    type Listener = SocketListener;

    fn clock(&self) -> Arc<dyn Clock> {
        Tokio.clock()
    }

    fn time(&self) -> Timer {
        Tokio.time()
    }

    fn spawn(&self, task: BoxFuture<()>) {
        Tokio.spawn(task);
    }

    async fn connect(&self, address: &str) -> io::Result<Socket> {
        let address = address.parse().map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
        let stream = socket::connect(address)?;
        stream.set_nonblocking(true)?;
        Ok(TcpStream::from_std(stream)?.into())
    }

    fn listen(&self, address: &str) -> impl Future<Output = io::Result<SocketListener>> + Send {
        Tokio.listen(address)
    }
}
