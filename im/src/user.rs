//! A user's connection to a node: logs in, stays logged in, sends, and shows what comes.

use std::{
    fmt,
    future::Future,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Waker},
    time::Duration,
};

use tieline_core::wire::Escaped;
use tieline_tokio::{Client, ConnectError, Error, Peer, Ran, Status};
use tokio::{sync::watch, task::AbortHandle, time};

use crate::{
    name::Name,
    node::HEARTBEAT,
    router::{Seen, Standing},
    trouble,
    wire::{Malformed, Message, Origin, Place, Report, Roll, Verdict, Welcome, method},
};

/// How long to wait before a login that was refused is tried again.
const LOGIN_PAUSE: Duration = Duration::from_secs(1);

/// What a user is told. Each is told before whatever caused it goes on: a message counts as delivered once this has
/// returned.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub enum Event<'a> {
    /// A message came. Its text is somebody else's: escape it ([`shown`](crate::shown)) before it is printed.
    Message(&'a Message),
    /// The connection is lost; it is being dialled again.
    Lost(&'a str),
    /// Logged in again, at this node.
    Back(&'a Name),
    /// There is a connection again, but the node does not let the user in; it is tried again.
    Refused(&'a str),
}

/// Why there is no login.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum JoinError {
    /// There is no connection.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// Nobody answered the dialling in time.
    #[error(
        "cannot connect to {0}: no answer within {1:?}; is the address right, and is a node listening there?"
    )]
    Silent(String, Duration),
    /// The node does not let the user in.
    #[error("{0}")]
    Refused(String),
}

/// A user who is logged in at a node, and is logged in again when the connection was lost.
pub struct User {
    name: Name,
    timeout: Duration,
    client: Client,
    login: watch::Receiver<Option<Login>>,
    /// The last number that was given to a message. Held while one is committed, so that numbers rise on the wire.
    number: Mutex<u64>,
    keeper: AbortHandle,
}

#[derive(Clone)]
struct Login {
    peer: Peer,
    welcome: Welcome,
}

impl User {
    /// Connects to the node at `address` and logs in as `name`. `timeout` is how long the node has for an answer, and a
    /// message for its way.
    ///
    /// # Errors
    /// [`JoinError`].
    pub async fn join(
        name: Name,
        address: &str,
        timeout: Duration,
        tell: impl Fn(Event<'_>) + Send + Sync + 'static,
    ) -> Result<Self, JoinError> {
        let tell: Arc<dyn Fn(Event<'_>) + Send + Sync> = Arc::new(tell);
        let seen = Arc::new(Mutex::new(Seen::default()));
        let (me, shows) = (name.clone(), Arc::clone(&tell));
        let connecting = Client::builder(&format!("user:{name}"))
            .heartbeat_interval(HEARTBEAT)
            .configure(|config| config.ack_timeout(timeout))
            .method(method::DELIVER, move |_cx, body| {
                let shown = Message::parse(body)
                    .map_err(|error| trouble::malformed(&error))
                    .and_then(|message| show(&me, &seen, &*shows, &message));
                async move { shown.map(|()| "") }
            })
            .connect(address);
        // The client bounds the check-in itself, with a better message.
        let limit = timeout + timeout / 4;
        let client = time::timeout(limit, connecting)
            .await
            .map_err(|_| JoinError::Silent(address.to_owned(), timeout))??;
        let peer =
            client.ready().await.map_err(|error| JoinError::Refused(trouble::reason(address, &error)))?;
        let welcome = login(&peer, &name, timeout).await.map_err(JoinError::Refused)?;
        let (sender, login) = watch::channel(Some(Login { peer, welcome }));
        let keeper = tokio::spawn(stay(client.clone(), name.clone(), timeout, sender, tell)).abort_handle();
        Ok(Self { name, timeout, client, login, number: Mutex::new(0), keeper })
    }

    /// The user.
    #[must_use]
    pub fn name(&self) -> &Name {
        &self.name
    }

    /// The node at which the user is logged in, if that is so at present.
    #[must_use]
    pub fn node(&self) -> Option<Name> {
        self.login.borrow().as_ref().map(|login| login.welcome.node.clone())
    }

    /// Sends a message. It is on its way in the order of these calls; the future is for its outcome.
    ///
    /// # Errors
    /// [`Malformed`] if the text is longer than 16 KiB.
    pub fn send(
        &self,
        to: &Name,
        text: &str,
    ) -> Result<impl Future<Output = Report> + Send + 'static, Malformed> {
        let mut number = lock(&self.number);
        let login = self.login.borrow().clone();
        let instance = login.as_ref().map_or(0, |login| login.welcome.instance);
        let from = Origin { user: self.name.clone(), instance };
        let message = Message::new(from, to.clone(), *number + 1, text)?;
        *number += 1;
        let (timeout, address, trouble) =
            (self.timeout, self.client.address().to_owned(), self.client.trouble());
        let mut sending: Pin<Box<dyn Future<Output = Report> + Send>> = Box::pin(async move {
            let Some(Login { peer, welcome }) = login else {
                let why = format!("the node at {address} cannot be reached ({trouble})");
                return Report::new(false, Verdict::NotDelivered(why));
            };
            let who = format!("node {}", welcome.node);
            match peer.call(method::SEND, message.octets()).timeout(timeout).await {
                Ok(answer) => Report::decode(&answer.payload).unwrap_or_else(|error| {
                    Report::new(true, Verdict::Unconfirmed(format!("{who}: {error}")))
                }),
                Err(error) => {
                    let broken = trouble::broken(&who, &error);
                    let verdict = if broken.maybe && error.ran() != Ran::No {
                        Verdict::Unconfirmed(broken.why)
                    } else {
                        Verdict::NotDelivered(broken.why)
                    };
                    Report::new(false, verdict)
                }
            }
        });
        // A call is committed when it is first polled: here, and not when somebody comes to wait for it.
        let first = sending.as_mut().poll(&mut Context::from_waker(Waker::noop()));
        Ok(async move {
            match first {
                Poll::Ready(report) => report,
                Poll::Pending => sending.await,
            }
        })
    }

    /// Where a user is.
    ///
    /// # Errors
    /// Why the node did not say, in one line.
    pub async fn locate(&self, user: &Name) -> Result<Place, String> {
        let answer = self.ask(method::WHERE, user.as_str()).await?;
        Place::decode(&answer).map_err(|error| error.to_string())
    }

    /// Who is logged in, at all nodes.
    ///
    /// # Errors
    /// Why the node did not say, in one line.
    pub async fn who(&self) -> Result<Vec<Roll>, String> {
        let answer = self.ask(method::WHO, "").await?;
        Roll::decode_all(&answer).map_err(|error| error.to_string())
    }

    async fn ask(&self, method: &str, body: &str) -> Result<Vec<u8>, String> {
        let answer = self.client.call(method, body.to_owned()).timeout(self.timeout).await;
        let who = self
            .node()
            .map_or_else(|| format!("the node at {}", self.client.address()), |node| format!("node {node}"));
        answer.map(|answer| answer.payload.to_vec()).map_err(|error| trouble::reason(&who, &error))
    }

    /// Ends the connection in peace.
    pub async fn leave(self) {
        self.keeper.abort();
        self.client.clone().close().await;
    }
}

impl Drop for User {
    fn drop(&mut self) {
        self.keeper.abort();
    }
}

impl fmt::Debug for User {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("User").field("name", &self.name).field("client", &self.client).finish_non_exhaustive()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Shows a message, once: the node may ask again when it does not know whether the first time succeeded.
fn show(me: &Name, seen: &Mutex<Seen>, tell: &dyn Fn(Event<'_>), message: &Message) -> Result<(), Error> {
    if message.to != *me {
        return Err(Error::new(
            Status::INVALID_ARGUMENT,
            format!("{} is not here; this is {me}", message.to),
        ));
    }
    let mut seen = lock(seen);
    match seen.standing(&message.from, me, message.number) {
        Standing::Fresh => {
            tell(Event::Message(message));
            seen.mark(&message.from, me, message.number);
            Ok(())
        }
        Standing::Delivered => Ok(()),
        Standing::Passed => Err(Error::new(Status::ABORTED, "a later message was shown before it")),
    }
}

async fn login(peer: &Peer, name: &Name, timeout: Duration) -> Result<Welcome, String> {
    match peer.call(method::LOGIN, name.as_str().to_owned()).timeout(timeout).await {
        Ok(answer) => {
            Welcome::decode(&answer.payload).map_err(|error| format!("{}: {error}", peer.address()))
        }
        Err(error) if error.status() == Status::NO_SUCH_METHOD => {
            let who = peer.info().map(|info| info.identifier.clone()).unwrap_or_default();
            let (address, who) = (peer.address(), Escaped(who.as_bytes()));
            Err(format!("{address} is {who}, which is no IM node; give the address of a node with --node"))
        }
        Err(error) => Err(trouble::reason(&format!("the node at {}", peer.address()), &error)),
    }
}

/// Logs in again whenever the connection was lost.
async fn stay(
    client: Client,
    name: Name,
    timeout: Duration,
    login_changed: watch::Sender<Option<Login>>,
    tell: Arc<dyn Fn(Event<'_>) + Send + Sync>,
) {
    loop {
        let current = login_changed.borrow().as_ref().map(|login| login.peer.clone());
        if let Some(peer) = current {
            let closed = peer.closed().await;
            login_changed.send_replace(None);
            tell(Event::Lost(&closed.to_string()));
        }
        let Ok(peer) = client.ready().await else { return };
        match login(&peer, &name, timeout).await {
            Ok(welcome) => {
                let node = welcome.node.clone();
                login_changed.send_replace(Some(Login { peer, welcome }));
                tell(Event::Back(&node));
            }
            Err(why) => {
                tell(Event::Refused(&why));
                time::sleep(LOGIN_PAUSE).await;
            }
        }
    }
}
