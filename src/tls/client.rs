//! TLS to backends.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use rustls::ClientConfig;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::verify_server_name;
use rustls::client::{Resumption, WebPkiServerVerifier};
use rustls::server::ParsedCertificate;
use rustls::sign::SingleCertAndKey;
use rustls::{CertificateError, DigitallySignedStruct, SignatureScheme};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::client::TlsStream;

use crate::model::TrustAnchors;
use crate::model::settings::ClientTls;
use crate::net::roots;
use crate::protocol::{Cleartext, Protocol};

use super::sessions::Sessions;
use super::verify::is_trusted_itself;
use super::{HandshakeError, HandshakeFailure, TlsError, certified_key, provider, sentence};

/// Connects to backends with one `upstream.tls` configuration. Stores sessions for resumption.
#[derive(Clone)]
pub struct TlsConnector {
    inner: tokio_rustls::TlsConnector,
    server_name: Option<ServerName<'static>>,
}

impl fmt::Debug for TlsConnector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TlsConnector").field("server_name", &self.server_name).finish_non_exhaustive()
    }
}

/// The name that the backend's certificate must have, unless `upstream.tls.serverName` is set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ServerNameSource {
    /// The host name of the backend.
    Host(String),
    /// The IP address of the backend.
    Ip(IpAddr),
}

/// Builds a connector for `tls`, which offers `protocol` with ALPN.
///
/// # Errors
/// The settings cannot be used on this host.
pub fn connector(tls: &ClientTls, protocol: Option<Protocol>) -> Result<TlsConnector, TlsError> {
    let config = configure(tls, verifier(&tls.trust)?, protocol)?;
    let parse_name = |name: &String| parse_name(name).ok_or_else(|| TlsError::ServerName(name.clone()));
    let server_name = tls.server_name.as_ref().map(parse_name).transpose()?;
    Ok(TlsConnector { inner: Arc::new(config).into(), server_name })
}

/// Builds a connector for HTTP/1.1 with the verifier of backends.
///
/// # Errors
/// The authorities cannot be used on this host.
pub fn https_connector(trust: &TrustAnchors) -> Result<tokio_rustls::TlsConnector, TlsError> {
    let tls = ClientTls { trust: trust.clone(), server_name: None, certificate: None };
    let mut config = configure(&tls, verifier(trust)?, None)?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(config).into())
}

/// Returns the verifier for the server's certificate.
pub(super) fn verifier(trust: &TrustAnchors) -> Result<Arc<dyn ServerCertVerifier>, TlsError> {
    let chain = |roots| {
        WebPkiServerVerifier::builder_with_provider(roots, provider())
            .build()
            .map_err(|error| TlsError::Authority(error.to_string()))
    };
    let (chain, trusted) = match trust {
        TrustAnchors::System => (chain(roots::system()?)?, Vec::new()),
        TrustAnchors::Certificates(trusted) => (chain(roots::of(trusted)?)?, trusted.clone()),
    };
    Ok(Arc::new(TrustedVerifier { chain, trusted }))
}

/// Builds rustls' configuration for `tls` with this verifier.
pub(super) fn configure(
    tls: &ClientTls,
    verifier: Arc<dyn ServerCertVerifier>,
    protocol: Option<Protocol>,
) -> Result<ClientConfig, TlsError> {
    let builder = ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()?
        .dangerous()
        .with_custom_certificate_verifier(verifier);
    let mut config = match &tls.certificate {
        None => builder.with_no_client_auth(),
        Some(certificate) => {
            let key = certified_key(certificate, &provider())?;
            builder.with_client_cert_resolver(Arc::new(SingleCertAndKey::from(key)))
        }
    };
    config.alpn_protocols = protocol.iter().map(|protocol| protocol.alpn().into()).collect();
    config.resumption = Resumption::store(Arc::new(Sessions::new()));
    Ok(config)
}

impl TlsConnector {
    /// Returns a connector that verifies the backend's certificate in each handshake.
    #[must_use]
    pub fn without_resumption(&self) -> Self {
        let mut config = ClientConfig::clone(self.inner.config());
        config.resumption = Resumption::disabled();
        Self { inner: Arc::new(config).into(), server_name: self.server_name.clone() }
    }

    /// Does the handshake. The caller sets the timeout.
    ///
    /// # Errors
    /// The handshake failed, or there is no name to verify the certificate for.
    pub async fn connect<S>(
        &self,
        backend: Cleartext<S>,
        name: &ServerNameSource,
    ) -> Result<TlsStream<S>, HandshakeError>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let fault = HandshakeError::Backend;
        let name = match (&self.server_name, name) {
            (Some(configured), _) => configured.clone(),
            (None, ServerNameSource::Ip(address)) => ServerName::IpAddress((*address).into()),
            (None, ServerNameSource::Host(host)) => {
                parse_name(host).ok_or_else(|| fault(HandshakeFailure::Nameless(host.clone())))?
            }
        };
        let (stream, _) = backend.into_parts();
        self.inner.connect(name, stream).await.map_err(|error| fault(error.into()))
    }
}

pub(super) fn parse_name(name: &str) -> Option<ServerName<'static>> {
    ServerName::try_from(name.to_owned()).ok()
}

/// Accepts a chain to the configured authorities, or a certificate that is configured itself ([`is_trusted_itself`]):
/// the packages of Dovecot and Postfix create a self-signed one. Names the intermediate certificate that is not valid.
#[derive(Debug)]
struct TrustedVerifier {
    chain: Arc<WebPkiServerVerifier>,
    /// Empty for the authorities of the system.
    trusted: Vec<CertificateDer<'static>>,
}

impl ServerCertVerifier for TrustedVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        match self.chain.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now) {
            Err(rustls::Error::InvalidCertificate(CertificateError::Other(_)))
                if is_trusted_itself(end_entity, &self.trusted, now) =>
            {
                verify_server_name(&ParsedCertificate::try_from(end_entity)?, server_name)?;
                Ok(ServerCertVerified::assertion())
            }
            verdict => verdict.map_err(|error| sentence::of_chain(error, intermediates, now)),
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.chain.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.chain.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.chain.supported_verify_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{ClientAuthMode, ServerTls, SharedTicketKeys};
    use crate::tls::TlsAcceptor;
    use crate::tls::testing::{self, Ca, Issued, clear, client_auth, server_tls};
    use rustls::ServerConfig;
    use rustls::server::WebPkiClientVerifier;
    use tokio::io::AsyncReadExt;

    use rcgen::{BasicConstraints, IsCa, KeyPair, date_time_ymd};

    fn trusting(authorities: Vec<CertificateDer<'static>>) -> ClientTls {
        ClientTls { trust: TrustAnchors::Certificates(authorities), server_name: None, certificate: None }
    }

    fn host(name: &str) -> ServerNameSource {
        ServerNameSource::Host(name.to_owned())
    }

    /// Does one handshake with a backend that serves `tls`. Returns the ALPN protocol, and whether the backend got our
    /// certificate.
    async fn connect(
        backend: ServerTls,
        tls: &ClientTls,
        name: &ServerNameSource,
    ) -> Result<(Option<String>, bool), HandshakeError> {
        let acceptor = TlsAcceptor::new(
            &testing::socket(vec![testing::listener(&[], backend)]),
            None,
            &SharedTicketKeys::default(),
        )
        .unwrap();
        let connector = connector(tls, Some(Protocol::Imap)).unwrap();
        let (near, far) = tokio::io::duplex(16 * 1024);
        let (accepted, connected) =
            tokio::join!(acceptor.accept(clear(far)), connector.connect(clear(near), name));
        connected?;
        let accepted = accepted.unwrap();
        let seen = matches!(accepted.client, crate::tls::ClientCertificate::Presented { .. });
        Ok((accepted.facts.alpn, seen))
    }

    fn self_signed_ca() -> Issued {
        let mut params = testing::named("dovecot", &["imap.test"]);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let certificate = params.self_signed(&key).unwrap();
        Issued { chain: certificate.pem(), der: certificate.der().clone(), key }
    }

    #[tokio::test]
    async fn verifies_the_name_or_the_configured_one_instead() {
        let ca = Ca::new("ca");
        let backend = || server_tls(vec![ca.issue(&["imap.test"]).model()]);
        let tls = trusting(vec![ca.der()]);
        assert_eq!(connect(backend(), &tls, &host("imap.test")).await.unwrap().0.as_deref(), Some("imap"));
        let error = connect(backend(), &tls, &host("pop.test")).await.unwrap_err();
        assert!(error.to_string().contains("the backend presents a certificate"), "{error}");
        let address = ServerNameSource::Ip(IpAddr::from([10, 0, 0, 1]));
        assert!(connect(backend(), &tls, &address).await.is_err());
        let renamed = ClientTls { server_name: Some("imap.test".to_owned()), ..tls };
        assert!(connect(backend(), &renamed, &address).await.is_ok());
    }

    #[tokio::test]
    async fn refuses_an_authority_that_is_not_configured() {
        let (ca, other) = (Ca::new("ca"), Ca::new("other"));
        let backend = server_tls(vec![ca.issue(&["imap.test"]).model()]);
        let error = connect(backend, &trusting(vec![other.der()]), &host("imap.test")).await.unwrap_err();
        assert!(matches!(error, HandshakeError::Backend(HandshakeFailure::Certificate(_))), "{error}");
    }

    #[tokio::test]
    async fn accepts_the_very_certificate_that_is_trusted_for_its_own_name_only() {
        let own = self_signed_ca();
        let backend = || server_tls(vec![own.model()]);
        let tls = trusting(vec![own.der.clone()]);
        assert!(connect(backend(), &tls, &host("imap.test")).await.is_ok());
        assert!(connect(backend(), &tls, &host("evil.test")).await.is_err());
        let stranger = trusting(vec![self_signed_ca().der]);
        assert!(connect(backend(), &stranger, &host("imap.test")).await.is_err());
    }

    #[tokio::test]
    async fn says_which_certificate_of_the_chain_has_expired() {
        let root = Ca::new("root");
        let expired_params = |name: &str, names: &[&str]| {
            let mut params = testing::named(name, names);
            (params.not_before, params.not_after) = (date_time_ymd(2000, 1, 1), date_time_ymd(2001, 1, 1));
            params
        };
        let failure = async |backend: Issued, name: &str| {
            let backend = server_tls(vec![backend.model()]);
            connect(backend, &trusting(vec![root.der()]), &host(name)).await.unwrap_err().to_string()
        };
        let leaf = root.issue_with(expired_params("leaf", &["imap.test"]), KeyPair::generate().unwrap());
        let not_accepted = "the backend presents a certificate that is not accepted: ";
        assert_eq!(
            failure(leaf, "imap.test").await,
            format!("{not_accepted}it has expired; renew it on that server")
        );
        let mut params = expired_params("old authority", &[]);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let old = root.below_with(params);
        let mut below = old.issue(&["imap.test"]);
        below.chain.push_str(&old.pem());
        assert_eq!(
            failure(below, "imap.test").await,
            format!(
                "{not_accepted}certificate 2 of its chain, the authority \"CN=old authority\", has expired; replace it \
                 there"
            )
        );
        let other_name = failure(root.issue(&["imap.test"]), "pop.test").await;
        let expected = "it is not for the name pop.test; set upstream.tls.serverName";
        assert_eq!(other_name, format!("{not_accepted}{expected}"));
        let self_signed = failure(self_signed_ca(), "imap.test").await;
        assert!(self_signed.contains("it is self-signed; to trust it, add it to "), "{self_signed}");
        let untrusted = failure(Ca::new("other").issue(&["imap.test"]), "imap.test").await;
        assert!(untrusted.contains("add its authority to upstream.tls.caCertificateRefs"), "{untrusted}");
    }

    /// Returns a certificate of version 1: without the field of its version, and with a signature that does not fit.
    fn of_version_1(der: &[u8]) -> CertificateDer<'static> {
        const VERSION_3: [u8; 5] = [0xa0, 3, 2, 1, 2];
        let [0x30, 0x82, a, b, 0x30, 0x82, c, d, rest @ ..] = der else { panic!("short: {der:?}") };
        let shorter = |high: &u8, low: &u8| (u16::from_be_bytes([*high, *low]) - 5).to_be_bytes();
        let rest = rest.strip_prefix(&VERSION_3).unwrap();
        let start = [&[0x30, 0x82][..], &shorter(a, b), &[0x30, 0x82], &shorter(c, d)].concat();
        CertificateDer::from([&start[..], rest].concat())
    }

    #[tokio::test]
    async fn says_that_a_certificate_of_version_1_cannot_be_verified() {
        let ca = Ca::new("ca");
        let mut certificate = (*ca.issue(&["imap.test", &"long.".repeat(40)]).model()).clone();
        certificate.chain = vec![of_version_1(&certificate.chain[0])];
        let backend = server_tls(vec![Arc::new(certificate)]);
        let error = connect(backend, &trusting(vec![ca.der()]), &host("imap.test")).await.unwrap_err();
        assert_eq!(
            error.to_string(),
            "the backend presents a certificate that is not accepted: it has X.509 version 1, which has no names to \
             verify; replace it there by a certificate of version 3 with subjectAltName"
        );
    }

    #[tokio::test]
    async fn shows_its_own_certificate_when_asked() {
        let ca = Ca::new("ca");
        let mut backend = server_tls(vec![ca.issue(&["imap.test"]).model()]);
        backend.client_auth = client_auth(ClientAuthMode::Required, vec![ca.der()]);
        let tls = ClientTls { certificate: Some(ca.issue(&[]).model()), ..trusting(vec![ca.der()]) };
        assert!(connect(backend, &tls, &host("imap.test")).await.unwrap().1);
    }

    #[tokio::test]
    async fn a_backend_that_wants_a_certificate_is_told_from_one_that_closes() {
        let ca = Ca::new("ca");
        let key = certified_key(&ca.issue(&["imap.test"]).model(), &provider()).unwrap();
        let clients =
            WebPkiClientVerifier::builder_with_provider(roots::of(&[ca.der()]).unwrap(), provider());
        let config = ServerConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_client_cert_verifier(clients.build().unwrap())
            .with_cert_resolver(Arc::new(SingleCertAndKey::from(key)));
        let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
        let connector = connector(&trusting(vec![ca.der()]), Some(Protocol::Imap)).unwrap();
        let (near, far) = tokio::io::duplex(16 * 1024);
        let name = host("imap.test");
        let (accepted, connected) = tokio::join!(acceptor.accept(far), connector.connect(clear(near), &name));
        assert!(accepted.is_err());
        let error = connected.unwrap().read_u8().await.unwrap_err();
        assert_eq!(
            HandshakeError::late(error).unwrap().to_string(),
            "the backend refused the TLS handshake with the alert CertificateRequired; set \
             upstream.tls.clientCertificateRef to a certificate that it accepts"
        );
        assert!(HandshakeError::late(std::io::ErrorKind::ConnectionReset.into()).is_none());
    }

    #[test]
    fn a_server_name_that_is_none_is_named() {
        let tls =
            ClientTls { server_name: Some("not a name".to_owned()), ..trusting(vec![Ca::new("ca").der()]) };
        let error = connector(&tls, None).err().unwrap();
        assert!(error.to_string().contains("upstream.tls.serverName"), "{error}");
    }
}
