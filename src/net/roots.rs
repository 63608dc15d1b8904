//! What every end of TLS starts from: the crypto provider, and whom a client trusts. Below `tls` and
//! `auth`, because both connect.

use std::sync::{Arc, OnceLock};

use rustls::RootCertStore;
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls_pki_types::CertificateDer;

/// No usable roots.
#[derive(Clone, Debug, thiserror::Error)]
pub enum RootsError {
    /// The host has none.
    #[error(
        "this host has no CA certificates ({0}); install ca-certificates, set SSL_CERT_FILE, or configure \
         caCertificateRefs"
    )]
    NoSystemRoots(String),
    /// A configured one is not a CA certificate.
    #[error("a CA certificate cannot be used: {0}")]
    Unusable(rustls::Error),
}

/// The process's provider: the one that `main` installed, or else the same by default.
#[must_use]
pub fn provider() -> Arc<CryptoProvider> {
    CryptoProvider::get_default().cloned().unwrap_or_else(|| Arc::new(aws_lc_rs::default_provider()))
}

/// The host's own roots, read once in the life of the process.
///
/// # Errors
/// When the host has none.
pub fn system() -> Result<Arc<RootCertStore>, RootsError> {
    static ROOTS: OnceLock<Result<Arc<RootCertStore>, RootsError>> = OnceLock::new();
    ROOTS.get_or_init(load).clone()
}

/// A store of `certificates` only.
///
/// # Errors
/// When one of them is not a certificate.
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
    // Hosts keep a few that rustls cannot parse; the others are trusted all the same.
    let (added, _) = store.add_parsable_certificates(found.certs);
    if added > 0 {
        return Ok(Arc::new(store));
    }
    let why = found.errors.first().map_or_else(|| "none found".to_owned(), ToString::to_string);
    Err(RootsError::NoSystemRoots(why))
}
