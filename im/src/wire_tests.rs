#![allow(clippy::unwrap_used)]

use proptest::prelude::*;

use super::*;

fn name_of(text: &str) -> Name {
    text.parse().unwrap()
}

fn message(text: &str) -> Message {
    let from = Origin { user: name_of("alice"), instance: u64::MAX };
    Message::new(from, name_of("bob"), 7, text).unwrap()
}

#[test]
fn a_message_is_passed_on_without_a_copy() {
    let sent = message("hi, 鲍勃").octets();
    let got = Message::parse(sent.clone()).unwrap();
    assert_eq!((got.text(), got.number, got.from.instance), ("hi, 鲍勃", 7, u64::MAX));
    assert_eq!(got.octets().as_ptr(), sent.as_ptr());
    assert_eq!(got, message("hi, 鲍勃"));
}

#[test]
fn a_text_is_at_most_16_kib() {
    let most = "x".repeat(MAX_TEXT);
    assert_eq!(Message::parse(message(&most).octets()).unwrap().text().len(), MAX_TEXT);
    let from = Origin { user: name_of("a"), instance: 1 };
    assert!(Message::new(from, name_of("b"), 1, &(most + "x")).is_err());
    // The same, made by somebody who does not check.
    let mut octets = b"\x01a\x01\x01b\x01".to_vec();
    varint::put(MAX_TEXT as u64 + 1, &mut octets);
    octets.resize(octets.len() + MAX_TEXT + 1, b'x');
    assert!(Message::parse(octets.into()).is_err());
}

#[test]
fn what_is_cut_off_or_goes_on_does_not_decode() {
    let octets = message("hello").octets();
    for end in 0..octets.len() {
        assert!(Message::parse(octets.slice(..end)).is_err(), "{end}");
    }
    assert!(Message::parse([&octets[..], b"x"].concat().into()).is_err());

    let report = Report { via: Some(name_of("two")), hop_us: 300, ..Report::new(true, Verdict::Offline) };
    let octets = report.encode();
    for end in 0..octets.len() {
        assert!(Report::decode(&octets[..end]).is_err(), "{end}");
    }
    assert!(Report::decode(&[&octets[..], b"x"].concat()).is_err());
}

#[test]
fn lengths_that_lie_allocate_nothing() {
    // A roll of 2^63 users in a few octets.
    let mut octets = b"\x03one".to_vec();
    varint::put(1 << 63, &mut octets);
    assert!(Roll::decode_all(&octets).is_err());
    let mut octets = vec![];
    varint::put(u64::MAX, &mut octets);
    assert!(Message::parse(octets.into()).is_err());
}

#[test]
fn every_verdict_and_place_survives_the_way() {
    let verdicts = [
        Verdict::Delivered,
        Verdict::NotDelivered("why".to_owned()),
        Verdict::Unconfirmed("why".to_owned()),
        Verdict::Offline,
        Verdict::Unknown("why".to_owned()),
    ];
    for verdict in verdicts {
        for via in [None, Some(name_of("two"))] {
            let report = Report { accepted: true, verdict: verdict.clone(), via, hop_us: 84 };
            assert_eq!(Report::decode(&report.encode()), Ok(report));
        }
    }
    let welcome = Welcome { node: name_of("one"), instance: u64::MAX };
    assert_eq!(Welcome::decode(&welcome.encode()), Ok(welcome));
    for place in [Place::Here(name_of("one")), Place::Offline, Place::Unknown("why".to_owned())] {
        assert_eq!(Place::decode(&place.encode()), Ok(place));
    }
}

#[test]
fn a_long_reason_is_cut_at_a_character() {
    let why = "节".repeat(MAX_WHY);
    let report = Report::decode(&Report::new(false, Verdict::Unknown(why)).encode()).unwrap();
    assert_eq!(report.verdict, Verdict::Unknown("节".repeat(MAX_WHY / 3)));
}

#[test]
fn a_roll_names_at_most_256_users() {
    let users: Vec<Name> = (0..300).map(|number| name_of(&format!("u{number:03}"))).collect();
    let roll = Roll::new(name_of("one"), users.into_iter());
    assert_eq!((roll.users.len(), roll.more), (256, 44));
    let other = Roll { trouble: "gone".to_owned(), ..Roll::new(name_of("two"), std::iter::empty()) };
    let mut octets = Vec::new();
    roll.encode(&mut octets);
    other.encode(&mut octets);
    assert_eq!(Roll::decode_all(&octets), Ok(vec![roll, other]));
}

proptest! {
    /// Whatever comes is a value or an error, and a value is written as it was read or shorter.
    #[test]
    fn the_decoders_are_total(octets in proptest::collection::vec(any::<u8>(), 0..200)) {
        if let Ok(report) = Report::decode(&octets) {
            prop_assert!(report.encode().len() <= octets.len());
        }
        if let Ok(place) = Place::decode(&octets) {
            prop_assert!(place.encode().len() <= octets.len());
        }
        if let Ok(rolls) = Roll::decode_all(&octets) {
            let mut out = Vec::new();
            rolls.iter().for_each(|roll| roll.encode(&mut out));
            prop_assert!(out.len() <= octets.len());
        }
        if let Ok(welcome) = Welcome::decode(&octets) {
            prop_assert!(welcome.encode().len() <= octets.len());
        }
        let _ = name(&octets);
        if let Ok(message) = Message::parse(octets.into()) {
            prop_assert!(message.text().len() <= MAX_TEXT);
        }
    }

    #[test]
    fn a_message_survives_the_way(text in ".{0,80}", number: u64, instance: u64) {
        let from = Origin { user: name_of("alice"), instance };
        let message = Message::new(from, name_of("bob"), number, &text).unwrap();
        let read = Message::parse(message.octets()).unwrap();
        prop_assert_eq!(read.text(), &text);
        prop_assert_eq!(read, message);
    }
}
