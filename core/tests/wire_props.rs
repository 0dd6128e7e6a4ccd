//! Laws of `wire` that hold for all inputs, each tried on many.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use tieline_core::wire::{
    CheckIn, CheckInAck, Close, Credit, Drain, Envelope, Flags, Frame, FrameType, HEADER_LEN, Header, Item,
    Label, Metadata, Method, Parts, Repeated, Request, Response, Status, Table, varint,
};

const MAX_BODY: u32 = 65_536;

/// Numbers of every length, 0 among them.
fn number() -> impl Strategy<Value = u64> {
    (any::<u64>(), 0..=64_u32).prop_map(|(n, shift)| n.checked_shr(shift).unwrap_or(0))
}

fn number32() -> impl Strategy<Value = u32> {
    (any::<u32>(), 0..=32_u32).prop_map(|(n, shift)| n.checked_shr(shift).unwrap_or(0))
}

fn text() -> impl Strategy<Value = String> {
    prop_oneof![Just(String::new()), "[a-z/.]{1,9}", "\\PC{1,5}", "x{126,130}"]
}

fn octets() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![vec(any::<u8>(), 0..20), vec(any::<u8>(), 120..135)]
}

/// Emits `$value`, reads it again by `$parse`, and emits that: all must agree. Gives the octets.
macro_rules! there_and_back {
    ($value:expr, $parse:path) => {{
        let value = $value;
        let mut out = b"before".to_vec();
        value.emit(&mut out);
        let envelope = out.split_off(6);
        assert_eq!(out, b"before");
        assert_eq!(value.encoded_len(), envelope.len());
        let read = $parse(&envelope).unwrap();
        assert_eq!(read, value);
        assert_eq!(read.encoded_len(), envelope.len());
        let mut again = Vec::new();
        read.emit(&mut again);
        assert_eq!(again, envelope);
        envelope
    }};
}

fn check_in() -> impl Strategy<Value = Vec<u8>> {
    let numbers = (vec(number32(), 8), number());
    let lists = (vec(number32(), 0..5), vec((text(), text()), 0..4));
    (text(), octets(), numbers, lists).prop_map(|(name, credential, (n, instance), lists)| {
        let labels: Vec<_> = lists.1.iter().map(|(key, value)| Label { key, value }).collect();
        let value = CheckIn {
            identifier: &name,
            heartbeat_interval_ms: n[0],
            instance,
            features: Repeated::from(&lists.0[..]),
            max_frame: n[1],
            max_message: n[2],
            max_item: n[3],
            max_concurrent: n[4],
            max_streams: n[5],
            stream_window: n[6],
            credential: &credential,
            labels: Repeated::from(&labels[..]),
        };
        let ack = CheckInAck {
            identifier: value.identifier,
            heartbeat_interval_ms: value.heartbeat_interval_ms,
            instance,
            features: value.features,
            max_frame: value.max_frame,
            max_message: value.max_message,
            max_item: value.max_item,
            max_concurrent: value.max_concurrent,
            max_streams: value.max_streams,
            stream_window: value.stream_window,
            labels: value.labels,
            message: &name,
            retry_after_ms: n[7],
        };
        there_and_back!(ack, CheckInAck::parse);
        there_and_back!(value, CheckIn::parse)
    })
}

fn table() -> impl Strategy<Value = Vec<u8>> {
    vec((number32(), text(), number()), 0..5).prop_map(|methods| {
        let method = |(id, name, fingerprint): &(u32, String, u64)| Method {
            id: *id,
            name: name.clone().leak(),
            fingerprint: *fingerprint,
        };
        let methods: Vec<_> = methods.iter().map(method).collect();
        there_and_back!(Table { methods: Repeated::from(&methods[..]) }, Table::parse)
    })
}

type Pairs = Vec<(String, Vec<u8>)>;

fn metadata(pairs: &Pairs) -> Vec<Metadata<'_>> {
    pairs.iter().map(|(key, value)| Metadata { key, value }).collect()
}

fn request() -> impl Strategy<Value = Vec<u8>> {
    let numbers = (vec(number32(), 3), any::<i32>(), option::of(number()), number());
    let credit = option::of(number32());
    let rare = (text(), octets(), vec((text(), octets()), 0..4), octets(), credit);
    (numbers, option::of(rare)).prop_map(|((n, priority, timeout_us, total), rare)| {
        let usual = Request { method: n[0], timeout_us, codec: n[1], ..Request::default() };
        let Some((name, key, pairs, trace, credit)) = rare else {
            return there_and_back!(usual, Request::parse);
        };
        let metadata = metadata(&pairs);
        let value = Request {
            method_name: &name,
            ordering_key: &key,
            priority,
            metadata: Repeated::from(&metadata[..]),
            kind: n[2],
            credit,
            trace: &trace,
            total,
            ..usual
        };
        there_and_back!(value, Request::parse)
    })
}

fn response() -> impl Strategy<Value = Vec<u8>> {
    let texts = (text(), text());
    (texts, vec(number32(), 2), vec((text(), octets()), 0..4), number()).prop_map(
        |((message, owner), n, pairs, total)| {
            let metadata = metadata(&pairs);
            let value = Response {
                message: &message,
                retry_after_ms: n[0],
                metadata: Repeated::from(&metadata[..]),
                owner: &owner,
                code: n[1],
                total,
            };
            there_and_back!(value, Response::parse)
        },
    )
}

fn small() -> impl Strategy<Value = (u8, Vec<u8>)> {
    (number(), number32(), text()).prop_flat_map(|(total, n, message)| {
        let item = there_and_back!(Item { total }, Item::parse);
        let credit = there_and_back!(Credit { octets: n }, Credit::parse);
        let drain = there_and_back!(Drain { grace_ms: n, message: &message }, Drain::parse);
        let close = there_and_back!(Close { message: &message }, Close::parse);
        prop_oneof![Just((9, item)), Just((11, credit)), Just((13, drain)), Just((14, close))]
    })
}

/// A type and a canonical envelope for it. Having one is proof that it went there and back.
fn envelope() -> impl Strategy<Value = (u8, Vec<u8>)> {
    prop_oneof![
        check_in().prop_map(|envelope| (1, envelope)),
        // Every field of a check-in but the credential is one of the ack.
        check_in()
            .prop_filter("credential", |it| CheckIn::parse(it).unwrap().credential.is_empty())
            .prop_map(|envelope| (2, envelope)),
        (Just(5), request()),
        (Just(7), request()),
        (Just(6), response()),
        (Just(15), table()),
        small(),
    ]
}

/// The octets of a frame that is canonical.
fn frame() -> impl Strategy<Value = Vec<u8>> {
    let no_envelope = prop_oneof![Just(3_u8), Just(4), Just(8), Just(10), Just(12), 0x80..=0xff_u8];
    let kind = prop_oneof![
        4 => envelope().prop_map(|(kind, envelope)| (kind, Some(envelope))),
        1 => no_envelope.prop_map(|kind| (kind, None)),
    ];
    (kind, octets(), number(), any::<u8>(), any::<[bool; 2]>()).prop_map(
        |((kind, envelope), payload, id, status, [more, compressed])| {
            let mut body = Vec::new();
            let has_payload = matches!(kind, 5 | 6 | 7 | 9 | 12 | 0x80..);
            let payload = if has_payload { &payload[..] } else { &[] };
            if let Some(envelope) = envelope
                && !(envelope.is_empty() && payload.is_empty())
            {
                varint::put(envelope.len() as u64, &mut body);
                body.extend(envelope);
            }
            body.extend(payload);
            let flag = |set, flag| if set { flag } else { Flags::NONE };
            let header = Header {
                frame_type: FrameType(kind),
                flags: match kind {
                    5 | 6 | 7 | 9 => flag(more, Flags::MORE) | flag(compressed, Flags::COMPRESSED),
                    12 => flag(more, Flags::MORE),
                    _ => Flags::NONE,
                },
                status: match kind {
                    2 | 6 | 8 | 13 | 14 => Status(status),
                    _ => Status::OK,
                },
                id: match kind {
                    1 | 2 | 14 | 15 => 0,
                    3 | 4 | 13 => id,
                    _ => (id >> 1).max(1),
                },
                len: u32::try_from(body.len()).unwrap(),
            };
            [&header.emit()[..], &body].concat()
        },
    )
}

/// Fields, good and not so good, for every envelope: mostly of the numbers that have a meaning.
fn fields() -> impl Strategy<Value = Vec<u8>> {
    let tag = prop_oneof![9 => 0_u64..180, 1 => number()];
    let field = (tag, number(), prop_oneof![3 => vec(0..40_u8, 0..12), 1 => octets()]);
    vec((field, 0..12_u8), 0..8).prop_map(|fields| {
        let mut out = Vec::new();
        for ((tag, number, octets), damage) in fields {
            varint::put(tag, &mut out);
            match tag & 7 {
                0 => varint::put(number, &mut out),
                1 => out.extend(number.to_le_bytes()),
                2 => {
                    varint::put(octets.len() as u64, &mut out);
                    out.extend(octets);
                }
                5 => out.extend(&number.to_le_bytes()[..4]),
                _ => {}
            }
            if damage == 0 {
                out.pop();
            }
        }
        out
    })
}

fn any_envelope() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        3 => fields(),
        1 => vec(any::<u8>(), 0..60),
        1 => (envelope(), any::<prop::sample::Index>(), any::<u8>()).prop_map(|((_, mut it), at, octet)| {
            if !it.is_empty() {
                let at = at.index(it.len());
                it[at] = octet;
            }
            it
        }),
    ]
}

/// Parses, and if that goes well: what was read has one canonical form, which reads the same.
macro_rules! total {
    ($octets:expr, $parse:path) => {
        match $parse($octets) {
            Ok(read) => {
                let mut canonical = Vec::new();
                read.emit(&mut canonical);
                prop_assert_eq!(canonical.len(), read.encoded_len());
                prop_assert_eq!($parse(&canonical), Ok(read));
            }
            Err(error) => prop_assert!(error.offset as usize <= $octets.len()),
        }
    };
}

/// What a decoder says of each prefix: `None`s, then one answer that stays.
fn prefixes(octets: &[u8]) -> Result<(), TestCaseError> {
    let whole = Frame::parse(octets, MAX_BODY);
    let decided = (0..=octets.len()).find(|len| Frame::parse(&octets[..*len], MAX_BODY) != Ok(None));
    let Some(decided) = decided else {
        prop_assert_eq!(whole, Ok(None));
        return Ok(());
    };
    for len in decided..=octets.len() {
        prop_assert_eq!(Frame::parse(&octets[..len], MAX_BODY), whole);
    }
    match whole {
        Ok(frame) => prop_assert_eq!(frame.map(|(_, used)| used), Some(decided)),
        Err(fault) => prop_assert!(fault.offset as usize <= octets.len()),
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(400) })]

    #[test]
    fn envelopes_go_there_and_back((_, _) in envelope()) {
        // The strategy itself does it; see `there_and_back`.
    }

    #[test]
    fn every_envelope_parser_is_total(octets in any_envelope()) {
        let octets = &octets[..];
        total!(octets, CheckIn::parse);
        total!(octets, CheckInAck::parse);
        total!(octets, Request::parse);
        total!(octets, Response::parse);
        total!(octets, Item::parse);
        total!(octets, Credit::parse);
        total!(octets, Drain::parse);
        total!(octets, Close::parse);
        total!(octets, Table::parse);
    }

    #[test]
    fn what_decodes_decodes_for_every_type_but_for_its_text(octets in any_envelope()) {
        // Tokens are judged alike whether a field is known or not: only what is inside strings,
        // lists and messages can differ.
        let (item, credit) = (Item::parse(&octets), Credit::parse(&octets));
        prop_assert_eq!(item.is_ok(), credit.is_ok());
        prop_assert_eq!(item.err(), credit.err());
        if let Some(error) = item.err() {
            let other = CheckIn::parse(&octets).unwrap_err();
            prop_assert!(other.offset <= error.offset);
        }
    }

    #[test]
    fn fields_of_later_versions_change_nothing(
        octets in request(),
        number in 16_u64..1 << 29,
        value in octets(),
    ) {
        let mut unknown = Vec::new();
        varint::put(number << 3 | 2, &mut unknown);
        varint::put(value.len() as u64, &mut unknown);
        unknown.extend(value);
        let around = [&unknown[..], &octets, &unknown].concat();
        prop_assert_eq!(Request::parse(&around), Request::parse(&octets));
    }

    #[test]
    fn the_last_value_wins_and_lists_add_up(first in request(), second in request()) {
        let joined = [&first[..], &second].concat();
        let (a, b) = (Request::parse(&first).unwrap(), Request::parse(&second).unwrap());
        let both = Request::parse(&joined).unwrap();
        let metadata: Vec<_> = a.metadata.iter().chain(b.metadata.iter()).collect();
        prop_assert_eq!(both.metadata, Repeated::from(&metadata[..]));
        prop_assert_eq!(both.metadata.len(), metadata.len());
        prop_assert_eq!(both.method, if b.method == 0 { a.method } else { b.method });
        prop_assert_eq!(both.timeout_us, b.timeout_us.or(a.timeout_us));
        prop_assert_eq!(both.credit, b.credit.or(a.credit));
    }

    #[test]
    fn a_canonical_frame_is_read_whole_and_written_the_same(octets in frame(), after in octets()) {
        let input = [&octets[..], &after].concat();
        let (frame, used) = Frame::parse(&input, MAX_BODY).unwrap().unwrap();
        prop_assert_eq!(used, octets.len());
        let mut written = Vec::new();
        frame.emit(&mut written).unwrap();
        prop_assert_eq!(&written, &octets);
        prefixes(&octets)?;
        // The steps of a connection see what the whole does.
        let head = octets.first_chunk::<HEADER_LEN>().unwrap();
        prop_assert_eq!(Header::parse(head), Ok(frame.header));
        if !matches!(frame.envelope, Envelope::None) {
            let parts = Parts::split(&octets[HEADER_LEN..]).unwrap();
            prop_assert_eq!(parts.payload, frame.payload);
            prop_assert_eq!(parts.envelope.len(), frame.envelope.encoded_len());
        }
    }

    #[test]
    fn a_damaged_frame_is_answered_alike_however_it_is_cut(
        mut octets in frame(),
        damage in vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
        cut in any::<prop::sample::Index>(),
    ) {
        for (at, octet) in damage {
            let at = at.index(octets.len());
            octets[at] = octet;
        }
        prefixes(&octets)?;
        prefixes(&octets[..cut.index(octets.len())])?;
        if let Ok(Some((frame, _))) = Frame::parse(&octets, MAX_BODY) {
            let mut canonical = Vec::new();
            frame.emit(&mut canonical).unwrap();
            let (again, used) = Frame::parse(&canonical, MAX_BODY).unwrap().unwrap();
            prop_assert_eq!(used, canonical.len());
            prop_assert_eq!((again.envelope, again.payload), (frame.envelope, frame.payload));
        }
    }

    #[test]
    fn any_octets_are_answered_alike_however_they_are_cut(
        mut octets in vec(any::<u8>(), 0..60),
        frame_type in any::<u8>(),
        len in 0..50_u8,
    ) {
        prefixes(&octets)?;
        // The same with a head that lets more of it through.
        for (octet, good) in octets.iter_mut().zip([0xbe, 0xa7, 1, frame_type, 0, 0]) {
            *octet = good;
        }
        if let Some(length) = octets.get_mut(14..18) {
            length.copy_from_slice(&[0, 0, 0, len]);
        }
        prefixes(&octets)?;
    }

    #[test]
    fn varints_go_there_and_back(value in number(), after in octets()) {
        let mut out = Vec::new();
        varint::put(value, &mut out);
        prop_assert_eq!(out.len(), varint::len(value));
        out.extend(&after);
        let mut input = &out[..];
        prop_assert_eq!(varint::take(&mut input), Ok(value));
        prop_assert_eq!(input, &after[..]);
    }

    #[test]
    fn zigzag_goes_there_and_back(wide in any::<i64>(), narrow in any::<i32>()) {
        prop_assert_eq!(varint::unzigzag(varint::zigzag(wide)), wide);
        prop_assert_eq!(varint::unzigzag32(varint::zigzag32(narrow)), narrow);
    }
}
