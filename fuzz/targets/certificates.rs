//! PEM and X.509 of Secrets and ConfigMaps: chains with their key, bundles of authorities, revocation lists.

use mailgress::protocol::sasl::encode_base64;
use mailgress::tls::parse::{ParseError, authorities, certificate, crls};

use super::choices::{Choices, SEPARATOR, bit};

/// Invariants:
/// * no panic and no endless loop in our parsers or those of the libraries;
/// * what is accepted is accepted again, in the form in which it is kept;
/// * a message has nothing of a key.
pub(super) fn target(data: &[u8]) {
    let mut choices = Choices::new(data);
    let flags = choices.byte();
    let rest = choices.rest();
    if bit(flags, 0) {
        // DER, so that changes reach the parsers of X.509 through base64.
        let chain = block("CERTIFICATE", rest);
        check(&chain, &block("PRIVATE KEY", rest));
        check_bundle(&chain);
        check_crls(&block("X509 CRL", rest));
        return;
    }
    let mut parts = rest.splitn(2, |byte| *byte == SEPARATOR);
    let (chain, key) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
    check(chain, key);
    check_bundle(chain);
    check_crls(chain);
}

fn check(chain: &[u8], key: &[u8]) {
    match certificate("mail/tls", chain, key) {
        Ok(parsed) => {
            let kept = &parsed.certificate;
            assert!((1..=100).contains(&kept.chain.len()));
            assert!(kept.names.iter().all(|name| !name.bytes().any(|byte| byte.is_ascii_uppercase())));
            let chain: Vec<u8> = kept.chain.iter().flat_map(|der| block("CERTIFICATE", der)).collect();
            let again = certificate("mail/tls", &chain, key).expect("the kept chain is accepted");
            assert_eq!(again.certificate, parsed.certificate);
        }
        Err(error) => check_message(&error, key),
    }
}

fn check_bundle(pem: &[u8]) {
    let Ok(found) = authorities(pem) else { return };
    let kept: Vec<u8> = found.certificates.iter().flat_map(|der| block("CERTIFICATE", der)).collect();
    if !kept.is_empty() {
        let again = authorities(&kept).expect("the kept authorities are accepted");
        assert_eq!(again.certificates, found.certificates);
    }
}

fn check_crls(pem: &[u8]) {
    let Ok(found) = crls(pem) else { return };
    let kept: Vec<u8> = found.iter().flat_map(|der| block("X509 CRL", der)).collect();
    assert_eq!(crls(&kept).expect("the kept lists are accepted"), found);
}

/// Checks that a message repeats no line of a key.
fn check_message(error: &ParseError, key: &[u8]) {
    let message = error.to_string();
    for line in key.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii).filter(|line| line.len() >= 24) {
        let line = String::from_utf8_lossy(line);
        assert!(line.starts_with("-----") || !message.contains(&*line), "{message}");
    }
}

/// Returns a block of PEM.
pub(super) fn block(label: &str, der: &[u8]) -> Vec<u8> {
    format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", encode_base64(der)).into_bytes()
}
