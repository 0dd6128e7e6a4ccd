//! Calls for programs that have no loop: the thread that calls does what a loop would do.
//!
//! There is no other thread on the way of a call: whoever calls writes, waits in the kernel for octets, and finds the
//! answer, which takes as few steps and wake-ups as a call can. What has to be done between calls, which is to beat, is
//! done by a thread that sleeps until it is due.

mod line;

use std::{
    fmt, io,
    net::ToSocketAddrs,
    sync::{Arc, Condvar, Mutex, PoisonError},
    thread::{self, JoinHandle},
    time::Duration,
};

use bytes::Bytes;
use tieline::{Address, CallError, ConnectError, instance};
use tieline_core::{
    conn::{Answer, Body, CallHead, Config, Failure, Rejection},
    wire::{Ran, Status},
};

use self::line::{Channel, Line};
use crate::{clock, shared::lock};

/// How long one address may take to answer the dialling.
const DIAL_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a call waits, unless something else is said.
const CALL_TIMEOUT: Duration = Duration::from_secs(10);
/// After so long without a call it is looked whether the node has closed the connection meanwhile.
const STALE: Duration = Duration::from_millis(5);

/// A connection to a node, for threads that wait for their answers.
///
/// Calls of several threads on one client are made one after the other; threads that call much have a client each. The
/// connection beats by itself. If it was lost between two calls it is dialled again for the next one; a call during
/// which it is lost fails, and says whether it ran.
///
/// ```no_run
/// use std::time::Duration;
/// use tieline_mio::blocking::Client;
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let client = Client::connect("127.0.0.1:7400")?;
/// let answer = client.call("shop.Stock/Count", "apples")?;
/// println!("{:?}", answer.payload);
/// client.one_way("shop.Log/Note", "counted the apples")?;
/// client.call_within(Some(Duration::from_millis(200)), "shop.Stock/Count", "pears")?;
/// # Ok(())
/// # }
/// ```
pub struct Client {
    inner: Arc<Inner>,
    keeper: Option<JoinHandle<()>>,
}

struct Inner {
    state: Mutex<State>,
    /// Wakes the keeper: there is a new connection, or the client is closed.
    changed: Condvar,
    config: Arc<Config>,
    address: String,
}

#[derive(Default)]
struct State {
    line: Option<Line>,
    /// How long to ask for octets again and again before sleeping until they come.
    busy: Duration,
    closed: bool,
}

impl Client {
    /// Connects to `address`, `host:port` or `unix:/path`, under an identifier made from the number of this process.
    ///
    /// # Errors
    /// [`ConnectError`]: nobody answers, or whoever answers does not check in.
    pub fn connect(address: &str) -> Result<Self, ConnectError> {
        let config = Config::builder(&format!("process-{:x}", instance())).instance(instance()).build()?;
        Self::connect_as(address, &config)
    }

    /// Connects with a configuration, of which methods are of no use: this client serves nothing.
    ///
    /// # Errors
    /// As [`connect`](Self::connect).
    pub fn connect_as(address: &str, config: &Arc<Config>) -> Result<Self, ConnectError> {
        let inner = Inner {
            state: Mutex::default(),
            changed: Condvar::new(),
            config: Arc::clone(config),
            address: address.to_owned(),
        };
        lock(&inner.state).line = Some(inner.dial()?);
        let inner = Arc::new(inner);
        let theirs = Arc::clone(&inner);
        let keeper = thread::Builder::new().name("tieline-keeper".to_owned()).spawn(move || theirs.keep());
        let keeper = keeper.map_err(|source| ConnectError::Dial { address: address.to_owned(), source })?;
        Ok(Self { inner, keeper: Some(keeper) })
    }

    /// Asks for the answer again and again for so long before sleeping until it comes: it is there sooner, and the core
    /// is busy meanwhile. Default: not at all.
    #[must_use]
    pub fn busy_poll(self, spell: Duration) -> Self {
        lock(&self.inner.state).busy = spell;
        self
    }

    /// Calls a method, `package.Service/Method`, and waits up to 10 s for its answer.
    ///
    /// # Errors
    /// [`CallError`]: why there is no answer, and whether the call ran.
    pub fn call(&self, method: &str, body: impl AsRef<[u8]>) -> Result<Answer, CallError> {
        self.call_within(Some(CALL_TIMEOUT), method, body)
    }

    /// The same, with another bound, or none but the life of the connection. The node is told, and stops when the time
    /// is over.
    ///
    /// # Errors
    /// As [`call`](Self::call).
    pub fn call_within(
        &self,
        timeout: Option<Duration>,
        method: &str,
        body: impl AsRef<[u8]>,
    ) -> Result<Answer, CallError> {
        self.inner.call(timeout, method, Body::Copy(body.as_ref()), false)
    }

    /// The same, for a long argument that is not copied.
    ///
    /// # Errors
    /// As [`call`](Self::call).
    pub fn call_shared(
        &self,
        timeout: Option<Duration>,
        method: &str,
        body: Bytes,
    ) -> Result<Answer, CallError> {
        self.inner.call(timeout, method, Body::Share(body), false)
    }

    /// Sends what nobody answers. It returns once the kernel has taken it; whether it arrives is not known.
    ///
    /// # Errors
    /// [`CallError`]: it did not go out, or not within 10 s.
    pub fn one_way(&self, method: &str, body: impl AsRef<[u8]>) -> Result<(), CallError> {
        self.inner.call(Some(CALL_TIMEOUT), method, Body::Copy(body.as_ref()), true).map(|_| ())
    }

    /// The address that it dials.
    #[must_use]
    pub fn address(&self) -> &str {
        &self.inner.address
    }

    /// Closes the connection in peace, and waits until that is done: what was sent before is out, and the node has
    /// closed as well, or has had a second for it. Dropping a client closes it without waiting for the node.
    pub fn close(self) {
        if let Some(line) = &mut lock(&self.inner.state).line {
            line.close();
            line.linger();
        }
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        {
            let mut state = lock(&self.inner.state);
            state.closed = true;
            if let Some(line) = &mut state.line {
                line.close();
            }
            state.line = None;
        }
        self.inner.changed.notify_all();
        if let Some(keeper) = self.keeper.take() {
            // It does not panic: nothing of an application runs on it.
            let _ = keeper.join();
        }
    }
}

impl Inner {
    fn dial(&self) -> Result<Line, ConnectError> {
        let failed = |source| ConnectError::Dial { address: self.address.clone(), source };
        let channel = dial(&self.address).map_err(failed)?;
        let line = Line::new(channel, &self.config).map_err(failed)?;
        line.check_in().map_err(|closed| ConnectError::CheckIn { address: self.address.clone(), closed })
    }

    fn call(
        &self,
        timeout: Option<Duration>,
        method: &str,
        body: Body<'_>,
        one_way: bool,
    ) -> Result<Answer, CallError> {
        let failed = |failure| CallError::new(&self.address, failure);
        let state = &mut *lock(&self.state);
        let now = clock::now();
        let deadline = timeout.map(|timeout| now.saturating_add(timeout));
        let head = CallHead::new(method).deadline(deadline);
        for fresh in [false, true] {
            if !state.line.as_mut().is_some_and(|line| line.lives(now, STALE)) {
                state.line = None;
            }
            let line = match &mut state.line {
                Some(line) => line,
                place => {
                    let line = self.dial().map_err(|error| {
                        failed(Failure::local(Status::NO_ENDPOINT, Ran::No, &error.to_string()))
                    })?;
                    // The keeper beats on it from now on.
                    self.changed.notify_all();
                    place.insert(line)
                }
            };
            match line.begin(now, &head, body.clone(), one_way) {
                Ok(number) => {
                    let outcome = line.wait(number, state.busy);
                    if line.is_over() {
                        state.line = None;
                    }
                    return outcome.map_err(failed);
                }
                // Nothing of it left, and another connection may take it.
                Err(Rejection::Draining | Rejection::Closed) if !fresh => {
                    line.close();
                    state.line = None;
                }
                Err(reason) => {
                    return Err(failed(Failure::local(reason.status(), Ran::No, &reason.to_string())));
                }
            }
        }
        Err(failed(Failure::local(Status::NO_ENDPOINT, Ran::No, "the node drains")))
    }

    /// Beats between calls, until the client is closed.
    fn keep(&self) {
        let mut state = lock(&self.state);
        while !state.closed {
            let now = clock::now();
            let next = match &mut state.line {
                Some(line) => {
                    if line.due().is_some_and(|due| due <= now) {
                        line.look();
                    }
                    if line.is_over() {
                        state.line = None;
                        None
                    } else {
                        line.due()
                    }
                }
                None => None,
            };
            state = match next {
                None => self.changed.wait(state).unwrap_or_else(PoisonError::into_inner),
                Some(next) => {
                    let pause = next.saturating_since(clock::now());
                    self.changed.wait_timeout(state, pause).unwrap_or_else(PoisonError::into_inner).0
                }
            };
        }
    }
}

fn dial(address: &str) -> io::Result<Channel> {
    match Address::parse(address) {
        Address::Unix(path) => Channel::unix(path),
        Address::Tcp(address) => {
            let mut last = io::Error::new(io::ErrorKind::InvalidInput, "the name has no address");
            for address in address.to_socket_addrs()? {
                match Channel::tcp(&address, DIAL_TIMEOUT) {
                    Ok(channel) => return Ok(channel),
                    Err(error) => last = error,
                }
            }
            Err(last)
        }
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").field("address", &self.inner.address).finish_non_exhaustive()
    }
}
