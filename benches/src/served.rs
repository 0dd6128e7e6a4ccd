//! What a server process serves, by the name that it has on the command line.

use std::convert::Infallible;
use std::net::TcpListener;

use crate::error::{Failure, Result};
use crate::idle::Product;
use crate::mixed;
use crate::stream::Sender;
use crate::targets::Target;

/// One kind of server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Served {
    /// The echo of a target.
    Echo(Target),
    /// Items of a stream, as fast as they go.
    Items(Sender),
    /// A large message and small calls on one connection.
    Mixed,
    /// An echo to which many are connected who do nothing; if so, it notes when its tasks are polled.
    Idle(Product, bool),
}

impl Served {
    /// All of them.
    pub(crate) fn all() -> impl Iterator<Item = Self> {
        let echoes = Target::ALL.into_iter().map(Self::Echo);
        let idle = Product::ALL
            .into_iter()
            .flat_map(|product| [false, true].map(|noted| Self::Idle(product, noted)));
        echoes.chain(Sender::ALL.map(Self::Items)).chain([Self::Mixed]).chain(idle)
    }

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Echo(target) => target.name(),
            Self::Items(sender) => sender.served(),
            Self::Mixed => "mixed",
            Self::Idle(product, noted) => product.served(noted),
        }
    }

    pub(crate) fn from_name(name: &str) -> Result<Self> {
        Self::all().find(|served| served.name() == name).ok_or_else(|| {
            let known: Vec<_> = Self::all().map(Self::name).collect();
            Failure::new(format!("nothing to serve is {name:?}; there are {}", known.join(", ")))
        })
    }

    /// Serves on `listener` until the process ends.
    pub(crate) fn serve(self, listener: TcpListener) -> Result<Infallible> {
        match self {
            Self::Echo(target) => target.serve(listener),
            Self::Items(sender) => sender.serve(listener),
            Self::Mixed => mixed::serve(listener),
            Self::Idle(product, noted) => product.serve(listener, noted),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_server_has_a_name_of_its_own() {
        for served in Served::all() {
            assert_eq!(Served::from_name(served.name()).ok(), Some(served));
        }
        assert!(Served::from_name("http").is_err());
    }
}
