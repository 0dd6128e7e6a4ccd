//! The command `node`: a node until it is told to stop.

use std::{io, time::Duration};

use thiserror::Error;
use tieline_commands::runtimes::{self, Flavour, Program};
use tieline_tokio::Runtime;
use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    sync::{oneshot, watch},
};

use crate::{
    name::Name,
    node::{Node, StartError},
    print::say,
};

/// How long what is under way may take when the node is told to stop.
const GRACE: Duration = Duration::from_secs(5);

/// Why a node does not serve.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ServeError {
    /// It does not start.
    #[error(transparent)]
    Start(#[from] StartError),
    /// Its runtime does not.
    #[error("the system gives no event loop: {0}; are there descriptors and threads left?")]
    Runtime(#[from] io::Error),
}

/// Serves on the runtime until ctrl-c, SIGTERM or, if asked for, the end of the standard input; then finishes what is under
/// way.
///
/// # Errors
/// [`ServeError`]: it cannot listen, or there is nothing to run on.
pub async fn run(
    runtime: Flavour,
    id: Name,
    listen: String,
    peers: Vec<(Name, String)>,
    stop_at_eof: bool,
) -> Result<(), ServeError> {
    let (asking, asked) = watch::channel(0);
    let stop = stop_signal(stop_at_eof);
    tokio::spawn(async move {
        stop.await;
        asking.send_replace(1);
        // Who asks twice does not want to wait.
        stop_signal(false).await;
        asking.send_replace(2);
        std::future::pending::<()>().await;
    });
    Ok(runtimes::run(runtime, Serving { id, listen, peers, asked }).await??)
}

/// A node, and how often it was asked to stop.
struct Serving {
    id: Name,
    listen: String,
    peers: Vec<(Name, String)>,
    asked: watch::Receiver<usize>,
}

impl Program for Serving {
    type Output = Result<(), StartError>;

    async fn run<R: Runtime>(self, runtime: R) -> Self::Output {
        let Self { id, listen, peers, mut asked } = self;
        let clock = runtime.clock();
        let node = Node::start(runtime, id.clone(), &listen, &peers).await?;
        say(&format!("listening {}", node.address()));
        say(&format!("limits {}", node.limits()));
        // Nobody stops asking but by ending the process.
        let _ = asked.wait_for(|times| *times >= 1).await;
        let started = clock.now();
        tokio::select! {
            delivered = node.stop(GRACE) => {
                let ms = clock.now().saturating_since(started).as_millis();
                say(&format!("goodbye from {id}: {delivered} messages delivered, stopped within {ms} ms"));
            }
            _ = asked.wait_for(|times| *times >= 2) => {
                say(&format!("goodbye from {id}: stopped at once, as asked twice"));
            }
        }
        Ok(())
    }
}

/// Completes when the node is told to stop. What is told from the time of the call on counts.
fn stop_signal(stop_at_eof: bool) -> impl Future<Output = ()> {
    // Where a signal cannot be watched it does what it does by default: it ends the process.
    let mut interrupt = signal(SignalKind::interrupt()).ok();
    let mut terminate = signal(SignalKind::terminate()).ok();
    let (ended, input) = oneshot::channel::<()>();
    // Without a thread that reads it, nobody tells of the end of the input.
    let input = stop_at_eof.then_some(input);
    if stop_at_eof {
        std::thread::spawn(move || {
            // Whatever comes is of no interest; an input that cannot be read is at its end.
            let _ = io::copy(&mut io::stdin().lock(), &mut io::sink());
            let _ = ended.send(());
        });
    }
    async move {
        tokio::select! {
            Some(_) = of(interrupt.as_mut().map(Signal::recv)) => {}
            Some(_) = of(terminate.as_mut().map(Signal::recv)) => {}
            Some(_) = of(input) => {}
            else => std::future::pending().await,
        }
    }
}

async fn of<F: Future>(future: Option<F>) -> Option<F::Output> {
    match future {
        Some(future) => Some(future.await),
        None => None,
    }
}
