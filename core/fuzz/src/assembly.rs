//! Messages put together from the frames of one direction of a line, and what the protocol says about pieces.

use std::collections::BTreeMap;

use tieline_core::wire::{Envelope, Flags, FrameType, Status, snappy, varint};

use super::frames::Seen;

/// A message: whole, or what has come of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    pub frame_type: FrameType,
    pub status: Status,
    pub id: u64,
    pub compressed: bool,
    /// Of a call: which directions stream, and the credit that it begins with.
    pub kind: u32,
    pub credit: Option<u32>,
    /// The envelope in words, but for `total`.
    pub envelope: String,
    /// Octets of the payload as sent, once all of them are there.
    pub total: u64,
    /// As sent.
    pub payload: Vec<u8>,
}

impl Message {
    /// The payload as its sender had it; `None` if it is no Snappy block, or cannot be read by this build.
    pub fn plain(&self) -> Option<Vec<u8>> {
        if !self.compressed {
            return Some(self.payload.clone());
        }
        let mut rest = &self.payload[..];
        let plain = usize::try_from(varint::take(&mut rest).ok()?).ok()?;
        if plain > snappy::most(self.payload.len()) {
            return None;
        }
        snappy::decompress(&self.payload, plain).ok()
    }
}

/// What a frame was to its message.
#[derive(Debug)]
pub enum Step {
    /// It belongs to none.
    None,
    /// The first one, and more will come.
    Begins(Message),
    /// One between the first and the last.
    Continues,
    /// The last one.
    Ends(Message),
    /// The first and the last.
    Whole(Message),
    Abandons(Message),
}

/// The messages of one sender that are not whole.
#[derive(Debug, Default)]
pub struct Assembly(BTreeMap<u64, Message>);

impl Assembly {
    /// Whether a message with this id is not whole.
    pub fn is_open(&self, id: u64) -> bool {
        self.0.contains_key(&id)
    }

    /// Another frame.
    ///
    /// # Errors
    /// What the protocol forbids about it, whoever reads it.
    pub fn add(&mut self, seen: &Seen) -> Result<Step, &'static str> {
        let (header, more) = (seen.header, seen.header.flags.contains(Flags::MORE));
        if header.frame_type == FrameType::CONTINUATION {
            return self.go_on(seen, more);
        }
        let frame = seen.frame();
        let (kind, credit, total, envelope) = match frame.envelope {
            Envelope::Request(mut said) => {
                let total = std::mem::take(&mut said.total);
                // It depends on when it was committed.
                said.timeout_us = said.timeout_us.map(|us| us.min(1));
                (said.kind, said.credit, total, format!("{said:?}"))
            }
            Envelope::Response(mut said) => {
                let total = std::mem::take(&mut said.total);
                (0, None, total, format!("{said:?}"))
            }
            Envelope::Item(said) => (0, None, said.total, String::new()),
            _ => return Ok(Step::None),
        };
        let payload = frame.payload.to_vec();
        let message = Message {
            frame_type: header.frame_type,
            status: header.status,
            id: header.id,
            compressed: header.flags.contains(Flags::COMPRESSED),
            kind,
            credit,
            envelope,
            total: if more { total } else { payload.len() as u64 },
            payload,
        };
        if self.is_open(header.id) {
            return Err("a message begins before the one before it is whole");
        }
        if !more {
            return Ok(Step::Whole(message));
        }
        if message.total <= message.payload.len() as u64 {
            return Err("MORE, and nothing more is to come");
        }
        let first = Message { payload: Vec::new(), ..message.clone() };
        self.0.insert(header.id, message);
        Ok(Step::Begins(first))
    }

    fn go_on(&mut self, seen: &Seen, more: bool) -> Result<Step, &'static str> {
        let id = seen.header.id;
        let message = self.0.get_mut(&id).ok_or("a CONTINUATION of nothing")?;
        let piece = seen.frame().payload;
        message.payload.extend_from_slice(piece);
        let came = message.payload.len() as u64;
        match (piece.is_empty(), more) {
            (true, true) => Err("an empty piece, and more is to come"),
            (true, false) => Ok(Step::Abandons(self.0.remove(&id).ok_or("unreachable")?)),
            (false, true) if came >= message.total => Err("more pieces than total says"),
            (false, false) if came != message.total => Err("the pieces are not total"),
            (false, true) => Ok(Step::Continues),
            (false, false) => Ok(Step::Ends(self.0.remove(&id).ok_or("unreachable")?)),
        }
    }
}

/// What a row of frames says, however its messages were cut; what only lets more come is left out.
pub fn told<'a>(frames: impl Iterator<Item = &'a Seen>) -> Vec<Vec<u8>> {
    let mut assembly = Assembly::default();
    let mut told = Vec::new();
    for seen in frames {
        match assembly.add(seen) {
            Ok(Step::None) if seen.header.frame_type == FrameType::CREDIT => {}
            Ok(Step::None) | Err(_) => told.push(seen.octets.clone()),
            Ok(Step::Whole(message) | Step::Ends(message) | Step::Abandons(message)) => {
                told.push(format!("{message:?}").into_bytes());
            }
            Ok(Step::Begins(_) | Step::Continues) => {}
        }
    }
    told
}
