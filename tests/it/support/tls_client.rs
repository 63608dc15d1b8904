//! TLS clients with specific versions, ALPN and certificates.

use std::io::Result;
use std::net::SocketAddr;
use std::sync::Arc;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{AlertDescription, ClientConfig, RootCertStore, SupportedProtocolVersion};

use super::pki::{AUTHORITY, Identity};
use super::talk::greeted;
use super::wire::Wire;

/// Builds a client that trusts the tests' authority and keeps its tickets.
pub struct TlsClient {
    versions: &'static [&'static SupportedProtocolVersion],
    alpn: Vec<Vec<u8>>,
    certificate: Option<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>)>,
}

impl TlsClient {
    /// All versions, no ALPN, no certificate.
    pub fn new() -> Self {
        Self { versions: rustls::ALL_VERSIONS, alpn: Vec::new(), certificate: None }
    }

    /// Limits the client to TLS 1.2.
    pub fn tls12(mut self) -> Self {
        self.versions = TLS12_ONLY;
        self
    }

    /// Offers these ALPN protocols.
    pub fn alpn(mut self, names: &[&str]) -> Self {
        self.alpn = names.iter().map(|name| name.as_bytes().to_vec()).collect();
        self
    }

    /// Sends this certificate and its chain on request.
    pub fn certificate(mut self, identity: &Identity) -> Self {
        let key = PrivateKeyDer::from_pem_slice(identity.key.as_bytes()).unwrap();
        self.certificate = Some((identity.chain.clone(), key));
        self
    }

    /// Returns the client's configuration.
    pub fn build(self) -> Arc<ClientConfig> {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(AUTHORITY.pem().as_bytes()).unwrap()).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(self.versions)
            .unwrap()
            .with_root_certificates(roots);
        let mut config = match self.certificate {
            None => builder.with_no_client_auth(),
            Some((chain, key)) => builder.with_client_auth_cert(chain, key).unwrap(),
        };
        config.alpn_protocols = self.alpn;
        Arc::new(config)
    }
}

static TLS12_ONLY: &[&SupportedProtocolVersion] = &[&rustls::version::TLS12];

/// Returns the alert that ended a handshake or a read. Panics on any other result.
pub fn alert<T>(result: Result<T>) -> AlertDescription {
    let Err(error) = result else { panic!("the server accepted") };
    match error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
        Some(rustls::Error::AlertReceived(alert)) => *alert,
        _ => panic!("not an alert: {error}"),
    }
}

/// Connects, reads the greeting and sends STARTTLS. The handshake comes next.
pub fn start_tls(protocol: &str, address: SocketAddr) -> Result<Wire> {
    let mut wire = greeted(address)?;
    wire.send(start_tls_command(protocol))?;
    expect_go_ahead(protocol, &mut wire)?;
    Ok(wire)
}

/// The protocol's command for TLS.
pub fn start_tls_command(protocol: &str) -> &'static str {
    match protocol {
        "IMAP" => "s STARTTLS\r\n",
        "POP3" => "STLS\r\n",
        _ => "STARTTLS\r\n",
    }
}

/// Reads the positive reply to [`start_tls_command`].
pub fn expect_go_ahead(protocol: &str, wire: &mut Wire) -> Result<()> {
    let expected = match protocol {
        "IMAP" => "s OK completed",
        "POP3" => "+OK",
        _ => "220 2.0.0 Start TLS",
    };
    assert_eq!(wire.line()?, expected);
    Ok(())
}

/// Connects with implicit TLS or STARTTLS, ready for a login.
pub fn secured(
    (protocol, mode): (&str, &str),
    address: SocketAddr,
    client: &Arc<ClientConfig>,
    name: &str,
) -> Result<Wire> {
    if mode == "Implicit" {
        let mut wire = Wire::connect(address)?.handshake_as(Arc::clone(client), name)?;
        wire.line()?;
        return Ok(wire);
    }
    start_tls(protocol, address)?.handshake_as(Arc::clone(client), name)
}
