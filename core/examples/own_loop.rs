//! The core in a loop of your own: the standard library and poll(2), no runtime. A server and a client, each in a thread;
//! both end by themselves. `cargo run -p tieline-core --example own_loop`
#![allow(unsafe_code, clippy::print_stdout)]

use std::hash::{BuildHasher, RandomState};
use std::io::{self, ErrorKind::*, IoSlice, Read, Write};
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::{os::fd::AsRawFd, sync::OnceLock, time::Duration};

use bytes::{Buf, Bytes};
use tieline_core::{Instant, conn::*, wire::Status};

type Outcome<T> = Result<T, Box<dyn std::error::Error + Send + Sync>>;

/// A connection, its socket, and what is on its way from the one to the other.
struct Line<U> {
    conn: Connection<U>,
    socket: TcpStream,
    outbox: Outbox,
}

impl<U> Line<U> {
    fn new(socket: TcpStream, config: ConfigBuilder, side: Side) -> Outcome<Self> {
        socket.set_nonblocking(true)?;
        socket.set_nodelay(true)?;
        let conn = Connection::new(config.build()?, side, RandomState::new().hash_one(side), now());
        Ok(Self { conn, socket, outbox: Outbox::new() })
    }

    /// Does all that can be done without waiting; `app` hears what happens. Whether the connection is over. A loop over
    /// many connections calls this for each that poll(2) names, or whose time has come.
    fn turn(&mut self, app: &mut impl FnMut(&mut Connection<U>, Event<U>)) -> bool {
        if let Err(cause) = self.read() {
            self.conn.handle_disconnect(now(), cause);
        }
        if self.conn.next().wake.is_some_and(|wake| wake <= now()) {
            self.conn.handle_timeout(now());
        }
        loop {
            while let Some(event) = self.conn.poll_event(now()) {
                app(&mut self.conn, event);
            }
            self.conn.poll_transmit(now(), &mut self.outbox);
            if let Err(cause) = self.write() {
                // What has arrived may say why.
                let _ = self.read();
                self.conn.handle_disconnect(now(), cause);
            }
            let Next { event, write, end, .. } = self.conn.next();
            let written = self.outbox.remaining() == 0;
            if end == End::ShutWrite && written {
                // Reading goes on until the peer has done the same, so that the CLOSE is not lost in a reset.
                let _ = self.socket.shutdown(Shutdown::Write);
            }
            if !(event || write && written) {
                return end == End::Close;
            }
        }
    }

    fn read(&mut self) -> Result<(), Disconnect> {
        while self.conn.next().read {
            let mut buffer = self.conn.lend();
            buffer.resize(buffer.capacity(), 0);
            let read = self.socket.read(&mut buffer);
            buffer.truncate(read.as_ref().map_or(0, |octets| *octets));
            match read {
                Ok(0) => return Err(Disconnect::Eof),
                Ok(_) => self.conn.handle_input(now(), buffer),
                Err(error) if error.kind() == Interrupted => {}
                Err(error) if error.kind() == WouldBlock => break,
                Err(_) => return Err(Disconnect::Error("reading failed")),
            }
        }
        Ok(())
    }

    fn write(&mut self) -> Result<(), Disconnect> {
        while self.outbox.remaining() > 0 {
            let pieces: Vec<IoSlice<'_>> = self.outbox.chunks().take(64).map(IoSlice::new).collect();
            match self.socket.write_vectored(&pieces) {
                Ok(octets @ 1..) => {
                    self.outbox.advance(octets);
                    self.conn.handle_sent(now(), octets);
                }
                Err(error) if error.kind() == Interrupted => {}
                Err(error) if error.kind() == WouldBlock => break,
                _ => return Err(Disconnect::Error("writing failed")),
            }
        }
        Ok(())
    }

    /// Turns it until it is over, and waits in between.
    fn run(mut self, mut app: impl FnMut(&mut Connection<U>, Event<U>)) -> io::Result<()> {
        while !self.turn(&mut app) {
            let Next { read, wake, .. } = self.conn.next();
            let wanted = [(read, libc::POLLIN), (self.outbox.remaining() > 0, libc::POLLOUT)];
            let events = wanted.iter().filter(|(wanted, _)| *wanted).map(|(_, event)| event).sum();
            let mut fd = libc::pollfd { fd: self.socket.as_raw_fd(), events, revents: 0 };
            let ms = wake.map(|wake| wake.saturating_since(now()).as_nanos().div_ceil(1_000_000));
            let ms = ms.map_or(-1, |ms| libc::c_int::try_from(ms).unwrap_or(libc::c_int::MAX));
            // SAFETY: it is one pollfd, and nobody else has it meanwhile.
            let ready = unsafe { libc::poll(&raw mut fd, 1, ms) };
            if ready < 0 && io::Error::last_os_error().kind() != Interrupted {
                return Err(io::Error::last_os_error());
            }
        }
        Ok(())
    }
}

/// One clock that never runs backwards is all that the core asks for.
fn now() -> Instant {
    static EPOCH: OnceLock<std::time::Instant> = OnceLock::new();
    Instant::from_nanos(1).saturating_add(EPOCH.get_or_init(std::time::Instant::now).elapsed())
}

fn serve(listener: &TcpListener) -> Outcome<()> {
    let config = Config::builder("greeter").method(MethodSpec::unary("demo.Greeter/Hello"));
    let line: Line<()> = Line::new(listener.accept()?.0, config, Side::Server)?;
    line.run(|conn, event| {
        if let Event::Request(call) = event {
            let answer = [b"hello, ", &call.payload[..]].concat();
            // An error says that nobody waits for the answer any more.
            let _ = conn.answer(now(), call.call, Body::Share(answer.into()));
        }
    })?;
    Ok(())
}

/// Calls once for each name, and closes when the last answer is there.
fn greet(socket: TcpStream, names: &[&str]) -> Outcome<Vec<Result<Bytes, Failure>>> {
    let mut line = Line::new(socket, Config::builder("guest"), Side::Client)?;
    let deadline = now().saturating_add(Duration::from_secs(10));
    let head = CallHead::new("demo.Greeter/Hello").deadline(Some(deadline));
    for name in names {
        line.conn.call(now(), &head, Body::Copy(name.as_bytes()), ()).map_err(|no| no.reason)?;
    }
    let mut answers = Vec::new();
    line.run(|conn, event| {
        if let Event::Done { outcome, .. } = event {
            answers.push(outcome.map(|answer| answer.payload));
            if answers.len() == names.len() {
                conn.close(now(), Status::NORMAL, "");
            }
        }
    })?;
    Ok(answers)
}

/// The whole job: what the server answered.
pub(crate) fn run() -> Outcome<Vec<Result<Bytes, Failure>>> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let socket = TcpStream::connect(listener.local_addr()?)?;
    std::thread::scope(|scope| {
        let server = scope.spawn(|| serve(&listener));
        let answers = greet(socket, &["Ada", "Grace", "Edsger"]);
        server.join().map_err(|_| "the server panicked")??;
        answers
    })
}

fn main() -> Outcome<()> {
    run()?.iter().for_each(|answer| println!("{answer:?}"));
    Ok(())
}
