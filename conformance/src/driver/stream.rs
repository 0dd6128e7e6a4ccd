//! A stream that was opened: its sends one after the other, its receives one after the other, and either beside the other.

use bytes::Bytes;
use tieline::{Answer, CallError, ItemSink, Items, Ran, Status};
use tokio::sync::{Mutex, watch};

use super::reply::Reply;

/// Those who send, and those who receive, are let in in the order in which they came.
pub(super) struct Stream {
    /// What sends; nothing if the kind sends no items, or they were ended.
    sink: Mutex<Option<ItemSink>>,
    items: Mutex<Receiving>,
    cancelled: watch::Sender<bool>,
}

/// How far receiving is.
enum Receiving {
    Open(Items),
    /// It is over, and nobody has asked since.
    Over(Result<Answer, CallError>),
    /// That was told.
    Told,
}

/// What was received.
pub(super) enum Received {
    Item(Bytes),
    /// How it ended.
    End(Result<Answer, CallError>),
    /// The end was told before.
    Nothing,
}

impl Stream {
    pub(super) fn new(sink: Option<ItemSink>, items: Items) -> Self {
        let (sink, items) = (Mutex::new(sink), Mutex::new(Receiving::Open(items)));
        Self { sink, items, cancelled: watch::Sender::new(false) }
    }

    /// Hands an item over, as soon as there is credit for it.
    pub(super) async fn send(&self, item: Bytes) -> Reply {
        match &mut *self.sink.lock().await {
            Some(sink) => match sink.send(item).await {
                Ok(()) => Reply::ok(),
                Err(error) => Reply::outcome(&Err(error)),
            },
            None => no_more(),
        }
    }

    /// Ends what is sent, behind the items that were to be sent before.
    pub(super) async fn end(&self) -> Reply {
        match self.sink.lock().await.take() {
            Some(mut sink) => match sink.end() {
                Ok(()) => Reply::ok(),
                Err(error) => Reply::outcome(&Err(error)),
            },
            None => no_more(),
        }
    }

    /// The next item, or the end. Safe to drop while it waits: nothing is lost.
    pub(super) async fn receive(&self) -> Received {
        let mut receiving = self.items.lock().await;
        if let Receiving::Open(items) = &mut *receiving {
            let mut cancelled = self.cancelled.subscribe();
            tokio::select! {
                biased;
                _ = cancelled.wait_for(|cancelled| *cancelled) => receiving.give_up(),
                // An error is the outcome, too.
                item = items.next() => if let Some(Ok(item)) = item {
                    return Received::Item(item);
                },
            }
        }
        match std::mem::replace(&mut *receiving, Receiving::Told) {
            Receiving::Open(items) => Received::End(items.finish().await),
            Receiving::Over(outcome) => Received::End(outcome),
            Receiving::Told => Received::Nothing,
        }
    }

    /// Gives the call up. Whoever receives is told.
    pub(super) fn cancel(&self) {
        self.cancelled.send_replace(true);
        // Otherwise somebody receives at this moment, and gives it up instead.
        if let Ok(mut receiving) = self.items.try_lock() {
            receiving.give_up();
        }
    }
}

impl Receiving {
    fn give_up(&mut self) {
        if let Self::Open(items) = std::mem::replace(self, Self::Told) {
            *self = Self::Over(items.cancel());
        }
    }
}

fn no_more() -> Reply {
    Reply::failed(Status::LOCAL_LIMIT, Ran::No, "this end of the stream sends no items, or has ended them")
}
