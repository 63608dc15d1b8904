//! One certificate for both proxies, and a client that makes them use the same cryptography.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result};
use rcgen::{CertificateParams, KeyPair};
use rustls::client::Resumption;
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::{ClientConfig, RootCertStore};

/// An ECDSA P-256 certificate with its key, and a client that trusts it.
pub(crate) struct Identity {
    pub(crate) certificate: String,
    pub(crate) key: String,
    /// Each handshake is a full one.
    pub(crate) client: Arc<ClientConfig>,
}

/// Number of servers whose tickets a client keeps.
const TICKETS: usize = 8;

impl Identity {
    pub(crate) fn new() -> Result<Self> {
        let key = KeyPair::generate()?;
        let certificate = CertificateParams::new(vec!["localhost".to_owned()])?.self_signed(&key)?;
        let mut roots = RootCertStore::empty();
        roots.add(certificate.der().clone())?;
        let provider = CryptoProvider {
            kx_groups: vec![aws_lc_rs::kx_group::X25519],
            cipher_suites: vec![aws_lc_rs::cipher_suite::TLS13_AES_256_GCM_SHA384],
            ..aws_lc_rs::default_provider()
        };
        let mut client = ClientConfig::builder_with_provider(Arc::new(provider))
            .with_safe_default_protocol_versions()
            .context("TLS 1.3")?
            .with_root_certificates(roots)
            .with_no_client_auth();
        client.resumption = Resumption::disabled();
        Ok(Self { certificate: certificate.pem(), key: key.serialize_pem(), client: Arc::new(client) })
    }

    /// Returns a client that resumes the sessions of one server, if the server allows it. Tickets are kept by the
    /// server's name, which is the same for both proxies.
    pub(crate) fn resuming(&self) -> Arc<ClientConfig> {
        let mut client = (*self.client).clone();
        client.resumption = Resumption::in_memory_sessions(TICKETS);
        Arc::new(client)
    }

    pub(crate) fn write(&self, directory: &Path) -> Result<()> {
        fs::write(directory.join("server.pem"), &self.certificate)?;
        fs::write(directory.join("server.key"), &self.key)?;
        Ok(())
    }
}
