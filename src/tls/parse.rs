//! Converts the PEM of a Secret or ConfigMap to the model: a chain in order with its key, CA certificates, revocation
//! lists.

mod authorities;
mod chain;
mod error;
mod key;
mod pem;
mod warning;

use std::sync::Arc;

use rustls_pki_types::{CertificateDer, CertificateRevocationListDer};
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

use crate::model::Certificate;
use crate::secret::Secret;

use super::{TlsError, certified_key, provider_with};

pub(in crate::tls) use authorities::is_authority;
pub use authorities::{Authorities, Unused, UnusedAuthority, authorities};
pub(super) use chain::is_same_name;
pub use error::ParseError;
pub use warning::CertificateWarning;

/// A certificate that can be served, with warnings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parsed {
    /// The chain and its key.
    pub certificate: Certificate,
    /// Reasons why clients may refuse it.
    pub warnings: Vec<CertificateWarning>,
}

/// The longest chain that OpenSSL verifies.
const MAX_CHAIN: usize = 100;
/// rustls accepts a handshake message of 65,535 bytes, OpenSSL 100 KiB, Go more. This leaves room for TLS's framing.
const MAX_CHAIN_BYTES: usize = 60_000;
/// Bytes for each certificate in TLS 1.3: its length and the length of its extensions (RFC 8446 section 4.4.2).
const CERTIFICATE_OVERHEAD: usize = 5;

/// Parses a certificate chain and its key from a `kubernetes.io/tls` Secret.
///
/// # Errors
/// No handshake could succeed with them. An expired certificate is not an error, because the result has its dates.
pub fn certificate(reference: &str, chain_pem: &[u8], key_pem: &[u8]) -> Result<Parsed, ParseError> {
    let what = format!("tls.crt of {reference}");
    check_files(reference, chain_pem, key_pem)?;
    let found = pem::certificates(&what, chain_pem)?;
    let parsed = parse_all(&what, &found)?;
    let Some(leaf) = parsed.first() else { return Err(ParseError::NoCertificate(reference.to_owned())) };
    let arranged = chain::arrange(&parsed);
    let chain: Vec<CertificateDer<'static>> =
        arranged.order.iter().filter_map(|index| found.get(*index).cloned()).collect();
    check_length(&what, &chain)?;
    let key = key::private_key(reference, &parsed, key_pem)?;
    let served = arranged.order.iter().filter_map(|index| parsed.get(*index));
    let certificate = Certificate {
        reference: reference.to_owned(),
        chain,
        key: Secret::from(key.secret_der()),
        names: names_of(leaf),
        not_before: leaf.validity().not_before.timestamp(),
        not_after: served.map(|one| one.validity().not_after.timestamp()).min().unwrap_or(i64::MAX),
    };
    let warnings = arranged.warning.into_iter().chain(CertificateWarning::of(leaf)).collect();
    Ok(Parsed { certificate, warnings })
}

/// Parses certificate revocation lists. Returns them in DER.
///
/// # Errors
/// There is no list, or one is invalid.
pub fn crls(pem: &[u8]) -> Result<Vec<Vec<u8>>, ParseError> {
    let found: Vec<CertificateRevocationListDer<'static>> = pem::sections("the revocation list", pem)?;
    if found.is_empty() {
        return Err(ParseError::NoCrl);
    }
    for (index, der) in found.iter().enumerate() {
        webpki::OwnedCertRevocationList::from_der(der)
            .map_err(|error| ParseError::BadCrl { position: index + 1, cause: error.to_string() })?;
    }
    Ok(found.into_iter().map(|der| der.as_ref().to_vec()).collect())
}

/// Checks that all `names` are supported cipher suites.
///
/// # Errors
/// A name is unknown. The message lists the supported ones.
pub fn cipher_suites(names: &[String]) -> Result<(), ParseError> {
    match provider_with(names) {
        Ok(_) => Ok(()),
        Err(TlsError::CipherSuites(text)) => Err(ParseError::CipherSuites(text)),
        Err(other) => Err(ParseError::CipherSuites(other.to_string())),
    }
}

/// Tells whether TLS 1.3 has a suite among `names`. An empty list stands for all suites.
#[must_use]
pub fn has_suite_of_tls13(names: &[String]) -> bool {
    let of_tls13 = |suite: &rustls::SupportedCipherSuite| suite.tls13().is_some();
    provider_with(names).is_ok_and(|provider| provider.cipher_suites.iter().any(of_tls13))
}

/// Tells whether a client could agree on one of the suites `names`: one of TLS 1.3, or one that fits the key of a
/// certificate. An empty list stands for all suites.
#[must_use]
pub fn has_usable_suite(names: &[String], certificates: &[Arc<Certificate>]) -> bool {
    if names.is_empty() || certificates.is_empty() || has_suite_of_tls13(names) {
        return true;
    }
    let Ok(provider) = provider_with(names) else { return true };
    let mut keys = certificates.iter().filter_map(|certificate| certified_key(certificate, &provider).ok());
    keys.any(|key| {
        let mut suites = provider.cipher_suites.iter();
        suites.any(|suite| suite.usable_for_signature_algorithm(key.key.algorithm()))
    })
}

/// What is easily mistaken where files become a Secret.
fn check_files(reference: &str, chain: &[u8], key: &[u8]) -> Result<(), ParseError> {
    for (name, text) in [("tls.crt", chain), ("tls.key", key)] {
        if text.trim_ascii().is_empty() {
            return Err(ParseError::Empty(format!("{name} of {reference}")));
        }
    }
    let is_swapped = pem::has_key(chain) && !pem::has_certificate(chain) && pem::has_certificate(key);
    if is_swapped && !pem::has_key(key) { Err(ParseError::Swapped(reference.to_owned())) } else { Ok(()) }
}

fn parse_all<'a>(
    what: &str,
    chain: &'a [CertificateDer<'static>],
) -> Result<Vec<X509Certificate<'a>>, ParseError> {
    let parse = |(index, der): (usize, &'a CertificateDer<'static>)| match X509Certificate::from_der(der) {
        Ok((_, parsed)) => Ok(parsed),
        Err(_) => Err(ParseError::NotX509 { what: what.to_owned(), position: index + 1 }),
    };
    chain.iter().enumerate().map(parse).collect()
}

fn check_length(what: &str, chain: &[CertificateDer<'static>]) -> Result<(), ParseError> {
    let bytes = chain.iter().map(|der| der.len().saturating_add(CERTIFICATE_OVERHEAD)).sum();
    if chain.len() > MAX_CHAIN || bytes > MAX_CHAIN_BYTES {
        return Err(ParseError::ChainTooLong { what: what.to_owned(), certificates: chain.len(), bytes });
    }
    Ok(())
}

/// Returns the DNS names of subjectAltName. Without any, returns the common name, because old internal CAs use only
/// that.
fn names_of(leaf: &X509Certificate<'_>) -> Vec<String> {
    let dns = |name: &GeneralName<'_>| match name {
        GeneralName::DNSName(name) => Some(name.to_ascii_lowercase()),
        _ => None,
    };
    let alternative = leaf.subject_alternative_name().ok().flatten();
    let names: Vec<_> =
        alternative.iter().flat_map(|extension| &extension.value.general_names).filter_map(dns).collect();
    if !names.is_empty() {
        return names;
    }
    let common = leaf.subject().iter_common_name().filter_map(|name| name.as_str().ok());
    common.map(str::to_ascii_lowercase).collect()
}

#[cfg(test)]
mod tests;
