//! One direction of a simulated transport: bounded, slow, and easily broken.

use std::collections::VecDeque;

use tieline_core::conn::Disconnect;

pub struct Pipe {
    /// When a piece can be read, and the piece.
    pieces: VecDeque<(u64, Vec<u8>)>,
    held: usize,
    capacity: usize,
    pub delay: u64,
    /// Nothing can be read before.
    pub stalled_until: u64,
    /// The writer has shut down, or the line has broken, behind what is in the pipe.
    end: Option<Disconnect>,
    /// Whether the reader was told.
    pub end_told: bool,
    /// Nobody reads any more: what is written vanishes.
    pub unread: bool,
}

impl Pipe {
    pub fn new(capacity: usize, delay: u64) -> Self {
        Self {
            pieces: VecDeque::new(),
            held: 0,
            capacity,
            delay,
            stalled_until: 0,
            end: None,
            end_told: false,
            unread: false,
        }
    }

    /// Takes what there is room for; how much that was.
    pub fn write(&mut self, now: u64, octets: &[u8]) -> usize {
        if self.unread || self.end.is_some() {
            return octets.len();
        }
        let take = octets.len().min(self.capacity - self.held);
        if take > 0 {
            let at = self.pieces.back().map_or(0, |(at, _)| *at).max(now + self.delay);
            self.pieces.push_back((at, octets[..take].to_vec()));
            self.held += take;
        }
        take
    }

    pub fn is_full(&self) -> bool {
        self.held == self.capacity && !self.unread && self.end.is_none()
    }

    /// When there is something to read, or the end to be told.
    pub fn ready_at(&self) -> Option<u64> {
        match self.pieces.front() {
            Some((at, _)) => Some((*at).max(self.stalled_until)),
            None if self.end.is_some() && !self.end_told => Some(self.stalled_until),
            None => None,
        }
    }

    /// Takes at most `max` octets.
    pub fn read(&mut self, now: u64, max: usize) -> Vec<u8> {
        let mut out = Vec::new();
        if now < self.stalled_until {
            return out;
        }
        while let Some((at, piece)) = self.pieces.front_mut()
            && *at <= now
            && out.len() < max
        {
            let take = piece.len().min(max - out.len());
            out.extend(piece.drain(..take));
            if piece.is_empty() {
                self.pieces.pop_front();
            }
        }
        self.held -= out.len();
        out
    }

    /// The end, once everything before it was read.
    pub fn ended(&mut self, now: u64) -> Option<Disconnect> {
        if now < self.stalled_until || !self.pieces.is_empty() || self.end_told {
            return None;
        }
        let end = self.end?;
        self.end_told = true;
        Some(end)
    }

    pub fn shut(&mut self) {
        self.end.get_or_insert(Disconnect::Eof);
    }

    pub fn is_shut(&self) -> bool {
        self.end.is_some()
    }

    /// Breaks the line after `keep` more octets; whether that cut something off.
    pub fn cut(&mut self, keep: usize, end: Disconnect) -> bool {
        let mut left = keep;
        let before = self.held;
        self.pieces.retain_mut(|(_, piece)| {
            piece.truncate(left);
            left -= piece.len();
            !piece.is_empty()
        });
        self.held = self.pieces.iter().map(|(_, piece)| piece.len()).sum();
        self.end.get_or_insert(end);
        self.held < before
    }

    pub fn held(&self) -> usize {
        self.held
    }
}
