//! From a Secret's or ConfigMap's PEM to what the model holds: a chain in order, with the key that fits.

use rustls::crypto::CryptoProvider;
use rustls::sign::CertifiedKey;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer};
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate, X509Version};

use crate::model::Certificate;
use crate::secret::Secret;
use crate::words::counted;

use super::{TlsError, provider, provider_with};

/// What is wrong with PEM that a manifest refers to, and what to do. Never holds key material.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ParseError {
    /// No certificate in the chain.
    #[error("{0} holds no certificate; put the PEM chain into tls.crt, the server's own certificate first")]
    NoCertificate(String),
    /// No CA certificate.
    #[error("no CA certificate found; put one or more PEM certificates into ca.crt")]
    NoAuthority,
    /// No revocation list.
    #[error("no certificate revocation list found; put one or more PEM X509 CRL blocks into ca.crl")]
    NoCrl,
    /// Broken PEM.
    #[error("{what} is not valid PEM: {cause}; copy it again, with its BEGIN and END lines")]
    Pem {
        /// What was read.
        what: String,
        /// What the parser says.
        cause: String,
    },
    /// Broken DER in good PEM.
    #[error("certificate {position} of {what} is not a valid X.509 certificate; issue it again")]
    NotX509 {
        /// What was read.
        what: String,
        /// Counted from 1.
        position: usize,
    },
    /// Of X.509 version 1, as `openssl x509 -req` makes them without extensions.
    #[error(
        "the first certificate of {0} is of X.509 version 1, which TLS libraries refuse; issue it with extensions, at \
         least subjectAltName, which makes it version 3"
    )]
    OldVersion(String),
    /// A revocation list that cannot be read.
    #[error("certificate revocation list {position} cannot be read ({cause}); issue it again")]
    BadCrl {
        /// Counted from 1.
        position: usize,
        /// What the parser says.
        cause: String,
    },
    /// No key.
    #[error("{0} holds no private key; put it into tls.key as PEM (PKCS#8, PKCS#1 or SEC1)")]
    NoKey(String),
    /// A key behind a passphrase.
    #[error("the private key of {0} is encrypted; store it without a passphrase (openssl pkey)")]
    EncryptedKey(String),
    /// A key that cannot sign.
    #[error(
        "the private key of {0} is of a kind that TLS does not use; use RSA (2048 bits or more), P-256, \
             P-384, P-521 or Ed25519"
    )]
    UnusableKey(String),
    /// A key of another certificate.
    #[error(
        "the private key of {0} does not belong to its first certificate; put the server's own \
             certificate first, or the right key beside it"
    )]
    KeyMismatch(String),
    /// A chain out of order.
    #[error(
        "the chain of {what} is out of order: certificate {position} (of {issuer}) has not issued the one \
             before it (which was issued by {expected}); sort the chain from the server's own certificate up"
    )]
    ChainOrder {
        /// What was read.
        what: String,
        /// Counted from 1.
        position: usize,
        /// Its subject.
        issuer: String,
        /// The issuer that the one before it names.
        expected: String,
    },
    /// A chain that no client takes.
    #[error(
        "the chain of {what} has {number}, which {verb} {bytes} bytes in a handshake; TLS clients refuse \
             more than {MAX_CHAIN} certificates or {MAX_CHAIN_BYTES} bytes: leave only the server's own certificate and \
             its intermediates in it",
        number = counted(*certificates, "certificate"),
        verb = if *certificates == 1 { "is" } else { "are" }
    )]
    ChainTooLong {
        /// What was read.
        what: String,
        /// How many there are.
        certificates: usize,
        /// How large TLS's Certificate message is.
        bytes: usize,
    },
    /// Unknown or useless cipher suites.
    #[error("{0}")]
    CipherSuites(String),
}

/// OpenSSL verifies no deeper chain.
const MAX_CHAIN: usize = 100;
/// rustls takes a handshake message of 65,535 bytes, OpenSSL 100 KiB, Go more; a margin for what TLS puts around it.
const MAX_CHAIN_BYTES: usize = 60_000;
/// Around each certificate in TLS 1.3: its length, and that of its extensions (RFC 8446 section 4.4.2).
const CERTIFICATE_OVERHEAD: usize = 5;

/// A certificate chain and its key, as a `kubernetes.io/tls` Secret holds them.
///
/// # Errors
/// When anything about them would fail in a handshake. Expiry is not an error: it is in the result.
pub fn certificate(reference: &str, chain_pem: &[u8], key_pem: &[u8]) -> Result<Certificate, ParseError> {
    let what = || format!("tls.crt of {reference}");
    let chain = certificates(&what(), chain_pem)?;
    check_length(&what(), &chain)?;
    let parsed = parse_all(&what(), &chain)?;
    let Some(leaf) = parsed.first() else { return Err(ParseError::NoCertificate(reference.to_owned())) };
    check_order(&what(), &parsed)?;
    let (names, not_before) = (names_of(leaf), leaf.validity().not_before.timestamp());
    let not_after = earliest_expiry(&parsed);
    let key = private_key(reference, key_pem)?;
    let secret = Secret::from(key.secret_der());
    check_key(reference, &chain, key)?;
    Ok(Certificate { reference: reference.to_owned(), chain, key: secret, names, not_before, not_after })
}

/// The certificates of a CA bundle.
///
/// # Errors
/// When there is none, or one is broken.
pub fn authorities(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, ParseError> {
    const WHAT: &str = "the CA bundle";
    let found = certificates(WHAT, pem)?;
    if found.is_empty() {
        return Err(ParseError::NoAuthority);
    }
    for (index, der) in found.iter().enumerate() {
        if webpki::anchor_from_trusted_cert(der).is_err() {
            return Err(ParseError::NotX509 { what: WHAT.to_owned(), position: index + 1 });
        }
    }
    Ok(found)
}

/// Certificate revocation lists, in DER.
///
/// # Errors
/// When there is none, or one is broken.
pub fn crls(pem: &[u8]) -> Result<Vec<Vec<u8>>, ParseError> {
    let found: Vec<CertificateRevocationListDer<'static>> = sections("the revocation list", pem)?;
    if found.is_empty() {
        return Err(ParseError::NoCrl);
    }
    for (index, der) in found.iter().enumerate() {
        webpki::OwnedCertRevocationList::from_der(der)
            .map_err(|error| ParseError::BadCrl { position: index + 1, cause: error.to_string() })?;
    }
    Ok(found.into_iter().map(|der| der.as_ref().to_vec()).collect())
}

/// Whether all `names` are cipher suites that are spoken here.
///
/// # Errors
/// When one is not; the message lists those that are.
pub fn cipher_suites(names: &[String]) -> Result<(), ParseError> {
    match provider_with(names) {
        Ok(_) => Ok(()),
        Err(TlsError::CipherSuites(text)) => Err(ParseError::CipherSuites(text)),
        Err(other) => Err(ParseError::CipherSuites(other.to_string())),
    }
}

fn sections<T: PemObject>(what: &str, pem: &[u8]) -> Result<Vec<T>, ParseError> {
    let broken = |error: rustls_pki_types::pem::Error| ParseError::Pem {
        what: what.to_owned(),
        cause: describe(&error),
    };
    T::pem_slice_iter(pem).collect::<Result<Vec<_>, _>>().map_err(broken)
}

fn certificates(what: &str, pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, ParseError> {
    sections(what, pem)
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

/// Each certificate must be issued by the next; clients are not required to sort (RFC 5246 section
/// 7.4.2), and RFC 8446 only asks them to cope.
fn check_order(what: &str, chain: &[X509Certificate<'_>]) -> Result<(), ParseError> {
    for (index, (child, parent)) in chain.iter().zip(chain.iter().skip(1)).enumerate() {
        if child.issuer().as_raw() != parent.subject().as_raw() {
            return Err(ParseError::ChainOrder {
                what: what.to_owned(),
                position: index + 2,
                issuer: parent.subject().to_string(),
                expected: child.issuer().to_string(),
            });
        }
    }
    Ok(())
}

/// DNS names of the subjectAltName; only without any, the common name (as old in-house CAs still do).
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

fn earliest_expiry(chain: &[X509Certificate<'_>]) -> i64 {
    chain.iter().map(|certificate| certificate.validity().not_after.timestamp()).min().unwrap_or(i64::MAX)
}

fn private_key(reference: &str, pem: &[u8]) -> Result<PrivateKeyDer<'static>, ParseError> {
    if pem.windows(ENCRYPTED.len()).any(|window| window == ENCRYPTED) {
        return Err(ParseError::EncryptedKey(reference.to_owned()));
    }
    PrivateKeyDer::from_pem_slice(pem).map_err(|error| match error {
        rustls_pki_types::pem::Error::NoItemsFound => ParseError::NoKey(reference.to_owned()),
        other => ParseError::Pem { what: format!("tls.key of {reference}"), cause: describe(&other) },
    })
}

/// In `BEGIN ENCRYPTED PRIVATE KEY` and in the old `Proc-Type: 4,ENCRYPTED`.
const ENCRYPTED: &[u8] = b"ENCRYPTED";

fn check_key(
    reference: &str,
    chain: &[CertificateDer<'static>],
    key: PrivateKeyDer<'static>,
) -> Result<(), ParseError> {
    let crypto: &CryptoProvider = &provider();
    let unusable = |_| ParseError::UnusableKey(reference.to_owned());
    let key = crypto.key_provider.load_private_key(key).map_err(unusable)?;
    match CertifiedKey::new(chain.to_vec(), key).keys_match() {
        Err(rustls::Error::InconsistentKeys(rustls::InconsistentKeys::KeyMismatch)) => {
            Err(ParseError::KeyMismatch(reference.to_owned()))
        }
        Err(rustls::Error::InvalidCertificate(_)) => {
            let what = format!("tls.crt of {reference}");
            let version = chain.first().and_then(|leaf| X509Certificate::from_der(leaf).ok());
            match version.map(|(_, leaf)| leaf.version()) {
                Some(X509Version::V1) => Err(ParseError::OldVersion(what)),
                _ => Err(ParseError::NotX509 { what, position: 1 }),
            }
        }
        _ => Ok(()),
    }
}

/// The parser's own words, except where they would quote the input.
fn describe(error: &rustls_pki_types::pem::Error) -> String {
    use rustls_pki_types::pem::Error;
    match error {
        Error::MissingSectionEnd { .. } => "a BEGIN line has no END line".to_owned(),
        Error::IllegalSectionStart { .. } => "a BEGIN line is malformed".to_owned(),
        Error::Base64Decode(_) => "it is not base64 between its BEGIN and END lines".to_owned(),
        _ => "it cannot be read".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{self, Ca, Issued};
    use super::*;
    use rcgen::{KeyPair, SanType, date_time_ymd};

    fn parse(chain: &str, key: &str) -> Result<Certificate, ParseError> {
        certificate("mail/tls", chain.as_bytes(), key.as_bytes())
    }

    fn parse_issued(issued: &Issued) -> Result<Certificate, ParseError> {
        parse(&issued.chain, &issued.key.serialize_pem())
    }

    #[test]
    fn holds_names_and_the_earliest_expiry_of_the_chain() {
        let ca = Ca::new("ca");
        let mut params = testing::named("leaf", &["Mail.Test", "*.mail.test"]);
        params.not_after = date_time_ymd(2031, 1, 1);
        let issued = ca.issue_with(params, KeyPair::generate().unwrap());
        let chain = format!("{}{}", issued.chain, ca.pem());
        let parsed = parse(&chain, &issued.key.serialize_pem()).unwrap();
        assert_eq!(parsed.names, ["mail.test", "*.mail.test"]);
        assert_eq!(parsed.not_after, date_time_ymd(2031, 1, 1).unix_timestamp());
        assert_eq!(parsed.chain.len(), 2);
        let shown = format!("{parsed:?}");
        assert!(shown.contains("********") && !shown.contains("PRIVATE"), "{shown}");
    }

    #[test]
    fn the_common_name_stands_in_for_absent_alternative_names() {
        let ca = Ca::new("ca");
        let issued = ca.issue_with(testing::named("Old.Test", &[]), KeyPair::generate().unwrap());
        assert_eq!(parse_issued(&issued).unwrap().names, ["old.test"]);
    }

    /// What `openssl x509 -req` makes without extensions.
    const VERSION_1: &str = "\
-----BEGIN CERTIFICATE-----
MIIBFzCBvwIUK5cJ5DQ2acneO0rUtjBuvWhBrOgwCgYIKoZIzj0EAwIwDjEMMAoG
A1UEAwwDb2xkMCAXDTI2MTEyMjAwMzM0NFoYDzIxMjYxMDI5MDAzMzQ0WjAOMQww
CgYDVQQDDANvbGQwWTATBgcqhkjOPQIBBggqhkjOPQMBBwNCAATXeetcQ1raXgjC
E6p1Hd7qRBT5aqmljLOR1HbxBGEom4itYoH8rJr6jx7Tycv0TiaBsrP7EvxTTrY+
aVIxuqGuMAoGCCqGSM49BAMCA0cAMEQCIFy6jAC7521C1cqufxiMTa8YsRyqB8Vd
RxvXpgGxraxxAiAB1cuBHijkYrkuaQUvg3IHh8XEHJ5S9FNZ6eW3jS6gCQ==
-----END CERTIFICATE-----
";

    #[test]
    fn says_what_is_wrong_and_what_to_do() {
        let ca = Ca::new("ca");
        let (mine, other) = (ca.issue(&["a.test"]), ca.issue(&["b.test"]));
        let key = mine.key.serialize_pem();
        let cases = [
            (parse("", &key), "holds no certificate"),
            (parse(&mine.chain, ""), "holds no private key"),
            (parse(&mine.chain, &other.key.serialize_pem()), "does not belong"),
            (parse(&format!("{}{}", mine.chain, other.chain), &key), "out of order"),
            (parse(&format!("{}{}", ca.pem(), mine.chain), &key), "out of order"),
            (parse(&mine.chain.replace("-----END CERTIFICATE-----", ""), &key), "no END line"),
            (
                parse("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", &key),
                "not a valid X.509",
            ),
            (parse(VERSION_1, &key), "of X.509 version 1"),
            (parse(&mine.chain, "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n"), "encrypted"),
            (
                parse(&mine.chain, "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"),
                "of a kind that TLS does not use",
            ),
        ];
        for (outcome, expected) in cases {
            let text = outcome.unwrap_err().to_string();
            assert!(text.contains(expected) && text.contains("mail/tls"), "{text}");
        }
    }

    #[test]
    fn a_chain_that_no_client_takes_is_refused() {
        let ca = Ca::new("ca");
        let mine = ca.issue(&["a.test"]);
        // A root is its own issuer, so the order is right.
        let chain = |roots: usize| format!("{}{}", mine.chain, ca.pem().repeat(roots));
        let key = mine.key.serialize_pem();
        let error = parse(&chain(2000), &key).unwrap_err().to_string();
        assert!(
            error.starts_with("the chain of tls.crt of mail/tls has 2001 certificates, which are "),
            "{error}"
        );
        assert!(error.contains("refuse more than 100 certificates or 60000 bytes"), "{error}");
        assert!(parse(&chain(100), &key).is_err());
        assert_eq!(parse(&chain(99), &key).unwrap().chain.len(), 100);
        // Few certificates, and large ones.
        let mut params = testing::named("large", &[]);
        params.subject_alt_names = (0..2000)
            .map(|n| SanType::DnsName(format!("{n}.a-long-name.test").try_into().unwrap()))
            .collect();
        let large = ca.issue_with(params, KeyPair::generate().unwrap());
        assert!(parse_issued(&large).is_ok());
        let mut params = testing::named("larger", &[]);
        params.subject_alt_names = (0..4000)
            .map(|n| SanType::DnsName(format!("{n}.a-long-name.test").try_into().unwrap()))
            .collect();
        let larger = ca.issue_with(params, KeyPair::generate().unwrap());
        assert!(matches!(parse_issued(&larger), Err(ParseError::ChainTooLong { certificates: 1, .. })));
    }

    #[test]
    fn bundles_and_lists_are_checked_one_by_one() {
        let (ca, other) = (Ca::new("ca"), Ca::new("other"));
        let bundle = format!("{}{}", ca.pem(), other.pem());
        assert_eq!(authorities(bundle.as_bytes()).unwrap(), [ca.der(), other.der()]);
        assert_eq!(authorities(b"nothing").unwrap_err(), ParseError::NoAuthority);
        assert_eq!(crls(ca.crl(2090).pem().unwrap().as_bytes()).unwrap().len(), 1);
        assert_eq!(crls(b"").unwrap_err(), ParseError::NoCrl);
        let broken = b"-----BEGIN X509 CRL-----\nAAAA\n-----END X509 CRL-----\n";
        assert!(matches!(crls(broken).unwrap_err(), ParseError::BadCrl { position: 1, .. }));
    }

    #[test]
    fn cipher_suites_are_iana_names() {
        assert_eq!(cipher_suites(&["TLS_AES_128_GCM_SHA256".to_owned()]), Ok(()));
        let error = cipher_suites(&["HIGH:!aNULL".to_owned()]).unwrap_err();
        assert!(error.to_string().contains("TLS_AES_128_GCM_SHA256"), "{error}");
    }
}
