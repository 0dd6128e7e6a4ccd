//! Answers to this side's calls, and what they mean to the caller.

use alloc::boxed::Box;

use bytes::Bytes;

use super::{
    assembly::{Arriving, Message},
    budget::cost,
    calls::{Owner, Wire},
    event::{Answer, CallId, Envelope, Failure, Stream},
    gain::{Declared, declared},
    input::Flow,
    machine::{Machine, Step},
    rest::Rest,
};
use crate::wire::{Class, Flags, HEADER_LEN, Header, Parts, Ran, Response, Status, snappy};

impl Machine {
    /// A RESPONSE.
    pub(super) fn on_response(&mut self, header: Header) -> Flow {
        let Some((slot, call)) = self.calls.by_wire_id(header.id) else {
            if self.is_theirs(header.id) {
                return self.violation("a RESPONSE to a call of the peer's own");
            }
            return self.not_open(header);
        };
        let (owner, cold) = (call.owner, call.cold.is_some());
        self.idle_since = self.now;
        if self.arriving.contains_key(&header.id) {
            return self.violation("a RESPONSE begins before the message before it is whole");
        }
        if cold {
            // What is still being sent of the call is of no use.
            let stream = Stream::Ours(CallId { slot, generation: call_generation(self, slot) });
            self.stop_argument(header.id, slot, stream);
        }
        if header.flags != Flags::NONE {
            return self.long_response(header, slot, owner);
        }
        if owner == Owner::Waits {
            let outcome = self.outcome(header);
            return Flow::Step(self.answered(slot, outcome));
        }
        // Nobody waits for it any more, but until now it had its place.
        self.skip_frame(header);
        self.answer_over(slot);
        Flow::Again
    }

    /// The RESPONSE has come: sends nothing more of the call.
    fn stop_argument(&mut self, id: u64, slot: u32, stream: Stream) {
        self.unstage_items(id, stream);
        self.drop_items(stream);
        self.abandon_call(slot);
    }

    /// The outcome of a call that somebody waits for, and the end of its place.
    fn answered(&mut self, slot: u32, outcome: Result<Answer, Failure>) -> Step {
        let mut rest = Rest::NONE;
        let mut outcome = outcome;
        if let Some(call) = self.calls.get(slot) {
            call.owner = Owner::Gone;
            if let Some(cold) = &mut call.cold {
                if let (Ok(_), Some(broken)) = (&outcome, cold.broken.take()) {
                    outcome = Err(broken);
                }
                let id = CallId { slot, generation: call.generation };
                match self.rest(id) {
                    Ok(items) => rest = items,
                    Err(_) => outcome = Err(bad_reply("no Snappy block")),
                }
            }
        }
        self.answer_over(slot);
        Step::Done { slot, outcome, rest }
    }

    /// The last of a RESPONSE has come: the call is over on the wire.
    pub(super) fn answer_over(&mut self, slot: u32) {
        let Some(call) = self.calls.get(slot) else { return };
        call.wire = Wire::Off;
        self.calls.not_due(slot);
        self.call_timers.remove(slot);
        self.calls.release(slot);
    }

    /// What a RESPONSE means. Takes its frame.
    fn outcome(&mut self, header: Header) -> Result<Answer, Failure> {
        let frame = HEADER_LEN + header.len as usize;
        let body = self.inbox.octets().get(HEADER_LEN..frame).unwrap_or_default();
        let parts = match Parts::split(body) {
            Ok(parts) => parts,
            Err(fault) => {
                self.skip_frame(header);
                return Err(bad_reply(&alloc::format!("{fault}")));
            }
        };
        let from = frame - parts.payload.len();
        let envelope = from - parts.envelope.len();
        if header.status == Status::OK && parts.envelope.is_empty() {
            if parts.payload.len() > self.config.limits.max_message as usize {
                self.skip_frame(header);
                return Err(over_limit());
            }
            return Ok(Answer { payload: self.inbox.take(frame, from), envelope: None });
        }
        let envelope = match self.judge_response(header, envelope, from) {
            Ok(_) if frame - from > self.config.limits.max_message as usize => Err(over_limit()),
            Ok(_) => Ok(self.inbox.copy(envelope, from)),
            Err(failure) => Err(failure),
        };
        match envelope {
            Ok(envelope) => {
                let payload = self.inbox.take(frame, from);
                rich_outcome(header.status, Some(envelope), payload)
            }
            Err(failure) => {
                self.skip_frame(header);
                Err(failure)
            }
        }
    }

    /// Whether a RESPONSE can be believed, and the `total` that it announces.
    #[cold]
    fn judge_response(&self, header: Header, envelope: usize, from: usize) -> Result<u64, Failure> {
        let octets = self.inbox.octets().get(envelope..from).unwrap_or_default();
        let total = match Response::parse(octets) {
            Ok(response) => response.total,
            Err(error) => return Err(bad_reply(&alloc::format!("{error}"))),
        };
        let status = header.status;
        if matches!(status.class(), Class::Connection | Class::Local) {
            return Err(bad_reply(&alloc::format!("a RESPONSE cannot have {status}")));
        }
        Ok(total)
    }

    /// A RESPONSE that is compressed, or of which this is the first frame.
    #[cold]
    fn long_response(&mut self, header: Header, slot: u32, owner: Owner) -> Flow {
        let more = header.flags.contains(Flags::MORE);
        let frame = HEADER_LEN + header.len as usize;
        let body = self.inbox.octets().get(HEADER_LEN..frame).unwrap_or_default();
        let (part, envelope) = match Parts::split(body) {
            Ok(parts) => (parts.payload.len(), parts.envelope.len()),
            Err(fault) => return self.bad_long_response(header, slot, bad_reply(&alloc::format!("{fault}"))),
        };
        let from = frame - part;
        let total = match self.judge_response(header, from - envelope, from) {
            Ok(total) if more => usize::try_from(total).unwrap_or(usize::MAX),
            Ok(_) => part,
            Err(failure) => return self.bad_long_response(header, slot, failure),
        };
        if more && total <= part {
            return self.violation("MORE, and a total that is not above the first frame's part");
        }
        if more && header.len < 256 {
            self.pay(cost::SMALL);
        }
        let octets = self.inbox.octets().get(from..frame).unwrap_or_default();
        let compressed = header.flags.contains(Flags::COMPRESSED);
        let most = self.config.limits.max_message as usize;
        let plain = match if compressed { declared(octets, total) } else { Declared::Unknown } {
            Declared::Bad => {
                return self.follow_response(header, slot, (part, total), bad_reply("no Snappy block"));
            }
            Declared::Plain(plain) => Some(plain),
            Declared::Unknown => None,
        };
        if total.max(plain.unwrap_or(0)) > most {
            return self.follow_response(header, slot, (part, total), over_limit());
        }
        let kept = (envelope > 0).then(|| self.inbox.copy(from - envelope, from));
        if more {
            let message = Message::Answer { slot, status: header.status, envelope: kept };
            self.begin_message(header, message, part, total, plain);
            if owner != Owner::Waits {
                self.lose_interest(header.id);
            }
            return Flow::Again;
        }
        let payload = self.inbox.take(frame, from);
        if owner != Owner::Waits {
            self.answer_over(slot);
            return Flow::Again;
        }
        let outcome = match snappy::decompress(&payload, plain.unwrap_or(0)) {
            Ok(payload) => rich_outcome(header.status, kept, payload.into()),
            Err(_) => Err(bad_reply("no Snappy block")),
        };
        Flow::Step(self.answered(slot, outcome))
    }

    /// A RESPONSE that cannot be used.
    fn bad_long_response(&mut self, header: Header, slot: u32, failure: Failure) -> Flow {
        let waits = self.calls.get(slot).is_some_and(|call| call.owner == Owner::Waits);
        self.skip_frame(header);
        if header.flags.contains(Flags::MORE) {
            self.remember_refused(header.id);
        }
        if waits {
            return Flow::Step(self.answered(slot, Err(failure)));
        }
        self.answer_over(slot);
        Flow::Again
    }

    /// The same when more of it is to come and it is known how much: it is followed to its end, and the peer need
    /// not send it.
    fn follow_response(
        &mut self,
        header: Header,
        slot: u32,
        (part, total): (usize, usize),
        failure: Failure,
    ) -> Flow {
        if !header.flags.contains(Flags::MORE) {
            return self.bad_long_response(header, slot, failure);
        }
        let message = Message::Answer { slot, status: header.status, envelope: None };
        self.begin_message(header, message, part, total, None);
        self.lose_interest(header.id);
        self.give_up(slot);
        self.tell(slot, Some(failure));
        Flow::Again
    }

    /// A RESPONSE in pieces is whole.
    pub(super) fn answer_done(&mut self, arriving: Arriving) -> Flow {
        self.idle_since = self.now;
        let unwanted = arriving.unwanted;
        let Message::Answer { slot, status, envelope } = &arriving.message else { return Flow::Again };
        let (slot, status, envelope) = (*slot, *status, envelope.clone());
        let waits = self.calls.get(slot).is_some_and(|call| call.owner == Owner::Waits);
        if unwanted || !waits {
            self.answer_over(slot);
            return Flow::Again;
        }
        let outcome = match self.plain(arriving) {
            Ok(payload) => rich_outcome(status, envelope, payload),
            Err(_) => Err(bad_reply("no Snappy block")),
        };
        Flow::Step(self.answered(slot, outcome))
    }

    /// An outcome that waited to be fetched, and that of one-ways that were committed.
    pub(super) fn finished_step(&mut self) -> Option<Step> {
        while let Some(slot) = self.finished.pop_front() {
            let Some(call) = self.calls.get(slot) else { continue };
            if call.owner == Owner::Told {
                call.owner = Owner::Gone;
                let outcome = match call.failure.take() {
                    Some(failure) => Err(failure),
                    None => Ok(Answer { payload: Bytes::new(), envelope: None }),
                };
                let id = CallId { slot, generation: call.generation };
                let rest = if call.cold.is_some() { self.rest(id).unwrap_or_default() } else { Rest::NONE };
                self.calls.release(slot);
                return Some(Step::Done { slot, outcome, rest });
            }
        }
        None
    }

    /// Whether nothing of a call ever left, for those that are unfinished when the connection is dropped.
    pub(crate) fn unfinished(&mut self, slot: u32) -> Ran {
        match self.calls.get(slot) {
            Some(call) => match (&call.failure, call.wire) {
                (Some(failure), _) => failure.ran(),
                (None, Wire::Queued) => Ran::No,
                (None, Wire::Sent) if call.id > self.transmitted => Ran::No,
                (None, _) => Ran::Maybe,
            },
            None => Ran::Maybe,
        }
    }
}

fn call_generation(machine: &mut Machine, slot: u32) -> u32 {
    machine.calls.get(slot).map_or(0, |call| call.generation)
}

fn bad_reply(why: &str) -> Failure {
    Failure::local(Status::BAD_REPLY, Ran::Maybe, why)
}

fn over_limit() -> Failure {
    Failure::local(Status::LOCAL_LIMIT, Ran::Maybe, "the answer is larger than this side reads")
}

/// An answer with an envelope, or an error.
#[cold]
fn rich_outcome(status: Status, envelope: Option<Box<[u8]>>, payload: Bytes) -> Result<Answer, Failure> {
    if status == Status::OK {
        return Ok(Answer { payload, envelope: envelope.map(|envelope| Box::new(Envelope(envelope))) });
    }
    // It was found to decode.
    let response = Response::parse(envelope.as_deref().unwrap_or_default()).unwrap_or_default();
    let message = alloc::string::String::from(response.message);
    Err(Failure::new(status, status.ran(), &message, payload, envelope))
}
