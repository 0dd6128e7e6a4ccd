//! Each method of the annex, asked by a client.
#![allow(clippy::unwrap_used, clippy::panic)]

mod support;

use std::{sync::Arc, time::Duration};

use support::{call, each, name, stats, stats_until, varint};
use tieline_tokio::{Client, Error, Ran, Status};
use tokio::sync::mpsc;

#[test]
fn echo_sleep_sink_and_append_answer() {
    each(&[], |testee| async move {
        let client = testee.client().await;
        let peer = client.peer().unwrap();
        for octets in [&b""[..], b"hello", &[7; 300_000]] {
            assert_eq!(call(&peer, "Echo", octets).await, (Status::OK, octets.to_vec()));
        }
        let argument = [varint(30), b"rest".to_vec()].concat();
        for method in ["Sleep", "Stubborn"] {
            let began = std::time::Instant::now();
            assert_eq!(call(&peer, method, &argument).await, (Status::OK, b"rest".to_vec()));
            assert!(began.elapsed() >= Duration::from_millis(30), "{method} did not take its time");
        }
        assert_eq!(call(&peer, "Sink", b"12345").await, (Status::OK, vec![]));
        assert_eq!(stats(&peer).await["sunk"], 5);
        for length in [0, 1, 2] {
            assert_eq!(call(&peer, "Append", b"x").await, (Status::OK, varint(length)));
        }
    });
}

#[test]
fn fail_and_panic_answer_as_they_are_asked() {
    each(&[], |testee| async move {
        let client = testee.client().await;
        for status in [1, 3, 16, 31, 0xC0, 0xDF] {
            let argument = [&[status][..], "schlecht — 坏".as_bytes()].concat();
            let error = client.call(&name("Fail"), argument).await.unwrap_err();
            assert_eq!((error.status(), error.message()), (Status(status), "schlecht — 坏"));
        }
        let answer = client.call(&name("Fail"), b"\0all is well".to_vec()).await.unwrap();
        assert_eq!((answer.message(), answer.payload.len()), ("all is well", 0));
        let error = client.call(&name("Panic"), "ignored").await.unwrap_err();
        assert_eq!((error.status(), error.ran()), (Status::HANDLER_PANIC, Ran::Yes));
        assert!(!error.message().contains("asked to"), "{error}");
        let peer = client.peer().unwrap();
        assert_eq!(call(&peer, "Echo", b"still here").await.0, Status::OK);
        let stats = stats(&peer).await;
        assert_eq!(
            (&stats["finished"], &stats["cancelled"]),
            (&9.into(), &0.into()),
            "a panic is an end: {stats}"
        );
    });
}

#[test]
fn an_argument_that_does_not_fit_is_invalid() {
    each(&[], |testee| async move {
        let client = testee.client().await;
        let peer = client.peer().unwrap();
        for (method, argument) in [
            ("Sleep", vec![]),
            ("Sleep", vec![0x80]),
            ("Sleep", vec![0xFF; 11]),
            ("Sleep", varint(60_001)),
            ("Stubborn", varint(u64::MAX)),
            ("Fail", vec![]),
            ("Fail", vec![0x20]),
            ("Fail", vec![0x60, b'x']),
            ("Fail", vec![0xE5]),
            ("Fail", vec![0x05, 0xFF]),
        ] {
            let (status, _) = call(&peer, method, &argument).await;
            assert_eq!(status, Status::INVALID_ARGUMENT, "{method} {argument:?}");
        }
        let most = u64::from(tieline_tokio::Limits::default().max_item);
        for argument in [
            vec![],
            varint(1),
            [varint(1), varint(1), vec![0]].concat(),
            [varint((1 << 20) + 1), varint(0)].concat(),
            [varint(1), varint(most + 1)].concat(),
            [varint(1), varint(u64::MAX)].concat(),
        ] {
            let mut items = peer.server_stream(&name("Source"), argument.clone()).await.unwrap();
            let error = items.next().await.unwrap().unwrap_err();
            assert_eq!(error.status(), Status::INVALID_ARGUMENT, "Source {argument:?}");
        }
    });
}

#[test]
fn the_streams_carry_what_they_should() {
    each(&[], |testee| async move {
        let client = testee.client().await;
        for (count, size) in [(0_u64, 5_usize), (3, 0), (600, 3), (20, 100_000)] {
            let argument = [varint(count), varint(size as u64)].concat();
            let mut items = client.server_stream(&name("Source"), argument).await.unwrap();
            let mut number = 0_usize;
            while let Some(item) = items.next().await {
                let item = item.unwrap();
                assert_eq!(item.len(), size);
                let good =
                    item.iter().enumerate().all(|(at, octet)| usize::from(*octet) == (number + at) % 256);
                assert!(good, "item {number} of {count} × {size}");
                number += 1;
            }
            assert_eq!(number as u64, count);
            assert_eq!(items.finish().await.unwrap().payload, "");
        }

        let mut sum = client.client_stream(&name("Sum"), "ignored").await.unwrap();
        for octets in [0, 1, 300, 60_000] {
            sum.send(vec![1; octets]).await.unwrap();
        }
        assert_eq!(sum.finish().await.unwrap().payload, varint(60_301));

        let (mut sink, mut items) = client.bidi(&name("Chat"), "ignored").await.unwrap().split();
        for number in 0..500_u64 {
            sink.send(varint(number)).await.unwrap();
            if number >= 10 {
                assert_eq!(items.next().await.unwrap().unwrap(), varint(number - 10));
            }
        }
        sink.end().unwrap();
        for number in 490..500 {
            assert_eq!(items.next().await.unwrap().unwrap(), varint(number));
        }
        assert!(items.next().await.is_none());
        assert_eq!(items.finish().await.unwrap().payload, "");
    });
}

#[test]
fn one_ways_are_for_echo_and_sink_alone() {
    each(&[], |testee| async move {
        let client = testee.client().await;
        let peer = client.peer().unwrap();
        for method in ["Sleep", "Stubborn", "Fail", "Panic", "Stats", "CallMe", "Append", "Chat", "NoSuch"] {
            client.one_way(&name(method), varint(1)).await.unwrap();
        }
        client.one_way(&name("Echo"), "x").await.unwrap();
        client.one_way(&name("Sink"), "1234").await.unwrap();
        let stats = stats_until(&peer, |stats| stats["sunk"] == 4).await;
        assert_eq!(stats["dropped_one_ways"], 9, "{stats}");
        assert_eq!((&stats["started"], &stats["finished"]), (&2.into(), &2.into()), "{stats}");
    });
}

#[test]
fn call_me_passes_on_what_the_client_answers() {
    each(&[], |testee| async move {
        let echo = |cx: tieline_tokio::Context, octets: bytes::Bytes| async move {
            let status = Status(octets.first().copied().unwrap_or(0));
            match status.0 {
                0 => Ok(octets),
                // The deadline of the call to CallMe holds here, too.
                1 => Err(Error::new(Status::CANCELLED, format!("deadline {}", cx.deadline().is_some()))),
                0xC0 => Err(Error::application(77, "its own").detail("more")),
                _ => panic!("as a client might"),
            }
        };
        let builder = Client::builder("suite").method("tieline.testee.v1.Testee/Echo", echo);
        let client = builder.connect(&testee.address).await.unwrap();
        let ask = async |octet: u8| client.call(&name("CallMe"), vec![octet, 9]).await;
        assert_eq!(ask(0).await.unwrap().payload, &[0, 9][..]);
        let error = ask(1).await.unwrap_err();
        assert_eq!((error.status(), error.message()), (Status::CANCELLED, "deadline true"));
        let method = name("CallMe");
        let untimed = client.call(&method, vec![1]).no_timeout();
        assert_eq!(untimed.await.unwrap_err().message(), "deadline false");
        let error = ask(0xC0).await.unwrap_err();
        assert_eq!((error.status(), error.code(), error.message()), (Status(0xC0), 77, "its own"));
        assert_eq!(error.detail(), "more");
        assert_eq!(ask(2).await.unwrap_err().status(), Status::INTERNAL, "the client's handler panicked");

        let serves_nothing = testee.client().await;
        let error = serves_nothing.call(&name("CallMe"), "x").await.unwrap_err();
        assert_eq!(error.status(), Status::INTERNAL);
    });
}

#[test]
fn append_shows_the_order_of_each_key() {
    each(&[], |testee| async move {
        let client = Arc::new(testee.client().await);
        let (sender, mut done) = mpsc::unbounded_channel();
        for number in 0..60_u64 {
            let (client, sender) = (Arc::clone(&client), sender.clone());
            // The tasks of one thread begin in their order.
            tokio::spawn(async move {
                let key = [u8::from(number % 2 == 0)];
                let method = name("Append");
                let answer = client.call(&method, "x").ordering_key(&key).await.unwrap();
                sender.send((number, answer.payload)).unwrap();
            });
        }
        for _ in 0..60 {
            let (number, length) = done.recv().await.unwrap();
            assert_eq!(length, varint(number / 2), "call {number}");
        }
    });
}

/// A call that is under way when this returns.
async fn begin(client: &Client, method: &'static str, ms: u64) -> tokio::task::JoinHandle<()> {
    let peer = client.peer().unwrap();
    let before = stats(&peer).await["started"].as_u64().unwrap();
    let calling = client.clone();
    let task = tokio::spawn(async move {
        let _ = calling.call(&name(method), varint(ms)).no_timeout().await;
    });
    stats_until(&peer, |stats| stats["started"].as_u64() > Some(before)).await;
    task
}

#[test]
fn stats_tell_who_was_stopped_and_who_goes_on() {
    each(&[], |testee| async move {
        let client = testee.client().await;
        let peer = client.peer().unwrap();
        let sleeping = begin(&client, "Sleep", 60_000).await;
        let stubborn = begin(&client, "Stubborn", 1_000).await;
        let before = stats(&peer).await;
        assert_eq!((&before["running"], &before["max_running"]), (&2.into(), &2.into()), "{before}");
        assert_eq!((&before["started"], &before["finished"]), (&2.into(), &0.into()), "{before}");
        assert_eq!(before["connections"], 1);
        sleeping.abort();
        stubborn.abort();
        let after = stats_until(&peer, |stats| stats["finished"] == 1).await;
        assert_eq!((&after["cancelled"], &after["running"]), (&1.into(), &1.into()), "{after}");
        // Its caller is gone, and it takes its time all the same.
        let end = stats_until(&peer, |stats| stats["finished"] == 2).await;
        assert_eq!((&end["cancelled"], &end["running"]), (&1.into(), &0.into()), "{end}");
    });
}

#[test]
fn stubborn_outlives_its_connection_and_sleep_does_not() {
    each(&[], |testee| async move {
        let (goes, stays) = (testee.client().await, testee.client().await);
        let peer = stays.peer().unwrap();
        begin(&goes, "Stubborn", 1_000).await;
        begin(&goes, "Sleep", 60_000).await;
        goes.close().await;
        let stats = stats_until(&peer, |stats| stats["connections"] == 1 && stats["finished"] == 1).await;
        assert_eq!((&stats["cancelled"], &stats["running"]), (&1.into(), &1.into()), "{stats}");
        stats_until(&peer, |stats| stats["running"] == 0).await;
    });
}

#[test]
fn a_stubborn_handler_holds_its_slot() {
    each(&["--max-concurrent", "1"], |testee| async move {
        let client = testee.client().await;
        let peer = client.peer().unwrap();
        let method = name("Stubborn");
        let given_up = client.call(&method, varint(1_000)).timeout(Duration::from_millis(20));
        assert_eq!(given_up.await.unwrap_err().status(), Status::TIMEOUT);
        // The call has been answered, so this side may call again; its slot is held nevertheless.
        assert_eq!(call(&peer, "Echo", b"x").await.0, Status::TOO_MANY_CALLS);
        // Whether the handler has ended is asked on another connection: a flood of calls that are refused ends this one.
        let other = testee.client().await;
        stats_until(&other.peer().unwrap(), |stats| stats["finished"] == 1).await;
        // The slot is free soon after.
        let stats = loop {
            let (status, json) = call(&peer, "Stats", &[]).await;
            if status == Status::OK {
                break serde_json::from_slice::<serde_json::Value>(&json).unwrap();
            }
            assert_eq!(status, Status::TOO_MANY_CALLS);
        };
        assert_eq!((&stats["finished"], &stats["cancelled"]), (&1.into(), &0.into()), "{stats}");
        assert!(stats["refused"].as_u64() > Some(0), "{stats}");
    });
}

#[test]
fn what_connections_did_that_are_gone_still_counts() {
    each(&[], |testee| async move {
        let goes = testee.client().await;
        assert_eq!(goes.call(&name("NoSuch"), "").await.unwrap_err().status(), Status::NO_SUCH_METHOD);
        goes.close().await;
        let client = testee.client().await;
        let peer = client.peer().unwrap();
        let stats = stats_until(&peer, |stats| stats["connections"] == 1).await;
        assert_eq!((&stats["refused"], &stats["started"]), (&1.into(), &0.into()), "{stats}");
        let mut members: Vec<&str> = stats.as_object().unwrap().keys().map(String::as_str).collect();
        members.sort_unstable();
        let named = [
            "cancelled",
            "connections",
            "dropped_one_ways",
            "finished",
            "late_frames",
            "max_running",
            "refused",
            "running",
            "started",
            "sunk",
        ];
        assert_eq!(members, named);
        assert!(stats.as_object().unwrap().values().all(serde_json::Value::is_u64), "{stats}");
    });
}
