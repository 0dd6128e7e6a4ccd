//! The core on io_uring: reads and writes are handed to the kernel, which says later what became of them. A server and a
//! client, each in a thread with a ring of its own; both end by themselves. `cargo run -p tieline-core --example io_uring`
//!
//! What the kernel works on must stay where it is until it has said that it is done. A lent buffer goes to it whole and
//! comes back by `handle_input`; of the outbox it gets owned pieces, by `take_chunk`. Both live in the [`Line`], which
//! does not let go of them before.
#![allow(unsafe_code, clippy::print_stdout)]

#[cfg(target_os = "linux")]
pub use linux::run;

#[cfg(target_os = "linux")]
mod linux {
    use std::{
        hash::{BuildHasher, RandomState},
        io::{Error, ErrorKind, Result},
        net::{Ipv4Addr, Shutdown, TcpListener, TcpStream},
        os::fd::AsRawFd,
        sync::{Arc, OnceLock},
        time::Duration,
    };

    use bytes::{Buf, BufMut, Bytes, BytesMut};
    use io_uring::{
        IoUring, opcode, squeue,
        types::{Fd, SubmitArgs, Timespec},
    };
    use tieline_core::{Instant, conn::*, wire::Status};

    /// The names of the two operations that a line has under way at most.
    const READ: u64 = 1;
    const WRITE: u64 = 2;
    /// Octets of one write.
    const PIECE: usize = 64 * 1024;

    /// A connection, its socket, a ring, and the memory that the kernel works on.
    struct Line<U> {
        conn: Connection<U>,
        socket: TcpStream,
        outbox: Outbox,
        ring: IoUring,
        /// Is being filled.
        reading: Option<BytesMut>,
        /// Is being sent.
        writing: Option<Bytes>,
    }

    impl<U> Line<U> {
        fn new(socket: TcpStream, config: &Arc<Config>, side: Side) -> Result<Self> {
            let ring = IoUring::new(4)?;
            if !ring.params().is_feature_ext_arg() {
                return Err(Error::new(ErrorKind::Unsupported, "waiting with a time-out needs Linux 5.11"));
            }
            socket.set_nodelay(true)?;
            let conn = Connection::new(Arc::clone(config), side, RandomState::new().hash_one(side), now());
            Ok(Self { conn, socket, outbox: Outbox::new(), ring, reading: None, writing: None })
        }

        /// Turns the connection until it is over; `app` hears what happens.
        fn run(mut self, mut app: impl FnMut(&mut Connection<U>, Event<U>)) -> Result<()> {
            loop {
                if self.conn.next().wake.is_some_and(|wake| wake <= now()) {
                    self.conn.handle_timeout(now());
                }
                while let Some(event) = self.conn.poll_event(now()) {
                    app(&mut self.conn, event);
                }
                self.conn.poll_transmit(now(), &mut self.outbox);
                let Next { read, event, wake, end, .. } = self.conn.next();
                if event {
                    continue;
                }
                if read && self.reading.is_none() {
                    self.read()?;
                }
                if self.writing.is_none() && self.outbox.remaining() > 0 {
                    self.write()?;
                }
                match end {
                    End::Open => {}
                    // Reading goes on until the peer has done the same, so that the CLOSE is not lost in a reset.
                    End::ShutWrite if self.writing.is_none() => drop(self.socket.shutdown(Shutdown::Write)),
                    End::ShutWrite => {}
                    End::Close => return Ok(()),
                }
                self.wait(wake)?;
            }
        }

        fn read(&mut self) -> Result<()> {
            let mut buffer = self.conn.lend();
            let free = buffer.spare_capacity_mut();
            let room = u32::try_from(free.len()).unwrap_or(u32::MAX);
            let read = opcode::Recv::new(Fd(self.socket.as_raw_fd()), free.as_mut_ptr().cast(), room);
            self.push(&read.build().user_data(READ))?;
            self.reading = Some(buffer);
            Ok(())
        }

        fn write(&mut self) -> Result<()> {
            let Some(piece) = self.outbox.take_chunk(PIECE) else { return Ok(()) };
            self.send(piece)
        }

        fn send(&mut self, piece: Bytes) -> Result<()> {
            let octets = u32::try_from(piece.len()).unwrap_or(u32::MAX);
            let write = opcode::Send::new(Fd(self.socket.as_raw_fd()), piece.as_ptr(), octets);
            self.push(&write.flags(libc::MSG_NOSIGNAL).build().user_data(WRITE))?;
            self.writing = Some(piece);
            Ok(())
        }

        fn push(&mut self, operation: &squeue::Entry) -> Result<()> {
            // SAFETY: nothing is submitted here. Before it is, what it points to stands in `reading` or `writing`, and stays
            // there, at the same address, until it has completed.
            let pushed = unsafe { self.ring.submission().push(operation) };
            pushed.map_err(|_| Error::other("two operations did not find room for four"))
        }

        /// Submits what was pushed, waits until something completes or `wake` has come, and tells the connection.
        fn wait(&mut self, wake: Option<Instant>) -> Result<()> {
            let left = wake.map(|wake| Timespec::from(wake.saturating_since(now())));
            let args = left.as_ref().map_or(SubmitArgs::new(), |left| SubmitArgs::new().timespec(left));
            match self.ring.submitter().submit_with_args(1, &args) {
                Err(error) if !is_harmless(&error) => return Err(error),
                _ => {}
            }
            let completed: Vec<(u64, i32)> =
                self.ring.completion().map(|done| (done.user_data(), done.result())).collect();
            for (operation, result) in completed {
                if operation == READ {
                    self.has_read(result);
                } else {
                    self.has_written(result)?;
                }
            }
            Ok(())
        }

        fn has_read(&mut self, result: i32) {
            let Some(mut buffer) = self.reading.take() else { return };
            match usize::try_from(result) {
                Ok(0) => self.conn.handle_disconnect(now(), Disconnect::Eof),
                Ok(octets) => {
                    // SAFETY: the kernel has filled so many.
                    unsafe { buffer.advance_mut(octets) };
                    self.conn.handle_input(now(), buffer);
                }
                // Nothing came; it is read again.
                Err(_) if is_harmless(&Error::from_raw_os_error(-result)) => {}
                Err(_) => self.conn.handle_disconnect(now(), Disconnect::Error("reading failed")),
            }
        }

        fn has_written(&mut self, result: i32) -> Result<()> {
            let Some(mut piece) = self.writing.take() else { return Ok(()) };
            match usize::try_from(result) {
                Ok(octets @ 1..) => {
                    piece.advance(octets);
                    self.conn.handle_sent(now(), octets);
                }
                Err(_) if is_harmless(&Error::from_raw_os_error(-result)) => {}
                _ => {
                    // What has arrived may say why: the read that is under way ends the connection. All else that waits
                    // can go nowhere.
                    let _ = self.socket.shutdown(Shutdown::Both);
                    self.outbox.advance(self.outbox.remaining());
                    return Ok(());
                }
            }
            if piece.is_empty() { Ok(()) } else { self.send(piece) }
        }
    }

    /// The kernel gives the memory back first.
    impl<U> Drop for Line<U> {
        fn drop(&mut self) {
            let _ = self.socket.shutdown(Shutdown::Both);
            while self.reading.is_some() || self.writing.is_some() {
                if let Err(error) = self.ring.submit_and_wait(1)
                    && !is_harmless(&error)
                {
                    // It may still work on it: better lost than shared.
                    std::mem::forget((self.reading.take(), self.writing.take()));
                    return;
                }
                for done in self.ring.completion() {
                    match done.user_data() {
                        READ => drop(self.reading.take()),
                        _ => drop(self.writing.take()),
                    }
                }
            }
        }
    }

    /// The time-out has passed, or a signal came: nothing has failed.
    fn is_harmless(error: &Error) -> bool {
        matches!(error.raw_os_error(), Some(libc::ETIME | libc::EINTR | libc::EAGAIN | libc::EBUSY))
    }

    /// One clock that never runs backwards is all that the core asks for.
    fn now() -> Instant {
        static EPOCH: OnceLock<std::time::Instant> = OnceLock::new();
        Instant::from_nanos(1).saturating_add(EPOCH.get_or_init(std::time::Instant::now).elapsed())
    }

    fn serve(listener: &TcpListener) -> Result<()> {
        let config = Config::builder("greeter").method(MethodSpec::unary("demo.Greeter/Hello")).build();
        let config = config.map_err(Error::other)?;
        let line: Line<()> = Line::new(listener.accept()?.0, &config, Side::Server)?;
        line.run(|conn, event| {
            if let Event::Request(call) = event {
                let answer = [b"hello, ", &call.payload[..]].concat();
                // An error says that nobody waits for the answer any more.
                let _ = conn.answer(now(), call.call, Body::Share(answer.into()));
            }
        })
    }

    /// Calls once for each name, and closes when the last answer is there.
    fn greet(socket: TcpStream, names: &[String]) -> Result<Vec<String>> {
        let config = Config::builder("guest").build().map_err(Error::other)?;
        let mut line = Line::new(socket, &config, Side::Client)?;
        let head = CallHead::new("demo.Greeter/Hello");
        let head = head.deadline(Some(now().saturating_add(Duration::from_secs(10))));
        for name in names {
            let body = Body::Copy(name.as_bytes());
            line.conn.call(now(), &head, body, ()).map_err(|refused| Error::other(refused.reason))?;
        }
        let mut answers = Vec::new();
        line.run(|conn, event| {
            if let Event::Done { outcome, .. } = event {
                answers.push(outcome.map_or_else(
                    |failure| failure.to_string(),
                    |answer| String::from_utf8_lossy(&answer.payload).into_owned(),
                ));
                if answers.len() == names.len() {
                    conn.close(now(), Status::NORMAL, "");
                }
            }
        })?;
        Ok(answers)
    }

    /// The whole job: what the server answered to these names.
    ///
    /// # Errors
    /// What the kernel reports; that it has no io_uring, or forbids it, among that.
    pub fn run(names: &[String]) -> Result<Vec<String>> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let socket = TcpStream::connect(listener.local_addr()?)?;
        std::thread::scope(|scope| {
            let server = scope.spawn(|| serve(&listener));
            let answers = greet(socket, names);
            server.join().map_err(|_| Error::other("the server panicked"))??;
            answers
        })
    }
}

#[cfg(target_os = "linux")]
fn main() -> std::io::Result<()> {
    let names = ["Ada", "Grace", "Edsger"].map(str::to_owned);
    run(&names)?.iter().for_each(|answer| println!("{answer}"));
    Ok(())
}

#[cfg(not(target_os = "linux"))]
fn main() {
    println!("io_uring is of Linux alone");
}
