//! Several loops, a thread each, that share an address.

use std::{
    fmt, io,
    net::TcpListener,
    sync::mpsc,
    thread::{self, JoinHandle},
};

use crate::{app::App, event_loop::Loop, handle::Handle, listener::bind_tcp};

/// So many listeners on one address, `host:port`: the kernel gives each new connection to one of them (SO_REUSEPORT).
/// Port 0 lets it choose one for all.
///
/// Which connection comes to which is the kernel's choice, by the addresses of both ends: a few connections may well
/// all come to one. Other processes of the same user can take the address too.
///
/// # Errors
/// The address cannot be taken, or `count` is 0.
pub fn listeners(address: &str, count: usize) -> io::Result<Vec<TcpListener>> {
    let none = || io::Error::new(io::ErrorKind::InvalidInput, "no listener is asked for; take at least 1");
    let first = bind_tcp(address, true)?;
    let taken = first.local_addr()?.to_string();
    let mut listeners = vec![first];
    for _ in 1..count {
        listeners.push(bind_tcp(&taken, true)?);
    }
    if count == 0 { Err(none()) } else { Ok(listeners) }
}

/// Runs a loop on a thread for each of `listeners`. `make` is called on each of these threads, with its listener, and
/// returns the loop that serves it.
///
/// ```
/// use tieline_mio::{Config, Handlers, Loop, blocking::Client, threads};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let listeners = threads::listeners("127.0.0.1:0", 2)?;
/// let address = listeners[0].local_addr()?.to_string();
/// let loops = threads::run(listeners, |listener| {
///     let handlers = Handlers::new().function("demo.Text/Upper", |body| Ok(body.to_ascii_uppercase()));
///     let config = handlers.describe(Config::builder("node")).build().map_err(std::io::Error::other)?;
///     let mut node = Loop::new(handlers)?;
///     node.net().listen_on(listener, &config)?;
///     Ok(node)
/// })?;
///
/// let client = Client::connect(&address)?;
/// assert_eq!(client.call("demo.Text/Upper", "hello")?.payload, "HELLO");
/// loops.stop()?;
/// # Ok(())
/// # }
/// ```
///
/// A server of the runtime serves as long as somebody holds it, which a task can do:
///
/// ```
/// use std::{future::pending, io};
/// use tieline_mio::{Loop, MioListener, Server, blocking::Client, threads};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let listeners = threads::listeners("127.0.0.1:0", 2)?;
/// let address = listeners[0].local_addr()?.to_string();
/// let loops = threads::run(listeners, |listener| {
///     let mut node = Loop::new(())?;
///     let server = node.enter(|| {
///         let server = Server::builder("node")
///             .method("demo.Text/Upper", |_cx, body| async move { Ok(body.to_ascii_uppercase()) });
///         server.serve_on(MioListener::new(listener)?).map_err(io::Error::other)
///     })?;
///     node.net().spawn(Box::pin(async move {
///         let _served = server;
///         pending().await
///     }));
///     Ok(node)
/// })?;
/// let client = Client::connect(&address)?;
/// assert_eq!(client.call("demo.Text/Upper", "hello")?.payload, "HELLO");
/// loops.stop()?;
/// # Ok(())
/// # }
/// ```
///
/// # Errors
/// A thread could not be started, or `make` failed on one; those that were started are stopped.
pub fn run<A: App + 'static>(
    listeners: Vec<TcpListener>,
    make: impl Fn(TcpListener) -> io::Result<Loop<A>> + Clone + Send + 'static,
) -> io::Result<Threads<A>> {
    let mut threads = Threads { threads: Vec::new() };
    for (number, listener) in listeners.into_iter().enumerate() {
        let (tell, told) = mpsc::sync_channel(1);
        let make = make.clone();
        let thread = thread::Builder::new().name(format!("tieline-loop-{number}")).spawn(move || {
            let mut made = match make(listener) {
                Ok(made) => made,
                Err(error) => {
                    // Whoever started this thread waits for it.
                    let _ = tell.send(Err(error));
                    return Ok(());
                }
            };
            let _ = tell.send(Ok(made.handle()));
            made.run()
        })?;
        let made = told.recv().unwrap_or_else(|_| Err(io::Error::other("making a loop panicked")));
        threads.threads.push((made?, thread));
    }
    Ok(threads)
}

/// Loops that run on threads of their own: see [`run`]. They are stopped when this is dropped.
pub struct Threads<A: App> {
    threads: Vec<(Handle<A>, JoinHandle<io::Result<()>>)>,
}

impl<A: App> Threads<A> {
    /// Reaches each of the loops.
    pub fn handles(&self) -> impl Iterator<Item = &Handle<A>> {
        self.threads.iter().map(|(handle, _)| handle)
    }

    /// Stops the loops and waits for their threads. Their connections are cut; drain them before, by
    /// [`Net::drain_all`](crate::Net::drain_all), if that is not wanted.
    ///
    /// # Errors
    /// A loop had ended by itself because its poller failed.
    pub fn stop(mut self) -> io::Result<()> {
        self.end()
    }

    fn end(&mut self) -> io::Result<()> {
        for (handle, _) in &self.threads {
            handle.stop();
        }
        let mut ended = Ok(());
        for (_, thread) in self.threads.drain(..) {
            let one = thread.join().unwrap_or_else(|_| Err(io::Error::other("a loop panicked")));
            ended = ended.and(one);
        }
        ended
    }
}

impl<A: App> Drop for Threads<A> {
    fn drop(&mut self) {
        // There is nobody left to tell.
        let _ = self.end();
    }
}

impl<A: App> fmt::Debug for Threads<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Threads").field("loops", &self.threads.len()).finish()
    }
}
