//! What random runs have found, each as the smallest scenario that shows it.
#![allow(clippy::unwrap_used, clippy::panic)]

mod support;

use support::{
    frames,
    raw::{Raw, config, ms},
};
use tieline_core::{
    conn::{Body, CallHead, ConfigBuilder, Event, Limits, MethodSpec, Side, Taken},
    wire::{CheckInAck, Envelope, Flags, FrameType, Item, Kind, Request, Status},
};

/// A configuration that serves a method of each kind.
fn all_kinds() -> ConfigBuilder {
    config()
        .method(MethodSpec::new("t.S/Down", Kind::ServerStream))
        .method(MethodSpec::new("t.S/Up", Kind::ClientStream))
        .method(MethodSpec::new("t.S/Both", Kind::Bidi))
}

fn streams(method: &'static str, kind: Kind) -> CallHead<'static> {
    let mut head = CallHead::new(method);
    head.kind = kind;
    head
}

fn ack(max_item: u32) -> CheckInAck<'static> {
    CheckInAck { identifier: "peer", max_concurrent: 100, max_streams: 10, max_item, ..CheckInAck::default() }
}

/// A grant that came before the REQUEST was committed was taken out of the queue of CREDITs and forgotten, and no
/// later one was queued: a call that began with no credit never got an item.
#[test]
fn what_is_granted_before_the_call_is_out_is_not_lost() {
    let mut raw = Raw::client_for(all_kinds(), ack(0));
    let mut head = streams("t.S/Down", Kind::ServerStream);
    head.credit = Some(0);
    // More than a frame: it is not out with its first one.
    let call = raw.conn.call(raw.at(), &head, Body::Copy(&[7; 100_000]), 1).unwrap();
    raw.conn.grant(raw.at(), call, 1_000);
    let frames = raw.frames();
    let outline: Vec<_> = frames.iter().map(frames::Seen::frame_type).collect();
    assert_eq!(outline, [FrameType::REQUEST, FrameType::CONTINUATION, FrameType::CREDIT]);
    let Envelope::Credit(credit) = frames[2].frame().envelope else { panic!() };
    assert_eq!(credit.octets, 1_000);
}

/// Items that were handed over before check-in went out however large they were for the peer.
#[test]
fn an_item_from_before_check_in_that_is_too_large_ends_its_call() {
    let mut raw = Raw::new(all_kinds().build().unwrap(), Side::Client);
    let call = raw.conn.call(raw.at(), &streams("t.S/Up", Kind::ClientStream), Body::Copy(b"x"), 1).unwrap();
    raw.conn.send_item(raw.at(), call, Body::Copy(&[1; 101])).unwrap();
    raw.frames();
    raw.feed(&frames::ack(ack(100)));
    assert!(matches!(raw.events()[..], [Event::Ready(_)]));
    assert!(raw.frames().iter().all(|frame| frame.frame_type() == FrameType::TABLE));
    let outcomes = raw.outcomes();
    assert_eq!(outcomes[0].1.as_ref().unwrap_err().status(), Status::LOCAL_LIMIT);
}

/// The items of a call whose caller gave it up were dropped, and its STREAM_END went out all the same: what lacked
/// items looked whole to the callee.
#[test]
fn no_end_of_stream_behind_items_that_were_dropped() {
    let mut raw = Raw::client_for(all_kinds(), ack(0));
    let mut head = streams("t.S/Up", Kind::ClientStream);
    head.deadline = Some(raw.after(ms(10)));
    let call = raw.conn.call(raw.at(), &head, Body::Copy(b"x"), 1).unwrap();
    raw.frames();
    // More than the window: the second waits for credit.
    raw.conn.send_item(raw.at(), call, Body::Copy(&[1; 70_000])).unwrap();
    raw.frames();
    raw.conn.send_item(raw.at(), call, Body::Copy(b"second")).unwrap();
    raw.conn.end_items(raw.at(), call).unwrap();
    assert!(raw.frames().is_empty());
    let frames = raw.wait(ms(10));
    assert_eq!(raw.passed.len(), 1, "the deadline has passed: {:?}", raw.passed);
    assert!(frames.is_empty(), "{:?}", frames::outline(&frames));
}

/// What was gathered of credit stayed here when the credit of the peer was used up afterwards.
#[test]
fn gathered_credit_goes_back_as_soon_as_the_peer_can_begin_nothing() {
    let mut raw = Raw::server(all_kinds());
    let up = Request { method: 3, kind: Kind::ClientStream.to_wire(), ..Request::default() };
    raw.feed(&frames::request(1, up, b""));
    let call = raw.incoming().call;
    let item = |len: usize| {
        frames::emit(FrameType::STREAM_ITEM, 1, Status::OK, Envelope::Item(Item::default()), &vec![1; len])
    };
    raw.feed(&item(1_000));
    raw.turn();
    assert!(matches!(raw.conn.take_item(raw.at(), call), Some(Taken::Item(_))));
    assert!(raw.frames().is_empty(), "less than a quarter");
    raw.feed(&item(60_000));
    raw.feed(&item(5_000));
    let frames = raw.turn();
    assert_eq!(frames::outline(&frames), [(FrameType::CREDIT, 1, Status::OK)]);
    let Envelope::Credit(credit) = frames[0].frame().envelope else { panic!() };
    assert_eq!(credit.octets, 1_256);
}

/// A grant took the room of items that had come and were not taken: when they were, CREDIT rose above 2^31−1, and the
/// peer closed with PROTOCOL_ERROR.
#[test]
fn a_grant_leaves_room_for_items_that_were_not_taken() {
    let mut raw = Raw::client_for(all_kinds(), ack(0));
    let mut head = streams("t.S/Down", Kind::ServerStream);
    head.credit = Some(i32::MAX.unsigned_abs());
    let call = raw.conn.call(raw.at(), &head, Body::Copy(b""), 1).unwrap();
    let id = raw.frame().id();
    raw.feed(&frames::emit(FrameType::STREAM_ITEM, id, Status::OK, Envelope::Item(Item::default()), b"item"));
    raw.turn();
    raw.conn.grant(raw.at(), call, 1_000);
    assert!(matches!(raw.conn.take_item(raw.at(), call), Some(Taken::Item(_))));
    raw.conn.grant(raw.at(), call, 1_000);
    let paid = raw.frames().iter().fold(0, |paid, frame| match frame.frame().envelope {
        Envelope::Credit(credit) => paid + credit.octets,
        _ => paid,
    });
    assert_eq!(paid, 260);
}

/// A one-way waited for memory that was held by calls which waited, for their key, for the one-way.
#[test]
fn a_one_way_does_not_wait_for_those_who_wait_for_it() {
    let mut limits = Limits::default();
    limits.memory = 64 << 10;
    limits.max_message = 60 << 10;
    let mut raw = Raw::server(all_kinds().limits(limits));
    let head = Request { method: 1, ..Request::default() };
    let keyed = Request { ordering_key: b"k", ..head };
    raw.feed(&frames::request(1, head, &[1; 30_000]));
    let running = raw.incoming().call;
    raw.feed(&frames::emit(FrameType::ONE_WAY, 3, Status::OK, Envelope::Request(keyed), &[3; 50_000]));
    raw.feed(&frames::request(5, keyed, &[5; 20_000]));
    raw.turn();
    raw.reply(running, b"");
    raw.turn();
    let requests: Vec<_> = raw.passed.iter().filter(|event| matches!(event, Event::Request(_))).collect();
    assert!(matches!(requests[..], [Event::Request(it)] if it.one_way), "{requests:?}");
}

/// An item that was abandoned after its call had ended in the queue ended whoever had got the call's slot meanwhile.
#[test]
fn an_item_of_a_call_that_never_started_does_not_end_another() {
    let mut raw = Raw::server(all_kinds());
    let keyed = Request { method: 1, ordering_key: b"k", ..Request::default() };
    raw.feed(&frames::request(1, keyed, b""));
    raw.incoming();
    raw.feed(&frames::request(3, Request { method: 3, kind: Kind::ClientStream.to_wire(), ..keyed }, b""));
    let item = Envelope::Item(Item { total: 1_000 });
    raw.feed(&frames::flagged(FrameType::STREAM_ITEM, 3, Status::OK, Flags::MORE, item, &[1; 500]));
    raw.feed(&frames::cancel(3));
    assert_eq!(frames::outline(&raw.turn()), [(FrameType::RESPONSE, 3, Status::CANCELLED_IN_QUEUE)]);
    raw.feed(&frames::call(5, b"another"));
    let another = raw.incoming().call;
    raw.feed(&frames::continuation(3, false, b""));
    raw.is_quiet();
    raw.reply(another, b"result");
    assert_eq!(frames::outline(&raw.turn()), [(FrameType::RESPONSE, 5, Status::OK)]);
}

/// When there was no room for the id of a message that was refused, it was not kept; R-ID-09 says that the oldest goes.
#[test]
fn of_the_messages_that_were_refused_the_oldest_is_forgotten() {
    let mut limits = Limits::default();
    limits.max_concurrent = 1;
    let mut raw = Raw::server(all_kinds().limits(limits));
    let head = Request { method: 77, total: 1_000, ..Request::default() };
    for id in (1..=35).step_by(2) {
        let first = Envelope::Request(head);
        raw.feed(&frames::flagged(FrameType::REQUEST, id, Status::OK, Flags::MORE, first, &[1; 500]));
        assert_eq!(frames::outline(&raw.turn()), [(FrameType::RESPONSE, id, Status::NO_SUCH_METHOD)]);
    }
    raw.feed(&frames::continuation(35, false, &[1; 500]));
    raw.is_quiet();
    assert_eq!(raw.conn.stats().late_frames, 0, "the newest is free");
    raw.feed(&frames::continuation(1, false, &[1; 500]));
    raw.is_quiet();
    assert_eq!(raw.conn.stats().late_frames, 1, "17 are kept");
}
