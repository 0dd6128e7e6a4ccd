//! The ceiling: what one core on each side does with raw epoll loops, and nothing in between.

mod client;
mod server;

pub(crate) use client::drive;
pub(crate) use server::serve;

use std::io::{self, ErrorKind, Read, Write};
use std::net::TcpStream;
use std::os::fd::AsFd;

use crate::buffer::{Inbox, Outbox};
use crate::sys::{Epoll, Interest};

/// One non-blocking connection and its two buffers.
#[derive(Debug)]
struct Pipe {
    stream: TcpStream,
    inbox: Inbox,
    outbox: Outbox,
    /// The length of the frame that the inbox holds the start of.
    need: usize,
    /// What epoll was told to watch for.
    interest: Interest,
}

/// What one read brought.
#[derive(Debug, PartialEq, Eq)]
enum Took {
    Octets,
    Nothing,
    End,
}

impl Pipe {
    fn new(stream: TcpStream) -> io::Result<Self> {
        stream.set_nodelay(true)?;
        stream.set_nonblocking(true)?;
        Ok(Self {
            stream,
            inbox: Inbox::new(),
            outbox: Outbox::default(),
            need: crate::frame::HEADER,
            interest: Interest::Read,
        })
    }

    /// One read. Epoll is level-triggered, so what is left will be told again: no second read is
    /// made to find nothing.
    fn read(&mut self) -> io::Result<Took> {
        match (&self.stream).read(self.inbox.room(self.need)) {
            Ok(0) => Ok(Took::End),
            Ok(octets) => {
                self.inbox.filled(octets);
                Ok(Took::Octets)
            }
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {
                Ok(Took::Nothing)
            }
            Err(error) => Err(error),
        }
    }

    /// Writes what waits, in one call. If the kernel takes only a part of it, its buffer is full: epoll
    /// tells when to go on.
    fn write(&mut self) -> io::Result<()> {
        if self.outbox.waiting().is_empty() {
            return Ok(());
        }
        match (&self.stream).write(self.outbox.waiting()) {
            Ok(0) => Err(ErrorKind::WriteZero.into()),
            Ok(octets) => {
                self.outbox.sent(octets);
                Ok(())
            }
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Watches for `interest` from now on. Only a change costs a call into the kernel.
    fn watch(&mut self, epoll: &Epoll, token: usize, interest: Interest) -> io::Result<()> {
        if self.interest == interest {
            return Ok(());
        }
        self.interest = interest;
        epoll.modify(self.stream.as_fd(), token, interest)
    }
}
