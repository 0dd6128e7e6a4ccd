//! The golden vectors of `conformance/vectors`, which are derived from the protocol text alone.
//!
//! Each frame is fed whole and at every boundary before that: it must stay incomplete until the
//! very octet that decides it. Canonical frames are also written, octet for octet.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

mod vector_files;

use std::collections::HashSet;

use tieline_core::wire::{
    Class, Flags, Frame, FrameType, HEADER_LEN, Header, Malformed, Retry, Status, fnv1a_64, varint,
};
use vector_files::{FnvFile, FrameFile, FrameVector, JsonFrame, StatusFile, VarintFile, frame_files, read};

/// The body limit with which good frames are read.
const MAX_BODY: u32 = 65_536;

fn header(json: &JsonFrame) -> Header {
    let frame_type = json.frame_type.strip_prefix("0x").map_or_else(
        || {
            let named = |octet: &u8| FrameType(*octet).name() == Some(&json.frame_type);
            (0..=u8::MAX).find(named).unwrap()
        },
        |octet| u8::from_str_radix(octet, 16).unwrap(),
    );
    let flag = |name: &String| match name.as_str() {
        "COMPRESSED" => Flags::COMPRESSED,
        "MORE" => Flags::MORE,
        _ => panic!("no flag {name}"),
    };
    Header {
        frame_type: FrameType(frame_type),
        flags: json.flags.iter().map(flag).fold(Flags::NONE, |all, one| all | one),
        status: Status(json.status),
        id: json.context_id.0,
        len: 0,
    }
}

fn check_good(id: &str, octets: &[u8], json: &JsonFrame, canonical: bool) {
    for len in 0..octets.len() {
        assert_eq!(Frame::parse(&octets[..len], MAX_BODY), Ok(None), "{id}: {len} octets");
    }
    let (mut frame, used) = Frame::parse(octets, MAX_BODY).unwrap().unwrap();
    assert_eq!(used, octets.len(), "{id}");

    let mut header = header(json);
    header.len = u32::try_from(octets.len() - HEADER_LEN).unwrap();
    if header.frame_type.is_extension() {
        // Ignored, so the vectors do not tell them.
        frame.header.flags = Flags::NONE;
    }
    let envelope = json.envelope(header.frame_type);
    let payload = &json.payload_hex.0[..];
    let expected = Frame { header, envelope, payload };
    assert_eq!(frame, expected, "{id}");

    let mut written = Vec::new();
    expected.emit(&mut written).unwrap();
    assert_eq!(written == octets, canonical, "{id}: written {written:02x?}");
    // What was read says the same again, wherever its lists come from.
    let mut again = Vec::new();
    frame.emit(&mut again).unwrap();
    assert_eq!(again, written, "{id}");
}

fn check_bad(vector: &FrameVector) {
    let FrameVector { id, hex, .. } = vector;
    let (max_body, decided_after) = (vector.max_body.unwrap(), vector.decided_after.unwrap());
    assert!(hex.0.len() >= decided_after, "{id}");
    for len in 0..=hex.0.len() {
        let answer = Frame::parse(&hex.0[..len], max_body);
        if len < decided_after {
            assert_eq!(answer, Ok(None), "{id}: {len} octets");
        } else {
            let fault = answer.unwrap_err();
            let told = (fault.what.slug(), fault.offset);
            let expected = (vector.error.as_deref().unwrap(), vector.offset.unwrap());
            assert_eq!(told, expected, "{id}: {len} octets");
        }
    }
}

#[test]
fn frames_are_read_written_and_refused_as_the_vectors_say() {
    let (mut good, mut canonical, mut bad) = (0, 0, 0);
    for file in frame_files() {
        for vector in read::<FrameFile>(&file).vectors {
            match (&vector.frame, &vector.error) {
                (Some(frame), None) => {
                    let is_canonical = vector.canonical.unwrap();
                    check_good(&vector.id, &vector.hex.0, frame, is_canonical);
                    good += 1;
                    canonical += u32::from(is_canonical);
                }
                (None, Some(_)) => {
                    check_bad(&vector);
                    bad += 1;
                }
                _ => panic!("{}: neither good nor bad", vector.id),
            }
        }
    }
    // The files are there and were read, not only found empty.
    assert!(canonical >= 100 && good > canonical && bad >= 100, "{good} {canonical} {bad}");
}

#[test]
fn varints_and_zigzag_are_as_the_vectors_say() {
    let file = read::<VarintFile>("varint.json");
    for vector in &file.vectors {
        let id = &vector.id;
        let octets = &vector.hex.0[..];
        let mut input = octets;
        let answer = varint::take(&mut input).map_err(Malformed::slug);
        match (&vector.value, &vector.error) {
            (Some(value), None) => {
                assert_eq!((answer, input.len()), (Ok(value.0), 0), "{id}");
                let mut written = Vec::new();
                varint::put(value.0, &mut written);
                assert_eq!(Some(written == octets), vector.canonical, "{id}");
                assert_eq!(varint::len(value.0), written.len(), "{id}");
            }
            (None, Some(slug)) => assert_eq!(answer, Err(slug.as_str()), "{id}"),
            _ => panic!("{id}: neither good nor bad"),
        }
    }
    for vector in &file.zigzag {
        let (id, signed, unsigned) = (&vector.id, &vector.signed, vector.unsigned.0);
        if vector.bits == 32 {
            let (signed, unsigned) = (signed.parse().unwrap(), u32::try_from(unsigned).unwrap());
            assert_eq!(varint::zigzag32(signed), unsigned, "{id}");
            assert_eq!(varint::unzigzag32(unsigned), signed, "{id}");
        } else {
            assert_eq!(vector.bits, 64, "{id}");
            let signed = signed.parse().unwrap();
            assert_eq!(varint::zigzag(signed), unsigned, "{id}");
            assert_eq!(varint::unzigzag(unsigned), signed, "{id}");
        }
    }
    assert!(file.vectors.len() > 30 && file.zigzag.len() > 10);
}

#[test]
fn statuses_are_as_the_vectors_say() {
    const CLASSES: [Class; 8] = [
        Class::Handler,
        Class::RefusedByNode,
        Class::RefusedRequest,
        Class::Started,
        Class::Connection,
        Class::Reserved,
        Class::Application,
        Class::Local,
    ];
    let file = read::<StatusFile>("status.json");
    assert!(file.statuses.iter().map(|row| row.octet).eq(0..=u8::MAX));
    for row in &file.statuses {
        let status = Status(row.octet);
        assert_eq!(row.hex.0, [row.octet]);
        assert_eq!(status.class(), CLASSES[usize::from(row.class)], "{status}");
        assert_eq!(status.name(), row.name.as_deref(), "{status}");
        let advice = match status.retry() {
            _ if status.class() == Class::Local => None,
            Retry::Policy => Some("policy"),
            Retry::Elsewhere => Some("elsewhere"),
            Retry::Never => Some("never"),
            Retry::IfIdempotent => Some("if_idempotent"),
            Retry::Reconnect => Some("reconnect"),
        };
        assert_eq!(advice, row.retry.as_deref(), "{status}");
    }
}

#[test]
fn fingerprints_are_as_the_vectors_say() {
    let file = read::<FnvFile>("fnv.json");
    for vector in &file.vectors {
        let hash = fnv1a_64(vector.text.as_bytes());
        assert_eq!(hash.to_be_bytes().to_vec(), vector.hash.0, "{}", vector.id);
        assert_eq!(hash, vector.fingerprint.0, "{}", vector.id);
    }
    assert!(file.vectors.len() > 5);
}

#[test]
fn an_id_means_one_vector() {
    let mut ids = Vec::new();
    for file in frame_files() {
        ids.extend(read::<FrameFile>(&file).vectors.into_iter().map(|vector| vector.id));
    }
    let varints = read::<VarintFile>("varint.json");
    ids.extend(varints.vectors.into_iter().map(|vector| vector.id));
    ids.extend(varints.zigzag.into_iter().map(|vector| vector.id));
    ids.extend(read::<FnvFile>("fnv.json").vectors.into_iter().map(|vector| vector.id));
    let mut seen = HashSet::new();
    for id in ids {
        assert!(seen.insert(id.clone()), "{id} twice");
    }
}
