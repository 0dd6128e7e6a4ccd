//! Cap'n Proto's RPC. Parameter and result are one Data each, written by hand as generated code would: that needs no
//! `capnp` compiler.
//!
//! Its futures belong to one thread, so its callers are local tasks and not those of the common load generator; they do
//! the same.

use std::convert::Infallible;
use std::net::{self, SocketAddr};
use std::ops::Deref;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use capnp::any_pointer;
use capnp::capability::{
    Client, DispatchCallResult, FromClientHook, FromServer, Params, Promise, Results, Server,
};
use capnp::message::ReaderOptions;
use capnp::private::capability::ClientHook;
use capnp_rpc::rpc_twoparty_capnp::Side;
use capnp_rpc::{RpcSystem, new_client, twoparty};
use futures_util::io::{AsyncReadExt, BufReader, BufWriter};
use tieline_benches::error::{Context, Failure, Result};
use tieline_benches::load::{GRACE, Length, Meter, Mode, Payloads, Plan, Sampler, Verifier};
use tokio::net::TcpStream;
use tokio::task::{JoinSet, LocalSet};
use tokio::time::{sleep, timeout};
use tokio_util::compat::TokioAsyncReadCompatExt;

use super::{accept, connected, current_thread};

const INTERFACE: u64 = 0x9d1c_5f2e_77aa_3b01;
const METHOD: u16 = 0;

struct Echo;

/// What would be generated for the interface: how a call reaches the server.
#[derive(Clone)]
struct Dispatch(Rc<Echo>);

impl Deref for Dispatch {
    type Target = Echo;

    fn deref(&self) -> &Echo {
        &self.0
    }
}

impl Server for Dispatch {
    fn dispatch_call(
        self,
        interface: u64,
        method: u16,
        params: Params<any_pointer::Owned>,
        mut results: Results<any_pointer::Owned>,
    ) -> DispatchCallResult {
        let mut answer = || {
            if (interface, method) != (INTERFACE, METHOD) {
                return Err(capnp::Error::unimplemented("no such method".to_owned()));
            }
            let body: capnp::data::Reader<'_> = params.get()?.get_as()?;
            let length = u32::try_from(body.len())
                .map_err(|_| capnp::Error::failed("the argument is too long".to_owned()))?;
            results.get().initn_as::<capnp::data::Builder<'_>>(length).copy_from_slice(body);
            Ok(())
        };
        DispatchCallResult::new(answer().map_or_else(Promise::err, Promise::ok), false)
    }

    fn as_ptr(&self) -> usize {
        Rc::as_ptr(&self.0) as usize
    }
}

/// What would be generated for it at the other end.
#[derive(Clone)]
struct EchoClient(Client);

impl FromClientHook for EchoClient {
    fn new(hook: Box<dyn ClientHook>) -> Self {
        Self(Client::new(hook))
    }

    fn into_client_hook(self) -> Box<dyn ClientHook> {
        self.0.hook
    }

    fn as_client_hook(&self) -> &dyn ClientHook {
        &*self.0.hook
    }
}

impl FromServer<Echo> for EchoClient {
    type Dispatch = Dispatch;

    fn from_server(server: Rc<Echo>) -> Dispatch {
        Dispatch(server)
    }
}

fn network(stream: TcpStream, side: Side) -> Box<twoparty::VatNetwork<BufReader<Reading>>> {
    let (reader, writer) = stream.compat().split();
    let (reader, writer) = (BufReader::new(reader), BufWriter::new(writer));
    Box::new(twoparty::VatNetwork::new(reader, writer, side, ReaderOptions::default()))
}

type Reading = futures_util::io::ReadHalf<tokio_util::compat::Compat<TcpStream>>;

pub(crate) fn serve(listener: net::TcpListener) -> Result<Infallible> {
    let echo: EchoClient = new_client(Echo);
    LocalSet::new().block_on(
        &current_thread()?,
        accept(listener, |stream| {
            let system = RpcSystem::new(network(stream, Side::Server), Some(echo.clone().0));
            tokio::task::spawn_local(system);
        }),
    )
}

fn connect(address: SocketAddr) -> Result<EchoClient> {
    let mut system = RpcSystem::new(network(connected(address)?, Side::Client), None);
    let echo = system.bootstrap(Side::Server);
    tokio::task::spawn_local(system);
    Ok(echo)
}

pub(crate) fn drive(plan: &Plan, address: SocketAddr, meter: &Arc<Meter>) -> Result<()> {
    let (Mode::Closed, Length::Time { warmup, window }) = (plan.mode, plan.length) else {
        return Err(Failure::new("capnp is driven by a closed loop, for a time"));
    };
    LocalSet::new().block_on(&current_thread()?, async {
        let mut connections = Vec::new();
        for _ in 0..plan.connections {
            connections.push(connect(address)?);
        }
        let payloads = Payloads::new(plan.payload, plan.callers());
        let callers = (0..plan.in_flight).flat_map(|_| &connections).cloned();
        let mut tasks = JoinSet::new();
        for (index, echo) in callers.enumerate() {
            let sampler = Sampler::new(plan.sample_every(), index);
            tasks.spawn_local(caller(echo, payloads.of(index), sampler, Arc::clone(meter)));
        }
        sleep(warmup).await;
        meter.begin()?;
        sleep(window).await;
        meter.finish()?;
        let all = async {
            while let Some(ended) = tasks.join_next().await {
                ended.context("a caller")??;
            }
            Ok(())
        };
        timeout(GRACE, all).await.context("calls without an answer")?
    })
}

async fn caller(echo: EchoClient, payload: Bytes, mut sampler: Sampler, meter: Arc<Meter>) -> Result<()> {
    let mut verifier = Verifier::default();
    while meter.issue() {
        let start = sampler.take().then(Instant::now);
        call(&echo, &payload, &mut verifier).await?;
        meter.complete();
        if let Some(start) = start {
            meter.record(start.elapsed());
        }
    }
    Ok(())
}

async fn call(echo: &EchoClient, payload: &[u8], verifier: &mut Verifier) -> Result<()> {
    let length = u32::try_from(payload.len()).context("the payload")?;
    let mut request = echo.0.new_call::<any_pointer::Owned, any_pointer::Owned>(INTERFACE, METHOD, None);
    request.get().initn_as::<capnp::data::Builder<'_>>(length).copy_from_slice(payload);
    let answer = request.send().promise.await.context("call")?;
    let answer = answer.get().context("call")?;
    let body: capnp::data::Reader<'_> = answer.get_as().context("call")?;
    if verifier.matches(payload, body) { Ok(()) } else { Err(Failure::new("a reply is not what was sent")) }
}
