//! What the tests on real sockets share: bounded waits, and a peer that is nothing but octets.
#![allow(dead_code, unreachable_pub)]

use std::{future::Future, sync::Arc, time::Duration};

pub use tieline_scenarios::raw::*;
use tieline_tokio::{BoxFuture, Client, Clock, Peer, Runtime, Server, Tcp, Timer, Tokio};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::Notify,
    time::timeout,
};

/// Waits, but not for ever.
pub async fn soon<F: Future>(what: &str, future: F) -> F::Output {
    within(Duration::from_secs(10), what, future).await
}

pub async fn within<F: Future>(limit: Duration, what: &str, future: F) -> F::Output {
    match timeout(limit, future).await {
        Ok(output) => output,
        Err(_) => panic!("{what}: not within {limit:?}"),
    }
}

/// Waits until something that has no event of its own is so.
pub async fn until(what: &str, mut so: impl FnMut() -> bool) {
    soon(what, async {
        while !so() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    })
    .await;
}

/// A server that echoes.
pub async fn echo(address: &str) -> Server {
    let server = Server::builder("node-2").method("t.T/Echo", |_cx, body| async move { Ok(body) });
    server.listen(address).await.unwrap()
}

/// The one peer of a server.
pub async fn only_peer(server: &Server) -> Peer {
    until("somebody checks in", || !server.peers().is_empty()).await;
    server.peers().remove(0)
}

pub async fn works(client: &Client) {
    assert_eq!(soon("an echo", client.call("t.T/Echo", "x")).await.unwrap().payload, "x");
}

// ---- octets ---------------------------------------------------------------------------------------------------

/// A call by name.
pub fn request(kind: u8, id: u64, method: &str, payload: &[u8]) -> Vec<u8> {
    let mut envelope = Vec::new();
    string(2, method, &mut envelope);
    frame(kind, 0, id, &body(&envelope, payload))
}

/// A peer that does what the test says, and nothing by itself.
pub struct Raw {
    pub stream: TcpStream,
}

impl Raw {
    pub async fn connect(address: &str) -> Self {
        Self { stream: TcpStream::connect(address).await.unwrap() }
    }

    pub async fn accept(listener: &TcpListener) -> Self {
        Self { stream: soon("a connection", listener.accept()).await.unwrap().0 }
    }

    pub async fn send(&mut self, octets: &[u8]) {
        soon("to be taken", self.stream.write_all(octets)).await.unwrap();
    }

    /// The next frame; nothing at the end of the stream, whatever kind of end it is.
    pub async fn frame(&mut self) -> Option<Frame> {
        soon("a frame", async {
            let mut head = [0; 18];
            self.stream.read_exact(&mut head).await.ok()?;
            let mut body = vec![0; Frame::announced(&head)];
            self.stream.read_exact(&mut body).await.ok()?;
            Some(Frame::new(head, body))
        })
        .await
    }

    /// The next frame of this type; others are passed over.
    pub async fn next(&mut self, kind: u8) -> Frame {
        loop {
            let frame =
                self.frame().await.unwrap_or_else(|| panic!("the end instead of a frame of type {kind}"));
            if frame.kind == kind {
                return frame;
            }
        }
    }

    /// Everything up to the end of the stream.
    pub async fn rest(&mut self) -> Vec<Frame> {
        let mut frames = Vec::new();
        while let Some(frame) = self.frame().await {
            frames.push(frame);
        }
        frames
    }

    /// Checks in as a client.
    pub async fn check_in(address: &str, identifier: &str, interval: Duration) -> Self {
        let mut raw = Self::connect(address).await;
        raw.send(&hello(CHECK_IN, identifier, interval)).await;
        assert_eq!(raw.next(CHECK_IN_ACK).await.status, 0);
        raw
    }

    /// Takes a client's check-in.
    pub async fn welcome(listener: &TcpListener, interval: Duration) -> Self {
        let mut raw = Self::accept(listener).await;
        raw.next(CHECK_IN).await;
        raw.send(&hello(CHECK_IN_ACK, "raw", interval)).await;
        raw
    }

    /// Ends with a reset instead of an end of the stream.
    pub fn reset(self) {
        socket2::SockRef::from(&self.stream).set_linger(Some(Duration::ZERO)).unwrap();
    }
}

fn narrow_socket(octets: u32) -> tokio::net::TcpSocket {
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(octets).unwrap();
    socket.set_send_buffer_size(octets).unwrap();
    socket
}

/// Tokio, whose connections have the smallest buffers.
#[derive(Clone, Copy, Default)]
pub struct Narrow;

impl Runtime for Narrow {
    type Io = Tcp;
    type Time = Timer;
    type Listener = tieline_tokio::TcpListener;

    fn clock(&self) -> Arc<dyn Clock> {
        Tokio.clock()
    }

    fn time(&self) -> Timer {
        Tokio.time()
    }

    fn spawn(&self, task: BoxFuture<()>) {
        Tokio.spawn(task);
    }

    async fn connect(&self, address: &str) -> std::io::Result<Tcp> {
        Ok(Tcp::new(narrow_socket(4 << 10).connect(address.parse().unwrap()).await?))
    }

    async fn listen(&self, address: &str) -> std::io::Result<tieline_tokio::TcpListener> {
        let socket = narrow_socket(4 << 10);
        socket.bind(address.parse().unwrap())?;
        Ok(socket.listen(8)?.into())
    }
}

/// A line through which a client reaches a server, until it is cut.
pub async fn cable(to: &str) -> (String, tokio::task::JoinHandle<()>) {
    let (listener, address) = listener().await;
    let to = to.to_owned();
    let task = tokio::spawn(async move {
        let (mut near, _) = listener.accept().await.unwrap();
        let mut far = TcpStream::connect(to).await.unwrap();
        let _ = tokio::io::copy_bidirectional(&mut near, &mut far).await;
    });
    (address, task)
}

/// Tells when it is dropped.
pub struct Dropped(pub Arc<Notify>);

impl Drop for Dropped {
    fn drop(&mut self) {
        self.0.notify_one();
    }
}

/// A listener whose connections have small buffers, and its address.
pub fn narrow() -> (TcpListener, String) {
    let socket = narrow_socket(8 << 10);
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let listener = socket.listen(8).unwrap();
    let address = listener.local_addr().unwrap().to_string();
    (listener, address)
}

/// A listener and its address.
pub async fn listener() -> (TcpListener, String) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    (listener, address)
}
