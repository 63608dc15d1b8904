//! Names of cipher suites and TLS versions: IANA's for manifests, OpenSSL's for nginx's configuration and the auth
//! protocol. It is below `tls` and `import`, because both need the table.

use rustls::{CipherSuite, ProtocolVersion};

/// Returns the supported suite with this IANA name.
#[must_use]
pub fn suite(name: &str) -> Option<CipherSuite> {
    SUITES.iter().find(|(_, iana, _)| *iana == name).map(|(suite, ..)| *suite)
}

/// Returns the IANA name of the supported suite with this IANA or OpenSSL name.
#[must_use]
pub fn iana(name: &str) -> Option<&'static str> {
    SUITES.iter().find(|(_, iana, openssl)| *openssl == name || *iana == name).map(|(_, iana, _)| *iana)
}

/// Returns the error message for a name that [`suite`] does not know.
#[must_use]
pub fn unknown(name: &str) -> String {
    if let Some(iana) = iana(&name.to_ascii_uppercase()) {
        return format!("{name:?} is not the IANA name of a cipher suite; use {iana}");
    }
    let known: Vec<_> = SUITES.iter().map(|(_, iana, _)| *iana).collect();
    format!("{name:?} is not a supported cipher suite; use one of {}", known.join(", "))
}

/// Returns OpenSSL's name, as in `Auth-SSL-Cipher`.
#[must_use]
pub fn openssl(suite: CipherSuite) -> String {
    match SUITES.iter().find(|(known, ..)| *known == suite) {
        Some((_, _, openssl)) => (*openssl).to_owned(),
        None => format!("{suite:?}"),
    }
}

/// Returns OpenSSL's name, as in `Auth-SSL-Protocol`; `unknown` for other versions.
#[must_use]
pub fn version(version: ProtocolVersion) -> &'static str {
    match version {
        ProtocolVersion::TLSv1_2 => "TLSv1.2",
        ProtocolVersion::TLSv1_3 => "TLSv1.3",
        _ => "unknown",
    }
}

/// All suites of rustls, with IANA's and OpenSSL's names.
const SUITES: [(CipherSuite, &str, &str); 9] = [
    (CipherSuite::TLS13_AES_256_GCM_SHA384, "TLS_AES_256_GCM_SHA384", "TLS_AES_256_GCM_SHA384"),
    (CipherSuite::TLS13_AES_128_GCM_SHA256, "TLS_AES_128_GCM_SHA256", "TLS_AES_128_GCM_SHA256"),
    (
        CipherSuite::TLS13_CHACHA20_POLY1305_SHA256,
        "TLS_CHACHA20_POLY1305_SHA256",
        "TLS_CHACHA20_POLY1305_SHA256",
    ),
    (
        CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,
        "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384",
        "ECDHE-ECDSA-AES256-GCM-SHA384",
    ),
    (
        CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
        "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256",
        "ECDHE-ECDSA-AES128-GCM-SHA256",
    ),
    (
        CipherSuite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256,
        "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256",
        "ECDHE-ECDSA-CHACHA20-POLY1305",
    ),
    (
        CipherSuite::TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
        "TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384",
        "ECDHE-RSA-AES256-GCM-SHA384",
    ),
    (
        CipherSuite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
        "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256",
        "ECDHE-RSA-AES128-GCM-SHA256",
    ),
    (
        CipherSuite::TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256,
        "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256",
        "ECDHE-RSA-CHACHA20-POLY1305",
    ),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_every_suite_of_the_provider() {
        for supported in rustls::crypto::aws_lc_rs::ALL_CIPHER_SUITES {
            let known = SUITES.iter().any(|(suite, ..)| *suite == supported.suite());
            assert!(known, "{:?}", supported.suite());
        }
    }

    #[test]
    fn an_unknown_suite_is_answered_with_the_known_ones() {
        assert!(suite("TLS_RSA_WITH_RC4_128_MD5").is_none());
        assert!(unknown("TLS_RSA_WITH_RC4_128_MD5").contains("TLS_AES_128_GCM_SHA256"));
    }

    #[test]
    fn a_name_of_openssl_is_answered_with_that_of_iana() {
        let expected = "use TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256";
        for name in ["ECDHE-RSA-AES128-GCM-SHA256", "tls_ecdhe_rsa_with_aes_128_gcm_sha256"] {
            assert_eq!(unknown(name), format!("{name:?} is not the IANA name of a cipher suite; {expected}"));
        }
    }
}
