//! The echo server: for each connection that is ready one read, all frames answered, one write.

use std::convert::Infallible;
use std::io;
use std::net::TcpListener;
use std::os::fd::AsFd;

use super::{Pipe, Took};
use crate::frame;
use crate::sys::{Epoll, Events, Interest};

/// While more than this waits to be written, nothing more is read from that connection.
const OUTPUT_MOST: usize = 1 << 20;
const LISTENER: usize = usize::MAX;

/// Serves until the process ends.
pub(crate) fn serve(listener: TcpListener) -> io::Result<Infallible> {
    listener.set_nonblocking(true)?;
    let epoll = Epoll::new()?;
    epoll.add(listener.as_fd(), LISTENER, Interest::Read)?;
    let mut events = Events::with_capacity(256);
    let mut server = Server { epoll, listener, pipes: Vec::new(), free: Vec::new() };
    loop {
        server.epoll.wait(&mut events, None)?;
        for index in 0..events.len() {
            match events.token(index) {
                Some(LISTENER) => server.accept()?,
                Some(token) => server.turn(token),
                None => {}
            }
        }
    }
}

struct Server {
    epoll: Epoll,
    listener: TcpListener,
    pipes: Vec<Option<Pipe>>,
    free: Vec<usize>,
}

impl Server {
    fn accept(&mut self) -> io::Result<()> {
        let stream = match self.listener.accept() {
            Ok((stream, _)) => stream,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
            Err(error) => return Err(error),
        };
        let pipe = Pipe::new(stream)?;
        let token = self.free.pop().unwrap_or(self.pipes.len());
        self.epoll.add(pipe.stream.as_fd(), token, Interest::Read)?;
        match self.pipes.get_mut(token) {
            Some(place) => *place = Some(pipe),
            None => self.pipes.push(Some(pipe)),
        }
        Ok(())
    }

    /// One turn of one connection. An error ends that connection and no other.
    fn turn(&mut self, token: usize) {
        let Some(place) = self.pipes.get_mut(token) else {
            return;
        };
        let Some(pipe) = place else { return };
        if let Ok(true) = turn(&self.epoll, pipe, token) {
            return;
        }
        // Closing the descriptor takes it out of epoll as well.
        *place = None;
        self.free.push(token);
    }
}

/// Whether the connection goes on.
fn turn(epoll: &Epoll, pipe: &mut Pipe, token: usize) -> io::Result<bool> {
    if pipe.interest != Interest::Read {
        pipe.write()?;
    }
    if pipe.outbox.waiting().len() < OUTPUT_MOST {
        match pipe.read()? {
            Took::End => return Ok(false),
            Took::Nothing => {}
            Took::Octets => {
                let echoed = frame::echo(pipe.inbox.waiting(), pipe.outbox.tail())?;
                pipe.inbox.consume(echoed.consumed);
                pipe.need = echoed.need;
                pipe.write()?;
            }
        }
    }
    // Level-triggered epoll would be a busy loop if it told what nobody acts on.
    let interest = match pipe.outbox.waiting().len() {
        0 => Interest::Read,
        OUTPUT_MOST.. => Interest::Write,
        _ => Interest::Both,
    };
    pipe.watch(epoll, token, interest)?;
    Ok(true)
}
