//! The latency floor: blocking sockets and one call in flight, nothing that could be left out.

use std::convert::Infallible;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::thread;

use crate::buffer::Inbox;
use crate::error::{Context, Failure, Result};
use crate::frame::{self, HEADER, Kind, Parsed};
use crate::load::{GRACE, Meter, Payloads, Plan, Verifier, waits};
use crate::socket;

/// Serves until the process ends, a thread a connection.
pub(crate) fn serve(listener: &TcpListener) -> io::Result<Infallible> {
    loop {
        let (stream, _) = listener.accept()?;
        thread::Builder::new().spawn(move || answer(&stream))?;
    }
}

fn answer(mut stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut inbox = Inbox::new();
    let mut out = Vec::new();
    let mut need = HEADER;
    loop {
        let octets = match stream.read(inbox.room(need)) {
            Ok(0) => return Ok(()),
            Ok(octets) => octets,
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        inbox.filled(octets);
        let echoed = frame::echo(inbox.waiting(), &mut out)?;
        inbox.consume(echoed.consumed);
        need = echoed.need;
        if !out.is_empty() {
            stream.write_all(&out)?;
            out.clear();
        }
    }
}

/// Runs `plan` against the server at `address`: one connection, one call in flight.
pub(crate) fn drive(plan: &Plan, address: SocketAddr, meter: &Arc<Meter>) -> Result<()> {
    let mut client = Client::connect(plan, address)?;
    waits::drive("blocking", plan, meter, || client.call())
}

struct Client {
    stream: TcpStream,
    inbox: Inbox,
    out: Vec<u8>,
    counter: u64,
    payload: bytes::Bytes,
    verifier: Verifier,
}

impl Client {
    fn connect(plan: &Plan, address: SocketAddr) -> Result<Self> {
        let stream = socket::connect(address).context("connect")?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(GRACE))?;
        Ok(Self {
            stream,
            inbox: Inbox::new(),
            out: Vec::new(),
            counter: 0,
            payload: Payloads::new(plan.payload, 1).of(0),
            verifier: Verifier::default(),
        })
    }

    fn call(&mut self) -> Result<()> {
        self.counter += 1;
        let sent = self.counter << 1 | 1;
        self.out.clear();
        frame::emit(&mut self.out, Kind::Request, sent, &self.payload).context("request")?;
        self.stream.write_all(&self.out)?;
        let mut need = HEADER;
        loop {
            let octets = self.stream.read(self.inbox.room(need)).context("read")?;
            if octets == 0 {
                return Err(Failure::new("the server closed the connection"));
            }
            self.inbox.filled(octets);
            match frame::parse(self.inbox.waiting(), Kind::Response).context("response")? {
                Parsed::Partial { need: more } => need = more,
                Parsed::Frame { id, payload, octets } => {
                    if id != sent || !self.verifier.matches(&self.payload, payload) {
                        return Err(Failure::new("a reply is not what was sent"));
                    }
                    self.inbox.consume(octets);
                    return Ok(());
                }
            }
        }
    }
}
