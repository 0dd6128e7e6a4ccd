//! How octets move: into the kernel, over the line in pieces, out of the kernel; and what is acknowledged.

use std::{
    io,
    task::{Context, Poll},
};

use bytes::{Buf, BytesMut};
use tieline::Outbox;

use crate::{
    conn::{Life, Packet, Way},
    events::Event,
    fault::Fault,
    state::{State, line},
    trace::What,
};

impl State {
    pub(crate) fn poll_write(
        &mut self,
        cx: &mut Context<'_>,
        way: Way,
        out: &mut Outbox,
    ) -> Poll<io::Result<usize>> {
        let Some(conn) = self.conns.get_mut(&way.conn) else { return Poll::Ready(Err(gone())) };
        let (here, there) = conn.ends(way.from);
        match here.life {
            Life::Failed(kind) => return Poll::Ready(Err(kind.into())),
            _ if here.fin => return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())),
            _ => {}
        }
        let line = line(&mut self.lines, &self.usual, here.host, there.host);
        let free = line.send_buffer.saturating_sub(here.held());
        if free == 0 {
            self.log.faults.fired(Fault::Backpressure);
            let before = here.writer.replace(cx.waker().clone());
            self.dropped.extend(before);
            return Poll::Pending;
        }
        let mut octets = free.min(out.remaining());
        if line.partial_writes && octets > 1 {
            let whole = octets;
            octets = self.rng.length(1, whole);
            if octets < whole {
                self.log.faults.fired(Fault::PartialWrite);
            }
        }
        if here.held() == 0 {
            here.progress_at = self.now;
        }
        here.unsent.fill(out, octets);
        self.log.say(self.now, here.host, What::Wrote, way.conn, octets);
        self.pump(way);
        Poll::Ready(Ok(octets))
    }

    pub(crate) fn poll_read(
        &mut self,
        cx: &mut Context<'_>,
        way: Way,
        into: &mut BytesMut,
    ) -> Poll<io::Result<usize>> {
        let room = into.capacity() - into.len();
        if room == 0 {
            return Poll::Pending;
        }
        let Some(conn) = self.conns.get_mut(&way.conn) else { return Poll::Ready(Err(gone())) };
        let (here, there) = conn.ends(way.from);
        let mut octets = 0;
        while octets < room {
            let Some((piece, alone)) = here.arrived.front_mut() else { break };
            if *alone && octets > 0 {
                break;
            }
            let alone = *alone;
            let step = piece.len().min(room - octets);
            into.extend_from_slice(piece.get(..step).unwrap_or_default());
            piece.advance(step);
            octets += step;
            if piece.is_empty() {
                here.arrived.pop_front();
            }
            if alone {
                break;
            }
        }
        if octets == 0 {
            // What has arrived before a reset is read before it.
            return match here.life {
                Life::Failed(kind) => Poll::Ready(Err(kind.into())),
                _ if here.eof => Poll::Ready(Ok(0)),
                _ => {
                    let before = here.reader.replace(cx.waker().clone());
                    self.dropped.extend(before);
                    Poll::Pending
                }
            };
        }
        here.arrived_octets -= octets;
        self.log.say(self.now, here.host, What::Read, way.conn, octets);
        // There may have been no room for more of what the peer has.
        let waits = !there.unsent.is_empty() && !there.pumping;
        if waits {
            self.pump(way.back());
        }
        Poll::Ready(Ok(octets))
    }

    pub(crate) fn line_is_free(&mut self, way: Way) {
        if let Some(conn) = self.conns.get_mut(&way.conn) {
            conn.end(way.from).pumping = false;
        }
        self.pump(way);
    }

    /// Sends as much of what was written as the line and the peer's kernel have room for.
    pub(crate) fn pump(&mut self, way: Way) {
        let Some(conn) = self.conns.get_mut(&way.conn) else { return };
        let (here, there) = conn.ends(way.from);
        if here.pumping || !matches!(here.life, Life::Open | Life::Gone) {
            return;
        }
        let line = line(&mut self.lines, &self.usual, here.host, there.host);
        loop {
            if here.unsent.is_empty() {
                if here.fin && !here.fin_sent {
                    here.fin_sent = true;
                    let due = self.now.max(line.free_at) + line.latency + self.rng.between(0, line.jitter);
                    here.last_due = here.last_due.max(line.together(due));
                    here.wire.push_back((here.last_due, Packet::Fin));
                }
                break;
            }
            let window = line.receive_buffer.saturating_sub(there.arrived_octets + here.on_wire);
            let mut size = line.piece().min(here.unsent.len()).min(window);
            if size == 0 {
                break;
            }
            if let Some((least, most)) = line.slice {
                size = size.min(self.rng.length(least, most)).max(1);
                self.log.faults.fired(Fault::Slice);
            }
            let start = self.now.max(line.free_at);
            let end = start.saturating_add(line.takes(size));
            if line.bandwidth.is_some() {
                line.free_at = end;
            }
            let sent = end + line.latency + self.rng.between(0, line.jitter);
            let due = line.together(sent);
            if due > sent {
                self.log.faults.fired(Fault::Coalesce);
            }
            here.last_due = here.last_due.max(due);
            let octets = here.unsent.cut(size);
            here.wire.push_back((here.last_due, Packet::Data { octets, alone: line.slice.is_some() }));
            here.on_wire += size;
            here.unacked += size;
            if line.bandwidth.is_some() {
                self.log.faults.fired(Fault::Bandwidth);
                here.pumping = true;
                self.events.arrange(end, Event::Pump(way));
                break;
            }
        }
        self.arrange_arrival(way);
        self.arrange_watch(way);
    }

    pub(crate) fn arrange_arrival(&mut self, way: Way) {
        let Some(conn) = self.conns.get_mut(&way.conn) else { return };
        let end = conn.end(way.from);
        if end.arriving || end.lost {
            return;
        }
        if let Some(&(due, _)) = end.wire.front() {
            end.arriving = true;
            self.events.arrange(due.max(self.now), Event::Arrive(way));
        }
    }

    /// What is due comes to its end, unless something stands in the way; then it waits there.
    pub(crate) fn arrive(&mut self, way: Way) {
        let Some(conn) = self.conns.get_mut(&way.conn) else { return };
        conn.end(way.from).arriving = false;
        let (from, to) = conn.hosts(way.from);
        let held = self.held_back(from, to);
        let Some(conn) = self.conns.get_mut(&way.conn) else { return };
        let (sender, receiver) = conn.ends(way.from);
        if let Some(fault) = held.or(sender.lost.then_some(Fault::BlackHole)) {
            if !sender.wire.is_empty() {
                self.log.fault(self.now, to, fault, way.conn, sender.on_wire);
            }
            return;
        }
        let mut octets = 0;
        let mut refused = false;
        while let Some((due, _)) = sender.wire.front() {
            if *due > self.now {
                break;
            }
            let Some((_, packet)) = sender.wire.pop_front() else { break };
            match packet {
                Packet::Data { octets: piece, alone } => {
                    sender.on_wire -= piece.len();
                    if receiver.life != Life::Open {
                        refused |= receiver.life == Life::Gone;
                        continue;
                    }
                    octets += piece.len();
                    self.log.trace.mix(sample(&piece));
                    receiver.arrived_octets += piece.len();
                    receiver.arrived.push_back((piece, alone));
                }
                Packet::Fin => {
                    receiver.eof = true;
                    self.log.say(self.now, to, What::Eof, way.conn, 0);
                }
            }
            self.wake.extend(receiver.reader.take());
        }
        if octets > 0 {
            self.log.say(self.now, to, What::Arrived, way.conn, octets);
            let due = self.now + self.flight(to, from);
            if let Some(conn) = self.conns.get_mut(&way.conn) {
                let sender = conn.end(way.from);
                let due = due.max(sender.acks.back().map_or(0, |(due, _)| *due));
                match sender.acks.back_mut() {
                    Some((last, more)) if *last == due => *more += octets,
                    _ => sender.acks.push_back((due, octets)),
                }
            }
            self.arrange_ack(way);
        }
        if refused {
            // The application has closed it, or its process is gone.
            self.send_reset(way.back());
        }
        self.arrange_arrival(way);
    }

    pub(crate) fn arrange_ack(&mut self, way: Way) {
        let Some(conn) = self.conns.get_mut(&way.conn) else { return };
        let end = conn.end(way.from);
        if end.acking {
            return;
        }
        if let Some(&(due, _)) = end.acks.front() {
            end.acking = true;
            self.events.arrange(due.max(self.now), Event::Acknowledge(way));
        }
    }

    /// The sender hears that octets have arrived, which makes room for others.
    pub(crate) fn acknowledge(&mut self, way: Way) {
        let Some(conn) = self.conns.get_mut(&way.conn) else { return };
        conn.end(way.from).acking = false;
        let lost = conn.end(way.from.other()).lost;
        let (from, to) = conn.hosts(way.from);
        if lost || self.stopped(to, from).is_some() {
            return;
        }
        let Some(conn) = self.conns.get_mut(&way.conn) else { return };
        let sender = conn.end(way.from);
        while let Some(&(due, octets)) = sender.acks.front() {
            if due > self.now {
                break;
            }
            sender.acks.pop_front();
            sender.unacked = sender.unacked.saturating_sub(octets);
            sender.progress_at = self.now;
        }
        let most = line(&mut self.lines, &self.usual, from, to).send_buffer;
        // As kernels do: not for every octet.
        if sender.held() <= most - most / 3 {
            self.wake.extend(sender.writer.take());
        }
        self.arrange_ack(way);
    }

    /// Sees to it that octets which nobody acknowledges are noticed.
    fn arrange_watch(&mut self, way: Way) {
        let Some(conn) = self.conns.get_mut(&way.conn) else { return };
        let end = conn.end(way.from);
        if let Some(dead_after) = end.dead_after
            && !end.watched
            && end.life == Life::Open
            && end.held() > 0
        {
            end.watched = true;
            self.events.arrange(end.progress_at.saturating_add(dead_after), Event::Watch(way));
        }
    }

    pub(crate) fn watch(&mut self, way: Way) {
        let Some(conn) = self.conns.get_mut(&way.conn) else { return };
        let end = conn.end(way.from);
        end.watched = false;
        let Some(dead_after) = end.dead_after else { return };
        let due = end.progress_at.saturating_add(dead_after);
        if end.life == Life::Open && end.held() > 0 && due <= self.now {
            let host = end.host;
            self.log.fault(self.now, host, Fault::UserTimeout, way.conn, 0);
            self.fail(way, io::ErrorKind::TimedOut);
            self.send_reset(way);
            return;
        }
        self.arrange_watch(way);
    }

    pub(crate) fn set_dead_after(&mut self, way: Way, silence: u64) {
        if let Some(conn) = self.conns.get_mut(&way.conn) {
            conn.end(way.from).dead_after = Some(silence);
            self.arrange_watch(way);
        }
    }
}

/// A few octets of a piece, for the hash: its beginning, its end and its length.
fn sample(piece: &[u8]) -> u64 {
    let mut first = [0; 8];
    let mut last = [0; 8];
    first.iter_mut().zip(piece).for_each(|(to, from)| *to = *from);
    last.iter_mut().zip(piece.iter().rev()).for_each(|(to, from)| *to = *from);
    u64::from_le_bytes(first) ^ u64::from_be_bytes(last).rotate_left(13) ^ piece.len() as u64
}

/// A connection that the kernel knows nothing of any more.
fn gone() -> io::Error {
    io::ErrorKind::NotConnected.into()
}
