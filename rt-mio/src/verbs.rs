//! What an application does to a connection: the verbs of the core, with the connection that is meant as their first
//! argument. A connection that has gone answers as the core does once one is over.

use std::time::Duration;

use tieline_core::{
    conn::{
        Body, CallHead, CallId, ItemError, Rejected, Rejection, Reply, ReplyError, Served, Stream, Taken,
    },
    wire::Status,
};

use crate::net::{ConnId, Net};

impl<U> Net<U> {
    // ---- calls ------------------------------------------------------------------------------------------------

    /// Calls a method of the peer: [`Connection::call`](tieline_core::conn::Connection::call).
    ///
    /// # Errors
    /// [`Rejected`] gives `user` back and says why.
    #[inline]
    pub fn call(
        &mut self,
        id: ConnId,
        head: &CallHead<'_>,
        body: Body<'_>,
        user: U,
    ) -> Result<CallId, Rejected<U>> {
        match self.meant(id) {
            Some((conn, now)) => conn.call(now, head, body, user),
            None => Err(Rejected { user, reason: Rejection::Closed }),
        }
    }

    /// Sends what nobody answers: [`Connection::one_way`](tieline_core::conn::Connection::one_way).
    ///
    /// # Errors
    /// As [`call`](Self::call).
    pub fn one_way(
        &mut self,
        id: ConnId,
        head: &CallHead<'_>,
        body: Body<'_>,
        user: U,
    ) -> Result<CallId, Rejected<U>> {
        match self.meant(id) {
            Some((conn, now)) => conn.one_way(now, head, body, user),
            None => Err(Rejected { user, reason: Rejection::Closed }),
        }
    }

    /// Gives a call up and returns its value: [`Connection::cancel`](tieline_core::conn::Connection::cancel).
    pub fn cancel(&mut self, id: ConnId, call: CallId) -> Option<U> {
        let (conn, now) = self.meant(id)?;
        conn.cancel(now, call)
    }

    /// Answers a call of the peer with its result and nothing else: [`Connection::answer`](tieline_core::conn::Connection::answer).
    ///
    /// # Errors
    /// [`ReplyError`] if the answer is of no use any more.
    #[inline]
    pub fn answer(&mut self, id: ConnId, call: Served, body: Body<'_>) -> Result<(), ReplyError> {
        let (conn, now) = self.meant(id).ok_or(ReplyError::Unknown)?;
        conn.answer(now, call, body)
    }

    /// Answers a call of the peer: [`Connection::reply`](tieline_core::conn::Connection::reply).
    ///
    /// # Errors
    /// As [`answer`](Self::answer).
    pub fn reply(&mut self, id: ConnId, call: Served, reply: &Reply<'_>) -> Result<(), ReplyError> {
        let (conn, now) = self.meant(id).ok_or(ReplyError::Unknown)?;
        conn.reply(now, call, reply)
    }

    /// Refuses a call whose handling was not begun: [`Connection::refuse`](tieline_core::conn::Connection::refuse).
    ///
    /// # Errors
    /// As [`answer`](Self::answer).
    pub fn refuse(&mut self, id: ConnId, call: Served, reply: &Reply<'_>) -> Result<(), ReplyError> {
        let (conn, now) = self.meant(id).ok_or(ReplyError::Unknown)?;
        conn.refuse(now, call, reply)
    }

    /// Whoever worked on a call has stopped: [`Connection::stopped`](tieline_core::conn::Connection::stopped).
    pub fn stopped(&mut self, id: ConnId, call: Served) {
        if let Some((conn, now)) = self.meant(id) {
            conn.stopped(now, call);
        }
    }

    pub(crate) fn panicked(&mut self, id: ConnId, call: Served) {
        if let Some((conn, now)) = self.meant(id) {
            // It may have been answered before the panic.
            let _ = conn.panicked(now, call);
        }
    }

    // ---- streams ----------------------------------------------------------------------------------------------

    /// Sends an item on a call that streams: [`Connection::send_item`](tieline_core::conn::Connection::send_item).
    ///
    /// # Errors
    /// [`ItemError`]: full, which [`App::writable`](crate::App::writable) ends; too large for the peer; or over.
    pub fn send_item(&mut self, id: ConnId, to: impl Into<Stream>, item: Body<'_>) -> Result<(), ItemError> {
        let (conn, now) = self.meant(id).ok_or(ItemError::Over)?;
        conn.send_item(now, to, item)
    }

    /// Ends what this side sends on a call of its own: [`Connection::end_items`](tieline_core::conn::Connection::end_items).
    ///
    /// # Errors
    /// [`ItemError::Over`].
    pub fn end_items(&mut self, id: ConnId, call: CallId) -> Result<(), ItemError> {
        let (conn, now) = self.meant(id).ok_or(ItemError::Over)?;
        conn.end_items(now, call)
    }

    /// Takes the next item that has come on a call: [`Connection::take_item`](tieline_core::conn::Connection::take_item).
    pub fn take_item(&mut self, id: ConnId, from: impl Into<Stream>) -> Option<Taken> {
        let (conn, now) = self.meant(id)?;
        conn.take_item(now, from)
    }

    /// Lets so many octets more come than were taken: [`Connection::grant`](tieline_core::conn::Connection::grant).
    pub fn grant(&mut self, id: ConnId, from: impl Into<Stream>, octets: u32) {
        if let Some((conn, now)) = self.meant(id) {
            conn.grant(now, from, octets);
        }
    }

    // ---- the life of connections ------------------------------------------------------------------------------

    /// Accepts the check-in that [`App::check_in`](crate::App::check_in) asked about.
    pub fn accept_check_in(&mut self, id: ConnId) {
        if let Some((conn, now)) = self.meant(id) {
            conn.accept_check_in(now);
        }
    }

    /// Refuses it: [`Connection::refuse_check_in`](tieline_core::conn::Connection::refuse_check_in).
    pub fn refuse_check_in(
        &mut self,
        id: ConnId,
        status: Status,
        message: &str,
        retry_after: Option<Duration>,
    ) {
        if let Some((conn, now)) = self.meant(id) {
            conn.refuse_check_in(now, status, message, retry_after);
        }
    }

    /// Asks whether the peer lives: [`Connection::probe`](tieline_core::conn::Connection::probe). [`App::alive`](crate::App::alive) tells.
    pub fn probe(&mut self, id: ConnId) -> bool {
        self.meant(id).is_some_and(|(conn, now)| conn.probe(now))
    }

    /// Drains a connection: [`Connection::drain`](tieline_core::conn::Connection::drain).
    pub fn drain(&mut self, id: ConnId, status: Status, grace: Duration, message: &str) {
        if let Some((conn, now)) = self.meant(id) {
            conn.drain(now, status, grace, message);
        }
    }

    /// Closes a connection: [`Connection::close`](tieline_core::conn::Connection::close).
    pub fn close(&mut self, id: ConnId, status: Status, message: &str) {
        if let Some((conn, now)) = self.meant(id) {
            conn.close(now, status, message);
        }
    }
}
