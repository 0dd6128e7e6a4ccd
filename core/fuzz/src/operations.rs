//! Any verb on either of two connections, in any order; and what is on its way arrives when the input says so. The
//! transport is perfect: what this target tries are the verbs.

use super::{input::Input, node::MS, two::Two, verbs};

/// The high bit of a step chooses the node.
pub const SERVER: u8 = 0x80;

/// The steps; from [`APPLICATION`](step::APPLICATION) on they are verbs of the application.
pub mod step {
    /// All that both have to say to one another is said.
    pub const CARRY: u8 = 0;
    /// Commit.
    pub const TRANSMIT: u8 = 1;
    /// The transport takes a number of octets.
    pub const WRITE: u8 = 2;
    pub const READ: u8 = 3;
    pub const EVENTS: u8 = 4;
    pub const CLOCK: u8 = 5;
    /// Milliseconds that pass.
    pub const LATER: u8 = 6;
    pub const ABANDON: u8 = 7;
    pub const APPLICATION: u8 = 16;
}

/// Plays the input as a script of verbs.
pub fn operations(script: &[u8]) -> u64 {
    let mut input = Input::new(script);
    let mut two = Two::new(&mut input);
    let mut steps = 0;
    while !input.is_empty() && steps < 400 {
        steps += 1;
        let choice = input.octet();
        let who = usize::from(choice & SERVER != 0);
        if two.nodes[who].gone {
            continue;
        }
        match choice & !SERVER {
            step::CARRY => {
                for turn in 0..4 {
                    two.turn(who ^ (turn & 1), false);
                }
            }
            step::TRANSMIT => {
                two.nodes[who].transmit();
            }
            step::WRITE => two.write(who, input.small()),
            step::READ => two.read(who, input.small()),
            step::EVENTS => two.events(who, input.small() % 8),
            step::CLOCK => two.nodes[who].timeout(),
            step::LATER => two.pass(u64::from(input.number() % 4_096) * MS),
            step::ABANDON => two.go(who),
            verb @ step::APPLICATION.. => {
                verbs::act(&mut two.nodes[who], verb - step::APPLICATION, &mut input);
            }
            _ => {}
        }
    }
    two.heal()
}
