//! Selects which certificate of a listener a client gets.

use std::sync::Arc;

use rustls::crypto::CryptoProvider;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::{SignatureAlgorithm, SignatureScheme};

use crate::model::{Certificate, Hostname};
use crate::protocol::proxy_header::CertificateAlgorithms;

use super::{TlsError, certified_key, describe};

/// All certificates of a listener with their signing keys.
#[derive(Debug)]
pub(super) struct CertificateChoice {
    candidates: Vec<Candidate>,
}

#[derive(Debug)]
struct Candidate {
    names: Vec<Hostname>,
    /// The Secret.
    reference: String,
    /// End of the chain's validity, in Unix seconds.
    not_after: i64,
    key: Arc<CertifiedKey>,
    algorithms: Option<Arc<CertificateAlgorithms>>,
}

impl CertificateChoice {
    pub(super) fn new(certificates: &[Arc<Certificate>], crypto: &CryptoProvider) -> Result<Self, TlsError> {
        let candidates = certificates.iter().map(|certificate| Candidate::new(certificate, crypto));
        Ok(Self { candidates: candidates.collect::<Result<_, _>>()? })
    }

    /// Returns the algorithms of the certificate that a client with these signature schemes gets for this name.
    pub(super) fn algorithms(
        &self,
        name: Option<&str>,
        schemes: &[SignatureScheme],
    ) -> Option<Arc<CertificateAlgorithms>> {
        self.choose(name, schemes)?.algorithms.clone()
    }

    /// Returns the Secret of a certificate for this name that has expired at `now`, in Unix seconds.
    pub(super) fn expired(&self, name: Option<&str>, now: i64) -> Option<&str> {
        let expired = self.fitting(name).into_iter().find(|candidate| candidate.not_after < now)?;
        Some(&expired.reference)
    }

    /// Selects among the certificates for the name: one that the client can verify, and ECDSA before RSA.
    fn choose(&self, name: Option<&str>, schemes: &[SignatureScheme]) -> Option<&Candidate> {
        let fitting = self.fitting(name);
        let verifiable = |candidate: &&&Candidate| candidate.key.key.choose_scheme(schemes).is_some();
        fitting
            .iter()
            .filter(verifiable)
            .min_by_key(|candidate| candidate.key.key.algorithm() != SignatureAlgorithm::ECDSA)
            .or(fitting.first())
            .copied()
    }

    /// Returns the certificates that match the name best: exactly, else by a wildcard, else the default. The default is
    /// the first certificate, with others for the same names (RSA and ECDSA).
    fn fitting(&self, name: Option<&str>) -> Vec<&Candidate> {
        let by = |fits: &dyn Fn(&Hostname) -> bool| -> Vec<&Candidate> {
            self.candidates.iter().filter(|candidate| candidate.names.iter().any(fits)).collect()
        };
        if let Some(name) = name {
            let exact = by(&|host| host.is_exactly(name));
            let found = if exact.is_empty() { by(&|host| host.covers(name)) } else { exact };
            if !found.is_empty() {
                return found;
            }
        }
        let Some(default) = self.candidates.first() else { return Vec::new() };
        self.candidates
            .iter()
            .filter(|other| std::ptr::eq(*other, default) || other.names == default.names)
            .collect()
    }
}

impl ResolvesServerCert for CertificateChoice {
    /// rustls has already removed the schemes that no common cipher suite supports.
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let chosen = self.choose(hello.server_name(), hello.signature_schemes())?;
        Some(Arc::clone(&chosen.key))
    }
}

impl Candidate {
    fn new(certificate: &Certificate, crypto: &CryptoProvider) -> Result<Self, TlsError> {
        let key = certified_key(certificate, crypto)?;
        let names = certificate.names.iter().map(|name| Hostname::new(name)).collect();
        let algorithms = certificate.chain.first().and_then(|leaf| describe::algorithms(leaf));
        Ok(Self {
            names,
            reference: certificate.reference.clone(),
            not_after: certificate.not_after,
            key: Arc::new(key),
            algorithms: algorithms.map(Arc::new),
        })
    }
}
