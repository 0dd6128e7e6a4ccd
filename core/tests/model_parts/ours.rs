//! The calls of this side: what its application does with them, and the frames of the peer that are about them.

use support::{hostile::NAMES, peer::KINDS};
use tieline_core::{
    conn::{Body, CallHead, CallId, ItemError, Stream},
    wire::{Credit, Envelope, FrameType, Item, Status},
};

use super::{
    super::{Test, support},
    directions::{COST, End, In, Out, goes_down, goes_up, len_of},
};

#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Ours {
    Queued,
    /// Sent, and the application waits.
    Waits,
    /// Given up; its RESPONSE is still due.
    GivenUp,
    Over,
}

#[derive(Debug)]
pub(crate) struct Call {
    pub(crate) state: Ours,
    pub(crate) kind: usize,
    /// The wire id, once it is sent.
    pub(crate) id: u64,
    pub(crate) out: Option<Out>,
    pub(crate) takes: Option<In>,
    pub(crate) name: CallId,
}

impl Test {
    pub(crate) fn call(&mut self, kind: usize) -> Option<()> {
        let user = self.calls.len() as u32;
        let mut head = CallHead::new(NAMES[kind]);
        head.kind = KINDS[kind];
        let name = self.raw.conn.call(self.raw.at(), &head, Body::Copy(&user.to_be_bytes()), user).unwrap();
        let out = goes_up(kind).then(Out::new);
        let takes = goes_down(kind).then(In::new);
        self.calls.push(Call { state: Ours::Queued, kind, id: 0, out, takes, name });
        Some(())
    }

    pub(crate) fn cancel(&mut self, at: usize) {
        let call = &mut self.calls[at];
        let user = self.raw.conn.cancel(self.raw.at(), call.name);
        match call.state {
            Ours::Queued => call.state = Ours::Over,
            Ours::Waits => {
                call.state = Ours::GivenUp;
                self.frames.push((call.id, "CANCEL".to_owned()));
            }
            Ours::GivenUp | Ours::Over => return assert_eq!(user, None),
        }
        assert_eq!(user, Some(at as u32));
        call.out.iter_mut().for_each(Out::drop_all);
    }

    fn is_open(call: &Call) -> bool {
        matches!(call.state, Ours::Queued | Ours::Waits)
    }

    pub(crate) fn send_item(&mut self, at: usize, len: usize) {
        let call = &mut self.calls[at];
        let sent = self.raw.conn.send_item(self.raw.at(), call.name, Body::Copy(&vec![1; len]));
        let open = Self::is_open(call);
        let expected = match call.out.as_mut().filter(|_| open) {
            Some(out) => out.send(len),
            None => Err(ItemError::Over),
        };
        assert_eq!(sent, expected);
    }

    pub(crate) fn end_items(&mut self, at: usize) {
        let call = &mut self.calls[at];
        let ended = self.raw.conn.end_items(self.raw.at(), call.name);
        let open = Self::is_open(call);
        match call.out.as_mut().filter(|out| open && out.end == End::Open) {
            Some(out) => {
                out.end = End::Wanted;
                assert_eq!(ended, Ok(()));
            }
            None => assert_eq!(ended, Err(ItemError::Over)),
        }
    }

    pub(crate) fn take(&mut self, at: usize) {
        let call = &mut self.calls[at];
        let found = self.raw.conn.take_item(self.raw.at(), call.name);
        let open = Self::is_open(call);
        let expected = call.takes.as_mut().filter(|_| open).and_then(In::take);
        assert_eq!(len_of(found), expected);
    }

    pub(crate) fn grant(&mut self, at: usize, octets: usize) {
        let call = &mut self.calls[at];
        self.raw.conn.grant(self.raw.at(), call.name, octets as u32);
        if Self::is_open(call)
            && let Some(takes) = &mut call.takes
        {
            takes.owed += octets as i64;
            takes.pays = true;
        }
    }

    pub(crate) fn response(&mut self, whose: u8) -> Option<()> {
        let at = self.pick(whose, |call| matches!(call.state, Ours::Waits | Ours::GivenUp))?;
        let call = &mut self.calls[at];
        let (id, waits) = (call.id, call.state == Ours::Waits);
        call.state = Ours::Over;
        call.out.iter_mut().for_each(Out::drop_all);
        if waits {
            let rest = call.takes.as_ref().map_or(0, |takes| takes.waiting.len());
            self.events.push(format!("Done {at} true, {rest} left"));
        }
        self.feed(FrameType::RESPONSE, id, Status::OK, Envelope::Response(Default::default()), b"result");
        Some(())
    }

    pub(crate) fn item_down(&mut self, whose: u8, len: usize) -> Option<()> {
        let may = |call: &Call| {
            let sent = matches!(call.state, Ours::Waits | Ours::GivenUp);
            sent && call.takes.as_ref().is_some_and(|takes| takes.credit > 0)
        };
        let at = self.pick(whose, may)?;
        let call = &mut self.calls[at];
        let (id, waits) = (call.id, call.state == Ours::Waits);
        let takes = call.takes.as_mut().unwrap();
        if waits {
            if takes.came(len) {
                self.events.push(format!("Readable {:?}", Stream::Ours(call.name)));
            }
        } else {
            takes.credit -= (len + COST) as i64;
        }
        self.feed(FrameType::STREAM_ITEM, id, Status::OK, Envelope::Item(Item::default()), &vec![2; len]);
        Some(())
    }

    pub(crate) fn credit_up(&mut self, whose: u8, octets: usize) -> Option<()> {
        let may = |call: &Call| matches!(call.state, Ours::Waits | Ours::GivenUp) && call.out.is_some();
        let at = self.pick(whose, may)?;
        let call = &mut self.calls[at];
        let (id, out) = (call.id, call.out.as_mut().unwrap());
        let octets = octets + 1;
        if out.end != End::Over {
            out.credit += octets as i64;
        }
        let credit = Credit { octets: octets as u32 };
        self.feed(FrameType::CREDIT, id, Status::OK, Envelope::Credit(credit), b"");
        Some(())
    }
}
