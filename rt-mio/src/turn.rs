//! One turn of one connection: read, tell the application what came, write.
//!
//! A turn is bounded by the octets that it moves; who has more to do is ready again at once, behind all others.

use std::panic::{AssertUnwindSafe, catch_unwind};

use tieline_core::conn::{End, Event};

use crate::{
    accept,
    app::App,
    net::{ConnId, ListenerId, NOBODY, Net, Place},
    poller::direct,
};

/// Octets that one connection reads and writes in one turn, before others have theirs.
const OCTETS: usize = 256 * 1024;
/// Reads of one connection in one turn, whatever they bring.
const READS: usize = 64;
/// Events that one connection has in one turn.
const EVENTS: usize = 4096;
/// Events between two looks at what they made to be written.
const BATCH: usize = 32;
/// Octets that are written together while there is more to answer: a quarter of what was read, within these. The peer
/// has something to do while this end goes on, and each write is large enough to be worth its system call. The most if
/// other connections have their turns meanwhile: their peers have something to do then.
const LEAST_PIECE: usize = 2 * 1024;
const MOST_PIECE: usize = 64 * 1024;

/// Turns the connection, or the listener, of this number.
pub(crate) fn turn<A: App>(app: &mut A, net: &mut Net<A::User>, number: u32) {
    let Some(id) = net.conn_id(number) else { return };
    if let Some(Place::Listener(_)) = net.place(number) {
        return accept::turn(app, net, ListenerId(id.0));
    }
    net.turning = number;
    let again = go_on(app, net, id);
    net.turning = NOBODY;
    if again {
        net.ready.insert(number);
    }
}

/// Whether there is more to do.
fn go_on<A: App>(app: &mut A, net: &mut Net<A::User>, id: ConnId) -> bool {
    let now = net.now;
    let number = id.0.number;
    let (mut moved, mut events) = (0, 0);
    for _ in 0..READS {
        let Some((driven, _, registry)) = net.parts(number) else { return false };
        driven.begin(now, registry, direct(number));
        let came = driven.read(now);
        moved += came;
        let piece = if net.alone { (came / 4).clamp(LEAST_PIECE, MOST_PIECE) } else { MOST_PIECE };
        loop {
            let told = tell(app, net, id);
            events += told;
            if told < BATCH {
                break;
            }
            let Some((driven, scratch, _)) = net.parts(number) else { return false };
            if driven.commit(now, scratch) >= piece {
                moved += driven.write(now, scratch, OCTETS);
            }
            if events >= EVENTS {
                break;
            }
        }
        let Some((driven, scratch, _)) = net.parts(number) else { return false };
        moved += driven.write(now, scratch, OCTETS);

        let next = driven.conn.next();
        driven.wants_read = next.read;
        driven.wake = next.wake;
        match next.end {
            End::Open => {}
            End::ShutWrite => driven.shut(),
            // What came whole before the end is still told.
            End::Close if !next.event => {
                net.forget(number);
                return false;
            }
            End::Close => {}
        }
        let failing = driven.is_mute() && !driven.deaf;
        let again = next.event
            || driven.may_read()
            || failing
            || ((next.write || driven.waits()) && driven.may_write())
            || next.wake.is_some_and(|wake| wake <= now);
        if let Some(wake) = next.wake {
            net.deadlines.arm(number, wake, now);
        }
        if !again || moved >= OCTETS || events >= EVENTS {
            return again;
        }
    }
    true
}

/// Tells the application of up to a batch of events. How many there were.
#[inline]
fn tell<A: App>(app: &mut A, net: &mut Net<A::User>, id: ConnId) -> usize {
    let now = net.now;
    for told in 0..BATCH {
        let Some((driven, _, _)) = net.parts(id.0.number) else { return told };
        // Matched where it is made: an event that gets a name is moved first.
        match driven.conn.poll_event(now) {
            None => return told,
            Some(Event::Request(request)) => {
                let call = request.call;
                if catch_unwind(AssertUnwindSafe(|| app.request(net, id, request))).is_err() {
                    net.panicked(id, call);
                }
            }
            Some(Event::Done { user, outcome, rest }) => {
                contain(app, net, |app, net| app.done(net, id, user, outcome, rest));
            }
            Some(event) => tell_rest(app, net, id, event),
        }
    }
    BATCH
}

#[inline(never)]
fn tell_rest<A: App>(app: &mut A, net: &mut Net<A::User>, id: ConnId, event: Event<A::User>) {
    match event {
        Event::Cancelled(call, why) => {
            let told = catch_unwind(AssertUnwindSafe(|| app.cancelled(net, id, call, why)));
            // Whoever worked on it does not say any more that they have stopped.
            told.unwrap_or_else(|_| net.stopped(id, call));
        }
        Event::Readable(stream) => contain(app, net, |app, net| app.readable(net, id, stream)),
        Event::Writable(stream) => contain(app, net, |app, net| app.writable(net, id, stream)),
        Event::Room => contain(app, net, |app, net| app.room(net, id)),
        Event::Alive => contain(app, net, |app, net| app.alive(net, id)),
        Event::CheckIn(check_in) => contain(app, net, |app, net| app.check_in(net, id, *check_in)),
        Event::Ready(peer) => {
            net.checked_in(id, &peer);
            contain(app, net, |app, net| app.opened(net, id, &peer));
        }
        Event::Draining { status, .. } => contain(app, net, |app, net| app.draining(net, id, status)),
        Event::Closed(closed) => contain(app, net, |app, net| app.closed(net, id, closed)),
        // Others say nothing to an application.
        _ => {}
    }
}

/// Calls the application. A panic ends what it was told of and nothing else.
#[inline]
pub(crate) fn contain<A: App>(
    app: &mut A,
    net: &mut Net<A::User>,
    tell: impl FnOnce(&mut A, &mut Net<A::User>),
) {
    if catch_unwind(AssertUnwindSafe(|| tell(app, net))).is_err() {
        net.counters.panics += 1;
    }
}
