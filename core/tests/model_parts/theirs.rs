//! The calls of the peer: the frames that it sends about them, and what this side's application does with them.

use support::peer::KINDS;
use tieline_core::{
    conn::{Body, Event, ItemError, Reply, ReplyError, Served, Stream},
    wire::{Credit, Envelope, FrameType, Item, Request, Status},
};

use super::{
    super::{CALLS, STREAMS, Test, support},
    directions::{COST, In, Out, goes_down, goes_up, len_of},
};

#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Theirs {
    Runs,
    /// Answered in the handler's stead, and that has not stopped.
    Outlives,
    /// The answer is behind items that wait for credit.
    AnswerWaits,
    Over,
}

#[derive(Debug)]
pub(crate) struct Serves {
    pub(crate) state: Theirs,
    pub(crate) kind: usize,
    pub(crate) id: u64,
    pub(crate) out: Option<Out>,
    pub(crate) takes: Option<In>,
    pub(crate) name: Served,
}

impl Test {
    pub(crate) fn request(&mut self, kind: usize) -> Option<()> {
        let id = self.next_id;
        self.next_id += 2;
        let head = Request {
            method: 1 + kind as u32,
            kind: KINDS[kind].to_wire(),
            credit: None,
            ..Request::default()
        };
        let held = |call: &&Serves| call.state != Theirs::Over;
        let places = self.serves.iter().filter(held).count();
        let streams = self.serves.iter().filter(held).filter(|call| call.kind > 0).count();
        self.feed(FrameType::REQUEST, id, Status::OK, Envelope::Request(head), b"argument");
        if places >= CALLS || (kind > 0 && streams >= STREAMS) {
            self.frames.push((id, format!("RESPONSE {}", Status::TOO_MANY_CALLS)));
            return Some(());
        }
        let event = self.raw.conn.poll_event(self.raw.at());
        let Some(Event::Request(incoming)) = event else { panic!("no request: {event:?}") };
        assert_eq!(incoming.kind, KINDS[kind]);
        let (out, takes) = (goes_down(kind).then(Out::new), goes_up(kind).then(In::new));
        self.serves.push(Serves { state: Theirs::Runs, kind, id, out, takes, name: incoming.call });
        Some(())
    }

    pub(crate) fn reply(&mut self, at: usize) {
        let call = &mut self.serves[at];
        let done = self.raw.conn.reply(self.raw.at(), call.name, &Reply::ok(Body::Copy(b"result")));
        match call.state {
            Theirs::Runs => {
                assert_eq!(done, Ok(()));
                call.state = Theirs::AnswerWaits;
            }
            Theirs::Outlives => {
                assert_eq!(done, Err(ReplyError::Answered));
                call.state = Theirs::Over;
            }
            Theirs::AnswerWaits | Theirs::Over => assert_eq!(done, Err(ReplyError::Unknown)),
        }
    }

    pub(crate) fn send_down(&mut self, at: usize, len: usize) {
        let call = &mut self.serves[at];
        let sent = self.raw.conn.send_item(self.raw.at(), call.name, Body::Copy(&vec![3; len]));
        let runs = call.state == Theirs::Runs;
        let expected = match call.out.as_mut().filter(|_| runs) {
            Some(out) => out.send(len),
            None => Err(ItemError::Over),
        };
        assert_eq!(sent, expected);
    }

    pub(crate) fn take_up(&mut self, at: usize) {
        let call = &mut self.serves[at];
        let found = self.raw.conn.take_item(self.raw.at(), call.name);
        let runs = call.state == Theirs::Runs;
        assert_eq!(len_of(found), call.takes.as_mut().filter(|_| runs).and_then(In::take));
    }

    pub(crate) fn cancel_in(&mut self, whose: u8) -> Option<()> {
        let at = self.pick_served(whose, |_| true)?;
        let call = &mut self.serves[at];
        let id = call.id;
        let answer = (id, format!("RESPONSE {}", Status::CANCELLED_RUNNING));
        match call.state {
            Theirs::Runs => {
                call.state = Theirs::Outlives;
                self.events.push(format!("Cancelled {:?}", call.name));
                self.frames.push(answer);
            }
            Theirs::AnswerWaits => {
                call.state = Theirs::Over;
                self.frames.push(answer);
            }
            Theirs::Outlives | Theirs::Over => {}
        }
        call.out.iter_mut().for_each(Out::drop_all);
        self.feed(FrameType::CANCEL, id, Status::CANCELLED, Envelope::None, b"");
        Some(())
    }

    pub(crate) fn item_up(&mut self, whose: u8, len: usize) -> Option<()> {
        let may = |call: &Serves| call.takes.as_ref().is_some_and(|takes| takes.credit > 0 && !takes.ended);
        let at = self.pick_served(whose, may)?;
        let call = &mut self.serves[at];
        let (id, runs, takes) = (call.id, call.state == Theirs::Runs, call.takes.as_mut().unwrap());
        if runs {
            if takes.came(len) {
                self.events.push(format!("Readable {:?}", Stream::Theirs(call.name)));
            }
        } else {
            takes.credit -= (len + COST) as i64;
        }
        self.feed(FrameType::STREAM_ITEM, id, Status::OK, Envelope::Item(Item::default()), &vec![4; len]);
        Some(())
    }

    pub(crate) fn end_in(&mut self, whose: u8) -> Option<()> {
        let may = |call: &Serves| call.takes.as_ref().is_some_and(|takes| !takes.ended);
        let at = self.pick_served(whose, may)?;
        let call = &mut self.serves[at];
        let (id, runs, takes) = (call.id, call.state == Theirs::Runs, call.takes.as_mut().unwrap());
        takes.ended = true;
        if runs && !std::mem::replace(&mut takes.told, true) {
            self.events.push(format!("Readable {:?}", Stream::Theirs(call.name)));
        }
        self.feed(FrameType::STREAM_END, id, Status::OK, Envelope::None, b"");
        Some(())
    }

    pub(crate) fn credit_down(&mut self, whose: u8, octets: usize) -> Option<()> {
        let at = self.pick_served(whose, |call| call.out.is_some())?;
        let call = &mut self.serves[at];
        let (id, octets) = (call.id, octets + 1);
        if matches!(call.state, Theirs::Runs | Theirs::AnswerWaits) {
            call.out.as_mut().unwrap().credit += octets as i64;
        }
        let credit = Credit { octets: octets as u32 };
        self.feed(FrameType::CREDIT, id, Status::OK, Envelope::Credit(credit), b"");
        Some(())
    }
}
