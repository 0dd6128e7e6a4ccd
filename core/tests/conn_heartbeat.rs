//! Heartbeats, dead peers and slow ones (protocol §5, "Heartbeat").
#![allow(clippy::unwrap_used, clippy::panic, clippy::cast_possible_truncation)]

mod support;

use support::{
    frames::{self, outline},
    raw::{MS, Raw, SECOND, config, ms, secs},
};
use tieline_core::{
    conn::{By, ConfigBuilder, Event, Reply},
    wire::{CheckIn, FrameType, Status},
};

/// An interval of one second.
fn every_second() -> ConfigBuilder {
    config().heartbeat_interval(secs(1))
}

fn beats(raw: &mut Raw, duration: std::time::Duration) -> usize {
    let frames = raw.wait(duration);
    assert!(frames.iter().all(|frame| frame.frame_type() == FrameType::HEARTBEAT), "{:?}", outline(&frames));
    frames.len()
}

#[test]
fn a_heartbeat_is_due_an_interval_after_the_last_write() {
    let mut raw = Raw::server(every_second());
    assert_eq!(beats(&mut raw, ms(999)), 0);
    let beat = raw.wait(ms(1)).remove(0);
    assert_eq!((beat.frame_type(), beat.octets.len()), (FrameType::HEARTBEAT, 18));
    raw.feed(&frames::heartbeat_ack(beat.id()));
    raw.is_quiet();
    assert_eq!(raw.conn.stats().heartbeats_out, 1);
    // Reading all the time does not put it off: the peer must hear us.
    for _ in 0..9 {
        assert_eq!(beats(&mut raw, ms(100)), 0);
        raw.feed(&frames::one_way((raw.now / MS) | 1, b""));
        let call = raw.incoming().call;
        raw.conn.stopped(raw.at(), call);
    }
    assert_eq!(beats(&mut raw, ms(101)), 1);
}

#[test]
fn a_heartbeat_is_due_when_nothing_was_read_and_none_is_unanswered() {
    let mut raw = Raw::server(every_second());
    // It writes every 300 ms, so only silence asks for a heartbeat: one, until that is answered.
    let mut count = 0;
    for _ in 0..6 {
        raw.conn
            .one_way(raw.at(), &tieline_core::conn::CallHead::new("t.S/Echo"), (&b""[..]).into(), 1)
            .unwrap();
        count += raw.wait(ms(300)).iter().filter(|frame| frame.frame_type() == FrameType::HEARTBEAT).count();
    }
    assert_eq!(count, 1);
    // Any ack clears all that were unanswered, whatever its token.
    raw.feed(&frames::heartbeat_ack(12_345));
    raw.events();
    for _ in 0..4 {
        raw.conn
            .one_way(raw.at(), &tieline_core::conn::CallHead::new("t.S/Echo"), (&b""[..]).into(), 1)
            .unwrap();
        count += raw.wait(ms(300)).iter().filter(|frame| frame.frame_type() == FrameType::HEARTBEAT).count();
    }
    assert_eq!(count, 2);
}

#[test]
fn what_is_busy_does_not_beat() {
    let mut raw = Raw::server(every_second());
    for id in 0..50 {
        raw.feed(&frames::call(1 + 2 * id, b""));
        let call = raw.incoming().call;
        raw.reply(call, b"");
        assert_eq!(raw.frames().len(), 1);
        assert_eq!(beats(&mut raw, ms(200)), 0);
    }
}

#[test]
fn heartbeats_are_answered_at_once_with_the_newest_token() {
    let mut raw = Raw::server(every_second());
    raw.feed(&frames::heartbeat(u64::MAX));
    assert!(raw.events().is_empty());
    assert_eq!(outline(&raw.frames()), [(FrameType::HEARTBEAT_ACK, u64::MAX, Status::OK)]);
    raw.takes = false;
    raw.outbox = tieline_core::conn::Outbox::with_mark(1);
    raw.feed(&frames::heartbeat(0));
    raw.events();
    raw.frames();
    for token in 1..=100 {
        raw.feed(&frames::heartbeat(token));
        raw.events();
        raw.frames();
    }
    raw.takes = true;
    assert_eq!(
        outline(&raw.frames()),
        [(FrameType::HEARTBEAT_ACK, 0, Status::OK), (FrameType::HEARTBEAT_ACK, 100, Status::OK)],
        "one that is under way, and one that waits"
    );
}

#[test]
fn an_ack_overtakes_waiting_data() {
    let mut raw = Raw::client(every_second());
    for user in 0..50 {
        raw.call(user);
    }
    raw.feed(&frames::heartbeat(5));
    raw.events();
    let frames = raw.frames();
    assert_eq!((frames[0].frame_type(), frames.len()), (FrameType::HEARTBEAT_ACK, 51));
}

#[test]
fn a_silent_peer_is_dead_after_three_intervals() {
    for interval in [200, 1_000, 10_000, 60_000] {
        let mut raw = Raw::server(config().heartbeat_interval(ms(interval)));
        raw.feed(&frames::call(1, b""));
        raw.incoming();
        raw.call(7);
        let before = raw.now;
        let frames = raw.wait(ms(3 * interval - 1));
        assert!(frames.iter().all(|frame| frame.frame_type() != FrameType::CLOSE));
        assert!(raw.passed.is_empty());
        let mut frames = Vec::new();
        while frames.iter().all(|frame: &frames::Seen| frame.frame_type() != FrameType::CLOSE) {
            frames = raw.wait(ms(1));
            assert!(raw.now - before <= (3 * interval + (interval / 2).max(500)) * MS, "its window is over");
        }
        assert!(raw.now - before >= 3 * interval * MS);
        assert_eq!(frames.last().unwrap().status(), Status::HEARTBEAT_LOST);
        let events = std::mem::take(&mut raw.passed);
        assert!(matches!(events[0], Event::Cancelled(..)), "{events:?}");
        assert!(matches!(events[1], Event::Done { user: 7, .. }), "{events:?}");
        let closed = raw.closed(events);
        assert_eq!((closed.by, closed.status), (By::Us, Status::HEARTBEAT_LOST));
    }
}

#[test]
fn any_octet_that_is_read_is_life_and_own_writes_are_not() {
    let mut raw = Raw::server(every_second());
    let frame = frames::call(1, &[0; 30]);
    // A frame that takes four seconds: an octet a piece is life, at 1 KiB/s or not, for five seconds.
    for octet in &frame[..4] {
        raw.wait(ms(990));
        raw.feed(&[*octet]);
    }
    assert_eq!(raw.conn.next().end, tieline_core::conn::End::Open);
    raw.feed(&frame[4..]);
    raw.incoming();
    // Writing a one-way every 100 ms proves nothing.
    for _ in 0..50 {
        let _ =
            raw.conn.one_way(raw.at(), &tieline_core::conn::CallHead::new("t.S/Echo"), (&b""[..]).into(), 1);
        if raw.wait(ms(100)).iter().any(|frame| frame.status() == Status::HEARTBEAT_LOST) {
            return;
        }
    }
    panic!("a peer that is silent for five seconds was kept");
}

#[test]
fn a_transport_that_takes_nothing_is_dead_too() {
    let mut raw = Raw::server(every_second());
    raw.call(1);
    raw.takes = false;
    let before = raw.now;
    let mut token = 0;
    loop {
        token += 1;
        raw.feed(&frames::heartbeat(token));
        raw.wait(ms(600));
        if raw.passed.iter().any(|event| matches!(event, Event::Closed(_))) {
            break;
        }
        assert!(raw.now - before <= 4_200 * MS);
    }
    assert!(raw.now - before >= 3 * SECOND);
    let events = std::mem::take(&mut raw.passed);
    assert_eq!(raw.closed(events).status, Status::HEARTBEAT_LOST);
    // The CLOSE cannot be written: after a second the line is cut.
    raw.wait(secs(1));
    assert_eq!(raw.conn.next().end, tieline_core::conn::End::Close);
}

#[test]
fn a_pause_of_the_process_is_not_held_against_the_peer() {
    let mut raw = Raw::server(every_second());
    raw.feed(&frames::call(1, b""));
    let call = raw.incoming().call;
    raw.wait(ms(500));
    // An hour later all timers are late at once; only then is the socket read.
    raw.now += 3_600 * SECOND;
    raw.conn.handle_timeout(raw.at());
    raw.turn();
    raw.conn.handle_timeout(raw.at());
    raw.feed(&frames::heartbeat(1));
    for _ in 0..100 {
        raw.now += 10 * MS;
        raw.conn.handle_timeout(raw.at());
        raw.turn();
    }
    assert!(raw.passed.is_empty(), "{:?}", raw.passed);
    raw.conn.reply(raw.at(), call, &Reply::ok((&b""[..]).into())).unwrap();
}

#[test]
fn heartbeats_sooner_than_half_the_interval_cost_eight() {
    let mut raw = Raw::stranger(every_second());
    raw.feed(&frames::heartbeat(0));
    raw.events();
    // 4096 points, eight each: the 512th early one is too much.
    for token in 1..512 {
        raw.feed(&frames::heartbeat(token));
        assert!(raw.events().is_empty(), "{token}");
    }
    raw.frames();
    raw.feed(&frames::heartbeat(512));
    raw.closes_with(Status::EXCESSIVE_LOAD);
    // At half the interval they are free.
    let mut raw = Raw::server(every_second());
    for token in 0..5_000 {
        raw.feed(&frames::heartbeat(token));
        raw.now += 500 * MS;
        assert!(raw.turn().iter().all(|frame| frame.frame_type() != FrameType::CLOSE));
    }
}

#[test]
fn acks_that_nobody_asked_for_cost_one() {
    let mut raw = Raw::stranger(every_second());
    for token in 1..4096 {
        raw.feed(&frames::heartbeat_ack(token));
        assert!(raw.events().is_empty(), "{token}");
    }
    raw.feed(&frames::heartbeat_ack(0));
    raw.closes_with(Status::EXCESSIVE_LOAD);
}

#[test]
fn a_header_that_is_dribbled_is_slow_after_five_seconds_or_three_intervals() {
    for (interval, window) in [(1_000, 5_000), (4_000, 12_000)] {
        let mut raw = Raw::server(config().heartbeat_interval(ms(interval)));
        let frame = frames::call(1, b"");
        let before = raw.now;
        for octet in &frame[..17] {
            raw.feed(&[*octet]);
            raw.wait(ms(window / 16));
            if raw.passed.iter().any(|event| matches!(event, Event::Closed(_))) {
                break;
            }
        }
        let events = std::mem::take(&mut raw.passed);
        assert_eq!(raw.closed(events).status, Status::SLOW_PEER);
        let after = (raw.now - before) / MS;
        assert!(after >= window && after <= window + window / 8, "after {after} ms");
    }
}

#[test]
fn a_body_below_1_kib_a_second_is_slow_and_one_at_it_is_not() {
    for (per_second, slow) in [(1_024, false), (2_000, false), (900, true), (100, true)] {
        let mut raw = Raw::server(every_second());
        let frame = frames::call(1, &[0; 60_000]);
        raw.feed(&frame[..40]);
        let mut at = 40;
        let mut seconds = 0;
        while at < frame.len() && raw.passed.is_empty() {
            raw.wait(ms(250));
            let next = (at + per_second / 4).min(frame.len());
            raw.feed(&frame[at..next]);
            at = next;
            seconds += 1;
            assert!(seconds < 300);
        }
        let events = std::mem::take(&mut raw.passed);
        if slow {
            assert_eq!(raw.closed(events).status, Status::SLOW_PEER, "{per_second}");
            assert!((20..=40).contains(&seconds), "{seconds} quarters of a second");
        } else {
            assert!(events.is_empty(), "{per_second}: {events:?}");
            raw.incoming();
        }
    }
}

#[test]
fn a_peer_that_takes_its_answers_an_octet_at_a_time_is_slow() {
    use bytes::Buf;
    let mut raw = Raw::server_for(
        every_second(),
        CheckIn { identifier: "peer", max_concurrent: 100, ..CheckIn::default() },
    );
    raw.feed(&frames::call(1, b""));
    let call = raw.incoming().call;
    raw.reply(call, &[0; 60_000]);
    raw.takes = false;
    raw.turn();
    for quarter in 1..60 {
        raw.feed(&frames::heartbeat(quarter));
        raw.wait(ms(600));
        raw.outbox.advance(10);
        raw.conn.handle_sent(raw.at(), 10);
        if !raw.passed.is_empty() {
            let events = std::mem::take(&mut raw.passed);
            assert_eq!(raw.closed(events).status, Status::SLOW_PEER);
            assert!((8..=12).contains(&quarter), "after {quarter} × 600 ms");
            // Nor does it hold the line by taking the rest so slowly.
            for _ in 0..10 {
                raw.wait(ms(600));
                raw.outbox.advance(10);
                raw.conn.handle_sent(raw.at(), 10);
            }
            assert_eq!(raw.conn.next().end, tieline_core::conn::End::Close);
            return;
        }
    }
    panic!("a peer that takes 17 octets a second was kept");
}

#[test]
fn if_death_and_slowness_are_both_due_it_is_death() {
    let mut raw = Raw::server(config().heartbeat_interval(secs(2)));
    let frame = frames::call(1, &[0; 1000]);
    raw.feed(&frame[..500]);
    raw.wait(secs(7));
    let events = std::mem::take(&mut raw.passed);
    assert_eq!(raw.closed(events).status, Status::HEARTBEAT_LOST);
}

#[test]
fn an_idle_line_wakes_for_heartbeats_alone() {
    let mut raw = Raw::server(every_second());
    let mut wakes = 0;
    let until = raw.now + 60 * SECOND;
    while raw.now < until {
        raw.now = raw.conn.poll_timeout().unwrap().as_nanos();
        raw.conn.handle_timeout(raw.at());
        wakes += 1;
        for frame in raw.turn() {
            raw.feed(&frames::heartbeat_ack(frame.id()));
        }
        raw.turn();
    }
    assert!(wakes <= 61, "{wakes} in a minute");
    assert!(raw.passed.is_empty());
}

#[test]
fn an_endpoint_may_close_what_is_idle_counted_from_the_end_of_its_last_call() {
    let mut raw = Raw::server(every_second().idle_timeout(ms(500)));
    raw.feed(&frames::call(1, b""));
    let call = raw.incoming().call;
    assert!(raw.wait(ms(499)).is_empty());
    raw.reply(call, b"");
    assert_eq!(raw.wait(ms(400)).len(), 1, "the answer alone: it was busy just now");
    raw.call(1);
    let id = raw.wait(ms(900))[0].id();
    raw.feed(&frames::response(id, Status::OK, b""));
    raw.turn();
    assert!(raw.wait(ms(499)).iter().all(|frame| frame.frame_type() != FrameType::CLOSE));
    let frames = raw.wait(ms(1));
    assert_eq!(frames.last().map(frames::Seen::status), Some(Status::IDLE));
}
