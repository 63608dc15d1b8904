//! The certificates of a CA bundle: those that can be trusted, and what there is to say about the others.

use rustls_pki_types::CertificateDer;
use x509_parser::oid_registry::{
    OID_X509_EXT_BASIC_CONSTRAINTS, OID_X509_EXT_CERTIFICATE_POLICIES, OID_X509_EXT_CRL_DISTRIBUTION_POINTS,
    OID_X509_EXT_EXTENDED_KEY_USAGE, OID_X509_EXT_INHIBIT_ANY_POLICY, OID_X509_EXT_KEY_USAGE,
    OID_X509_EXT_NAME_CONSTRAINTS, OID_X509_EXT_POLICY_CONSTRAINTS, OID_X509_EXT_POLICY_MAPPINGS,
    OID_X509_EXT_SUBJECT_ALT_NAME, Oid,
};
use x509_parser::prelude::{FromDer, X509Certificate, X509Version};

use crate::tls::parse::{ParseError, pem};

/// A CA bundle as it is used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Authorities {
    /// Those that are trusted, each once; perhaps none.
    pub certificates: Vec<CertificateDer<'static>>,
    /// Those through which no chain goes.
    pub unused: Vec<UnusedAuthority>,
}

/// A certificate of a bundle through which no chain goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnusedAuthority {
    /// In the bundle, counted from 1.
    pub position: usize,
    /// Why.
    pub why: Unused,
}

/// Why no chain goes through a certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unused {
    /// It has something critical that nobody knows, or that the TLS library cannot read.
    Unknown,
    /// It says that it is no authority, and is not self-signed: only the very certificate is trusted.
    NotAnAuthority,
}

impl UnusedAuthority {
    /// What is unusual about it.
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

/// The certificates of a CA bundle. As with OpenSSL, one that cannot be used does not spoil the others.
///
/// # Errors
/// When there is none, or one is no certificate at all.
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

/// Whether OpenSSL lets a chain go through it: basicConstraints says so or, without them, keyUsage. A certificate of
/// version 1 cannot say anything and counts where it is trusted.
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

/// webpki ignores critical extensions of an anchor that it does not know; RFC 5280 section 4.2 and OpenSSL do not.
fn has_unknown(certificate: &X509Certificate<'_>) -> bool {
    let is_known = |oid: &Oid<'_>| KNOWN.iter().any(|known| known == oid);
    certificate.extensions().iter().any(|extension| extension.critical && !is_known(&extension.oid))
}

/// The extensions that OpenSSL allows to be critical, but for rare ones that we do not look at.
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
