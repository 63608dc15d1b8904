//! Finds the private key of a chain: a file may have several keys, and one must fit the first certificate.

use std::sync::Arc;

use rustls::sign::SigningKey;
use rustls_pki_types::PrivateKeyDer;
use rustls_pki_types::pem::PemObject;
use x509_parser::der_parser::asn1_rs::Tag;
use x509_parser::der_parser::ber::BerObject;
use x509_parser::der_parser::der::parse_der_sequence;
use x509_parser::prelude::{FromDer, SubjectPublicKeyInfo, X509Certificate};

use crate::tls::{describe, provider, pss};

use super::{ParseError, pem};

/// Returns the key of the first certificate in `chain`. Compares them itself, because rustls does this only for version
/// 3.
pub(super) fn private_key(
    reference: &str,
    chain: &[X509Certificate<'_>],
    text: &[u8],
) -> Result<PrivateKeyDer<'static>, ParseError> {
    let plain = pem::normalised(text);
    let what = || format!("tls.key of {reference}");
    let (mut keys, mut broken) = (Vec::new(), None);
    for key in PrivateKeyDer::pem_slice_iter(&plain) {
        match key {
            Ok(key) => keys.push(pss::as_rsa(key)),
            Err(error) => broken = Some(pem::broken(&what(), &error)),
        }
    }
    let mut usable: Vec<Arc<dyn SigningKey>> = Vec::new();
    for key in &keys {
        let Ok(signing) = provider().key_provider.load_private_key(key.clone_key()) else { continue };
        if chain.first().is_some_and(|leaf| fits(&*signing, leaf)) {
            return Ok(key.clone_key());
        }
        usable.push(signing);
    }
    if memchr::memmem::find(&plain, ENCRYPTED).is_some() {
        return Err(ParseError::EncryptedKey(reference.to_owned()));
    }
    if keys.is_empty() {
        let other = broken.or_else(|| pem::not_pem(&what(), text));
        return Err(other.unwrap_or_else(|| ParseError::NoKey(reference.to_owned())));
    }
    if !keys.iter().any(|key| is_readable(key.secret_der())) {
        return Err(ParseError::BrokenKey(reference.to_owned()));
    }
    let Some(signing) = usable.first() else {
        let kind = chain.first().map(|leaf| describe::kind(leaf.public_key())).unwrap_or_default();
        return Err(ParseError::UnusableKey { reference: reference.to_owned(), kind });
    };
    Err(match chain.iter().position(|certificate| fits(&**signing, certificate)) {
        Some(index) => ParseError::NotFirst { reference: reference.to_owned(), position: index + 1 },
        None => ParseError::KeyMismatch(reference.to_owned()),
    })
}

/// Every encoding of a key is one SEQUENCE that begins with the number of a version, followed by the key.
fn is_readable(der: &[u8]) -> bool {
    let Ok((rest, sequence)) = parse_der_sequence(der) else { return false };
    let is_key = |items: &Vec<BerObject<'_>>| {
        items.len() > 1 && items.first().is_some_and(|version| version.header.tag() == Tag::Integer)
    };
    rest.is_empty() && sequence.as_sequence().is_ok_and(is_key)
}

/// Tells whether the key belongs to the certificate. True if the key does not reveal its public half; then the
/// handshake shows it.
fn fits(key: &dyn SigningKey, certificate: &X509Certificate<'_>) -> bool {
    let Some(own) = key.public_key() else { return true };
    let wanted = certificate.public_key();
    let same = |own: SubjectPublicKeyInfo<'_>| {
        (own.algorithm.algorithm == wanted.algorithm.algorithm || pss::is_limited(wanted))
            && own.subject_public_key.data == wanted.subject_public_key.data
    };
    own.as_ref() == wanted.raw || SubjectPublicKeyInfo::from_der(&own).is_ok_and(|(_, own)| same(own))
}

/// Part of `BEGIN ENCRYPTED PRIVATE KEY` and of the old `Proc-Type: 4,ENCRYPTED`.
const ENCRYPTED: &[u8] = b"ENCRYPTED";
