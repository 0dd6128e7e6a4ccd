//! What a node serves: methods by name, each with its handler.

use std::{fmt, future::Future, sync::Mutex};

use bytes::Bytes;
use tieline_core::conn::{ConfigBuilder, MethodSpec};

use crate::{
    error::Error,
    handler::{AsyncFn, Context, Handler, Outcome, Progress},
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
        self.methods
            .push((name.to_owned(), Box::new(AsyncFn { function: handler, spare: Mutex::new(None) })));
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

    #[inline]
    pub(crate) fn start(&self, method: u32, context: Context, body: Bytes) -> Progress {
        match self.methods.get(method as usize) {
            Some((_, handler)) => handler.start(context, body),
            // Not reached: the core knows the same methods.
            None => Progress::Done(Outcome::Panicked),
        }
    }
}

impl fmt::Debug for Services {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.names()).finish()
    }
}
