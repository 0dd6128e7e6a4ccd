//! Nodes and users as processes, as a tutorial would have them.
#![allow(clippy::unwrap_used, clippy::panic)]

mod common;

use common::{chat, node, run};
use tieline_commands::process::{Ended, Process};

/// Two nodes that know each other: one dials two.
fn cluster() -> (Process, Process, String, String) {
    cluster_on("tokio")
}

fn cluster_on(runtime: &str) -> (Process, Process, String, String) {
    let on = ["--listen", "127.0.0.1:0", "--runtime", runtime];
    let (two, at_two) = node("two", &on);
    let (mut one, at_one) = node("one", &[&on[..], &["--peer", &format!("two={at_two}")]].concat());
    one.expect("peer two is connected");
    (one, two, at_one, at_two)
}

#[test]
fn users_of_two_nodes_talk() {
    let (_one, _two, at_one, at_two) = cluster();
    let mut alice = chat("alice", &at_one, &[]);
    let mut bob = chat("bob", &at_two, &[]);
    alice.say("/to bob hi");
    bob.expect("alice: hi");
    let line = alice.expect("✓");
    assert!(line.starts_with("alice → one ─rpc "), "{line}");
    assert!(line.ends_with(" µs→ two → bob  ✓ accepted ✓ delivered"), "{line}");
    alice.say("are you there?");
    bob.expect("alice: are you there?");
    bob.say("/to alice I am");
    alice.expect("bob: I am");
    let line = bob.expect("✓");
    assert!(line.starts_with("bob → two ─rpc "), "the node that was dialled calls too: {line}");

    alice.say("/where bob");
    alice.expect("bob is at two");
    alice.say("/where alice");
    alice.expect("alice is at one");
    bob.say("/where alice");
    bob.expect("alice is at one");
    bob.say("/who");
    bob.expect("one: alice");
    bob.expect("two: bob");
    alice.say("/to alice note to myself");
    alice.expect("alice → one → alice  ✓ accepted ✓ delivered");

    bob.say("/quit");
    assert_eq!(bob.end().code, Some(0));
    // Node two hears of it in its own time; each answer is true when it is given.
    let gone = (0..10_000).any(|_| {
        alice.say("/where bob");
        alice.expect("bob is ") == "bob is not logged in at any node"
    });
    assert!(gone);
    alice.hang_up();
    assert_eq!(alice.end().code, Some(0));
}

#[test]
fn what_others_write_is_escaped() {
    let (_node, at) = node("one", &[]);
    let mut alice = chat("alice", &at, &[]);
    let mut bob = chat("bob", &at, &[]);
    alice.say("/to bob \u{1b}[31mred \u{202e}drow it's \"鲍勃\"");
    let line = bob.expect("alice: ");
    assert_eq!(line, r#"alice: \u{1b}[31mred \u{202e}drow it's "鲍勃""#);
    // As long as a message may be, and longer.
    alice.say(&format!("/to bob {}", "x".repeat(16 << 10)));
    assert_eq!(bob.expect("xxx").len(), "alice: ".len() + (16 << 10));
    alice.expect("✓ delivered");
    alice.say(&format!("/to bob {}", "x".repeat((16 << 10) + 1)));
    let line = alice.expect("error: ");
    assert!(line.contains("16 KiB"), "{line}");
}

#[test]
fn many_messages_arrive_once_and_in_order() {
    let (_one, _two, at_one, at_two) = cluster();
    let mut alice = chat("alice", &at_one, &[]);
    let mut bob = chat("bob", &at_two, &[]);
    for number in 0..200 {
        alice.say(&format!("/to bob {number}"));
    }
    alice.hang_up();
    for number in 0..200 {
        assert_eq!(bob.expect("alice: "), format!("alice: {number}"));
    }
    let Ended { code, seen: lines, .. } = alice.end();
    assert_eq!(code, Some(0));
    assert_eq!(lines.iter().filter(|line| line.ends_with("✓ accepted ✓ delivered")).count(), 200);
    bob.hang_up();
    let lines = bob.end().seen;
    assert_eq!(lines.iter().filter(|line| line.starts_with("alice: ")).count(), 200);
}

#[test]
fn nodes_stop_cleanly() {
    for (name, runtime) in [("INT", "tokio"), ("TERM", "tokio"), ("INT", "async-std"), ("TERM", "mio")] {
        let (one, two, at_one, _) = cluster_on(runtime);
        let mut alice = chat("alice", &at_one, &[]);
        alice.say("/to alice hi");
        alice.expect("✓ delivered");
        for node in [one, two] {
            node.signal(name);
            let Ended { code, seen: lines, .. } = node.end();
            assert_eq!(code, Some(0), "{lines:#?}");
            assert_eq!(
                lines.iter().filter(|line| line.starts_with("goodbye from ")).count(),
                1,
                "{lines:#?}"
            );
        }
        alice.expect("the connection is lost");
    }
}

#[test]
fn a_node_that_stops_finishes_what_is_under_way() {
    let (_one, two, at_one, at_two) = cluster();
    let mut alice = chat("alice", &at_one, &[]);
    let mut bob = chat("bob", &at_two, &[]);
    let mut carol = chat("carol", &at_two, &[]);
    // Node one knows where both are from now on.
    for user in [("bob", &mut bob), ("carol", &mut carol)] {
        alice.say(&format!("/to {} hi", user.0));
        user.1.expect("alice: hi");
        alice.expect("✓ delivered");
    }
    bob.signal("STOP");
    alice.say("/to bob are you awake?");
    alice.say("/to carol is bob awake?");
    // What node two has handed to carol came after what it got for bob.
    carol.expect("is bob awake?");
    alice.expect("carol  ✓ accepted ✓ delivered");
    two.signal("INT");
    carol.expect("the connection is lost");
    bob.signal("CONT");
    bob.expect("alice: are you awake?");
    alice.expect("bob  ✓ accepted ✓ delivered");
    let Ended { code, seen: lines, .. } = two.end();
    assert_eq!(code, Some(0), "{lines:#?}");
}

#[test]
fn help_and_version() {
    let Ended { code, seen: lines, .. } = run(&["help"]);
    assert_eq!(code, Some(0));
    assert!(lines.iter().any(|line| line.contains("tieline-im chat --as NAME --node HOST:PORT")));
    let Ended { code, seen: lines, .. } = run(&["--version"]);
    assert_eq!((code, lines.len()), (Some(0), 1));
}
