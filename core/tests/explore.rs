//! Every run of a small world: two connections, a few calls, and every order in which frames, verbs and the end of the
//! line can come. Breadth first, so that what is reported first is shortest.
//!
//! A connection cannot be copied, so a state is reached by doing everything that leads to it again. Two states are the
//! same if everything looks the same from outside: what was told, the frames on the line, what the connections say of
//! themselves, and what they would send now. In every state every law is checked, and then everything is brought to its
//! end: it must come to one.
//!
//! `TIELINE_DEPTH=n` explores n steps deep instead of as deep as fits an ordinary test.
#![allow(clippy::unwrap_used, clippy::panic, clippy::cast_possible_truncation, clippy::print_stdout)]

mod support;

use std::{
    collections::HashSet,
    hash::{DefaultHasher, Hasher},
};

use support::small::{Action, Small, World};

fn depth(usual: usize) -> usize {
    std::env::var("TIELINE_DEPTH").ok().and_then(|depth| depth.parse().ok()).unwrap_or(usual)
}

/// A world that has come to where this path leads.
fn at(world: World, path: &[Action]) -> Small {
    let mut small = Small::new(world);
    path.iter().for_each(|action| small.act(*action));
    small
}

fn digest(small: &mut Small) -> u64 {
    let mut hasher = DefaultHasher::new();
    small.look(&mut hasher);
    hasher.finish()
}

/// Explores a world; says where it was when something went wrong.
fn explore(name: &str, world: World, usual: usize) {
    struct Where<'a>(&'a str, Vec<Action>);
    impl Drop for Where<'_> {
        fn drop(&mut self) {
            if std::thread::panicking() {
                println!("in {} behind {:?}", self.0, self.1);
            }
        }
    }
    let mut known = HashSet::new();
    known.insert(digest(&mut at(world, &[])));
    let mut frontier = vec![Vec::new()];
    let (mut transitions, mut steps) = (0u64, 0);
    let most = depth(usual);
    while steps < most && !frontier.is_empty() {
        let mut next = Vec::new();
        for path in frontier {
            for action in at(world, &path).enabled() {
                let mut longer = path.clone();
                longer.push(action);
                let guard = Where(name, longer);
                let mut small = at(world, &guard.1);
                small.laws();
                transitions += 1;
                if known.insert(digest(&mut small)) {
                    small.settle();
                    next.push(guard.1.clone());
                }
            }
        }
        frontier = next;
        steps += 1;
    }
    let all = if frontier.is_empty() { "all there are" } else { "and there are more" };
    println!("{name}: {} states, {transitions} transitions, {steps} steps deep, {all}", known.len());
    assert!(known.len() > 100, "{name} has next to no states");
}

#[test]
fn two_unary_calls() {
    let world = World { calls: &[(0, 40, b"k"), (0, 17_000, b"k")], ..World::DEFAULT };
    explore("two unary calls of one key, one in fragments", world, 12);
}

#[test]
fn one_stream() {
    let world = World { calls: &[(3, 10, b"")], up: 2, down: 1, drains: false, ..World::DEFAULT };
    explore("one stream", world, 17);
}

#[test]
fn a_stream_and_a_call_that_drain() {
    let world = World { calls: &[(2, 17_000, b""), (0, 10, b"")], up: 1, closes: true, ..World::DEFAULT };
    explore("a stream and a call, drain and close", world, 8);
}
