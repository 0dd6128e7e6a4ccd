//! Dialling, listening, accepting.

use std::{
    io,
    sync::Arc,
    task::{Context, Poll},
};

use crate::{
    conn::{Conn, End, Life, Side, Way},
    events::Event,
    fault::Fault,
    state::{Listening, State},
    trace::What,
};

/// Connections that wait to be accepted at one port.
const BACKLOG: usize = 1024;
/// Connections of a world.
const CONNECTIONS: usize = 65_536;
/// How long an attempt waits before it is made again; it doubles.
const AGAIN: u64 = 1_000_000_000;
const LONGEST: u64 = 32_000_000_000;
/// Ports that are given to those who do not ask for one.
const FIRST_PORT: u16 = 40_000;

impl State {
    /// The host and the port that an address names, seen from `here`.
    fn resolve(&self, here: usize, address: &str) -> io::Result<(usize, u16)> {
        let wrong = |what: &str| io::Error::new(io::ErrorKind::InvalidInput, format!("{address}: {what}"));
        let (name, port) = address.rsplit_once(':').ok_or_else(|| wrong("is not HOST:PORT"))?;
        let port = port.parse().map_err(|_| wrong("the port is not a number up to 65535"))?;
        let host = match name {
            "" | "localhost" | "127.0.0.1" | "0.0.0.0" | "[::]" | "[::1]" => Some(here),
            name => self.find(name),
        };
        let unknown = || io::Error::new(io::ErrorKind::NotFound, format!("{address}: no host of this name"));
        Ok((host.ok_or_else(unknown)?, port))
    }

    /// A port of this host that nobody uses.
    fn port(&mut self, host: usize) -> u16 {
        let Some(host) = self.hosts.get_mut(host) else { return 0 };
        loop {
            let port = host.next_port;
            host.next_port = port.checked_add(1).unwrap_or(FIRST_PORT);
            if !host.listening.contains_key(&port) {
                return port;
            }
        }
    }

    fn name(&self, host: usize, port: u16) -> Arc<str> {
        let name = self.hosts.get(host).map_or("?", |host| &host.name);
        format!("{name}:{port}").into()
    }

    /// Begins an attempt.
    pub(crate) fn dial(&mut self, here: usize, address: &str) -> io::Result<u64> {
        let (there, port) = self.resolve(here, address)?;
        if self.conns.len() >= CONNECTIONS {
            return Err(io::Error::other("the simulation has 65536 connections, which is its limit"));
        }
        self.dialled += 1;
        let conn = self.dialled;
        let near = self.port(here);
        let dialler = End::new(here, self.name(here, near), self.now);
        let acceptor = End::new(there, self.name(there, port), self.now);
        self.conns.insert(conn, Conn::new(dialler, acceptor));
        self.log.say(self.now, here, What::Dials, conn, 0);
        let at = self.now + self.flight(here, there);
        self.events.arrange(at, Event::Knock { conn, again: AGAIN });
        Ok(conn)
    }

    pub(crate) fn poll_dialled(&mut self, cx: &mut Context<'_>, conn: u64) -> Poll<io::Result<()>> {
        let Some(ends) = self.conns.get_mut(&conn) else {
            return Poll::Ready(Err(io::ErrorKind::NotConnected.into()));
        };
        let end = ends.end(Side::Dialler);
        match end.life {
            Life::Pending => {
                let before = end.reader.replace(cx.waker().clone());
                self.dropped.extend(before);
                Poll::Pending
            }
            Life::Failed(kind) => Poll::Ready(Err(kind.into())),
            Life::Open | Life::Gone => Poll::Ready(Ok(())),
        }
    }

    /// An attempt comes to its host.
    pub(crate) fn knock(&mut self, conn: u64, again: u64) {
        let Some(ends) = self.conns.get_mut(&conn) else { return };
        let acceptor = ends.end(Side::Acceptor);
        let (there, address) = (acceptor.host, Arc::clone(&acceptor.address));
        let dialler = ends.end(Side::Dialler);
        let here = dialler.host;
        if dialler.life != Life::Pending {
            // It was cut, and nobody dials any more.
            return;
        }
        let line = self.line(here, there);
        let (unanswered, refuses) = (line.unanswered, line.refuses);
        if let Some(fault) = self.stopped(here, there).or(unanswered.then_some(Fault::Unanswered)) {
            return self.knock_again(conn, here, there, fault, again);
        }
        if refuses {
            self.log.fault(self.now, there, Fault::Refused, conn, 0);
        }
        let port = address.rsplit_once(':').and_then(|(_, port)| port.parse().ok()).unwrap_or(0);
        let listening = self.hosts.get_mut(there).and_then(|host| host.listening.get_mut(&port));
        let Some(listening) = listening.filter(|_| !refuses) else {
            let at = self.now + self.flight(there, here);
            self.events.arrange(at, Event::TurnAway { conn });
            return;
        };
        if listening.backlog.len() >= BACKLOG {
            return self.knock_again(conn, here, there, Fault::Unanswered, again);
        }
        listening.backlog.push_back(conn);
        self.wake.extend(listening.acceptor.take());
        let at = self.now + self.flight(there, here);
        if let Some(ends) = self.conns.get_mut(&conn) {
            let acceptor = ends.end(Side::Acceptor);
            acceptor.life = Life::Open;
            // What it writes does not come before the answer.
            acceptor.last_due = at;
        }
        self.events.arrange(at, Event::Welcome { conn, again: AGAIN });
    }

    /// The packet is lost, and sent again as long as somebody wants the connection.
    fn knock_again(&mut self, conn: u64, here: usize, there: usize, fault: Fault, again: u64) {
        self.log.fault(self.now, there, fault, conn, 0);
        let at = self.now + again + self.flight(here, there);
        self.events.arrange(at, Event::Knock { conn, again: (again * 2).min(LONGEST) });
    }

    /// The answer to an attempt comes back.
    pub(crate) fn welcome(&mut self, conn: u64, again: u64) {
        let Some(ends) = self.conns.get_mut(&conn) else { return };
        let (here, there) = ends.hosts(Side::Dialler);
        if let Some(fault) = self.stopped(there, here) {
            self.log.fault(self.now, here, fault, conn, 0);
            let at = self.now + again + self.flight(there, here);
            self.events.arrange(at, Event::Welcome { conn, again: (again * 2).min(LONGEST) });
            return;
        }
        let Some(ends) = self.conns.get_mut(&conn) else { return };
        let dialler = ends.end(Side::Dialler);
        match dialler.life {
            Life::Pending => {
                dialler.life = Life::Open;
                self.wake.extend(dialler.reader.take());
                self.log.say(self.now, here, What::Connected, conn, 0);
            }
            // Nobody waits for it any more.
            Life::Gone => self.send_reset(Way { conn, from: Side::Dialler }),
            Life::Open | Life::Failed(_) => {}
        }
    }

    /// The refusal of an attempt comes back.
    pub(crate) fn turn_away(&mut self, conn: u64) {
        let Some(ends) = self.conns.get_mut(&conn) else { return };
        let (here, there) = ends.hosts(Side::Dialler);
        if self.stopped(there, here).is_some() {
            // The next try will hear of it.
            let at = self.now + AGAIN;
            self.events.arrange(at, Event::Knock { conn, again: AGAIN });
            return;
        }
        self.fail(Way { conn, from: Side::Dialler }, io::ErrorKind::ConnectionRefused);
    }

    pub(crate) fn listen(&mut self, here: usize, address: &str) -> io::Result<(u16, String)> {
        let (host, port) = self.resolve(here, address)?;
        if host != here {
            return Err(io::Error::new(
                io::ErrorKind::AddrNotAvailable,
                format!("{address} is not an address of this host"),
            ));
        }
        let port = if port == 0 { self.port(here) } else { port };
        let name = self.name(here, port).to_string();
        let in_use = || io::Error::new(io::ErrorKind::AddrInUse, format!("{name} is in use"));
        let Some(host) = self.hosts.get_mut(here).filter(|host| !host.listening.contains_key(&port)) else {
            return Err(in_use());
        };
        host.listening.insert(port, Listening::default());
        self.log.say(self.now, here, What::Listens, 0, 0);
        Ok((port, name))
    }

    pub(crate) fn poll_accept(
        &mut self,
        cx: &mut Context<'_>,
        here: usize,
        port: u16,
    ) -> Poll<io::Result<(u64, String)>> {
        let listening = self.hosts.get_mut(here).and_then(|host| host.listening.get_mut(&port));
        let Some(listening) = listening else {
            return Poll::Ready(Err(io::ErrorKind::NotConnected.into()));
        };
        while let Some(conn) = listening.backlog.pop_front() {
            if let Some(ends) = self.conns.get_mut(&conn) {
                let address = ends.end(Side::Dialler).address.to_string();
                self.log.say(self.now, here, What::Accepted, conn, 0);
                return Poll::Ready(Ok((conn, address)));
            }
        }
        let before = listening.acceptor.replace(cx.waker().clone());
        self.dropped.extend(before);
        Poll::Pending
    }

    /// Nobody accepts any more: those who wait are reset.
    pub(crate) fn unlisten(&mut self, here: usize, port: u16, incarnation: u64) {
        let host = self.hosts.get_mut(here).filter(|host| host.incarnation == incarnation);
        let Some(listening) = host.and_then(|host| host.listening.remove(&port)) else { return };
        self.dropped.extend(listening.acceptor);
        for conn in listening.backlog {
            self.abort(Way { conn, from: Side::Acceptor });
        }
    }
}
