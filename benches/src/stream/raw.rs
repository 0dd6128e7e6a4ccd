//! The limit: frames of the same size, laid into a buffer by hand, written when it is full.

use std::convert::Infallible;
use std::io;
use std::net::{self, SocketAddr};

use bytes::Bytes;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Builder;

use super::{Tally, items};
use crate::buffer::Inbox;
use crate::error::{Context, Failure, Result};
use crate::frame::{self, HEADER, Kind, Parsed};
use crate::socket;

/// What is written at once.
const PIECE: usize = 64 * 1024;

/// Serves until the process ends: every connection gets items until it is closed.
pub(super) fn serve(listener: net::TcpListener) -> io::Result<Infallible> {
    listener.set_nonblocking(true)?;
    Builder::new_current_thread().enable_io().build()?.block_on(async {
        let listener = TcpListener::from_std(listener)?;
        loop {
            let (stream, _) = listener.accept().await?;
            stream.set_nodelay(true)?;
            tokio::spawn(send(stream));
        }
    })
}

async fn send(mut stream: TcpStream) -> io::Result<Infallible> {
    let items: Vec<Bytes> = items();
    let mut out = Vec::with_capacity(PIECE + 1024);
    let mut next = items.iter().cycle();
    loop {
        while out.len() < PIECE
            && let Some(item) = next.next()
        {
            frame::emit(&mut out, Kind::Item, 1, item)?;
        }
        stream.write_all(&out).await?;
        out.clear();
    }
}

/// Takes items until the tally has enough.
pub(super) fn take(address: SocketAddr, tally: &mut Tally) -> Result<()> {
    Builder::new_current_thread().enable_io().build()?.block_on(async {
        let stream = socket::connect(address).context("connect")?;
        stream.set_nonblocking(true)?;
        let mut stream = TcpStream::from_std(stream)?;
        let mut inbox = Inbox::new();
        let mut need = HEADER;
        loop {
            let octets = stream.read(inbox.room(need)).await?;
            if octets == 0 {
                return Err(Failure::new("the server closed the connection"));
            }
            inbox.filled(octets);
            let mut consumed = 0;
            need = loop {
                let rest = inbox.waiting().get(consumed..).unwrap_or_default();
                match frame::parse(rest, Kind::Item).context("item")? {
                    Parsed::Partial { need } => break need,
                    Parsed::Frame { id: 1, payload, octets } => {
                        if !tally.take(payload)? {
                            return Ok(());
                        }
                        consumed += octets;
                    }
                    Parsed::Frame { .. } => return Err(Failure::new("an item of another stream")),
                }
            };
            inbox.consume(consumed);
        }
    })
}
