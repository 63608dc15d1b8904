//! TLS on both sides: certificates from Secrets, acceptors for clients, connectors for backends.
//!
//! Parsing ([`parse`]) happens in the controller, so that only certificates that work reach the model.
//! [`TlsAcceptor`] and [`TlsConnector`] are built from the model, once for each change of it.

pub mod client;
mod describe;
pub mod observe;
pub mod parse;
mod pss;
mod resume;
mod select;
pub mod server;
#[cfg(test)]
mod testing;
mod verify;

use std::io;
use std::sync::Arc;

use rustls::crypto::CryptoProvider;
use rustls::sign::CertifiedKey;
use rustls::{AlertDescription, PeerIncompatible, SupportedCipherSuite};
use rustls_pki_types::PrivateKeyDer;

use crate::model::Certificate;
use crate::net::CapReached;
use crate::net::roots::provider;
use crate::net::tls_names;

pub use client::{ServerNameSource, TlsConnector, connector};
pub use parse::ParseError;
pub use server::{Accepted, TlsAcceptor};
pub use verify::ClientCertificate;

/// A model that no TLS configuration can be made of. Every variant is the configuration's fault; the
/// controller's checks leave only what depends on this host.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A socket with TLS and a listener without.
    #[error("listener {0} has no certificate, and its address speaks TLS; set tls.certificateRefs")]
    NoCertificate(String),
    /// The library refuses a certificate or its key.
    #[error("certificate {reference} cannot be used: {cause}")]
    Certificate {
        /// The Secret.
        reference: String,
        /// Why.
        cause: rustls::Error,
    },
    /// A CA certificate that is not one.
    #[error("a CA certificate cannot be used: {0}")]
    Authority(String),
    /// A revocation list that is not one.
    #[error("a certificate revocation list cannot be used: {0}")]
    Crl(String),
    /// Unknown cipher suites, or none for the versions allowed.
    #[error("{0}")]
    CipherSuites(String),
    /// A server name that is neither a DNS name nor an address.
    #[error("{0:?} is neither a DNS name nor an IP address; correct upstream.tls.serverName")]
    ServerName(String),
    /// The host's roots.
    #[error(transparent)]
    Roots(#[from] crate::net::roots::RootsError),
    /// Anything else the library refuses.
    #[error("TLS cannot be set up: {0}")]
    Library(#[from] rustls::Error),
}

/// A handshake that failed, and whose fault it is.
#[derive(Debug, thiserror::Error)]
pub enum HandshakeError {
    /// Towards the client.
    #[error("the client {0}")]
    Client(HandshakeFailure),
    /// Towards the backend.
    #[error("the backend {0}")]
    Backend(HandshakeFailure),
}

/// What a peer did in its handshake.
#[derive(Debug, thiserror::Error)]
pub enum HandshakeFailure {
    /// The connection ended.
    #[error("closed the connection during the TLS handshake: {0}")]
    Closed(io::Error),
    /// No listener of the address has the name; `unrecognized_name` was sent.
    #[error("asked for {0:?} by SNI, a name that no listener on this address has")]
    UnknownName(String),
    /// ALPN without our protocol; `no_application_protocol` was sent (ALPACA).
    #[error("offers only protocols by ALPN that are not spoken here")]
    ForeignProtocol,
    /// It sent more than a handshake of its kind needs, and the handshake was not complete.
    #[error("sent a TLS handshake that is too long")]
    TooLong,
    /// All versions of TLS that it offers are too old.
    #[error("offers only {0}")]
    OldVersion(&'static str),
    /// It refused us.
    #[error("refused the TLS handshake with the alert {0:?}")]
    Alert(AlertDescription),
    /// Its certificate is not accepted.
    #[error("presents a certificate that is not accepted: {0}")]
    Certificate(rustls::CertificateError),
    /// Neither host name nor `serverName` says what its certificate must be for.
    #[error("has no name that its certificate could be verified for; set upstream.tls.serverName ({0:?})")]
    Nameless(String),
    /// Anything else.
    #[error("cannot agree on TLS with us: {0}")]
    Protocol(rustls::Error),
}

impl From<io::Error> for HandshakeFailure {
    fn from(error: io::Error) -> Self {
        if error.get_ref().is_some_and(|inner| inner.is::<CapReached>()) {
            return Self::TooLong;
        }
        match error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
            Some(rustls::Error::NoApplicationProtocol) => Self::ForeignProtocol,
            Some(error @ rustls::Error::PeerIncompatible(cause)) => {
                old_version(cause).map_or_else(|| Self::Protocol(error.clone()), Self::OldVersion)
            }
            Some(rustls::Error::AlertReceived(alert)) => Self::Alert(*alert),
            Some(rustls::Error::InvalidCertificate(cause)) => Self::Certificate(cause.clone()),
            Some(other) => Self::Protocol(other.clone()),
            None => Self::Closed(error),
        }
    }
}

/// What a peer offers that fails for its versions of TLS. rustls looks for the extension `signature_algorithms` before it
/// looks at the version. TLS 1.2 without it means SHA-1 (RFC 5246 section 7.4.1.4.1), which no implementation is known to
/// want.
fn old_version(cause: &PeerIncompatible) -> Option<&'static str> {
    match cause {
        PeerIncompatible::SignatureAlgorithmsExtensionRequired
        | PeerIncompatible::Tls12NotOffered
        | PeerIncompatible::ServerDoesNotSupportTls12Or13 => {
            Some("TLS 1.1 or older, and the oldest version that is spoken here is TLS 1.2")
        }
        PeerIncompatible::Tls12NotOfferedOrEnabled
        | PeerIncompatible::SupportedVersionsExtensionRequired
        | PeerIncompatible::ServerTlsVersionIsDisabledByOurConfig => {
            Some("versions of TLS that are older than tls.minVersion")
        }
        _ => None,
    }
}

/// The chain with the key that signs for it. rustls' own check that they fit knows no certificates of version 1;
/// [`parse`] has checked it.
fn certified_key(certificate: &Certificate, crypto: &CryptoProvider) -> Result<CertifiedKey, TlsError> {
    let unusable = |cause| TlsError::Certificate { reference: certificate.reference.clone(), cause };
    let key = PrivateKeyDer::try_from(certificate.key.expose())
        .map_err(|what| unusable(rustls::Error::General(what.to_owned())))?
        .clone_key();
    let mut key = crypto.key_provider.load_private_key(key).map_err(unusable)?;
    if let Some(leaf) = certificate.chain.first() {
        key = pss::limited(leaf, key);
    }
    Ok(CertifiedKey::new(certificate.chain.clone(), key))
}

/// The provider with only `names`, in their order; all of its own when there are none.
fn provider_with(names: &[String]) -> Result<Arc<CryptoProvider>, TlsError> {
    let provider = provider();
    if names.is_empty() {
        return Ok(provider);
    }
    let suites = names.iter().map(|name| find_suite(&provider, name)).collect::<Result<Vec<_>, _>>()?;
    Ok(Arc::new(CryptoProvider { cipher_suites: suites, ..(*provider).clone() }))
}

fn find_suite(provider: &CryptoProvider, name: &str) -> Result<SupportedCipherSuite, TlsError> {
    tls_names::suite(name)
        .and_then(|wanted| provider.cipher_suites.iter().find(|suite| suite.suite() == wanted))
        .copied()
        .ok_or_else(|| TlsError::CipherSuites(tls_names::unknown(name)))
}
