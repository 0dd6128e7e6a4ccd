//! Bad input and bad days: each gives one clear line, no hang, no panic, and no lost acknowledged message.
#![allow(clippy::unwrap_used, clippy::panic)]

mod common;

use std::net::TcpListener;

use common::{chat, nobody, node, run, silent_server, version_2_server, web_server};
use tieline_commands::process::{Process, assert_one_error};

fn pair() -> (Process, Process, String, String) {
    let (two, at_two) = node("two", &[]);
    let (mut one, at_one) = node("one", &["--peer", &format!("two={at_two}")]);
    one.expect("peer two is connected");
    (one, two, at_one, at_two)
}

#[test]
fn the_port_is_taken() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let ended = run(&["node", "--id", "one", "--listen", &address]);
    let listen = format!("cannot listen on {address}: Address already in use");
    assert_one_error(&ended, 1, &[&listen, "; stop who uses the port, or take port 0"]);
}

#[test]
fn bad_names_and_arguments() {
    let ended = run(&["node", "--id", "no spaces"]);
    assert_one_error(&ended, 2, &["--id", r#""no spaces""#, "choose another", "tieline-im help"]);
    let ended = run(&["chat", "--as", "al\nice", "--node", "127.0.0.1:1"]);
    assert_one_error(&ended, 2, &["--as", r#""al\nice""#, "choose another"]);
    let ended = run(&["frobnicate"]);
    assert_one_error(&ended, 2, &["frobnicate", "demo, node or chat"]);
    let ended = run(&["demo", "--runtimes", "tokio,smol"]);
    assert_one_error(&ended, 2, &["--runtimes", r#"no runtime "smol""#, "tokio", "async-std", "mio"]);
    let ended = run(&["chat", "--as", "alice", "--node", "nonsense"]);
    assert_one_error(&ended, 2, &["--node", "nonsense", "HOST:PORT"]);

    let (_node, at) = node("one", &[]);
    let mut alice = chat("alice", &at, &[]);
    alice.say("/to b!b hi");
    let line = alice.expect("error: ");
    assert!(line.contains(r#"the name "b!b""#) && line.contains("choose another"), "{line}");
    alice.hang_up();
    assert_eq!(alice.end().code, Some(1), "what was not understood fails the command");
}

#[test]
fn an_unknown_user() {
    let (_one, _two, at_one, _) = pair();
    let mut alice = chat("alice", &at_one, &[]);
    alice.say("/to nemo hi");
    let line = alice.expect("nemo: ");
    assert_eq!(
        line,
        "nemo: not delivered: nemo is not logged in at any node; look at /who, or try again later"
    );
    alice.say("/where nemo");
    alice.expect("nemo is not logged in at any node");
    alice.hang_up();
    assert_eq!(alice.end().code, Some(1));
}

#[test]
fn a_name_that_is_taken() {
    let (_node, at) = node("one", &[]);
    let alice = chat("alice", &at, &[]);
    let ended = run(&["chat", "--as", "alice", "--node", &at]);
    assert_one_error(&ended, 1, &["alice is logged in here already", "choose another name"]);
    drop(alice);
}

#[test]
fn nobody_listens() {
    let address = nobody();
    let ended = run(&["chat", "--as", "alice", "--node", &address]);
    let connect = format!("cannot connect to {address}: Connection refused");
    assert_one_error(&ended, 1, &[&connect, "is a node listening there?"]);
}

#[test]
fn a_web_server_is_no_node() {
    let address = web_server();
    let ended = run(&["chat", "--as", "alice", "--node", &address]);
    assert_one_error(&ended, 1, &[&address, "did not check in", "is it a Tieline node"]);
}

#[test]
fn a_server_that_says_nothing() {
    let address = silent_server();
    let ended = run(&["chat", "--as", "alice", "--node", &address, "--timeout", "300ms"]);
    assert_one_error(&ended, 1, &[&address, "did not check in", "is it a Tieline node?"]);
}

#[test]
fn a_node_of_another_version() {
    let address = version_2_server();
    let ended = run(&["chat", "--as", "alice", "--node", &address]);
    assert_one_error(&ended, 1, &[&address, "VERSION_UNSUPPORTED", "bring both ends to the same version"]);
}

/// A node lives with peers that are no nodes: it says so once, and its users hear which node could not be asked.
#[test]
fn peers_that_are_no_nodes() {
    for (address, part) in [
        (web_server(), "is it a Tieline node"),
        (silent_server(), "is it a Tieline node"),
        (version_2_server(), "bring both ends to the same version"),
        (nobody(), "is a node listening there?"),
    ] {
        let (mut one, at) = node("one", &["--peer", &format!("two={address}")]);
        let line = one.expect("peer two cannot be reached");
        assert!(line.contains(&address) && line.contains(part), "{line}");
        let mut alice = chat("alice", &at, &[]);
        alice.say("/to bob hi");
        let line = alice.expect("bob: ");
        assert!(
            line.starts_with("bob: not delivered: nobody knows where bob is: node two cannot be"),
            "{line}"
        );
        assert!(line.contains(part) && line.ends_with("; try again"), "{line}");
        alice.say("/who");
        alice.expect("one: alice");
        alice.expect("two: cannot be asked: ");
        alice.say("/to alice but here all is well");
        alice.expect("✓ accepted ✓ delivered");
        one.signal("INT");
        assert_eq!(one.end().code, Some(0));
    }
}

#[test]
fn a_peer_of_another_name() {
    let (_two, at_two) = node("two", &[]);
    let (mut one, _) = node("one", &["--peer", &format!("three={at_two}")]);
    let line = one.expect("peer three cannot be used");
    assert!(line.contains(&format!("{at_two} is node:two, not node:three; correct --peer")), "{line}");
}

#[test]
fn a_node_that_dies_while_a_message_is_under_way() {
    let (_one, two, at_one, at_two) = pair();
    let mut alice = chat("alice", &at_one, &["--timeout", "1500ms"]);
    let mut bob = chat("bob", &at_two, &[]);
    alice.say("/to bob hi");
    bob.expect("alice: hi");
    alice.expect("✓ delivered");
    // Node two takes the message and cannot do anything with it; then it dies.
    two.signal("STOP");
    alice.say("/to bob and now?");
    alice.say("/where alice");
    alice.expect("alice is at one");
    two.signal("KILL");
    let line = alice.expect("bob: ");
    assert!(line.starts_with("bob: not confirmed: node two cannot be reached ("), "{line}");
    assert!(line.ends_with("it may have arrived, so ask before you send it again"), "{line}");
    bob.expect("the connection is lost");
    // From now on it is certain that nothing was sent.
    alice.say("/to bob hello?");
    let line = alice.expect("bob: ");
    assert!(line.starts_with("bob: not delivered: ") && line.ends_with("try again"), "{line}");
    alice.hang_up();
    assert_eq!(alice.end().code, Some(1));
    bob.hang_up();
    let lines = bob.end().seen;
    assert!(!lines.iter().any(|line| line.contains("and now?")), "{lines:#?}");
}

#[test]
fn a_node_that_dies_and_comes_back_in_time() {
    let (_one, two, at_one, at_two) = pair();
    let mut alice = chat("alice", &at_one, &["--timeout", "15s"]);
    let mut bob = chat("bob", &at_two, &[]);
    alice.say("/to bob hi");
    bob.expect("alice: hi");
    alice.expect("✓ delivered");
    two.signal("STOP");
    for text in ["first", "second", "third"] {
        alice.say(&format!("/to bob {text}"));
    }
    alice.say("/where alice");
    alice.expect("alice is at one");
    two.signal("KILL");
    two.end();
    let (_two, _) = node("two", &["--listen", &at_two]);
    bob.expect("bob: back at two");
    for text in ["first", "second", "third"] {
        bob.expect(&format!("alice: {text}"));
        alice.expect("bob  ✓ accepted ✓ delivered");
    }
    alice.hang_up();
    assert_eq!(alice.end().code, Some(0));
    bob.hang_up();
    let lines = bob.end().seen;
    let read: Vec<_> = lines.iter().filter(|line| line.starts_with("alice: ")).collect();
    assert_eq!(read, ["alice: hi", "alice: first", "alice: second", "alice: third"]);
}

#[test]
fn the_users_own_node_dies_and_comes_back() {
    let (one, at) = node("one", &[]);
    let mut alice = chat("alice", &at, &["--timeout", "2s"]);
    one.signal("KILL");
    one.end();
    alice.expect("alice: the connection is lost");
    alice.say("/to bob hi");
    let line = alice.expect("bob: ");
    assert!(line.starts_with("bob: not delivered: the node at 127.0.0.1:"), "{line}");
    assert!(line.contains(" cannot be reached (") && line.ends_with("; try again"), "{line}");
    let (_node, _) = node("one", &["--listen", &at]);
    alice.expect("alice: back at one");
    alice.say("/to alice here again");
    alice.expect("alice: here again");
    alice.expect("✓ accepted ✓ delivered");
}

#[test]
fn a_receiver_who_hangs_holds_up_nobody_else() {
    let (_node, at) = node("one", &[]);
    let mut alice = chat("alice", &at, &["--timeout", "1s"]);
    let bob = chat("bob", &at, &[]);
    bob.signal("STOP");
    alice.say("/to bob hello?");
    alice.say("/to alice I wait");
    alice.expect("alice  ✓ accepted ✓ delivered");
    let line = alice.expect("bob: ");
    assert!(line.starts_with("bob: not confirmed: bob has not a"), "{line}");
    drop(bob);
}
