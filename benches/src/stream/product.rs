//! The product, by its public client and server.

use std::convert::Infallible;
use std::future::pending;
use std::net::{self, SocketAddr};

use bytes::Bytes;
use tieline_tokio::{Error, Server, Status};
use tokio::runtime::Builder;

use super::{DEFAULT_WINDOW, Tally, items};
use crate::error::{Context, Failure, Result};
use crate::targets::runtime::Client;

const ITEMS: &str = "tieline.bench.v1.Items/Items";

/// Serves until the process ends: every stream gets items until it is given up.
pub(super) fn serve(listener: net::TcpListener, many: bool) -> Result<Infallible> {
    listener.set_nonblocking(true)?;
    Builder::new_current_thread().enable_all().build()?.block_on(async {
        let listener = tokio::net::TcpListener::from_std(listener)?;
        let server = Server::builder("bench-server");
        let server = if many {
            server.server_stream(ITEMS, |_context, _body, mut sink| async move {
                sink.send_all(items().into_iter().cycle()).await?;
                ended()
            })
        } else {
            server.server_stream(ITEMS, |_context, _body, mut sink| async move {
                for item in items().iter().cycle() {
                    sink.send(item.clone()).await?;
                }
                ended()
            })
        };
        let _server = server.serve_on(listener.into()).context("serve")?;
        pending().await
    })
}

/// The items have no end.
fn ended() -> std::result::Result<Bytes, Error> {
    Err(Error::new(Status::INTERNAL, "the items have come to an end"))
}

/// Takes items until the tally has enough, and gives the stream up.
pub(super) fn take(address: SocketAddr, window: u32, tally: &mut Tally) -> Result<()> {
    Builder::new_current_thread().enable_all().build()?.block_on(async {
        let client =
            Client::builder("bench-client").connect(&address.to_string()).await.context("connect")?;
        let open = client.server_stream(ITEMS, "");
        // Nobody says what is the default, and only that grows.
        let open = if window == DEFAULT_WINDOW { open } else { open.credit(window) };
        let mut items = open.await.context("open the stream")?;
        while let Some(item) = items.next().await {
            if !tally.take(&item.context("the stream")?)? {
                return Ok(());
            }
        }
        Err(Failure::new("the stream has ended"))
    })
}
