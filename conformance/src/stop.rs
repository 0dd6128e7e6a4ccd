//! SIGTERM and ctrl-c, told to futures of any runtime.

use std::{io, thread};

use signal_hook::{
    consts::{SIGINT, SIGTERM},
    iterator::Signals,
};
use tokio::sync::watch;

/// How often this process was asked to stop. Runtimes disagree on signals, so a thread of its own waits for them.
#[derive(Debug, Clone)]
pub struct Stop {
    asked: watch::Receiver<usize>,
}

impl Stop {
    /// Watches from now on.
    ///
    /// # Errors
    /// The system does not let this process watch its signals, or gives it no thread.
    pub fn watch() -> io::Result<Self> {
        let mut signals = Signals::new([SIGINT, SIGTERM])?;
        let (sender, asked) = watch::channel(0);
        thread::Builder::new().name("signals".to_owned()).spawn(move || {
            for _ in signals.forever() {
                sender.send_modify(|asked| *asked += 1);
            }
        })?;
        Ok(Self { asked })
    }

    /// Waits until it was asked so often, since it began to watch.
    pub async fn asked(&self, times: usize) {
        let mut asked = self.asked.clone();
        if asked.wait_for(|asked| *asked >= times).await.is_err() {
            // Nobody watches any more, so nobody can ask.
            std::future::pending::<()>().await;
        }
    }
}
