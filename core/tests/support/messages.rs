//! Messages in fragments, as the wire shows those of one sender.

use std::collections::BTreeMap;

use tieline_core::wire::{Envelope, Flags, FrameType, varint};

use super::frames::Seen;

/// The beginning of a message.
#[derive(Debug, Clone, Copy)]
pub struct Began {
    pub id: u64,
    pub frame_type: FrameType,
    /// Octets of the payload as sent, and plain; the latter is 0 if it is compressed and the first frame does not say.
    pub total: usize,
    pub plain: usize,
}

/// What a frame means for the messages of its sender.
#[derive(Debug, Clone, Copy)]
pub enum Part {
    /// None of a message.
    Other,
    /// The first frame, and whether it is the only one.
    First(Began, bool),
    /// A frame behind the first, and whether it is the last.
    Next(Began, bool),
    /// And how many octets of it never went.
    Abandoned(Began, usize),
}

/// The unfinished messages of one sender.
#[derive(Default)]
pub struct Messages {
    open: BTreeMap<u64, (Began, usize)>,
}

impl Messages {
    /// Takes note of a frame, and objects to one that is out of sequence.
    pub fn note(&mut self, seen: &Seen) -> Part {
        let (frame, header) = (seen.frame(), seen.header);
        let more = header.flags.contains(Flags::MORE);
        let total = match frame.envelope {
            Envelope::Request(it) => it.total,
            Envelope::Response(it) => it.total,
            Envelope::Item(it) => it.total,
            _ => 0,
        };
        match header.frame_type {
            FrameType::REQUEST | FrameType::ONE_WAY | FrameType::RESPONSE | FrameType::STREAM_ITEM => {
                assert!(
                    !self.open.contains_key(&header.id),
                    "begun before the message before it on that id is whole: {header:?}"
                );
                let part = frame.payload.len();
                let total = if more { total as usize } else { part };
                assert!(!more || total > part, "MORE, and a total of {total}: {header:?}");
                let plain = if header.flags.contains(Flags::COMPRESSED) {
                    let mut start = frame.payload;
                    varint::take(&mut start).map_or(0, |plain| plain as usize)
                } else {
                    total
                };
                let began = Began { id: header.id, frame_type: header.frame_type, total, plain };
                if more {
                    self.open.insert(header.id, (began, part));
                }
                Part::First(began, !more)
            }
            FrameType::CONTINUATION => {
                let Some((began, came)) = self.open.get_mut(&header.id) else {
                    panic!("a CONTINUATION of no message: {header:?}")
                };
                let (began, len) = (*began, frame.payload.len());
                if len == 0 {
                    assert!(!more, "an empty CONTINUATION with MORE: {header:?}");
                    let missing = began.total - *came;
                    self.open.remove(&header.id);
                    return Part::Abandoned(began, missing);
                }
                *came += len;
                assert!(*came <= began.total, "more than its total: {header:?}");
                assert_eq!(more, *came < began.total, "MORE on all but the last: {header:?}");
                if !more {
                    self.open.remove(&header.id);
                }
                Part::Next(began, !more)
            }
            FrameType::STREAM_END => {
                assert!(!self.open.contains_key(&header.id), "STREAM_END inside a message: {header:?}");
                Part::Other
            }
            _ => Part::Other,
        }
    }
}
