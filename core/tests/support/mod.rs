//! What the tests of the connection share.
//!
//! | file | what |
//! |---|---|
//! | `frames` | building frames, and frames as they were seen |
//! | `raw` | one connection opposite a peer that is written by hand, octet by octet |
//! | `streams` | calls of every kind, their items and their fragments, and opening them |
//! | `scene` | the messages that there are, and a connection at the point where one of them may be sent |
//! | `output` | what a connection writes: frame by frame, put together, and what that says of it |
//! | `keys` | calls that have an ordering key, and those of them that start |
//! | `blocks` | blocks of Snappy, written and read by hand, and the messages that carry them |
//! | `attacked` | a connection that is attacked, and its neighbour of the same configuration |
//! | `heap` | an allocator that counts |
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
//! | `peer` | frames that are valid, mutated, repeated, inserted or random |
//! | `hostile` | a connection opposite a peer that does anything |
//! | `small` | two connections and a few calls, for every run that there is |
//! | `replay` | a script of input, whole, in pieces, and with output in between |

#![allow(
    dead_code,
    unreachable_pub,
    missing_docs,
    clippy::print_stdout,
    clippy::cast_possible_wrap,
    clippy::cast_possible_truncation
)]

pub mod attacked;
pub mod blocks;
pub mod flow;
pub mod frames;
pub mod heap;
pub mod hostile;
pub mod keys;
pub mod ledger;
pub mod messages;
pub mod node;
pub mod output;
pub mod pair;
pub mod peer;
pub mod piece;
pub mod pipe;
pub mod random;
pub mod raw;
pub mod replay;
pub mod scene;
pub mod small;
pub mod streams;
pub mod tally;
pub mod tap;
pub mod world;
