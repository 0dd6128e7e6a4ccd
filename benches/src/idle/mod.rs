mod hold;
mod memory;
mod proc;
mod quiet;
mod server;
mod state;
mod world;

pub(crate) use hold::command as hold;
pub(crate) use server::Product;

use crate::args::Args;
use crate::error::Result;

pub(crate) fn command(mut args: Args) -> Result<()> {
    let n = args.value("--connections")?.unwrap_or(world::most_connections()?);
    let heartbeat = args.time("--heartbeat", 10.0)?;
    args.end()?;
    crate::process::pin(crate::process::LOAD_CORE);
    let m = memory::measure(Product::Tokio, n, heartbeat)?;
    println!("{m:#?}");
    println!("{:?}", quiet::measure(Product::Tokio, heartbeat)?);
    Ok(())
}
