//! Shows the recording of a connection, step by step, by doing it again: what came and went, frame by frame, what was told
//! and decided, and how the state changed. Says whether this build does the same.
//!
//! Ends with 0 if it does, as far as can be seen; with 1 if it does not; with 2 if the file cannot be read.
#![forbid(unsafe_code)]

use std::{
    ffi::OsString,
    fmt, fs,
    io::{self, BufWriter, Write},
    process::ExitCode,
};

use tieline::Recording;

const USAGE: &str = "usage: tieline-replay FILE\n\
    Shows what a connection has recorded, by doing it again, and whether this build does the same.\n";
/// The largest file that is read: more than any recording has.
const LARGEST: u64 = 2 << 30;

fn main() -> ExitCode {
    let mut arguments = std::env::args_os().skip(1);
    match (arguments.next(), arguments.next()) {
        (Some(help), None) if help == "--help" || help == "-h" => {
            say(&mut io::stdout(), USAGE);
            ExitCode::SUCCESS
        }
        (Some(file), None) => show(&file).unwrap_or_else(|trouble| {
            say(&mut io::stderr(), &format!("tieline-replay: {trouble}\n"));
            ExitCode::from(2)
        }),
        _ => {
            say(&mut io::stderr(), USAGE);
            ExitCode::from(2)
        }
    }
}

/// That nobody reads it is no reason to fail.
fn say(to: &mut dyn Write, text: &str) {
    let _ = to.write_all(text.as_bytes());
}

fn show(file: &OsString) -> Result<ExitCode, String> {
    let shown = file.to_string_lossy();
    let name = tieline::Escaped::from(&*shown);
    let cannot = |error: io::Error| format!("cannot read {name}: {error}");
    let length = fs::metadata(file).map_err(cannot)?.len();
    if length > LARGEST {
        return Err(format!("{name} has {length} octets, which is more than any recording"));
    }
    let octets = fs::read(file).map_err(cannot)?;
    let recording = Recording::parse(&octets).map_err(|error| format!("{name}: {error}"))?;
    let mut out = Lines { out: BufWriter::new(io::stdout().lock()), error: None };
    let verdict = recording.replay(&mut out);
    if let Err(error) = out.out.flush() {
        out.error.get_or_insert(error);
    }
    match (verdict, out.error) {
        // Whoever reads has seen enough.
        (_, Some(error)) if error.kind() == io::ErrorKind::BrokenPipe => Ok(ExitCode::SUCCESS),
        (_, Some(error)) => Err(format!("cannot write: {error}")),
        (Err(error), None) => Err(format!("cannot write: {error}")),
        (Ok(verdict), None) if verdict.differs.is_some() => Ok(ExitCode::from(1)),
        (Ok(_), None) => Ok(ExitCode::SUCCESS),
    }
}

/// Text to the standard output, with the error that text knows nothing of.
struct Lines<W> {
    out: W,
    error: Option<io::Error>,
}

impl<W: Write> fmt::Write for Lines<W> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.out.write_all(text.as_bytes()).map_err(|error| {
            self.error.get_or_insert(error);
            fmt::Error
        })
    }
}
