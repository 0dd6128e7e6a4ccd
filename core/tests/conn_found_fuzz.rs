//! What the fuzz targets of connections found, each as small as it goes.
#![allow(clippy::unwrap_used, clippy::panic, clippy::cast_possible_truncation)]

mod support;

use std::time::Duration;

use support::{
    frames::{self, outline, types},
    raw::{Raw, config},
};
use tieline_core::{
    conn::{Body, CallHead, CallId, Config, Event, MethodSpec, Outbox, Side, Taken},
    wire::{CheckIn, CheckInAck, Credit, Envelope, FrameType, Item, Kind, Request, Status},
};

/// A peer that serves streams, and lets no more than `window` octets of items come.
fn peer(window: u32) -> CheckInAck<'static> {
    CheckInAck {
        identifier: "peer",
        max_concurrent: 100,
        max_streams: 100,
        stream_window: window,
        ..CheckInAck::default()
    }
}

fn stream(raw: &mut Raw, kind: Kind, credit: Option<u32>) -> CallId {
    let mut head = CallHead::new("t.S/Stream");
    head.kind = kind;
    head.credit = credit;
    raw.conn.call(raw.at(), &head, Body::Copy(b""), 1).unwrap()
}

/// A call that begins with no credit lives on what is granted, and nothing is more natural than to grant it at once.
#[test]
fn what_is_granted_before_the_call_is_out_is_credit_all_the_same() {
    let mut client = Raw::client_for(config(), peer(1_000));
    let call = stream(&mut client, Kind::ServerStream, Some(0));
    client.conn.grant(client.at(), call, 5_000);
    let frames = client.frames();
    assert_eq!(types(&frames), [FrameType::REQUEST, FrameType::CREDIT]);
    assert_eq!(frames[1].frame().envelope, Envelope::Credit(Credit { octets: 5_000 }));
    client.conn.grant(client.at(), call, 300);
    assert_eq!(types(&client.frames()), [FrameType::CREDIT], "and what is granted later, too");
}

#[test]
fn what_is_granted_before_check_in_goes_out_behind_the_request() {
    let mut client = Raw::new(config().build().unwrap(), Side::Client);
    let call = stream(&mut client, Kind::ServerStream, Some(0));
    client.conn.grant(client.at(), call, 5_000);
    assert_eq!(types(&client.frames()), [FrameType::CHECK_IN]);
    client.feed(&frames::ack(peer(1_000)));
    assert!(matches!(client.events()[..], [Event::Ready(_)]));
    let frames = client.frames();
    assert_eq!(types(&frames), [FrameType::TABLE, FrameType::REQUEST, FrameType::CREDIT]);
}

/// R-CAN-07: after CANCEL the requester sends no STREAM_END.
#[test]
fn no_end_of_items_follows_a_cancel() {
    let mut client = Raw::client_for(config(), peer(1));
    let call = stream(&mut client, Kind::ClientStream, None);
    assert_eq!(types(&client.frames()), [FrameType::REQUEST]);
    client.conn.end_items(client.at(), call).unwrap();
    assert_eq!(client.conn.cancel(client.at(), call), Some(1));
    let frames = client.frames();
    assert_eq!(types(&frames), [FrameType::CANCEL], "{:?}", outline(&frames));
}

/// The same when CREDIT comes for items that were dropped.
#[test]
fn credit_for_a_call_that_was_given_up_brings_no_end() {
    let mut client = Raw::client_for(config(), peer(1));
    let call = stream(&mut client, Kind::ClientStream, None);
    let id = client.frame().id();
    for _ in 0..2 {
        client.conn.send_item(client.at(), call, Body::Copy(b"x")).unwrap();
    }
    client.conn.end_items(client.at(), call).unwrap();
    assert_eq!(types(&client.frames()), [FrameType::STREAM_ITEM], "the second one waits for credit");
    assert_eq!(client.conn.cancel(client.at(), call), Some(1));
    assert_eq!(types(&client.frames()), [FrameType::CANCEL]);
    let credit = Envelope::Credit(Credit { octets: 1_000 });
    client.feed(&frames::emit(FrameType::CREDIT, id, Status::OK, credit, b""));
    client.is_quiet();
}

/// R-STR-03: RESPONSE ends both directions, also for items that were handed over before it was read.
#[test]
fn no_item_follows_the_response_that_was_read() {
    let mut client = Raw::client_for(config(), peer(10_000));
    let call = stream(&mut client, Kind::ClientStream, None);
    let id = client.frame().id();
    client.conn.send_item(client.at(), call, Body::Copy(b"sent")).unwrap();
    assert_eq!(types(&client.frames()), [FrameType::STREAM_ITEM]);
    client.conn.send_item(client.at(), call, Body::Copy(b"too late")).unwrap();
    client.feed(&frames::response(id, Status::OK, b""));
    assert_eq!(client.outcomes().len(), 1);
    client.is_quiet();
}

/// R-STR-09: credit never rises above 2^31−1, also when an item is taken that came before the grant.
#[test]
fn a_grant_counts_the_items_that_wait_to_be_taken() {
    let mut client = Raw::client_for(config(), peer(1_000));
    let call = stream(&mut client, Kind::ServerStream, Some(u32::MAX));
    let id = client.frame().id();
    client.feed(&frames::emit(
        FrameType::STREAM_ITEM,
        id,
        Status::OK,
        Envelope::Item(Item::default()),
        &[1; 44],
    ));
    assert!(matches!(client.events()[..], [Event::Readable(_)]));
    client.conn.grant(client.at(), call, 300);
    assert!(matches!(client.conn.take_item(client.at(), call), Some(Taken::Item(_))));
    client.conn.grant(client.at(), call, 1);
    let frames = client.frames();
    let returned = frames.iter().map(|frame| match frame.frame().envelope {
        Envelope::Credit(credit) => credit.octets,
        other => panic!("{other:?}"),
    });
    assert_eq!(returned.sum::<u32>(), 300);
}

/// R-CAL-16: both limits are measured plain, also for what a server hands over while it decides about its client.
#[cfg(feature = "snappy")]
#[test]
fn what_waits_for_the_verifier_is_not_too_large_in_disguise() {
    use tieline_core::{
        conn::{ItemError, Rejection},
        wire::CheckIn,
    };

    let mut server = Raw::new(config().verify(true).compress(true).build().unwrap(), Side::Server);
    let features = [1];
    server.feed(&frames::check_in(CheckIn {
        identifier: "peer",
        features: (&features).into(),
        max_concurrent: 100,
        max_streams: 100,
        max_message: 2_000,
        max_item: 2_000,
        ..CheckIn::default()
    }));
    assert!(matches!(server.events()[..], [Event::CheckIn(_)]));
    let large = Body::Share(vec![0; 3_000].into());
    let call = stream(&mut server, Kind::ClientStream, None);
    assert_eq!(server.conn.send_item(server.at(), call, large.clone()), Err(ItemError::TooLarge));
    let refused = server.conn.call(server.at(), &CallHead::new("t.S/Echo"), large, 2).unwrap_err();
    assert_eq!((refused.user, refused.reason), (2, Rejection::TooLarge));
    server.conn.accept_check_in(server.at());
    let types = types(&server.frames());
    assert_eq!(types, [FrameType::CHECK_IN_ACK, FrameType::TABLE, FrameType::REQUEST]);
}

/// R-STR-06: what is owed is returned at once if nothing more can begin, also if an item has brought that about that
/// was not taken yet.
#[test]
fn credit_is_not_gathered_while_the_sender_can_begin_nothing() {
    let mut client = Raw::client_for(config(), peer(1_000));
    let call = stream(&mut client, Kind::ServerStream, Some(4_096));
    let id = client.frame().id();
    let item = |octets: &[u8]| {
        frames::emit(FrameType::STREAM_ITEM, id, Status::OK, Envelope::Item(Item::default()), octets)
    };
    client.feed(&item(b"small"));
    assert!(matches!(client.events()[..], [Event::Readable(_)]));
    assert!(matches!(client.conn.take_item(client.at(), call), Some(Taken::Item(_))));
    assert!(client.conn.take_item(client.at(), call).is_none());
    assert_eq!(types(&client.frames()), [], "less than a quarter is gathered");
    client.feed(&item(&[1; 3_700]));
    assert!(matches!(client.events()[..], [Event::Readable(_)]));
    let credit = client.frame();
    assert_eq!(credit.frame().envelope, Envelope::Credit(Credit { octets: 261 }));
}

/// One `poll_transmit` commits all that there is, and nothing of a call of which an item turns out too large.
#[test]
fn nothing_is_left_behind_by_an_item_that_is_too_large() {
    let mut client = Raw::new(config().build().unwrap(), Side::Client);
    let call = stream(&mut client, Kind::ClientStream, None);
    client.conn.send_item(client.at(), call, Body::Copy(&[1; 101])).unwrap();
    assert_eq!(types(&client.frames()), [FrameType::CHECK_IN]);
    client.feed(&frames::ack(CheckInAck { max_item: 100, ..peer(10_000) }));
    assert!(matches!(client.events()[..], [Event::Ready(_)]));
    client.outbox = Outbox::with_mark(1);
    let types = types(&client.frames());
    assert!(!client.conn.next().write, "more waits behind {types:?}");
    assert_eq!(types, [FrameType::TABLE]);
    let (_, outcome) = client.outcomes().remove(0);
    assert_eq!(outcome.unwrap_err().status(), Status::LOCAL_LIMIT);
}

/// L7: a frame that comes when its call has an answer is late, whether that answer waits, is committed, or is written.
#[test]
fn that_an_answer_waits_to_be_written_is_not_seen_by_frames_of_its_call() {
    let credit =
        frames::emit(FrameType::CREDIT, 1, Status::OK, Envelope::Credit(Credit { octets: 1_000 }), b"");
    for frame in [frames::continuation(1, false, b"x"), credit] {
        // Large answers, and those behind the end of the stream, wait elsewhere than small ones.
        for (octets, eof, written) in [
            (1, false, false),
            (1, false, true),
            (60_000, false, false),
            (60_000, false, true),
            (1, true, false),
        ] {
            let mut server = Raw::server(config());
            server.feed(&frames::call(1, b""));
            let call = server.incoming().call;
            server.feed(&frame);
            if eof {
                server.eof();
            }
            server.reply(call, &vec![7; octets]);
            if written {
                assert_eq!(types(&server.frames()), [FrameType::RESPONSE]);
            }
            let events = server.events();
            assert_eq!(server.conn.stats().late_frames, 1, "{octets} {eof} {written}: {events:?}");
        }
    }
}

/// The same of a call whose caller sends the items.
#[test]
fn credit_for_a_stream_that_is_answered_and_sends_nothing_is_late() {
    for written in [false, true] {
        let config = Config::builder("node").method(MethodSpec::new("t.S/Up", Kind::ClientStream));
        let said =
            CheckIn { identifier: "peer", max_concurrent: 100, max_streams: 100, ..CheckIn::default() };
        let mut server = Raw::server_for(config, said);
        let head = Request { method: 1, kind: Kind::ClientStream.to_wire(), ..Request::default() };
        server.feed(&frames::request(1, head, b""));
        let call = server.incoming().call;
        server.reply(call, b"");
        if written {
            assert_eq!(types(&server.frames()), [FrameType::RESPONSE]);
        }
        let credit = Envelope::Credit(Credit { octets: 1_000 });
        server.feed(&frames::emit(FrameType::CREDIT, 1, Status::OK, credit, b""));
        assert!(server.events().is_empty(), "{written}");
        assert_eq!(server.conn.stats().late_frames, 1, "{written}");
    }
}

/// L6: what comes at one instant counts for the rate of a body as a whole, in however many pieces it is read.
#[test]
fn how_a_burst_is_cut_does_not_decide_whether_its_sender_is_slow() {
    let frame = frames::call(1, &[0; 60_000]);
    let end = |first: usize, last: usize, piece: usize| {
        let mut server = Raw::server(config().heartbeat_interval(Duration::from_secs(10)));
        let feed = |server: &mut Raw, octets: &[u8]| {
            for piece in octets.chunks(piece) {
                server.feed(piece);
                assert!(server.events().is_empty());
            }
        };
        let (begin, burst) = frame[..last].split_at(first);
        feed(&mut server, begin);
        server.wait(Duration::from_secs(8));
        feed(&mut server, burst);
        let before = server.now;
        while server.passed.is_empty() {
            server.wait(Duration::from_millis(100));
        }
        let events = std::mem::take(&mut server.passed);
        (server.closed(events).status, server.now - before)
    };
    // A burst that is half of what a window needs, one that is more, and one that came with the header.
    for (first, last) in [(20, 20_500), (20, 59_000), (58_999, 59_000)] {
        let whole = end(first, last, 60_000);
        assert!([17, 200, 5_000].into_iter().all(|piece| end(first, last, piece) == whole), "{whole:?}");
    }
}

/// L6: octets behind a check-in end the connection, whether they came along with it or a moment later; and the ack does
/// not go out, also if the application accepts at once.
#[test]
fn what_comes_too_soon_behind_a_check_in_is_found_however_it_is_cut() {
    let said = CheckIn { identifier: "peer", ..CheckIn::default() };
    let octets = [frames::check_in(said), frames::heartbeat(1)].concat();
    for verify in [false, true] {
        for accepts in [false, true] {
            let story = |piece: usize| {
                let mut server = Raw::new(config().verify(verify).build().unwrap(), Side::Server);
                let mut told = Vec::new();
                for piece in octets.chunks(piece) {
                    server.feed(piece);
                    while let Some(event) = server.conn.poll_event(server.at()) {
                        if matches!(event, Event::CheckIn(_)) && accepts {
                            server.conn.accept_check_in(server.at());
                        }
                        told.push(format!("{event:?}"));
                    }
                }
                let frames = server.frames();
                assert_eq!(outline(&frames), [(FrameType::CLOSE, 0, Status::PROTOCOL_ERROR)]);
                told
            };
            let whole = story(octets.len());
            assert_eq!(whole.len(), 1 + usize::from(verify), "{whole:?}");
            assert_eq!(story(1), whole);
            assert_eq!(story(octets.len() - 1), whole);
        }
    }
}
