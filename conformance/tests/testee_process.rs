//! The testee as a process: its options, its stop, and what it says when it cannot start.
#![allow(clippy::unwrap_used, clippy::panic)]

mod support;

use std::{net::TcpListener, sync::Arc, time::Duration};

use support::{Testee, call, each, name, run, runtimes, stats_until, varint};
use tieline_commands::process::{Ended, assert_one_error};
use tieline_tokio::{Client, ConnectError, Ran, Status};

#[test]
fn the_limits_of_the_annex_are_announced() {
    each(&[], |testee| async move {
        let info = testee.client().await.peer().unwrap().info().unwrap();
        assert_eq!(info.identifier, "testee");
        let frame = (info.max_frame, info.max_message, info.max_item, info.stream_window);
        assert_eq!(frame, (64 << 10, 1 << 20, 64 << 10, 64 << 10));
        assert_eq!((info.max_concurrent, info.max_streams), (64, 16));
        assert_eq!(info.heartbeat_interval, Duration::from_secs(10));
        let beats = Client::builder("suite").heartbeat_interval(Duration::from_millis(20));
        let info = beats.connect(&testee.address).await.unwrap().peer().unwrap().info().unwrap();
        assert_eq!(info.heartbeat_interval, Duration::from_millis(100), "the least");
    });
}

#[test]
fn what_it_is_told_is_announced() {
    let options = [
        "--max-frame",
        "16KiB",
        "--max-message=2MiB",
        "--max-item",
        "4096",
        "--stream-window",
        "8192",
        "--max-concurrent",
        "3",
        "--max-streams",
        "2",
        "--identifier",
        "other",
        "--least-heartbeat",
        "250ms",
        "--most-heartbeat",
        "300ms",
        "--check-in-timeout",
        "100ms",
    ];
    each(&options, |testee| async move {
        let info = testee.client().await.peer().unwrap().info().unwrap();
        assert_eq!(info.identifier, "other");
        let frame = (info.max_frame, info.max_message, info.max_item, info.stream_window);
        assert_eq!(frame, (16 << 10, 2 << 20, 4096, 8192));
        assert_eq!((info.max_concurrent, info.max_streams), (3, 2));
        assert_eq!(info.heartbeat_interval, Duration::from_millis(300), "10 s clamped");
        let mut silent = tokio::net::TcpStream::connect(&testee.address).await.unwrap();
        let mut said = Vec::new();
        tokio::io::AsyncReadExt::read_to_end(&mut silent, &mut said).await.unwrap();
        assert_eq!(said[..6], [0xBE, 0xA7, 1, 0x0E, 0, 0x84], "CLOSE CHECK_IN_TIMEOUT");
    });
}

#[test]
fn with_a_credential_who_shows_another_is_refused() {
    each(&["--credential", "secret"], |testee| async move {
        let Testee { process: _running, address } = testee;
        let good = Client::builder("suite").credential(b"secret");
        let client = good.connect(&address).await.unwrap();
        let peer = client.peer().unwrap();
        assert_eq!(call(&peer, "Echo", b"x").await.0, Status::OK);
        for wrong in [&b""[..], b"secre", b"secrets"] {
            let client = Client::builder("suite").credential(wrong).connect(&address).await;
            let Err(ConnectError::CheckIn { closed, .. }) = client else { panic!("{client:?}") };
            assert_eq!(closed.status, Status::CHECK_IN_REFUSED);
        }
    });
}

#[test]
fn sigterm_drains_under_load() {
    for signal in ["TERM", "INT"] {
        each(&[], |testee| async move {
            let Testee { process, address } = testee;
            let client = Client::builder("suite").connect(&address).await.unwrap();
            let peer = client.peer().unwrap();
            let sleeping: Vec<_> = (0..8)
                .map(|_| {
                    let client = client.clone();
                    let argument = [varint(400), b"done".to_vec()].concat();
                    tokio::spawn(async move { client.call(&name("Sleep"), argument).await })
                })
                .collect();
            stats_until(&peer, |stats| stats["running"] == 8).await;
            let load = peer.clone();
            let echoing = tokio::spawn(async move {
                let mut answered = 0_u64;
                loop {
                    match load.call(&name("Echo"), "x").await {
                        Ok(_) => answered += 1,
                        Err(error) => return (answered, error),
                    }
                }
            });
            stats_until(&peer, |stats| stats["started"].as_u64() > Some(100)).await;
            process.signal(signal);
            for call in sleeping {
                assert_eq!(call.await.unwrap().unwrap().payload, "done", "what was begun is finished");
            }
            let (answered, error) = echoing.await.unwrap();
            assert!(answered > 0 && error.ran() == Ran::No, "after {answered}: {error}");
            assert_eq!(peer.closed().await.status, Status::GOING_AWAY);
            let Ended { code, left: [out, err], .. } = process.end();
            assert_eq!(code, Some(0), "{err:#?}");
            assert!(err.is_empty(), "{err:#?}");
            assert!(out.last().unwrap().starts_with("goodbye: "), "{out:#?}");
        });
    }
}

#[test]
fn what_does_not_end_in_time_is_interrupted() {
    each(&["--grace", "50ms"], |testee| async move {
        let Testee { process, address } = testee;
        let client = Arc::new(Client::builder("suite").connect(&address).await.unwrap());
        let peer = client.peer().unwrap();
        let calling = Arc::clone(&client);
        let call =
            tokio::spawn(async move { calling.call(&name("Stubborn"), varint(60_000)).no_timeout().await });
        stats_until(&peer, |stats| stats["running"] == 1).await;
        process.signal("TERM");
        assert_eq!(call.await.unwrap().unwrap_err().status(), Status::INTERRUPTED);
        let Ended { code, left: [_, err], .. } = process.end();
        assert_eq!((code, err.len()), (Some(0), 0), "{err:#?}");
    });
}

#[test]
fn asked_twice_it_stops_at_once() {
    each(&["--grace", "3600s"], |testee| async move {
        let Testee { process, address } = testee;
        let client = Client::builder("suite").connect(&address).await.unwrap();
        let peer = client.peer().unwrap();
        let calling = client.clone();
        tokio::spawn(async move { calling.call(&name("Sleep"), varint(60_000)).no_timeout().await });
        stats_until(&peer, |stats| stats["running"] == 1).await;
        process.signal("TERM");
        // Signals of one kind that come at once count once; this one comes when the first has been heard.
        while peer.call(&name("Echo"), "x").await.is_ok() {}
        process.signal("TERM");
        let Ended { code, left: [out, _], .. } = process.end();
        assert_eq!(code, Some(0));
        assert_eq!(out.last().unwrap(), "goodbye: stopped at once, as asked twice");
    });
}

#[test]
fn what_is_wrong_is_said_in_one_line() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    for runtime in runtimes() {
        let testee = ["testee", "--runtime", runtime];
        let ended = run(&[&testee[..], &["--listen", &address]].concat());
        assert_one_error(&ended, 1, &[&format!("cannot listen on {address}: ")]);
        let ended = run(&[&testee[..], &["--max-frame", "1"]].concat());
        assert_one_error(&ended, 1, &["limits.max_frame is 1, but must be 16 KiB to 1 MiB"]);
        let ended = run(&[&testee[..], &["--identifier", "no spaces"]].concat());
        assert_one_error(&ended, 1, &["the identifier \"no spaces\" is not"]);
    }
    let ended = run(&["testee", "--runtime", "smol"]);
    assert_one_error(&ended, 2, &["there is no runtime \"smol\": say one of tokio, async-std, mio"]);
    assert_one_error(&run(&["testee", "--max-frame", "x"]), 2, &["--max-frame \"x\" is not a number"]);
    assert_one_error(&run(&["testee"]), 2, &["--runtime, one of tokio, async-std, mio"]);
    assert_one_error(&run(&[]), 2, &["say what to do: testee or driver"]);
}

#[test]
fn help_and_version() {
    let Ended { code, left: [out, err], .. } = run(&["help"]);
    assert_eq!((code, err.len()), (Some(0), 0));
    assert!(out.iter().any(|line| line.contains("testee --runtime tokio|async-std|mio")), "{out:#?}");
    let Ended { code, left: [out, _], .. } = run(&["--version"]);
    assert_eq!((code, out.len()), (Some(0), 1));
}
