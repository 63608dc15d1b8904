//! TLS in both directions: certificates from Secrets, acceptors for clients, connectors for backends.
//!
//! The controller calls [`parse`], so that the model contains only usable certificates. [`TlsAcceptor`] and
//! [`TlsConnector`] are built from the model when it changes.

pub mod client;
mod describe;
mod hello;
pub mod observe;
pub mod parse;
mod pss;
mod resume;
mod select;
mod sentence;
pub mod server;
mod sessions;
mod stamp;
#[cfg(test)]
mod testing;
mod tickets;
mod verify;

use std::io;
use std::sync::Arc;

use rustls::crypto::CryptoProvider;
use rustls::sign::CertifiedKey;
use rustls::{AlertDescription, InvalidMessage, PeerIncompatible, SupportedCipherSuite};
use rustls_pki_types::PrivateKeyDer;

use crate::model::Certificate;
use crate::net::CapReached;
use crate::net::roots::provider;
use crate::net::tls_names;

pub use client::{ServerNameSource, TlsConnector, connector};
pub use parse::ParseError;
pub use server::{Accepted, TlsAcceptor};
pub use verify::ClientCertificate;

/// Why TLS cannot be configured from a model. The configuration is at fault. The controller has already checked what
/// does not depend on this host.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// The socket uses TLS, but a listener has no certificate.
    #[error("listener {0} has no certificate, but its address uses TLS; set tls.certificateRefs")]
    NoCertificate(String),
    /// The TLS library refuses a certificate or its key.
    #[error("certificate {reference} cannot be used: {cause}")]
    Certificate {
        /// The Secret.
        reference: String,
        /// The library's reason.
        cause: rustls::Error,
    },
    /// A CA certificate is invalid.
    #[error("a CA certificate cannot be used: {0}")]
    Authority(String),
    /// A certificate revocation list is invalid.
    #[error("a certificate revocation list cannot be used: {0}")]
    Crl(String),
    /// A cipher suite is unknown, or none fits the allowed versions.
    #[error("{0}")]
    CipherSuites(String),
    /// A server name is neither a DNS name nor an address.
    #[error("{0:?} is neither a DNS name nor an IP address; correct upstream.tls.serverName")]
    ServerName(String),
    /// The CA certificates cannot be used.
    #[error(transparent)]
    Roots(#[from] crate::net::roots::RootsError),
    /// Another error of the TLS library.
    #[error("TLS cannot be set up: {0}")]
    Library(#[from] rustls::Error),
}

/// A failed handshake, and who is at fault.
#[derive(Debug, thiserror::Error)]
pub enum HandshakeError {
    /// The handshake with a client failed.
    #[error("the client {0}")]
    Client(HandshakeFailure),
    /// The handshake with a backend failed.
    #[error("the backend {0}{remedy}", remedy = sentence::remedy_for_backend(.0))]
    Backend(HandshakeFailure),
}

impl HandshakeError {
    /// Returns the error of a backend that refused the handshake after we had completed it. With TLS 1.3, a server
    /// reads the client's certificate then.
    #[must_use]
    pub fn late(error: io::Error) -> Option<Self> {
        let failure = HandshakeFailure::from(error);
        matches!(failure, HandshakeFailure::Alert(_)).then_some(Self::Backend(failure))
    }
}

/// What the peer did wrong in a handshake.
#[derive(Debug, thiserror::Error)]
pub enum HandshakeFailure {
    /// The peer closed the connection.
    #[error("closed the connection during the TLS handshake: {0}")]
    Closed(io::Error),
    /// No listener of the address has the requested name. The alert `unrecognized_name` was sent.
    #[error("requested {0:?} by SNI; no listener on this address has this name")]
    UnknownName(String),
    /// The peer offered only other protocols with ALPN. The alert `no_application_protocol` was sent, to prevent
    /// cross-protocol attacks (ALPACA).
    #[error("offers no supported protocol (ALPN)")]
    ForeignProtocol,
    /// The peer sent more bytes than its part of a handshake may have.
    #[error("sent a TLS handshake that is too long")]
    TooLong,
    /// The peer offers only these versions of TLS, which are not supported.
    #[error("offers only {0}")]
    Version(&'static str),
    /// The peer offers no supported TLS version. The acceptor replaces this with [`Self::Version`].
    #[error("offers no supported TLS version")]
    NoCommonVersion,
    /// The peer sent something else than TLS.
    #[error("did not speak TLS")]
    NotTls,
    /// A client with TLS 1.2 only offers key exchanges that are not supported, for example RSA.
    #[error("offers no ECDHE cipher suite or group that Mailgress supports")]
    NoKeyExchange,
    /// A client offers no cipher suite that fits the certificate and the configured suites.
    #[error(
        "offers no cipher suite that fits our certificate and tls.cipherSuites; allow one of its suites there, or \
         update the client"
    )]
    NoCipherSuite,
    /// A client supports no signature that the keys of the certificates can make.
    #[error(
        "accepts no signature of our certificate's key; add a certificate with another type of key (RSA or ECDSA), or \
         update the client"
    )]
    NoSignature,
    /// The peer sent a record or message that is longer than TLS allows.
    #[error(
        "sent an invalid TLS message (longer than TLS allows); a device on the network may have changed it"
    )]
    Oversized,
    /// The peer sent an alert.
    #[error("refused the TLS handshake with the alert {0:?}")]
    Alert(AlertDescription),
    /// The client sent the alert `certificate_expired`, and the certificate for it has expired.
    #[error("does not accept the certificate of Secret {0}, which has expired; renew it")]
    Expired(String),
    /// The peer's certificate is not accepted.
    #[error("presents a certificate that is not accepted: {}", sentence::of(.0))]
    Certificate(rustls::CertificateError),
    /// There is no valid name to verify the backend's certificate for: neither `serverName` nor the host name is one.
    #[error("has no name that its certificate could be verified for; set upstream.tls.serverName ({0:?})")]
    Nameless(String),
    /// Any other failure.
    #[error("could not complete the TLS handshake: {0}")]
    Protocol(rustls::Error),
}

impl From<io::Error> for HandshakeFailure {
    fn from(error: io::Error) -> Self {
        if error.get_ref().is_some_and(|inner| inner.is::<CapReached>()) {
            return Self::TooLong;
        }
        match error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
            Some(rustls::Error::NoApplicationProtocol) => Self::ForeignProtocol,
            Some(rustls::Error::InvalidMessage(InvalidMessage::InvalidContentType)) => Self::NotTls,
            Some(
                rustls::Error::PeerSentOversizedRecord
                | rustls::Error::InvalidMessage(
                    InvalidMessage::MessageTooLarge
                    | InvalidMessage::HandshakePayloadTooLarge
                    | InvalidMessage::CertificatePayloadTooLarge,
                ),
            ) => Self::Oversized,
            Some(rustls::Error::PeerIncompatible(PeerIncompatible::NoCipherSuitesInCommon)) => {
                Self::NoCipherSuite
            }
            Some(rustls::Error::PeerIncompatible(PeerIncompatible::NoSignatureSchemesInCommon)) => {
                Self::NoSignature
            }
            Some(rustls::Error::PeerIncompatible(PeerIncompatible::NoKxGroupsInCommon)) => {
                Self::NoKeyExchange
            }
            Some(rustls::Error::PeerIncompatible(
                PeerIncompatible::Tls12NotOfferedOrEnabled
                | PeerIncompatible::SupportedVersionsExtensionRequired
                | PeerIncompatible::ServerTlsVersionIsDisabledByOurConfig,
            )) => Self::NoCommonVersion,
            Some(rustls::Error::PeerIncompatible(
                PeerIncompatible::Tls12NotOffered | PeerIncompatible::ServerDoesNotSupportTls12Or13,
            )) => Self::Version(TLS_1_1_OR_OLDER),
            Some(rustls::Error::PeerIncompatible(PeerIncompatible::SignatureAlgorithmsExtensionRequired)) => {
                Self::Version(TLS_1_2_WITH_SHA1)
            }
            Some(rustls::Error::AlertReceived(alert)) => Self::Alert(*alert),
            Some(rustls::Error::InvalidCertificate(cause)) => Self::Certificate(cause.clone()),
            Some(other) => Self::Protocol(other.clone()),
            None => Self::Closed(error),
        }
    }
}

/// Versions that no configuration allows.
const TLS_1_1_OR_OLDER: &str = "TLS 1.1 or older, and the oldest supported version is TLS 1.2";

/// What TLS 1.2 without the extension `signature_algorithms` means (RFC 5246 section 7.4.1.4.1). No known
/// implementation needs it.
const TLS_1_2_WITH_SHA1: &str = "TLS 1.2 with SHA-1 signatures, which are not accepted here";

/// Returns the chain with its signing key. rustls' own check that both fit does not support X.509 version 1, so
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

/// Returns the provider with only the suites `names`, in this order; with all suites if `names` is empty.
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
