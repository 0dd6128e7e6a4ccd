//! The demo by itself, as a process.
#![allow(clippy::unwrap_used, clippy::panic)]

mod common;

use common::{run, start};
use tieline_commands::process::{Ended, signal};

fn assert_good(lines: &[String], messages: u32) {
    let all = lines.join("\n");
    for part in [
        "alice is logged in at one",
        "bob is logged in at two",
        "bob reads  alice: hello bob, are you there?",
        "alice reads  bob: hello alice, I am at node two",
        &format!("messages  {0} sent, {0} delivered, {0} read: each once and in order  ✓", 2 * messages + 2),
        "the hop   p50 ",
        "goodbye from one",
        "goodbye from two",
    ] {
        assert!(all.contains(part), "no {part:?} in\n{all}");
    }
    let hop = |from: &str, to: &str| {
        lines.iter().any(|line| line.starts_with(from) && line.ends_with(to) && line.contains(" µs→ "))
    };
    assert!(hop("alice → one ─rpc ", "→ two → bob  ✓ accepted ✓ delivered"), "{all}");
    assert!(hop("bob → two ─rpc ", "→ one → alice  ✓ accepted ✓ delivered"), "{all}");
    assert!(!all.contains("error"), "{all}");
}

#[test]
fn the_script_checks_a_thousand_messages_each_way() {
    let Ended { code, seen: lines, .. } = run(&["demo", "--script"]);
    assert_eq!(code, Some(0), "{lines:#?}");
    assert_good(&lines, 1000);
}

#[test]
fn nodes_on_different_runtimes_talk() {
    for runtimes in ["tokio,async-std", "async-std,mio", "mio,tokio", "mio"] {
        let Ended { code, seen: lines, .. } =
            run(&["demo", "--script", "--messages", "300", "--runtimes", runtimes]);
        assert_eq!(code, Some(0), "{runtimes}: {lines:#?}");
        assert_good(&lines, 300);
        let (one, two) = runtimes.split_once(',').unwrap_or((runtimes, runtimes));
        for (node, runtime) in [("one", one), ("two", two)] {
            let said = format!("node {node} listens on {runtime} on 127.0.0.1:");
            assert!(lines.iter().any(|line| line.starts_with(&said)), "no {said:?} in {lines:#?}");
        }
    }
}

#[test]
fn without_a_terminal_it_runs_by_itself() {
    let Ended { code, seen: lines, .. } = run(&["demo", "--messages", "50"]);
    assert_eq!(code, Some(0), "{lines:#?}");
    assert_good(&lines, 50);
}

#[test]
fn a_node_that_dies_fails_the_script() {
    let mut demo = start(&["demo", "--script", "--messages", "100000"]);
    let line = demo.expect("node two listens on ");
    let pid = line.rsplit_once("(process ").unwrap().1.trim_end_matches(')').parse().unwrap();
    demo.expect("100000 more each way");
    signal(pid, "KILL");
    let Ended { code, seen: lines, .. } = demo.end();
    assert_eq!(code, Some(1), "{lines:#?}");
    let all = lines.join("\n");
    assert!(all.contains("not as it should be  ✗") && all.contains("error: "), "{all}");
    assert!(all.contains("error: node two ended with signal: 9"), "{all}");
}

#[test]
fn nodes_do_not_outlive_a_demo_that_is_killed() {
    let mut demo = start(&["demo", "--script", "--messages", "100000"]);
    demo.expect("100000 more each way");
    demo.signal("KILL");
    // The nodes hold its standard error: that it is closed means that they have ended, too.
    assert_eq!(demo.end().code, None);
}
