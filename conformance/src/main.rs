//! `tieline-conformance`: testee and driver. See `tieline-conformance help`.

use std::{
    error::Error,
    io::{self, Write},
    process::ExitCode,
};

use tieline_commands::{complain, runtimes};
use tieline_conformance::{
    args::{self, Command},
    driver,
    stop::Stop,
    testee,
};

fn main() -> ExitCode {
    let command = match args::parse(std::env::args_os().skip(1)) {
        Ok(command) => command,
        Err(error) => {
            complain(&error);
            return ExitCode::from(2);
        }
    };
    match run(command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            complain(&error);
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> Result<(), Box<dyn Error>> {
    match command {
        Command::Help => io::stdout().write_all(args::usage().as_bytes())?,
        Command::Version => writeln!(io::stdout(), "tieline-conformance {}", env!("CARGO_PKG_VERSION"))?,
        Command::Testee { runtime, listen, settings } => {
            let stop = Stop::watch()?;
            runtimes::block_on(runtime, testee::Serving { listen, settings: *settings, stop })??;
        }
        Command::Driver { runtime } => runtimes::block_on(runtime, driver::Driving)??,
    }
    Ok(())
}
