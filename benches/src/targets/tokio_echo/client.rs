//! The client: callers share one connection, which one driver task reads and writes.

use std::future::{Future, poll_fn};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use tokio::net::TcpStream;

use super::driver::Driver;
use super::state::Shared;
use crate::error::{Context as _, Failure, Result};
use crate::socket;
use crate::targets::Caller;

/// Opens a connection and starts its driver on the current runtime.
pub(crate) async fn connect(address: SocketAddr) -> Result<Client> {
    let stream = socket::connect(address).context("connect")?;
    stream.set_nodelay(true)?;
    stream.set_nonblocking(true)?;
    let stream = TcpStream::from_std(stream)?;
    let shared = Arc::new(Shared::default());
    let mut driver = Driver::new(stream, Arc::clone(&shared));
    tokio::spawn(async move {
        let end = poll_fn(|context| driver.poll(context)).await;
        driver.shared.fail(
            &end.err().map_or_else(|| "the connection is closed".to_owned(), |error| error.to_string()),
        );
    });
    Ok(Client(Arc::new(Handle(shared))))
}

/// One connection. Clones share it; it is closed when the last is gone.
#[derive(Clone, Debug)]
pub(crate) struct Client(Arc<Handle>);

#[derive(Debug)]
struct Handle(Arc<Shared>);

impl Drop for Handle {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        state.unused = true;
        let driver = state.driver.take();
        drop(state);
        if let Some(driver) = driver {
            driver.wake();
        }
    }
}

impl Caller for Client {
    fn call(&self, payload: Bytes) -> impl Future<Output = Result<Bytes>> + Send {
        Call { shared: &self.0.0, stage: Stage::New(payload) }
    }
}

/// One call. Nothing happens before it is polled; dropping it gives the reply up.
struct Call<'a> {
    shared: &'a Shared,
    stage: Stage,
}

enum Stage {
    New(Bytes),
    Open(u16),
    Over,
}

impl Future for Call<'_> {
    type Output = Result<Bytes>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        match &self.stage {
            Stage::New(payload) => {
                let (number, driver) = self.shared.lock().begin(payload, context.waker())?;
                if let Some(driver) = driver {
                    driver.wake();
                }
                self.stage = Stage::Open(number);
                Poll::Pending
            }
            Stage::Open(number) => {
                let outcome = ready!(self.shared.lock().take(*number, context.waker()));
                self.stage = Stage::Over;
                Poll::Ready(outcome)
            }
            Stage::Over => Poll::Ready(Err(Failure::new("a call was polled after its end"))),
        }
    }
}

impl Drop for Call<'_> {
    fn drop(&mut self) {
        if let Stage::Open(number) = self.stage {
            self.shared.lock().abandon(number);
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::frame;
    use std::io::{Read, Write};
    use std::net::TcpListener;
    use std::pin::pin;
    use std::thread;
    use tokio::runtime::{Builder, Runtime};

    fn runtime() -> Runtime {
        Builder::new_current_thread().enable_all().build().unwrap()
    }

    /// Reads `count` requests and returns their responses.
    fn responses(stream: &mut impl Read, count: usize) -> Vec<u8> {
        let (mut input, mut out) = (Vec::new(), Vec::new());
        let mut answered = 0;
        while answered < count {
            let mut octet = [0];
            stream.read_exact(&mut octet).unwrap();
            input.extend_from_slice(&octet);
            let echoed = frame::echo(&input, &mut out).unwrap();
            answered += usize::from(echoed.consumed > 0);
            input.drain(..echoed.consumed);
        }
        out
    }

    #[test]
    fn replies_that_come_octet_by_octet_reach_their_callers() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let server = thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            stream.set_nodelay(true).unwrap();
            for octet in responses(&mut stream, 3) {
                stream.write_all(&[octet]).unwrap();
            }
            stream
        });
        runtime().block_on(async {
            let client = connect(address).await.unwrap();
            let calls = [&b"one"[..], b"", b"three"].map(|payload| {
                let client = client.clone();
                tokio::spawn(async move { client.call(Bytes::from_static(payload)).await.unwrap() })
            });
            let [one, two, three] = calls;
            assert_eq!(one.await.unwrap(), "one");
            assert_eq!(two.await.unwrap(), "");
            assert_eq!(three.await.unwrap(), "three");
        });
        server.join().unwrap();
    }

    #[test]
    fn a_dropped_call_frees_its_slot_when_the_reply_comes() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let server = thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let out = responses(&mut stream, 2);
            stream.write_all(&out).unwrap();
            let out = responses(&mut stream, 2);
            stream.write_all(&out).unwrap();
        });
        runtime().block_on(async {
            let client = connect(address).await.unwrap();
            {
                let mut dropped = pin!(client.call(Bytes::from_static(b"dropped")));
                assert!(poll_fn(|context| Poll::Ready(dropped.as_mut().poll(context).is_pending())).await);
            }
            assert_eq!(client.call(Bytes::from_static(b"kept")).await.unwrap(), "kept");
            // Both slots are free again: two calls at once need no third.
            let [one, two] = [&b"one"[..], b"two"].map(|payload| {
                let client = client.clone();
                tokio::spawn(async move { client.call(Bytes::from_static(payload)).await.unwrap() })
            });
            assert_eq!((one.await.unwrap(), two.await.unwrap()), ("one".into(), "two".into()));
            assert_eq!(client.0.0.lock().slots(), 2);
        });
        server.join().unwrap();
    }

    #[test]
    fn callers_learn_that_the_connection_is_gone() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let server = thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            responses(&mut stream, 1);
        });
        runtime().block_on(async {
            let client = connect(address).await.unwrap();
            assert!(client.call(Bytes::from_static(b"x")).await.is_err());
            assert!(client.call(Bytes::from_static(b"y")).await.is_err());
        });
        server.join().unwrap();
    }

    #[test]
    fn the_last_handle_closes_the_connection() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let server = thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            stream.read(&mut [0; 1]).unwrap()
        });
        runtime().block_on(async {
            let client = connect(address).await.unwrap();
            drop(client);
            let end = tokio::task::spawn_blocking(move || server.join().unwrap());
            assert_eq!(end.await.unwrap(), 0);
        });
    }
}
