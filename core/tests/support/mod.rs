//! What the tests of the connection share.
//!
//! | file | what |
//! |---|---|
//! | `frames` | building frames, and frames as they were seen |
//! | `raw` | one connection opposite a peer that is written by hand, octet by octet |
//! | `streams` | building fragments and streams, and following the messages that a connection writes |
//! | `random` | a seed's numbers |
//! | `tally` | faults that were injected and checks that were executed, by name |
//! | `pipe` | one direction of a simulated transport |
//! | `tap` | an observer that decodes both directions and objects to what the protocol forbids |
//! | `messages` | messages in fragments, as the wire shows them |
//! | `ledger` | streams and their credit, as the wire shows them |
//! | `piece` | payloads that need not be kept to be known |
//! | `world` | what two nodes share: the time, the line, and what is known about every call |
//! | `node` | a connection, its driver and an application that does everything an application may do |
//! | `flow` | what an application does with one stream |
//! | `pair` | two nodes, two pipes and a schedule of faults |
//! | `hostile` | frames that are valid, mutated, repeated, inserted or random |

#![allow(dead_code, unreachable_pub, missing_docs, clippy::print_stdout, clippy::cast_possible_wrap)]

pub mod flow;
pub mod frames;
pub mod hostile;
pub mod ledger;
pub mod messages;
pub mod node;
pub mod pair;
pub mod piece;
pub mod pipe;
pub mod random;
pub mod raw;
pub mod streams;
pub mod tally;
pub mod tap;
pub mod world;
