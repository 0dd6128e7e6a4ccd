//! What is measured: each target is a server and a client of the same echo.
//!
//! A target whose client is asynchronous implements [`Caller`] and is driven by the common load
//! generator; one whose client is a loop of its own brings its own driver and shares the meter.

pub(crate) mod async_std;
pub(crate) mod blocking;
pub(crate) mod epoll;
pub(crate) mod mio;
pub(crate) mod tokio_echo;

use std::convert::Infallible;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::Duration;

use crate::error::{Failure, Result};
use crate::frame::MAX_BODY;
use crate::load::{Meter, Plan, tasks};
pub(crate) use tieline_benches::load::Caller;
pub(crate) use tieline_benches::{product as tieline, runtime, zeromq};

/// All that can be measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Target {
    Epoll,
    Blocking,
    TokioEcho,
    Tieline,
    Mio,
    MioBusy,
    MioBlocking,
    AsyncStd,
    Zeromq,
}

impl Target {
    pub(crate) const ALL: [Self; 9] = [
        Self::Epoll,
        Self::Blocking,
        Self::TokioEcho,
        Self::Tieline,
        Self::Mio,
        Self::MioBusy,
        Self::MioBlocking,
        Self::AsyncStd,
        Self::Zeromq,
    ];

    /// The name on the command line and in the table.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Epoll => "epoll",
            Self::Blocking => "blocking",
            Self::TokioEcho => "tokio-echo",
            Self::Tieline => "tieline-tokio",
            Self::Mio => "tieline-mio",
            Self::MioBusy => "tieline-mio-busy",
            Self::MioBlocking => "tieline-blocking",
            Self::AsyncStd => "tieline-async-std",
            Self::Zeromq => "zeromq",
        }
    }

    pub(crate) fn from_name(name: &str) -> Result<Self> {
        Self::ALL.into_iter().find(|target| target.name() == name).ok_or_else(|| {
            let known: Vec<_> = Self::ALL.iter().map(|target| target.name()).collect();
            Failure::new(format!("no target {name:?}; there are {}", known.join(", ")))
        })
    }

    /// What it is, and what it does not do: printed below each table.
    pub(crate) const fn description(self) -> &'static str {
        match self {
            Self::Epoll => {
                "raw level-triggered epoll loops on both sides, frames coalesced, header checked, id echoed, body copied. \
                 Not: tasks, callers that wait, check-in, methods, deadlines, heartbeats, cancelling, flow control, statistics"
            }
            Self::Blocking => {
                "blocking sockets of the standard library, a thread a connection, one call in flight. \
                 Not: all of the above, and no multiplexing either"
            }
            Self::TokioEcho => {
                "hand-written coalescing echo on tokio's current_thread runtime: one task a connection on each side, callers as tasks, \
                 replies matched by slot, a call can be dropped. \
                 Not: check-in, methods, deadlines, heartbeats, cancelling at the server, handlers, flow control, statistics"
            }
            Self::Tieline => {
                "Tieline on tokio's current_thread runtime, by its public client and server: check-in, methods by name, a deadline of \
                 10 s on each call, async handlers, heartbeats, cancelling, limits, statistics. Not: layers, stubs, TLS. Limits that are not the \
                 default: max_frame 1 MiB, max_message 16 MiB, memory and max_queued 256 MiB"
            }
            Self::Mio => {
                "Tieline on raw readiness loops, the direct layer at both ends: as tieline-tokio, but calls come to a trait's methods and end \
                 there, without tasks, wakers or locks. The same limits"
            }
            Self::MioBusy => "the same, and both loops ask again and again for 1 ms before they sleep",
            Self::MioBlocking => {
                "the server of tieline-mio, and Tieline's client that waits: the thread that calls writes and reads by itself"
            }
            Self::AsyncStd => {
                "as tieline-tokio, on async-std with one thread of its executor; callers are tasks of it. The same limits"
            }
            Self::Zeromq => {
                "ZeroMQ from C, DEALER and ROUTER over TCP, messages passed on without a copy; an I/O thread beside the one that calls, \
                 both on the one core. Not: check-in, methods, deadlines, heartbeats, cancelling, statistics"
            }
        }
    }

    /// Whether it has more than one call in flight, and more than one connection.
    pub(crate) const fn multiplexes(self) -> bool {
        !matches!(self, Self::Blocking | Self::MioBlocking | Self::MioBusy)
    }

    /// Whether it keeps its core busy while it waits: of no use where both ends share one.
    pub(crate) const fn spins(self) -> bool {
        matches!(self, Self::MioBusy)
    }

    /// Whether it is a program of its own, which is there or not.
    pub(crate) const fn is_foreign(self) -> bool {
        matches!(self, Self::Zeromq)
    }

    /// The longest payload that it carries, in octets.
    pub(crate) const fn most_payload(self) -> usize {
        match self {
            Self::Epoll | Self::Blocking | Self::TokioEcho | Self::Zeromq => MAX_BODY - 1,
            Self::Tieline | Self::AsyncStd | Self::Mio | Self::MioBusy | Self::MioBlocking => {
                tieline::MOST_PAYLOAD
            }
        }
    }

    /// Serves on `listener` until the process ends.
    pub(crate) fn serve(self, listener: TcpListener) -> Result<Infallible> {
        match self {
            Self::Epoll => Ok(epoll::serve(listener)?),
            Self::Blocking => Ok(blocking::serve(&listener)?),
            Self::TokioEcho => Ok(tokio_echo::serve(listener)?),
            Self::Tieline => tieline::serve(listener),
            Self::Mio | Self::MioBlocking => mio::serve(listener, Duration::ZERO),
            Self::MioBusy => mio::serve(listener, mio::SPELL),
            Self::AsyncStd => async_std::serve(listener),
            Self::Zeromq => zeromq::serve(listener),
        }
    }

    /// Runs the load of `plan` against the server at `address`, measured by `meter`.
    pub(crate) fn drive(self, plan: &Plan, address: SocketAddr, meter: &Arc<Meter>) -> Result<()> {
        let most = self.most_payload();
        if plan.payload > most {
            return Err(Failure::new(format!("{} carries payloads of at most {most} octets", self.name())));
        }
        match self {
            Self::Epoll => epoll::drive(plan, address, meter),
            Self::Blocking => blocking::drive(plan, address, meter),
            Self::TokioEcho => tasks::drive(plan, meter, || tokio_echo::connect(address)),
            Self::Tieline => tasks::drive(plan, meter, || tieline::connect(address)),
            Self::Mio => mio::drive(plan, address, meter, Duration::ZERO),
            Self::MioBusy => mio::drive(plan, address, meter, mio::SPELL),
            Self::MioBlocking => mio::wait(plan, address, meter),
            Self::AsyncStd => tasks::drive(plan, meter, || async_std::connect(address)),
            Self::Zeromq => Err(Failure::new("zeromq measures itself")),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]

    use super::*;
    use crate::frame::{self, Kind};
    use std::io::{ErrorKind, Read, Write};
    use std::net::TcpStream;
    use std::thread;

    /// Those that answer frames without having been checked in.
    const RAW: [Target; 3] = [Target::Epoll, Target::Blocking, Target::TokioEcho];

    /// A server of its own, in a thread that ends with the test process, and a connection to it.
    fn connect(target: Target) -> TcpStream {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        thread::spawn(move || target.serve(listener));
        let stream = TcpStream::connect(address).unwrap();
        stream.set_nodelay(true).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        stream
    }

    fn frames(kind: Kind, payloads: &[Vec<u8>]) -> Vec<u8> {
        let mut out = Vec::new();
        for (id, payload) in (1..).step_by(2).zip(payloads) {
            frame::emit(&mut out, kind, id, payload).unwrap();
        }
        out
    }

    #[test]
    fn servers_answer_input_that_comes_octet_by_octet() {
        let payloads = [vec![1; 64], Vec::new(), (0..=255).collect()];
        for target in RAW {
            let mut stream = connect(target);
            for octet in frames(Kind::Request, &payloads) {
                stream.write_all(&[octet]).unwrap();
            }
            let wanted = frames(Kind::Response, &payloads);
            let mut seen = vec![0; wanted.len()];
            stream.read_exact(&mut seen).unwrap();
            assert_eq!(seen, wanted, "{}", target.name());
        }
    }

    /// The first part is known to have been read alone: the answer to a whole frame before it came back.
    #[test]
    fn servers_answer_a_frame_that_is_cut_at_any_octet() {
        let whole = frames(Kind::Request, &[vec![3; 20]]);
        let answer = frames(Kind::Response, &[vec![3; 20]]);
        for target in RAW {
            let mut stream = connect(target);
            for cut in 0..whole.len() {
                let (front, back) = whole.split_at(cut);
                let mut seen = vec![0; answer.len()];
                stream.write_all(&[&whole, front].concat()).unwrap();
                stream.read_exact(&mut seen).unwrap();
                assert_eq!(seen, answer, "{} before the cut at {cut}", target.name());
                stream.write_all(back).unwrap();
                stream.read_exact(&mut seen).unwrap();
                assert_eq!(seen, answer, "{} after the cut at {cut}", target.name());
            }
        }
    }

    /// More than socket buffers hold: partial reads and writes on both sides, and no deadlock.
    #[test]
    fn servers_keep_order_when_the_socket_is_full() {
        let payloads: Vec<Vec<u8>> = (0..40).map(|k| vec![k; 1 << 20]).collect();
        for target in RAW {
            let stream = connect(target);
            let mut writer = stream.try_clone().unwrap();
            let requests = frames(Kind::Request, &payloads);
            let sender = thread::spawn(move || writer.write_all(&requests));
            let wanted = frames(Kind::Response, &payloads);
            let mut seen = vec![0; wanted.len()];
            (&stream).read_exact(&mut seen).unwrap();
            sender.join().unwrap().unwrap();
            assert!(seen == wanted, "{}", target.name());
        }
    }

    #[test]
    fn servers_cut_what_is_no_request() {
        for target in RAW {
            let mut stream = connect(target);
            stream.write_all(&frames(Kind::Response, &[vec![0; 64]])).unwrap();
            match stream.read(&mut [0; 1]) {
                Ok(0) => {}
                Err(error) if error.kind() == ErrorKind::ConnectionReset => {}
                other => panic!("{}: {other:?}", target.name()),
            }
        }
    }
}
