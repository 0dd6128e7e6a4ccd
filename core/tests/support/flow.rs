//! What an application does with one stream: sends items as long as it likes, takes them as fast as it likes, grants.

use bytes::Bytes;
use tieline_core::{
    Instant,
    conn::{Body, Connection, ItemError, Stream, Taken},
    wire::Kind,
};

use super::{piece::Piece, raw::MS, tap::Tap, world::World};

/// The direction from the caller to the callee, and the other one.
pub const UP: usize = 0;
pub const DOWN: usize = 1;

struct Sending {
    left: usize,
    size: usize,
    pause: u64,
    next: u64,
    /// There was no room, and Writable has not come.
    full: bool,
    over: bool,
    ended: bool,
}

struct Taking {
    /// Readable has come, and the queue was not found empty since.
    readable: bool,
    ended: bool,
    pause: u64,
    next: u64,
    /// How often credit may still be granted, and whether it was after the faults were over.
    grants: usize,
    healed: bool,
}

pub struct Flow {
    pub stream: Stream,
    /// Whose call it is, and its number.
    pub who: usize,
    pub number: u32,
    out: Option<Sending>,
    takes: Option<Taking>,
}

impl Flow {
    pub fn new(world: &mut World, stream: Stream, who: usize, number: u32, kind: Kind, large: bool) -> Self {
        let ours = matches!(stream, Stream::Ours(_));
        let (up, down) = (
            matches!(kind, Kind::ClientStream | Kind::Bidi),
            matches!(kind, Kind::ServerStream | Kind::Bidi),
        );
        let (sends, takes) = if ours { (up, down) } else { (down, up) };
        let (random, now) = (&mut world.random, world.now);
        let pause = |random: &mut super::random::Random| *random.pick(&[0, 0, 0, 5 * MS, 300 * MS]);
        let out = sends.then(|| Sending {
            left: if random.once_in(12) { 60 } else { random.below(9) },
            size: *random.pick(if large {
                &[40, 400, 6_000, 40_000, 150_000]
            } else {
                &[0, 20, 20, 400, 6_000]
            }),
            pause: pause(random),
            next: now,
            full: false,
            over: false,
            ended: false,
        });
        let takes = takes.then(|| Taking {
            readable: false,
            ended: false,
            pause: if random.once_in(6) { u64::MAX } else { pause(random) },
            next: now,
            grants: 5,
            healed: false,
        });
        Self { stream, who, number, out, takes }
    }

    fn is_ours(&self) -> bool {
        matches!(self.stream, Stream::Ours(_))
    }

    fn direction(&self, out: bool) -> usize {
        if self.is_ours() == out { UP } else { DOWN }
    }

    /// Everything is sent, and everything that will come was taken.
    pub fn is_done(&self) -> bool {
        self.out.as_ref().is_none_or(|out| out.left == 0 || out.over)
            && self.takes.as_ref().is_none_or(|takes| takes.ended)
    }

    pub fn wakes_at(&self, healed: bool) -> u64 {
        let mut at = u64::MAX;
        if let Some(out) = &self.out
            && !out.full
            && !out.over
            && (out.left > 0 || self.is_ours() && !out.ended)
        {
            at = at.min(out.next);
        }
        if let Some(takes) = &self.takes {
            if takes.readable {
                at = at.min(takes.next);
            }
            if healed && (takes.readable || !takes.healed && !takes.ended) {
                at = 0;
            }
        }
        at
    }

    pub fn on_readable(&mut self) {
        self.takes.as_mut().expect("Readable where items come").readable = true;
    }

    pub fn on_writable(&mut self) {
        let out = self.out.as_mut().expect("Writable where items go");
        assert!(out.full, "Writable that nobody waits for");
        out.full = false;
    }

    /// One turn. `quiet`: no event waits to be fetched.
    pub fn turn(&mut self, world: &mut World, conn: &mut Connection<u32>, tap: &mut Tap, quiet: bool) {
        self.send(world, conn, tap);
        self.take(world, conn, tap, quiet);
        self.grant(world, conn, tap);
    }

    fn send(&mut self, world: &mut World, conn: &mut Connection<u32>, tap: &Tap) {
        let (at, direction, ours) = (Instant::from_nanos(world.now), self.direction(true), self.is_ours());
        let (who, number, stream) = (self.who, self.number as usize, self.stream);
        let Some(out) = self.out.as_mut().filter(|out| !out.over && !out.full && !out.ended) else { return };
        if world.now < out.next && !world.healed {
            return;
        }
        out.next = if out.pause == 0 { world.now } else { world.now + world.random.within(1..=out.pause) };
        for _ in 0..1 + world.random.below(4) {
            if out.left == 0 {
                break;
            }
            let len = if world.random.once_in(6) {
                world.random.below(50)
            } else {
                world.random.below(out.size + 1)
            };
            let piece = Piece { tag: world.random.next(), len, noise: world.random.once_in(2) };
            let octets = piece.octets();
            let sent = if world.random.once_in(2) {
                conn.send_item(at, stream, Body::Copy(&octets))
            } else {
                conn.send_item(at, stream, Body::Share(octets.into()))
            };
            match sent {
                Ok(()) => {
                    out.left -= 1;
                    world.records[who][number].items[direction].push_back(piece);
                }
                Err(ItemError::Full) => {
                    world.tally.check("no room for an item");
                    out.full = true;
                    return;
                }
                Err(ItemError::TooLarge) => {
                    assert!(len > tap.max_item, "an item of {len} is too large for {}", tap.max_item);
                    world.tally.check("items too large for the peer");
                    out.left -= 1;
                }
                Err(ItemError::Over) => {
                    out.over = true;
                    return;
                }
            }
        }
        if out.left == 0
            && let Stream::Ours(call) = stream
            && (world.healed || world.random.once_in(3))
        {
            match conn.end_items(at, call) {
                Ok(()) => {
                    out.ended = true;
                    world.records[who][number].ended = true;
                    let after = conn.send_item(at, stream, Body::Copy(b"x"));
                    assert_eq!(after, Err(ItemError::Over), "an item behind the end");
                    assert_eq!(conn.end_items(at, call), Err(ItemError::Over), "ended twice");
                }
                Err(_) => out.over = true,
            }
        } else if out.left == 0 && ours {
            out.next = world.now + world.random.within(1..=200) * MS;
        }
    }

    fn take(&mut self, world: &mut World, conn: &mut Connection<u32>, tap: &mut Tap, quiet: bool) {
        let (at, stream) = (Instant::from_nanos(world.now), self.stream);
        let Some(takes) = &mut self.takes else { return };
        if !takes.readable {
            if quiet && world.random.once_in(30) {
                let found = conn.take_item(at, stream);
                let ended = takes.ended && found == Some(Taken::End);
                assert!(found.is_none() || ended, "who was not told finds {found:?}");
                world.tally.check("who is not told finds nothing");
            }
            return;
        }
        if world.now < takes.next && !world.healed {
            return;
        }
        takes.next = match takes.pause {
            0 => world.now,
            u64::MAX if world.random.once_in(2) => {
                world.tally.fault("stopped reader");
                u64::MAX
            }
            u64::MAX => world.now,
            pause => {
                world.tally.fault("slow reader");
                world.now + world.random.within(1..=pause)
            }
        };
        for _ in 0..*world.random.pick(&[1, 3, 1_000]) {
            match conn.take_item(at, stream) {
                Some(Taken::Item(octets)) => {
                    let id = world.records[self.who][self.number as usize].id;
                    tap.ledger.took(id);
                    self.took(world, &octets);
                }
                Some(Taken::End) => {
                    let record = &world.records[self.who][self.number as usize];
                    assert!(!self.is_ours() && record.ended, "an end that nobody sent");
                    assert!(record.items[UP].is_empty(), "an end before all items");
                    world.tally.check("the end behind the last item");
                    let takes = self.takes.as_mut().unwrap();
                    (takes.ended, takes.readable) = (true, false);
                    return;
                }
                None => {
                    self.takes.as_mut().unwrap().readable = false;
                    return;
                }
            }
        }
    }

    /// An item came: the next one that was sent, octet for octet.
    pub fn took(&self, world: &mut World, octets: &Bytes) {
        let direction = self.direction(false);
        let items = &mut world.records[self.who][self.number as usize].items[direction];
        let piece = items.pop_front().expect("an item that was not sent");
        assert!(piece.is(octets), "call {} of {}: another item than {piece:?}", self.number, self.who);
        world.tally.check(if direction == UP { "items to the callee" } else { "items to the caller" });
        world.note(&[60, octets.len() as u64], || format!("an item of call {} of {}", self.number, self.who));
    }

    fn grant(&mut self, world: &mut World, conn: &mut Connection<u32>, tap: &mut Tap) {
        let at = Instant::from_nanos(world.now);
        let Some(takes) = self.takes.as_mut().filter(|takes| !takes.ended) else { return };
        let heals = world.healed && !std::mem::replace(&mut takes.healed, world.healed);
        if !heals && (takes.grants == 0 || !world.random.once_in(40)) {
            return;
        }
        takes.grants = takes.grants.saturating_sub(1);
        let octets = if heals { 1 << 22 } else { *world.random.pick(&[1, 300, 5_000, 70_000]) };
        conn.grant(at, self.stream, octets);
        let id = world.records[self.who][self.number as usize].id;
        tap.ledger.granted(id, self.number, octets);
        world.tally.check(if id == 0 { "granted before it is out" } else { "granted" });
    }
}
