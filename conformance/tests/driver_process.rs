//! The driver as a process: connections, what it serves, mistakes, and the end of its input.
#![allow(clippy::unwrap_used, clippy::panic)]

mod support;

use std::{net::TcpListener, time::Instant};

use serde_json::{Value, json};
use support::{Driver, Testee, assert_refused, b64, run, runtimes, varint};
use tieline_commands::process::{Ended, PATIENCE, assert_one_error};

fn connect(token: &str, address: &str, wait_ms: u64) -> Value {
    json!({"t": token, "cmd": "connect", "addrs": [address], "identifier": "driver", "wait_ms": wait_ms, "backoff_ms": 10})
}

fn state(driver: &mut Driver) -> Value {
    let answer = driver.ask(&json!({"t": "state", "cmd": "state"}));
    assert_eq!(answer["ok"], true);
    answer["connections"].clone()
}

/// Asks until it is so: the driver tells of nothing by itself. Each answer is waited for before it is asked again.
fn state_until(driver: &mut Driver, so: impl Fn(&Value) -> bool) -> Value {
    let limit = Instant::now() + PATIENCE;
    loop {
        let state = state(driver);
        if so(&state) {
            return state;
        }
        assert!(Instant::now() < limit, "{state}");
    }
}

#[test]
fn state_follows_the_connection() {
    for runtime in runtimes() {
        let mut driver = Driver::start(runtime);
        assert_eq!(state(&mut driver), json!([]));
        let answer = driver.ask(&json!({"t": 1, "cmd": "call", "method": "Echo"}));
        assert_eq!(
            (&answer["ok"], &answer["status"], &answer["ran"]),
            (&json!(false), &json!(226), &json!("No"))
        );

        let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
        assert_eq!(driver.ask(&connect("c", &address, 0)), json!({"t": "c", "ok": true, "ready": 0}));
        let lonely = state_until(&mut driver, |state| state[0]["attempts"].as_u64() > Some(2));
        assert!(["connecting", "backoff"].contains(&lonely[0]["state"].as_str().unwrap()), "{lonely}");
        assert_eq!((&lonely[0]["interval_ms"], &lonely[0]["last_close"]), (&json!(0), &json!(0)), "{lonely}");
        let answer = driver.ask(&json!({"t": 2, "cmd": "call", "method": "Echo"}));
        assert_eq!((&answer["status"], &answer["ran"]), (&json!(226), &json!("No")), "{answer}");

        let testee = Testee::start(runtime, &["--listen", &address]);
        let ready = state_until(&mut driver, |state| state[0]["state"] == "ready");
        assert_eq!((&ready[0]["addr"], &ready[0]["interval_ms"]), (&json!(address), &json!(10_000)));
        testee.process.signal("TERM");
        assert_eq!(testee.process.end().code, Some(0));
        let gone = state_until(&mut driver, |state| state[0]["last_close"] == 0x8D);
        assert_ne!(gone[0]["state"], "ready", "{gone}");

        assert_eq!(driver.ask(&json!({"t": 3, "cmd": "close"})), json!({"t": 3, "ok": true}));
        assert_eq!(state(&mut driver)[0]["state"], "closed");
        driver.process.hang_up();
        assert_eq!(driver.process.end().code, Some(0));
    }
}

#[test]
fn a_connection_whose_node_drains_is_told_apart() {
    for runtime in runtimes() {
        let testee = Testee::start(runtime, &[]);
        let mut driver = Driver::connected(runtime, &testee.address);
        let sleep = b64(&varint(1_000));
        driver.tell(&json!({"t": "slow", "cmd": "call", "method": "Sleep", "payload_b64": sleep}));
        // Behind the call that goes before it.
        assert_eq!(driver.ask(&json!({"t": 1, "cmd": "call", "method": "Echo"}))["ok"], true);
        testee.process.signal("TERM");
        let both = state_until(&mut driver, |state| state[1]["state"] == "draining");
        assert_eq!((&both[1]["addr"], &both[1]["interval_ms"]), (&json!(testee.address), &json!(10_000)));
        assert!(["connecting", "backoff"].contains(&both[0]["state"].as_str().unwrap()), "{both}");
        assert_eq!(driver.answer(&json!("slow"))["ok"], true, "what was begun is finished");
        let gone = state_until(&mut driver, |state| state.as_array().unwrap().len() == 1);
        assert_eq!(gone[0]["last_close"], 0x8D, "{gone}");
        assert_eq!(driver.ask(&json!({"t": 2, "cmd": "close"}))["ok"], true);
    }
}

#[test]
fn what_it_serves_is_called_back() {
    for runtime in runtimes() {
        let testee = Testee::start(runtime, &[]);
        let mut driver = Driver::start(runtime);
        let methods = ["tieline.testee.v1.Testee/Echo"];
        let serve = json!({"t": 1, "cmd": "serve", "methods": methods, "max_concurrent": 2, "delay_ms": 30});
        assert_eq!(driver.ask(&serve), json!({"t": 1, "ok": true}));
        assert_refused(&driver.ask(&serve), "`serve` comes once");
        assert_eq!(driver.ask(&connect("c", &testee.address, 10_000))["ready"], 1);
        let call = json!({"t": 2, "cmd": "call", "method": "CallMe", "payload_b64": b64(b"there and back")});
        let answer = driver.ask(&call);
        assert_eq!(answer["payload_b64"], b64(b"there and back"), "{answer}");
        assert!(answer["ms"].as_u64() >= Some(30), "{answer}");
        assert_refused(&driver.ask(&serve), "before `connect`");
    }
}

#[test]
fn what_it_says_of_itself_reaches_the_testee() {
    for runtime in runtimes() {
        let testee = Testee::start(runtime, &["--credential", "secret"]);
        let mut driver = Driver::start(runtime);
        let mut said = connect("c", &testee.address, 10_000);
        said["credential_b64"] = b64(b"secret").into();
        said["heartbeat_ms"] = 150.into();
        said["features"] = json!([1]);
        said["max_item"] = 100.into();
        said["max_message"] = (16 << 20).into();
        assert_eq!(driver.ask(&said)["ready"], 1);
        assert_eq!(state(&mut driver)[0]["interval_ms"], 150);
        let source = |size| b64(&[varint(1), varint(size)].concat());
        for (token, size, status) in [("fits", 100, 0), ("does not", 101, 3)] {
            let open = json!({"t": token, "cmd": "stream_open", "method": "Source", "kind": 1, "payload_b64": source(size)});
            assert_eq!(driver.ask(&open)["ok"], true);
            if status == 0 {
                assert_eq!(driver.ask(&json!({"t": 1, "cmd": "stream_recv", "stream": token}))["ok"], true);
            }
            let end = driver.ask(&json!({"t": 2, "cmd": "stream_recv", "stream": token}));
            assert_eq!((&end["end"], &end["status"]), (&json!(true), &json!(status)), "{end}");
        }
        // Compressible, and far above what is worth a try.
        let echo = json!({"t": 3, "cmd": "call", "method": "Echo", "payload_b64": b64(&[9; 200_000])});
        assert_eq!(driver.ask(&echo)["payload_b64"], b64(&[9; 200_000]));

        let mut refused = Driver::start(runtime);
        assert_eq!(refused.ask(&connect("c", &testee.address, 100))["ready"], 0);
        let state = state_until(&mut refused, |state| state[0]["last_close"] == 0x85);
        assert_eq!((&state[0]["state"], &state[0]["attempts"]), (&json!("backoff"), &json!(1)), "{state}");
    }
}

#[test]
fn what_it_cannot_do_is_said() {
    for runtime in runtimes() {
        let testee = Testee::start(runtime, &[]);
        let mut driver = Driver::start(runtime);
        let with = |field: &str, value: Value| {
            let mut command = connect("c", &testee.address, 0);
            command[field] = value;
            command
        };
        for (field, value, part) in [
            ("addrs", json!([testee.address, "127.0.0.1:1"]), "several is not there yet"),
            ("addrs", json!([]), "one address"),
            ("connections", json!(2), "a pool of several is not there yet"),
            ("features", json!([1, 7]), "feature 7 is not known"),
            ("max_frame", json!(1), "limits.max_frame is 1"),
            ("identifier", json!("no spaces"), "\"no spaces\""),
            ("heartbeat_ms", json!(1), "heartbeat_interval"),
            ("credential_b64", json!("?"), "no base64"),
            ("cmd", json!("fly"), "unknown variant `fly`"),
        ] {
            assert_refused(&driver.ask(&with(field, value)), part);
        }
        assert_eq!(driver.ask(&connect("c", &testee.address, 10_000))["ready"], 1);
        assert_refused(&driver.ask(&connect("c", &testee.address, 0)), "one `connect` a process");
        for stream in ["stream_send", "stream_end", "stream_recv"] {
            assert_refused(
                &driver.ask(&json!({"t": 1, "cmd": stream, "stream": "none"})),
                "no stream of this token",
            );
        }
        let sleep = b64(&varint(60_000));
        driver.tell(&json!({"t": "busy", "cmd": "call", "method": "Sleep", "payload_b64": sleep}));
        let again = driver.ask(&json!({"t": "busy", "cmd": "call", "method": "Echo"}));
        assert_refused(&again, "a call of this token is under way");
    }
}

#[test]
fn a_unix_socket_is_an_address_like_others() {
    for runtime in runtimes() {
        let file = format!("tieline-conformance-{}-{runtime}", std::process::id());
        let address = format!("unix:{}", std::env::temp_dir().join(file).display());
        let testee = Testee::start(runtime, &["--listen", &address]);
        assert_eq!(testee.address, address);
        let mut driver = Driver::connected(runtime, &address);
        assert_eq!(driver.ask(&json!({"t": 1, "cmd": "call", "method": "Echo"}))["ok"], true);
        testee.process.signal("TERM");
        assert_eq!(testee.process.end().code, Some(0));
    }
}

#[test]
fn so_many_streams_are_open_and_no_more() {
    let testee = Testee::start("tokio", &[]);
    let mut driver = Driver::connected("tokio", &testee.address);
    let open = |token: u64| json!({"t": token, "cmd": "stream_open", "method": "Chat", "kind": 3});
    (0..4097).for_each(|token| driver.tell(&open(token)));
    for token in 0..4096_u64 {
        assert_eq!(driver.answer(&token.into())["ok"], true);
    }
    assert_refused(&driver.answer(&json!(4096)), "4096 streams are open, and no more may be");
    driver.tell(&json!({"t": "end", "cmd": "stream_end", "stream": 0}));
    assert_eq!(driver.ask(&json!({"t": "recv", "cmd": "stream_recv", "stream": 0}))["end"], true);
    assert_eq!(driver.ask(&open(4097))["ok"], true, "there is a place again");
}

#[test]
fn a_line_that_nobody_asked_is_complained_of_and_passed_over() {
    for runtime in runtimes() {
        let mut driver = Driver::start(runtime);
        for (line, part) in
            [("{", "no JSON"), ("[]", "not an object"), (r#"{"cmd":"state"}"#, "no token `t`")]
        {
            driver.process.say(line);
            driver.process.find(1, part, |line| {
                line.starts_with("error: a line is not answered: ") && line.contains(part)
            });
        }
        driver.process.say(&"x".repeat((16 << 20) + 1));
        driver.process.find(1, "too long", |line| line.contains("longer than 16777216 octets"));
        driver.process.say("");
        assert_eq!(state(&mut driver), json!([]));
        driver.process.hang_up();
        let Ended { code, left: [out, err], .. } = driver.process.end();
        assert_eq!((code, out.len(), err.len()), (Some(0), 0, 0), "{out:#?} {err:#?}");
    }
}

#[test]
fn at_the_end_of_its_input_everything_is_answered() {
    for runtime in runtimes() {
        let testee = Testee::start(runtime, &[]);
        let mut driver = Driver::connected(runtime, &testee.address);
        let sleep = b64(&varint(60_000));
        driver.tell(&json!({"t": "call", "cmd": "call", "method": "Sleep", "payload_b64": sleep}));
        assert_eq!(
            driver.ask(&json!({"t": "s", "cmd": "stream_open", "method": "Chat", "kind": 3}))["ok"],
            true
        );
        driver.tell(&json!({"t": "recv", "cmd": "stream_recv", "stream": "s", "timeout_ms": 60_000}));
        // When this is answered, both calls have left.
        assert_eq!(driver.ask(&json!({"t": "echo", "cmd": "call", "method": "Echo"}))["ok"], true);
        driver.process.hang_up();
        let Ended { code, left: [out, err], .. } = driver.process.end();
        assert_eq!((code, err.len()), (Some(0), 0), "{err:#?}");
        let mut answers: Vec<Value> = out.iter().map(|line| serde_json::from_str(line).unwrap()).collect();
        answers.sort_by_key(|answer| answer["t"].to_string());
        let [call, recv] = &answers[..] else { panic!("{answers:#?}") };
        for answer in [call, recv] {
            assert_eq!((&answer["ok"], &answer["ran"]), (&json!(false), &json!("Maybe")), "{answer}");
        }
        assert_eq!((&call["t"], &recv["t"], &recv["end"]), (&json!("call"), &json!("recv"), &json!(true)));
    }
}

#[test]
fn a_wrong_command_line_is_one_line() {
    let ended = run(&["driver", "--runtime", "smol"]);
    assert_one_error(&ended, 2, &["there is no runtime \"smol\""]);
    assert_one_error(&run(&["driver"]), 2, &["driver needs to know what to run on"]);
}
