//! The command `testee`: the service of the protocol's annex A, until it is told to stop.

mod arguments;
mod counts;
mod methods;

use std::{
    io::{self, Write},
    sync::Arc,
    time::Duration,
};

use tieline::{Decision, Limits, ListenError, Runtime, Server};
use tieline_commands::runtimes::Program;

pub use self::methods::SERVICE;
use self::methods::{Testee, services};
use crate::stop::Stop;

/// All that a testee can be told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// What it calls itself at check-in. Default `testee`.
    pub identifier: String,
    /// Its limits. Default: those of the annex, R-TST-04.
    pub limits: Limits,
    /// The bounds of the heartbeat interval that it grants. Default 100 ms to 5 min.
    pub heartbeat: (Duration, Duration),
    /// How long a check-in may take. Default 1 s.
    pub check_in_timeout: Duration,
    /// How long what is under way may take when it is told to stop. Default 5 s.
    pub grace: Duration,
    /// The credential that check-ins must show, if a verifier is to be there. Default: none is, and everybody comes in.
    pub credential: Option<String>,
}

impl Default for Settings {
    fn default() -> Self {
        let mut limits = Limits::default();
        limits.max_frame = 64 << 10;
        limits.max_message = 1 << 20;
        limits.max_item = 64 << 10;
        limits.stream_window = 64 << 10;
        limits.max_concurrent = 64;
        limits.max_streams = 16;
        limits.memory = 8 << 20;
        Self {
            identifier: "testee".to_owned(),
            limits,
            heartbeat: (Duration::from_millis(100), Duration::from_secs(300)),
            check_in_timeout: Duration::from_secs(1),
            grace: Duration::from_secs(5),
            credential: None,
        }
    }
}

/// A testee that listens on an address until it is told to stop.
#[derive(Debug)]
pub struct Serving {
    /// Where, `HOST:PORT`.
    pub listen: String,
    /// How.
    pub settings: Settings,
    /// Who tells it.
    pub stop: Stop,
}

impl Program for Serving {
    type Output = Result<(), ListenError>;

    async fn run<R: Runtime>(self, runtime: R) -> Self::Output {
        let Self { listen, settings, stop } = self;
        let testee = Arc::new(Testee::new(runtime.clone()));
        let mut server = Server::<R>::builder(&settings.identifier)
            .services(services(&testee))
            .limits(settings.limits)
            .heartbeat_bounds(settings.heartbeat.0, settings.heartbeat.1)
            .configure(|config| config.check_in_timeout(settings.check_in_timeout));
        if let Some(credential) = settings.credential {
            server = server.verify(move |check_in| {
                let good = check_in.credential == credential;
                async move {
                    if good {
                        return Decision::Accept;
                    }
                    Decision::Refuse(
                        "the credential is not the one that this testee was started with".to_owned(),
                    )
                }
            });
        }
        let listener = runtime.listen(&listen).await;
        let listener = listener.map_err(|source| ListenError::Listen { address: listen, source })?;
        let server = testee.counts.meter_of(|| server.serve_on(listener))?;
        let meter = server.meter();
        say(&format!("listening {}", server.address()));
        say(&format!("limits {}", server.limits()));
        stop.asked(1).await;
        let clock = runtime.clock();
        let started = clock.now();
        tokio::select! {
            () = server.shutdown(settings.grace) => {
                let ms = clock.now().saturating_since(started).as_millis();
                let served = meter.read().stats.calls_in;
                say(&format!("goodbye: {served} calls served, stopped within {ms} ms"));
            }
            // Who asks twice does not want to wait.
            () = stop.asked(2) => say("goodbye: stopped at once, as asked twice"),
        }
        Ok(())
    }
}

/// A line on the standard output. If nobody reads it any more that is no reason to stop.
fn say(line: &str) {
    let mut out = io::stdout().lock();
    let _ = writeln!(out, "{line}").and_then(|()| out.flush());
}
