//! A router with a server around it: what comes in is handed to the router, what the router says is done.

use std::{
    collections::BTreeMap,
    fmt,
    future::Future,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use thiserror::Error;
use tieline::{
    Client, Clock, ConnectError, Context, Error, Instant, ListenError, Peer, Runtime, Server, Services,
    Status,
};
use tokio::sync::{Notify, mpsc, oneshot};

use crate::{
    links::Links,
    name::Name,
    router::{Answer, Attempt, Broken, Input, Output, Query, Refusal, Router, SessionId, Ticket},
    tether::Tether,
    trouble,
    wire::{self, Message, Origin, Report, Roll, Verdict, Welcome, method},
};

/// How often nodes beat on an idle line: a node that is gone is missed after three of these.
pub(crate) const HEARTBEAT: Duration = Duration::from_secs(1);
/// How long a peer that was dialled has to check in.
const ACK_PATIENCE: Duration = Duration::from_millis(1500);
/// How long a question waits for a connection that is just being made.
const LINK_PATIENCE: Duration = Duration::from_millis(300);
/// How long another node has to answer a question.
const ASK_PATIENCE: Duration = Duration::from_secs(1);
/// What a sender who named no deadline is granted, and the most that anybody is.
const PATIENCE: (Duration, Duration) = (Duration::from_secs(10), Duration::from_secs(30));
/// The part of a caller's time that is kept for the way back: an eighth, but not more than this.
const WAY_BACK: Duration = Duration::from_millis(200);
/// Where a list of users stops naming them, in octets.
const MAX_ROLLS: usize = 40 << 10;

type Tickets = BTreeMap<Ticket, oneshot::Sender<Result<Answer, Refusal>>>;

/// A node of the cluster: users log in here, other nodes hand messages over.
///
/// It runs until [`stop`](Self::stop) or until it is dropped, on a runtime of its own choice: nodes on different ones talk
/// to each other.
pub struct Node<R: Runtime> {
    shared: Arc<Shared<R>>,
    address: String,
    limits: String,
    /// Wakes the router.
    _timer: Tether,
}

/// Why a node does not start.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum StartError {
    /// It cannot listen.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// A peer cannot be dialled at all.
    #[error(transparent)]
    Peer(#[from] ConnectError),
}

struct Shared<R: Runtime> {
    runtime: R,
    name: Name,
    clock: Arc<dyn Clock>,
    state: Mutex<State>,
    /// The router's next deadline may have come nearer.
    timer: Notify,
    server: Mutex<Option<Server<R>>>,
    links: Arc<Links<R>>,
}

struct State {
    router: Router,
    tickets: Tickets,
    sessions: BTreeMap<SessionId, Peer>,
    /// The last number that was given to a ticket or a session.
    last: u64,
    /// When the timer is set to.
    armed: Option<Instant>,
    /// Messages that were delivered here or from here.
    delivered: u64,
}

impl<R: Runtime> Node<R> {
    /// Listens on `address` and serves; `peers` are other nodes by name and address, which are dialled.
    ///
    /// # Errors
    /// [`StartError`]: the address cannot be taken, or a name makes no identifier.
    pub async fn start(
        runtime: R,
        name: Name,
        address: &str,
        peers: &[(Name, String)],
    ) -> Result<Self, StartError> {
        let state = State {
            router: Router::new(name.clone()),
            tickets: BTreeMap::new(),
            sessions: BTreeMap::new(),
            last: 0,
            armed: None,
            delivered: 0,
        };
        let shared = Arc::new(Shared {
            name: name.clone(),
            clock: runtime.clock(),
            state: Mutex::new(state),
            timer: Notify::new(),
            server: Mutex::new(None),
            links: Arc::new(Links::new(runtime.clone())),
            runtime,
        });
        let identifier = format!("node:{name}");
        let server = Server::<R>::builder(&identifier).services(services(&shared)).listen(address).await?;
        let address = server.address().to_owned();
        let limits = server.limits().to_string();
        *shared.server() = Some(server);
        for (peer, at) in peers {
            shared.drive(Input::Node(peer.clone()));
            let client = Client::<R>::builder(&identifier)
                .services(services(&shared))
                .heartbeat_interval(HEARTBEAT)
                .configure(|config| config.ack_timeout(ACK_PATIENCE))
                .connect_lazily(at)?;
            let (known, node) = (Arc::downgrade(&shared), peer.clone());
            let up = move || {
                if let Some(shared) = known.upgrade() {
                    shared.drive(Input::Node(node.clone()));
                }
            };
            shared.links.dial(&name, peer.clone(), client, up);
        }
        let timed = Arc::clone(&shared);
        let timer = Tether::spawn(&shared.runtime, async move { timed.keep_time().await });
        Ok(Self { shared, address, limits, _timer: timer })
    }

    /// The address that it listens on.
    #[must_use]
    pub fn address(&self) -> &str {
        &self.address
    }

    /// The limits of its connections, for people to read.
    #[must_use]
    pub fn limits(&self) -> &str {
        &self.limits
    }

    /// Takes nothing new, lets what is under way finish for as long as `grace`, and returns when all connections are
    /// closed; with the number of messages that were delivered.
    pub async fn stop(self, grace: Duration) -> u64 {
        self.shared.drive(Input::Stop);
        let server = self.shared.server().take();
        if let Some(server) = server {
            server.shutdown(grace).await;
        }
        self.shared.links.close().await;
        self.shared.lock().delivered
    }
}

impl<R: Runtime> Drop for Node<R> {
    fn drop(&mut self) {
        // The server holds the methods, which hold what holds the server.
        self.shared.server().take();
        self.shared.links.abandon();
    }
}

impl<R: Runtime> fmt::Debug for Node<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Node").field("name", &self.shared.name).field("address", &self.address).finish()
    }
}

/// The methods of a node, for the connections that it accepts and for those that it dials.
fn services<R: Runtime>(shared: &Arc<Shared<R>>) -> Services {
    Services::new()
        .method(method::LOGIN, handler(shared, Shared::login))
        .method(method::SEND, handler(shared, Shared::send))
        .method(method::WHERE, handler(shared, Shared::locate))
        .method(method::WHO, handler(shared, Shared::who))
        .method(method::HELLO, handler(shared, Shared::hello))
        .method(method::RELAY, handler(shared, Shared::relayed))
        .method(method::RELAY_WHERE, handler(shared, Shared::has))
        .method(method::RELAY_WHO, handler(shared, Shared::roll))
}

fn handler<R, F, Fut>(
    shared: &Arc<Shared<R>>,
    serve: F,
) -> impl Fn(Context, Bytes) -> Fut + Send + Sync + 'static
where
    R: Runtime,
    F: Fn(Arc<Shared<R>>, Context, Bytes) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<Vec<u8>, Error>> + Send,
{
    let shared = Arc::clone(shared);
    move |cx, body| serve(Arc::clone(&shared), cx, body)
}

/// Who calls, if it checked in with this prefix.
fn caller(cx: &Context, prefix: &str) -> Result<(Name, u64), Error> {
    let info = cx.caller().ok_or_else(|| Error::new(Status::UNAVAILABLE, "the connection is over"))?;
    match Name::of_identifier(&info.identifier, prefix) {
        Some(name) => Ok((name, info.instance)),
        None => {
            let message =
                format!("{} called this, but it is for {prefix}NAME; check in as that", info.identifier);
            Err(Error::new(Status::PERMISSION_DENIED, message))
        }
    }
}

impl<R: Runtime> Shared<R> {
    /// Runs a task that ends by itself.
    fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.runtime.spawn(Box::pin(task));
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn server(&self) -> MutexGuard<'_, Option<Server<R>>> {
        self.server.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The caller's connection, free of the deadline of its call.
    fn connection(cx: &Context) -> Result<Peer, Error> {
        let peer = cx.peer().detached();
        let ended = || Error::new(Status::UNAVAILABLE, "the connection is about to end; connect again");
        if peer.is_ready() { Ok(peer) } else { Err(ended()) }
    }

    // ---- what comes in ----------------------------------------------------------------------------------------

    async fn login(self: Arc<Self>, cx: Context, body: Bytes) -> Result<Vec<u8>, Error> {
        let user = wire::name(&body).map_err(|error| trouble::malformed(&error))?;
        let (name, instance) = caller(&cx, "user:")?;
        if name != user || instance == 0 {
            let message = format!("to log in as {user}, check in as user:{user} with an instance number");
            return Err(Error::new(Status::FAILED_PRECONDITION, message));
        }
        let peer = Self::connection(&cx)?;
        let session = {
            let mut state = self.lock();
            state.last += 1;
            let session = SessionId(state.last);
            state.sessions.insert(session, peer.clone());
            session
        };
        let origin = Origin { user, instance };
        let answer = self.ask(|ticket| Input::Login(ticket, session, origin)).await;
        if let Err(error) = answer {
            self.lock().sessions.remove(&session);
            return Err(error);
        }
        let shared = Arc::clone(&self);
        self.spawn(async move {
            peer.closed().await;
            shared.drive(Input::Logout(session));
            shared.lock().sessions.remove(&session);
        });
        Ok(Welcome { node: self.name.clone(), instance }.encode())
    }

    async fn send(self: Arc<Self>, cx: Context, body: Bytes) -> Result<Vec<u8>, Error> {
        let message = Message::parse(body).map_err(|error| trouble::malformed(&error))?;
        let session = {
            let state = self.lock();
            let session = state.router.session(&message.from.user);
            let is_callers =
                |id: &SessionId| state.sessions.get(id).is_some_and(|peer| peer.is_same(cx.peer()));
            session.filter(is_callers)
        };
        let session = session.ok_or_else(|| trouble::refuse(&Refusal::NotLoggedIn))?;
        let deadline = self.deadline(&cx);
        self.report(|ticket| Input::Send(ticket, session, message, deadline)).await
    }

    async fn relayed(self: Arc<Self>, cx: Context, body: Bytes) -> Result<Vec<u8>, Error> {
        caller(&cx, "node:")?;
        let message = Message::parse(body).map_err(|error| trouble::malformed(&error))?;
        let deadline = self.deadline(&cx);
        self.report(|ticket| Input::Relayed(ticket, message, deadline)).await
    }

    async fn report(self: &Arc<Self>, input: impl FnOnce(Ticket) -> Input) -> Result<Vec<u8>, Error> {
        match self.ask(input).await? {
            Answer::Report(report) => Ok(report.encode()),
            other => Err(Error::new(Status::INTERNAL, format!("the router answered {other:?}"))),
        }
    }

    async fn locate(self: Arc<Self>, _cx: Context, body: Bytes) -> Result<Vec<u8>, Error> {
        let user = wire::name(&body).map_err(|error| trouble::malformed(&error))?;
        match self.ask(|ticket| Input::Where(ticket, user)).await? {
            Answer::Place(place) => Ok(place.encode()),
            other => Err(Error::new(Status::INTERNAL, format!("the router answered {other:?}"))),
        }
    }

    async fn has(self: Arc<Self>, _cx: Context, body: Bytes) -> Result<Vec<u8>, Error> {
        let user = wire::name(&body).map_err(|error| trouble::malformed(&error))?;
        Ok(vec![u8::from(self.lock().router.has(&user))])
    }

    async fn hello(self: Arc<Self>, cx: Context, _body: Bytes) -> Result<Vec<u8>, Error> {
        let (node, _) = caller(&cx, "node:")?;
        let peer = Self::connection(&cx)?;
        self.links.up(&node, peer.clone());
        self.drive(Input::Node(node.clone()));
        let links = Arc::clone(&self.links);
        self.spawn(async move {
            let closed = peer.closed().await;
            links.down(&node, &peer, closed.to_string());
        });
        Ok(Vec::new())
    }

    fn own_roll(&self) -> Roll {
        let state = self.lock();
        Roll::new(self.name.clone(), state.router.users().cloned())
    }

    async fn roll(self: Arc<Self>, _cx: Context, _body: Bytes) -> Result<Vec<u8>, Error> {
        let mut out = Vec::new();
        self.own_roll().encode(&mut out);
        Ok(out)
    }

    async fn who(self: Arc<Self>, _cx: Context, _body: Bytes) -> Result<Vec<u8>, Error> {
        let names = self.links.names();
        let (sender, mut asked) = mpsc::channel(names.len().max(1));
        for node in names {
            let (shared, sender) = (Arc::clone(&self), sender.clone());
            self.spawn(async move {
                let roll = shared.roll_of(&node).await;
                let trouble = |trouble| Roll { trouble, ..Roll::new(node, std::iter::empty()) };
                // Who asked may have hung up meanwhile.
                let _ = sender.send(roll.unwrap_or_else(trouble)).await;
            });
        }
        drop(sender);
        let mut rolls = vec![self.own_roll()];
        while let Some(roll) = asked.recv().await {
            rolls.push(roll);
        }
        rolls.sort_by(|one, other| one.node.cmp(&other.node));
        let mut out = Vec::new();
        for mut roll in rolls {
            if out.len() > MAX_ROLLS {
                roll.more += roll.users.len() as u64;
                roll.users.clear();
            }
            roll.encode(&mut out);
        }
        Ok(out)
    }

    async fn roll_of(&self, node: &Name) -> Result<Roll, String> {
        let peer = self.links.find(node, LINK_PATIENCE).await?;
        let who = format!("node {node}");
        let answer = peer.call(method::RELAY_WHO, "").timeout(ASK_PATIENCE).await;
        let answer = answer.map_err(|error| trouble::reason(&who, &error))?;
        let rolls = Roll::decode_all(&answer.payload).map_err(|error| format!("{who}: {error}"))?;
        rolls.into_iter().find(|roll| roll.node == *node).ok_or_else(|| format!("{who} lists another node"))
    }

    /// By when the caller must have its answer on the way.
    fn deadline(&self, cx: &Context) -> Instant {
        let now = self.clock.now();
        let (usual, most) = PATIENCE;
        let left = cx.deadline().map_or(usual, |deadline| deadline.saturating_since(now)).min(most);
        now.saturating_add(left.saturating_sub((left / 8).min(WAY_BACK)))
    }

    // ---- the router -------------------------------------------------------------------------------------------

    /// Hands the router something that wants an answer, at the first poll, and waits for it.
    async fn ask(self: &Arc<Self>, input: impl FnOnce(Ticket) -> Input) -> Result<Answer, Error> {
        let (sender, receiver) = oneshot::channel();
        let ticket = {
            let mut state = self.lock();
            state.last += 1;
            let ticket = Ticket(state.last);
            state.tickets.insert(ticket, sender);
            ticket
        };
        self.drive(input(ticket));
        match receiver.await {
            Ok(answer) => answer.map_err(|refusal| trouble::refuse(&refusal)),
            Err(_) => Err(Error::new(Status::UNAVAILABLE, "the node has stopped")),
        }
    }

    fn drive(self: &Arc<Self>, input: Input) {
        self.turn(|router, now| router.handle(now, input));
    }

    /// Turns the router, does what it says, and sees to its timer.
    fn turn(self: &Arc<Self>, turn: impl FnOnce(&mut Router, Instant)) {
        let mut outputs = Vec::new();
        let mut guard = self.lock();
        let state = &mut *guard;
        turn(&mut state.router, self.clock.now());
        while let Some(output) = state.router.poll_output() {
            match output {
                Output::Answer(ticket, answer) => {
                    if let Some(waiting) = state.tickets.remove(&ticket) {
                        // Who has hung up meanwhile does not want to know.
                        let _ = waiting.send(answer);
                    }
                }
                other => outputs.push(other),
            }
        }
        let next = state.router.poll_timeout();
        let nearer = next.is_some_and(|next| state.armed.is_none_or(|armed| next < armed));
        drop(guard);
        if nearer {
            self.timer.notify_one();
        }
        outputs.into_iter().for_each(|output| self.perform(output));
    }

    /// Wakes the router at its deadlines.
    async fn keep_time(self: Arc<Self>) {
        loop {
            let next = {
                let mut state = self.lock();
                state.armed = state.router.poll_timeout();
                state.armed
            };
            let Some(next) = next else {
                self.timer.notified().await;
                continue;
            };
            let left = next.saturating_since(self.clock.now());
            tokio::select! {
                () = self.runtime.sleep(left) => self.turn(Router::handle_timeout),
                () = self.timer.notified() => {}
            }
        }
    }

    // ---- what goes out ----------------------------------------------------------------------------------------

    fn perform(self: &Arc<Self>, output: Output) {
        let shared = Arc::clone(self);
        match output {
            Output::Answer(..) => {}
            Output::Deliver(attempt, session, message, deadline) => {
                let peer = self.lock().sessions.get(&session).cloned();
                self.spawn(async move {
                    let result = shared.hand_over(peer, message, deadline).await;
                    shared.attempted(attempt, result, Duration::ZERO);
                });
            }
            Output::Relay(attempt, node, message, deadline) => {
                self.spawn(async move {
                    let (result, took) = shared.relay(&node, message, deadline).await;
                    shared.attempted(attempt, result, took);
                });
            }
            Output::Ask { query, node, user } => {
                self.spawn(async move { shared.inquire(query, node, user).await });
            }
        }
    }

    fn attempted(self: &Arc<Self>, attempt: Attempt, result: Result<Report, Broken>, took: Duration) {
        if result.as_ref().is_ok_and(|report| report.verdict == Verdict::Delivered) {
            self.lock().delivered += 1;
        }
        self.drive(Input::Attempted(attempt, result, took));
    }

    /// To a user who is logged in here.
    async fn hand_over(
        &self,
        peer: Option<Peer>,
        message: Message,
        deadline: Instant,
    ) -> Result<Report, Broken> {
        let who = message.to.as_str();
        let Some(peer) = peer else {
            return Err(Broken { maybe: false, last: false, why: format!("{who} has just gone") });
        };
        let left = deadline.saturating_since(self.clock.now());
        match peer.call(method::DELIVER, message.octets()).timeout(left).await {
            Ok(_) => Ok(Report::new(true, Verdict::Delivered)),
            Err(error) => Err(trouble::broken(who, &error)),
        }
    }

    /// To another node; and how long that call took.
    async fn relay(
        &self,
        node: &Name,
        message: Message,
        deadline: Instant,
    ) -> (Result<Report, Broken>, Duration) {
        let left = deadline.saturating_since(self.clock.now());
        let peer = match self.links.find(node, left.min(LINK_PATIENCE)).await {
            Ok(peer) => peer,
            Err(why) => return (Err(Broken { maybe: false, last: false, why }), Duration::ZERO),
        };
        let who = format!("node {node}");
        let start = self.clock.now();
        let left = deadline.saturating_since(start);
        let answer = peer.call(method::RELAY, message.octets()).timeout(left).await;
        let took = self.clock.now().saturating_since(start);
        let result = match answer {
            Ok(answer) => Report::decode(&answer.payload).map_err(|error| Broken {
                maybe: true,
                last: true,
                why: format!("{who}: {error}"),
            }),
            Err(error) => Err(trouble::broken(&who, &error)),
        };
        (result, took)
    }

    async fn inquire(self: Arc<Self>, query: Query, node: Name, user: Name) {
        let asked = async {
            let peer = self.links.find(&node, LINK_PATIENCE).await?;
            let answer = peer.call(method::RELAY_WHERE, user.as_str().to_owned()).timeout(ASK_PATIENCE).await;
            let answer = answer.map_err(|error| trouble::reason(&format!("node {node}"), &error))?;
            Ok(answer.payload.first() == Some(&1))
        };
        let answer = asked.await;
        self.drive(Input::Asked(query, node, answer));
    }
}
