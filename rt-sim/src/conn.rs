//! A connection as two kernels know it: what each end has written, what is on its way, what has arrived.

use std::{collections::VecDeque, io, sync::Arc, task::Waker};

use bytes::{Buf, Bytes, BytesMut};
use tieline::Outbox;

/// One end of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Side {
    /// Who dialled.
    Dialler,
    /// Who accepted.
    Acceptor,
}

impl Side {
    pub(crate) const fn other(self) -> Self {
        match self {
            Self::Dialler => Self::Acceptor,
            Self::Acceptor => Self::Dialler,
        }
    }
}

/// A direction of a connection, by the end that sends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Way {
    pub(crate) conn: u64,
    pub(crate) from: Side,
}

impl Way {
    pub(crate) const fn back(self) -> Self {
        Self { conn: self.conn, from: self.from.other() }
    }
}

/// How an end lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Life {
    /// Waits for an answer, or for the attempt to come.
    Pending,
    Open,
    /// Is over; the application has not closed it yet.
    Failed(io::ErrorKind),
    /// The application has closed it, or its process is gone. What it wrote before is still delivered.
    Gone,
}

/// What travels.
#[derive(Debug)]
pub(crate) enum Packet {
    /// Octets. `alone`: they are not read together with others.
    Data {
        octets: Bytes,
        alone: bool,
    },
    Fin,
}

/// What was written, as it was written: pieces are cut from it without moving the rest.
#[derive(Debug, Default)]
pub(crate) struct Unsent {
    chunks: VecDeque<Bytes>,
    len: usize,
}

impl Unsent {
    pub(crate) const fn len(&self) -> usize {
        self.len
    }

    pub(crate) const fn is_empty(&self) -> bool {
        self.len == 0
    }

    pub(crate) fn clear(&mut self) {
        *self = Self::default();
    }

    /// Takes so many octets from `out`, or all that there are.
    pub(crate) fn fill(&mut self, out: &mut Outbox, octets: usize) {
        let mut left = octets.min(out.remaining());
        self.len += left;
        while left > 0 {
            let chunk = out.chunk();
            let step = chunk.len().min(left);
            self.chunks.push_back(Bytes::copy_from_slice(chunk.get(..step).unwrap_or_default()));
            out.advance(step);
            left -= step;
        }
    }

    /// Cuts off so many octets, or all that there are.
    pub(crate) fn cut(&mut self, octets: usize) -> Bytes {
        let octets = octets.min(self.len);
        self.len -= octets;
        if let Some(first) = self.chunks.front_mut()
            && first.len() > octets
        {
            return first.split_to(octets);
        }
        let Some(first) = self.chunks.pop_front() else { return Bytes::new() };
        if first.len() == octets {
            return first;
        }
        let mut piece = BytesMut::with_capacity(octets);
        piece.extend_from_slice(&first);
        while piece.len() < octets {
            let Some(next) = self.chunks.front_mut() else { break };
            let step = next.len().min(octets - piece.len());
            piece.extend_from_slice(&next.split_to(step));
            if next.is_empty() {
                self.chunks.pop_front();
            }
        }
        piece.freeze()
    }
}

#[derive(Debug)]
pub(crate) struct End {
    pub(crate) host: usize,
    pub(crate) address: Arc<str>,
    pub(crate) life: Life,

    /// Written, and not on its way yet.
    pub(crate) unsent: Unsent,
    /// Nothing more will be written; and the peer is being told.
    pub(crate) fin: bool,
    pub(crate) fin_sent: bool,
    /// It waits for the line.
    pub(crate) pumping: bool,
    /// On its way, with the time at which it comes to its end.
    pub(crate) wire: VecDeque<(u64, Packet)>,
    pub(crate) on_wire: usize,
    /// The arrival of the first of it is arranged.
    pub(crate) arriving: bool,
    /// Nothing that is sent later comes earlier.
    pub(crate) last_due: u64,
    /// Acknowledgements on their way back.
    pub(crate) acks: VecDeque<(u64, usize)>,
    pub(crate) acking: bool,
    /// Sent and not acknowledged.
    pub(crate) unacked: usize,
    /// When anything was last acknowledged, or there was nothing to acknowledge.
    pub(crate) progress_at: u64,
    /// How long that may be ago.
    pub(crate) dead_after: Option<u64>,
    pub(crate) watched: bool,
    /// What is sent from here vanishes, for ever.
    pub(crate) lost: bool,
    pub(crate) writer: Option<Waker>,

    pub(crate) arrived: VecDeque<(Bytes, bool)>,
    pub(crate) arrived_octets: usize,
    pub(crate) eof: bool,
    /// Who waits for octets, or for the connection.
    pub(crate) reader: Option<Waker>,
}

impl End {
    pub(crate) fn new(host: usize, address: Arc<str>, now: u64) -> Self {
        Self {
            host,
            address,
            life: Life::Pending,
            unsent: Unsent::default(),
            fin: false,
            fin_sent: false,
            pumping: false,
            wire: VecDeque::new(),
            on_wire: 0,
            arriving: false,
            last_due: now,
            acks: VecDeque::new(),
            acking: false,
            unacked: 0,
            progress_at: now,
            dead_after: None,
            watched: false,
            lost: false,
            writer: None,
            arrived: VecDeque::new(),
            arrived_octets: 0,
            eof: false,
            reader: None,
        }
    }

    /// What the kernel holds for it on the sending side.
    pub(crate) fn held(&self) -> usize {
        self.unsent.len().saturating_add(self.unacked)
    }

    /// Forgets what it has to send.
    pub(crate) fn discard(&mut self) {
        self.unsent.clear();
        self.wire.clear();
        self.on_wire = 0;
        self.acks.clear();
        self.unacked = 0;
    }

    /// Takes those who wait, to wake them.
    pub(crate) fn wake(&mut self, wake: &mut Vec<Waker>) {
        wake.extend(self.reader.take());
        wake.extend(self.writer.take());
    }
}

#[derive(Debug)]
pub(crate) struct Conn {
    dialler: End,
    acceptor: End,
}

impl Conn {
    pub(crate) fn new(dialler: End, acceptor: End) -> Self {
        Self { dialler, acceptor }
    }

    pub(crate) fn end(&mut self, side: Side) -> &mut End {
        match side {
            Side::Dialler => &mut self.dialler,
            Side::Acceptor => &mut self.acceptor,
        }
    }

    /// The end that sends in this direction, and the one that receives.
    pub(crate) fn ends(&mut self, from: Side) -> (&mut End, &mut End) {
        match from {
            Side::Dialler => (&mut self.dialler, &mut self.acceptor),
            Side::Acceptor => (&mut self.acceptor, &mut self.dialler),
        }
    }

    /// The hosts of a direction: who sends, who receives.
    pub(crate) fn hosts(&self, from: Side) -> (usize, usize) {
        match from {
            Side::Dialler => (self.dialler.host, self.acceptor.host),
            Side::Acceptor => (self.acceptor.host, self.dialler.host),
        }
    }

    /// Nobody has it open any more.
    pub(crate) fn is_over(&self) -> bool {
        self.dialler.life == Life::Gone && matches!(self.acceptor.life, Life::Gone | Life::Pending)
    }
}
