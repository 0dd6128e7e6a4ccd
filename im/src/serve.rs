//! The command `node`: a node until it is told to stop.

use std::{io, time::Duration};

use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    sync::oneshot,
    time,
};

use crate::{
    name::Name,
    node::{Node, StartError},
    print::say,
};

/// How long what is under way may take when the node is told to stop.
const GRACE: Duration = Duration::from_secs(5);

/// Serves until ctrl-c, SIGTERM or, if asked for, the end of the standard input; then finishes what is under way.
///
/// # Errors
/// [`StartError`]: it cannot listen.
pub async fn run(
    id: Name,
    listen: &str,
    peers: &[(Name, String)],
    stop_at_eof: bool,
) -> Result<(), StartError> {
    let node = Node::start(id.clone(), listen, peers).await?;
    let stop = stop_signal(stop_at_eof);
    say(&format!("listening {}", node.address()));
    say(&format!("limits {}", node.limits()));
    stop.await;
    let started = time::Instant::now();
    tokio::select! {
        delivered = node.stop(GRACE) => {
            let ms = started.elapsed().as_millis();
            say(&format!("goodbye from {id}: {delivered} messages delivered, stopped within {ms} ms"));
        }
        // Who asks twice does not want to wait.
        () = stop_signal(false) => say(&format!("goodbye from {id}: stopped at once, as asked twice")),
    }
    Ok(())
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
