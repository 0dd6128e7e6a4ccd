//! What stands above a connection: nothing much at a client, the set of all connections at a server.

use std::{
    future::poll_fn,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, Mutex, MutexGuard, PoisonError, atomic::{AtomicU64, Ordering}},
    task::{Poll, Waker},
    time::Duration,
};

use tieline_core::{
    conn::{CheckingIn, PeerInfo},
    wire::Status,
};

use crate::{
    driver::Spawn,
    link::Link,
    peer::Peer,
    runtime::BoxFuture,
};

/// Connections that are not checked in, at most; a new one beyond that closes the oldest (protocol §4).
const MAX_UNCHECKED: usize = 1024;

/// A server's answer to a check-in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    /// Come in.
    Accept,
    /// Stay out, for this reason; a client tells its application.
    Refuse(String),
    /// Stay out for so long.
    RefuseFor(String, Duration),
}

/// Decides about check-ins.
pub(crate) type Verifier = Box<dyn Fn(CheckingIn) -> BoxFuture<Decision> + Send + Sync>;

/// Whose connection it is.
#[derive(Clone)]
pub(crate) enum Role {
    Client,
    Server(Arc<Registry>),
}

impl Role {
    pub(crate) fn opened(&self, link: &Arc<Link>) {
        if let Self::Server(registry) = self {
            registry.opened(link);
        }
    }

    pub(crate) fn verify(&self, link: &Arc<Link>, spawn: &Spawn, check_in: CheckingIn) {
        if let Self::Server(registry) = self {
            registry.verify(link, spawn, check_in);
        }
    }

    pub(crate) fn ready(&self, link: &Arc<Link>, peer: &PeerInfo) {
        if let Self::Server(registry) = self {
            registry.ready(link, peer);
        }
    }

    pub(crate) fn closed(&self, link: &Arc<Link>) {
        if let Self::Server(registry) = self {
            registry.closed(link);
        }
    }
}

/// All connections of a server.
pub(crate) struct Registry {
    links: Mutex<Links>,
    verifier: Option<Verifier>,
    duplicates: AtomicU64,
}

#[derive(Default)]
struct Links {
    /// In the order in which they were opened.
    open: Vec<Entry>,
    /// The server shuts down: with this grace.
    closing: Option<Duration>,
    watchers: Vec<Waker>,
}

struct Entry {
    link: Arc<Link>,
    /// Identifier and instance, once it is checked in.
    who: Option<(String, u64)>,
}

impl Registry {
    pub(crate) fn new(verifier: Option<Verifier>) -> Arc<Self> {
        Arc::new(Self { links: Mutex::default(), verifier, duplicates: AtomicU64::new(0) })
    }

    fn lock(&self) -> MutexGuard<'_, Links> {
        self.links.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn opened(&self, link: &Arc<Link>) {
        let mut links = self.lock();
        links.open.push(Entry { link: Arc::clone(link), who: None });
        let closing = links.closing;
        let unchecked = links.open.iter().filter(|entry| entry.who.is_none()).count();
        let oldest = if unchecked > MAX_UNCHECKED {
            links.open.iter().find(|entry| entry.who.is_none()).map(|entry| Arc::clone(&entry.link))
        } else {
            None
        };
        drop(links);
        if let Some(oldest) = oldest {
            let message = "too many connections have not checked in";
            Peer::new(oldest).close(Status::TOO_MANY_CONNECTIONS, message);
        }
        if let Some(grace) = closing {
            Peer::new(Arc::clone(link)).drain(Status::GOING_AWAY, grace, "the node shuts down");
        }
    }

    /// Asks the application about a check-in. The core bounds how long that may take.
    fn verify(&self, link: &Arc<Link>, spawn: &Spawn, check_in: CheckingIn) {
        let Some(verifier) = &self.verifier else { return };
        let link = Arc::clone(link);
        let Ok(decision) = catch_unwind(AssertUnwindSafe(|| verifier(check_in))) else {
            decide(&link, Decision::Refuse("the verifier failed".to_owned()));
            return;
        };
        spawn(Box::pin(async move {
            let decision = decision.await;
            decide(&link, decision);
        }));
    }

    /// One identifier, one process (protocol §4): a restarted one takes over, if identifiers are verified at all.
    fn ready(&self, link: &Arc<Link>, peer: &PeerInfo) {
        let mut links = self.lock();
        let mut older = Vec::new();
        for entry in &mut links.open {
            if Arc::ptr_eq(&entry.link, link) {
                entry.who = Some((peer.identifier.clone(), peer.instance));
            } else if let Some((identifier, instance)) = &entry.who
                && *identifier == peer.identifier
                && *instance != peer.instance
            {
                if self.verifier.is_none() {
                    self.duplicates.fetch_add(1, Ordering::Relaxed);
                } else if *instance != 0 && *instance < peer.instance {
                    older.push(Arc::clone(&entry.link));
                }
            }
        }
        drop(links);
        for link in older {
            Peer::new(link).close(Status::IDENTITY_CONFLICT, "a newer process of this identifier has checked in");
        }
    }

    fn closed(&self, link: &Arc<Link>) {
        let mut links = self.lock();
        links.open.retain(|entry| !Arc::ptr_eq(&entry.link, link));
        let watchers = if links.open.is_empty() { std::mem::take(&mut links.watchers) } else { Vec::new() };
        drop(links);
        watchers.into_iter().for_each(Waker::wake);
    }

    /// The connections that are checked in.
    pub(crate) fn peers(&self) -> Vec<Peer> {
        let links = self.lock();
        let ready = links.open.iter().filter(|entry| entry.who.is_some());
        ready.map(|entry| Peer::new(Arc::clone(&entry.link))).collect()
    }

    /// Check-ins under an identifier that another process uses as well, where nobody verifies them.
    pub(crate) fn duplicates(&self) -> u64 {
        self.duplicates.load(Ordering::Relaxed)
    }

    /// Drains every connection, those that are still to come too.
    pub(crate) fn drain(&self, grace: Duration) {
        let mut links = self.lock();
        links.closing = Some(grace);
        let open: Vec<Arc<Link>> = links.open.iter().map(|entry| Arc::clone(&entry.link)).collect();
        drop(links);
        for link in open {
            Peer::new(link).drain(Status::GOING_AWAY, grace, "the node shuts down");
        }
    }

    /// Waits until no connection is left.
    pub(crate) async fn empty(&self) {
        poll_fn(|cx| {
            let mut links = self.lock();
            if links.open.is_empty() {
                return Poll::Ready(());
            }
            links.watchers.push(cx.waker().clone());
            Poll::Pending
        })
        .await;
    }
}

fn decide(link: &Link, decision: Decision) {
    let mut entered = link.enter();
    let state = &mut *entered.state;
    let (now, conn) = (state.now, &mut state.conn);
    match decision {
        Decision::Accept => conn.accept_check_in(now),
        Decision::Refuse(why) => conn.refuse_check_in(now, Status::CHECK_IN_REFUSED, &why, None),
        Decision::RefuseFor(why, time) => {
            conn.refuse_check_in(now, Status::CHECK_IN_REFUSED, &why, Some(time));
        }
    }
    entered.leave();
}
