//! Tieline beside other RPC systems: the same echo under the same load. `../README.md` says how to run it and to read it.
//!
//! [`peers`] are they, [`table`] runs each under each load in turns. Load generator, processes and pinning are those of
//! `tieline-benches`.
// This is a command: what it prints is its result.
#![allow(clippy::print_stdout, clippy::print_stderr)]

mod peers;
mod table;

use std::net::SocketAddr;
use std::process::ExitCode;
use std::thread;
use std::time::Duration;

use peers::Peer;
use tieline_benches::args::{self, Args};
use tieline_benches::error::{Failure, Result};
use tieline_benches::load::{Length, Mode, Plan};
use tieline_benches::process::{self, LOAD_CORE, SERVER_CORE};
use tieline_benches::sys;

#[global_allocator]
static ALLOCATOR: sys::CountingAllocator = sys::CountingAllocator;

/// The versions that this program was built from.
const LOCK: &str = include_str!("../Cargo.lock");

/// How long a run may take beyond its own time, connecting and ending included; whoever hangs is not to hold up all others.
const PATIENCE: Duration = Duration::from_secs(30);

const HELP: &str = "\
tieline-peers [COMMAND]

  table [--quick] [--rounds N] [--seconds S] [--only PEER]
      the default: every peer under every load, as a Markdown table; --quick: one round
  load PEER ADDRESS --server-pid PID [--payload OCTETS] [--connections N] [--in-flight N] [--warmup S] [--seconds S]
      one run against a server that runs; prints one line of JSON
  serve PEER
      a server; prints `listening ADDRESS`, ends when stdin ends
  help";

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("tieline-peers: {failure}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<()> {
    let mut args = Args::parse(std::env::args().skip(1), &["--quick", "--help"])?;
    if args.switch("--help") {
        println!("{HELP}");
        return Ok(());
    }
    match args.word().as_deref() {
        None | Some("table") => table::command(args),
        Some("load") => load(args),
        Some("serve") => serve(args),
        Some("help") => {
            println!("{HELP}");
            Ok(())
        }
        Some(other) => Err(Failure::new(format!("no command {other:?}\n{HELP}"))),
    }
}

fn serve(mut args: Args) -> Result<()> {
    let peer = Peer::from_name(&args.required("the peer")?)?;
    args.end()?;
    let listen = SocketAddr::from(([127, 0, 0, 1], 0));
    match process::serve(|listener| peer.serve(listener), listen, SERVER_CORE)? {}
}

fn load(mut args: Args) -> Result<()> {
    let peer = Peer::from_name(&args.required("the peer")?)?;
    let address = args::parse("the address", &args.required("the address")?)?;
    let server = args.value("--server-pid")?.ok_or_else(|| Failure::new("--server-pid is missing"))?;
    let (warmup, window) = (args.time("--warmup", 0.5)?, args.time("--seconds", 3.0)?);
    let plan = Plan {
        payload: args.value("--payload")?.unwrap_or(64),
        connections: args.value("--connections")?.unwrap_or(1),
        in_flight: args.value("--in-flight")?.unwrap_or(1),
        mode: Mode::Closed,
        length: Length::Time { warmup, window },
    };
    args.end()?;
    plan.check()?;
    process::pin(LOAD_CORE);
    thread::spawn(move || {
        thread::sleep(warmup + window + PATIENCE);
        eprintln!("tieline-peers: {} did not come to an end", peer.name());
        std::process::exit(1)
    });
    println!("{}", peer.load(&plan, address, server)?.to_json());
    // What still runs, such as tasks of connections, is nobody's concern any more.
    std::process::exit(0)
}
