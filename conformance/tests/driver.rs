//! The driver, told by lines what to do with a testee.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout)]

mod support;

use serde_json::{Value, json};
use support::{Driver, Testee, b64, runtimes, varint};
use tieline_commands::process::Ended;

/// Runs a test with a connected driver on every runtime; the testee is on the next one, so that they meet.
fn each(options: &[&str], test: impl Fn(&mut Driver)) {
    for (runtime, other) in runtimes().zip(runtimes().cycle().skip(1)) {
        println!("driver on {runtime}, testee on {other}");
        let testee = Testee::start(other, options);
        let mut driver = Driver::connected(runtime, &testee.address);
        test(&mut driver);
        driver.process.hang_up();
        let Ended { code, left: [out, err], .. } = driver.process.end();
        assert_eq!((code, out.len(), err.len()), (Some(0), 0, 0), "left over: {out:#?} {err:#?}");
    }
}

fn ok(token: &Value) -> Value {
    json!({"t": token, "ok": true})
}

#[test]
fn a_call_is_answered_with_its_outcome() {
    each(&[], |driver| {
        let answer =
            driver.ask(&json!({"t": 1, "cmd": "call", "method": "Echo", "payload_b64": b64(b"hello")}));
        assert!(answer["ms"].is_u64(), "{answer}");
        let expected = json!({"t": 1, "ok": true, "status": 0, "message": "", "payload_b64": b64(b"hello"), "ran": "Yes", "ms": answer["ms"]});
        assert_eq!(answer, expected);
        let full = "tieline.testee.v1.Testee/Fail";
        let fail = [&[5][..], "né".as_bytes()].concat();
        let answer = driver
            .ask(&json!({"t": "x", "cmd": "call", "method": full, "payload_b64": b64(&fail), "retry": true}));
        let expected = json!({"t": "x", "ok": false, "status": 5, "message": "né", "payload_b64": "", "ran": "Yes", "ms": answer["ms"]});
        assert_eq!(answer, expected);
        let answer = driver.ask(&json!({"t": 2, "cmd": "call", "method": "NoSuch"}));
        assert_eq!((&answer["status"], &answer["ran"]), (&json!(0x40), &json!("No")), "{answer}");
        let sleep = b64(&varint(60_000));
        let answer = driver
            .ask(&json!({"t": 3, "cmd": "call", "method": "Sleep", "payload_b64": sleep, "timeout_ms": 30}));
        assert_eq!((&answer["status"], &answer["ran"]), (&json!(229), &json!("Maybe")), "{answer}");
        assert!(answer["ms"].as_u64().unwrap() >= 29, "{answer}");
        let fail = b64(b"\0with a message");
        let answer = driver.ask(&json!({"t": 4, "cmd": "call", "method": "Fail", "payload_b64": fail}));
        assert_eq!((&answer["ok"], &answer["message"]), (&json!(true), &json!("with a message")), "{answer}");
        let answer = driver.ask(&json!({"t": 5, "cmd": "call", "method": "Echo", "key_b64": b64(&[0; 65])}));
        assert_eq!((&answer["status"], &answer["ran"]), (&json!(228), &json!("No")), "{answer}");
    });
}

#[test]
fn a_call_that_waits_holds_nobody_up_and_can_be_cancelled() {
    each(&[], |driver| {
        let sleep = b64(&varint(60_000));
        driver.tell(&json!({"t": "slow", "cmd": "call", "method": "Sleep", "payload_b64": sleep}));
        assert_eq!(driver.ask(&json!({"t": 1, "cmd": "call", "method": "Echo"}))["ok"], true);
        assert_eq!(driver.ask(&json!({"t": 2, "cmd": "cancel", "call": "slow"})), ok(&json!(2)));
        let answer = driver.answer(&json!("slow"));
        assert_eq!((&answer["status"], &answer["ran"]), (&json!(1), &json!("Maybe")), "{answer}");
        let answer = driver.ask(&json!({"t": 3, "cmd": "cancel", "call": "slow"}));
        support::assert_refused(&answer, "no call and no stream of this token");
    });
}

#[test]
fn what_never_left_is_not_sent() {
    each(&["--max-concurrent", "1"], |driver| {
        let sleep = b64(&varint(60_000));
        driver.tell(&json!({"t": "first", "cmd": "call", "method": "Sleep", "payload_b64": sleep}));
        // It is committed behind the call.
        assert_eq!(driver.ask(&json!({"t": 0, "cmd": "one_way", "method": "Sink"}))["ok"], true);
        driver.tell(&json!({"t": "second", "cmd": "call", "method": "Echo"}));
        assert_eq!(driver.ask(&json!({"t": 1, "cmd": "cancel", "call": "second"}))["ok"], true);
        let answer = driver.answer(&json!("second"));
        assert_eq!((&answer["status"], &answer["ran"]), (&json!(224), &json!("No")), "{answer}");
        assert_eq!(driver.ask(&json!({"t": 2, "cmd": "cancel", "call": "first"}))["ok"], true);
        assert_eq!(driver.answer(&json!("first"))["status"], 1);
    });
}

#[test]
fn calls_begin_in_the_order_of_their_lines() {
    each(&[], |driver| {
        for number in 0..200 {
            driver.tell(&json!({"t": number, "cmd": "call", "method": "Append", "key_b64": b64(b"room")}));
        }
        for number in 0..200_u64 {
            let answer = driver.answer(&number.into());
            assert_eq!(answer["payload_b64"], b64(&varint(number)), "{answer}");
        }
    });
}

#[test]
fn one_ways_are_handed_over() {
    each(&[], |driver| {
        let sink = json!({"t": 1, "cmd": "one_way", "method": "Sink", "payload_b64": b64(b"12345")});
        assert_eq!(driver.ask(&sink), ok(&json!(1)));
        // What came before a call on one connection is served before it, if neither has to wait.
        let answer = driver.ask(&json!({"t": 2, "cmd": "call", "method": "Stats"}));
        assert!(answer["payload_b64"].as_str().unwrap().len() > 100, "{answer}");
    });
}

#[test]
fn items_come_and_then_the_end() {
    each(&[], |driver| {
        let source = b64(&[varint(3), varint(2)].concat());
        let open = json!({"t": "s", "cmd": "stream_open", "method": "Source", "kind": 1, "payload_b64": source, "credit": 1});
        assert_eq!(driver.ask(&open), ok(&json!("s")));
        for number in 0..3_u8 {
            let answer = driver.ask(&json!({"t": number, "cmd": "stream_recv", "stream": "s"}));
            assert_eq!(answer, json!({"t": number, "ok": true, "item_b64": b64(&[number, number + 1])}));
        }
        let answer = driver.ask(&json!({"t": 4, "cmd": "stream_recv", "stream": "s"}));
        let end = json!({"t": 4, "ok": true, "end": true, "status": 0, "message": "", "payload_b64": "", "ran": "Yes"});
        assert_eq!(answer, end);
        let answer = driver.ask(&json!({"t": 5, "cmd": "stream_recv", "stream": "s"}));
        support::assert_refused(&answer, "no stream of this token");
        let open = json!({"t": "bad", "cmd": "stream_open", "method": "Source", "kind": 1});
        assert_eq!(driver.ask(&open), ok(&json!("bad")));
        let answer = driver.ask(&json!({"t": 6, "cmd": "stream_recv", "stream": "bad"}));
        assert_eq!(
            (&answer["ok"], &answer["end"], &answer["status"]),
            (&json!(false), &json!(true), &json!(3))
        );
        let answer = driver.ask(&json!({"t": 7, "cmd": "stream_open", "method": "Echo", "kind": 0}));
        support::assert_refused(&answer, "`kind` 0 streams nothing");
    });
}

#[test]
fn items_go_and_the_end_tells_what_came_of_them() {
    each(&[], |driver| {
        let open = json!({"t": "sum", "cmd": "stream_open", "method": "Sum", "kind": 2});
        assert_eq!(driver.ask(&open), ok(&json!("sum")));
        // Without waiting for the answers: their order is that of the lines.
        for number in 0..100 {
            let item = b64(&vec![0; number * 30]);
            driver.tell(&json!({"t": number, "cmd": "stream_send", "stream": "sum", "payload_b64": item}));
        }
        driver.tell(&json!({"t": "end", "cmd": "stream_end", "stream": "sum"}));
        assert_eq!(driver.answer(&json!("end")), ok(&json!("end")));
        for number in 0..100 {
            assert_eq!(driver.answer(&number.into()), ok(&number.into()));
        }
        let answer = driver.ask(&json!({"t": "more", "cmd": "stream_send", "stream": "sum"}));
        support::assert_refused(&answer, "sends no items, or has ended them");
        let answer = driver.ask(&json!({"t": "recv", "cmd": "stream_recv", "stream": "sum"}));
        assert_eq!((&answer["end"], &answer["payload_b64"]), (&json!(true), &json!(b64(&varint(148_500)))));
    });
}

#[test]
fn a_bidi_stream_waits_for_credit_and_for_items() {
    each(&["--stream-window", "1024"], |driver| {
        let open = json!({"t": "chat", "cmd": "stream_open", "method": "Chat", "kind": 3, "credit": 1});
        assert_eq!(driver.ask(&open), ok(&json!("chat")));
        let answer =
            driver.ask(&json!({"t": "none", "cmd": "stream_recv", "stream": "chat", "timeout_ms": 20}));
        assert_eq!(
            (&answer["ok"], &answer["status"], &answer["ran"]),
            (&json!(false), &json!(229), &json!("Maybe"))
        );
        // Nobody receives, so neither the testee's items nor, in the end, these ones find credit.
        let item = b64(&[7; 30_000]);
        for number in 0..20 {
            driver.tell(&json!({"t": number, "cmd": "stream_send", "stream": "chat", "payload_b64": item}));
        }
        driver.tell(&json!({"t": "end", "cmd": "stream_end", "stream": "chat"}));
        // It holds nobody up.
        assert_eq!(driver.ask(&json!({"t": "echo", "cmd": "call", "method": "Echo"}))["ok"], true);
        for number in 100..120 {
            let answer = driver.ask(&json!({"t": number, "cmd": "stream_recv", "stream": "chat"}));
            assert_eq!(answer["item_b64"], item, "item {number}");
        }
        for number in 0..20 {
            assert_eq!(driver.answer(&number.into()), ok(&number.into()));
        }
        assert_eq!(driver.answer(&json!("end")), ok(&json!("end")));
        assert_eq!(driver.ask(&json!({"t": "over", "cmd": "stream_recv", "stream": "chat"}))["end"], true);
    });
}

#[test]
fn a_stream_that_is_cancelled_ends_for_all_who_wait_at_it() {
    each(&["--stream-window", "1024"], |driver| {
        for (token, waits) in [("one", true), ("two", false)] {
            let open = json!({"t": token, "cmd": "stream_open", "method": "Chat", "kind": 3, "credit": 1});
            assert_eq!(driver.ask(&open), ok(&json!(token)));
            // When this is answered, the stream's REQUEST has left.
            assert_eq!(driver.ask(&json!({"t": "echo", "cmd": "call", "method": "Echo"}))["ok"], true);
            let (recv, item) = (format!("{token} recv"), b64(&[7; 30_000]));
            if waits {
                driver.tell(&json!({"t": recv, "cmd": "stream_recv", "stream": token, "timeout_ms": 60_000}));
            } else {
                for number in 0..20 {
                    let send = format!("{token} {number}");
                    driver.tell(
                        &json!({"t": send, "cmd": "stream_send", "stream": token, "payload_b64": item}),
                    );
                }
            }
            assert_eq!(driver.ask(&json!({"t": "c", "cmd": "cancel", "call": token})), ok(&json!("c")));
            if !waits {
                let failed = (0..20).filter(|number| {
                    let answer = driver.answer(&json!(format!("{token} {number}")));
                    answer["ok"] == false && answer["status"].is_u64()
                });
                assert!(failed.count() > 0, "they all found credit");
                driver.tell(&json!({"t": recv, "cmd": "stream_recv", "stream": token}));
            }
            let answer = driver.answer(&json!(recv));
            assert_eq!(
                (&answer["end"], &answer["status"], &answer["ran"]),
                (&json!(true), &json!(1), &json!("Maybe"))
            );
        }
    });
}

/// The page is what others write drivers by, so its example is played. Tokens and octets must be as they stand there;
/// the address, times and the end of long messages differ.
#[test]
fn the_conversation_of_the_page_is_true() {
    let page =
        std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/conformance.md")).unwrap();
    let example = page.split("### A conversation").nth(1).unwrap().split("```").nth(1).unwrap();
    for runtime in runtimes() {
        let testee = Testee::start(runtime, &[]);
        let mut driver = Driver::start(runtime);
        let mut answers = 0;
        for line in example.lines() {
            let line = line.replace("127.0.0.1:40123", &testee.address);
            if let Some(command) = line.strip_prefix("> ") {
                driver.process.say(command);
            } else if let Some(answer) = line.strip_prefix("< ") {
                let mut expected: Value = serde_json::from_str(answer).unwrap();
                let mut answer = driver.answer(&expected["t"]);
                if let Some(part) = expected["message"].as_str().and_then(|message| message.strip_suffix('…'))
                {
                    assert!(answer["message"].as_str().unwrap().starts_with(part), "{answer}");
                    expected["message"] = answer["message"].clone();
                }
                if expected["ms"].is_u64() {
                    assert!(answer["ms"].take().is_u64());
                    expected["ms"] = Value::Null;
                }
                assert_eq!(answer, expected);
                answers += 1;
            }
        }
        assert_eq!(answers, 10, "on {runtime}");
    }
}
