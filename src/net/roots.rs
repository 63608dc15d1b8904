//! The crypto provider, and the CA certificates that TLS clients trust. It is below `tls` and `auth`, because both
//! create connections.

use std::sync::{Arc, OnceLock};

use rustls::RootCertStore;
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls_pki_types::CertificateDer;

/// Why no CA certificates can be used.
#[derive(Clone, Debug, thiserror::Error)]
pub enum RootsError {
    /// The host has no CA certificates.
    #[error(
        "this host has no CA certificates ({0}); install ca-certificates, set SSL_CERT_FILE, or configure \
         caCertificateRefs"
    )]
    NoSystemRoots(String),
    /// A configured certificate is not a CA certificate.
    #[error("a CA certificate cannot be used: {0}")]
    Unusable(rustls::Error),
}

/// Returns the crypto provider that `main` installed, or aws-lc-rs if there is none.
#[must_use]
pub fn provider() -> Arc<CryptoProvider> {
    CryptoProvider::get_default().cloned().unwrap_or_else(|| Arc::new(aws_lc_rs::default_provider()))
}

/// Returns the host's CA certificates. They are read once in the life of the process.
///
/// # Errors
/// [`RootsError::NoSystemRoots`] if the host has none.
pub fn system() -> Result<Arc<RootCertStore>, RootsError> {
    static ROOTS: OnceLock<Result<Arc<RootCertStore>, RootsError>> = OnceLock::new();
    ROOTS.get_or_init(load).clone()
}

/// Creates a store with only these certificates.
///
/// # Errors
/// [`RootsError::Unusable`] if one of them is not a CA certificate.
pub fn of(certificates: &[CertificateDer<'static>]) -> Result<Arc<RootCertStore>, RootsError> {
    let mut store = RootCertStore::empty();
    for certificate in certificates {
        store.add(certificate.clone()).map_err(RootsError::Unusable)?;
    }
    Ok(Arc::new(store))
}

fn load() -> Result<Arc<RootCertStore>, RootsError> {
    let found = rustls_native_certs::load_native_certs();
    let mut store = RootCertStore::empty();
    // Hosts may have certificates that rustls cannot parse; the others are trusted.
    let (added, _) = store.add_parsable_certificates(found.certs);
    if added > 0 {
        return Ok(Arc::new(store));
    }
    let why = found.errors.first().map_or_else(|| "none found".to_owned(), ToString::to_string);
    Err(RootsError::NoSystemRoots(why))
}
