//! One target a parser. Each is total, names the octet that is at fault, and reads what it writes; and what it writes
//! for an input is that input exactly if the input is canonical.

use tieline_core::wire::{
    CheckIn, CheckInAck, Close, Credit, Drain, EnvelopeError, Fault, Frame, HEADER_LEN, Header, Item, Parts,
    Request, Response, Table, varint,
};

use super::canonical;

/// The longest body that is read; the short one is there so that a fuzzer's input can be longer.
const MAX_BODY: [u32; 2] = [64, 65_536];

macro_rules! envelope {
    ($($name:ident: $type:ident by $fields:ident,)*) => {$(
        #[doc = concat!("Octets as the envelope ", stringify!($type), ".")]
        pub fn $name(octets: &[u8]) {
            match $type::parse(octets) {
                Err(error) => envelope_fault(error, octets),
                Ok(read) => {
                    let mut written = Vec::new();
                    read.emit(&mut written);
                    assert_eq!(written.len(), read.encoded_len(), "the length that is told is the length");
                    let again = $type::parse(&written).expect("what was written can be read");
                    assert_eq!(again, read, "what was written means the same");
                    let mut twice = Vec::new();
                    again.emit(&mut twice);
                    assert_eq!(twice, written, "a meaning has one canonical form");
                    let exact = canonical::is_canonical(octets, canonical::$fields);
                    assert_eq!(written == octets, exact, "canonical input, and only that, is written again");
                    assert!(canonical::is_canonical(&written, canonical::$fields), "writers are canonical");
                    assert!(!format!("{read:?}").is_empty());
                }
            }
        }
    )*};
}

envelope! {
    check_in: CheckIn by CHECK_IN,
    check_in_ack: CheckInAck by CHECK_IN_ACK,
    request: Request by REQUEST,
    response: Response by RESPONSE,
    item: Item by ITEM,
    credit: Credit by CREDIT,
    drain: Drain by DRAIN,
    close: Close by CLOSE,
    table: Table by TABLE,
}

fn envelope_fault(error: EnvelopeError, octets: &[u8]) {
    assert!(error.offset as usize <= octets.len(), "a fault lies within the input: {error}");
    assert!(format!("{error}").contains(&error.offset.to_string()));
}

fn fault_within(fault: Fault, len: usize) {
    assert!(fault.offset as usize <= len, "a fault lies within the input: {fault}");
    assert!(!fault.what.slug().is_empty() && format!("{fault}").contains(&fault.offset.to_string()));
}

/// Octets as a header, and every shorter part of it.
pub fn header(octets: &[u8]) {
    let head = &octets[..octets.len().min(HEADER_LEN)];
    let answers: Vec<_> = (0..=head.len()).map(|len| Header::check_prefix(&head[..len])).collect();
    let decided = answers.iter().position(Result::is_err).unwrap_or(answers.len());
    for (len, answer) in answers.iter().enumerate() {
        if let Err(fault) = answer {
            fault_within(*fault, len);
            assert_eq!(answer, &answers[decided], "an answer stays");
        }
        assert_eq!(answer.is_err(), len >= decided, "a stranger is recognised at the octet that differs");
    }
    let Some(head) = octets.first_chunk::<HEADER_LEN>() else { return };
    let read = match Header::parse(head) {
        Ok(read) => read,
        Err(fault) => return assert_eq!(Err(fault), answers[HEADER_LEN]),
    };
    assert_eq!(answers[HEADER_LEN], Ok(()));
    assert_eq!(&read.emit(), head, "a header has one form");
    assert_eq!(Header::parse(&read.emit()), Ok(read));
    for max in [0, read.len, u32::MAX, MAX_BODY[0]] {
        match read.check_len(max) {
            Ok(()) => assert!(read.len <= max),
            Err(fault) => fault_within(fault, HEADER_LEN - 1),
        }
    }
    if let Err(fault) = read.validate() {
        fault_within(fault, HEADER_LEN - 1);
        assert!(!read.frame_type.is_extension(), "of a later version's type nothing is known");
    }
}

/// Octets as a frame's body: the envelope's length, the envelope and the payload.
pub fn body(octets: &[u8]) {
    let parts = match Parts::split(octets) {
        Ok(parts) => parts,
        Err(fault) => return fault_within(fault, HEADER_LEN + octets.len()),
    };
    assert!(octets.ends_with(&[parts.envelope, parts.payload].concat()));
    let mut written = Vec::new();
    varint::put(parts.envelope.len() as u64, &mut written);
    written.extend_from_slice(parts.envelope);
    written.extend_from_slice(parts.payload);
    assert_eq!(Parts::split(&written), Ok(parts));
    let exact = canonical::minimal(&mut &octets[..]) == Some(parts.envelope.len() as u64);
    assert_eq!(written == octets, exact, "canonical input, and only that, is written again");
}

/// Octets as a varint.
pub fn number(octets: &[u8]) {
    let mut rest = octets;
    let value = match varint::take(&mut rest) {
        Ok(value) => value,
        Err(malformed) => {
            assert_eq!(rest, octets, "of a fault nothing is taken");
            assert!(!malformed.slug().is_empty());
            return;
        }
    };
    let taken = &octets[..octets.len() - rest.len()];
    let mut written = Vec::new();
    varint::put(value, &mut written);
    assert_eq!((written.len(), varint::take(&mut &written[..])), (varint::len(value), Ok(value)));
    let exact = canonical::minimal(&mut &taken[..]) == Some(value);
    assert_eq!(written == taken, exact, "canonical input, and only that, is written again");
    assert_eq!(varint::zigzag(varint::unzigzag(value)), value);
}

/// Octets as a whole frame, however much of it is there.
pub fn frame(octets: &[u8]) {
    for max_body in MAX_BODY {
        let whole = Frame::parse(octets, max_body);
        let mut decided = false;
        for len in 0..=octets.len() {
            let answer = Frame::parse(&octets[..len], max_body);
            decided |= answer != Ok(None);
            if decided {
                assert_eq!(answer, whole, "an answer stays, however the frame is cut");
            }
            // What is decided stays; behind the frame it is enough to look at a few.
            if len > 400 && decided {
                break;
            }
        }
        match whole {
            Ok(None) => {}
            Ok(Some((frame, used))) => {
                assert!(used <= octets.len());
                reads_again(frame);
            }
            Err(fault) => fault_within(fault, octets.len()),
        }
    }
}

fn reads_again(frame: Frame<'_>) {
    let mut written = Vec::new();
    frame.emit(&mut written).expect("what was read can be written");
    let (again, used) = Frame::parse(&written, MAX_BODY[1]).expect("and read").expect("as a whole");
    assert_eq!(used, written.len());
    assert_eq!((again.envelope, again.payload), (frame.envelope, frame.payload), "and means the same");
    let mut twice = Vec::new();
    again.emit(&mut twice).expect("once more");
    assert_eq!(twice, written, "a meaning has one canonical form");
}
