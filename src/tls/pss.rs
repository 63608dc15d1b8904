//! RSA keys whose certificate allows only PSS signatures (`id-RSASSA-PSS`, RFC 4055 section 1.2).
//!
//! TLS has separate signature schemes for them, `rsa_pss_pss_*` (RFC 8446 section 4.2.3), which rustls does not
//! support. The signatures are the same as with `rsa_pss_rsae_*`; only the number of the scheme differs. rustls does
//! not tell whether a client offers these numbers. A client that does not offer them cannot verify such a certificate
//! anyway.

use std::sync::Arc;

use pkcs8::PrivateKeyInfoRef;
use rustls::sign::{Signer, SigningKey};
use rustls::{Error, SignatureAlgorithm, SignatureScheme};
use rustls_pki_types::{PrivateKeyDer, PrivatePkcs1KeyDer};
use x509_parser::prelude::{FromDer, SubjectPublicKeyInfo, X509Certificate};
use x509_parser::signature_algorithm::RsaSsaPssParams;

/// An RSA key that signs only with PSS.
#[derive(Debug)]
struct PssKey {
    rsa: Arc<dyn SigningKey>,
    /// The schemes that the certificate allows.
    schemes: Vec<SignatureScheme>,
}

/// Signs and reports the scheme's number for such keys.
#[derive(Debug)]
struct PssSigner {
    rsa: Box<dyn Signer>,
    scheme: u16,
}

/// Converts the key to an ordinary RSA key, because the library reads no other kind.
pub(super) fn as_rsa(key: PrivateKeyDer<'static>) -> PrivateKeyDer<'static> {
    let PrivateKeyDer::Pkcs8(pkcs8) = &key else { return key };
    match PrivateKeyInfoRef::try_from(pkcs8.secret_pkcs8_der()) {
        Ok(info) if info.algorithm.oid.to_string() == RSASSA_PSS => {
            PrivatePkcs1KeyDer::from(info.private_key.as_bytes().to_vec()).into()
        }
        _ => key,
    }
}

/// Tells whether a certificate limits its key to PSS.
pub(super) fn is_limited(info: &SubjectPublicKeyInfo<'_>) -> bool {
    info.algorithm.algorithm.to_id_string() == RSASSA_PSS
}

/// Limits the key to what the certificate allows.
pub(super) fn limited(leaf: &[u8], rsa: Arc<dyn SigningKey>) -> Arc<dyn SigningKey> {
    let Ok((_, leaf)) = X509Certificate::from_der(leaf) else { return rsa };
    if !is_limited(leaf.public_key()) {
        return rsa;
    }
    let parameters = leaf.public_key().algorithm.parameters.as_ref();
    let hash = parameters
        .and_then(|any| RsaSsaPssParams::try_from(any).ok())
        .map(|parameters| parameters.hash_algorithm_oid().to_id_string());
    let allowed = SCHEMES.iter().filter(|(_, _, oid)| hash.as_ref().is_none_or(|hash| hash == oid));
    Arc::new(PssKey { rsa, schemes: allowed.map(|(scheme, _, _)| *scheme).collect() })
}

impl SigningKey for PssKey {
    fn choose_scheme(&self, offered: &[SignatureScheme]) -> Option<Box<dyn Signer>> {
        let allowed: Vec<SignatureScheme> =
            self.schemes.iter().copied().filter(|scheme| offered.contains(scheme)).collect();
        let rsa = self.rsa.choose_scheme(&allowed)?;
        let (_, scheme, _) = SCHEMES.iter().find(|(scheme, _, _)| *scheme == rsa.scheme())?;
        Some(Box::new(PssSigner { rsa, scheme: *scheme }))
    }

    fn algorithm(&self) -> SignatureAlgorithm {
        self.rsa.algorithm()
    }
}

impl Signer for PssSigner {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, Error> {
        self.rsa.sign(message)
    }

    fn scheme(&self) -> SignatureScheme {
        SignatureScheme::Unknown(self.scheme)
    }
}

const RSASSA_PSS: &str = "1.2.840.113549.1.1.10";

/// The scheme of an ordinary RSA key, the number of the scheme for PSS keys, and the hash's object identifier.
const SCHEMES: [(SignatureScheme, u16, &str); 3] = [
    (SignatureScheme::RSA_PSS_SHA256, 0x0809, "2.16.840.1.101.3.4.2.1"),
    (SignatureScheme::RSA_PSS_SHA384, 0x080a, "2.16.840.1.101.3.4.2.2"),
    (SignatureScheme::RSA_PSS_SHA512, 0x080b, "2.16.840.1.101.3.4.2.3"),
];
