//! What a PROXY header says about certificates: names of algorithms as OpenSSL has them, and the common name.

use x509_parser::prelude::{FromDer, SubjectPublicKeyInfo, X509Certificate};
use x509_parser::public_key::PublicKey;

use crate::protocol::proxy_header::CertificateAlgorithms;

/// How a certificate was signed, and what its key is; nothing where that has no name here.
pub(super) fn algorithms(der: &[u8]) -> Option<CertificateAlgorithms> {
    let (_, certificate) = X509Certificate::from_der(der).ok()?;
    let signature = certificate.signature_algorithm.algorithm.to_id_string();
    let (_, signature) = SIGNATURES.iter().find(|(oid, _)| *oid == signature)?;
    Some(CertificateAlgorithms { signature, key: key(certificate.public_key())? })
}

/// The first common name of the subject, as UTF-8. A name with control characters is left out: backends take it
/// for a login.
pub(super) fn common_name(der: &[u8]) -> Option<String> {
    let (_, certificate) = X509Certificate::from_der(der).ok()?;
    let name = certificate.subject().iter_common_name().next()?.as_str().ok()?;
    (!name.chars().any(char::is_control)).then(|| name.to_owned())
}

/// The kind and its size in bits: `RSA2048`, `EC256`.
fn key(info: &SubjectPublicKeyInfo<'_>) -> Option<String> {
    if let Ok(PublicKey::RSA(key)) = info.parsed() {
        let modulus = key.modulus.iter().skip_while(|byte| **byte == 0);
        let first = key.modulus.iter().find(|byte| **byte != 0)?;
        let bits = modulus.count() * 8 - usize::try_from(first.leading_zeros()).ok()?;
        return Some(format!("RSA{bits}"));
    }
    let of = |oid: String| KEYS.iter().find(|(known, _)| *known == oid).map(|(_, name)| (*name).to_owned());
    let curve = info.algorithm.parameters.as_ref().and_then(|parameters| parameters.as_oid().ok());
    of(curve.unwrap_or_else(|| info.algorithm.algorithm.clone()).to_id_string())
}

/// OpenSSL's short names.
const SIGNATURES: [(&str, &str); 8] = [
    ("1.2.840.113549.1.1.10", "RSASSA-PSS"),
    ("1.2.840.113549.1.1.11", "RSA-SHA256"),
    ("1.2.840.113549.1.1.12", "RSA-SHA384"),
    ("1.2.840.113549.1.1.13", "RSA-SHA512"),
    ("1.2.840.10045.4.3.2", "ecdsa-with-SHA256"),
    ("1.2.840.10045.4.3.3", "ecdsa-with-SHA384"),
    ("1.2.840.10045.4.3.4", "ecdsa-with-SHA512"),
    ("1.3.101.112", "ED25519"),
];

/// Curves, and keys that are of one size only.
const KEYS: [(&str, &str); 4] = [
    ("1.2.840.10045.3.1.7", "EC256"),
    ("1.3.132.0.34", "EC384"),
    ("1.3.132.0.35", "EC521"),
    ("1.3.101.112", "ED25519"),
];

#[cfg(test)]
mod tests {
    use super::super::testing::named;
    use super::*;
    use rcgen::{
        KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_ECDSA_P384_SHA384, PKCS_ECDSA_P521_SHA512, PKCS_ED25519,
        PKCS_RSA_SHA256, SignatureAlgorithm,
    };

    fn names(algorithm: &'static SignatureAlgorithm) -> (String, String) {
        let key = KeyPair::generate_for(algorithm).unwrap();
        let certificate = named("leaf", &["a.test"]).self_signed(&key).unwrap();
        let CertificateAlgorithms { signature, key } = algorithms(certificate.der()).unwrap();
        (signature.to_owned(), key)
    }

    #[test]
    fn algorithms_have_openssls_names() {
        for (algorithm, signature, key) in [
            (&PKCS_RSA_SHA256, "RSA-SHA256", "RSA2048"),
            (&PKCS_ECDSA_P256_SHA256, "ecdsa-with-SHA256", "EC256"),
            (&PKCS_ECDSA_P384_SHA384, "ecdsa-with-SHA384", "EC384"),
            (&PKCS_ECDSA_P521_SHA512, "ecdsa-with-SHA512", "EC521"),
            (&PKCS_ED25519, "ED25519", "ED25519"),
        ] {
            assert_eq!(names(algorithm), (signature.to_owned(), key.to_owned()));
        }
        assert_eq!(algorithms(b"no certificate"), None);
    }

    #[test]
    fn the_common_name_is_utf_8() {
        let key = KeyPair::generate().unwrap();
        let certificate = named("Bj\u{f6}rn", &[]).self_signed(&key).unwrap();
        assert_eq!(common_name(certificate.der()).as_deref(), Some("Bj\u{f6}rn"));
        assert_eq!(common_name(b"no certificate"), None);
    }
}
