//! Parses CA bundles: the certificates that can be trusted, and warnings about the others.

use rustls_pki_types::CertificateDer;
use x509_parser::oid_registry::{
    OID_X509_EXT_BASIC_CONSTRAINTS, OID_X509_EXT_CERTIFICATE_POLICIES, OID_X509_EXT_CRL_DISTRIBUTION_POINTS,
    OID_X509_EXT_EXTENDED_KEY_USAGE, OID_X509_EXT_INHIBIT_ANY_POLICY, OID_X509_EXT_KEY_USAGE,
    OID_X509_EXT_NAME_CONSTRAINTS, OID_X509_EXT_POLICY_CONSTRAINTS, OID_X509_EXT_POLICY_MAPPINGS,
    OID_X509_EXT_SUBJECT_ALT_NAME, Oid,
};
use x509_parser::prelude::{FromDer, X509Certificate, X509Version};

use crate::tls::parse::{ParseError, pem};

/// A parsed CA bundle.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Authorities {
    /// The trusted certificates without duplicates; may be empty.
    pub certificates: Vec<CertificateDer<'static>>,
    /// Certificates that cannot be the authority of a chain.
    pub unused: Vec<UnusedAuthority>,
}

/// A certificate of a bundle that cannot be the authority of a chain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnusedAuthority {
    /// The position in the bundle, counted from 1.
    pub position: usize,
    /// The reason.
    pub why: Unused,
}

/// Why a certificate cannot be the authority of a chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unused {
    /// It has an unknown critical extension, or the TLS library cannot read it.
    Unknown,
    /// It is not a CA certificate and not self-signed. Only this certificate itself is trusted.
    NotAnAuthority,
}

impl UnusedAuthority {
    /// Describes the problem for a condition. `what` is the bundle.
    #[must_use]
    pub fn problem(&self, what: &str) -> String {
        let why = match self.why {
            Unused::Unknown => {
                "has an unknown critical extension, or an encoding that the TLS library cannot read; it is not used"
            }
            Unused::NotAnAuthority => {
                "is not a CA's (CA:FALSE, or keyUsage without keyCertSign); certificates that it issued are refused"
            }
        };
        format!("certificate {} of {what} {why}", self.position)
    }
}

/// Parses a CA bundle. As with OpenSSL, an unusable certificate does not affect the others.
///
/// # Errors
/// There is no certificate, or one is not a certificate at all.
pub fn authorities(text: &[u8]) -> Result<Authorities, ParseError> {
    let what = || WHAT.to_owned();
    let found = pem::certificates(WHAT, text)?;
    if found.is_empty() {
        return Err(ParseError::NoAuthority);
    }
    let mut authorities = Authorities { certificates: Vec::new(), unused: Vec::new() };
    for (index, der) in found.into_iter().enumerate() {
        let position = index + 1;
        let Ok((_, parsed)) = X509Certificate::from_der(&der) else {
            return Err(ParseError::NotX509 { what: what(), position });
        };
        if has_unknown(&parsed) || webpki::anchor_from_trusted_cert(&der).is_err() {
            authorities.unused.push(UnusedAuthority { position, why: Unused::Unknown });
            continue;
        }
        if !is_authority(&parsed) && parsed.issuer().as_raw() != parsed.subject().as_raw() {
            authorities.unused.push(UnusedAuthority { position, why: Unused::NotAnAuthority });
        }
        if !authorities.certificates.contains(&der) {
            authorities.certificates.push(der);
        }
    }
    Ok(authorities)
}

/// Tells whether OpenSSL accepts the certificate as an issuer, by basicConstraints or, without them, by keyUsage.
/// Version 1 has no extensions, so a trusted certificate of version 1 is accepted.
pub(in crate::tls) fn is_authority(certificate: &X509Certificate<'_>) -> bool {
    if certificate.version() == X509Version::V1 {
        return true;
    }
    let usage = certificate.key_usage().ok().flatten();
    let signs = usage.map(|usage| usage.value.key_cert_sign());
    match certificate.basic_constraints().ok().flatten() {
        Some(constraints) => constraints.value.ca && signs != Some(false),
        None => signs == Some(true),
    }
}

/// webpki ignores unknown critical extensions of an anchor. RFC 5280 section 4.2 and OpenSSL do not.
fn has_unknown(certificate: &X509Certificate<'_>) -> bool {
    let is_known = |oid: &Oid<'_>| KNOWN.iter().any(|known| known == oid);
    certificate.extensions().iter().any(|extension| extension.critical && !is_known(&extension.oid))
}

/// The critical extensions that OpenSSL accepts, except rare ones.
const KNOWN: [Oid<'static>; 10] = [
    OID_X509_EXT_KEY_USAGE,
    OID_X509_EXT_SUBJECT_ALT_NAME,
    OID_X509_EXT_BASIC_CONSTRAINTS,
    OID_X509_EXT_NAME_CONSTRAINTS,
    OID_X509_EXT_CRL_DISTRIBUTION_POINTS,
    OID_X509_EXT_CERTIFICATE_POLICIES,
    OID_X509_EXT_POLICY_MAPPINGS,
    OID_X509_EXT_POLICY_CONSTRAINTS,
    OID_X509_EXT_INHIBIT_ANY_POLICY,
    OID_X509_EXT_EXTENDED_KEY_USAGE,
];

const WHAT: &str = "the CA bundle";
