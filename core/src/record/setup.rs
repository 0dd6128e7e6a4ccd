//! The configuration of a connection, as far as its replay needs it: all but the credential.

use alloc::{sync::Arc, vec::Vec};

use super::{
    Record,
    ink::{Damage, Reader, put, put_octets},
    put::put_duration,
    read::duration,
};
use crate::{
    conn::{Config, ConfigError, Limits, MethodSpec},
    wire::Kind,
};

pub(crate) fn put_limits(limits: &Limits, out: &mut Vec<u8>) {
    let Limits { max_frame, max_message, max_item, max_concurrent, max_streams, stream_window, .. } = *limits;
    let Limits { memory, server_memory, max_calls, max_queued, max_queued_items, .. } = *limits;
    let Limits { max_one_ways, max_one_way_octets, max_learned, max_learned_octets, .. } = *limits;
    for number in [max_frame, max_message, max_item, max_concurrent, max_streams, stream_window, max_calls] {
        put(number, out);
    }
    let large = [memory, server_memory, max_queued, max_queued_items, max_one_ways, max_one_way_octets];
    for number in large.into_iter().chain([max_learned, max_learned_octets]) {
        put(number as u64, out);
    }
}

fn limits(of: &mut Reader<'_>) -> Result<Limits, Damage> {
    Ok(Limits {
        max_frame: of.small()?,
        max_message: of.small()?,
        max_item: of.small()?,
        max_concurrent: of.small()?,
        max_streams: of.small()?,
        stream_window: of.small()?,
        max_calls: of.small()?,
        memory: of.small()?,
        server_memory: of.small()?,
        max_queued: of.small()?,
        max_queued_items: of.small()?,
        max_one_ways: of.small()?,
        max_one_way_octets: of.small()?,
        max_learned: of.small()?,
        max_learned_octets: of.small()?,
    })
}

/// Writes it down, with the length of the credential in its place.
pub(crate) fn put_config(config: &Config, out: &mut Vec<u8>) {
    put_octets(config.identifier.as_bytes(), out);
    put(config.instance, out);
    put(config.labels.len() as u64, out);
    for (key, value) in &config.labels {
        put_octets(key.as_bytes(), out);
        put_octets(value.as_bytes(), out);
    }
    put(config.credential.len() as u64, out);
    let (least, most) = config.heartbeat_bounds;
    for time in [config.heartbeat_interval, least, most, config.check_in_timeout, config.ack_timeout] {
        put_duration(Some(time), out);
    }
    put_duration(config.idle_timeout, out);
    put(u8::from(config.verify), out);
    put(u8::from(config.snappy), out);
    put(u8::from(config.compress), out);
    put(config.compress_from as u64, out);
    put_limits(&config.limits, out);
    put(config.methods.len() as u64, out);
    for method in &config.methods {
        put_octets(method.name.as_bytes(), out);
        put(method.kind.to_wire(), out);
        put(method.codecs.len() as u64, out);
        method.codecs.iter().for_each(|codec| put(*codec, out));
        put(method.fingerprint, out);
        put(u8::from(method.compress), out);
    }
}

/// What [`put_config`] wrote, as a configuration that records as `settings` say. The credential is as long as it was, and zeros.
pub(crate) fn read(octets: &[u8], settings: Record) -> Result<Result<Arc<Config>, ConfigError>, Damage> {
    let of = &mut Reader::new(octets);
    let time = |of: &mut Reader<'_>| duration(of).map(Option::unwrap_or_default);
    let mut config = Config::builder(of.text()?).instance(of.number()?).record(settings);
    for _ in 0..of.small::<usize>()? {
        config = config.label(of.text()?, of.text()?);
    }
    let credential: usize = of.small()?;
    config = config.credential(&alloc::vec![0; credential.min(1 << 16)]);
    config = config.heartbeat_interval(time(of)?).heartbeat_bounds(time(of)?, time(of)?);
    config = config.check_in_timeout(time(of)?).ack_timeout(time(of)?);
    if let Some(idle) = duration(of)? {
        config = config.idle_timeout(idle);
    }
    config = config
        .verify(of.flag()?)
        .snappy(of.flag()?)
        .compress(of.flag()?)
        .compress_from(of.small()?)
        .limits(limits(of)?);
    for _ in 0..of.small::<usize>()? {
        let name = of.text()?;
        let kind = Kind::from_wire(of.small()?).ok_or_else(|| of.damage("an unknown kind of method"))?;
        let mut codecs = Vec::new();
        for _ in 0..of.small::<usize>()? {
            codecs.push(of.small()?);
        }
        let method = MethodSpec::new(name, kind).codecs(&codecs).fingerprint(of.number()?);
        config = config.method(method.compress(of.flag()?));
    }
    if of.is_empty() {
        Ok(config.build())
    } else {
        Err(of.damage("the configuration is longer than its fields"))
    }
}
