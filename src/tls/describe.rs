//! Describes certificates for PROXY headers and messages: OpenSSL's names of algorithms, and the common name.

use x509_parser::asn1_rs::Tag;
use x509_parser::prelude::{FromDer, SubjectPublicKeyInfo, X509Certificate};
use x509_parser::public_key::PublicKey;

use crate::protocol::proxy_header::CertificateAlgorithms;

/// Returns the algorithms of the certificate's signature and key; `None` if one of them is unknown here.
pub(super) fn algorithms(der: &[u8]) -> Option<CertificateAlgorithms> {
    let (_, certificate) = X509Certificate::from_der(der).ok()?;
    let signature = certificate.signature_algorithm.algorithm.to_id_string();
    let (_, signature) = SIGNATURES.iter().find(|(oid, _)| *oid == signature)?;
    Some(CertificateAlgorithms { signature, key: key(certificate.public_key())? })
}

/// Returns the first common name of the subject in UTF-8. `None` if it has control characters, because backends use the
/// name as a login.
pub(super) fn common_name(der: &[u8]) -> Option<String> {
    let (_, certificate) = X509Certificate::from_der(der).ok()?;
    let name = certificate.subject().iter_common_name().next()?.as_str().ok()?;
    (!name.chars().any(char::is_control)).then(|| name.to_owned())
}

/// Returns the signature's hash if it is so weak that signatures can be forged.
pub(super) fn weak_hash(certificate: &X509Certificate<'_>) -> Option<&'static str> {
    let signature = certificate.signature_algorithm.algorithm.to_id_string();
    WEAK_SIGNATURES.iter().find(|(oid, _)| *oid == signature).map(|(_, hash)| *hash)
}

/// Describes the type of a key, for messages about unusable keys.
pub(super) fn kind(info: &SubjectPublicKeyInfo<'_>) -> String {
    if let Some(bits) = rsa_bits(info) {
        return format!("RSA of {bits} bits");
    }
    let oid = identifier(info);
    match KEYS.iter().chain(&STRANGE_KEYS).find(|(known, _)| *known == oid) {
        Some((_, name)) => (*name).to_owned(),
        None => format!("object identifier {oid}"),
    }
}

/// Returns the type and size in bits, such as `RSA2048` or `EC256`.
fn key(info: &SubjectPublicKeyInfo<'_>) -> Option<String> {
    if let Some(bits) = rsa_bits(info) {
        return Some(format!("RSA{bits}"));
    }
    let oid = identifier(info);
    KEYS.iter().find(|(known, _)| *known == oid).map(|(_, name)| (*name).to_owned())
}

/// Returns the object identifier of the curve if it is named, else of the algorithm.
fn identifier(info: &SubjectPublicKeyInfo<'_>) -> String {
    let named = info.algorithm.parameters.as_ref().filter(|parameters| parameters.tag() == Tag::Oid);
    let curve = named.and_then(|parameters| parameters.as_oid().ok());
    curve.unwrap_or_else(|| info.algorithm.algorithm.clone()).to_id_string()
}

fn rsa_bits(info: &SubjectPublicKeyInfo<'_>) -> Option<usize> {
    let Ok(PublicKey::RSA(key)) = info.parsed() else { return None };
    let modulus = key.modulus.iter().skip_while(|byte| **byte == 0);
    let first = key.modulus.iter().find(|byte| **byte != 0)?;
    Some(modulus.count() * 8 - usize::try_from(first.leading_zeros()).ok()?)
}

/// OpenSSL's short names of signature algorithms.
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

/// RSA and ECDSA signatures with hashes that have known collisions.
const WEAK_SIGNATURES: [(&str, &str); 4] = [
    ("1.2.840.113549.1.1.4", "MD5"),
    ("1.2.840.113549.1.1.5", "SHA-1"),
    ("1.2.840.10045.4.1", "SHA-1"),
    ("1.3.14.3.2.29", "SHA-1"),
];

/// Types of keys that occur in certificates but are not supported for TLS here.
const STRANGE_KEYS: [(&str, &str); 9] = [
    ("1.2.840.113549.1.1.10", "RSA-PSS"),
    ("1.2.840.10040.4.1", "DSA"),
    ("1.2.840.10045.2.1", "EC with explicit parameters"),
    ("1.3.132.0.10", "EC secp256k1"),
    ("1.3.132.0.33", "EC P-224"),
    ("1.3.36.3.3.2.8.1.1.7", "EC brainpoolP256r1"),
    ("1.3.36.3.3.2.8.1.1.11", "EC brainpoolP384r1"),
    ("1.3.36.3.3.2.8.1.1.13", "EC brainpoolP512r1"),
    ("1.3.101.113", "Ed448"),
];

/// Curves, and other types of keys with a fixed size.
const KEYS: [(&str, &str); 4] = [
    ("1.2.840.10045.3.1.7", "EC256"),
    ("1.3.132.0.34", "EC384"),
    ("1.3.132.0.35", "EC521"),
    ("1.3.101.112", "ED25519"),
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tls::testing::named;
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
