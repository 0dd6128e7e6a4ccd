//! The command `driver`: does what lines of JSON on the standard input tell it, and answers each on the standard output.
//!
//! It adds nothing to the client: no time-outs, no attempts, no order but that of the lines.

mod client;
mod command;
mod lines;
mod reply;
mod session;
mod stream;

use std::{
    fmt,
    future::Future,
    io::{self, Write},
    pin::pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Waker},
    time::Duration,
};

use tieline::Runtime;
use tokio::{
    sync::{Notify, mpsc},
    task::coop,
};

use self::{
    command::Told,
    lines::{Line, MAX_LINE},
    reply::Reply,
    session::Session,
};
use crate::runtimes::Program;

/// Commands that wait for their answers at once.
const MAX_WAITING: usize = 16_384;
/// Octets of their lines.
const MAX_OCTETS: usize = 256 << 20;
/// How long what still waits at the end of the input may take to be answered, and the answers to be written. The client
/// is closed then, which ends everything within about a second.
const PATIENCE: Duration = Duration::from_secs(5);

/// A driver, until the end of the standard input.
#[derive(Debug)]
pub struct Driving;

impl Program for Driving {
    type Output = io::Result<()>;

    async fn run<R: Runtime>(self, runtime: R) -> Self::Output {
        let (output, written) = lines::output()?;
        let mut input = lines::input()?;
        let session = Session::new(runtime.clone());
        let load = Arc::new(Load::default());
        loop {
            let line = tokio::select! {
                line = input.recv() => line,
                // Nobody reads the answers any more.
                () = output.closed() => None,
            };
            let told = match line {
                None => break,
                Some(Line::TooLong) => Err(format!("longer than {MAX_LINE} octets")),
                Some(Line::Whole(line)) if line.trim_ascii().is_empty() => continue,
                Some(Line::Whole(line)) => command::parse(&line).map(|told| (told, line.len())),
            };
            match told {
                Ok((told, octets)) => match Load::take(&load, octets) {
                    Some(place) => {
                        let answered = answer(Arc::clone(&session), told, place, output.clone());
                        start(&runtime, answered);
                    }
                    // Read on only when that is out, or these would be what piles up.
                    None => drop(output.send(too_many().line(&told.token)).await),
                },
                Err(why) => complain(&format_args!("a line is not answered: {why}")),
            }
        }
        let _ = runtime.timeout(PATIENCE, session.close()).await;
        let _ = runtime.timeout(PATIENCE, load.idle()).await;
        drop(output);
        let _ = runtime.timeout(PATIENCE, written).await;
        Ok(())
    }
}

/// Carries a command out and has its answer written.
async fn answer<R: Runtime>(
    session: Arc<Session<R>>,
    told: Told,
    place: Place,
    output: mpsc::Sender<String>,
) {
    let Told { token, command } = told;
    let reply = match command {
        Err(why) => Reply::refused(why),
        Ok(command) => session.carry_out(&token, command).await,
    };
    // If nobody reads it any more, that is seen elsewhere.
    let _ = output.send(reply.line(&token)).await;
    drop(place);
}

fn too_many() -> Reply {
    Reply::refused(format!(
        "{MAX_WAITING} commands, or {MAX_OCTETS} octets of them, wait for their answers: no more may"
    ))
}

/// Polls a future once, where it stands, so that what commands begin begins in their order; and makes it a task if it
/// has to wait.
fn start<R: Runtime>(runtime: &R, future: impl Future<Output = ()> + Send + 'static) {
    let mut future = Box::pin(future);
    // Unconstrained, for the reader may have used up tokio's budget of this turn: what is not let begin now would begin
    // as a task, and behind those that come after it.
    let first = pin!(coop::unconstrained(future.as_mut()));
    // As a task it is polled again, with a waker of its own.
    if first.poll(&mut Context::from_waker(Waker::noop())).is_pending() {
        runtime.spawn(future);
    }
}

/// What waits to be answered.
#[derive(Default)]
struct Load {
    waiting: Mutex<(usize, usize)>,
    less: Notify,
}

impl Load {
    /// A place for a command whose line has so many octets, if there is one.
    fn take(load: &Arc<Self>, octets: usize) -> Option<Place> {
        let mut waiting = load.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        if waiting.0 >= MAX_WAITING || waiting.1 + octets > MAX_OCTETS {
            return None;
        }
        waiting.0 += 1;
        waiting.1 += octets;
        drop(waiting);
        Some(Place { load: Arc::clone(load), octets })
    }

    /// Waits until nothing waits.
    async fn idle(&self) {
        loop {
            let mut less = pin!(self.less.notified());
            less.as_mut().enable();
            if self.waiting.lock().unwrap_or_else(PoisonError::into_inner).0 == 0 {
                return;
            }
            less.await;
        }
    }
}

/// The place of one command.
struct Place {
    load: Arc<Load>,
    octets: usize,
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut waiting = self.load.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        waiting.0 -= 1;
        waiting.1 -= self.octets;
        drop(waiting);
        self.load.less.notify_waiters();
    }
}

/// A line for whoever looks after the harness.
fn complain(what: &dyn fmt::Display) {
    let _ = writeln!(io::stderr(), "error: {what}");
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[test]
    fn a_command_begins_at_once_however_many_lines_were_read_in_this_turn() {
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        // In a task: what blocks on a runtime has no share that could be used up.
        let checked = runtime.spawn(async {
            while coop::has_budget_remaining() {
                let _ = pin!(coop::consume_budget()).poll(&mut Context::from_waker(Waker::noop()));
            }
            let began = Arc::new(AtomicUsize::new(0));
            for number in 0..3 {
                let seen = Arc::clone(&began);
                let command = async move {
                    tokio::select! {
                        biased;
                        () = async { assert_eq!(seen.fetch_add(1, Ordering::Relaxed), number) } => {}
                        () = std::future::pending() => {}
                    }
                };
                start(&tieline_tokio::Tokio, command);
                assert_eq!(began.load(Ordering::Relaxed), number + 1);
            }
        });
        runtime.block_on(checked).expect("all began in their order");
    }

    #[test]
    fn so_many_commands_wait_and_no_more() {
        let load = Arc::default();
        let mut places: Vec<Place> = (0..MAX_WAITING).filter_map(|_| Load::take(&load, 1)).collect();
        assert_eq!(places.len(), MAX_WAITING);
        assert!(Load::take(&load, 1).is_none(), "one more");
        places.truncate(1);
        let large = Load::take(&load, MAX_OCTETS - 1);
        assert!(large.is_some() && Load::take(&load, 1).is_none(), "one octet more");
        drop(large);
        assert!(Load::take(&load, MAX_OCTETS - 1).is_some());
    }
}
