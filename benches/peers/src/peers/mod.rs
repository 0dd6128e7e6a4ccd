//! Who is compared, each with what it does not do.

mod capnp;
mod redis;
mod rsocket;
mod tarpc;
mod tonic;

use std::convert::Infallible;
use std::io;
use std::net::{self, SocketAddr};
use std::sync::Arc;

use ::tarpc::tokio_util::codec::{Framed, LengthDelimitedCodec};
use tieline_benches::error::{Failure, Result};
use tieline_benches::load::{Meter, Plan, Report, tasks};
use tieline_benches::process::Server;
use tieline_benches::{machine, product, socket, zeromq};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::{Builder, Runtime};

use crate::LOCK;

/// One of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Peer {
    Tieline,
    Redis,
    Zeromq,
    Tarpc,
    Rsocket,
    Capnp,
    Tonic,
}

impl Peer {
    pub(crate) const ALL: [Self; 7] =
        [Self::Tieline, Self::Redis, Self::Zeromq, Self::Tarpc, Self::Rsocket, Self::Capnp, Self::Tonic];

    /// The name on the command line and in the table.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Tieline => "tieline-tokio",
            Self::Redis => "redis",
            Self::Zeromq => "zeromq",
            Self::Tarpc => "tarpc",
            Self::Rsocket => "rsocket",
            Self::Capnp => "capnp-rpc",
            Self::Tonic => "tonic",
        }
    }

    pub(crate) fn from_name(name: &str) -> Result<Self> {
        Self::ALL.into_iter().find(|peer| peer.name() == name).ok_or_else(|| {
            let known: Vec<_> = Self::ALL.iter().map(|peer| peer.name()).collect();
            Failure::new(format!("no peer {name:?}; there are {}", known.join(", ")))
        })
    }

    /// What runs, in which version.
    pub(crate) fn version(self) -> String {
        let of = |name| format!("{name} {}", machine::version(LOCK, name));
        match self {
            Self::Tieline => of("tieline-tokio"),
            Self::Redis => {
                let server = redis::version().unwrap_or_else(|_| "not installed".to_owned());
                format!("redis-server {server}, crate {}", of("redis"))
            }
            Self::Zeromq => {
                format!("libzmq {}", zeromq::version().unwrap_or_else(|| "not installed".to_owned()))
            }
            Self::Tarpc => of("tarpc"),
            Self::Rsocket => of("rsocket_rust"),
            Self::Capnp => of("capnp-rpc"),
            Self::Tonic => format!("{}, {}, {}", of("tonic"), of("hyper"), of("h2")),
        }
    }

    /// What it is, and what it does not do.
    pub(crate) const fn description(self) -> &'static str {
        match self {
            Self::Tieline => {
                "all of the product: check-in, methods by name, a deadline of 10 s on each call, heartbeats, cancelling, limits, \
                 statistics. Raw octets, no stubs. Limits that are not the default: max_frame 1 MiB, max_message 16 MiB, memory \
                 and max_queued 256 MiB"
            }
            Self::Redis => {
                "`ECHO`, each connection pipelined by the `redis` crate; a text protocol, in C on one thread at the server. A time-out of \
                 10 s at the client. Not: ids (answers come in order, so one that is slow holds up all), handlers, deadlines that \
                 travel, heartbeats, cancelling, flow control. Its server's sockets have the system's congestion control"
            }
            Self::Zeromq => {
                "DEALER and ROUTER from C, messages passed on without a copy; an I/O thread beside the one that calls. Not: check-in, \
                 methods, deadlines, heartbeats, cancelling, statistics. Of several connections it takes one after the other"
            }
            Self::Tarpc => {
                "a service by its macro, Bincode, `Bytes` as argument and answer; a deadline of 10 s on each call, cancelling, a task \
                 a call. Not: check-in, heartbeats, flow control, statistics, other languages"
            }
            Self::Rsocket => {
                "request and response of rsocket_rust; keep-alive, a task a call. Not: deadlines, methods (no routing metadata), \
                 limits of what waits"
            }
            Self::Capnp => {
                "one capability with one method, one Data in and out, without generated code; promises can be pipelined and \
                 dropped. Not: deadlines, heartbeats, check-in. Callers are local tasks"
            }
            Self::Tonic => {
                "gRPC over HTTP/2 without TLS, a message with one field of bytes, the service written by hand as its generator would; \
                 windows wide enough never to be waited for, 4096 streams. Not: deadlines (none is set), heartbeats (off by default)"
            }
        }
    }

    /// Starts its server.
    pub(crate) fn start(self) -> Result<Running> {
        match self {
            Self::Redis => redis::Redis::start().map(Running::Redis),
            _ => Server::start(self.name()).map(Running::Ours),
        }
    }

    /// Serves until the process ends.
    pub(crate) fn serve(self, listener: net::TcpListener) -> Result<Infallible> {
        match self {
            Self::Tieline => product::serve(listener),
            Self::Redis => Err(Failure::new("redis is a program of its own")),
            Self::Zeromq => zeromq::serve(listener),
            Self::Tarpc => tarpc::serve(listener),
            Self::Rsocket => rsocket::serve(listener),
            Self::Capnp => capnp::serve(listener),
            Self::Tonic => tonic::serve(listener),
        }
    }

    /// Runs `plan` against the server at `address`, whose process is `server`.
    pub(crate) fn load(self, plan: &Plan, address: SocketAddr, server: u32) -> Result<Report> {
        if self == Self::Zeromq {
            return zeromq::load(plan, address, Some(server));
        }
        let meter = Arc::new(Meter::new(*plan, Some(server))?);
        match self {
            Self::Tieline => tasks::drive(plan, &meter, || product::connect(address))?,
            Self::Redis => tasks::drive(plan, &meter, || redis::connect(address))?,
            Self::Tarpc => tasks::drive(plan, &meter, || tarpc::connect(address))?,
            Self::Rsocket => tasks::drive(plan, &meter, || rsocket::connect(address))?,
            Self::Tonic => tasks::drive(plan, &meter, || tonic::connect(address))?,
            Self::Capnp => capnp::drive(plan, address, &meter)?,
            Self::Zeromq => {}
        }
        meter.report(self.name())
    }
}

/// A server that runs. It ends when this is dropped.
pub(crate) enum Running {
    Ours(Server),
    Redis(redis::Redis),
}

impl Running {
    pub(crate) fn address(&self) -> SocketAddr {
        match self {
            Self::Ours(server) => server.address,
            Self::Redis(redis) => redis.address,
        }
    }

    pub(crate) fn pid(&self) -> u32 {
        match self {
            Self::Ours(server) => server.pid(),
            Self::Redis(redis) => redis.pid(),
        }
    }
}

fn current_thread() -> io::Result<Runtime> {
    Builder::new_current_thread().enable_all().build()
}

/// A socket as all have it.
fn connected(address: SocketAddr) -> io::Result<TcpStream> {
    let stream = socket::connect(address)?;
    stream.set_nonblocking(true)?;
    stream.set_nodelay(true)?;
    TcpStream::from_std(stream)
}

/// Hands over every connection that comes.
async fn accept(listener: net::TcpListener, mut take: impl FnMut(TcpStream)) -> Result<Infallible> {
    listener.set_nonblocking(true)?;
    let listener = TcpListener::from_std(listener)?;
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        take(stream);
    }
}

/// Frames by their length, for those that bring none of their own.
fn framed(stream: TcpStream) -> Framed<TcpStream, LengthDelimitedCodec> {
    Framed::new(stream, LengthDelimitedCodec::new())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_peer_has_a_name_of_its_own_and_a_version() {
        for peer in Peer::ALL {
            assert_eq!(Peer::from_name(peer.name()).ok(), Some(peer));
            assert!(!peer.version().contains("unknown"), "{}", peer.version());
        }
        assert!(Peer::from_name("http").is_err());
    }
}
