//! Check-in and TABLE (protocol §4).

use alloc::{
    borrow::ToOwned,
    boxed::Box,
    string::{String, ToString},
    sync::Arc,
    vec::Vec,
};
use core::time::Duration;

use super::{
    budget::cost,
    ending::EndOf,
    event::{CheckingIn, PeerInfo},
    input::Flow,
    machine::{Machine, Phase, Step},
    output::SNAPPY,
};
use crate::{
    time::{MILLISECOND, SECOND, nanos},
    wire::{
        CheckIn, CheckInAck, Escaped, HEADER_LEN, Header, Label, Parts, Repeated, Status, Table,
        is_identifier,
    },
};

/// The most that any peer reads as one message or item, whatever it says.
pub(super) const LARGEST: u32 = 1 << 30;

/// What a number means that is left out, and the range as which others are read.
const FRAME: (u32, u32, u32) = (64 << 10, 16 << 10, 1 << 20);
const MESSAGE: (u32, u32, u32) = (4 << 20, 1 << 10, LARGEST);
const ITEM: (u32, u32, u32) = (256 << 10, 1, LARGEST);
const WINDOW: (u32, u32, u32) = (64 << 10, 1, i32::MAX as u32);

/// How long the application may take to decide about a check-in.
const VERIFIER: u64 = 5 * SECOND;

/// What a client can keep as an interval, whatever the server grants.
const INTERVALS: (u64, u64) = (10, 3_600_000);

const fn in_range(value: u32, (unsaid, least, most): (u32, u32, u32)) -> u32 {
    match value {
        0 => unsaid,
        _ if value < least => least,
        _ if value > most => most,
        _ => value,
    }
}

/// How many numbers of a list of features count (protocol §4).
const FEATURES: usize = 64;

fn has(features: &Repeated<'_, u32>, feature: u32) -> bool {
    features.iter().take(FEATURES).any(|number| number == feature)
}

fn labels(labels: &Repeated<'_, Label<'_>>) -> Vec<(String, String)> {
    labels.iter().map(|label| (label.key.to_owned(), label.value.to_owned())).collect()
}

impl Machine {
    /// A CHECK_IN, whole and well framed.
    pub(super) fn on_check_in(&mut self, header: Header) -> Flow {
        let body = self.inbox.octets().get(HEADER_LEN..HEADER_LEN + header.len as usize).unwrap_or_default();
        let parsed = match Parts::split(body) {
            Ok(parts) if !parts.payload.is_empty() => return self.violation("a payload on CHECK_IN"),
            Ok(parts) => CheckIn::parse(parts.envelope).map_err(|error| error.to_string()),
            Err(fault) => Err(fault.to_string()),
        };
        let (info, credential) = match parsed {
            Err(error) => {
                let message = alloc::format!("the check-in does not decode: {error}");
                self.inbox.clear();
                self.refuse(Status::CHECK_IN_REFUSED, message, 0);
                return Flow::Again;
            }
            Ok(said) if !is_identifier(said.identifier) => {
                let message = alloc::format!(
                    "the identifier \"{}\" is not 1 to 128 of [A-Za-z0-9._:@/-]",
                    Escaped(said.identifier.as_bytes())
                );
                self.inbox.clear();
                self.refuse(Status::CHECK_IN_REFUSED, message, 0);
                return Flow::Again;
            }
            Ok(said) => {
                let (least, most) = self.config.heartbeat_bounds;
                let proposed = match said.heartbeat_interval_ms {
                    0 => self.config.heartbeat_interval,
                    ms => Duration::from_millis(ms.into()),
                };
                let info = PeerInfo {
                    identifier: said.identifier.to_owned(),
                    instance: said.instance,
                    heartbeat_interval: proposed.clamp(least, most),
                    max_frame: in_range(said.max_frame, FRAME),
                    max_message: in_range(said.max_message, MESSAGE),
                    max_item: in_range(said.max_item, ITEM).min(in_range(said.max_message, MESSAGE)),
                    max_concurrent: said.max_concurrent,
                    max_streams: said.max_streams.min(said.max_concurrent),
                    stream_window: in_range(said.stream_window, WINDOW),
                    snappy: self.config.snappy && has(&said.features, SNAPPY),
                    labels: labels(&said.labels),
                };
                (info, bytes::Bytes::copy_from_slice(said.credential))
            }
        };
        self.skip_frame(header);
        let peer = Arc::new(info);
        self.meet(&peer);
        if !self.config.verify {
            self.accept();
            return Flow::Again;
        }
        self.phase = Phase::Verifying;
        self.phase_until = self.now.saturating_add(VERIFIER);
        Flow::Step(Step::CheckIn(Box::new(CheckingIn { peer, credential })))
    }

    /// Takes over what the peer said.
    pub(super) fn meet(&mut self, peer: &Arc<PeerInfo>) {
        self.peer_frame = peer.max_frame as usize;
        self.peer_message = peer.max_message as usize;
        self.peer_concurrent = peer.max_concurrent;
        self.peer_streams = peer.max_streams;
        self.peer_item = peer.max_item as usize;
        self.peer_window = peer.stream_window;
        self.snappy = peer.snappy;
        self.peer = Some(Arc::clone(peer));
    }

    /// The check-in is good: the ack can go out, if nothing has come behind the check-in.
    pub(crate) fn accept(&mut self) {
        if !self.inbox.is_empty() {
            return self.spoke_too_soon();
        }
        self.phase = Phase::Acking;
        // Until it is committed, the transport must take something within this time.
        self.phase_until = self.now.saturating_add(VERIFIER);
    }

    /// An ack that refuses; no CLOSE follows it.
    pub(crate) fn refuse(&mut self, status: Status, message: String, retry_after_ms: u32) {
        self.end_calls(Status::NOT_SENT, &message);
        self.refusal = Some(Box::new((status, message.clone(), retry_after_ms)));
        self.conclude(EndOf::us(status, message), Phase::Refusing);
    }

    /// A CHECK_IN_ACK, whole and well framed.
    pub(super) fn on_check_in_ack(&mut self, header: Header) -> Flow {
        let frame = HEADER_LEN + header.len as usize;
        let body = self.inbox.octets().get(HEADER_LEN..frame).unwrap_or_default();
        let said = match Parts::split(body) {
            Ok(parts) if !parts.payload.is_empty() => return self.violation("a payload on CHECK_IN_ACK"),
            Ok(parts) => match CheckInAck::parse(parts.envelope) {
                Ok(said) => said,
                Err(error) => {
                    return self.violation(&alloc::format!("the ack does not decode: {error}"));
                }
            },
            Err(fault) => return self.mistake(&fault, Status::PROTOCOL_ERROR),
        };
        if header.status != Status::OK {
            let message = alloc::format!("{}", Escaped(said.message.as_bytes()));
            self.end(EndOf::peer(header.status.as_close(), message, said.retry_after_ms));
            return Flow::Again;
        }
        if !is_identifier(said.identifier) {
            return self.violation("the server's identifier is not 1 to 128 of [A-Za-z0-9._:@/-]");
        }
        let interval = match said.heartbeat_interval_ms {
            0 => Duration::from_secs(10),
            ms => Duration::from_millis(ms.into()),
        };
        let (least, most) = INTERVALS;
        let kept = (least..=most).contains(&(nanos(interval) / MILLISECOND));
        let peer = Arc::new(PeerInfo {
            identifier: said.identifier.to_owned(),
            instance: said.instance,
            heartbeat_interval: interval,
            max_frame: in_range(said.max_frame, FRAME),
            max_message: in_range(said.max_message, MESSAGE),
            max_item: in_range(said.max_item, ITEM).min(in_range(said.max_message, MESSAGE)),
            max_concurrent: said.max_concurrent,
            max_streams: said.max_streams.min(said.max_concurrent),
            stream_window: in_range(said.stream_window, WINDOW),
            snappy: self.config.snappy && has(&said.features, SNAPPY),
            labels: labels(&said.labels),
        });
        self.inbox.skip(frame);
        if !kept {
            self.fail(
                Status::CHECK_IN_REFUSED,
                "this client cannot keep the heartbeat interval that was granted",
            );
            return Flow::Again;
        }
        self.meet(&peer);
        self.become_ready();
        Flow::Step(Step::Ready(peer))
    }

    /// The ack is out or in: both sides are equals now.
    pub(super) fn become_ready(&mut self) {
        let interval = self.peer.as_ref().map_or(0, |peer| nanos(peer.heartbeat_interval));
        self.phase = Phase::Ready;
        self.phase_until = crate::time::NEVER;
        self.idle_since = self.now;
        self.live.begin(self.now, interval);
        self.control.table = (!self.config.methods.is_empty()).then_some(0);
        if self.peer_concurrent == 0 {
            self.drop_requests(Status::NOT_SENT, "the peer serves no calls");
            self.drop_one_ways("the peer serves no calls");
        } else if self.peer_streams == 0 {
            self.drop_streams("the peer serves no streams");
        }
    }

    pub(super) fn on_table(&mut self, header: Header) -> Flow {
        let frame = HEADER_LEN + header.len as usize;
        let body = self.inbox.octets().get(HEADER_LEN..frame).unwrap_or_default();
        let table = match Parts::split(body) {
            Ok(parts) if !parts.payload.is_empty() => return self.violation("a payload on TABLE"),
            Ok(parts) => Table::parse(parts.envelope),
            Err(fault) => return self.mistake(&fault, Status::PROTOCOL_ERROR),
        };
        let limits = &self.config.limits;
        let learned = match table {
            Err(error) => return self.violation(&alloc::format!("TABLE does not decode: {error}")),
            Ok(table) => table.methods.iter().try_for_each(|method| {
                self.learned.add(&method, limits.max_learned, limits.max_learned_octets)
            }),
        };
        self.inbox.skip(frame);
        match learned {
            Ok(()) => self.pay(cost::TABLE),
            Err(_) => self.violation("TABLE defines a method again, otherwise, or with id 0"),
        }
    }
}
