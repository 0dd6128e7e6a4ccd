//! What is said of a small world: the laws of every state, what can be seen of it from outside, and how it must end.

use std::hash::{Hash, Hasher};

use tieline_core::wire::FrameType;

use super::{Action, CLIENT, NOW, SERVER, Small};

impl Small {
    /// What holds in every state.
    pub fn laws(&self) {
        for side in [CLIENT, SERVER] {
            let (next, wake) = (self.conns[side].next(), self.conns[side].poll_timeout());
            assert!(!next.event, "every event was fetched");
            if next.write {
                assert!(wake.is_some_and(|at| at <= NOW), "L5: what waits forces the time-out");
            } else {
                assert_eq!(wake, next.wake, "L5: next() and poll_timeout() agree");
            }
            assert_eq!(self.is_gone(side), wake.is_none(), "over, and still waiting for something");
        }
        let open = self.made.iter().filter(|(made, _)| made.outcome.is_none()).count();
        assert!(self.conns[CLIENT].open_calls().0 >= open, "a call that is open has its place");
        assert!(self.conns[SERVER].open_calls().1 >= self.running.len(), "who runs has its place");
    }

    /// Everything that can be seen from outside. What the connections would send is sent for it.
    pub fn look(&mut self, hasher: &mut impl Hasher) {
        for (made, _) in &self.made {
            made.hash(hasher);
        }
        for (running, _) in &self.running {
            running.hash(hasher);
        }
        (self.drained, self.closing, self.broken, self.told_eof, self.closed).hash(hasher);
        for side in [CLIENT, SERVER] {
            let conn = &self.conns[side];
            format!("{:?} {:?}", conn.next(), conn.open_calls()).hash(hasher);
            let stats = conn.stats();
            (stats.calls_out, stats.calls_in, stats.refused, stats.late_frames).hash(hasher);
            (stats.items_out, stats.items_in, self.line[side].len()).hash(hasher);
        }
        for side in [CLIENT, SERVER] {
            while self.conns[side].next().write {
                self.commit(side, usize::MAX);
            }
            // Tokens differ, and mean nothing.
            let frames = self.line[side].iter().filter(|seen| seen.frame_type() != FrameType::HEARTBEAT);
            frames.for_each(|seen| seen.octets.hash(hasher));
        }
        self.events();
    }

    /// Moves all frames; whether there were any.
    pub(super) fn move_everything(&mut self) -> bool {
        let mut any = false;
        for side in [CLIENT, SERVER] {
            while self.conns[side].next().write {
                self.commit(side, usize::MAX);
                any = true;
            }
            while !self.line[side].is_empty() {
                self.deliver(side);
                self.events();
                any = true;
            }
        }
        self.events();
        any
    }

    /// Brings everything to its end, which there must be: streams end, handlers answer, and if the line has broken or
    /// a side closes, the other hears of it.
    pub fn settle(&mut self) {
        let calm = [Action::Commit(CLIENT), Action::Commit(SERVER)];
        for _ in 0..100 {
            let mut any = self.move_everything();
            let enabled = self.enabled().into_iter().find(|action| {
                !calm.contains(action)
                    && matches!(
                        action,
                        Action::EndUp(_)
                            | Action::TakeDown(_)
                            | Action::TakeUp(_)
                            | Action::Reply(_)
                            | Action::Stop(_)
                            | Action::Eof(_)
                    )
            });
            if let Some(action) = enabled {
                self.act(action);
                any = true;
            }
            if !any {
                return self.at_the_end();
            }
        }
        panic!("it never comes to rest");
    }

    fn at_the_end(&mut self) {
        for (made, _) in &self.made {
            assert!(made.outcome.is_some(), "call {} has no outcome", made.index);
        }
        assert!(self.running.is_empty());
        let over = self.broken || self.closing.contains(&true) || self.drained.contains(&true);
        for side in [CLIENT, SERVER] {
            assert_eq!(self.conns[side].open_calls(), (0, 0), "{side} has places that nobody holds");
            assert_eq!(self.closed[side], over, "{side} {:?}", self.conns[side]);
        }
    }
}
