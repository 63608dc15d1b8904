//! A TLS handshake that accepts every certificate, and records it with the verdict on it.
//!
//! Only for `probe`, which reports the verdict and sends no password if it is negative.

use std::sync::Arc;

use parking_lot::Mutex;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature};
use rustls::{CertificateError, DigitallySignedStruct, SignatureScheme};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::client::TlsStream;
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

use crate::model::settings::ClientTls;
use crate::net::tls_names;
use crate::protocol::{Cleartext, Protocol};

use super::client::{configure, parse_name, verifier};
use super::{HandshakeError, HandshakeFailure, ServerNameSource, TlsError, provider, sentence};

/// What a server sent in its handshake.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Observed {
    /// The TLS version, such as `TLSv1.3`.
    pub version: &'static str,
    /// OpenSSL's name of the cipher suite.
    pub cipher: String,
    /// The negotiated ALPN protocol.
    pub alpn: Option<String>,
    /// The certificate chain, the server's own certificate first.
    pub chain: Vec<ShownCertificate>,
    /// Whether the certificate is trusted and has the requested name.
    pub verdict: Result<(), Distrust>,
}

/// A certificate in readable form.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ShownCertificate {
    /// The distinguished name of the subject.
    pub subject: String,
    /// The distinguished name of the issuer.
    pub issuer: String,
    /// DNS names and addresses of subjectAltName.
    pub names: Vec<String>,
    /// Start of validity in Unix seconds.
    pub not_before: i64,
    /// End of validity in Unix seconds.
    pub not_after: i64,
}

/// Why a certificate is not accepted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Distrust {
    /// The end of its validity has passed.
    #[error("it has expired")]
    Expired,
    /// Its validity has not started.
    #[error("it is not valid yet")]
    NotYetValid,
    /// No trusted authority has issued it.
    #[error("its issuer is not trusted")]
    UnknownIssuer,
    /// It is self-signed, and not itself trusted.
    #[error("it is self-signed and not trusted")]
    SelfSigned,
    /// It has none of the requested names.
    #[error("it is not for {0}")]
    OtherName(String),
    /// No CA certificates can be loaded.
    #[error("{0}")]
    NoRoots(String),
    /// Any other reason of the TLS library.
    #[error("{0}")]
    Other(String),
}

/// Does the handshake as a client with `tls` and reports what the server sent. The caller sets the timeout.
///
/// # Errors
/// The handshake fails, or the settings cannot be used.
pub async fn observe<S>(
    server: Cleartext<S>,
    tls: &ClientTls,
    protocol: Protocol,
    name: &ServerNameSource,
) -> Result<(TlsStream<S>, Observed), ObserveError>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let name = match (&tls.server_name, name) {
        (Some(name), _) | (None, ServerNameSource::Host(name)) => {
            parse_name(name).ok_or_else(|| TlsError::ServerName(name.clone()))?
        }
        (None, ServerNameSource::Ip(address)) => ServerName::IpAddress((*address).into()),
    };
    let crypto = provider();
    let observer = Arc::new(Observer {
        inner: verifier(&tls.trust).map_err(|error| error.to_string()),
        algorithms: crypto.signature_verification_algorithms,
        seen: Mutex::default(),
    });
    let config = configure(tls, Arc::clone(&observer) as Arc<dyn ServerCertVerifier>, Some(protocol))?;
    let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
    let stream = connector
        .connect(name, server.into_parts().0)
        .await
        .map_err(|error| HandshakeError::Backend(HandshakeFailure::from(error)))?;
    let session = stream.get_ref().1;
    let chain = session.peer_certificates().unwrap_or_default();
    let observed = Observed {
        version: session.protocol_version().map_or("unknown", tls_names::version),
        cipher: session
            .negotiated_cipher_suite()
            .map(|suite| tls_names::openssl(suite.suite()))
            .unwrap_or_default(),
        alpn: session.alpn_protocol().map(|name| name.escape_ascii().to_string()),
        chain: chain.iter().map(|der| shown(der)).collect(),
        verdict: observer.seen.lock().take().unwrap_or(Ok(())),
    };
    Ok((stream, observed))
}

/// Why a handshake could not be observed.
#[derive(Debug, thiserror::Error)]
pub enum ObserveError {
    /// The server failed.
    #[error(transparent)]
    Handshake(#[from] HandshakeError),
    /// Our settings cannot be used.
    #[error(transparent)]
    Settings(#[from] TlsError),
}

#[derive(Debug)]
struct Observer {
    /// The normal verifier, or the reason why there is none.
    inner: Result<Arc<dyn ServerCertVerifier>, String>,
    algorithms: WebPkiSupportedAlgorithms,
    seen: Mutex<Option<Result<(), Distrust>>>,
}

impl ServerCertVerifier for Observer {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let verdict = match &self.inner {
            Err(why) => Err(Distrust::NoRoots(why.clone())),
            Ok(inner) => inner
                .verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now)
                .map(|_| ())
                .map_err(|error| distrust(&error, end_entity, server_name)),
        };
        *self.seen.lock() = Some(verdict);
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, cert, dss, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, dss, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

fn distrust(error: &rustls::Error, leaf: &CertificateDer<'_>, name: &ServerName<'_>) -> Distrust {
    let is_self_signed = X509Certificate::from_der(leaf)
        .is_ok_and(|(_, leaf)| leaf.issuer().as_raw() == leaf.subject().as_raw());
    match error {
        rustls::Error::InvalidCertificate(error) => match error {
            CertificateError::Expired | CertificateError::ExpiredContext { .. } => Distrust::Expired,
            CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
                Distrust::NotYetValid
            }
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
                Distrust::OtherName(name.to_str().into_owned())
            }
            CertificateError::UnknownIssuer | CertificateError::Other(_) if is_self_signed => {
                Distrust::SelfSigned
            }
            CertificateError::UnknownIssuer => Distrust::UnknownIssuer,
            other => Distrust::Other(sentence::of(other)),
        },
        other => Distrust::Other(other.to_string()),
    }
}

fn shown(der: &[u8]) -> ShownCertificate {
    let Ok((_, certificate)) = X509Certificate::from_der(der) else {
        return ShownCertificate { subject: "not a certificate".to_owned(), ..ShownCertificate::default() };
    };
    let alternative = certificate.subject_alternative_name().ok().flatten();
    let names = alternative.iter().flat_map(|extension| &extension.value.general_names);
    let validity = certificate.validity();
    ShownCertificate {
        subject: certificate.subject().to_string(),
        issuer: certificate.issuer().to_string(),
        names: names.filter_map(name_of).collect(),
        not_before: validity.not_before.timestamp(),
        not_after: validity.not_after.timestamp(),
    }
}

fn name_of(name: &GeneralName<'_>) -> Option<String> {
    match name {
        GeneralName::DNSName(name) => Some(name.to_ascii_lowercase()),
        GeneralName::IPAddress(bytes) => {
            let v4 =
                <[u8; 4]>::try_from(*bytes).ok().map(|octets| std::net::IpAddr::from(octets).to_string());
            v4.or_else(|| {
                <[u8; 16]>::try_from(*bytes).ok().map(|octets| std::net::IpAddr::from(octets).to_string())
            })
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use rustls_pki_types::CertificateDer;

    use super::*;
    use crate::model::{SharedTicketKeys, TrustAnchors};
    use crate::tls::TlsAcceptor;
    use crate::tls::testing::{self, Ca, Issued, clear, server_tls};
    use rcgen::{KeyPair, date_time_ymd};

    async fn look(issued: &Issued, trusted: Vec<CertificateDer<'static>>, name: &str) -> Observed {
        let server = server_tls(vec![issued.model()]);
        let acceptor = TlsAcceptor::new(
            &testing::socket(vec![testing::listener(&[], server)]),
            None,
            &SharedTicketKeys::default(),
        )
        .unwrap();
        let tls = ClientTls {
            trust: TrustAnchors::Certificates(trusted),
            server_name: Some(name.to_owned()),
            certificate: None,
        };
        let (near, far) = tokio::io::duplex(16 * 1024);
        let source = ServerNameSource::Host(String::new());
        let observing = observe(clear(near), &tls, Protocol::Imap, &source);
        let (accepted, observed) = tokio::join!(acceptor.accept(clear(far)), observing);
        accepted.unwrap();
        observed.unwrap().1
    }

    #[tokio::test]
    async fn tells_what_it_saw_and_what_is_against_it() {
        let (ca, other) = (Ca::new("ca"), Ca::new("other"));
        let good = ca.issue(&["mail.test"]);
        let observed = look(&good, vec![ca.der()], "mail.test").await;
        assert_eq!(observed.verdict, Ok(()));
        assert_eq!((observed.version, observed.alpn.as_deref()), ("TLSv1.3", Some("imap")));
        assert_eq!(observed.chain[0].names, ["mail.test"]);
        assert!(observed.chain[0].issuer.contains("ca"), "{observed:?}");
        let renamed = look(&good, vec![ca.der()], "pop.test").await.verdict.unwrap_err();
        assert_eq!(renamed.to_string(), "it is not for pop.test");
        assert_eq!(look(&good, vec![other.der()], "mail.test").await.verdict, Err(Distrust::UnknownIssuer));
        let mut params = testing::named("old", &["mail.test"]);
        params.not_after = date_time_ymd(2020, 1, 1);
        let old = ca.issue_with(params, KeyPair::generate().unwrap());
        assert_eq!(look(&old, vec![ca.der()], "mail.test").await.verdict, Err(Distrust::Expired));
    }

    #[test]
    fn a_certificate_that_is_none_is_shown_as_such() {
        assert_eq!(shown(b"nothing").subject, "not a certificate");
    }
}
