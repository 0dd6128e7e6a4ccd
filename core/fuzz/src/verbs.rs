//! What an application may do, as a table: an octet picks the row, the octets behind it are its parameters.
//!
//! A new verb goes to the end of the table, so that the inputs of the corpus keep their meaning. What a verb must hold
//! at once is asserted here; what holds always is asked by [`Node::laws`] after each.

use std::time::Duration;

use bytes::Bytes;
use tieline_core::{
    Instant,
    conn::{Body, CallHead, Reply, ReplyError},
    wire::{Metadata, Ran, Status},
};

use super::{
    input::Input,
    node::{Call, METHODS, MS, Node},
    streams::{self, sum},
    watch::CALLBACK,
};

type Verb = fn(&mut Node, &mut Input<'_>);

const VERBS: &[Verb] = &[
    call, one_way, cancel, reply, refuse, panicked, stopped, drain, close, probe, accept, turn_away, slip,
    again, small_call, echo, stream, special, item, item_back, end_items, take, take_back, grant,
];

/// The places in the table of those that the targets use of their own accord.
pub const REPLY: u8 = 3;
pub const PANICKED: u8 = 5;
pub const STOPPED: u8 = 6;
pub const ACCEPT: u8 = 10;
pub const ECHO: u8 = 15;

/// The next verb, from `choice`. Numbers beyond the table do nothing.
pub fn act(node: &mut Node, choice: u8, input: &mut Input<'_>) {
    if let Some(verb) = VERBS.get(usize::from(choice)) {
        verb(node, input);
        node.laws();
    }
}

fn call(node: &mut Node, input: &mut Input<'_>) {
    begin(node, input, false);
}

fn one_way(node: &mut Node, input: &mut Input<'_>) {
    begin(node, input, true);
}

/// Most calls are small and plain, and go the straight way.
fn small_call(node: &mut Node, input: &mut Input<'_>) {
    let _ = input;
    begin(node, &mut Input::new(&[]), false);
}

const KEY: Metadata<'_> = Metadata { key: "k", value: &[1; 20] };
const BAD_KEY: Metadata<'_> = Metadata { key: "K", value: &[] };

fn begin(node: &mut Node, input: &mut Input<'_>, one_way: bool) {
    let user = u32::try_from(node.calls.len()).expect("scripts are short");
    let choice = input.octet();
    let len = if choice & 0x80 == 0 { input.small() } else { input.number().into() };
    let parent = match (choice >> 5) & 3 {
        1 => node.past_served,
        2 | 3 => node.running.last().map(|running| running.call),
        _ => None,
    };
    let lives = node.running.iter().any(|running| Some(running.call) == parent);
    let mut payload = vec![choice; len.max(6)];
    payload[0] = u8::from(one_way);
    payload[1] = if lives { CALLBACK } else { 0 };
    payload[2..6].copy_from_slice(&user.to_be_bytes());
    let mut head = CallHead::new(METHODS[usize::from(choice % 4 / 2 + u8::from(choice % 4 == 3)) % 3]);
    let metadata = [KEY, KEY, BAD_KEY];
    if choice & 4 != 0 {
        let more = input.octet();
        head.priority = [0, 1, -1, 100][usize::from(more & 3)];
        head.codec = u32::from(more >> 2 & 3);
        head.metadata = &metadata[..usize::from(more >> 4 & 3)];
        head.fingerprint = u64::from(more >> 6);
        head.trace = if more & 0x80 == 0 { &[] } else { &[0; 26] };
    }
    if choice & 8 != 0 {
        let after = u64::from(input.octet()) * 20 * MS;
        head.deadline = Some(Instant::from_nanos((node.now + after).saturating_sub(MS)));
    }
    head.parent = parent;
    let body =
        if choice & 16 == 0 { Body::Copy(&payload) } else { Body::Share(Bytes::from(payload.clone())) };
    let at = node.at();
    let begun = if one_way {
        node.conn.one_way(at, &head, body, user)
    } else {
        node.conn.call(at, &head, body, user)
    };
    let mut record = Call { one_way, argument: sum(&payload), ..Call::default() };
    match begun {
        Ok(id) => node.open.push((id, user)),
        Err(rejected) => {
            assert_eq!(rejected.user, user, "L2: a refusal gives the value back");
            record.outcome = Some((rejected.reason.status(), Ran::No));
        }
    }
    node.calls.push(record);
}

fn cancel(node: &mut Node, input: &mut Input<'_>) {
    let choice = input.small();
    if node.open.is_empty() {
        return;
    }
    let (id, user) = node.open[choice % node.open.len()];
    let at = node.at();
    assert_eq!(node.conn.cancel(at, id), Some(user), "L1: what is open can be given up");
    assert_eq!(node.conn.cancel(at, id), None, "L1: once");
    node.ended(user, Status::CANCELLED, Ran::Maybe);
}

/// Names that are used up find nothing.
fn again(node: &mut Node, input: &mut Input<'_>) {
    let _ = input;
    let at = node.at();
    if let Some(id) = node.past_call {
        assert_eq!(node.conn.cancel(at, id), None, "a name that is used up finds another call");
    }
    if let Some(call) = node.past_served {
        let done = node.conn.reply(at, call, &Reply::ok(Body::Copy(b"late")));
        assert_eq!(done, Err(ReplyError::Unknown), "a name that is used up finds another call");
    }
}

/// Takes one of the handlers that run, and gives it its end.
fn end(
    node: &mut Node,
    input: &mut Input<'_>,
    how: impl FnOnce(&mut Node, &mut Input<'_>, Instant, &super::node::Running) -> Result<(), ReplyError>,
) {
    let choice = input.small();
    if node.running.is_empty() {
        return;
    }
    let running = node.running.swap_remove(choice % node.running.len());
    let at = node.at();
    let done = how(node, input, at, &running);
    // Nothing more of its stream is sent or taken.
    if let Some((_, flow)) = node.watch.flows.by_number(false, running.number) {
        flow.answered();
    }
    assert!(!running.cancelled || running.one_way || done.is_err(), "what was cancelled has been answered");
    assert_ne!(done, Err(ReplyError::Unknown), "whoever runs is known");
    node.past_served = Some(running.call);
    node.stopped(running);
}

fn reply(node: &mut Node, input: &mut Input<'_>) {
    end(node, input, |node, input, at, running| {
        let choice = input.octet();
        let status = if choice & 1 == 0 { Status::OK } else { Status(input.octet()) };
        let len = if choice & 2 == 0 { input.small() } else { input.number().into() };
        let octets = vec![choice; len];
        let metadata = [KEY, BAD_KEY];
        let mut reply = Reply::error(status, if choice & 4 == 0 { "" } else { "no\u{7}" });
        reply.body = if choice & 8 == 0 { Body::Copy(&octets) } else { Body::Share(octets.clone().into()) };
        reply.metadata = &metadata[..usize::from(choice >> 4 & 3).min(2)];
        reply.code = u32::from(choice >> 6);
        reply.retry_after = (choice & 0x80 != 0).then_some(Duration::from_millis(5));
        streams::answered(node, running.number, &octets, status);
        node.conn.reply(at, running.call, &reply)
    });
}

/// The usual answer goes the straight way, or is shared if it is large.
fn echo(node: &mut Node, input: &mut Input<'_>) {
    end(node, input, |node, _, at, running| {
        streams::answered(node, running.number, &running.payload, Status::OK);
        node.conn.reply(at, running.call, &Reply::ok(Body::Share(running.payload.clone())))
    });
}

fn refuse(node: &mut Node, input: &mut Input<'_>) {
    end(node, input, |node, input, at, running| {
        let status = Status(input.octet());
        // A call that was cancelled or expired has an answer that says so.
        if let Some(number) = super::watch::number_in(&running.payload) {
            node.refused.insert(number);
        }
        node.conn.refuse(at, running.call, &Reply::error(status, "refused"))
    });
}

fn panicked(node: &mut Node, input: &mut Input<'_>) {
    end(node, input, |node, _, at, running| node.conn.panicked(at, running.call));
}

fn stopped(node: &mut Node, input: &mut Input<'_>) {
    end(node, input, |node, _, at, running| {
        node.conn.stopped(at, running.call);
        // It does not say.
        if running.cancelled { Err(ReplyError::Answered) } else { Ok(()) }
    });
}

fn drain(node: &mut Node, input: &mut Input<'_>) {
    let (status, grace) = (Status(input.octet()), Duration::from_millis(u64::from(input.octet()) * 20));
    let at = node.at();
    node.blames = true;
    node.conn.drain(at, status, grace, "moving");
}

fn close(node: &mut Node, input: &mut Input<'_>) {
    let status = input.pick([Status::NORMAL, Status::GOING_AWAY, Status::SLOW_PEER, Status(0), Status(255)]);
    let at = node.at();
    node.blames = true;
    node.ended = true;
    node.conn.close(at, status, "enough");
}

fn probe(node: &mut Node, input: &mut Input<'_>) {
    let _ = input;
    let at = node.at();
    node.probing |= node.conn.probe(at);
}

fn accept(node: &mut Node, input: &mut Input<'_>) {
    let _ = input;
    let at = node.at();
    node.conn.accept_check_in(at);
    node.undecided = false;
}

fn turn_away(node: &mut Node, input: &mut Input<'_>) {
    let status = Status(input.octet());
    let after = Duration::from_millis(u64::from(status.0) << 30);
    let at = node.at();
    node.blames = true;
    node.conn.refuse_check_in(at, status, "go away", Some(after));
    node.undecided = false;
}

/// L9: the next verb is told an earlier time.
fn slip(node: &mut Node, input: &mut Input<'_>) {
    node.slip = u64::from(input.octet()) * 100 * MS;
}

fn stream(node: &mut Node, input: &mut Input<'_>) {
    streams::begin(node, input, true);
}

/// A call with a key, or a large one, or one that is worth compressing.
fn special(node: &mut Node, input: &mut Input<'_>) {
    streams::begin(node, input, false);
}

fn item(node: &mut Node, input: &mut Input<'_>) {
    streams::items(node, input, true);
}

fn item_back(node: &mut Node, input: &mut Input<'_>) {
    streams::items(node, input, false);
}

fn end_items(node: &mut Node, input: &mut Input<'_>) {
    streams::end_items(node, input);
}

fn take(node: &mut Node, input: &mut Input<'_>) {
    streams::take(node, input, true);
}

fn take_back(node: &mut Node, input: &mut Input<'_>) {
    streams::take(node, input, false);
}

fn grant(node: &mut Node, input: &mut Input<'_>) {
    streams::grant(node, input);
}
