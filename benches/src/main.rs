//! Benches of Tieline beside the raw limits of the machine. `README.md` says what is measured and how.
//!
//! Bottom up: [`frame`] and [`buffer`] are what the hand-written baselines share, [`targets`] are the
//! baselines and Tieline, [`load`] drives and measures them, [`process`] puts server and load on a core each,
//! [`spin`] repeats work inside one process, [`table`] and [`count`] make the figures that are published, and
//! [`verdict`] holds them against the targets.
// This is a command: what it prints is its result.
#![allow(clippy::print_stdout, clippy::print_stderr)]

mod buffer;
mod commands;
mod count;
mod frame;
mod idle;
mod mixed;
mod served;
mod spin;
mod stream;
mod table;
mod targets;
mod verdict;

use std::process::ExitCode;

use tieline_benches::{args, error, load, machine, process, socket, stats, sys};

use args::Args;
use error::{Failure, Result};

#[global_allocator]
static ALLOCATOR: sys::CountingAllocator = sys::CountingAllocator;

const HELP: &str = "\
tieline-benches COMMAND

  table [--quick] [--rounds N] [--seconds S]
      every target under every load, with ratios and verdicts, as Markdown tables; --quick: one round
  load --target TARGET [--payload OCTETS] [--connections N] [--in-flight N]
       [--mode closed|open] [--rate CALLS_A_SECOND] [--seconds S] [--warmup S] [--calls N]
       [--address ADDRESS [--server-pid PID]] [--core N] [--json]
      one run; starts the server itself unless --address is given
  stream --sender SENDER [--window OCTETS] [--seconds S] [--warmup S] [--json]
      items of 64 octets on one stream, from the server to the client
  mixed [--way up|down] [--octets N] [--times N] [--seconds S] [--rate CALLS_A_SECOND] [--json]
      small calls alone, and while a large message crosses the same connection
  idle [memory] [wakeups] [beside] [--target TARGET] [--quick] [--connections N] [--heartbeat S]
       [--rounds N] [--seconds S] [--idle-core N]
      what connections cost that do nothing: the server's memory, its wake-ups, and what they take from busy ones
  hold ADDRESS N [--heartbeat S] [--from ADDRESS] [--first K] [--core N]
      N idle connections; prints `holding N` when all are checked in, ends when stdin ends
  serve TARGET [--listen ADDRESS] [--core N]
      a server; prints `listening ADDRESS`, ends when stdin ends
  instructions [NAME…]
      instructions a call, by callgrind, and allocations a round trip
  spin LABEL N
      N round trips inside this process, for callgrind or a profiler; prints its allocations
  help";

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("tieline-benches: {failure}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<()> {
    let mut args = Args::parse(std::env::args().skip(1), &["--quick", "--json", "--help"])?;
    if args.switch("--help") {
        println!("{HELP}");
        return Ok(());
    }
    match args.word().as_deref() {
        Some("table") => table::command(args),
        Some("load") => commands::load(args),
        Some("serve") => commands::serve(args),
        Some("instructions") => count::command(args),
        Some("stream") => stream::command(args),
        Some("mixed") => mixed::command(args),
        Some("idle") => idle::command(args),
        Some("hold") => idle::hold(args),
        Some("spin") => commands::spin(args),
        Some("help") => {
            println!("{HELP}");
            Ok(())
        }
        Some(other) => Err(Failure::new(format!("no command {other:?}\n{HELP}"))),
        None => Err(Failure::new(HELP)),
    }
}
