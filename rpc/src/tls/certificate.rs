//! What a peer has shown, and who it is by that.

use std::{
    fmt,
    net::IpAddr,
    sync::{Arc, OnceLock},
};

use rustls::{
    client::verify_server_name,
    pki_types::{CertificateDer, ServerName},
    server::ParsedCertificate,
};

use super::error::TlsError;
use crate::registry::{Applicant, Decision};

/// The certificate that a peer has shown. It was verified: one of the authorities has signed it, and the peer has its
/// private key.
#[derive(Clone)]
pub struct Certificate(Arc<CertificateDer<'static>>);

impl Certificate {
    pub(super) fn new(der: CertificateDer<'static>) -> Self {
        Self(Arc::new(der))
    }

    /// Its octets: X.509, as DER. For what this type does not know of.
    #[must_use]
    pub fn der(&self) -> &[u8] {
        &self.0
    }

    /// Whether it is for this name: a DNS name or an IP address among its subject alternative names, wildcards included.
    #[must_use]
    pub fn is_for(&self, name: &str) -> bool {
        let Ok(name) = ServerName::try_from(name) else { return false };
        let Ok(parsed) = ParsedCertificate::try_from(&*self.0) else { return false };
        verify_server_name(&parsed, &name).is_ok()
    }
}

impl fmt::Debug for Certificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Certificate({} octets)", self.0.len())
    }
}

/// A verifier for [`ServerBuilder::verify`](crate::ServerBuilder::verify): who checks in must show a certificate that is
/// for the identifier under which it checks in. Together with
/// [`ServerTls::require_client`](crate::ServerTls::require_client) nobody can take another node's identifier.
///
/// Identifiers have to be DNS names or IP addresses then, such as `node-2` or `node-2.eu.example`, and each in its one
/// spelling: in small letters, without a dot at the end, addresses in their shortest form.
pub async fn by_certificate(check_in: Applicant) -> Decision {
    let identifier = &check_in.peer.identifier;
    match check_in.certificate() {
        Some(certificate) if certificate.is_for(identifier) => {
            if has_one_spelling(identifier) {
                Decision::Accept
            } else {
                Decision::Refuse("the identifier is spelled otherwise than it has to be".to_owned())
            }
        }
        Some(_) => Decision::Refuse("the certificate is for another identifier".to_owned()),
        None => Decision::Refuse("no certificate was shown".to_owned()),
    }
}

/// To a certificate `Node-2`, `node-2.` and `node-2` are one name; as identifiers they would be three nodes.
fn has_one_spelling(identifier: &str) -> bool {
    match identifier.parse::<IpAddr>() {
        Ok(address) => address.to_string() == identifier,
        Err(_) => !identifier.ends_with('.') && !identifier.bytes().any(|octet| octet.is_ascii_uppercase()),
    }
}

/// What is known of the TLS of one connection, for those who do not hold the stream.
#[derive(Debug, Default)]
pub(crate) struct Known {
    /// Set before the first octet of the peer reaches the connection.
    pub(crate) certificate: OnceLock<Certificate>,
    /// Why it failed; the first reason counts.
    pub(crate) error: OnceLock<TlsError>,
}
