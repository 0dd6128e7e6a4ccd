//! The envelopes of CHECK_IN and CHECK_IN_ACK: who a side is, what it reads, what it would use
//! (protocol §4). The numbers here are as the peer sent them; clamping them is for the reader.

use alloc::vec::Vec;

use super::fault::EnvelopeError;
use super::proto::{Bad, Reader, fixed64_tag, len_tag, put, sum, varint_tag};
use super::repeated::{Message, Repeated, Walk, sealed};

const IDENTIFIER: u64 = len_tag(1);
const HEARTBEAT_INTERVAL_MS: u64 = varint_tag(2);
const INSTANCE: u64 = fixed64_tag(3);
const FEATURES: u32 = 4;
const FEATURE: u64 = varint_tag(FEATURES);
const FEATURES_PACKED: u64 = len_tag(FEATURES);
const MAX_FRAME: u64 = varint_tag(5);
const MAX_MESSAGE: u64 = varint_tag(6);
const MAX_ITEM: u64 = varint_tag(7);
const MAX_CONCURRENT: u64 = varint_tag(8);
const MAX_STREAMS: u64 = varint_tag(9);
const STREAM_WINDOW: u64 = varint_tag(10);
const CREDENTIAL: u64 = len_tag(11);
const LABELS: u32 = 12;
const LABEL: u64 = len_tag(LABELS);
const MESSAGE: u64 = len_tag(20);
const RETRY_AFTER_MS: u64 = varint_tag(21);

/// What a client says of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct CheckIn<'a> {
    /// Who it is; see [`is_identifier`](super::is_identifier).
    pub identifier: &'a str,
    /// The heartbeat interval that it proposes, in milliseconds; 0 = the server's default.
    pub heartbeat_interval_ms: u32,
    /// Which start of the process it is; a later one is higher; 0 = not said.
    pub instance: u64,
    /// The features that it has and would use; unknown numbers are ignored.
    pub features: Repeated<'a, u32>,
    /// The longest frame body that it reads, in octets; 0 = 64 KiB; 16 KiB to 1 MiB.
    pub max_frame: u32,
    /// The largest payload that it reads, all fragments and decompressed, in octets; 0 = 4 MiB;
    /// 1 KiB to 1 GiB.
    pub max_message: u32,
    /// The largest stream item that it reads, decompressed, in octets; 0 = 256 KiB.
    pub max_item: u32,
    /// How many calls it serves at once on this connection; 0 = none.
    pub max_concurrent: u32,
    /// How many of those may stream; 0 = none.
    pub max_streams: u32,
    /// The initial credit for items sent to it, in octets; 0 = 64 KiB; at most 2^31 − 1.
    pub stream_window: u32,
    /// What proves the identifier to a verifier. Clear text unless the transport encrypts.
    pub credential: &'a [u8],
    /// Zone, weight, version and the like.
    pub labels: Repeated<'a, Label<'a>>,
}

/// What a server says of itself and what it grants.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct CheckInAck<'a> {
    /// Who it is; see [`is_identifier`](super::is_identifier).
    pub identifier: &'a str,
    /// The heartbeat interval that both sides use, in milliseconds.
    pub heartbeat_interval_ms: u32,
    /// Which start of the process it is; a later one is higher; 0 = not said.
    pub instance: u64,
    /// The features that are granted, in both directions.
    pub features: Repeated<'a, u32>,
    /// The longest frame body that it reads, in octets; 0 = 64 KiB; 16 KiB to 1 MiB.
    pub max_frame: u32,
    /// The largest payload that it reads, all fragments and decompressed, in octets; 0 = 4 MiB;
    /// 1 KiB to 1 GiB.
    pub max_message: u32,
    /// The largest stream item that it reads, decompressed, in octets; 0 = 256 KiB.
    pub max_item: u32,
    /// How many calls it serves at once on this connection; 0 = none.
    pub max_concurrent: u32,
    /// How many of those may stream; 0 = none.
    pub max_streams: u32,
    /// The initial credit for items sent to it, in octets; 0 = 64 KiB; at most 2^31 − 1.
    pub stream_window: u32,
    /// Zone, weight, version and the like.
    pub labels: Repeated<'a, Label<'a>>,
    /// Why the check-in was refused. A peer's text: show it by [`Escaped`](super::Escaped).
    pub message: &'a str,
    /// When to try again at the earliest, in milliseconds; 0 = not said.
    pub retry_after_ms: u32,
}

/// A name and a value that describe a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Label<'a> {
    /// The name.
    pub key: &'a str,
    /// The value.
    pub value: &'a str,
}

impl<'a> CheckIn<'a> {
    /// Reads the envelope, all features and labels included.
    ///
    /// # Errors
    ///
    /// [`EnvelopeError`] if it does not decode (protocol §1).
    pub fn parse(envelope: &'a [u8]) -> Result<Self, EnvelopeError> {
        Self::read(&mut Reader::new(envelope)).map_err(|bad| bad.within(envelope))
    }

    fn read(reader: &mut Reader<'a>) -> Result<Self, Bad> {
        let mut it = Self::default();
        while let Some(tag) = reader.tag()? {
            match tag {
                IDENTIFIER => it.identifier = reader.string()?,
                HEARTBEAT_INTERVAL_MS => it.heartbeat_interval_ms = reader.uint32()?,
                INSTANCE => it.instance = reader.fixed64()?,
                FEATURE | FEATURES_PACKED => read_feature(&mut it.features, reader, tag)?,
                MAX_FRAME => it.max_frame = reader.uint32()?,
                MAX_MESSAGE => it.max_message = reader.uint32()?,
                MAX_ITEM => it.max_item = reader.uint32()?,
                MAX_CONCURRENT => it.max_concurrent = reader.uint32()?,
                MAX_STREAMS => it.max_streams = reader.uint32()?,
                STREAM_WINDOW => it.stream_window = reader.uint32()?,
                CREDENTIAL => it.credential = reader.bytes()?,
                LABEL => read_label(&mut it.labels, reader)?,
                _ => reader.skip(tag)?,
            }
        }
        Ok(it)
    }

    /// How many octets [`CheckIn::emit`] writes.
    #[must_use]
    pub fn encoded_len(&self) -> usize {
        sum![
            put::len_bytes(IDENTIFIER, self.identifier.as_bytes()),
            put::len_uint(HEARTBEAT_INTERVAL_MS, u64::from(self.heartbeat_interval_ms)),
            put::len_fixed64(INSTANCE, self.instance),
            put::len_packed(FEATURES_PACKED, self.features.iter()),
            put::len_uint(MAX_FRAME, u64::from(self.max_frame)),
            put::len_uint(MAX_MESSAGE, u64::from(self.max_message)),
            put::len_uint(MAX_ITEM, u64::from(self.max_item)),
            put::len_uint(MAX_CONCURRENT, u64::from(self.max_concurrent)),
            put::len_uint(MAX_STREAMS, u64::from(self.max_streams)),
            put::len_uint(STREAM_WINDOW, u64::from(self.stream_window)),
            put::len_bytes(CREDENTIAL, self.credential),
            self.labels.encoded_len(LABEL),
        ]
    }

    /// Appends the envelope in its canonical form.
    pub fn emit(&self, out: &mut Vec<u8>) {
        put::bytes(out, IDENTIFIER, self.identifier.as_bytes());
        put::uint(out, HEARTBEAT_INTERVAL_MS, u64::from(self.heartbeat_interval_ms));
        put::fixed64(out, INSTANCE, self.instance);
        put::packed(out, FEATURES_PACKED, self.features.iter());
        put::uint(out, MAX_FRAME, u64::from(self.max_frame));
        put::uint(out, MAX_MESSAGE, u64::from(self.max_message));
        put::uint(out, MAX_ITEM, u64::from(self.max_item));
        put::uint(out, MAX_CONCURRENT, u64::from(self.max_concurrent));
        put::uint(out, MAX_STREAMS, u64::from(self.max_streams));
        put::uint(out, STREAM_WINDOW, u64::from(self.stream_window));
        put::bytes(out, CREDENTIAL, self.credential);
        self.labels.emit(LABEL, out);
    }
}

impl<'a> CheckInAck<'a> {
    /// Reads the envelope, all features and labels included.
    ///
    /// # Errors
    ///
    /// [`EnvelopeError`] if it does not decode (protocol §1).
    pub fn parse(envelope: &'a [u8]) -> Result<Self, EnvelopeError> {
        Self::read(&mut Reader::new(envelope)).map_err(|bad| bad.within(envelope))
    }

    fn read(reader: &mut Reader<'a>) -> Result<Self, Bad> {
        let mut it = Self::default();
        while let Some(tag) = reader.tag()? {
            match tag {
                IDENTIFIER => it.identifier = reader.string()?,
                HEARTBEAT_INTERVAL_MS => it.heartbeat_interval_ms = reader.uint32()?,
                INSTANCE => it.instance = reader.fixed64()?,
                FEATURE | FEATURES_PACKED => read_feature(&mut it.features, reader, tag)?,
                MAX_FRAME => it.max_frame = reader.uint32()?,
                MAX_MESSAGE => it.max_message = reader.uint32()?,
                MAX_ITEM => it.max_item = reader.uint32()?,
                MAX_CONCURRENT => it.max_concurrent = reader.uint32()?,
                MAX_STREAMS => it.max_streams = reader.uint32()?,
                STREAM_WINDOW => it.stream_window = reader.uint32()?,
                LABEL => read_label(&mut it.labels, reader)?,
                MESSAGE => it.message = reader.string()?,
                RETRY_AFTER_MS => it.retry_after_ms = reader.uint32()?,
                _ => reader.skip(tag)?,
            }
        }
        Ok(it)
    }

    /// How many octets [`CheckInAck::emit`] writes.
    #[must_use]
    pub fn encoded_len(&self) -> usize {
        sum![
            self.common().encoded_len(),
            put::len_bytes(MESSAGE, self.message.as_bytes()),
            put::len_uint(RETRY_AFTER_MS, u64::from(self.retry_after_ms)),
        ]
    }

    /// Appends the envelope in its canonical form.
    pub fn emit(&self, out: &mut Vec<u8>) {
        self.common().emit(out);
        put::bytes(out, MESSAGE, self.message.as_bytes());
        put::uint(out, RETRY_AFTER_MS, u64::from(self.retry_after_ms));
    }

    /// The fields 1 to 12, which both envelopes share; the ack's own come after them.
    const fn common(&self) -> CheckIn<'a> {
        CheckIn {
            identifier: self.identifier,
            heartbeat_interval_ms: self.heartbeat_interval_ms,
            instance: self.instance,
            features: self.features,
            max_frame: self.max_frame,
            max_message: self.max_message,
            max_item: self.max_item,
            max_concurrent: self.max_concurrent,
            max_streams: self.max_streams,
            stream_window: self.stream_window,
            credential: &[],
            labels: self.labels,
        }
    }
}

fn read_feature<'a>(features: &mut Repeated<'a, u32>, reader: &mut Reader<'a>, tag: u64) -> Result<(), Bad> {
    features.note(FEATURES, reader);
    match tag {
        FEATURE => reader.varint().map(drop),
        _ => reader.packed(),
    }
}

fn read_label<'a>(labels: &mut Repeated<'a, Label<'a>>, reader: &mut Reader<'a>) -> Result<(), Bad> {
    labels.note(LABELS, reader);
    Label::read(&mut reader.message()?).map(drop)
}

const KEY: u64 = len_tag(1);
const VALUE: u64 = len_tag(2);

impl<'a> Message<'a> for Label<'a> {
    fn read(reader: &mut Reader<'a>) -> Result<Self, Bad> {
        let mut label = Self::default();
        while let Some(tag) = reader.tag()? {
            match tag {
                KEY => label.key = reader.string()?,
                VALUE => label.value = reader.string()?,
                _ => reader.skip(tag)?,
            }
        }
        Ok(label)
    }

    fn len(&self) -> usize {
        sum![put::len_bytes(KEY, self.key.as_bytes()), put::len_bytes(VALUE, self.value.as_bytes()),]
    }

    fn put(&self, out: &mut Vec<u8>) {
        put::bytes(out, KEY, self.key.as_bytes());
        put::bytes(out, VALUE, self.value.as_bytes());
    }
}

impl<'a> sealed::Sealed<'a> for Label<'a> {
    fn next(walk: &mut Walk<'a>) -> Option<Self> {
        walk.message()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use alloc::vec;

    use super::*;

    #[test]
    fn every_field_has_its_number() {
        let labels = [Label { key: "z", value: "1" }];
        let check_in = CheckIn {
            identifier: "n",
            heartbeat_interval_ms: 300,
            instance: 0x0807_0605_0403_0201,
            features: Repeated::from(&[1, 300]),
            max_frame: 5,
            max_message: 6,
            max_item: 7,
            max_concurrent: 8,
            max_streams: 9,
            stream_window: 10,
            credential: &[0xff],
            labels: Repeated::from(&labels),
        };
        let mut shared = vec![
            0x0a, 1, b'n', 0x10, 0xac, 2, 0x19, 1, 2, 3, 4, 5, 6, 7, 8, 0x22, 3, 1, 0xac, 2, 0x28, 5, 0x30,
            6, 0x38, 7, 0x40, 8, 0x48, 9, 0x50, 10,
        ];
        let label = [0x62, 6, 0x0a, 1, b'z', 0x12, 1, b'1'];
        let mut expected = shared.clone();
        expected.extend([0x5a, 1, 0xff]);
        expected.extend(label);
        let mut out = vec![];
        check_in.emit(&mut out);
        assert_eq!(out, expected);
        assert_eq!(CheckIn::parse(&out).unwrap(), check_in);

        let ack = CheckInAck {
            identifier: "n",
            heartbeat_interval_ms: 300,
            instance: 0x0807_0605_0403_0201,
            features: Repeated::from(&[1, 300]),
            max_frame: 5,
            max_message: 6,
            max_item: 7,
            max_concurrent: 8,
            max_streams: 9,
            stream_window: 10,
            labels: Repeated::from(&labels),
            message: "m",
            retry_after_ms: 21,
        };
        shared.extend(label);
        shared.extend([0xa2, 1, 1, b'm', 0xa8, 1, 21]);
        let mut out = vec![];
        ack.emit(&mut out);
        assert_eq!(out, shared);
        assert_eq!(CheckInAck::parse(&out).unwrap(), ack);
    }

    #[test]
    fn defaults_are_not_written() {
        let mut out = vec![];
        CheckIn::default().emit(&mut out);
        CheckInAck::default().emit(&mut out);
        assert!(out.is_empty());
        assert_eq!(CheckIn::default().encoded_len(), 0);
    }

    #[test]
    fn the_last_of_a_singular_field_wins_and_every_one_must_decode() {
        assert_eq!(CheckIn::parse(&[0x10, 1, 0x10, 2]).unwrap().heartbeat_interval_ms, 2);
        assert!(CheckIn::parse(&[0x0a, 1, 0xff, 0x0a, 1, b'a']).is_err());
    }
}
