//! Says in plain words why a handshake failed: for the status page, and why a backend's certificate is not accepted, with
//! the certificate of its chain.

use std::fmt;
use std::sync::Arc;

use rustls::{AlertDescription, CertificateError, OtherError};
use rustls_pki_types::{CertificateDer, UnixTime};
use x509_parser::prelude::{FromDer, X509Certificate};

use super::HandshakeFailure;

impl HandshakeFailure {
    /// Describes a failed handshake with a client, without a word that the client sent.
    pub(crate) fn without_words(&self) -> String {
        let text = match self {
            Self::Closed(_) => "the client closed the connection during the TLS handshake",
            Self::UnknownName(_) => "the client requested a name by SNI that no listener on this address has",
            Self::ForeignProtocol => "the client offers no supported protocol (ALPN)",
            Self::TooLong => "the client sent a TLS handshake that is too long",
            Self::Version(_)
            | Self::NoCommonVersion
            | Self::Expired(_)
            | Self::NotTls
            | Self::NoCipherSuite
            | Self::NoSignature
            | Self::Oversized
            | Self::NoKeyExchange => return format!("the client {self}"),
            Self::Alert(_) => "the client refused the TLS handshake with an alert",
            _ => "the client could not complete the TLS handshake",
        };
        text.to_owned()
    }

    /// Describes a failed handshake with an auth service. The text completes a sentence about it.
    #[must_use]
    pub fn of_auth_service(&self) -> String {
        match self {
            Self::Certificate(
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
            ) => "presents a certificate for another name than that in auth.http.url".to_owned(),
            other => other.to_string().replace("upstream.tls.", "auth.http."),
        }
    }
}

/// Returns what may help if a backend refused the handshake with an alert.
pub(super) fn remedy_for_backend(failure: &HandshakeFailure) -> &'static str {
    let HandshakeFailure::Alert(alert) = failure else { return "" };
    match alert {
        AlertDescription::CertificateRequired
        | AlertDescription::BadCertificate
        | AlertDescription::UnsupportedCertificate
        | AlertDescription::CertificateRevoked
        | AlertDescription::CertificateExpired
        | AlertDescription::CertificateUnknown
        | AlertDescription::UnknownCA
        | AlertDescription::AccessDenied => {
            "; set upstream.tls.clientCertificateRef to a certificate that it accepts"
        }
        AlertDescription::ProtocolVersion => "; it must support TLS 1.2 or newer",
        AlertDescription::HandshakeFailure => {
            "; it may support only old cipher suites, or require a client certificate (upstream.tls.clientCertificateRef)"
        }
        _ => "",
    }
}

/// Returns the reason and the remedy for a certificate.
pub(super) fn of(error: &CertificateError) -> String {
    match error {
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
            "it has expired; renew it on that server".to_owned()
        }
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
            "it is not valid yet; check the clocks of both hosts".to_owned()
        }
        CertificateError::UnknownIssuer => {
            "no trusted authority has issued it; add its authority to upstream.tls.caCertificateRefs, or the \
             intermediate certificates to the chain there"
                .to_owned()
        }
        CertificateError::BadSignature => {
            "its issuer has the name of a trusted authority but another key; put the issuer's current certificate into \
             upstream.tls.caCertificateRefs"
                .to_owned()
        }
        CertificateError::NotValidForNameContext { expected, .. } => {
            format!("it is not for the name {}; set upstream.tls.serverName", expected.to_str())
        }
        CertificateError::NotValidForName => {
            "it is not for the name of the backend; set upstream.tls.serverName".to_owned()
        }
        CertificateError::Other(OtherError(cause)) => match cause.downcast_ref::<webpki::Error>() {
            Some(webpki::Error::CaUsedAsEndEntity) => {
                "it is self-signed; to trust it, add it to upstream.tls.caCertificateRefs".to_owned()
            }
            Some(webpki::Error::UnsupportedCertVersion) => {
                "it has X.509 version 1, which has no names to verify; replace it there by a certificate of version 3 \
                 with subjectAltName"
                    .to_owned()
            }
            _ => cause.to_string(),
        },
        other => other.to_string(),
    }
}

/// Names the certificate behind the first one that is not valid now, if `error` is about its dates. rustls reports only
/// the dates.
pub(super) fn of_chain(
    error: rustls::Error,
    intermediates: &[CertificateDer<'_>],
    now: UnixTime,
) -> rustls::Error {
    let rustls::Error::InvalidCertificate(
        CertificateError::ExpiredContext { .. } | CertificateError::NotValidYetContext { .. },
    ) = error
    else {
        return error;
    };
    let mut invalid =
        intermediates.iter().enumerate().filter_map(|(index, der)| InvalidIssuer::of(index, der, now));
    match invalid.next() {
        Some(issuer) => {
            rustls::Error::InvalidCertificate(CertificateError::Other(OtherError(Arc::new(issuer))))
        }
        None => error,
    }
}

/// An intermediate certificate that is not valid now.
#[derive(Debug)]
struct InvalidIssuer {
    /// Counted from 1, the server's own certificate.
    position: usize,
    subject: String,
    has_expired: bool,
}

impl InvalidIssuer {
    fn of(index: usize, der: &[u8], now: UnixTime) -> Option<Self> {
        let (_, certificate) = X509Certificate::from_der(der).ok()?;
        let now = i64::try_from(now.as_secs()).ok()?;
        let validity = certificate.validity();
        let has_expired = validity.not_after.timestamp() < now;
        let subject = certificate.subject().to_string().escape_debug().take(MAX_SUBJECT).collect();
        (has_expired || validity.not_before.timestamp() > now).then_some(Self {
            position: index.saturating_add(2),
            subject,
            has_expired,
        })
    }
}

impl fmt::Display for InvalidIssuer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { position, subject, has_expired } = self;
        let (problem, remedy) = if *has_expired {
            ("has expired", "replace it there")
        } else {
            ("is not valid yet", "check the clocks of both hosts")
        };
        write!(f, "certificate {position} of its chain, the authority \"{subject}\", {problem}; {remedy}")
    }
}

impl std::error::Error for InvalidIssuer {}

/// Characters of a subject that are shown.
const MAX_SUBJECT: usize = 100;
