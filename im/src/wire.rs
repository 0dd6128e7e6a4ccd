//! What the methods of `tieline.im.v1` say to one another.
//!
//! Arguments and results are fields one after the other: numbers as varints, text as its length in octets (a varint)
//! and UTF-8. Every decoder is total: each input gives a value or [`Malformed`], nothing is left over, and nothing is
//! allocated that the input does not hold.
//!
//! | method | asked of | argument → result |
//! |---|---|---|
//! | `Node/Login` | a node, by a user | name → [`Welcome`] |
//! | `Node/Send` | a node, by a user | [`Message`] → [`Report`] |
//! | `Node/Where` | a node, by a user | name → [`Place`] |
//! | `Node/Who` | a node, by a user | nothing → [`Roll`]s, one after the other |
//! | `User/Deliver` | a user, by a node | [`Message`] → nothing |
//! | `Relay/Hello` | a node, by a node | nothing → nothing |
//! | `Relay/Deliver` | a node, by a node | [`Message`] → [`Report`] |
//! | `Relay/Where` | a node, by a node | name → 1 if the user is logged in there, else 0 |
//! | `Relay/Who` | a node, by a node | nothing → one [`Roll`] |
//!
//! A message has one form for all its hops, so a node passes the octets on that it got.

use bytes::Bytes;
use thiserror::Error;
use tieline_core::wire::varint;

use crate::name::{MAX_NAME, Name};

/// The longest text of a message, in octets.
pub const MAX_TEXT: usize = 16 << 10;
/// The longest reason in a [`Report`] or a [`Place`], in octets; longer ones are cut.
pub const MAX_WHY: usize = 512;
/// Users that one [`Roll`] names; of more it only tells the number.
pub const MAX_ROLL: usize = 256;

/// The methods by name.
pub mod method {
    /// A user says who it is.
    pub const LOGIN: &str = "tieline.im.v1.Node/Login";
    /// A user sends a message.
    pub const SEND: &str = "tieline.im.v1.Node/Send";
    /// A user asks where another is.
    pub const WHERE: &str = "tieline.im.v1.Node/Where";
    /// A user asks who is there at all.
    pub const WHO: &str = "tieline.im.v1.Node/Who";
    /// A node hands a message to the user.
    pub const DELIVER: &str = "tieline.im.v1.User/Deliver";
    /// A node that dialled says that it is there.
    pub const HELLO: &str = "tieline.im.v1.Relay/Hello";
    /// A node passes a message on to the node of its receiver.
    pub const RELAY: &str = "tieline.im.v1.Relay/Deliver";
    /// A node asks whether a user is logged in at another.
    pub const RELAY_WHERE: &str = "tieline.im.v1.Relay/Where";
    /// A node asks who is logged in at another.
    pub const RELAY_WHO: &str = "tieline.im.v1.Relay/Who";
}

/// Octets that are not what they should be.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{0} does not decode; is the other end of the same version?")]
pub struct Malformed(pub &'static str);

/// Who wrote it: a name is not enough, because a user may start anew and count from 1 again. The instance number is
/// the one that the user's process said at check-in (protocol §4).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Origin {
    /// The sender.
    pub user: Name,
    /// The instance number of its process.
    pub instance: u64,
}

/// A message on its way. The text stays in the octets that arrived; a clone shares them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// Who wrote it.
    pub from: Origin,
    /// Who is to read it.
    pub to: Name,
    /// Its number among those of its origin: from 1, rising. With the origin it is the identity of the message, by
    /// which a second copy is known.
    pub number: u64,
    octets: Bytes,
    text: usize,
}

impl Message {
    /// A message of at most [`MAX_TEXT`] octets.
    ///
    /// # Errors
    /// [`Malformed`] if the text is longer.
    pub fn new(from: Origin, to: Name, number: u64, text: &str) -> Result<Self, Malformed> {
        if text.len() > MAX_TEXT {
            return Err(Malformed("a text of over 16 KiB"));
        }
        let mut out = Vec::with_capacity(text.len() + 2 * MAX_NAME + 32);
        put_text(from.user.as_str(), &mut out);
        varint::put(from.instance, &mut out);
        put_text(to.as_str(), &mut out);
        varint::put(number, &mut out);
        put_text(text, &mut out);
        let at = out.len() - text.len();
        Ok(Self { from, to, number, octets: out.into(), text: at })
    }

    /// Reads one that has arrived.
    ///
    /// # Errors
    /// [`Malformed`]: cut off, too long, a bad name, not UTF-8, or octets behind it.
    pub fn parse(octets: Bytes) -> Result<Self, Malformed> {
        let mut rest = &octets[..];
        let message = (|| {
            let user = take_name(&mut rest)?;
            let instance = varint::take(&mut rest).ok()?;
            let to = take_name(&mut rest)?;
            let number = varint::take(&mut rest).ok()?;
            let text = take_text(&mut rest, MAX_TEXT)?;
            rest.is_empty().then_some((Origin { user, instance }, to, number, text.len()))
        })();
        let (from, to, number, length) = message.ok_or(Malformed("the message"))?;
        let text = octets.len() - length;
        Ok(Self { from, to, number, octets, text })
    }

    /// What goes on the wire: the octets that arrived, not a copy.
    #[must_use]
    pub fn octets(&self) -> Bytes {
        self.octets.clone()
    }

    /// The text. It comes from a user: escape it before it is printed.
    #[must_use]
    pub fn text(&self) -> &str {
        // It was UTF-8 when it was parsed.
        self.octets.get(self.text..).and_then(|text| std::str::from_utf8(text).ok()).unwrap_or_default()
    }
}

/// The answer to a login.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Welcome {
    /// The node.
    pub node: Name,
    /// The instance number of the user's process, as the node knows it: messages carry it in their [`Origin`].
    pub instance: u64,
}

impl Welcome {
    /// As octets.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        put_text(self.node.as_str(), &mut out);
        varint::put(self.instance, &mut out);
        out
    }

    /// From octets.
    ///
    /// # Errors
    /// [`Malformed`].
    pub fn decode(mut octets: &[u8]) -> Result<Self, Malformed> {
        let rest = &mut octets;
        (|| {
            let node = take_name(rest)?;
            let instance = varint::take(rest).ok()?;
            rest.is_empty().then_some(Self { node, instance })
        })()
        .ok_or(Malformed("the welcome"))
    }
}

/// What became of a message that was sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// The sender's node found a route and took the message over.
    pub accepted: bool,
    /// How it ended.
    pub verdict: Verdict,
    /// The node at which the receiver has it, or where it was lost, if it went to another node.
    pub via: Option<Name>,
    /// What the call from the sender's node to that node took, there and back, in microseconds; 0 without one.
    pub hop_us: u64,
}

/// How a message ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// The receiver has acknowledged it.
    Delivered,
    /// It did not reach the receiver and never will; why.
    NotDelivered(String),
    /// No acknowledgement came, but it may have reached the receiver; why.
    Unconfirmed(String),
    /// The receiver is not logged in at any node, and all nodes were asked.
    Offline,
    /// The receiver was not found, but not every node could be asked; which, and why.
    Unknown(String),
}

impl Report {
    /// A message that was not accepted, or was not passed on.
    #[must_use]
    pub fn new(accepted: bool, verdict: Verdict) -> Self {
        Self { accepted, verdict, via: None, hop_us: 0 }
    }

    /// As octets.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        let (number, why) = match &self.verdict {
            Verdict::Delivered => (0, ""),
            Verdict::NotDelivered(why) => (1, &**why),
            Verdict::Unconfirmed(why) => (2, &**why),
            Verdict::Offline => (3, ""),
            Verdict::Unknown(why) => (4, &**why),
        };
        varint::put(u64::from(self.accepted), &mut out);
        varint::put(number, &mut out);
        put_text(cut(why), &mut out);
        put_text(self.via.as_ref().map_or("", Name::as_str), &mut out);
        varint::put(self.hop_us, &mut out);
        out
    }

    /// From octets.
    ///
    /// # Errors
    /// [`Malformed`].
    pub fn decode(mut octets: &[u8]) -> Result<Self, Malformed> {
        let rest = &mut octets;
        (|| {
            let accepted = match varint::take(rest).ok()? {
                0 => false,
                1 => true,
                _ => return None,
            };
            let number = varint::take(rest).ok()?;
            let why = take_text(rest, MAX_WHY)?.to_owned();
            let verdict = match number {
                0 => Verdict::Delivered,
                1 => Verdict::NotDelivered(why),
                2 => Verdict::Unconfirmed(why),
                3 => Verdict::Offline,
                4 => Verdict::Unknown(why),
                _ => return None,
            };
            let via = match take_text(rest, MAX_NAME)? {
                "" => None,
                name => Some(name.parse().ok()?),
            };
            let hop_us = varint::take(rest).ok()?;
            rest.is_empty().then_some(Self { accepted, verdict, via, hop_us })
        })()
        .ok_or(Malformed("the report"))
    }
}

/// Where a user is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// Logged in at this node.
    Here(Name),
    /// At no node, and all were asked.
    Offline,
    /// Not found, but not every node could be asked; which, and why.
    Unknown(String),
}

impl Place {
    /// As octets.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let (number, text) = match self {
            Self::Here(node) => (0, node.as_str()),
            Self::Offline => (1, ""),
            Self::Unknown(why) => (2, cut(why)),
        };
        let mut out = vec![number];
        put_text(text, &mut out);
        out
    }

    /// From octets.
    ///
    /// # Errors
    /// [`Malformed`].
    pub fn decode(mut octets: &[u8]) -> Result<Self, Malformed> {
        let rest = &mut octets;
        (|| {
            let number = varint::take(rest).ok()?;
            let text = take_text(rest, MAX_WHY)?;
            if !rest.is_empty() {
                return None;
            }
            match number {
                0 => text.parse().ok().map(Self::Here),
                1 => Some(Self::Offline),
                2 => Some(Self::Unknown(text.to_owned())),
                _ => None,
            }
        })()
        .ok_or(Malformed("the place"))
    }
}

/// Who is logged in at one node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Roll {
    /// The node.
    pub node: Name,
    /// Its users in the order of their names, [`MAX_ROLL`] at most.
    pub users: Vec<Name>,
    /// How many more there are.
    pub more: u64,
    /// Why the node could not be asked; empty if it could.
    pub trouble: String,
}

impl Roll {
    /// Of a node that could be asked.
    #[must_use]
    pub fn new(node: Name, users: impl ExactSizeIterator<Item = Name>) -> Self {
        let more = users.len().saturating_sub(MAX_ROLL) as u64;
        Self { node, users: users.take(MAX_ROLL).collect(), more, trouble: String::new() }
    }

    /// Appends it.
    pub fn encode(&self, out: &mut Vec<u8>) {
        put_text(self.node.as_str(), out);
        varint::put(self.users.len() as u64, out);
        self.users.iter().for_each(|user| put_text(user.as_str(), out));
        varint::put(self.more, out);
        put_text(cut(&self.trouble), out);
    }

    /// All that `octets` hold.
    ///
    /// # Errors
    /// [`Malformed`].
    pub fn decode_all(mut octets: &[u8]) -> Result<Vec<Self>, Malformed> {
        let rest = &mut octets;
        let mut rolls = Vec::new();
        while !rest.is_empty() {
            rolls.push(Self::take(rest).ok_or(Malformed("the list of users"))?);
        }
        Ok(rolls)
    }

    fn take(rest: &mut &[u8]) -> Option<Self> {
        let node = take_name(rest)?;
        let count = varint::take(rest).ok()?;
        let count = usize::try_from(count).ok().filter(|count| *count <= MAX_ROLL)?;
        let users = (0..count).map(|_| take_name(rest)).collect::<Option<_>>()?;
        let more = varint::take(rest).ok()?;
        let trouble = take_text(rest, MAX_WHY)?.to_owned();
        Some(Self { node, users, more, trouble })
    }
}

/// A name that is the whole of an argument.
///
/// # Errors
/// [`Malformed`].
pub fn name(octets: &[u8]) -> Result<Name, Malformed> {
    let text = std::str::from_utf8(octets).ok();
    text.and_then(|text| text.parse().ok()).ok_or(Malformed("the name: 1 to 64 of [A-Za-z0-9._:@/-]; it"))
}

fn put_text(text: &str, out: &mut Vec<u8>) {
    varint::put(text.len() as u64, out);
    out.extend_from_slice(text.as_bytes());
}

fn take_text<'a>(rest: &mut &'a [u8], most: usize) -> Option<&'a str> {
    let length = usize::try_from(varint::take(rest).ok()?).ok().filter(|length| *length <= most)?;
    let (text, after) = rest.split_at_checked(length)?;
    *rest = after;
    std::str::from_utf8(text).ok()
}

fn take_name(rest: &mut &[u8]) -> Option<Name> {
    take_text(rest, MAX_NAME)?.parse().ok()
}

/// The part of a reason that fits.
fn cut(why: &str) -> &str {
    // A character has at most 4 octets, so one of these is a boundary.
    (0..4).find_map(|less| why.get(..MAX_WHY.min(why.len()) - less.min(why.len()))).unwrap_or_default()
}

#[cfg(test)]
#[path = "wire_tests.rs"]
mod tests;
