//! The connections to the other nodes: those that this node dials, and those on which another has said hello.

use std::{
    collections::BTreeMap,
    pin::pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tieline::{Client, Clock, Instant, Peer, Runtime};
use tieline_core::wire::Escaped;
use tokio::sync::Notify;

use crate::{name::Name, print, tether::Tether, trouble, wire::method};

/// How long a greeting may take.
const HELLO_PATIENCE: Duration = Duration::from_secs(2);
/// How long a node may be missing before its operator is told.
const MISSING: Duration = Duration::from_secs(2);

/// Another node.
struct Entry<R: Runtime> {
    /// Keeps a connection up, if this node dials that one.
    client: Option<Client<R>>,
    /// Connections that may be used; the oldest first.
    peers: Vec<Peer>,
    /// Why there is none, if the client does not know better.
    trouble: String,
    /// Looks after the client.
    dialling: Option<Tether>,
    /// Since when there has been no connection, if there is none.
    since: Instant,
}

/// All other nodes that are known.
pub(crate) struct Links<R: Runtime> {
    runtime: R,
    clock: Arc<dyn Clock>,
    entries: Mutex<Entries<R>>,
    changed: Notify,
}

type Entries<R> = BTreeMap<Name, Entry<R>>;

impl<R: Runtime> Links<R> {
    pub(crate) fn new(runtime: R) -> Self {
        let clock = runtime.clock();
        Self { runtime, clock, entries: Mutex::default(), changed: Notify::new() }
    }

    fn lock(&self) -> MutexGuard<'_, Entries<R>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The entry of a node, also of one that was not known until now.
    fn entry<'a>(&self, entries: &'a mut Entries<R>, node: &Name) -> &'a mut Entry<R> {
        entries.entry(node.clone()).or_insert_with(|| Entry {
            client: None,
            peers: Vec::new(),
            trouble: String::new(),
            dialling: None,
            since: self.clock.now(),
        })
    }

    pub(crate) fn names(&self) -> Vec<Name> {
        self.lock().keys().cloned().collect()
    }

    /// A connection to this node, or why there is none. One that has just been lost, or has yet to be made, is waited
    /// for until `patience` after that; one that has been gone for longer is not.
    pub(crate) async fn find(&self, node: &Name, patience: Duration) -> Result<Peer, String> {
        let since = self.lock().get(node).map_or_else(|| self.clock.now(), |entry| entry.since);
        let limit = since.saturating_add(patience);
        loop {
            let mut changed = pin!(self.changed.notified());
            changed.as_mut().enable();
            if let Some(peer) = self.ready(node) {
                return Ok(peer);
            }
            let left = limit.saturating_since(self.clock.now());
            if self.runtime.timeout(left, changed).await.is_none() {
                return Err(format!("node {node} cannot be reached ({})", self.trouble(node)));
            }
        }
    }

    fn ready(&self, node: &Name) -> Option<Peer> {
        self.lock().get(node)?.peers.iter().find(|peer| peer.is_ready()).cloned()
    }

    fn trouble(&self, node: &Name) -> String {
        let entries = self.lock();
        let Some(entry) = entries.get(node) else { return "it is not known here".to_owned() };
        let dialling = entry.client.as_ref().map(Client::trouble).unwrap_or_default();
        match (dialling.is_empty(), entry.trouble.is_empty()) {
            (false, _) => dialling,
            (true, false) => entry.trouble.clone(),
            (true, true) => "it has not said hello yet".to_owned(),
        }
    }

    /// Whether it is still meant to be connected.
    fn dials(&self, node: &Name) -> bool {
        self.lock().get(node).is_some_and(|entry| entry.client.is_some())
    }

    fn set_trouble(&self, node: &Name, why: String) {
        self.entry(&mut self.lock(), node).trouble = why;
        self.changed.notify_waiters();
    }

    /// This connection may be used from now on, until it is over.
    pub(crate) fn up(&self, node: &Name, peer: Peer) {
        let mut entries = self.lock();
        let entry = self.entry(&mut entries, node);
        if !entry.peers.iter().any(|known| known.is_same(&peer)) {
            entry.peers.push(peer);
        }
        entry.trouble.clear();
        drop(entries);
        self.changed.notify_waiters();
    }

    pub(crate) fn down(&self, node: &Name, peer: &Peer, why: String) {
        if let Some(entry) = self.lock().get_mut(node) {
            entry.peers.retain(|known| !known.is_same(peer));
            entry.trouble = why;
            entry.since = self.clock.now();
        }
        self.changed.notify_waiters();
    }

    /// Keeps a connection to `node` in use. `up` is told each time that there is a new one.
    pub(crate) fn dial(
        self: &Arc<Self>,
        me: &Name,
        node: Name,
        client: Client<R>,
        up: impl Fn() + Send + 'static,
    ) {
        self.entry(&mut self.lock(), &node).client = Some(client.clone());
        let (links, me, to) = (Arc::clone(self), me.clone(), node.clone());
        let dialling = Tether::spawn(&self.runtime, async move {
            loop {
                let ready = match links.runtime.timeout(MISSING, client.ready()).await {
                    Some(ready) => ready,
                    None => {
                        // Once for each time that it is missing.
                        let trouble = client.trouble();
                        print::note(&format!("{me}: peer {node} cannot be reached: {trouble}"));
                        client.ready().await
                    }
                };
                let Ok(peer) = ready else { return };
                match greet(&peer, &node).await {
                    Ok(()) => {
                        links.up(&node, peer.clone());
                        print::note(&format!("{me}: peer {node} is connected ({})", peer.address()));
                        up();
                        let closed = peer.closed().await;
                        links.down(&node, &peer, closed.to_string());
                        if links.dials(&node) {
                            print::note(&format!("{me}: peer {node} is lost: {closed}"));
                        }
                    }
                    Err(why) => {
                        print::note(&format!("{me}: peer {node} cannot be used: {why}"));
                        links.set_trouble(&node, why);
                        peer.closed().await;
                    }
                }
            }
        });
        self.entry(&mut self.lock(), &to).dialling = Some(dialling);
    }

    /// Ends the dialling, and the connections that were dialled.
    pub(crate) async fn close(&self) {
        let clients: Vec<Client<R>> =
            self.lock().values_mut().filter_map(|entry| entry.client.take()).collect();
        for client in clients {
            client.close().await;
        }
    }

    /// Ends the dialling without waiting for anything.
    pub(crate) fn abandon(&self) {
        for entry in self.lock().values_mut() {
            entry.client = None;
            entry.dialling = None;
        }
    }
}

/// Says hello to whoever answered the dialling, if it is the right one.
async fn greet(peer: &Peer, node: &Name) -> Result<(), String> {
    let identifier = peer.info().map(|info| info.identifier.clone()).unwrap_or_default();
    if identifier != format!("node:{node}") {
        let (address, who) = (peer.address(), Escaped(identifier.as_bytes()));
        return Err(format!("{address} is {who}, not node:{node}; correct --peer"));
    }
    match peer.call(method::HELLO, "").timeout(HELLO_PATIENCE).await {
        Ok(_) => Ok(()),
        Err(error) => Err(trouble::reason(&format!("node {node}"), &error)),
    }
}
