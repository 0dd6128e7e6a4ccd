//! `tieline-im`: demo, node and chat. See `tieline-im help`.

use std::{
    error::Error,
    io::{self, Write},
    process::ExitCode,
    time::Duration,
};

use tieline_commands::complain;
use tieline_im::{
    args::{self, Command, USAGE},
    chat, demo, serve,
};

fn main() -> ExitCode {
    let command = match args::parse(std::env::args_os().skip(1)) {
        Ok(command) => command,
        Err(error) => {
            complain(&error);
            return ExitCode::from(2);
        }
    };
    // One thread: the work of a node is short, and two nodes and their users share the machine.
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            complain(&format!("the system gives no event loop: {error}; are there descriptors left?"));
            return ExitCode::FAILURE;
        }
    };
    let done = runtime.block_on(run(command));
    // A thread that waits for a line of input must not keep the process.
    runtime.shutdown_timeout(Duration::from_millis(100));
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            complain(&error);
            ExitCode::FAILURE
        }
    }
}

/// Whether all went well; an error has not been told yet.
async fn run(command: Command) -> Result<bool, Box<dyn Error>> {
    match command {
        Command::Help => tell(USAGE),
        Command::Version => tell(concat!("tieline-im ", env!("CARGO_PKG_VERSION"), "\n")),
        Command::Demo { script, messages, runtimes } => Ok(demo::run(script, messages, runtimes).await?),
        Command::Node { id, listen, peers, stop_at_eof, runtime } => {
            serve::run(runtime, id, listen, peers, stop_at_eof).await?;
            Ok(true)
        }
        Command::Chat { user, node, timeout } => Ok(chat::run(user, &node, timeout).await?),
    }
}

fn tell(text: &str) -> Result<bool, Box<dyn Error>> {
    io::stdout().write_all(text.as_bytes())?;
    Ok(true)
}
