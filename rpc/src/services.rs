//! What a node serves: methods by name, each with its handler.

use std::{fmt, future::Future, sync::Arc};

use bytes::Bytes;
use tieline_core::conn::{ConfigBuilder, Incoming, MethodSpec};

use crate::{
    error::Error,
    handler::{AsyncFn, Context, Handler, Outcome, Progress, Spare},
    link::Link,
};

/// The methods that a node serves.
///
/// A handler is an async function of the call's [`Context`] and its argument. It is polled at once where the call
/// arrived; if it has to wait it becomes a task of the runtime. It must not block: while it does, its connection does
/// not even beat.
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
    methods: Vec<(String, Box<dyn Handler>)>,
}

impl Services {
    /// None yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a method of the name `package.Service/Method`.
    #[must_use]
    pub fn method<F, Fut, B>(mut self, name: &str, handler: F) -> Self
    where
        F: Fn(Context, Bytes) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<B, Error>> + Send + 'static,
        B: Into<Bytes> + 'static,
    {
        self.methods.push((name.to_owned(), Box::new(AsyncFn::new(handler))));
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
        self.methods.iter().map(|(name, _)| name.as_str())
    }

    pub(crate) fn describe(&self, config: ConfigBuilder) -> ConfigBuilder {
        self.names().fold(config, |config, name| config.method(MethodSpec::unary(name)))
    }

    /// Starts the handler of a call that came on `link`. `spares` belong to the connection and are kept from call to
    /// call.
    #[inline]
    pub(crate) fn start(&self, spares: &mut Spares, link: &Arc<Link>, incoming: Incoming) -> Progress {
        let method = incoming.method as usize;
        let Some((_, handler)) = self.methods.get(method) else {
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
