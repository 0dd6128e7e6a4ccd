//! The latency floor: blocking sockets and one call in flight, nothing that could be left out.

use std::convert::Infallible;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::thread;
use std::time::Instant;

use crate::buffer::Inbox;
use crate::error::{Context, Failure, Result};
use crate::frame::{self, HEADER, Kind, Parsed};
use crate::load::{GRACE, Length, Meter, Mode, Payloads, Phases, Plan, Sampler, Schedule, Verifier};
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
    if plan.callers() != 1 {
        return Err(Failure::new("blocking has one connection with one call in flight"));
    }
    let mut client = Client::connect(plan, address)?;
    match (plan.mode, plan.length) {
        (Mode::Closed, _) => client.closed(plan, meter),
        (Mode::Open { rate }, Length::Time { warmup, window }) => {
            let schedule = Schedule::new(Instant::now(), rate, warmup, window);
            client.open(plan, meter, &schedule)
        }
        (Mode::Open { .. }, Length::Calls(_)) => Err(Failure::new("an open loop runs for a time")),
    }
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

    fn closed(&mut self, plan: &Plan, meter: &Meter) -> Result<()> {
        let mut sampler = Sampler::new(plan.sample_every(), 0);
        let mut now = Instant::now();
        let mut phases = Phases::start(meter, plan.length, now)?;
        while phases.go_on(now)? && meter.issue() {
            self.call()?;
            // The end of one call is the start of the next: one look at the clock for both.
            let end = Instant::now();
            if sampler.take() {
                meter.record(end - now);
            }
            meter.complete();
            now = end;
        }
        Ok(())
    }

    fn open(&mut self, plan: &Plan, meter: &Meter, schedule: &Schedule) -> Result<()> {
        let mut now = schedule.intended(0);
        let mut phases = Phases::start(meter, plan.length, now)?;
        let mut issued = 0;
        let mut more = true;
        while more {
            // The end is looked at first and obeyed last: the last ticket has its chance too.
            more = phases.go_on(now)?;
            if issued < schedule.due(now) {
                self.call()?;
                meter.complete();
                if schedule.is_measured(issued) {
                    meter.record(schedule.intended(issued).elapsed());
                }
                issued += 1;
            }
            now = Instant::now();
        }
        for ticket in issued..schedule.due(now) {
            if schedule.is_measured(ticket) {
                meter.record_not_begun(now - schedule.intended(ticket));
            }
        }
        Ok(())
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
