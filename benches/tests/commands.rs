//! The commands as they are used: as processes.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use std::io::{BufRead, BufReader, Read};
use std::net::TcpStream;
use std::process::{Command, Output, Stdio};

use serde_json::Value;

const TARGETS: [&str; 8] = [
    "epoll",
    "blocking",
    "tokio-echo",
    "tieline-tokio",
    "tieline-mio",
    "tieline-async-std",
    "tieline-mio-busy",
    "tieline-blocking",
];

fn program() -> Command {
    Command::new(env!("CARGO_BIN_EXE_tieline-benches"))
}

fn run(line: &str) -> Output {
    program().args(line.split_whitespace()).output().unwrap()
}

fn report(line: &str) -> Value {
    let output = run(line);
    assert!(output.status.success(), "{line}: {output:?}");
    serde_json::from_slice(&output.stdout).unwrap()
}

#[test]
fn a_server_says_where_it_listens_and_ends_with_its_stdin() {
    for target in TARGETS {
        let mut server =
            program().args(["serve", target]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        let mut stdout = BufReader::new(server.stdout.take().unwrap());
        stdout.read_line(&mut line).unwrap();
        let address = line.trim().strip_prefix("listening ").unwrap();
        let mut stream = TcpStream::connect(address).unwrap();
        drop(server.stdin.take());
        assert!(server.wait().unwrap().success());
        // Its sockets are gone with it.
        assert!(matches!(stream.read(&mut [0]), Ok(0) | Err(_)));
    }
}

#[test]
fn every_target_makes_exactly_the_calls_that_it_is_told() {
    for line in [
        "--target blocking --calls 300",
        "--target epoll --calls 3001 --connections 3 --in-flight 16",
        "--target tokio-echo --calls 3001 --connections 3 --in-flight 16",
        "--target epoll --calls 40 --in-flight 4 --payload 1000000",
        "--target tokio-echo --calls 40 --in-flight 4 --payload 1000000",
        "--target tieline-tokio --calls 300",
        "--target tieline-tokio --calls 3001 --connections 3 --in-flight 16",
        "--target tieline-tokio --calls 40 --in-flight 4 --payload 1000000",
        "--target tieline-tokio --calls 40 --in-flight 16 --payload 1048576",
        "--target tieline-tokio --calls 9000 --in-flight 4500",
        "--target tieline-mio --calls 300",
        "--target tieline-mio --calls 3001 --connections 3 --in-flight 16",
        "--target tieline-mio --calls 40 --in-flight 16 --payload 1048576",
        "--target tieline-mio --calls 9000 --in-flight 4500",
        "--target tieline-mio-busy --calls 300",
        "--target tieline-blocking --calls 300",
        "--target tieline-blocking --calls 30 --payload 1048576",
        "--target tieline-tokio --calls 10 --payload 0",
        "--target tieline-async-std --calls 3001 --connections 3 --in-flight 16",
        "--target tieline-async-std --calls 40 --in-flight 16 --payload 1048576",
        "--target tokio-echo --calls 10 --payload 0",
        "--target epoll --calls 10 --payload 0",
    ] {
        let report = report(&format!("load --json {line}"));
        let calls = line.split(' ').skip_while(|word| *word != "--calls").nth(1);
        assert_eq!(report["calls"].to_string(), calls.unwrap(), "{line}");
        assert!(report["client_cpu_us_per_call"].as_f64().unwrap() > 0.0);
        assert!(report["server_cpu_us_per_call"].as_f64().unwrap() > 0.0);
    }
}

#[test]
fn an_open_loop_has_one_latency_a_ticket() {
    for target in TARGETS {
        let report = report(&format!(
            "load --json --target {target} --mode open --rate 500 --seconds 0.4 --warmup 0.1"
        ));
        assert_eq!(report["latency_samples"], 200, "{target}");
        assert_eq!(report["rate"], 500);
        assert!(report["p50_us"].as_f64().unwrap() <= report["max_us"].as_f64().unwrap());
    }
}

#[test]
fn a_stream_is_counted_for_every_sender_and_window() {
    for sender in ["raw", "tieline-tokio", "tieline-tokio-many"] {
        for window in [1000, 65_536, 1 << 20] {
            let line = format!("--sender {sender} --window {window} --seconds 0.1 --warmup 0.05");
            let report = report(&format!("stream --json {line}"));
            assert_eq!(report["sender"], sender);
            assert_eq!(report["window_octets"].as_u64(), (sender != "raw").then_some(window), "{line}");
            assert!(report["items"].as_u64().unwrap() >= 1024, "{line}");
            assert!(report["server_cpu_ns_per_item"].as_f64().unwrap() > 0.0);
        }
    }
    let output = run("stream --sender tieline-tokio --seconds 0.1 --warmup 0");
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(said.contains("window 65536 octets") && said.contains("items/s"), "{said}");
}

/// A run that lost its connection, or a message that was changed, fails: so a report says that neither happened.
#[test]
fn small_calls_are_measured_alone_and_beside_a_large_message_of_either_way() {
    for way in ["up", "down"] {
        let line = format!("--way {way} --octets 4194304 --times 2 --seconds 0.1 --rate 500");
        let report = report(&format!("mixed --json {line}"));
        assert_eq!((report["way"].as_str(), report["octets"].as_u64()), (Some(way), Some(4 << 20)));
        for part in ["closed", "open"] {
            assert!(report[part][0].as_u64().unwrap() > 0, "{line}: {part}");
        }
        for part in ["closed_beside", "open_beside", "idle", "large_alone", "both"] {
            assert!(report[part].is_array(), "{line}: {part}");
        }
        assert!(report["rate"].as_f64().unwrap() > 0.0);
    }
    let output = run("mixed --octets 65536 --times 1 --seconds 0.05");
    let said = String::from_utf8(output.stdout).unwrap();
    for row in ["closed loop, alone", "closed loop, beside", "open loop, beside", "heartbeats of client"] {
        assert!(said.contains(row), "{said}");
    }
}

/// A connection that is lost fails the run, and so does one that has not beaten.
#[test]
fn idle_connections_are_counted_in_memory_wake_ups_and_time() {
    let line = "--connections 40 --quick";
    let output = run(&format!("idle memory wakeups {line}"));
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{said}");
    let rows: Vec<_> =
        said.lines().filter(|line| line.contains("octets an idle connection, of 40 |")).collect();
    assert_eq!(rows.len(), 3, "one an adapter: {said}");
    for row in rows {
        let octets: f64 = row.split('|').nth(3).unwrap().trim().parse().unwrap();
        assert!(octets > 100.0, "{row}");
    }
    assert!(said.contains("wake-ups of an idle connection") && !said.contains("beside"), "{said}");
}

#[test]
fn whoever_holds_connections_says_so_and_tells_whether_it_lost_one() {
    let servers = [
        ("idle:tieline-tokio", false),
        ("polls:tieline-tokio", true),
        ("polls:tieline-async-std", false),
        ("polls:tieline-mio", false),
    ];
    for (served, lost) in servers {
        let mut server =
            program().args(["serve", served]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(server.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let address = line.trim().strip_prefix("listening ").unwrap();
        let mut holder = program()
            .args(["hold", address, "30", "--heartbeat", "1", "--from", "127.0.0.9"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut stdout = BufReader::new(holder.stdout.take().unwrap());
        let mut line = String::new();
        stdout.read_line(&mut line).unwrap();
        assert_eq!(line, "holding 30\n");
        if lost {
            // Its sockets end before it has ended.
            drop(server.stdin.take());
            server.wait().unwrap();
        }
        drop(holder.stdin.take());
        let mut rest = String::new();
        stdout.read_to_string(&mut rest).unwrap();
        assert_eq!(holder.wait().unwrap().success(), !lost);
        assert_eq!(rest, if lost { "" } else { "held 30\n" });
        drop(server.stdin.take());
        server.wait().unwrap();
    }
}

#[test]
fn a_spin_ends_and_tells_its_allocations() {
    for label in ["raw-header", "core-round-trip", "core-round-trip-128"] {
        let output = run(&format!("spin {label} 1000"));
        assert!(output.status.success(), "{output:?}");
        let said = String::from_utf8(output.stdout).unwrap();
        assert!(said.starts_with(&format!("{label}: 1000 round trips, ")), "{said}");
    }
}

#[test]
fn what_cannot_be_done_is_told_and_fails() {
    for line in [
        "",
        "tabel",
        "table --rounds 0",
        "table --fast 1",
        "load",
        "load --target http",
        "load --target blocking --in-flight 2",
        "load --target tieline-tokio --payload 16777216",
        "load --target zeromq --connections 251",
        "stream",
        "stream --sender nobody",
        "stream --sender raw --window 0",
        "mixed --way sideways",
        "mixed --octets 100",
        "mixed --times 0",
        "load --target epoll --address 127.0.0.1:1",
        "spin nothing 1",
        "idle sleeping",
        "idle --target epoll",
        "idle --connections 0",
        "idle --heartbeat 0.1",
        "hold 127.0.0.1:1 1 --heartbeat 0.2",
        "hold nowhere 1",
        "serve epoll --core x",
        "instructions server:blocking",
    ] {
        let output = run(line);
        assert!(!output.status.success(), "{line}");
        assert!(!output.stderr.is_empty(), "{line}");
        assert!(output.stdout.is_empty(), "{line}");
    }
}
