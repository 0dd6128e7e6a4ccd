//! Who one is, whom one trusts, and what follows for the client's and the server's side.

use std::{fmt, sync::Arc};

use rustls::{
    ClientConfig, ConfigBuilder, RootCertStore, ServerConfig, WantsVerifier,
    client::WebPkiServerVerifier,
    crypto::{CryptoProvider, ring},
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem, pem::PemObject},
    server::{WebPkiClientVerifier, danger::ClientCertVerifier},
    sign::{CertifiedKey, SingleCertAndKey},
    version::TLS13,
};

use super::error::{TlsConfigError, TlsError};
use crate::address::Address;

/// Only 1.3: both ends are Tieline's, so there is nobody to meet with an older version, and with it go a round trip,
/// certificates in clear text, and every way to talk a peer down to something weaker.
const VERSIONS: &[&rustls::SupportedProtocolVersion] = &[&TLS13];

fn provider() -> Arc<CryptoProvider> {
    Arc::new(ring::default_provider())
}

fn certificates(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, TlsConfigError> {
    let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    match certificates {
        Ok(certificates) if certificates.is_empty() => Err(TlsConfigError::NoCertificate),
        Ok(certificates) => Ok(certificates),
        Err(error) => Err(TlsConfigError::Pem(error.to_string())),
    }
}

fn unreadable(error: &rustls::Error) -> TlsConfigError {
    TlsConfigError::Pem(error.to_string())
}

/// Whom one trusts: the certificates of those who sign the peers' certificates. For a cluster that is its own authority;
/// nobody else is trusted.
#[derive(Clone)]
pub struct Authorities {
    builder: ConfigBuilder<ClientConfig, WantsVerifier>,
    of_servers: Arc<WebPkiServerVerifier>,
    of_clients: Arc<dyn ClientCertVerifier>,
    count: usize,
}

impl Authorities {
    /// Reads one or more certificates, as PEM.
    ///
    /// # Errors
    /// [`TlsConfigError`]: there is none in it, or it cannot be read.
    pub fn from_pem(pem: impl AsRef<[u8]>) -> Result<Self, TlsConfigError> {
        let mut roots = RootCertStore::empty();
        for certificate in certificates(pem.as_ref())? {
            roots.add(certificate).map_err(|error| unreadable(&error))?;
        }
        let (roots, count) = (Arc::new(roots.clone()), roots.len());
        let builder = ClientConfig::builder_with_provider(provider()).with_protocol_versions(VERSIONS);
        let of_servers = WebPkiServerVerifier::builder_with_provider(Arc::clone(&roots), provider()).build();
        let of_clients = WebPkiClientVerifier::builder_with_provider(roots, provider()).build();
        Ok(Self {
            builder: builder.map_err(|error| unreadable(&error))?,
            of_servers: of_servers.map_err(|error| TlsConfigError::Pem(error.to_string()))?,
            of_clients: of_clients.map_err(|error| TlsConfigError::Pem(error.to_string()))?,
            count,
        })
    }
}

impl fmt::Debug for Authorities {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Authorities").field("count", &self.count).finish_non_exhaustive()
    }
}

/// Who one is: a certificate, those by which it leads to an authority, and its private key.
#[derive(Clone)]
pub struct Identity {
    builder: ConfigBuilder<ServerConfig, WantsVerifier>,
    key: Arc<CertifiedKey>,
}

impl Identity {
    /// Reads a certificate and its private key, as PEM. Certificates between it and the authority follow it in the same
    /// text.
    ///
    /// # Errors
    /// [`TlsConfigError`]: one of them is missing or cannot be read, or they do not belong together.
    pub fn from_pem(
        certificate: impl AsRef<[u8]>,
        private_key: impl AsRef<[u8]>,
    ) -> Result<Self, TlsConfigError> {
        let chain = certificates(certificate.as_ref())?;
        let key = PrivateKeyDer::from_pem_slice(private_key.as_ref()).map_err(|error| match error {
            pem::Error::NoItemsFound => TlsConfigError::NoKey,
            other => TlsConfigError::Pem(other.to_string()),
        })?;
        let provider = provider();
        let key = CertifiedKey::from_der(chain, key, &provider).map_err(|error| match error {
            rustls::Error::InconsistentKeys(_) => TlsConfigError::Mismatch,
            other => unreadable(&other),
        })?;
        let builder = ServerConfig::builder_with_provider(provider).with_protocol_versions(VERSIONS);
        Ok(Self { builder: builder.map_err(|error| unreadable(&error))?, key: Arc::new(key) })
    }
}

/// The private key is not shown.
impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Identity").field("certificates", &self.key.cert.len()).finish_non_exhaustive()
    }
}

/// TLS for a client; see [`ClientBuilder::tls`](crate::ClientBuilder::tls).
///
/// The node must show a certificate that one of the authorities has signed, and that is for the name of the node.
#[derive(Debug, Clone)]
pub struct ClientTls {
    authorities: Authorities,
    identity: Option<Identity>,
    server_name: Option<String>,
}

impl ClientTls {
    /// Talks to nodes whose certificates these authorities have signed.
    #[must_use]
    pub fn new(authorities: &Authorities) -> Self {
        Self { authorities: authorities.clone(), identity: None, server_name: None }
    }

    /// Shows this certificate to a node that asks for one.
    #[must_use]
    pub fn identity(mut self, identity: &Identity) -> Self {
        self.identity = Some(identity.clone());
        self
    }

    /// The name that the node's certificate has to have: a DNS name or an IP address. By default the host of the address
    /// that is dialled; a Unix socket has none, so it has to be set there.
    #[must_use]
    pub fn server_name(mut self, name: impl Into<String>) -> Self {
        self.server_name = Some(name.into());
        self
    }

    /// Ready to dial `address`.
    pub(crate) fn towards(self, address: &str) -> Result<Towards, TlsError> {
        let name = self.server_name.unwrap_or_else(|| host(address).to_owned());
        let Ok(name) = ServerName::try_from(name.clone()) else { return Err(TlsError::ServerName(name)) };
        let config = self.authorities.builder.with_webpki_verifier(self.authorities.of_servers);
        let config = match self.identity {
            Some(identity) => {
                config.with_client_cert_resolver(Arc::new(SingleCertAndKey::from(identity.key)))
            }
            None => config.with_no_client_auth(),
        };
        Ok(Towards { config: Arc::new(config), name })
    }
}

/// The host of `HOST:PORT`, without the brackets of an IPv6 address.
fn host(address: &str) -> &str {
    match Address::parse(address) {
        Address::Tcp(address) => {
            let host = address.rsplit_once(':').map_or(address, |(host, _)| host);
            host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host)
        }
        Address::Unix(_) => "",
    }
}

/// What a client needs for each connection to its node.
pub(crate) struct Towards {
    pub(super) config: Arc<ClientConfig>,
    pub(super) name: ServerName<'static>,
}

/// TLS for a server; see [`ServerBuilder::tls`](crate::ServerBuilder::tls).
#[derive(Clone)]
pub struct ServerTls {
    identity: Identity,
    clients: Option<Authorities>,
}

impl ServerTls {
    /// Shows this certificate to every client. It has to be for the name by which clients dial the node.
    #[must_use]
    pub fn new(identity: &Identity) -> Self {
        Self { identity: identity.clone(), clients: None }
    }

    /// Requires a certificate of every client that one of these authorities has signed: mutual TLS. Whom it is for is not
    /// looked at; [`by_certificate`](crate::by_certificate) compares it with the identifier of the check-in.
    #[must_use]
    pub fn require_client(mut self, authorities: &Authorities) -> Self {
        self.clients = Some(authorities.clone());
        self
    }

    /// Ready to accept.
    pub(crate) fn ready(self) -> Arc<ServerConfig> {
        let builder = match self.clients {
            Some(clients) => self.identity.builder.with_client_cert_verifier(clients.of_clients),
            None => self.identity.builder.with_no_client_auth(),
        };
        let key = SingleCertAndKey::from(self.identity.key);
        Arc::new(builder.with_cert_resolver(Arc::new(key)))
    }
}

impl fmt::Debug for ServerTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServerTls")
            .field("identity", &self.identity)
            .field("clients", &self.clients)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_of_a_node_is_the_host_that_is_dialled() {
        assert_eq!(host("node-2.example:7400"), "node-2.example");
        assert_eq!(host("127.0.0.1:7400"), "127.0.0.1");
        assert_eq!(host("[::1]:7400"), "::1");
        assert_eq!(host("unix:/run/node.sock"), "");
    }
}
