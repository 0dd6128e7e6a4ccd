//! The commands that run one thing: `serve`, `load`, `spin`.

use std::net::SocketAddr;
use std::sync::Arc;

use crate::args::{self, Args};
use crate::error::{Failure, Result};
use crate::load::{Length, Meter, Mode, Plan, Report};
use crate::process::{self, LOAD_CORE, SERVER_CORE, Server};
use crate::served::Served;
use crate::spin;
use crate::targets::{Target, zeromq};

/// `serve TARGET [--listen ADDRESS] [--core N]`
pub(crate) fn serve(mut args: Args) -> Result<()> {
    let served = Served::from_name(&args.required("the target")?)?;
    let listen = args.value("--listen")?;
    let core = args.value("--core")?.unwrap_or(SERVER_CORE);
    args.end()?;
    let listen = listen.unwrap_or_else(|| SocketAddr::from(([127, 0, 0, 1], 0)));
    match process::serve(|listener| served.serve(listener), listen, core)? {}
}

/// `load --target TARGET …`: see the help.
pub(crate) fn load(mut args: Args) -> Result<()> {
    let name: String = args.value("--target")?.ok_or_else(|| Failure::new("--target is missing"))?;
    let target = Target::from_name(&name)?;
    let plan = plan(&mut args)?;
    let address = args.value("--address")?;
    let server_pid = args.value("--server-pid")?;
    let core = args.value("--core")?.unwrap_or(LOAD_CORE);
    let json = args.switch("--json");
    args.end()?;
    process::pin(core);
    let report = match address {
        Some(address) => measure(target, &plan, address, server_pid)?,
        None => {
            let server = Server::start(target.name())?;
            measure(target, &plan, server.address, Some(server.pid()))?
        }
    };
    if json {
        println!("{}", report.to_json());
    } else {
        println!("{report}");
    }
    Ok(())
}

fn plan(args: &mut Args) -> Result<Plan> {
    let mode: Option<String> = args.value("--mode")?;
    let rate = args.value("--rate")?;
    let mode = match (mode.as_deref(), rate) {
        (None | Some("closed"), None) => Mode::Closed,
        (None | Some("open"), Some(rate)) => Mode::Open { rate },
        (Some("open"), None) => return Err(Failure::new("an open loop needs --rate")),
        (Some("closed"), Some(_)) => return Err(Failure::new("--rate is for the open loop")),
        (Some(other), _) => return Err(Failure::new(format!("--mode is closed or open, not {other}"))),
    };
    let calls = args.value("--calls")?;
    let warmup = args.value("--warmup")?;
    let seconds = args.value("--seconds")?;
    let length = match calls {
        Some(calls) if warmup.is_none() && seconds.is_none() => Length::Calls(calls),
        Some(_) => return Err(Failure::new("--calls goes without --warmup and --seconds")),
        None => Length::Time {
            warmup: args::time("--warmup", warmup.unwrap_or(0.5))?,
            window: args::time("--seconds", seconds.unwrap_or(3.0))?,
        },
    };
    let plan = Plan {
        payload: args.value("--payload")?.unwrap_or(64),
        connections: args.value("--connections")?.unwrap_or(1),
        in_flight: args.value("--in-flight")?.unwrap_or(1),
        mode,
        length,
    };
    plan.check()?;
    Ok(plan)
}

fn measure(target: Target, plan: &Plan, address: SocketAddr, server: Option<u32>) -> Result<Report> {
    if target == Target::Zeromq {
        return zeromq::load(plan, address, server);
    }
    let meter = Arc::new(Meter::new(*plan, server)?);
    target.drive(plan, address, &meter)?;
    meter.report(target.name())
}

/// `spin LABEL N`
pub(crate) fn spin(mut args: Args) -> Result<()> {
    let label = args.required("the label")?;
    let count = args::parse("N", &args.required("the number of round trips")?)?;
    args.end()?;
    let allocations = spin::Spin::from_label(&label)?.run(count)?;
    println!("{label}: {count} round trips, {allocations} allocations, those of the start among them");
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use std::time::Duration;

    fn read(line: &str) -> Result<Plan> {
        let mut args = Args::parse(line.split_whitespace().map(str::to_owned), &["--json"])?;
        let plan = plan(&mut args)?;
        args.end()?;
        Ok(plan)
    }

    #[test]
    fn a_plan_is_read_from_flags() {
        let plan =
            read("--payload 100 --connections 2 --in-flight 8 --rate 5000 --seconds 0.5 --warmup 0").unwrap();
        let length = Length::Time { warmup: Duration::ZERO, window: Duration::from_millis(500) };
        assert_eq!((plan.payload, plan.callers()), (100, 16));
        assert_eq!((plan.mode, plan.length), (Mode::Open { rate: 5000 }, length));
        assert_eq!(read("--calls 10").unwrap().length, Length::Calls(10));
        assert_eq!(read("--mode closed").unwrap().mode, Mode::Closed);
    }

    #[test]
    fn what_contradicts_itself_is_refused() {
        for line in [
            "--mode open",
            "--mode closed --rate 5",
            "--mode half",
            "--rate 0",
            "--rate 1000 --calls 5",
            "--calls 5 --seconds 1",
            "--calls 0",
            "--seconds 0",
            "--seconds -1",
            "--in-flight 0",
            "--connections 0",
            "--in-flight 65537",
            "--payload 16777216",
        ] {
            assert!(read(line).is_err(), "{line}");
        }
    }
}
