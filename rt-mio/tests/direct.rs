//! The direct layer over real sockets: calls both ways, ends of all kinds, streams, panics.
#![allow(clippy::unwrap_used, clippy::panic)]

mod support;

use std::{
    cell::RefCell,
    io::{Read, Write},
    os::unix::net::UnixStream,
    rc::Rc,
    time::Duration,
};

use bytes::{Buf, Bytes};
use support::{
    ECHO, KEEP, LIMIT, PANIC, STREAM, Told, call, config, outcome, pair, request, socket_path, told, until,
};
use tieline_mio::{
    Body, By, CallHead, Cancel, Closed, Config, ConnId, Connection, Error, Event, Handlers, ItemError, Kind,
    Loop, Mio, Net, Outbox, Ran, Reply, Runtime, Side, Status, Stream, Taken,
};

const TCP: &str = "127.0.0.1:0";

#[test]
fn calls_are_answered_in_both_directions() {
    let (mut node, client, server) = pair(TCP);
    for (number, size) in (0..).zip([0, 1, 100, 5_000, 60_000, 3_000_000]) {
        let body = vec![7u8; size];
        call(&mut node, client, ECHO, &body, number);
        assert_eq!(outcome(&mut node, number).unwrap().payload, body);
        call(&mut node, server, ECHO, &body, number);
        assert_eq!(outcome(&mut node, number).unwrap().payload, body);
    }
    assert_eq!(node.net().peer(client).unwrap().identifier, "server");
    assert_eq!(node.net().peer(server).unwrap().identifier, "client");
}

#[test]
fn a_thousand_calls_at_once_are_answered_each_with_its_own() {
    let (mut node, client, _) = pair(TCP);
    for number in 0..1000u32 {
        call(&mut node, client, ECHO, &number.to_be_bytes(), number);
    }
    for number in 0..1000u32 {
        assert_eq!(outcome(&mut node, number).unwrap().payload, number.to_be_bytes()[..]);
    }
    let stats = node.net().stats(client).unwrap();
    assert_eq!(stats.calls_out, 1000);
}

#[test]
fn many_large_calls_at_once_are_answered() {
    for address in [TCP, &format!("unix:{}", socket_path())] {
        let (mut node, client, _) = pair(address);
        for number in 0..40u32 {
            // The core takes 8 MiB of calls that wait.
            let body = vec![number.to_le_bytes()[0]; 1 << 20];
            if number >= 7 {
                assert_eq!(outcome(&mut node, number - 7).unwrap().payload.len(), 1 << 20);
            }
            call(&mut node, client, ECHO, &body, number);
        }
        for number in 33..40u32 {
            let answer = outcome(&mut node, number).unwrap().payload;
            assert!(answer.len() == 1 << 20 && answer.iter().all(|octet| *octet == number.to_le_bytes()[0]));
        }
    }
}

#[test]
fn a_unix_socket_carries_calls_too_and_leaves_no_file() {
    let path = socket_path();
    let (mut node, client, _) = pair(&format!("unix:{path}"));
    call(&mut node, client, ECHO, b"x", 1);
    assert_eq!(outcome(&mut node, 1).unwrap().payload, "x");
    assert!(std::fs::exists(&path).unwrap());
    drop(node);
    assert!(!std::fs::exists(&path).unwrap());
}

#[test]
fn a_reply_may_come_later_and_say_anything() {
    let (mut node, client, server) = pair(TCP);
    call(&mut node, client, KEEP, b"first", 1);
    call(&mut node, client, KEEP, b"second", 2);
    let (conn, first) = request(&mut node);
    let (_, second) = request(&mut node);
    assert_eq!((conn, &first.payload[..], &second.payload[..]), (server, &b"first"[..], &b"second"[..]));
    node.net().answer(conn, second.call, Body::Copy(b"done")).unwrap();
    assert_eq!(outcome(&mut node, 2).unwrap().payload, "done");
    let error = Error::application(7, "so it goes").detail("detail");
    node.net().reply(conn, first.call, &error.reply()).unwrap();
    let failure = outcome(&mut node, 1).unwrap_err();
    assert_eq!((failure.status(), failure.code(), failure.ran()), (Status(0xC0), 7, Ran::Yes));
    assert_eq!(failure.detail(), "detail");
    // A name that is used too late finds nothing.
    assert!(node.net().answer(conn, first.call, Body::Copy(b"")).is_err());
}

#[test]
fn a_call_can_be_refused() {
    let (mut node, client, server) = pair(TCP);
    call(&mut node, client, KEEP, b"", 1);
    let (_, refused) = request(&mut node);
    node.net().refuse(server, refused.call, &Reply::error(Status::OVERLOADED, "later")).unwrap();
    let failure = outcome(&mut node, 1).unwrap_err();
    assert_eq!((failure.status(), failure.ran()), (Status::OVERLOADED, Ran::No));
}

#[test]
fn a_one_way_arrives_and_nobody_waits() {
    let (mut node, client, _) = pair(TCP);
    node.net().one_way(client, &CallHead::new(ECHO), Body::Copy(b"news"), 5).unwrap();
    assert_eq!(outcome(&mut node, 5).unwrap().payload, "", "it is committed");
    let (conn, news) = request(&mut node);
    assert!(news.one_way);
    assert_eq!(news.payload, "news");
    node.net().stopped(conn, news.call);
}

#[test]
fn a_cancelled_call_ends_at_both_ends() {
    let (mut node, client, server) = pair(TCP);
    let id = node.net().call(client, &CallHead::new(KEEP), Body::Copy(b""), 9).unwrap();
    let (_, running) = request(&mut node);
    assert_eq!(node.net().cancel(client, id), Some(9));
    assert_eq!(node.net().cancel(client, id), None);
    let (conn, call, why) = told(&mut node, "the cancel", |told| match told {
        Told::Cancelled(conn, call, why) => Some((conn, call, why)),
        _ => None,
    });
    assert_eq!((conn, call, why), (server, running.call, Cancel::ByCaller));
}

#[test]
fn a_deadline_ends_a_call_at_both_ends() {
    let (mut node, client, server) = pair(TCP);
    let deadline = node.net().now().saturating_add(Duration::from_millis(30));
    let head = CallHead::new(KEEP).deadline(Some(deadline));
    node.net().call(client, &head, Body::Copy(b""), 1).unwrap();
    let (mut failure, mut cancelled) = (None, None);
    told(&mut node, "both ends of the deadline", |told| {
        match told {
            Told::Done(_, 1, outcome, _) => failure = outcome.err(),
            Told::Cancelled(conn, _, why) => cancelled = Some((conn, why)),
            _ => {}
        }
        (failure.is_some() && cancelled.is_some()).then_some(())
    });
    let status = failure.unwrap().status();
    assert!(matches!(status, Status::TIMEOUT | Status::EXPIRED_RUNNING), "{status}");
    let (conn, why) = cancelled.unwrap();
    assert_eq!(conn, server);
    // Whichever end was first.
    assert!(matches!(why, Cancel::Expired | Cancel::ByCaller), "{why:?}");
}

#[test]
fn a_panic_is_answered_and_ends_nothing_else() {
    let (mut node, client, _) = pair(TCP);
    call(&mut node, client, PANIC, b"", 1);
    let failure = outcome(&mut node, 1).unwrap_err();
    assert_eq!(failure.status(), Status::HANDLER_PANIC);
    assert!(!failure.message().contains("asked to"), "no word of the panic goes out");
    call(&mut node, client, ECHO, b"x", 2);
    assert_eq!(outcome(&mut node, 2).unwrap().payload, "x", "the connection lives on");
}

#[test]
fn a_panic_elsewhere_is_counted_and_ends_nothing_else() {
    let mut node = Loop::new(Handlers::new().function(ECHO, Ok)).unwrap();
    let config = node.app().describe(Config::builder("node")).build().unwrap();
    let listener = node.net().listen(TCP, &config).unwrap();
    let address = node.net().listening(listener).unwrap();
    let client = node.net().connect(&address, &config).unwrap();
    let answers = Rc::new(RefCell::new(Vec::new()));
    for number in 0..3 {
        let answers = Rc::clone(&answers);
        let called =
            node.net().call_then(client, &CallHead::new(ECHO), Body::Copy(b"x"), move |_, _, outcome| {
                assert_ne!(number, 1, "this one panics");
                answers.borrow_mut().push((number, outcome.unwrap().payload));
            });
        called.unwrap();
    }
    until(&mut node, "the answers", |_| answers.borrow().len() == 2);
    assert_eq!(*answers.borrow(), [(0, Bytes::from("x")), (2, Bytes::from("x"))]);
    assert_eq!(node.net().counters().panics, 1);
}

#[test]
fn items_flow_in_both_directions_within_their_credit() {
    let (mut node, client, server) = pair(TCP);
    let mut head = CallHead::new(STREAM);
    head.kind = Kind::Bidi;
    let id = node.net().call(client, &head, Body::Copy(b""), 1).unwrap();
    let (_, served) = request(&mut node);

    // As many as fit, then more when there is room.
    let item = [3u8; 10_000];
    let (mut sent, mut received, mut ended) = (0u32, 0u32, false);
    while !ended {
        while sent < 40 {
            match node.net().send_item(client, id, Body::Copy(&item)) {
                Ok(()) => sent += 1,
                Err(ItemError::Full) => break,
                Err(error) => panic!("{error}"),
            }
            if sent == 40 {
                node.net().end_items(client, id).unwrap();
            }
        }
        told(&mut node, "items, or room for them", |told| match told {
            Told::Readable(conn, Stream::Theirs(call)) => {
                assert_eq!((conn, call), (server, served.call));
                Some(())
            }
            Told::Writable(conn, Stream::Ours(call)) => {
                assert_eq!((conn, call), (client, id));
                Some(())
            }
            _ => None,
        });
        while let Some(taken) = node.net().take_item(server, served.call) {
            match taken {
                Taken::Item(taken) => {
                    assert_eq!(taken, item[..]);
                    received += 1;
                }
                Taken::End => {
                    ended = true;
                    break;
                }
            }
        }
    }
    assert_eq!(received, 40);
    node.net().send_item(server, served.call, Body::Copy(b"back")).unwrap();
    node.net().answer(server, served.call, Body::Copy(b"bye")).unwrap();
    let (outcome, rest) = told(&mut node, "the answer", |told| match told {
        Told::Done(_, 1, outcome, rest) => Some((outcome, rest)),
        _ => None,
    });
    assert_eq!(outcome.unwrap().payload, "bye");
    assert_eq!(rest, [Bytes::from("back")]);
}

#[test]
fn what_is_drained_finishes_its_calls_and_closes() {
    let (mut node, client, server) = pair(TCP);
    call(&mut node, client, KEEP, b"", 1);
    let (_, running) = request(&mut node);
    node.net().drain(server, Status::GOING_AWAY, Duration::from_secs(10), "enough");
    told(&mut node, "the drain", |told| match told {
        Told::Draining(conn, Status::GOING_AWAY) if conn == client => Some(()),
        _ => None,
    });
    let refused = node.net().call(client, &CallHead::new(ECHO), Body::Copy(b""), 2).unwrap_err();
    assert_eq!(refused.user, 2);
    node.net().answer(server, running.call, Body::Copy(b"last")).unwrap();
    assert_eq!(outcome(&mut node, 1).unwrap().payload, "last");
    let closed = told(&mut node, "the end", |told| match told {
        Told::Closed(conn, closed) if conn == client => Some(closed),
        _ => None,
    });
    assert_eq!((closed.by, closed.status), (By::Peer, Status::GOING_AWAY));
    until(&mut node, "both ends to be gone", |node| node.net().is_empty());
    assert!(node.net().call(client, &CallHead::new(ECHO), Body::Copy(b""), 3).is_err());
    assert_eq!(node.net().stats(client), None);
}

#[test]
fn shutting_down_lets_open_calls_finish() {
    let kept = Rc::new(RefCell::new(None));
    let (keep, give) = (Rc::clone(&kept), Rc::clone(&kept));
    let handlers = Handlers::new()
        .method(KEEP, move |net, conn, request| {
            *keep.borrow_mut() = Some((conn, request.call));
            net.set_timer(Duration::from_millis(20)).unwrap();
        })
        .on_timer(move |net, _| {
            let (conn, call) = give.borrow_mut().take().unwrap();
            net.answer(conn, call, Body::Copy(b"kept")).unwrap();
        });
    let mut node = Loop::new(handlers).unwrap();
    let config = node.app().describe(Config::builder("node")).build().unwrap();
    let listener = node.net().listen(TCP, &config).unwrap();
    let address = node.net().listening(listener).unwrap();
    let conn = node.net().connect(&address, &config).unwrap();
    let answered = Rc::new(RefCell::new(None));
    let told = Rc::clone(&answered);
    let called = node.net().call_then(conn, &CallHead::new(KEEP), Body::Copy(b""), move |_, _, outcome| {
        *told.borrow_mut() = Some(outcome.unwrap().payload);
    });
    called.unwrap();
    until(&mut node, "the call to run", |_| kept.borrow().is_some());
    node.shutdown(Duration::from_secs(5)).unwrap();
    assert_eq!(answered.borrow_mut().take().unwrap(), "kept");
    assert!(node.net().is_empty());
    assert_eq!(node.net().listening(listener), None);
    assert!(std::net::TcpStream::connect(&address).is_err(), "nobody listens there any more");
}

#[test]
fn a_connection_that_is_lost_ends_its_calls() {
    let (mut node, client, _) = pair(TCP);
    call(&mut node, client, KEEP, b"", 1);
    let (conn, _) = request(&mut node);
    node.net().close(conn, Status::NORMAL, "that was it");
    let failure = outcome(&mut node, 1).unwrap_err();
    assert_ne!(failure.ran(), Ran::No);
    until(&mut node, "both ends to be gone", |node| node.net().is_empty());
}

/// A peer closes, says why, and is gone before this end hears of it: the next write fails, and what it said is heard all
/// the same.
#[test]
fn what_a_peer_said_last_is_heard_though_a_write_fails() {
    let closed = write_to_who_has_gone(|net, conn| assert!(net.probe(conn)));
    assert_eq!((closed.by, closed.status), (By::Peer, Status::NORMAL), "{closed}");
}

/// The same when this end had decided to close before it heard.
#[test]
fn a_connection_that_cannot_write_its_last_words_ends() {
    let closed = write_to_who_has_gone(|net, conn| net.drain(conn, Status::GOING_AWAY, LIMIT, ""));
    assert_eq!((closed.by, closed.status), (By::Us, Status::GOING_AWAY), "{closed}");
}

/// A peer that closes and goes, after the loop has asked the poller; then `write` on its connection. How that ends.
fn write_to_who_has_gone(write: impl FnOnce(&mut Net<u32>, ConnId) + Send + 'static) -> Closed {
    let clock = Mio::default().clock();
    let (here, mut there) = UnixStream::pair().unwrap();
    let mut node = Loop::new(support::Scribe::default()).unwrap();
    let conn = node.net().adopt_unix(here, Side::Server, &config("server")).unwrap();
    let client = Config::builder("raw").build().unwrap();
    let mut peer: Connection<()> = Connection::new(client, Side::Client, 1, clock.now());
    let mut out = Outbox::new();
    let mut send = move |peer: &mut Connection<()>, there: &mut UnixStream| {
        while peer.poll_transmit(clock.now(), &mut out) {
            there.write_all(out.chunk()).unwrap();
            let octets = out.remaining();
            out.advance(octets);
        }
    };
    send(&mut peer, &mut there);
    until(&mut node, "check-in", |node| node.net().peer(conn).is_some());
    let mut octets = [0; 4096];
    let came = there.read(&mut octets).unwrap();
    let clock = Mio::default().clock();
    peer.handle_input(clock.now(), bytes::BytesMut::from(octets.get(..came).unwrap()));
    assert!(matches!(peer.poll_event(clock.now()), Some(Event::Ready(_))));

    // Done by the loop after it has asked the poller, and before the connection has its turn.
    let happens = move |_: &mut support::Scribe, net: &mut Net<u32>| {
        peer.close(clock.now(), Status::NORMAL, "so long");
        send(&mut peer, &mut there);
        drop(there);
        write(net, conn);
    };
    node.handle().submit(happens).unwrap();
    let closed = told(&mut node, "the end", |told| match told {
        Told::Closed(_, closed) => Some(closed),
        _ => None,
    });
    until(&mut node, "the connection to be gone", |node| node.net().is_empty());
    closed
}

#[test]
fn where_nobody_listens_the_connection_is_closed_and_nothing_ran() {
    // A port that was free a moment ago.
    let address = {
        let listener = std::net::TcpListener::bind(TCP).unwrap();
        listener.local_addr().unwrap().to_string()
    };
    let mut node = Loop::new(support::Scribe::default()).unwrap();
    let conn = node.net().connect(&address, &config("client")).unwrap();
    call(&mut node, conn, ECHO, b"", 1);
    let failure = outcome(&mut node, 1).unwrap_err();
    assert_eq!(failure.ran(), Ran::No);
    let closed = told(&mut node, "the end", |told| match told {
        Told::Closed(closed, how) if closed == conn => Some(how),
        _ => None,
    });
    assert_eq!(closed.by, By::Transport);
    assert!(closed.message.contains("nobody listens there"), "{closed}");
    assert!(node.net().connect("unix:/nowhere/at/all", &config("client")).is_err());
    assert!(node.net().is_empty());
}

#[test]
fn timers_come_in_order_and_can_be_cleared() {
    let mut node = Loop::new(support::Scribe::default()).unwrap();
    let net = node.net();
    let late = net.set_timer(Duration::from_millis(30)).unwrap();
    let early = net.set_timer(Duration::from_millis(5)).unwrap();
    let never = net.set_timer(Duration::from_millis(1)).unwrap();
    assert!(net.clear_timer(never));
    assert!(!net.clear_timer(never));
    let mut come = Vec::new();
    told(&mut node, "the timers", |told| {
        if let Told::Timer(timer) = told {
            come.push(timer);
        }
        (come.len() == 2).then_some(())
    });
    assert_eq!(come, [early, late]);
    assert!(!node.net().clear_timer(late), "it has come");
}

/// One peer sends as much as it can while another makes small calls: those get through.
#[test]
fn a_busy_connection_does_not_starve_the_others() {
    let (mut node, busy, _) = pair(TCP);
    let address = {
        let listener = node.net().listen(TCP, &config("server")).unwrap();
        node.net().listening(listener).unwrap()
    };
    let quiet = node.net().connect(&address, &config("client")).unwrap();
    let large = vec![1u8; 1_000_000];
    for number in 100..105 {
        call(&mut node, busy, ECHO, &large, number);
    }
    // Each answer of the busy one is followed by its next call, so it never ends.
    for small in 0..20 {
        call(&mut node, quiet, ECHO, b"small", small);
        let mut again = Vec::new();
        told(&mut node, "a small answer", |told| match told {
            Told::Done(_, user, outcome, _) if user < 100 => {
                assert_eq!(outcome.unwrap().payload, "small");
                Some(())
            }
            Told::Done(_, user, _, _) => {
                again.push(user);
                None
            }
            _ => None,
        });
        for number in again {
            call(&mut node, busy, ECHO, &large, number);
        }
    }
}

#[test]
fn those_who_do_not_check_in_are_held_to_a_number() {
    let mut node = Loop::new(support::Scribe::default()).unwrap();
    let listener = node.net().listen(TCP, &config("server")).unwrap();
    let address = node.net().listening(listener).unwrap();
    let mut silent = Vec::new();
    for _ in 0..1030 {
        silent.push(std::net::TcpStream::connect(&address).unwrap());
        node.turn(Some(Duration::ZERO)).unwrap();
    }
    until(&mut node, "all to be accepted", |node| node.net().counters().accepted == 1030);
    let mut closed = 0;
    told(&mut node, "the oldest to be closed", |told| {
        if let Told::Closed(_, how) = told {
            assert_eq!((how.by, how.status), (By::Us, Status::TOO_MANY_CONNECTIONS));
            closed += 1;
        }
        (closed == 6).then_some(())
    });
    // Somebody who checks in is welcome all the same.
    let client = node.net().connect(&address, &config("client")).unwrap();
    call(&mut node, client, ECHO, b"x", 1);
    assert_eq!(outcome(&mut node, 1).unwrap().payload, "x");
}
