//! What a node serves: methods by name, each with its handler.

use std::{fmt, future::Future, sync::Arc};

use bytes::Bytes;
use tieline_core::{
    conn::{ConfigBuilder, Incoming, MethodSpec},
    wire::Kind,
};

use crate::{
    error::Error,
    handler::{AsyncFn, Context, Handler, Outcome, Progress, Spare},
    link::Link,
    served::{ServedItems, ServedSink},
};

/// The methods that a node serves.
///
/// A handler is an async function of the call's [`Context`], its argument, and the streams that its kind has. It is
/// polled at once where the call arrived; if it has to wait it becomes a task of the runtime. It must not block: while it
/// does, its connection does not even beat. When its caller gives the call up, or the time for it is over, it is dropped
/// where it waits.
///
/// ```
/// use tieline::{Error, Services, Status};
///
/// let services = Services::new()
///     .method("demo.Text/Upper", |_cx, body| async move { Ok(body.to_ascii_uppercase()) })
///     .method("demo.Text/Parse", |_cx, body| async move {
///         let text = std::str::from_utf8(&body).map_err(|_| Error::new(Status::INVALID_ARGUMENT, "not text"))?;
///         Ok(format!("{} characters", text.chars().count()))
///     });
/// assert_eq!(services.names().count(), 2);
/// ```
#[derive(Default)]
pub struct Services {
    methods: Vec<Method>,
}

struct Method {
    name: String,
    kind: Kind,
    compress: bool,
    /// The handler goes on when nobody waits for it any more.
    keeps_running: bool,
    handler: Box<dyn Handler>,
}

impl Services {
    /// None yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    fn add<F, Fut, B>(mut self, name: &str, kind: Kind, function: F) -> Self
    where
        F: Fn(Context, Bytes) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<B, Error>> + Send + 'static,
        B: Into<Bytes> + 'static,
    {
        let handler = Box::new(AsyncFn::new(function));
        self.methods.push(Method {
            name: name.to_owned(),
            kind,
            compress: false,
            keeps_running: false,
            handler,
        });
        self
    }

    /// Adds a method of the name `package.Service/Method`, with one argument and one result.
    #[must_use]
    pub fn method<F, Fut, B>(self, name: &str, handler: F) -> Self
    where
        F: Fn(Context, Bytes) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<B, Error>> + Send + 'static,
        B: Into<Bytes> + 'static,
    {
        self.add(name, Kind::Unary, handler)
    }

    /// Adds a method that sends items, and then its result.
    ///
    /// ```
    /// use tieline::Services;
    ///
    /// let services = Services::new().server_stream("demo.Text/Words", |_cx, body, mut sink| async move {
    ///     for word in body.split(u8::is_ascii_whitespace) {
    ///         sink.send(body.slice_ref(word)).await?;
    ///     }
    ///     Ok("these were all")
    /// });
    /// # assert_eq!(services.names().count(), 1);
    /// ```
    #[must_use]
    pub fn server_stream<F, Fut, B>(self, name: &str, handler: F) -> Self
    where
        F: Fn(Context, Bytes, ServedSink) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<B, Error>> + Send + 'static,
        B: Into<Bytes> + 'static,
    {
        self.add(name, Kind::ServerStream, move |cx, body| {
            let sink = ServedSink::new(&cx);
            handler(cx, body, sink)
        })
    }

    /// Adds a method that takes items besides its argument, and has one result. What it leaves untaken is dropped.
    ///
    /// ```
    /// use tieline::Services;
    ///
    /// let services = Services::new().client_stream("demo.Text/Length", |_cx, _body, mut items| async move {
    ///     let mut octets = 0;
    ///     while let Some(item) = items.next().await {
    ///         octets += item?.len();
    ///     }
    ///     Ok(octets.to_string())
    /// });
    /// # assert_eq!(services.names().count(), 1);
    /// ```
    #[must_use]
    pub fn client_stream<F, Fut, B>(self, name: &str, handler: F) -> Self
    where
        F: Fn(Context, Bytes, ServedItems) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<B, Error>> + Send + 'static,
        B: Into<Bytes> + 'static,
    {
        self.add(name, Kind::ClientStream, move |cx, body| {
            let items = ServedItems::new(&cx);
            handler(cx, body, items)
        })
    }

    /// Adds a method with items in both directions, and a result behind those that it sends.
    ///
    /// ```
    /// use tieline::Services;
    ///
    /// let services = Services::new().bidi("demo.Text/Echo", |_cx, _body, mut items, mut sink| async move {
    ///     while let Some(item) = items.next().await {
    ///         sink.send(item?).await?;
    ///     }
    ///     Ok("bye")
    /// });
    /// # assert_eq!(services.names().count(), 1);
    /// ```
    #[must_use]
    pub fn bidi<F, Fut, B>(self, name: &str, handler: F) -> Self
    where
        F: Fn(Context, Bytes, ServedItems, ServedSink) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<B, Error>> + Send + 'static,
        B: Into<Bytes> + 'static,
    {
        self.add(name, Kind::Bidi, move |cx, body| {
            let (items, sink) = (ServedItems::new(&cx), ServedSink::new(&cx));
            handler(cx, body, items, sink)
        })
    }

    /// Compresses the results and the items of the method that was added last, where that gains an eighth and the caller
    /// understands it. Off by default: on a fast line the work costs more than the octets.
    ///
    /// ```
    /// use tieline::Services;
    ///
    /// let services = Services::new()
    ///     .method("demo.Text/Long", |_cx, _body| async move { Ok("long ".repeat(1000)) })
    ///     .compress();
    /// # assert_eq!(services.names().count(), 1);
    /// ```
    #[must_use]
    pub fn compress(mut self) -> Self {
        if let Some(last) = self.methods.last_mut() {
            last.compress = true;
        }
        self
    }

    /// Lets the handler of the method that was added last run to its end, also when its caller has given the call up, the
    /// time for it is over, or the connection has ended: for what must not stop half-way. Its caller has its answer in time
    /// all the same, and until the handler has really stopped it holds one of the places of `max_concurrent` of
    /// [`Limits`](crate::Limits). Off by default: a handler is dropped where it waits.
    ///
    /// ```
    /// use tieline::Services;
    ///
    /// let services = Services::new()
    ///     .method("demo.Account/Move", |_cx, _body| async move { Ok("moved") })
    ///     .keep_running();
    /// # assert_eq!(services.names().count(), 1);
    /// ```
    #[must_use]
    pub fn keep_running(mut self) -> Self {
        if let Some(last) = self.methods.last_mut() {
            last.keeps_running = true;
        }
        self
    }

    /// Adds all methods of `other`.
    #[must_use]
    pub fn and(mut self, other: Self) -> Self {
        self.methods.extend(other.methods);
        self
    }

    /// The names, in the order in which they were added.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.methods.iter().map(|method| method.name.as_str())
    }

    pub(crate) fn describe(&self, config: ConfigBuilder) -> ConfigBuilder {
        self.methods.iter().fold(config, |config, method| {
            config.method(MethodSpec::new(&method.name, method.kind).compress(method.compress))
        })
    }

    /// Whether handlers of the method with this index go on when nobody waits for them any more.
    pub(crate) fn keeps_running(&self, method: u32) -> bool {
        self.methods.get(method as usize).is_some_and(|method| method.keeps_running)
    }

    /// Starts the handler of a call that came on `link`. `spares` belong to the connection and are kept from call to
    /// call.
    #[inline]
    pub(crate) fn start(&self, spares: &mut Spares, link: &Arc<Link>, incoming: Incoming) -> Progress {
        let method = incoming.method as usize;
        let Some(Method { handler, .. }) = self.methods.get(method) else {
            // Not reached: the core knows the same methods.
            return Progress::Done(Outcome::Panicked);
        };
        match spares.0.get_mut(method) {
            Some(Some(spare)) => handler.start(spare, link, incoming),
            _ => spares.first(method, &**handler, link, incoming),
        }
    }
}

/// By method, where handlers keep the memory of their futures.
#[derive(Default)]
pub(crate) struct Spares(Vec<Option<Spare>>);

impl Spares {
    /// The first call of a method.
    #[cold]
    fn first(
        &mut self,
        method: usize,
        handler: &dyn Handler,
        link: &Arc<Link>,
        incoming: Incoming,
    ) -> Progress {
        let mut spare = handler.spare();
        let progress = handler.start(&mut spare, link, incoming);
        if self.0.len() <= method {
            self.0.resize_with(method + 1, || None);
        }
        if let Some(place) = self.0.get_mut(method) {
            *place = Some(spare);
        }
        progress
    }

    /// Gives the memory back, on an idle line.
    pub(crate) fn release(&mut self) {
        self.0 = Vec::new();
    }
}

impl fmt::Debug for Services {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.names()).finish()
    }
}

/// What adds methods one by one to a builder whose field `services` holds them.
macro_rules! methods {
    () => {
        methods!(@ method, (
            "A method that the peer may call, with one argument and one result; see [`Services::method`]."
        ), crate::Context, bytes::Bytes);
        methods!(@ server_stream, (
            "A method that the peer may call and that sends items; see [`Services::server_stream`]."
        ), crate::Context, bytes::Bytes, crate::ServedSink);
        methods!(@ client_stream, (
            "A method that the peer may call and that takes items; see [`Services::client_stream`]."
        ), crate::Context, bytes::Bytes, crate::ServedItems);
        methods!(@ bidi, (
            "A method that the peer may call, with items in both directions; see [`Services::bidi`]."
        ), crate::Context, bytes::Bytes, crate::ServedItems, crate::ServedSink);

        /// Compresses what the method that was added last sends; see [`Services::compress`].
        #[must_use]
        pub fn compress(mut self) -> Self {
            self.services = self.services.compress();
            self
        }

        /// Lets the handler of the method that was added last run to its end; see [`Services::keep_running`].
        #[must_use]
        pub fn keep_running(mut self) -> Self {
            self.services = self.services.keep_running();
            self
        }
    };
    (@ $name:ident, ($doc:literal), $($argument:ty),+) => {
        #[doc = $doc]
        #[must_use]
        pub fn $name<F, Fut, B>(mut self, name: &str, handler: F) -> Self
        where
            F: Fn($($argument),+) -> Fut + Send + Sync + 'static,
            Fut: Future<Output = Result<B, crate::Error>> + Send + 'static,
            B: Into<bytes::Bytes> + 'static,
        {
            self.services = self.services.$name(name, handler);
            self
        }
    };
}
pub(crate) use methods;
