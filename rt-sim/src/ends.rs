//! How connections end: closed, reset, given up, cut on command.

use std::io;

use crate::{
    conn::{Life, Side, Way},
    events::Event,
    fault::Fault,
    state::State,
    trace::What,
};

impl State {
    /// Nothing more will be written in this direction.
    pub(crate) fn shut_write(&mut self, way: Way) -> io::Result<()> {
        let Some(conn) = self.conns.get_mut(&way.conn) else {
            return Err(io::ErrorKind::NotConnected.into());
        };
        let end = conn.end(way.from);
        if let Life::Failed(kind) = end.life {
            return Err(kind.into());
        }
        end.fin = true;
        self.pump(way);
        Ok(())
    }

    /// The application closes its end. As with sockets: what it wrote is still delivered, unless it leaves octets unread,
    /// which resets the connection.
    pub(crate) fn close(&mut self, way: Way) {
        let Some(conn) = self.conns.get_mut(&way.conn) else { return };
        let end = conn.end(way.from);
        let before = end.life;
        if before == Life::Gone {
            return;
        }
        let unread = end.arrived_octets > 0;
        let host = end.host;
        if before == Life::Open {
            self.log.say(self.now, host, What::Closed, way.conn, 0);
        }
        if before == Life::Open && !unread {
            end.life = Life::Gone;
            end.fin = true;
            self.forget(way);
            self.pump(way);
            self.sweep(way.conn);
        } else {
            self.abort(way);
        }
    }

    /// An end goes away and leaves a reset.
    pub(crate) fn abort(&mut self, way: Way) {
        let Some(conn) = self.conns.get_mut(&way.conn) else { return };
        let end = conn.end(way.from);
        let tells = end.life == Life::Open;
        end.life = Life::Gone;
        end.unsent.clear();
        self.forget(way);
        if tells {
            self.send_reset(way);
        }
        self.sweep(way.conn);
    }

    /// Nobody reads or waits at this end any more.
    fn forget(&mut self, way: Way) {
        let Some(conn) = self.conns.get_mut(&way.conn) else { return };
        let end = conn.end(way.from);
        end.arrived.clear();
        end.arrived_octets = 0;
        end.wake(&mut self.dropped);
    }

    /// Forgets a connection that nobody has open.
    fn sweep(&mut self, conn: u64) {
        if self.conns.get_mut(&conn).is_some_and(|ends| ends.is_over()) {
            self.conns.remove(&conn);
        }
    }

    /// Sends a reset in this direction, behind what is on its way.
    pub(crate) fn send_reset(&mut self, way: Way) {
        let Some(conn) = self.conns.get_mut(&way.conn) else { return };
        let (from, to) = conn.hosts(way.from);
        let due = self.now + self.flight(from, to);
        let Some(conn) = self.conns.get_mut(&way.conn) else { return };
        let due = due.max(conn.end(way.from).last_due);
        self.events.arrange(due, Event::Reset(way));
    }

    /// A reset comes to its end. Nobody sends it again if it is lost.
    pub(crate) fn reset_arrives(&mut self, way: Way) {
        let Some(conn) = self.conns.get_mut(&way.conn) else { return };
        let lost = conn.end(way.from).lost;
        let (from, to) = conn.hosts(way.from);
        if !lost && self.stopped(from, to).is_none() {
            self.fail(way.back(), io::ErrorKind::ConnectionReset);
        }
    }

    /// A connection is over for the end that sends in this direction.
    pub(crate) fn fail(&mut self, way: Way, kind: io::ErrorKind) {
        let Some(conn) = self.conns.get_mut(&way.conn) else { return };
        let end = conn.end(way.from);
        // An end that nobody has accepted is not there.
        let is_there = match end.life {
            Life::Open => true,
            Life::Pending => way.from == Side::Dialler,
            Life::Failed(_) | Life::Gone => false,
        };
        if !is_there {
            return;
        }
        end.life = Life::Failed(kind);
        end.discard();
        end.wake(&mut self.wake);
        let host = end.host;
        self.log.say(self.now, host, What::Reset, way.conn, 0);
    }

    /// The connections whose octets go this way between two hosts.
    pub(crate) fn ways(&self, from: usize, to: usize) -> Vec<Way> {
        let mut ways = Vec::new();
        for (&conn, ends) in &self.conns {
            for side in [Side::Dialler, Side::Acceptor] {
                if ends.hosts(side) == (from, to) {
                    ways.push(Way { conn, from: side });
                }
            }
        }
        ways
    }

    /// Resets every connection between two hosts, at both ends at once; those that are being dialled, too.
    pub(crate) fn cut(&mut self, one: usize, two: usize) {
        for way in self.ways(one, two) {
            self.log.fault(self.now, one, Fault::Cut, way.conn, 0);
            self.fail(way, io::ErrorKind::ConnectionReset);
            self.fail(way.back(), io::ErrorKind::ConnectionReset);
        }
    }

    /// Ends every connection in this direction, as if its sender had.
    pub(crate) fn half_close(&mut self, from: usize, to: usize) {
        for way in self.ways(from, to) {
            let open =
                self.conns.get_mut(&way.conn).is_some_and(|conn| conn.end(way.from).life == Life::Open);
            if open && self.shut_write(way).is_ok() {
                self.log.fault(self.now, from, Fault::HalfClose, way.conn, 0);
                if let Some(conn) = self.conns.get_mut(&way.conn) {
                    self.wake.extend(conn.end(way.from).writer.take());
                }
            }
        }
    }

    /// What goes this way from now on vanishes, on connections that there are for ever.
    pub(crate) fn lose(&mut self, from: usize, to: usize) {
        for way in self.ways(from, to) {
            if let Some(conn) = self.conns.get_mut(&way.conn) {
                conn.end(way.from).lost = true;
            }
        }
    }

    /// What a host had open ends with its process; `tells`: its kernel resets it.
    pub(crate) fn close_all(&mut self, host: usize, tells: bool) {
        let mut ways = Vec::new();
        for (&conn, ends) in &self.conns {
            for side in [Side::Dialler, Side::Acceptor] {
                if ends.hosts(side).0 == host {
                    ways.push(Way { conn, from: side });
                }
            }
        }
        for way in ways {
            if tells {
                self.abort(way);
            } else if let Some(conn) = self.conns.get_mut(&way.conn) {
                let end = conn.end(way.from);
                end.life = Life::Gone;
                end.discard();
                self.forget(way);
                self.sweep(way.conn);
            }
        }
    }
}
