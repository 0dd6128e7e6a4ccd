//! What an endpoint says of itself and what it allows its peers. Checked as a whole when it is built.

use alloc::{borrow::ToOwned, collections::BTreeMap, string::String, sync::Arc, vec::Vec};
use core::{fmt, time::Duration};

use thiserror::Error;

use super::{memory::Shared, output::HAS_SNAPPY};

use crate::{
    record::Record,
    time::nanos,
    wire::{Kind, is_identifier},
};

/// The most credit that a stream can have (protocol §5, "Streams").
pub(crate) const MOST_CREDIT: u32 = i32::MAX.unsigned_abs();

/// Which end of the connection this is. After check-in both are equals; before it the client speaks first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Side {
    /// The end that dialled. Its calls have odd ids.
    Client,
    /// The end that accepted. Its calls have even ids.
    Server,
}

/// Every limit of a connection in one place. All are on by default; each default says why it is what it is.
///
/// They are checked as a whole when the configuration is built, and [`Display`](fmt::Display) shows them in one line
/// for a log. What a peer can make one connection hold follows from them: protocol, annex E.3.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Limits {
    /// Longest frame body that is read after check-in, in octets: 16 KiB to 1 MiB. Default 64 KiB: one read's worth.
    pub max_frame: u32,
    /// Largest payload that is read, all fragments together and decompressed, in octets: 1 KiB to 1 GiB. Default
    /// 4 MiB: what other RPC systems settled on; what is larger is better streamed.
    pub max_message: u32,
    /// Largest stream item that is read, decompressed, in octets: at least 1, and held to `max_message`. Default
    /// 256 KiB: an item is held whole.
    pub max_item: u32,
    /// Calls of the peer that are served at once: 0 to 65 535. Default 4096: a busy node's pipeline, and at most
    /// about half a megabyte of table. An endpoint without methods announces 0.
    pub max_concurrent: u32,
    /// Of those, how many may stream; held to `max_concurrent`. Default 256: each may hold a window and an item. An
    /// endpoint without streaming methods announces 0.
    pub max_streams: u32,
    /// Initial credit for items sent to this endpoint, in octets: 1 to 2^31−1. An item costs its payload and 256.
    /// Default 64 KiB: 1 Gbit/s at 0.5 ms of round trip. It is what a stream begins with; who drives the connection may
    /// [`grant`](super::Connection::grant) more.
    pub stream_window: u32,
    /// Octets of arguments that served calls may hold together, those that still arrive with all that they announced.
    /// At least `max_message`. Default 8 MiB: two messages of the default size.
    pub memory: usize,
    /// Octets of arguments that have arrived on all connections with this configuration: a server's memory for
    /// calls. At least `max_message`. Default 1 GiB: choose it for the machine.
    pub server_memory: usize,
    /// Calls of this side that may wait or be unanswered at once: 1 to 65 535. Default 16 384.
    pub max_calls: u32,
    /// Octets of calls that may wait to be sent. A call that waits alone may be larger. Default 8 MiB.
    pub max_queued: usize,
    /// Octets of the items of one stream that may wait to be sent, for credit or for their turn; each counts 256 more
    /// than it has. An item that waits alone may be larger. Default 64 KiB: a window.
    pub max_queued_items: usize,
    /// One-ways of the peer that may wait for a handler. Default 1024.
    pub max_one_ways: usize,
    /// Octets of the one-ways that wait for a handler. Default 1 MiB.
    pub max_one_way_octets: usize,
    /// Methods that are learned from a peer's TABLE; the rest are called by name. Default 65 536.
    pub max_learned: usize,
    /// Octets of method names that are learned. Default 1 MiB.
    pub max_learned_octets: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_frame: 64 << 10,
            max_message: 4 << 20,
            max_item: 256 << 10,
            max_concurrent: 4096,
            max_streams: 256,
            stream_window: 64 << 10,
            memory: 8 << 20,
            server_memory: 1 << 30,
            max_calls: 16_384,
            max_queued: 8 << 20,
            max_queued_items: 64 << 10,
            max_one_ways: 1024,
            max_one_way_octets: 1 << 20,
            max_learned: 65_536,
            max_learned_octets: 1 << 20,
        }
    }
}

/// All of them in one line, by name.
impl fmt::Display for Limits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { max_frame, max_message, max_item, max_concurrent, max_streams, stream_window, .. } = self;
        let Self { memory, server_memory, max_calls, max_queued, max_queued_items, .. } = self;
        let Self { max_one_ways, max_one_way_octets, max_learned, max_learned_octets, .. } = self;
        write!(
            f,
            "max_frame {max_frame}, max_message {max_message}, max_item {max_item}, \
             max_concurrent {max_concurrent}, max_streams {max_streams}, stream_window {stream_window}, \
             memory {memory}, server_memory {server_memory}, max_calls {max_calls}, max_queued {max_queued}, \
             max_queued_items {max_queued_items}, max_one_ways {max_one_ways}, \
             max_one_way_octets {max_one_way_octets}, max_learned {max_learned}, \
             max_learned_octets {max_learned_octets}"
        )
    }
}

/// A method that an endpoint serves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MethodSpec {
    pub(crate) name: String,
    pub(crate) kind: Kind,
    pub(crate) codecs: Vec<u32>,
    pub(crate) fingerprint: u64,
    pub(crate) compress: bool,
    /// Unary, and takes codec raw: what the usual call asks for.
    pub(crate) plain: bool,
}

impl MethodSpec {
    /// A method of the name `package.Service/Method`, 1 to 255 octets, with codec raw.
    #[must_use]
    pub fn new(name: &str, kind: Kind) -> Self {
        Self {
            name: name.to_owned(),
            kind,
            codecs: alloc::vec![0],
            fingerprint: 0,
            compress: false,
            plain: kind == Kind::Unary,
        }
    }

    /// A method with one argument and one result.
    #[must_use]
    pub fn unary(name: &str) -> Self {
        Self::new(name, Kind::Unary)
    }

    /// The codecs it understands (protocol §5, `Request.codec`), instead of raw alone. Another one is answered
    /// `UNSUPPORTED_CODEC`.
    #[must_use]
    pub fn codecs(mut self, codecs: &[u32]) -> Self {
        self.codecs = codecs.to_vec();
        self.plain = self.kind == Kind::Unary && codecs.contains(&0);
        self
    }

    /// Compresses its results and items where that gains an eighth, if the peer understands it. Off by default.
    #[must_use]
    pub const fn compress(mut self, compress: bool) -> Self {
        self.compress = compress;
        self
    }

    /// The FNV-1a 64 of its canonical signature text (protocol §4); 0, the default, is unknown.
    #[must_use]
    pub const fn fingerprint(mut self, fingerprint: u64) -> Self {
        self.fingerprint = fingerprint;
        self
    }
}

/// What was wrong with a configuration.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// The identifier is not 1 to 128 of `[A-Za-z0-9._:@/-]`.
    #[error("the identifier {0:?} is not 1 to 128 of [A-Za-z0-9._:@/-]; choose another")]
    Identifier(String),
    /// A limit or a time is out of its range.
    #[error("{name} is {value}, but must be {rule}")]
    Range {
        /// The name of the setting.
        name: &'static str,
        /// What it was set to.
        value: u64,
        /// What it may be.
        rule: &'static str,
    },
    /// A method's name is empty, longer than 255 octets, has control characters, or stands there twice.
    #[error(
        "the method name {0:?} is empty, longer than 255 octets, has control characters, or is given twice"
    )]
    Method(String),
    /// The check-in or the ack would be longer than the 16 KiB that a peer reads before check-in.
    #[error("labels and credential make a check-in of {0} octets, but 16 384 is the most")]
    CheckInTooLong(usize),
}

/// An endpoint's side of every connection that it makes or takes: who it is, what it serves, what it allows.
///
/// Build one with [`Config::builder`] and share it: a connection holds an [`Arc`] of it.
///
/// ```
/// use core::time::Duration;
/// use tieline_core::conn::{Config, MethodSpec};
///
/// let config = Config::builder("node-1")
///     .heartbeat_interval(Duration::from_secs(5))
///     .method(MethodSpec::unary("chat.Room/Post"))
///     .build()?;
/// assert_eq!(config.identifier(), "node-1");
/// # Ok::<(), tieline_core::conn::ConfigError>(())
/// ```
#[derive(Debug)]
pub struct Config {
    pub(crate) identifier: String,
    pub(crate) instance: u64,
    pub(crate) labels: Vec<(String, String)>,
    pub(crate) credential: Vec<u8>,
    pub(crate) heartbeat_interval: Duration,
    pub(crate) heartbeat_bounds: (Duration, Duration),
    pub(crate) check_in_timeout: Duration,
    pub(crate) ack_timeout: Duration,
    pub(crate) verify: bool,
    pub(crate) idle_timeout: Option<Duration>,
    pub(crate) snappy: bool,
    pub(crate) compress: bool,
    pub(crate) compress_from: usize,
    pub(crate) record: Option<Record>,
    pub(crate) limits: Limits,
    /// Octets of arguments on all connections that share this configuration.
    pub(crate) shared: Shared,
    pub(crate) methods: Vec<MethodSpec>,
    pub(crate) by_name: BTreeMap<String, u32>,
}

impl Config {
    /// Starts a configuration for the endpoint `identifier`.
    #[must_use]
    pub fn builder(identifier: &str) -> ConfigBuilder {
        ConfigBuilder {
            config: Self {
                identifier: identifier.to_owned(),
                instance: 0,
                labels: Vec::new(),
                credential: Vec::new(),
                heartbeat_interval: Duration::from_secs(10),
                heartbeat_bounds: (Duration::from_millis(200), Duration::from_secs(300)),
                check_in_timeout: Duration::from_secs(5),
                ack_timeout: Duration::from_secs(15),
                verify: false,
                idle_timeout: None,
                snappy: HAS_SNAPPY,
                compress: false,
                compress_from: 1024,
                record: None,
                limits: Limits::default(),
                shared: Shared::default(),
                methods: Vec::new(),
                by_name: BTreeMap::new(),
            },
        }
    }

    /// Who this endpoint says that it is.
    #[must_use]
    pub fn identifier(&self) -> &str {
        &self.identifier
    }

    /// Its limits.
    #[must_use]
    pub const fn limits(&self) -> &Limits {
        &self.limits
    }

    /// The name of the method with this index, the number in which [`Incoming::method`](super::Incoming::method)
    /// counts.
    #[must_use]
    pub fn method_name(&self, index: u32) -> Option<&str> {
        self.methods.get(index as usize).map(|method| method.name.as_str())
    }

    /// The streams that it announces to serve at once.
    pub(crate) fn announced_streams(&self) -> u32 {
        if self.methods.iter().all(|method| method.kind == Kind::Unary) { 0 } else { self.limits.max_streams }
    }

    /// The calls that it announces to serve at once.
    pub(crate) fn announced_concurrency(&self) -> u32 {
        if self.methods.is_empty() { 0 } else { self.limits.max_concurrent }
    }
}

/// Builds a [`Config`]; see [`Config::builder`].
#[derive(Debug)]
pub struct ConfigBuilder {
    config: Config,
}

impl ConfigBuilder {
    /// The instance number: milliseconds since 1970 at process start, shifted left by 22, plus 22 random bits, so
    /// that a restart has a higher one (protocol §4). 0, the default, says nothing.
    #[must_use]
    pub const fn instance(mut self, instance: u64) -> Self {
        self.config.instance = instance;
        self
    }

    /// A label for the peer to see: zone, weight, version and the like.
    #[must_use]
    pub fn label(mut self, key: &str, value: &str) -> Self {
        self.config.labels.push((key.to_owned(), value.to_owned()));
        self
    }

    /// What a client shows to a server's verifier. Clear text unless the transport encrypts.
    #[must_use]
    pub fn credential(mut self, credential: &[u8]) -> Self {
        self.config.credential = credential.to_vec();
        self
    }

    /// How often this end would beat on an idle line: 10 ms to 1 hour, default 10 s, which finds a dead peer within
    /// half a minute for 2 octets a second.
    #[must_use]
    pub const fn heartbeat_interval(mut self, interval: Duration) -> Self {
        self.config.heartbeat_interval = interval;
        self
    }

    /// The bounds to which a server clamps what a client proposes. Default 200 ms to 5 min.
    #[must_use]
    pub const fn heartbeat_bounds(mut self, least: Duration, most: Duration) -> Self {
        self.config.heartbeat_bounds = (least, most);
        self
    }

    /// How long a server waits for the check-in, counted from accept: 1 ms to 1 min, default 5 s.
    #[must_use]
    pub const fn check_in_timeout(mut self, timeout: Duration) -> Self {
        self.config.check_in_timeout = timeout;
        self
    }

    /// How long a client waits for the ack: 1 ms to 1 min, default 15 s: a server's 5 s for the check-in, 5 s for its
    /// verifier, and as much again for the way.
    #[must_use]
    pub const fn ack_timeout(mut self, timeout: Duration) -> Self {
        self.config.ack_timeout = timeout;
        self
    }

    /// Makes a server ask the application about each check-in, by
    /// [`Event::CheckIn`](super::Event::CheckIn). Off by default: everybody is accepted.
    #[must_use]
    pub const fn verify(mut self, verify: bool) -> Self {
        self.config.verify = verify;
        self
    }

    /// Closes a connection with `IDLE` when it had no calls for this long: at least 10 ms. Off by default.
    #[must_use]
    pub const fn idle_timeout(mut self, timeout: Duration) -> Self {
        self.config.idle_timeout = Some(timeout);
        self
    }

    /// Whether Snappy is offered at check-in, or granted (protocol §4, `features`). On by default, and never where this
    /// build does not have it. Off, nothing is compressed in either direction, whatever else says so.
    #[must_use]
    pub const fn snappy(mut self, snappy: bool) -> Self {
        self.config.snappy = snappy && HAS_SNAPPY;
        self
    }

    /// Compresses everything that is sent, where that gains an eighth and the peer understands it; otherwise only what
    /// [`CallHead::compress`](super::CallHead::compress) and [`MethodSpec::compress`] ask for. Off by default: on a fast
    /// line the work costs more than the octets.
    #[must_use]
    pub const fn compress(mut self, compress: bool) -> Self {
        self.config.compress = compress;
        self
    }

    /// The shortest payload that is worth a try at compressing, in octets: at least 64, default 1024.
    #[must_use]
    pub const fn compress_from(mut self, octets: usize) -> Self {
        self.config.compress_from = octets;
        self
    }

    /// Lets each connection record what it is told and does, for
    /// [`Connection::recording`](super::Connection::recording). Off by default; it costs each verb the writing of a few
    /// octets, and each connection the memory that it says.
    #[must_use]
    pub const fn record(mut self, record: Record) -> Self {
        self.config.record = Some(record);
        self
    }

    /// The limits, instead of the defaults.
    #[must_use]
    pub const fn limits(mut self, limits: Limits) -> Self {
        self.config.limits = limits;
        self
    }

    /// A method that this endpoint serves. Methods are numbered from 0 in the order of these calls.
    #[must_use]
    pub fn method(mut self, method: MethodSpec) -> Self {
        self.config.methods.push(method);
        self
    }

    /// Checks it all and returns the configuration.
    ///
    /// # Errors
    /// The first thing that is out of its range, by name.
    pub fn build(mut self) -> Result<Arc<Config>, ConfigError> {
        let limits = &mut self.config.limits;
        limits.max_item = limits.max_item.min(limits.max_message);
        limits.max_streams = limits.max_streams.min(limits.max_concurrent);
        let config = &self.config;
        if !is_identifier(&config.identifier) {
            return Err(ConfigError::Identifier(config.identifier.clone()));
        }
        let limits = &config.limits;
        let range = |name, value: u64, least: u64, most: u64, rule| {
            if (least..=most).contains(&value) {
                Ok(())
            } else {
                Err(ConfigError::Range { name, value, rule })
            }
        };
        let (least, most) = config.heartbeat_bounds;
        let ms = |duration: Duration| nanos(duration) / 1_000_000;
        let hour = 3_600_000;
        range("limits.max_frame", limits.max_frame.into(), 16 << 10, 1 << 20, "16 KiB to 1 MiB")?;
        range("limits.max_message", limits.max_message.into(), 1 << 10, 1 << 30, "1 KiB to 1 GiB")?;
        range("limits.max_concurrent", limits.max_concurrent.into(), 0, 65_535, "0 to 65 535")?;
        range("limits.max_calls", limits.max_calls.into(), 1, 65_535, "1 to 65 535")?;
        let (message, all) = (u64::from(limits.max_message), u64::MAX);
        range("limits.max_item", limits.max_item.into(), 1, all, "at least 1")?;
        let window = u64::from(limits.stream_window);
        range("limits.stream_window", window, 1, u64::from(MOST_CREDIT), "1 to 2^31−1")?;
        range("limits.memory", limits.memory as u64, message, all, "at least max_message")?;
        range("limits.server_memory", limits.server_memory as u64, message, all, "at least max_message")?;
        range("limits.max_queued", limits.max_queued as u64, 1 << 10, all, "at least 1 KiB")?;
        range("limits.max_queued_items", limits.max_queued_items as u64, 1, all, "at least 1")?;
        range("compress_from", config.compress_from as u64, 64, all, "at least 64")?;
        range("heartbeat_interval (ms)", ms(config.heartbeat_interval), 10, hour, "10 ms to 1 h")?;
        range(
            "heartbeat_bounds (ms)",
            ms(least),
            10,
            ms(most).min(hour),
            "10 ms to 1 h, the lower one first",
        )?;
        range("heartbeat_bounds (ms)", ms(most), 10, hour, "10 ms to 1 h, the lower one first")?;
        range("check_in_timeout (ms)", ms(config.check_in_timeout), 1, 60_000, "1 ms to 1 min")?;
        range("ack_timeout (ms)", ms(config.ack_timeout), 1, 60_000, "1 ms to 1 min")?;
        if let Some(record) = config.record {
            range("record.octets", record.octets as u64, 16 << 10, 1 << 30, "16 KiB to 1 GiB")?;
        }
        if let Some(idle) = config.idle_timeout {
            range("idle_timeout (ms)", ms(idle), 10, u64::MAX, "at least 10 ms")?;
        }
        let said = config.labels.iter().map(|(key, value)| key.len() + value.len() + 12).sum::<usize>()
            + config.credential.len()
            + config.identifier.len()
            + 96;
        if said > 16_384 {
            return Err(ConfigError::CheckInTooLong(said));
        }
        if self.config.compress {
            self.config.methods.iter_mut().for_each(|method| method.compress = true);
        }
        for (index, method) in (0u32..).zip(&mut self.config.methods) {
            // What is to be compressed does not go the straight way.
            method.plain &= !method.compress;
            let name = &method.name;
            let bad = name.is_empty() || name.len() > 255 || name.chars().any(char::is_control);
            if bad || self.config.by_name.insert(name.clone(), index).is_some() {
                return Err(ConfigError::Method(name.clone()));
            }
        }
        range("methods", self.config.methods.len() as u64, 0, 65_536, "at most 65 536")?;
        Ok(Arc::new(self.config))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn what_is_out_of_range_is_named() {
        let limits = Limits { max_frame: 1, ..Limits::default() };
        let error = Config::builder("a").limits(limits).build().unwrap_err();
        assert_eq!(alloc::format!("{error}"), "limits.max_frame is 1, but must be 16 KiB to 1 MiB");
        assert!(matches!(Config::builder("no spaces").build(), Err(ConfigError::Identifier(_))));
        let twice = Config::builder("a").method(MethodSpec::unary("S/M")).method(MethodSpec::unary("S/M"));
        assert!(matches!(twice.build(), Err(ConfigError::Method(_))));
        let long = Config::builder("a").credential(&[0; 20_000]);
        assert!(matches!(long.build(), Err(ConfigError::CheckInTooLong(_))));
    }
}
