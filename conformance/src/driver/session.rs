//! What the commands do: one client, its calls and its streams.

use std::{
    collections::{HashMap, hash_map::Entry},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tieline::{CallError, Client, ClientState, Closed, Instant, Peer, Ran, Runtime, Status};
use tokio::sync::oneshot;

use super::{
    client::{SNAPPY, describe},
    command::{Call, Command, Connect, Open, Receive, Serve, Token},
    reply::{Connection, Reply},
    stream::{Received, Stream},
};

/// Streams whose end was not received yet.
const MAX_STREAMS: usize = 4096;

/// All that the commands of one process share.
pub(super) struct Session<R: Runtime> {
    runtime: R,
    state: Mutex<State<R>>,
}

struct State<R: Runtime> {
    serve: Option<Serve>,
    client: Option<Client<R>>,
    /// Calls that wait, and streams that are being opened: told, they give up.
    waiting: HashMap<Token, oneshot::Sender<()>>,
    streams: HashMap<Token, Arc<Stream>>,
}

impl<R: Runtime> Session<R> {
    pub(super) fn new(runtime: R) -> Arc<Self> {
        let state = State { serve: None, client: None, waiting: HashMap::new(), streams: HashMap::new() };
        Arc::new(Self { runtime, state: Mutex::new(state) })
    }

    fn lock(&self) -> MutexGuard<'_, State<R>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Carries a command out. What has an order, such as that of calls, is done at the first poll.
    pub(super) async fn carry_out(&self, token: &Token, command: Command) -> Reply {
        match command {
            Command::Serve(serve) => self.serve(serve),
            Command::Connect(connect) => match self.connect(*connect).await {
                Ok(reply) => reply,
                Err(message) => Reply::refused(message),
            },
            Command::Call(call) => self.call(token, call).await,
            Command::OneWay(call) => self.one_way(token, call).await,
            Command::Cancel { call } => self.cancel(&call),
            Command::StreamOpen(open) => self.open(token, open).await,
            Command::StreamSend(item) => match self.stream(&item.stream) {
                Ok(stream) => stream.send(item.payload.0).await,
                Err(reply) => reply,
            },
            Command::StreamEnd { stream } => match self.stream(&stream) {
                Ok(stream) => stream.end().await,
                Err(reply) => reply,
            },
            Command::StreamRecv(receive) => self.receive(receive).await,
            Command::State => self.state(),
            Command::Close => {
                self.close().await;
                Reply::ok()
            }
        }
    }

    fn serve(&self, serve: Serve) -> Reply {
        let mut state = self.lock();
        if state.client.is_some() || state.serve.is_some() {
            return Reply::refused("`serve` comes once, and before `connect`");
        }
        state.serve = Some(serve);
        Reply::ok()
    }

    async fn connect(&self, connect: Connect) -> Result<Reply, String> {
        let [address] = &connect.addrs[..] else {
            return Err("one address in `addrs`: a pool over several is not there yet".to_owned());
        };
        if connect.connections != 1 {
            return Err("`connections` is 1: a pool of several is not there yet".to_owned());
        }
        if let Some(feature) = connect.features.iter().find(|feature| **feature != SNAPPY) {
            return Err(format!("feature {feature} is not known: {SNAPPY} is Snappy, and there is no other"));
        }
        let client = {
            let mut state = self.lock();
            if state.client.is_some() {
                return Err("connected before: one `connect` a process".to_owned());
            }
            let client = describe::<R>(&connect, state.serve.as_ref(), &self.runtime);
            let client = client.connect_lazily(address).map_err(|error| error.to_string())?;
            state.client.insert(client).clone()
        };
        // Without one in time the answer is good all the same.
        let _ = self.runtime.timeout(Duration::from_millis(connect.wait_ms), client.ready()).await;
        Ok(Reply::ready(usize::from(client.state() == ClientState::Ready)))
    }

    fn client(&self) -> Result<Client<R>, Reply> {
        let nowhere = || Reply::failed(Status::NO_ENDPOINT, Ran::No, "not connected: `connect` comes first");
        self.lock().client.clone().ok_or_else(nowhere)
    }

    /// Something that can be told to give up, by its token.
    fn wait_as(&self, token: &Token) -> Result<Waiting<'_, R>, Reply> {
        let mut state = self.lock();
        if state.streams.contains_key(token) {
            return Err(Reply::refused("a stream of this token is open: choose another"));
        }
        match state.waiting.entry(token.clone()) {
            Entry::Occupied(_) => Err(Reply::refused("a call of this token is under way: choose another")),
            Entry::Vacant(place) => {
                let (sender, cancelled) = oneshot::channel();
                place.insert(sender);
                Ok(Waiting { session: self, token: token.clone(), cancelled })
            }
        }
    }

    async fn call(&self, token: &Token, call: Call) -> Reply {
        let clock = self.runtime.clock();
        let began = clock.now();
        let reply = self.call_in_time(token, call, Kind::Call).await;
        reply.took(ms_up(clock.now(), began))
    }

    async fn one_way(&self, token: &Token, call: Call) -> Reply {
        self.call_in_time(token, call, Kind::OneWay).await
    }

    async fn call_in_time(&self, token: &Token, call: Call, kind: Kind) -> Reply {
        let (client, mut waiting) = match (self.client(), self.wait_as(token)) {
            (Ok(client), Ok(waiting)) => (client, waiting),
            (Err(reply), _) | (_, Err(reply)) => return reply,
        };
        let (name, payload) = (call.name(), call.payload.0.clone());
        let mut calling = match kind {
            Kind::Call => client.call(&name, payload),
            Kind::OneWay => client.one_way(&name, payload),
        };
        calling = calling.priority(call.priority()).ordering_key(&call.key.0);
        calling = match call.timeout_ms {
            0 => calling.no_timeout(),
            ms => calling.timeout(Duration::from_millis(ms)),
        };
        let outcome = tokio::select! {
            biased;
            outcome = &mut calling => outcome,
            () = waiting.cancelled() => calling.cancel(),
        };
        match (&outcome, kind) {
            (Ok(_), Kind::OneWay) => Reply::ok(),
            _ => Reply::outcome(&outcome),
        }
    }

    fn cancel(&self, token: &Token) -> Reply {
        let mut state = self.lock();
        if let Some(waiting) = state.waiting.remove(token) {
            // If it has its outcome just now, that is its outcome.
            let _ = waiting.send(());
            return Reply::ok();
        }
        match state.streams.get(token) {
            Some(stream) => {
                stream.cancel();
                Reply::ok()
            }
            None => Reply::refused("no call and no stream of this token is under way"),
        }
    }

    async fn open(&self, token: &Token, open: Open) -> Reply {
        let (client, mut waiting) = match (self.client(), self.wait_as(token)) {
            (Ok(client), Ok(waiting)) => (client, waiting),
            (Err(reply), _) | (_, Err(reply)) => return reply,
        };
        if self.lock().streams.len() >= MAX_STREAMS {
            return too_many_streams();
        }
        let (name, payload) = (open.call.name(), open.call.payload.0.clone());
        let opening = async {
            Ok(match open.kind {
                1 => Stream::new(
                    None,
                    with(client.server_stream(&name, payload), &open).await.map_err(failed)?,
                ),
                2 => {
                    let opened = with(client.client_stream(&name, payload), &open).await;
                    let (sink, items) = opened.map_err(failed)?.split();
                    Stream::new(Some(sink), items)
                }
                3 => {
                    let opened = with(client.bidi(&name, payload), &open).await;
                    let (sink, items) = opened.map_err(failed)?.split();
                    Stream::new(Some(sink), items)
                }
                kind => {
                    let kinds = "1 sends items to the client, 2 to the server, 3 both ways";
                    return Err(Reply::refused(format!("`kind` {kind} streams nothing: {kinds}")));
                }
            })
        };
        let stream = tokio::select! {
            biased;
            stream = opening => stream,
            () = waiting.cancelled() => {
                Err(Reply::failed(Status::NOT_SENT, Ran::No, "the stream was given up before it was opened"))
            }
        };
        let stream = match stream {
            Ok(stream) => Arc::new(stream),
            Err(reply) => return reply,
        };
        let mut state = self.lock();
        // Others may have been opened while this one waited for room.
        if state.streams.len() >= MAX_STREAMS {
            return too_many_streams();
        }
        state.streams.insert(token.clone(), Arc::clone(&stream));
        if state.waiting.remove(token).is_none() {
            // Told to give up just when it was open.
            stream.cancel();
        }
        Reply::ok()
    }

    fn stream(&self, token: &Token) -> Result<Arc<Stream>, Reply> {
        let stream = self.lock().streams.get(token).cloned();
        stream.ok_or_else(|| Reply::refused("no stream of this token is open"))
    }

    async fn receive(&self, receive: Receive) -> Reply {
        let stream = match self.stream(&receive.stream) {
            Ok(stream) => stream,
            Err(reply) => return reply,
        };
        let limit = Duration::from_millis(receive.timeout_ms);
        match self.runtime.timeout(limit, stream.receive()).await {
            Some(Received::Item(item)) => Reply::item(&item),
            Some(Received::End(outcome)) => {
                self.lock().streams.remove(&receive.stream);
                Reply::outcome(&outcome).end()
            }
            Some(Received::Nothing) => Reply::refused("the end of this stream was told before"),
            None => Reply::failed(Status::TIMEOUT, Ran::Maybe, format!("nothing came within {limit:?}")),
        }
    }

    fn state(&self) -> Reply {
        let Some(client) = self.lock().client.clone() else { return Reply::state(Vec::new()) };
        let interval = |peer: &Peer| peer.info().map_or(Duration::ZERO, |info| info.heartbeat_interval);
        let connection = |state, peer: Option<&Peer>, last: Option<Closed>| Connection {
            addr: client.address().to_owned(),
            state,
            interval_ms: peer.map_or(0, |peer| u64::try_from(interval(peer).as_millis()).unwrap_or(u64::MAX)),
            attempts: client.attempts(),
            last_close: last.map_or(0, |closed| closed.status.0),
        };
        // In this order, so that one that has begun to drain meanwhile is not told as ready as well.
        let draining = client.draining();
        let state = match client.state() {
            ClientState::Ready => "ready",
            ClientState::Backoff => "backoff",
            ClientState::Closed => "closed",
            _ => "connecting",
        };
        let mut all = vec![connection(state, client.peer().as_ref(), client.last_close())];
        all.extend(draining.iter().map(|peer| connection("draining", Some(peer), None)));
        Reply::state(all)
    }

    /// Closes every connection in peace. What waits for anything ends.
    pub(super) async fn close(&self) {
        let Some(client) = self.lock().client.clone() else { return };
        let draining = client.draining();
        draining.iter().for_each(|peer| peer.close(Status::NORMAL, ""));
        client.close().await;
        for peer in draining {
            peer.closed().await;
        }
    }
}

#[derive(Clone, Copy)]
enum Kind {
    Call,
    OneWay,
}

/// A call that can be told to give up, until this is dropped.
struct Waiting<'a, R: Runtime> {
    session: &'a Session<R>,
    token: Token,
    cancelled: oneshot::Receiver<()>,
}

impl<R: Runtime> Waiting<'_, R> {
    async fn cancelled(&mut self) {
        // Nobody takes the sender away but to send.
        let _ = (&mut self.cancelled).await;
    }
}

impl<R: Runtime> Drop for Waiting<'_, R> {
    fn drop(&mut self) {
        self.session.lock().waiting.remove(&self.token);
    }
}

/// A stream with the options of the command.
fn with<'a, S>(mut opening: tieline::Open<'a, S>, open: &'a Open) -> tieline::Open<'a, S> {
    opening = opening.priority(open.call.priority()).ordering_key(&open.call.key.0);
    if let Some(credit) = open.credit {
        opening = opening.credit(credit);
    }
    if open.call.timeout_ms > 0 {
        opening = opening.timeout(Duration::from_millis(open.call.timeout_ms));
    }
    opening
}

fn too_many_streams() -> Reply {
    Reply::refused(format!("{MAX_STREAMS} streams are open, and no more may be"))
}

fn failed(error: CallError) -> Reply {
    Reply::outcome(&Err(error))
}

/// Milliseconds since then, rounded up: what must not end before a limit is not shown as if it did.
fn ms_up(now: Instant, then: Instant) -> u64 {
    let micros = now.saturating_since(then).as_micros();
    u64::try_from(micros.div_ceil(1000)).unwrap_or(u64::MAX)
}
