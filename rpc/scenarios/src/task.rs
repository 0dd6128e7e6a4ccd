//! Tasks of the runtime, and threads, whose results can be awaited.

use std::{future::Future, panic::AssertUnwindSafe};

use tieline::Runtime;

use crate::{
    Adapter,
    wait::{Shared, either},
};

enum State<T> {
    Running,
    Done(T),
    /// It panicked, or was dropped with its runtime.
    Lost,
    Taken,
}

/// A task or a thread. Dropped, it goes on.
pub struct Task<T> {
    state: Shared<State<T>>,
    stop: Shared<bool>,
}

impl<T> std::fmt::Debug for Task<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Task").field("is_running", &self.is_running()).finish()
    }
}

/// However it ends, whoever waits for it is told.
struct Teller<T>(Shared<State<T>>);

impl<T> Drop for Teller<T> {
    fn drop(&mut self) {
        self.0.change(|state| {
            if matches!(state, State::Running) {
                *state = State::Lost;
            }
        });
    }
}

impl<T> Task<T> {
    fn new() -> (Self, Teller<T>) {
        let task = Self { state: Shared::new(State::Running), stop: Shared::new(false) };
        let teller = Teller(task.state.clone());
        (task, teller)
    }

    /// Waits for its result.
    ///
    /// A task that has panicked, or was stopped, ends the scenario.
    pub async fn join(self) -> T {
        self.state
            .take(|state| match std::mem::replace(state, State::Taken) {
                State::Running => {
                    *state = State::Running;
                    None
                }
                State::Done(result) => Some(result),
                State::Lost | State::Taken => panic!("a task of the scenario came to no end"),
            })
            .await
    }

    /// Whether it has not ended.
    #[must_use]
    pub fn is_running(&self) -> bool {
        self.state.see(|state| matches!(state, State::Running))
    }

    /// Has the runtime drop it where it waits, and waits for that.
    pub async fn stop(self) {
        self.stop.change(|stop| *stop = true);
        self.state.take(|state| (!matches!(state, State::Running)).then_some(())).await;
    }
}

/// Spawns a task on the runtime.
pub fn spawn<A: Adapter, F>(future: F) -> Task<F::Output>
where
    F: Future<Output: Send> + Send + 'static,
{
    let (task, teller) = Task::new();
    let stop = task.stop.clone();
    A::Runtime::default().spawn(Box::pin(async move {
        let teller = teller;
        let stopped = stop.take(|stop| stop.then_some(()));
        // The future is dropped before anybody is told.
        if let Ok(result) = either(future, stopped).await {
            teller.0.change(|state| *state = State::Done(result));
        }
    }));
    task
}

/// Runs a thread, for what must block.
pub fn thread<T: Send + 'static>(run: impl FnOnce() -> T + Send + 'static) -> Task<T> {
    let (task, teller) = Task::new();
    std::thread::spawn(move || {
        let teller = teller;
        // A panic has been shown by then, and is told by the guard.
        if let Ok(result) = std::panic::catch_unwind(AssertUnwindSafe(run)) {
            teller.0.change(|state| *state = State::Done(result));
        }
    });
    task
}

/// Waits for all of them.
pub async fn all<T>(tasks: impl IntoIterator<Item = Task<T>>) -> Vec<T> {
    let mut results = Vec::new();
    for task in tasks {
        results.push(task.join().await);
    }
    results
}
