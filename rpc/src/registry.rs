//! What stands above a connection: nothing much at a client, the set of all connections at a server.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    future::poll_fn,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    task::{Poll, Waker},
    time::Duration,
};

use bytes::Bytes;
use tieline_core::{
    conn::{self, PeerInfo, Stats},
    wire::Status,
};

use crate::{
    identity,
    link::{Link, watch},
    peer::Peer,
    runtime::BoxFuture,
};

/// Connections that are not checked in, at most; a new one beyond that closes the oldest (protocol §4).
const MAX_UNCHECKED: usize = 1024;

/// Who wants to check in, and waits for a decision.
#[derive(Debug)]
#[non_exhaustive]
pub struct Applicant {
    /// What the client said of itself.
    pub peer: Arc<PeerInfo>,
    /// What it showed as its credential; opaque to the protocol.
    pub credential: Bytes,
    /// Where it comes from, for people to read.
    pub address: Arc<str>,
    #[cfg(feature = "tls")]
    pub(crate) certificate: Option<crate::tls::Certificate>,
}

#[cfg(feature = "tls")]
impl Applicant {
    /// The certificate that it has shown, if the server required one.
    #[must_use]
    pub const fn certificate(&self) -> Option<&crate::tls::Certificate> {
        self.certificate.as_ref()
    }
}

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
pub(crate) type Verifier = Box<dyn Fn(Applicant) -> BoxFuture<Decision> + Send + Sync>;

/// Waits for a while.
pub(crate) type Sleep = Box<dyn Fn(Duration) -> BoxFuture<()> + Send + Sync>;

/// Whose connection it is.
pub(crate) enum Role {
    Client,
    Server(Member),
}

/// A connection of a server.
pub(crate) struct Member {
    registry: Arc<Registry>,
    /// Names it in the registry, once it is open.
    number: u64,
}

impl Role {
    pub(crate) fn server(registry: &Arc<Registry>) -> Self {
        Self::Server(Member { registry: Arc::clone(registry), number: 0 })
    }

    pub(crate) fn opened(&mut self, link: &Arc<Link>) {
        if let Self::Server(member) = self {
            member.number = member.registry.opened(link);
        }
    }

    pub(crate) fn verify(&self, link: &Arc<Link>, check_in: conn::CheckingIn) {
        let check_in = Applicant {
            peer: check_in.peer,
            credential: check_in.credential,
            address: Arc::clone(&link.address),
            #[cfg(feature = "tls")]
            certificate: link.certificate().cloned(),
        };
        if let Self::Server(member) = self {
            identity::verify(&member.registry, link, check_in);
        }
    }

    pub(crate) fn ready(&self, peer: &Arc<PeerInfo>) {
        if let Self::Server(member) = self {
            member.registry.ready(member.number, peer);
        }
    }

    /// It takes and makes no more calls.
    pub(crate) fn closed(&self) {
        if let Self::Server(member) = self {
            member.registry.closed(member.number);
        }
    }

    /// The last octet is out, or never will be.
    pub(crate) fn gone(&self) {
        if let Self::Server(member) = self {
            member.registry.gone(member.number);
        }
    }
}

/// All connections of a server.
pub(crate) struct Registry {
    links: Mutex<Links>,
    pub(crate) verifier: Option<Verifier>,
    pub(crate) sleep: Sleep,
    duplicates: AtomicU64,
}

struct Links {
    /// By number, in the order in which they were opened.
    open: BTreeMap<u64, Entry>,
    /// Those that are not checked in.
    unchecked: BTreeSet<u64>,
    /// Those that are checked in, by identifier: instance and number, in order. Mostly there is one.
    known: HashMap<String, Vec<(u64, u64)>>,
    next: u64,
    /// The listener is open.
    accepting: bool,
    /// The server shuts down: with this grace.
    closing: Option<Duration>,
    watchers: Vec<Waker>,
    /// What those did that are gone.
    past: Stats,
}

struct Entry {
    link: Arc<Link>,
    /// Who it is, while it is checked in.
    who: Option<Arc<PeerInfo>>,
}

impl Links {
    /// No check-in is expected of it any more, and nobody reaches it by its identifier.
    fn forget(&mut self, number: u64) {
        self.unchecked.remove(&number);
        let Some(who) = self.open.get_mut(&number).and_then(|entry| entry.who.take()) else { return };
        if let Some(known) = self.known.get_mut(&who.identifier) {
            if let Ok(at) = known.binary_search(&(who.instance, number)) {
                known.remove(at);
            }
            if known.is_empty() {
                self.known.remove(&who.identifier);
            }
        }
    }

    fn links<'a>(&self, numbers: impl Iterator<Item = &'a (u64, u64)>) -> Vec<Arc<Link>> {
        numbers.filter_map(|(_, number)| Some(Arc::clone(&self.open.get(number)?.link))).collect()
    }

    /// Who waits for the end, if this is it.
    fn ended(&mut self) -> Vec<Waker> {
        if self.is_over() { std::mem::take(&mut self.watchers) } else { Vec::new() }
    }

    fn is_over(&self) -> bool {
        self.open.is_empty() && !self.accepting
    }
}

impl Registry {
    pub(crate) fn new(verifier: Option<Verifier>, sleep: Sleep) -> Arc<Self> {
        let links = Links {
            open: BTreeMap::new(),
            unchecked: BTreeSet::new(),
            known: HashMap::new(),
            next: 0,
            accepting: true,
            closing: None,
            watchers: Vec::new(),
            past: Stats::default(),
        };
        Arc::new(Self { links: Mutex::new(links), verifier, sleep, duplicates: AtomicU64::new(0) })
    }

    /// A link may be locked while this is; never the other way round.
    fn lock(&self) -> MutexGuard<'_, Links> {
        self.links.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn opened(&self, link: &Arc<Link>) -> u64 {
        let mut links = self.lock();
        let number = links.next;
        links.next += 1;
        links.open.insert(number, Entry { link: Arc::clone(link), who: None });
        links.unchecked.insert(number);
        let closing = links.closing;
        let oldest = if links.unchecked.len() > MAX_UNCHECKED { links.unchecked.pop_first() } else { None };
        let oldest = oldest.and_then(|oldest| Some(Arc::clone(&links.open.get(&oldest)?.link)));
        drop(links);
        if let Some(oldest) = oldest {
            let message = "too many connections have not checked in";
            Peer::new(oldest).close(Status::TOO_MANY_CONNECTIONS, message);
        }
        if let Some(grace) = closing {
            Peer::new(Arc::clone(link)).drain(Status::GOING_AWAY, grace, "the node shuts down");
        }
        number
    }

    /// One identifier, one process (protocol §4): a restarted one takes over, if identifiers are verified at all.
    fn ready(&self, number: u64, peer: &Arc<PeerInfo>) {
        let mut links = self.lock();
        links.unchecked.remove(&number);
        if let Some(entry) = links.open.get_mut(&number) {
            entry.who = Some(Arc::clone(peer));
        }
        let known = links.known.entry(peer.identifier.clone()).or_insert_with(|| Vec::with_capacity(1));
        if let Err(at) = known.binary_search(&(peer.instance, number)) {
            known.insert(at, (peer.instance, number));
        }
        let ends = [known.first(), known.last()];
        let alone = ends.into_iter().flatten().all(|(instance, _)| *instance == peer.instance);
        // Instance 0 is not said: it neither evicts nor is evicted.
        let lower: Vec<(u64, u64)> = if self.verifier.is_none() || peer.instance == 0 {
            Vec::new()
        } else {
            known.iter().filter(|(instance, _)| (1..peer.instance).contains(instance)).copied().collect()
        };
        if !alone && self.verifier.is_none() {
            self.duplicates.fetch_add(1, Ordering::Relaxed);
        }
        let older = links.links(lower.iter());
        drop(links);
        for link in older {
            Peer::new(link)
                .close(Status::IDENTITY_CONFLICT, "a newer process of this identifier has checked in");
        }
    }

    /// The connections that are checked in under this identifier with a higher instance than this.
    pub(crate) fn higher(&self, identifier: &str, instance: u64) -> Vec<Arc<Link>> {
        let links = self.lock();
        let Some(known) = links.known.get(identifier) else { return Vec::new() };
        match instance.checked_add(1) {
            Some(next) if instance != 0 => links.links(known.iter().filter(|known| known.0 >= next)),
            _ => Vec::new(),
        }
    }

    fn closed(&self, number: u64) {
        self.lock().forget(number);
    }

    fn gone(&self, number: u64) {
        let mut links = self.lock();
        links.forget(number);
        let gone = links.open.remove(&number);
        if let Some(Entry { link, .. }) = &gone {
            links.past += link.lock().conn.stats();
        }
        let watchers = links.ended();
        drop(links);
        drop(gone);
        watchers.into_iter().for_each(Waker::wake);
    }

    /// The connections that are checked in.
    pub(crate) fn peers(&self) -> Vec<Peer> {
        let links = self.lock();
        let ready = links.open.values().filter(|entry| entry.who.is_some());
        ready.map(|entry| Peer::new(Arc::clone(&entry.link))).collect()
    }

    /// How many are checked in, and what all did that ever were there.
    pub(crate) fn totals(&self) -> (usize, Stats) {
        let links = self.lock();
        let (mut ready, mut total) = (0, links.past);
        for entry in links.open.values() {
            ready += usize::from(entry.who.is_some());
            total += entry.link.lock().conn.stats();
        }
        (ready, total)
    }

    /// Check-ins under an identifier that another process uses as well, where nobody verifies them.
    pub(crate) fn duplicates(&self) -> u64 {
        self.duplicates.load(Ordering::Relaxed)
    }

    /// Drains every connection, those that are still to come too.
    pub(crate) fn drain(&self, grace: Duration) {
        let mut links = self.lock();
        links.closing = Some(grace);
        let open: Vec<Arc<Link>> = links.open.values().map(|entry| Arc::clone(&entry.link)).collect();
        drop(links);
        for link in open {
            Peer::new(link).drain(Status::GOING_AWAY, grace, "the node shuts down");
        }
    }

    /// The listener is closed.
    pub(crate) fn accepts_no_more(&self) {
        let mut links = self.lock();
        links.accepting = false;
        let watchers = links.ended();
        drop(links);
        watchers.into_iter().for_each(Waker::wake);
    }

    /// Waits until the listener is closed and no connection is left.
    pub(crate) async fn over(&self) {
        poll_fn(|cx| {
            let mut links = self.lock();
            if links.is_over() {
                return Poll::Ready(());
            }
            watch(&mut links.watchers, cx);
            Poll::Pending
        })
        .await;
    }
}
