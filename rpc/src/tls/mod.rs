//! TLS, by rustls, for every transport and every runtime (feature `tls`).
//!
//! A listener speaks TLS from the first octet or not at all; there is no way to begin without and to change. The record
//! layer stands between the connection and its transport as one more [`Io`](crate::Io), so the rest of the house does not
//! know of it, but for the certificate that the peer has shown.

mod certificate;
mod config;
mod error;
mod plain;
mod session;
mod stream;
#[cfg(test)]
mod tests;

pub(crate) use self::{certificate::Known, config::Towards, stream::Tls};
pub use self::{
    certificate::{Certificate, by_certificate},
    config::{Authorities, ClientTls, Identity, ServerTls},
    error::{TlsConfigError, TlsError},
};
