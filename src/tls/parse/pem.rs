//! Reads PEM as OpenSSL does: ignores text between blocks, a byte order mark and CRLF line ends, and accepts the other
//! labels of certificates.

use std::borrow::Cow;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::{Error, PemObject};
use x509_parser::prelude::{FromDer, X509Certificate};
use zeroize::Zeroizing;

use super::ParseError;

/// Returns all blocks of one type.
pub(super) fn sections<T: PemObject>(what: &str, pem: &[u8]) -> Result<Vec<T>, ParseError> {
    let plain = normalised(pem);
    let found =
        T::pem_slice_iter(&plain).collect::<Result<Vec<_>, _>>().map_err(|error| broken(what, &error))?;
    match not_pem(what, pem) {
        Some(error) if found.is_empty() => Err(error),
        _ => Ok(found),
    }
}

/// Returns all certificates. Drops bytes after a certificate in its block: a TRUSTED CERTIFICATE has OpenSSL's own
/// settings there.
pub(super) fn certificates(what: &str, pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, ParseError> {
    let found: Vec<CertificateDer<'static>> = sections(what, pem)?;
    let cut = |der: CertificateDer<'static>| {
        let length = X509Certificate::from_der(&der).map(|(rest, _)| der.len() - rest.len());
        match length {
            Ok(length) if length < der.len() => {
                CertificateDer::from(der.get(..length).unwrap_or_default().to_vec())
            }
            _ => der,
        }
    };
    Ok(found.into_iter().map(cut).collect())
}

/// Returns the same blocks with the labels that rustls knows. Wiped on drop, because it may contain a key.
pub(super) fn normalised(pem: &[u8]) -> Zeroizing<Vec<u8>> {
    let pem = pem.strip_prefix(BYTE_ORDER_MARK).unwrap_or(pem);
    let mut plain = Zeroizing::new(Vec::with_capacity(pem.len().saturating_add(1)));
    for line in pem.split(|byte| *byte == b'\n') {
        plain.extend_from_slice(&label(line.trim_ascii_end()));
        plain.push(b'\n');
    }
    plain
}

/// Creates an error about `what` from a parser's error, without its input.
pub(super) fn broken(what: &str, error: &Error) -> ParseError {
    let cause = match error {
        Error::MissingSectionEnd { .. } => "a BEGIN line has no END line",
        Error::IllegalSectionStart { .. } => "a BEGIN line is malformed",
        Error::Base64Decode(_) => "it is not base64 between its BEGIN and END lines",
        _ => "it cannot be read",
    };
    ParseError::Pem { what: what.to_owned(), cause: cause.to_owned() }
}

/// Whether there is a private key, encrypted or not.
pub(super) fn has_key(text: &[u8]) -> bool {
    memchr::memmem::find(text, b"PRIVATE KEY-----").is_some()
}

/// Whether there is a certificate, by any of its labels.
pub(super) fn has_certificate(text: &[u8]) -> bool {
    memchr::memmem::find(text, b"CERTIFICATE-----").is_some()
}

/// Whether base64 hides PEM: a Secret's `data` is base64 already.
fn is_encoded_twice(bytes: &[u8]) -> bool {
    // All of a long line need not be decoded: PEM begins with its BEGIN line.
    let start: Vec<u8> = bytes.iter().copied().filter(|byte| !byte.is_ascii_whitespace()).take(16).collect();
    STANDARD.decode(start).is_ok_and(|start| start.starts_with(b"-----BEGIN "))
}

/// Recognises common data that are mistaken for PEM.
pub(super) fn not_pem(what: &str, bytes: &[u8]) -> Option<ParseError> {
    let (form, remedy) = match bytes {
        [DER_SEQUENCE, ..] => (
            "DER or PKCS#12 (binary)",
            "convert it, with `openssl x509 -inform der`, `openssl pkey -inform der` or `openssl pkcs12 -nodes`",
        ),
        [0xff, 0xfe, ..] | [0xfe, 0xff, ..] => ("UTF-16 text", "save it as ASCII or UTF-8"),
        _ if memchr::memmem::find(bytes, b"-----BEGIN PKCS7-----").is_some() => {
            ("PKCS#7", "convert it with `openssl pkcs7 -print_certs`")
        }
        _ if is_encoded_twice(bytes) => (
            "base64 that was encoded twice",
            "encode it once for data, or put the PEM itself into stringData",
        ),
        _ => return None,
    };
    Some(ParseError::NotPem { what: what.to_owned(), form, remedy })
}

fn label(line: &[u8]) -> Cow<'_, [u8]> {
    for other in OTHER_LABELS {
        for edge in ["-----BEGIN ", "-----END "] {
            let rest =
                line.strip_prefix(edge.as_bytes()).and_then(|rest| rest.strip_prefix(other.as_bytes()));
            if rest == Some(b"-----") {
                return format!("{edge}CERTIFICATE-----").into_bytes().into();
            }
        }
    }
    line.into()
}

/// OpenSSL's labels of certificates, besides `CERTIFICATE`.
const OTHER_LABELS: [&str; 2] = ["X509 CERTIFICATE", "TRUSTED CERTIFICATE"];
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";
const DER_SEQUENCE: u8 = 0x30;
