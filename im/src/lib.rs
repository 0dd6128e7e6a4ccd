//! An instant-messaging node on Tieline, and what it takes to try it: `demo`, `node` and `chat`.
//!
//! It grew from the case that Tieline is for: user A sits on node 1, user B on node 2, and node 1 must hand A's message
//! to node 2. All of it goes over Tieline, in both directions of one connection between each pair; a node runs on whatever
//! runtime it is told, users and commands on tokio.
//!
//! | file | holds |
//! |---|---|
//! | [`router`] | the node's mind, a pure state machine: sessions, directory, messages under way |
//! | [`wire`] | what the methods of `tieline.im.v1` say to one another |
//! | [`node`] | a router with a server around it |
//! | [`user`] | a user's connection to a node |
//! | [`args`], [`demo`], [`serve`], [`chat`] | the commands |
//!
//! What is deliberately not here: accounts and passwords (anybody may take a name that is free), a store for those who
//! are offline (they are refused), and a register of users (nodes ask one another).
#![forbid(unsafe_code)]

pub mod args;
pub mod chat;
pub mod demo;
mod links;
mod name;
pub mod node;
mod print;
pub mod router;
pub mod serve;
mod tether;
mod trouble;
mod typed;
pub mod user;
pub mod wire;

pub use name::{BadName, MAX_NAME, Name};
pub use print::shown;

/// The examples of the front pages compile and run.
#[cfg(doctest)]
mod front_page {
    #[doc = include_str!("../../README.md")]
    struct English;

    #[doc = include_str!("../../README.zh-CN.md")]
    struct Chinese;
}
