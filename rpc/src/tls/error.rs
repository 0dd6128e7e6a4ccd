//! What can be wrong with TLS, and what to do about it.

use rustls::{AlertDescription, CertificateError, Error as Cause, PeerIncompatible};
use thiserror::Error as ThisError;

/// What is wrong with certificates or keys that were given.
#[derive(Debug, Clone, PartialEq, Eq, ThisError)]
#[non_exhaustive]
pub enum TlsConfigError {
    /// There is no certificate in the text.
    #[error("there is no certificate in it; give PEM that has a CERTIFICATE section")]
    NoCertificate,
    /// There is no private key in the text, or none of a known kind.
    #[error("there is no private key in it; give PEM that has a PRIVATE KEY section")]
    NoKey,
    /// The text is not PEM, or what it has is no certificate and no key.
    #[error("it cannot be read: {0}; give PEM, as text")]
    Pem(String),
    /// The key is not the one that the certificate is for.
    #[error("the private key is not that of the first certificate; give both from the same request")]
    Mismatch,
}

/// Why there is no TLS with a peer, or none any more.
///
/// The message says what is wrong with the peer, and what to do:
///
/// ```text
/// its certificate is for node-3, not for node-2; dial another node, or set the name that it has
/// ```
#[derive(Debug, Clone, PartialEq, Eq, ThisError)]
#[non_exhaustive]
pub enum TlsError {
    /// The name that the peer's certificate has to have is none.
    #[error("{0:?} is no name that a certificate can have; set one by ClientTls::server_name")]
    ServerName(String),
    /// The peer's certificate was signed by nobody who is trusted here.
    #[error(
        "its certificate is of an issuer whom this end does not trust; add that issuer to the authorities"
    )]
    Issuer,
    /// The peer's certificate is for somebody else.
    #[error("its certificate is for {}, not for {wanted}; dial another node, or set the name that it has",
        list(.presented))]
    Name {
        /// Whom it was dialled as.
        wanted: String,
        /// Whom the certificate is for.
        presented: Vec<String>,
    },
    /// The peer's certificate is not valid any more, or not yet.
    #[error("its certificate {0}; renew it, or look at the clocks of both machines")]
    Validity(String),
    /// Something else is wrong with the peer's certificate.
    #[error("its certificate is not accepted: {0}")]
    Certificate(String),
    /// The client showed no certificate, and this server requires one.
    #[error("it shows no certificate; give the client an identity")]
    NoCertificate,
    /// The server requires a certificate, and this client has none.
    #[error("it requires a certificate of this end; give ClientTls an identity")]
    CertificateRequired,
    /// The peer does not accept this end's certificate.
    #[error(
        "it does not accept the certificate of this end ({0}); look at its issuer, its names and its dates"
    )]
    Refused(String),
    /// The peer speaks Tieline without TLS.
    #[error("it speaks Tieline without TLS; leave TLS away here, or give it TLS there")]
    Plain,
    /// The peer speaks something else.
    #[error("it does not speak TLS; is it a Tieline node that does?")]
    NotTls,
    /// The peer speaks TLS, but no version of it that this end does.
    #[error("it does not speak TLS 1.3; bring it to a version that does")]
    Version,
    /// The peer ended the stream before the handshake was complete.
    #[error("it ended the stream during the handshake; is it a Tieline node with TLS, and is it up?")]
    HandshakeCut,
    /// The stream ended without the farewell of TLS: whoever sits between may have cut it.
    #[error("the stream was cut: it ended without the farewell of TLS")]
    Cut,
    /// Anything else.
    #[error("TLS failed: {0}")]
    Failed(String),
}

impl TlsError {
    /// The same without what differs from case to case, for the end of a connection.
    pub(crate) const fn brief(&self) -> &'static str {
        match self {
            Self::Cut => "the stream was cut: it ended without the farewell of TLS",
            Self::HandshakeCut => "the peer ended the stream during the TLS handshake",
            Self::Plain => "the peer speaks Tieline without TLS",
            Self::NotTls => "the peer does not speak TLS",
            Self::Version => "the peer does not speak TLS 1.3",
            Self::CertificateRequired => "the peer requires a certificate of this end",
            Self::Refused(_) => "the peer does not accept the certificate of this end",
            Self::NoCertificate => "the peer shows no certificate",
            Self::Issuer | Self::Name { .. } | Self::Validity(_) | Self::Certificate(_) => {
                "the peer's certificate is not accepted"
            }
            Self::ServerName(_) | Self::Failed(_) => "TLS failed",
        }
    }
}

impl From<Cause> for TlsError {
    fn from(cause: Cause) -> Self {
        match cause {
            Cause::InvalidCertificate(error) => of_certificate(error),
            Cause::NoCertificatesPresented => Self::NoCertificate,
            Cause::AlertReceived(alert) => of_alert(alert),
            Cause::InvalidMessage(_) => Self::NotTls,
            Cause::PeerIncompatible(
                PeerIncompatible::SupportedVersionsExtensionRequired
                | PeerIncompatible::ServerDoesNotSupportTls12Or13
                | PeerIncompatible::ServerTlsVersionIsDisabledByOurConfig
                | PeerIncompatible::Tls12NotOfferedOrEnabled,
            ) => Self::Version,
            other => Self::Failed(other.to_string()),
        }
    }
}

fn of_certificate(error: CertificateError) -> TlsError {
    match error {
        // The second is what it comes to if the issuer has the name of an authority, but another key.
        CertificateError::UnknownIssuer | CertificateError::BadSignature => TlsError::Issuer,
        CertificateError::NotValidForNameContext { expected, presented } => {
            let presented = presented.iter().map(|name| bare(name).to_owned()).collect();
            TlsError::Name { wanted: expected.to_str().into_owned(), presented }
        }
        CertificateError::Expired => TlsError::Validity("has expired".to_owned()),
        CertificateError::ExpiredContext { time, not_after } => {
            let since = time.as_secs().saturating_sub(not_after.as_secs());
            TlsError::Validity(format!("expired {since} s ago"))
        }
        CertificateError::NotValidYet => TlsError::Validity("is not valid yet".to_owned()),
        CertificateError::NotValidYetContext { time, not_before } => {
            let until = not_before.as_secs().saturating_sub(time.as_secs());
            TlsError::Validity(format!("is not valid before {until} s have passed"))
        }
        other => TlsError::Certificate(other.to_string()),
    }
}

fn of_alert(alert: AlertDescription) -> TlsError {
    match alert {
        AlertDescription::CertificateRequired => TlsError::CertificateRequired,
        AlertDescription::ProtocolVersion => TlsError::Version,
        AlertDescription::BadCertificate
        | AlertDescription::UnsupportedCertificate
        | AlertDescription::CertificateRevoked
        | AlertDescription::CertificateExpired
        | AlertDescription::CertificateUnknown
        | AlertDescription::UnknownCA
        | AlertDescription::DecryptError
        | AlertDescription::AccessDenied => TlsError::Refused(format!("{alert:?}")),
        other => TlsError::Failed(format!("the peer ended it with the alert {other:?}")),
    }
}

/// A name without what rustls puts around it to say of which kind it is.
fn bare(name: &str) -> &str {
    let inside = name.split_once('(').and_then(|(_, rest)| rest.strip_suffix(')')).unwrap_or(name);
    inside.strip_prefix('"').and_then(|inside| inside.strip_suffix('"')).unwrap_or(inside)
}

/// The names of a certificate, for people: the peer chose them, so they are escaped and not too many.
fn list(names: &[String]) -> String {
    use tieline_core::wire::Escaped;
    match names {
        [] => "nobody".to_owned(),
        names => {
            let shown: Vec<String> =
                names.iter().take(8).map(|name| Escaped(name.as_bytes()).to_string()).collect();
            let more = if names.len() > shown.len() { " and others" } else { "" };
            format!("{}{more}", shown.join(", "))
        }
    }
}
