//! An application made of closures.

use std::{
    fmt,
    sync::{
        Arc,
        mpsc::{Receiver, sync_channel},
    },
    time::Duration,
};

use bytes::Bytes;
use tieline::Error;
use tieline_core::{
    conn::{
        Answer, Body, CallHead, CallId, Closed, ConfigBuilder, Failure, Incoming, MethodSpec, PeerInfo,
        Rejected, Rest,
    },
    wire::{Ran, Status},
};

use crate::{
    app::App,
    handle::{Handle, Refused},
    net::{ConnId, Net, TimerId},
};

/// What is done with the outcome of a call: see [`Net::call_then`].
pub struct Then(OnOutcome);

type OnOutcome = Box<dyn FnOnce(&mut Net<Then>, ConnId, Result<Answer, Failure>)>;

impl Then {
    /// Does this.
    #[must_use]
    pub fn new(then: impl FnOnce(&mut Net<Self>, ConnId, Result<Answer, Failure>) + 'static) -> Self {
        Self(Box::new(then))
    }

    /// Does nothing: for one-ways.
    #[must_use]
    pub fn nothing() -> Self {
        // A closure that holds nothing takes no memory.
        Self::new(|_, _, _| {})
    }
}

impl fmt::Debug for Then {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Then")
    }
}

type OnRequest = Box<dyn FnMut(&mut Net<Then>, ConnId, Incoming)>;
type OnOpened = Box<dyn FnMut(&mut Net<Then>, ConnId, &Arc<PeerInfo>)>;
type OnClosed = Box<dyn FnMut(&mut Net<Then>, ConnId, Closed)>;
type OnTimer = Box<dyn FnMut(&mut Net<Then>, TimerId)>;

/// An application of the direct layer that is made of closures: one a method, and one for each call of this side.
///
/// ```
/// use std::time::Duration;
/// use tieline_mio::{Body, CallHead, Config, Error, Handlers, Loop, Status};
///
/// let handlers = Handlers::new()
///     // Answered on the spot.
///     .function("demo.Text/Upper", |body| Ok(body.to_ascii_uppercase()))
///     .function("demo.Text/Never", |_body| Err::<&str, _>(Error::new(Status::NOT_FOUND, "never")))
///     // Answered whenever it likes: the connection and the call are all that it takes to remember.
///     .method("demo.Text/Later", |net, conn, request| {
///         let answered = net.answer(conn, request.call, Body::Share(request.payload));
///         answered.unwrap_or_default(); // or the caller has gone meanwhile
///     });
/// let config = handlers.describe(Config::builder("node-2")).build()?;
/// let mut node = Loop::new(handlers)?;
/// let listener = node.net().listen("127.0.0.1:0", &config)?;
/// let address = node.net().listening(listener).ok_or("it listens")?;
///
/// let client = Config::builder("node-1").build()?;
/// let net = node.net();
/// let conn = net.connect(&address, &client)?;
/// let deadline = net.now().saturating_add(Duration::from_secs(1));
/// let head = CallHead::new("demo.Text/Upper").deadline(Some(deadline));
/// net.call_then(conn, &head, Body::Copy(b"hello"), |net, _conn, outcome| {
///     assert!(outcome.is_ok_and(|answer| answer.payload == "HELLO"));
///     net.stop();
/// })?;
/// node.run()?;
/// # assert_eq!(node.net().counters().panics, 0);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Default)]
pub struct Handlers {
    methods: Vec<(MethodSpec, OnRequest)>,
    opened: Option<OnOpened>,
    closed: Option<OnClosed>,
    timer: Option<OnTimer>,
}

impl Handlers {
    /// None yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a method, `package.Service/Method`, whose calls are answered through the [`Net`], now or later.
    #[must_use]
    pub fn method(self, name: &str, handler: impl FnMut(&mut Net<Then>, ConnId, Incoming) + 'static) -> Self {
        self.spec(MethodSpec::unary(name), handler)
    }

    /// The same for a method of any kind, with all that can be said of it.
    #[must_use]
    pub fn spec(
        mut self,
        spec: MethodSpec,
        handler: impl FnMut(&mut Net<Then>, ConnId, Incoming) + 'static,
    ) -> Self {
        self.methods.push((spec, Box::new(handler)));
        self
    }

    /// Adds a method that is a function of its argument. For a one-way the result is of no use.
    #[must_use]
    pub fn function<B: Into<Bytes>>(
        self,
        name: &str,
        mut function: impl FnMut(Bytes) -> Result<B, Error> + 'static,
    ) -> Self {
        self.method(name, move |net, conn, request| {
            // That the answer may be of no use any more is not the function's concern.
            let _ = match function(request.payload) {
                Ok(body) => net.answer(conn, request.call, Body::Share(body.into())),
                Err(error) => net.reply(conn, request.call, &error.reply()),
            };
        })
    }

    /// What to do once a connection has checked in.
    #[must_use]
    pub fn on_opened(mut self, opened: impl FnMut(&mut Net<Then>, ConnId, &Arc<PeerInfo>) + 'static) -> Self {
        self.opened = Some(Box::new(opened));
        self
    }

    /// What to do once a connection is over.
    #[must_use]
    pub fn on_closed(mut self, closed: impl FnMut(&mut Net<Then>, ConnId, Closed) + 'static) -> Self {
        self.closed = Some(Box::new(closed));
        self
    }

    /// What to do once a timer has come.
    #[must_use]
    pub fn on_timer(mut self, timer: impl FnMut(&mut Net<Then>, TimerId) + 'static) -> Self {
        self.timer = Some(Box::new(timer));
        self
    }

    /// Adds the methods to a configuration. Connections whose peers are to call them need one that was described so,
    /// with no methods before these.
    #[must_use]
    pub fn describe(&self, config: ConfigBuilder) -> ConfigBuilder {
        self.methods.iter().fold(config, |config, (spec, _)| config.method(spec.clone()))
    }
}

impl App for Handlers {
    type User = Then;

    fn request(&mut self, net: &mut Net<Then>, conn: ConnId, request: Incoming) {
        match self.methods.get_mut(request.method as usize) {
            Some((_, handler)) => handler(net, conn, request),
            // The configuration has more methods than these.
            None => net.stopped(conn, request.call),
        }
    }

    fn done(
        &mut self,
        net: &mut Net<Then>,
        conn: ConnId,
        then: Then,
        outcome: Result<Answer, Failure>,
        _: Rest,
    ) {
        (then.0)(net, conn, outcome);
    }

    fn opened(&mut self, net: &mut Net<Then>, conn: ConnId, peer: &Arc<PeerInfo>) {
        if let Some(opened) = &mut self.opened {
            opened(net, conn, peer);
        }
    }

    fn closed(&mut self, net: &mut Net<Then>, conn: ConnId, closed: Closed) {
        if let Some(told) = &mut self.closed {
            told(net, conn, closed);
        }
    }

    fn timer(&mut self, net: &mut Net<Then>, timer: TimerId) {
        if let Some(told) = &mut self.timer {
            told(net, timer);
        }
    }
}

impl fmt::Debug for Handlers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Handlers").field("methods", &self.methods.len()).finish_non_exhaustive()
    }
}

impl Net<Then> {
    /// Calls a method of the peer, and hands its one outcome to `then`, on the loop.
    ///
    /// # Errors
    /// [`Rejected`] gives `then` back and says why: the call was not accepted, and `then` was not called.
    pub fn call_then(
        &mut self,
        conn: ConnId,
        head: &CallHead<'_>,
        body: Body<'_>,
        then: impl FnOnce(&mut Self, ConnId, Result<Answer, Failure>) + 'static,
    ) -> Result<CallId, Rejected<Then>> {
        self.call(conn, head, body, Then::new(then))
    }
}

/// A call that another thread has handed to a loop: see [`Handle::call`].
#[derive(Debug)]
pub struct Called(Receiver<Result<Answer, Failure>>);

impl Called {
    /// Waits for its outcome.
    ///
    /// # Errors
    /// [`Failure`]: why there is no answer, and whether the call ran.
    pub fn wait(self) -> Result<Answer, Failure> {
        self.0.recv().unwrap_or_else(|_| {
            Err(Failure::local(Status::CONNECTION_LOST, Ran::Maybe, "the loop has ended"))
        })
    }
}

impl Handle<Handlers> {
    /// Calls a method of a peer from any thread; its outcome comes back there. `timeout`: how long this side waits; none
    /// is as long as the connection lives.
    ///
    /// # Errors
    /// [`Refused`]: the loop did not take it, and it is not made.
    pub fn call(
        &self,
        conn: ConnId,
        method: &str,
        body: impl Into<Bytes>,
        timeout: Option<Duration>,
    ) -> Result<Called, Refused> {
        let (tell, told) = sync_channel(1);
        let (method, body) = (method.to_owned(), body.into());
        self.submit(move |_, net| {
            let deadline = timeout.map(|timeout| net.now().saturating_add(timeout));
            let head = CallHead::new(&method).deadline(deadline);
            let then = tell.clone();
            let called = net.call_then(conn, &head, Body::Share(body), move |_, _, outcome| {
                // Whoever called may not want to know any more.
                let _ = then.try_send(outcome);
            });
            if let Err(Rejected { reason, .. }) = called {
                let _ = tell.try_send(Err(Failure::local(reason.status(), Ran::No, &reason.to_string())));
            }
        })?;
        Ok(Called(told))
    }
}
