//! Converts `ssl_ciphers`: finds the supported suites in OpenSSL's list and returns their IANA names.

use crate::net::tls_names;

/// The result of a list.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Ciphers {
    /// IANA names. Suites of TLS 1.3 come first, because OpenSSL's list does not affect them.
    pub(super) suites: Vec<String>,
    /// Parts without an equivalent.
    pub(super) strangers: Vec<String>,
}

/// Reads a list. Ignores nginx's default, and exclusions of suites that are not supported anyway.
pub(super) fn read(list: &str) -> Ciphers {
    let mut found = Ciphers { suites: Vec::new(), strangers: Vec::new() };
    if list == DEFAULT {
        return found;
    }
    for part in list.split([':', ',', ' ']).filter(|part| !part.is_empty()) {
        let excluded = part.strip_prefix(['!', '-']);
        match (tls_names::iana(part), excluded) {
            (Some(iana), _) if !found.suites.iter().any(|name| name == iana) => {
                found.suites.push(iana.to_owned());
            }
            (Some(_), _) => {}
            (None, Some(class)) if NEVER_SPOKEN.contains(&class) => {}
            (None, _) => found.strangers.push(part.to_owned()),
        }
    }
    if found.suites.iter().any(|name| !TLS13.contains(&name.as_str())) {
        found.suites.retain(|name| !TLS13.contains(&name.as_str()));
        found.suites.splice(0..0, TLS13.iter().map(|&name| name.to_owned()));
    }
    found
}

/// nginx's default.
const DEFAULT: &str = "HIGH:!aNULL:!MD5";

const TLS13: [&str; 3] = ["TLS_AES_256_GCM_SHA384", "TLS_AES_128_GCM_SHA256", "TLS_CHACHA20_POLY1305_SHA256"];

/// Classes whose exclusion changes nothing, because none of their suites is supported.
const NEVER_SPOKEN: [&str; 30] = [
    "aNULL", "eNULL", "NULL", "EXPORT", "EXP", "LOW", "MEDIUM", "DES", "3DES", "RC4", "MD5", "PSK", "SRP",
    "DSS", "aDSS", "CAMELLIA", "IDEA", "SEED", "ARIA", "SSLv2", "SSLv3", "kRSA", "RSA", "DH", "DHE", "EDH",
    "kEDH", "ADH", "AECDH", "SHA1",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_mapped_and_what_is_not_spoken_is_named() {
        let read = read("ECDHE-RSA-AES128-GCM-SHA256:DHE-RSA-AES128-GCM-SHA256:!aNULL");
        assert_eq!(read.suites.last().unwrap(), "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256");
        assert_eq!((read.suites.len(), read.strangers), (4, vec!["DHE-RSA-AES128-GCM-SHA256".to_owned()]));
    }

    #[test]
    fn nginxs_default_is_nothing_and_another_class_is_named() {
        assert_eq!(read(DEFAULT), Ciphers { suites: vec![], strangers: vec![] });
        assert_eq!(read("HIGH").strangers, ["HIGH"]);
    }
}
