//! Two connections whose drivers turn all the time, and a line that the input cuts, delays, stalls and breaks at any
//! octet; in between, the applications do as the input says.

use super::{
    input::Input,
    node::{MS, Node, cause},
    two::Two,
    verbs,
};

/// The high bit of a step chooses the node.
pub const SERVER: u8 = 0x80;

/// The steps; from [`APPLICATION`](step::APPLICATION) on they are verbs of the application.
pub mod step {
    /// A turn of the driver; the octet behind it says how much of everything.
    pub const TURN: u8 = 0;
    /// Time passes until one of them wakes, or for so many milliseconds.
    pub const LATER: u8 = 1;
    /// Nothing that this node wrote can be read for so long.
    pub const STALL: u8 = 2;
    /// The line breaks behind so many octets.
    pub const BREAK: u8 = 3;
    /// The process dies.
    pub const ABANDON: u8 = 4;
    pub const APPLICATION: u8 = 16;
}

/// Plays the input as a script of turns, faults and verbs.
pub fn pair(script: &[u8]) -> u64 {
    let mut input = Input::new(script);
    let mut two = Two::new(&mut input);
    let mut steps = 0;
    while !input.is_empty() && steps < 400 {
        steps += 1;
        let choice = input.octet();
        let who = usize::from(choice & SERVER != 0);
        match choice & !SERVER {
            step::LATER => {
                let most = u64::from(input.number() % 8_192) * MS;
                let now = two.now();
                let wake = two.nodes.iter().filter(|node| !node.gone).map(Node::wake).min();
                two.pass(most.min(wake.unwrap_or(u64::MAX).saturating_sub(now)));
            }
            step::STALL => {
                let until = two.now() + u64::from(input.octet()) * 50 * MS;
                two.pipes[who].stalled_until = until;
            }
            step::BREAK => {
                let cause = cause(&mut input);
                for pipe in &mut two.pipes {
                    pipe.cut(input.small(), cause);
                }
            }
            _ if two.nodes[who].gone => {}
            step::TURN => turn(&mut two, who, &mut input),
            step::ABANDON => two.go(who),
            verb @ step::APPLICATION.. => {
                verbs::act(&mut two.nodes[who], verb - step::APPLICATION, &mut input);
            }
            _ => {}
        }
    }
    two.heal()
}

/// Reads, tells, commits, writes and looks at the clock, each as much as two octets say.
fn turn(two: &mut Two, who: usize, input: &mut Input<'_>) {
    let (choice, amount) = (input.octet(), input.small());
    let part = |choice: u8| match choice & 3 {
        0 => usize::MAX,
        1 => amount,
        2 => 1,
        _ => 0,
    };
    two.read(who, part(choice));
    two.events(who, part(choice >> 2));
    if two.nodes[who].gone {
        return;
    }
    if part(choice >> 6) > 0 {
        two.nodes[who].transmit();
    }
    two.write(who, part(choice >> 4));
    if !two.nodes[who].gone && two.nodes[who].wake() <= two.now() {
        two.nodes[who].timeout();
    }
}
