//! What OpenSSL refuses when nginx starts: files and names of TLS that have no equivalent in manifests. A configuration
//! with which nginx does not start is not imported.

use super::certificates::blocks;
use super::effective::Server;
use super::plan::Context;
use super::problem::{Findings, Problem};
use super::tree::Directive;

/// Checks `ssl_dhparam`, `ssl_ciphers` and `ssl_ecdh_curve` of a server with TLS.
pub(super) fn check(server: &Server<'_>, context: &Context<'_>, found: &mut Findings) {
    let checks = [
        server.get("ssl_dhparam").map(|directive| parameters(directive, context)),
        server.get("ssl_ciphers").map(ciphers),
        server.get("ssl_ecdh_curve").map(curves),
    ];
    for check in checks.into_iter().flatten() {
        found.keep(check);
    }
}

fn parameters(directive: &Directive, context: &Context<'_>) -> Result<(), Problem> {
    if directive.argument(0).is_empty() || context.is_elsewhere(directive) {
        return Ok(());
    }
    let text = context.bytes(directive, "DH parameters")?;
    if blocks(&String::from_utf8_lossy(&text), |label| label.ends_with("DH PARAMETERS")).is_empty() {
        let file = directive.argument(0);
        return Err(directive.problem(format!(
            "cannot load DH parameters \"{file}\": the file contains no DH parameters in PEM"
        )));
    }
    Ok(())
}

fn ciphers(directive: &Directive) -> Result<(), Problem> {
    let list = directive.argument(0);
    let mut parts = list.split([':', ',', ' ', ';']);
    if parts.any(selects) {
        return Ok(());
    }
    Err(directive.problem(format!("ssl_ciphers \"{list}\": no cipher match; name suites of OpenSSL")))
}

/// Tells whether a part of a cipher list may select suites of TLS 1.2. OpenSSL selects those of TLS 1.3 by another
/// list. An unknown name selects nothing, and neither do exclusions (`!`, `-`) and a new order (`+`, `@`).
fn selects(part: &str) -> bool {
    let is_suite = |name: &str| {
        // OpenSSL's names are `ECDHE-RSA-AES128-GCM-SHA256`, newer versions also know IANA's.
        name.contains('-') && name.split('-').all(|word| CIPHER_WORDS.contains(&word))
            || name.contains("_WITH_")
    };
    !part.is_empty() && part.split('+').all(|name| CIPHER_CLASSES.contains(&name) || is_suite(name))
}

fn curves(directive: &Directive) -> Result<(), Problem> {
    let list = directive.argument(0);
    let strangers = list.split([':', '/']).map(|part| part.trim_start_matches(['?', '*', '-']));
    let stranger = strangers.filter(|_| list != "auto").find(|group| !is_group(group));
    match stranger {
        None => Ok(()),
        Some(group) => Err(directive.problem(format!(
            "ssl_ecdh_curve \"{list}\": group '{group}' cannot be set; correct the name, or remove the directive"
        ))),
    }
}

/// Compares without regard to case, as OpenSSL 3.5 does and earlier versions do not.
fn is_group(name: &str) -> bool {
    let lower = name.to_ascii_lowercase();
    GROUPS.contains(&lower.as_str()) || GROUP_FAMILIES.iter().any(|family| lower.starts_with(family))
}

/// Words of suites of all OpenSSL versions.
const CIPHER_WORDS: [&str; 39] = [
    "ADH",
    "AECDH",
    "AES128",
    "AES256",
    "ARIA",
    "ARIA128",
    "ARIA256",
    "CAMELLIA128",
    "CAMELLIA256",
    "CBC",
    "CBC3",
    "CCM",
    "CCM8",
    "CHACHA20",
    "DES",
    "DH",
    "DHE",
    "DSS",
    "ECDH",
    "ECDHE",
    "ECDSA",
    "EDH",
    "EXP",
    "GCM",
    "IDEA",
    "KRB5",
    "MD5",
    "NULL",
    "POLY1305",
    "PSK",
    "RC2",
    "RC4",
    "RSA",
    "SEED",
    "SHA",
    "SHA256",
    "SHA384",
    "SRP",
    "GOST2001",
];

/// Names of sets of suites.
const CIPHER_CLASSES: [&str; 69] = [
    "ALL",
    "COMPLEMENTOFALL",
    "COMPLEMENTOFDEFAULT",
    "DEFAULT",
    "HIGH",
    "MEDIUM",
    "LOW",
    "EXP",
    "EXPORT",
    "EXPORT40",
    "EXPORT56",
    "FIPS",
    "NULL",
    "eNULL",
    "aNULL",
    "kRSA",
    "aRSA",
    "RSA",
    "kDHr",
    "kDHd",
    "kDH",
    "kDHE",
    "kEDH",
    "DH",
    "DHE",
    "EDH",
    "ADH",
    "kECDHr",
    "kECDHe",
    "kECDH",
    "kEECDH",
    "kECDHE",
    "ECDH",
    "ECDHE",
    "EECDH",
    "AECDH",
    "aDSS",
    "DSS",
    "aDH",
    "aECDH",
    "aECDSA",
    "ECDSA",
    "SSLv3",
    "TLSv1",
    "TLSv1.0",
    "TLSv1.2",
    "AES",
    "AES128",
    "AES256",
    "AESGCM",
    "AESCCM",
    "AESCCM8",
    "ARIA",
    "ARIAGCM",
    "ARIA128",
    "ARIA256",
    "CAMELLIA",
    "CAMELLIA128",
    "CAMELLIA256",
    "CHACHA20",
    "3DES",
    "DES",
    "RC4",
    "SEED",
    "MD5",
    "SHA1",
    "SHA",
    "SHA256",
    "SHA384",
];

/// Names of groups, in lower case.
const GROUPS: [&str; 17] = [
    "prime256v1",
    "prime192v1",
    "p-192",
    "p-224",
    "p-256",
    "p-384",
    "p-521",
    "x25519",
    "x448",
    "mlkem512",
    "mlkem768",
    "mlkem1024",
    "x25519mlkem768",
    "secp256r1mlkem768",
    "secp384r1mlkem1024",
    "x448mlkem1024",
    "auto",
];

/// What names of other groups start with, in lower case: OpenSSL has dozens of them.
const GROUP_FAMILIES: [&str; 10] =
    ["secp", "sect", "brainpoolp", "ffdhe", "x25519_", "p256_", "p384_", "gc256", "gc512", "b-"];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_that_openssl_refuses_select_nothing() {
        let selected = |list: &str| list.split([':', ',', ' ']).any(selects);
        for list in
            ["FOO", "", "!aNULL", "high", "TLS_AES_128_GCM_SHA256", "RSA+FOO", "@STRENGTH", "+RSA", "-ALL"]
        {
            assert!(!selected(list), "{list}");
        }
        for list in [
            "FOO:AES128-SHA",
            "HIGH:!aNULL:!MD5",
            "ECDHE+AESGCM:@STRENGTH",
            "kEECDH+aRSA",
            "ECDHE-ECDSA-CHACHA20-POLY1305",
        ] {
            assert!(selected(list), "{list}");
        }
    }

    #[test]
    fn groups_are_known_by_all_their_names() {
        for name in [
            "prime256v1",
            "P-384",
            "secp521r1",
            "X25519",
            "X25519MLKEM768",
            "brainpoolP256r1tls13",
            "ffdhe2048",
        ] {
            assert!(is_group(name), "{name}");
        }
        assert!(!is_group("foo") && !is_group("") && !is_group("curve25519"));
    }
}
